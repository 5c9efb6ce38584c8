"""The end of a recall: what it took out comes back, once, as it was; what speaks against a row still does."""

from __future__ import annotations

import datetime as dt
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from mlflow.tracking import MlflowClient

from infra.cli import run
from infra.runtime import Runtime
from infra.settings import Settings
from lineage import bans, fsck, models, tables, verdicts
from lineage.bans import Bans, recall_id
from lineage.lift import lift
from lineage.recall import RecallError, recall
from lineage.runs import Outcome, RunError
from lineage.schemas import CONSUMPTION, EXAMPLE, LIFT, TRACE
from lineage.selectors import Selector
from lineage.tables import TableVersion
from pipelines.ingest import IngestConfig, IngestError, ingest
from tests.lineage.mortal import Mortal

ONE = Selector(rows=("0001",))
ROOT = Path(__file__).parents[2]


@pytest.fixture
def lake(small):
    """Four traces, an example of each, and three reigns: 12 trained 1, 13 trained 2, 11 and 14 trained 3."""
    small.traces([1, 2, 3, 4])
    small.examples({11: (1,), 12: (2,), 13: (3,), 14: (4,)})
    for eaten in ((12,), (13,), (11, 14)):
        small.promote(small.train(*eaten))
    return small


def called_back(lake, selector: Selector = ONE) -> str:
    """Recalls; the recall's id."""
    return recall(lake.runtime, selector, reason="wrong", anyway=True).facets["recall"]


def is_sound(settings: Settings) -> bool:
    checks = (fsck.recalls, fsck.closure, fsck.exactly_once, fsck.commits, fsck.files)
    found = [sentence for check in checks for sentence in check(settings)[1]]
    assert found == []
    return True


def test_the_rows_come_back_as_they_were_the_bans_end_and_no_alias_moves(lake):
    before = {spec: tables.read(lake.settings, spec).sort_by("row_no") for spec in (TRACE, EXAMPLE)}
    called = called_back(lake)
    standing = lake.standing
    outcome = lift(lake.runtime, called, reason="it was right after all")
    assert {spec: tables.read(lake.settings, spec).sort_by("row_no") for spec in before} == before
    assert outcome.counts == {"rows": 2, "back": 2, "still_banned": 0}
    assert outcome.facets["may_serve"] == ["router@3"]
    assert lake.standing == standing == {"champion": 2, "previous": 1}
    assert bans.standing(lake.settings) == Bans()
    assert bans.banned(lake.settings) == {}
    bans.require_clean(lake.settings, [11], what="router@3")
    assert models.recalled_versions(lake.settings, "router") == frozenset()
    assert tables.read_ever(lake.settings, EXAMPLE).sort_by("row_no") == before[EXAMPLE]
    (ended,) = bans.all_recalls(lake.settings)
    assert (ended.reason, ended.lift.reason) == ("wrong", "it was right after all")
    assert bans.recalls(lake.settings) == []
    assert is_sound(lake.settings)


def test_ordered_and_lifted_again_and_again_each_time_does_its_work_and_tells_its_own_moves(lake):
    for number in range(1, 4):
        outcome = recall(lake.runtime, ONE, reason=f"wrong {number}")
        assert not outcome.again
        assert lake.numbers(EXAMPLE) == [12, 13, 14]
        assert ["router@champion", 3, 2] in outcome.facets["moved"]
        assert len(outcome.facets["moved"]) == 3
        assert [each.lifts for each in bans.recalls(lake.settings)] == [number - 1]
        assert recall(lake.runtime, ONE, reason="again").again
        assert lift(lake.runtime, outcome.facets["recall"], reason=f"right {number}").counts["back"] == 2
        assert lake.numbers(EXAMPLE) == [11, 12, 13, 14]
        assert is_sound(lake.settings)
        lake.move({"candidate": 3, "champion": 3, "previous": 2}, kind="promotion")
    ever = tables.read_ever(lake.settings, EXAMPLE)["row_no"].to_pylist()
    assert sorted(ever) == [11, 12, 13, 14]
    recall(lake.runtime, ONE, reason="wrong")
    ever = tables.read_ever(lake.settings, EXAMPLE)["row_no"].to_pylist()
    assert sorted(ever) == [11, 12, 13, 14]
    (last,) = bans.recalls(lake.settings)
    assert (last.reason, last.lifts, len(last.orders)) == ("wrong", 3, 1)


