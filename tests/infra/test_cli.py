"""Whatever a person gets wrong ends in one sentence, a non-zero exit and an untouched lake."""

from __future__ import annotations

import gzip
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

import pytest
import typer
from typer.main import get_command

from infra.cli import VERBS, run

ROOT = Path(__file__).parents[2]
HEAVY = ("ray", "torch", "mlflow", "great_expectations", "transformers", "deltalake", "pyarrow", "pandas")


def stemma(*words: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """One command of a person's."""
    environment = {name: value for name, value in os.environ.items() if name != "STEMMA_LAKE"}
    return subprocess.run(
        [sys.executable, "-m", "infra.cli", *words],
        cwd=cwd,
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def versions(lake: str) -> dict[str, list[str]]:
    """Every commit of every table of a lake."""
    return {
        table.name: sorted(entry.name for entry in (table / "_delta_log").glob("*.json"))
        for table in Path(lake, "tables").glob("*")
    }


Refused = Callable[..., str]


@pytest.fixture
def refused(trained_lake, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Runs a verb on the trained lake, and returns the one sentence that it ended with."""

    def call(verb: str, *words: str) -> str:
        lake = trained_lake.settings.lake
        before = versions(lake)
        code = run(verb, [*words, "--lake", lake])
        said = capsys.readouterr()
        assert code == 2
        assert said.out == ""
        assert versions(lake) == before
        return one_sentence(said.err)

    return call


def one_sentence(stderr: str) -> str:
    lines = stderr.splitlines()
    assert len(lines) == 1, stderr
    assert lines[0].startswith("stemma: ")
    return lines[0].removeprefix("stemma: ")


def test_help_names_every_verb_and_imports_nothing_heavy():
    script = f"""
import sys
from infra.cli import main
try:
    main(["--help"])
except SystemExit as end:
    assert end.code == 0
print("heavy:", [name for name in {HEAVY} if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    listed = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")]
    assert listed == list(VERBS)
    assert done.stdout.endswith("heavy: []\n")


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_a_verb_ends_with_an_example_that_parses(verb: str):
    module, _, function = VERBS[verb][0].partition(":")
    app = typer.Typer(add_completion=False)
    app.command(name=verb)(getattr(import_module(module), function))
    command = get_command(app)
    last = (command.help or "").strip().splitlines()[-1]
    assert last.startswith("Example: ")
    example = last.removeprefix("Example: ")
    program, called, *words = shlex.split(example)
    assert (program, called) == ("stemma", verb)
    parsed = command.make_context(verb, words)
    assert parsed.params.keys() >= {parameter.name for parameter in command.params if parameter.required}


def test_an_unknown_verb_lists_the_known_ones():
    done = stemma("finetun")
    assert done.returncode == 2
    assert one_sentence(done.stderr) == f"unknown verb 'finetun'; known: {', '.join(VERBS)}"


@pytest.mark.parametrize("words", [["status"], ["lineage", "champion"], ["fsck"], ["query", "select 1"]])
def test_a_lake_that_is_not_there_is_not_made_by_asking(words: list[str], tmp_path: Path):
    done = stemma(*words, "--lake", str(tmp_path / "none"))
    assert done.returncode == 2
    assert one_sentence(done.stderr).startswith(f"there is no lake at '{tmp_path / 'none'}'")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("below", "said"), [("", "is a file, expected a folder"), ("/lake", "cannot be written")]
)
def test_a_file_is_no_lake_and_holds_none(below: str, said: str, tmp_path: Path):
    (tmp_path / "file").write_text("mine")
    done = stemma("ingest", "x.jsonl", "--lake", f"{tmp_path / 'file'}{below}")
    assert done.returncode == 2
    assert said in one_sentence(done.stderr)
    assert (tmp_path / "file").read_text() == "mine"


def test_without_a_choice_the_lake_is_a_folder_here(tmp_path: Path):
    done = stemma("status", cwd=tmp_path)
    assert f"'{tmp_path / '.stemma'}'" in one_sentence(done.stderr)


def test_a_missing_argument_and_an_unknown_option_are_named(refused: Refused):
    assert "sources" in refused("ingest")
    assert "--nope" in refused("ingest", "--nope", "x")


CONFIGS = {
    'sorces = ["*"]': r"unknown key 'sorces'; known: condition, exclude_poison, least_agreement",
    "split = ": "is not TOML",
    'split = "test"': "'split' is 'test': Input should be 'train', 'gate' or 'report'",
    "neighbours = 0": "'neighbours' is 0",
}


@pytest.mark.parametrize("text", CONFIGS)
def test_a_config_that_cannot_be_used_says_which_key_and_what_is_allowed(
    text: str, tmp_path: Path, refused: Refused
):
    (tmp_path / "curate.toml").write_text(text)
    said = refused("curate", str(tmp_path / "curate.toml"))
    assert CONFIGS[text] in said
    assert str(tmp_path / "curate.toml") in said


def test_a_config_that_is_missing_or_no_text_is_named(tmp_path: Path, refused: Refused):
    assert "does not exist; expected a TOML file" in refused("curate", str(tmp_path / "gone.toml"))
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    assert "cannot be read" in refused("finetune", str(tmp_path / "binary.toml"))
    assert "cannot be read" in refused("finetune", str(tmp_path))


def test_an_override_that_fits_no_key_is_named(refused: Refused):
    assert "known: adapter_name_or_path, " in refused("finetune", "--set", "training.rank=8")
    assert "is not KEY=VALUE" in refused("finetune", "--set", "training.r")
    said = refused("finetune", "--set", "data=1", "--set", "data.seed=1")
    assert said == "--set 'data.seed=1' goes below a key that holds a value"


def test_a_key_that_the_chosen_method_would_ignore_is_refused(refused: Refused):
    words = ["--set", "training.method=lora", "--set", "training.bnb_4bit_quant_type=nf4"]
    assert "would ignore bnb_4bit_quant_type" in refused("finetune", *words)


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        ("traces@99", "the newest version is traces@"),
        ("nonsense@1", "names no table"),
        ("documents@1", "was never written"),
        ("traces@0", "did not store a batch"),
        ("runs@1", "has no suite"),
    ],
)
def test_a_version_that_cannot_be_judged_is_named(batch: str, said: str, refused: Refused):
    assert said in refused("gate", batch)


@pytest.mark.parametrize("verb", ["lineage", "evaluate", "promote"])
def test_an_unknown_model_lists_the_known_ones(verb: str, refused: Refused):
    more = ["--name", "router"] if verb == "promote" else []
    assert "router@champion" in refused(verb, "nonsense", *more)
    assert "registered: router@1" in refused(verb, "router@7", *more)


def test_a_prefix_that_is_no_model_and_no_row_says_both(refused: Refused):
    said = refused("lineage", "0123456789ab")
    assert "names no model, alias or training run" in said
    assert "no row's id starts with '0123456789ab'" in said


@pytest.mark.parametrize(
    "statement",
    ["delete from traces", "drop table traces", "insert into runs values (1)", "create table t as select 1"],
)
def test_a_statement_that_writes_is_refused(statement: str, refused: Refused):
    assert "nothing can be written from here" in refused("query", statement)


def test_a_statement_that_hides_a_write_behind_a_read_changes_nothing(refused: Refused):
    # EXPLAIN ANALYZE carries out what it explains
    assert "nothing can be written" in refused("query", "explain analyze copy runs to 'runs.parquet'")
    assert "failed" in refused("query", "select 1; drop table traces")


def test_a_statement_with_a_mistake_says_where(refused: Refused):
    assert "No field named nonsense" in refused("query", "select nonsense from traces")
    assert "SQL error" in refused("query", "select (")


def test_what_csv_cannot_hold_is_named_before_a_file_is_made(tmp_path: Path, refused: Refused):
    out = tmp_path / "rows.csv"
    said = refused("query", "select parents, messages from traces", "--out", str(out))
    assert "parents, messages" in said
    assert not out.exists()


@pytest.mark.parametrize("base", ["nonsense/nowhere", "nonsense"])
def test_a_base_model_that_is_nowhere_is_said_before_anything_is_made(base: str, refused: Refused):
    assert f"base model '{base}' is neither one of" in refused(
        "finetune", "--set", f"training.base_model={base}"
    )


def sources(folder: Path) -> dict[str, tuple[Sequence[str], str]]:
    """Words after `stemma ingest`, and what is said of them."""
    (folder / "empty.jsonl").write_bytes(b"")
    (folder / "binary.jsonl").write_bytes(b"\xff\xfe\n\xff\n")
    (folder / "plain.jsonl.gz").write_bytes(b'{"messages": []}\n')
    archive = bytearray(gzip.compress(os.urandom(50_000)))
    archive[2000:2100] = bytes(100)
    (folder / "damaged.jsonl.gz").write_bytes(archive)
    (folder / "map.toml").write_text('[map]\ninput = "q"\n[nonsense]\n')
    at = lambda name: str(folder / name)  # noqa: E731
    return {
        "a file of nothing": ([at("empty.jsonl")], "is empty; expected at least one record"),
        "no text": ([at("binary.jsonl")], "has no known format"),
        "no archive": ([at("plain.jsonl.gz")], "cannot be read to its end"),
        "a damaged archive": ([at("damaged.jsonl.gz")], "cannot be read to its end"),
        "nowhere": ([at("gone.jsonl")], "names no file; expected a file, a folder or a glob"),
        "no object store": (["nosuch://bucket/log.jsonl"], "is no object store that can be reached"),
        "an unknown format": ([at("binary.jsonl"), "--format", "parquet"], "known: auto, claude_code"),
        "a bad map": ([at("binary.jsonl"), "--field-map", at("map.toml")], "unknown 'nonsense'; allowed:"),
        "no map": ([at("binary.jsonl"), "--field-map", at("none.toml")], "cannot be read"),
    }


def test_a_source_that_cannot_be_read_is_named(tmp_path: Path, refused: Refused):
    cases = sources(tmp_path)
    assert len(cases) == 9
    for words, said in cases.values():
        assert said in refused("ingest", *words)


def test_a_source_without_one_readable_line_leaves_its_lines_in_quarantine_alone(
    trained_lake, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    lake = trained_lake.copied(tmp_path / "lake").lake
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe\n\xff\n")
    before = versions(lake)
    words = [str(tmp_path / "binary.jsonl"), "--format", "chat_completions", "--lake", lake]
    assert run("ingest", words) == 2
    assert "2 of 2 records could not be read" in one_sentence(capsys.readouterr().err)
    after = versions(lake)
    assert {name for name in after if after[name] != before[name]} == {"quarantine", "runs", "leases"}
