"""Which formats there are, and which of them a source is in: told by name, or recognised from its content."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import unquote

from infra.storage import first_record, open_source
from infra.storage.problems import told
from lineage.schemas import TRACE
from pipelines import framing
from pipelines.framing import Framing
from pipelines.readers import Reader, Unreadable
from pipelines.readers.chat_completions import ChatCompletions
from pipelines.readers.claude_code import ClaudeCode
from pipelines.readers.conversations import Alpaca, ShareGPT
from pipelines.readers.documents import Markdown, PlainText, SourceCode
from pipelines.readers.http_exchanges import HttpExchanges
from pipelines.readers.langfuse import Langfuse
from pipelines.readers.langsmith import Langsmith
from pipelines.readers.mlflow_traces import MlflowTraces
from pipelines.readers.openai_batches import OpenAIBatches
from pipelines.readers.openai_preferences import OpenAIPreferences
from pipelines.readers.openhands import OpenHands, OpenHandsEvents
from pipelines.readers.otlp import Otlp
from pipelines.readers.pi_session import PiSession
from pipelines.readers.swe_agent import SweAgent
from pipelines.readers.tau_bench import TauBench
from pipelines.readers.trl import Trl

HEAD = 64 * 1024  # bytes that show what a source is
_FEW = 20  # records that are looked at
_ENOUGH = 16 * 1024 * 1024  # bytes in which a JSON value's first records must end to be looked at

READERS: tuple[Reader, ...] = (
    ClaudeCode(),
    PiSession(),
    OpenHandsEvents(),
    Markdown(),
    PlainText(),
    SourceCode(),
    MlflowTraces(),
    Otlp(),
    Langfuse(),
    Langsmith(),
    SweAgent(),
    OpenHands(),
    TauBench(),
    HttpExchanges(),
    OpenAIBatches(),
    OpenAIPreferences(),
    ShareGPT(),
    Trl(),
    ChatCompletions(),
    Alpaca(),
)
"""In the order in which they are asked: the more a format says of itself, the earlier."""

FORMATS: Mapping[str, Reader] = {reader.fingerprint.name: reader for reader in READERS}


class UnknownFormat(Exception):
    """A source in none of the formats, or a format that does not exist; the message says what to do."""


@dataclass(frozen=True)
class Recognised:
    """How a source is to be read, and what showed it."""

    reader: Reader
    framing: Framing | Literal["document"]
    why: str
    first: bytes
    """Its first record: what it is known by, however it grows."""


def named(format: str) -> Reader:
    """The reader of a format. Raises UnknownFormat."""
    if format not in FORMATS:
        raise UnknownFormat(
            f"unknown format '{format}'; known: auto, {', '.join(FORMATS)}, or give a field map"
        )
    return FORMATS[format]


def as_named(uri: str, head: bytes, reader: Reader) -> Recognised:
    """The source, read by this reader whatever it looks like. `head`: its first HEAD bytes."""
    if _is_of_documents(reader):
        return Recognised(reader, "document", "named", _beginning(uri, head, reader))
    cut = framing.framing_of(name_of(uri), head)
    return Recognised(reader, cut, "named", _first(uri, head, cut, _framed(uri, head, cut)))


def recognised(uri: str, head: bytes) -> Recognised:
    """The first format whose reader knows the source again. Raises UnknownFormat and StorageError."""
    name = name_of(uri)
    for reader in READERS:
        if _is_of_documents(reader) and (why := reader.recognises_document(name, head)):
            return Recognised(reader, "document", why, _beginning(uri, head, reader))
    cut = framing.framing_of(name, head)
    framed = list(itertools.islice(_framed(uri, head, cut), _FEW))
    records = [each.value for each in framed if each.unreadable is None]
    for record in records:
        for reader in READERS:
            if _is_of_records(reader) and (why := reader.recognises(record)):
                return Recognised(reader, cut, why, _first(uri, head, cut, framed))
    if not head.strip():
        raise UnknownFormat(f"source '{uri}' is empty; expected at least one record")
    seen, advice = _seen(name, head, records)
    raise UnknownFormat(f"source '{uri}' has no known format in its first records ({seen}); {advice}")


def name_of(uri: str) -> str:
    """A source's file name, without the suffix of its compression."""
    return framing.without_compression(unquote(uri.rpartition("/")[2]))


def _seen(name: str, head: bytes, records: list[Mapping[str, Any]]) -> tuple[str, str]:
    """What a source in no known format holds, and how it could be read nevertheless."""
    if records:
        seen = f"its first record has {sorted(records[0])[:8]}"
        return seen, "name one with --format or give --field-map"
    if PlainText().recognises_document(f"{name}.txt", head):  # all that it lacks is the ending
        advice = (
            "text is read from files that end in .md, in .txt or as source code does, or with --format text"
        )
        return "it is text that holds no JSON object", advice
    return "it holds no JSON object", "expected JSON, CSV, Parquet, or text that is none of JSON"


def _is_of_documents(reader: Any) -> bool:
    return hasattr(reader, "read_document")


def _is_of_records(reader: Any) -> bool:
    return hasattr(reader, "read")


def _beginning(uri: str, head: bytes, reader: Reader) -> bytes:
    """What a whole document is known by: a session, which grows, by its first line; others by much more.

    Half of all Markdown files begin with the same line.
    """
    return _first_line(uri, head) if reader.writes is TRACE else head


def _first(uri: str, head: bytes, cut: Framing, framed: Iterable[framing.Framed]) -> bytes:
    if cut == "lines":
        return _first_line(uri, head)
    return next((each.record for each in framed), b"")


def _first_line(uri: str, head: bytes) -> bytes:
    """The first line that is not blank; where the head does not hold its end, the source is asked."""
    *whole, last = head.split(b"\n")
    ended = next((line.strip() for line in whole if line.strip()), None)
    if ended is not None:
        return ended
    return last.strip() if len(head) < HEAD else first_record(uri)


def _framed(uri: str, head: bytes, cut: Framing) -> Iterator[framing.Framed]:
    """The first records of a source."""
    if cut == "parquet":
        with open_source(uri) as source, told(uri, "cannot be read to its end"):
            try:
                yield from framing.frame_parquet(source)
            except Unreadable as error:
                raise UnknownFormat(f"source '{uri}' begins as Parquet does and is none: {error}") from error
        return
    if cut == "lines":
        first = itertools.chain([_first_line(uri, head)], head.split(b"\n")[1:-1])
        yield from framing.frame_lines(b"\n".join(first) if len(head) == HEAD else head)
        return
    content = head
    if len(head) == HEAD:
        with open_source(uri) as source, told(uri, "cannot be read to its end"):
            content = source.read(_ENOUGH)
    frame = framing.frame_csv if cut == "csv" else framing.frame_values
    yield from frame(io.BytesIO(content))
