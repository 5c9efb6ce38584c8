"""The verb `stemma mlflow-sync`."""

from __future__ import annotations

import json
import sys

from infra.cli import Json, Lake, existing
from lineage import mirror
from lineage.registry import RegistryError


def mlflow_sync(lake: Lake = None, as_json: Json = False) -> int:
    """Show in MLflow whatever it missed: runs, versions, tags, aliases, recalls. The source is the lake.

    May be repeated: what stands is left alone, and so is an alias that somebody moved there by hand. Exit 1
    where MLflow cannot be reached, or something could not be shown.

    Example: stemma mlflow-sync
    """
    settings = existing(lake)
    done: list[str] = []
    try:
        for sentence in mirror.sync(settings):
            done.append(sentence)
            if not as_json:
                print(sentence, flush=True)
    except RegistryError as error:
        print(f"stemma: {error}", file=sys.stderr)
        return 1
    failed = sum(sentence.startswith("not ") for sentence in done)
    if as_json:
        print(json.dumps({"done": done, "failed": failed}))
    elif not done:
        print("MLflow shows all that the lake holds")
    return 1 if failed else 0
