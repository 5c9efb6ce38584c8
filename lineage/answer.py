"""Which of the rows that a model ate are nearest to one of its answers: similarity, not cause.

    a stored trace, a file, a text ──▶ the model that answered ──▶ the rows that it ate ──▶ the nearest

What was asked and answered is found by lineage.exchanges. Errors: AnswerError.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from infra.screen import plain
from infra.settings import Settings
from lineage import ancestry, models, queries, tables
from lineage.consumption import Checkpoint, bitmaps
from lineage.exchanges import INSTRUCTING, AnswerError, Asked
from lineage.models import ModelVersion
from lineage.nearest import EMBEDDED, Near, nearest
from lineage.schemas import EXAMPLE
from lineage.tasks import TALKS

SIMILARITY = "similarity, not cause: nearness to an answer does not show that a row made the model give it"


@dataclass(frozen=True)
class Behind:
    """The rows nearest to an answer, nearest first."""

    asked: Asked
    checkpoint: Checkpoint
    version: ModelVersion | None
    candidates: int
    """Rows that the checkpoint ate: all of them were compared, and nothing else was."""

    embedded: int
    """Of how many the meaning was compared."""

    notes: tuple[str, ...]
    same_label: int | None
    """How many of the rows carry the answer as their label; None where labels say nothing."""

    rows: tuple[dict[str, Any], ...]
    """rank, how, shared, overlap, answered, similarity, own, row_id, text, answer, slice, first_step, prompt,
    scorer, recalled, sources; `own` tells how the trace itself was eaten, or is empty."""

    def as_json(self) -> dict[str, Any]:
        """Stable keys; ids in hex."""
        return {
            "model": str(self.version) if self.version else None,
            "checkpoint": self.checkpoint.name,
            "trace": self.asked.row_id.hex() if self.asked.row_id else None,
            "answer": self.asked.exchange.answer,
            "ranking": SIMILARITY,
            "candidates": self.candidates,
            "embedded": self.embedded,
            "same_label": self.same_label,
            "notes": list(self.notes),
            "rows": [plain(row) for row in self.rows],
        }


def behind_answer(settings: Settings, asked: Asked, *, model: str | None = None, top: int = 20) -> Behind:
    """Rank what the model ate by nearness to the exchange.

    The model is the one that answered, where that is a version of ours; else `model`, else the champion.
    Raises AnswerError, and ModelError or CheckpointError where the model cannot be found.
    """
    if top < 1:
        raise AnswerError(f"--top is {top}; expected 1 or more")
    if not (asked.exchange.request.strip() or asked.exchange.answer.strip()):
        raise AnswerError("the exchange has neither request nor answer: there is nothing to compare")
    checkpoint, version = _answerer(settings, asked, model)
    eaten = bitmaps(settings)[checkpoint.run_id, checkpoint.step]
    columns = ["row_no", "row_id", "task", "messages", "text", "answer"]
    where = pads.field("row_no").isin(pa.array(list(eaten), pa.int64()))
    rows = tables.read_ever(settings, EXAMPLE, columns=columns, where=where).sort_by("row_no")
    if rows.num_rows != len(eaten):
        raise AnswerError(
            f"checkpoint {checkpoint.name} ate {len(eaten)} rows, of which {rows.num_rows} are stored; "
            "run: stemma fsck"
        )
    tasks = set(pc.unique(rows["task"]).to_pylist())
    classifies = tasks == {"classification"}
    notes: list[str] = []
    if not asked.exchange.answer.strip():
        notes.append("no answer is given: ranked by the request alone")
    meaning = _Meaning(checkpoint, asked, rows, with_answers=not tasks.isdisjoint(TALKS))
    found = nearest(asked.exchange, _texts(rows), top=top, similarity=meaning.open(notes))
    if meaning.compared and meaning.compared == EMBEDDED < rows.num_rows:
        notes.append(f"meaning was compared for the {EMBEDDED:,} rows with the weightiest words in common")
    own = _own(settings, asked, eaten)
    numbers = rows["row_no"].to_pylist()
    found = _with_own(found, [position for position, number in enumerate(numbers) if number in own], top)
    told = _told(
        settings, checkpoint, rows.take(pa.array([near.position for near in found], pa.int64())), found, own
    )
    label = asked.exchange.answer.strip()
    same = sum(row["answer"] == label for row in told) if classifies and label else None
    return Behind(
        asked, checkpoint, version, rows.num_rows, meaning.compared, tuple(notes), same, tuple(told)
    )


def _answerer(settings: Settings, asked: Asked, model: str | None) -> tuple[Checkpoint, ModelVersion | None]:
    stated = next((each for each in models.versions(settings) if str(each) == asked.generator), None)
    if stated is None:
        return models.resolve(settings, model or "champion")
    found = models.resolve(settings, str(stated))
    if model is not None and models.resolve(settings, model)[0] != found[0]:
        raise AnswerError(
            f"the exchange says that {stated} answered, not '{model}'; leave --model out, "
            "or ask about the text alone: --answer -"
        )
    return found


def _texts(rows: pa.Table) -> list[str]:
    """What each row says, without instructions, and its answer."""
    messages = pa.chunked_array(rows["messages"]).combine_chunks()
    turns = messages.flatten()
    ours = pc.is_in(turns.field("role"), pa.array(INSTRUCTING))
    said = pc.if_else(ours, "", pc.fill_null(turns.field("content"), ""))
    offsets = pc.cumulative_sum(pc.list_value_length(messages))
    offsets = pa.concat_arrays([pa.array([0], pa.int32()), offsets.cast(pa.int32())])
    requests = pc.binary_join(pa.ListArray.from_arrays(offsets, said), "\n")
    requests = pc.if_else(pc.equal(requests, ""), rows["text"].combine_chunks(), requests)
    return pc.binary_join_element_wise(requests, rows["answer"].combine_chunks(), "\n").to_pylist()


class _Meaning:
    """Compares embeddings by the model's own frozen base, on demand."""

    def __init__(self, checkpoint: Checkpoint, asked: Asked, rows: pa.Table, *, with_answers: bool) -> None:
        self.compared = 0
        self._checkpoint = checkpoint
        self._rows = rows
        self._with_answers = with_answers
        self._query = asked.last_message or asked.exchange.answer
        if with_answers:
            self._query = f"{asked.last_message}\n{asked.exchange.answer}"

    def open(self, notes: list[str]) -> Callable[[Sequence[int]], np.ndarray] | None:
        """The comparison; or None and a note, where the base is not to be had or is another by now."""
        from infra.models import ModelError, resolve

        wanted = self._checkpoint
        try:
            base = resolve(wanted.base_model)
            if base.digest != wanted.base_digest:
                raise ModelError(
                    f"its weights are {base.digest[:23]}, trained on were {wanted.base_digest[:23]}"
                )
        except ModelError as error:
            notes.append(
                f"ranked by words alone, for base model '{wanted.base_model}' is not to be had: {error}"
            )
            return None

        def similarity(positions: Sequence[int]) -> np.ndarray:
            from infra.inference import embed

            some = self._rows.take(positions)
            texts = some["text"].to_pylist()
            if self._with_answers:
                pairs = zip(texts, some["answer"].to_pylist(), strict=True)
                texts = [f"{text}\n{answer}" for text, answer in pairs]
            vectors = embed(base, [self._query, *texts])
            self.compared = len(positions)
            return vectors[1:] @ vectors[0]

        return similarity


