"""What speaks against a trace: its own verdict, and second opinions on what was derived from it.

Two signals, each a table of one row per admitted trace that it can speak of, with COLUMNS' keys as columns
(null: says nothing), `window` (when), `request` (equal for repeats), `stratum` (rows are compared within one)
and `failed`:

    failed        the trace's own verdict is fail                      strata: prompt name
    contradicted  what was derived from it met a second opinion        strata: curation run, verdict,
                  that disagrees                                               prompt name

A second opinion is a judgement on a derived row by another scorer than the trace's own. It disagrees where
    a step refused the row with a score under its threshold, or because equal questions had other answers; or
    the stored score is lower than 95 % of the passed traces of the same run, prompt name and scorer have.
Traces that never came to be judged so (not curated, poisoned, on another split, without a correction) do not
count.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from hashlib import blake2b
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from infra.settings import Settings
from lineage import tables, verdicts
from lineage.rows import CONFLICTING
from lineage.schemas import EXAMPLE, MIXED, NOT_APPLICABLE, REJECTED, TRACE, UNSTATED
from lineage.windows import windows

Signal = Literal["failed", "contradicted"]

COLUMNS = {
    "prompt": ("prompt_name", "prompt_version"),
    "source": ("source_uri", "source_revision"),
    "scorer": ("scorer", "scorer_revision"),
    "generator": ("generator", "generator_revision"),
    "reviewer": ("reviewer",),
}
"""What is looked at, and the provenance columns that say it."""

WINDOW = "window"
"""What is looked at if asked for: when it happened. Not unasked: each day or week is a test more, which all
others pay for, and what came on a day is suspect with the day."""

_LOW = 0.05  # the share of passed traces whose scores count as low: one in twenty false alarms, as in a test
_LEAST_PASSED = 20  # fewer passed traces than 1 / _LOW know no such score
_NOTHING = (UNSTATED, NOT_APPLICABLE, MIXED)


def admitted_traces(settings: Settings, sources: Sequence[str] = ("*",)) -> pa.Table:
    """Admitted traces whose source matches a pattern: row_id, verdict, COLUMNS' provenance, request, window.

    In the order of their ids, so that which of several repeats comes first is as good as drawn: an id is a
    digest and knows no prompt.
    """
    provenance = {name for names in COLUMNS.values() for name in names}
    columns = ["row_id", "verdict", "messages", "happened_at", "run_id", *sorted(provenance)]
    rows = verdicts.read_admitted(settings, TRACE, columns=columns)
    uris = [u for u in pc.unique(rows["source_uri"]).to_pylist() if any(fnmatchcase(u, s) for s in sources)]
    rows = rows.filter(pc.is_in(rows["source_uri"], pa.array(uris, pa.string())))
    asked = pa.chunked_array([_requests(chunk) for chunk in rows["messages"].chunks], pa.binary(16))
    rows = rows.append_column(WINDOW, windows(rows["happened_at"], rows["run_id"]))
    rows = rows.drop_columns(["messages", "happened_at", "run_id"])
    return rows.append_column("request", asked).sort_by("row_id")


def failed(traces: pa.Table) -> pa.Table:
    """Which judged traces failed, compared within what was asked for: prompts differ in how hard they are."""
    judged = traces.filter(pc.is_in(traces["verdict"], pa.array(["pass", "fail"])))
    return _evidence(judged, strata=[judged["prompt_name"]], failed=pc.equal(judged["verdict"], "fail"))


def contradicted(settings: Settings, traces: pa.Table) -> pa.Table:
    """Which curated traces met a second opinion that disagrees, by the first admitted curation of each.

    The first: an example that is stored is not stored again, so a later run tells only of what it refused.
    """
    runs = list(verdicts.admitted(settings, EXAMPLE))  # oldest first
    opinions = _opinions(settings, runs)
    at = pc.index_in(opinions["row_id"], traces["row_id"].combine_chunks())
    opinions = opinions.append_column("trace", at).filter(pc.is_valid(at))
    of = traces.take(opinions["trace"])
    own = _joined(of, "scorer", "scorer_revision")
    for name in ("verdict", "prompt_name"):
        opinions = opinions.append_column(name, of[name])
    second = pc.not_equal(opinions["scorer"], own)
    under = pc.fill_null(pc.less(opinions["score"], opinions["threshold"]), False)
    refuted = pc.or_(pc.and_(under, second), pc.fill_null(pc.equal(opinions["reason"], CONFLICTING), False))
    counts = pc.or_(pc.is_null(opinions["reason"]), refuted)  # else refused for what is no judgement of it
    low = pa.array(_is_low(opinions, second))
    opinions = opinions.append_column("disagrees", pc.or_(refuted, low)).filter(counts)
    trace = opinions["trace"].to_numpy()
    order = pc.index_in(opinions["run_id"], pa.array(runs, pa.string())).to_numpy()
    first = np.full(traces.num_rows, len(runs))
    np.minimum.at(first, trace, order)
    heard = order == first[trace]
    disagrees = np.zeros(traces.num_rows, bool)
    disagrees[trace[heard & opinions["disagrees"].to_numpy(zero_copy_only=False)]] = True
    # Where nobody objected to anything, as on most evaluation splits, nobody was asked.
    asked = np.bincount(first, weights=disagrees, minlength=len(runs) + 1) > 0
    reached = np.flatnonzero((first < len(runs)) & asked[first])
    rows = traces.take(pa.array(reached))
    run = pa.array(runs, pa.string()).take(pa.array(first[reached]))
    return _evidence(rows, strata=[run, rows["verdict"], rows["prompt_name"]], failed=disagrees[reached])


def _opinions(settings: Settings, runs: Sequence[str]) -> pa.Table:
    """What admitted curations said of stored rows: row_id, run_id, scorer, score, threshold, reason.

    The reason is null where the row went on.
    """
    judged = ["run_id", "scorer", "scorer_revision", "score", "threshold"]
    examples = verdicts.read_admitted(settings, EXAMPLE, columns=["parents", *judged]).combine_chunks()
    parents = examples["parents"].combine_chunks()
    accepted = examples.select(judged).take(pc.list_parent_indices(parents))
    accepted = accepted.append_column("row_id", pc.list_flatten(parents))
    accepted = accepted.append_column("reason", pa.nulls(accepted.num_rows, pa.string()))
    within = pads.field("run_id").isin(pa.array(runs, pa.string()))
    refused = tables.read(settings, REJECTED, columns=["row_id", "reason", *judged], where=within)
    both = pa.concat_tables([accepted.select(refused.column_names), refused]).combine_chunks()
    joined = _joined(both, "scorer", "scorer_revision")
    return both.drop_columns(["scorer", "scorer_revision"]).append_column("scorer", joined)


def _is_low(opinions: pa.Table, second: pa.ChunkedArray) -> np.ndarray:
    """Whose score is lower than that of 95 % of the passed traces of the same run, prompt name and scorer.

    Calibrated on what another judge had passed, as a conformal p-value is (Bates et al. 2023, Annals of
    Statistics 51:149): it needs no opinion on what a scorer's scale means, only that more is better.
    """
    scored = pc.and_(second, pc.is_valid(opinions["score"])).to_numpy(zero_copy_only=False)
    passed = pc.equal(opinions["verdict"], "pass").to_numpy(zero_copy_only=False)
    scores = opinions["score"].to_numpy(zero_copy_only=False)
    groups = codes(_joined(opinions, "run_id", "scorer", "prompt_name"))[0]
    low = np.zeros(len(scores), bool)
    for group in np.unique(groups[scored]):
        mine = scored & (groups == group)
        reference = scores[mine & passed]
        if len(reference) >= _LEAST_PASSED:
            low[mine] = scores[mine] < np.quantile(reference, _LOW, method="lower")
    return low


def _evidence(rows: pa.Table, *, strata: Sequence[Any], failed: Any) -> pa.Table:
    """The rows as lineage.suspects compares them."""
    found: dict[str, Any] = {"request": rows["request"]}
    found |= {column: _value(rows, names) for column, names in COLUMNS.items()}
    found[WINDOW] = rows[WINDOW]
    found["stratum"] = pc.binary_join_element_wise(*strata, "\x1f")
    return pa.table(found | {"failed": failed})


def _value(rows: pa.Table, names: Sequence[str]) -> pa.ChunkedArray:
    """NAME@VERSION per row, null where neither says anything."""
    said = [pc.invert(pc.is_in(rows[name], pa.array(_NOTHING))) for name in names]
    anything = said[0] if len(said) == 1 else pc.or_(*said)
    value = _joined(rows, *names, by="#" if names[0] == "source_uri" else "@")
    return pc.if_else(anything, value, pa.scalar(None, pa.string()))


def _requests(messages: pa.ListArray) -> pa.Array:
    """Digests of what was asked, system messages aside; equal in spite of case, width and white space."""
    message = pc.list_flatten(messages)
    content = pc.binary_join_element_wise(
        pc.fill_null(message.field("content"), ""), pc.fill_null(message.field("tool_calls"), ""), " "
    )
    asks = pc.invert(pc.is_in(message.field("role"), pa.array(["system", "developer"])))
    content = pc.utf8_lower(pc.utf8_normalize(pc.if_else(asks, content, ""), form="NFKC"))
    content = pc.utf8_trim_whitespace(pc.replace_substring_regex(content, r"\s+", " "))
    lengths = pc.list_value_length(messages).to_numpy(zero_copy_only=False)
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    asked = pc.binary_join(pa.ListArray.from_arrays(offsets, content), "\n").to_pylist()
    digests = [blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest() for text in asked]
    return pa.array(digests, pa.binary(16))


def _joined(rows: pa.Table, *names: str, by: str = "@") -> pa.ChunkedArray:
    return rows[names[0]] if len(names) == 1 else pc.binary_join_element_wise(*(rows[n] for n in names), by)


def codes(values: pa.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    """A number per row, -1 for null, and what the numbers stand for."""
    encoded = pa.chunked_array(values).combine_chunks().dictionary_encode()
    return encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False), encoded.dictionary.to_pylist()
