"""What is selected, what is left out and why, and the root that names the selection."""

from __future__ import annotations

import hashlib
from collections import Counter

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as run_with
from hypothesis import strategies as st
from pydantic import ValidationError

from infra.config import ConfigError, read_config
from infra.runtime import Runtime
from infra.settings import Settings
from lineage import tables
from lineage.curricula import CurriculumError, DataRecipe, build, curriculum_root, inputs, load, select
from lineage.merkle import merkle_root
from lineage.schemas import EXAMPLE, EXCLUSION

NOTHING: frozenset[bytes] = frozenset()
LABELS = ("card", "room", "wifi")


def examples(
    count: int,
    *,
    kinds: tuple[str, ...] = ("stated",),
    labels: tuple[str, ...] = LABELS,
    task: str = "classification",
) -> pa.Table:
    """Rows whose kinds, labels and scores go round in turn; row n has the id n."""
    rows = [
        {
            "row_id": n.to_bytes(2, "big"),
            "kind": kinds[n % len(kinds)],
            "task": task,
            "answer": labels[n // len(kinds) % len(labels)],
            "score": (n * 37 % 100) / 100,
        }
        for n in range(count)
    ]
    columns = ["row_id", "kind", "task", "answer", "score"]
    return pa.Table.from_pylist(rows, schema=pa.schema([EXAMPLE.schema.field(name) for name in columns]))


def grown(count: int = 300) -> tuple[pa.Table, frozenset[bytes]]:
    """A third each of corrected failures, passes and rows that the parent trained on."""
    rows = examples(count, kinds=("corrected", "passed", "stated"))
    replayed = [row["row_id"] for row in rows.to_pylist() if row["kind"] == "stated"]
    return rows, frozenset(replayed)


CHILD = DataRecipe(parent="p" * 64)


# ---------------------------------------------------------------- selection


def test_a_cold_start_takes_everything_as_gold():
    chosen, excluded = select(examples(30), DataRecipe(), replayed=NOTHING)
    assert (Counter(chosen.values()), excluded) == ({"gold": 30}, {})


def test_the_slices_stand_in_the_recipes_shares_as_far_as_the_scarcest_reaches():
    rows, replayed = grown()
    chosen, _ = select(rows, CHILD, replayed=replayed)
    counted = Counter(chosen.values())
    # 100 gold rows are 52 % of 192, of which 31 % are 60 and 17 % are 33
    assert counted == {"gold": 100, "hard": 60, "replay": 33}
    kinds = {row["row_id"]: row["kind"] for row in rows.to_pylist()}
    of = {"gold": "corrected", "hard": "passed", "replay": "stated"}
    assert all(kinds[row_id] == of[name] for row_id, name in chosen.items())


def test_replay_comes_from_the_parents_rows_whatever_their_kind():
    rows, _ = grown()
    parents = frozenset(row["row_id"] for row in rows.to_pylist()[:120])
    chosen, _ = select(rows, CHILD, replayed=parents)
    assert {row_id in parents for row_id, name in chosen.items() if name == "replay"} == {True}
    assert {row_id in parents for row_id, name in chosen.items() if name != "replay"} == {False}


def test_hard_rows_are_those_their_neighbours_agree_with_least():
    rows, replayed = grown()
    chosen, _ = select(rows, CHILD, replayed=replayed)
    passes = [row for row in rows.to_pylist() if row["kind"] == "passed"]
    for label in LABELS:
        mine = [row for row in passes if row["answer"] == label]
        taken = [row["score"] for row in mine if row["row_id"] in chosen]
        left = [row["score"] for row in mine if row["row_id"] not in chosen]
        assert taken
        assert max(taken) <= min(left)


def test_no_label_is_taken_more_than_three_times_as_often_as_the_rarest():
    rows = examples(100, labels=("card",) * 9 + ("room",))
    chosen, excluded = select(rows, DataRecipe(), replayed=NOTHING)
    answers = {row["row_id"]: row["answer"] for row in rows.to_pylist()}
    assert Counter(answers[row_id] for row_id in chosen) == {"card": 30, "room": 10}
    assert Counter(excluded.values()) == {"label_ratio": 60}


def test_no_more_rows_are_taken_than_allowed_and_labels_share_them_evenly():
    chosen, excluded = select(examples(90), DataRecipe(max_rows=30), replayed=NOTHING)
    answers = {row["row_id"]: row["answer"] for row in examples(90).to_pylist()}
    assert Counter(answers[row_id] for row_id in chosen) == dict.fromkeys(LABELS, 10)
    assert Counter(excluded.values()) == {"gold_is_full": 60}


@pytest.mark.parametrize("task", ["generation", "preference", "tagging"])
def test_answers_that_are_no_labels_are_neither_rare_nor_too_many(task: str):
    answers = tuple(f"answer {n}" for n in range(40)) + ("yes",) * 60
    rows = examples(100, labels=answers, task=task)
    chosen, excluded = select(rows, DataRecipe(), replayed=NOTHING)
    assert (len(chosen), excluded) == (100, {})
    chosen, excluded = select(rows, DataRecipe(max_rows=30), replayed=NOTHING)
    assert (len(chosen), set(excluded.values())) == (30, {"gold_is_full"})


def test_labels_are_balanced_among_themselves_whatever_stands_beside_them():
    labelled = examples(100, labels=("card",) * 9 + ("room",))
    alone, _ = select(labelled, DataRecipe(), replayed=NOTHING)
    spoken = examples(30, task="generation").to_pylist()
    spoken = [row | {"row_id": b"g" + row["row_id"], "answer": row["row_id"].hex()} for row in spoken]
    both = pa.concat_tables([labelled, pa.Table.from_pylist(spoken, schema=labelled.schema)])
    chosen, excluded = select(both, DataRecipe(), replayed=NOTHING)
    labels = dict(zip(*(labelled[name].to_pylist() for name in ("row_id", "answer")), strict=True))
    counted = Counter(labels.get(row_id, "spoken") for row_id in chosen)
    assert counted == {"card": 30, "room": 10, "spoken": 30}
    assert (len(alone), Counter(excluded.values())) == (40, {"label_ratio": 60})


def test_a_row_that_is_neither_failure_nor_pass_nor_the_parents_says_so():
    rows, replayed = grown()
    stranger = min(replayed)
    _, excluded = select(rows, CHILD, replayed=replayed - {stranger})
    assert excluded[stranger] == "not_of_the_parent"


@st.composite
def selections(draw: st.DrawFn) -> tuple[pa.Table, DataRecipe, frozenset[bytes]]:
    rows = examples(
        draw(st.integers(0, 60)),
        kinds=tuple(
            draw(st.lists(st.sampled_from(["stated", "passed", "corrected"]), min_size=1, max_size=5))
        ),
        labels=tuple(draw(st.lists(st.sampled_from(LABELS), min_size=1, max_size=7))),
    )
    ids = rows["row_id"].to_pylist()
    replayed = frozenset(draw(st.lists(st.sampled_from(ids), max_size=30)) if ids else [])
    recipe = DataRecipe(
        parent=draw(st.sampled_from([None, "p" * 64])),
        max_rows=draw(st.integers(1, 80)),
        seed=draw(st.integers(0, 3)),
    )
    return rows, recipe, replayed


@given(case=selections(), rng=st.randoms())
@run_with(max_examples=150, deadline=None)
def test_every_row_is_chosen_or_excluded_whatever_the_order_of_rows(
    case: tuple[pa.Table, DataRecipe, frozenset[bytes]], rng
):
    rows, recipe, replayed = case
    chosen, excluded = select(rows, recipe, replayed=replayed)
    assert chosen.keys() | excluded.keys() == set(rows["row_id"].to_pylist())
    assert not chosen.keys() & excluded.keys()
    assert len(chosen) <= recipe.max_rows + 2  # each of three shares is rounded
    answers = dict(zip(rows["row_id"].to_pylist(), rows["answer"].to_pylist(), strict=True))
    counted = Counter(answers[row_id] for row_id in chosen).values()
    assert not counted or max(counted) <= 3 * min(counted)
    order = rng.sample(range(rows.num_rows), rows.num_rows)
    assert select(rows.take(pa.array(order, pa.int64())), recipe, replayed=replayed) == (chosen, excluded)


def test_every_seed_draws_its_own_rows_and_nought_is_a_seed():
    drawn = [
        frozenset(select(examples(90), DataRecipe(max_rows=30, seed=seed), replayed=NOTHING)[0])
        for seed in (0, 0, 1, 2)
    ]
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) == 3


