"""`stemma demo`: the whole path on this machine, every stage through its real engine.

    scenario -> M0 -> traffic -> ingest -> gate -> curate -> finetune -> search -> promote -> lineage, fsck

M0 is fine-tuned on the small clean pool and becomes the first champion; its own answers to noisy traffic
become the log; what the log teaches becomes its successor. A second run on the same lake resumes.
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from time import monotonic
from typing import Annotated, Any, Literal

import pyarrow.dataset as pads
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

from examples.helpdesk import summary
from examples.helpdesk.files import damage, joined, planted_batch, render_log, traffic, write_files
from examples.helpdesk.generator import Pools, helpdesk
from expectations.gate import admit
from expectations.reports import data_docs
from infra.cli import Lake, open_runtime
from infra.models import resolve as resolve_base
from infra.runtime import Runtime
from infra.storage import survey
from lineage import fsck, models, queries, registry, report, runs, tables, verdicts
from lineage.curricula import DataRecipe
from lineage.recipe import Recipe
from lineage.runs import Outcome
from lineage.schemas import EXAMPLE, TRACE
from lineage.tables import TableVersion
from pipelines.curate import CurateConfig, curate
from pipelines.ingest import IngestConfig, choose_reader, ingest, source_key
from search.edits import Categorical, Integer, LogUniform, Uniform
from search.explore import SearchConfig, explore
from search.trial import try_recipe
from training.baselines import linear_probe
from training.evaluate import evaluate, load_predictor
from training.finetune import FinetuneConfig, finetune
from training.promote import promote
from training.recipe import TrainingConfig

Scale = Literal["full", "tiny"]
NAME = "helpdesk-router"


class DemoError(Exception):
    """The demo cannot run here; the message says what to do."""


@dataclass(frozen=True)
class Sizes:
    """What differs between the full demo and the tiny one."""

    first_rows: int
    """How many rows M0's recipe draws from the clean pool. D5: 100 to 200 for classification."""
    first: TrainingConfig
    """How M0 is trained on them."""
    successor: TrainingConfig
    """The base recipe of its successor."""
    trials: int


SIZES: Mapping[Scale, Sizes] = {
    "full": Sizes(
        first_rows=120,
        first=TrainingConfig(num_train_epochs=5, train_batch_size=16),
        successor=TrainingConfig(num_train_epochs=3, train_batch_size=32),
        trials=4,
    ),
    "tiny": Sizes(
        first_rows=18,
        first=TrainingConfig(num_train_epochs=2, train_batch_size=8),
        successor=TrainingConfig(num_train_epochs=1, train_batch_size=16),
        trials=2,
    ),
}

DIMENSIONS = (
    Uniform("data.gold_share", 0.52, 0.59),
    Uniform("data.hard_share", 0.28, 0.31),
    LogUniform("hyperparameters.learning_rate", 1e-3, 3e-3),
    Categorical("hyperparameters.r", (8, 16, 32)),
    Integer("hyperparameters.num_train_epochs", 2, 3),
)


@dataclass
class Story:
    """What the demo has seen so far: each stage adds what the summary and the promises need."""

    pools: Pools
    facts: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    promises: dict[str, bool] = field(default_factory=dict)


def demo(
    scale: Annotated[str, typer.Option(help="full, or tiny: under a minute, for tests.")] = "full",
    data: Annotated[
        str | None, typer.Option(help="Folder of the CLINC150 subset, instead of the helpdesk.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the scenario.")] = 0,
    lake: Lake = None,
) -> int:
    """The whole path in minutes: traces, gates, QLoRA, search, promotion, lineage; exit 1 if a promise broke.

    Example: stemma demo
    """
    if scale != "full" and scale != "tiny":
        raise DemoError(f"scale '{scale}' is not one of: {', '.join(SIZES)}")
    pools = _pools(data, seed=seed, scale=scale)
    resolve_base(SIZES[scale].first.base_model)  # missing: said now, not after minutes
    with open_runtime(lake) as runtime:
        _own_lake(
            runtime, {"scenario": pools.name, "scale": scale, "seed": seed, "code": runs.code_revision()}
        )
        _log_to(Path(runtime.settings.lake, "demo.log"))
        warm = Thread(target=_warm_up, args=(runtime,), daemon=True)
        warm.start()
        story = tell(runtime, Story(pools), scale=scale, seed=seed)
    width = None if sys.stdout.isatty() else 120
    Console(highlight=False, width=width).print(summary.render(story, runtime.settings))
    return 0 if all(story.promises.values()) else 1


