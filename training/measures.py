"""The numbers of stored predictions: computed again from them, they are the same.

label        accuracy, macro_f1, ece
entities     entity_f1, entity_precision, entity_recall (micro), and their mean by text
any other    the mean of its scores, under the scorer's name; perplexity where likelihoods are stored, ece
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lineage.report import LABEL, PASS, Report, metric_of, scores
from training.metrics import ece, macro_f1

RESAMPLES = 500  # of the 95 % bootstrap intervals


def measures(predictions: pa.Table, *, seed: int) -> list[Report]:
    """Every number of an evaluation's predictions, by condition, then by scorer."""
    scorers = pc.fill_null(predictions["scorer"], LABEL)
    groups = sorted(set(zip(predictions["condition"].to_pylist(), scorers.to_pylist(), strict=True)))
    found = []
    for condition, scorer in groups:
        mine = pc.and_(pc.equal(predictions["condition"], condition), pc.equal(scorers, scorer))
        found += _of_one(predictions.filter(mine), scorer, condition=condition, seed=seed)
    return found


def _of_one(mine: pa.Table, scorer: str, *, condition: str, seed: int) -> list[Report]:
    """The numbers of the predictions that one scorer scored under one condition."""
    score, n = scores(mine), mine.num_rows
    confidence, correct = mine["confidence"].to_numpy(), score >= PASS
    metrics: dict[str, Callable[[np.ndarray], float]] = {
        metric_of(scorer): lambda drawn: float(score[drawn].mean())
    }
    if metric_of(scorer) == "accuracy":
        both = np.array(mine["answer"].to_pylist() + mine["prediction"].to_pylist())
        codes = np.unique(both, return_inverse=True)[1]
        metrics["macro_f1"] = lambda drawn: macro_f1(codes[:n][drawn], codes[n:][drawn])
    if mine["log_likelihood"].null_count == 0:
        sums, tokens = mine["log_likelihood"].to_numpy(), mine["tokens"].to_numpy()
        metrics["perplexity"] = lambda drawn: float(np.exp(-sums[drawn].sum() / tokens[drawn].sum()))
    metrics["ece"] = lambda drawn: ece(confidence[drawn], correct[drawn])
    rng = np.random.default_rng(seed)
    draws = [np.arange(n), *rng.integers(0, n, (RESAMPLES, n))]
    split, model_run = mine["split"][0].as_py(), mine["model_run"][0].as_py()
    found = []
    for name, metric in metrics.items():
        value, *resampled = (metric(drawn) for drawn in draws)
        low, high = np.quantile(resampled, [0.025, 0.975])
        found.append(Report(name, split, condition, value, float(low), float(high), n, seed, model_run))
    return found
