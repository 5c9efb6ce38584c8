"""A person's word on rows: what goes on record, what counts, and which examples it leaves."""

from __future__ import annotations

import datetime as dt

import pyarrow.dataset as pads
import pytest

from infra.runtime import Runtime
from lineage import curricula, fsck, tables
from lineage.commands_recall import told
from lineage.curricula import DataRecipe
from lineage.heed import Heeded, heed
from lineage.impact import impact
from lineage.lift import lift
from lineage.recall import recall
from lineage.review import Review, ReviewError, history, review, standing
from lineage.rows import rows_digest
from lineage.runs import identity_of
from lineage.schemas import EXAMPLE, EXCLUSION, REVIEW, RUN, TRACE, VERDICT
from lineage.selectors import Selector, SelectorError

SAME = {"task": "classification", "split": "train", "condition": "not_applicable", "kind": "passed"}


@pytest.fixture
def lake(small):
    """Four traces, an example of each; 15 is an example of 1 and 2 alike, 16 was derived from 14."""
    small.traces([1, 2, 3, 4])
    derived(small, {11: (1,), 12: (2,), 13: (3,), 14: (4,)})
    derived(small, {15: (1, 2)}, derivation="alternative")
    derived(small, {16: (14,)})
    return small


def derived(lake, parents: dict[int, tuple[int, ...]], derivation="joint", **columns) -> None:
    rows = [{"row_no": n, "parent_nos": list(of), "derivation": derivation} for n, of in parents.items()]
    lake.store(EXAMPLE, rows, **SAME | columns)


def said(lake, verdict, *numbers: int, label=None, reviewer="ann", reason="seen"):
    rows = [f"{number:04x}" for number in numbers]
    return review(lake.runtime, rows, verdict, reason=reason, reviewer=reviewer, label=label)


def inputs(lake) -> tuple[str, ...]:
    return heed(lake.settings, tables.read(lake.settings, EXAMPLE)).inputs


def left_out(lake) -> dict[int, str]:
    found = heed(lake.settings, tables.read(lake.settings, EXAMPLE)).left_out
    return {int.from_bytes(row_id[:2], "big"): reason for row_id, reason in found.items()}


# ---------------------------------------------------------------- on record


def test_a_review_is_on_record_with_who_when_and_why(lake):
    outcome = said(lake, "rejected", 1, 12, reason="spam")
    rows = tables.read(lake.settings, REVIEW).sort_by("row_no").to_pylist()
    assert [(r["table"], r["row_no"], r["verdict"], r["reviewer"], r["reason"]) for r in rows] == [
        ("traces", 1, "rejected", "ann", "spam"),
        ("examples", 12, "rejected", "ann", "spam"),
    ]
    assert {r["run_id"] for r in rows} == {outcome.run_id}
    assert all(r["at"] is not None and r["label"] is None for r in rows)


def test_said_again_nothing_changes_but_after_another_word_it_counts_again(lake):
    first = said(lake, "rejected", 1)
    again = said(lake, "rejected", 1)
    assert (again.again, again.run_id) == (True, first.run_id)
    assert len(history(lake.settings)) == 1
    said(lake, "approved", 1)
    third = said(lake, "rejected", 1)
    assert not third.again
    assert [each.verdict for each in history(lake.settings)] == ["rejected", "approved", "rejected"]
    (last,) = standing(lake.settings).last.values()
    assert (last.verdict, last.run_id) == ("rejected", third.run_id)


def test_a_review_that_died_before_its_end_is_finished_by_giving_it_again_and_stands_once(lake):
    stored = []
    for looks_at_the_clock in range(20):
        left = iter(range(looks_at_the_clock))

        def clock(left=left) -> dt.datetime:
            if next(left, None) is None:
                raise KeyboardInterrupt
            return lake.runtime.now()

        try:
            review(Runtime(lake.settings, now=clock), ["0001"], "rejected", reason="seen", reviewer="ann")
        except KeyboardInterrupt:
            stored.append(len(history(lake.settings)))
        else:
            break
    assert stored == sorted(stored)
    assert set(stored) == {0, 1}  # it died before the word was on record, and after
    assert len(history(lake.settings)) == 1
    assert said(lake, "rejected", 1).again


