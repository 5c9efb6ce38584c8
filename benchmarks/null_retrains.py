"""Does chance alone promote? `python benchmarks/null_retrains.py [--retrains 20]`.

The demo's first champion is trained again and again from its own recipe with other seeds, and each retrain is
put before the gates as if it were new: none should be promoted. Then, on the same predictions, every retrain
stands as candidate against every other as champion, with a third as the null: how often would chance promote
anything? Prints a table, then one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from itertools import permutations
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # beside this file lies one that bears a package's name

import numpy as np

from examples import making
from examples.helpdesk.generator import helpdesk
from examples.story import NAME, SIZES, Scale, Story
from infra.runtime import Runtime
from infra.settings import prepare_environment, settings_from_environment
from lineage import models
from training.null import retrains
from training.promote import promote
from training.promotion import Evidence, Gate, churn_of, decide
from training.promotion.gains import over_recipe
from training.promotion.gate_set import items_of, passes, said_on

FAR = 100  # seeds of the candidates, away from that of the gate's own null


def main() -> None:
    parser = argparse.ArgumentParser(description="Null retrains of the demo's first champion.")
    parser.add_argument("--retrains", type=int, default=20)
    parser.add_argument("--scale", default="full", choices=list(SIZES))
    parser.add_argument("--keep", help="Write who was right on which item into this file, as .npy.")
    options = parser.parse_args()
    prepare_environment()
    with tempfile.TemporaryDirectory() as folder:
        right, promoted, seconds = measure(f"{folder}/lake", options.scale, options.retrains)
    if options.keep:
        np.save(options.keep, right)
    churn = churn_of(right[0].tolist(), right[1:].tolist())
    print("\n".join(churn.lines()))
    tries, chance = triples(right)
    means = right.mean(axis=1)
    found = {
        "promoted": promoted,
        "retrains": options.retrains,
        "triples": tries,
        "promoted_of_triples": round(chance / tries, 5),
        "accuracy": round(float(means.mean()), 4),
        "accuracy_sd": round(float(means.std(ddof=1)), 4),
        "fixed": round(churn.fixed[0], 3),
        "lost": round(churn.lost[0], 3),
        "median_s": round(seconds, 1),
    }
    print(json.dumps(found))


def measure(lake: str, scale: Scale, number: int) -> tuple[np.ndarray, int, float]:
    """Who is right on which item, the champion first; how many retrains were promoted; seconds for each."""
    with Runtime(settings_from_environment(lake)) as runtime:
        story, files = Story(helpdesk(seed=0, scale=scale), scale), Path(lake, "scenario")
        making.write_scenario(story, files, 0)
        making.prepare_rows(runtime, story, files)
        making.make_first_champion(runtime, story, SIZES[scale])
        champion, _ = models.resolve(runtime.settings, f"{NAME}@champion")
        promoted, seconds, runs = 0, [], []
        for seed in range(FAR, FAR + number):
            began = time.monotonic()
            (run,) = retrains(runtime, champion, number=1, seed=seed)
            decision = promote(runtime, run, name=NAME).facets
            promoted += decision["promoted"]
            seconds.append(time.monotonic() - began)
            failed = [check["name"] for check in decision["checks"] if not check["passed"]]
            print(
                f"retrain {seed - FAR + 1:<4}{decision['figures']['accuracy']:.1%}  refused by {failed}",
                flush=True,
            )
            if decision["promoted"]:
                break
            runs.append(run)
        items = items_of(runtime.settings, champion.run_id)
        right = [passes(said_on(runtime.settings, run, items)) for run in (champion.run_id, *runs)]
    return np.array(right), promoted, float(np.median(seconds))


def triples(right: np.ndarray) -> tuple[int, int]:
    """How many (champion, null, candidate) there are among the trainings, and how many promote."""
    gate, tries, promoted = Gate(), 0, 0
    for champion, null, candidate in permutations(right.tolist(), 3):
        facts = Evidence(champion, candidate, [null], 0)
        tries += 1
        if over_recipe(facts, level=gate.null_level, spread=gate.spread).low > 0:  # else it is refused
            promoted += decide(facts, seed=tries).promoted
    return tries, promoted


if __name__ == "__main__":
    main()
