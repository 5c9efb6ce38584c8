"""Sums as short questions, each with a direct answer and one in steps: what the tiny decoder learns.

    What is 482 + 937?      direct   #### 1419
                            steps    ones 2+7=09, tens 8+3=11, hundreds 4+9+1=14 #### 1419

The final number stands after `####`, as in GSM8K. Which side a sum is on follows from its two numbers alone,
so what is pretrained on, fine-tuned on and measured on share none, whoever draws them and with whatever seed.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Side = Literal["pretraining", "training", "evaluation"]

TENTHS: Mapping[Side, int] = {"pretraining": 6, "training": 2, "evaluation": 2}
_SIDES: list[Side] = [side for side, tenths in TENTHS.items() for _ in range(tenths)]  # by a digest modulo 10
PLACES = ("ones", "tens", "hundreds", "thousands", "myriads")
MOST_DIGITS = len(PLACES)
WORDINGS = (
    "What is {} + {}?",
    "Add {} and {}.",
    "How much is {} plus {}?",
    "There are {} red beads and {} blue beads. How many beads are there?",
    "Mia had {} points and won {} more. How many points has she now?",
    "A shelf holds {} books, another {}. How many books are that?",
)
_STATED = re.compile(r"####\s*(-?\d[\d,]*)")


@dataclass(frozen=True)
class Problem:
    """A sum of two whole numbers, in words."""

    first: int
    second: int
    wording: str = WORDINGS[0]
    """Where the two numbers go, in their order: two pairs of braces."""

    @property
    def question(self) -> str:
        """What is asked."""
        return self.wording.format(self.first, self.second)

    @property
    def total(self) -> int:
        """What is right."""
        return self.first + self.second

    @property
    def direct(self) -> str:
        """The answer without a word of how."""
        return f"#### {self.total}"

    @property
    def steps(self) -> str:
        """The answer digit by digit from the ones, each with what was carried, then the number.

        A step's result has two digits: what is carried on, and what stands in its place.
        """
        said, carried = [], 0
        for place, name in enumerate(PLACES[: len(str(max(self.first, self.second)))]):
            one, other = (number // 10**place % 10 for number in (self.first, self.second))
            terms = f"{one}+{other}+{carried}" if carried else f"{one}+{other}"
            found = one + other + carried
            said.append(f"{name} {terms}={found:02d}")
            carried = found // 10
        return f"{', '.join(said)} {self.direct}"


def draw(n: int, *, side: Side, digits: int, seed: int, wordings: Sequence[str] = WORDINGS) -> list[Problem]:
    """`n` problems of one side, no sum twice, in either order; both numbers have `digits` digits.

    Raises ValueError where that many do not exist, or may not be found in reasonable time.
    """
    if not 1 <= digits <= MOST_DIGITS:
        raise ValueError(f"sums of {digits} digits, expected 1 to {MOST_DIGITS}")
    least, most = 10 ** (digits - 1) if digits > 1 else 0, 10**digits - 1
    there_are = (most - least + 1) ** 2 / 2 * TENTHS[side] / 10
    if n > there_are / 2:  # drawn blindly, the last ones would take ever longer to find
        raise ValueError(f"{n} {side} problems of {digits} digits are too many: ask for fewer or more digits")
    rng = random.Random(f"{seed}/{side}/{digits}")
    drawn: dict[tuple[int, int], Problem] = {}
    while len(drawn) < n:
        first, second = rng.randint(least, most), rng.randint(least, most)
        key = (min(first, second), max(first, second))
        if side_of(first, second) == side and key not in drawn:
            drawn[key] = Problem(first, second, rng.choice(wordings))
    return list(drawn.values())


def side_of(first: int, second: int) -> Side:
    """On which side a sum is, in either order and in any wording."""
    key = f"{min(first, second)}+{max(first, second)}"
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
    return _SIDES[int.from_bytes(digest) % 10]


def stated(answer: str) -> int | None:
    """The number that an answer ends in: after its last `####`; None where there is none."""
    found = _STATED.findall(answer)
    return int(found[-1].replace(",", "")) if found else None
