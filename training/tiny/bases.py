"""The tiny decoders by name: pretrained once into the lake, on record as a run, checked at every use.

    resolve_base(runtime, "stemma-arithmetic") -> <lake>/bases/stemma-arithmetic-<digest of its recipe>
    resolve_base(runtime, anything else)       -> infra.models.resolve

A name stands for one recipe for ever: another recipe is another name, or an old model would lose its base.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from infra.models import BaseModel, adapter_config_digest, resolve
from infra.runtime import Runtime
from infra.settings import Settings
from lineage.runs import Outcome, Run, carry_out, completed
from training.recipe import TrainingError
from training.tiny.pretraining import Pretraining, pretrain

log = logging.getLogger("stemma.pretrain")

TINY: Mapping[str, Pretraining] = {"stemma-arithmetic": Pretraining()}

VERY_TINY = Pretraining(
    digits=2,
    hidden_size=64,
    intermediate_size=64,
    num_hidden_layers=1,
    num_attention_heads=2,
    steps=20,
    train_batch_size=16,
    warmup_steps=2,
    torch_threads=1,
)
"""A base for tests of everything but its answers: a real decoder, in a second or two."""


def resolve_base(runtime: Runtime, name: str, *, parent: Run | None = None) -> BaseModel:
    """Find a base model by its name, and pretrain it first where it is one of TINY that the lake lacks.

    Raises TrainingError where a tiny one's folder is not what its run has written, ModelError for others.
    """
    recipe = TINY.get(name)
    return resolve(name, others=TINY) if recipe is None else pretrained(runtime, name, recipe, parent=parent)


def pretrained(runtime: Runtime, name: str, recipe: Pretraining, *, parent: Run | None = None) -> BaseModel:
    """The base that this recipe makes, from the lake's `bases` folder or made now.

    A folder without a record, which a killed run leaves, is made again; so is a recorded one that somebody
    took away. Raises TrainingError for one that was changed since, and where the lake is no folder.
    """
    settings = runtime.settings
    if not settings.is_local:
        raise TrainingError(
            f"lake '{settings.shown_lake}' is an object store, and base '{name}' is pretrained into a "
            "folder; mount the store, and name the folder with --lake"
        )
    folder = Path(settings.path("bases", f"{name}-{recipe.digest}"))
    config = {"base_model": name, **asdict(recipe)}
    recorded = _recorded(settings, config)
    if not recorded or not folder.is_dir():
        # `go` tells a second time from a first, whose recorded outcome would be taken for it
        go = {**config, "go": len(recorded) + 1}
        recorded.append(
            carry_out(
                runtime, "pretrain", config=go, inputs=[], work=lambda _: _make(recipe, folder), parent=parent
            )
        )
    found = replace(resolve(str(folder)), name=name)  # its place would differ from machine to machine
    wrote = recorded[-1]
    if (found.digest, adapter_config_digest(folder)) != (wrote.facets["weights"], wrote.facets["files"]):
        raise TrainingError(
            f"base '{name}' in {folder} is not what run {wrote.run_id} wrote there: its weights have digest "
            f"{found.digest}, expected {wrote.facets['weights']}, or a JSON file beside them was changed; "
            "delete the folder, and it is pretrained again"
        )
    return found


def _recorded(settings: Settings, config: Mapping[str, Any]) -> list[Outcome]:
    """The ends of all runs that made this base, oldest first."""
    known = completed(settings, "pretrain")
    return [end for made, end in known if {k: v for k, v in made.items() if k != "go"} == config]


def _make(recipe: Pretraining, folder: Path) -> Outcome:
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob(f".{folder.name}-*"):  # of killed runs
        shutil.rmtree(left)
    shutil.rmtree(folder, ignore_errors=True)
    log.info("pretrain %s: once for this lake, about three minutes of one core", folder.name)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    made = pretrain(recipe, partial)
    partial.chmod(0o755)  # mkdtemp made it private
    partial.rename(folder)  # last: a folder of that name is complete
    weights = resolve(str(folder)).digest
    facets = {
        "weights": weights,
        "files": adapter_config_digest(folder),
        "parameters": made.parameters,
        "compute_dtype": made.compute_dtype,
        "losses": [round(loss, 5) for loss in made.losses],
        "seconds": round(made.seconds, 2),
    }
    log.info("pretrain %s: loss %.3f, %.0f s", folder.name, made.losses[-1], made.seconds)
    return Outcome((f"base:{weights}",), {"problems": recipe.steps * recipe.train_batch_size}, facets)