@pytest.mark.parametrize(
    ("rows", "changes", "sentence"),
    [
        (["0001"], {"reason": " \n"}, "needs a reason"),
        (["0001"], {"reviewer": " "}, "nobody who answers"),
        (["0001"], {"reviewer": "mixed"}, "nobody who answers"),
        (["0001"], {"verdict": "relabelled"}, "give --label"),
        (["0001"], {"verdict": "relabelled", "label": " "}, "give --label"),
        (["0001"], {"label": "room"}, "only then"),
        (["0001"], {"verdict": "fine"}, "'fine' is no verdict"),
        ([], {}, "no row is named"),
        (["000b"], {"verdict": "relabelled", "label": "room"}, "answers 'room' already"),
    ],
)
def test_what_says_too_little_or_too_much_is_refused_in_a_sentence(lake, rows, changes, sentence):
    asked = {"verdict": "rejected", "reason": "seen", "reviewer": "ann"} | changes
    with pytest.raises(ReviewError, match=sentence):
        review(lake.runtime, rows, **asked)
    assert tables.read(lake.settings, RUN).num_rows == 0


def test_an_unknown_row_an_ambiguous_start_and_a_row_that_was_called_back_are_refused_by_name(lake):
    with pytest.raises(SelectorError, match="no row starts with 'beef'"):
        review(lake.runtime, ["beef"], "rejected", reason="seen")
    twin = {"row_no": 99, "derivation": "source", "row_id": bytes.fromhex("0001" + "ff" * 14)}
    lake.store(TRACE, [twin])
    with pytest.raises(SelectorError, match=r"'0001' could be any of: 00010+, 0001f+"):
        review(lake.runtime, ["0001"], "rejected", reason="seen")
    called_back = recall(lake.runtime, Selector(rows=("0002",)), reason="bad", anyway=True)
    with pytest.raises(ReviewError, match=f"called back by recall {called_back.facets['recall']}"):
        review(lake.runtime, ["0002"], "approved", reason="seen")
    assert history(lake.settings) == []


def test_a_row_judged_anew_is_reviewed_though_the_one_that_shares_its_id_was_called_back(lake):
    derived(lake, {21: (2,)}, scorer="old", scorer_revision="1")
    recall(lake.runtime, Selector(scorer="old@1"), reason="blind", anyway=True)
    anew = {"row_no": 41, "parent_nos": [2], "row_id": bytes.fromhex("0015" + "00" * 14)}
    lake.store(EXAMPLE, [SAME | {"derivation": "joint"} | anew], scorer="new", scorer_revision="1")
    said(lake, "rejected", 21)
    assert [each.row_no for each in history(lake.settings)] == [41]


def test_without_a_name_the_user_answers_for_it(lake):
    assert review(lake.runtime, ["0001"], "approved", reason="seen").facets["reviewer"]


# ---------------------------------------------------------------- what is left


def test_without_a_word_nothing_is_left_out_and_no_input_is_named(lake):
    assert heed(lake.settings, tables.read(lake.settings, EXAMPLE)) == Heeded()
    said(lake, "approved", 3)
    others = tables.read(lake.settings, EXAMPLE).filter(pads.field("row_no") != 13)
    assert heed(lake.settings, others) == Heeded()


def test_a_rejected_trace_takes_its_examples_along_unless_another_parent_suffices(lake):
    said(lake, "rejected", 1)
    assert left_out(lake) == {11: "rejected_by_reviewer"}
    said(lake, "rejected", 2)
    assert left_out(lake) == dict.fromkeys((11, 12, 15), "rejected_by_reviewer")
    said(lake, "rejected", 4)
    assert left_out(lake) == dict.fromkeys((11, 12, 14, 15, 16), "rejected_by_reviewer")