def tell(runtime: Runtime, story: Story, *, scale: Scale, seed: int) -> Story:
    """All stages in order."""
    sizes, folder = SIZES[scale], Path(runtime.settings.lake, "scenario")
    stages = {
        "scenario": lambda: _scenario(story, folder, seed),
        "clean pool and evaluation sets": lambda: _first_rows(runtime, story, folder),
        "M0, the first champion": lambda: _first_champion(runtime, story, sizes),
        "traffic through M0": lambda: _traffic(runtime, story, folder, seed),
        "ingest and gate": lambda: _ingest(runtime, story, folder),
        "curate": lambda: _curate(runtime, story),
        "finetune": lambda: _finetune(runtime, story, sizes),
        "search": lambda: _search(runtime, story, sizes, seed),
        "promote": lambda: _promote(runtime, story, scale),
        "report": lambda: _report(runtime, story),
        "lineage and fsck": lambda: _prove(runtime, story),
    }
    with _Stages(story, len(stages)) as progress:
        for name, work in stages.items():
            with progress.stage(name):
                work()
    return story


# ---------------------------------------------------------------- stages


def _scenario(story: Story, folder: Path, seed: int) -> None:
    write_files(story.pools, into=folder, seed=seed)


def _first_rows(runtime: Runtime, story: Story, folder: Path) -> None:
    """The clean pool and the evaluation files: ingested, gated, curated each to its side, gated again."""
    names = ["clean", "gate-clean", "gate-noisy", "report-clean", "report-noisy"]
    stored = ingest(runtime, IngestConfig(sources=tuple(str(folder / f"{name}.jsonl") for name in names)))
    _admitted(runtime, stored)
    made = [_curated(runtime, CurateConfig(sources=(f"*/{folder.parent.name}/scenario/clean.jsonl",)))]
    for name in names[1:]:
        split, condition = name.split("-")
        config = {"sources": (f"*/scenario/{name}.jsonl",), "split": split, "condition": condition}
        off = {"exclude_poison": False, "scorer_base_model": None}
        made.append(_curated(runtime, CurateConfig.model_validate(config | off)))
    story.facts["prepared"] = {"in": stored.counts["in"], "out": sum(o.counts["out"] for o in made)}


def _first_champion(runtime: Runtime, story: Story, sizes: Sizes) -> None:
    data = DataRecipe(sources=("*/scenario/clean.jsonl",), max_rows=sizes.first_rows)
    config = FinetuneConfig(data=data, training=sizes.first)
    trained = finetune(runtime, config)
    standing = models.aliases(runtime.settings).get(NAME, {})
    if "champion" not in standing:
        promote(runtime, trained.run_id, name=NAME)
    story.facts["m0"] = trained.run_id


def _traffic(runtime: Runtime, story: Story, folder: Path, seed: int) -> None:
    """M0's real answers to the requests, as its log; and one batch of a broken exporter."""
    log, planted = folder / "traffic.jsonl", folder / "broken-exporter.jsonl"
    if log.exists() and planted.exists():
        return
    requests, truth = traffic(story.pools, seed=seed)
    checkpoint, version = models.resolve(runtime.settings, story.facts["m0"])
    predictor = load_predictor(checkpoint)
    answers = [(p.label, p.confidence) for p in predictor.predict([request.text for request in requests])]
    lines = render_log(requests, answers, truth, story.pools, model=str(version), seed=seed)
    planted.write_bytes(joined(planted_batch(story.pools, model=str(version), seed=seed)))
    partial = log.with_suffix(".partial")
    partial.write_bytes(joined(damage(lines, seed=seed)))
    partial.replace(log)  # written last: its existence means the traffic is complete


