"""What must be known beside the tensors to answer with a fine-tuned model; training writes it last.

    adapter folder = adapter_model.safetensors + adapter_config.json (peft's) + stemma.json (AdapterRecord)
    trained whole  = model.safetensors + config.json (transformers') + stemma.json
    and chat_template.jinja, where a decoder was trained with another template than its base's

Errors: ModelError.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from infra.models import Dtype, ModelError, Quantization

RECORD_FILE = "stemma.json"
TEMPLATE_FILE = "chat_template.jinja"

Objective = Literal["sequence_classification", "token_classification", "sft", "dpo"]


@dataclass(frozen=True)
class AdapterRecord:
    """A fine-tuned model, as its folder describes it."""

    labels: tuple[str, ...]
    """In the order of the head's outputs; of a decoder none."""
    max_length: int
    base_model: str
    base_digest: str
    method: Literal["qlora", "lora", "full"]
    quantization: Quantization | None
    """How the base's layers were stored when it was trained against them; None is as `dtype` says."""
    adapter_digest: str
    # The defaults describe what was written before there was a choice.
    objective: Objective = "sequence_classification"
    dtype: Dtype = "float32"
    template_digest: str | None = None
    """Of the chat template that a decoder was trained with, see infra.chat."""

    def write(self, folder: str | Path) -> None:
        """Write stemma.json into the adapter's folder."""
        text = json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"
        (Path(folder) / RECORD_FILE).write_text(text, encoding="utf-8")

    @classmethod
    def read(cls, folder: str | Path) -> AdapterRecord:
        """Read stemma.json of an adapter folder; ModelError when it is missing or has other keys."""
        path = Path(folder) / RECORD_FILE
        if not path.is_file():
            raise ModelError(
                f"'{folder}' holds no {RECORD_FILE}; expected a folder that training finished writing"
            )
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            quantization = Quantization(**values["quantization"]) if values["quantization"] else None
            return cls(**values | {"labels": tuple(values["labels"]), "quantization": quantization})
        except (ValueError, TypeError, KeyError) as error:
            raise ModelError(f"{path} is no adapter record of this version: {error}") from error
