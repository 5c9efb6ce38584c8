"""What a call of a model was sent and what came back, in the shapes in which platforms keep them.

    asked     [messages] | [[messages]] | {"messages"} | {"contents"} | {"input"} | {"prompt"} | text
    answered  {"choices"} | {"generations"} | {"candidates"} | {"output": [items]} | {"messages"} | a message
              | [messages] | {"text", "toolCalls"} | text

A payload of no known shape becomes text, a user's or the model's: `is_known` says so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lineage.schemas import UNSTATED
from pipelines.readers import values
from pipelines.readers._message_shapes import Said, is_message, said, tool_calls


@dataclass(frozen=True)
class Asked:
    """What a model was sent; `rest` are the fields beside the messages: parameters, tools, the model."""

    said: Sequence[Said] = ()
    rest: Mapping[str, Any] = field(default_factory=dict)
    is_known: bool = True

    def messages(self, instructions: str | None = None) -> list[dict[str, Any]]:
        """The column; `instructions` is a system prompt that only the answer tells of."""
        found = list(self.said)
        if instructions and not any(each.role in ("system", "developer") for each in found):
            found.insert(0, Said("system", instructions))
        return [each.as_column() for each in found]


@dataclass(frozen=True)
class Answered:
    """What a model answered; `rest` is what has no column."""

    words: str | None = None
    calls: Sequence[Any] = ()
    finish_reason: str | None = None
    model: str | None = None
    usage: Mapping[str, Any] = field(default_factory=dict)
    instructions: str | None = None
    rest: Mapping[str, Any] = field(default_factory=dict)
    is_known: bool = True


def columns(
    ask: Asked, answer: Answered, *, requested: str | None, answered_by: str | None
) -> dict[str, Any]:
    """The columns of the exchange. `answered_by`: the model of the answer where the answer names none."""
    model = answer.model or answered_by
    return {
        "model_requested": requested or UNSTATED,
        "model_answered": model or UNSTATED,
        "messages": ask.messages(answer.instructions),
        "response": answer.words,
        "response_tool_calls": values.json_text(list(answer.calls) or None),
        "finish_reason": answer.finish_reason,
        **({"generator": model} if model else {}),
    }


def decoded(value: Any) -> Any:
    """A value that may be JSON text of an object or a list; whatever else stays what it is."""
    if not isinstance(value, str) or not value.lstrip().startswith(("{", "[")):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def mapping(value: Any) -> Mapping[str, Any]:
    """An object, or JSON text of one; empty where it is neither."""
    found = decoded(value)
    return found if isinstance(found, Mapping) else {}


def asked(value: Any) -> Asked:
    """The messages of an input."""
    found = decoded(value)
    if found is None:
        return Asked()
    if isinstance(found, list):
        return conversation(found)
    if not isinstance(found, Mapping):
        return Asked([Said("user", values.text(value))], is_known=False)
    if is_message(found):
        return Asked(said(found))
    for key in ("messages", "contents", "input", "prompt", "prompts"):
        inner = decoded(found.get(key))
        if key == "prompts" and isinstance(inner, list):
            inner = [[each] for each in inner]  # a batch: each prompt is a conversation of its own
        if isinstance(inner, list) and inner:
            inside = conversation(inner)
        elif is_message(inner):
            inside = Asked(said(inner))
        elif isinstance(inner, str):
            inside = Asked([Said("user", inner)])
        else:
            continue
        system, rest = _system(values.without(found, {key}))
        return Asked([*system, *inside.said], {**rest, **inside.rest}, inside.is_known)
    (key, only), *more = found.items() or [("", None)]
    if not more and isinstance(only, list) and len(only) == 1:
        only = only[0]  # {"args": ["What is ...?"]}
    if more or not isinstance(only, str):
        return Asked([Said("user", values.text(value))] if found else [], is_known=False)
    return Asked([Said("user", only)], {"input_field": key}, is_known=False)


def answered(value: Any) -> Answered:
    """The answer of an output."""
    found = decoded(value)
    if found is None or isinstance(found, str):
        return Answered(found, is_known=found is None)
    if isinstance(found, list):
        return of_list(found) or Answered(values.text(value), is_known=False)
    if not isinstance(found, Mapping):
        return Answered(values.text(found), is_known=False)
    shaped = _of_object(found)
    if shaped is not None:
        return shaped
    (key, only), *more = found.items() or [("", None)]
    if not more and is_message(only):
        return _of_said(said(only))
    if not more and isinstance(only, str):
        return Answered(only, rest={"output_field": key}, is_known=False)
    return Answered(values.text(value), is_known=False)


def conversation(found: list[Any]) -> Asked:
    """A list of messages, or of several such lists, of which the first is the conversation."""
    if found and isinstance(found[0], list):
        rest = {"other_batches": found[1:]} if found[1:] else {}
        return replace(conversation(found[0]), rest=rest)
    tools = [each["content"] for each in found if _is_tool_definition(each)]  # LangGraph lists them so
    messages = [each for each in found if not _is_tool_definition(each)]
    return Asked(
        [one for each in messages for one in said(each)],
        {"tools": tools} if tools else {},
        is_known=all(is_message(each) for each in messages),
    )


def _is_tool_definition(value: Any) -> bool:
    content = value.get("content") if isinstance(value, Mapping) and value.get("role") == "tool" else None
    return isinstance(content, Mapping) and isinstance(content.get("function"), Mapping)


def _system(rest: dict[str, Any]) -> tuple[list[Said], dict[str, Any]]:
    """The system prompt that stands beside the messages: Anthropic's, Gemini's, that of Responses."""
    for key in ("system", "instructions", "system_instruction", "systemInstruction"):
        if rest.get(key):
            return said(_as_system(rest[key])), values.without(rest, {key})
    config = rest.get("config")
    if isinstance(config, Mapping) and config.get("system_instruction"):
        without = {**rest, "config": values.without(config, {"system_instruction"})}
        return said(_as_system(config["system_instruction"])), without
    return [], rest


def _as_system(value: Any) -> dict[str, Any]:
    parts = value.get("parts") if isinstance(value, Mapping) else value
    return {"role": "system", "content": parts}


def _of_object(found: Mapping[str, Any]) -> Answered | None:
    model = values.text(found.get("model") or found.get("model_version") or found.get("modelVersion"))
    usage = next((found[key] for key in _USAGE if isinstance(found.get(key), Mapping)), {})
    rest = values.without(found, {"model", *_USAGE})
    ended = next((found[key] for key in _ENDED if isinstance(found.get(key), str)), None)
    generations = found.get("generations")
    if isinstance(generations, list) and generations:
        return _generations(generations, found)
    for key in ("choices", "candidates"):
        several = found.get(key)
        if isinstance(several, list) and several and isinstance(several[0], Mapping):
            first = _choice(several[0], key)
            others = {f"other_{key}": several[1:]} if several[1:] else {}
            around = values.without(rest, {key})
            return replace(first, model=model, usage=usage, rest={**around, **first.rest, **others})
    if isinstance(found.get("output"), list) and (items := of_list(found["output"])):
        said_so = found.get("instructions")
        instructions = said_so if isinstance(said_so, str) else None
        rest = {**values.without(rest, {"output"}), **items.rest}
        return replace(items, model=model, usage=usage, instructions=instructions, rest=rest)
    if isinstance(found.get("messages"), list) and (last := _last_answer(found["messages"])):
        return replace(last, model=last.model or model, usage=last.usage or usage)
    if is_message(found):
        around = values.without(rest, {"message"}) if isinstance(found.get("message"), Mapping) else {}
        inner = found["message"] if isinstance(found.get("message"), Mapping) else found
        one = _of_said(said(values.without(inner, {"model", *_USAGE, *_ENDED})))
        rest = {**values.without(around, _ENDED), **one.rest}
        return replace(
            one, model=one.model or model, usage=one.usage or usage, finish_reason=ended, rest=rest
        )
    if is_message(found.get("content")):  # an event of Google's ADK
        one = _of_said(said(found["content"]))
        rest = {**values.without(rest, {"content", *_ENDED}), **one.rest}
        return replace(one, model=model, usage=usage, finish_reason=ended, rest=rest)
    if isinstance(found.get("text"), str) and ("toolCalls" in found or "finishReason" in found):
        calls = tool_calls(found.get("toolCalls"))
        rest = values.without(rest, {"text", "toolCalls", *_ENDED})
        return Answered(found["text"], calls, ended, model, usage, rest=rest)
    return None


_USAGE = ("usage", "usage_metadata", "usageMetadata")
_ENDED = ("finish_reason", "finishReason", "stop_reason")


def _choice(choice: Mapping[str, Any], key: str) -> Answered:
    ended = next((choice[name] for name in _ENDED if isinstance(choice.get(name), str)), None)
    inner = choice.get("message") if key == "choices" else choice.get("content")
    if isinstance(inner, Mapping):
        one = _of_said(said(inner))
    else:
        one = Answered(values.content(choice.get("text")))
    around = values.without(choice, {"message", "content", "text", "index", *_ENDED})
    around = {name: item for name, item in around.items() if item not in (None, {}, [])}
    return replace(one, finish_reason=ended, rest={**one.rest, "choice": around} if around else one.rest)


def _generations(generations: list[Any], found: Mapping[str, Any]) -> Answered:
    """LangChain's LLMResult: a list per prompt of the candidates for it."""
    first = generations[0]
    rest = values.without(found, {"generations", "llm_output"})
    if isinstance(first, list):
        rest |= {"other_batches": generations[1:]} if generations[1:] else {}
        generations, first = first, (first[0] if first else {})
    rest |= {"other_generations": generations[1:]} if generations[1:] else {}
    first = first if isinstance(first, Mapping) else {}
    output, info = mapping(found.get("llm_output")), mapping(first.get("generation_info"))
    message = first.get("message")
    one = _of_said(said(message)) if is_message(message) else Answered(values.text(first.get("text")))
    ended = info.get("finish_reason") or one.finish_reason
    model = output.get("model_name") or output.get("model") or info.get("model_name") or one.model
    usage = mapping(output.get("token_usage") or output.get("usage")) or one.usage
    kept = {"generation_info": values.without(info, {"finish_reason"}), "llm_output": output}
    rest |= {name: item for name, item in kept.items() if item}
    return replace(
        one,
        finish_reason=values.text(ended),
        model=values.text(model),
        usage=usage,
        rest={**rest, **one.rest},
    )


