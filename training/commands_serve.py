"""`stemma serve`: an alias over HTTP, and its traffic into the lake."""

from __future__ import annotations

import logging
import socket
from pathlib import Path
from typing import Annotated

import typer

from infra.cli import Lake, existing
from infra.runtime import Runtime
from infra.settings import named_secret
from training.serving.requests import Limits, ServingError

log = logging.getLogger("stemma.serve")

_ENGINES = ("own", "vllm", "transformers")


def serve(
    model: Annotated[str, typer.Argument(help="An alias, which is followed, or NAME@VERSION.")] = "champion",
    host: Annotated[str, typer.Option(help="Where to listen; all but this machine's need --api-key-env.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="0 takes a free one, and says which.")] = 8643,
    api_key_env: Annotated[
        str | None, typer.Option(metavar="NAME", help="Variable that holds the bearer token asked for.")
    ] = None,
    engine: Annotated[
        str, typer.Option(help="own; or vllm, transformers: a decoder behind their servers.")
    ] = "own",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    traffic: Annotated[
        str | None, typer.Option(help="Folder of the traffic log, instead of the lake's 'traffic'.")
    ] = None,
    max_tokens: Annotated[int, typer.Option(help="Most tokens of an answer.")] = Limits.max_tokens,
    max_waiting: Annotated[int, typer.Option(help="Most questions that wait.")] = Limits.max_waiting,
    poll_s: Annotated[float, typer.Option(help="Seconds between two looks at the alias.")] = 2.0,
    lake: Lake = None,
) -> int:
    """Answer as OpenAI's chat completions do, with whatever the alias stands on, until it is ended.

    Example: stemma serve champion --port 8643
    """
    settings = existing(lake)
    if engine not in _ENGINES:
        raise ServingError(f"--engine '{engine}' is not one of: {', '.join(_ENGINES)}")
    if device != "cpu" and device != "cuda":
        raise ServingError(f"--device '{device}' is not one of: cpu, cuda")
    if min(max_tokens, max_waiting) < 1 or poll_s <= 0:
        raise ServingError("--max-tokens, --max-waiting and --poll-s must be more than 0")
    if traffic is None and not settings.is_local:
        raise ServingError(
            f"lake '{settings.shown_lake}' is an object store, to which no line can be appended; "
            "name a folder with --traffic, and ingest from there"
        )
    uvicorn = _uvicorn()
    from training.serving import Desk, Follower, TrafficLog, load_served
    from training.serving.app import LOOPBACK, make_app
    from training.serving.engines import Engines

    key = _api_key(api_key_env, is_open=host not in LOOPBACK)
    limits = Limits(max_tokens=max_tokens, max_waiting=max_waiting)
    runtime = Runtime(settings)
    bound = _bind(host, port)  # a taken port is told before anything is loaded
    folder = Path(traffic) if traffic else Path(settings.path("traffic"))
    lines = TrafficLog(folder, model, began=runtime.now())
    engines = None if engine == "own" else Engines(runtime, engine)
    if engines is not None:
        engines.program()
    desk = Desk(lines, limits)
    follower = Follower(
        settings,
        model,
        desk,
        engines.load
        if engines
        else lambda checkpoint, version: load_served(runtime, checkpoint, version, device=device),
    )

    def close() -> None:
        follower.stop()
        desk.close()
        lines.close()

    try:
        version = follower.begin()
        listening = _listen(bound)  # an open port means that it answers
        follower.follow(every_s=poll_s)
        app = make_app(
            runtime,
            desk,
            reference=model,
            limits=limits,
            api_key=key,
            only_here=host in LOOPBACK,
            close=close,
        )
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=30
        )
        shown = f"[{host}]" if ":" in host else host
        print(f"{version} answers at http://{shown}:{listening.getsockname()[1]}/v1", flush=True)
        log.info("serve: traffic goes to %s; read it with: stemma ingest '%s/*.jsonl'", folder, folder)
        uvicorn.Server(config).run(sockets=[listening])
    finally:
        bound.close()
        close()
    return 0


def _uvicorn():
    try:
        import fastapi  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise ServingError(f"'{error.name}' is not installed; run: pip install 'stemma[serve]'") from error
    return uvicorn


def _api_key(name: str | None, *, is_open: bool) -> str:
    key = named_secret(name) if name else ""
    if name and not key:
        raise ServingError(f"environment variable {name}, which --api-key-env names, is not set")
    if is_open and not key:
        raise ServingError("a server that other machines reach asks for a token; name it with --api-key-env")
    return key


def _bind(host: str, port: int) -> socket.socket:
    """A socket that has its address, and refuses who comes until it listens."""
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if bound.family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind((host, port))
    except (OSError, OverflowError) as error:
        bound.close()
        raise _not_served(f"{host}:{port}", error) from error
    return bound


def _listen(bound: socket.socket) -> socket.socket:
    try:
        bound.listen(256)
    except OSError as error:  # another program bound it, too, and was quicker
        raise _not_served("{}:{}".format(*bound.getsockname()[:2]), error) from error
    return bound


def _not_served(place: str, error: Exception) -> ServingError:
    return ServingError(f"{place} cannot be served ({error}); choose another with --port")
