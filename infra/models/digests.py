"""What a saved adapter is, as digests: of its tensors, and of what says how they are used.

Errors: ModelError, where a file is missing or broken.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from infra.models.resolving import ModelError

_SAYS_NOTHING = (
    "peft_version",
    "transformers_version",
    # Where the base lies differs from machine to machine; its weights have a digest of their own.
    "base_model",
    "base_model_name_or_path",
    "_name_or_path",
)
_SETS = ("target_modules", "modules_to_save", "exclude_modules")  # peft writes them in any order


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