def test_a_file_can_be_recalled_from_any_number_of_times_and_is_still_its_batchs(small):
    small.traces(range(1, 23))
    batch = TableVersion("traces", 1)
    before = tables.read(small.settings, TRACE).sort_by("row_no")
    called = [called_back(small, Selector(rows=(f"{n:04x}",))) for n in range(1, 21)]
    assert small.numbers(TRACE) == [21, 22]
    names = {each["path"] for each in tables.snapshot(small.settings, TRACE).files}
    assert max(map(len, names)) < 60
    for each in called[:3]:
        lift(small.runtime, each, reason="right")
    assert small.numbers(TRACE) == [1, 2, 3, 21, 22]
    called_back(small, Selector(rows=("0001",)))  # from a file that a lift wrote
    assert small.numbers(TRACE) == [2, 3, 21, 22]
    assert tables.read_ever(small.settings, TRACE).sort_by("row_no") == before
    assert is_sound(small.settings)
    tables.withdraw(small.settings, batch, run_id="gate-1", reason="smells")
    assert small.numbers(TRACE) == []
    assert tables.read_batch(small.settings, batch).num_rows == 22


def test_what_another_recall_bans_stays_out_until_that_one_is_lifted(lake):
    both, one = called_back(lake, Selector(rows=("0001", "0002"))), called_back(lake)
    outcome = lift(lake.runtime, both, reason="too much")
    assert outcome.counts == {"rows": 4, "back": 2, "still_banned": 2}
    assert outcome.facets["may_serve"] == []
    assert lake.numbers(EXAMPLE) == [12, 13, 14]
    assert set(bans.banned(lake.settings).values()) == {one}
    assert is_sound(lake.settings)
    lift(lake.runtime, one, reason="right")
    assert lake.numbers(EXAMPLE) == [11, 12, 13, 14]
    assert is_sound(lake.settings)


ALTERNATIVES = pytest.mark.parametrize(("first", "second"), [(1, 2), (2, 1)])


@pytest.fixture
def merged(small):
    """11 is an example of 1 and 2 alike, 12 was derived from it; both trained the champion."""
    small.traces([1, 2, 3])
    small.examples({11: (1, 2)}, kind="alternative")
    small.examples({12: (11,), 13: (3,)})
    for eaten in ((13,), (11, 12)):
        small.promote(small.train(*eaten))
    return small


@ALTERNATIVES
@pytest.mark.parametrize("lifted", [1, 2])
def test_of_alternatives_that_two_recalls_took_either_lift_frees_what_was_made_of_them(
    first: int, second: int, lifted: int, merged
):
    called = {n: called_back(merged, Selector(rows=(f"{n:04x}",))) for n in (first, second)}
    assert merged.numbers(EXAMPLE) == [13]
    outcome = lift(merged.runtime, called[lifted], reason="right")
    assert merged.numbers(TRACE) == sorted({1, 2, 3} - {3 - lifted})
    assert merged.numbers(EXAMPLE) == [11, 12, 13]
    assert outcome.counts["back"] + outcome.counts.get("others_back", 0) == 3
    assert outcome.facets["may_serve"] == ["router@2"]
    assert bans.banned(merged.settings).keys() == {3 - lifted}
    assert is_sound(merged.settings)
    called_back(merged, Selector(rows=(f"{lifted:04x}",)))
    assert merged.numbers(EXAMPLE) == [13]
    assert is_sound(merged.settings)


