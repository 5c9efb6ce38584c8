"""The verbs of this folder: `stemma search`, and `stemma recall`, which may train again."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import typer
from pydantic import BaseModel, ConfigDict, Field

from infra.cli import Json, Lake, Set, existing, open_runtime
from infra.config import read_config
from infra.runtime import Runtime
from lineage import curricula, models
from lineage.bans import Recall, recalls
from lineage.commands_recall import (
    Generator,
    Prompt,
    Reviewer,
    Rows,
    Scorer,
    SourceRevision,
    Where,
    end_recall,
    told,
)
from lineage.curricula import CurriculumError
from lineage.reached import Impact
from lineage.recall import changes_nothing, reached_by, require_reason, would_move
from lineage.recall import recall as call_back
from lineage.recipe import Recipe
from lineage.runs import Outcome, completed
from lineage.selectors import Selector
from search.edits import Categorical, Dimension, Integer, LogUniform, Uniform
from search.explore import SearchConfig, explore
from search.retrain import retrain as train_again
from search.space import SearchError
from search.trial import try_recipe
from training.finetune import FinetuneConfig, with_parent_resolved
from training.recipe import TrainingError


class Range(BaseModel):
    """One dimension of a search, as TOML says it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    """Where in the recipe: data.KEY or hyperparameters.KEY."""

    kind: Literal["categorical", "uniform", "log_uniform", "integer"]
    """How values are drawn."""

    choices: tuple[Any, ...] | None = None
    """The values of a categorical dimension."""

    low: float | None = None
    """The least value of any other."""

    high: float | None = None
    """And the greatest."""

    def dimension(self) -> Dimension:
        """The dimension that it says. Raises SearchError where it says too little or too much."""
        if self.kind == "categorical":
            if self.choices is None or self.low is not None or self.high is not None:
                raise SearchError(f"dimension '{self.path}' is categorical: give 'choices' and nothing else")
            return Categorical(self.path, self.choices)
        if self.low is None or self.high is None or self.choices is not None:
            raise SearchError(f"dimension '{self.path}' is {self.kind}: give 'low' and 'high', no 'choices'")
        if self.kind == "integer":
            return Integer(self.path, int(self.low), int(self.high))
        return (Uniform if self.kind == "uniform" else LogUniform)(self.path, self.low, self.high)


