"""Damage to documents that is not in their provenance."""

from __future__ import annotations

import random

from expectations.audit.listed.noise import nearly, very_long
from expectations.audit.listed.provenance import provenance
from expectations.audit.listed.texts import texts
from expectations.audit.listed.traces import again
from expectations.audit.planting import (
    ALL,
    Corruption,
    Plant,
    added,
    cell,
    fixed,
    kept,
    swapped,
    word,
)


def documents() -> tuple[Corruption, ...]:
    """Everything that is planted in documents."""

    def of(
        kind: str, family: str, does: str, plant: Plant, rate: float = 0.1, why_not: str = ""
    ) -> Corruption:
        return Corruption(f"documents.{kind}", family, does, plant, rate, (), why_not)

    own = (
        of("batch_empty", "size", "are none", kept(0), ALL),
        of("half_lost", "size", "are only half of them", kept(0.5), ALL,
           "only the source knows how many there were; fsck balances what was read"),
        of("kind_null", "values", "have no kind", fixed("kind", None)),
        of("kind_unknown", "values", "are of an unknown kind", fixed("kind", "poem")),
        of("kind_and_language_swapped", "swapped columns", "have kind and language exchanged",
           swapped("kind", "language")),
        of("text_and_title_swapped", "swapped columns", "have text and title exchanged",
           swapped("text", "title"), 0.3),
        of("title_null", "values", "have no title", fixed("title", None)),
        of("language_null", "values", "have no language", fixed("language", None)),
        of("metadata_broken", "values", "have metadata that is no JSON", fixed("metadata", "{owner: desk")),
        of("text_is_heading", "values", "are headings without a text", cell("text", heading), 0.3),
        of("text_truncated", "values", "end early", cell("text", half), 0.3,
           "a section may end anywhere"),
        of("text_very_long", "values", "are many times as long as the others", word("text", very_long)),
        of("text_is_binary", "values", "are bytes of a picture", word("text", binary)),
        of("text_is_path", "values", "are the name of a file in place of what it holds",
           fixed("text", "/docs/manual-01.md"), 0.3, "one line of text is a text"),
        of("rows_twice", "duplicates", "are there twice, ids and all", again),
        of("exact_duplicate", "duplicates", "come again word for word", added(), 0.2),
        of("near_duplicate", "duplicates", "come again with a word more", added(nearly), 0.2),
        of("same_text", "duplicates", "are all the same text",
           fixed("text", "## Lorem\n\nIpsum dolor."), 0.5),
        of("pii_flag_broken", "personal data", "have a flag that is no JSON", fixed("pii", "email")),
    )  # fmt: skip
    return (*provenance("documents"), *texts("documents", "text", markup_is_fair=True), *own)


def heading(said: str, rng: random.Random) -> str:
    """The first line alone."""
    return said.splitlines()[0]


def half(said: str, rng: random.Random) -> str:
    """The first half."""
    return said[: len(said) // 2]


def binary(said: str, rng: random.Random) -> str:
    """As a text editor shows it."""
    return "\x89PNG\r\n\x1a\n" + "".join(chr(rng.choice((0, 1, 7, 27, 0xFFFD, 0xDB))) for _ in range(200))
