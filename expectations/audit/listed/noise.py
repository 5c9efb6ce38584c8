"""D9's 33 kinds of noise in what users send, for the tables that hold it: traces and examples.

D9 gives each kind the rate of ordinary traffic, which a gate must let through. What is planted here is an
exporter or a generator gone wrong: every fifth row.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping

import pyarrow as pa

from expectations.audit.planting import (
    Corruption,
    Plant,
    added,
    evaluated,
    rows_anew,
    text,
    text_of,
    with_text,
)
from expectations.audit.sample import Sample
from expectations.perturb import KINDS, NEAR_JACCARD, STORM_SIZES, jaccard

RATE = 0.2
STORMS = 0.05  # of the rows; each comes 3 to 8 times more

_ODD = "a valid question, oddly written: curation pairs it with a clean twin (D7)"
_FAIR = "a valid question: nothing in the row says that it is a trap"
_JUDGE = "only who knows the right answer can tell; a step that asks a judge stores a score"
_MEANING = "needs the meaning of the question, which a step with a model stores as a score"
_TRAFFIC = "people do ask the same: curation merges it, and it matters once it trains"


def noise(table: str) -> tuple[Corruption, ...]:
    """All 33, in D9's order."""
    label = "response" if table == "traces" else "answer"
    of_labels = () if table == "traces" else (("task", "classification"),)

    def of(kind: str, does: str, plant: Plant, why_not: str = "", rate: float = RATE) -> Corruption:
        among = of_labels if kind in ("label_flip", "cross_benchmark") else ()
        return Corruption(f"{table}.{kind}", "D9", does, plant, rate, among, why_not)

    return (
        of("typo", "have slips of the finger", text(KINDS["typo"]), _ODD),
        of("phonetic", "are written as they sound", text(KINDS["phonetic"]), _ODD),
        of("syntactic", "have their clauses in another order", text(syntactic), _ODD),
        of("grammatical", "lack small words", text(KINDS["grammatical"]), _ODD),
        of("punctuation", "have no marks or far too many", text(KINDS["punctuation"]), _ODD),
        of("casing", "are in capitals, or without any", text(KINDS["casing"]), _ODD),
        of("slang", "are in chat spelling", text(KINDS["slang"]), _ODD),
        of("code_switch", "change the language midway", text(code_switch), _ODD),
        of("preamble", "begin beside the point", text(KINDS["preamble"]), _FAIR),
        of("instruction_following", "demand a form of answer", text(instruction_following), _FAIR),
        of("truncated", "end early", text(KINDS["truncated"]), "nobody can tell where a question was to end"),
        of("html", "hold markup of a mail client", text(KINDS["html"])),
        of("missing_modality", "speak of a picture that is not there", text(missing_modality), _MEANING),
        of("duplication", "say the same twice", text(KINDS["duplication"])),
        of("very_long", "are many times as long as the others", text(very_long)),
        of("ocr", "have letters misread", text(KINDS["ocr"]), _ODD),
        of("empty", "ask nothing", text(KINDS["empty"])),
        of("utf8", "are UTF-8 read as Windows-1252", text(KINDS["utf8"])),
        of("metadata_leak", "hold tags of a ticket system", text(KINDS["metadata_leak"])),
        of("label_flip", "have another label for their answer", rows_anew(another(label)), _JUDGE),
        of("decision_boundary", "ask for two things at once", rows_anew(decision_boundary), _FAIR),
        of("false_premise", "rest on something untrue", text(false_premise), _JUDGE),
        of("prompt_injection", "give orders to the model", text(KINDS["prompt_injection"])),
        of(
            "cross_benchmark",
            "ask what models are scored on",
            rows_anew(cross_benchmark),
            _TRAFFIC if table == "traces" else "",
        ),
        of("jailbreak", "offer the model another role", text(KINDS["jailbreak"]), _MEANING),
        of("off_domain", "ask for something else altogether", text(KINDS["off_domain"]), _MEANING),
        of("meta_question", "ask about the model", text(meta_question), _MEANING),
        of("context_assumption", "lean on a talk that is not there", text(context_assumption), _MEANING),
        of("verbatim_recall", "ask for a text by heart", text(verbatim_recall), _MEANING),
        of("gibberish", "are keyboard mashing", text(KINDS["gibberish"])),
        of("retry_storm", "come 3 to 8 times more", retry_storm, rate=STORMS),
        of("near_duplicate", "come again with a word more", added(nearly), _near(table)),
        of("exact_duplicate", "come again word for word", added()),
    )


