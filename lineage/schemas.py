"""Every stored table, said once: its columns, its keys, its writer: one, but for `rejected`.

docs/tables.md is generated from here by lineage/catalogue.py.

Two kinds of tables. *Row tables* (traces, documents, examples) carry the provenance columns on every row.
*Books* (runs, verdicts, consumption, ...) record what happened; each is written by one module.
"""

from __future__ import annotations

import pyarrow as pa

from lineage.columns import MESSAGE, TIMESTAMP, Column, TableSpec
from lineage.columns import MIXED as MIXED
from lineage.columns import NOT_APPLICABLE as NOT_APPLICABLE
from lineage.columns import PROVENANCE as PROVENANCE
from lineage.columns import STATED as STATED
from lineage.columns import UNSTATED as UNSTATED
from lineage.judged import UNEXPECTED as UNEXPECTED
from lineage.judged import VERDICT as VERDICT
from lineage.judged import WAIVER as WAIVER
from lineage.trained import CHECKPOINT as CHECKPOINT
from lineage.trained import CONSUMPTION as CONSUMPTION
from lineage.trained import PLAN as PLAN
from lineage.trained import STEP as STEP

PII = Column(
    "pii", pa.string(), "personal data and secrets in it: kind and how often, JSON text", nullable=True
)

REDACTED = "+redacted"
"""Stands behind the name of a reader whose rows have pseudonyms in place of personal data."""

TRACE = TableSpec(
    "traces",
    "What deployed models were asked and answered, with the verdict on it.",
    writer="pipelines.runner",
    keys=("row_id",),
    provenance=True,
    own=(
        Column("trace_key", pa.string(), "the source's own id of the exchange, or unstated"),
        Column("happened_at", TIMESTAMP, "when it happened, if the source says", nullable=True),
        Column("model_requested", pa.string(), "the model that was asked for"),
        Column("model_answered", pa.string(), "the model that answered"),
        Column("messages", pa.list_(MESSAGE), "what the model was sent, in order"),
        Column("response", pa.string(), "what it answered", nullable=True),
        Column("response_tool_calls", pa.string(), "tool calls of the answer, JSON text", nullable=True),
        Column("finish_reason", pa.string(), "why it stopped", nullable=True),
        Column("verdict", pa.string(), "pass, fail or unstated"),
        Column("correction", pa.string(), "the right answer, where somebody gave it", nullable=True),
        Column("input_tokens", pa.int64(), "as the source counts them", nullable=True),
        Column("output_tokens", pa.int64(), "as the source counts them", nullable=True),
        Column("extra", pa.string(), "all fields of the source without a column, JSON text", nullable=True),
        PII,
    ),
)

DOCUMENT = TableSpec(
    "documents",
    "Knowledge and code that rows are generated from.",
    writer="pipelines.runner",
    keys=("row_id",),
    provenance=True,
    own=(
        Column("kind", pa.string(), "markdown, text or code"),
        Column("title", pa.string(), "as the document says, or unstated"),
        Column("section", pa.string(), "heading path inside the document", nullable=True),
        Column("text", pa.string(), "the text"),
        Column("language", pa.string(), "natural or programming language, or unstated"),
        Column("metadata", pa.string(), "front matter and the like, JSON text", nullable=True),
        PII,
    ),
)

EXAMPLE = TableSpec(
    "examples",
    "What a model can be trained or scored on.",
    writer="pipelines.runner",
    keys=("row_id",),
    provenance=True,
    own=(
        Column("task", pa.string(), "classification, generation, preference or tagging"),
        Column("split", pa.string(), "train, gate or report; a source stands on one side only"),
        Column("kind", pa.string(), "stated: by the source; corrected: a failure's correction; passed"),
        Column("messages", pa.list_(MESSAGE), "the input, in order; the answer is not among them"),
        Column("text", pa.string(), "the last user message: what an encoder reads"),
        Column(
            "answer",
            pa.string(),
            "the answer to learn; for classification the label, for tagging the spans of the text, JSON text",
        ),
        Column("condition", pa.string(), "for evaluation rows: clean or noisy; else not_applicable"),
        Column("answer_tool_calls", pa.string(), "tool calls of the answer, JSON text", nullable=True),
        Column("rejected", pa.string(), "for preference: the answer to turn away from", nullable=True),
    ),
)

