"""Benchmarks as data: TOML holds what is asked and what is right; here is how it is asked and scored."""

from training.benchmarks.compared import Comparison, Regressed, Weak, compare, weak_categories
from training.benchmarks.definition import Benchmark, Category, Floors, Prompt, packaged, read
from training.benchmarks.scored import Row, Scored, as_facets, from_facets, run, score

__all__ = [
    "Benchmark",
    "Category",
    "Comparison",
    "Floors",
    "Prompt",
    "Regressed",
    "Row",
    "Scored",
    "Weak",
    "as_facets",
    "compare",
    "from_facets",
    "packaged",
    "read",
    "run",
    "score",
    "weak_categories",
]