def _ingest(runtime: Runtime, story: Story, folder: Path) -> None:
    stored = ingest(runtime, IngestConfig(sources=(str(folder / "traffic.jsonl"),)))
    _admitted(runtime, stored)
    verdict = admit(runtime, _stored_once(runtime, folder / "broken-exporter.jsonl"))
    story.facts["ingest"], story.facts["refused"] = stored.counts, verdict
    story.promises["unreadable lines are in quarantine"] = stored.counts["quarantined"] > 0
    story.promises["the broken exporter's batch is refused"] = verdict.outcome == "fail"


def _curate(runtime: Runtime, story: Story) -> None:
    made = _curated(runtime, CurateConfig(sources=("*/scenario/traffic.jsonl",)))
    story.facts["curate"] = made.counts
    where = pads.field("run_id") == made.run_id
    reasons = tables.read(
        runtime.settings, tables.resolve(runtime.settings, "rejected"), columns=["reason"], where=where
    )
    story.facts["reasons"] = {r["values"]: r["counts"] for r in reasons["reason"].value_counts().to_pylist()}


def _finetune(runtime: Runtime, story: Story, sizes: Sizes) -> None:
    story.facts["base recipe"] = finetune(runtime, _successor(runtime, story, sizes)).run_id


def _search(runtime: Runtime, story: Story, sizes: Sizes, seed: int) -> None:
    config = _successor(runtime, story, sizes)
    base = Recipe(data=config.data.model_dump(), hyperparameters=config.training.model_dump(), strategy={})
    wanted = SearchConfig(n_trials=sizes.trials, max_concurrent_trials=2, seed=seed)
    found = explore(runtime, wanted, base=base, dimensions=DIMENSIONS, trial=try_recipe)
    story.facts["search"] = found.facets


def _promote(runtime: Runtime, story: Story, scale: Scale) -> None:
    best = story.facts["search"]["best"]["run_id"]
    decided = promote(runtime, best, name=NAME)
    story.facts["promotion"] = decided.facets
    if scale == "full" and story.pools.name == "helpdesk":  # of other people's data nothing can be promised
        story.promises["a better model was promoted"] = decided.facets["promoted"]
    story.promises["the decision is on record"] = bool(decided.facets["checks"])


def _report(runtime: Runtime, story: Story) -> None:
    """M0, the champion and a linear probe on the report split, which nothing before has read."""
    settings = runtime.settings
    champion, _ = models.resolve(settings, f"{NAME}@champion")
    story.facts["reports"] = {}
    for who, run_id in (("before", story.facts["m0"]), ("after", champion.run_id)):
        evaluate(runtime, run_id, split="report")
        found = [
            r for r in report.reports_of(settings, run_id) if r.split == "report" and r.metric == "accuracy"
        ]
        story.facts["reports"][who] = {r.condition: r for r in found}
    story.facts["probe"] = _probe(runtime, champion)


def _prove(runtime: Runtime, story: Story) -> None:
    settings = runtime.settings
    champion, version = models.resolve(settings, f"{NAME}@champion")
    found = queries.lineage(settings, champion)
    origins = [source for sources in found.sources.values() for source in sources]
    story.promises["every row that trained the champion leads to its source's bytes"] = bool(origins) and all(
        json.loads(queries.source_bytes(origin)) for origin in origins
    )
    checks = fsck.fsck(settings)
    story.promises["fsck is clean"] = not any(check.found for check in checks)
    story.facts |= {"champion": str(version), "lineage": found, "fsck": checks, "docs": data_docs(runtime)}


# ---------------------------------------------------------------- helpers of the stages


def _successor(runtime: Runtime, story: Story, sizes: Sizes) -> FinetuneConfig:
    parent = models.resolve(runtime.settings, story.facts["m0"])[0].curriculum
    return FinetuneConfig(
        data=DataRecipe(sources=("*/scenario/traffic.jsonl",), parent=parent), training=sizes.successor
    )


