"""How the champion comes to be: M0, its traffic, the gates, curation, training, search, promotion."""

from __future__ import annotations

from pathlib import Path

from examples import serving
from examples.helpdesk.files import damage, joined, planted_batch, render_log, traffic, write_files
from examples.story import NAME, Sizes, Story, once
from expectations.gate import admit
from infra.runtime import Runtime
from infra.storage import survey
from lineage import curricula, models, runs, tables, verdicts
from lineage.curricula import DataRecipe
from lineage.recipe import Recipe
from lineage.runs import Outcome
from lineage.schemas import TRACE
from lineage.tables import TableVersion
from pipelines import formats
from pipelines.curate import CurateConfig, curate
from pipelines.ingest import IngestConfig, identity, ingest, source_key
from pipelines.personal import Treatment
from search.edits import Categorical, Integer, LogUniform, Uniform
from search.explore import SearchConfig, explore
from search.trial import try_recipe
from training.answering import load_predictor
from training.finetune import FinetuneConfig, finetune
from training.promote import promote

LOG = "*/scenario/traffic.jsonl"  # the pattern that the log's rows are found by
DIMENSIONS = (
    Uniform("data.gold_share", 0.52, 0.59),
    Uniform("data.hard_share", 0.28, 0.31),
    LogUniform("hyperparameters.learning_rate", 1e-3, 3e-3),
    Categorical("hyperparameters.r", (8, 16, 32)),
    Integer("hyperparameters.num_train_epochs", 2, 3),
)


def write_scenario(story: Story, folder: Path, seed: int) -> None:
    """The files: what is trained on, what is measured on, what users send."""
    write_files(story.pools, into=folder, seed=seed)


def prepare_rows(runtime: Runtime, story: Story, folder: Path) -> None:
    """The clean pool and the evaluation files: ingested, gated, curated each to its side, gated again."""
    names = ["clean", "gate-clean", "gate-noisy", "report-clean", "report-noisy"]
    stored = ingest(runtime, IngestConfig(sources=tuple(str(folder / f"{name}.jsonl") for name in names)))
    _admitted(runtime, stored)
    made = [_curated(runtime, CurateConfig(sources=("*/scenario/clean.jsonl",)))]
    for name in names[1:]:
        split, condition = name.split("-")
        config = {"sources": (f"*/scenario/{name}.jsonl",), "split": split, "condition": condition}
        off = {"exclude_poison": False, "scorer_base_model": None}
        made.append(_curated(runtime, CurateConfig.model_validate(config | off)))
    story.facts["prepared"] = {"in": stored.counts["in"], "out": sum(o.counts["out"] for o in made)}


def make_first_champion(runtime: Runtime, story: Story, sizes: Sizes) -> None:
    """M0, from a few clean rows."""
    data = DataRecipe(sources=("*/scenario/clean.jsonl",), max_rows=sizes.first_rows)
    trained = finetune(runtime, FinetuneConfig(data=data, training=sizes.first))
    decided = [config["candidate"] for config, _ in runs.completed(runtime.settings, "promote")]
    if trained.run_id not in decided:
        promote(runtime, trained.run_id, name=NAME)
    story.facts["m0"] = trained.run_id


def send_traffic(runtime: Runtime, story: Story, folder: Path, seed: int) -> None:
    """M0's real answers to the requests, as its log; and one batch of a broken exporter."""
    log, planted = folder / "traffic.jsonl", folder / "broken-exporter.jsonl"
    if log.exists() and planted.exists():
        return
    requests, truth = traffic(story.pools, seed=seed)
    checkpoint, version = models.resolve(runtime.settings, story.facts["m0"])
    if story.over_http:
        standing = models.aliases(runtime.settings).get(NAME, {}).get("champion")
        reference = "champion" if version and version.version == standing else str(version)
        with serving.serving(runtime.settings, reference) as url:
            answers = [serving.label(a) for a in serving.send(url, requests, story.pools, model=reference)]
    else:
        predictor = load_predictor(runtime, checkpoint)
        predictions = predictor.predict([request.text for request in requests])
        answers = [(p.label, p.confidence) for p in predictions]
    lines = render_log(requests, answers, truth, story.pools, model=str(version), seed=seed)
    planted.write_bytes(joined(planted_batch(story.pools, model=str(version), seed=seed)))
    partial = log.with_suffix(".partial")
    partial.write_bytes(joined(damage(lines, seed=seed)))
    partial.replace(log)  # written last: its existence means the traffic is complete


