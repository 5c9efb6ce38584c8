"""What `stemma lineage` and `stemma impact` say on the screen and as JSON, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from infra.cli import run
from lineage import bans
from lineage.recall import recall
from lineage.review import review
from lineage.selectors import Selector
from tests.lineage.conftest import SmallLake, identity


@pytest.fixture
def lake(small: SmallLake) -> SmallLake:
    """A trace, an example of it that was eaten, and another of the same question that was not."""
    small.traces([1], response="printer", scorer="judge", prompt_name="router")
    small.examples({11: (1,), 12: (1,)}, scorer="judge", prompt_name="router")
    small.promote(small.train(11))
    return small


@pytest.fixture
def stemma(lake: SmallLake, capsys: pytest.CaptureFixture[str]):
    """One command: exit code, what it printed, its sentence."""

    def call(verb: str, *words: str) -> tuple[int, str, str]:
        code = run(verb, [*words, "--lake", lake.settings.lake])
        return code, *capsys.readouterr()

    return call


def test_a_run_is_named_by_as_many_digits_as_a_row(lake: SmallLake, stemma):
    code, _, said = stemma("lineage", "000")
    assert (code, "'000' is too short to name a run; expected an alias" in said) == (2, True)
    assert stemma("lineage", lake.runs[-1][:4])[0] == 0


def test_a_start_that_fits_a_run_and_a_row_lists_both(lake: SmallLake, stemma):
    lake.traces([0])
    code, _, said = stemma("lineage", "0000")
    assert code == 2
    assert f"'0000' could be any of: {lake.runs[2]} (run), {identity(0).hex()} (traces)" in said


def test_a_row_tells_what_it_says_who_reviewed_it_and_what_of_it_was_called_back(lake: SmallLake, stemma):
    review(lake.runtime, [identity(1).hex()], "approved", reason="seen", reviewer="ann")
    recall(lake.runtime, Selector(rows=(identity(12).hex(),)), reason="wrong", anyway=True)
    (called_back,) = bans.recalls(lake.settings)
    _, told, _ = stemma("lineage", identity(1).hex())
    lines = [" ".join(line.split()) for line in told.splitlines()]
    assert {"text question 1", "answer printer"} <= set(lines)
    assert [line for line in lines if line.startswith("reviewed: approved by ann at ")]
    into = {line.split()[2]: line for line in lines if line.startswith("into ")}
    assert into[identity(12).hex()].endswith(f"called back by recall {called_back.id}")
    assert "called back" not in into[identity(11).hex()]
    found = json.loads(stemma("lineage", identity(1).hex(), "--json")[1])
    assert (found["text"], found["answer"], found["recalled"]) == ("question 1", "printer", None)
    assert [said["reviewer"] for said in found["reviews"]] == ["ann"]
    assert {each["row_id"]: each["recalled"] for each in found["descendants"]} == {
        identity(11).hex(): None,
        identity(12).hex(): called_back.id,
    }
    found = json.loads(stemma("lineage", identity(12).hex(), "--json")[1])
    assert (found["text"], found["answer"]) == ("text 12", "room")
    (trace,) = found["ancestors"]
    assert (trace["recalled"], trace["reviewed"]["reviewer"]) == (None, "ann")
    assert ", approved by ann at " in stemma("lineage", identity(12).hex())[1]


@pytest.mark.parametrize("of", ["champion", identity(1).hex()])
@pytest.mark.parametrize(
    ("page", "sentence"), [("none/p.html", "there is no folder"), ("", "is a folder; expected the name")]
)
def test_a_page_that_cannot_be_written_is_one_sentence(
    of: str, page: str, sentence: str, stemma, tmp_path: Path
):
    code, told, said = stemma("lineage", of, "--html", str(tmp_path / page))
    assert (code, told, sentence in said) == (2, "", True)
    assert "Errno" not in said


def test_impact_says_which_of_the_reached_rows_are_out_already(lake: SmallLake, stemma):
    def asked() -> tuple[str, dict[str, int]]:
        both = ("impact", "--prompt", "router", "--scorer", "judge")
        return stemma(*both)[1], json.loads(stemma(*both, "--json")[1])["out"]

    told, out = asked()
    assert (told.splitlines()[-1].startswith("call it back: "), out) == (True, {})
    recall(lake.runtime, Selector(rows=(identity(12).hex(),)), reason="wrong", anyway=True)
    (first,) = bans.recalls(lake.settings)
    told, out = asked()
    assert f"1 of these rows are out already, called back by recall {first.id}\ncall the others back" in told
    assert out == {"examples": 1}
    recall(lake.runtime, Selector(prompt="router"), reason="wrong", anyway=True)
    told, out = asked()
    assert told.splitlines()[-1].startswith("all 3 of these rows are out already, called back by recall ")
    assert "call it" not in told
    assert out == {"traces": 1, "examples": 2}
