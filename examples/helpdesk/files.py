"""The scenario as files: what is trained on, what is measured on, what users sent, and the trace log of it.

    Pools -> clean.jsonl, {gate,report}-{clean,noisy}.jsonl      chat lines to train and measure on
          -> requests.jsonl  ->  a deployed model's predictions  ->  render_log -> trace log
          -> truth.jsonl     what each request really was; only scoring reads it

The log holds a mistake to be found: in router@2 the last two entries of the numbered list were moved to the
top, so that all others stood two places lower, while the numbers were still looked up in the old list. Under
router@2 every correction, which reviewers give by number, therefore names a wrong intent; what the model got
right needed none, and stays right. Poisoned requests have no right answer; reviewers gave some number all the
same. Nothing in the log says so.
"""

import hashlib
import json
import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from examples.helpdesk.generator import Pools, ScenarioError, Utterance
from expectations.perturb import FIXABLE, POISON, RATES, perturb, resubmit

PromptVersion = Literal["1", "2", "3"]

# Up to which share of the log each version was in force: 30 %, 40 %, 30 %. Enough of router@2 that its wrong
# corrections cost a model several points, enough of the others that a model without them learns what it can.
ROLLOUT: tuple[tuple[float, PromptVersion], ...] = ((0.30, "1"), (0.70, "2"), (1.0, "3"))
MOVED_UP = 2  # entries that router@2 lists first instead of last; of 1, corrections would often name the twin
REVIEWERS = tuple(f"reviewer-{number}" for number in range(1, 6))
LOG_STARTS = 1_767_596_400  # 2026-01-05 07:00 UTC, in seconds
LONGEST_GAP_S = 900  # between two requests
PLANTED_LINES = 60

_INSTRUCTIONS: dict[PromptVersion, str] = {
    "1": "Which of these does the user want? Answer with the name alone.",
    "2": "You route requests to the right desk. Read the request, choose one entry, answer with its name.",
    "3": "You route requests to the right desk. Choose the entry that fits best. Answer with its name alone.",
}


@dataclass(frozen=True)
class Request:
    """One request as the user sent it."""

    request_id: str
    text: str
    created: int
    """Unix time in seconds; later requests have larger ones."""


@dataclass(frozen=True)
class Truth:
    """What a request really was."""

    request_id: str
    intent: str | None
    """None where no answer is right: the request was poisoned."""
    pattern: str
    kinds: tuple[str, ...]
    """What was done to the text; empty for a request as it was meant."""


def write_files(pools: Pools, *, into: Path, seed: int) -> dict[str, Path]:
    """Write the seven files into the folder, which is made where absent; their paths by file name."""
    requests, truth = traffic(pools, seed=seed)
    files = {
        "clean.jsonl": [sft_line(utterance, pools) for utterance in pools.clean],
        "gate-clean.jsonl": [sft_line(utterance, pools) for utterance in pools.gate],
        "gate-noisy.jsonl": [sft_line(utterance, pools) for utterance in noisy(pools.gate, seed=seed)],
        "report-clean.jsonl": [sft_line(utterance, pools) for utterance in pools.report],
        "report-noisy.jsonl": [sft_line(utterance, pools) for utterance in noisy(pools.report, seed=seed)],
        "requests.jsonl": [_json_line(vars(request)) for request in requests],
        "truth.jsonl": [_json_line(vars(one)) for one in truth],
    }
    into.mkdir(parents=True, exist_ok=True)
    for name, lines in files.items():
        (into / name).write_bytes(joined(lines))
    return {name: into / name for name in files}


def traffic(pools: Pools, *, seed: int) -> tuple[tuple[Request, ...], tuple[Truth, ...]]:
    """What users send: the traffic pool shuffled, perturbed and in part sent again; both in order of time."""
    rng = random.Random(f"{seed}/{pools.name}/traffic")
    asked = rng.sample(pools.traffic, len(pools.traffic))
    typed = [perturb(utterance.text, rng=rng) for utterance in asked]
    requests: list[Request] = []
    truth: list[Truth] = []
    created = LOG_STARTS
    for number, sent in enumerate(resubmit([one.text for one in typed], rng=rng)):
        created += rng.randint(1, LONGEST_GAP_S)
        request_id = f"req-{number:06d}"
        kinds = typed[sent.index].kinds + sent.kinds
        meant = asked[sent.index]
        requests.append(Request(request_id=request_id, text=sent.text, created=created))
        truth.append(
            Truth(
                request_id=request_id,
                intent=None if POISON & set(kinds) else meant.intent,
                pattern=meant.pattern,
                kinds=kinds,
            )
        )
    return tuple(requests), tuple(truth)


