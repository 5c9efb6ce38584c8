"""What is told of a moved champion: commands and webhooks, run apart, so that no verb waits for them.

    move committed -> heard(settings, kind) -> fire() -> delivery, a process of its own -> <lake>/hooks/*.json

    config    hooks.toml as frozen values
    delivery  run each hook within its time, and write down what came of it
    outcomes  what was written down

Whoever moves an alias never fails and never waits because of a hook: a file that is wrong is a warning.

Errors: HookError, for a file that cannot be used, or a hook that is not in it.
"""

from infra.hooks.config import Hook, HookError, find_hooks, hooks_file, named
from infra.hooks.delivery import deliver
from infra.hooks.firing import fire, heard
from infra.hooks.outcomes import Outcome, Outcomes

__all__ = [
    "Hook",
    "HookError",
    "Outcome",
    "Outcomes",
    "deliver",
    "find_hooks",
    "fire",
    "heard",
    "hooks_file",
    "named",
]
