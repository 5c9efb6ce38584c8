"""What a promotion leaves on record and on its page; a cut-off or doubled one moves the champion once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from infra.cli import run as stemma
from infra.runtime import Runtime
from infra.settings import Settings
from lineage import mirror, models, promotion_pages, report, runs
from lineage.fsck import fsck
from lineage.runs import Run, RunError
from training import promote as job
from training.finetune import FinetuneConfig, finetune
from training.null import retrains
from training.promote import promote
from training.promotion import Gate
from training.promotion.gate_set import categories_of, items_of
from training.recipe import TrainingConfig, TrainingError

ROOT = Path(__file__).parents[2]
DEATHS = (
    {
        "call": "training.promotion.contest:evaluate",
        "when": "before",
        "nth": 3,
    },  # the null is trained, not evaluated
    {"call": "training.promote:evidence_of", "when": "before"},  # all are evaluated, nothing is decided
    {"call": "lineage.models:move_aliases", "when": "after"},  # the alias has moved, the run has not ended
)


@dataclass(frozen=True)
class Crowned:
    """A lake in which a promotion was killed three times and then came to its end."""

    settings: Settings
    weak: str
    """The run of desk@1, which was champion before."""
    better: str
    """The run of desk@2."""
    codes: list[int]
    standing: list[dict[str, int]]
    """The aliases of `desk` after each."""

    @property
    def runtime(self) -> Runtime:
        return Runtime(self.settings)


def enthrone(runtime: Runtime, name: str, run_id: str) -> None:
    """Make a model champion that no gate would let through."""
    version = models.register(runtime, models.resolve(runtime.settings, run_id)[0], name=name)
    moves = {"champion": version.version}
    by = Run("ff" * 8, 1, "promote")
    models.move_aliases(runtime, moves, name=name, kind="promotion", reason="", evidence=[], run=by)
    mirror.show_version(runtime.settings, version)
    models.mirror_aliases(runtime.settings, name)


@pytest.fixture(scope="module")
def crowned(trained_lake, tmp_path_factory, ray_session) -> Crowned:
    folder = tmp_path_factory.mktemp("promote")
    settings = trained_lake.copied(folder / "lake")
    runtime = Runtime(settings)
    hardly = TrainingConfig(
        num_train_epochs=1, train_batch_size=8, learning_rate=1e-6, classifier_learning_rate=1e-6
    )
    weak = finetune(runtime, FinetuneConfig(training=hardly)).run_id
    enthrone(runtime, "desk", weak)
    command = ["promote", trained_lake.trained, "--name", "desk", "--lake", settings.lake]
    driver = subprocess.Popen(
        [sys.executable, str(ROOT / "tests/examples/killed.py"), str(folder), *command],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert driver.stdin is not None
    assert driver.stdout is not None
    codes, standing = [], []
    for point in (*DEATHS, {}):
        driver.stdin.write(json.dumps(point) + "\n")
        driver.stdin.flush()
        codes.append(json.loads(driver.stdout.readline())["code"])
        standing.append(models.aliases(settings)["desk"])
    driver.stdin.close()
    assert driver.wait(timeout=60) == 0
    return Crowned(settings, weak, trained_lake.trained, codes, standing)


def test_killed_between_training_evaluation_and_decision_it_is_resumed_and_never_half_promoted(crowned):
    assert crowned.codes == [-9, -9, -9, 0]
    before, after = {"champion": 1}, {"candidate": 2, "champion": 2, "previous": 1}
    assert crowned.standing == [before, before, after, after]
    moved = [e for e in models.events(crowned.settings, "desk") if e.alias == "champion"]
    assert [(event.from_version, event.to_version) for event in moved] == [(0, 1), (1, 2)]
    done = [
        outcome for config, outcome in runs.completed(crowned.settings, "promote") if config["name"] == "desk"
    ]
    assert [outcome.facets["promoted"] for outcome in done] == [True]
    nulls = done[0].facets["nulls"]
    assert [runs.find(crowned.settings, null)["status"] for null in nulls] == ["COMPLETE"]
    assert promote(crowned.runtime, crowned.better, name="desk").again
    assert [check.found for check in fsck(crowned.settings) if check.found] == []


def test_what_was_won_and_lost_is_on_record_and_recomputes_from_the_predictions(crowned):
    ((_, done),) = [each for each in runs.completed(crowned.settings, "promote") if each[0]["name"] == "desk"]
    said = {
        run: {
            row["row_id"].hex(): row["answer"] == row["prediction"]
            for row in report.predictions_of(crowned.settings, run, split="gate").to_pylist()
        }
        for run in (crowned.weak, crowned.better)
    }
    then, now = said[crowned.weak], said[crowned.better]
    assert sorted(done.facets["wins"]) == sorted(row for row in now if now[row] and not then[row])
    assert sorted(done.facets["losses"]) == sorted(row for row in now if then[row] and not now[row])
    assert done.facets["won"] == len(done.facets["wins"]) > 5
    names = [check["name"] for check in done.facets["checks"]]
    assert names == [
        "better",
        "beats_null",
        "regressions",
        "previous_set",
        "history",
        "categories",
        "items",
        "overlap",
    ]
    assert done.facets["figures"]["accuracy"] == pytest.approx(sum(now.values()) / len(now))


def test_the_decision_is_a_page_in_the_lake_and_in_mlflow(crowned):
    from mlflow.tracking import MlflowClient

    ((_, done),) = [each for each in runs.completed(crowned.settings, "promote") if each[0]["name"] == "desk"]
    page = promotion_pages.kept(crowned.settings, done.run_id)
    assert Path(promotion_pages.place(crowned.settings, done.run_id)).read_text() == page
    assert "passed <b>all 8 checks</b>" in page
    assert f"Won ({done.facets['won']})" in page
    assert all(row[:12] in page for row in done.facets["wins"])
    assert "evaluation.jsonl" in page  # where the items come from
    assert "null retrain 1" in page
    client = MlflowClient(crowned.settings.tracking_uri, crowned.settings.tracking_uri)
    experiment = client.get_experiment_by_name("stemma")
    assert experiment is not None
    (shown,) = client.search_runs([experiment.experiment_id], f"tags.`stemma.run_id` = '{done.run_id}'")
    assert [file.path for file in client.list_artifacts(shown.info.run_id)] == ["promotion.html"]
    assert shown.data.tags["stemma.verdict"] == "promoted"
    assert shown.data.metrics["check_better"] == 1.0
    assert shown.data.metrics["gain_low"] > 0


def test_a_retrain_of_the_champion_is_refused_and_the_champion_stays(crowned, capsys):
    champion, _ = models.resolve(crowned.settings, "desk@champion")
    (null,) = retrains(crowned.runtime, champion, number=1, seed=40)
    words = ["promote", null, "--name", "desk", "--lake", crowned.settings.lake]
    assert stemma("promote", [*words[1:], "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert {"better", "beats_null"} <= {check["name"] for check in told["checks"] if not check["passed"]}
    (previous,) = [check for check in told["checks"] if check["name"] == "previous_set"]
    assert "desk@2 was promoted on the same items" in previous["text"]
    assert Path(told["page"]).is_file()
    assert models.aliases(crowned.settings)["desk"]["champion"] == 2
    assert stemma("promote", words[1:]) == 1
    assert f"the decision as a page: {told['page']}" in capsys.readouterr().out
    assert stemma("status", ["--lake", crowned.settings.lake]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "desk: desk@2 reigns since" in said
    assert f"last refused desk@{told['version']} by better, beats_null" in said


def test_a_gate_of_the_users_own_decides(crowned, tmp_path, capsys):
    gate = tmp_path / "gate.toml"
    gate.write_text('category = "prompt_name"\n[floors]\nrouter = 1.0\nnobody = 0.5\n')
    words = [crowned.weak, str(gate), "--name", "floored", "--lake", crowned.settings.lake]
    assert stemma("promote", [*words, "--set", "overall_floor=0.5", "--set", "merged=base", "--json"]) == 1
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    failed = {name for name, check in checks.items() if not check["passed"]}
    assert failed == {"better_than_constant", "floor", "floor:nobody", "floor:router"}
    assert "Merged onto base it is right on" in checks["merged"]["text"]


def test_items_have_the_category_of_the_column_that_is_named(crowned):
    items = items_of(crowned.settings, crowned.better)
    assert categories_of(crowned.settings, items, None) == items["answer"].to_pylist()
    assert set(categories_of(crowned.settings, items, "prompt_name")) == {"router"}
    with pytest.raises(
        TrainingError, match=r"category = 'tropic' is no text column of examples; there are: .*answer"
    ):
        categories_of(crowned.settings, items, "tropic")


OTHER = """
import sys
from infra.runtime import Runtime
from infra.settings import settings_from_environment
from training import promote as job
decide = job.evidence_of
def waiting(*args):
    print("deciding", flush=True)
    sys.stdin.readline()
    return decide(*args)
