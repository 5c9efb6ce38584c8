"""Turns conversations into the token ids that a decoder reads, and says which of them it is to learn.

    messages as stored -> conversation() -> the tokenizer's chat template -> text -> token ids, loss
    messages + answer     loss_on = "answer"      the last assistant turn
                          loss_on = "assistant"   every assistant turn
                          loss_on = "all"         every token but the first

A turn is learnt up to the token that ends it, that token included, so that the model learns to stop.

The template alone says which special tokens there are. None is added to what it writes, a beginning-of-text
token neither, whatever the tokenizer does with plain text: so the ids are those of `apply_chat_template`, and
what a model was trained on. But what a message says is data: a special token in it is read as the characters
it is written with. Added tokens that are not special, such as <think>, are words of a model's own language
and stay what they are.

Errors: ChatError, a ModelError: a conversation cannot be written, or its turns cannot be told.
"""

from __future__ import annotations

import hashlib
import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, cast

from infra.models import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LossOn = Literal["answer", "assistant", "all"]
Span = tuple[int, int]
"""Characters of a written conversation, from and up to."""

_OPEN, _CLOSE = "\ufdd0", "\ufdd1"  # noncharacters, which Unicode keeps out of texts; dropped from ours
_QUOTED = re.compile(f"{_OPEN}([^{_OPEN}{_CLOSE}]*){_CLOSE}|[{_OPEN}{_CLOSE}]")
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")  # as transformers looks for it
# Llama's templates write today's date where they are told none: the same rows shall always be the same ids
_SAME_EVERY_DAY = {"date_string": "26 Jul 2024"}
_REMEDY = (
    "set assistant_only_loss = false, or name a template with {% generation %} marks in chat_template_path"
)


class ChatError(ModelError):
    """A conversation cannot be written as the template has it, or its turns cannot be told."""


@dataclass(frozen=True)
class Rendered:
    """A conversation as a decoder reads and learns it."""

    input_ids: list[int]
    loss: list[bool]
    """Aligned with input_ids: is this token to be predicted? Never the first, which follows nothing."""