def test_what_is_said_of_a_row_itself_goes_before_what_is_said_of_its_parents(lake):
    said(lake, "rejected", 4)
    said(lake, "approved", 14)
    assert left_out(lake) == {}
    said(lake, "rejected", 16)
    assert left_out(lake) == {16: "rejected_by_reviewer"}


def test_of_a_relabelled_trace_only_what_gives_the_new_answer_stands(lake):
    derived(lake, {21: (3,)}, answer="card", text="text 13", review="overridden", reviewer="ann")
    said(lake, "relabelled", 3, label="card")
    assert left_out(lake) == {13: "relabelled_by_reviewer"}
    said(lake, "relabelled", 3, label="wifi")
    assert left_out(lake) == dict.fromkeys((13, 21), "relabelled_by_reviewer")
    said(lake, "approved", 3)  # what the trace says itself stands again, what overrode it does not
    assert left_out(lake) == {21: "relabelled_by_reviewer"}


def test_where_a_person_vouches_for_an_answer_equal_questions_with_another_are_overruled(lake):
    derived(lake, {31: (4,), 32: (4,)}, answer="card", text="TEXT  12")
    assert left_out(lake) == {}  # the gate refuses such a curriculum; nobody knows which is right
    said(lake, "approved", 12)
    assert left_out(lake) == dict.fromkeys((31, 32), "overruled_by_reviewer")
    said(lake, "approved", 31)
    assert left_out(lake) == dict.fromkeys((12, 31, 32), "conflicting_answers")


def test_a_row_merged_anew_without_a_rejected_parent_does_not_stand_twice(lake):
    derived(lake, {33: (2,)}, text="text 15")
    assert left_out(lake) == {}
    said(lake, "rejected", 1)
    assert left_out(lake) == {11: "rejected_by_reviewer", 33: "duplicate"}


def test_equal_questions_are_found_whatever_their_case_their_letters_and_their_spaces(lake):
    derived(lake, {34: (2,)}, text="Stra\u00dfe \uff11\u00a02", answer="card")
    derived(lake, {35: (3,)}, text=" STRASSE\x1c1\t2 ", answer="room")
    derived(lake, {36: (4,)}, text="strasse 1 2", answer="room")
    derived(lake, {37: (4,)}, text="strasse 12", answer="room")
    said(lake, "approved", 34)
    assert left_out(lake) == dict.fromkeys((35, 36), "overruled_by_reviewer")
    said(lake, "rejected", 34)
    said(lake, "approved", 36)
    assert left_out(lake) == {34: "rejected_by_reviewer", 35: "duplicate"}


def test_a_rejected_trace_takes_its_examples_along_when_its_batch_is_withdrawn_too(lake):
    batch = lake.store(TRACE, [{"row_no": 7, "derivation": "source"}])
    derived(lake, {18: (7,)})
    derived(lake, {19: (18,)})
    said(lake, "rejected", 7)
    tables.withdraw(lake.settings, batch, run_id="w-1", reason="wrong file")
    assert left_out(lake) == dict.fromkeys((18, 19), "rejected_by_reviewer")


def test_a_word_is_heard_two_thousand_generations_down(lake):
    derived(lake, {101: (1,)} | {number: (number - 1,) for number in range(102, 2101)})
    assert left_out(lake) == {}
    said(lake, "rejected", 1)
    assert left_out(lake) == dict.fromkeys((11, *range(101, 2101)), "rejected_by_reviewer")
    said(lake, "approved", 1500)
    assert left_out(lake) == dict.fromkeys((11, *range(101, 1500)), "rejected_by_reviewer")


