from __future__ import annotations

import datetime as dt
import gzip
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines import framing
from pipelines.framing import (
    Framed,
    frame_csv,
    frame_lines,
    frame_parquet,
    frame_values,
    framing_of,
)
from pipelines.readers import Unreadable

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.lists(st.dictionaries(st.text(max_size=4), JSON, max_size=3), max_size=5)
CELLS = st.text(alphabet='ab"\n\r,;\t é', max_size=6)


def values_of(content: bytes) -> Iterator[Framed]:
    return frame_values(io.BytesIO(content))


def csv_of(content: bytes, **how: str) -> Iterator[Framed]:
    return frame_csv(io.BytesIO(content), **how)


def bytes_of(framed: Framed) -> tuple[int, int]:
    first, end = framed.span.removeprefix("bytes:").split("-")
    return int(first), int(end)


def assert_leads_back(content: bytes, framed: list[Framed], separators: bytes) -> None:
    at = 0
    for each in framed:
        first, end = bytes_of(each)
        assert first == each.position >= at
        assert content[first:end] == each.record
        assert content[at:first].strip(separators) == b""
        assert (each.value is None) == (each.unreadable is not None)
        at = end
    assert content[at:].strip(separators) == b""


def reasons(framed: list[Framed]) -> list[str | None]:
    return [each.unreadable and each.unreadable.reason for each in framed]


def pretty(indent: int | None, between: str) -> Callable[[list[dict]], str]:
    return lambda values: between.join(json.dumps(value, indent=indent) for value in values)


WRITINGS: dict[str, Callable[[list[dict]], str]] = {
    "array": lambda values: json.dumps(values),
    "unicode array": lambda values: json.dumps(values, ensure_ascii=False).encode(errors="replace").decode(),
    "pretty array": lambda values: json.dumps(values, indent=2) + "\n",
    "array of lines": lambda values: "[\n" + pretty(None, ",\n")(values) + "\n]\n",
    "pretty values": pretty(4, "\n"),
    "values on one line": pretty(None, " "),
    "after a mark": lambda values: "\ufeff" + json.dumps(values),
}


@pytest.mark.parametrize(
    ("name", "head", "framing"),
    [
        ("a.jsonl", b'{"a": 1}\n{"a": 2}\n', "lines"),
        ("a.json", b'\xef\xbb\xbf\n [{"a": 1}]', "values"),
        ("a.json", b'{\n  "a": 1\n}\n', "values"),
        ("a.json", b'{"a": 1} {"a": 2}\n', "values"),
        ("one-line.json", b'{"a": ' + b"1" * 65_530, "lines"),
        ("a.json.gz", b"", "lines"),
        ("a.CSV", b"a,b\n", "csv"),
        ("a.tsv.gz", b"a\tb\n", "csv"),
        ("anything", b"PAR1\x15\x04", "parquet"),
        ("deep.jsonl", b'{"a": ' + b"[" * 20_000 + b"\n", "lines"),
    ],
)
def test_how_a_source_is_cut_is_seen_from_its_head(name: str, head: bytes, framing: str):
    assert framing_of(name, head) == framing


@pytest.mark.parametrize("writing", WRITINGS)
@given(values=OBJECTS)
def test_values_come_out_as_they_were_written_and_lead_back(writing: str, values: list[dict]):
    content = WRITINGS[writing](values).encode()
    framed = list(values_of(content))
    assert_leads_back(content, framed, b" \n,[]\xef\xbb\xbf")
    assert [json.loads(each.record) for each in framed] == [each.value for each in framed]
    if writing != "unicode array":  # there lone surrogates were replaced
        assert [each.value for each in framed] == values


@given(content=st.binary(max_size=60) | st.text(alphabet='[]{}",:1a \n\x00é', max_size=60).map(str.encode))
def test_of_any_bytes_nothing_is_lost(content: bytes):
    assert_leads_back(content, list(values_of(content)), b" \t\n\r,[]\xef\xbb\xbf")
    assert_leads_back(content, list(frame_lines(content)), b" \t\n\r\x0b\x0c")
    records = list(csv_of(content))
    for each in records:
        first, end = bytes_of(each)
        assert content[first:end] == each.record


