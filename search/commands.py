"""The verb of this folder: `stemma search`."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import typer
from pydantic import BaseModel, ConfigDict, Field

from infra.cli import Json, Lake, Set, open_runtime
from infra.config import read_config
from lineage.recipe import Recipe
from search.edits import Categorical, Dimension, Integer, LogUniform, Uniform
from search.explore import SearchConfig, explore
from search.space import SearchError
from search.trial import try_recipe
from training.finetune import FinetuneConfig


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
        found = explore(runtime, wanted.search, base=base, dimensions=dimensions, trial=try_recipe)
    if as_json:
        print(json.dumps({"run_id": found.run_id, **found.facets}))
        return 0
    for trial in found.facets["trials"]:
        score = f"{trial['score']:.4f}" if trial["score"] is not None else f"failed: {trial['error']}"
        print(f"{trial['vertex']}  {score}  {'; '.join(trial['edits']) or 'the base recipe'}")
    print(found.facets["sampling"])
    print(f"next: stemma promote {found.facets['best']['run_id']} --name MODEL")
    return 0
