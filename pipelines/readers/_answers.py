"""What a model answered, read from the body a provider sent: which provider is seen from the body's shape.

{"choices": [{"message"}]}            chat completions: OpenAI, Azure, Mistral, Groq, Together, vLLM, ...
{"object": "response", "output": []}  OpenAI responses
{"type": "message", "content": []}    Anthropic, Bedrock's Claude
{"output": {"message"}}               Bedrock converse, Nova
{"candidates": [{"content"}]}         Gemini
{"message": {...}}                    Cohere, Ollama
texts                                 whatever completes a prompt: see _TEXTS
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lineage.schemas import UNSTATED
from pipelines.readers import Unreadable, values
from pipelines.readers._blocks import Pieces, pieces, said_also
from pipelines.readers._exchange_fields import KNOWN

_Body = Mapping[str, Any]


@dataclass(frozen=True)
class Answer:
    """An answer in the shape of columns."""

    key: str | None = None
    model: str | None = None
    at: dt.datetime | None = None
    text: str | None = None
    tool_calls: str | None = None
    """JSON text."""
    finish_reason: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    rest: Mapping[str, Any] = field(default_factory=dict)
    """What has no column, by where it came from; empty parts among it."""

    def columns(self) -> dict[str, Any]:
        """The columns that an answer fills; `generator` is the model that says it answered."""
        return {
            "trace_key": self.key or UNSTATED,
            "happened_at": self.at,
            "model_answered": self.model or UNSTATED,
            "response": self.text,
            "response_tool_calls": self.tool_calls,
            "finish_reason": self.finish_reason,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "generator": self.model or None,
        }


def answer(body: _Body) -> Answer | None:
    """The answer in a body; None where none of the shapes above is seen (embeddings, images, an error)."""
    for is_shown, read in _SHAPES:
        if is_shown(body):
            return read(body)
    return None


def chat(body: _Body) -> Answer:
    """The answer of a chat.completion: its first choice. Raises Unreadable where there is none."""
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], Mapping):
        raise Unreadable("no_choice", "the response has no 'choices', expected at least one")
    choice = choices[0]
    message, usage = values.object_in(choice, "message"), values.object_in(body, "usage")
    at = values.moment(body.get("created"))
    asked, told = (values.count(usage.get(name)) for name in ("prompt_tokens", "completion_tokens"))
    return Answer(
        key=values.text(body.get("id")),
        model=values.text(body.get("model")),
        at=at,
        text=values.content(message.get("content")),
        tool_calls=values.json_text(values.tool_calls(message.get("tool_calls"))),
        finish_reason=values.text(choice.get("finish_reason")),
        input_tokens=asked,
        output_tokens=told,
        rest={
            "unread": values.unread(
                created=(body.get("created"), at),
                prompt_tokens=(usage.get("prompt_tokens"), asked),
                completion_tokens=(usage.get("completion_tokens"), told),
            ),
            "response": values.without(body, KNOWN["response"]),
            "choice": values.without(choice, KNOWN["choice"]),
            "message": values.without(message, KNOWN["message"]) | values.beyond_text(message.get("content")),
            "other_choices": choices[1:],
            "usage": values.without(usage, KNOWN["usage"]),
        },
    )


def _responses(body: _Body) -> Answer:
    found, usage = Pieces(), values.object_in(body, "usage")
    for item in values.objects_in(body, "output"):
        if item.get("type") == "message":
            said = pieces(item.get("content"))
            found.texts += said.texts
            found.rest += [*said.rest, said_also(item, {"type", "role", "content"})]
        elif item.get("type") == "function_call":
            call = values.tool_call(values.text(item.get("call_id")), item.get("name"), item.get("arguments"))
            found.calls.append(call)
            found.rest.append(said_also(item, {"type", "call_id", "name", "arguments"}))
        else:  # reasoning, searches, ...
            found.rest.append(values.by_reference(item))
    why = values.object_in(body, "incomplete_details").get("reason")
    return Answer(
        key=values.text(body.get("id")),
        model=values.text(body.get("model")),
        at=values.moment(body.get("created_at")),
        text=found.text,
        tool_calls=found.tool_calls,
        finish_reason=values.text(why or body.get("status")),
        input_tokens=values.count(usage.get("input_tokens")),
        output_tokens=values.count(usage.get("output_tokens")),
        rest={
            "response": said_also(body, {"id", "model", "created_at", "output", "usage"}),
            "output": [item for item in found.rest if item],
            "usage": values.without(usage, {"input_tokens", "output_tokens", "total_tokens"}),
        },
    )


def _anthropic(body: _Body) -> Answer:
    found, usage = pieces(body.get("content")), values.object_in(body, "usage")
    return Answer(
        key=values.text(body.get("id")),
        model=values.text(body.get("model")),
        text=found.text,
        tool_calls=found.tool_calls,
        finish_reason=values.text(body.get("stop_reason")),
        input_tokens=values.count(usage.get("input_tokens")),
        output_tokens=values.count(usage.get("output_tokens")),
        rest={
            "response": said_also(body, {"id", "model", "type", "role", "content", "stop_reason", "usage"}),
            "content": found.rest,
            "usage": values.without(usage, {"input_tokens", "output_tokens"}),
        },
    )


def _converse(body: _Body) -> Answer:
    output, usage = values.object_in(body, "output"), values.object_in(body, "usage")
    message = values.object_in(output, "message")
    found = pieces(message.get("content"))
    return Answer(
        text=found.text,
        tool_calls=found.tool_calls,
        finish_reason=values.text(body.get("stopReason")),
        input_tokens=values.count(usage.get("inputTokens")),
        output_tokens=values.count(usage.get("outputTokens")),
        rest={
            "response": said_also(body, {"output", "stopReason", "usage"}),
            "output": values.without(output, {"message"}),
            "message": values.without(message, {"role", "content"}),
            "content": found.rest,
            "usage": values.without(usage, {"inputTokens", "outputTokens", "totalTokens"}),
        },
    )


def _google(body: _Body) -> Answer:
    candidates, usage = values.objects_in(body, "candidates"), values.object_in(body, "usageMetadata")
    first = candidates[0] if candidates else {}
    found = pieces(values.object_in(first, "content").get("parts"))
    return Answer(
        key=values.text(body.get("responseId")),
        model=values.text(body.get("modelVersion")),
        at=values.moment(body.get("createTime")),
        text=found.text,
        tool_calls=found.tool_calls,
        finish_reason=values.text(first.get("finishReason")),
        input_tokens=values.count(usage.get("promptTokenCount")),
        output_tokens=values.count(usage.get("candidatesTokenCount")),
        rest={
            "response": said_also(
                body, {"responseId", "modelVersion", "createTime", "candidates", "usageMetadata"}
            ),
            "candidate": values.without(first, {"content", "finishReason", "index"}),
            "content": found.rest,
            "other_candidates": candidates[1:],
            "usage": values.without(usage, {"promptTokenCount", "candidatesTokenCount"}),
        },
    )


def _message(body: _Body) -> Answer:
    """Cohere and Ollama: one message at the top; Ollama's tool calls hold their arguments as objects."""
    message, usage = values.object_in(body, "message"), values.object_in(body, "usage")
    tokens = values.object_in(usage, "tokens")
    found = pieces(message.get("content"))
    for call in values.objects_in(message, "tool_calls"):
        function = values.object_in(call, "function")
        found.calls.append(
            values.tool_call(values.text(call.get("id")), function.get("name"), function.get("arguments"))
        )
    read = {"id", "model", "created_at", "message", "finish_reason", "done_reason", "usage"}
    return Answer(
        key=values.text(body.get("id")),
        model=values.text(body.get("model")),
        at=values.moment(body.get("created_at")),
        text=found.text,
        tool_calls=found.tool_calls,
        finish_reason=values.text(body.get("finish_reason") or body.get("done_reason")),
        input_tokens=values.count(tokens.get("input_tokens", body.get("prompt_eval_count"))),
        output_tokens=values.count(tokens.get("output_tokens", body.get("eval_count"))),
        rest={
            "response": said_also(body, read | {"prompt_eval_count", "eval_count"}),
            "message": values.without(message, {"role", "content", "tool_calls"}),
            "content": found.rest,
            "usage": values.without(usage, {"tokens"}),
        },
    )


