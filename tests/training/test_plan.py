"""A plan covers every row, in an order that only row ids, weights, seed and batch size decide."""

import hashlib

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lineage.consumption import plan_digest
from training.plan import PLAN_SCHEMA, Plan, PlanError, make_plan


def members(size: int, *, first_no: int = 0, weight: list[float] | None = None) -> pa.Table:
    ids = [hashlib.blake2b(str(index).encode(), digest_size=16).digest() for index in range(size)]
    columns = {"row_id": pa.array(ids, pa.binary()), "row_no": range(first_no, first_no + size)}
    return pa.table(columns | ({"weight": weight} if weight else {}))


def planned(rows: pa.Table, *, seed: int = 7, epochs: int = 2, batch: int = 4) -> Plan:
    lengths = [5 + row_id[0] % 9 for row_id in rows["row_id"].to_pylist()]
    return make_plan(
        rows,
        n_tokens=lengths,
        n_loss_tokens=[1] * len(lengths),
        seed=seed,
        num_train_epochs=epochs,
        train_batch_size=batch,
    )


@settings(deadline=None, max_examples=60)
@given(
    size=st.integers(1, 40),
    epochs=st.integers(1, 3),
    batch=st.integers(1, 17),
    seed=st.integers(0, 2**63),
    world_size=st.integers(1, 5),
)
def test_every_row_is_planned_once_per_epoch_whatever_the_number_of_ranks(
    size, epochs, batch, seed, world_size
):
    plan = planned(members(size), seed=seed, epochs=epochs, batch=batch)
    steps_per_epoch = -(-size // batch)
    assert plan.table.schema == PLAN_SCHEMA
    assert plan.steps == steps_per_epoch * epochs
    for epoch in range(epochs):
        eaten = []
        for step in range(epoch * steps_per_epoch, (epoch + 1) * steps_per_epoch):
            of_step = plan.table.filter(pa.compute.equal(plan.table["step"], step))
            assert of_step["slot"].to_pylist() == list(range(of_step.num_rows))
            assert 1 <= of_step.num_rows <= batch
            row_nos = of_step["row_no"].to_pylist()
            for rank in range(world_size):
                eaten += row_nos[rank::world_size]
        assert sorted(eaten) == list(range(size))


@settings(deadline=None, max_examples=40)
@given(order=st.permutations(range(9)), seed=st.integers(0, 1000))
def test_the_order_of_the_input_does_not_matter(order, seed):
    rows = members(9)
    assert planned(rows.take(pa.array(order)), seed=seed).table.equals(planned(rows, seed=seed).table)


def test_the_digest_does_not_depend_on_how_rows_are_numbered():
    assert planned(members(11)).digest == planned(members(11, first_no=500)).digest


def test_the_digest_depends_on_seed_rows_batch_size_and_loss_tokens():
    rows = members(11)
    one = {"seed": 7, "num_train_epochs": 2, "train_batch_size": 4}
    masked = make_plan(rows, n_tokens=[3] * 11, n_loss_tokens=[2] * 11, **one)
    plans = [
        planned(rows),
        planned(rows, seed=8),
        planned(members(10)),
        planned(rows, batch=5),
        masked,
    ]
    assert len({plan.digest for plan in plans}) == len(plans)


def test_the_digest_recomputes_from_a_stored_table_in_any_order():
    plan = planned(members(11))
    assert plan_digest(plan.table.take(pa.array(range(21, -1, -1)))) == plan.digest


def test_epochs_come_in_different_orders():
    row_nos = planned(members(30), epochs=2, batch=30).table["row_no"].to_pylist()
    assert row_nos[:30] != row_nos[30:]


def test_a_known_plan_keeps_its_order_across_versions():
    assert planned(members(6), seed=0, epochs=1).table["row_no"].to_pylist() == [4, 5, 2, 0, 3, 1]


def test_a_weight_repeats_its_row_in_every_epoch():
    plan = planned(members(3, weight=[1.0, 3.0, 1.0]), epochs=2)
    assert np.bincount(plan.table["row_no"].to_numpy()).tolist() == [2, 6, 2]


@pytest.mark.parametrize("weight", [0.0, 0.5, -1.0, float("nan"), float("inf")])
def test_a_weight_that_is_no_count_is_refused(weight):
    with pytest.raises(PlanError, match="row 1 has weight"):
        planned(members(2, weight=[1.0, weight]))


def test_no_rows_double_rows_and_misaligned_counts_are_refused():
    with pytest.raises(PlanError, match="at least one row"):
        planned(members(0))
    with pytest.raises(PlanError, match="2 rows have 1 distinct row ids"):
        planned(pa.concat_tables([members(1), members(1)]))
    with pytest.raises(PlanError, match="3 rows came with 2 token counts"):
        make_plan(
            members(3),
            n_tokens=[1, 1],
            n_loss_tokens=[1, 1, 1],
            seed=0,
            num_train_epochs=1,
            train_batch_size=2,
        )


def packed(rows: pa.Table, lengths: list[int], *, batch: int = 2, seed: int = 7) -> Plan:
    return make_plan(
        rows,
        n_tokens=lengths,
        n_loss_tokens=[1] * len(lengths),
        seed=seed,
        num_train_epochs=2,
        train_batch_size=batch,
        pack_length=16,
    )


@settings(deadline=None, max_examples=60)
@given(lengths=st.lists(st.integers(1, 16), min_size=1, max_size=40), batch=st.integers(1, 5))
def test_packing_puts_every_row_once_per_epoch_into_sequences_that_hold_it(lengths, batch):
    plan = packed(members(len(lengths)), lengths, batch=batch)
    lines = plan.table.to_pylist()
    assert sorted(line["row_no"] for line in lines) == sorted([*range(len(lengths))] * 2)
    ends: dict[tuple[int, int], int] = {}
    slots: dict[int, int] = {}
    for line in lines:
        assert line["slot"] == slots.get(line["step"], 0)
        slots[line["step"]] = line["slot"] + 1
        assert line["offset"] == ends.get((line["step"], line["pack"]), 0)
        ends[line["step"], line["pack"]] = line["offset"] + line["n_tokens"]
        assert line["n_tokens"] == lengths[line["row_no"]]
        assert line["pack"] < batch
    assert max(ends.values()) <= 16
    assert len(ends) <= 2 * (11 / 9 * -(-sum(lengths) // 16) + 4 + len([n for n in lengths if n > 8]))


def test_the_order_of_a_packed_plan_depends_on_neither_order_nor_numbers_of_its_rows():
    lengths = [3, 9, 16, 4, 7, 1, 12, 5]
    rows = members(8)
    order = [4, 2, 7, 0, 1, 3, 6, 5]
    other = packed(rows.take(pa.array(order)), [lengths[index] for index in order])
    assert other.table.equals(packed(rows, lengths).table)
    assert packed(members(8, first_no=50), lengths).digest == packed(rows, lengths).digest
    assert packed(rows, lengths, seed=8).digest != packed(rows, lengths).digest


def test_moving_a_row_within_its_pack_changes_the_digest():
    plan = packed(members(8), [3, 9, 16, 4, 7, 1, 12, 5])
    offsets = plan.table["offset"].to_pylist()
    place = next(index for index, offset in enumerate(offsets) if offset)
    offsets[place] += 1
    moved = plan.table.set_column(5, "offset", pa.array(offsets, pa.int32()))
    assert plan_digest(moved) != plan.digest
