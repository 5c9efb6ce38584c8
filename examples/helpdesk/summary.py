"""The demo's last screen: what became of the rows and the model, which promises held, where to look."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from infra.settings import Settings

if TYPE_CHECKING:
    from examples.story import Story


def render(story: Story, settings: Settings) -> Group:
    """One screen."""
    facts = story.facts
    return Group(
        Text(f"\nStemma demo: {story.pools.name}, {len(story.pools.intents)} intents", style="bold"),
        _rows(facts),
        Text(_reasons(facts)),
        _scores(facts),
        Text(_caveat()),
        Text(_search(facts)),
        *_checks(facts["promotion"]),
        Text(_recalled(facts)),
        *_checks(facts["retrained"] or {}),
        Text(_gain(facts)),
        Text(_lineage(facts), style="bold"),
        _promises(story),
        Text(_look(facts, settings)),
    )


def _rows(facts: dict[str, Any]) -> Table:
    table = _table("rows")
    for name in ("", "in", "out", "merged", "rejected", "quarantined", "refused"):
        table.add_column(name, justify="right" if name else "left")
    read, made, refused = facts["ingest"], facts["curate"], facts["refused"]
    table.add_row(
        "traffic log -> traces", *_counts(read, "in", "out", "merged", "rejected", "quarantined"), "-"
    )
    table.add_row("broken exporter's batch", f"{refused.rows}", "0", "-", "-", "-", f"{refused.rows}")
    table.add_row("traces -> examples", *_counts(made, "in", "out", "merged", "rejected"), "-", "-")
    return table


def _reasons(facts: dict[str, Any]) -> str:
    by_count = sorted(facts["reasons"].items(), key=lambda item: (-item[1], item[0]))
    return "rejected: " + ", ".join(f"{reason} {count}" for reason, count in by_count)


def _scores(facts: dict[str, Any]) -> Table:
    table = _table("accuracy on `report`, with 95 % intervals")
    table.add_column("")
    conditions = sorted(facts["reports"]["m0"])
    for condition in conditions:
        table.add_column(f"{condition} requests", justify="right")
    for who, what in _SERVED.items():
        if who in facts["reports"]:
            label = f"{facts['versions'][who] or 'a candidate'}: {what}"
            table.add_row(label, *(str(facts["reports"][who][condition]) for condition in conditions))
    probe = [f"{100 * facts['probe'][condition]:.1f} %" for condition in conditions]
    table.add_row("linear probe, rows of the last", *probe)
    return table


_SERVED = {
    "m0": "M0, at first and after the recall",
    "contaminated": "with router@2's corrections",
    "retrained": "trained again without them",
}


def _gain(facts: dict[str, Any]) -> str:
    if "gain" not in facts:
        return "no champion ate recalled rows, so none was trained again"
    gain = facts["gain"]
    return (
        f"trained again without the recalled rows: {100 * gain.diff:+.1f} points on the same items "
        f"(95 % interval {100 * gain.low:+.1f} to {100 * gain.high:+.1f})"
    )


def _caveat() -> str:
    return (
        "The probe is a logistic regression on the frozen embeddings, and strong on such tasks: QLoRA on an "
        "encoder of 22 M parameters shows here that the path works, not that QLoRA is needed."
    )


def _search(facts: dict[str, Any]) -> str:
    found = facts["search"]
    scores = [trial["score"] for trial in found["trials"]]
    trials = ", ".join("failed" if score is None else f"{100 * score:.1f} %" for score in scores)
    return f"search: {len(scores)} trials on `gate`: {trials}. {found['sampling']}"


def _recalled(facts: dict[str, Any]) -> str:
    """The blast radius, and what was done about it."""
    reached = facts["impact"]
    rows = ", ".join(
        f"{number} of {reached.stored[name]:,} {name}" for name, number in reached.by_table.items()
    )
    ate = "; ".join(
        f"{model} ate {checkpoint.rows} of its {checkpoint.of} rows from it"
        for model in reached.models
        for checkpoint in reached.checkpoints
        if (checkpoint.run_id, checkpoint.step) == (model.run_id, model.step)
    )
    moved = ", ".join(f"{alias} {was} -> {to or 'none'}" for alias, was, to in facts["recall"]["moved"])
    return "\n".join(
        [
            f"recall {facts['recall']['recall']} of {reached.selector}: {facts['recall']['reason']}",
            f"  reached: {rows}; {len(reached.curricula)} curricula, {len(reached.checkpoints)} checkpoints; "
            f"{ate or 'no registered model'}",
            f"  moved: {moved or 'no alias'}",
        ]
    )


def _checks(decided: Mapping[str, Any]) -> list[Text]:
    checks = decided.get("checks", [])
    return [Text(f"  {'pass' if check['passed'] else 'FAIL'}  {check['text']}") for check in checks]


def _lineage(facts: dict[str, Any]) -> str:
    found = facts["lineage"]
    by_prompt = found.grouped(("prompt_name", "prompt_version")).to_pylist()
    groups = ", ".join(f"{g['rows']} of {g['prompt_name']}@{g['prompt_version']}" for g in by_prompt)
    return f"champion now: {facts['champion']}, trained on {found.count} rows: {groups}"


def _promises(story: Story) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    for promise, held in story.promises.items():
        table.add_row("kept  " if held else "BROKEN", promise)
    return table


def _look(facts: dict[str, Any], settings: Settings) -> str:
    at = f" --lake {settings.lake}"
    lines = [
        ("which rows it ate", f"stemma lineage champion{at}"),
        ("what was called back", f"stemma impact --prompt router@2{at}"),
        ("why a batch was refused", f"stemma reports {facts['refused'].batch}{at}"),
        ("all verdicts, as pages", facts["docs"]),
        ("runs and models", f"mlflow ui --backend-store-uri {settings.tracking_uri}"),
    ]
    return "look further:\n" + "\n".join(f"  {what:<24} {command}" for what, command in lines)


def _table(title: str) -> Table:
    return Table(box=None, pad_edge=False, title=title, title_justify="left", title_style="bold")


def _counts(counts: dict[str, int], *names: str) -> list[str]:
    return [f"{counts.get(name, 0):,}" for name in names]