@given(values=OBJECTS, broken=st.integers(0, 5), indent=st.sampled_from([0, 2]))
def test_a_broken_element_on_a_line_of_its_own_spoils_no_other(values: list[dict], broken: int, indent: int):
    lines = [" " * indent + json.dumps(value) for value in values]
    lines.insert(min(broken, len(lines)), " " * indent + '{"a": tru}')
    content = ("[\n" + ",\n".join(lines) + "\n]").encode()
    framed = list(values_of(content))
    assert [each.value for each in framed if each.unreadable is None] == values
    assert reasons(framed).count("not_json") == 1


def test_nothing_inside_a_broken_element_is_taken_for_an_element():
    broken = json.dumps([{"a": [{"b": 1}, {"b": 2}]}, {"c": 3}], indent=2).replace('"b": 1', '"b": x')
    framed = list(values_of(broken.encode()))
    assert reasons(framed) == ["not_json", None]
    assert framed[1].value == {"c": 3}
    one_line = b'[{"a": [{"b": x}, {"b": 2}]}, {"c": 3}]'
    framed = list(values_of(one_line))
    assert reasons(framed) == ["not_json", None]
    assert framed[1].value == {"c": 3}


@pytest.mark.parametrize(
    "broken", ['{"a": tru}', "tru", "}", '{"a": {"b": [}}', '{"a": "]" x}', '{"a": [1, {"b": "{"}], c}']
)
@pytest.mark.parametrize("between", [", ", ",", "\n, ", " "])
def test_a_broken_element_between_others_on_a_line_costs_itself_alone(broken: str, between: str):
    content = between.join(['{"n": 1}', broken, '{"n": 2}'])
    framed = list(values_of((f"[{content}]" if "," in between else content).encode()))
    assert [each.value for each in framed] == [{"n": 1}, None, {"n": 2}]
    assert framed[1].record.decode() == broken


def test_where_a_broken_element_ends_cannot_always_be_told():
    framed = list(values_of(b'[{"n": 1}, {"a": {"b": x, {"n": 2}]'))
    assert reasons(framed) == [None, "not_json"]
    assert framed[1].record == b'{"a": {"b": x, {"n": 2}]'


@pytest.mark.parametrize("window", [1, 3, 17])
@given(
    values=OBJECTS,
    writing=st.sampled_from(sorted(WRITINGS)),
    garbage=st.text('[]{}",:1a \n\x00é', max_size=9),
)
def test_what_comes_out_does_not_hang_on_how_much_is_looked_at(
    window: int, values: list[dict], writing: str, garbage: str
):
    content = (WRITINGS[writing](values) + garbage).encode()
    table = written_csv([["a", "b"], *([key, garbage] for value in values for key in value)], ",", "\r\n")
    with pytest.MonkeyPatch.context() as patched:
        whole = [
            list(values_of(content)),
            list(csv_of(table, delimiter=",")),
            list(csv_of(content, delimiter=",")),
        ]
        patched.setattr(framing.values, "_WINDOW", window)
        patched.setattr(framing.delimited, "_WINDOW", window)
        patched.setattr(framing.delimited, "_SNIFFED_BYTES", 64)
        assert as_text(
            [
                list(values_of(content)),
                list(csv_of(table, delimiter=",")),
                list(csv_of(content, delimiter=",")),
            ]
        ) == as_text(whole)


def as_text(framed: list[list[Framed]]) -> str:
    """To be compared, NaN with itself."""
    return repr([[(each, str(each.unreadable)) for each in some] for some in framed])


def test_a_log_cut_off_in_its_first_line_keeps_its_others():
    content = b'{"a": "cut o\n{"a": 2}\n{"a": 3}\n'
    assert framing_of("log.jsonl", content) == "lines"
    framed = list(frame_lines(content))
    assert [each.value for each in framed] == [None, {"a": 2}, {"a": 3}]