class SearchFile(BaseModel):
    """What `stemma search` takes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: FinetuneConfig = Field(default_factory=FinetuneConfig)
    """The recipe that is edited."""

    search: SearchConfig = SearchConfig()
    """How long."""

    dimensions: tuple[Range, ...] = Field(min_length=1)
    """What may change."""


def search(
    config: Annotated[str, typer.Argument(help="TOML config: [base], [search], [[dimensions]].")],
    set: Set = None,
    lake: Lake = None,
    as_json: Json = False,
) -> int:
    """Try edited recipes as Ray Tune trials, each a child run, and say which scored best on `gate`.

    Example: stemma search search.toml --set search.n_trials=8
    """
    wanted = read_config(SearchFile, config, set or ())
    base = Recipe(data=wanted.base.data.model_dump(), hyperparameters=wanted.base.training.model_dump())
    dimensions = [one.dimension() for one in wanted.dimensions]
    with open_runtime(lake) as runtime:
        inputs = curricula.inputs(runtime.settings, with_parent_resolved(runtime, wanted.base.data))
        found = explore(
            runtime, wanted.search, base=base, dimensions=dimensions, trial=try_recipe, inputs=inputs
        )
    if as_json:
        print(json.dumps({"run_id": found.run_id, **found.facets}))
        return 0
    for trial in found.facets["trials"]:
        score = f"{trial['score']:.4f}" if trial["score"] is not None else f"failed: {trial['error']}"
        print(f"{trial['vertex']}  {score}  {'; '.join(trial['edits']) or 'the base recipe'}")
    print(found.facets["sampling"])
    print(f"next: stemma promote {found.facets['best']['run_id']} --name MODEL")
    return 0


def recall(
    prompt: Prompt = None,
    source_revision: SourceRevision = None,
    scorer: Scorer = None,
    generator: Generator = None,
    reviewer: Reviewer = None,
    row: Rows = None,
    where: Where = None,
    through_models: Annotated[
        bool, typer.Option("--through-models", help="Also what reached models wrote, and what came of that.")
    ] = False,
    reason: Annotated[str, typer.Option(help="Why; it stands in the record.")] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what it reaches and change nothing.")
    ] = False,
    retrain: Annotated[
        bool,
        typer.Option("--retrain", help="Then train the fallen champion's recipe again, without the rows."),
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Also where it reaches every row, or nothing that serves.")
    ] = False,
    lift: Annotated[
        str | None, typer.Option(help="Instead of all that, end a standing recall: its id or its start.")
    ] = None,
    lake: Lake = None,
    as_json: Json = False,
) -> int:
    """Ban what a selector reaches, quarantine it, and move aliases to the last clean model; options combine.

    A recall that was cut off is finished by the same command. With --lift, one ends: its rows come back, and
    aliases stay. Exit 1: a model is left without a champion, or its successor was refused.

    Example: stemma recall --prompt router@2 --reason "its list of intents was wrong" --retrain
    """
    parts = (prompt, scorer, generator, source_revision, reviewer, tuple(row or ()), where)
    if lift is not None:
        flags = {"through-models": through_models, "dry-run": dry_run, "retrain": retrain, "yes": yes}
        given = ["the selector"] * any(parts) + [f"--{name}" for name, is_given in flags.items() if is_given]
        return end_recall(lift, reason=reason, beside=given, lake=lake, as_json=as_json)
    selector = Selector(*parts, through_models)
    settings = existing(lake)
    if not dry_run:
        require_reason(reason)
    radius = reached_by(settings, selector)
    if not as_json:
        print("\n".join(told(radius)))
    if dry_run:
        _preview(radius, would_move(settings, radius), changes_nothing(settings, radius), as_json)
        return 0
    with open_runtime(lake) as runtime:
        outcome = call_back(runtime, selector, reason=reason, anyway=yes)
        if not as_json:
            _tell(outcome, radius)
        ordered = next(each for each in recalls(settings) if each.id == outcome.facets["recall"])
        made, failure = [], None
        try:
            made = _trained_again(runtime, ordered, anew=retrain)
        except (CurriculumError, TrainingError) as error:
            failure = f"recall {ordered.id} stands, but could not train again: {error}"
    if as_json:
        found = {"run_id": outcome.run_id, "counts": dict(outcome.counts), **outcome.facets}
        print(json.dumps(found | {"impact": radius.as_json(), "retrained": made, "failure": failure}))
    else:
        _tell_made(made)
        if ordered.orders and not made and not failure:
            print("train again without the rows: the same command with --retrain")
    if failure:
        print(f"stemma: {failure}", file=sys.stderr)
    served = models.aliases(settings)
    left = [order.name for order in ordered.orders if "champion" not in served.get(order.name, {})]
    return 1 if left or failure or any(not each["promoted"] for each in made) else 0


def _preview(radius: Impact, moves: Sequence[tuple[str, int, int]], is_idle: bool, as_json: bool) -> None:
    if as_json:
        print(json.dumps(radius.as_json() | {"would_move": moves}))
        return
    for alias, was, to in moves:
        print(f"  would move {alias}: version {was or 'none'} -> {to or 'none'}")
    if radius.is_everything:
        print("no row would be left: --yes is needed")
    elif is_idle:
        print("nothing that serves ate any of it: --yes is needed")
    print("nothing was changed (--dry-run)")


def _trained_again(runtime: Runtime, ordered: Recall, *, anew: bool) -> list[dict[str, Any]]:
    """What was trained again after this recall, now if `anew`, or before."""
    if anew:
        return train_again(runtime, ordered).facets["models"]
    mine = (ordered.id, ordered.lifts)
    before = [
        done
        for config, done in completed(runtime.settings, "retrain")
        if (config["recall"], config.get("lifts", 0)) == mine
    ]
    return before[-1].facets["models"] if before else []


def _tell(outcome: Outcome, radius: Impact) -> None:
    facets = outcome.facets
    done = "was carried out before; nothing was changed" if outcome.again else "stands"
    rows = outcome.counts["rows"]
    print(f"recall {facets['recall']} {done}: {rows} rows are banned and out of their tables")
    for alias, was, to in facets["moved"]:
        why = "nothing clean is left" if alias.endswith("@champion") else "removed"
        print(f"  {alias}: version {was} -> {to or why}")
    if radius.selector.on_values() is None:
        print("  new rows like these are not refused, for no value names them: recall again after an ingest")


def _tell_made(made: list[dict[str, Any]]) -> None:
    for each in made:
        for check in each["checks"]:
            print(f"  {'pass' if check['passed'] else 'FAIL'}  {check['text']}")
        state = "is champion" if each["promoted"] else "was refused"
        print(f"{each['name']}@{each['version']}, trained again on {each['rows']} rows, {state}")