CURRICULUM = TableSpec(
    "curricula",
    "Which example rows a training run is offered: one immutable, ordered selection per curriculum.",
    writer="lineage.curricula",
    keys=("curriculum", "row_id"),
    own=(
        Column("curriculum", pa.string(), "root: SHA-256 over the sorted members, in hex"),
        Column("row_id", pa.binary(), "the example"),
        Column("row_no", pa.int64(), "and its number"),
        Column(
            "slice",
            pa.string(),
            "gold: corrected or stated; hard: passes near the boundary; replay: the parent's rows",
        ),
        Column("weight", pa.float64(), "how often it is taken per epoch"),
        Column("answer", pa.string(), "its answer, for the rules on label balance"),
        Column("text", pa.string(), "its text, for the rules on leakage"),
        Column("run_id", pa.string(), "the run that selected it"),
    ),
)

EXCLUSION = TableSpec(
    "exclusions",
    "Which example rows a curriculum left out, and why.",
    writer="lineage.curricula",
    keys=("curriculum", "row_id"),
    own=(
        Column("curriculum", pa.string(), "the curriculum that did without it"),
        Column("row_id", pa.binary(), "the example"),
        Column("row_no", pa.int64(), "and its number"),
        Column("reason", pa.string(), "why it was left out"),
        Column("run_id", pa.string(), "the run that left it out"),
    ),
)

SOURCE = TableSpec(
    "sources",
    "Which contents were read, as which stretch of what: by it a source that grew is known again.",
    writer="lineage.sources",
    keys=("source_revision", "reader", "at"),
    own=(
        Column("source_uri", pa.string(), "where it lay"),
        Column("source_revision", pa.string(), "digest of the content"),
        Column("reader", pa.string(), "who read it: format, revision, and a digest of parameters"),
        Column("table", pa.string(), "what it was read into"),
        Column("key", pa.string(), "what the commit of its rows is known by; without that it counts not"),
        Column("origin", pa.binary(), "digest of its first record: what it keeps however it grows"),
        Column("size", pa.int64(), "bytes of its content, decompressed"),
        Column("whole", pa.int64(), "of these, up to the last end of a line; of other framings: size"),
        Column("grown_from", pa.string(), "the stored revision that it begins with, or not_applicable"),
        Column("supersedes", pa.string(), "the revision that lay there before, or not_applicable"),
        Column("run_id", pa.string(), "the run that read it"),
        Column("at", TIMESTAMP, "when; of one content and reader the newest entry counts"),
    ),
)

QUARANTINE = TableSpec(
    "quarantine",
    "Input that no reader could read: kept byte for byte, redaction or not, with the reason.",
    writer="pipelines.runner",
    keys=("source_revision", "source_span"),
    own=(
        Column("source_uri", pa.string(), "where it came from"),
        Column("source_revision", pa.string(), "digest of that source's content"),
        Column("source_span", pa.string(), "where in it"),
        Column("reader", pa.string(), "who could not read it"),
        Column("reason", pa.string(), "machine-readable reason"),
        Column("detail", pa.string(), "what was found and what was expected"),
        Column("record", pa.binary(), "the bytes themselves"),
        Column("run_id", pa.string(), "the run that met it"),
    ),
)

REJECTED = TableSpec(
    "rejected",
    "Rows that a step did not let go on, or a gate took out of their batch, with the reason.",
    writer="pipelines.runner, expectations.routing",
    keys=("run_id", "step", "row_id"),
    own=(
        Column("row_id", pa.binary(), "the row that was not let on"),
        Column("row_no", pa.int64(), "and its number; -1 where it was never stored", nullable=False),
        Column("step", pa.string(), "the step that refused it, or the suite of a gate"),
        Column("step_revision", pa.string(), "its declared revision; of a suite its digest"),
        Column("reason", pa.string(), "machine-readable reason; of a suite the first rule that it broke"),
        Column("scorer", pa.string(), "who judged, or not_applicable"),
        Column("scorer_revision", pa.string(), "and its revision"),
        Column("score", pa.float64(), "the judgement, where there was one", nullable=True),
        Column("threshold", pa.float64(), "what it was held against", nullable=True),
        Column("run_id", pa.string(), "the run"),
    ),
)

LEASE = TableSpec(
    "leases",
    "Blocks of row numbers, each reserved before the rows that use it are written. Gaps are allowed.",
    writer="lineage.tables.leases",
    keys=("first",),
    own=(
        Column("first", pa.int64(), "first number of the block"),
        Column("count", pa.int64(), "how many"),
        Column("run_id", pa.string(), "for whom"),
    ),
)

