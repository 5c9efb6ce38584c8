"""A plan covers every row, in an order that only row ids, weights, seed and batch size decide."""

import hashlib

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.plan import PLAN_SCHEMA, Plan, PlanError, make_plan, plan_digest


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


def test_the_digest_depends_on_seed_rows_batch_size_and_token_counts():
    rows = members(11)
    one = {"seed": 7, "num_train_epochs": 2, "train_batch_size": 4}
    shorter = make_plan(rows, n_tokens=[3] * 11, n_loss_tokens=[1] * 11, **one)
    masked = make_plan(rows, n_tokens=[3] * 11, n_loss_tokens=[2] * 11, **one)
    plans = [
        planned(rows),
        planned(rows, seed=8),
        planned(members(10)),
        planned(rows, batch=5),
        shorter,
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
