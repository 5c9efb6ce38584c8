"""Finds the exchange that somebody asks about: a stored trace, a file, or a text.

Errors: AnswerError, when there is no such exchange, or nothing in it to compare.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from infra.settings import Settings
from lineage import ancestry
from lineage.ancestry import LineageError
from lineage.nearest import Exchange

INSTRUCTING = ("system", "developer")
"""Roles whose messages say the same to all exchanges; they are not compared."""


class AnswerError(LineageError):
    """There is no such exchange, or nothing in it to compare."""


@dataclass(frozen=True)
class Asked:
    """The exchange that is asked about, and what is known of it."""

    exchange: Exchange
    last_message: str
    """What an encoder was given: the last user message."""

    generator: str = ""
    """`name@version` of who answered, as the source says; empty where it does not."""

    row_id: bytes | None = None
    """Its row in the lake, where it has one."""


def find_exchange(settings: Settings, trace: str, *, text: Callable[[], str]) -> Asked:
    """The exchange that a row id (or its start), a JSON file, or `-` (then `text` is called) names.

    A text that is no JSON is what was asked and what was answered in one. Raises AnswerError.
    """
    if trace == "-":
        said = text()
        return _parsed(said, "standard input") if said.lstrip()[:1] == "{" else _asked(said, said)
    if Path(trace).is_file():
        try:
            return _parsed(Path(trace).read_text(encoding="utf-8"), f"'{trace}'")
        except UnicodeDecodeError as error:
            raise AnswerError(f"'{trace}' is no text in UTF-8; expected a JSON file") from error
    if not re.fullmatch(r"[0-9a-f]{4,32}", trace):
        raise AnswerError(
            f"'{trace}' is no file and no row id; expected a trace's id or its start (4 hex digits or more), "
            "a JSON file with one exchange, or - for text on standard input"
        )
    spec, row = ancestry.find_row(settings, trace)
    if spec.name == "documents":
        raise AnswerError(f"row {row['row_id'].hex()} is a document: nobody answered it; name a trace")
    said = [m["content"] or "" for m in row["messages"] if m["role"] not in INSTRUCTING]
    answer = row["response"] if spec.name == "traces" else row["answer"]
    asked = _asked("\n".join(said) or row.get("text") or "", answer or "", messages=row["messages"])
    return replace(asked, generator=f"{row['generator']}@{row['generator_revision']}", row_id=row["row_id"])


def _asked(request: str, answer: str, *, messages: Iterable[Mapping[str, Any]] = ()) -> Asked:
    from_users = [message.get("content") for message in messages if message.get("role") == "user"]
    texts = [content for content in from_users if isinstance(content, str) and content]
    same = request == answer  # a bare text: it need not be looked for twice
    return Asked(Exchange(request, "" if same else answer), texts[-1] if texts else request)


def _parsed(text: str, where: str) -> Asked:
    """An exchange in one of the shapes that ingest reads, or {"request": TEXT, "answer": TEXT}."""
    try:
        said = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise AnswerError(f"{where} is not one JSON value ({error}); expected one exchange") from error
    unfit = AnswerError(
        f"{where} is no exchange; expected one object with 'request' and 'response' (as in a chat log), "
        "with 'messages', or with the texts 'request' and 'answer'"
    )
    if not isinstance(said, Mapping):
        raise unfit
    request, response = said.get("request"), said.get("response")
    messages = request.get("messages") if isinstance(request, Mapping) else said.get("messages")
    answer = response if isinstance(response, str) else said.get("answer")
    if isinstance(response, Mapping) and isinstance(choices := response.get("choices"), list) and choices:
        message = choices[0].get("message") if isinstance(choices[0], Mapping) else None
        answer = _content(message) if isinstance(message, Mapping) else None
    if isinstance(messages, list) and messages and all(isinstance(each, Mapping) for each in messages):
        turns = [{"role": each.get("role"), "content": _content(each)} for each in messages]
        if answer is None and turns[-1]["role"] == "assistant":
            answer = turns.pop()["content"]
        request = "\n".join(turn["content"] for turn in turns if turn["role"] not in INSTRUCTING)
    else:
        turns = []
    if not isinstance(request, str) or not isinstance(answer, str | None):
        raise unfit
    model = response.get("model") if isinstance(response, Mapping) else None
    asked = _asked(request, answer or "", messages=turns)
    return replace(asked, generator=model if isinstance(model, str) else "")


def _content(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, Mapping) else part for part in content]
        return "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""
