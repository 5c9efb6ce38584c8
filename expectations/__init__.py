"""May it be used: the suites of rules, the gate that holds a commit against them, the reports on it."""
