"""Damage that any text can have: lost, cut, in the wrong letters, full of what machines write."""

from __future__ import annotations

import random

from expectations.audit.planting import Corruption, Plant, Rewrite, fixed, word
from expectations.perturb import KINDS


def texts(
    table: str, name: str, *, among: tuple[tuple[str, str], ...] = (), markup_is_fair: bool = False
) -> tuple[Corruption, ...]:
    """What can be wrong with one column of text."""
    fair = "markdown and code hold markup by right" if markup_is_fair else ""

    def of(kind: str, does: str, change: Rewrite | Plant, rate: float = 0.1, why_not: str = "") -> Corruption:
        plant = word(name, change) if kind not in _VALUES else change  # type: ignore[arg-type]
        return Corruption(f"{table}.{name}_{kind}", "texts", does, plant, rate, among, why_not)  # type: ignore[arg-type]

    return (
        of("null", f"have no {name}", fixed(name, None)),
        of("blank", f"have blanks for a {name}", fixed(name, " \n ")),
        of("is_word_null", f"have the word 'null' for a {name}", fixed(name, "null")),
        of("is_nan", f"have the word 'nan' for a {name}", fixed(name, "nan")),
        of("mojibake", f"have a {name} in UTF-8 read as Windows-1252", mojibake),
        of("replacement_marks", f"have a {name} with lost letters in it", replacement_marks),
        of("control_codes", f"have a {name} with control codes in it", control_codes),
        of("invisible", f"have a {name} with marks that nobody sees", invisible),
        of("terminal", f"have a {name} with colours of a terminal", terminal),
        of("traceback", f"have a {name} that ends in a traceback", traceback),
        of("xml", f"have a {name} in the tags of a tool", xml, why_not=fair),
        of("task_notification", f"have a {name} with a notice of a task", task_notification, why_not=fair),
        of("html", f"have a {name} in markup of a mail client", KINDS["html"], why_not=fair),
        of("html_entities", f"have a {name} with escaped letters", html_entities, why_not=fair),
        of("gibberish", f"have keyboard mashing for a {name}", KINDS["gibberish"]),
        of("repeats", f"have a {name} that goes round in circles", circles),
        of("email", f"have a {name} with somebody's address in it", email),
        of("phone_and_card", f"have a {name} with a phone and a card number in it", phone_and_card),
        of("secret", f"have a {name} with a key in it", secret),
    )


_VALUES = ("null", "blank", "is_word_null", "is_nan")


def mojibake(said: str, rng: random.Random) -> str:
    """Each apostrophe, and some letters with accents, as three wrong ones."""
    accented = said.replace("'", "\N{RIGHT SINGLE QUOTATION MARK}").replace("e", "é", 2)
    return f"{accented} \N{EN DASH}".encode().decode("cp1252", errors="replace")


def replacement_marks(said: str, rng: random.Random) -> str:
    """Every ninth letter lost."""
    return "".join("\N{REPLACEMENT CHARACTER}" if at % 9 == 4 else letter for at, letter in enumerate(said))


def control_codes(said: str, rng: random.Random) -> str:
    """Nulls and bells."""
    return f"\x00{said[: len(said) // 2]}\x07{said[len(said) // 2 :]}\x00"


def invisible(said: str, rng: random.Random) -> str:
    """Zero-width spaces, and a mark that turns text around."""
    return "\u200b".join(said.split(" ")) + "\u202e"


def terminal(said: str, rng: random.Random) -> str:
    """Escape sequences, and a prompt."""
    return f"\x1b[32muser@host\x1b[0m:~$ {said}\x1b[K\r\n[1]+  Done"


def traceback(said: str, rng: random.Random) -> str:
    """Python's last words."""
    return (
        f'{said}\nTraceback (most recent call last):\n  File "app.py", line {rng.randint(2, 90)}, in main\n'
        "KeyError: 'intent'"
    )


def xml(said: str, rng: random.Random) -> str:
    """What agents' harnesses wrap around things."""
    return f"<tool_result><output>{said}</output></tool_result><system-reminder>be brief</system-reminder>"


def task_notification(said: str, rng: random.Random) -> str:
    """A notice that was meant for the harness."""
    return f"<task-notification id={rng.randint(1, 99)}>done</task-notification>\n{said}"


def html_entities(said: str, rng: random.Random) -> str:
    """Blanks and quotes as entities."""
    return f"&lt;p&gt;{said.replace(' ', '&nbsp;', 4)}&amp;&#39;"


def circles(said: str, rng: random.Random) -> str:
    """The first words six times more."""
    words = " ".join(said.split()[:6])
    return " ".join([said, *[words] * 6])


def email(said: str, rng: random.Random) -> str:
    """An address."""
    return f"{said} Write to maria.huber{rng.randint(1, 99)}@example-mail.org."


def phone_and_card(said: str, rng: random.Random) -> str:
    """A number to call, and one to pay with that passes its check."""
    return f"{said} Call +43 664 555 {rng.randint(1000, 9999)}, card 4111 1111 1111 1111."


def secret(said: str, rng: random.Random) -> str:
    """A key of a cloud."""
    return f"{said} export AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY{rng.randint(10, 99)}"
