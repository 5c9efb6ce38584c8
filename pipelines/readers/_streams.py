"""What a server sent in pieces, put together as the one body it would have sent otherwise.

text     server-sent events ("data: {...}" lines), JSON lines, or one JSON value
events   the JSON objects in it, in order
body     chat.completion, Anthropic message, Cohere answer, Google candidates, Responses response, ...
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.readers import Unreadable, values

_NOISE = {"obfuscation"}  # padding against traffic analysis: another random text in each chunk
_Event = Mapping[str, Any]


def events_of(text: str) -> list[_Event]:
    """The JSON objects of a body that is text. Raises Unreadable where it holds anything else."""
    lines = text.replace("\r\n", "\n").split("\n")  # splitlines() would cut inside of JSON texts
    if any(line.startswith("data:") for line in lines):
        found = [_decoded(data) for data in _data_of(lines) if data.strip() != "[DONE]"]
    else:
        try:
            whole = json.loads(text)
        except ValueError:
            found = [_decoded(line) for line in lines if line.strip()]
        else:
            found = whole if isinstance(whole, list) else [whole]
    if not all(isinstance(value, Mapping) for value in found):
        raise Unreadable("bad_stream", "an event of the stream is no JSON object, expected one")
    return found


def body_of(events: Sequence[_Event]) -> _Event:
    """One body from a stream's events. Raises Unreadable where no known provider streams so."""
    if len(events) == 1 and "delta" not in events[0] and not _is_chunk(events[0]):
        return events[0]
    if failed := next((event for event in events if event.get("error")), None):
        return failed
    kinds = {kind for event in events if isinstance(kind := event.get("type"), str)}
    if "message_start" in kinds:
        return _anthropic(events)
    if "message-start" in kinds:
        return _cohere(events)
    if any(kind.startswith("response.") for kind in kinds):
        return _responses(events)
    for key, put_together in (
        ("choices", completion),
        ("candidates", _google),
        ("done", _ollama),
        ("results", _watsonx),
        ("value", _worded),
    ):
        if any(key in event for event in events):
            return put_together(events)
    raise Unreadable(
        "unknown_stream", f"a stream of events with keys {sorted(events[0] if events else [])[:8]}"
    )


def completion(chunks: Sequence[_Event]) -> dict[str, Any]:
    """A chat.completion (or a text completion) from its chunks.

    Deltas are joined per choice, tool calls per index; of any other field the last value stands.
    """
    body: dict[str, Any] = {}
    choices: dict[str, dict[str, Any]] = {}
    for chunk in chunks:
        _lay_over(body, values.without(chunk, {"choices", *_NOISE}))
        for choice in values.objects_in(chunk, "choices"):
            index = values.count(choice.get("index")) or 0
            so_far = choices.setdefault(str(index), {"index": index})
            delta = values.object_in(choice, "delta")
            # one server repeats each delta as 'message'
            _lay_over(so_far, values.without(choice, {"delta", "message", "text", "logprobs", "index"}))
            if isinstance(text := choice.get("text"), str):
                so_far["text"] = so_far.get("text", "") + text
            if isinstance(choice.get("delta"), Mapping):
                _extend(so_far.setdefault("message", {}), delta)
            if choice.get("logprobs") is not None:
                so_far.setdefault("logprobs", []).append(choice["logprobs"])
    if body.get("usage") is None and isinstance(groq := body.get("x_groq"), Mapping):
        _lay_over(body, {"usage": groq.get("usage")})
    for choice in choices.values():
        message = choice.get("message", {})
        if "text" in choice and not message.get("content"):  # a text completion that ends in an empty delta
            choice.pop("message", None)
        for call in message.get("tool_calls", []):
            call.pop("index")  # its place in the list
    return body | {"choices": [choices[index] for index in sorted(choices, key=int)]}


def _extend(message: dict[str, Any], delta: _Event) -> None:
    calls: list[dict[str, Any]] = message.get("tool_calls", [])
    for piece in values.objects_in(delta, "tool_calls"):
        index = piece.get("index")
        call = next((c for c in calls if index is not None and c["index"] == index), None)
        if call is None:
            call = {"index": index, "type": "function", "function": {"name": "", "arguments": ""}}
            calls.append(call)
        _lay_over(call, values.without(piece, {"index", "function"}))
        _join(call["function"], values.object_in(piece, "function"))
    if calls:
        message["tool_calls"] = calls
    if isinstance(legacy := delta.get("function_call"), Mapping):
        _join(message.setdefault("function_call", {}), legacy)
    for key, value in delta.items():
        if key in ("tool_calls", "function_call"):
            continue
        if isinstance(value, str) and key != "role":
            _join(message, {key: value})
        else:
            _lay_over(message, {key: value})


def _anthropic(events: Sequence[_Event]) -> dict[str, Any]:
    body: dict[str, Any] = {}
    blocks: dict[str, dict[str, Any]] = {}
    for event in events:
        delta, block = values.object_in(event, "delta"), values.object_in(event, "content_block")
        index = values.text(event.get("index")) or "0"
        kind = event.get("type")
        if kind == "message_start":
            body.update(values.object_in(event, "message"))
        elif kind == "content_block_start":
            blocks[index] = dict(block)
        elif kind == "content_block_delta":
            _add_to_block(blocks.setdefault(index, {"type": "text"}), delta)
        elif kind == "message_delta":
            _lay_over(body, delta)
            usage = dict(values.object_in(body, "usage"))
            _lay_over(usage, values.object_in(event, "usage"))
            body["usage"] = usage
    for block in blocks.values():
        if "partial_json" in block:  # arguments that came whole stay an object, as in a body sent at once
            block["input"] = _object_or_text(block.pop("partial_json"))
    return body | {"content": list(blocks.values())}