def _own(settings: Settings, asked: Asked, eaten: Any) -> dict[int, str]:
    """Row number -> how the trace itself was eaten: as this row, or as what was derived from it."""
    if asked.row_id is None:
        return {}
    _, row = ancestry.find_row(settings, asked.row_id.hex())
    made = {each["row_no"]: each["step"] for each in ancestry.descendants(settings, asked.row_id)}
    own = {number: f"the trace itself was eaten (through {step})" for number, step in made.items()}
    own[row["row_no"]] = "the row itself was eaten"
    return {number: how for number, how in own.items() if number in eaten}


def _with_own(found: list[Near], own: Sequence[int], top: int) -> list[Near]:
    """The trace's own rows ahead, whatever else is near."""
    known = {near.position: near for near in found}
    ahead = [known.get(at) or Near(at, "words", 0, "", 0.0, 0.0, None) for at in own]
    return [*ahead, *(near for near in found if near.position not in set(own))][:top]


def _told(
    settings: Settings,
    checkpoint: Checkpoint,
    rows: pa.Table,
    found: Sequence[Near],
    own: Mapping[int, str],
) -> list[dict[str, Any]]:
    """The rows with where they come from; in the order given."""
    numbers = rows["row_no"].to_pylist()
    eaten = queries.lineage(settings, checkpoint).these_rows(numbers).to_pylist()
    graph = ancestry.ancestors_of(settings, numbers)
    told = []
    for rank, (stored, near) in enumerate(zip(eaten, found, strict=True), start=1):
        told.append(
            {
                "rank": rank,
                "how": near.how if near.shared or near.similarity is not None else "nothing in common",
                "shared": near.shared,
                "overlap": round(near.overlap, 4),
                "answered": round(near.answered, 4),
                "similarity": None if near.similarity is None else round(near.similarity, 4),
                "own": own.get(stored["row_no"], ""),
                "row_id": stored["row_id"],
                "text": stored["text"],
                "answer": stored["answer"],
                "slice": stored["slice"],
                "first_step": stored["first_step"],
                "prompt": f"{stored['prompt_name']}@{stored['prompt_version']}",
                "scorer": f"{stored['scorer']}@{stored['scorer_revision']}",
                "recalled": stored["recalled"],
                "sources": [
                    {
                        name: source[name]
                        for name in ("row_id", "source_uri", "source_revision", "source_span")
                    }
                    for source in ancestry.roots(stored["row_id"], graph)
                ],
            }
        )
    return told
