"""Personal data and secrets in rows on their way in: counted in `pii`, and replaced where one asks for it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from infra.settings import Settings, pseudonym_key
from lineage.rows import Fingerprint
from lineage.schemas import PII, REDACTED, TableSpec
from pipelines import pii

How = Literal["off", "flag", "redact"]

_TEXTS = ("response", "response_tool_calls", "correction", "extra", "text", "title", "section", "metadata")
_TEXTS += ("trace_key", "reviewer")  # not models, prompts and scorers: name@version looks like an address
_OF_MESSAGE = ("content", "tool_calls", "extra", "name")


@dataclass(frozen=True)
class Treatment:
    """What is done with it."""

    how: How = "off"
    key: bytes = field(default=b"", repr=False)
    """For pseudonyms that are the same everywhere in a lake, and say nothing to whoever lacks it."""

    def of(self, reader: Fingerprint) -> Fingerprint:
        """A reader's identity under the treatment: what was redacted is another row."""
        if self.how != "redact":
            return reader
        return Fingerprint(f"{reader.name}{REDACTED}", reader.revision, reader.parameters)


def treatment(settings: Settings, how: How) -> Treatment:
    """The treatment of a lake; a key is made with the first redaction."""
    return Treatment(how, pseudonym_key(settings) if how == "redact" else b"")


def treated(rows: pa.Table, into: TableSpec, treatment: Treatment) -> pa.Table:
    """The rows with `pii` filled, and redacted where that is asked for."""
    if treatment.how == "off" or not rows.num_rows:
        return rows
    texts: list[pa.ChunkedArray | pa.Array] = [rows[name] for name in _TEXTS if name in rows.column_names]
    if "messages" in rows.column_names:
        texts += [_joined(rows["messages"], name) for name in _OF_MESSAGE]
    found = pii.detect(texts)
    if not any(found):
        return rows
    if treatment.how == "redact":
        rows = _redacted(rows, [at for at, kinds in enumerate(found) if kinds], treatment.key)
    told = [json.dumps(kinds, sort_keys=True) if kinds else None for kinds in found]
    return rows.set_column(rows.column_names.index(PII.name), PII.name, pa.array(told, pa.string()))


def _joined(messages: pa.ChunkedArray, name: str) -> pa.Array:
    """A field of all messages of each row, one after the other."""
    lists = messages.combine_chunks()
    words = pc.fill_null(pc.struct_field(lists.values, name), "")
    if not pc.any(pc.not_equal(words, "")).as_py():
        return pa.nulls(len(lists), pa.string())
    return pc.binary_join(pa.ListArray.from_arrays(lists.offsets, words), "\n")


def _redacted(rows: pa.Table, at: list[int], key: bytes) -> pa.Table:
    """The rows, those at these places with pseudonyms in all their texts."""

    def hidden(text: str | None) -> str | None:
        return text if text is None else pii.redacted(text, key=key)[0]

    changed = rows.take(pa.array(at, pa.int64())).to_pylist()
    for row in changed:
        for name in _TEXTS:
            if row.get(name):
                row[name] = hidden(row[name])
        for message in row.get("messages") or ():
            message.update({name: hidden(message[name]) for name in _OF_MESSAGE})
    whole = pa.concat_tables([rows, pa.Table.from_pylist(changed, schema=rows.schema)])
    order = list(range(rows.num_rows))
    for number, place in enumerate(at):
        order[place] = rows.num_rows + number
    return whole.take(pa.array(order, pa.int64()))
