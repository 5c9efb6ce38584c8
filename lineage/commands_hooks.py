"""`stemma hooks`: what is told of a moved champion, what came of it, and telling it again."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer

from infra.cli import Json, Lake, existing
from infra.hooks import Hook, HookError, Outcome, Outcomes, deliver, find_hooks, hooks_file, named
from infra.runtime import Runtime
from infra.screen import print_table
from infra.settings import Settings
from lineage import models
from lineage.agents import agent


def hooks(
    test: Annotated[
        str | None, typer.Option("--test", metavar="NAME", help="Tell this hook of an event of kind 'test'.")
    ] = None,
    resend: Annotated[
        bool,
        typer.Option("--resend", help="Tell each hook of the champion's last move, if it has not taken it."),
    ] = False,
    lake: Lake = None,
    as_json: Json = False,
) -> int:
    """The hooks of the lake's hooks.toml (or STEMMA_HOOKS), and how each took its last event.

    With --test or --resend it waits for them, and exits 1 if one did not take its event.

    Example: stemma hooks --test deploy
    """
    settings = existing(lake)
    if test is not None and resend:
        raise HookError("--test and --resend exclude each other; give one of them")
    known = find_hooks(settings)
    if test is None and not resend:
        _list(settings, known, as_json=as_json)
        return 0
    outcomes = Outcomes(settings.lake)
    if test is not None:
        found = deliver([named(known, test)], _test_event(settings), outcomes=outcomes)
    else:
        found = [
            o for hook, event in _missed(settings, known) for o in deliver([hook], event, outcomes=outcomes)
        ]
    if as_json:
        print(json.dumps([asdict(outcome) for outcome in found]))
    else:
        print_table("", [_row(outcome) for outcome in found])
        if not found:
            print("every hook has taken the last move of each champion that it is to be told of")
    return 0 if all(outcome.status == "ok" for outcome in found) else 1


def _list(settings: Settings, known: Sequence[Hook], *, as_json: bool) -> None:
    last = {outcome.hook: outcome for outcome in Outcomes(settings.lake).last()}
    if as_json:
        told = [
            {
                "name": hook.name,
                "on": list(hook.on),
                "target": hook.target,
                "timeout_s": hook.timeout_s,
                "last": asdict(last[hook.name]) if hook.name in last else None,
            }
            for hook in known
        ]
        print(json.dumps(told))
        return
    if not known:
        place = hooks_file(settings)
        where = f"write them into {place}" if place else "name their file in STEMMA_HOOKS"
        print(f"there are no hooks; {where}, as docs/serving.md shows")
    print_table(
        "hooks",
        [
            {"hook": h.name, "on": ", ".join(h.on), "target": h.target, "timeout_s": f"{h.timeout_s:g}"}
            for h in known
        ],
    )
    print_table("how each took its last event", [_row(last[h.name]) for h in known if h.name in last])


def _row(outcome: Outcome) -> dict[str, Any]:
    came = f"exit {outcome.exit_code}" if outcome.exit_code != -1 else ""
    came = f"HTTP {outcome.http_status}" if outcome.http_status else came
    return {
        "hook": outcome.hook,
        "event": outcome.event,
        "kind": outcome.kind,
        "model": outcome.model,
        "began": outcome.started[:19],
        "status": f"{outcome.status} {came}".strip(),
        "seconds": outcome.seconds,
        "said": " ".join(outcome.output.split())[-200:],
    }


def _test_event(settings: Settings) -> dict[str, Any]:
    return {
        "id": f"test-{secrets.token_hex(6)}",
        "kind": "test",
        "name": "test",
        "moves": [],
        "reason": "stemma hooks --test",
        "run_id": "",
        "actor": agent().user,
        "at": Runtime(settings).now().isoformat(),
    }


def _missed(settings: Settings, known: Sequence[Hook]) -> list[tuple[Hook, dict[str, Any]]]:
    """Each hook with the last move of each champion, where it is to be told of it and has not taken it."""
    outcomes = Outcomes(settings.lake)
    last = {event["name"]: event for event in models.announced(models.events(settings))}
    found = []
    for event in last.values():
        for hook in known:
            before = outcomes.read(event["id"], hook.name)
            if event["kind"] in hook.on and (before is None or before.status != "ok"):
                found.append((hook, event))
    return found
