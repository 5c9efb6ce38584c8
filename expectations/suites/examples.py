"""Examples as their rules see them: what is asked and answered, and where each stands among the splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from expectations.suites import answers, likeness, noise, provenance, splits, spread, talk
from expectations.suites.provenance import filled, where
from expectations.suites.suite import Admitted
from lineage.inputs import inputs
from lineage.schemas import DOCUMENT, EXAMPLE, MIXED, NOT_APPLICABLE, REDACTED, TRACE, UNSTATED
from lineage.tasks import ANSWER_COLUMNS, TALKS, TASKS

if TYPE_CHECKING:
    import pandas as pd

SETS = {
    "task": TASKS,
    "split": ("train", "gate", "report"),
    "kind": ("stated", "corrected", "passed"),
    "condition": ("clean", "noisy", NOT_APPLICABLE),
}
MANY = 30  # rows, by which a whole export rather than a few additions is meant
_NO_GENERATOR = (UNSTATED, NOT_APPLICABLE, MIXED, "human")
_SECRETS = (
    r'"(?:private_key|jwt|aws_key|github_token|api_key|google_key|slack_token|secret)"'  # kinds in `pii`
)


def keys(batch: pa.Table) -> pa.Table:
    """Those of provenance, and of each row what it asks, what it is a copy of, its split, task and label."""
    batch = filled(batch)
    asked = inputs(batch)
    said = (batch[name].to_pylist() for name in (*ANSWER_COLUMNS, "split", "condition"))
    twins = ["\0".join(parts) for parts in zip(asked, *said, strict=True)]
    is_class = pc.equal(batch["task"], "classification")
    trains = pc.equal(batch["split"], "train")
    no_text = pa.scalar(None, pa.string())
    signed = likeness.signatures(likeness.words(pa.array(asked, pa.string())))
    added = {
        "asked": splits.digests(asked),
        "twin": splits.digests(twins),
        "split": pc.dictionary_encode(batch["split"]),
        "task": pc.dictionary_encode(batch["task"]),
        "label": pc.if_else(is_class, batch["answer"], no_text),
        "pattern": pc.if_else(pc.and_(is_class, trains), spread.pattern(batch["text"]), no_text),
        "answered": spread.hashed(
            pc.binary_join_element_wise(batch["answer"], batch["answer_tool_calls"], "\0")
        ),
        "words": pa.array(noise.sizes(batch["text"]), pa.int32()),
        "signature": likeness.as_column(signed),
        "scored_runs": splits.scored_runs(batch["text"], ~trains.to_numpy()),
    }
    return _with(provenance.keys(batch), added)


def facts(keys: pa.Table, admitted: Admitted) -> pa.Table:
    """Those of provenance, and how each row stands to the split of its batch and of what is admitted.

    The metadata of the table hold what models are scored on: each block's texts are held against it.
    """
    keys = _decoded(keys, ("split", "task"))
    others = splits.Others.of(keys, admitted)
    trains = pc.equal(keys["split"], "train").to_numpy()
    scored, held = splits.scored_of(keys, others, trains)
    on_one = splits.on_one_split(keys["asked"], keys["split"], others.digests, others.splits)
    repeats = np.maximum(splits.likeness_elsewhere(keys, others), held)
    added = {
        "labels_of_split": splits.labels_of_split(keys, admitted),
        "source_on_one_split": splits.source_on_one_split(keys, admitted),
        "input_on_one_split": on_one,
        "repeats_other_split": pa.array(repeats, mask=~on_one.to_numpy()),  # word for word: the rule above
        "is_duplicate_free": provenance.occurs_once(keys["twin"]),
        "repeats_row_before": splits.likeness_in_training(keys, trains),
        "fewest_patterns": provenance.measure(
            spread.fewest_patterns(keys["label"], keys["pattern"]), keys.num_rows
        ),
        "same_answer": provenance.measure(_same_answer(keys, trains), keys.num_rows),
        "trained_labels": provenance.measure(_labels_here(keys), keys.num_rows),
        "length_distance": provenance.measure(splits.length_distance(keys, others, trains), keys.num_rows),
        "parent_holds_no_secret": _parents_hold_no_secret(keys, admitted),
    }
    known = _with(provenance.facts(keys, admitted, spec=EXAMPLE), added)
    return known.replace_schema_metadata(scored.as_metadata())


def view(batch: pa.Table, facts: pa.Table) -> pd.DataFrame:
    """One flat row per example."""
    import pandas as pd

    flat = provenance.view(batch, facts, spec=EXAMPLE)
    for name in SETS:
        flat[name] = batch[name].to_pandas()
    calls = answers.calls_tools(batch)
    for name in ("text", "answer"):
        flat[f"{name}_characters"] = pc.utf8_length(pc.utf8_trim_whitespace(batch[name])).to_pandas()
    flat["answer_characters"] = where(flat["answer_characters"], ~calls)
    trained = flat["split"] == "train"
    passed = flat["score"].notna() & flat["threshold"].notna() & (flat["score"] >= flat["threshold"])
    flat["reaches_threshold"] = where(passed, trained)
    flat["trained_label"] = where(batch["answer"].to_pandas(), trained & (flat["task"] == "classification"))
    generated = trained & flat["task"].isin(TALKS)
    flat["generated_by"] = where(flat["generator"], generated & ~flat["generator"].isin(_NO_GENERATOR))
    no_text = pa.scalar(None, pa.string())
    talks = pc.is_in(batch["task"], pa.array(TALKS))  # a label is no text, nor are spans
    sentences = pc.if_else(pc.and_(talks, pc.not_equal(batch["answer"], "")), batch["answer"], no_text)
    flat = flat.assign(**noise.view("text", batch["text"]), **noise.view("answer", sentences))
    flat["trained_threshold"] = flat["threshold"].where(trained)
    flat["is_asked_last"] = talk.is_asked_last(batch["messages"])
    flat["condition_fits_split"] = where(flat["condition"] == NOT_APPLICABLE, trained)
    flat["roles_are_known"] = talk.roles_are_known(batch["messages"])
    flat["text_is_asked"] = pc.fill_null(
        pc.equal(batch["text"], talk.last_of_user(batch["messages"])), False
    ).to_pandas()
    flat["rejected_fits_task"] = answers.rejected_fits_task(batch)
    flat["spans_fit_text"] = answers.spans_fit_text(batch)
    flat["tool_calls_are_listed"] = answers.tool_calls_are_listed(batch)
    flat["is_decoded"] = pc.and_(
        noise.is_decoded(batch["text"]), noise.is_decoded(batch["answer"])
    ).to_pandas()
    scored = likeness.Scored.from_metadata(facts.schema.metadata)
    if len(scored.runs):
        said = splits.all_said(batch).filter(pa.array(trained))
        held, _ = scored.shares_in(likeness.words(said))
        flat.loc[trained, "repeats_other_split"] = np.maximum(flat["repeats_other_split"][trained], held)
    spoken = batch["answer"].filter(pa.array(generated))
    echoes = pc.equal(spoken, batch["text"].filter(pa.array(generated))).to_pandas()
    refuses = pc.match_substring_regex(spoken, noise.REFUSAL).to_pandas()
    of_answers = {
        "answer_noise": noise.noise(spoken).to_pylist(),
        "answer_answers": ~(echoes.to_numpy(bool, na_value=False) | refuses.to_numpy(bool, na_value=False)),
    }
    for name, values in of_answers.items():
        column = pd.Series(None, index=flat.index, dtype=object)
        column[generated] = values
        flat[name] = column
    flat["generated_words"] = where(flat["answer_words"], generated & ~calls)
    flat["generated_repetition"] = where(flat["answer_repetition"], generated)
    return flat


def _with(table: pa.Table, columns: Mapping[str, Any]) -> pa.Table:
    for name, values in columns.items():
        table = table.append_column(name, pa.array(values) if isinstance(values, np.ndarray) else values)
    return table


def _same_answer(keys: pa.Table, trains: np.ndarray) -> float | None:
    """Share of the most frequent of the generated training answers; None of few."""
    mine = trains & pc.is_in(keys["task"], pa.array(TALKS)).to_numpy()
    given = keys["answered"].to_numpy()[mine]
    if len(given) < MANY:
        return None
    return float(np.unique(given, return_counts=True)[1].max() / len(given))


def _labels_here(keys: pa.Table) -> int | None:
    """Different labels of the batch's training rows; None of few rows: more may be admitted with them."""
    trained = keys["label"].filter(pc.is_valid(keys["pattern"]))
    return pc.count_distinct(trained).as_py() if len(trained) >= MANY else None


def _parents_hold_no_secret(keys: pa.Table, admitted: Admitted) -> pa.Array:
    """Of each derived row whether in none of its parents a secret was found and left as it is."""
    _, numbers, rows = provenance.parents_of(keys)
    holds = np.ones(keys.num_rows, np.bool_)
    if len(numbers):
        for spec in (TRACE, DOCUMENT):
            condition = provenance.numbered(numbers.unique()) & pads.field("pii").is_valid()
            found = admitted(spec, ["row_no", "pii", "step"], condition)
            holding = pc.and_not(
                pc.match_substring_regex(found["pii"], _SECRETS), pc.ends_with(found["step"], REDACTED)
            )
            known = found["row_no"].filter(holding).combine_chunks()
            holds[rows[pc.is_in(numbers, value_set=known).to_numpy(False)]] = False
    derived = np.bincount(rows, minlength=keys.num_rows) > 0
    return pa.array(holds, mask=~derived)


def _decoded(keys: pa.Table, names: Sequence[str]) -> pa.Table:
    for name in names:
        keys = keys.set_column(keys.column_names.index(name), name, keys[name].cast(pa.string()))
    return keys
