"""The job behind `stemma merge`: an adapter added into the weights of its base, for whoever serves one file.

    base        W + dW: what others merge into; where the base was in 4 bits, another model than was trained
    nf4         dequantised(NF4(W)) + dW: the model that was trained, in weights that need no bitsandbytes

The adapter's files are always kept: without them nobody can tell what was trained. The merged model is as far
from the one that was trained as its record says; gate it, not the adapter, before it serves.

Errors: TrainingError.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from pathlib import Path
from typing import Any, Literal

import torch

from infra.inference import AdapterRecord, load_tuned
from infra.models import adapter_digest, load_causal, load_classifier, without_rename_warning
from infra.runtime import Runtime, give_back_memory
from lineage import models
from lineage.consumption import Checkpoint
from lineage.runs import Outcome, Run, carry_out
from training.recipe import TrainingError
from training.tiny.bases import resolve_base

log = logging.getLogger("stemma.merge")

Onto = Literal["base", "nf4"]
_PROBES = ("hello", "What is 2 + 2?", "The quick brown fox jumps over the lazy dog.")


def merge(runtime: Runtime, reference: str, *, onto: Onto, parent: Run | None = None) -> Outcome:
    """Merge a model's adapter into its base. The facets name the folder, its digest, and how far it is off.

    Raises TrainingError for a model that was trained in full, or for `nf4` where the base was not quantised.
    """
    settings = runtime.settings
    checkpoint, _ = models.resolve(settings, reference)
    models.require_finished(settings, checkpoint)
    record = AdapterRecord.read(checkpoint.uri)
    if record.method == "full":
        raise TrainingError(
            f"{reference} was trained in full: its folder {checkpoint.uri} is the whole model"
        )
    if onto == "nf4" and record.quantization is None:
        raise TrainingError(f"{reference} was trained on a base that was not quantised; use --onto base")

    def work(run: Run) -> Outcome:
        folder = settings.path("merged", f"{checkpoint.run_id}-{onto}")
        off = _merged(runtime, checkpoint, record, onto, Path(folder))
        digest = adapter_digest(folder)
        facets = {"onto": onto, "folder": folder, "digest": digest, "off_by": off}
        log.info("merge %s: %s onto %s, %s", run.id, checkpoint.name, onto, folder)
        return Outcome((f"merged:{digest}",), {}, facets)

    config = {"onto": onto, "adapter": checkpoint.adapter_digest}
    inputs = [f"checkpoint:{checkpoint.name}", f"base:{checkpoint.base_digest}"]
    outcome = carry_out(runtime, "merge", config=config, inputs=inputs, work=work, parent=parent)
    folder = Path(outcome.facets["folder"])
    if not folder.is_dir():  # somebody took it away since
        _merged(runtime, checkpoint, record, onto, folder)
    return outcome


def _merged(
    runtime: Runtime, checkpoint: Checkpoint, record: AdapterRecord, onto: Onto, target: Path
) -> float:
    """Write the merged model, and measure the largest difference of its logits from the trained model's."""
    from peft import PeftModel

    base = resolve_base(runtime, checkpoint.base_model)
    trained, tokenizer, _ = load_tuned(base, checkpoint.uri)  # proves base and adapter
    fed = tokenizer(list(_PROBES), return_tensors="pt", padding=True)
    with torch.inference_mode(), without_rename_warning():
        expected = trained(**fed).logits.float()
        weights = _dequantised(trained) if onto == "nf4" else {}
        del trained
        given: dict[str, Any] = {"quantization": None, "seed": 0, "dtype": record.dtype}
        plain: Any = (
            load_classifier(base, record.labels, **given)[0]
            if record.labels
            else load_causal(base, **given)[0]
        )
        for name, weight in weights.items():
            plain.get_parameter(name).copy_(weight)
        merged: Any = PeftModel.from_pretrained(plain, checkpoint.uri).eval().merge_and_unload()
        counts = fed["attention_mask"].bool()
        off = float((merged(**fed).logits.float() - expected)[counts].abs().max())
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        try:
            merged.save_pretrained(str(folder))
            tokenizer.save_pretrained(str(folder))
            folder.chmod(0o755)
            shutil.rmtree(target, ignore_errors=True)
            folder.rename(target)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    give_back_memory()
    return off


def _dequantised(model: Any) -> dict[str, torch.Tensor]:
    """The weights of the 4-bit layers as they compute, by name."""
    from bitsandbytes.functional import dequantize_4bit
    from bitsandbytes.nn.modules import Linear4bit

    causal = model.get_base_model()
    layers = ((name, layer) for name, layer in causal.named_modules() if isinstance(layer, Linear4bit))
    return {
        f"{name.removesuffix('.base_layer')}.weight": dequantize_4bit(
            layer.weight.data, layer.weight.quant_state
        ).float()
        for name, layer in layers
    }