def test_what_is_no_object_too_deep_or_no_utf8_is_unreadable_alone():
    deep = b'{"a":' * 100_000
    content = b'[\n{"a": 1},\n7, "\xc3\xa9",\n{"b": "\xff"},\n' + deep + b',\n{"c": NaN, "c": Infinity}\n]'
    framed = list(values_of(content))
    assert reasons(framed) == [None, "not_an_object", "not_an_object", "not_utf8", "too_deep", None]
    assert framed[-1].value == {"c": float("inf")}
    assert_leads_back(content, framed, b" \n,[]")


def test_lines_keep_their_place_in_the_source():
    content = b'{"a": 1}\r\n\n  \n{"a": 2}\n[1]\nno\n\xff\n'
    framed = list(frame_lines(content, first=100))
    assert [each.position for each in framed] == [100, 114, 123, 127, 130]
    assert [each.record for each in framed][:2] == [b'{"a": 1}', b'{"a": 2}']
    assert framed[0].span == "bytes:100-108"
    assert reasons(framed) == [None, None, "not_an_object", "not_json", "not_utf8"]


def written_csv(rows: list[list[str]], delimiter: str, newline: str) -> bytes:
    quoted = [delimiter.join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows]
    return newline.join(quoted).encode()


@given(
    rows=st.integers(2, 4).flatmap(
        lambda width: st.lists(st.lists(CELLS, min_size=width, max_size=width), min_size=1, max_size=5)
    ),
    delimiter=st.sampled_from(",;\t|"),
    newline=st.sampled_from(["\n", "\r\n"]),
)
def test_csv_records_come_out_as_they_were_written_and_lead_back(
    rows: list[list[str]], delimiter: str, newline: str
):
    header = [f"h{index}" for index in range(len(rows[0]))]
    content = written_csv([header, *rows], delimiter, newline)
    framed = list(csv_of(content, delimiter=delimiter))
    assert [list((each.value or {}).values()) for each in framed] == rows
    ends = [bytes_of(each) for each in framed]
    assert all(content[first:end] == each.record for (first, end), each in zip(ends, framed, strict=True))
    assert content[ends[-1][1] :] == b""


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_a_delimiter_is_the_one_that_cuts_most_evenly(delimiter: str):
    content = f"id{delimiter}text\n1{delimiter}a: b\n\n2{delimiter}d\n".encode()
    assert [each.value for each in csv_of(content)] == [
        {"id": "1", "text": "a: b"},
        {"id": "2", "text": "d"},
    ]


def test_csv_records_that_do_not_fit_are_unreadable_alone():
    content = b'\xef\xbb\xbfa,a,b\r\n1,"x\r\ny",3\r\n1,2\r\n\xe9,2,3\r\n4,5,"6"'
    framed = list(csv_of(content))
    assert [each.value for each in framed] == [
        {"a": "1", "a_2": "x\r\ny", "b": "3"},
        None,
        None,
        {"a": "4", "a_2": "5", "b": "6"},
    ]
    assert reasons(framed) == [None, "wrong_number_of_fields", "not_utf8", None]
    assert framed[0].record == b'1,"x\r\ny",3'
    assert framed[0].span == "bytes:10-20"


def test_a_quote_that_is_never_closed_spoils_its_line_alone():
    framed = list(csv_of(b'a,b\n1,"two\n3,four\n5,six\n'))
    assert reasons(framed) == ["unpaired_quote", None, None]
    assert framed[2].value == {"a": "5", "b": "six"}


def test_of_a_csv_without_a_readable_header_no_record_can_be_read():
    framed = list(csv_of(b"\xe9,b\n1,2\n3,4\n"))
    assert [each.record for each in framed] == [b"\xe9,b", b"1,2", b"3,4"]
    assert reasons(framed) == ["not_utf8"] * 3