def ingest_log(runtime: Runtime, story: Story, folder: Path) -> None:
    """The log through reader and gate; the broken exporter's batch is refused by it."""
    stored = ingest(runtime, IngestConfig(sources=(str(folder / "traffic.jsonl"),)))
    _admitted(runtime, stored)
    verdict = admit(runtime, _stored_once(runtime, folder / "broken-exporter.jsonl"))
    story.facts["ingest"], story.facts["refused"] = stored.counts, verdict
    story.promises["unreadable lines are in quarantine"] = stored.counts["quarantined"] > 0
    story.promises["the broken exporter's batch is refused"] = verdict.outcome == "fail"


def curate_log(runtime: Runtime, story: Story) -> None:
    """Corrected failures and passes become examples; the rest is rejected with a reason."""
    settings, config = runtime.settings, CurateConfig(sources=(LOG,))
    made = once(settings, "curate", lambda: _curated(runtime, config), sources=[LOG])
    story.facts["curate"] = made.counts
    where = runs.of_any_attempt(runs.identity_of(made.run_id))  # a killed go at it may have stored them
    reasons = tables.read(settings, tables.resolve(settings, "rejected"), columns=["reason"], where=where)
    story.facts["reasons"] = {r["values"]: r["counts"] for r in reasons["reason"].value_counts().to_pylist()}


def train_successor(runtime: Runtime, story: Story, sizes: Sizes) -> None:
    """The base recipe."""
    config = _successor(runtime, story, sizes)
    once(runtime.settings, "finetune", lambda: finetune(runtime, config))


def search_successor(runtime: Runtime, story: Story, sizes: Sizes, seed: int) -> None:
    """Edited recipes, each a child run; the base recipe among them."""
    config = _successor(runtime, story, sizes)
    base = Recipe(data=config.data.model_dump(), hyperparameters=config.training.model_dump(), strategy={})
    wanted = SearchConfig(n_trials=sizes.trials, max_concurrent_trials=2, seed=seed)

    def work() -> Outcome:
        inputs = curricula.inputs(runtime.settings, config.data)
        return explore(runtime, wanted, base=base, dimensions=DIMENSIONS, trial=try_recipe, inputs=inputs)

    story.facts["search"] = once(runtime.settings, "search", work).facets


def promote_best(runtime: Runtime, story: Story) -> None:
    """The best of them before the gates."""
    best = story.facts["search"]["best"]["run_id"]
    decided = once(runtime.settings, "promote", lambda: promote(runtime, best, name=NAME), candidate=best)
    story.facts["promotion"] = decided.facets
    story.facts["contaminated"] = best
    if story.is_known:
        story.promises["a better model was promoted"] = decided.facets["promoted"]
    story.promises["the decision is on record"] = bool(decided.facets["checks"])


def _successor(runtime: Runtime, story: Story, sizes: Sizes) -> FinetuneConfig:
    parent = models.resolve(runtime.settings, story.facts["m0"])[0].curriculum
    return FinetuneConfig(data=DataRecipe(sources=(LOG,), parent=parent), training=sizes.successor)


def _curated(runtime: Runtime, config: CurateConfig) -> Outcome:
    made = curate(runtime, config)
    _admitted(runtime, made)
    return made


def _stored_once(runtime: Runtime, source: Path) -> TableVersion:
    """The batch of a source, be it refused: ingested again, it would be stored and refused again."""
    settings, config = runtime.settings, IngestConfig(sources=(str(source),))
    found = survey(source.absolute().as_uri())
    reader = identity(formats.FORMATS["chat_completions"], Treatment())
    known = tables.batch_with(settings, source_key(found, reader), into=TRACE)
    if known is not None and str(known) in tables.withdrawn(settings, TRACE):
        return known
    return tables.resolve(settings, ingest(runtime, config).outputs[0])


def _admitted(runtime: Runtime, outcome: Outcome) -> None:
    for output in outcome.outputs:
        batch: TableVersion = tables.resolve(runtime.settings, output)
        admit(runtime, batch)
        verdicts.require(runtime.settings, batch)
