"""`stemma demo`: the whole path on this machine, every stage through its real engine.

    scenario -> M0 -> traffic -> ingest -> gate -> curate -> finetune -> search -> promote
             -> suspects -> recall -> retrain -> report -> lineage, fsck

M0 is fine-tuned on the small clean pool and becomes the first champion; its own answers to noisy traffic
become the log; what the log teaches becomes its successor. Then the log's mistake is found by its
provenance, called back, and what it taught is taught again without it. A second run on the same lake resumes.
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
from pathlib import Path
from threading import Thread
from typing import Annotated, Any

import typer
from rich.console import Console

from examples import making, undoing
from examples.helpdesk import summary
from examples.helpdesk.generator import Pools, helpdesk
from examples.progress import Stages
from examples.story import SIZES, DemoError, Scale, Story
from infra.cli import Lake, open_runtime
from infra.models import resolve as resolve_base
from infra.runtime import Runtime
from lineage import registry, runs


def demo(
    scale: Annotated[str, typer.Option(help="full, or tiny: about a minute, for tests.")] = "full",
    data: Annotated[
        str | None, typer.Option(help="Folder of the CLINC150 subset, instead of the helpdesk.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the scenario.")] = 0,
    over_http: Annotated[
        bool, typer.Option("--over-http", help="The traffic goes through `stemma serve champion`.")
    ] = False,
    lake: Lake = None,
) -> int:
    """The whole path in minutes: traces, gates, QLoRA, promotion, recall, proof; exit 1 if a promise broke.

    Example: stemma demo
    """
    if scale != "full" and scale != "tiny":
        raise DemoError(f"scale '{scale}' is not one of: {', '.join(SIZES)}")
    pools = _pools(data, seed=seed, scale=scale)
    resolve_base(SIZES[scale].first.base_model)  # missing: said now, not after minutes
    with open_runtime(lake) as runtime:
        _own_lake(
            runtime, {"scenario": pools.name, "scale": scale, "seed": seed, "code": runs.code_revision()}
        )
        _log_to(Path(runtime.settings.lake, "demo.log"))
        warm = Thread(target=_warm_up, args=(runtime,), daemon=True)
        warm.start()
        story = tell(runtime, Story(pools, scale, over_http), seed=seed)
    width = None if sys.stdout.isatty() else 120
    Console(highlight=False, width=width).print(summary.render(story, runtime.settings))
    return 0 if all(story.promises.values()) else 1


def tell(runtime: Runtime, story: Story, *, seed: int) -> Story:
    """All stages in order."""
    sizes, folder = SIZES[story.scale], Path(runtime.settings.lake, "scenario")
    stages = {
        "scenario": lambda: making.write_scenario(story, folder, seed),
        "clean pool and evaluation sets": lambda: making.prepare_rows(runtime, story, folder),
        "M0, the first champion": lambda: making.make_first_champion(runtime, story, sizes),
        "traffic through M0": lambda: making.send_traffic(runtime, story, folder, seed),
        "ingest and gate": lambda: making.ingest_log(runtime, story, folder),
        "curate": lambda: making.curate_log(runtime, story),
        "finetune": lambda: making.train_successor(runtime, story, sizes),
        "search": lambda: making.search_successor(runtime, story, sizes, seed),
        "promote": lambda: making.promote_best(runtime, story),
        "suspects": lambda: undoing.find_culprit(runtime, story),
        "recall": lambda: undoing.call_back(runtime, story),
        "the recalled lines once more": lambda: undoing.refuse_return(runtime, story, folder),
        "retrain": lambda: undoing.train_again(runtime, story),
        "report": lambda: undoing.compare(runtime, story),
        "lineage and fsck": lambda: undoing.prove(runtime, story),
    }
    with Stages(len(stages)) as progress:
        for name, work in stages.items():
            with progress.stage(name):
                work()
    return story


def _pools(data: str | None, *, seed: int, scale: Scale) -> Pools:
    if data is None:
        return helpdesk(seed=seed, scale=scale)
    from examples.helpdesk.clinc import clinc

    return clinc(Path(data), seed=seed, scale=scale)


def _own_lake(runtime: Runtime, identity: dict[str, Any]) -> None:
    """The same demo resumes in its lake, another demo's is set aside, and nobody else's is touched."""
    lake = Path(runtime.settings.lake)
    marker, partial = lake / "demo.json", lake / "demo.partial"
    if lake.exists() and any(entry != partial for entry in lake.iterdir()):
        if not marker.exists():
            raise DemoError(
                f"lake '{lake}' holds something that is not a demo's; choose an empty folder with --lake"
            )
        found = json.loads(marker.read_text())
        if found == identity:
            return
        aside = lake.with_name(f"{lake.name}-{runs.identity('demo', found, [])[:8]}")
        shutil.rmtree(aside, ignore_errors=True)
        lake.rename(aside)
        print(f"the lake of another demo was set aside as {aside}", file=sys.stderr)
    lake.mkdir(parents=True, exist_ok=True)
    partial.write_text(json.dumps(identity))
    partial.replace(marker)  # whole or not at all, so that a killed demo knows its lake again


def _warm_up(runtime: Runtime) -> None:
    """What takes seconds and waits for nothing: MLflow's tables, Ray's processes."""
    registry.if_reachable(registry.prepare, runtime.settings)


def _log_to(path: Path) -> None:
    """What the jobs log goes to a file; the screen shows stages, warnings and the summary."""
    logger = logging.getLogger("stemma")
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger.addHandler(handler)
    for shown in logging.getLogger().handlers:
        shown.setLevel(logging.WARNING)