def test_spans_are_the_reviewers_whatever_form_he_gave_them(lake):
    letters = '[{"label": "letters", "start": 0, "end": 4}]'
    derived(lake, {21: (3,), 22: (4,)}, task="tagging", answer="[]")
    same = {"text": "text 21", "review": "overridden", "reviewer": "ann"}
    derived(lake, {31: (3,)}, task="tagging", answer='[{"end":4,"label":"letters","start":0}]', **same)
    said(lake, "relabelled", 3, label=letters)
    assert left_out(lake) == dict.fromkeys((13, 21), "relabelled_by_reviewer")
    said(lake, "relabelled", 3, label="[]")
    assert left_out(lake) == dict.fromkeys((13, 31), "relabelled_by_reviewer")
    with pytest.raises(ReviewError, match=r"answers '\[ \]' already"):
        said(lake, "relabelled", 22, label="[ ]")


def test_of_preferences_and_tool_calls_only_those_that_agree_in_all_are_copies(lake):
    for task, column in (("preference", "rejected"), ("generation", "answer_tool_calls")):
        numbers = (41, 42, 43) if task == "preference" else (51, 52, 53)
        for number, says in zip(numbers, ("x", "y", "x"), strict=True):
            derived(lake, {number: (3,)}, task=task, text=task, **{column: says})
        said(lake, "approved", numbers[0])
    assert left_out(lake) == {43: "duplicate", 53: "duplicate"}


def test_a_recalled_reviewers_word_counts_no_more_and_no_new_one_is_taken(lake):
    derived(lake, {21: (3,)}, answer="card", text="text 13", review="overridden", reviewer="bob")
    said(lake, "relabelled", 3, label="card", reviewer="bob")
    said(lake, "approved", 1, reviewer="ann")
    said(lake, "rejected", 1, reviewer="bob")
    assert left_out(lake) == {11: "rejected_by_reviewer", 13: "relabelled_by_reviewer"}
    outcome = recall(lake.runtime, Selector(reviewer="bob"), reason="careless", anyway=True)
    assert outcome.counts == {"rows": 1, "banned_now": 1, "examples": 1, "words": 2}
    assert left_out(lake) == {}
    assert {each.verdict for each in standing(lake.settings).last.values()} == {"approved"}
    refused = f"reviews by 'bob' are refused: recall {outcome.facets['recall']}"
    with pytest.raises(ReviewError, match=refused):
        said(lake, "rejected", 2, reviewer="bob")


def test_who_only_approved_and_rejected_can_be_taken_back_and_impact_counts_his_words(lake):
    said(lake, "rejected", 1, 12, reviewer="bob")
    said(lake, "approved", 14, reviewer="bob")
    said(lake, "rejected", 4)
    bob = Selector(reviewer="bob")
    reached = impact(lake.settings, bob)
    assert (reached.by_table, reached.words) == ({}, {"approved": 1, "rejected": 2})
    assert "3 words of bob: 1 approved, 2 rejected" in "\n".join(told(reached))
    assert left_out(lake) == dict.fromkeys((11, 12), "rejected_by_reviewer")
    before = inputs(lake)
    called = recall(lake.runtime, bob, reason="careless")  # no yes is needed: his words fall
    assert called.counts == {"rows": 0, "banned_now": 0, "words": 3}
    assert left_out(lake) == dict.fromkeys((14, 16), "rejected_by_reviewer")
    assert inputs(lake) != before  # what obeys is another run
    assert impact(lake.settings, bob).words == reached.words
    assert fsck.recalls(lake.settings) == (0, [])
    assert recall(lake.runtime, bob, reason="careless").again
    lift(lake.runtime, called.facets["recall"], reason="he was right")
    assert left_out(lake) == dict.fromkeys((11, 12), "rejected_by_reviewer")


def test_beside_a_reviewer_nobody_called_mixed_is_offered_and_those_of_reviews_are(lake):
    derived(lake, {21: (3,)}, review="mixed", reviewer="mixed")
    derived(lake, {22: (3,)}, review="overridden", reviewer="ann")
    said(lake, "approved", 1, reviewer="bob")
    with pytest.raises(SelectorError, match=r"no row is meant by --reviewer eve; known: ann, bob$"):
        impact(lake.settings, Selector(reviewer="eve"))


