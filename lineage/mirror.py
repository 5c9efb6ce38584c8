"""MLflow shows what the lake holds: each run, version, alias and recall from its Delta record alone.

    show_run       a finished run: params, numbers, what it was fed, what it ate; show_outcome: at a job's end
    show_version   a registered version: adapter, pedigree, tags, its evaluations
    show_recalls   what recalls and promotions say of versions, and where aliases stand
    sync           all of it that MLflow does not show yet

A job calls these once its record is complete, and `stemma mlflow-sync` calls the same for whatever MLflow
missed while it was away: so both give the same picture. All of them may be repeated.

Errors: RegistryError, where MLflow cannot be asked or holds something else than the lake.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow.dataset as pads

from infra.settings import Settings
from lineage import (
    bans,
    curricula,
    fed,
    models,
    pedigrees,
    promotion_pages,
    queries,
    registry,
    runs,
    tables,
    verdict_pages,
)
from lineage.consumption import Checkpoint, bitmaps, checkpoints, find_checkpoint
from lineage.models import ModelVersion
from lineage.registry import IndexedVersion, RegistryError
from lineage.runs import Outcome
from lineage.schemas import NOT_APPLICABLE, RUN
from lineage.tables import TableError

Picture = dict[str, Any]
"""What `registry.log_run` takes of a run beside its id, job and times."""

_SHOWN = {registry.SHOWN_TAG: registry.SHOWN}
EATEN = "eaten_rows.json"  # the table that MLflow's UI draws


def show_run(settings: Settings, run_id: str, *, unless_shown: bool = False) -> None:
    """Show a finished run of a job that MLflow shows: finetune, train, evaluate, search, gate, promote.

    `unless_shown`: whoever finds work done sees to it that it is shown, and does nothing more.
    """
    if unless_shown and registry.is_shown(settings, run_id):
        return
    history = [e for e in runs.events(settings, runs.identity_of(run_id)) if e["run_id"] == run_id]
    done = next((event for event in history if event["status"] == "COMPLETE"), None)
    if done is None or done["job"] not in _PICTURES:
        raise RegistryError(f"run {run_id} is no finished {', '.join(_PICTURES)}; MLflow shows nothing else")
    told = {name: json.loads(done[name]) for name in ("inputs", "config", "counts")}
    told["facets"] = runs.measured(done)
    picture = _PICTURES[done["job"]](settings, done | told)
    began = next((event["at"] for event in history if event["status"] == "START"), None)
    registry.log_run(settings, run_id=run_id, job=done["job"], started=began, ended=done["at"], **picture)
    if done["job"] == "evaluate":
        _show_on_models(settings, picture["parent_run_id"], run_id)


def show_outcome(settings: Settings, outcome: Outcome) -> None:
    """As `show_run`, where MLflow can be asked; of work that was done before only if it does not show it yet.

    For a process that died after the work may not have come to this.
    """
    registry.if_reachable(show_run, settings, outcome.run_id, unless_shown=outcome.again)


def show_version(settings: Settings, version: ModelVersion) -> None:
    """Show a registered version with all that the lake knows of it. Its run must be shown."""
    _show_version(settings, version, _Record(settings))


def show_recalls(settings: Settings) -> None:
    """Bring the tags of the versions that MLflow has, and all aliases, up to date: what a recall changes.

    What MLflow cannot be told of one model does not keep it from being told of the others.
    """
    record = _Record(settings)
    for name in sorted({version.name for version in models.versions(settings)}):
        registry.if_reachable(_show_tags, settings, name, record)
        registry.if_reachable(models.mirror_aliases, settings, name)


def _show_tags(settings: Settings, name: str, record: _Record) -> list[ModelVersion]:
    """The versions whose tags were not what the lake says."""
    standing = {each.version: each for each in registry.model_versions(settings, name)}
    mended: list[ModelVersion] = []
    for version in models.versions(settings, name):
        there = standing.get(version.version)
        if there is None or (version.run_id, version.step) not in record.checkpoints:
            continue
        tags = record.tags(version)
        if _stale(there, tags):
            registry.tag_version(settings, name=name, version=version.version, tags=tags)
            mended.append(version)
    return mended


def mend_tags(settings: Settings, name: str) -> list[ModelVersion]:
    """Set the tags of a model's versions back to what the lake says; those whose tags were others.

    Raises RegistryError when MLflow cannot be asked.
    """
    return _show_tags(settings, name, _Record(settings))


def differences(settings: Settings, name: str) -> list[str]:
    """A sentence for each version of a model that MLflow shows otherwise than the lake has it, or not at all.

    Whether somebody edited it there or MLflow was away, nobody can tell; what mends it is said. Raises
    RegistryError when it cannot be asked.
    """
    standing = {each.version: each for each in registry.model_versions(settings, name)}
    record, found = _Record(settings), []
    promoted = {output for _, done in runs.completed(settings, "promote") for output in done.outputs}
    for version in models.versions(settings, name):
        there = standing.get(version.version)
        if (version.run_id, version.step) not in record.checkpoints:
            continue  # of what leads nowhere there is nothing to show
        if there is not None:
            wrong = [key for key, value in record.tags(version).items() if there.tags.get(key, "") != value]
            if wrong:
                found.append(
                    f"MLflow says otherwise of {version} than the lake, in {', '.join(wrong)}; set it right "
                    "with: stemma fsck --repair"
                )
        elif f"model:{version}" not in promoted:
            continue  # its promotion was cut off, and shows it when it is given again
        elif version.version < max(standing, default=0):
            found.append(
                f"{version} is not in MLflow, which has later versions of '{name}': it was deleted there, "
                f"and no number is given twice; {registry.register_again(name)}"
            )
        else:
            found.append(
                f"{version} is not in MLflow; show it with: stemma mlflow-sync (which says what to do where "
                "it was deleted there)"
            )
    return found


def sync(settings: Settings) -> Iterator[str]:
    """Show what MLflow does not show yet, oldest first; a sentence for each thing done, as it is done.

    A sentence that begins with "not " is of something that could not be shown, and why. Raises RegistryError
    where MLflow cannot be asked at all.
    """
    registry.prepare(settings)
    yield from _sync_runs(settings)
    record = _Record(settings)
    for name in sorted({version.name for version in models.versions(settings)}):
        yield from _sync_versions(settings, name, record)
        yield from _sync_aliases(settings, name)


def _show_version(settings: Settings, version: ModelVersion, record: _Record) -> None:
    checkpoint, _ = models.resolve(settings, str(version))
    facts = pedigrees.of_model(settings, queries.lineage(settings, checkpoint), version)
    registry.register(
        settings,
        name=version.name,
        version=version.version,
        run_id=checkpoint.run_id,
        adapter_dir=checkpoint.uri,
        tags=record.tags(version) | _SHOWN,
        pedigree={
            "pedigree.html": registry.pedigree_html(facts),
            "pedigree.json": registry.pedigree_json(facts),
        },
        step=checkpoint.step,
        evaluations=_evaluations(settings, checkpoint),
    )


def _sync_runs(settings: Settings) -> Iterator[str]:
    shown, going_on = registry.shown_runs(settings), registry.open_runs(settings)
    gates = verdict_pages.gates_to_show(
        settings
    )  # of a search there may be thousands, as parts of its trials
    condition = pads.field("job").isin(list(_PICTURES)) & (pads.field("status") != "START")
    for event in tables.read(settings, RUN, where=condition).sort_by("at").to_pylist():
        run_id, status = event["run_id"], event["status"]
        if event["job"] == "gate" and run_id not in gates:
            continue
        if status == "COMPLETE" and run_id not in shown:
            yield from _told(f"run {run_id} ({event['job']})", lambda it=run_id: show_run(settings, it))
        elif status != "COMPLETE" and run_id in going_on:
            yield from _told(
                f"the end of run {run_id} ({event['job']}, {status})",
                lambda it=event: registry.close_run(
                    settings, run_id=it["run_id"], status=it["status"], ended=it["at"]
                ),
            )


def _sync_versions(settings: Settings, name: str, record: _Record) -> Iterator[str]:
    standing = {each.version: each for each in registry.model_versions(settings, name)}
    for version in models.versions(settings, name):
        there = standing.get(version.version)
        if there is None:
            yield from _told(f"version {version}", lambda it=version: _show_version(settings, it, record))
        elif _stale(there, record.tags(version) | _SHOWN):
            yield from _told(
                f"what is new of {version}", lambda it=version: _show_version(settings, it, record)
            )


def _sync_aliases(settings: Settings, name: str) -> Iterator[str]:
    before = registry.indexed_aliases(settings, name)
    try:
        models.mirror_aliases(settings, name)
    except RegistryError as error:
        yield f"not shown, aliases of '{name}': {error}"
        return
    for alias, now in registry.indexed_aliases(settings, name).items():
        if before.get(alias) != now:
            yield f"shown: {name}@{alias} on {f'version {now.version}' if now.version else 'nothing'}"
    for sentence in models.moved_by_hand(settings, name):
        yield f"not set back: {sentence}"


def _told(what: str, show: Callable[[], None]) -> Iterator[str]:
    try:
        show()
    except (RegistryError, TableError) as error:  # of one thing; the others may stand
        yield f"not shown, {what}: {error}"
    else:
        yield f"shown: {what}"


def _stale(there: IndexedVersion, wanted: Mapping[str, str]) -> bool:
    return any(there.tags.get(key, "") != value for key, value in wanted.items())


class _Record:
    """What the lake says of versions, read once for all of them."""

    def __init__(self, settings: Settings) -> None:
        self.checkpoints = {(c.run_id, c.step): c for c in checkpoints(settings)}
        self.ate = bitmaps(settings)
        self.moved = {
            (event.kind, event.name, event.alias, event.to_version) for event in models.events(settings)
        }
        self.gone = bans.numbers_by_recall(settings)

    def tags(self, version: ModelVersion) -> dict[str, str]:
        """What a version says of itself; empty where there is nothing to say."""
        place = (version.run_id, version.step)
        if place not in self.checkpoints:
            raise models.ModelError(
                f"{version} names checkpoint {version.run_id}/{version.step}, which is not in the lake"
            )
        checkpoint = self.checkpoints[place]
        reigned = ("promotion", version.name, "champion", version.version) in self.moved
        tried = ("promotion", version.name, "candidate", version.version) in self.moved
        ate = self.ate[place]
        recalled_by = sorted(recall for recall, gone in self.gone.items() if not gone.isdisjoint(ate))
        return {
            "stemma.run_id": checkpoint.run_id,
            "stemma.curriculum": checkpoint.curriculum,
            "stemma.root": checkpoint.consumption_root,
            "stemma.adapter_digest": checkpoint.adapter_digest,
            "stemma.verdict": "promoted" if reigned else "refused" if tried else "",
            "stemma.recalled_by": " ".join(recalled_by),
        }


def _evaluations(settings: Settings, checkpoint: Checkpoint) -> list[str]:
    """The finished evaluations of a checkpoint, oldest first."""
    done = (pads.field("job") == "evaluate") & (pads.field("status") == "COMPLETE")
    found = tables.read(settings, RUN, columns=["run_id", "inputs", "at"], where=done).sort_by("at")
    wanted = f"checkpoint:{checkpoint.name}"
    return [row["run_id"] for row in found.to_pylist() if wanted in json.loads(row["inputs"])]


def _show_on_models(settings: Settings, model_run: str, evaluation: str) -> None:
    """Show an evaluation on the versions of its model that MLflow has; later ones find it themselves."""
    for version in models.versions(settings):
        if version.run_id == model_run:
            there = {each.version for each in registry.model_versions(settings, version.name)}
            if version.version in there:
                registry.link_evaluation(
                    settings,
                    name=version.name,
                    version=version.version,
                    run_id=model_run,
                    evaluation=evaluation,
                    step=version.step,
                )


_MEASURED = ("seconds", "tokens_per_s", "peak_mb", "peak_gpu_mb", "lost_steps")


def _training(settings: Settings, done: Mapping[str, Any]) -> Picture:
    checkpoint = find_checkpoint(settings, done["run_id"])
    curriculum = curricula.load(settings, checkpoint.curriculum)
    eaten = queries.lineage(settings, checkpoint)
    facets, config = done["facets"], dict(done["config"])
    metrics = {"rows": done["counts"]["rows"]}
    metrics |= {name: facets[name] for name in _MEASURED if name in facets}
    metrics |= {f"slice_{name}": count for name, count in curriculum.slices.items()}
    return {
        "params": {**config.pop("training"), **{f"data.{k}": v for k, v in config.pop("data", {}).items()}},
        "metrics": metrics,
        "tags": {
            "stemma.curriculum": curriculum.root,
            "stemma.curriculum_version": str(curriculum.version),
            "stemma.root": checkpoint.consumption_root,
            "stemma.adapter_digest": checkpoint.adapter_digest,
            "stemma.eaten_rows": _said_of(eaten.count, checkpoint),
        },
        "parent_run_id": None if done["parent_run"] == NOT_APPLICABLE else done["parent_run"],
        "series": {"loss": facets["losses"]} if facets.get("losses") else {},
        "fed": [fed.of_curriculum(settings, curriculum), fed.of_checkpoint(settings, checkpoint, eaten)],
        "files": _under("verdict", verdict_pages.kept(settings, curriculum.version)),
        # What was recalled since is said on the versions; the table is the same whenever it is shown.
        "tables": {EATEN: fed.eaten(eaten.first_rows(registry.SHOWN_ROWS)).drop_columns(["recalled"])},
    }


def _said_of(rows: int, checkpoint: Checkpoint) -> str:
    if rows <= registry.SHOWN_ROWS:
        return f"{rows:,}, all of them in {EATEN}"
    return (
        f"{rows:,}, the {registry.SHOWN_ROWS:,} first eaten of them in {EATEN}; "
        f"all: stemma lineage {checkpoint.run_id} --json"
    )


def _evaluation(settings: Settings, done: Mapping[str, Any]) -> Picture:
    config, inputs = done["config"], _by_kind(done["inputs"])
    rows = fed.of_evaluation(settings, done["run_id"], digest=inputs["examples"], split=config["split"])
    return {
        "params": {"split": config["split"], "seed": config["seed"]},
        "metrics": {name: numbers[0] for name, numbers in done["facets"].items()},
        "tags": {"stemma.adapter_digest": config["adapter"]},
        "parent_run_id": inputs["checkpoint"].rpartition("/")[0],
        "fed": [rows],
    }


def _search(_: Settings, done: Mapping[str, Any]) -> Picture:
    best = done["facets"]["best"]
    return {
        "params": {"config": done["config"]["config"], "best": best["edits"]},
        "metrics": {"best_score": best["score"], **done["counts"]},
        "tags": {"stemma.best_run": best["run_id"]},
    }


def _gate(settings: Settings, done: Mapping[str, Any]) -> Picture:
    batch, counts, facets = done["inputs"][0], done["counts"], done["facets"]
    return {
        "params": {"batch": batch, **done["config"]},
        "metrics": {"rows": counts["in"], "rows_admitted": counts["out"]},
        "tags": {
            "stemma.batch": batch,
            "stemma.verdict": facets["outcome"],
            "stemma.reason": facets["reason"],
        },
        "parent_run_id": None if done["parent_run"] == NOT_APPLICABLE else done["parent_run"],
        "files": verdict_pages.kept(settings, batch),
    }


def _promotion(settings: Settings, done: Mapping[str, Any]) -> Picture:
    config, facets = done["config"], done["facets"]
    version = f"{config['name']}@{facets['version']}"
    checks = {f"check_{each['name']}": float(each["passed"]) for each in facets["checks"]}
    kept = promotion_pages.kept(settings, done["run_id"])
    return {
        "params": {"name": config["name"], "seed": config["seed"], "gate": config.get("gate", {})},
        "metrics": {**facets.get("figures", {}), **checks},
        "tags": {
            "stemma.version": version,
            "stemma.verdict": "promoted" if facets["promoted"] else "refused",
            "stemma.reason": "; ".join(each["text"] for each in facets["checks"] if not each["passed"]),
        },
        "parent_run_id": None if done["parent_run"] == NOT_APPLICABLE else done["parent_run"],
        "files": {"promotion.html": kept} if kept else {},
    }


def _under(folder: str, files: Mapping[str, str]) -> dict[str, str]:
    return {f"{folder}/{name}": content for name, content in files.items()}


def _by_kind(inputs: Sequence[str]) -> dict[str, str]:
    """The inputs of a run by what they are: checkpoint, examples, ..."""
    return {kind: name for kind, _, name in (each.partition(":") for each in inputs)}


_PICTURES: Mapping[str, Callable[[Settings, Mapping[str, Any]], Picture]] = {
    "finetune": _training,
    "train": _training,
    "evaluate": _evaluation,
    "search": _search,
    "gate": _gate,
    "promote": _promotion,
}