@ALTERNATIVES
def test_a_recall_ordered_again_takes_only_what_falls_then(first: int, second: int, merged):
    called = {n: called_back(merged, Selector(rows=(f"{n:04x}",))) for n in (first, second)}
    for n in (second, first):
        lift(merged.runtime, called[n], reason="right")
    assert called_back(merged, Selector(rows=(f"{second:04x}",))) == called[second]
    assert merged.numbers(EXAMPLE) == [11, 12, 13]
    assert bans.banned(merged.settings).keys() == {second}
    assert is_sound(merged.settings)


def test_what_a_recall_means_by_itself_stays_out_whichever_alternative_is_back(merged):
    called = [called_back(merged, Selector(rows=(f"{n:04x}",))) for n in (1, 2, 11)]
    for each in called[:2]:
        lift(merged.runtime, each, reason="right")
        assert merged.numbers(EXAMPLE) == [13]
        assert is_sound(merged.settings)
    lift(merged.runtime, called[2], reason="right")
    assert merged.numbers(EXAMPLE) == [11, 12, 13]


@pytest.mark.parametrize("write", range(1, 8))
@pytest.mark.parametrize("is_done", [True, False])
def test_a_lift_that_dies_before_it_has_freed_all_is_named_by_fsck_and_finished(
    write: int, is_done: bool, merged
):
    first, _ = (called_back(merged, Selector(rows=(f"{n:04x}",))) for n in (1, 2))
    with Mortal(write, is_done=is_done) as mortal:
        lift(merged.runtime, first, reason="right")
    if mortal.died and merged.numbers(EXAMPLE) == [13] and not bans.recalls(merged.settings)[1:]:
        assert fsck.recalls(merged.settings)[1]
    if mortal.died:
        lift(merged.runtime, first, reason="right")
    assert merged.numbers(EXAMPLE) == [11, 12, 13]
    assert is_sound(merged.settings)


def test_rows_of_a_batch_that_was_withdrawn_meanwhile_stay_out(lake):
    called = called_back(lake)
    tables.withdraw(lake.settings, TableVersion("examples", 1), run_id="gate-1", reason="smells")
    assert lift(lake.runtime, called, reason="right").counts == {"rows": 2, "back": 1, "still_banned": 0}
    assert lake.numbers(TRACE) == [1, 2, 3, 4]
    assert lake.numbers(EXAMPLE) == []
    assert fsck.recalls(lake.settings)[1] == []


def test_a_batch_withdrawn_after_the_lift_takes_the_rows_that_came_back_along(lake):
    lift(lake.runtime, called_back(lake), reason="right")
    lake.examples({21: (4,)})
    tables.withdraw(lake.settings, TableVersion("examples", 1), run_id="gate-1", reason="smells")
    assert lake.numbers(EXAMPLE) == [21]


def test_a_row_that_came_again_under_another_scorer_does_not_stand_twice(small):
    small.traces([1])
    small.examples({11: (1,)}, scorer="judge", scorer_revision="1")
    called = called_back(small, Selector(scorer="judge@1"))
    same = tables.read_ever(small.settings, EXAMPLE, columns=["row_id"])["row_id"][0].as_py()
    small.examples({21: (1,)}, scorer="judge", scorer_revision="2", row_id=same)
    every = called_back(small, Selector(scorer="judge"))
    lift(small.runtime, called, reason="right")
    assert small.numbers(EXAMPLE) == []
    assert lift(small.runtime, every, reason="right").counts == {"rows": 2, "back": 1, "still_banned": 0}
    assert small.numbers(EXAMPLE) == [21]
    assert is_sound(small.settings)


KILLED = """
import os, signal, sys
from infra.runtime import Runtime
from infra.settings import Settings
from lineage import lift, registry, tables
place, called, name, nth = sys.argv[1:]
function, calls = getattr(tables, name), 0
def dying(*args, **kwargs):
    global calls
    calls += 1
    done = function(*args, **kwargs)
    if calls == int(nth):
        os.kill(os.getpid(), signal.SIGKILL)
    return done
setattr(tables, name, dying)
lift.lift(Runtime(Settings(place, "")), called, reason="right")
"""


