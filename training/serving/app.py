"""The endpoints: POST /v1/chat/completions, GET /v1/models, GET /health.

Every error has OpenAI's shape. A page of another site can ask nothing: bodies must be JSON, whose sending a
browser asks us about first, and a server on this machine alone answers to this machine's names alone.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from infra.runtime import Runtime
from training.serving import exchange
from training.serving.desk import Desk
from training.serving.requests import Limits, Refused, understood

LOOPBACK = ("127.0.0.1", "localhost", "::1")
TRACE_HEADER = "X-Stemma-Trace"


def make_app(
    runtime: Runtime,
    desk: Desk,
    *,
    reference: str,
    limits: Limits,
    api_key: str = "",
    only_here: bool = True,
    close: Callable[[], None] = lambda: None,
) -> FastAPI:
    """The application. `close` is called when no request is under way any more.

    `api_key`: what a client must send as its bearer token; empty asks for none.
    `only_here`: answer only who calls this machine by its own name.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(close)

    app = FastAPI(title="stemma serve", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)

    def require_host(request: Request) -> None:
        host = (request.headers.get("host") or "").lower()
        name = host.rpartition(":")[0] if ":" in host and not host.endswith("]") else host
        if only_here and name.strip("[]") not in LOOPBACK:
            raise Refused("this server answers to its own machine's names alone", status=403, code="host")

    def is_known(request: Request) -> bool:
        scheme, _, given = (request.headers.get("authorization") or "").partition(" ")
        has_key = scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), api_key.encode())
        return has_key or not api_key

    def require_entry(request: Request) -> None:
        require_host(request)
        if not is_known(request):
            raise Refused("no bearer token, or another than expected", status=401, code="invalid_api_key")

    @app.post("/v1/chat/completions")
    async def completions(request: Request) -> Response:
        require_entry(request)
        body = await _body(request, limits)
        trace = f"chatcmpl-{secrets.token_hex(12)}"
        question = understood(body, id=trace, created=int(runtime.now().timestamp()), limits=limits)
        _require_model(question.request["model"], desk, reference)
        answered = await asyncio.wrap_future(desk.ask(question))
        headers = {TRACE_HEADER: trace}
        if question.is_stream:
            events = exchange.stream(question, answered)
            return StreamingResponse(events, media_type="text/event-stream", headers=headers)
        return JSONResponse(answered, headers=headers)

    @app.get("/v1/models")
    async def models(request: Request) -> dict[str, Any]:
        require_entry(request)
        now = int(runtime.now().timestamp())
        served = desk.served
        names = [] if served is None else list(dict.fromkeys([reference, str(served.version)]))
        told = [{"id": name, "object": "model", "created": now, "owned_by": "stemma"} for name in names]
        return {"object": "list", "data": told}

    @app.get("/health")
    async def health(request: Request) -> JSONResponse:
        require_host(request)
        served = desk.served
        if not is_known(request):  # a balancer without the token: whether it answers, and no more
            return JSONResponse(
                {"status": "ok" if served else "no_model"}, status_code=200 if served else 503
            )
        if served is None:
            return JSONResponse({"status": "no_model", "why": desk.why_none}, status_code=503)
        status = "not_logging" if desk.unlogged else "ok"
        return JSONResponse({"status": status, "model": str(served.version), "unlogged": desk.unlogged})

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> JSONResponse:
        headers = {"Retry-After": "1"} if error.status in (429, 503) else {}
        return JSONResponse(exchange.refusal_body(error), status_code=error.status, headers=headers)

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> JSONResponse:
        said = f"{request.method} {request.url.path}: {error.detail}; there are POST /v1/chat/completions, "
        said += "GET /v1/models and GET /health"
        told = exchange.error_body(said, kind="invalid_request_error")
        return JSONResponse(told, status_code=error.status_code, headers=error.headers)

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> JSONResponse:
        told = exchange.error_body("the model gave no answer; the server's log says why", kind="server_error")
        return JSONResponse(told, status_code=500)

    return app


async def _body(request: Request, limits: Limits) -> bytes:
    """The body, read no further than may be. Raises Refused."""
    kind = (request.headers.get("content-type") or "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refused(f"the content type is '{kind[:40]}', expected application/json", status=415)
    read = bytearray()
    async for piece in request.stream():
        read += piece
        if len(read) > limits.max_body_bytes:
            raise Refused(f"the body has more than {limits.max_body_bytes} bytes", status=413)
    return bytes(read)


def _require_model(asked: str, desk: Desk, reference: str) -> None:
    served = desk.served
    if served is None or asked in (reference, served.version.name, str(served.version)):
        return
    raise Refused(
        f"model '{asked[:80]}' is not served here; ask for '{reference}' or '{served.version}'",
        status=404,
        code="model_not_found",
        param="model",
    )
