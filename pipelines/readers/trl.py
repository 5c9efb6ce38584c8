"""Lines of TRL's dataset formats: prompts with their completions, preferred, labelled or neither.

{"prompt", "chosen", "rejected"}                a preference: two rows, the chosen first
{"chosen": [messages], "rejected": [messages]}  one whose prompt is the beginning of both
{"prompt", "completion", "label": true | false} unpaired: the label is a verdict
{"prompt", "completion"}                        an answer to learn

Each is a text, or a list of messages of {"role", "content"}; lists may say the prompt again. No line says
which model answered, nor who judged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from lineage.rows import Fingerprint
from lineage.schemas import TRACE, UNSTATED, TableSpec
from pipelines.readers import Unreadable, values
from pipelines.readers._last_answer import beside
from pipelines.readers._preferences import preferred_and_other, unjudged

_Messages = list[dict[str, Any]]

_SIBLINGS = ("instruction", "conversations")  # of Alpaca and ShareGPT, which also have chosen and rejected


@dataclass(frozen=True)
class Trl:
    """Reads a prompt with its completion, or with two, each."""

    writes: ClassVar[TableSpec] = TRACE

    @property
    def fingerprint(self) -> Fingerprint:
        """The reader's identity."""
        return Fingerprint("trl", 1, {})

    def recognises(self, record: Mapping[str, Any]) -> str | None:
        """Two completions to choose from, or a prompt with one."""
        if any(name in record for name in _SIBLINGS):
            return None
        is_prompted = _is_said(record.get("prompt"))
        if is_prompted and _is_said(record.get("completion")):
            return "'prompt' and 'completion'"
        chosen, rejected = record.get("chosen"), record.get("rejected")
        if is_prompted and _is_said(chosen) and _is_said(rejected):
            return "'prompt' with 'chosen' and 'rejected'"
        is_whole = record.get("prompt") is None and _is_talk(chosen) and _is_talk(rejected)
        return "'chosen' and 'rejected' conversations" if is_whole else None

    def read(self, record: Mapping[str, Any]) -> list[dict[str, Any]]:
        """One row; two of a preference."""
        with values.readable():
            return _read(record)


def _is_said(value: Any) -> bool:
    return isinstance(value, str) or _is_talk(value)


def _is_talk(value: Any) -> bool:
    first = value[0] if isinstance(value, list) and value else None
    return isinstance(first, Mapping) and "role" in first


def _read(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    if record.get("chosen") is not None and record.get("rejected") is not None:
        rest = values.without(record, {"id", "prompt", "chosen", "rejected"})
        chosen, rejected = (_row(record, name, rest) for name in ("chosen", "rejected"))
        return preferred_and_other(chosen, rejected)
    if record.get("completion") is None:
        raise Unreadable(
            "no_completion",
            f"found keys {sorted(record)[:8]}, expected 'completion', or 'chosen' and 'rejected'",
        )
    label, rest = record.get("label"), values.without(record, {"id", "prompt", "completion"})
    if not isinstance(label, bool):
        return [_row(record, "completion", rest)]
    return [
        _row(record, "completion", values.without(rest, {"label"})) | {"verdict": "pass" if label else "fail"}
    ]


def _row(record: Mapping[str, Any], name: str, rest: Mapping[str, Any]) -> dict[str, Any]:
    """A completion of several messages ends in the answer; those before it count as asked."""
    prompt, completion = record.get("prompt"), record[name]
    if prompt is None and isinstance(completion, str):
        raise Unreadable("no_prompt", f"'{name}' is a text without a 'prompt', expected what it answers")
    said = _said(completion, "assistant")
    if not said or said[-1]["role"] != "assistant":
        raise Unreadable(
            "no_answer", f"the last message of '{name}' is not the assistant's, expected an answer"
        )
    return unjudged(
        said[-1],
        trace_key=values.text(record.get("id")) or UNSTATED,
        messages=_asked([] if prompt is None else _said(prompt, "user"), said[:-1]),
        extra=values.extra_of(record=values.by_reference(rest), message=beside(said[-1])),
    )


def _said(value: Any, role: str) -> _Messages:
    """A list of messages, or a text as the message of this role."""
    return [values.said(role, value)] if isinstance(value, str) else values.messages(value)


def _asked(prompt: _Messages, before: _Messages) -> _Messages:
    """The prompt and what else came before the answer; said again there, perhaps in more words, it is one."""
    places = range(len(before) - len(prompt) + 1)
    is_said_again = any(before[at : at + len(prompt)] == prompt for at in places)
    return before if is_said_again else [*prompt, *before]
