"""What each table's suite demands, over the columns that its view shows: Great Expectations' own objects.

A rule says beside its arguments what it expects, why, and by what authority (suite.told); its thresholds are
those of expectations.thresholds.
"""

from expectations.suites.rules.curricula import rules as curricula
from expectations.suites.rules.documents import rules as documents
from expectations.suites.rules.examples import rules as examples
from expectations.suites.rules.predictions import rules as predictions
from expectations.suites.rules.traces import rules as traces

__all__ = ["curricula", "documents", "examples", "predictions", "traces"]
