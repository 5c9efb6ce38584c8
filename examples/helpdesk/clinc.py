"""The same four pools from CLINC150, so that the demo can also run on utterances that nobody here wrote.

    train -> clean, traffic      val -> gate      test -> report

The folder holds two files, each plain or gzipped: data_dev75.json, {split: [[text, intent], ...]}, and
subset_30_dev.json, {domain: [intent, ...]}, which names the intents of the deployment. A text that occurs
twice is kept where it comes first, in the order clean, traffic, gate, report.
"""

import gzip
import hashlib
import json
import random
from collections.abc import Mapping, Sequence, Set
from pathlib import Path

from examples.helpdesk.generator import (
    POOLS,
    SIZES,
    Pools,
    Scale,
    ScenarioError,
    Utterance,
    choose_intents,
    normalised,
)

DATA = "data_dev75.json"
SUBSET = "subset_30_dev.json"
SPLITS: Mapping[str, str] = {"clean": "train", "traffic": "train", "gate": "val", "report": "test"}

# Neighbours within a domain, and the two pairs that the Pioneer paper found confused (its section 4.4.1).
CONFUSABLE = (
    ("change_language", "translate"),
    ("flight_status", "time"),
    ("pto_request", "pto_request_status"),
    ("pto_balance", "pto_used"),
    ("insurance", "insurance_change"),
    ("travel_alert", "travel_notification"),
    ("timer", "alarm"),
    ("definition", "spelling"),
    ("who_made_you", "who_do_you_work_for"),
)


def clinc(folder: Path, *, seed: int, scale: Scale) -> Pools:
    """CLINC150's pools; a pool is smaller than its size where the split has fewer distinct texts."""
    data, data_digest = _read(folder, DATA)
    subset, subset_digest = _read(folder, SUBSET)
    lines = _splits(folder, data)
    domains = _domains(folder, subset, known={intent for split in lines.values() for _, intent in split})
    listed = tuple(domains)
    pairs = tuple(pair for pair in CONFUSABLE if set(pair) <= set(listed))
    intents = choose_intents(listed, pairs, limit=SIZES[scale].intents, seed=seed)
    pools: dict[str, list[Utterance]] = {pool: [] for pool in POOLS}
    seen: set[str] = set()
    for pool in POOLS:
        for intent in intents:
            deck = _deck(lines, intent=intent, split=SPLITS[pool], seed=seed)
            pools[pool] += _draw(deck, count=getattr(SIZES[scale], pool), seen=seen)
    return Pools(
        name="clinc150",
        generator="clinc150-crowd",
        generator_revision=hashlib.sha256(f"{data_digest}{subset_digest}".encode()).hexdigest()[:16],
        intents=intents,
        descriptions={
            intent: f"{intent.replace('_', ' ')} ({domains[intent].replace('_', ' ')})" for intent in intents
        },
        confusable=tuple(pair for pair in pairs if set(pair) <= set(intents)),
        **{pool: tuple(utterances) for pool, utterances in pools.items()},
    )


def _read(folder: Path, name: str) -> tuple[object, str]:
    """The parsed file and the digest of its JSON text, the same for the plain and the gzipped form."""
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            raw = path.read_bytes()
            try:
                text = gzip.decompress(raw) if path.suffix == ".gz" else raw
                return json.loads(text), hashlib.sha256(text).hexdigest()
            except (OSError, EOFError, ValueError) as error:  # a damaged gzip, cut short, or no JSON
                raise ScenarioError(
                    f"{path} cannot be read as JSON ({error}): fetch the file again"
                ) from error
    found = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else "no such folder"
    raise ScenarioError(
        f"{folder}: found {found}, expected {name} or {name}.gz: "
        "pass the folder that holds the CLINC150 subset"
    )


def _splits(folder: Path, data: object) -> dict[str, list[tuple[str, str]]]:
    """The lines of each split as (text, intent)."""
    wanted = sorted(set(SPLITS.values()))
    if not isinstance(data, dict) or not set(wanted) <= set(data):
        found = sorted(data) if isinstance(data, dict) else type(data).__name__
        raise ScenarioError(
            f"{folder / DATA}: found {found}, expected an object with the splits {wanted}: "
            "use a file in CLINC150's own format"
        )
    return {split: [(text, intent) for text, intent in data[split]] for split in wanted}


def _domains(folder: Path, subset: object, *, known: Set[str]) -> dict[str, str]:
    """The intents of the deployment in the order of the file, each with its domain."""
    if not isinstance(subset, dict):
        raise ScenarioError(
            f"{folder / SUBSET}: found {type(subset).__name__}, expected {{domain: [intent, ...]}}: "
            "list the intents by their domain"
        )
    domains = {intent: domain for domain, intents in subset.items() for intent in intents}
    if missing := sorted(set(domains) - known):
        raise ScenarioError(
            f"{folder / SUBSET} names intents that {DATA} does not have: {missing}: "
            "take them out, or use the data that the list was made for"
        )
    return domains


def _deck(
    lines: Mapping[str, Sequence[tuple[str, str]]], *, intent: str, split: str, seed: int
) -> list[Utterance]:
    """An intent's lines of one split, shuffled; the same deck for every pool that draws from that split."""
    deck = [
        Utterance(text=text, intent=intent, pattern=f"{intent}/{split}-{number}")
        for number, (text, label) in enumerate(lines[split], start=1)
        if label == intent
    ]
    random.Random(f"{seed}/{intent}/{split}").shuffle(deck)
    return deck


def _draw(deck: Sequence[Utterance], *, count: int, seen: set[str]) -> list[Utterance]:
    """The first `count` of the deck whose text nobody has drawn; adds them to `seen`."""
    drawn: list[Utterance] = []
    for utterance in deck:
        if len(drawn) < count and normalised(utterance.text) not in seen:
            seen.add(normalised(utterance.text))
            drawn.append(utterance)
    return drawn
