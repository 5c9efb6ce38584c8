"""Conversations as LLaMA-Factory and its like train on them: ShareGPT's turns, Alpaca's instructions.

ShareGPT  {"conversations": [{"from": "human" | "gpt" | "function_call" | "observation" | "system", "value"}],
           or of {"role", "content", "tool_calls"} as OpenAI has them,
           "system", "tools", "chosen": {"from", "value"}, "rejected": {...}, "kto_tag": true | false}
Alpaca    {"instruction", "input", "output", "system", "history": [[asked, answered]],
           "chosen": "...", "rejected": "...", "kto_tag": true | false}

Neither says which model answered, nor who preferred. "chosen" and "rejected" give two rows; "kto_tag" is a
verdict.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from lineage.rows import Fingerprint
from lineage.schemas import TRACE, UNSTATED, TableSpec
from pipelines.readers import Unreadable, values
from pipelines.readers._last_answer import beside, split_at_last_answer
from pipelines.readers._preferences import preferred_and_other, unjudged

_ROLES = {
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "model", "bot", "bard", "bing"), "assistant"),
    **dict.fromkeys(("function_call", "function-call"), "function_call"),
    **dict.fromkeys(("observation", "tool", "function_response", "function-response"), "tool"),
    "system": "system",
}
_VERDICTS = {True: "pass", False: "fail"}


@dataclass(frozen=True)
class ShareGPT:
    """Reads a conversation each; its last answer is the response."""

    writes: ClassVar[TableSpec] = TRACE

    @property
    def fingerprint(self) -> Fingerprint:
        """The reader's identity."""
        return Fingerprint("sharegpt", 1, {})

    def recognises(self, record: Mapping[str, Any]) -> str | None:
        """Turns with 'from' and 'value', or with 'role' and 'content'."""
        turns = record.get("conversations")
        first = turns[0] if isinstance(turns, list) and turns else None
        who, what = _names(first)
        is_turn = isinstance(first, Mapping) and who in first and what in first
        return f"'conversations' of '{who}' and '{what}'" if is_turn else None

    def read(self, record: Mapping[str, Any]) -> list[dict[str, Any]]:
        """One row; two where an answer was chosen over another."""
        with values.readable():
            return _conversation(record)


@dataclass(frozen=True)
class Alpaca:
    """Reads an instruction each."""

    writes: ClassVar[TableSpec] = TRACE

    @property
    def fingerprint(self) -> Fingerprint:
        """The reader's identity."""
        return Fingerprint("alpaca", 1, {})

    def recognises(self, record: Mapping[str, Any]) -> str | None:
        """An instruction with its output, or with two to choose from."""
        is_answered = isinstance(record.get("output"), str) or _is_pair(record)
        is_alpaca = isinstance(record.get("instruction"), str) and is_answered
        return "'instruction' and its answer" if is_alpaca else None

    def read(self, record: Mapping[str, Any]) -> list[dict[str, Any]]:
        """One row; two where an answer was chosen over another.

        A field such as 'answer' beside the output goes to extra: the output is what is to be learnt, and
        nothing says that the other would correct it.
        """
        with values.readable():
            return _instruction(record)


