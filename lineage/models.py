"""Model versions, the aliases that name them, and the append-only log of every move.

MLflow mirrors all of it. The alias `champion` is what serves; `previous` is what served before it. An alias
is where its last event left it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from infra import hooks
from infra.runtime import Runtime
from infra.settings import Settings
from lineage import registry, tables
from lineage.bans import banned_numbers
from lineage.consumption import Checkpoint, checkpoints, find_checkpoint
from lineage.generations import eaters
from lineage.registry import IndexedAlias
from lineage.runs import Run, agent, identity_of
from lineage.runs import events as events_of
from lineage.schemas import EVENT, MODEL
from lineage.tables import TableError

EventKind = Literal["promotion", "rollback", "recall"]
MOVERS = ("promote", "rollback", "recall")
"""The jobs that move aliases: what one of them decides must not change under it."""


class ModelError(TableError):
    """A model reference names nothing, or several things; the message says which."""


@dataclass(frozen=True, order=True)
class ModelVersion:
    """A checkpoint under a name."""

    name: str
    version: int
    run_id: str
    step: int
    adapter_digest: str

    def __str__(self) -> str:
        """The version as `name@version`."""
        return f"{self.name}@{self.version}"


@dataclass(frozen=True)
class Event:
    """One move of an alias."""

    kind: EventKind
    name: str
    alias: str
    from_version: int
    to_version: int
    reason: str
    evidence: str
    actor: str
    run_id: str
    at: Any


def check_name(name: str) -> None:
    """Raise ModelError unless the name can be written in a reference, in a registry and on a disk."""
    if not re.fullmatch(r"[\w-]+", name):
        raise ModelError(f"model name '{name}' is not one; expected letters, digits, dashes and underscores")


def register(runtime: Runtime, checkpoint: Checkpoint, *, name: str) -> ModelVersion:
    """Give a checkpoint the next version of a name. A checkpoint that has one under that name keeps it.

    Raises ModelError for one whose training did not come to its end.
    """
    check_name(name)
    require_finished(runtime.settings, checkpoint)
    known = versions(runtime.settings, name)
    for version in known:
        if version.run_id == checkpoint.run_id and version.step == checkpoint.step:
            return version
    number = max((version.version for version in known), default=0) + 1
    made = ModelVersion(name, number, checkpoint.run_id, checkpoint.step, checkpoint.adapter_digest)
    row = {field: getattr(made, field) for field in ModelVersion.__dataclass_fields__} | {"at": runtime.now()}
    table = pa.Table.from_pylist([row], schema=MODEL.schema)
    # The key makes two registrations at once conflict; the loser's caller tries again.
    key = f"model:{name}:{number}"
    # Named by the key as well: the same checkpoint may be the first version of another name, too.
    file_name = f"{checkpoint.run_id}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    file = tables.write_file(runtime.settings, table, into=MODEL, name=file_name)
    tables.commit(runtime.settings, [file], into=MODEL, run_id=checkpoint.run_id, keys=[key])
    return made


def require_finished(settings: Settings, checkpoint: Checkpoint) -> None:
    """Raise ModelError where a checkpoint's training was cut off: given again, it makes another."""
    told = [e["status"] for e in events_of(settings, identity_of(checkpoint.run_id))]
    if told and "COMPLETE" not in told:
        raise ModelError(
            f"checkpoint {checkpoint.name} is of a training that did not come to its end; give its command "
            "again: stemma finetune"
        )


def move_aliases(
    runtime: Runtime,
    moves: Mapping[str, int],
    *,
    name: str,
    kind: EventKind,
    reason: str,
    evidence: Sequence[Mapping[str, Any]],
    run: Run,
) -> None:
    """Move aliases of a model to versions (0 removes one), as one event each, in one commit.

    Then the hooks are told, if the champion is among them: see infra.hooks.
    """
    now = aliases(runtime.settings).get(name, {})
    at = tables.after_all(runtime.settings, runtime.now(), EVENT)
    rows = [
        {
            "kind": kind,
            "name": name,
            "alias": alias,
            "from_version": now.get(alias, 0),
            "to_version": version,
            "reason": reason,
            "evidence": json.dumps(list(evidence), default=str),
            "actor": agent().user,
            "run_id": run.id,
            "at": at,
        }
        for alias, version in moves.items()
        if now.get(alias, 0) != version
    ]
    if rows:
        tables.record(runtime.settings, rows, into=EVENT)
    _announce(runtime, name, kind, run)


