"""Sound rows to plant damage in: a help desk's, made here, so that an audit needs no lake.

    toy("examples") -> Sample(table, batch, admitted)       made
    from_lake(settings, "examples")                         of the newest admitted batch

What is made is the same on each machine and in each year: part of what the frozen list of corruptions means.
No entity occurs twice, no pattern rules its label, sources stand on one split, labels and verdicts are mixed.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from expectations.suites import SUITES, Admitted
from infra.settings import Settings
from lineage import tables, verdicts
from lineage.curricula import curriculum_root
from lineage.schemas import (
    CURRICULUM,
    DOCUMENT,
    EXAMPLE,
    NOT_APPLICABLE,
    PREDICTION,
    TABLES,
    TRACE,
    TableSpec,
)

START = dt.datetime(2026, 1, 5, 8, tzinfo=dt.UTC)
_PER_SOURCE = 20  # rows
_SPAN = 400  # bytes of a record
_SAMPLED = 240
_BESIDE = 2_000


@dataclass(frozen=True)
class Sample:
    """Rows of one batch that a suite should admit, and what else is admitted beside them."""

    table: str
    batch: pa.Table
    admitted: Mapping[str, pa.Table]
    """Table -> the admitted rows of other batches."""

    origin: str = "made"
    """Where the rows come from: `made`, or a table version."""

    read: Admitted | None = None
    """Where `admitted` is but a part of the lake: what reads all of it."""

    @property
    def lake(self) -> Admitted:
        """What set rules ask for the rows of other batches."""
        if self.read is not None:
            return self.read

        def read(spec: TableSpec, columns: Sequence[str], where: pads.Expression, /) -> pa.Table:
            stored = self.admitted.get(spec.name, spec.schema.empty_table())
            return pads.dataset(stored).to_table(columns=list(columns), filter=where)

        return read


@cache
def toy(table: str) -> Sample:
    """A made batch of a table: 240 traces, 240 examples, 60 documents, 120 members or 60 predictions."""
    traces, examples, documents = _traces(), _examples(), _documents()
    made: dict[str, tuple[list[dict[str, Any]], dict[str, list[dict[str, Any]]]]] = {
        "traces": (traces[:240], {"traces": traces[240:], "examples": examples[240:]}),
        "documents": (documents[:60], {"documents": documents[60:]}),
        "examples": (
            examples[:240],
            {"traces": traces, "documents": documents, "examples": examples[240:]},
        ),
        "curricula": (_members(examples[:240]), {"examples": examples}),
        "predictions": (_predictions(examples), {"examples": examples}),
    }
    batch, beside = made[table]
    admitted = {name: pa.Table.from_pylist(rows, schema=_SPECS[name].schema) for name, rows in beside.items()}
    return Sample(table, pa.Table.from_pylist(batch, schema=_SPECS[table].schema), admitted)


def from_lake(settings: Settings, table: str) -> Sample:
    """Rows of a table's newest admitted batch (240, or all members of a curriculum), else made ones.

    Beside them stand up to 2,000 rows of other admitted batches, newest first; set rules ask the whole lake.
    """
    spec = TABLES.get(table)
    batches = verdicts.admitted(settings, spec) if spec is not None and table in SUITES else {}
    if spec is None or not batches:
        return toy(table)
    run_id, version = max(batches.items(), key=lambda item: item[1].version)
    rows = tables.read_batch(settings, version)
    if table == CURRICULUM.name:
        rows = rows.filter(pc.equal(rows["curriculum"], rows["curriculum"][0]))
    elif rows.num_rows > _SAMPLED:
        places = random.Random(str(version)).sample(range(rows.num_rows), _SAMPLED)
        rows = rows.take(sorted(places))
    beside = {
        each.name: _beside(settings, each, but=run_id if each.name == table else "")
        for each in (TRACE, DOCUMENT, EXAMPLE)
    }

    def read(asked: TableSpec, columns: Sequence[str], where: pads.Expression, /) -> pa.Table:
        others = where & (pads.field("run_id") != run_id) if asked.name == table else where
        return verdicts.read_admitted(settings, asked, columns=columns, where=others)

    return Sample(table, rows, beside, str(version), read)


def _beside(settings: Settings, spec: TableSpec, *, but: str) -> pa.Table:
    found = spec.schema.empty_table()
    batches = verdicts.admitted(settings, spec)
    for run_id, version in sorted(batches.items(), key=lambda item: -item[1].version):
        if run_id != but and found.num_rows < _BESIDE:
            found = pa.concat_tables([found, tables.read_batch(settings, version)])
    return found.slice(0, _BESIDE)


_SPECS = {spec.name: spec for spec in (TRACE, EXAMPLE, DOCUMENT, CURRICULUM, PREDICTION)}


@cache
def _traces() -> list[dict[str, Any]]:
    rng = random.Random("traces")
    exchanges = _exchanges(rng, 360)
    return [_trace(index, said, rng) for index, said in enumerate(exchanges)]


@dataclass(frozen=True)
class _Exchange:
    label: str
    question: str
    answer: str
    """The label where it is to be classified, else sentences."""

    generates: bool


def _exchanges(rng: random.Random, count: int) -> list[_Exchange]:
    things = [f"{one} {other}" for one in _KINDS for other in _DEVICES]
    rng.shuffle(things)
    labels = list(_PATTERNS)
    found = []
    for index in range(count):
        # Sources of 20 rows: the third, sixth, ... are of a task in which sentences are the answer.
        generates = index // _PER_SOURCE % 3 == 2
        label = labels[index % len(labels)]
        pattern = _PATTERNS[label][index // len(labels) % len(_PATTERNS[label])]
        question = " ".join(
            (
                pattern.format(thing=things[index]),
                _SINCE[rng.randrange(len(_SINCE))],
                _WHERE[rng.randrange(len(_WHERE))],
                _WISH[rng.randrange(len(_WISH))],
            )
        )
        chosen = rng.sample(_SENTENCES, 3)
        answer = " ".join(sentence.format(thing=things[index]) for sentence in chosen)
        found.append(_Exchange(label, question, answer if generates else label, generates))
    return found


def _trace(index: int, said: _Exchange, rng: random.Random) -> dict[str, Any]:
    failed = index % 10 in (3, 6, 9)
    at = START + dt.timedelta(minutes=7 * index)
    wrong = rng.choice([label for label in _PATTERNS if label != said.label])
    response = f"I do not know. Ask {wrong} instead, they are open until noon." if said.generates else wrong
    source = f"log-{index // _PER_SOURCE:02}"
    return {
        "trace_key": f"t-{index:05}",
        "happened_at": at,
        "model_requested": "desk-router",
        "model_answered": "desk-router@4",
        "messages": _messages(said),
        "response": response if failed else said.answer,
        "finish_reason": "stop",
        "verdict": "fail" if failed else "pass",
        "correction": said.answer if failed else None,
        "input_tokens": len(said.question.split()) + 9,
        "output_tokens": len(said.answer.split()) + 2,
        **_provenance("traces", index, source, extension="jsonl"),
        **_judged(rng, passed=not failed),
        "generator": ("desk-router", "desk-router", "human")[index % 3],
        "generator_revision": ("4", "3", "1")[index % 3],
        "prompt_name": "answer" if said.generates else "route",
        "prompt_version": "v7" if index % 2 else "v8",
    }


def _messages(said: _Exchange) -> list[dict[str, Any]]:
    asked = "Help the person." if said.generates else "Name the team that this is for."
    return [{"role": "system", "content": asked}, {"role": "user", "content": said.question}]


@cache
def _examples() -> list[dict[str, Any]]:
    rng = random.Random("examples")
    said = _exchanges(random.Random("traces"), 360)
    found = []
    for index, (trace, exchange) in enumerate(zip(_traces(), said, strict=True)):
        # 6 of 12 sources of the batch train, of what was admitted before 2 of 6; the others score.
        split = ("train", "train", "train", "train", "gate", "report")[index // _PER_SOURCE % 6]
        found.append(
            {
                "task": "generation" if exchange.generates else "classification",
                "split": split,
                "kind": "passed" if trace["verdict"] == "pass" else "corrected",
                "messages": _messages(exchange),
                "text": exchange.question,
                "answer": exchange.answer,
                "condition": NOT_APPLICABLE if split == "train" else "clean",
                **{name: trace[name] for name in ("prompt_name", "prompt_version")},
                **_provenance("examples", index, trace["source_uri"][6:-6], extension="jsonl"),
                **_judged(rng, passed=True),
                "generator": trace["generator"] if trace["verdict"] == "pass" else "human",
                "generator_revision": trace["generator_revision"] if trace["verdict"] == "pass" else "1",
                "parents": [trace["row_id"]],
                "parent_nos": [trace["row_no"]],
                "derivation": "joint",
                "step": "ExampleFromTrace",
            }
        )
    return found


@cache
def _documents() -> list[dict[str, Any]]:
    rng = random.Random("documents")
    things = [f"{one} {other}" for one in _KINDS for other in _DEVICES]
    rng.shuffle(things)
    found = []
    for index in range(80):
        sentences = [s.format(thing=things[index]) for s in rng.sample(_SENTENCES, 6)]
        found.append(
            {
                "kind": "markdown",
                "title": f"Manual {index // 10}",
                "section": f"Manual {index // 10} > {things[index].capitalize()}",
                "text": f"## {things[index].capitalize()}\n\n{' '.join(sentences)}",
                "language": "en",
                "metadata": f'{{"owner": "desk", "page": {index}}}',
                **_provenance("documents", index, f"manual-{index // 10:02}", extension="md"),
                **_judged(rng, passed=True),
                **dict.fromkeys(("prompt_name", "prompt_version"), NOT_APPLICABLE),
                **dict.fromkeys(("scorer", "scorer_revision"), NOT_APPLICABLE),
                "score": None,
                "threshold": None,
                "generator": "human",
                "generator_revision": "1",
                "step": "markdown",
            }
        )
    return found


def _members(examples: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """120 training rows, each label as often as another; gold, hard and replay as 5 to 3 to 2."""
    rows = [row for row in examples if row["split"] == "train" and row["task"] == "classification"][:120]
    slices = ("gold", "hard", "gold", "replay", "gold", "hard", "gold", "hard", "gold", "replay")
    chosen = [(row["row_id"], slices[index // 8 % 10], 1.0) for index, row in enumerate(rows)]
    root = curriculum_root(chosen)
    return [
        {
            "curriculum": root,
            "row_id": row["row_id"],
            "row_no": row["row_no"],
            "slice": name,
            "weight": weight,
            "answer": row["answer"],
            "text": row["text"],
            "run_id": "curate-curricula-1",
        }
        for row, (_, name, weight) in zip(rows, chosen, strict=True)
    ]


def _predictions(examples: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    rng = random.Random("predictions")
    scored = [row for row in examples if row["split"] != "train" and row["task"] == "classification"][:80]
    return [
        {
            "run_id": "evaluate-1",
            "model_run": "finetune-1",
            "row_no": row["row_no"],
            "row_id": row["row_id"],
            "split": row["split"],
            "condition": row["condition"],
            "answer": row["answer"],
            "prediction": row["answer"] if index % 8 else rng.choice(list(_PATTERNS)),
            "confidence": round(rng.uniform(0.5, 1.0), 3),
        }
        for index, row in enumerate(scored)
    ]


def _provenance(table: str, index: int, source: str, *, extension: str) -> dict[str, Any]:
    place = index % _PER_SOURCE * _SPAN
    return {
        "row_id": hashlib.sha256(f"{table}-{index}".encode()).digest()[:16],
        "row_no": list(_SPECS).index(table) * 1_000_000 + index,
        "parents": [],
        "parent_nos": [],
        "derivation": "source",
        "source_uri": f"/logs/{source}.{extension}",
        "source_revision": f"sha256:{hashlib.sha256(source.encode()).hexdigest()}",
        "source_span": f"bytes:{place}-{place + _SPAN}",
        "step": "chat_completions",
        "step_revision": "1",
        "code_revision": f"sha256:{'c0de' * 8}",
        "run_id": f"{table}-{1 if index < 240 else 0}",
        "extracted_at": START + dt.timedelta(days=2),
        "review": "none",
        "reviewer": NOT_APPLICABLE,
    }


def _judged(rng: random.Random, *, passed: bool) -> dict[str, Any]:
    low, high = (0.6, 1.0) if passed else (0.0, 0.4)
    return {
        "scorer": "judge",
        "scorer_revision": "2",
        "score": round(rng.uniform(low, high), 3),
        "threshold": 0.5,
    }


_PATTERNS: Mapping[str, tuple[str, ...]] = {
    "accounts": (
        "Nobody can sign in to the {thing}",
        "My password for the {thing} is no longer accepted",
        "Please unlock my user on the {thing}",
        "How do I get a second factor for the {thing}?",
        "The {thing} says that I do not exist",
    ),
    "network": (
        "The {thing} drops its connection every few minutes",
        "I cannot reach the {thing} over the tunnel",
        "Pages from the {thing} load at a crawl",
        "Which address does the {thing} have now?",
        "There is no signal near the {thing}",
    ),
    "printing": (
        "The {thing} swallows paper and prints nothing",
        "Only half of each sheet leaves the {thing}",
        "Toner for the {thing} has run out",
        "My jobs vanish before the {thing} starts",
        "Can the {thing} staple booklets?",
    ),
    "mail": (
        "Messages to the {thing} come back unread",
        "My calendar shows the {thing} twice",
        "Who may write in the name of the {thing}?",
        "Attachments from the {thing} arrive empty",
        "I want the {thing} off the distribution list",
    ),
    "hardware": (
        "The {thing} hums loudly and gets hot",
        "A key of the {thing} is stuck",
        "My {thing} no longer charges",
        "The screen of the {thing} flickers",
        "Could somebody swap the {thing} for a newer one?",
    ),
    "finance": (
        "The invoice for the {thing} has the wrong amount",
        "Who signs the order of a {thing}?",
        "I paid for the {thing} myself and want it back",
        "Which cost centre does the {thing} belong to?",
        "The budget line of the {thing} is locked",
    ),
    "leave": (
        "My days off are booked on the {thing} by mistake",
        "May I take leave while the {thing} is serviced?",
        "The {thing} counts a holiday as work",
        "How many days does the {thing} still owe me?",
        "I fell ill and the {thing} wants a note",
    ),
    "access": (
        "My badge does not open the room with the {thing}",
        "A visitor needs to see the {thing}",
        "The door beside the {thing} stays shut",
        "I lost the key to the {thing}",
        "Who may enter the cage of the {thing} at night?",
    ),
}

_KINDS = (
    "grey", "northern", "portable", "refurbished", "spare", "shared", "upstairs", "archived", "leased",
    "wireless", "compact", "regional", "external", "borrowed", "temporary", "modular", "silent", "public",
    "older", "heavy",
)  # fmt: skip

_DEVICES = (
    "terminal", "scanner", "projector", "gateway", "workstation", "tablet", "ledger", "kiosk", "recorder",
    "plotter", "handset", "archive", "locker", "turnstile", "beamer", "console", "register", "dashboard",
    "camera", "microscope",
)  # fmt: skip

_SINCE = (
    "since the update on Tuesday,", "after the move last month,", "for two days now,", "again this morning,",
    "as of yesterday evening,", "whenever it rains,", "after lunch,", "since the fire drill,",
    "from one minute to the next,", "ever since the holidays,", "in the middle of a call,", "on odd days,",
    "right after the restart,", "during the audit,", "while colleagues watched,", "at the worst moment,",
)  # fmt: skip

_WHERE = (
    "on the second floor,", "in the warehouse,", "at our branch in Graz,", "at home,",
    "in meeting room four,",
    "beside the canteen,", "on the train,", "in the lab,", "at the front desk,", "in the basement,",
    "at the customer's,", "in building C,", "under the stairs,", "at gate nine,", "in the old wing,",
    "next to payroll,",
)  # fmt: skip

_WISH = (
    "what should I try?", "can you look into it today.", "it is not urgent.", "three people wait for this.",
    "a link to the guide would do.", "thanks in advance.", "I already turned it off and on.",
    "my manager knows about it.", "please call before noon.", "a short answer is fine.",
    "who else could I ask?", "I can send a photo.", "the contract ends on Friday.", "nothing else changed.",
)  # fmt: skip

_SENTENCES = (
    "Switch the {thing} off at the wall and wait half a minute before you start it again.",
    "Open the settings, choose your profile and confirm the change with the code that we sent by post.",
    "A colleague of the evening shift replaces worn parts free of charge within three working days.",
    "Your request needs the signature of a team lead, which the portal asks for automatically.",
    "If the light stays red, write down the number under the barcode and answer to this message.",
    "Old entries are kept for ninety days and vanish afterwards without further notice.",
    "The guide on the intranet shows every step with pictures, also in French.",
    "Most people solve this by removing dust from the vents with dry air.",
    "Somebody reserved the {thing} until Thursday, so another device has been put aside for you.",
    "We raised the limit to forty euros; larger sums go through purchasing.",
    "Unplug everything except power, then add one cable after the other until the fault returns.",
    "Visitors register at reception, get a sticker and are accompanied at all times.",
    "This happens when two calendars are merged, and it ends once you delete the copy.",
    "Please bring an identity card, because the cage is inspected twice a year.",
    "Both floors share one antenna, which will be doubled over the weekend.",
    "Nothing was lost: last night's backup holds each file in the version of ten o'clock.",
    "Choose duplex under layout, otherwise the {thing} falls back to single pages.",
    "The supplier credits wrong amounts with the next invoice, usually by mid month.",
    "For holidays that fall on a Sunday no extra day is granted in this country.",
    "Type the address without blanks, as browsers turn them into strange signs.",
)
