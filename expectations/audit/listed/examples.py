"""Damage to examples that is not in their provenance: labels, leaks, floods, answers that teach nothing."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from expectations.audit.listed.noise import nearly, noise
from expectations.audit.listed.provenance import parents, provenance
from expectations.audit.listed.texts import texts
from expectations.audit.listed.traces import again, cut
from expectations.audit.planting import (
    ALL,
    ONE,
    Corruption,
    Plant,
    added,
    cell,
    evaluated,
    fixed,
    kept,
    rows_anew,
    shifted,
    shuffled,
    swapped,
    with_text,
    without_hits,
)
from expectations.audit.sample import Sample
from lineage.spans import Span, write_spans

_TRAIN = (("split", "train"),)
_SORT = (("task", "classification"),)
_SORT_TRAIN = (*_TRAIN, *_SORT)
_TELL_TRAIN = (*_TRAIN, ("task", "generation"))
_FLOOD = 700  # D1 lets 600 rows of one generator in
_JUDGE = "only who knows the right answer can tell; a step that asks a judge stores a score"


def examples() -> tuple[Corruption, ...]:
    """Everything that is planted in examples."""
    return (
        *noise("examples"),
        *provenance("examples"),
        *parents("examples"),
        *texts("examples", "answer", among=_TELL_TRAIN),
        *_values(),
        *_splits(),
        *_balance(),
    )


def _of(
    kind: str,
    family: str,
    does: str,
    plant: Plant,
    rate: float = 0.1,
    among: tuple[tuple[str, str], ...] = (),
    why_not: str = "",
) -> Corruption:
    return Corruption(f"examples.{kind}", family, does, plant, rate, among, why_not)


def _values() -> tuple[Corruption, ...]:
    return (
        _of("batch_empty", "size", "are none", kept(0), ALL),
        _of("half_lost", "size", "are only half of them", kept(0.5), ALL,
            why_not="only the step knows how many there were; fsck balances what went in and out"),
        _of("text_null", "values", "have no text", fixed("text", None)),
        _of("text_and_answer_swapped", "swapped columns", "have text and answer exchanged",
            swapped("text", "answer"), 0.3, _SORT),
        _of("text_is_not_asked", "messages", "have the text of the next row", shifted("text"), 0.3),
        _of("messages_lost", "messages", "have no messages", fixed("messages", [])),
        _of("messages_null", "messages", "have null for messages", fixed("messages", None)),
        _of("role_unknown", "messages", "have a role that is none", rows_anew(human)),
        _of("answer_in_messages", "messages", "have the answer among the messages", rows_anew(told_already)),
        _of("text_is_label", "leakage", "say their label in the text", rows_anew(label_said), 0.3,
            _SORT_TRAIN, "a question may well name the team that it is for"),
        _of("text_too_long", "values", "are thirty thousand characters long",
            rows_anew(lambda row, rng, _: with_text(row, f"{row['text']} " + "so it goes on " * 2200)), ONE),
        _of("text_truncated_hard", "values", "are three letters long",
            rows_anew(lambda row, rng, _: with_text(row, (row["text"] or "")[:3])), 0.2),
        _of("task_null", "values", "have no task", fixed("task", None)),
        _of("task_unknown", "values", "have an unknown task", fixed("task", "ranking")),
        _of("kind_unknown", "values", "are of an unknown kind", fixed("kind", "gold")),
        _of("kind_is_lie", "values", "say that they were corrected, and passed", fixed("kind", "corrected"),
            0.3, (("kind", "passed"),), "a passed trace may be corrected by a person"),
        _of("condition_unknown", "values", "are under an unknown condition", fixed("condition", "loud")),
        _of("condition_on_train", "values", "train, and say clean", fixed("condition", "clean"), 0.3, _TRAIN),
        _of("condition_lost", "values", "are scored on, and say neither clean nor noisy",
            fixed("condition", "not_applicable"), 0.3, (("split", "gate"),)),
        _of("tasks_exchanged", "values", "are said to be of the other task",
            fixed("task", "generation"), 0.3, _SORT_TRAIN),
        _of("score_and_threshold_swapped", "swapped columns", "have score and threshold exchanged",
            swapped("score", "threshold"), 0.3, _TRAIN),
        _of("score_below_threshold", "scores", "fall short of their threshold", fixed("score", 0.49), ONE,
            _TRAIN),
        _of("score_lost", "scores", "have no score", fixed("score", None), 0.05, _TRAIN),
        _of("threshold_lost", "scores", "have nothing that their score is held against",
            fixed("threshold", None), 0.05, _TRAIN),
        _of("threshold_zero", "scores", "are held against 0", fixed("threshold", 0.0), ALL, _TRAIN),
        _of("score_constant", "scores", "all have the score 1", fixed("score", 1.0), ALL, _TRAIN,
            "a judge that says yes or no has but two scores"),
        _of("answer_too_short", "answers", "are answered in three words",
            cell("answer", lambda said, _: " ".join(said.split()[:3])), 0.3, _TELL_TRAIN),
        _of("answer_too_long", "answers", "are answered in two thousand words",
            cell("answer", lambda said, rng: rambling(said, rng)), 0.05, _TELL_TRAIN),
        _of("answer_truncated", "answers", "are answered up to the middle of a sentence", cell("answer", cut),
            0.3, _TELL_TRAIN),
        _of("answer_refuses", "answers", "are refused", fixed("answer", _REFUSAL), 0.3, _TELL_TRAIN),
        _of("answer_shuffled", "answers", "are answered in words without order", cell("answer", disorder),
            0.3, _TELL_TRAIN, "coherence is a score that a step with a model stores"),
        _of("answer_echoes", "answers", "are answered with the question", rows_anew(echo), 0.3, _TELL_TRAIN),
        _of("answers_all_one", "answers", "all have the same answer", fixed("answer", _SAME), ALL,
            _TELL_TRAIN),
        _of("rejected_unasked", "answers", "turn away from an answer, and prefer none",
            fixed("rejected", _SAME)),
        _of("preference_alone", "answers", "are said to prefer, and turn away from nothing",
            fixed("task", "preference"), 0.3, _TELL_TRAIN),
        _of("preference_of_equals", "answers", "turn away from the very answer that they prefer",
            rows_anew(lambda row, *_: row | {"task": "preference", "rejected": row["answer"]}), 0.1,
            _TELL_TRAIN),
        _of("tool_calls_cut", "answers", "have tool calls that break off",
            fixed("answer_tool_calls", '[{"type": "function", "functi'), 0.1, _TELL_TRAIN),
        _of("spans_are_words", "answers", "are said to name spans, and name a label",
            fixed("task", "tagging"), 0.1, _SORT_TRAIN),
        _of("spans_beyond_text", "answers", "name a span that ends after their text", rows_anew(beyond), 0.1,
            _SORT_TRAIN),
        _of("answer_speaks_of_source", "answers", "are answered from a document that is not there",
            cell("answer", lambda said, _: f"According to the provided document, {said}"), 0.3, _TELL_TRAIN,
            "a step that wrote from a document rejects such answers (B4)"),
    )  # fmt: skip


def _splits() -> tuple[Corruption, ...]:
    return (
        _of("split_null", "splits", "are on no split", fixed("split", None)),
        _of("split_unknown", "splits", "are on a split that is none", fixed("split", "test")),
        _of("split_wrong", "splits", "of training stand on the gate's split", fixed("split", "gate"), 0.1,
            _TRAIN),
        _of("split_by_line", "splits", "were split by line, not by source", cell("split", any_split), 0.5),
        _of("leaked_exactly", "leakage", "train on what is scored, word for word", rows_anew(leak(exactly)),
            ONE, _SORT_TRAIN),
        _of("leaked_respelled", "leakage", "train on what is scored, in capitals and with more blanks",
            rows_anew(leak(respelled)), ONE, _SORT_TRAIN),
        _of("leaked_nearly", "leakage", "train on what is scored, with a word more", rows_anew(leak(almost)),
            0.03, _SORT_TRAIN),
        _of("leaked_inside", "leakage", "train on what is scored, inside a longer text",
            rows_anew(leak(inside)), 0.03, _SORT_TRAIN),
        _of("leaked_reordered", "leakage", "train on what is scored, its clauses in another order",
            rows_anew(leak(reordered)), 0.03, _SORT_TRAIN),
        _of("leaked_admitted", "leakage", "train on what an admitted batch is scored on",
            rows_anew(leak(exactly, own=False)), ONE, _SORT_TRAIN),
        _of("leaked_answers", "leakage", "train on an answer that is scored", rows_anew(answer_leak), 0.05,
            _TELL_TRAIN),
        _of("leaked_in_system", "leakage", "train with what is scored among their messages",
            rows_anew(shown_before), 0.03, _SORT_TRAIN),
        _of("leaked_paraphrased", "leakage", "train on what is scored, in other words",
            rows_anew(leak(paraphrased)), 0.03, _SORT_TRAIN,
            "needs the meaning; embedding decontamination is a step's score"),
    )  # fmt: skip


def _balance() -> tuple[Corruption, ...]:
    return (
        _of("labels_of_next", "shifted", "have the label of the next row", shifted("answer"), ALL, _SORT,
            _JUDGE),
        _of("labels_shuffled", "shifted", "have their labels dealt anew", shuffled("answer"), ALL, _SORT,
            _JUDGE),
        _of("answers_of_next", "shifted", "have the answer of the next row", shifted("answer"), ALL,
            _TELL_TRAIN, _JUDGE),
        _of("label_misspelt", "labels", "have a label with a blank and a capital in it",
            cell("answer", lambda said, _: f" {said.capitalize()}"), 0.1, _SORT),
        _of("label_is_number", "labels", "have a number for a label",
            cell("answer", lambda said, _: str(len(said))), 0.3, _SORT),
        _of("label_is_sentence", "labels", "have a sentence for a label",
            cell("answer", lambda said, _: f"The right team for this is {said}, I believe."), 0.1, _SORT),
        _of("label_floods", "flooding", "nearly all have one label", fixed("answer", "mail"), 0.85,
            _SORT_TRAIN),
        _of("label_alone", "labels", "all have one label", fixed("answer", "mail"), ALL, _SORT),
        _of("label_lost", "labels", "of one label are missing from training", without_hits, ALL,
            (*_SORT_TRAIN, ("answer", "mail"))),
        _of("contradicted", "labels", "come again with another answer", added(contradict), 0.1, _SORT_TRAIN),
        _of("rows_twice", "duplicates", "are there twice, ids and all", again),
        _of("duplicates_across_answers", "duplicates", "have all the same text",
            rows_anew(lambda row, *_: with_text(row, "please help me with the thing on my desk")), 0.3,
            _TRAIN),
        _of("duplicate_of_admitted", "duplicates", "repeat what is admitted already", rows_anew(repeat), 0.1,
            _SORT_TRAIN),
        _of("near_duplicate_of_admitted", "duplicates", "repeat what is admitted, with a word more",
            rows_anew(repeat_nearly), 0.1, _SORT_TRAIN),
        _of("generator_floods", "flooding", "come with 700 more by one generator", flood, ALL, _TRAIN),
        _of("entity_floods", "flooding", "all speak of one and the same thing", rows_anew(one_entity), 0.3,
            _SORT_TRAIN),
        _of("pattern_rules", "flooding", "of a label all follow one pattern", rows_anew(one_pattern), ALL,
            (*_SORT_TRAIN, ("answer", "mail"))),
        _of("lengths_differ", "flooding", "are eight times as long as what is scored", rows_anew(longer), ALL,
            _SORT_TRAIN),
    )  # fmt: skip


_REFUSAL = "I'm sorry, but as an AI language model I cannot help you with that request, please ask somebody."
_SAME = "Please restart the device and wait for a minute, then call the desk if the light is still red."


def human(row: dict, rng: random.Random, sample: Sample) -> dict:
    """Roles of another format."""
    return row | {"messages": [m | {"role": "human"} for m in row["messages"]]}


def told_already(row: dict, rng: random.Random, sample: Sample) -> dict:
    """What is to be learnt stands in what is asked."""
    return row | {"messages": [*row["messages"], {"role": "assistant", "content": row["answer"]}]}


def label_said(row: dict, rng: random.Random, sample: Sample) -> dict:
    """The label before the question."""
    return with_text(row, f"{row['answer']}: {row['text']}")


def rambling(said: str, rng: random.Random) -> str:
    """Two thousand words without an end, few pairs of them the same."""
    words = said.split()
    return " ".join(f"{rng.choice(words)}{rng.randrange(400)}" for _ in range(2000))


def disorder(said: str, rng: random.Random) -> str:
    """The words dealt anew."""
    words = said.split()
    rng.shuffle(words)
    return " ".join(words)


def echo(row: dict, rng: random.Random, sample: Sample) -> dict:
    """The question back."""
    return row | {"answer": row["text"]}


def beyond(row: dict, rng: random.Random, sample: Sample) -> dict:
    """The label for a span of one character too many."""
    span = Span(0, len(row["text"]) + 1, row["answer"])
    return row | {"task": "tagging", "answer": write_spans([span])}


def any_split(split: str, rng: random.Random) -> str:
    """One of the three."""
    return rng.choice(("train", "train", "gate", "report"))


def leak(change: Any, *, own: bool = True) -> Any:
    """What a model is scored on, changed in some way, for a training text."""

    def leaked(row: dict, rng: random.Random, sample: Sample) -> dict:
        scored = sample if own else Sample(sample.table, sample.batch.slice(0, 0), sample.admitted)
        return with_text(row, change(rng.choice(evaluated(scored, task="classification"))["text"], rng))

    return leaked


def exactly(said: str, rng: random.Random) -> str:
    """As it stands."""
    return said


def respelled(said: str, rng: random.Random) -> str:
    """Equal to any reader."""
    return f"  {said.upper().replace(' ', '  ')} "


def almost(said: str, rng: random.Random) -> str:
    """A word more."""
    return nearly({"text": said}, rng)["text"]


def inside(said: str, rng: random.Random) -> str:
    """Between two sentences of talk."""
    return (
        f"A colleague asked me this yesterday and I had no answer at all: {said} That is all I know about it."
    )


def reordered(said: str, rng: random.Random) -> str:
    """The second half before the first."""
    words = said.split()
    return " ".join(words[len(words) // 2 :] + words[: len(words) // 2])


def paraphrased(said: str, rng: random.Random) -> str:
    """Most words replaced by others, letter by letter unlike them."""
    return " ".join(word if at % 3 == 0 else f"{word[::-1]}" for at, word in enumerate(said.split()))


def answer_leak(row: dict, rng: random.Random, sample: Sample) -> dict:
    """The answer to a scored question, and the question inside a longer one."""
    scored = rng.choice(evaluated(sample, task="generation"))
    return with_text(row, inside(scored["text"], rng)) | {"answer": scored["answer"]}


def shown_before(row: dict, rng: random.Random, sample: Sample) -> dict:
    """A scored question with its answer as an example in the system's message."""
    scored = rng.choice(evaluated(sample, task="classification"))
    shown = {"role": "system", "content": f"For example: {scored['text']} -> {scored['answer']}"}
    return row | {"messages": [shown, *row["messages"]]}


