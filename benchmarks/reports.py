"""How long reports take after a thousand validations: `python benchmarks/reports.py [--validations 1000]`.

The lake is real but for its gates: every batch is a commit of its own, with a verdict and a result of Great
Expectations on record, but only one of each outcome was judged; the others are copies under other numbers.
Timed in a fresh process, first use of Great Expectations included: the index with all pages that it keeps and
the Data Docs; the same again, when nothing is new; without Data Docs; one page of a refused batch. The last
line is JSON: reports_s is the first, page_s the last.
"""

from __future__ import annotations

import argparse
import copy
import datetime as dt
import hashlib
import json
import random
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[0] = str(ROOT)  # beside this file lies one that bears a package's name

import pyarrow as pa

from expectations.gate import RESULTS, admit
from infra.runtime import Runtime
from infra.settings import Settings
from lineage import tables, verdicts
from lineage.rows import Fingerprint
from lineage.schemas import DOCUMENT, TRACE, TableSpec
from lineage.stamp import Places, Source, Stamp, stamp_source
from lineage.tables import TableVersion
from lineage.verdicts import Verdict

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
ROWS = 20  # of a batch
QUESTIONS = ("why was my card charged twice", "cancel my transfer", "what is my balance", "<b>help</b>")

TIMED = """
import json, sys, time
from pathlib import Path
from expectations import reports
from infra.runtime import Runtime
from infra.settings import Settings
from lineage import verdicts

runtime, took = Runtime(Settings(sys.argv[1], "")), {}
def timed(name, work):
    wall, cpu = time.monotonic(), time.process_time()
    work()
    took[name] = (time.monotonic() - wall, time.process_time() - cpu)
site = Path(sys.argv[2])
timed("index, pages and Data Docs", lambda: reports.build(runtime, into=site, docs=True))
timed("the same again", lambda: reports.build(runtime, into=site, docs=True))
timed("index and pages alone", lambda: reports.build(runtime, into=site / "plain"))
refused = next(g for g in verdicts.history(runtime.settings)[::-1] if not g.verdict.passed)
timed("one page, of a refused batch", lambda: reports.build_page(runtime, refused, into=site / "one"))
print(json.dumps(took))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Seconds to build reports.")
    parser.add_argument("--validations", type=int, default=1_000)
    parser.add_argument("--keep", type=Path, help="Folder in which lake and reports stay.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.keep or Path(temporary)).absolute()
        lake = Lake(folder / "lake")
        lake.validate(options.validations)
        command = [sys.executable, "-c", TIMED, lake.settings.lake, str(folder / "reports")]
        done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    took = json.loads(done.stdout.splitlines()[-1])
    print(f"{options.validations:,} validations{'seconds':>21}{'of them CPU':>14}")
    for name, (seconds, cpu) in took.items():
        print(f"{name:<30}{seconds:>10.2f}{cpu:>14.2f}")
    figures = {
        "reports_s": round(took["index, pages and Data Docs"][0], 2),
        "page_s": round(took["one page, of a refused batch"][0], 3),
    }
    print(json.dumps(figures))


class Lake:
    """Batches of traces and documents, one commit each."""

    def __init__(self, folder: Path):
        self.settings = Settings(str(folder), "")
        self.runtime = Runtime(self.settings, now=self._tick)
        self.random = random.Random(0)
        self.stored = 0
        self.judged_rows: dict[TableVersion, pa.Table] = {}

    def validate(self, validations: int) -> None:
        """So many verdicts: one in nine traces and one in forty documents is refused."""
        judged = {}
        for spec in (TRACE, DOCUMENT):
            for sound in (True, False):
                batch, _, rows = self._store(spec, sound=sound)
                judged[spec.name, sound] = admit(self.runtime, batch)
                self.judged_rows[batch] = rows
        results = {
            path.stem.partition("-")[0]: json.loads(path.read_text()) for path in self._results.iterdir()
        }
        for number in range(len(judged), validations):
            spec = DOCUMENT if number % 4 == 0 else TRACE
            sound = number % (40 if spec is DOCUMENT else 9) != 0
            model = judged[spec.name, sound]
            batch, run, rows = self._store(spec, sound=sound)
            gate = f"{number:016x}-1"
            given = self._like(model, batch, rows)
            verdicts.record(self.runtime, given, batch_run=run, run_id=gate)
            if not sound:
                tables.withdraw(self.settings, batch, run_id=gate, reason="judged")
            self._keep(results[str(model.batch)], batch, gate)

    @property
    def _results(self) -> Path:
        return Path(self.settings.path(*RESULTS))

    def _like(self, model: Verdict, batch: TableVersion, rows: pa.Table) -> Verdict:
        """The verdict on another batch: shares a little different, failing rows its own."""
        ids = [row_id.hex() for row_id in rows["row_id"].to_pylist()]
        own = [row_id.hex() for row_id in self.judged_rows[model.batch]["row_id"].to_pylist()]
        rules = []
        for rule in model.rules:
            if rule.outcome == "pass" and isinstance(rule.threshold, float) and rule.threshold < 1:
                share = round(self.random.uniform(rule.threshold, 1), 3)
                rules.append(replace(rule, observed=share))
            elif rule.examples:
                rules.append(replace(rule, examples=tuple(ids[own.index(each)] for each in rule.examples)))
            else:
                rules.append(rule)
        return replace(model, batch=batch, rules=tuple(rules))

    def _keep(self, result: dict, batch: TableVersion, gate: str) -> None:
        content = copy.deepcopy(result)
        content["meta"]["active_batch_definition"]["data_asset_name"] = str(batch)
        content["meta"]["run_id"] = {"run_name": f"{batch} run {gate}", "run_time": self._tick().isoformat()}
        (self._results / f"{batch}-{gate}.json").write_text(json.dumps(content))

    def _store(self, spec: TableSpec, *, sound: bool) -> tuple[TableVersion, str, pa.Table]:
        self.stored += 1
        name = f"part-{self.stored:05d}"
        records = [f"{name} {number}".encode() * 9 for number in range(ROWS)]
        spans = [f"bytes:{number * 100}-{number * 100 + 100}" for number in range(ROWS)]
        source = Source(
            f"s3://logs/helpdesk/{name}.jsonl",
            f"sha256:{hashlib.sha256(name.encode()).hexdigest()}",
            records[0],
        )
        run = f"{hashlib.sha256(name.encode()).hexdigest()[:16]}-1"
        make = self._trace if spec is TRACE else self._document
        rows = stamp_source(
            pa.Table.from_pylist(
                [make(name, number, sound) for number in range(ROWS)], schema=spec.derivable
            ),
            Places([number * 100 for number in range(ROWS)], spans, records, [0] * ROWS),
            into=spec,
            source=source,
            reader=Fingerprint("chat_completions" if spec is TRACE else "markdown", 1, {}),
            stamp=Stamp(run, f"sha256:{'0' * 32}", START),
            first_row_no=self.stored * ROWS,
        )
        file = tables.write_file(self.settings, rows, into=spec, name=run)
        return tables.commit(self.settings, [file], into=spec, run_id=run, keys=[name]), run, rows

    def _trace(self, name: str, number: int, sound: bool) -> dict:
        broken = not sound and number % 3 == 0
        return {
            "trace_key": "unstated",
            "model_requested": "router",
            "model_answered": "router@4",
            "messages": [{"role": "user", "content": f"{QUESTIONS[number % 4]} ({name}, {number})"}],
            "response": "" if broken and number % 2 else "billing",
            "verdict": "pass",
            "prompt_name": "router",
            "prompt_version": "unstated" if broken else f"{1 + self.stored // 200}",
            "generator": "router",
            "generator_revision": "4",
            "scorer": "unstated" if broken else "exact-match",
            "scorer_revision": "1",
            "score": 7.5 if broken and number % 2 == 0 else 1.0,
            "threshold": 0.5,
        }

    def _document(self, name: str, number: int, sound: bool) -> dict:
        text = "" if not sound and number % 5 == 0 else f"How to do thing {number} of {name}."
        return {"kind": "markdown", "title": name, "language": "en", "text": text}

    def _tick(self) -> dt.datetime:
        self._seconds = getattr(self, "_seconds", 0) + 7
        return START + dt.timedelta(minutes=self._seconds)


if __name__ == "__main__":
    main()
