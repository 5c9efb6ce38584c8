"""Roll back: the champion before this one serves again, with all that it was made of and scored on.

Every move stands in the log of events.
"""

from __future__ import annotations

import json
import logging
from typing import Any

from infra.runtime import Runtime
from infra.settings import Settings
from lineage import models, registry, runs
from lineage.models import ModelError
from lineage.restored import restored
from lineage.runs import Outcome, Run, carry_out

log = logging.getLogger("stemma.rollback")


def roll_back(runtime: Runtime, name: str | None = None, *, reason: str, to: int | None = None) -> Outcome:
    """Move `champion` back to the version that reigned before it, or to an earlier one.

    Recalled versions are passed over. `name` may be left out where one model has a champion. A rollback that
    was killed is finished, not made twice. The facets hold `name`, `from`, `to` and `restored`: what serves
    again with it. Raises ModelError where there is nothing to go back to; `to` was never champion, was rolled
    back or was recalled; or a part of what would serve again is lost.
    """
    settings = runtime.settings
    if not reason.strip():
        raise ModelError("a rollback needs a reason, which stands in its record; give --reason TEXT")
    name = _named(settings, name)
    models.require_untouched(settings, name)
    runs.require_idle(settings, to="roll back", jobs=models.MOVERS)
    config = _cut_off(settings, name, to)
    if config is None:
        champion = models.aliases(settings)[name]["champion"]
        moves = sum(event.alias == "champion" for event in models.events(settings, name))
        config = {"name": name, "from": champion, "to": _target(settings, name, champion, to), "moves": moves}
    back = restored(settings, f"{name}@{config['to']}")

    def work(run: Run) -> Outcome:
        runs.require_idle(settings, to="roll back", jobs=models.MOVERS, run=run)
        clean = models.last_clean(settings, name)
        if config["to"] not in clean:
            raise ModelError(f"{name}@{config['to']} was recalled meanwhile; give the rollback again")
        below = clean[: clean.index(config["to"])]
        moves = {"champion": config["to"], "previous": below[-1] if below else 0}
        evidence = [back.as_json()]
        models.move_aliases(
            runtime, moves, name=name, kind="rollback", reason=reason, evidence=evidence, run=run
        )
        registry.if_reachable(models.mirror_aliases, settings, name)
        log.info("rollback: %s@champion is version %d again", name, config["to"])
        facets = {part: config[part] for part in ("name", "from", "to")} | {"restored": back.as_json()}
        return Outcome((f"model:{name}@{config['to']}",), {}, facets)

    return carry_out(runtime, "rollback", config=config, inputs=[], work=work)


def _named(settings: Settings, name: str | None) -> str:
    having = sorted(model for model, standing in models.aliases(settings).items() if "champion" in standing)
    if name in having:
        return name
    if name is None and len(having) == 1:
        return having[0]
    if name is not None or not having:
        known = ", ".join(having) or "none"
        which = f"model '{name}'" if name is not None else "this lake"
        raise ModelError(f"{which} has no champion to roll back; models with one: {known}")
    raise ModelError(f"several models have a champion; say which with --name: {', '.join(having)}")


def _target(settings: Settings, name: str, champion: int, to: int | None) -> int:
    reached = models.recalled_versions(settings, name)
    clean = [version for version in models.last_clean(settings, name) if version != champion]
    if to is None:
        if not clean:
            raise ModelError(f"{name}@{champion} has no clean champion before it, so nothing was moved")
        return clean[-1]
    if to == champion:
        raise ModelError(f"{name}@{to} is the champion already, so nothing was moved")
    if to in reached:
        raise ModelError(f"{name}@{to} ate rows that were recalled; it cannot serve again")
    reigned = {event.to_version for event in models.events(settings, name) if event.alias == "champion"}
    if to not in clean and to in reigned:
        raise ModelError(
            f"{name}@{to} reigned after {name}@{champion} and was rolled back; to let it serve again, if it "
            f"passes: stemma promote {name}@{to} --name {name}"
        )
    if to not in clean:
        could = ", ".join(f"{name}@{version}" for version in clean) or "none"
        raise ModelError(f"{name}@{to} is no champion of before; those are: {could}")
    return to


def _cut_off(settings: Settings, name: str, to: int | None) -> dict[str, Any] | None:
    """The config of a rollback that made the last move of the champion and died before its end.

    Finished now, it is not made twice. None where another version is asked for: that is another rollback.
    """
    move = next(e for e in reversed(models.events(settings, name)) if e.alias == "champion")
    if move.kind != "rollback" or to not in (None, move.to_version):
        return None
    config = json.loads(runs.events(settings, runs.identity_of(move.run_id))[0]["config"])
    is_complete = any(done == config for done, _ in runs.completed(settings, "rollback"))
    return None if is_complete else config
