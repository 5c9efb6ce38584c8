"""What a model was sent and what it answered, in each shape in which spans have said it over the years.

gen_ai.input.messages, gen_ai.output.messages: [{"role", "parts": [{"type", "content"}]}]     since v1.37
gen_ai.user.message, gen_ai.choice: events, their content in the body or the attributes       to v1.36
gen_ai.content.prompt, gen_ai.content.completion: events; gen_ai.prompt, gen_ai.completion    to v1.27
gen_ai.prompt.0.role, gen_ai.completion.0.tool_calls.0.name                                   OpenLLMetry
llm.input_messages.0.message.role, llm.output_messages.0.message.contents.0.*                 OpenInference
an event whose body is {"input": {"messages"}, "output": {"messages"}}                        AWS's exporter
input.value, output.value                                                      where all else is absent
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipelines.readers import values
from pipelines.readers._otlp_attributes import indexed, names_under, parsed
from pipelines.readers._otlp_parts import Message, messages_in, of_openai
from pipelines.readers._otlp_spans import Event, Span

_ROLES = {f"gen_ai.{role}.message": role for role in ("system", "user", "assistant", "tool")}
_OLDER_BODY = "gen_ai.event.content"


@dataclass(frozen=True)
class Told:
    """One side of an exchange, and what of the span it was read from."""

    messages: Sequence[Message] = ()
    names: frozenset[str] = frozenset()
    events: Mapping[int, Event] = field(default_factory=dict)
    """Places of the events that were read, and what is left of them."""


@dataclass(frozen=True)
class Exchange:
    """Both sides of a call of a model."""

    sent: Told
    answers: Told


def exchange_of(span: Span) -> Exchange:
    """Either side from the first source, newest first, that says anything of it."""
    sent = next((told for source in _SENT if (told := source(span)).messages), Told())
    answers = next((told for source in _ANSWERS if (told := source(span)).messages), Told())
    return Exchange(_with_instructions(span, sent), answers)


def is_told(span: Span) -> bool:
    """Whether the span's attributes and events hold messages of a model, values of any span aside."""
    return any(source(span).messages for source in (*_SENT[:-1], *_ANSWERS[:-1]))


def is_result_of_langchain(span: Span) -> bool:
    """Whether an event of the span holds what LangChain's models return, and nothing else returns."""
    return any(
        isinstance(parsed(message.get("content")), Mapping) and "generations" in parsed(message["content"])
        for event in span.events
        for message in _in_body(event, "output")
        if isinstance(message, Mapping)
    )


def _with_instructions(span: Span, sent: Told) -> Told:
    """System instructions come first, unless the messages open with them."""
    key = "gen_ai.system_instructions"
    value = parsed(span.attributes.get(key))
    if value is None:
        return sent
    parts = value if isinstance(value, list) else [value]
    told = messages_in([{"role": "system", "parts": parts}])
    opening = sent.messages[0] if sent.messages else None
    repeated = opening is not None and opening.role == "system" and opening.content == told[0].content
    return Told([*([] if repeated else told), *sent.messages], sent.names | {key}, sent.events)


def _structured(key: str, role: str | None) -> Callable[[Span], Told]:
    def read(span: Span) -> Told:
        value = parsed(span.attributes.get(key))
        is_read = isinstance(value, list | Mapping) and bool(value)
        return Told(messages_in(value, role), frozenset({key})) if is_read else Told()

    return read


def _listed(prefix: str, role: str | None) -> Callable[[Span], Told]:
    def read(span: Span) -> Told:
        found = indexed(span.attributes, prefix).values()
        return Told(
            [_of_fields(each, role) for each in found], frozenset(names_under(span.attributes, prefix))
        )

    return read


def _of_fields(fields: Mapping[str, Any], role: str | None) -> Message:
    """A message from dotted names: of OpenInference (message.content), of OpenLLMetry (content)."""
    rest = {key.removeprefix("message.").removeprefix("prompt."): value for key, value in fields.items()}
    contents = [_below(each, "message_content.") for each in indexed(rest, "contents").values()]
    calls = [_below(_below(each, "tool_call."), "function.") for each in indexed(rest, "tool_calls").values()]
    pieces = [each.get("") for each in indexed(rest, "content").values()]
    rest = values.without(
        rest, {key for name in ("contents", "tool_calls", "content") for key in names_under(rest, name)}
    )
    words = rest.pop("content", None)
    words = rest.pop("text", None) if words is None else words
    if words is None and pieces:
        words = "".join(values.text(each) or "" for each in pieces)
    decoded = parsed(words)
    if isinstance(decoded, list) and decoded and all(isinstance(e, Mapping) and "type" in e for e in decoded):
        words = decoded  # OpenLLMetry writes a list of parts as its JSON text
    if contents and words is None:
        words = contents
    elif contents and [{"type": "text", "text": words}] != contents:
        rest["contents"] = contents
    if name := rest.pop("function_call_name", None):
        calls.append({"name": name, "arguments": rest.pop("function_call_arguments_json", None)})
    return of_openai(
        {**rest, "content": words, "tool_calls": calls or rest.get("tool_calls")}, role or "user"
    )


