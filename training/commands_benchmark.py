"""The verb `stemma benchmark`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from infra.cli import Json, Lake, open_runtime
from infra.endpoints import Endpoint
from infra.runtime import Runtime
from infra.screen import harmless
from training.benchmarks.compared import weak_categories
from training.benchmarks.definition import read
from training.benchmarks.job import benchmark as ask_all
from training.benchmarks.scored import Scored, from_facets
from training.judge import EndpointJudge
from training.recipe import TrainingError

_QUOTA = 100  # rows, of which each weak category is told its part: in percent


def benchmark(
    model: Annotated[str, typer.Argument(help="An alias, NAME@VERSION, or the start of a run id.")],
    asked: Annotated[str, typer.Argument(help="A packaged benchmark (nine, arithmetic), or a TOML file.")],
    against: Annotated[str | None, typer.Option(help="Another model, to be compared with.")] = None,
    judge: Annotated[
        str | None, typer.Option(help="URL of an OpenAI-compatible endpoint that judges.")
    ] = None,
    judge_model: Annotated[str, typer.Option(help="The model that judges there.")] = "",
    judge_key: Annotated[str | None, typer.Option(help="Name of the variable that holds its key.")] = None,
    without_judge: Annotated[
        bool, typer.Option("--without-judge", help="Categories that need a judge are left out on purpose.")
    ] = False,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer of a decoder.")] = 256,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap.")] = 0,
    lake: Lake = None,
    as_json: Json = False,
) -> int:
    """Ask a model all prompts of a benchmark; exit 0 where all floors are reached, 1 where one is not.

    A category that was not measured reaches no floor, unless it is left out --without-judge.

    Example: stemma benchmark champion nine --judge http://localhost:8000/v1 --judge-model qwen3-8b
    """
    if (judge is None) != (not judge_model) or (judge_key is not None and judge is None):
        raise TrainingError(
            "a judge needs both --judge URL and --judge-model NAME; --judge-key goes with them"
        )
    with open_runtime(lake) as runtime:
        outcome = ask_all(
            runtime,
            model,
            asked,
            judge=None if judge is None else _judge(runtime, judge, judge_model, judge_key),
            against=against,
            seed=seed,
            max_new_tokens=max_new_tokens,
        )
    scored = from_facets(read(asked), outcome.facets)
    weak = [asdict(each) for each in weak_categories(scored, rows=_QUOTA)]
    missing = () if without_judge else scored.unmeasured
    failed = [*scored.failed, *(f"Category '{each}' was not measured; give a --judge." for each in missing)]
    if as_json:
        print(json.dumps({"run_id": outcome.run_id, **outcome.facets, "weak": weak, "failed": failed}))
        return 1 if failed else 0
    _show(scored)
    for each in outcome.facets.get("regressed", ()):
        print(harmless(f"regressed: {each['text']}"))
    if against is not None:
        gain = outcome.facets["gain"]
        print(
            f"against {against}: {100 * gain['diff']:+.1f} points "
            f"[{100 * gain['low']:+.1f}, {100 * gain['high']:+.1f}]"
        )
    for sentence in failed:
        print(harmless(f"FAIL  {sentence}"))
    return 1 if failed else 0


def _judge(runtime: Runtime, url: str, model: str, key: str | None) -> EndpointJudge:
    settings = runtime.settings
    cache = Path(settings.path("judged")) if settings.is_local else None
    return EndpointJudge(Endpoint(url, model, key_variable=key), cache=cache)


def _show(scored: Scored) -> None:
    for each in scored.categories:
        left = f", {each.not_counted} without a verdict" if each.not_counted else ""
        mark = "" if each.is_reached else "  below its floor"
        print(f"{harmless(each.name):<28} {100 * each.value:5.1f} %  n={each.n}{left}{mark}")
    for name in scored.unmeasured:
        print(f"{harmless(name):<28} not measured: it needs a judge")
    print(f"{'all in all':<28} {scored}")
