from __future__ import annotations

from lineage.fsck import CHECKS, fsck


def test_a_lake_in_which_all_went_well_is_sound_and_every_check_looked_at_something(trained_lake):
    done = fsck(trained_lake.settings)
    assert [check.name for check in done] == list(CHECKS)
    assert not [check for check in done if check.found]
    assert all(check.looked_at > 0 for check in done)
