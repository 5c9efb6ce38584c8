"""Carries out the retrain orders that a recall left: each fallen champion's recipe again, without the rows.

From the base model, through all gates: the fallen champion's weights are not reused, and what it may be
replaced by is decided as for any candidate.
"""

from __future__ import annotations

import logging

from infra.runtime import Runtime
from lineage import models
from lineage.bans import Recall
from lineage.runs import Outcome, Run, carry_out
from training.finetune import config_of, finetune
from training.promote import promote

log = logging.getLogger("stemma.retrain")


def retrain(runtime: Runtime, recall: Recall) -> Outcome:
    """Train and put before the gates a successor for each model that lost its champion to the recall.

    The facets hold `models`: per model its name, the run that replaces the fallen one, `promoted`, `version`,
    and the checks. Carried out once; what was cut off goes on. Raises CurriculumError where too few rows are
    left to train on.
    """

    def work(run: Run) -> Outcome:
        made = []
        for order in recall.orders:
            fallen, _ = models.resolve(runtime.settings, order.run_id)
            trained = finetune(runtime, config_of(runtime, fallen), parent=run)
            decided = promote(runtime, trained.run_id, name=order.name, parent=run)
            checks = decided.facets["checks"]
            made.append(
                {
                    "name": order.name,
                    "fallen": order.version,
                    "run_id": trained.run_id,
                    "rows": trained.counts["rows"],
                    "promoted": decided.facets["promoted"],
                    "version": decided.facets["version"],
                    "checks": checks,
                }
            )
        log.info("retrain after recall %s: %d models", recall.id, len(made))
        return Outcome(facets={"models": made}, counts={"models": len(made)})

    config = {"recall": recall.id, "lifts": recall.lifts, "orders": [order.run_id for order in recall.orders]}
    return carry_out(runtime, "retrain", config=config, inputs=[f"recall:{recall.id}"], work=work)