@pytest.mark.parametrize(
    ("died_after", "nth", "is_half_done"),
    [("record", 1, False), ("record", 2, True), ("put_back", 1, True), ("put_back", 3, False)],
)
def test_a_lift_that_was_killed_is_finished_by_giving_it_again(
    died_after: str, nth: int, is_half_done: bool, lake
):
    # It records its start and the lift, then puts rows back table by table: traces, documents, examples.
    called = called_back(lake)
    words = [sys.executable, "-c", KILLED, lake.settings.lake, called, died_after, str(nth)]
    ended = subprocess.run(words, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False, timeout=120)
    assert ended.returncode == -signal.SIGKILL
    found = fsck.recalls(lake.settings)[1]
    assert [f"finish it: stemma recall --lift {called}" in each for each in found] == [True] * is_half_done
    assert lift(lake.runtime, called, reason="right").counts["back"] == 2
    assert tables.read(lake.settings, LIFT).num_rows == 1
    assert lake.numbers(EXAMPLE) == [11, 12, 13, 14]
    assert is_sound(lake.settings)


def test_a_lift_by_a_clock_that_goes_after_that_of_the_order_ends_it_all_the_same(lake):
    called = called_back(lake)
    slow = Runtime(lake.settings, now=lambda: dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
    lift(slow, called, reason="right")
    assert bans.recalls(lake.settings) == []
    assert not recall(slow, ONE, reason="wrong", anyway=True).again
    assert [each.id for each in bans.recalls(lake.settings)] == [called]


def test_what_cannot_be_lifted_is_refused_in_a_sentence_and_nothing_changes(lake, another_process):
    called = called_back(lake)
    lift(lake.runtime, called_back(lake, Selector(rows=("0002",))), reason="right")
    before = lake.versions()
    with pytest.raises(RecallError, match="needs a reason"):
        lift(lake.runtime, called, reason=" ")
    for unknown in ("ffffffffffff", "", called[:3]):
        with pytest.raises(RecallError, match=rf"starts with '{unknown}' .*standing: {called} \(--row 0001"):
            lift(lake.runtime, unknown, reason="right")
    ended = recall_id(Selector(rows=("0002" + "00" * 14,)))
    with pytest.raises(RecallError, match=f"{ended} was lifted already, at .*: right; to order it again: "):
        lift(lake.runtime, ended[:6], reason="right")
    with another_process(lake.settings, "curate") as run_id:  # noqa: SIM117
        with pytest.raises(RunError, match=rf"run {run_id} \(curate\) is in progress .* to lift a recall"):
            lift(lake.runtime, called, reason="right")
    assert lake.versions() == before
    assert lift(lake.runtime, called[:4], reason="right").counts["back"] == 2


def test_a_start_that_several_recalls_share_names_them_all(small):
    seen: dict[str, str] = {}
    for number in range(10_000):  # two of some three hundred share four digits
        prompt = f"p@{number}"
        start = recall_id(Selector(prompt=prompt))[:4]
        if start in seen:
            break
        seen[start] = prompt
    for row_no, each in enumerate((seen[start], prompt)):
        small.traces([row_no], prompt_name="p", prompt_version=each.partition("@")[2])
        called_back(small, Selector(prompt=each))
    with pytest.raises(RecallError, match=f"'{start}' could be any of: .*{seen[start]}.*{prompt}"):
        lift(small.runtime, start, reason="right")


# ---------------------------------------------------------------- by the engines and the command line


@pytest.fixture
def trained(trained_lake, tmp_path: Path) -> Settings:
    """A copy of the trained lake, that may be changed."""
    return trained_lake.copied(tmp_path / "lake")


@pytest.fixture
def stemma(trained: Settings, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(verb: str, *words: str) -> tuple[int, str, str]:
        code = run(verb, [*words, "--lake", trained.lake])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_a_recall_is_lifted_and_its_model_promoted_again(trained: Settings, stemma):
    client = MlflowClient(trained.tracking_uri, trained.tracking_uri)
    admitted = verdicts.read_admitted(trained, EXAMPLE).sort_by("row_no")
    eaten = set(tables.read(trained, CONSUMPTION)["row_no"].to_pylist())
    ids = zip(admitted["row_no"].to_pylist(), admitted["row_id"].to_pylist(), strict=True)
    bad = next(row_id.hex() for row_no, row_id in ids if row_no in eaten)
    assert stemma("recall", "--row", bad, "--reason", "wrong")[0] == 1  # no clean version is left
    (called,) = bans.recalls(trained)
    assert client.get_model_version("router", "1").tags["stemma.recalled_by"] == called.id
    code, told, _ = stemma("recall", "--lift", called.id[:5], "--reason", "it was right")
    assert (code, "1 of its 1 rows are back" in told, "no alias was moved" in told) == (0, True, True)
    assert models.aliases(trained)["router"] == {}
    assert "stemma.recalled_by" not in client.get_model_version("router", "1").tags
    assert verdicts.read_admitted(trained, EXAMPLE).sort_by("row_no") == admitted
    _, told, _ = stemma("status")
    assert "lifted: it was right" in told
    _, told, _ = stemma("lineage", bad)
    assert "called back" not in told
    _, told, _ = stemma("impact", "--row", bad)
    assert "call it back: stemma recall" in told
    code, told, _ = stemma("promote", "router@1", "--name", "router")
    assert models.aliases(trained)["router"]["champion"] == 1
    assert [(check.name, check.found) for check in fsck.fsck(trained) if check.found] == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--prompt", "router@1", "--dry-run"], "leave out the selector, --dry-run"),
        (["--retrain", "--yes", "--through-models"], "leave out --through-models, --retrain, --yes"),
        (["--row", "1234"], "leave out the selector"),
        ([], "no recall's id starts with 'abcd'"),
    ],
)
def test_beside_a_lift_no_other_option_is_taken(words: list[str], said: str, trained: Settings, stemma):
    code, _, err = stemma("recall", "--lift", "abcd", "--reason", "right", *words)
    assert (code, said in err, len(err.splitlines())) == (2, True, 1)
    assert tables.current(trained, LIFT) is None


