"""From a committed move to its hooks, without waiting: a process of its own delivers the event."""

from __future__ import annotations

import datetime as dt
import json
import logging
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from infra.hooks.config import Hook, HookError, find_hooks
from infra.hooks.outcomes import Outcome, Outcomes
from infra.redaction import redacted
from infra.runtime import Runtime
from infra.settings import Settings

log = logging.getLogger("stemma.hooks")

# -P: a folder named infra where the verb was called must not stand in for ours.
_PROGRAM = "import sys; sys.path.insert(0, sys.argv[1]); from infra.hooks.delivery import main; main()"


def heard(settings: Settings, kind: str) -> tuple[Hook, ...]:
    """The hooks that are told of moves of this kind. A file that is wrong is a warning, never raised."""
    try:
        return tuple(hook for hook in find_hooks(settings) if kind in hook.on)
    except HookError as error:
        log.warning("no hook is told of this %s: %s; see: stemma hooks", kind, error)
        return ()


def fire(runtime: Runtime, hooks: Sequence[Hook], event: Mapping[str, Any]) -> None:
    """Have an event delivered to these hooks, but those that had it before; return at once, and never raise.

    `event` is JSON with `id`, `kind` and `name`. It goes to a process of its own session through a file
    without a name: neither its arguments nor a shell see it.
    """
    outcomes, now = Outcomes(runtime.settings.lake), runtime.now()
    try:
        new = [hook for hook in hooks if not _had(outcomes.read(event["id"], hook.name), now)]
        if not new:
            return
        order = {
            "lake": runtime.settings.lake,
            "event": event,
            "hooks": [hook.model_dump() for hook in new],
        }
        _start(json.dumps(order).encode())
        log.info("hooks: %s of %s goes to %s", event["kind"], event["name"], ", ".join(h.name for h in new))
    except Exception as error:  # the move stands: whatever is wrong here must not undo its verb
        log.warning("no hook is told of this %s: %s", event["kind"], redacted(str(error)))


def _had(outcome: Outcome | None, now: dt.datetime) -> bool:
    return outcome is not None and outcome.was_told(now)


def _start(order: bytes) -> None:
    root = str(Path(__file__).parents[2])
    with tempfile.TemporaryFile() as file:
        file.write(order)
        file.seek(0)
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", _PROGRAM, root],
            stdin=file,
            stdout=subprocess.DEVNULL,  # whoever reads the verb's output must not wait for the hooks'
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    # A verb that runs on for hours keeps no dead child; one that ends leaves it to the system.
    threading.Thread(target=process.wait, name="hooks", daemon=True).start()
