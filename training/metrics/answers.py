"""The answer within a text that a decoder wrote, and whether it is the right one.

Every rule is strict: where a text does not say its answer in one of the named ways, it has none, and counts
as wrong. A lenient rule would give points to numbers and letters that were written on the way.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable
from decimal import Decimal

_FINAL = re.compile(r"####|^\s*A:", re.MULTILINE)
_NUMBER = re.compile(
    r"(?<![0-9A-Za-z.])(?P<sign>[-+\u2212]?)\s*(?P<currency>\$?)\s*(?P<minus>[-\u2212]?)"
    r"(?P<digits>[0-9][0-9,]*(?:\.[0-9]+)?|\.[0-9]+)(?P<power>[eE][-+]?[0-9]{1,3})?(?P<fraction>\s*/\s*[0-9])?"
)


def final_number(text: str) -> Decimal | None:
    """The number that a solution ends with, as GSM8K writes it: the first on the line of the last `####`.

    A line that starts with `A:` marks it too, as in the solutions published with GSM8K; and a text that is a
    number and nothing else is that number. Thousands commas are dropped (GSM8K's rule: all commas are), a
    dollar sign, a percent sign, a unit and a full stop after it do not matter, and 18.00 is 18. A fraction
    (`1/2`) is no number, and without a mark there is none: what stands on the way to an answer is none.
    """
    marks = list(_FINAL.finditer(text))
    if not marks:
        whole = _NUMBER.match(text.strip())
        if whole is None or text.strip()[whole.end() :].strip(" .%,") != "":
            return None
        return _value(whole)
    line = text[marks[-1].end() :].split("\n", 1)[0].strip()
    found = _NUMBER.search(line)
    return None if found is None else _value(found)


def same_number(answer: str, prediction: str) -> bool:
    """Do both texts end with one number, by value?"""
    wanted = final_number(answer)
    return wanted is not None and wanted == final_number(prediction)


_CUES = re.compile(r"\b(?:answer|option|choice)\b\s*(?:is|would be)?\s*:?\s*", re.IGNORECASE)
_REASONED = re.compile(r"[\s*`\"']*([A-Z])\s+(?:because|since|as|for)\b")
_LETTER = re.compile(r"[\s*`\"']*[(\[]?\s*([A-Z])\s*(?:[)\].:,;*`\"']|$)(?![A-Za-z])")
_LOWER_LETTER = re.compile(r"[\s*`\"']*(?:[(\[]\s*([a-z])\s*[)\]]|([a-z])\s*(?:\)|[.:]?\s*$))")
_BRACKETED = re.compile(r"\(([A-Z])\)")


def option_letter(text: str) -> str | None:
    """The option that an answer to a multiple-choice question names: a letter, as a capital.

    In this order: the letter after the last "answer", "option" or "choice" (`The answer is (B).`, `is B
    because`); the letter that the text begins with, set off as an option is (`B`, `B.`, `(b)`, `B) Paris`);
    the one letter that stands in brackets anywhere. So `A cat` names none, and neither does a text with (A)
    and (B).
    """
    for cue in reversed(list(_CUES.finditer(text))):
        line = text[cue.end() :].split("\n", 1)[0]
        if reasoned := _REASONED.match(line):
            return reasoned[1]
        if letter := _leading_letter(line):
            return letter
    if letter := _leading_letter(text.strip().split("\n", 1)[0]):
        return letter
    bracketed = set(_BRACKETED.findall(text))
    return bracketed.pop() if len(bracketed) == 1 else None


def same_option(answer: str, prediction: str) -> bool:
    """Do both texts name one option?"""
    wanted = option_letter(answer)
    return wanted is not None and wanted == option_letter(prediction)


def same_text(answer: str, prediction: str) -> bool:
    """Are both one text, whatever their white space?"""
    return answer.split() == prediction.split()


# The quotation marks that TriviaQA's evaluation drops beside ASCII's punctuation.
_PUNCTUATION = str.maketrans({mark: " " for mark in string.punctuation + "\u2018\u2019\u00b4`"})
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalised_answer(text: str) -> str:
    """An answer as TriviaQA compares it: lower case, without punctuation, articles and doubled spaces.

    `normalize_answer` of its evaluation script: an underscore and a punctuation mark become a space.
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def matches_alias(aliases: Iterable[str], prediction: str) -> bool:
    """Is the prediction one of the names of the right answer, by TriviaQA's exact match? Nothing is none."""
    said = normalised_answer(prediction)
    return said != "" and any(said == normalised_answer(alias) for alias in aliases)


def _value(found: re.Match[str]) -> Decimal | None:
    if found["fraction"]:
        return None
    digits = found["digits"].replace(",", "") + (found["power"] or "")
    negative = (found["sign"] in ("-", "\u2212")) != (found["minus"] != "")
    return -Decimal(digits) if negative else Decimal(digits)


def _leading_letter(line: str) -> str | None:
    if found := _LETTER.match(line):
        return found[1]
    if found := _LOWER_LETTER.match(line):
        return (found[1] or found[2]).upper()
    return None
