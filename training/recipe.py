"""TrainingConfig: every hyperparameter of a fine-tuning, said once, with its default.

The names are the ecosystem's (peft, bitsandbytes, transformers). The config decides WHAT is computed; where
it runs is `infra.settings`.

Errors: TrainingError, the root of this folder's family; PlanError (training.plan) is one.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from infra.models import Quantization


class TrainingError(Exception):
    """A training, its metrics or its promotion cannot go on; the message says what to do."""


class TrainingConfig(BaseModel):
    """The hyperparameters of one fine-tuning.

    A `bnb_4bit_*` key is refused under `method = "lora"`, which would ignore it, and is left out when such a
    config is dumped: `TrainingConfig(**config.model_dump()) == config`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    base_model: str = "all-MiniLM-L6-v2"
    """An installed base model, a folder, or a hub id with an optional revision: `org/name@revision`."""
    objective: Literal["sequence_classification"] = "sequence_classification"
    """What the loss is."""
    method: Literal["qlora", "lora"] = "qlora"
    """`qlora` freezes the base in 4 bits, `lora` in float32."""

    r: int = Field(default=16, ge=1)
    """Rank of the adapters."""
    lora_alpha: int = Field(default=32, ge=1)
    """The adapters' output is scaled by lora_alpha / r."""
    lora_dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Dropout before the adapters. Above 0 the gradients depend on how a step is cut into minibatches."""
    target_modules: tuple[str, ...] = Field(default=("query", "key", "value", "dense"), min_length=1)
    """Linear layers that get an adapter, by the last part of their name."""
    modules_to_save: tuple[str, ...] = ("classifier",)
    """Layers trained in full and saved with the adapter."""

    bnb_4bit_quant_type: Literal["nf4", "fp4"] = "nf4"
    """4-bit data type of the frozen layers."""
    bnb_4bit_use_double_quant: bool = True
    """Quantise the quantisation constants too: 0.4 bits a parameter saved."""
    bnb_4bit_compute_dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """What the dequantised layers compute in. float32 takes twice as long on a CPU with AVX512-BF16."""

    learning_rate: float = Field(default=2e-3, gt=0.0)
    """Peak rate of AdamW for the adapters."""
    classifier_learning_rate: float | None = Field(default=1e-2, gt=0.0)
    """Peak rate for modules_to_save, which start from random numbers; None = learning_rate."""
    lr_scheduler_type: Literal["linear", "cosine", "constant"] = "linear"
    """How the rate falls after the warm-up: to zero, or not at all."""
    warmup_ratio: float = Field(default=0.1, ge=0.0, lt=1.0)
    """Share of the steps in which the rate rises linearly; the first step already moves."""
    num_train_epochs: int = Field(default=2, ge=1)
    """Passes over the rows."""
    train_batch_size: int = Field(default=32, ge=1)
    """Rows per optimiser step over all workers; the number of workers does not change it."""
    per_device_train_batch_size: int | None = Field(default=None, ge=1)
    """Most rows per forward pass, fewer where that saves padding; None = a worker's whole share of a step."""
    max_length: int = Field(default=64, ge=3)
    """Tokens per row, special tokens included; longer rows are cut there and counted, never dropped."""
    max_grad_norm: float = Field(default=1.0, gt=0.0)
    """Gradients are clipped to this norm, over all trained tensors together."""
    weight_decay: float = Field(default=0.0, ge=0.0)
    """AdamW's decoupled weight decay."""

    seed: int = Field(default=42, ge=0)
    """Fixes head, adapters and, through the plan, the order of rows."""
    num_workers: int = Field(default=0, ge=0)
    """Ray Train workers; 0 trains in this process, without starting any."""
    use_gpu: bool = False
    """One GPU per worker (with 0 workers: this process's)."""
    torch_threads: int = Field(default=1, ge=1)
    """CPU threads per worker. The adapter's digest depends on it, so it is fixed rather than taken from the
    machine; two threads gain a third on idle cores and lose tenfold or more beside another busy process."""

    @model_validator(mode="after")
    def _refuse_what_would_be_ignored(self) -> Self:
        if self.method == "lora" and (ignored := sorted(_BNB_KEYS & self.model_fields_set)):
            raise ValueError(
                f'method = "lora" keeps the base in float32 and would ignore {", ".join(ignored)}; '
                'remove the keys or set method = "qlora"'
            )
        micro = self.per_device_train_batch_size
        if micro is not None and micro > self.train_batch_size:
            raise ValueError(
                f"per_device_train_batch_size = {micro} is more than train_batch_size = "
                f"{self.train_batch_size}, the rows of a whole step; lower it or leave it out"
            )
        if self.num_workers > self.train_batch_size:
            raise ValueError(
                f"num_workers = {self.num_workers} would leave workers without rows in every step of "
                f"train_batch_size = {self.train_batch_size}; use at most that many"
            )
        return self

    @model_serializer(mode="wrap")
    def _leave_out_what_is_ignored(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values = handler(self)
        return values if self.method == "qlora" else {k: v for k, v in values.items() if k not in _BNB_KEYS}

    @property
    def quantization(self) -> Quantization | None:
        """How the base is stored; None is float32."""
        if self.method == "lora":
            return None
        return Quantization(
            bnb_4bit_quant_type=self.bnb_4bit_quant_type,
            bnb_4bit_compute_dtype=self.bnb_4bit_compute_dtype,
            bnb_4bit_use_double_quant=self.bnb_4bit_use_double_quant,
        )

    @property
    def micro_batch_size(self) -> int:
        """Most rows in one forward pass."""
        share = -(-self.train_batch_size // max(1, self.num_workers))
        return min(share, self.per_device_train_batch_size or share)


_BNB_KEYS = {"bnb_4bit_quant_type", "bnb_4bit_use_double_quant", "bnb_4bit_compute_dtype"}
