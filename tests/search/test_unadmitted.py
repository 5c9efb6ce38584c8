"""Whatever feeds a model, by whichever verb, refuses what is refused, was never judged, or is withdrawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from infra import cli
from infra.runtime import Runtime
from infra.settings import Settings
from lineage import curricula, tables, verdicts
from lineage.bans import recalls
from lineage.consumption import checkpoints, find_checkpoint
from lineage.curricula import CurriculumError, DataRecipe
from lineage.recall import recall
from lineage.review import ReviewError
from lineage.schemas import CHECKPOINT, CURRICULUM, EXAMPLE, PREDICTION, TRACE, TableSpec
from lineage.selectors import Selector
from lineage.verdicts import NotAdmitted
from pipelines.curate import CurateConfig, CurateError, curate
from pipelines.review import review
from search.retrain import retrain
from search.trial import try_recipe
from training.evaluate import evaluate
from training.finetune import FinetuneConfig, finetune, rows_of
from training.recipe import TrainingConfig, TrainingError

pytestmark = pytest.mark.cluster  # its lake is made on Ray

TRAINING = TrainingConfig(num_train_epochs=2, train_batch_size=8)
NONE_OF_ITS_TASKS = "no admitted training examples of classification match"


def refuse(settings: Settings, spec: TableSpec) -> None:
    for run_id, batch in tables.batches(settings, spec).items():
        given = verdicts.latest(settings, batch)
        assert given is not None
        refusal, by = replace(given, outcome="fail"), f"gate-{batch.version}"
        verdicts.record(Runtime(settings), refusal, batch_run=run_id, run_id=by)


def forget_the_verdicts(settings: Settings, spec: TableSpec) -> None:
    DeltaTable(settings.path("tables", "verdicts")).delete(f"\"table\" = '{spec.name}'")
    tables.forget()
    assert not verdicts.admitted(settings, spec)


def withdraw(settings: Settings, spec: TableSpec) -> None:
    for batch in tables.batches(settings, spec).values():
        tables.withdraw(settings, batch, run_id="gate-1", reason="wrong")


WAYS: dict[str, Callable[[Settings, TableSpec], None]] = {
    "refused": refuse,
    "never judged": forget_the_verdicts,
    "withdrawn": withdraw,
}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Callable[[Settings, TableSpec], None]:
    return WAYS[request.param]


@pytest.fixture
def settings(trained_lake, tmp_path: Path) -> Settings:
    return trained_lake.copied(tmp_path / "lake")


@pytest.fixture
def fed(settings: Settings):
    """How many rows were curated, selected, eaten and scored; nothing of it may grow."""

    def counted() -> list[int]:
        return [tables.read(settings, spec).num_rows for spec in (CHECKPOINT, PREDICTION)]

    before = counted()
    yield
    assert counted() == before


def stemma(settings: Settings, *words: str) -> int:
    return cli.run(words[0], [*words[1:], "--lake", settings.lake])


def test_nothing_is_curated_from_unadmitted_traces(settings, way, capsys):
    before = tables.read(settings, EXAMPLE).num_rows
    way(settings, TRACE)
    with pytest.raises(CurateError, match="no admitted traces match"):
        curate(Runtime(settings), CurateConfig(scorer_base_model=None))
    assert stemma(settings, "curate", "--set", "scorer_base_model=none") == 2
    assert "no admitted traces match" in capsys.readouterr().err
    assert tables.read(settings, EXAMPLE).num_rows == before


def test_no_curriculum_is_selected_and_no_model_trained_or_searched_for_from_unadmitted_examples(
    settings, way, fed, tmp_path, capsys
):
    way(settings, EXAMPLE)
    with pytest.raises(CurriculumError, match="no admitted training examples match"):
        curricula.build(Runtime(settings), DataRecipe())
    with pytest.raises(CurriculumError, match=NONE_OF_ITS_TASKS):
        finetune(Runtime(settings), FinetuneConfig(training=TRAINING))
    recipe = {"data": {}, "hyperparameters": TRAINING.model_dump()}
    with pytest.raises(CurriculumError, match=NONE_OF_ITS_TASKS):
        try_recipe(settings, recipe, "0123456789abcdef-1")
    config = tmp_path / "search.toml"
    config.write_text(
        '[[dimensions]]\npath = "hyperparameters.learning_rate"\nkind = "log_uniform"\n'
        "low = 0.0001\nhigh = 0.01\n"
    )
    for words in (["finetune"], ["search", str(config)]):
        assert stemma(settings, *words) == 2
        assert "no admitted training examples" in capsys.readouterr().err


def test_nothing_is_scored_on_unadmitted_examples(settings, way, fed, capsys):
    way(settings, EXAMPLE)
    with pytest.raises(TrainingError, match="no admitted examples stand in split 'gate'"):
        evaluate(Runtime(settings), "champion", split="gate", seed=5)
    assert stemma(settings, "evaluate", "champion", "--seed", "5") == 2
    assert "no admitted examples stand in split 'gate'" in capsys.readouterr().err


def test_no_model_is_trained_on_a_curriculum_that_was_refused(settings, trained_lake, fed, capsys):
    root = find_checkpoint(settings, trained_lake.trained).curriculum
    loaded = curricula.load(settings, root)
    refuse(settings, CURRICULUM)
    with pytest.raises(NotAdmitted, match=r"curricula@1 was refused \(fail\)"):
        finetune(Runtime(settings), FinetuneConfig(training=TRAINING))
    refuse(settings, EXAMPLE)
    with pytest.raises(TrainingError, match="are stored and admitted; make a new curriculum"):
        rows_of(Runtime(settings), loaded)


@pytest.mark.parametrize("unadmitted", WAYS)
def test_another_trainer_is_given_no_row_of_an_unadmitted_curriculum(unadmitted, settings, trained_lake):
    pytest.importorskip("datasets", reason="pip install stemma[trl]")
    from training.callback import ConsumptionCallback, curriculum_dataset

    root = find_checkpoint(settings, trained_lake.trained).curriculum
    WAYS[unadmitted](settings, CURRICULUM)
    for given in (curriculum_dataset, ConsumptionCallback):
        with pytest.raises((NotAdmitted, CurriculumError)):
            given(settings, root)


def test_a_recall_trains_no_successor_from_what_is_not_admitted(settings, way, fed, capsys):
    eaten = min(checkpoint_rows(settings))
    recall(Runtime(settings), Selector(where=f"row_no = {eaten}"), reason="wrong")
    way(settings, EXAMPLE)
    (ordered,) = recalls(settings)
    with pytest.raises(CurriculumError, match=NONE_OF_ITS_TASKS):
        retrain(Runtime(settings), ordered)
    words = ["recall", "--where", f"row_no = {eaten}", "--reason", "wrong", "--retrain", "--yes"]
    assert stemma(settings, *words) == 1
    assert f"could not train again: {NONE_OF_ITS_TASKS}" in capsys.readouterr().err


def checkpoint_rows(settings: Settings) -> list[int]:
    (checkpoint,) = checkpoints(settings)
    return curricula.load(settings, checkpoint.curriculum).members["row_no"].to_pylist()


def test_no_reviewer_derives_an_example_from_one_that_was_not_admitted(settings, capsys):
    rows = tables.read(settings, EXAMPLE)
    row_id, answer = rows["row_id"][0].as_py().hex(), rows["answer"][0].as_py()
    other = next(label for label in rows["answer"].to_pylist() if label != answer)
    refuse(settings, EXAMPLE)
    with pytest.raises(ReviewError, match=r"was not admitted.*; see: stemma status"):
        review(Runtime(settings), [row_id], "relabelled", reason="x", reviewer="ann", label=other)
    assert tables.read(settings, EXAMPLE).num_rows == rows.num_rows


def test_what_is_exported_holds_no_row_at_all(settings, capsys):
    texts = tables.read(settings, EXAMPLE, columns=["text"])["text"].to_pylist()
    assert stemma(settings, "export") == 0
    told = capsys.readouterr().out
    assert told.count("\n") > 10
    assert not [text for text in texts if text in told]


def test_a_single_unadmitted_batch_among_others_feeds_nothing(settings):
    admitted = verdicts.read_admitted(settings, TRACE)
    rows = admitted.slice(0, 1).to_pylist()[0] | {"row_id": b"\x07" * 16, "run_id": "0123456789abcdef-1"}
    rows |= {"row_no": tables.reserve(settings, 1, run_id=rows["run_id"]), "source_span": "bytes:0-1"}
    rows["messages"] = [{**rows["messages"][0], "role": "user", "content": "an unjudged question"}]
    table = pa.Table.from_pylist([rows], schema=TRACE.schema)
    file = tables.write_file(settings, table, into=TRACE, name="unjudged")
    tables.commit(settings, [file], into=TRACE, run_id=rows["run_id"], keys=["unjudged"])
    curate(Runtime(settings), CurateConfig(scorer_base_model=None, merge_duplicates=False))
    made = tables.read(settings, EXAMPLE, columns=["text", "parents"])
    assert "an unjudged question" not in made["text"].to_pylist()
    assert not [parents for parents in made["parents"].to_pylist() if rows["row_id"] in parents]