def test_a_recall_of_a_reviewer_under_one_prompt_takes_back_what_he_said_there(lake):
    lake.traces([5], prompt_name="router", prompt_version="2")
    derived(lake, {17: (5,)}, prompt_name="router", prompt_version="2", reviewer="bob")
    said(lake, "rejected", 5, 1, reviewer="bob")
    recall(lake.runtime, Selector(reviewer="bob", prompt="router@2"), reason="careless", anyway=True)
    assert [each.row_no for each in standing(lake.settings).last.values()] == [1]


# ---------------------------------------------------------------- curricula


@pytest.fixture
def admitted(lake):
    """All batches of examples have a passing verdict."""
    for run_id, version in tables.batches(lake.settings, EXAMPLE).items():
        row = {"table": "examples", "version": version.version, "batch": run_id, "outcome": "pass"}
        row |= {"suite": "examples", "suite_digest": "", "rows": 1, "rules": "[]", "run_id": "gate-1"}
        tables.record(lake.settings, [row | {"at": lake.runtime.now()}], into=VERDICT)
    return lake


def built(lake) -> tuple[str, set[int], dict[int, str]]:
    outcome = curricula.build(lake.runtime, DataRecipe())
    members = curricula.load(lake.settings, outcome.facets["curriculum"]).members["row_no"].to_pylist()
    where = pads.field("run_id") == outcome.run_id
    left = tables.read(lake.settings, EXCLUSION, where=where).to_pylist()
    return outcome.run_id, set(members), {row["row_no"]: row["reason"] for row in left}


def test_a_curriculum_obeys_and_is_another_run_only_where_something_was_said_of_its_rows(admitted):
    first, members, _ = built(admitted)
    assert members == {11, 12, 13, 14, 15, 16}
    ids = tables.read(admitted.settings, EXAMPLE, columns=["row_id"])["row_id"].to_pylist()
    assert curricula.inputs(admitted.settings, DataRecipe()) == [f"examples:{rows_digest(ids)}"]
    admitted.traces([9])
    said(admitted, "rejected", 9)
    assert built(admitted)[0] == first
    said(admitted, "rejected", 12)
    second, members, left = built(admitted)
    assert identity_of(second) != identity_of(first)
    assert members == {11, 13, 14, 15, 16}
    assert left == {12: "rejected_by_reviewer"}
    said(admitted, "approved", 12)
    third, members, _ = built(admitted)
    assert (len({first, second, third}), members) == (3, {11, 12, 13, 14, 15, 16})


def test_fsck_misses_a_review_that_a_run_put_on_record_and_a_row_that_a_review_names(lake):
    said(lake, "rejected", 1, 2)
    assert fsck.closure(lake.settings)[1] == []
    assert not [each for each in fsck.books(lake.settings)[1] if "reviews" in each]
    (kept, lost) = tables.read(lake.settings, REVIEW).to_pylist()
    for row_id, sentence in ((lost["row_id"], None), (bytes(16), "a review names 0000")):
        rows = REVIEW.schema.empty_table().from_pylist([kept | {"row_id": row_id}], schema=REVIEW.schema)
        tables.replace(lake.settings, rows, into=REVIEW, run_id=kept["run_id"])
        assert any("wrote 2 rows of 'reviews', which holds" in each for each in fsck.books(lake.settings)[1])
        assert sentence is None or any(sentence in each for each in fsck.closure(lake.settings)[1])


def test_a_review_is_a_value_that_names_itself_by_what_it_says_and_not_by_when(lake):
    said(lake, "approved", 1)
    reviews = standing(lake.settings)
    (one,) = reviews.last.values()
    assert isinstance(one, Review)
    said(lake, "approved", 1, reason="seen twice")
    assert standing(lake.settings).inputs == reviews.inputs
    said(lake, "approved", 1, reviewer="bob")
    assert standing(lake.settings).inputs != reviews.inputs
    assert reviews.among([bytes(16)]).inputs == []
