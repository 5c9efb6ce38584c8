"""Whether a model calls the right tool with the right arguments.

A call is JSON in one of the forms in use: `{"name": ..., "arguments": {...}}`, the same beneath `function`
(as OpenAI's API writes it, where the arguments are JSON within a string), a list of calls, or an object with
`tool_calls`. Calls of one turn run side by side, so their order does not count, but their number does.

Arguments are equal as JSON values: the order of keys does not matter, that of a list does; 1 and 1.0 are one
number, as JSON has only one kind; true is no number, "1" is none either, and null is not the same as absent.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from training.recipe import TrainingError


@dataclass(frozen=True)
class ToolCall:
    """One call: which tool, and with which arguments."""

    name: str
    arguments: Mapping[str, Any]


def parse_calls(text: str) -> tuple[ToolCall, ...] | None:
    """The calls that a text consists of; None where it is none. An empty list is no call, and stays empty."""
    try:
        return tuple(_calls(_strict_json(text)))
    except (ValueError, RecursionError):
        return None


def same_tools(answer: str, prediction: str) -> bool:
    """Are the same tools called, whatever their arguments? Raises TrainingError if the answer is no call."""
    return _same(answer, prediction, key=lambda call: call.name)


def same_calls(answer: str, prediction: str) -> bool:
    """Are the same tools called with equal arguments? Raises TrainingError if the answer is no call."""
    return _same(answer, prediction, key=lambda call: f"{call.name}\n{_canonical(call.arguments)}")


def _same(answer: str, prediction: str, *, key: Callable[[ToolCall], str]) -> bool:
    wanted, said = parse_calls(answer), parse_calls(prediction)
    if wanted is None:
        raise TrainingError(
            f"the answer {answer[:80]!r} is no tool call; expected JSON with `name` and `arguments`, or a "
            "list of such: choose another scorer for rows that answer in words"
        )
    return said is not None and sorted(map(key, wanted)) == sorted(map(key, said))


def _strict_json(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def _calls(said: Any) -> Iterable[ToolCall]:
    if isinstance(said, dict) and isinstance(said.get("tool_calls"), list):
        said = said["tool_calls"]
    for call in said if isinstance(said, list) else [said]:
        if not isinstance(call, dict):
            raise ValueError("a call is an object")
        inner = call.get("function", call)
        name = inner.get("name") if isinstance(inner, dict) else None
        if not isinstance(name, str) or not name:
            raise ValueError("a call has a name")
        arguments = inner.get("arguments", {})
        if isinstance(arguments, str):
            arguments = _strict_json(arguments or "{}")
        if not isinstance(arguments, dict):
            raise ValueError("arguments are an object")
        yield ToolCall(name, arguments)


def _canonical(value: Any) -> str:
    """A text that is one for equal JSON values only."""
    if isinstance(value, dict):
        inner = (f"{json.dumps(key)}:{_canonical(value[key])}" for key in sorted(value))
        return "{" + ",".join(inner) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_canonical, value)) + "]"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return json.dumps(value)