def _curated(runtime: Runtime, config: CurateConfig) -> Outcome:
    made = curate(runtime, config)
    _admitted(runtime, made)
    return made


def _stored_once(runtime: Runtime, source: Path) -> TableVersion:
    """The batch of a source, be it refused: ingested again, it would be stored and refused again."""
    config = IngestConfig(sources=(str(source),))
    found = survey(source.absolute().as_uri())
    known = tables.batch_with(runtime.settings, source_key(found, choose_reader(found, config)), into=TRACE)
    return known or tables.resolve(runtime.settings, ingest(runtime, config).outputs[0])


def _admitted(runtime: Runtime, outcome: Outcome) -> None:
    for output in outcome.outputs:
        batch: TableVersion = tables.resolve(runtime.settings, output)
        admit(runtime, batch)
        verdicts.require(runtime.settings, batch)


def _probe(runtime: Runtime, champion: Any) -> dict[str, float]:
    """Accuracy per condition of a linear probe that learns from the champion's rows."""
    columns = ["text", "answer", "condition"]
    asked = verdicts.read_admitted(
        runtime.settings, EXAMPLE, columns=columns, where=pads.field("split") == "report"
    )
    learnt = queries.lineage(runtime.settings, champion).rows
    base = resolve_base(champion.base_model)
    said = linear_probe(
        base, learnt["text"].to_pylist(), learnt["answer"].to_pylist(), asked["text"].to_pylist()
    )
    right = [a == b for a, b in zip(said, asked["answer"].to_pylist(), strict=True)]
    conditions = asked["condition"].to_pylist()
    return {
        name: sum(r for r, c in zip(right, conditions, strict=True) if c == name) / conditions.count(name)
        for name in sorted(set(conditions))
    }


def _pools(data: str | None, *, seed: int, scale: Scale) -> Pools:
    if data is None:
        return helpdesk(seed=seed, scale=scale)
    from examples.helpdesk.clinc import clinc

    return clinc(Path(data), seed=seed, scale=scale)


def _own_lake(runtime: Runtime, identity: dict[str, Any]) -> None:
    """The same demo resumes in its lake, another demo's is set aside, and nobody else's is touched."""
    lake = Path(runtime.settings.lake)
    marker = lake / "demo.json"
    if lake.exists() and any(lake.iterdir()):
        if not marker.exists():
            raise DemoError(
                f"lake '{lake}' holds something that is not a demo's; choose an empty folder with --lake"
            )
        found = json.loads(marker.read_text())
        if found == identity:
            return
        aside = lake.with_name(f"{lake.name}-{runs.identity('demo', found, [])[:8]}")
        shutil.rmtree(aside, ignore_errors=True)
        lake.rename(aside)
        print(f"the lake of another demo was set aside as {aside}", file=sys.stderr)
    lake.mkdir(parents=True, exist_ok=True)
    marker.write_text(json.dumps(identity))


def _warm_up(runtime: Runtime) -> None:
    """What takes seconds and waits for nothing: MLflow's tables, Ray's processes."""
    registry.mirror(registry.prepare, runtime.settings)


class _Stages:
    """Progress of the stages: a bar where there is a terminal, a line per stage where there is none."""

    def __init__(self, story: Story, total: int):
        self._story = story
        columns = (
            "[progress.description]{task.description}",
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        self._console = Console(stderr=True, highlight=False)
        self._progress = Progress(*columns, console=self._console, transient=True)
        self._task = self._progress.add_task("", total=total)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self._progress.update(self._task, description=name)
        start = monotonic()
        yield
        self._story.seconds[name] = monotonic() - start
        self._progress.advance(self._task)
        self._console.print(f"  {name:<32} {self._story.seconds[name]:6.1f} s", markup=False)

    def __enter__(self) -> _Stages:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


def _log_to(path: Path) -> None:
    """What the jobs log goes to a file; the screen shows stages, warnings and the summary."""
    logger = logging.getLogger("stemma")
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger.addHandler(handler)
    for shown in logging.getLogger().handlers:
        shown.setLevel(logging.WARNING)
