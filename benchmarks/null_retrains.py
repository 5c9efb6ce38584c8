"""Does chance alone promote? `python benchmarks/null_retrains.py [--retrains 20] [--lake FOLDER]`.

The demo's first champion is trained again and again from its own recipe with other seeds, and scored on the
demo's gate rows. Every retrain is put before the gate as a candidate, with another retrain as its null, and
so is every pair of them under every one of them as champion. None should be promoted. Prints a table, then
one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from itertools import permutations
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

sys.path[0] = str(Path(__file__).parents[1])  # not this folder, whose names are those of packages

from examples import making
from examples.helpdesk.generator import helpdesk
from examples.story import SIZES, Story
from infra.runtime import Runtime
from infra.settings import prepare_environment, settings_from_environment
from lineage import report
from training.evaluate import evaluate
from training.finetune import FinetuneConfig, config_of, finetune
from training.promotion import Evidence, decide
from lineage import models


def main() -> None:
    parser = argparse.ArgumentParser(description="Null retrains of the demo's first champion.")
    parser.add_argument("--retrains", type=int, default=20)
    parser.add_argument("--scale", default="full")
    parser.add_argument("--lake")
    parser.add_argument("--keep", help="Write who was right on which item into this file, as .npy.")
    options = parser.parse_args()
    prepare_environment()
    with tempfile.TemporaryDirectory() as folder:
        right, seconds = measure(options.lake or f"{folder}/lake", options.scale, options.retrains)
    if options.keep:
        np.save(options.keep, right)
    print(right.mean(axis=1), seconds)


def measure(lake: str, scale, retrains: int):
    with Runtime(settings_from_environment(lake)) as runtime:
        story = Story(helpdesk(seed=0, scale=scale), scale)
        files = Path(lake, "scenario")
        making.write_scenario(story, files, 0)
        making.prepare_rows(runtime, story, files)
        making.make_first_champion(runtime, story, SIZES[scale])
        champion, _ = models.resolve(runtime.settings, "champion")
        config = config_of(runtime, champion)
        known, seconds = [champion.run_id], []
        for seed in range(1, retrains + 1):
            began = time.monotonic()
            data = config.data.model_copy(update={"seed": config.data.seed + seed})
            training = config.training.model_copy(update={"seed": config.training.seed + seed})
            known.append(finetune(runtime, FinetuneConfig(data=data, training=training)).run_id)
            evaluate(runtime, known[-1], split="gate")
            seconds.append(time.monotonic() - began)
            print(seed, round(seconds[-1], 1), flush=True)
        right = []
        for run in known:
            found = report.predictions_of(runtime.settings, run, split="gate").sort_by("row_id")
            right.append(pc.equal(found["answer"], found["prediction"]).to_numpy())
            conditions = found["condition"].to_pylist()
        np.save("/tmp/nulls-conditions.npy", np.array(conditions))
        return np.array(right), float(np.median(seconds))


if __name__ == "__main__":
    main()