def test_what_was_refused_while_a_recall_stood_may_come_after_its_lift(
    runtime: Runtime, tmp_path: Path, toys: SimpleNamespace
):
    def store(name: str, **version_of: str) -> Outcome:
        lines = [toys.exchange(question, "room") for question in version_of]
        for line, version in zip(lines, version_of.values(), strict=True):
            line["request"]["metadata"]["prompt_version"] = version
        source = toys.write_lines(tmp_path / name, lines)
        return ingest(runtime, IngestConfig(sources=(str(source),), max_quarantined=1))

    store("good.jsonl", good="1")
    store("bad.jsonl", bad="2")
    called = recall(runtime, Selector(prompt="router@2"), reason="wrong", anyway=True).facets["recall"]
    for again in ({"bad": "2"}, {"more": "2"}):
        with pytest.raises(IngestError, match=f"are banned by recall {called}"):
            store(f"{next(iter(again))}.jsonl", **again)
    half = {"fine": "1", "worse": "2"}
    assert store("half.jsonl", **half).counts["rejected"] == 1
    lift(runtime, called, reason="right")
    assert store("half.jsonl", **half).counts["known"] == 1  # and the other comes now
    assert store("half.jsonl", **half).again
    assert store("bad.jsonl", bad="2").counts.get("rejected", 0) == 0
    assert store("more.jsonl", more="2").counts["out"] == 1
    asked = tables.read(runtime.settings, TRACE)["messages"].to_pylist()
    assert sorted(messages[0]["content"] for messages in asked) == ["bad", "fine", "good", "more", "worse"]
