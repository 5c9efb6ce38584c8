"""A lake of a few rows, models and promotions, stored as jobs store them; no source, no gate, no MLflow."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import PIPE
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyroaring import BitMap64
from safetensors.numpy import save_file

from infra.models import adapter_config_digest, adapter_digest
from infra.runtime import Runtime
from infra.settings import Settings
from lineage import models, tables
from lineage.consumption import consumption_root, find_checkpoint
from lineage.curricula import curriculum_root
from lineage.runs import Run
from lineage.schemas import (
    CHECKPOINT,
    CONSUMPTION,
    CURRICULUM,
    EXAMPLE,
    PREDICTION,
    REPORT,
    RUN,
    TRACE,
    TableSpec,
)

AT = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


@dataclass
class SmallLake:
    """Rows are called by their numbers."""

    settings: Settings
    clock: int = 0
    runs: list[str] = field(default_factory=list)

    @property
    def runtime(self) -> Runtime:
        """Its clock says a second more each time."""
        return Runtime(self.settings, now=self._tick)

    def traces(self, numbers: Iterable[int], **columns: Any) -> None:
        """A batch of traces."""
        self.store(TRACE, [{"row_no": n, "derivation": "source"} for n in numbers], **columns)

    def examples(self, parents: dict[int, tuple[int, ...]], kind: str = "joint", **columns: Any) -> None:
        """A batch of examples: number -> the numbers of its parents."""
        rows = [{"row_no": n, "derivation": kind, "parent_nos": list(named)} for n, named in parents.items()]
        self.store(EXAMPLE, rows, **columns)

    def store(self, spec: TableSpec, rows: list[dict[str, Any]], **columns: Any) -> tables.TableVersion:
        """One batch; columns that nobody names say nothing, and what a row says is its number."""
        run_id = f"{len(self.runs):016x}-1"
        self.runs.append(run_id)
        filled = []
        for row in rows:
            n = row["row_no"]
            says: dict[str, Any] = {"text": f"text {n}", "answer": "room"}
            if spec is TRACE:
                says = {"messages": [{"role": "user", "content": f"question {n}"}]}
            where = {"source_span": f"bytes:{n}-{n + 1}", "source_revision": "sha256:" + "ab" * 32}
            ids = {"row_id": identity(n), "parents": [identity(p) for p in row.get("parent_nos", [])]}
            filled.append(
                blank(spec) | says | where | {"extracted_at": AT, "run_id": run_id} | ids | columns | row
            )
        table = pa.Table.from_pylist(filled, schema=spec.schema)
        file = tables.write_file(self.settings, table, into=spec, name=run_id)
        return tables.commit(self.settings, [file], into=spec, run_id=run_id, keys=[run_id])

    def reign(self, *eaten: int, scored: Iterable[int]) -> int:
        """Promote a checkpoint behind which all that a training leaves is there: its version."""
        members = [(identity(n), "gold", 1.0) for n in sorted(set(eaten))]
        root = curriculum_root(members)
        rows = [
            blank(CURRICULUM) | {"curriculum": root, "row_id": i, "row_no": int.from_bytes(i[:2]), "slice": s}
            for i, s, _ in members
        ]
        self.store_book(CURRICULUM, [row | {"weight": 1.0} for row in rows])
        folder = Path(self.settings.path("checkpoints", root))
        folder.mkdir(parents=True)
        save_file({"weight": np.array(sorted(eaten), np.float32)}, folder / "adapter_model.safetensors")
        for name in ("adapter_config.json", "stemma.json"):
            (folder / name).write_text("{}")
        of = {"curriculum": root, "uri": str(folder), "adapter_digest": adapter_digest(folder)}
        ledger = pa.table({"step": range(len(eaten)), "slot": [0] * len(eaten), "row_no": eaten})
        ledger = ledger.append_column("loss_tokens", pa.array([1] * len(eaten)))
        of["consumption_root"] = consumption_root(ledger, {number: identity(number) for number in eaten})
        of |= {"adapter_config_digest": adapter_config_digest(folder)}
        run_id = self.train(*eaten, **of)
        counts = json.dumps({"eaten": len(eaten), "rows": len(set(eaten))})
        done = {"run_id": run_id, "job": "finetune", "status": "COMPLETE", "at": self._tick()}
        done |= {"inputs": "[]", "outputs": "[]", "facets": "{}", "counts": counts}
        done |= {"config": '{"data": {}, "training": {"seed": 7}}', "agent": '{"host": "-", "process": 0}'}
        tables.record(self.settings, [blank(RUN) | done], into=RUN)
        evaluation = {
            "run_id": f"{run_id[:-2]}e-1",
            "model_run": run_id,
            "split": "gate",
            "condition": "clean",
        }
        said = [{"row_no": n, "row_id": identity(n), "confidence": 1.0} for n in scored]
        tables.record(
            self.settings, [blank(PREDICTION) | evaluation | each for each in said], into=PREDICTION
        )
        number = {"metric": "accuracy", "value": 1.0, "low": 1.0, "high": 1.0, "n": len(said)}
        report = blank(REPORT) | evaluation | number | {"at": self._tick()}
        tables.record(self.settings, [report], into=REPORT)
        return self.promote(run_id)

    def store_book(self, spec: TableSpec, rows: list[dict[str, Any]]) -> None:
        """Rows of a book, as one commit of a run."""
        run_id = f"{len(self.runs):016x}-1"
        self.runs.append(run_id)
        table = pa.Table.from_pylist([row | {"run_id": run_id} for row in rows], schema=spec.schema)
        file = tables.write_file(self.settings, table, into=spec, name=run_id)
        tables.commit(self.settings, [file], into=spec, run_id=run_id, keys=[run_id])

    def train(self, *eaten: int, **columns: Any) -> str:
        """A checkpoint that ate rows in this order, one per step; its run."""
        run_id = f"{len(self.runs):016x}-1"
        self.runs.append(run_id)
        ledger = [
            {"run_id": run_id, "step": step, "slot": 0, "row_no": n, "loss_tokens": 1}
            for step, n in enumerate(eaten)
        ]
        known = {
            "run_id": run_id,
            "step": len(eaten),
            "row_bitmap": BitMap64(eaten).serialize(),
            "at": self._tick(),
            **columns,
        }
        for spec, rows in ((CONSUMPTION, ledger), (CHECKPOINT, [known])):
            table = pa.Table.from_pylist([blank(spec) | row for row in rows], schema=spec.schema)
            file = tables.write_file(self.settings, table, into=spec, name=run_id)
            tables.commit(self.settings, [file], into=spec, run_id=run_id, keys=[run_id])
        return run_id

    def evaluate(self, *scored: int) -> str:
        """An evaluation on these rows; its run."""
        run_id = f"{len(self.runs):016x}-1"
        self.runs.append(run_id)
        said = [blank(PREDICTION) | {"run_id": run_id, "row_no": n, "confidence": 1.0} for n in scored]
        tables.record(self.settings, said, into=PREDICTION)
        event = {"run_id": run_id, "job": "evaluate", "status": "COMPLETE", "at": self._tick()}
        tables.record(self.settings, [blank(RUN) | event], into=RUN)
        return run_id

    def promote(self, run_id: str, name: str = "router") -> int:
        """Register a run's checkpoint, and make it champion in place of the one before."""
        version = models.register(self.runtime, find_checkpoint(self.settings, run_id), name=name).version
        before = models.aliases(self.settings).get(name, {}).get("champion")
        moves = {"candidate": version, "champion": version} | ({"previous": before} if before else {})
        self.move(moves, kind="promotion", name=name)
        return version

    def move(self, moves: dict[str, int], *, kind: Any, name: str = "router") -> None:
        """Move aliases as a job of this kind does."""
        run = Run("ff", 1, kind)
        models.move_aliases(
            self.runtime, moves, name=name, kind=kind, reason="", evidence=[{"recall": ""}], run=run
        )

    @property
    def standing(self) -> dict[str, int]:
        """The aliases of `router`."""
        return models.aliases(self.settings)["router"]

    def numbers(self, spec: TableSpec) -> list[int]:
        """The rows that a table's newest version holds."""
        return sorted(tables.read(self.settings, spec, columns=["row_no"])["row_no"].to_pylist())

    def versions(self) -> dict[str, int]:
        """The newest version of each table, but of `runs`."""
        folders = [path.name for path in Path(self.settings.path("tables")).iterdir() if path.name != "runs"]
        return {name: tables.resolve(self.settings, name).version for name in folders}

    def _tick(self) -> dt.datetime:
        self.clock += 1
        return AT + dt.timedelta(seconds=self.clock)


