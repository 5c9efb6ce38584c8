"""How the champion is called back: the suspects, the recall, training again, and the proof."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean
from typing import TypeGuard

import pyarrow.compute as pc
import pyarrow.dataset as pads

from examples.helpdesk.files import joined
from examples.story import CULPRIT, NAME, Story
from expectations import reports
from infra.models import resolve as resolve_base
from infra.runtime import Runtime
from lineage import ancestry, fsck, models, queries, report, verdicts
from lineage.consumption import Checkpoint
from lineage.impact import impact
from lineage.recall import find, recall
from lineage.schemas import EXAMPLE
from lineage.suspects import Suspect, suspects
from pipelines.ingest import IngestConfig, IngestError, ingest
from search.retrain import retrain
from training.baselines import linear_probe
from training.evaluate import evaluate
from training.metrics import paired_difference


def find_culprit(runtime: Runtime, story: Story) -> None:
    """Ask the lake which provenance value is suspect; what it says first is what will be recalled."""
    if find(runtime.settings, CULPRIT) is not None:  # the evidence is out of the tables, its sum on record
        return
    first = next(iter(suspects(runtime.settings).suspects), None)
    story.facts["suspect"] = first
    if story.is_known:
        story.promises["router@2 is the first suspect"] = _is_culprit(first) and first.p < 0.05


def call_back(runtime: Runtime, story: Story) -> None:
    """See what the culprit reaches, and recall it."""
    settings = runtime.settings
    before = find(settings, CULPRIT)
    reason = before.reason if before else _evidence(story)
    story.facts["impact"] = impact(settings, CULPRIT)
    done = recall(runtime, CULPRIT, reason=reason, anyway=True)
    story.facts["recall"] = {**done.facets, "reason": reason}
    moved = [to for alias, _, to in done.facets["moved"] if alias == f"{NAME}@champion"]
    m0 = models.resolve(settings, story.facts["m0"])[1]
    if done.facets["orders"]:
        story.promises["the recall put M0 back in service"] = m0 is not None and moved == [m0.version]


def refuse_return(runtime: Runtime, story: Story, folder: Path) -> None:
    """The recalled lines, once more, from another file: none of them may be stored."""
    lines = (folder / "traffic.jsonl").read_bytes().splitlines()
    again = [line for line in lines if _prompt_of(line) == CULPRIT.prompt]
    copy = folder / "once-more.jsonl"
    copy.write_bytes(joined(again))
    refused = ""
    try:
        ingest(runtime, IngestConfig(sources=(str(copy),)))
    except IngestError as error:
        refused = str(error)
    wanted = f"all {len(again)} rows of 1 sources are banned by recall {story.facts['recall']['recall']}"
    story.promises["recalled lines are refused from another file"] = wanted in refused


def train_again(runtime: Runtime, story: Story) -> None:
    """The fallen champion's recipe, without what was recalled, through all gates."""
    ordered = find(runtime.settings, CULPRIT)
    assert ordered is not None  # call_back came before
    made = retrain(runtime, ordered).facets["models"]
    story.facts["retrained"] = made[0] if made else None
    if story.is_known:
        story.promises["a clean successor was promoted"] = bool(made) and made[0]["promoted"]


def compare(runtime: Runtime, story: Story) -> None:
    """Every champion and a linear probe on the report split, which nothing before has read."""
    settings, facts = runtime.settings, story.facts
    told = {"m0": facts["m0"], "contaminated": facts["contaminated"]}
    if facts["retrained"] and facts["retrained"]["promoted"]:
        told["retrained"] = facts["retrained"]["run_id"]
    facts["reports"], facts["versions"] = {}, {}
    for who, run_id in told.items():
        evaluate(runtime, run_id, split="report")
        found = report.reports_of(settings, run_id)
        facts["reports"][who] = {
            r.condition: r for r in found if (r.split, r.metric) == ("report", "accuracy")
        }
        facts["versions"][who] = models.resolve(settings, run_id)[1]
    if "retrained" in told:
        before, after = (right_on_report(runtime, told[who]) for who in ("contaminated", "retrained"))
        gain = paired_difference(after, before, seed=0)
        facts["gain"] = gain
        if story.is_known:
            story.promises["without the bad corrections it is better on `report`"] = gain.low > 0
    probed = probe_on_report(runtime, models.resolve(settings, f"{NAME}@champion")[0])
    facts["probe"] = {
        name: mean(right for condition, right in probed if condition == name)
        for name in sorted({condition for condition, _ in probed})
    }


def prove(runtime: Runtime, story: Story) -> None:
    """Whatever serves now leads to its bytes, holds nothing recalled, and the lake is sound."""
    settings = runtime.settings
    champion, version = models.resolve(settings, f"{NAME}@champion")
    found = queries.lineage(settings, champion)
    origins = [source for sources in found.sources.values() for source in sources]
    story.promises["every row that trained the champion leads to its source's bytes"] = bool(origins) and all(
        json.loads(ancestry.source_bytes(origin)) for origin in origins
    )
    prompts = {f"{origin['prompt_name']}@{origin['prompt_version']}" for origin in origins}
    story.promises["no row of router@2 is reachable from the champion"] = CULPRIT.prompt not in prompts
    checks = fsck.fsck(settings)
    story.promises["fsck is clean"] = not any(check.found for check in checks)
    story.facts |= {
        "champion": str(version),
        "lineage": found,
        "fsck": checks,
        "docs": str(reports.build(runtime, docs=True)),
    }


def _evidence(story: Story) -> str:
    """Why it is recalled: the first suspect's numbers, where they are about the culprit."""
    first = story.facts.get("suspect")
    if not _is_culprit(first):
        return "its list of intents was wrong (too few rows here for the numbers to say so)"
    return (
        f"first of the suspects: {first.failures} of {first.touched} rows {first.signal}, "
        f"{first.expected:.1f} expected (p = {first.p:.2g})"
    )


def _is_culprit(suspect: Suspect | None) -> TypeGuard[Suspect]:
    return suspect is not None and (suspect.column, suspect.value) == ("prompt", CULPRIT.prompt)


def _prompt_of(line: bytes) -> str | None:
    try:
        metadata = json.loads(line)["request"]["metadata"]
        return f"{metadata['prompt_name']}@{metadata['prompt_version']}"
    except (ValueError, KeyError, TypeError):  # one of the lines that were damaged on purpose
        return None


def right_on_report(runtime: Runtime, run_id: str) -> list[bool]:
    """Whether the model of a training run is right on each item of `report`, in the order of their ids."""
    found = report.predictions_of(runtime.settings, run_id, split="report")
    return pc.equal(found["answer"], found["prediction"]).to_pylist()


def probe_on_report(runtime: Runtime, checkpoint: Checkpoint) -> list[tuple[str, bool]]:
    """Condition, and whether a linear probe that learns from the checkpoint's rows is right, per item."""
    columns = ["text", "answer", "condition"]
    asked = verdicts.read_admitted(
        runtime.settings, EXAMPLE, columns=columns, where=pads.field("split") == "report"
    )
    learnt = queries.lineage(runtime.settings, checkpoint).rows
    base = resolve_base(checkpoint.base_model)
    said = linear_probe(
        base, learnt["text"].to_pylist(), learnt["answer"].to_pylist(), asked["text"].to_pylist()
    )
    right = [a == b for a, b in zip(said, asked["answer"].to_pylist(), strict=True)]
    return list(zip(asked["condition"].to_pylist(), right, strict=True))
