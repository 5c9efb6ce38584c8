"""What cannot be read is named by every check that needs it, and the other checks go on."""

from __future__ import annotations

from pathlib import Path

import pytest
from deltalake import DeltaTable

from lineage import tables
from lineage.consumption import checkpoints
from lineage.fsck import CHECKS, fsck


def test_a_lake_that_cannot_be_read_is_not_sound(trained_lake, tmp_path: Path):
    settings = trained_lake.copied(tmp_path / "lake")
    lost = [path for path in Path(settings.path("tables", "examples")).glob("*.parquet")]
    lost[0].unlink()
    found = {check.name: check.found for check in fsck(settings) if check.found}
    assert {"files", "closure", "exactly_once", "admitted"} <= found.keys()
    assert found["closure"][0].startswith("could not be checked")
    assert all(str(lost[0]) in found[name][0] for name in ("files", "closure", "exactly_once", "admitted"))
    assert found.keys() & {"balance", "ledger", "aliases"} == set()


@pytest.mark.parametrize("damage", ["gone", "cut", "no header"])
def test_a_damaged_adapter_is_named_and_the_other_digests_are_still_checked(
    damage: str, trained_lake, tmp_path: Path
):
    settings = trained_lake.copied(tmp_path / "lake")
    file = Path(checkpoints(settings)[0].uri, "adapter_model.safetensors")
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:1000] if damage == "cut" else b"\xff" * 100)
    DeltaTable(settings.path("tables/plans")).update(
        {"n_loss_tokens": "7"}, predicate="step = 0 AND slot = 0"
    )
    found = {check.name: check.found for check in fsck(settings) if check.found}
    assert found.keys() == {"roots"}
    assert len(found["roots"]) == 2
    assert file.parent.name in found["roots"][1]
    assert "adapter" in found["roots"][1]


@pytest.fixture
def two_models(small):
    """Two checkpoints, of which the first one's consumption is gone."""
    small.traces([1, 9])
    small.examples({11: (1,), 12: (1,), 19: (9,)})
    for eaten in (11, 12):
        small.reign(eaten, scored=[19])
    first, second = checkpoints(small.settings)
    file = Path(small.settings.path("tables", "consumption", f"{first.run_id}.parquet"))
    file.unlink()
    tables.forget()
    return small.settings, first, second, file


@pytest.mark.parametrize(
    ("check", "tells"),
    [
        ("ledger", "could not be checked: "),
        ("roots", "its consumption could not be checked: "),
        ("closure", "ate could not be checked: "),
    ],
)
def test_what_one_run_ate_is_gone_and_the_others_are_still_checked(check: str, tells: str, two_models):
    settings, first, second, file = two_models
    found = CHECKS[check](settings)[1]
    (named,) = [sentence for sentence in found if tells in sentence]
    assert first.name in named
    assert str(file) in named
    by_hand = DeltaTable(settings.path("tables/consumption"))
    by_hand.update({"row_no": "77"}, predicate=f"run_id = '{second.run_id}'")
    worse = [sentence for sentence in CHECKS[check](settings)[1] if second.name in sentence]
    assert worse
    assert not [sentence for sentence in worse if str(file) in sentence]


def test_books_are_compared_for_the_runs_whose_rows_can_be_read(two_models):
    settings, _, second, file = two_models
    found = CHECKS["books"](settings)[1]
    (named,) = [sentence for sentence in found if sentence.startswith("could not be checked for all runs: ")]
    assert str(file) in named
    short = "of 'consumption', which holds 0 of them"
    assert not [sentence for sentence in found if short in sentence]
    DeltaTable(settings.path("tables/consumption")).delete(f"run_id = '{second.run_id}'")
    (sentence,) = [sentence for sentence in CHECKS["books"](settings)[1] if short in sentence]
    assert sentence.startswith(f"run {second.run_id} ")
