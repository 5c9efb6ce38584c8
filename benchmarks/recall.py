"""Is the model that was trained again better? `python benchmarks/recall.py [--seeds 0 1 2]`.

Tells the whole demo once per seed of the scenario and compares, on the same items of `report`, the champion
that ate the bad corrections with the one trained again without them; a linear probe on each one's rows
stands beside them as the peer. Prints a table, then one line of JSON: points gained per seed and their mean.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from examples.undoing import probe_on_report, right_on_report
from infra.runtime import Runtime
from infra.settings import settings_from_environment
from lineage import models, runs
from lineage.bans import recalls
from training.metrics import paired_difference

ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description="What training again after the recall gains.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--scale", default="full")
    options = parser.parse_args()
    heads = f"{'with them':>10}{'without':>10}{'gain':>8}  {'95 % interval':<16}"
    print(f"{'seed':<6}{heads}{'probe':>8}{'probe':>8}")
    gains = {seed: told(seed, options.scale) for seed in options.seeds}
    found = [gain for gain in gains.values() if gain is not None]
    mean = round(statistics.mean(found), 2) if found else None
    print(json.dumps({"gains": {str(seed): gain for seed, gain in gains.items()}, "mean_gain": mean}))


def told(seed: int, scale: str) -> float | None:
    """Points gained on `report`, or None where no champion was recalled or no successor promoted."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "infra.cli", "demo", "--scale", scale, "--seed", str(seed)]
        subprocess.run([*command, "--lake", f"{folder}/lake"], cwd=ROOT, capture_output=True, check=False)
        runtime = Runtime(settings_from_environment(f"{folder}/lake"))
        recalled = recalls(runtime.settings)
        again = runs.completed(runtime.settings, "retrain")
        if not recalled or not recalled[0].orders or not again or not again[-1][1].facets["models"]:
            print(f"{seed:<6}no champion was recalled and trained again")
            return None
        trained = [recalled[0].orders[0].run_id, again[-1][1].facets["models"][0]["run_id"]]
        right = [right_on_report(runtime, run_id) for run_id in trained]
        gain = paired_difference(right[1], right[0], seed=0)
        made = [models.resolve(runtime.settings, run_id)[0] for run_id in trained]
        probes = [statistics.mean(hit for _, hit in probe_on_report(runtime, each)) for each in made]
    shares = [sum(each) / len(each) for each in right]
    promoted = again[-1][1].facets["models"][0]["promoted"]
    print(
        f"{seed:<6}{shares[0]:>10.1%}{shares[1]:>10.1%}{100 * gain.diff:>+8.1f}  "
        f"[{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]   {probes[0]:>8.1%}{probes[1]:>8.1%}"
        + ("" if promoted else "  (was not promoted)")
    )
    return round(100 * gain.diff, 2)


if __name__ == "__main__":
    main()