def test_a_quote_is_not_followed_through_the_whole_of_a_large_file(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(framing.delimited, "_LONGEST_FIELD", 100_000)
    content = b'a,b\n1,"two\n' + b"3,four\n" * 20_000 + b'5,"si\nx"\n'
    framed = list(csv_of(content))
    assert reasons(framed) == ["unpaired_quote", *[None] * 20_001]
    assert framed[-1].value == {"a": "5", "b": "si\nx"}
    assert b"\n".join(each.record for each in framed) == content[4:-1]


def parquet(table: pa.Table, **options: int) -> io.BytesIO:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink


def test_parquet_rows_are_plain_json_of_every_type():
    at = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
    table = pa.table(
        {
            "n": [1, None, 3],
            "f": [0.5, float("nan"), float("inf")],
            "b": [b"\x00\xff", b"", None],
            "t": pa.array([at, at, None], pa.timestamp("us", tz="UTC")),
            "ns": pa.array([1, 2, None], pa.timestamp("ns")),
            "l": [[{"x": "é"}], [], None],
            "m": pa.array([[("k", 1)], [], None], pa.map_(pa.string(), pa.int64())),
        }
    )
    framed = list(frame_parquet(parquet(table, row_group_size=2)))
    assert [(each.position, each.span) for each in framed] == [(0, "row:0"), (1, "row:1"), (2, "row:2")]
    assert framed[0].value == {
        "n": 1,
        "f": 0.5,
        "b": "00ff",
        "t": "2026-01-02T03:04:05+00:00",
        "ns": "1970-01-01T00:00:00.000000001",
        "l": [{"x": "é"}],
        "m": [["k", 1]],
    }
    assert framed[1].value["f"] is None
    assert framed[2].value["f"] == "inf"
    assert [json.loads(each.record) for each in framed] == [each.value for each in framed]


def test_a_parquet_value_that_python_cannot_hold_spoils_its_row_alone():
    far = pa.array([0, 2**50, 1], pa.timestamp("ms"))
    framed = list(frame_parquet(parquet(pa.table({"t": far}))))
    assert reasons(framed) == [None, "bad_value", None]


def test_what_is_no_parquet_or_damaged_says_so():
    with pytest.raises(Unreadable, match="not_parquet"):
        list(frame_parquet(io.BytesIO(b"PAR1 and no more")))
    table = pa.table({"a": [f"{number:0>40}" for number in range(2000)]})
    content = bytearray(parquet(table, row_group_size=1000).getvalue())
    content[100:600] = b"\xff" * 500
    framed = list(frame_parquet(io.BytesIO(bytes(content))))
    assert "damaged_row_group" in reasons(framed)
    assert framed[-1].value == {"a": f"{1999:0>40}"}
    assert framed[-1].span == "row:1999"


@pytest.mark.data
def test_real_csv_files_are_cut_whole(data: Path):
    found = {}
    for path in sorted([*data.glob("hwu64_fold1/*.csv.gz"), *data.glob("mts_dialog/*.csv.gz")]):
        content = gzip.decompress(path.read_bytes())
        assert framing_of(path.name, content[:65536]) == "csv"
        framed = list(csv_of(content))
        assert reasons(framed) == [None] * len(framed)
        for each in framed:
            first, end = bytes_of(each)
            assert content[first:end] == each.record
        found[f"{path.parent.name}/{path.name}"] = len(framed)
    assert found == {
        "hwu64_fold1/test.csv.gz": 1076,
        "hwu64_fold1/train.csv.gz": 9960,
        "mts_dialog/automatic_summaries_validation.csv.gz": 400,
        "mts_dialog/manual_scores.csv.gz": 400,
        "mts_dialog/test1.csv.gz": 200,
        "mts_dialog/train.csv.gz": 1201,
        "mts_dialog/validation.csv.gz": 100,
    }


@pytest.mark.data
def test_real_json_files_are_cut_whole(data: Path):
    found = {}
    for path in sorted(data.rglob("*.json.gz")):
        content = gzip.decompress(path.read_bytes())
        framing = framing_of(path.name, content[:65536])
        framed = list(values_of(content) if framing == "values" else frame_lines(content))
        assert_leads_back(content, framed, b" \t\n\r,[]\xef\xbb\xbf")
        assert reasons(framed) == [None] * len(framed)
        found[path.name] = (framing, len(framed))
    assert len(found) == 25
    assert sum(count for framing, count in found.values() if framing == "values") == 3718
    assert found["ARC-Easy_train.json.gz"] == ("values", 2251)
    assert found["subset_30_dev.json.gz"] == ("values", 1)  # pretty-printed
    assert found["dev-v2.0.json.gz"] == ("lines", 1)  # one long line
