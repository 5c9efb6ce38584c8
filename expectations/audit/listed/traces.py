"""Damage to traces that is not in their provenance: exchanges torn apart, verdicts and answers lost."""

from __future__ import annotations

import datetime as dt
import random
from typing import Any

from expectations.audit.listed.noise import noise
from expectations.audit.listed.provenance import provenance
from expectations.audit.listed.texts import texts
from expectations.audit.planting import (
    ALL,
    ONE,
    Corruption,
    Plant,
    added,
    cell,
    fixed,
    kept,
    rows_anew,
    shifted,
    shuffled,
    swapped,
    without_hits,
)
from expectations.audit.sample import Sample

_OUTSIDE = "only the source knows how many there were; fsck balances what was read"
_CONTENT = "each answer is one that the model gives; only a judge could tell that it is to another question"


def traces() -> tuple[Corruption, ...]:
    """Everything that is planted in traces."""
    return (*noise("traces"), *provenance("traces"), *texts("traces", "response"), *_own())


def _own() -> tuple[Corruption, ...]:
    def of(
        kind: str,
        family: str,
        does: str,
        plant: Plant,
        rate: float = 0.1,
        among: tuple[tuple[str, str], ...] = (),
        why_not: str = "",
    ) -> Corruption:
        return Corruption(f"traces.{kind}", family, does, plant, rate, among, why_not)

    return (
        of("batch_empty", "size", "are none", kept(0), ALL),
        of("half_lost", "size", "are only half of them", kept(0.5), ALL, why_not=_OUTSIDE),
        of("failures_lost", "balance", "no longer hold a failure", without_hits, ALL, (("verdict", "fail"),)),
        of("passes_lost", "balance", "no longer hold a pass", without_hits, ALL, (("verdict", "pass"),)),
        of("messages_lost", "messages", "have no messages", fixed("messages", [])),
        of("messages_null", "messages", "have null for messages", fixed("messages", None)),
        of("roles_swapped", "messages", "have user and assistant exchanged", rows_anew(roles_swapped), 0.3),
        of("role_unknown", "messages", "have a role that is none", rows_anew(role_unknown)),
        of("content_null", "messages", "have messages without content", rows_anew(content_null)),
        of("user_lost", "messages", "have only the system's message", rows_anew(user_lost)),
        of("messages_twice", "messages", "have each message twice", cell("messages", doubled)),
        of("tool_calls_broken", "messages", "have tool calls that are no JSON",
           fixed("response_tool_calls", '[{"name": "open_ti')),
        of("extra_broken", "messages", "have an extra that is no JSON", fixed("extra", "{user: 7")),
        of("response_swapped", "swapped columns", "have question and answer exchanged",
           rows_anew(answer_for_question), 0.3),
        of("response_of_next", "shifted", "have the answer of the next row", shifted("response"), ALL,
           why_not=_CONTENT),
        of("responses_shuffled", "shifted", "have their answers dealt anew", shuffled("response"), ALL,
           why_not=_CONTENT),
        of("responses_lost", "values", "have no answer, the batch over", fixed("response", None), 0.3),
        of("response_truncated", "values", "have answers cut in a word", cell("response", cut), 0.3),
        of("verdict_null", "values", "have no verdict", fixed("verdict", None)),
        of("verdict_unknown", "values", "have 'ok' for a verdict", fixed("verdict", "ok")),
        of("verdict_inverted", "values", "have the opposite verdict", cell("verdict", opposite), ALL),
        of("verdicts_inverted_in_part", "values", "have the opposite verdict", cell("verdict", opposite)),
        of("score_and_threshold_swapped", "swapped columns", "have score and threshold exchanged",
           swapped("score", "threshold"), 0.3),
        of("score_constant", "scores", "have the score 1, failures too", fixed("score", 1.0), ALL),
        of("threshold_lost", "scores", "have a score and nothing that it is held against",
           fixed("threshold", None), 0.3),
        of("corrections_lost", "values", "failed and have no correction", fixed("correction", None), ALL,
           (("verdict", "fail"),), "a source need not know what is right"),
        of("correction_is_answer", "values", "failed, and are corrected to what they had said",
           rows_anew(corrected_to_itself), ALL, (("verdict", "fail"),)),
        of("prompt_version_lost", "missing provenance", "have lost the version of the prompt",
           fixed("prompt_version", "unstated"), 0.3),
        of("prompt_lost", "missing provenance", "have lost prompt and version", rows_anew(promptless), 0.3),
        of("tokens_negative", "values", "count tokens below 0", fixed("input_tokens", -7)),
        of("tokens_absurd", "values", "count a billion tokens", fixed("output_tokens", 10**9), ONE),
        of("tokens_swapped", "swapped columns", "have tokens in and out exchanged",
           swapped("input_tokens", "output_tokens"), ALL, why_not="either count may be the larger one"),
        of("model_lost", "values", "do not say which model answered", fixed("model_answered", None)),
        of("key_twice", "duplicates", "have the source's id of another", fixed("trace_key", "t-00000"), 0.3),
        of("happened_in_future", "freshness", "will happen next year", cell("happened_at", later), 0.3),
        of("happened_long_ago", "freshness", "happened five years ago", cell("happened_at", earlier), ALL),
        of("happened_null", "freshness", "do not say when", fixed("happened_at", None), ALL,
           why_not="a source need not say"),
        of("rows_twice", "duplicates", "are there twice, ids and all", again),
        of("same_exchange", "duplicates", "are all the same exchange", rows_anew(same), 0.5),
        of("pii_flag_lost", "personal data", "hold an address that no flag tells of",
           rows_anew(address_unflagged)),
        of("pii_flag_broken", "personal data", "have a flag that is no JSON", fixed("pii", "email")),
        of("one_generator", "flooding", "all come from one generator", added(flooding, times=4), ALL,
           why_not="production may have one model; the cap is on what trains (D1)"),
    )  # fmt: skip


