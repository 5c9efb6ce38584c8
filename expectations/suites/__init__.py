"""The suites: for each gated table its rules and the flat view of a batch that they read.

suite.py        what a suite is, its JSON, its digest
provenance.py   the rules that every row table shares
traces.py documents.py examples.py curricula.py
snapshots/      the suites as JSON, for review; `python -m expectations.suites` writes them anew
"""

from expectations.suites import curricula, documents, examples, traces
from expectations.suites.suite import Admitted, Suite, as_json, digest, told

SUITES = {
    "traces": Suite("traces", traces.rules, traces.frame),
    "documents": Suite("documents", documents.rules, documents.frame),
    "examples": Suite("examples", examples.rules, examples.frame),
    "curricula": Suite("curricula", curricula.rules, curricula.frame),
}
"""Table name -> its suite."""

__all__ = ["SUITES", "Admitted", "Suite", "as_json", "digest", "told"]
