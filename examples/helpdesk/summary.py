"""The demo's last screen: what became of the rows and the model, which promises held, where to look."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from infra.settings import Settings

if TYPE_CHECKING:
    from examples.demo import Story


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
        *(Text(f"  {'pass' if c['passed'] else 'FAIL'}  {c['text']}") for c in facts["promotion"]["checks"]),
        Text(_lineage(facts)),
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
    conditions = sorted(facts["reports"]["before"])
    for condition in conditions:
        table.add_column(f"{condition} requests", justify="right")
    for who, label in (("before", "M0, before"), ("after", f"{facts['champion']}, after")):
        table.add_row(label, *(str(facts["reports"][who][condition]) for condition in conditions))
    probe = [f"{100 * facts['probe'][condition]:.1f} %" for condition in conditions]
    table.add_row("linear probe, same rows", *probe)
    return table


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


def _lineage(facts: dict[str, Any]) -> str:
    found = facts["lineage"]
    by_prompt = found.grouped(("prompt_name", "prompt_version")).to_pylist()
    groups = ", ".join(f"{g['rows']} of {g['prompt_name']}@{g['prompt_version']}" for g in by_prompt)
    return f"lineage: {found.rows.num_rows} rows trained {facts['champion']}: {groups}"


def _promises(story: Story) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    for promise, held in story.promises.items():
        table.add_row("kept  " if held else "BROKEN", promise)
    return table


def _look(facts: dict[str, Any], settings: Settings) -> str:
    at = f" --lake {settings.lake}"
    lines = [
        ("which rows it ate", f"stemma lineage champion{at}"),
        ("why a batch was refused", f"stemma reports {facts['refused'].batch}{at}"),
        ("the Data Docs", facts["docs"]),
        ("runs and models", f"mlflow ui --backend-store-uri {settings.tracking_uri}"),
    ]
    return "look further:\n" + "\n".join(f"  {what:<24} {command}" for what, command in lines)


def _table(title: str) -> Table:
    return Table(box=None, pad_edge=False, title=title, title_justify="left", title_style="bold")


def _counts(counts: dict[str, int], *names: str) -> list[str]:
    return [f"{counts.get(name, 0):,}" for name in names]