def again(sample: Sample, places: list[int], rng: random.Random) -> Any:
    """Rows stored twice."""
    import pyarrow as pa

    return pa.concat_tables([sample.batch, sample.batch.take(places)]).combine_chunks()


def doubled(messages: list[dict], rng: random.Random) -> list[dict]:
    """Each message two times."""
    return [message for message in messages for _ in range(2)]


def roles_swapped(row: dict, rng: random.Random, sample: Sample) -> dict:
    """The user's word in the assistant's mouth."""
    other = {"user": "assistant", "assistant": "user"}
    return row | {"messages": [m | {"role": other.get(m["role"], m["role"])} for m in row["messages"]]}


def role_unknown(row: dict, rng: random.Random, sample: Sample) -> dict:
    """Roles of another format."""
    return row | {"messages": [m | {"role": "human"} for m in row["messages"]]}


def content_null(row: dict, rng: random.Random, sample: Sample) -> dict:
    """Messages that say nothing."""
    return row | {"messages": [m | {"content": None} for m in row["messages"]]}


def user_lost(row: dict, rng: random.Random, sample: Sample) -> dict:
    """Nobody asked."""
    return row | {"messages": [m for m in row["messages"] if m["role"] != "user"]}


def answer_for_question(row: dict, rng: random.Random, sample: Sample) -> dict:
    """The answer asked, and the question answered."""
    said = next(m["content"] for m in row["messages"] if m["role"] == "user")
    asked = [m | {"content": row["response"]} if m["role"] == "user" else m for m in row["messages"]]
    return row | {"messages": asked, "response": said}


def cut(said: str, rng: random.Random) -> str:
    """Two thirds of it, ending in a word."""
    return said[: len(said) * 2 // 3].rstrip(" .,;:")


def opposite(verdict: str, rng: random.Random) -> str:
    """Pass for fail, fail for pass."""
    return {"pass": "fail", "fail": "pass"}.get(verdict, verdict)


def corrected_to_itself(row: dict, rng: random.Random, sample: Sample) -> dict:
    """Wrong, and right all the same."""
    return row | {"correction": row["response"]}


def promptless(row: dict, rng: random.Random, sample: Sample) -> dict:
    """Neither name nor version."""
    return row | {"prompt_name": "unstated", "prompt_version": "unstated"}


def later(at: dt.datetime, rng: random.Random) -> dt.datetime:
    """A year on, after it was read."""
    return at + dt.timedelta(days=365)


def earlier(at: dt.datetime, rng: random.Random) -> dt.datetime:
    """Five years back."""
    return at - dt.timedelta(days=5 * 365)


def same(row: dict, rng: random.Random, sample: Sample) -> dict:
    """The batch's first question and answer."""
    first = sample.batch.slice(0, 1).to_pylist()[0]
    return row | {name: first[name] for name in ("messages", "response", "correction", "verdict", "score")}


def address_unflagged(row: dict, rng: random.Random, sample: Sample) -> dict:
    """Somebody's address in the answer, and nothing in `pii`."""
    return row | {"response": f"{row['response']} maria.huber@example-mail.org", "pii": None}


def flooding(row: Any, rng: random.Random) -> dict:
    """One model for all of them."""
    return {"generator": "flood", "generator_revision": "1"}