def _conversation(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    turns = record.get("conversations")
    if not isinstance(turns, list):
        raise Unreadable("no_conversations", f"'conversations' is {type(turns).__name__}, expected a list")
    said = [_turn(each) for each in turns]
    if record.get("system") not in (None, ""):
        said.insert(0, values.said("system", values.text(record["system"])))
    read = {"id", "conversations", "system", "chosen", "rejected", "kto_tag"}
    if _is_pair(record):
        answers = (_turn(record["chosen"]), _turn(record["rejected"]))
        return _pair(record, said, answers, read)
    asked, answer, after = split_at_last_answer(said)
    if answer is None:
        raise Unreadable("no_answer", "no turn is the model's, expected one from 'gpt'")
    unanswered = turns[len(turns) - len(after) :]  # kept, as nothing to learn
    return [_row(record, asked, answer, read, after=values.by_reference(unanswered))]


def _turn(turn: Any) -> dict[str, Any]:
    """A turn as a message; a function call's value is JSON of one call or a list of them."""
    if isinstance(turn, str):
        return values.said("assistant", turn)
    who, what = _names(turn)
    named = turn.get(who) if isinstance(turn, Mapping) else None
    role = _ROLES.get(named) if isinstance(named, str) else None
    if who == "role" and role != "function_call":
        message = values.message(turn)
        return message | {"role": role or message["role"]}  # developer and the like are roles of a chat
    if role is None:
        raise Unreadable("unknown_role", f"a turn from {values.text(named)!r:.40}, expected human, gpt, ...")
    rest = values.by_reference(values.without(turn, {who, what}))
    if role != "function_call":
        return values.said(role, values.text(turn.get(what)), extra=rest)
    calls = _calls(turn.get(what))
    if calls is None:  # not in the form of calls: its words are kept as they are
        return values.said("assistant", values.text(turn.get(what)), extra={**rest, who: named})
    return values.said("assistant", None, tool_calls=calls, extra=rest)


def _names(turn: Any) -> tuple[str, str]:
    """Under which names a turn says who speaks, and what."""
    is_openai = isinstance(turn, Mapping) and "role" in turn and "from" not in turn
    return ("role", "content") if is_openai else ("from", "value")


def _calls(value: Any) -> list[dict[str, Any]] | None:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return None
    called = value if isinstance(value, list) else [value]
    if not called or not all(isinstance(call, Mapping) and "name" in call for call in called):
        return None
    return [
        values.without(call, {"id", "name", "arguments"})
        | values.tool_call(values.text(call.get("id")), call["name"], call.get("arguments"))
        for call in called
    ]


def _instruction(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    instruction, given = values.text(record.get("instruction")), values.text(record.get("input"))
    if instruction is None:
        raise Unreadable("no_instruction", f"found keys {sorted(record)[:8]}, expected 'instruction'")
    said = []
    if record.get("system") not in (None, ""):
        said.append(values.said("system", values.text(record["system"])))
    history = record.get("history") or []
    for pair in history if isinstance(history, list) else [history]:
        if not isinstance(pair, list) or len(pair) != 2:
            raise Unreadable("bad_history", "an item of 'history' is no pair, expected [asked, answered]")
        said.append(values.said("user", values.text(pair[0])))
        said.append(values.said("assistant", values.text(pair[1])))
    # joined as LLaMA-Factory joins them
    said.append(values.said("user", "\n".join(words for words in (instruction, given) if words)))
    read = {"id", "instruction", "input", "output", "system", "history", "chosen", "rejected", "kto_tag"}
    if _is_pair(record):
        return _pair(
            record, said, (_answer(record["chosen"]), _answer(record["rejected"])), read - {"output"}
        )
    if record.get("output") is None:
        raise Unreadable("no_answer", "there is no 'output', expected the answer")
    return [_row(record, said, _answer(record["output"]), read)]


def _answer(value: Any) -> dict[str, Any]:
    return values.said("assistant", values.text(value))


def _is_pair(record: Mapping[str, Any]) -> bool:
    return record.get("chosen") is not None and record.get("rejected") is not None


def _pair(
    record: Mapping[str, Any],
    asked: list[dict[str, Any]],
    answers: tuple[dict[str, Any], dict[str, Any]],
    read: set[str],
) -> list[dict[str, Any]]:
    chosen, rejected = (_row(record, asked, answer, read) for answer in answers)
    return preferred_and_other(chosen, rejected)


def _row(
    record: Mapping[str, Any],
    asked: list[dict[str, Any]],
    answer: dict[str, Any],
    read: set[str],
    *,
    after: Any = None,
) -> dict[str, Any]:
    tag = record.get("kto_tag")
    rest = values.without(record, read)
    if not isinstance(tag, bool) and tag is not None:
        rest["kto_tag"] = tag
    return unjudged(
        answer,
        trace_key=values.text(record.get("id")) or UNSTATED,
        messages=asked,
        verdict=_VERDICTS[tag] if isinstance(tag, bool) else UNSTATED,
        extra=values.extra_of(
            record=values.by_reference(rest), message=beside(answer), after_the_answer=after
        ),
    )