def _below(fields: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {key.removeprefix(prefix): value for key, value in fields.items()}


def _sent_in_events(span: Span) -> Told:
    messages, left = [], {}
    for place, event in enumerate(span.events):
        if role := _ROLES.get(event.name):
            body, left[place] = _body(event)
            if role == "tool" and "tool_call_id" not in body:
                body = {**values.without(body, {"id"}), "tool_call_id": body.get("id")}
            messages += messages_in([body], role)
        elif event.name == "gen_ai.content.prompt":
            messages += messages_in(event.attributes.get("gen_ai.prompt"), "user")
            left[place] = _left(event, "gen_ai.prompt")
    return Told(messages, events=left)


def _answers_in_events(span: Span) -> Told:
    choices: list[tuple[int, list[Message]]] = []
    left = {}
    for place, event in enumerate(span.events):
        if event.name == "gen_ai.choice":
            body, left[place] = _body(event)
            index = body.get("index")
            message = parsed(body.get("message"))
            inner = dict(message) if isinstance(message, Mapping) else {"content": message}
            merged = {**values.without(body, {"index", "message"}), **inner} if message is not None else body
            choices.append(
                (values.count(index) or 0, messages_in([values.without(merged, {"index"})], "assistant"))
            )
        elif event.name == "gen_ai.content.completion":
            found = messages_in(event.attributes.get("gen_ai.completion"), "assistant")
            choices.append((0, found))
            left[place] = _left(event, "gen_ai.completion")
    ordered = sorted(choices, key=lambda each: each[0])
    return Told([message for _, messages in ordered for message in messages], events=left)


def _body(event: Event) -> tuple[dict[str, Any], Event]:
    """The content of a message's event, and what is left of the event without it."""
    if isinstance(event.body, Mapping):
        return dict(event.body), Event(event.name, event.time, event.attributes, None, event.fields)
    inner = parsed(event.attributes.get(_OLDER_BODY))
    if isinstance(inner, Mapping):
        return dict(inner), _left(event, _OLDER_BODY)
    own = {key: value for key, value in event.attributes.items() if not key.startswith("gen_ai.")}
    words = event.attributes.get("gen_ai.event.content", event.body)
    if words is not None and "content" not in own and "message" not in own:
        own["content"] = words
    return own, _left(event, *own, _OLDER_BODY)


def _left(event: Event, *names: str) -> Event:
    return Event(event.name, event.time, values.without(event.attributes, names), None, event.fields)


def _in_bodies(side: str) -> Callable[[Span], Told]:
    role = "user" if side == "input" else "assistant"

    def read(span: Span) -> Told:
        messages, left = [], {}
        for place, event in enumerate(span.events):
            if found := _in_body(event, side):
                for each in found:
                    result = parsed(each.get("content")) if isinstance(each, Mapping) else None
                    if isinstance(result, Mapping) and "generations" in result:
                        messages += _generations(result)
                    else:
                        messages += messages_in([each], role)
                left[place] = event
        return Told(messages, events=left)

    return read


def _in_body(event: Event, side: str) -> list[Any]:
    """The messages of one side in the body of an event, as AWS's exporter writes it."""
    inner = event.body.get(side) if isinstance(event.body, Mapping) else None
    found = inner.get("messages") if isinstance(inner, Mapping) else None
    return found if isinstance(found, list) else []


def _generations(result: Mapping[str, Any]) -> list[Message]:
    """What LangChain's models return: {"generations": [[{"text", "message": {"tool_calls"}}]]}."""
    listed = result["generations"] if isinstance(result["generations"], list) else []
    found = []
    for each in (one for group in listed for one in (group if isinstance(group, list) else [group])):
        if isinstance(each, Mapping):
            inner = each.get("message")
            inner = dict(inner) if isinstance(inner, Mapping) else {}
            kept = inner.pop("kwargs", None)
            inner |= kept if isinstance(kept, Mapping) else {}
            info = each.get("generation_info")
            found.append(
                {
                    **{key: value for key, value in inner.items() if key in ("tool_calls", "content")},
                    **({"content": each["text"]} if each.get("text") else {}),
                    "finish_reason": info.get("finish_reason") if isinstance(info, Mapping) else None,
                }
            )
    return messages_in(found, "assistant")


def _in_values(key: str, role: str) -> Callable[[Span], Told]:
    """The value of any span: a text, or JSON in which the messages stand in a shape that is known."""

    def read(span: Span) -> Told:
        value = span.attributes.get(key)
        if value is None:
            return Told()
        inner = parsed(value)
        if isinstance(inner, Mapping) and isinstance(inner.get("generations"), list):
            return Told(_generations(inner))
        if isinstance(inner, Mapping) and isinstance(inner.get("choices"), list):
            inner = [
                {**each["message"], "finish_reason": each.get("finish_reason")}
                for each in inner["choices"]
                if isinstance(each, Mapping) and isinstance(each.get("message"), Mapping)
            ]
        if isinstance(inner, Mapping):
            inner = inner["messages"] if isinstance(inner.get("messages"), list) else [inner]
        if isinstance(inner, list) and inner and all(isinstance(e, Mapping) and "role" in e for e in inner):
            return Told(messages_in(inner, role))  # the value stays where it is: it may say more
        return Told(messages_in([{"content": values.text(value)}], role), frozenset({key}))

    return read


_SENT = (
    _structured("gen_ai.input.messages", None),
    _listed("llm.input_messages", None),
    _sent_in_events,
    _listed("gen_ai.prompt", None),
    _listed("llm.prompts", "user"),
    _structured("gen_ai.prompt", "user"),
    _in_bodies("input"),
    _in_values("input.value", "user"),
)
_ANSWERS = (
    _structured("gen_ai.output.messages", "assistant"),
    _listed("llm.output_messages", "assistant"),
    _answers_in_events,
    _listed("gen_ai.completion", "assistant"),
    _listed("llm.completions", "assistant"),
    _structured("gen_ai.completion", "assistant"),
    _in_bodies("output"),
    _in_values("output.value", "assistant"),
)
