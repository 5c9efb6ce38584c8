"""Events of OpenHands as messages: what users and agents said, which tools were called, what came of it.

action "message", of the user or the agent     -> "user" or "assistant"
action "system"                                -> "system"
any other action of the agent                  -> "assistant" with a tool call
observation                                    -> "tool"
changes of state, recalls, empty observations  -> no message

Where an event keeps the model's own reply (tool_call_metadata.model_response), that is the answer, and events
of one reply are one answer; elsewhere it is put together from the action's thought and arguments.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipelines.readers import values

_QUIET = {
    "agent_state_changed",
    "change_agent_state",
    "condensation",
    "condensation_request",
    "null",
    "recall",
}
_ON_EVENT = {"id", "timestamp", "source", "message", "action", "observation", "cause", "timeout", "args"}
_ON_EVENT |= {"tool_call_metadata", "llm_metrics", "content", "extras", "success"}
# Of a call's arguments, those that the runtime adds to what the model said.
_RUNTIME = {"thought", "action_risk", "security_risk", "is_confirmed", "confirmation_state", "hidden"}
_RUNTIME |= {"blocking", "keep_prompt", "kernel_init_code", "include_extra", "impl_source", "timeout"}


@dataclass
class Turn:
    """One message, the events that it was made of, and the model's reply where they keep it."""

    message: dict[str, Any]
    reply: Mapping[str, Any] = field(default_factory=dict)


def turns_of(events: Sequence[Any]) -> tuple[list[Turn], list[Any]]:
    """The turns, and the events that are none."""
    groups: list[tuple[str, list[Mapping[str, Any]], Mapping[str, Any]]] = []
    answered: dict[str, list[Mapping[str, Any]]] = {}  # id of a reply, to the events of its answer
    others: list[Any] = []
    for event in events:
        role = _role(event)
        if role is None:
            others.append(values.by_reference(event))
            continue
        reply = _reply(event) if role == "assistant" else {}
        reply_id = reply.get("id")
        if isinstance(reply_id, str) and reply_id in answered:
            answered[reply_id].append(event)
            continue
        groups.append((role, [event], reply))
        if isinstance(reply_id, str):
            answered[reply_id] = groups[-1][1]
    told = answered.keys()
    return [Turn(_message(role, group, reply, told), reply) for role, group, reply in groups], others


def choice_of(reply: Mapping[str, Any]) -> Mapping[str, Any]:
    """The first choice of a model's reply."""
    choices = reply.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    return choice if isinstance(choice, Mapping) else {}


def _role(event: Any) -> str | None:
    if not isinstance(event, Mapping):
        return None
    action, observation, source = event.get("action"), event.get("observation"), event.get("source")
    if isinstance(observation, str):
        return None if observation in _QUIET else "tool"
    if not isinstance(action, str) or action in _QUIET or source == "environment":
        return None
    if action == "system":
        return "system"
    if source == "user":
        return "user"
    if action == "message" and source is None:  # without a source: an agent waits for the answer, a user not
        return "assistant" if _arguments(event).get("wait_for_response") is True else "user"
    return "assistant"


def _message(
    role: str, events: Sequence[Mapping[str, Any]], reply: Mapping[str, Any], answered: Collection[str]
) -> dict[str, Any]:
    event, arguments = events[0], _arguments(events[0])
    if role == "tool":
        call = _metadata(event).get("tool_call_id")
        call = event.get("cause") if call is None else call
        extra = {"event": _rest(event, {"content"})}
        if (answer := _reply(event)) and not _is_told(answer, answered):
            extra["model_response"] = values.by_reference(answer)
        return values.said(
            "tool", values.text(event.get("content")), tool_call_id=values.text(call), extra=extra
        )
    answer = choice_of(reply).get("message")
    if isinstance(answer, Mapping):
        extra = values.without(answer, {"role", "content", "tool_calls"})
        extra = {"message": kept} if (kept := {k: v for k, v in extra.items() if v is not None}) else {}
        extra |= {"events": [_rest(each, set()) for each in events]}
        extra |= {"model_response": values.without(reply, {"choices"})}
        return values.said(
            role,
            values.content(answer.get("content")),
            tool_calls=answer.get("tool_calls") or None,
            extra=extra,
        )
    is_said = event.get("action") in ("message", "system")
    words = arguments.get("content") if is_said else arguments.get("thought")
    words = event.get("message") if words in (None, "") and role == "user" else words
    calls = None
    if role == "assistant" and not is_said:
        made = {key: value for key, value in arguments.items() if key not in _RUNTIME}
        calls = [values.tool_call(values.text(event.get("id")), event["action"], made)]
    extra = {"events": [_rest(event, {"content"} if is_said else {"thought"})]}
    words = values.text(words) if role != "assistant" else values.text(words) or None
    return values.said(role, words, tool_calls=calls, extra=extra)


def _is_told(reply: Mapping[str, Any], answered: Collection[str]) -> bool:
    return isinstance(reply.get("id"), str) and reply["id"] in answered


def _rest(event: Mapping[str, Any], told: set[str]) -> dict[str, Any]:
    """An event without what its message says of it; the model's reply is told once, with the answer."""
    rest = {key: item for key, item in event.items() if key not in told and item is not None}
    if isinstance(event.get("args"), Mapping):
        rest["args"] = values.without(event["args"], told)
    if _metadata(event):
        rest["tool_call_metadata"] = values.without(_metadata(event), {"model_response"})
    return values.by_reference(rest)


def _arguments(event: Mapping[str, Any]) -> Mapping[str, Any]:
    """An action's arguments; some versions write them beside its name."""
    arguments = event.get("args")
    return arguments if isinstance(arguments, Mapping) else values.without(event, _ON_EVENT - {"content"})


def _metadata(event: Mapping[str, Any]) -> Mapping[str, Any]:
    return values.inner(event, "tool_call_metadata")


def _reply(event: Mapping[str, Any]) -> Mapping[str, Any]:
    return values.inner(_metadata(event), "model_response")
