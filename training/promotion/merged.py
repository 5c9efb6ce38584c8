"""What a candidate's merged model answers: another model than its adapter, and maybe the one that serves."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pyarrow as pa

from infra.inference import AdapterRecord, Predictor
from infra.models import adapter_digest
from infra.runtime import Runtime, give_back_memory
from lineage.consumption import Checkpoint
from training.merge import merge
from training.promotion import Merged
from training.promotion.gate_set import examples_of
from training.recipe import TrainingError


def merged_on(
    runtime: Runtime, checkpoint: Checkpoint, items: pa.Table, *, onto: Literal["base", "nf4"]
) -> Merged:
    """Merge a classifier, where not done yet, and let the merged model answer the items.

    Raises TrainingError for a decoder, and where the merged folder is not as its record says.
    """
    record = AdapterRecord.read(checkpoint.uri)
    if record.objective != "sequence_classification":
        raise TrainingError(
            f"{checkpoint.name} was trained for {record.objective}; only a classifier's merged model can be "
            "judged here: leave out merged"
        )
    outcome = merge(runtime, checkpoint.run_id, onto=onto)
    folder = Path(outcome.facets["folder"])
    found = adapter_digest(folder)
    if found != outcome.facets["digest"]:
        raise TrainingError(
            f"merged model {folder} has digest {found}, expected {outcome.facets['digest']}; remove the "
            f"folder and merge again: stemma merge {checkpoint.run_id} --onto {onto}"
        )
    texts = [row["text"] for row in examples_of(runtime.settings, items["row_no"].to_pylist(), ["text"])]
    said = [each.label for each in _whole(folder, record).predict(texts)]
    give_back_memory()
    return Merged(
        onto=onto,
        right=[a == b for a, b in zip(said, items["answer"].to_pylist(), strict=True)],
        agrees=[a == b for a, b in zip(said, items["prediction"].to_pylist(), strict=True)],
    )


def _whole(folder: Path, record: AdapterRecord) -> Predictor:
    """The classifier in a folder of plain weights: a head for each token, over which the mean is taken."""
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForTokenClassification.from_pretrained(folder).eval()
    return Predictor(model, tokenizer, record)