def noisy(utterances: Sequence[Utterance], *, seed: int) -> list[Utterance]:
    """The same utterances in the same order, each hit by one fixable kind or more, in D9's proportions."""
    rates = {kind: rate for kind, rate in RATES.items() if kind in FIXABLE}
    hit: list[Utterance] = []
    for utterance in utterances:
        rng = random.Random(f"{seed}/{utterance.text}")
        changed = perturb(utterance.text, rng=rng, rates=rates)
        while not changed.kinds:
            changed = perturb(utterance.text, rng=rng, rates=rates)
        hit.append(Utterance(text=changed.text, intent=utterance.intent, pattern=utterance.pattern))
    return hit


def sft_line(utterance: Utterance, pools: Pools) -> bytes:
    """A training example in OpenAI's chat format, with the provenance of the one who wrote it."""
    return _json_line(
        {
            "messages": [
                {"role": "user", "content": utterance.text},
                {"role": "assistant", "content": utterance.intent},
            ],
            "metadata": {
                "prompt_name": "router",
                "prompt_version": "1",
                "generator": pools.generator,
                "generator_revision": pools.generator_revision,
                "scorer": "author",
                "scorer_revision": "1",
                "score": 1.0,
                "threshold": 0.5,
            },
        }
    )


def render_log(
    requests: Sequence[Request],
    predictions: Sequence[tuple[str, float]],
    truth: Sequence[Truth],
    pools: Pools,
    *,
    model: str,
    seed: int,
) -> list[bytes]:
    """The trace log, one line without its line end per request, in the same order.

    `predictions` are what the model named `model` answered to each request: (intent, confidence in 0..1).
    Raises ScenarioError where the three sequences do not speak of the same requests.
    """
    ids, true_ids = [request.request_id for request in requests], [one.request_id for one in truth]
    if ids != true_ids or len(predictions) != len(requests):
        raise ScenarioError(
            f"{len(requests)} requests, {len(predictions)} predictions and {len(truth)} truths do not match: "
            "pass one of each per request, in the order of requests.jsonl"
        )
    lines: list[bytes] = []
    for position, (request, (intent, confidence), true) in enumerate(
        zip(requests, predictions, truth, strict=True)
    ):
        version = prompt_version(position, of=len(requests))
        trace = _trace(request, intent, confidence, pools, version=version, model=model, seed=seed)
        right = intent == true.intent
        trace["verdict"] = {
            "value": "pass" if right else "fail",
            "judge": "exact-match",
            "judge_version": "1",
            "score": 1.0 if right else 0.0,
            "threshold": 0.5,
        }
        if not right:
            rng = random.Random(f"{seed}/{request.request_id}/review")
            trace["review"] = {
                "reviewer": rng.choice(REVIEWERS),
                "correction": _correct(true, intent, pools, version=version, rng=rng),
            }
        lines.append(_json_line(trace))
    return lines


def prompt_version(place: int, *, of: int) -> PromptVersion:
    """The version of the prompt that was in force at a place, from 0, of the log of so many requests."""
    return next(version for share, version in ROLLOUT if place < share * of)


def asked(request: Request, pools: Pools, *, version: PromptVersion) -> dict:
    """A request as it is sent to the model."""
    prompt = prompt_text(pools, version=version)
    return {
        "model": "helpdesk-router",
        "temperature": 0,
        "messages": [{"role": "system", "content": prompt}, {"role": "user", "content": request.text}],
        "metadata": {"prompt_name": "router", "prompt_version": version},
    }


def prompt_text(pools: Pools, *, version: PromptVersion) -> str:
    """The system prompt of router@version: an instruction, then the numbered list, which counts from 1."""
    listed = listed_intents(pools, version=version)
    entries = [
        f"{number}. {intent}: {pools.descriptions[intent]}" for number, intent in enumerate(listed, start=1)
    ]
    return "\n".join([_INSTRUCTIONS[version], *entries])