_LISTS = ("choices", "completions", "generations", "outputs", "results")  # of texts
_TEXTS = ("text", "outputText", "generated_text", "generation", "completion", "response")
_WHY = ("finish_reason", "finishReason", "stop_reason", "completionReason", "done_reason")
_TOKENS_IN = ("prompt_token_count", "input_token_count", "inputTextTokenCount", "num_tokens_prompt_total")
_TOKENS_IN += ("prompt_eval_count", "prompt_tokens")
_TOKENS_OUT = ("generation_token_count", "generated_token_count", "tokenCount", "num_tokens_generated")
_TOKENS_OUT += ("eval_count", "completion_tokens")


def _text(body: _Body) -> Answer:
    """A completed prompt: OpenAI, Together, Writer, Cohere, AI21, Titan, Llama, watsonx, Ollama, ..."""
    name = next((key for key in _LISTS if key in body), None)
    several = values.objects_in(body, name) if name else []
    first: _Body = several[0] if several else body
    usage = values.object_in(body, "usage")
    if isinstance(first.get("data"), Mapping):  # AI21
        first = {**values.object_in(first, "data"), **values.without(first, {"data"})}
    why = _first(_WHY, first, body)
    read = {"id", "model", "model_id", "created", "created_at", "usage", name, *_TEXTS, *_WHY}
    read |= {*_TOKENS_IN, *_TOKENS_OUT}
    return Answer(
        key=values.text(body.get("id")),
        model=values.text(body.get("model") or body.get("model_id")),
        at=values.moment(body.get("created") or body.get("created_at")),
        text=values.text(_first(_TEXTS, first)),
        finish_reason=values.text(why.get("reason") if isinstance(why, Mapping) else why),
        input_tokens=values.count(_first(_TOKENS_IN, first, body, usage)),
        output_tokens=values.count(_first(_TOKENS_OUT, first, body, usage)),
        rest={
            "response": said_also(body, read),
            "choice": values.without(first, {"index", *read} - {"id"}) if several else None,
            "other_choices": several[1:],
            "usage": values.without(usage, {"prompt_tokens", "completion_tokens", "total_tokens"}),
        },
    )


