"""The helpdesk's utterances, so that the demo has users whose right answer is known.

    intents.toml --patterns--> clean | traffic | gate | report --slots--> Utterance

A pattern belongs to exactly one of the four pools, and so does a text: what the evaluation asks was never
trained on in other clothes. Every choice comes from the seed; the same seed gives the same pools.

Errors: ScenarioError (a ValueError): intents.toml, a seed's pools or a data folder are not what is needed.
"""

import hashlib
import random
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Scale = Literal["full", "tiny"]
POOLS = ("clean", "traffic", "gate", "report")
INTENTS_FILE = Path(__file__).parent / "intents.toml"


class ScenarioError(ValueError):
    """The scenario cannot be built from what was found; the message says what to change."""


@dataclass(frozen=True)
class Sizes:
    """How much of everything one scale has; the pools count utterances per intent."""

    intents: int | None
    """None takes all of them."""
    clean: int
    traffic: int
    gate: int
    report: int


SIZES: Mapping[Scale, Sizes] = {
    "full": Sizes(intents=None, clean=8, traffic=48, gate=20, report=25),
    "tiny": Sizes(intents=6, clean=4, traffic=24, gate=12, report=12),
}

# Patterns per intent for each pool; the others of an intent join the traffic. The clean pool knows few
# wordings, so that the traffic has much to teach: some of it in spite of its mistakes, more without them.
PATTERN_SHARES: Mapping[str, int] = {"clean": 3, "traffic": 19, "gate": 7, "report": 9}
TINY_PAIRS = 2  # confusable pairs that a cut-down list of intents keeps


@dataclass(frozen=True)
class Utterance:
    """One thing a user types, and what the user meant by it."""

    text: str
    intent: str
    pattern: str
    """Where the wording comes from: "reset_password/07"; never in two pools."""


@dataclass(frozen=True)
class Pools:
    """A router's intents and four disjoint pools of utterances, each in the order of the intents."""

    name: str
    """ "helpdesk" or "clinc150"."""
    generator: str
    """Who wrote the utterances, as the provenance of every example names it."""
    generator_revision: str
    """16 hexadecimal digits of the digest of what the generator read."""
    intents: tuple[str, ...]
    """The order is that of the numbered list in the prompt, which counts from 1."""
    descriptions: Mapping[str, str]
    confusable: tuple[tuple[str, str], ...]
    clean: tuple[Utterance, ...]
    """The small training pool to start from."""
    traffic: tuple[Utterance, ...]
    """What users will ask; becomes the trace log."""
    gate: tuple[Utterance, ...]
    """The evaluation set that the gates may see."""
    report: tuple[Utterance, ...]
    """The evaluation set that only published numbers see."""


def helpdesk(*, seed: int, scale: Scale) -> Pools:
    """The helpdesk's pools. Raises ScenarioError where intents.toml has too few patterns or wordings."""
    source = INTENTS_FILE.read_bytes()
    book = tomllib.loads(source.decode())
    pairs = tuple((first, second) for first, second in book["confusable"])
    intents = choose_intents(tuple(book["intent"]), pairs, limit=SIZES[scale].intents, seed=seed)
    pools: dict[str, list[Utterance]] = {pool: [] for pool in POOLS}
    seen: set[str] = set()
    for intent in intents:
        shares = _share_out(intent, book["intent"][intent]["patterns"], seed=seed)
        for pool in POOLS:
            rng = random.Random(f"{seed}/{intent}/{pool}")
            count = getattr(SIZES[scale], pool)
            pools[pool] += _speak(intent, shares[pool], book["slots"], count=count, seen=seen, rng=rng)
    return Pools(
        name="helpdesk",
        generator="helpdesk-templates",
        generator_revision=hashlib.sha256(source).hexdigest()[:16],
        intents=intents,
        descriptions={intent: book["intent"][intent]["description"] for intent in intents},
        confusable=tuple(pair for pair in pairs if set(pair) <= set(intents)),
        **{pool: tuple(utterances) for pool, utterances in pools.items()},
    )


def choose_intents(
    intents: tuple[str, ...], pairs: Sequence[tuple[str, str]], *, limit: int | None, seed: int
) -> tuple[str, ...]:
    """At most `limit` intents in their given order, among them both sides of two confusable pairs."""
    if limit is None or limit >= len(intents):
        return intents
    rng = random.Random(f"{seed}/intents")
    chosen: list[str] = []
    for pair in rng.sample(pairs, len(pairs)):
        if len(chosen) < 2 * TINY_PAIRS and not set(pair) & set(chosen):
            chosen += pair
    others = [intent for intent in intents if intent not in chosen]
    chosen += rng.sample(others, limit - len(chosen))
    return tuple(intent for intent in intents if intent in chosen)


def normalised(text: str) -> str:
    """The text without case, punctuation and runs of blanks; texts that share it count as one text."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def _share_out(intent: str, patterns: Sequence[str], *, seed: int) -> dict[str, list[tuple[str, str]]]:
    """Deal an intent's patterns to the pools as (pattern id, pattern); what is left goes to traffic."""
    needed = sum(PATTERN_SHARES.values())
    if len(patterns) < needed:
        raise ScenarioError(
            f"intent {intent!r} has {len(patterns)} patterns, the pools need {needed}: "
            f"add some to {INTENTS_FILE.name}"
        )
    deck = [(f"{intent}/{number:02d}", pattern) for number, pattern in enumerate(patterns, start=1)]
    random.Random(f"{seed}/{intent}/patterns").shuffle(deck)
    shares: dict[str, list[tuple[str, str]]] = {}
    for pool in POOLS:
        shares[pool], deck = deck[: PATTERN_SHARES[pool]], deck[PATTERN_SHARES[pool] :]
    shares["traffic"] += deck
    return shares


def _speak(
    intent: str,
    patterns: Sequence[tuple[str, str]],
    slots: Mapping[str, Sequence[str]],
    *,
    count: int,
    seen: set[str],
    rng: random.Random,
) -> list[Utterance]:
    """`count` texts that nobody has said before, the patterns taking turns; adds them to `seen`."""
    spoken: list[Utterance] = []
    for turn in range(50 * count):  # a pattern that has said everything it can only wastes its turns
        pattern_id, pattern = patterns[turn % len(patterns)]
        text = _fill(pattern, slots, rng=rng)
        if normalised(text) not in seen:
            seen.add(normalised(text))
            spoken.append(Utterance(text=text, intent=intent, pattern=pattern_id))
        if len(spoken) == count:
            return spoken
    raise ScenarioError(
        f"the patterns {[pattern_id for pattern_id, _ in patterns]} gave {len(spoken)} different texts, "
        f"{count} are needed: give them more slots or alternatives in {INTENTS_FILE.name}"
    )


def _fill(pattern: str, slots: Mapping[str, Sequence[str]], *, rng: random.Random) -> str:
    """Choose among the alternatives, then fill the slots: "(pw|password) for {app}" -> "pw for Jira"."""
    chosen = re.sub(r"\(([^()]*)\)", lambda hole: rng.choice(hole[1].split("|")), pattern)
    filled = re.sub(r"\{(\w+)\}", lambda hole: rng.choice(_values(slots, hole[1], pattern)), chosen)
    return re.sub(r" +([?.!,]|$)", r"\1", filled)


def _values(slots: Mapping[str, Any], slot: str, pattern: str) -> Sequence[str]:
    if slot not in slots:
        raise ScenarioError(
            f"slot {slot!r} of pattern {pattern!r} is not in [slots] of {INTENTS_FILE.name}: add it"
        )
    return slots[slot]