job.evidence_of = waiting
lake, run, name = sys.argv[1:]
print(job.promote(Runtime(settings_from_environment(lake)), run, name=name).facets["promoted"], flush=True)
"""


def test_of_two_promotions_at_once_one_wins_and_the_other_is_told_to_wait(crowned):
    """Two real processes: the first is held in the middle of its decision."""
    enthrone(crowned.runtime, "pair", crowned.weak)
    first = subprocess.Popen(
        [sys.executable, "-c", OTHER, crowned.settings.lake, crowned.better, "pair"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert first.stdin is not None
    assert first.stdout is not None
    try:
        assert first.stdout.readline() == "deciding\n"
        with pytest.raises(RunError, match=r"\(promote\) is in progress in process"):
            promote(crowned.runtime, crowned.weak, name="other-pair")
    finally:
        first.stdin.write("\n")
        first.stdin.close()
    assert first.stdout.readline() == "True\n"
    assert first.wait(timeout=60) == 0
    assert models.aliases(crowned.settings)["pair"] == {"candidate": 2, "champion": 2, "previous": 1}


def test_where_the_champion_moved_meanwhile_it_is_decided_anew(crowned, monkeypatch):
    """Against the champion of now, from which a candidate wins nothing that it would have won before."""
    enthrone(crowned.runtime, "race", crowned.weak)
    champion, _ = models.resolve(crowned.settings, "desk@champion")
    (late,) = retrains(crowned.runtime, champion, number=1, seed=40)
    prepare, prepared = job.prepare, []

    def overtaken(*args, **kwargs):
        contest = prepare(*args, **kwargs)
        prepared.append(contest.reigning)
        if len(prepared) == 1:
            monkeypatch.setattr(job, "prepare", prepare)
            assert promote(crowned.runtime, crowned.better, name="race").facets["promoted"]
            monkeypatch.setattr(job, "prepare", overtaken)
        return contest

    monkeypatch.setattr(job, "prepare", overtaken)
    found = promote(crowned.runtime, late, name="race")
    assert prepared == [1, 2]
    assert found.facets["champion"] == 2
    assert not found.facets["promoted"]
    assert models.aliases(crowned.settings)["race"]["champion"] == 2
    moved = [e.to_version for e in models.events(crowned.settings, "race") if e.alias == "champion"]
    assert moved == [1, 2]


def test_a_gate_that_is_asked_for_more_nulls_makes_them(crowned):
    found = promote(crowned.runtime, crowned.weak, name="desk", gate=Gate(nulls=2))
    assert len(found.facets["nulls"]) == 2
    assert len(found.facets["evaluations"]["nulls"]) == 2
    assert not found.facets["promoted"]
