"""What cannot be read is named by every check that needs it, and the other checks go on."""

from __future__ import annotations

from pathlib import Path

import pytest
from deltalake import DeltaTable

from lineage.consumption import checkpoints
from lineage.fsck import fsck


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
