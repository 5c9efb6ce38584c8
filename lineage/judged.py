"""The books of what gates decided: verdicts, the rows that broke a rule, and leave to break one.

lineage.schemas holds all other tables, and these among them.
"""

from __future__ import annotations

import pyarrow as pa

from lineage.columns import TIMESTAMP, Column, TableSpec

VERDICT = TableSpec(
    "verdicts",
    "Whether a batch may be used: one verdict per gate, bound to exactly one commit.",
    writer="lineage.verdicts",
    keys=("table", "version", "at"),
    own=(
        Column("table", pa.string(), "the table that was judged"),
        Column("version", pa.int64(), "the commit that was judged"),
        Column("batch", pa.string(), "the run that wrote that commit"),
        Column("outcome", pa.string(), "pass, fail, or error: a rule that crashed decides nothing"),
        Column("suite", pa.string(), "the suite of rules"),
        Column("suite_digest", pa.string(), "SHA-256 of the suite, thresholds included"),
        Column("rows", pa.int64(), "rows judged"),
        Column("rules", pa.string(), "each rule: outcome, observed, threshold, failing rows; JSON"),
        Column("at", TIMESTAMP, "when"),
        Column("run_id", pa.string(), "the gate's own run"),
        Column(
            "thresholds",
            pa.string(),
            "the config in force: thresholds, and what to do with failing rows; JSON; empty in older ones",
            nullable=True,
        ),
        Column(
            "routed", pa.int64(), "rows that were moved to `rejected`; empty in older ones", nullable=True
        ),
    ),
)

UNEXPECTED = TableSpec(
    "unexpected",
    "Every row that broke a rule, whether or not its batch was refused for it; a verdict names 20 of them.",
    writer="lineage.verdicts",
    keys=("run_id", "rule", "row_id"),
    own=(
        Column("table", pa.string(), "the table that was judged"),
        Column("version", pa.int64(), "the commit that was judged"),
        Column("rule", pa.string(), "the rule that the row broke"),
        Column("row_id", pa.binary(), "the row"),
        Column("run_id", pa.string(), "the gate's run; of a verdict's own rows, any attempt at it"),
    ),
)

WAIVER = TableSpec(
    "waivers",
    "Which rules a person lets batches break, why, and until when. The last row of an id counts: one that "
    "ends when it was written revokes the waiver.",
    writer="lineage.waivers",
    keys=("id", "at"),
    own=(
        Column("id", pa.string(), "12 hex digits"),
        Column("table", pa.string(), "batches of which table"),
        Column("rule", pa.string(), "which rule may be broken"),
        Column("reason", pa.string(), "why it is waived, or revoked"),
        Column("by", pa.string(), "who says so"),
        Column("at", TIMESTAMP, "since when"),
        Column("until", TIMESTAMP, "the first moment at which it is in force no more"),
        Column("run_id", pa.string(), "the run that put it on record"),
    ),
)
