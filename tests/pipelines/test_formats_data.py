"""Real files of every format through the real ingest: all is read or told, and every span leads back."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from expectations.gate import admit, reason
from infra.runtime import Runtime
from lineage import sources, tables
from lineage.ancestry import source_bytes
from lineage.schemas import DOCUMENT, QUARANTINE, TRACE
from pipelines.ingest import IngestConfig, ingest

ROOT = Path(__file__).parents[2]
SAMPLED = 60  # rows of a set whose bytes are looked for


@dataclass(frozen=True)
class Real:
    """A set of real data, and what is known of it."""

    source: str
    formats: dict[str, int]
    """Reader, and of how many files."""

    records: int
    rows: int
    empty: int = 0
    problems: int = 0
    """Files that are of no format."""

    field_map: str | None = None
    """A map, or where one is."""


UTTERANCES = """
[map]
trace_key = "answerid"
input = "answer_from_user"
response = "intent"
[constant]
generator = "human"
"""
DIALOGUES = """
[document]
text = "dialogue"
title = "section_header"
[constant]
language = "en"
"""
SETS = (
    Real("llm_api_log_openllmetry", {"http_exchange": 1}, records=582, rows=563, empty=19),
    Real("llm_api_log_otel_contrib", {"http_exchange": 1}, records=113, rows=113),
    Real("otel_genai_spans", {"otlp": 9}, records=83, rows=26, empty=59),
    Real("otlp_json_examples", {"otlp": 4}, records=4, rows=0, empty=4),  # none is a call of a model
    Real("langfuse_framework_traces", {"langfuse": 13}, records=13, rows=25, problems=13),
    Real("claude_code_sessions", {"claude_code": 3}, records=10, rows=10),
    Real("pi_agent_session", {"pi_session": 1}, records=1, rows=1),
    Real("swe_agent_trajectories", {"swe_agent": 13}, records=13, rows=13),
    Real("openhands_events", {"openhands": 1, "openhands_events": 4}, records=6, rows=6),
    Real("tau_bench_airline_sample", {"tau_bench": 2, "markdown": 1}, records=115, rows=115),
    Real("knowledge_grpc_io", {"markdown": 157}, records=782, rows=782),  # 13 of its 170 files are copies
    Real("knowledge_prometheus", {"markdown": 71}, records=656, rows=656),
    Real("arc_challenge_train", {"alpaca": 2}, records=3370, rows=3370),
    Real("aider_logs/chat-history.md.gz", {"markdown": 1}, records=1427, rows=1427),
    Real(
        "gsm8k_model_solutions",
        {"field_map": 1},
        records=660,
        rows=2640,
        field_map="examples/gsm8k/field_map.toml",
    ),
    Real("hwu64_fold1", {"field_map": 2}, records=11036, rows=11036, field_map=UTTERANCES),
    Real("mts_dialog/t*.csv.gz", {"document_map": 2}, records=1401, rows=1401, field_map=DIALOGUES),
)


def test_how_many_sets_are_read():
    assert len(SETS) == len({real.source for real in SETS}) == 17


@pytest.mark.data
@pytest.mark.parametrize("real", SETS, ids=lambda real: real.source)
def test_real_files_are_read_whole_and_lead_back(real: Real, runtime: Runtime, data: Path, tmp_path: Path):
    outcome = ingest(runtime, config(real, data, tmp_path))
    readers = Counter(each.partition("@")[0] for each in outcome.facets["formats"].values())
    assert (dict(readers), len(outcome.facets["problems"])) == (real.formats, real.problems)
    counts = outcome.counts
    assert (counts["in"], counts["out"], counts["empty"]) == (real.records, real.rows, real.empty)
    assert counts["quarantined"] == tables.read(runtime.settings, QUARANTINE).num_rows == 0
    stored = [row for spec in (TRACE, DOCUMENT) for row in tables.read(runtime.settings, spec).to_pylist()]
    assert len(stored) == len({row["row_id"] for row in stored}) == real.rows
    with_rows = {(row["source_uri"], row["source_span"]) for row in stored}
    assert real.records == len(with_rows) + real.empty
    origins = sources.origins(runtime.settings)
    for row in stored[:: -(-len(stored) // SAMPLED) or 1]:
        assert source_bytes(row, origins=origins)
    verdicts = [admit(runtime, output) for output in outcome.outputs]
    assert [reason(verdict) for verdict in verdicts] == [""] * len(verdicts)


def config(real: Real, data: Path, folder: Path) -> IngestConfig:
    given = real.field_map
    if given is not None and "\n" in given:
        (folder / "map.toml").write_text(given)
        given = str(folder / "map.toml")
    elif given is not None:
        given = str(ROOT / given)
    return IngestConfig(sources=(str(data / real.source),), field_map=given, max_quarantined=0)