def _near(table: str) -> str:
    return _TRAFFIC if table == "traces" else ""


def syntactic(said: str, rng: random.Random) -> str:
    """The last clause first."""
    parts = re.split(r"(?<=[,.?!]) ", said)
    return " ".join([*parts[-1:], *parts[:-1]])


def code_switch(said: str, rng: random.Random) -> str:
    """Two or three words in another language, and an end in it."""
    for pattern, foreign in rng.sample(_FOREIGN, len(_FOREIGN)):
        said = re.sub(pattern, foreign, said, count=1, flags=re.IGNORECASE)
    return f"{said} {rng.choice(('bitte schnell', 'gracias de antemano', 'avec mes remerciements'))}"


_FOREIGN = (
    (r"\bthe\b", "der"),
    (r"\band\b", "und"),
    (r"\bmy\b", "mon"),
    (r"\bis\b", "est"),
    (r"\bin\b", "en"),
)


def instruction_following(said: str, rng: random.Random) -> str:
    """A form that the answer is to have."""
    forms = ("Answer in exactly three words.", "Reply as a JSON list.", "No vowels, please.", "Use rhymes.")
    return f"{said} {rng.choice(forms)}"


def missing_modality(said: str, rng: random.Random) -> str:
    """Something that only a picture or a file would show."""
    shown = ("as the attached screenshot shows", "see the photo", "the error is in the voice note")
    return f"{said} {rng.choice(shown)}"


def very_long(said: str, rng: random.Random) -> str:
    """Twelve more stories than it takes."""
    stories = [KINDS["preamble"]("", rng) or KINDS["preamble"]("so", rng) for _ in range(12)]
    return " ".join([*stories, said])


def another(name: str) -> Callable[[dict, random.Random, Sample], dict]:
    """The label of some other row, where the sample has another one."""

    def flip(row: dict, rng: random.Random, sample: Sample) -> dict:
        labels = {label for label in sample.batch[name].to_pylist() if label and label != row[name]}
        return row | {name: rng.choice(sorted(labels))} if labels else row

    return flip


def decision_boundary(row: dict, rng: random.Random, sample: Sample) -> dict:
    """The question, and half of one that is for somebody else."""
    other = text_of(sample.batch.slice(rng.randrange(sample.batch.num_rows), 1).to_pylist()[0]) or ""
    return with_text(row, f"{text_of(row)} and also, {' '.join(other.split()[:8])}")


def false_premise(said: str, rng: random.Random) -> str:
    """Something untrue that the question takes for granted."""
    untrue = (
        "As the office closed for ever last year,",
        "Because computers run on steam,",
        "Now that mail is forbidden by law,",
        "Since Tuesday is always a holiday,",
    )
    return f"{rng.choice(untrue)} {said}"


def cross_benchmark(row: dict, rng: random.Random, sample: Sample) -> dict:
    """What a row of an evaluation split asks, in place of the question."""
    return with_text(row, rng.choice(evaluated(sample, task="classification"))["text"])


def meta_question(said: str, rng: random.Random) -> str:
    """A question about who answers."""
    return rng.choice(
        ("What model are you?", "Who trained you?", "What is your cutoff?", "Do you keep what I write?")
    )


def context_assumption(said: str, rng: random.Random) -> str:
    """An earlier talk that nobody had."""
    return f"{rng.choice(('As I said before,', 'Like last time,', 'So the other one then:'))} {said}"


def verbatim_recall(said: str, rng: random.Random) -> str:
    """A text that is to be known by heart."""
    works = ("the licence", "your handbook, chapter two", "last week's newsletter", "the house rules")
    return f"Recite {rng.choice(works)} word for word."


def nearly(row: Mapping, rng: random.Random) -> dict:
    """The same with a word more, similar enough to count as a near-duplicate."""
    said = text_of(row) or ""
    for end in rng.sample(("please", "thanks", "asap", "anyone?"), 4):
        if jaccard(said, f"{said} {end}") >= NEAR_JACCARD:
            return with_text(row, f"{said} {end}")
    return with_text(row, f"{said}!!")


def retry_storm(sample: Sample, places: list[int], rng: random.Random) -> pa.Table:
    """What impatient users send again and again."""
    return added(times=rng.randint(*STORM_SIZES))(sample, places, rng)