RUN = TableSpec(
    "runs",
    "What every job did: one event when it starts, one when it ends.",
    writer="lineage.runs",
    keys=("run_id", "status"),
    own=(
        Column("run_id", pa.string(), "identity of the run, a dash, the attempt"),
        Column("job", pa.string(), "ingest, curate, finetune, ..."),
        Column("attempt", pa.int32(), "1 for the first"),
        Column("parent_run", pa.string(), "the run this one is a part of, or not_applicable"),
        Column("status", pa.string(), "START, COMPLETE, FAIL or ABORT"),
        Column("at", TIMESTAMP, "when"),
        Column("inputs", pa.string(), "what it read: JSON list of table versions and digests"),
        Column("outputs", pa.string(), "what it wrote: JSON list of table versions"),
        Column("config", pa.string(), "the resolved config, JSON"),
        Column("agent", pa.string(), "user, host, process, code, its commit, what is installed; JSON"),
        Column("counts", pa.string(), "rows in, out, merged, rejected, quarantined, ..., JSON"),
        Column("facets", pa.string(), "whatever else the job measured, and what it cost; JSON"),
        Column("error", pa.string(), "one sentence, where it failed", nullable=True),
    ),
)

MODEL = TableSpec(
    "models",
    "Model versions: a checkpoint under a name.",
    writer="lineage.models",
    keys=("name", "version"),
    own=(
        Column("name", pa.string(), "the registered model"),
        Column("version", pa.int64(), "from 1"),
        Column("run_id", pa.string(), "the training run"),
        Column("step", pa.int32(), "which checkpoint of it"),
        Column("adapter_digest", pa.string(), "what the checkpoint must hash to"),
        Column("at", TIMESTAMP, "when it was registered"),
    ),
)

EVENT = TableSpec(
    "events",
    "Every move of an alias, with who, why and the evidence. Append-only.",
    writer="lineage.models",
    keys=("name", "alias", "at"),
    own=(
        Column("kind", pa.string(), "promotion, rollback or recall"),
        Column("name", pa.string(), "the registered model"),
        Column("alias", pa.string(), "the alias that moved"),
        Column("from_version", pa.int64(), "0: the alias did not exist"),
        Column("to_version", pa.int64(), "0: the alias was removed"),
        Column("reason", pa.string(), "why"),
        Column("evidence", pa.string(), "the checks behind it, JSON"),
        Column("actor", pa.string(), "who"),
        Column("run_id", pa.string(), "the run that moved it"),
        Column("at", TIMESTAMP, "when"),
    ),
)

RECALL = TableSpec(
    "recalls",
    "What was called back, and why: a standing ban on whatever the selector names. Given again, a recall "
    "that fells another champion has a further row.",
    writer="lineage.recall",
    keys=("recall", "at"),
    own=(
        Column("recall", pa.string(), "digest of the selector: 12 hex digits"),
        Column("selector", pa.string(), "what was named: prompt, scorer, rows, ...; JSON"),
        Column("reason", pa.string(), "why"),
        Column("orders", pa.string(), "models that lose their champion: name, version, training run; JSON"),
        Column("actor", pa.string(), "who"),
        Column("run_id", pa.string(), "the run that ordered it"),
        Column("at", TIMESTAMP, "when"),
    ),
)

LIFT = TableSpec(
    "lifts",
    "Which recalls were ended, and why. A recall stands when it was ordered after its last lift.",
    writer="lineage.lift",
    keys=("recall", "at"),
    own=(
        Column("recall", pa.string(), "which recall"),
        Column("reason", pa.string(), "why"),
        Column("actor", pa.string(), "who"),
        Column("run_id", pa.string(), "the run that lifted it"),
        Column("at", TIMESTAMP, "when; always after the order that it ends"),
    ),
)

BAN = TableSpec(
    "bans",
    "The rows that a recall reached. While it stands, none of them may be in a later version of its table, "
    "unless a later row of this book ends the ban.",
    writer="lineage.recall",
    keys=("recall", "row_id"),
    own=(
        Column("recall", pa.string(), "which recall"),
        Column("table", pa.string(), "the table that held the row"),
        Column("row_id", pa.binary(), "the row"),
        Column("row_no", pa.int64(), "and its number"),
        Column(
            "refused_by_id",
            pa.bool_(),
            "no row of this id may be stored; not so for rows derived under a banned value, which under "
            "another value are other judgements",
        ),
        Column(
            "payload_digest",
            pa.binary(),
            "digest of what the row teaches, for rows that no other banned row explains: a copy is refused, "
            "too; else empty",
            nullable=True,
        ),
        Column("source_revision", pa.string(), "for source rows: the content it was read from"),
        Column("source_span", pa.string(), "and where in it; another reader may not bring it back"),
        Column("run_id", pa.string(), "the run that banned it, or ended the ban"),
        Column(
            "ends",
            pa.bool_(),
            "true: from here on the recall bans the row no more, for an alternative that had fallen is back; "
            "else empty",
            nullable=True,
        ),
    ),
)

