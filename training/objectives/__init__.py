"""What a fine-tuning minimises, one module per objective: `OBJECTIVES[config.objective]`."""

from __future__ import annotations

from training.objectives.classification import SequenceClassification
from training.objectives.objective import Minibatch as Minibatch
from training.objectives.objective import Objective

OBJECTIVES: dict[str, Objective] = {"sequence_classification": SequenceClassification()}