def _announce(runtime: Runtime, name: str, kind: EventKind, run: Run) -> None:
    """Tell the hooks of this run's move of the champion.

    A run whose process died between the commit and this line comes by again under the same identity, moves
    nothing, and finds its move in the log.
    """
    wanted = hooks.heard(runtime.settings, kind)
    if not wanted:
        return
    mine = [e for e in events(runtime.settings, name) if e.kind == kind]
    told = announced([e for e in mine if identity_of(e.run_id) == run.identity])
    if told:
        hooks.fire(runtime, wanted, told[-1])


def announced(moved: Sequence[Event]) -> list[dict[str, Any]]:
    """What hooks are told of these events, oldest first: one for each commit that moved a champion.

    `id` is made from the log alone, so that a receiver knows again what it was told before.
    """
    commits: dict[tuple[str, str, str, str], list[Event]] = {}
    for event in moved:
        commits.setdefault((event.kind, event.name, event.run_id, event.at.isoformat()), []).append(event)
    return [
        {
            "id": hashlib.sha256("|".join(key).encode()).hexdigest()[:16],
            "kind": kind,
            "name": name,
            "moves": [
                {"alias": e.alias, "from": e.from_version, "to": e.to_version}
                for e in sorted(several, key=lambda e: e.alias)
            ],
            "reason": several[0].reason,
            "run_id": run_id,
            "actor": several[0].actor,
            "at": at,
        }
        for key, several in commits.items()
        for kind, name, run_id, at in [key]
        if any(event.alias == "champion" for event in several)
    ]


def aliases(settings: Settings) -> dict[str, dict[str, int]]:
    """Model -> alias -> version, as the last events left them."""
    found: dict[str, dict[str, int]] = {}
    for event in events(settings):
        found.setdefault(event.name, {})[event.alias] = event.to_version
    return {name: {alias: v for alias, v in moved.items() if v} for name, moved in found.items()}


def reigns(settings: Settings, name: str) -> list[int]:
    """Versions that were promoted to champion and would follow one another down, the present one last.

    A promotion puts a version on top; a rollback or a recall takes off what stood above the one it went to.
    """
    stack: list[int] = []
    for event in events(settings, name):
        if event.alias != "champion":
            continue
        if event.kind == "promotion":
            stack.append(event.to_version)
        else:
            while stack and stack[-1] != event.to_version:
                stack.pop()
    return stack


def recalled_versions(settings: Settings, name: str) -> frozenset[int]:
    """The versions of a model whose checkpoint ate a banned row."""
    return frozenset(each.version for each in eaters(settings, banned_numbers(settings)) if each.name == name)


def last_clean(settings: Settings, name: str, *, but: Collection[int] = ()) -> list[int]:
    """Versions that were champion and ate no banned row, each once, the last to reign last; none of `but`."""
    reached = recalled_versions(settings, name) | set(but)
    clean: list[int] = []
    for version in reigns(settings, name):
        if version not in reached:
            clean = [other for other in clean if other != version] + [version]
    return clean


def mirror_aliases(settings: Settings, name: str, *, anew: bool = False) -> None:
    """Show in MLflow where the log left each alias of a model.

    What was shown before is left alone, unless `anew`: then it is set back where somebody moved it.
    """
    indexed = {} if anew else registry.indexed_aliases(settings, name)
    for alias, event in _last_moves(settings, name).items():
        if alias not in indexed or indexed[alias].mark != _mark(event):
            registry.set_alias(settings, name=name, alias=alias, version=event.to_version, mark=_mark(event))


def moved_by_hand(settings: Settings, name: str) -> list[str]:
    """A sentence for each alias that somebody moved in MLflow after we had set it there.

    Raises RegistryError when MLflow cannot be asked.
    """
    indexed = registry.indexed_aliases(settings, name)
    found: list[str] = []
    for alias, event in _last_moves(settings, name).items():
        there = indexed.get(alias)
        if there is not None and there.mark == _mark(event) and there.version != event.to_version:
            was, now = (f"version {n}" if n else "nothing" for n in (event.to_version, there.version))
            found.append(
                f"alias '{alias}' of '{name}' was moved by hand in MLflow: there it stands on {now}, "
                f"by the lake's log on {was}; set it back with: stemma fsck --repair"
            )
    return found