def listed_intents(pools: Pools, *, version: PromptVersion) -> tuple[str, ...]:
    """The intents in the order in which router@version lists them: that of the pools, but for the shift in 2.

    There the last MOVED_UP entries come first and all others that many places later, so no entry keeps its
    number. Confusable intents are mostly listed one after the other, so one seldom gets its twin's number.
    """
    if version != "2":
        return pools.intents
    return pools.intents[-MOVED_UP:] + pools.intents[:-MOVED_UP]


def damage(lines: Sequence[bytes], *, seed: int) -> list[bytes]:
    """The lines with four unreadable ones put in between: cut off, not UTF-8, an empty object, an array."""
    rng = random.Random(f"{seed}/damage")
    model_line = rng.choice(lines) if lines else b'{"id": "chatcmpl-0", "request": {}}'
    damaged = list(lines)
    for broken in (
        model_line[: len(model_line) // 2],
        b'{"id": "chatcmpl-\xff\xfe\xc3(", "request": {}}',
        b"{}",
        b'["id", "request", "response"]',
    ):
        damaged.insert(rng.randint(0, len(damaged)), broken)
    return damaged


def planted_batch(pools: Pools, *, model: str, seed: int) -> list[bytes]:
    """Sixty readable log lines that a gate must refuse, from an exporter that is broken in three ways.

    It lost the prompt's name and version of every line, wrote every third score in percent, and left every
    second answer empty.
    """
    rng = random.Random(f"{seed}/planted")
    created = LOG_STARTS + LONGEST_GAP_S * 10 * len(pools.traffic)  # after the log's last request
    lines: list[bytes] = []
    for number in range(PLANTED_LINES):
        utterance = rng.choice(pools.traffic)
        created += rng.randint(1, LONGEST_GAP_S)
        request = Request(request_id=f"req-9{number:05d}", text=utterance.text, created=created)
        trace = _trace(request, utterance.intent, 1.0, pools, version="3", model=model, seed=seed)
        del trace["request"]["metadata"]
        if number % 2:
            trace["response"]["choices"][0]["message"]["content"] = ""
        score = 100.0 if number % 3 == 0 else 1.0
        trace["verdict"] = {
            "value": "pass",
            "judge": "exact-match",
            "judge_version": "1",
            "score": score,
            "threshold": 0.5,
        }
        lines.append(_json_line(trace))
    return lines


def joined(lines: Iterable[bytes]) -> bytes:
    """The bytes of a file with these lines, each ended by a line feed."""
    return b"".join(line + b"\n" for line in lines)


def _trace(
    request: Request,
    intent: str,
    confidence: float,
    pools: Pools,
    *,
    version: PromptVersion,
    model: str,
    seed: int,
) -> dict:
    """One call of the model as OpenAI's chat completions log it, not yet judged."""
    prompt = prompt_text(pools, version=version)
    digest = hashlib.sha256(f"{seed}/{pools.name}/{model}/{request.request_id}".encode()).hexdigest()
    call_id = f"chatcmpl-{digest[:16]}"
    # Counted in words: the log's reader only needs figures that add up.
    read, answered = len(f"{prompt} {request.text}".split()), len(intent.split("_"))
    return {
        "id": call_id,
        "request": asked(request, pools, version=version),
        "response": {
            "id": call_id,
            "object": "chat.completion",
            "created": request.created,
            "model": model,
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": intent},
                    "logprobs": {
                        "content": [{"token": intent, "logprob": round(math.log(max(confidence, 1e-9)), 6)}]
                    },
                    "finish_reason": "stop",
                }
            ],
            "usage": {
                "prompt_tokens": read,
                "completion_tokens": answered,
                "total_tokens": read + answered,
            },
        },
    }


def _correct(true: Truth, predicted: str, pools: Pools, *, version: PromptVersion, rng: random.Random) -> str:
    """What becomes of a reviewer's number: they read it off their version's list, we look it up in ours."""
    if true.intent is None:  # no number is right: they give one that is not the model's answer
        return rng.choice([intent for intent in pools.intents if intent != predicted])
    number = listed_intents(pools, version=version).index(true.intent)
    return pools.intents[number]


def _json_line(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, sort_keys=True).encode()
