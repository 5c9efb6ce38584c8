"""The verbs of this folder: `stemma finetune`, `evaluate`, `promote`, `reproduce`, `merge`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any

import typer

from infra.cli import Json, Lake, Set, existing, open_runtime
from infra.config import read_config
from infra.screen import harmless
from lineage.models import resolve
from lineage.promotion_pages import place
from lineage.report import reports_of
from lineage.runs import Outcome
from training import evaluate as evaluation
from training import finetune as tuning
from training import promote as promotion
from training import reproduce as reproduction
from training.asking import Asking
from training.null import churn
from training.promotion import Gate
from training.recipe import TrainingError
from training.reliance import reliance


def finetune(
    config: Annotated[str | None, typer.Argument(help="TOML config.")] = None,
    set: Set = None,
    lake: Lake = None,
    as_json: Json = False,
) -> int:
    """Select a curriculum, gate it, train an adapter on it and record every row it ate.

    Example: stemma finetune finetune.toml --set training.num_train_epochs=2
    """
    wanted = read_config(tuning.FinetuneConfig, config, set or ())
    with open_runtime(lake) as runtime:
        outcome = tuning.finetune(runtime, wanted)
    if as_json:
        print(json.dumps({"run_id": outcome.run_id, "counts": dict(outcome.counts), **outcome.facets}))
    else:
        rows, steps, loss = outcome.counts["rows"], outcome.facets["steps"], outcome.facets["losses"][-1]
        print(f"finetune {outcome.run_id}{_before(outcome)}: {rows} rows, {steps} steps, loss {loss:.3f}")
        for method, reason in outcome.facets["method_failures"].items():
            print(f"method {method} failed, so it was trained by {outcome.facets['method']}: {reason}")
        if outcome.counts["dropped"]:
            print(f"{outcome.counts['dropped']} rows were left out; the reasons are in 'rejected'")
        classifies = wanted.training.objective == "sequence_classification"
        then = f"promote {outcome.run_id} --name MODEL" if classifies else f"reproduce {outcome.run_id}"
        print(f"next: stemma {then}")
    return 0


def evaluate(
    model: Annotated[str, typer.Argument(help="An alias, NAME@VERSION, or the start of a run id.")],
    split: Annotated[str, typer.Option(help="gate or report.")] = "gate",
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap, and of the null retrains.")] = 0,
    null: Annotated[
        int,
        typer.Option(help="Train its recipe so often again with other seeds: what chance wins and loses."),
    ] = 0,
    wrong_cost: Annotated[
        float,
        typer.Option(help="On report: the confidence from which on to answer, if a wrong one costs so many."),
    ] = 0.0,
    set: Set = None,
    lake: Lake = None,
    as_json: Json = False,
) -> int:
    """Score a model on a split of admitted evaluation rows, each condition apart.

    Example: stemma evaluate champion --split gate --null 3
    """
    if split not in ("gate", "report"):
        raise TrainingError(f"split '{split}' is not one of: gate, report")
    if null and split != "gate":
        raise TrainingError("null retrains are never champions, and report is for those; take --split gate")
    if wrong_cost and split != "report":
        raise TrainingError("a threshold is fitted on gate and told on report; take --split report")
    asking = read_config(Asking, None, set or ())
    with open_runtime(lake) as runtime:
        outcome = evaluation.evaluate(runtime, model, split=split, seed=seed, asking=asking)
        checkpoint, _ = resolve(runtime.settings, model)
        found = [r for r in reports_of(runtime.settings, checkpoint.run_id) if r.run_id == outcome.run_id]
        relied = (
            reliance(runtime.settings, checkpoint, wrong_cost=wrong_cost, seed=seed) if wrong_cost else None
        )
        chance = churn(runtime, checkpoint, seeds=null, seed=seed, asking=asking) if null else None
    if as_json:
        numbers = [vars(report) for report in found]
        more = {"churn": asdict(chance)} if chance else {}
        more |= {"reliance": asdict(relied)} if relied else {}
        print(json.dumps({"reports": numbers, **more} if more else numbers))
        return 0
    for report in found:
        print(harmless(f"{report.condition:<14} {report.metric:<12} {report}"))
    for told in (chance, relied):
        for line in told.lines() if told else ():
            print(harmless(line))
    return 0


def promote(
    model: Annotated[str, typer.Argument(help="An alias, NAME@VERSION, or the start of a run id.")],
    name: Annotated[str, typer.Option(help="The registered model whose champion it would be.")],
    config: Annotated[str | None, typer.Argument(help="TOML file of the gate.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the resampling and of the null retrains.")] = 0,
    set: Set = None,
    lake: Lake = None,
    as_json: Json = False,
) -> int:
    """Put a model before the gates and move `champion` to it if it passes all of them; exit 1 if it does not.

    Example: stemma promote 3fa4 --name helpdesk-router --set nulls=3
    """
    gate = read_config(Gate, config, set or ())
    with open_runtime(lake) as runtime:
        outcome = promotion.promote(runtime, model, name=name, seed=seed, gate=gate)
        page = place(runtime.settings, outcome.run_id) if outcome.run_id else ""
    facets = outcome.facets
    if as_json:
        print(json.dumps({"run_id": outcome.run_id, "name": name, "page": page, **facets}))
        return 0 if facets["promoted"] else 1
    for line in decision_lines(facets):
        print(line)
    version = f"{name}@{facets['version']}"
    print(f"{version} {'is champion' if facets['promoted'] else 'was refused; the champion stays'}")
    if page:
        print(f"the decision as a page: {page}")
    return 0 if facets["promoted"] else 1


def reproduce(
    model: Annotated[str, typer.Argument(help="An alias, NAME@VERSION, or the start of a run id.")],
    lake: Lake = None,
    as_json: Json = False,
) -> int:
    """Train a model again from its record alone and compare every step; exit 1 if it differs.

    Example: stemma reproduce champion
    """
    settings = existing(lake)
    checkpoint, _ = resolve(settings, model)
    found = reproduction.reproduce(settings, checkpoint)
    if as_json:
        print(json.dumps(asdict(found)))
        return 0 if found.identical else 1
    for name, (then, now) in sorted(found.environment.items()):
        print(f"another {name}: {now}, in the record {then}")
    if found.sentence:
        print(f"{checkpoint.name} differs before the first step: {found.sentence}")
    elif found.identical:
        print(f"{checkpoint.name} is identical: rows and order, all {found.steps} steps, and the adapter")
        print(found.adapter_digest)
    else:
        print(f"{checkpoint.name} differs; rows and their order are the same")
        if found.first_step is not None:
            print(f"first at step {found.first_step} of {found.steps}: {found.first_difference}")
        print(f"adapter {found.adapter_digest} instead of {found.recorded_adapter_digest}")
    return 0 if found.identical else 1


def merge(
    model: Annotated[str, typer.Argument(help="An alias, NAME@VERSION, or the start of a run id.")],
    onto: Annotated[
        str, typer.Option(help="base: its weights as they are; nf4: as they were quantised in training.")
    ] = "base",
    lake: Lake = None,
    as_json: Json = False,
) -> int:
    """Add a model's adapter into the weights of its base. The adapter stays where it is.

    Example: stemma merge champion --onto nf4
    """
    if onto not in ("base", "nf4"):
        raise TrainingError(f"--onto '{onto}' is not one of: base, nf4")
    from training import merge as merging

    with open_runtime(lake) as runtime:
        outcome = merging.merge(runtime, model, onto=onto)
    if as_json:
        print(json.dumps({"run_id": outcome.run_id, **outcome.facets}))
        return 0
    print(f"{outcome.facets['folder']}: {outcome.facets['digest']}, merged onto {onto}{_before(outcome)}")
    print(f"logits at most {outcome.facets['off_by']:.3g} from the trained model's; gate it before it serves")
    return 0


def decision_lines(facets: Mapping[str, Any]) -> list[str]:
    """A decision on a screen, a line per check and note; labels, which others wrote, steer no terminal."""
    checks = [
        f"{'pass' if check['passed'] else 'FAIL'}  {check['name']}: {check['text']}"
        for check in facets["checks"]
    ]
    return [harmless(line) for line in (*checks, *(f"note  {note}" for note in facets["notes"]))]


def _before(outcome: Outcome) -> str:
    return " (done before)" if outcome.again else ""
