"""TrainingConfig: every hyperparameter of a fine-tuning, said once, with its default.

The names are the ecosystem's (peft, bitsandbytes, transformers, TRL). The config decides WHAT is computed;
where it runs is `infra.settings`.

Errors: TrainingError, the root of this folder's family. PlanError (training.plan): rows that cannot be
planned. GuardError (training.guards): a training that does not do what it should; every rank meets it at the
same step. WorkersLost (training.fit): workers that died past their retries. SandboxError (training.sandbox):
a generated program that was not run, for it could not be confined.
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

Objective = Literal["sequence_classification", "token_classification", "sft", "dpo"]
Method = Literal["qlora", "lora", "full"]


class TrainingError(Exception):
    """A training, its metrics or its promotion cannot go on; the message says what to do."""


class TrainingConfig(BaseModel):
    """The hyperparameters of one fine-tuning.

    A key that the chosen objective and method would ignore is refused, and left out when a config is dumped:
    `TrainingConfig(**config.model_dump()) == config`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    base_model: str = "all-MiniLM-L6-v2"
    """An installed base model, a folder, or a hub id with an optional revision: `org/name@revision`."""
    objective: Objective = "sequence_classification"
    """What the loss is: of a label per text (`sequence_classification`) or per token (`token_classification`:
    named entities), of the answer's tokens (`sft`), of an answer against a worse one (`dpo`)."""
    method: Method = "qlora"
    """`qlora` trains adapters on a base frozen in 4 bits, `lora` on one that is not quantised, `full` trains
    every weight of a small base."""
    fallback: tuple[Literal["lora", "full"], ...] = ("lora", "full")
    """What is tried, in this order, where the method before fails at loading, training or answering; which
    was is on record. Only methods after `method` count."""
    adapter_name_or_path: str | None = None
    """A model of the lake (alias, NAME@VERSION, run id) whose adapter the training goes on from; for `dpo` it
    is the frozen reference too; r, lora_alpha and target_modules are to be those it has. None: fresh
    adapters, and the base as the reference."""

    r: int = Field(default=16, ge=1)
    """Rank of the adapters."""
    lora_alpha: int = Field(default=32, ge=1)
    """The adapters' output is scaled by lora_alpha / r."""
    lora_dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Dropout before the adapters. Above 0 the gradients depend on how a step is cut into minibatches."""
    target_modules: Literal["all-linear"] | tuple[str, ...] = Field(default="all-linear", min_length=1)
    """Linear layers that get an adapter, by the last part of their name; `all-linear`: all but the head."""
    modules_to_save: tuple[str, ...] = ("classifier",)
    """Layers trained in full and saved with the adapter: a classifier's head. None for `sft` and `dpo`."""

    bnb_4bit_quant_type: Literal["nf4", "fp4"] = "nf4"
    """4-bit data type of the frozen layers."""
    bnb_4bit_use_double_quant: bool = True
    """Quantise the quantisation constants too: 0.4 bits a parameter saved."""
    bnb_4bit_compute_dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """What the dequantised layers compute in. float32 takes twice as long on a CPU with AVX512-BF16."""
    bf16: bool = False
    """Mixed precision: matrix products in bfloat16, and what of a frozen base is not quantised is held in it;
    what is trained, its gradients and the optimiser stay float32."""
    attn_implementation: Literal["sdpa", "eager", "flash_attention_2", "flex_attention"] = "sdpa"
    """`sft`, `dpo`: attention of transformers; `flash_attention_2` needs the package flash-attn and a GPU."""
    use_liger_kernel: bool = False
    """Fused kernels of the package liger-kernel, on a GPU."""

    learning_rate: float = Field(default=2e-3, gt=0.0)
    """Peak rate for the adapters. `sft`: 2e-4, `dpo`: 5e-6 (TRL's guidance for adapters)."""
    classifier_learning_rate: float | None = Field(default=1e-2, gt=0.0)
    """Peak rate for modules_to_save, which start from random numbers; None = learning_rate."""
    optim: Literal["adamw_torch_fused", "paged_adamw_32bit", "paged_adamw_8bit"] = "adamw_torch_fused"
    """The optimiser, as transformers names it; the paged ones are bitsandbytes', for a GPU."""
    lr_scheduler_type: Literal["linear", "cosine", "constant"] = "linear"
    """How the rate falls after the warm-up: to zero, or not at all."""
    warmup_ratio: float = Field(default=0.1, ge=0.0, lt=1.0)
    """Share of the steps in which the rate rises linearly; the first step already moves."""
    num_train_epochs: int = Field(default=2, ge=1)
    """Passes over the rows."""
    train_batch_size: int = Field(default=32, ge=1)
    """Rows (with packing: sequences) per optimiser step over all workers, whose number does not change it.
    What others call per_device_train_batch_size x gradient_accumulation_steps x workers."""
    per_device_train_batch_size: int | None = Field(default=None, ge=1)
    """Most rows per forward pass, fewer where that saves padding; None = a worker's whole share of a step.
    Halved, and put on record, where memory does not suffice; the order of rows stays."""
    gradient_checkpointing: bool | None = None
    """Compute activations again in the backward pass; None: only where memory asks for it."""
    max_length: int = Field(default=64, ge=3)
    """Tokens per row, special tokens included; with packing: per sequence. `sft` and `dpo`: 1024."""
    excess_length_strategy: Literal["truncate", "drop", "raise"] = "truncate"
    """What becomes of a longer row: cut there and counted; put into `rejected`; or nothing is trained."""
    max_grad_norm: float = Field(default=1.0, gt=0.0)
    """Gradients are clipped to this norm, over all trained tensors together."""
    weight_decay: float = Field(default=0.0, ge=0.0)
    """AdamW's decoupled weight decay."""

    packing: bool = False
    """`sft`: several rows in a sequence of max_length tokens, best fit first; none sees the others."""
    completion_only_loss: bool = True
    """`sft`: only the answer is learnt, stop token included."""
    assistant_only_loss: bool = False
    """`sft`: every turn of the assistant is learnt, not only the answer; needs completion_only_loss = false.
    With both false the whole conversation is."""
    chain_of_thought: bool = True
    """`sft`, `dpo`: learn the steps before the final answer too; false: only what follows the last `####`."""
    chat_template_path: str | None = None
    """A Jinja chat template in place of the tokenizer's."""
    beta: float = Field(default=0.1, gt=0.0)
    """`dpo`: how dearly leaving the reference is paid for."""

    seed: int = Field(default=42, ge=0)
    """Fixes head, adapters and, through the plan, the order of rows."""
    num_workers: int = Field(default=0, ge=0)
    """Ray Train workers; 0 trains in this process, without starting any."""
    min_workers: int | None = Field(default=None, ge=1)
    """Go on with as few workers where a node is lost; None: wait for all."""
    max_failures: int = Field(default=2, ge=0)
    """How often workers that died are started again, from the last saved state."""
    save_steps: int = Field(default=100, ge=1)
    """A state to resume from after every so many steps."""
    use_gpu: bool = False
    """One GPU per worker (with 0 workers: this process's)."""
    torch_threads: int = Field(default=1, ge=1)
    """CPU threads per worker. The adapter's digest depends on it, so it is fixed rather than taken from the
    machine; two threads gain a third on idle cores and lose tenfold or more beside another busy process."""

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_objective(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return _DEFAULTS.get(str(values.get("objective")), {}) | values

    @model_validator(mode="after")
    def _refuse_what_would_be_ignored(self) -> Self:
        for chosen, ignored in self._ignored:
            defaults = _DEFAULTS.get(self.objective, {})
            changed = {
                key for key in ignored & self.model_fields_set if defaults.get(key, ...) != getattr(self, key)
            }
            if changed:
                raise ValueError(
                    f"{chosen} would ignore {', '.join(sorted(changed))}; remove the keys or choose otherwise"
                )
        if not self.use_gpu and (self.use_liger_kernel or self.optim != "adamw_torch_fused"):
            raise ValueError("use_liger_kernel and the paged optimisers need use_gpu = true")
        if self.assistant_only_loss and self.completion_only_loss:
            raise ValueError("assistant_only_loss = true needs completion_only_loss = false")
        return self

    @model_validator(mode="after")
    def _refuse_sizes_that_do_not_fit(self) -> Self:
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
        if self.min_workers is not None and self.min_workers > self.num_workers:
            raise ValueError(
                f"min_workers = {self.min_workers} is more than num_workers = {self.num_workers}"
            )
        return self

    @model_serializer(mode="wrap")
    def _leave_out_what_is_ignored(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        ignored = set().union(*(keys for _, keys in self._ignored))
        return {key: value for key, value in handler(self).items() if key not in ignored}

    @property
    def _ignored(self) -> list[tuple[str, set[str]]]:
        """What each choice would ignore."""
        found = [(f'method = "{self.method}"', _IGNORED_BY_METHOD.get(self.method, set()))]
        found.append((f'objective = "{self.objective}"', _IGNORED_BY_OBJECTIVE[self.objective]))
        return found

    @property
    def quantization(self) -> Quantization | None:
        """How the base is stored; None is not quantised."""
        if self.method != "qlora":
            return None
        return Quantization(
            bnb_4bit_quant_type=self.bnb_4bit_quant_type,
            bnb_4bit_compute_dtype=self.bnb_4bit_compute_dtype,
            bnb_4bit_use_double_quant=self.bnb_4bit_use_double_quant,
        )

    @property
    def dtype(self) -> Literal["float32", "bfloat16"]:
        """What the weights that are not quantised are held in; those that are trained are float32."""
        return "bfloat16" if self.bf16 and self.method != "full" else "float32"

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        """Where a worker computes."""
        return "cuda" if self.use_gpu else "cpu"

    @property
    def decodes(self) -> bool:
        """Is a decoder trained, which writes answers, and not a classifier?"""
        return self.objective in ("sft", "dpo")

    @property
    def micro_batch_size(self) -> int:
        """Most rows in one forward pass, before memory has a say."""
        share = -(-self.train_batch_size // max(1, self.num_workers))
        return min(share, self.per_device_train_batch_size or share)

    @property
    def methods(self) -> tuple[Method, ...]:
        """The method, and what is tried after it."""
        order: tuple[Method, ...] = ("qlora", "lora", "full")
        later = order[order.index(self.method) + 1 :]
        return (self.method, *(each for each in self.fallback if each in later))


PLACEMENT = frozenset(
    {
        "num_workers",
        "min_workers",
        "max_failures",
        "save_steps",
        "per_device_train_batch_size",
        "gradient_checkpointing",
        "use_gpu",
        "torch_threads",
    }
)
"""Keys that say how a training is carried out: none changes which rows a step eats, or what it means."""

_DEFAULTS: dict[str, dict[str, Any]] = {
    "sft": {"learning_rate": 2e-4, "max_length": 1024, "modules_to_save": ()},
    "dpo": {"learning_rate": 5e-6, "max_length": 1024, "modules_to_save": ()},
}
_BNB = {"bnb_4bit_quant_type", "bnb_4bit_use_double_quant", "bnb_4bit_compute_dtype"}
_LORA = {"r", "lora_alpha", "lora_dropout", "target_modules", "modules_to_save", "adapter_name_or_path"}
_OF_SFT = {"packing", "completion_only_loss", "assistant_only_loss"}
_OF_DECODERS = {
    "use_liger_kernel",
    "chain_of_thought",
    "chat_template_path",
    "adapter_name_or_path",
    "attn_implementation",
}
_IGNORED_BY_METHOD = {"lora": _BNB, "full": _BNB | _LORA}
_IGNORED_BY_OBJECTIVE: dict[str, set[str]] = {
    "sequence_classification": _OF_SFT | _OF_DECODERS | {"beta"},
    "token_classification": _OF_SFT | _OF_DECODERS | {"beta"},
    "sft": {"beta", "classifier_learning_rate", "modules_to_save"},
    "dpo": _OF_SFT | {"classifier_learning_rate", "modules_to_save"},
}