REVIEW = TableSpec(
    "reviews",
    "What people said of rows, with the reason. Append-only: the last word on a row counts, before any "
    "automated verdict.",
    writer="lineage.review",
    keys=("row_id", "at"),
    own=(
        Column("table", pa.string(), "the table of the row: traces or examples"),
        Column("row_id", pa.binary(), "the row"),
        Column("row_no", pa.int64(), "and its number"),
        Column("verdict", pa.string(), "approved, rejected or relabelled"),
        Column("label", pa.string(), "the right answer, where it was relabelled", nullable=True),
        Column("reviewer", pa.string(), "who"),
        Column("reason", pa.string(), "why"),
        Column("run_id", pa.string(), "the run that put it on record"),
        Column("at", TIMESTAMP, "when"),
    ),
)

PREDICTION = TableSpec(
    "predictions",
    "What a model said on an evaluation row: every reported number can be computed from here again.",
    writer="lineage.report",
    keys=("run_id", "row_no"),
    own=(
        Column("run_id", pa.string(), "the evaluation run"),
        Column("model_run", pa.string(), "the training run of the model"),
        Column("row_no", pa.int64(), "the evaluation row"),
        Column("row_id", pa.binary(), "and its id"),
        Column("split", pa.string(), "gate or report"),
        Column("condition", pa.string(), "clean or noisy"),
        Column("answer", pa.string(), "what is right"),
        Column("prediction", pa.string(), "what the model said"),
        Column("confidence", pa.float64(), "how sure it was, 0 to 1"),
        Column("scorer", pa.string(), "what held it against the answer, name@revision", nullable=True),
        Column("score", pa.float64(), "and what it gave, 0 to 1", nullable=True),
        Column(
            "log_likelihood", pa.float64(), "of the right answer's tokens, natural, summed", nullable=True
        ),
        Column("tokens", pa.int64(), "how many those are", nullable=True),
        Column(
            "digest", pa.binary(), "over all that is said of the row, but runs and its number", nullable=True
        ),
    ),
)

REPORT = TableSpec(
    "reports",
    "Numbers about models: metric, value, n, seed, interval, and where the predictions lie.",
    writer="lineage.report",
    keys=("run_id", "metric", "split", "condition"),
    own=(
        Column("run_id", pa.string(), "the evaluation run; its rows of `predictions` are the evidence"),
        Column("model_run", pa.string(), "the training run of the model"),
        Column("metric", pa.string(), "accuracy, macro_f1, ..."),
        Column("split", pa.string(), "gate or report"),
        Column("condition", pa.string(), "clean, noisy or all"),
        Column("value", pa.float64(), "the number"),
        Column("low", pa.float64(), "lower end of its 95 % bootstrap interval"),
        Column("high", pa.float64(), "upper end"),
        Column("n", pa.int64(), "rows"),
        Column("seed", pa.int64(), "seed of the bootstrap"),
        Column("at", TIMESTAMP, "when"),
    ),
)

TRIAL = TableSpec(
    "trials",
    "The search's log: proposed, scored, failed. The search graph is a fold of it.",
    writer="search.space",
    keys=("search_run", "vertex", "event"),
    own=(
        Column("search_run", pa.string(), "the search"),
        Column("vertex", pa.string(), "digest of the recipe"),
        Column("event", pa.string(), "proposed, scored or failed"),
        Column("parents", pa.list_(pa.string()), "vertices it was edited from"),
        Column("recipe", pa.string(), "the recipe, canonical JSON"),
        Column("run_id", pa.string(), "the child run that tried it, or not_applicable"),
        Column("score", pa.float64(), "its score on the gate split", nullable=True),
        Column("at", TIMESTAMP, "when"),
    ),
)

ROW_TABLES = (TRACE, DOCUMENT, EXAMPLE)
BOOKS = (
    SOURCE,
    CURRICULUM,
    EXCLUSION,
    QUARANTINE,
    REJECTED,
    LEASE,
    RUN,
    VERDICT,
    UNEXPECTED,
    WAIVER,
    PLAN,
    CONSUMPTION,
    STEP,
    CHECKPOINT,
    MODEL,
    EVENT,
    RECALL,
    LIFT,
    BAN,
    REVIEW,
    PREDICTION,
    REPORT,
    TRIAL,
)
TABLES = {spec.name: spec for spec in (*ROW_TABLES, *BOOKS)}
