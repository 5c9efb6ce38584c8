"""`stemma`: one program, one dict of verbs. A verb's module is imported when the verb is called, not before.

Every mistake of a person or of their data ends in one sentence and a non-zero exit; a traceback is a bug.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Annotated

import typer

from infra import PACKAGES
from infra.settings import Settings, prepare_environment, settings_from_environment

if TYPE_CHECKING:
    from infra.runtime import Runtime

VERBS = {
    "demo": ("examples.demo:demo", "the whole path on this machine, in minutes"),
    "ingest": ("pipelines.commands:ingest", "traces from files, folders and globs into the lake"),
    "gate": ("expectations.commands:gate", "validate one commit; exit 0 admitted, 1 refused, 2 error"),
    "reports": ("expectations.commands:reports", "a verdict as text; all of them as pages"),
    "audit": (
        "expectations.audit.commands:audit",
        "the suites judged: history, what slips through, other thresholds",
    ),
    "curate": ("pipelines.commands:curate", "admitted traces into examples"),
    "review": ("pipelines.commands:review", "approve, reject or relabel rows; beats every automated verdict"),
    "finetune": ("training.commands:finetune", "train an adapter; every row it eats is recorded"),
    "evaluate": ("training.commands:evaluate", "score a model on the gate or the report split"),
    "benchmark": (
        "training.commands_benchmark:benchmark",
        "ask a model a whole benchmark; are its floors met?",
    ),
    "reproduce": ("training.commands:reproduce", "train a model again from its record; is it the same?"),
    "merge": ("training.commands:merge", "add a model's adapter into the weights of its base"),
    "promote": ("training.commands:promote", "put a model before the gates; move `champion` if it passes"),
    "search": ("search.commands:search", "try edited recipes, each a child run"),
    "lineage": (
        "lineage.commands_lineage:lineage",
        "which rows made a model; where a row comes from; what an answer is near",
    ),
    "suspects": ("lineage.commands_recall:suspects", "which provenance value is to blame, when nobody knows"),
    "impact": ("lineage.commands_recall:impact", "what a bad prompt, scorer, source or row reaches"),
    "recall": ("search.commands:recall", "ban it, quarantine it, roll back, train again"),
    "rollback": ("lineage.commands_recall:rollback", "move `champion` back to the one before it"),
    "hooks": ("lineage.commands_hooks:hooks", "what is told of a moved champion; try one, or tell it again"),
    "serve": ("training.commands_serve:serve", "answer over HTTP with whatever an alias stands on"),
    "status": ("lineage.commands:status", "tables, runs, models and aliases"),
    "query": ("lineage.commands_query:query", "read-only SQL over the lake"),
    "export": ("lineage.commands_export:export", "what every run did, as OpenLineage events"),
    "fsck": ("lineage.commands_upkeep:fsck", "check every invariant of the lake"),
    "vacuum": ("lineage.commands_upkeep:vacuum", "remove files that nothing rests on any more"),
    "mlflow-sync": ("lineage.commands_mlflow:mlflow_sync", "show in MLflow what it missed while it was away"),
    "submit": ("infra.submit:submit", "the same verb as a Ray job"),
}

Lake = Annotated[
    str | None, typer.Option("--lake", help="The lake's folder or URI (STEMMA_LAKE, default ./.stemma).")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON with stable keys.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="Override a key of the config: KEY=VALUE.")]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one verb and exit."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("--help", "-h", "help"):
        print(usage())
        raise SystemExit(0)
    if words[0] not in VERBS:
        _fail(f"unknown verb '{words[0]}'; known: {', '.join(VERBS)}")
    prepare_environment()
    screen = logging.StreamHandler(sys.stderr)
    screen.addFilter(_Once())
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[screen])
    logging.getLogger("stemma").setLevel(logging.INFO)
    raise SystemExit(run(words[0], words[1:]))


def run(verb: str, words: Sequence[str]) -> int:
    """Call a verb with its arguments and return the exit code."""
    module, _, function = VERBS[verb][0].partition(":")
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    try:
        app.command(name=verb)(getattr(import_module(module), function))
        _refuse_repeated(app, words)
        outcome = app(args=list(words), prog_name=f"stemma {verb}", standalone_mode=False)
        return outcome if isinstance(outcome, int) else 0
    except KeyboardInterrupt:
        print("stemma: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        sentence = explain(error)
        if sentence is None:
            raise
        print(f"stemma: {sentence}", file=sys.stderr)
        return 2


class _Once(logging.Filter):
    """Lets a warning through once: a verb asks MLflow several times, and is told the same each time."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Is it news?"""
        is_news = record.levelno < logging.WARNING or record.getMessage() not in self._said
        self._said.add(record.getMessage())
        return is_news


def _refuse_repeated(app: typer.Typer, words: Sequence[str]) -> None:
    """Raise BadParameter where an option that takes one value is given several: only the last would count."""
    words = list(words)[: words.index("--")] if "--" in words else words  # what follows is another verb's
    for option in typer.main.get_command(app).params:
        names = [name for name in option.opts if name.startswith("-")]
        if getattr(option, "multiple", False) or getattr(option, "is_flag", False) or not names:
            continue
        given = [word for word in words if any(word == name or word.startswith(f"{name}=") for name in names)]
        if len(given) > 1:
            raise typer.BadParameter(f"{names[0]} was given {len(given)} times; it takes one value")


def explain(error: BaseException) -> str | None:
    """What went wrong as one sentence, or None where it is our bug and deserves its traceback."""
    if isinstance(error, typer.TyperException):
        return getattr(error, "format_message", error.__str__)()
    if type(error).__module__.partition(".")[0] in PACKAGES or isinstance(error, OSError):
        return " ".join(str(error).split())
    if error.__cause__ is not None:
        return explain(error.__cause__)
    return None


def usage() -> str:
    """What `stemma --help` prints."""
    width = max(map(len, VERBS))
    lines = [f"  {verb:<{width}}  {text}" for verb, (_, text) in VERBS.items()]
    head = ["Usage: stemma VERB [ARGUMENTS]", "", "Every checkpoint knows the rows it ate.", ""]
    return "\n".join([*head, *lines, "", "`stemma VERB --help` explains a verb."])


def open_runtime(lake: str | None) -> Runtime:
    """The Runtime of one command."""
    from infra.runtime import Runtime

    return Runtime(settings_from_environment(lake))


def existing(lake: str | None) -> Settings:
    """The settings of a lake that must be there already, for verbs that only read."""
    from pathlib import Path

    from infra.settings import SettingsError

    settings = settings_from_environment(lake)
    if settings.is_local and not Path(settings.lake, "tables").is_dir():
        raise SettingsError(
            f"there is no lake at '{settings.shown_lake}'; make one with stemma ingest, or choose with --lake"
        )
    return settings


def words(listed: str) -> list[str]:
    """The parts of an option that takes several values, comma-separated."""
    return [word.strip() for word in listed.split(",") if word.strip()]


def _fail(sentence: str) -> None:
    print(f"stemma: {sentence}", file=sys.stderr)
    raise SystemExit(2)


if __name__ == "__main__":
    main()
