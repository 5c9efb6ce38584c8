from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineage.rows import (
    Derivation,
    Fingerprint,
    Rejection,
    RowError,
    canonical_payload,
    derived_row_id,
    origin_of,
    source_row_ids,
)

STEP = Fingerprint("split_turns", 1, {"most": 3})
FIRST = b'{"messages": []}'
SCHEMA = pa.schema([("text", pa.string()), ("score", pa.float64()), ("parts", pa.list_(pa.string()))])


def test_a_payload_is_json_with_its_names_in_order():
    payload = canonical_payload({"text": "häagen", "score": 0.5, "parts": ["a", "b"]}, SCHEMA)
    assert payload.decode() == '{"parts":["a","b"],"score":0.5,"text":"häagen"}'


def test_equal_records_at_two_places_differ_and_a_copy_of_the_source_does_not():
    def at(position: int, first: bytes = FIRST) -> bytes:
        (row_id,) = source_row_ids(
            reader="chat",
            revision=1,
            origin=origin_of(first),
            positions=[position],
            records=[b"same"],
            ordinals=[0],
        )
        return row_id

    assert at(0) != at(5)
    assert at(5) == at(5)
    assert at(5) != at(5, first=b"another source")


@given(st.lists(st.binary(min_size=16, max_size=16), min_size=1, max_size=5, unique=True), st.randoms())
def test_the_order_of_parents_bears_no_identity(parents: list[bytes], random):
    shuffled = random.sample(parents, len(parents))
    one = derived_row_id(steps=[STEP], parents=parents, payload=b"{}", ordinal=0)
    assert one == derived_row_id(steps=[STEP], parents=shuffled, payload=b"{}", ordinal=0)


def test_name_revision_and_parameters_of_a_step_bear_identity():
    ids = {
        derived_row_id(steps=[step], parents=[b"p"], payload=b"{}", ordinal=0)
        for step in (STEP, Fingerprint("split", 1, {"most": 3}), Fingerprint("split_turns", 2, {"most": 3}))
    }
    ids.add(
        derived_row_id(
            steps=[Fingerprint("split_turns", 1, {"most": 4})], parents=[b"p"], payload=b"{}", ordinal=0
        )
    )
    assert len(ids) == 4


def test_a_column_that_is_added_later_and_left_empty_changes_no_id():
    row = {"text": "a", "score": 1.0, "parts": ["x"]}
    wider = SCHEMA.append(pa.field("later", pa.string()))
    assert canonical_payload(row, SCHEMA) == canonical_payload(row | {"later": None}, wider)


def test_a_payload_that_json_cannot_say_is_refused():
    with pytest.raises(ValueError, match="Out of range"):
        canonical_payload({"text": "a", "score": float("nan"), "parts": []}, SCHEMA)


ONE = pa.table({"text": ["a"]})


def test_a_derived_row_without_parents_is_refused():
    with pytest.raises(RowError, match="no parents"):
        Derivation(ONE, [()])


def test_a_row_that_is_neither_derived_from_nor_rejected_is_noticed():
    with pytest.raises(RowError, match="1 of 2 rows vanished"):
        Derivation(ONE, [(0,)]).check_covers(2)


def test_a_row_cannot_be_both_a_parent_and_rejected():
    with pytest.raises(RowError, match="both"):
        Derivation(ONE, [(0,)], {0: Rejection("bad")}).check_covers(1)


def test_a_parent_outside_the_batch_is_refused():
    with pytest.raises(RowError, match="not in a batch of 1"):
        Derivation(ONE, [(3,)], {0: Rejection("bad")}).check_covers(1)
