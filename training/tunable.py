"""The model as it is trained: base, adapters and head, what of it learns, and the optimiser that moves it.

Errors: GuardError where a method does not fit a base; TrainingError where what was trained cannot be saved;
infra.models.ModelError where the base does not load.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.models import (
    BaseModel,
    load_causal,
    load_classifier,
    tensors_digest,
    without_rename_warning,
)
from training.guards import GuardError
from training.recipe import TrainingConfig, TrainingError

if TYPE_CHECKING:
    import torch

_HEADS = ("classifier", "score", "lm_head")
_MOST_IN_FULL = 1_000_000_000
"""Parameters. Full training holds 16 bytes of each: weight, gradient and two moments in float32."""


def load_tunable(
    base: BaseModel, labels: Sequence[str], config: TrainingConfig, *, adapter: str | None = None
) -> tuple[Any, dict[str, Any]]:
    """The model with what learns set to learn, in eval mode, and the values in force.

    `adapter`: folder of the adapter to go on from; None draws fresh ones from the seed. Raises GuardError
    and ModelError.
    """
    given: dict[str, Any] = {"quantization": config.quantization, "seed": config.seed}
    given |= {"device": config.device, "dtype": config.dtype}
    if config.decodes:
        model, in_force = load_causal(base, attn_implementation=config.attn_implementation, **given)
    else:
        model, in_force = load_classifier(base, labels, **given)
    if config.use_liger_kernel:
        _with_liger(model)
    in_force |= {"method": config.method}
    if config.method == "full":
        if adapter is not None:
            raise GuardError(
                'method = "full" trains no adapter, so it cannot go on from the one at '
                f"'{adapter}'; use \"lora\""
            )
        size = sum(parameter.numel() for parameter in model.parameters())
        if size > _MOST_IN_FULL:
            raise GuardError(
                f'method = "full" is for small models, and {base.name} has {size:,} parameters; use "lora"'
            )
        return model.requires_grad_(True), in_force
    tunable = _with_adapters(model, base, config, adapter)
    for parameter in trained_of(tunable).values():
        parameter.data = parameter.data.float()
    return tunable, in_force


def trained_of(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """What learns, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def make_optimizer(trained: dict[str, torch.nn.Parameter], config: TrainingConfig) -> torch.optim.Optimizer:
    """AdamW over what learns; the head, which starts from random numbers, at a rate of its own."""
    import torch

    head = [p for name, p in trained.items() if _is_head(name)]
    others = [p for name, p in trained.items() if not _is_head(name)]
    head_rate = (not config.decodes and config.classifier_learning_rate) or config.learning_rate
    groups = [{"params": others, "lr": config.learning_rate}, {"params": head, "lr": head_rate}]
    given: dict[str, Any] = {"params": [each for each in groups if each["params"]]}
    given |= {"weight_decay": config.weight_decay}
    if config.optim == "adamw_torch_fused":
        return torch.optim.AdamW(**given, fused=True)  # one kernel for 76 small tensors
    from bitsandbytes.optim import PagedAdamW8bit, PagedAdamW32bit

    return (PagedAdamW8bit if config.optim == "paged_adamw_8bit" else PagedAdamW32bit)(**given)


def save_model(model: Any, folder: Path) -> None:
    """Adapter and head, or the whole model where all of it was trained, into a folder.

    Raises TrainingError where they cannot be written.
    """
    from safetensors import SafetensorError

    given = {"save_embedding_layers": False} if _has_adapters(model) else {}
    try:
        model.save_pretrained(str(folder), **given)
    except (OSError, SafetensorError) as error:
        raise TrainingError(
            f"the trained model cannot be written to {folder} ({error}); make room and give the command "
            "again: it goes on from the last state"
        ) from error
    for path in folder.glob("*.safetensors"):
        path.chmod(0o644)  # safetensors makes them private
    (folder / "README.md").unlink(missing_ok=True)  # peft's model card is a blank form


def digest_of(model: torch.nn.Module) -> str:
    """The digest that `infra.models.adapter_digest` will find in what save_model writes."""
    from safetensors.torch import save

    if _has_adapters(model):
        from peft import get_peft_model_state_dict

        state = get_peft_model_state_dict(model, save_embedding_layers=False)
    else:
        state = {name: parameter for name, parameter in model.named_parameters()}
    return tensors_digest(save({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}))


def turn_on_gradient_checkpointing(model: Any) -> None:
    """Compute activations again in the backward pass."""
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


def _with_adapters(
    model: torch.nn.Module, base: BaseModel, config: TrainingConfig, adapter: str | None
) -> torch.nn.Module:
    import torch
    from peft import LoraConfig, PeftModel, TaskType, get_peft_model

    torch.manual_seed(config.seed)  # again: the adapters shall not depend on how many numbers the head drew
    with without_rename_warning():
        try:
            modules = _linear(model) if config.target_modules == "all-linear" else config.target_modules
            wanted = LoraConfig(
                r=config.r,
                lora_alpha=config.lora_alpha,
                lora_dropout=config.lora_dropout,
                target_modules=list(modules),
                modules_to_save=None if config.decodes else list(config.modules_to_save),
                # a classifier's head is on tokens, see infra.models
                task_type=TaskType.CAUSAL_LM if config.decodes else TaskType.TOKEN_CLS,
            )
            if adapter is None:
                tunable = get_peft_model(model, wanted)
            else:
                found = LoraConfig.from_pretrained(adapter)
                _require_shape(found, wanted, adapter)
                found.lora_dropout = config.lora_dropout
                tunable = PeftModel.from_pretrained(model, adapter, is_trainable=True, config=found)
        except ValueError as error:
            raise GuardError(f"the adapters do not fit '{base.name}': {error}") from error
    tunable.peft_config["default"].base_model_name_or_path = base.name  # not where it lies on this machine
    return tunable


def _require_shape(found: Any, wanted: Any, adapter: str) -> None:
    """An adapter keeps the shape that it has; a config that says another one would be ignored."""
    for key in ("r", "lora_alpha", "target_modules"):
        its, said = (getattr(each, key) for each in (found, wanted))
        if its != said:
            its, said = (sorted(each) if isinstance(each, set) else each for each in (its, said))
            raise GuardError(
                f"the adapter at '{adapter}' has {key} = {its}, and the config says {key} = {said}; "
                f"set {key} to what it has"
            )


def _linear(model: torch.nn.Module) -> list[str]:
    """The last part of the name of every linear layer but the head."""
    import torch

    names = {name.rpartition(".")[2] for name, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    return sorted(names - set(_HEADS))


def _is_head(name: str) -> bool:
    return ".modules_to_save." in name or name.startswith(("classifier.", "score."))


def _has_adapters(model: torch.nn.Module) -> bool:
    return hasattr(model, "peft_config")


def _with_liger(model: Any) -> None:
    try:
        from liger_kernel.transformers import _apply_liger_kernel_to_instance  # pyright: ignore
    except ImportError as error:
        raise GuardError(
            "use_liger_kernel = true needs the package liger-kernel; run: pip install liger-kernel"
        ) from error
    _apply_liger_kernel_to_instance(model=model)


@contextmanager
def as_it_was() -> Iterator[None]:
    """The thread count and the random state of this process, which training sets for itself."""
    import torch

    threads = torch.get_num_threads()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(threads)