def of_list(found: list[Any]) -> Answered | None:
    """Items of one answer together; of other messages the first, beside it those that were not chosen."""
    if not found:
        return Answered()
    if isinstance(found[0], list):
        return _generations(found, {})
    if not all(is_message(each) for each in found):
        are_parts = all(isinstance(each, str) or _is_part(each) for each in found)
        return _of_said(said({"role": "assistant", "content": found})) if are_parts else None
    if any(each.get("type") in ("function_call", "message", "reasoning") for each in found):
        return _of_said([one for each in found for one in said(each)])
    first, *others = found
    one = _of_said(said(values.without(first, _ENDED)))
    ended = next((first[name] for name in _ENDED if isinstance(first.get(name), str)), one.finish_reason)
    return replace(
        one, finish_reason=ended, rest={**one.rest, **({"other_messages": others} if others else {})}
    )


def _is_part(value: Any) -> bool:
    """Is it a part of Anthropic's or Vercel's content?"""
    kinds = ("text", "tool_use", "tool-call", "thinking", "redacted_thinking", "reasoning")
    return isinstance(value, Mapping) and value.get("type") in kinds


def _last_answer(messages: list[Any]) -> Answered | None:
    if messages and isinstance(messages[0], list):
        messages = messages[0]
    spoken = [one for each in messages if is_message(each) for one in said(each)]
    answers = [one for one in spoken if one.role == "assistant"]
    if not answers:
        return None
    others = [one.as_column() for one in spoken if one is not answers[-1]]
    last = _of_said([answers[-1]])
    return replace(last, rest={**last.rest, **({"other_messages": others} if others else {})})


def _of_said(spoken: Sequence[Said]) -> Answered:
    """One answer from its messages; LangChain's say the model and the usage in their extra."""
    words = [each.words for each in spoken if each.words is not None]
    extra: dict[str, Any] = {}
    for each in spoken:
        extra |= each.extra
    about, usage = mapping(extra.get("response_metadata")), mapping(extra.get("usage_metadata"))
    ended = about.get("finish_reason") or about.get("stop_reason")
    model = about.get("model_name") or about.get("model")
    return Answered(
        "".join(words) if words else None,
        [call for each in spoken for call in each.calls],
        values.text(ended),
        values.text(model),
        usage or mapping(about.get("token_usage") or about.get("usage")),
        rest={"message": extra} if extra else {},
    )
