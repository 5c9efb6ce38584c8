"""The numbers of stored predictions: computed again from them, they are the same.

    label         accuracy, macro_f1, ece
    entities      entity_f1, entity_precision, entity_recall over all texts, ece
    preferred     their share
    any other     the mean of its scores under the scorer's name, ece; perplexity where likelihoods are stored

Each with its 95 % bootstrap interval. The first number of a scorer is the one that models are compared by.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lineage.report import LABEL, PASS, Report, metric_of, scores
from lineage.spans import read_spans
from training.metrics import (
    Interval,
    bootstrap,
    bootstrap_interval,
    ece,
    ece_interval,
    entity_counts,
    entity_f1_interval,
    macro_f1,
    macro_f1_interval,
)
from training.metrics.entities import entity_f1_of


def measures(predictions: pa.Table, *, seed: int) -> list[Report]:
    """Every number of an evaluation's predictions, by condition, then by scorer."""
    scorers = pc.fill_null(predictions["scorer"], LABEL)
    groups = sorted(set(zip(predictions["condition"].to_pylist(), scorers.to_pylist(), strict=True)))
    found = []
    for condition, scorer in groups:
        mine = predictions.filter(
            pc.and_(pc.equal(predictions["condition"], condition), pc.equal(scorers, scorer))
        )
        split, model_run = mine["split"][0].as_py(), mine["model_run"][0].as_py()
        found += [
            Report(metric, split, condition, float(value), low, high, mine.num_rows, seed, model_run)
            for metric, value, (low, high) in _numbers(mine, metric_of(scorer), seed=seed)
        ]
    return found


def _numbers(mine: pa.Table, metric: str, *, seed: int) -> Iterator[tuple[str, float, Interval]]:
    """Name, value and interval of what the predictions of one scorer give."""
    score = scores(mine)
    if metric == "entities":
        yield from _of_entities(mine, seed=seed)
    else:
        yield metric, score.mean(), bootstrap_interval(score, seed=seed)
    if metric == "preferred":  # its likelihoods are of answers that were not asked for, its confidences too
        return
    if metric == "accuracy":
        truth, said = mine["answer"].to_pylist(), mine["prediction"].to_pylist()
        yield "macro_f1", macro_f1(truth, said), macro_f1_interval(truth, said, seed=seed)
    if mine["log_likelihood"].null_count == 0:
        sums, tokens = mine["log_likelihood"].to_numpy(), mine["tokens"].to_numpy()
        both = np.column_stack([sums, tokens])
        interval = bootstrap(np.ones(len(both), int), lambda drawn: _perplexity(drawn @ both), seed=seed)
        yield "perplexity", _perplexity(both.sum(axis=0)[None])[0], interval
    confidence, right = mine["confidence"].to_numpy(), score >= PASS
    yield "ece", ece(confidence, right), ece_interval(confidence, right, seed=seed)


def _of_entities(mine: pa.Table, *, seed: int) -> Iterator[tuple[str, float, Interval]]:
    truth, said = ([read_spans(text) for text in mine[name].to_pylist()] for name in ("answer", "prediction"))
    counts = entity_counts(truth, said)
    yield "entity_f1", entity_f1_of(counts.sum(axis=0)[None])[0], entity_f1_interval(counts, seed=seed)
    hits, found, true = counts.T
    for name, whole in (("entity_precision", found), ("entity_recall", true)):
        both = np.column_stack([hits, whole])
        interval = bootstrap(np.ones(len(both), int), lambda drawn, b=both: _share(drawn @ b), seed=seed)
        yield name, _share(both.sum(axis=0)[None])[0], interval


def _perplexity(sums: np.ndarray) -> np.ndarray:
    """Of columns log-likelihood and tokens."""
    return np.exp(-sums[:, 0] / np.maximum(1, sums[:, 1]))


def _share(sums: np.ndarray) -> np.ndarray:
    """The first column of the second; a share of nothing counts 0."""
    return sums[:, 0] / np.maximum(1, sums[:, 1])