def contradict(row: Mapping, rng: random.Random) -> dict:
    """Another label for the same question."""
    return {"answer": "mail" if row["answer"] != "mail" else "leave"}


def _stored(sample: Sample) -> list[dict]:
    stored = sample.admitted.get("examples")
    rows = [] if stored is None else stored.to_pylist()
    return [row for row in rows if row["split"] == "train" and row["task"] == "classification"]


def repeat(row: dict, rng: random.Random, sample: Sample) -> dict:
    """Text, answer and messages of an admitted training row."""
    stored = _stored(sample)
    return row | _copy(rng.choice(stored)) if stored else row


def repeat_nearly(row: dict, rng: random.Random, sample: Sample) -> dict:
    """The same with a word more."""
    repeated = repeat(row, rng, sample)
    return nearly(repeated, rng) if repeated is not row else row


def _copy(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("text", "messages", "answer")}


def flood(sample: Sample, places: list[int], rng: random.Random) -> pa.Table:
    """Rows of one generator, each of halves of two others, and with a number of its own."""
    rows = sample.batch.to_pylist()
    hit = [rows[place] for place in places]
    times = -(-_FLOOD // len(hit))
    more = added(times=times)(sample, places, rng).slice(len(rows)).slice(0, _FLOOD)
    new = more.to_pylist()
    for index, row in enumerate(new):
        one, other = rng.choice(hit)["text"].split(), rng.choice(hit)["text"].split()
        said = [*one[: len(one) // 2], f"no. {index}", *other[len(other) // 2 :]]
        row |= with_text(row, " ".join(said)) | {"generator": "flood", "generator_revision": "1"}
    return pa.concat_tables([sample.batch, pa.Table.from_pylist(new, schema=sample.batch.schema)])


def one_entity(row: dict, rng: random.Random, sample: Sample) -> dict:
    """The same name in each text."""
    return with_text(row, f"{row['text']} This is about contract AX-4711 of Huber Logistics.")


def one_pattern(row: dict, rng: random.Random, sample: Sample) -> dict:
    """One sentence, with another thing in it each time."""
    return with_text(row, f"Please forward item {rng.randrange(10_000)} to my mailbox before the day is over")


def longer(row: dict, rng: random.Random, sample: Sample) -> dict:
    """Seven other questions after it."""
    texts = sample.batch["text"].to_pylist()
    return with_text(row, " ".join([row["text"], *rng.sample(texts, min(7, len(texts)))]))
