"""Steps over batches: identity, balance, ancestry, and what one bad row costs."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.runtime import Runtime
from lineage import tables
from lineage.rows import Derivation, Fingerprint, Rejection, RowError
from lineage.runs import Run
from lineage.schemas import EXAMPLE, REJECTED, TRACE
from lineage.stamp import Places, Source, Stamp, stamp_source
from pipelines.runner import RunnerError, apply, check_balance, derive
from pipelines.step import Step, keep
from pipelines.steps.duplicates import MergeDuplicates
from pipelines.steps.judged import ExampleFromTrace

RUN = Run("abcdef0123456789", 1, "curate")
_SAID = ("step", "step_revision", "reason", "scorer", "scorer_revision")
MARK = pa.field(  # rides along with each row, and is null while the row goes on
    "rejection",
    pa.struct(
        [*((name, pa.string()) for name in _SAID), ("score", pa.float64()), ("threshold", pa.float64())]
    ),
)


# ---------------------------------------------------------------- toys


def traces(*said: tuple[str, str], verdict: str = "pass", **stated: Any) -> pa.Table:
    """One stored trace per (question, answer)."""
    payload = {"trace_key": "unstated", "model_requested": "m", "model_answered": "m", "verdict": verdict}
    read = [
        payload | {"messages": [{"role": "user", "content": asked}], "response": answer} | stated
        for asked, answer in said
    ]
    numbers = range(len(said))
    places = Places(
        [100 * n for n in numbers],
        [f"bytes:{100 * n}" for n in numbers],
        [b"%d" % n for n in numbers],
        [0] * len(said),
    )
    return stamp_source(
        pa.Table.from_pylist(read, schema=TRACE.derivable),
        places,
        into=TRACE,
        source=Source("file:///log.jsonl", "sha256:0", b"first"),
        reader=Fingerprint("toy", 1, {}),
        stamp=stamp(),
        first_row_no=0,
    )


def stamp() -> Stamp:
    return Stamp(RUN.id, "sha256:code", dt.datetime(2026, 1, 1, tzinfo=dt.UTC))


def example(trace: dict[str, Any], text: str) -> dict[str, Any]:
    fixed = {"task": "generation", "split": "train", "kind": "stated", "condition": "not_applicable"}
    return fixed | {"messages": trace["messages"], "text": text, "answer": trace["response"]}


@dataclass(frozen=True)
class Words(Step):
    """One example per word of the answer; a trace that says only 'none' is rejected, 'poison' raises."""

    reads: ClassVar = TRACE
    writes: ClassVar = EXAMPLE
    revision: ClassVar = 1

    def derive(self, rows: pa.Table) -> Derivation:
        made, parents, rejected = [], [], {}
        for index, trace in enumerate(rows.to_pylist()):
            if trace["response"] == "poison":
                raise ZeroDivisionError("on this row alone")
            if trace["response"] == "none":
                rejected[index] = Rejection("no_words", 0.25, 0.5, "counter", "3")
                continue
            words = trace["response"].split()
            made += [example(trace, word) for word in words]
            parents += [(index,)] * len(words)
        return Derivation(pa.Table.from_pylist(made, schema=EXAMPLE.derivable), parents, rejected)


@dataclass(frozen=True)
class Short(Step):
    """Keeps short texts and scores them."""

    most: int = 3

    reads: ClassVar = EXAMPLE
    writes: ClassVar = EXAMPLE
    revision: ClassVar = 1
    identifies: ClassVar = False

    def derive(self, rows: pa.Table) -> Derivation:
        texts = rows["text"].to_pylist()
        kept = [index for index, text in enumerate(texts) if len(text) <= self.most]
        lost = {i: Rejection("too_long", len(t), self.most) for i, t in enumerate(texts) if i not in kept}
        scores = {"scorer": ["short"] * len(kept), "score": [1.0] * len(kept)}
        return Derivation(keep(rows, kept, **scores), [(index,) for index in kept], lost)


@dataclass(frozen=True)
class Binding(Short):
    """Keeps short texts, whatever a person says."""

    binds: ClassVar = True


@dataclass(frozen=True)
class Loses(Step):
    """Forgets its last row."""

    reads: ClassVar = TRACE
    writes: ClassVar = EXAMPLE
    revision: ClassVar = 1

    def derive(self, rows: pa.Table) -> Derivation:
        made = [example(trace, "x") for trace in rows.to_pylist()[:-1]]
        table = pa.Table.from_pylist(made, schema=EXAMPLE.derivable)
        return Derivation(table, [(index,) for index in range(len(made))])


TO_EXAMPLES = ExampleFromTrace("classification", "train")


def applied(step: Step, batch: pa.Table) -> pa.Table:
    if MARK.name not in batch.column_names:
        batch = batch.append_column(MARK, pa.nulls(batch.num_rows, MARK.type))
    return apply(step, batch, steps=(step.fingerprint,), stamp=stamp())


def live(batch: pa.Table) -> list[dict[str, Any]]:
    return batch.filter(pc.is_null(batch[MARK.name])).to_pylist()


def lost(batch: pa.Table) -> list[dict[str, Any]]:
    return batch.filter(pc.is_valid(batch[MARK.name])).to_pylist()


def derived(
    runtime: Runtime, rows: pa.Table, steps: Sequence[Step], *, key: str = "run:a", run: Run = RUN
) -> tuple[list[str], dict[str, int]]:
    tables.reserve(runtime.settings, 100, run_id=run.id)  # those of the toys
    batches, counts = derive(runtime, rows, steps=steps, run=run, key=key)
    return [str(batch) for batch in batches], counts


def examples(runtime: Runtime) -> list[dict[str, Any]]:
    return tables.read(runtime.settings, EXAMPLE).sort_by("row_no").to_pylist()


# ---------------------------------------------------------------- one step over one batch

answers = st.lists(st.sampled_from(["a", "a b", "a a", "none", "poison", "b c d"]), min_size=1, max_size=12)


@given(said=answers, cuts=st.lists(st.integers(0, 12), max_size=4))
@settings(max_examples=60, deadline=None)
def test_however_the_input_is_cut_the_same_rows_come_out(said: list[str], cuts: list[int]):
    rows = traces(*((f"q{n}", answer) for n, answer in enumerate(said)))
    edges = sorted({0, len(said), *(cut for cut in cuts if cut < len(said))})
    whole = applied(Words(), rows)
    pieces = [applied(Words(), rows.slice(a, b - a)) for a, b in pairwise(edges)]
    cut = pa.concat_tables(pieces)
    assert [row["row_id"] for row in live(cut)] == [row["row_id"] for row in live(whole)]
    assert sorted(row["row_id"] for row in lost(cut)) == sorted(row["row_id"] for row in lost(whole))


@given(said=answers)
@settings(max_examples=60, deadline=None)
def test_every_row_goes_on_or_is_rejected_and_none_does_both(said: list[str]):
    rows = traces(*((f"q{n}", answer) for n, answer in enumerate(said)))
    out = applied(Words(), rows)
    went_on = {parent for row in live(out) for parent in row["parents"]}
    stayed = {row["row_id"] for row in lost(out)}
    assert went_on | stayed == set(rows["row_id"].to_pylist())
    assert not went_on & stayed
    assert len(live(out)) == sum(len(a.split()) for a in said if a not in ("none", "poison"))


def test_rows_of_one_trace_have_their_own_ids_and_the_same_parent():
    rows = traces(("q", "a b a"))
    made = live(applied(Words(), rows))
    assert [row["text"] for row in made] == ["a", "b", "a"]
    assert len({row["row_id"] for row in made}) == 3  # the two equal ones as well
    assert {(*row["parents"], *row["parent_nos"]) for row in made} == {(rows["row_id"][0].as_py(), 0)}


def test_one_poisoned_row_costs_one_row():
    rows = traces(("q0", "a"), ("q1", "poison"), ("q2", "b"))
    out = applied(Words(), rows)
    assert [row["text"] for row in live(out)] == ["a", "b"]
    (refused,) = lost(out)
    assert refused["row_id"] == rows["row_id"][1].as_py()
    assert refused[MARK.name]["reason"] == "step_failed:ZeroDivisionError"


def test_a_rejection_is_kept_whole_and_passes_later_steps_by():
    out = applied(Words(), traces(("q0", "a"), ("q1", "none")))
    for batch in (out, applied(Short(), out)):
        (refused,) = lost(batch)
        assert refused[MARK.name] == {
            "step": "words",
            "step_revision": "1",
            "reason": "no_words",
            "scorer": "counter",
            "scorer_revision": "3",
            "score": 0.25,
            "threshold": 0.5,
        }


def test_a_step_that_loses_a_row_is_our_mistake_and_not_the_rows():
    with pytest.raises(RowError, match="1 of 2 rows vanished"):
        applied(Loses(), traces(("q0", "a"), ("q1", "b")))


def test_another_revision_of_a_step_makes_other_rows():
    rows = traces(("q", "a"))

    class Revised(Words):
        revision: ClassVar = 2

        @property
        def name(self) -> str:
            return "words"

    ids = [live(applied(step, rows))[0]["row_id"] for step in (Words(), Words(), Revised())]
    assert ids[0] == ids[1] != ids[2]


@given(
    into=st.integers(0, 50),
    created=st.integers(-5, 50),
    out=st.integers(0, 50),
    merged=st.integers(0, 50),
    rejected=st.integers(0, 50),
)
def test_counts_that_do_not_balance_are_refused(
    into: int, created: int, out: int, merged: int, rejected: int
):
    counts = {"in": into, "created": created, "out": out, "merged": merged, "rejected": rejected}
    if into + created == out + merged + rejected and created >= 0:
        check_balance(counts)
    else:
        with pytest.raises(RunnerError, match="do not balance"):
            check_balance(counts)


# ---------------------------------------------------------------- chains, on Ray


def test_a_chain_stores_rows_that_name_stored_parents_only(runtime: Runtime):
    rows = traces(("same", "x"), ("SAME ", "x"), ("other", "y"), ("third", "z"))
    steps = (TO_EXAMPLES, Short(most=5), MergeDuplicates(), Short(most=5))
    batches, counts = derived(runtime, rows, steps)
    stored = examples(runtime)
    assert batches == ["examples@1"]
    number_of = dict(zip(rows["row_id"].to_pylist(), rows["row_no"].to_pylist(), strict=True))
    assert all([number_of[parent] for parent in row["parents"]] == row["parent_nos"] for row in stored)
    kinds = {tuple(sorted(row["parent_nos"])): row["derivation"] for row in stored}
    assert kinds == {(0, 1): "alternative", (2,): "joint", (3,): "joint"}
    assert counts == {"in": 4, "created": 0, "out": 3, "merged": 1, "rejected": 0, "known": 0}
    assert {(row["step"], row["scorer"], row["score"]) for row in stored} == {
        ("merge_duplicates", "short", 1.0)  # a filter made no row: it judged one that was made before
    }


def test_a_row_that_a_person_vouches_for_goes_on_past_a_filter_but_not_past_a_step_that_binds():
    rows = applied(TO_EXAMPLES, traces(("a", "yes"), ("a long one", "no"), ("another long one", "no")))
    given: dict[str, Any] = {"steps": (TO_EXAMPLES.fingerprint,), "stamp": stamp()}
    given["vouched"] = frozenset(rows["parents"][1].as_py())
    done = apply(Short(), rows, **given)
    assert [(row["text"], row["scorer"]) for row in live(done)] == [
        ("a", "short"),
        ("a long one", "unstated"),
    ]
    assert [row["row_id"] for row in live(done)] == rows["row_id"].to_pylist()[:2]
    assert [row["text"] for row in lost(done)] == ["another long one"]
    assert [row["text"] for row in live(apply(Binding(), rows, **given))] == ["a"]


def test_a_merged_row_says_what_its_parents_share_and_mixed_where_they_differ(runtime: Runtime):
    one = traces(("same", "x"), prompt_name="router", prompt_version="1", scorer="judge", score=1.0)
    two = traces(("nothing", "y"), ("Same", "x"), prompt_name="router", prompt_version="2", scorer="judge")
    two = two.slice(1).set_column(
        two.column_names.index("row_no"), TRACE.schema.field("row_no"), pa.array([7], pa.int64())
    )
    derived(runtime, pa.concat_tables([one, two]), (TO_EXAMPLES, MergeDuplicates()))
    (merged,) = examples(runtime)
    assert sorted(merged["parent_nos"]) == [0, 7]
    assert merged["derivation"] == "alternative"
    shown = {
        name: merged[name] for name in ("prompt_name", "prompt_version", "scorer", "score", "source_span")
    }
    assert shown == {
        "prompt_name": "router",
        "prompt_version": "mixed",
        "scorer": "judge",
        "score": None,
        "source_span": "mixed",
    }


def test_what_was_rejected_is_stored_with_reason_score_and_threshold(runtime: Runtime):
    rows = traces(("q0", "a"), ("q1", "none"), ("q2", "sesquipedalian b"), ("q3", "poison"))
    _, counts = derived(runtime, rows, (Words(), Short()))
    books = tables.read(runtime.settings, REJECTED).sort_by("row_no").to_pylist()
    told = [(r["row_no"], r["step"], r["reason"], r["score"], r["threshold"]) for r in books]
    assert told == [
        (1, "words", "no_words", 0.25, 0.5),
        (2, "short", "too_long", 14.0, 3.0),
        (3, "words", "step_failed:ZeroDivisionError", None, None),
    ]
    assert [row["row_id"] for row in books] == rows["row_id"].to_pylist()[1:]
    assert counts == {"in": 4, "created": 1, "out": 2, "merged": 0, "rejected": 3, "known": 0}


def test_a_step_that_loses_a_row_commits_nothing(runtime: Runtime):
    with pytest.raises(Exception, match="1 of 3 rows vanished"):
        derived(runtime, traces(("a", "a"), ("b", "b"), ("c", "c")), (Loses(),))
    assert tables.read(runtime.settings, EXAMPLE).num_rows == 0
    assert tables.current(runtime.settings, EXAMPLE) is None
    assert tables.current(runtime.settings, REJECTED) is None


def test_steps_that_do_not_fit_are_refused_before_anything_runs(runtime: Runtime):
    with pytest.raises(RunnerError, match="words writes examples, but words reads traces"):
        derived(runtime, traces(("a", "a")), (Words(), Words()))


def test_the_same_work_under_the_same_key_is_stored_once(runtime: Runtime):
    rows = traces(("q0", "a b"), ("q1", "none"))
    first = derived(runtime, rows, (Words(),))
    again = derived(runtime, rows, (Words(),), run=replace(RUN, attempt=2))
    assert again == first
    assert len(examples(runtime)) == 2
    assert {row["run_id"] for row in examples(runtime)} == {RUN.id}


def test_other_work_that_makes_the_same_rows_stores_nothing_and_names_the_batches_that_hold_them(
    runtime: Runtime,
):
    rows = traces(("q0", "a b"), ("q1", "long words"))
    other = Run("0123456789abcdef", 1, "curate")
    batches, _ = derived(runtime, rows, (Words(), Short(most=1)))
    again, counts = derived(runtime, rows, (Words(), Short(most=2)), key="run:b", run=other)
    assert (again, counts["known"], len(examples(runtime))) == (batches, 2, 2)
    more, counts = derived(
        runtime, rows, (Words(), Short(most=9)), key="run:c", run=replace(other, attempt=2)
    )
    assert (counts["known"], len(examples(runtime))) == (2, 4)
    assert more == [*batches, "examples@2"]
    numbers = [row["row_no"] for row in examples(runtime)]
    assert len(set(numbers)) == 4
