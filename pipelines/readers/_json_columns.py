"""JSON lines as Arrow columns, for readers that can take most of a block at once.

pyarrow parses a block far faster than Python reads its lines one by one, but it guesses: what looks like a
time becomes one, and one odd line fails them all. So times are read as the text they were, odd lines are
found by halving and left out, and whatever a column cannot say for sure raises Odd: then the reader's own
`read` decides, line by line.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from pipelines.readers import values

_FEW = 128  # lines that are not worth halving any further: they are read one by one
_REMEMBERED = 4_096  # different rests of records whose text is remembered, of at most so many bytes each


class Odd(Exception):
    """A column whose type does not settle what `read` would make of its values."""


def parsed(lines: Sequence[bytes], first: int = 0) -> Iterator[tuple[int, pa.StructArray]]:
    """(number of the first line, its records) for each run of lines that parse, one record per line.

    Lines in none of them do not. Fields have the types that were inferred, but never a time.
    """
    if not lines:
        return
    try:
        yield first, _parsed(lines)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, UnicodeDecodeError, RecursionError):
        if len(lines) > _FEW:
            half = len(lines) // 2
            yield from parsed(lines[:half], first)
            yield from parsed(lines[half:], first + half)


def _parsed(lines: Sequence[bytes]) -> pa.StructArray:
    # By the ends of the lines no record spans two of them; then, by their number, none holds two.
    if not all(line[:1] == b"{" and line[-1:] == b"}" for line in lines):
        raise pa.ArrowInvalid("a line that is no object from end to end")
    block = b"\n".join(lines)
    block.decode()  # pyarrow lets through what is no UTF-8
    table = _read(block, None)
    if (settled := _with_times_as_text(pa.struct(table.schema))) is not None:
        table = _read(block, pa.schema(list(settled)))
    if table.num_rows != len(lines):
        raise pa.ArrowInvalid(f"{table.num_rows} records in {len(lines)} lines")
    return table.combine_chunks().to_struct_array().combine_chunks()


def _read(block: bytes, schema: pa.Schema | None) -> pa.Table:
    options = pj.ReadOptions(use_threads=False, block_size=len(block) + 1)
    how = pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="infer")
    return pj.read_json(io.BytesIO(block), read_options=options, parse_options=how)


def _with_times_as_text(found: pa.DataType) -> pa.DataType | None:
    """The type with text wherever a time was guessed; None where there was none."""
    if pa.types.is_temporal(found):
        return pa.string()
    if pa.types.is_struct(found):
        inner = [_with_times_as_text(each.type) for each in found]
        if any(inner):
            named = zip(found, inner, strict=True)
            return pa.struct([pa.field(each.name, new or each.type) for each, new in named])
    if pa.types.is_list(found) and (item := _with_times_as_text(found.value_type)) is not None:
        return pa.list_(item)
    return None


# ---------------------------------------------------------------- columns as `values` would have them


def column(records: pa.StructArray, *path: str) -> pa.Array:
    """The values under a path, null where any part of it is missing. Raises Odd where a part is no object."""
    found: pa.Array = records
    for name in path:
        if pa.types.is_null(found.type):
            return found
        if not pa.types.is_struct(found.type):
            raise Odd(f"'{name}' inside a {found.type}")
        if found.type.get_field_index(name) < 0:
            return pa.nulls(len(records))
        found = pc.struct_field(found, name)
    return found


def objects(records: pa.StructArray, *path: str) -> pa.StructArray:
    """As `column`, for what must be objects or nothing."""
    found = column(records, *path)
    if pa.types.is_null(found.type):
        return pa.nulls(len(records), pa.struct([]))
    if not pa.types.is_struct(found.type):
        raise Odd(f"{'.'.join(path)} is {found.type}")
    return found


def text(found: pa.Array) -> pa.StringArray:
    """As values.text."""
    if not (
        pa.types.is_string(found.type)
        or pa.types.is_null(found.type)
        or pa.types.is_int64(found.type)
        or pa.types.is_boolean(found.type)
    ):
        raise Odd(f"text is {found.type}")
    return found.cast(pa.string())


def number(found: pa.Array) -> pa.DoubleArray:
    """As values.number, of numbers alone."""
    if pa.types.is_int64(found.type) or pa.types.is_floating(found.type) or pa.types.is_null(found.type):
        return found.cast(pa.float64(), safe=False)
    raise Odd(f"a number is {found.type}")


def count(found: pa.Array) -> pa.Int64Array:
    """As values.count, of whole numbers alone."""
    if not pa.types.is_int64(found.type) and not pa.types.is_null(found.type):
        raise Odd(f"a count is {found.type}")
    return found.cast(pa.int64())


def by_value(found: pa.Array, what: Callable[[Any], Any], into: pa.DataType) -> pa.Array:
    """`what` of each value, carried out once per different value; what it gives for null is for null."""
    if pa.types.is_nested(found.type):
        raise Odd(f"a value is {found.type}")
    coded = found.dictionary_encode(null_encoding="encode")
    return pa.array([what(value) for value in coded.dictionary.to_pylist()], into).take(coded.indices)


def or_else(found: pa.StringArray, *others: pa.StringArray | str) -> pa.StringArray:
    """The first of the texts that is neither null nor empty, as `a or b` in Python."""
    for other in others:
        found = pc.if_else(pc.fill_null(pc.not_equal(found, ""), False), found, other)
    return found


def fields_but(found: pa.StructArray, known: frozenset[str]) -> list[str]:
    """The names of the fields that are not among the known ones."""
    return [each.name for each in found.type if each.name not in known]


# ---------------------------------------------------------------- what has no column


def decoded(line: bytes) -> Any:
    """A line that is known to be JSON, faster than json.loads where it can be."""
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:  # NaN and the like, which JSON does not know and Python reads
        return json.loads(line)


class Texts:
    """The JSON text of what is left of records; the same rest comes again and again, and is written once."""

    def __init__(self, kept: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """`kept`: what of a rest is written."""
        self._kept = kept
        self._known: dict[bytes, str] = {}

    def of(self, rest: dict[str, Any], line: bytes, rest_of: Callable[[Any], dict[str, Any]]) -> str | None:
        """As values.json_text(kept(rest) or None). `rest_of` makes the rest anew where it must be exact."""
        if not rest:
            return None
        if b"NaN" in line or b"Infinity" in line:  # orjson would take them for null
            return values.json_text(self._kept(rest_of(json.loads(line))))
        try:
            key = orjson.dumps(rest, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)
        except orjson.JSONEncodeError:  # nested deeper than orjson goes
            return values.json_text(self._kept(rest_of(json.loads(line))))
        found = self._known.get(key)
        if found is None:
            found = json.dumps(self._kept(rest), ensure_ascii=False, sort_keys=True)
            if "e+" in found:  # a whole number of more than 64 bits was read as a float
                return values.json_text(self._kept(rest_of(json.loads(line))))
            if len(self._known) < _REMEMBERED and len(key) <= _REMEMBERED:
                self._known[key] = found
        return found