def _first(keys: tuple[str, ...], *where: _Body) -> Any:
    return next((found[key] for found in where for key in keys if found.get(key) is not None), None)


def _holds(body: Any, key: str, kind: type) -> bool:
    return isinstance(body, Mapping) and isinstance(body.get(key), kind)


def _head(body: _Body, key: str) -> Any:
    found = body.get(key)
    return found[0] if isinstance(found, list) and found else None


def _is_text(body: _Body) -> bool:
    heads = [_head(body, key) for key in _LISTS]
    heads += [head.get("data") for head in heads if isinstance(head, Mapping)]
    return any(_holds(where, key, str) for where in (body, *heads) for key in _TEXTS)


_SHAPES: tuple[tuple[Callable[[_Body], bool], Callable[[_Body], Answer]], ...] = (
    (lambda body: _holds(_head(body, "choices"), "message", Mapping), chat),
    (lambda body: body.get("object") == "chat.completion" and bool(_head(body, "choices")), chat),  # filtered
    (lambda body: body.get("object") == "response" and _holds(body, "output", list), _responses),
    (lambda body: body.get("type") == "message" and _holds(body, "content", list), _anthropic),
    (lambda body: _holds(body.get("output"), "message", Mapping), _converse),
    (lambda body: _holds(body, "candidates", list), _google),
    (lambda body: _holds(body, "message", Mapping), _message),
    (_is_text, _text),
)
