"""The suites: for each gated table its rules and the flat view of a batch that they read.

suite.py        what a suite is, its JSON, its digest
rules/          what is demanded: one module per table, and what they share
traces.py documents.py examples.py curricula.py predictions.py provenance.py    what the rules see
splits.py       how examples stand to those of other splits
likeness.py     near-duplicates, and what is scored on inside what is trained on
noise.py spread.py talk.py    what can be seen of a text, of many rows, of messages
toml.py         suites that users write: Suite.from_toml("mine.toml")
snapshots/      the suites as JSON, for review; `python -m expectations.suites` writes them anew
"""

from expectations.suites import curricula, documents, examples, predictions, rules, traces
from expectations.suites.suite import Admitted, Suite, as_json, digest, told

SUITES = {
    "traces": Suite("traces", rules.traces, traces.keys, traces.facts, traces.view),
    "documents": Suite("documents", rules.documents, documents.keys, documents.facts, documents.view),
    "examples": Suite("examples", rules.examples, examples.keys, examples.facts, examples.view),
    "curricula": Suite("curricula", rules.curricula, curricula.keys, curricula.facts, curricula.view),
    "predictions": Suite(
        "predictions", rules.predictions, predictions.keys, predictions.facts, predictions.view
    ),
}
"""Table name -> its suite."""

__all__ = ["SUITES", "Admitted", "Suite", "as_json", "digest", "told"]