def blank(spec: TableSpec) -> dict[str, Any]:
    """A row that says nothing."""

    def nothing(kind: pa.DataType) -> Any:
        if pa.types.is_list(kind):
            return []
        if pa.types.is_string(kind):
            return "unstated"
        return b"" if pa.types.is_binary(kind) else 0 if pa.types.is_integer(kind) else None

    return {each.name: None if each.nullable else nothing(each.type) for each in spec.columns}


def identity(number: int) -> bytes:
    """The row id of a number: its hex begins with four digits of the number."""
    return number.to_bytes(2, "big") + bytes(14)


@pytest.fixture
def small(tmp_path: Path) -> SmallLake:
    """An empty small lake, without a tracking server."""
    return SmallLake(Settings(lake=str(tmp_path / "small"), tracking_uri=""))


@pytest.fixture
def shown() -> Callable[[Settings], dict[str, Any]]:
    """All that MLflow shows of a lake's runs and versions, without its own ids, its times and our places."""

    def told(tags: dict[str, str]) -> dict[str, str]:
        return {key: value for key, value in tags.items() if key.startswith("stemma.")}

    def look(settings: Settings) -> dict[str, Any]:
        from mlflow.tracking import MlflowClient

        client = MlflowClient(settings.tracking_uri, settings.tracking_uri)
        experiment = client.get_experiment_by_name("stemma")
        found: dict[str, Any] = {}
        for each in client.search_runs([experiment.experiment_id]) if experiment else []:
            run = client.get_run(each.info.run_id)  # a search leaves out the models
            found[run.data.tags["stemma.run_id"]] = {
                "ended": run.info.status,
                "params": run.data.params,
                "metrics": run.data.metrics,
                "tags": told(run.data.tags),
                "fed": sorted(
                    (each.tags[0].value, each.dataset.name, each.dataset.digest)
                    for each in run.inputs.dataset_inputs
                ),
                "models": (len(run.inputs.model_inputs), len(run.outputs.model_outputs)),
                "files": sorted(file.path for file in client.list_artifacts(run.info.run_id)),
            }
        for model in client.search_registered_models():
            found[model.name] = {alias: int(version) for alias, version in model.aliases.items()}
            for version in client.search_model_versions(f"name = '{model.name}'"):
                logged = client.get_logged_model(version.source.removeprefix("models:/"))
                measured = sorted((each.key, each.value, each.dataset_name) for each in logged.metrics)
                found[f"{model.name}@{version.version}"] = {
                    "tags": told(version.tags),
                    "measured": measured,
                }
        return found

    return look


@pytest.fixture
def another_process() -> Callable[[Settings, str], AbstractContextManager[str]]:
    """A process of its own that is at a job on a lake until the block ends; gives the run's id."""

    @contextmanager
    def at(settings: Settings, job: str) -> Iterator[str]:
        script = f"""
import sys
from infra.runtime import Runtime
from infra.settings import Settings
from lineage.runs import Outcome, carry_out
def work(run):
    print(run.id, flush=True)
    sys.stdin.readline()
    return Outcome()
carry_out(Runtime(Settings({settings.lake!r}, "")), {job!r}, config={{}}, inputs=[], work=work)
"""
        root = str(Path(__file__).parents[2])
        with subprocess.Popen(
            [sys.executable, "-c", script],
            stdin=PIPE,
            stdout=PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": root},
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                yield process.stdout.readline().strip()
            finally:
                process.stdin.write("\n")
                process.stdin.close()
                assert process.wait(timeout=60) == 0

    return at
