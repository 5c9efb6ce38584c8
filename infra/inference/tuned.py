"""Loads what training saved onto its base, and proves that both are the ones that belong together.

Errors: ModelError, when a folder is incomplete, was changed, or belongs to another base.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from infra.chat import template_digest
from infra.inference.record import TEMPLATE_FILE, AdapterRecord, Objective
from infra.models import (
    BaseModel,
    ModelError,
    adapter_digest,
    load_causal,
    load_classifier,
    load_tokenizer,
    without_rename_warning,
)

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_tuned(
    base: BaseModel, folder: str | Path, *, device: str = "cpu", expected: tuple[Objective, ...] = ()
) -> tuple[torch.nn.Module, PreTrainedTokenizerBase, AdapterRecord]:
    """A fine-tuned model in eval mode, as quantised as it was trained, its tokenizer and its record.

    Raises ModelError when the base, the folder's tensors or its chat template are not those that the record
    names; and where it was trained for none of the `expected` objectives, if there are any.
    """
    record = AdapterRecord.read(folder)
    if expected and record.objective not in expected:
        raise ModelError(
            f"'{folder}' was trained with objective = \"{record.objective}\", expected "
            f"{' or '.join(expected)}; Predictor labels texts, Tagger finds spans, Generator answers"
        )
    if record.base_digest != base.digest:
        raise ModelError(
            f"adapter '{folder}' was trained on {record.base_model} ({record.base_digest}), "
            f"but the base given is {base.name} ({base.digest}); resolve '{record.base_model}' instead"
        )
    found = adapter_digest(folder)
    if found != record.adapter_digest:
        raise ModelError(
            f"the tensors of adapter '{folder}' have digest {found}, its record says "
            f"{record.adapter_digest}; the files were changed after training: fetch or train them again"
        )
    tokenizer = _tokenizer(base, folder, record)
    if record.method == "full":  # the folder is a model of its own, which only borrows the base's tokenizer
        return _load(replace(base, path=str(folder)), record, device, complete=True), tokenizer, record
    from peft import PeftModel

    model = _load(base, record, device)
    try:
        with without_rename_warning():
            return PeftModel.from_pretrained(model, str(folder)).eval(), tokenizer, record
    except (ValueError, TypeError, KeyError, OSError, RuntimeError) as error:
        raise ModelError(
            f"adapter '{folder}' does not load ({str(error).strip().splitlines()[0][:200]}); "
            "restore the folder from a copy, or train again"
        ) from error


def _load(base: BaseModel, record: AdapterRecord, device: str, *, complete: bool = False) -> PreTrainedModel:
    # the seed only draws the head that the folder's own replaces
    if record.objective in ("sequence_classification", "token_classification"):
        return load_classifier(
            base,
            record.labels,
            quantization=record.quantization,
            seed=0,
            device=device,
            dtype=record.dtype,
            complete=complete,
        )[0]
    return load_causal(base, quantization=record.quantization, seed=0, device=device, dtype=record.dtype)[0]


def _tokenizer(base: BaseModel, folder: str | Path, record: AdapterRecord) -> PreTrainedTokenizerBase:
    """The base's tokenizer, with the folder's chat template where it has one."""
    tokenizer = load_tokenizer(base)
    own = Path(folder) / TEMPLATE_FILE
    if own.is_file():
        tokenizer.chat_template = own.read_bytes().decode()
    if own.is_file() or record.template_digest:
        found = template_digest(tokenizer)
        if found != record.template_digest:
            raise ModelError(
                f"the chat template of '{folder}' has digest {found}, its record says "
                f"{record.template_digest}; it was changed after training: fetch or train it again"
            )
    return tokenizer
