from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lineage.schemas import DOCUMENT, TRACE
from pipelines.framing import frame_csv
from pipelines.readers import Unreadable
from pipelines.readers.field_map import DocumentMap, FieldMap, FieldMapError, load_map

JUDGED = """
empty = "absent"
[map]
input = "question"
response = "answer"
verdict = "ok"
score = "score"
correction = "gold"
[constant]
scorer = "ann"
threshold = "0.5"
"""

TABLE = b"""question,answer,ok,score,gold,team
1+1?,2,passed,0.9,,it
2+2?,5,No,0.1,4,
3+3?,6,maybe,n/a,,
"""

KNOWLEDGE = """
[document]
text = "body"
title = "head.line"
generator = "by"
score = "points"
[constant]
language = "en"
kind = "markdown"
"""


@pytest.fixture
def judged(tmp_path: Path) -> FieldMap | DocumentMap:
    return load(tmp_path, JUDGED)


@pytest.fixture
def knowledge(tmp_path: Path) -> FieldMap | DocumentMap:
    return load(tmp_path, KNOWLEDGE)


def load(folder: Path, text: str) -> FieldMap | DocumentMap:
    path = folder / "map.toml"
    path.write_text(text)
    return load_map(path)


def test_a_table_of_texts_gives_numbers_verdicts_and_what_is_absent(judged: FieldMap):
    first, second, third = (judged.read(framed.value)[0] for framed in frame_csv(io.BytesIO(TABLE)))
    assert (first["verdict"], first["score"], first["threshold"], first["correction"]) == (
        "pass",
        0.9,
        0.5,
        None,
    )
    assert (second["verdict"], second["score"], second["correction"]) == ("fail", 0.1, "4")
    assert (third["verdict"], third["score"]) == ("unstated", None)
    assert json.loads(third["extra"]) == {"team": "", "unread": {"score": "n/a", "verdict": "maybe"}}
    assert json.loads(first["extra"]) == {"team": "it"}


def test_an_empty_text_is_a_value_unless_the_map_says_otherwise(tmp_path: Path):
    reader = load(tmp_path, JUDGED.replace('empty = "absent"', ""))
    (row,) = reader.read({"question": "q", "answer": "", "gold": ""})
    assert (row["response"], row["correction"]) == ("", "")
    assert "empty" not in reader.fingerprint.parameters


def test_a_field_that_one_record_lacks_is_unstated_there(tmp_path: Path):
    reader = load(tmp_path, '[map]\ninput = "q"\nresponse = "a"\ntrace_key = "id"\nmodel_answered = "m"')
    (row,) = reader.read({"q": "1+1?", "a": "2"})
    assert (row["trace_key"], row["model_answered"], row["generator"]) == ("unstated",) * 3


def test_a_map_without_new_keys_is_the_reader_it_was():
    reader = FieldMap((("input", "q"), ("response", "a")), (("scorer", "s"),), ("k",))
    assert reader.fingerprint.encode() == (
        b'["field_map",1,{"constant":{"scorer":"s"},"keys":["k"],"map":{"input":"q","response":"a"}}]'
    )


def test_knowledge_is_mapped_into_documents(knowledge: DocumentMap):
    assert knowledge.writes is DOCUMENT
    assert knowledge.fingerprint.name == "document_map"
    record = {"body": "# A", "head": {"line": "T"}, "by": "ann", "points": "3", "tags": ["x"]}
    (row,) = knowledge.read(record)
    assert row == {
        "kind": "markdown",
        "title": "T",
        "section": None,
        "text": "# A",
        "language": "en",
        "generator": "ann",
        "score": 3.0,
        "metadata": '{"tags": ["x"]}',
    }
    assert knowledge.read({"body": "b"})[0]["title"] == "unstated"


@pytest.mark.parametrize("body", [None, "", " \n"])
def test_a_document_without_text_is_unreadable(knowledge: DocumentMap, body: str | None):
    with pytest.raises(Unreadable, match="missing_field"):
        knowledge.read({"body": body})


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[document]\ntitle = 'a'", "must say where a document's 'text' is"),
        ("[document]\ntext = 'a'\nverdict = 'b'", "unknown 'verdict'"),
        ("[document]\ntext = 'a'\n[for_each]\nkeys = ['b']", "unknown 'for_each'"),
        ("[document]\ntext = 'a'\n[constant]\nkind = 'poem'", "has kind 'poem'"),
        ("empty = 'null'\n[map]\ninput = 'a'\nresponse = 'b'", "has empty = 'null'"),
    ],
)
def test_a_map_that_cannot_be_used_says_why(tmp_path: Path, text: str, sentence: str):
    with pytest.raises(FieldMapError, match=sentence):
        load(tmp_path, text)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["1e999", 10**400]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=4,
)
NAMES = st.sampled_from(["question", "answer", "ok", "score", "gold", "body", "head", "by", "points", "x"])


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(record=st.dictionaries(NAMES, VALUES))
def test_any_record_gives_rows_or_is_unreadable(record: dict):
    mapped = (("input", "question"), ("response", "answer"), ("score", "score"), ("verdict", "ok"))
    documents = (("text", "body"), ("title", "head.line"), ("score", "points"), ("kind", "x"))
    for reader in (FieldMap(mapped), FieldMap(mapped, (), (), True), DocumentMap(documents)):
        try:
            rows = reader.read(record)
        except Unreadable:
            continue
        spec = TRACE if isinstance(reader, FieldMap) else DOCUMENT
        assert all(row.keys() <= set(spec.derivable.names) for row in rows)


def test_what_stands_beside_a_mapped_field_is_kept_at_any_depth():
    reader = FieldMap(fields=(("input", "req.q"), ("response", "{key}.out.a")), keys=("m1", "m2"))
    record = {
        "req": {"q": "?", "user": "u"},
        "m1": {"out": {"a": "1", "ms": 3}},
        "m2": {"out": {"a": "2"}},
        "top": 1,
    }
    first, second = (json.loads(row["extra"]) for row in reader.read(record))
    assert first == {"req": {"user": "u"}, "m1": {"out": {"ms": 3}}, "top": 1}
    assert second == {"req": {"user": "u"}, "m2": {"out": {}}, "top": 1}
