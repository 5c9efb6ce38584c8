"""Question and answer in OpenAI's shape: the response, its stream, the line of the log, an error."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from lineage.models import ModelVersion
from training.serving.requests import Question, Refused
from training.serving.served import Answer


def response(question: Question, answer: Answer, version: ModelVersion) -> dict[str, Any]:
    """A chat.completion: `model` is who answered, `id` the trace."""
    choice: dict[str, Any] = {
        "index": 0,
        "message": {"role": "assistant", "content": answer.text},
        "finish_reason": answer.finish_reason,
    }
    if answer.confidence is not None:
        sure = round(math.log(max(answer.confidence, 1e-9)), 6)
        choice["logprobs"] = {"content": [{"token": answer.text, "logprob": sure}]}
    return {
        "id": question.id,
        "object": "chat.completion",
        "created": question.created,
        "model": str(version),
        "choices": [choice],
        "usage": {
            "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": answer.completion_tokens,
            "total_tokens": answer.prompt_tokens + answer.completion_tokens,
        },
    }


def stream(question: Question, body: Mapping[str, Any]) -> Iterator[bytes]:
    """The response as server-sent events: the whole answer in one chunk, its end, and [DONE]."""
    (choice,) = body["choices"]
    head = {name: body[name] for name in ("id", "created", "model")} | {"object": "chat.completion.chunk"}
    said = {key: value for key, value in choice.items() if key not in ("message", "finish_reason")}
    deltas = [
        {"choices": [{**said, "delta": choice["message"], "finish_reason": None}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}]},
    ]
    if (question.request.get("stream_options") or {}).get("include_usage"):
        deltas.append({"choices": [], "usage": body["usage"]})
    for delta in deltas:
        yield b"data: " + orjson.dumps(head | delta) + b"\n\n"
    yield b"data: [DONE]\n\n"


def line(question: Question, body: Mapping[str, Any]) -> bytes:
    """The exchange as the log has it, and as the reader `chat_completions` knows it."""
    return _line({"id": question.id, "request": question.request, "response": body})


def failed_line(question: Question, version: ModelVersion) -> bytes:
    """A question that a model failed at: a trace without an answer. What went wrong stays in our own log."""
    error = {"message": f"{version} gave no answer", "type": "server_error"}
    return _line({"id": question.id, "request": question.request, "error": error})


def _line(record: Mapping[str, Any]) -> bytes:
    return orjson.dumps(record) + b"\n"


def error_body(message: str, *, kind: str, param: str = "", code: str = "") -> dict[str, Any]:
    """An error as OpenAI's clients read it."""
    told = {"message": message, "type": kind, "param": param or None, "code": code or None}
    return {"error": told}


def refusal_body(refused: Refused) -> dict[str, Any]:
    """What a client is told of its mistake."""
    kinds = {401: "authentication_error", 429: "rate_limit_error", 503: "server_error", 500: "server_error"}
    kind = kinds.get(refused.status, "invalid_request_error")
    return error_body(str(refused), kind=kind, param=refused.param, code=refused.code)
