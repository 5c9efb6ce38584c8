"""OpenAI's lines for preference tuning: a question with the answer that is preferred and one that is not.

{"input": {"messages", "tools", "parallel_tool_calls"},
 "preferred_output": [message], "non_preferred_output": [message]}           or, as older files spell it,
{"input": {...}, "preferred_completion": [message], "non_preferred_completion": [message]}

The line says neither which models answered nor who preferred.
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

_SPELLINGS = (
    ("preferred_output", "non_preferred_output"),
    ("preferred_completion", "non_preferred_completion"),
)


@dataclass(frozen=True)
class OpenAIPreferences:
    """Reads a pair each."""

    writes: ClassVar[TableSpec] = TRACE

    @property
    def fingerprint(self) -> Fingerprint:
        """The reader's identity."""
        return Fingerprint("openai_preference", 1, {})

    def recognises(self, record: Mapping[str, Any]) -> str | None:
        """A preferred answer and one that is not."""
        found = _spelling(record)
        return f"'{found[0]}' and '{found[1]}'" if found else None

    def read(self, record: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Two rows: the preferred, then the other."""
        with values.readable():
            return _read(record)


def _read(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    spelling = _spelling(record)
    if spelling is None:
        raise Unreadable(
            "no_preference", f"found keys {sorted(record)[:8]}, expected 'preferred_output' and its opposite"
        )
    asked = values.object_in(record, "input")
    question = values.messages(asked.get("messages"))
    rest = {
        "record": values.without(record, {"id", "input", *spelling}),
        "input": values.by_reference(values.without(asked, {"messages"})),
    }
    key = values.text(record.get("id")) or UNSTATED
    preferred, other = (_row(question, record[name], rest, key) for name in spelling)
    return preferred_and_other(preferred, other)


def _row(question: list[dict[str, Any]], output: Any, rest: Mapping[str, Any], key: str) -> dict[str, Any]:
    """An output of several messages ends in the answer; those before it count as asked."""
    if isinstance(output, str):
        output = {"role": "assistant", "content": output}
    said = values.messages(output if isinstance(output, list) else [output])
    if not said or said[-1]["role"] != "assistant":
        raise Unreadable("no_answer", "the output's last message is not the assistant's, expected an answer")
    answer = said[-1]
    extra = values.extra_of(**rest, message=beside(answer))
    return unjudged(answer, trace_key=key, messages=[*question, *said[:-1]], extra=extra)


def _spelling(record: Mapping[str, Any]) -> tuple[str, str] | None:
    return next((pair for pair in _SPELLINGS if all(record.get(name) is not None for name in pair)), None)