def _add_to_block(block: dict[str, Any], delta: _Event) -> None:
    for key in ("text", "thinking", "signature", "partial_json"):
        if isinstance(delta.get(key), str):
            _join(block, {key: delta[key]})
    if delta.get("citation") is not None:
        block["citations"] = [*(block.get("citations") or []), delta["citation"]]


def _cohere(events: Sequence[_Event]) -> dict[str, Any]:
    """Pieces are `delta.message`: content and tool_calls are one object there, not a list."""
    body: dict[str, Any] = {}
    message: dict[str, Any] = {}
    blocks: dict[str, dict[str, Any]] = {}
    calls: dict[str, dict[str, Any]] = {}
    for event in events:
        delta = values.object_in(event, "delta")
        said = values.object_in(delta, "message")
        index = values.text(event.get("index")) or "0"
        if event.get("type") in ("message-start", "message-end"):
            _lay_over(body, values.without(event, {"type", "delta"}) | values.without(delta, {"message"}))
            _lay_over(message, values.without(said, {"content", "tool_calls", "citations", "tool_plan"}))
            continue
        if isinstance(content := said.get("content"), Mapping):
            _join(blocks.setdefault(index, {"type": "text"}), values.without(content, {"type"}))
        if isinstance(call := said.get("tool_calls"), Mapping):
            so_far = calls.setdefault(index, {"type": "function", "function": {}})
            _lay_over(so_far, values.without(call, {"function"}))
            _join(so_far["function"], values.object_in(call, "function"))
        if isinstance(plan := said.get("tool_plan"), str):
            _join(message, {"tool_plan": plan})
        if isinstance(cited := said.get("citations"), Mapping):
            message["citations"] = [*message.get("citations", []), cited]
    message["content"] = list(blocks.values())
    if calls:
        message["tool_calls"] = list(calls.values())
    return body | {"message": message}


def _responses(events: Sequence[_Event]) -> _Event:
    """The last event holds all; of a stream that was cut off, the items that were done."""
    bodies = [event["response"] for event in events if isinstance(event.get("response"), Mapping)]
    if not bodies:
        raise Unreadable("bad_stream", "no event has a 'response', expected response.completed")
    if bodies[-1].get("output"):
        return bodies[-1]
    done = [event.get("item") for event in events if event.get("type") == "response.output_item.done"]
    return {**bodies[-1], "output": done}


def _google(events: Sequence[_Event]) -> dict[str, Any]:
    body: dict[str, Any] = {}
    first: dict[str, Any] = {}
    parts: list[Any] = []
    for event in events:
        _lay_over(body, values.without(event, {"candidates"}))
        for candidate in values.objects_in(event, "candidates")[:1]:
            content = values.object_in(candidate, "content")
            parts += values.objects_in(content, "parts")
            _lay_over(first, values.without(candidate, {"content"}))
    return body | {"candidates": [first | {"content": {"role": "model", "parts": parts}}]}


def _ollama(events: Sequence[_Event]) -> dict[str, Any]:
    body: dict[str, Any] = {}
    message: dict[str, Any] = {}
    for event in events:
        _lay_over(body, values.without(event, {"message", "response"}))
        if isinstance(event.get("message"), Mapping):
            _extend(message, event["message"])
        _join(body, {"response": event["response"]} if isinstance(event.get("response"), str) else {})
    return body | ({"message": message} if message else {})


def _watsonx(events: Sequence[_Event]) -> dict[str, Any]:
    """Each event counts anew: tokens in only in the first, tokens out so far."""
    body: dict[str, Any] = {}
    result: dict[str, Any] = {}
    for event in events:
        _lay_over(body, values.without(event, {"results"}))
        for piece in values.objects_in(event, "results")[:1]:
            _join(result, {"generated_text": values.text(piece.get("generated_text")) or ""})
            _lay_over(result, values.without(piece, {"generated_text", "input_token_count"}))
            result["input_token_count"] = (result.get("input_token_count") or 0) + (
                values.count(piece.get("input_token_count")) or 0
            )
    return body | {"results": [result]}


def _worded(events: Sequence[_Event]) -> dict[str, Any]:
    return {"choices": [{"text": "".join(values.text(event.get("value")) or "" for event in events)}]}


def _lay_over(body: dict[str, Any], later: _Event) -> None:
    """Later values stand, but none that says nothing ('' or null) hides one that does."""
    for key, value in later.items():
        if value not in (None, "", 0) or key not in body:
            body[key] = value


def _join(body: dict[str, Any], later: _Event) -> None:
    for key, value in later.items():
        if isinstance(value, str) and isinstance(body.get(key), str):
            body[key] += value
        else:
            _lay_over(body, {key: value})


def _is_chunk(event: _Event) -> bool:
    choices = event.get("choices")
    return isinstance(choices, list) and any(isinstance(c, Mapping) and "delta" in c for c in choices)


def _data_of(lines: Sequence[str]) -> list[str]:
    """The data of each event: consecutive data lines are one."""
    found: list[list[str]] = [[]]
    for line in lines:
        if line.startswith("data:"):
            found[-1].append(line.removeprefix("data:").removeprefix(" "))
        elif not line:
            found.append([])
    return ["\n".join(data) for data in found if data]


def _decoded(data: str) -> Any:
    try:
        return json.loads(data)
    except ValueError as error:
        raise Unreadable("bad_stream", f"an event of the stream is no JSON: {error}") from error


def _object_or_text(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments
