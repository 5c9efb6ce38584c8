"""The verbs around a recall, on a lake that a model was trained in: damaged, raced for, and moved by hand."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from infra.cli import run
from infra.settings import Settings
from lineage import fsck, models, tables
from lineage.schemas import BAN, CONSUMPTION, EXAMPLE

ROOT = Path(__file__).parents[2]


@pytest.fixture
def settings(trained_lake, tmp_path: Path) -> Settings:
    """A copy of the trained lake, that may be changed."""
    return trained_lake.copied(tmp_path / "lake")


@pytest.fixture
def stemma(settings: Settings, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """One command on the copy: exit code, what it printed, and its sentence."""

    def call(verb: str, *words: str) -> tuple[int, str, str]:
        code = run(verb, [*words, "--lake", settings.lake])
        said = capsys.readouterr()
        if code == 2:
            (sentence,) = said.err.splitlines()
            assert sentence.startswith("stemma: ")
        return code, said.out, said.err.removeprefix("stemma: ")

    return call


def row(settings: Settings) -> str:
    """The id of a row that the champion ate."""
    number = min(tables.read(settings, CONSUMPTION)["row_no"].to_pylist())
    rows = tables.read_ever(settings, EXAMPLE, columns=["row_no", "row_id"]).to_pylist()
    return next(each["row_id"] for each in rows if each["row_no"] == number).hex()


def versions(settings: Settings) -> dict[str, int]:
    """The newest version of each table, but of `runs`."""
    folders = [path.name for path in Path(settings.path("tables")).iterdir() if path.name != "runs"]
    return {name: tables.resolve(settings, name).version for name in folders}


def broken(settings: Settings) -> dict[str, tuple[str, ...]]:
    return {check.name: check.found for check in fsck.fsck(settings) if check.found}


# ---------------------------------------------------------------- a damaged lake


READING = {
    "lineage": ["champion"],
    "impact": ["--prompt", "router@1"],
    "suspects": [],
    "recall": ["--prompt", "router@1", "--reason", "wrong", "--yes"],
    "status": [],
    "query": ["select count(text) from examples"],
    "curate": ["--set", "scorer_base_model=none", "--set", "neighbours=3"],
    "finetune": ["--set", "training.seed=5"],
    "evaluate": ["champion", "--seed", "7"],
}


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for position in range(4, len(content) // 2):  # behind the magic number
        content[position] ^= 0x55
    path.write_bytes(content)


DAMAGE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a file gone": ("*.parquet", Path.unlink),
    "a file cut": ("*.parquet", cut),
    "a file overwritten": ("*.parquet", lambda path: path.write_bytes(b"garbage" * 300)),
    "bytes changed": ("*.parquet", flip),
    "a log entry cut": ("_delta_log/*2.json", cut),
    "a log entry no JSON": ("_delta_log/*2.json", lambda path: path.write_bytes(b"\xffnonsense\n")),
    "a log entry missing": ("_delta_log/*1.json", Path.unlink),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_table_is_one_sentence_that_names_the_file_and_nothing_is_written(
    damage: str, settings: Settings, stemma
):
    pattern, spoil = DAMAGE[damage]
    files = Path(settings.path("tables", "examples")).glob(pattern)
    path = max(files, key=lambda file: file.stat().st_size)  # that of the training rows
    spoil(path)
    held = {each.name: tables.read(settings, each).num_rows for each in (BAN, CONSUMPTION)}
    for verb, words in READING.items():
        if damage == "bytes changed" and verb in ("suspects", "status", "curate"):
            continue  # those read a few columns, which may be sound
        if damage.startswith("a file") and verb == "status":
            continue  # how many rows there are the log knows
        code, _, said = stemma(verb, *words)
        assert code == 2, verb
        assert f"'{path}'" in said, verb
        assert "table 'examples' cannot be used" in said
        assert "restore it from a copy of the lake" in said
    assert {each.name: tables.read(settings, each).num_rows for each in (BAN, CONSUMPTION)} == held
    code, told, _ = stemma("fsck")
    assert code == 1
    assert f"'{path}'" in told
    assert "ok      ledger" in told


def test_a_damaged_book_of_models_stops_what_moves_aliases(settings: Settings, stemma):
    path = next(Path(settings.path("tables", "events")).glob("*.parquet"))
    cut(path)
    for verb, words in {
        "rollback": ["--reason", "wrong"],
        "promote": ["champion", "--name", "router"],
        "recall": ["--row", row(settings), "--reason", "wrong"],
    }.items():
        code, _, said = stemma(verb, *words)
        assert (code, f"'{path}'" in said) == (2, True), verb
    assert tables.read(settings, BAN).num_rows == 0


@pytest.mark.parametrize("file", ["stemma.json", "adapter_model.safetensors", "adapter_config.json"])
def test_a_model_whose_adapter_is_damaged_is_not_evaluated_but_its_lineage_is_told(
    file: str, settings: Settings, stemma
):
    checkpoint = models.resolve(settings, "champion")[0]
    Path(checkpoint.uri, file).write_bytes(b"\xff{" * 50)
    code, _, said = stemma("evaluate", "champion", "--seed", "3")
    assert code == 2
    assert checkpoint.uri in said
    assert stemma("lineage", "champion")[0] == 0


# ---------------------------------------------------------------- MLflow


@pytest.fixture
def client(settings: Settings) -> MlflowClient:
    return MlflowClient(settings.tracking_uri, settings.tracking_uri)


def second_version(settings: Settings, client: MlflowClient) -> None:
    made = client.create_model_version("router", "file:///nowhere", run_id=None)
    assert int(made.version) == 2


def move(settings: Settings, client: MlflowClient) -> None:
    second_version(settings, client)
    client.set_registered_model_alias("router", "champion", "2")


def delete(settings: Settings, client: MlflowClient) -> None:
    client.delete_registered_model_alias("router", "champion")


def rename(settings: Settings, client: MlflowClient) -> None:
    client.delete_registered_model_alias("router", "champion")
    client.set_registered_model_alias("router", "production", "1")


@pytest.mark.parametrize("by_hand", [move, delete, rename])
def test_an_alias_moved_by_hand_stops_every_move_until_it_is_set_back(
    by_hand: Callable[[Settings, MlflowClient], None], settings: Settings, client: MlflowClient, stemma
):
    by_hand(settings, client)
    before = versions(settings)
    sentence = "alias 'champion' of 'router' was moved by hand in MLflow"
    for verb, words in {
        "recall": ["--row", row(settings), "--reason", "wrong"],
        "rollback": ["--reason", "wrong"],
        "promote": ["champion", "--name", "router"],
    }.items():
        code, _, said = stemma(verb, *words)
        assert (code, sentence in said, "stemma fsck --repair" in said) == (2, True, True), verb
    assert versions(settings) == before
    assert broken(settings).keys() == {"aliases"}
    assert stemma("fsck")[0] == 1
    code, _, said = stemma("fsck", "--repair")
    assert code == 0
    assert "repaired: aliases of 'router'" in said
    assert int(client.get_model_version_by_alias("router", "champion").version) == 1
    assert stemma("recall", "--row", row(settings), "--reason", "wrong")[0] == 1  # no clean version is left
    assert broken(settings) == {}


def test_without_mlflow_a_recall_works_and_a_later_repair_shows_it_there(
    settings: Settings, client: MlflowClient, stemma, monkeypatch: pytest.MonkeyPatch, caplog
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert stemma("recall", "--row", row(settings), "--reason", "wrong")[0] == 1
    assert "http://127.0.0.1:9 does not answer" in caplog.text
    assert stemma("fsck")[0] == 0
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    (sentence, _) = broken(settings)["aliases"]
    assert (
        "was not mirrored to MLflow: there it stands on version 1, by the lake's log on nothing" in sentence
    )
    assert stemma("fsck", "--repair")[0] == 0
    assert not client.get_registered_model("router").aliases


def test_an_mlflow_file_of_garbage_stops_no_recall(settings: Settings, stemma, caplog):
    for file in Path(settings.lake).glob("mlflow.db*"):
        file.unlink()
    Path(settings.lake, "mlflow.db").write_bytes(b"garbage" * 1000)
    assert stemma("recall", "--row", row(settings), "--reason", "wrong")[0] == 1
    assert "not mirrored to MLflow" in caplog.text
    assert "is not a database" in caplog.text
    code, _, said = stemma("fsck", "--repair")
    assert (code, "is not a database" in said) == (2, True)


# ---------------------------------------------------------------- two at once, and afterwards


def recalls_at_once(settings: Settings, *selectors: list[str]) -> list[tuple[int, str]]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    command = [
        sys.executable,
        "-m",
        "infra.cli",
        "recall",
        "--lake",
        settings.lake,
        "--reason",
        "wrong",
        "--yes",
    ]
    begun = [
        subprocess.Popen(
            [*command, *words], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        for words in selectors
    ]
    ended = [(process.communicate(timeout=120), process.returncode) for process in begun]
    return [(code, err) for (_, err), code in ended]


@pytest.mark.parametrize("same", [True, False])
def test_of_two_recalls_at_once_each_is_carried_out_or_refused_and_none_is_half_done(
    same: bool, settings: Settings, stemma
):
    ids = [row_id.hex() for row_id in tables.read(settings, EXAMPLE)["row_id"].to_pylist()]
    wanted = [["--row", ids[0]], ["--row", ids[0] if same else ids[-1]]]
    ended = recalls_at_once(settings, *wanted)
    for code, err in ended:
        assert code in (0, 1) or "is in progress in process" in err, err
        assert "Traceback" not in err
    carried_out = [words for words, (code, _) in zip(wanted, ended, strict=True) if code in (0, 1)]
    banned = {row_id.hex() for row_id in tables.read(settings, BAN)["row_id"].to_pylist()}
    assert banned == {words[1] for words in carried_out}
    assert broken(settings).keys() <= {"aliases", "mirrored"}  # MLflow was away
    for words in wanted:
        assert stemma("recall", *words, "--reason", "wrong", "--yes")[0] in (0, 1)
    assert tables.read(settings, BAN).num_rows == len({words[1] for words in wanted})
    assert broken(settings) == {}


def test_a_recalled_model_is_refused_promotion_and_still_told_of_and_compared_with(
    settings: Settings, trained_lake, stemma
):
    assert stemma("recall", "--row", row(settings), "--reason", "wrong")[0] == 1
    code, _, said = stemma("promote", "router@1", "--name", "router")
    assert code == 2
    assert "router@1 holds 1 rows that recall" in said
    code, told, _ = stemma("lineage", "router@1")
    assert code == 0
    assert "1 of its rows were called back by" in told
    assert stemma("evaluate", "router@1")[0] == 0
    code, _, said = stemma("rollback", "--reason", "wrong")
    assert (code, "this lake has no champion to roll back" in said) == (2, True)
    code, _, said = stemma("lineage", "champion")
    assert (code, "'champion' is no alias, version or run" in said) == (2, True)


def test_a_curriculum_of_recalled_rows_cannot_be_trained_on_again(settings: Settings, stemma):
    root = models.resolve(settings, "champion")[0].curriculum
    assert stemma("recall", "--prompt", "router@1", "--reason", "wrong", "--yes")[0] == 1
    before = versions(settings)
    code, _, said = stemma("finetune", "--set", f"data.parent={root}")
    assert code == 2
    assert "no admitted training examples of classification match" in said
    assert versions(settings) == before


def test_an_unknown_or_empty_selector_changes_nothing(settings: Settings, stemma):
    before = versions(settings)
    for words, sentence in {
        (): "nothing is named; give one or more of",
        ("--prompt", "nobody@1"): "known: router@1",
        ("--generator", "nobody"): "known: router@1",
        ("--source-revision", "0000"): "no source revision starts with '0000'",
        ("--row", "zz"): "no row starts with 'zz'",
        ("--where", "delete from traces"): "fits no table",
        ("--where", "1=1); copy traces to 'stolen.parquet' --"): "fits no table",
        ("--prompt", "router@1"): "reaches every row of the lake",
    }.items():
        code, _, said = stemma("recall", *words, "--reason", "wrong")
        assert (code, sentence in said) == (2, True), said
    code, out, said = stemma("recall", "--prompt", "router@1", "--yes")
    assert (code, out, "needs a reason" in said) == (2, "", True)
    assert versions(settings) == before
    assert not Path("stolen.parquet").exists()


def test_where_too_few_rows_are_left_to_train_on_the_recall_is_told_and_stands(settings: Settings, stemma):
    code, out, err = stemma("recall", "--prompt", "router@1", "--reason", "all of it", "--yes", "--retrain")
    assert code == 1
    assert "stands: " in out
    assert "nothing clean is left" in out
    assert "could not train again" in err
    assert "Traceback" not in err
    assert models.aliases(settings)["router"] == {}


def test_a_dry_run_says_what_would_move_and_whether_a_yes_is_needed(settings: Settings, stemma):
    before = versions(settings)
    code, out, _ = stemma("recall", "--prompt", "router@1", "--dry-run")
    assert code == 0
    assert "would move router@champion: version 1 -> none" in out
    assert "--yes is needed" in out
    assert versions(settings) == before
