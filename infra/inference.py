"""Answers with a base model and an adapter: labels with confidences, and embeddings of the frozen base.

    adapter folder = adapter_model.safetensors + adapter_config.json (peft's) + stemma.json (AdapterRecord)

Errors: ModelError, when an adapter is incomplete, was changed, or belongs to another base.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import numpy as np

from infra.models import (
    BaseModel,
    ModelError,
    Quantization,
    adapter_digest,
    encode,
    load_classifier,
    load_encoder,
    load_tokenizer,
    mean_over_tokens,
    pad,
    sentence_logits,
    without_rename_warning,
)

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

RECORD_FILE = "stemma.json"


@dataclass(frozen=True)
class AdapterRecord:
    """What must be known beside the tensors to answer with an adapter; written last into its folder."""

    labels: tuple[str, ...]
    """In the order of the head's outputs."""
    max_length: int
    base_model: str
    base_digest: str
    method: Literal["qlora", "lora"]
    quantization: Quantization | None
    """The precision that the adapter was trained against; None is float32."""
    adapter_digest: str

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


@dataclass(frozen=True)
class Prediction:
    """The likeliest label of one text, and its softmax probability."""

    label: str
    confidence: float


class Predictor:
    """A base model with one adapter, in eval mode."""

    def __init__(
        self,
        model: torch.nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        record: AdapterRecord,
        *,
        batch_size: int = 64,
    ) -> None:
        """Answer with `model`, whose head gives `record.labels` in order."""
        self.record = record
        self._model = model
        self._tokenizer = tokenizer
        self._batch_size = batch_size

    @classmethod
    def load(
        cls,
        base: BaseModel,
        adapter: str | Path,
        *,
        batch_size: int = 64,
        device: str = "cpu",
    ) -> Predictor:
        """Load an adapter folder onto its base, as quantised as it was trained.

        Raises ModelError when the base or the adapter's tensors are not the ones that the record names.
        """
        record = AdapterRecord.read(adapter)
        if record.base_digest != base.digest:
            raise ModelError(
                f"adapter '{adapter}' was trained on {record.base_model} ({record.base_digest}), "
                f"but the base given is {base.name} ({base.digest}); resolve '{record.base_model}' instead"
            )
        found = adapter_digest(adapter)
        if found != record.adapter_digest:
            raise ModelError(
                f"the tensors of adapter '{adapter}' have digest {found}, its record says "
                f"{record.adapter_digest}; the files were changed after training: fetch or train them again"
            )
        from peft import PeftModel

        # the seed only draws the head that the adapter's own replaces
        model, _ = load_classifier(
            base, record.labels, quantization=record.quantization, seed=0, device=device
        )
        try:
            with without_rename_warning():
                tuned = PeftModel.from_pretrained(model, str(adapter)).eval()
        except (ValueError, TypeError, KeyError, OSError, RuntimeError) as error:
            raise ModelError(
                f"adapter '{adapter}' does not load ({str(error).strip().splitlines()[0][:200]}); "
                "restore the folder from a copy, or train again"
            ) from error
        return cls(tuned, load_tokenizer(base), record, batch_size=batch_size)

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """One prediction per text, in the order given; no texts give an empty list."""
        rows = self.probabilities(texts)
        best = rows.argmax(axis=1) if len(rows) else []
        return [
            Prediction(self.record.labels[index], float(row[index]))
            for index, row in zip(best, rows, strict=True)
        ]

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """Softmax probabilities, float32 (texts, labels), in the order given."""
        rows, _ = encode(self._tokenizer, texts, max_length=self.record.max_length)
        out = np.zeros((len(rows), len(self.record.labels)), dtype=np.float32)

        def answer(indices: list[int], ids: torch.Tensor, mask: torch.Tensor) -> None:
            out[indices] = sentence_logits(self._model, ids, mask).softmax(-1).cpu().numpy()

        _each(_batches(self._model, self._tokenizer, rows, self._batch_size), answer)
        return out


def embed(
    base: BaseModel, texts: Sequence[str], *, batch_size: int = 64, max_length: int = 256
) -> np.ndarray:
    """Embeddings of the frozen, unquantised base: float32 (texts, width), mean pooled, L2-normalised."""
    from torch.nn.functional import normalize

    model, tokenizer = load_encoder(base), load_tokenizer(base)
    rows, _ = encode(tokenizer, texts, max_length=max_length)
    out = np.zeros((len(rows), model.config.hidden_size), dtype=np.float32)

    def place(indices: list[int], ids: torch.Tensor, mask: torch.Tensor) -> None:
        hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
        out[indices] = normalize(mean_over_tokens(hidden, mask)).cpu().numpy()

    _each(_batches(model, tokenizer, rows, batch_size), place)
    return out


def _each(
    batches: Iterable[tuple[list[int], torch.Tensor, torch.Tensor]],
    work: Callable[[list[int], torch.Tensor, torch.Tensor], None],
) -> None:
    """Work on every minibatch: on a CPU as many at a time as torch has threads, each of them on one.

    So what comes out is the same, bit for bit, with any number of threads; and threads that work apart do not
    wait for each other, which beside another busy process costs tenfold.
    """
    import torch

    def alone(batch: tuple[list[int], torch.Tensor, torch.Tensor]) -> None:
        with torch.inference_mode():
            work(*batch)

    waiting = list(batches)
    threads = torch.get_num_threads()
    at_a_time = threads if waiting and waiting[0][1].device.type == "cpu" else 1
    try:
        with ThreadPoolExecutor(at_a_time, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for done in [pool.submit(alone, batch) for batch in reversed(waiting)]:  # longest texts first
                done.result()
    finally:
        torch.set_num_threads(threads)


def _batches(
    model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Sequence[int]], batch_size: int
) -> Iterator[tuple[list[int], torch.Tensor, torch.Tensor]]:
    """Yields positions, ids and mask of rows that pad to the same multiple of 4 tokens.

    So the padding of a row depends on the row alone, and its answer comes out the same, bit for bit, in any
    company. Padding to the longest of a length-sorted batch moved probabilities by up to 0.002.
    """
    by_length: dict[int, list[int]] = {}
    for index, row in enumerate(rows):
        by_length.setdefault(-(-len(row) // 4) * 4, []).append(index)
    device = next(model.parameters()).device
    for length, members in sorted(by_length.items()):
        for start in range(0, len(members), batch_size):
            indices = members[start : start + batch_size]
            ids, mask = pad(
                [rows[i] for i in indices],
                pad_token_id=cast(int, tokenizer.pad_token_id),
                length=length,
                device=str(device),
            )
            yield indices, ids, mask
