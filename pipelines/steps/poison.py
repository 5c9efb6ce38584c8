"""Requests that have no right answer in the task: kept out of training, each with the reason.

Detectors, not a judge.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from lineage.rows import Derivation, Rejection
from lineage.schemas import EXAMPLE
from pipelines.step import Step, keep

# Phrases that talk to the model instead of asking for something; matched on word borders, without case.
_INJECTION = re.compile(
    r"\b(ignore|disregard|forget|override)\b.{0,40}\b(instruction|instructions|prompt|rules|above|previous|guidelines)\b"
    r"|\b(system prompt|developer message|you are now|new instructions?)\b"
    r"|\b(reveal|print|repeat|output|show)\b.{0,30}\b(prompt|instructions)\b"
    r"|</?(system|assistant|instructions?)>",
    re.IGNORECASE | re.DOTALL,
)
_JAILBREAK = re.compile(
    r"\b(DAN|do anything now|jailbreak|developer mode|without (any )?(restrictions|filters|limits)"
    r"|no (restrictions|filters|rules)|unrestricted|pretend (you are|to be)|hypothetically)\b",
    re.IGNORECASE,
)
_WORD = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True)
class ExcludePoison(Step):
    """Rejects prompt injection, jailbreaks, gibberish and empty requests (D7).

    Every other row goes on unchanged.
    """

    least_letters: int = 3
    """A request with fewer letters asks for nothing."""

    most_consonants: int = 5
    """A word with a longer run of consonants is not one in a language written with vowels."""

    gibberish_share: float = 0.5
    """From this share of such words on, the request is gibberish."""

    reads: ClassVar = EXAMPLE
    writes: ClassVar = EXAMPLE
    revision: ClassVar = 1
    identifies: ClassVar = False

    def derive(self, rows: pa.Table) -> Derivation:
        """One row in, one row out or a reason."""
        rejected: dict[int, Rejection] = {}
        for index, text in enumerate(rows["text"].to_pylist()):
            reason = self.reason(text)
            if reason is not None:
                rejected[index] = Rejection(reason, scorer=self.name, scorer_revision=str(self.revision))
        kept = [index for index in range(rows.num_rows) if index not in rejected]
        return Derivation(keep(rows, kept), [(index,) for index in kept], rejected)

    def reason(self, text: str) -> str | None:
        """Why this request is no training material, or None."""
        letters = sum(c.isalpha() for c in text)
        if letters < self.least_letters:
            return "empty_request"
        if _INJECTION.search(text):
            return "prompt_injection"
        if _JAILBREAK.search(text):
            return "jailbreak"
        return "gibberish" if self._is_gibberish(text) else None

    def _is_gibberish(self, text: str) -> bool:
        words = [word for word in _WORD.findall(text) if len(word) > 3 and word.isascii()]
        if not words:
            return False
        odd = sum(self._is_odd(word.lower()) for word in words)
        return odd / len(words) >= self.gibberish_share

    def _is_odd(self, word: str) -> bool:
        consonants = re.findall(r"[bcdfghjklmnpqrstvwxz]+", word)
        if any(len(run) > self.most_consonants for run in consonants):
            return True
        vowels = sum(c in "aeiouy" for c in word)
        return vowels == 0 or (len(word) >= 8 and vowels / len(word) < 0.15) or _entropy(word) > 3.9


def _entropy(word: str) -> float:
    counts = Counter(word)
    return -sum(n / len(word) * math.log2(n / len(word)) for n in counts.values())
