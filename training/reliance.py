"""How far a model's confidence can be relied on: fitted on `gate`, told on `report`, never on one set.

stemma evaluate MODEL --split report --wrong-cost 4
    the threshold from which on an answer counts (below it a larger model or a person is asked), and
    how well the confidences are calibrated before and after their labels' accuracies are mixed in
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from infra.settings import Settings
from lineage import report
from lineage.consumption import Checkpoint
from lineage.rows import rows_digest
from training.metrics import bootstrap_interval, ece, fit_calibration, fit_threshold
from training.recipe import TrainingError


@dataclass(frozen=True)
class Reliance:
    """A threshold fitted on the gate's predictions, and what it does on the report's."""

    threshold: float
    wrong_cost: float
    """How many right answers one wrong answer costs."""
    fitted_on: str
    fitted_n: int
    n: int
    kept: int
    """Answers at or above the threshold."""
    right: int
    """Of those."""
    low: float
    """Lower end of the 95 % interval of their accuracy."""
    high: float
    weight: float
    """How much the label's accuracy on the gate counts in a mended confidence, 0 to 1."""
    ece: float
    ece_mended: float

    def lines(self) -> list[str]:
        """The numbers, a line each."""
        share = self.right / self.kept if self.kept else 0.0
        return [
            f"from a confidence of {self.threshold:.2f} on it answers {self.kept} of {self.n} rows "
            f"({self.kept / self.n:.1%}), {share:.1%} of them right [{self.low:.1%}, {self.high:.1%}]",
            f"the threshold is fitted on {self.fitted_n} rows of 'gate', where a wrong answer costs "
            f"{self.wrong_cost:g} right ones",
            f"calibration error {self.ece:.3f}, and {self.ece_mended:.3f} with {self.weight:.0%} of each "
            "label's accuracy on 'gate' mixed in",
        ]


def reliance(settings: Settings, checkpoint: Checkpoint, *, wrong_cost: float, seed: int) -> Reliance:
    """Fit on the checkpoint's stored predictions on `gate`, and tell on those on `report`.

    Raises TrainingError where one of the two was not evaluated yet, or no threshold gains anything.
    """
    gate, told = (_said(settings, checkpoint, split) for split in ("gate", "report"))
    right, confidence = np.array(report.passed(gate)), gate["confidence"].to_numpy()
    fitted_on = _name(gate)
    threshold = fit_threshold(confidence, right, fitted_on=fitted_on, wrong_cost=wrong_cost)
    calibration = fit_calibration(confidence, _labels(gate), right, fitted_on=fitted_on)
    there, sure = np.array(report.passed(told)), told["confidence"].to_numpy()
    kept = threshold.kept(sure, rows_of=_name(told))
    mended = calibration.apply(sure, _labels(told), rows_of=_name(told))
    low, high = bootstrap_interval(there[kept], seed=seed) if kept.any() else (0.0, 1.0)
    return Reliance(
        threshold=threshold.value,
        wrong_cost=wrong_cost,
        fitted_on=fitted_on,
        fitted_n=threshold.n,
        n=told.num_rows,
        kept=int(kept.sum()),
        right=int(there[kept].sum()),
        low=low,
        high=high,
        weight=calibration.w,
        ece=ece(sure, there),
        ece_mended=ece(mended, there),
    )


def _said(settings: Settings, checkpoint: Checkpoint, split: str) -> pa.Table:
    found = report.predictions_of(settings, checkpoint.run_id, split=split)
    if not found.num_rows:
        raise TrainingError(
            f"{checkpoint.name} was not evaluated on '{split}'; run: stemma evaluate {checkpoint.run_id} "
            f"--split {split}"
        )
    return found


def _labels(predictions: pa.Table) -> Sequence[str]:
    """What a confidence is of: the predicted label; of an answer in words its scorer, one for all."""
    labelled = predictions["scorer"].fill_null(report.LABEL).to_pylist()
    said = predictions["prediction"].to_pylist()
    return [word if scorer == report.LABEL else scorer for word, scorer in zip(said, labelled, strict=True)]


def _name(predictions: pa.Table) -> str:
    return f"{predictions['split'][0].as_py()}:{rows_digest(predictions['row_id'].to_pylist())[:16]}"
