"""Write the suites down for review: `python -m expectations.suites` regenerates snapshots/*.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from expectations.suites import SUITES, Suite, as_json
from expectations.thresholds import DEFAULTS

SNAPSHOTS = Path(__file__).parent / "snapshots"


def snapshots(suites: Mapping[str, Suite] = SUITES) -> dict[str, str]:
    """File name -> content, of every suite under the default thresholds."""
    return {
        f"{name}.json": json.dumps(as_json(suite.build(DEFAULTS)), indent=2, ensure_ascii=False) + "\n"
        for name, suite in suites.items()
    }


def main() -> None:
    """Write all snapshots and name them."""
    for name, content in snapshots().items():
        (SNAPSHOTS / name).write_text(content, encoding="utf-8")
        print(SNAPSHOTS / name)


if __name__ == "__main__":
    main()