def test_shares_that_leave_nothing_for_replay_are_refused():
    with pytest.raises(ValidationError, match=r"gold_share \+ hard_share is 1\.100, more than 1"):
        DataRecipe(gold_share=0.7, hard_share=0.4)
    with pytest.raises(ConfigError, match="unknown key 'gold'; known: gold_share"):
        read_config(DataRecipe, None, ["gold=0.5"])
    assert DataRecipe(gold_share=0.5, hard_share=0.3).replay_share == 0.2


# ---------------------------------------------------------------- roots


def sha(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def test_merkle_roots_are_those_of_rfc_6962():
    a, b, c = (sha(b"\x00", leaf) for leaf in (b"a", b"b", b"c"))
    assert merkle_root([]) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert merkle_root([b""]) == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert merkle_root([b"a"]) == a.hex()
    assert merkle_root([b"a", b"b"]) == sha(b"\x01", a, b).hex()
    assert merkle_root([b"a", b"b", b"c"]) == sha(b"\x01", sha(b"\x01", a, b), c).hex()


@pytest.mark.parametrize("size", range(2, 12))
def test_a_tree_splits_at_the_largest_power_of_two_below_its_size(size: int):
    leaves = [bytes([n]) for n in range(size)]
    left = max(1 << k for k in range(4) if 1 << k < size)
    halves = [bytes.fromhex(merkle_root(half)) for half in (leaves[:left], leaves[left:])]
    assert merkle_root(leaves) == sha(b"\x01", *halves).hex()


members = st.lists(
    st.tuples(
        st.binary(min_size=16, max_size=16), st.sampled_from(["gold", "hard"]), st.sampled_from([1.0, 2.0])
    ),
    min_size=1,
    max_size=9,
    unique_by=lambda member: member[0],
)


@given(chosen=members, at=st.integers(0, 8), rng=st.randoms())
def test_the_root_is_of_the_members_alone_and_of_every_word_of_each(
    chosen: list[tuple[bytes, str, float]], at: int, rng
):
    root = curriculum_root(chosen)
    assert curriculum_root(rng.sample(chosen, len(chosen))) == root
    row_id, name, weight = chosen.pop(at % len(chosen))
    others = [
        chosen,
        [*chosen, (bytes([row_id[0] ^ 1]) + row_id[1:], name, weight)],
        [*chosen, (row_id, "replay", weight)],
        [*chosen, (row_id, name, weight + 1)],
        [*chosen, (row_id, name, weight), (row_id, name, weight)],
    ]
    assert root not in {curriculum_root(other) for other in others}


# ---------------------------------------------------------------- stored


def test_a_stored_curriculum_is_its_root_and_every_candidate_is_in_it_or_in_the_exclusions(
    trained_lake, tmp_path
):
    settings = trained_lake.copied(tmp_path / "lake")
    outcome = build(Runtime(settings), DataRecipe(max_rows=12))
    made = load(settings, outcome.facets["curriculum"])
    rows = made.members.to_pylist()
    assert curriculum_root([(row["row_id"], row["slice"], row["weight"]) for row in rows]) == made.root
    assert (made.slices, outcome.counts) == (
        {"gold": 12},
        {"in": 25, "out": 12, "excluded": 13, "slice_gold": 12},
    )
    left_out = [row for row in tables.read(settings, EXCLUSION).to_pylist() if row["curriculum"] == made.root]
    train = [r["row_id"] for r in tables.read(settings, EXAMPLE).to_pylist() if r["split"] == "train"]
    assert sorted([row["row_id"] for row in (*rows, *left_out)]) == sorted(train)
    assert {row["reason"] for row in left_out} == {"gold_is_full"}


def test_another_recipe_that_selects_the_same_rows_is_the_same_curriculum(trained_lake, tmp_path):
    settings = trained_lake.copied(tmp_path / "lake")
    before = tables.current(settings, EXCLUSION)
    outcome = build(Runtime(settings), DataRecipe(max_rows=2999))
    assert not outcome.again
    assert load(settings, outcome.facets["curriculum"]).version == tables.resolve(settings, "curricula@1")
    assert tables.current(settings, EXCLUSION) == before


def test_an_unknown_root_and_sources_without_examples_are_named(trained_lake, settings: Settings, tmp_path):
    with pytest.raises(CurriculumError, match="'0000' names no curriculum"):
        load(trained_lake.settings, "0000")
    with pytest.raises(CurriculumError, match=r"no admitted training examples match \['\*'\]"):
        build(Runtime(settings), DataRecipe())


def test_a_recipe_takes_examples_of_the_tasks_that_it_names(trained_lake, tmp_path):
    settings = trained_lake.copied(tmp_path / "lake")
    every = inputs(settings, DataRecipe())
    assert inputs(settings, DataRecipe(tasks=("classification", "tagging"))) == every
    with pytest.raises(
        CurriculumError, match=r"no admitted training examples of preference or tagging match"
    ):
        build(Runtime(settings), DataRecipe(tasks=("preference", "tagging")))
    with pytest.raises(ConfigError, match="'tasks' is "):
        read_config(DataRecipe, None, ["tasks=[]"])


def test_a_recipe_of_a_run_that_knew_no_tasks_takes_all():
    older = {name: value for name, value in DataRecipe().model_dump().items() if name != "tasks"}
    assert DataRecipe.model_validate(older) == DataRecipe()


def test_one_row_of_a_mistyped_label_costs_itself_and_no_other():
    same = {"kind": "stated", "task": "classification", "score": 1.0}
    rows = [{"row_id": bytes([n // 256, n % 256]), "answer": f"a{n % 6}"} | same for n in range(600)]
    rows.append({"row_id": b"typo", "answer": "a1x"} | same)
    chosen, excluded = select(pa.Table.from_pylist(rows), DataRecipe(), replayed=frozenset())
    assert len(chosen) == 600
    assert excluded == {b"typo": "rare_label"}
