"""A recall: what is banned, what leaves the tables, which aliases move, and what stays on record."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from infra.runtime import Runtime
from lineage import bans, fsck, models, tables
from lineage.bans import Recalled
from lineage.commands_recall import told
from lineage.consumption import find_checkpoint
from lineage.models import last_clean, recalled_versions
from lineage.recall import RecallError, reached_by, recall, would_move
from lineage.runs import RunError, carry_out
from lineage.schemas import BAN, EXAMPLE, RECALL, RUN, TRACE
from lineage.selectors import Selector
from lineage.tables import TableVersion
from tests.lineage.mortal import Mortal

ONE = Selector(rows=("0001",))


@pytest.fixture
def lake(small):
    """Four traces, an example of each, and three reigns: 12 trained 1, 13 trained 2, 11 and 14 trained 3."""
    small.traces([1, 2, 3, 4])
    small.examples({11: (1,), 12: (2,), 13: (3,), 14: (4,)})
    for eaten in ((12,), (13,), (11, 14)):
        small.promote(small.train(*eaten))
    return small


def test_a_recall_bans_the_rows_takes_them_out_and_moves_the_champion_to_the_last_clean(lake):
    outcome = recall(lake.runtime, ONE, reason="wrong")
    assert lake.numbers(TRACE) == [2, 3, 4]
    assert lake.numbers(EXAMPLE) == [12, 13, 14]
    assert lake.standing == {"champion": 2, "previous": 1}
    assert sorted(bans.banned(lake.settings)) == [1, 11]
    assert [order.run_id for order in bans.recalls(lake.settings)[0].orders] == [lake.runs[-1]]
    assert sorted(move[0] for move in outcome.facets["moved"]) == [
        "router@candidate",
        "router@champion",
        "router@previous",
    ]
    assert fsck.recalls(lake.settings) == (2, [])
    assert fsck.closure(lake.settings)[1] == []


def test_what_came_between_the_look_at_a_recall_and_the_recall_is_called_back_too(lake):
    looked_at = reached_by(lake.settings, ONE)
    assert reached_by(lake.settings, ONE) is looked_at
    lake.examples({15: (1,)})
    assert recall(lake.runtime, ONE, reason="wrong").counts["examples"] == 2
    assert sorted(bans.banned(lake.settings)) == [1, 11, 15]


def test_time_travel_still_shows_what_was_recalled(lake):
    before = tables.read(lake.settings, EXAMPLE)
    version = tables.current(lake.settings, EXAMPLE)
    assert version is not None
    recall(lake.runtime, ONE, reason="wrong")
    assert tables.read(lake.settings, version) == before
    ever = tables.read_ever(lake.settings, EXAMPLE).sort_by("row_no")
    assert ever == before.sort_by("row_no")
    assert [number for number in ever["row_no"].to_pylist() if number not in lake.numbers(EXAMPLE)] == [11]


def test_a_second_time_nothing_changes_and_the_first_outcome_is_told(lake):
    first = recall(lake.runtime, ONE, reason="wrong")
    before, told = lake.versions(), tables.read(lake.settings, RUN).num_rows
    again = recall(lake.runtime, ONE, reason="wrong still")
    assert again.again
    assert again.facets == first.facets
    assert lake.versions() == before
    assert tables.read(lake.settings, RUN).num_rows == told


@pytest.mark.parametrize(("look", "is_half_done"), [(2, False), (3, True), (4, False)])
def test_a_recall_that_died_half_way_is_finished_by_giving_it_again(look: int, is_half_done: bool, lake):
    # It looks at the clock when it begins, puts the order on record, moves the aliases, and ends.
    looks = iter(range(1, 100))

    def clock() -> dt.datetime:
        if next(looks) == look:
            raise KeyboardInterrupt
        return lake.runtime.now()

    with pytest.raises(KeyboardInterrupt):
        recall(Runtime(lake.settings, now=clock), ONE, reason="wrong")
    assert bool(fsck.recalls(lake.settings)[1]) == is_half_done
    outcome = recall(lake.runtime, ONE, reason="wrong")
    assert fsck.recalls(lake.settings)[1] == []
    assert lake.standing == {"champion": 2, "previous": 1}
    assert [order["version"] for order in outcome.facets["orders"]] == [3]
    assert ["router@champion", 3, 2] in outcome.facets["moved"]
    assert tables.read(lake.settings, BAN).num_rows == 2
    assert tables.read(lake.settings, RECALL).num_rows == 1


def test_a_recall_that_died_and_reaches_more_when_it_is_finished_tells_all_its_moves(lake):
    looks = iter(range(1, 100))

    def clock() -> dt.datetime:
        if next(looks) == 4:  # the aliases are moved, and its end is not on record
            raise KeyboardInterrupt
        return lake.runtime.now()

    with pytest.raises(KeyboardInterrupt):
        recall(Runtime(lake.settings, now=clock), ONE, reason="wrong")
    lake.examples({51: (1,)})
    outcome = recall(lake.runtime, ONE, reason="wrong", anyway=True)
    assert not outcome.run_id.endswith("-2")  # other rows are reached, so it is another run
    assert ["router@champion", 3, 2] in outcome.facets["moved"]


def test_without_a_clean_model_the_aliases_are_removed(lake):
    outcome = recall(lake.runtime, Selector(rows=("0001", "0002", "0003")), reason="wrong")
    assert lake.standing == {}
    assert ["router@champion", 3, 0] in outcome.facets["moved"]
    with pytest.raises(models.ModelError, match="'router@champion' is no alias"):
        models.resolve(lake.settings, "router@champion")


def test_where_only_the_previous_one_fell_the_champion_stays(lake):
    recall(lake.runtime, Selector(rows=("0003",)), reason="wrong", anyway=True)
    assert lake.standing == {"candidate": 3, "champion": 3, "previous": 1}
    assert recalled_versions(lake.settings, "router") == {2}


def test_recalls_one_after_the_other_go_further_back_each_time(lake):
    recall(lake.runtime, ONE, reason="wrong")
    recall(lake.runtime, Selector(rows=("0003",)), reason="wrong, too")
    assert lake.standing == {"champion": 1}
    assert last_clean(lake.settings, "router") == [1]
    recall(lake.runtime, Selector(rows=("0002",)), reason="all wrong")
    assert lake.standing == {}
    assert fsck.recalls(lake.settings)[1] == []


def test_a_recall_that_reaches_everything_or_nothing_that_serves_needs_to_be_meant(lake):
    lake.traces([99])
    before = lake.versions()
    with pytest.raises(RecallError, match=r"reaches every row of the lake \(9\); add --yes"):
        recall(lake.runtime, Selector(where="true"), reason="wrong")
    with pytest.raises(RecallError, match=r"nothing that serves ate what .* reaches \(1 rows of traces\)"):
        recall(lake.runtime, Selector(where="row_no = 99"), reason="wrong")
    with pytest.raises(RecallError, match="needs a reason"):
        recall(lake.runtime, ONE, reason=" \t")
    assert lake.versions() == before


def test_where_only_the_candidate_fell_it_is_removed_without_a_yes(lake):
    lake.traces([5])
    lake.examples({15: (5,)})
    candidate = models.register(lake.runtime, find_checkpoint(lake.settings, lake.train(15)), name="router")
    lake.move({"candidate": candidate.version}, kind="promotion")
    five = Selector(rows=("0005",))
    assert would_move(lake.settings, reached_by(lake.settings, five)) == [("router@candidate", 4, 0)]
    assert recall(lake.runtime, five, reason="wrong").facets["moved"] == [["router@candidate", 4, 0]]
    assert lake.standing == {"champion": 3, "previous": 2}


@pytest.mark.parametrize("is_read_before", [True, False])
def test_a_lost_record_of_what_was_eaten_stops_no_recall_and_is_told(is_read_before: bool, lake):
    if is_read_before:
        assert reached_by(lake.settings, ONE).checkpoints[0].first_contact == 0
    for file in Path(lake.settings.path("tables", "consumption")).glob("*.parquet"):
        file.unlink()
    tables.forget()
    (reached,) = reached_by(lake.settings, Selector(rows=("0002",))).checkpoints
    assert (reached.rows, reached.of, reached.first_contact, reached.steps_after) == (1, 1, None, None)
    assert reached.damaged.startswith("table 'consumption' cannot be used: file ")
    text = "\n".join(told(reached_by(lake.settings, Selector(rows=("0002",)))))
    assert "when it ate them, and how much, cannot be told: table 'consumption' cannot be used" in text
    outcome = recall(lake.runtime, ONE, reason="wrong")
    assert ["router@champion", 3, 2] in outcome.facets["moved"]
    assert sorted(bans.banned(lake.settings)) == [1, 11]


def test_rows_of_the_record_that_were_taken_out_by_hand_stop_no_recall_either(lake):
    DeltaTable(lake.settings.path("tables", "consumption")).delete("row_no = 11")
    assert "does not hold that it ate them" in reached_by(lake.settings, ONE).checkpoints[0].damaged
    recall(lake.runtime, ONE, reason="wrong")
    assert lake.standing["champion"] == 2


def test_a_rewritten_file_keeps_the_statistics_that_reads_and_later_recalls_skip_by(lake):
    recall(lake.runtime, ONE, reason="wrong")
    for spec, least, most in ((TRACE, 2, 4), (EXAMPLE, 12, 14)):
        (action,) = pa.table(
            DeltaTable(lake.settings.path("tables", spec.name)).get_add_actions(flatten=True)
        ).to_pylist()
        assert (action["min.row_no"], action["max.row_no"], action["num_records"]) == (least, most, 3)
    recall(lake.runtime, Selector(rows=("0003",)), reason="wrong")
    assert lake.numbers(TRACE) == [2, 4]
    assert lake.numbers(EXAMPLE) == [12, 14]


def test_a_batch_withdrawn_after_a_recall_takes_its_rewritten_files_with_it(lake):
    batch = TableVersion("examples", 1)
    recall(lake.runtime, ONE, reason="wrong")
    recall(lake.runtime, Selector(rows=("0003",)), reason="wrong")
    lake.examples({21: (4,)})
    tables.withdraw(lake.settings, batch, run_id="gate-1", reason="smells")
    assert lake.numbers(EXAMPLE) == [21]
    assert tables.read_batch(lake.settings, batch).num_rows == 4


def test_what_ate_recalled_rows_is_refused_by_name(lake):
    recall(lake.runtime, ONE, reason="wrong")
    with pytest.raises(Recalled, match=r"router@3 holds 1 rows that recall [0-9a-f]{12} took back"):
        bans.require_clean(lake.settings, [11, 14], what="router@3")


def test_a_recall_begun_while_another_process_is_at_work_is_refused_by_the_run(lake, another_process):
    with another_process(lake.settings, "ingest") as run_id:
        before = lake.versions()
        with pytest.raises(RunError, match=rf"run {run_id} \(ingest\) is in progress .* to recall rows"):
            recall(lake.runtime, ONE, reason="wrong")
        assert lake.versions() == before
    recall(lake.runtime, ONE, reason="wrong")


def test_a_job_of_our_own_process_does_not_stand_in_the_way(lake):
    def work(_: object):
        return recall(lake.runtime, ONE, reason="wrong")

    carry_out(lake.runtime, "search", config={}, inputs=[], work=work)
    assert lake.standing["champion"] == 2


def test_a_merged_row_falls_when_two_recalls_together_took_all_its_copies(small):
    small.traces([1, 2, 3])
    small.examples({11: (1, 2), 12: (3,)}, kind="alternative")
    for eaten in ((12,), (11,)):
        small.promote(small.train(*eaten))
    recall(small.runtime, ONE, reason="wrong", anyway=True)
    assert (small.numbers(EXAMPLE), small.standing["champion"]) == ([11, 12], 2)
    recall(small.runtime, Selector(rows=("0002",)), reason="wrong", anyway=True)
    assert (small.numbers(EXAMPLE), small.standing["champion"]) == ([12], 1)
    assert fsck.recalls(small.settings)[1] == []
    recall(small.runtime, ONE, reason="wrong", anyway=True)
    assert small.numbers(EXAMPLE) == [12]


def test_a_copy_that_came_after_the_order_of_a_recall_that_was_cut_off_before_its_bans_stays(small):
    small.traces([1])
    with Mortal(8, is_done=False) as mortal:
        recall(small.runtime, ONE, reason="wrong", anyway=True)
    assert mortal.died
    assert [len(bans.recalls(small.settings)), len(bans.banned(small.settings))] == [1, 0]
    later = small.runtime.now()
    small.traces([2], messages=[{"role": "user", "content": "question 1"}], extracted_at=later)
    recall(small.runtime, ONE, reason="wrong", anyway=True)
    assert small.numbers(TRACE) == [2]
    assert fsck.recalls(small.settings)[1] == []
    small.traces([3], messages=[{"role": "user", "content": "question 1"}], extracted_at=small.runtime.now())
    assert "row 3 is banned by recall" in fsck.recalls(small.settings)[1][0]  # stored past every refusal


def test_sql_for_everything_needs_a_yes_after_another_recall_too(lake):
    recall(lake.runtime, Selector(rows=("0002",)), reason="wrong", anyway=True)
    with pytest.raises(RecallError, match="reaches every row"):
        recall(lake.runtime, Selector(where="1 = 1"), reason="all")


def test_what_a_banned_scorer_passed_may_be_passed_by_another(small):
    small.traces([1])
    small.examples({11: (1,)}, scorer="judge", scorer_revision="1")
    row = tables.read(small.settings, EXAMPLE)
    recall(small.runtime, Selector(scorer="judge@1"), reason="lenient", anyway=True)
    assert small.numbers(EXAMPLE) == []
    banned = bans.standing(small.settings)
    place = row.column_names.index("scorer_revision")
    other = row.set_column(place, row.schema.field(place), pa.array(["2"]))
    assert banned.refused(other, EXAMPLE) == {}
    assert list(banned.refused(row, EXAMPLE)) == [0]


def test_given_again_after_like_rows_came_it_takes_them_too_and_orders_what_fell_then(lake):
    what = Selector(where="row_no = 12 or row_no = 15")
    assert recall(lake.runtime, what, reason="wrong", anyway=True).facets["orders"] == []
    lake.examples({15: (2,)})
    fallen = lake.train(15)
    lake.promote(fallen)
    again = recall(lake.runtime, what, reason="again")
    assert again.facets["orders"] == [{"name": "router", "version": 4, "run_id": fallen}]
    assert lake.standing["champion"] == 3
    assert [each.reason for each in bans.recalls(lake.settings)] == ["wrong"]
