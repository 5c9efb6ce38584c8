"""Loads a base model as it is asked for, quantised or not, and reads back what is in force.

    BaseModel -> load_classifier(), load_encoder(), load_tokenizer()

Errors: ModelError.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from infra.models.resolving import BaseModel, ModelError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# bitsandbytes, imported later, warns that an optional kernel package is missing; its own kernels do the work
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


@dataclass(frozen=True)
class Quantization:
    """How bitsandbytes stores the frozen layers; every value explicit, because its defaults are not NF4."""

    bnb_4bit_quant_type: Literal["nf4", "fp4"] = "nf4"
    bnb_4bit_compute_dtype: Literal["bfloat16", "float32"] = "bfloat16"
    bnb_4bit_use_double_quant: bool = True


def load_classifier(
    base: BaseModel,
    labels: Sequence[str],
    *,
    quantization: Quantization | None,
    seed: int,
    device: str = "cpu",
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """The base with a freshly initialised head over `labels` (in this order), and the values in force.

    `quantization=None` loads float32. The seed is set before the head is drawn. Dropout in the base is
    switched off: the base is frozen, and without it a row's gradient does not depend on its minibatch. The
    model comes in eval mode. The dict is read back from the loaded modules, not from the request.
    """
    if len(labels) < 2 or len(set(labels)) != len(labels):
        raise ModelError(f"a classifier needs two or more distinct labels, got {list(labels)[:5]}")
    import torch
    from transformers import AutoConfig, AutoModelForTokenClassification

    with _loading(base):
        settings = AutoConfig.from_pretrained(base.path)
        dropouts = {k: 0.0 for k, v in settings.to_dict().items() if "drop" in k and isinstance(v, float)}
        torch.manual_seed(seed)
        model = AutoModelForTokenClassification.from_pretrained(
            base.path,
            id2label=dict(enumerate(labels)),
            label2id={label: index for index, label in enumerate(labels)},
            attn_implementation="sdpa",
            dtype=torch.float32,
            quantization_config=_bits_and_bytes(quantization) if quantization else None,
            device_map={"": device},
            **dropouts,
        )
    in_force = _quantization_in_force(model)
    if quantization and not in_force["quantized_modules"]:
        raise ModelError(
            f"4-bit loading of '{base.name}' quantised no layer; use method = \"lora\" for this base"
        )
    in_force |= {
        "attn_implementation": model.config._attn_implementation,
        "dtype": str(model.dtype).removeprefix("torch."),
        "dropout": max((m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)), default=0.0),
        "pooling": "mean",
        "device": str(model.device),
    }
    return model.eval(), in_force


def load_encoder(base: BaseModel, *, device: str = "cpu") -> PreTrainedModel:
    """The frozen base without a head, float32, unquantised, in eval mode.

    On a CPU its linear layers are oneDNN's: torch itself hands float32 to MKL, which takes 2.3 times as long
    on an AMD CPU with AVX512.
    """
    import torch
    from torch.utils.mkldnn import to_mkldnn
    from transformers import AutoModel

    with _loading(base):
        model = AutoModel.from_pretrained(
            base.path, attn_implementation="sdpa", dtype=torch.float32, device_map={"": device}
        )
    model = model.eval().requires_grad_(False)
    if device == "cpu" and torch.backends.mkldnn.is_available():
        to_mkldnn(model)  # in place
    return model


def load_tokenizer(base: BaseModel) -> PreTrainedTokenizerBase:
    """The base's tokenizer; a decoder without a padding token pads with its end token."""
    from transformers import AutoTokenizer

    with _loading(base):
        tokenizer = AutoTokenizer.from_pretrained(base.path)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


@contextmanager
def without_rename_warning() -> Iterator[None]:
    """Mutes one FutureWarning: peft 0.21 reads an attribute that transformers 5.23 has renamed."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        yield


def _bits_and_bytes(quantization: Quantization) -> Any:
    import torch
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantization.bnb_4bit_quant_type,
        bnb_4bit_compute_dtype=getattr(torch, quantization.bnb_4bit_compute_dtype),
        bnb_4bit_use_double_quant=quantization.bnb_4bit_use_double_quant,
        bnb_4bit_quant_storage=torch.uint8,
        llm_int8_skip_modules=["classifier", "score"],  # the head is trained, so it stays unquantised
    )


def _quantization_in_force(model: torch.nn.Module) -> dict[str, Any]:
    """What the 4-bit layers really are; one value where they agree, else the sorted values."""
    from bitsandbytes.nn.modules import Linear4bit

    layers: list[Any] = [m for m in model.modules() if isinstance(m, Linear4bit)]
    for layer in layers:
        # an eval-mode forward would repack the weights in place, and later training steps lose gradient
        layer.support_avx512bf16_for_cpu = False
        if layer.bias is not None:
            # the first forward would do so in place, and the frozen weights would not be what they were
            layer.bias.data = layer.bias.data.to(layer.compute_dtype)
    if not layers:
        return {"quantized_modules": 0}
    states = [layer.weight.quant_state for layer in layers]
    values = {
        "bnb_4bit_quant_type": [state.quant_type for state in states],
        "bnb_4bit_use_double_quant": [state.nested for state in states],
        "bnb_4bit_blocksize": [state.blocksize for state in states],
        "bnb_4bit_compute_dtype": [str(layer.compute_dtype).removeprefix("torch.") for layer in layers],
        "bnb_4bit_quant_storage": [str(layer.weight.dtype).removeprefix("torch.") for layer in layers],
    }
    agreed = {k: v[0] if len(set(v)) == 1 else sorted(set(v), key=str) for k, v in values.items()}
    return {"quantized_modules": len(layers), **agreed}


@contextmanager
def _loading(base: BaseModel) -> Iterator[None]:
    """Quiets transformers' report that the head is new (it is), and turns its failures into one sentence."""
    import transformers

    verbosity, bars = transformers.logging.get_verbosity(), transformers.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        with without_rename_warning():
            yield
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ModelError(f"base model '{base.name}' at {base.path} cannot be loaded: {reason}") from error
    finally:
        transformers.logging.set_verbosity(verbosity)
        if bars:
            transformers.logging.enable_progress_bar()