def behind(settings: Settings, name: str) -> list[str]:
    """A sentence for each alias that MLflow shows where it stood before: it was away when we moved it.

    Only where MLflow has the version, so that it can be mended. Raises RegistryError when it cannot be asked.
    """
    indexed = registry.indexed_aliases(settings, name)
    if not indexed:
        return []
    there = {each.version for each in registry.model_versions(settings, name)} | {0}
    found: list[str] = []
    for alias, event in _last_moves(settings, name).items():
        shown = indexed.get(alias, IndexedAlias(0, ""))
        is_old = shown.mark != _mark(event) and shown.version != event.to_version
        if is_old and event.to_version in there:
            was, now = (f"version {n}" if n else "nothing" for n in (event.to_version, shown.version))
            found.append(
                f"alias '{alias}' of '{name}' was not mirrored to MLflow: there it stands on {now}, by the "
                f"lake's log on {was}; mirror it with: stemma fsck --repair"
            )
    return found


def require_untouched(settings: Settings, name: str) -> None:
    """Raise ModelError where somebody moved an alias in MLflow. A server that is away says nothing."""
    sentences: list[str] = []
    registry.if_reachable(lambda: sentences.extend(moved_by_hand(settings, name)))
    if sentences:
        raise ModelError("; ".join(sentences))


def _last_moves(settings: Settings, name: str) -> dict[str, Event]:
    return {event.alias: event for event in events(settings, name)}


def _mark(event: Event) -> str:
    return f"{event.to_version} at {event.at.isoformat()}"


def events(settings: Settings, name: str | None = None) -> list[Event]:
    """Every move, oldest first."""
    rows = tables.read(settings, EVENT).sort_by("at").to_pylist()
    return [Event(**row) for row in rows if name is None or row["name"] == name]


def versions(settings: Settings, name: str | None = None) -> list[ModelVersion]:
    """Registered versions, of one name or all, sorted."""
    rows = tables.read(settings, MODEL).to_pylist()
    found = [ModelVersion(**{f: row[f] for f in ModelVersion.__dataclass_fields__}) for row in rows]
    return sorted(version for version in found if name is None or version.name == name)


def resolve(settings: Settings, reference: str) -> tuple[Checkpoint, ModelVersion | None]:
    """What `champion`, `router@champion`, `router@3` or a prefix of a run id names.

    Raises ModelError when an alias stands on several models or on none, CheckpointError for unknown runs.
    """
    version = _named(settings, reference)
    if version is not None:
        same = (c for c in checkpoints(settings) if (c.run_id, c.step) == (version.run_id, version.step))
        checkpoint = next(same, None)
        if checkpoint is None:
            raise ModelError(
                f"{version} names checkpoint {version.run_id}/{version.step}, which is not in the lake"
            )
        return checkpoint, version
    checkpoint = find_checkpoint(settings, reference)
    known = (v for v in versions(settings) if (v.run_id, v.step) == (checkpoint.run_id, checkpoint.step))
    return checkpoint, next(known, None)


def _named(settings: Settings, reference: str) -> ModelVersion | None:
    name, at, tag = reference.rpartition("@")
    if at and tag.isdigit():
        return _registered(settings, name, int(tag))
    standing = {
        n: moved[tag] for n, moved in aliases(settings).items() if tag in moved and (not at or n == name)
    }
    if len(standing) > 1:
        choices = ", ".join(f"{n}@{tag}" for n in sorted(standing))
        raise ModelError(f"alias '{tag}' stands on several models; say which: {choices}")
    if standing:
        ((model, number),) = standing.items()
        return _registered(settings, model, number)
    if at or not re.fullmatch(r"[0-9a-f]+(-\d*)?", reference):
        known = sorted({f"{n}@{alias}" for n, moved in aliases(settings).items() for alias in moved})
        raise ModelError(
            f"'{reference}' is no alias, version or run; aliases now: {', '.join(known) or 'none'}"
        )
    return None


def _registered(settings: Settings, name: str, number: int) -> ModelVersion:
    found = [version for version in versions(settings, name) if version.version == number]
    if not found:
        have = ", ".join(str(version) for version in versions(settings)) or "none"
        raise ModelError(f"model version '{name}@{number}' does not exist; registered: {have}")
    return found[0]
