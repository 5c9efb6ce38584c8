"""What falls with a bad row: the rule itself against its recursive definition, and over stored rows."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineage.ancestry import ancestors, descendants
from lineage.graph import Edges
from lineage.impact import falls, impact
from lineage.recall import recall
from lineage.schemas import TRACE
from lineage.selectors import Selector, SelectorError
from lineage.tables import TableError


def identity(number: int) -> bytes:
    """The row id that the small lake gives a number."""
    return number.to_bytes(2, "big") + bytes(14)


Edge = tuple[int, int, bool]


@st.composite
def graphs(draw: st.DrawFn) -> tuple[int, list[Edge], list[bool]]:
    """Rows, edges (child, parent, joint) from a row to earlier ones, and which rows are meant."""
    count = draw(st.integers(1, 12))
    edges: list[Edge] = []
    for child in range(1, count):
        parents = draw(st.sets(st.integers(0, child - 1), max_size=4))
        joint = draw(st.booleans())
        edges += [(child, parent, joint) for parent in sorted(parents)]
    order = draw(st.permutations(range(count)))
    renamed = [(order[child], order[parent], joint) for child, parent, joint in draw(st.permutations(edges))]
    return count, renamed, draw(st.lists(st.booleans(), min_size=count, max_size=count))


@given(graphs())
def test_a_row_falls_when_it_is_meant_or_a_joint_parent_falls_or_all_its_alternatives_do(
    graph: tuple[int, list[Edge], list[bool]],
):
    count, edges, meant = graph

    @cache
    def falls_by_definition(row: int) -> bool:
        parents = [(parent, joint) for child, parent, joint in edges if child == row]
        return (
            meant[row]
            or any(joint and falls_by_definition(parent) for parent, joint in parents)
            or (bool(parents) and all(falls_by_definition(parent) for parent, _ in parents))
        )

    columns = np.array([(c, p) for c, p, _ in edges], np.int64).reshape(-1, 2)
    joint = np.array([j for _, _, j in edges], bool)
    found = falls(np.array(meant), Edges(columns[:, 0], columns[:, 1], joint))
    assert found.tolist() == [falls_by_definition(row) for row in range(count)]


def test_a_merged_row_outlives_one_bad_copy_and_falls_with_the_last(small):
    small.traces([1], prompt_name="p", prompt_version="1")
    small.traces([2], prompt_name="p", prompt_version="2")
    small.examples({11: (1, 2)}, kind="alternative")
    one = impact(small.settings, Selector(prompt="p@1"))
    assert one.by_table == {"traces": 1}
    both = impact(small.settings, Selector(prompt="p"))
    assert both.by_table == {"traces": 2, "examples": 1}


def test_of_joint_parents_one_bad_one_is_enough_and_a_chain_falls_to_its_end(small):
    small.traces([1, 2])
    small.examples({11: (1, 2), 12: (2,)})
    small.examples({21: (11,)})
    small.examples({31: (21,), 32: (12,)})
    found = impact(small.settings, Selector(rows=("0001",)))
    assert found.rows["row_no"].to_pylist() == [1, 11, 21, 31]
    assert found.rows.filter(found.rows["meant"])["row_no"].to_pylist() == [1]


def test_of_one_trace_every_example_falls_and_of_many_duplicates_none_until_all_have(small):
    small.traces(range(1, 41), prompt_version="1", prompt_name="p")
    small.traces([41], prompt_version="2", prompt_name="p")
    small.examples({100 + n: (1,) for n in range(200)})
    small.examples({500: tuple(range(1, 42))}, kind="alternative")
    small.examples({501: tuple(range(1, 42))}, kind="joint")
    one = impact(small.settings, Selector(rows=("0001",)))
    assert one.by_table == {"traces": 1, "examples": 201}
    assert one.rows["row_no"].to_pylist()[-1] == 501
    assert 500 not in impact(small.settings, Selector(prompt="p@1")).rows["row_no"].to_pylist()
    assert 500 in impact(small.settings, Selector(prompt="p")).rows["row_no"].to_pylist()


def test_a_chain_of_fifty_falls_to_its_end_and_leads_back_to_its_beginning(small):
    small.traces([1, 2])
    small.examples({10: (1,), **{n: (n - 1,) for n in range(11, 60)}})
    small.examples({60: (2,)})
    assert impact(small.settings, Selector(rows=("0001",))).rows["row_no"].to_pylist() == [1, *range(10, 60)]
    last, first = identity(59), identity(1)
    graph = ancestors(small.settings, [last])
    assert sorted(row["row_no"] for row in graph.values()) == [1, *range(10, 60)]
    assert [row["row_no"] for row in descendants(small.settings, first)] == list(range(10, 60))


def test_a_checkpoint_is_reached_from_the_step_at_which_it_ate_a_fallen_row(small):
    small.traces([1, 2])
    small.examples({11: (1,), 12: (2,)})
    small.promote(small.train(12, 11, 12, 11))
    clean = small.train(12)
    (reached,) = impact(small.settings, Selector(rows=("0001",))).checkpoints
    assert (reached.rows, reached.of, reached.slots, reached.of_slots) == (1, 2, 2, 4)
    assert reached.first_contact == 1
    assert reached.run_id != clean


def test_what_was_recalled_before_is_still_shown(small):
    small.traces([1, 2])
    small.examples({11: (1,), 12: (2,)})
    before = impact(small.settings, Selector(rows=("0001",)))
    recall(small.runtime, Selector(rows=("0001",)), reason="wrong", anyway=True)
    again = impact(small.settings, Selector(rows=("0001",)))
    assert again.rows["row_no"].to_pylist() == before.rows["row_no"].to_pylist() == [1, 11]
    assert again.stored == before.stored


def test_contradicting_parts_say_what_each_means_alone(small):
    small.traces([1, 2], prompt_name="p", prompt_version="1")
    small.traces([3], prompt_name="p", prompt_version="2", scorer="judge", scorer_revision="1")
    with pytest.raises(SelectorError) as refused:
        impact(small.settings, Selector(prompt="p@1", scorer="judge"))
    assert "together: --prompt p@1 alone means 2 rows, --scorer judge alone means 1 rows" in str(
        refused.value
    )


def test_a_value_that_no_row_has_lists_those_that_rows_have(small):
    small.traces([1, 2], prompt_name="p", prompt_version="1")
    small.traces([3], prompt_name="p", prompt_version="2")
    with pytest.raises(SelectorError, match=r"no row is meant by --prompt p@3; known: p@1, p@2$"):
        impact(small.settings, Selector(prompt="p@3"))


def test_a_start_of_an_id_that_none_or_several_have_is_refused_with_those_that_do(small):
    ids = [b"\x12\x34" + bytes([n]) * 14 for n in (1, 2)]
    small.store(TRACE, [{"row_no": n, "row_id": row_id} for n, row_id in enumerate(ids)])
    with pytest.raises(SelectorError, match=f"'1234' could be any of: {ids[0].hex()}, {ids[1].hex()}"):
        impact(small.settings, Selector(rows=("1234",)))
    with pytest.raises(SelectorError, match=r"no row starts with '123' \(at least 4 hex digits are needed\)"):
        impact(small.settings, Selector(rows=("123",)))
    with pytest.raises(SelectorError, match="no source revision starts with 'ffff'"):
        impact(small.settings, Selector(source_revision="ffff"))
    small.traces([7], source_revision="sha256:" + "ab" * 8 + "cd" * 24)
    with pytest.raises(SelectorError, match="'abab' could be any of: sha256:abab"):
        impact(small.settings, Selector(source_revision="abab"))
    assert impact(small.settings, Selector(source_revision="ab" * 8 + "cd")).by_table == {"traces": 1}
    assert impact(small.settings, Selector(rows=("123401",))).by_table == {"traces": 1}


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("nonsense = 1", "No field named nonsense"),
        ("row_no", "non-boolean"),
        ("1 = 1) union select 5 as row_no where (1 = 1", "Expected: end of statement"),
        ("true); drop table traces; select (true", "single SQL statement|found: ;"),
        ("row_no in (select row_no from read_parquet('/etc/passwd'))", "'read_parquet' not found"),
        ("row_no in (select row_no from '/etc/passwd')", "asks a table"),
        ("row_no in (copy traces to '/tmp/never')", "Expected: "),
        ("", "nothing is named"),
        (" ", "Expected: an expression"),
        ("row_no / 0 = 1", "Divide by zero"),
        ("cast(source_uri as int) = 1", "Cannot cast"),
        ("null", "no row is meant"),
        ("false", "no row is meant"),
    ],
)
def test_a_condition_that_is_none_or_cannot_be_carried_out_means_no_row_and_says_why(
    where: str, said: str, small
):
    small.traces([1, 2])
    before = small.versions()
    with pytest.raises(TableError, match=said):
        impact(small.settings, Selector(where=where))
    assert small.versions() == before


def test_a_condition_may_hold_strings_comments_and_columns_of_one_table_alone(small):
    small.traces([1, 2])
    small.examples({11: (1,), 12: (2,)}, answer="it's (a) trap; --")
    found = impact(
        small.settings, Selector(where="answer = 'it''s (a) trap; --' and row_no = 12 -- that one")
    )
    assert found.rows["row_no"].to_pylist() == [12]


def test_sql_means_recalled_rows_as_well_as_stored_ones(small):
    small.traces([1, 2, 3])
    recall(small.runtime, Selector(where="row_no = 1"), reason="wrong", anyway=True)
    assert impact(small.settings, Selector(where="row_no < 3")).rows["row_no"].to_pylist() == [1, 2]
    again = impact(small.settings, Selector(where="row_no = 1"))
    assert again.rows["stored"].to_pylist() == [False]


def test_evaluations_on_reached_rows_are_reached(small):
    small.traces([1, 2])
    evaluation = small.evaluate(1, 2)
    found = impact(small.settings, Selector(where="row_no = 1"))
    assert [(each.run_id, each.job, each.rows) for each in found.runs] == [(evaluation, "evaluate", 1)]
