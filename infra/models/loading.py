"""Loads a base model as it is asked for, quantised or not, and reads back what is in force.

    BaseModel -> load_classifier()    a head on every token: labels of sentences, or of words
                 load_causal()        a decoder that writes
                 load_encoder()       the frozen base alone, for embeddings
                 load_tokenizer()

Errors: ModelError.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

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


Dtype = Literal["float32", "bfloat16"]
"""Of every weight that is not stored in 4 bits."""


def load_classifier(
    base: BaseModel,
    labels: Sequence[str],
    *,
    quantization: Quantization | None,
    seed: int,
    device: str = "cpu",
    dtype: Dtype = "float32",
    complete: bool = False,
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """The base with a freshly initialised head over `labels` (in this order), and the values in force.

    The head stands on every token: averaged, it labels a sentence (`sentence_logits`); as it is, words, and
    `labels` are BIO tags then (`bio_labels`). `quantization=None` loads `dtype` throughout. The seed is set
    before the head is drawn. Dropout in the base is switched off: the base is frozen, and without it a row's
    gradient does not depend on its minibatch. The model comes in eval mode. The dict is read back from the
    loaded modules, not from the request. `complete` refuses files without the head, which were to bring one.
    """
    if len(labels) < 2 or len(set(labels)) != len(labels):
        raise ModelError(f"a classifier needs two or more distinct labels, got {list(labels)[:5]}")
    from transformers import AutoModelForTokenClassification

    model, in_force = _load(
        base,
        AutoModelForTokenClassification,
        quantization=quantization,
        # the head is trained, so it stays unquantised
        unquantised=["classifier", "score"],
        seed=seed,
        device=device,
        dtype=dtype,
        attn_implementation="sdpa",
        complete=complete,
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
    )
    return model, in_force | {"pooling": "mean"}


def load_causal(
    base: BaseModel,
    *,
    quantization: Quantization | None,
    seed: int,
    device: str = "cpu",
    dtype: Dtype = "float32",
    attn_implementation: str = "sdpa",
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """The base as a decoder with its own output layer, and the values in force.

    As load_classifier: without dropout, in eval mode. The output layer and embeddings tied to it stay
    unquantised. A forward pass makes no key-value cache unless it is asked to (`use_cache=True`): training
    never reads one. Every weight must be in the base's files; ModelError names those that are not.
    """
    from transformers import AutoModelForCausalLM

    model, in_force = _load(
        base,
        AutoModelForCausalLM,
        quantization=quantization,
        unquantised=None,  # transformers finds the output layer and what is tied to it
        seed=seed,
        device=device,
        dtype=dtype,
        attn_implementation=attn_implementation,
        complete=True,
    )
    model.config.use_cache = False
    output = cast("torch.nn.Linear", model.get_output_embeddings())
    tied = model.get_input_embeddings().weight is output.weight
    return model, in_force | {"use_cache": False, "tied_embeddings": tied}


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


def _load(
    base: BaseModel,
    kind: Any,
    *,
    quantization: Quantization | None,
    unquantised: list[str] | None,
    seed: int,
    device: str,
    dtype: Dtype,
    attn_implementation: str,
    complete: bool,
    **settings: Any,
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """A model of a transformers' Auto class without dropout in eval mode, and what is in force."""
    import torch
    from transformers import AutoConfig

    with _loading(base):
        config = AutoConfig.from_pretrained(base.path)
        dropouts = {k: 0.0 for k, v in config.to_dict().items() if "drop" in k and isinstance(v, float)}
        torch.manual_seed(seed)
        model, found = kind.from_pretrained(
            base.path,
            attn_implementation=attn_implementation,
            dtype=getattr(torch, dtype),
            quantization_config=_bits_and_bytes(quantization, unquantised) if quantization else None,
            device_map={"": device},
            output_loading_info=True,
            **settings,
            **dropouts,
        )
    if complete and found["missing_keys"]:
        missing = sorted(found["missing_keys"])
        raise ModelError(
            f"'{base.path}' lacks {len(missing)} weights of a {type(model).__name__}, first {missing[0]}; "
            "they would be random: restore the files, or name another base"
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
        "device": str(model.device),
    }
    return model.eval(), in_force


def _bits_and_bytes(quantization: Quantization, unquantised: list[str] | None) -> Any:
    import torch
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantization.bnb_4bit_quant_type,
        bnb_4bit_compute_dtype=getattr(torch, quantization.bnb_4bit_compute_dtype),
        bnb_4bit_use_double_quant=quantization.bnb_4bit_use_double_quant,
        bnb_4bit_quant_storage=torch.uint8,
        llm_int8_skip_modules=unquantised,
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
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ModelError(f"base model '{base.name}' at {base.path} cannot be loaded: {reason}") from error
    finally:
        transformers.logging.set_verbosity(verbosity)
        if bars:
            transformers.logging.enable_progress_bar()