def conversation(messages: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Messages as the column `messages` stores them, turned into what chat templates take.

    Tool calls become lists, their arguments dicts where they are the JSON text of one; nulls and `extra` are
    left out. What is so already stays as it is.
    """
    return [
        {
            key: _calls(value) if key == "tool_calls" else value
            for key, value in message.items()
            if value is not None and key != "extra"
        }
        for message in messages
    ]


def render(
    tokenizer: PreTrainedTokenizerBase,
    messages: Iterable[Mapping[str, Any]],
    answer: str | None,
    *,
    answer_tool_calls: str | None = None,
    loss_on: LossOn,
) -> Rendered:
    """The conversation with its answer, and which of its tokens are to be learnt.

    `answer_tool_calls` is JSON text, as the column `response_tool_calls` holds it. Raises ChatError, also
    where the token that ends the answer would not be learnt.
    """
    said = {"role": "assistant", "content": answer, "tool_calls": answer_tool_calls}
    turns = conversation([*messages, said])
    text, marked = _written(tokenizer, turns)
    ids, places = _tokens(tokenizer, text)
    stops = stop_token_ids(tokenizer)
    if loss_on == "all":
        spans = [(0, len(text))]
    elif loss_on == "answer":
        spans = _answer_spans(tokenizer, turns, text, marked)
    else:
        spans = marked or _assistant_spans(tokenizer, turns, text)

    loss = [False] * len(ids)
    starts, ends = [start for start, _ in places], [end for _, end in places]
    last = None
    for begin, end in spans:
        # a token belongs to the span that it reaches into
        first, behind = bisect_right(ends, begin), bisect_left(starts, end)
        last = max((n for n in range(first, behind) if ids[n] in stops), default=None)
        until = behind if last is None else last + 1
        loss[first:until] = [True] * (until - first)
    if last is None or text[ends[last] :].strip():
        expected = tokenizer.convert_ids_to_tokens(sorted(stops))
        raise ChatError(
            f"the model would not learn to stop: the template writes none of {expected} at the end of the "
            "answer, or outside its {% generation %} marks; name another template in chat_template_path"
        )
    return Rendered(ids, [False, *loss[1:]])


def prompt_ids(tokenizer: PreTrainedTokenizerBase, messages: Iterable[Mapping[str, Any]]) -> list[int]:
    """The conversation up to where the model is to answer. Raises ChatError."""
    text, _ = _written(tokenizer, conversation(messages), prompt=True)
    return _tokens(tokenizer, text)[0]


def stop_token_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The tokens that end an answer: the tokenizer's own, and those the template writes behind a turn."""
    return _stop_token_ids(tokenizer, _template(tokenizer))


def template_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """`sha256:<hex>` over the text of the tokenizer's chat template."""
    return f"sha256:{hashlib.sha256(_template(tokenizer).encode()).hexdigest()}"


def _calls(stored: Any) -> Any:
    """Tool calls from JSON text, OpenAI's shape."""
    try:
        calls = json.loads(stored) if isinstance(stored, str) else stored
    except ValueError as error:
        raise ChatError(f"tool_calls are no JSON ({error}): {stored[:100]}") from error
    return [_with_arguments(call) for call in calls] if isinstance(calls, list) else calls


def _with_arguments(call: Any) -> Any:
    if not isinstance(call, dict):
        return call
    if isinstance(call.get("function"), dict):
        return call | {"function": _with_arguments(call["function"])}
    try:
        arguments = json.loads(call.get("arguments", ""))
    except (ValueError, TypeError):  # words, or no text at all: as they are
        return call
    return call | {"arguments": arguments} if isinstance(arguments, dict) else call


def _template(tokenizer: PreTrainedTokenizerBase) -> str:
    try:
        return tokenizer.get_chat_template()
    except ValueError as error:
        raise ChatError(
            f"the tokenizer of '{tokenizer.name_or_path}' has no chat template; "
            "name one in chat_template_path"
        ) from error


def _written(
    tokenizer: PreTrainedTokenizerBase, turns: list[dict[str, Any]], *, prompt: bool = False
) -> tuple[str, list[Span]]:
    """What the template writes, special tokens of the messages quoted, and what it marks as generated."""
    from jinja2 import TemplateError
    from transformers.utils.chat_template_utils import render_jinja_template

    template = _template(tokenizer)
    names: dict[str, Any] = {**_SAME_EVERY_DAY, **tokenizer.special_tokens_map}
    try:
        texts, marked = render_jinja_template(
            conversations=[_quoted(turns, _special_tokens(tokenizer))],
            chat_template=template,
            add_generation_prompt=prompt,
            return_assistant_tokens_mask=bool(_GENERATION.search(template)),
            **names,
        )
    except (TemplateError, TypeError, ValueError) as error:
        roles = [str(turn.get("role")) for turn in turns]
        raise ChatError(f"the chat template does not take the turns {roles[:8]}: {error}") from error
    return texts[0], [(start, end) for start, end in cast(list[Span], marked[0])] if marked else []


def _answer_spans(
    tokenizer: PreTrainedTokenizerBase, turns: list[dict[str, Any]], text: str, marked: list[Span]
) -> list[Span]:
    """What follows the prompt, as the model will be asked; where the template writes another, its marks."""
    asked, _ = _written(tokenizer, turns[:-1], prompt=True)
    if text.startswith(asked):
        return [(len(asked), len(text))]
    earlier, _ = _written(tokenizer, turns[:-1])
    if text.startswith(earlier) and (spans := [span for span in marked if span[0] >= len(earlier)]):
        return spans
    raise ChatError(
        "the answer cannot be told from its prompt: with an answer the template writes the prompt anew, and "
        "it marks no turns; name a template with {% generation %} marks in chat_template_path"
    )


def _assistant_spans(
    tokenizer: PreTrainedTokenizerBase, turns: list[dict[str, Any]], text: str
) -> list[Span]:
    """Each assistant turn between its own prompt and what is written with it, both beginnings of the text."""
    spans = []
    for n, turn in enumerate(turns):
        if turn.get("role") != "assistant":
            continue
        asked = _written(tokenizer, turns[:n], prompt=True)[0] if n else None
        answered = text if n == len(turns) - 1 else _written(tokenizer, turns[: n + 1])[0]
        if asked is None or not (text.startswith(answered) and answered.startswith(asked)):
            raise ChatError(
                f"assistant turn {n} cannot be told: the template marks no turns, and has no prompt for this "
                f"one or writes it otherwise once others follow it; {_REMEDY}"
            )
        spans.append((len(asked), len(answered)))
    return spans


def _tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[list[int], list[Span]]:
    """The ids of a written conversation and the characters of each; what is quoted gives no special token."""
    if not tokenizer.is_fast:
        raise ChatError(
            f"{type(tokenizer).__name__} does not tell where its tokens lie; use a fast tokenizer"
        )
    ids: list[int] = []
    places: list[Span] = []

    def read(start: int, end: int, *, quoted: bool) -> None:
        piece = tokenizer(
            text[start:end],
            add_special_tokens=False,
            split_special_tokens=quoted,
            return_offsets_mapping=True,
            verbose=False,
        )
        ids.extend(piece["input_ids"])
        places.extend((start + first, start + behind) for first, behind in piece["offset_mapping"])
        if quoted and tokenizer.convert_tokens_to_ids(text[start:end]) in piece["input_ids"]:
            raise ChatError(
                f"a message holds {text[start:end]}, which this tokenizer cannot read as text; leave it out"
            )

    done = 0
    for match in _QUOTED.finditer(text):
        read(done, match.start(), quoted=False)
        if match[1]:
            read(match.start(1), match.end(1), quoted=True)
        done = match.end()
    read(done, len(text), quoted=False)
    if tokenizer.bos_token_id is not None and ids[:2] == [tokenizer.bos_token_id] * 2:
        raise ChatError(
            f"the chat template begins with {tokenizer.bos_token} twice; "
            "correct it, and name the corrected one in chat_template_path"
        )
    return ids, places


def _quoted(said: Any, special: re.Pattern[str]) -> Any:
    """Messages with their special tokens between marks."""
    if isinstance(said, str):
        return special.sub(lambda found: f"{_OPEN}{found[1]}{_CLOSE}" if found[1] else "", said)
    if isinstance(said, Mapping):
        return {key: _quoted(value, special) for key, value in said.items()}
    return [_quoted(each, special) for each in said] if isinstance(said, list | tuple) else said


@lru_cache(maxsize=8)
def _special_tokens(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str]:
    """Finds special tokens, as the tokenizer has them when first asked, and our own marks."""
    tokens = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    longest_first = sorted(tokens, key=lambda token: (-len(token), token))
    return re.compile(f"[{_OPEN}{_CLOSE}]|({'|'.join(map(re.escape, longest_first)) or '(?!)'})")


@lru_cache(maxsize=8)
def _stop_token_ids(tokenizer: PreTrainedTokenizerBase, template: str) -> frozenset[int]:
    """By two probes: the first added token behind an answer, which is the last turn or is not."""
    asked, probe = {"role": "user", "content": "What?"}, {"role": "assistant", "content": "This."}
    added = set(tokenizer.added_tokens_decoder)
    stops = set() if tokenizer.eos_token_id is None else {cast(int, tokenizer.eos_token_id)}
    for turns in ([asked, probe], [asked, probe, asked]):
        text, _ = _written(tokenizer, turns)
        ids, _ = _tokens(tokenizer, text.rpartition(probe["content"])[2])
        stops.update([each for each in ids if each in added][:1])
    return frozenset(stops)
