"""What a fine-tuning minimises, one module per objective: `OBJECTIVES[config.objective]`."""

from __future__ import annotations

from training.objectives.classification import SequenceClassification
from training.objectives.dpo import DirectPreference
from training.objectives.objective import Minibatch as Minibatch
from training.objectives.objective import Objective
from training.objectives.sft import SupervisedFineTuning
from training.objectives.tagging import TokenClassification

OBJECTIVES: dict[str, Objective] = {
    "sequence_classification": SequenceClassification(),
    "token_classification": TokenClassification(),
    "sft": SupervisedFineTuning(),
    "dpo": DirectPreference(),
}
