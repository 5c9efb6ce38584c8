"""Each record once, however often, from wherever and beside whomever its source is read."""

from __future__ import annotations

import bz2
import gzip
import json
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from infra.settings import Settings
from lineage import sources, tables
from lineage.lift import lift
from lineage.recall import recall
from lineage.runs import Outcome, Run, carry_out
from lineage.schemas import QUARANTINE, SOURCE
from lineage.selectors import Selector
from pipelines import formats
from pipelines.readers import Unreadable
from pipelines.readers.chat_completions import ChatCompletions
from pipelines.requeue import retry
from pipelines.runner import TooManyQuarantined
from tests.pipelines.log_lake import Lake, stemma

# ---------------------------------------------------------------- growth


def test_a_finished_ingest_again_adds_nothing(lake: Lake):
    log = lake.log("log.jsonl", "a", "b")
    first = lake.ingest(log)
    again, otherwise = lake.ingest(log), lake.ingest(log, max_quarantined=0.5)
    assert (again.again, again.outputs) == (True, first.outputs)
    assert (otherwise.again, otherwise.outputs) == (False, first.outputs)
    assert otherwise.counts == {"sources": 1, "sources_stored_before": 1}
    assert lake.questions() == ["a", "b"]


def test_a_source_that_grew_twice_gives_its_new_part_each_time(lake: Lake):
    log = lake.log("log.jsonl", "a", "b")
    lake.ingest(log)
    before = lake.ids()
    lake.log("log.jsonl", "a", "b", "c")
    assert lake.ingest(log).counts["in"] == 1
    lake.log("log.jsonl", "a", "b", "c", "d", "e")
    assert lake.ingest(log).counts["in"] == 2
    assert lake.ids()[:2] == before
    assert lake.questions() == ["a", "b", "c", "d", "e"]
    assert lake.added(log, max_quarantined=0.5) == 0
    assert sources.superseded(lake.settings) == []


def test_a_last_line_without_its_end_comes_once_when_the_source_grows(lake: Lake):
    log = lake.log("log.jsonl", "a", "b", end="")
    lake.ingest(log)
    before = lake.ids()
    lake.log("log.jsonl", "a", "b", "c", end="")
    outcome = lake.ingest(log)
    assert (outcome.counts["in"], outcome.counts["known"]) == (2, 1)
    assert (lake.ids()[:2], lake.questions()) == (before, ["a", "b", "c"])


def test_a_last_line_that_was_cut_is_read_when_it_is_whole(lake: Lake):
    log = lake.log("log.jsonl", "a", "b")
    whole = log.read_bytes()
    log.write_bytes(whole[:-20])
    assert lake.ingest(log).counts["quarantined"] == 1
    log.write_bytes(whole)
    assert lake.added(log) == 1
    assert lake.questions() == ["a", "b"]


def test_a_source_may_grow_by_blank_lines_and_then_by_more(lake: Lake):
    log = lake.log("log.jsonl", "a")
    lake.ingest(log)
    log.write_bytes(log.read_bytes() + b"\n\n")
    assert lake.added(log) == 0
    log.write_bytes(log.read_bytes() + lake.log("more.jsonl", "b").read_bytes())
    assert lake.added(log) == 1


@pytest.mark.parametrize("packed", ["gz", "bz2", "zip", "tar.gz"])
def test_a_copy_under_another_name_or_packed_adds_nothing_and_a_grown_one_its_new_part(
    lake: Lake, packed: str
):
    log = lake.log("log.jsonl", "a", "b")
    lake.ingest(log)
    before = lake.ids()

    def copy(path: Path, name: str) -> Path:
        to = lake.folder / f"{name}.{packed if packed in ('zip', 'tar.gz') else f'jsonl.{packed}'}"
        if packed == "zip":
            with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.write(path, "day/log.jsonl")
        elif packed == "tar.gz":
            with tarfile.open(to, "w:gz") as archive:
                archive.add(path, "day/log.jsonl")
        else:
            to.write_bytes({"gz": gzip, "bz2": bz2}[packed].compress(path.read_bytes()))
        return to

    assert lake.added(copy(log, "copy")) == 0
    grown = lake.log("grown.jsonl", "a", "b", "c")
    assert lake.added(copy(grown, "longer")) == 1
    assert lake.added(grown) == 0
    assert lake.ids()[:2] == before


# ---------------------------------------------------------------- rewriting


def test_a_source_that_was_rewritten_is_a_new_revision_and_the_old_one_is_on_record(
    lake: Lake, capsys: pytest.CaptureFixture[str]
):
    log = lake.log("log.jsonl", "a", "b", "c")
    lake.ingest(log)
    (old,) = {row["source_revision"] for row in lake.rows()}
    before = {row["messages"][-1]["content"]: row["row_id"].hex() for row in lake.rows()}
    lake.log("log.jsonl", "a", "X", "c")
    assert lake.ingest(log).counts["known"] == 2  # what stands where it stood is not stored twice
    assert lake.questions() == ["X", "a", "b", "c"]
    (gone,) = sources.superseded(lake.settings)
    assert (gone.source_uri, gone.source_revision) == (log.as_uri(), old)
    assert (
        stemma(lake, capsys, "lineage", before["b"])[1].count(f"superseded by revision {gone.by[:23]}") == 1
    )
    shown = json.loads(stemma(lake, capsys, "lineage", before["b"], "--json")[1])
    assert shown["sources"][0]["superseded_by"] == gone.by
    (row,) = json.loads(stemma(lake, capsys, "status", "--json")[1])["superseded"]
    assert row == {"source": log.as_uri(), "revision": old, "by": gone.by}
    assert "superseded sources" in stemma(lake, capsys, "status")[1]


def test_a_source_that_is_put_back_is_superseded_no_more(lake: Lake):
    log = lake.log("log.jsonl", "a", "b")
    lake.ingest(log)
    lake.log("log.jsonl", "x", "y")
    lake.ingest(log)
    (first,) = sources.superseded(lake.settings)
    lake.log("log.jsonl", "a", "b")
    assert lake.added(log, max_quarantined=0.9) == 0
    (now,) = sources.superseded(lake.settings)
    assert (now.source_revision, now.by) == (first.by, first.source_revision)


def test_a_source_cut_back_and_grown_another_way_keeps_what_it_still_begins_with(lake: Lake):
    log = lake.log("log.jsonl", "a", "b")
    lake.ingest(log)
    lake.log("log.jsonl", "a", "b", "c")
    lake.ingest(log)
    lake.log("log.jsonl", "a", "b", "C", "d")
    assert lake.added(log) == 2
    (gone,) = sources.superseded(lake.settings)
    of_c = next(row for row in lake.rows() if row["messages"][-1]["content"] == "c")
    assert gone.source_revision == of_c["source_revision"]
    lake.log("log.jsonl", "a")
    assert lake.ingest(log).counts["known"] == 1


def test_an_array_that_grew_or_changed_gives_its_new_elements(lake: Lake, toys: SimpleNamespace):
    def array(*questions: str) -> Path:
        path = lake.folder / "log.json"
        path.write_text(json.dumps([toys.exchange(each, "a") for each in questions], indent=1))
        return path

    assert [lake.added(array(*each)) for each in (("a",), ("a", "b"), ("a", "X", "c"), ("a", "X", "c"))] == [
        1, 1, 2, 0,
    ]  # fmt: skip


# ---------------------------------------------------------------- withdrawn, recalled


def test_a_withdrawn_batch_comes_again_and_once(lake: Lake):
    log = lake.log("log.jsonl", "a", "b")
    first = lake.ingest(log)
    ids = lake.ids()
    withdraw(lake, first.outputs[0])
    assert lake.ids() == []
    assert lake.added(log) == 2
    assert lake.added(log, max_quarantined=0.5) == 0
    assert lake.ids() == ids


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_withdrawn_part_of_a_grown_source_comes_again_alone(lake: Lake, part: int):
    batches, questions = [], []
    for more in ("a", "b", "c"):
        questions.append(more)
        log = lake.log("log.jsonl", *questions, end="" if more == "b" else "\n")
        batches.append(next(each for each in lake.ingest(log).outputs if each not in batches))
    ids = set(lake.ids())
    withdraw(lake, batches[part])
    assert lake.added(log) == 1
    assert set(lake.ids()) == ids
    assert lake.added(log, max_quarantined=0.5) == 0
    questions.append("d")
    withdraw(lake, next(each for each in batches if each != batches[part]))
    assert lake.added(lake.log("log.jsonl", *questions)) == 2


def test_what_is_withdrawn_before_its_source_grows_comes_with_the_new_part(lake: Lake):
    first = lake.ingest(lake.log("log.jsonl", "a"))
    log = lake.log("log.jsonl", "a", "b")
    lake.ingest(log)
    withdraw(lake, first.outputs[0])
    lake.log("log.jsonl", "a", "b", "c")
    assert lake.added(log) == 2
    assert lake.added(log, max_quarantined=0.5) == 0
    assert lake.added(lake.log("short.jsonl", "a")) == 0


def test_the_first_part_withdrawn_then_its_copy(lake: Lake):
    first = lake.ingest(lake.log("log.jsonl", "a"))
    withdraw(lake, first.outputs[0])
    assert lake.added(lake.log("log.jsonl", "a", "b")) == 2
    assert lake.added(lake.log("copy.jsonl", "a")) == 0


def test_of_a_grown_source_what_a_lifted_recall_refused_comes_once(lake: Lake):
    log = lake.log("log.jsonl", "a", "bad")
    lake.ingest(log)
    bad = next(row for row in lake.rows() if row["messages"][-1]["content"] == "bad")
    done = recall(lake.runtime, Selector(rows=(bad["row_id"].hex(),)), reason="wrong", anyway=True)
    lake.log("log.jsonl", "a", "bad", "b")
    assert lake.added(log) == 1
    copy = lake.log("copy.jsonl", "a", "bad", "b", "bad")
    assert lake.ingest(copy).counts["rejected"] == 1
    lift(lake.runtime, done.facets["recall"], reason="it was right")
    lake.ingest(copy)
    assert lake.questions() == ["a", "b", "bad", "bad"]
    assert lake.added(copy, max_quarantined=0.5) == 0


# ---------------------------------------------------------------- several at once


def test_works_that_begin_alike_in_one_batch_give_each_row_once(lake: Lake):
    lake.log("1.jsonl", "a", "b", "x")
    lake.log("2.jsonl", "a", "b", "y", "z")
    lake.log("3.jsonl", "a", "b", "y", "z", "w")
    lake.log("4.jsonl", "a")
    assert lake.added(lake.folder) == 6
    assert lake.questions() == ["a", "b", "w", "x", "y", "z"]
    assert lake.added(lake.folder, max_quarantined=0.5) == 0


def test_a_lake_without_the_book_of_sources_gets_nothing_twice(lake: Lake):
    log = lake.log("log.jsonl", "a", "b")
    lake.ingest(log)
    forget_book(lake)
    assert lake.added(log, max_quarantined=0.5) == 0
    assert lake.added(lake.log("log.jsonl", "a", "b", "c")) == 1
    forget_book(lake)
    grown = lake.log("log.jsonl", "a", "b", "c", "d")
    outcome = lake.ingest(grown)
    assert (outcome.counts["known"], lake.questions()) == (3, ["a", "b", "c", "d"])


def test_another_that_stores_the_same_meanwhile_is_noticed(lake: Lake, monkeypatch: pytest.MonkeyPatch):
    """The other comes between the look at what is stored and the commit, with the source as it was before."""
    short, log = lake.log("short.jsonl", "a", "b"), lake.log("log.jsonl", "a", "b", "c")
    other = lake.log("other.jsonl", "z")
    between(monkeypatch, lambda: lake.ingest(short, other))
    outcome = lake.ingest(log, other)
    assert lake.questions() == ["a", "b", "c", "z"]
    assert len(outcome.outputs) == 2


# ---------------------------------------------------------------- quarantine


def test_above_the_allowed_share_nothing_is_stored_and_quarantine_holds_the_records(
    lake: Lake, toys: SimpleNamespace, capsys: pytest.CaptureFixture[str]
):
    log = lake.write("log.jsonl", toys.exchange("a", "b"), "{1", "{2")
    with pytest.raises(TooManyQuarantined, match='stemma query "select reason') as refused:
        lake.ingest(log, max_quarantined=0.5)
    assert (lake.rows(), len(tables.read(lake.settings, QUARANTINE))) == ([], 2)
    query = str(refused.value).split('stemma query "')[1].split('"')[0]
    assert "not_json" in stemma(lake, capsys, "query", query)[1]
    assert retry(lake.runtime).counts["of_unstored"] == 2
    assert lake.added(log, max_quarantined=0.7) == 1


class Cautious(ChatCompletions):
    """Refuses what its successor reads."""

    refused: ClassVar[tuple[str, ...]] = ("b", "c")

    def read(self, record: Any) -> list[dict[str, Any]]:
        rows = super().read(record)
        if any(row["messages"][-1]["content"] in self.refused for row in rows):
            raise Unreadable("not_yet", "cannot")
        return rows

    read_columns = None


@pytest.mark.parametrize("pii", ["flag", "redact"])
def test_what_a_mended_reader_can_read_is_stored_as_if_it_had_been_read_at_first(
    lake: Lake, tmp_path: Path, toys: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, pii: str
):
    log = lake.log("log.jsonl", "a", "b", "c", "write to ann@example.com")
    log.write_bytes(log.read_bytes() + b"{1\n")
    with monkeypatch.context() as old:
        old.setattr(Cautious, "refused", ("b", "write to ann@example.com"))
        old.setattr(formats, "FORMATS", {**formats.FORMATS, "chat_completions": Cautious()})
        assert lake.ingest(log, format="chat_completions", pii=pii).counts["quarantined"] == 3
    done = retry(lake.runtime)
    assert done.counts == {
        "records": 2, "rows": 2, "recalled": 0, "still_quarantined": 1, "not_tried": 0, "of_unstored": 0,
    }  # fmt: skip
    lake.require_sound()
    again = retry(lake.runtime)
    assert (again.counts["rows"], again.counts["still_quarantined"]) == (0, 1)
    monkeypatch.setenv("STEMMA_PII_KEY", "one key for both lakes")
    undisturbed = Lake(Settings(str(tmp_path / "other"), ""), lake.folder, toys)
    undisturbed.ingest(log, pii=pii)
    stored, at_first = (
        {(row["row_id"], row["source_span"], row["pii"]) for row in each.rows()}
        for each in (lake, undisturbed)
    )
    assert stored == at_first
    if pii == "redact":
        assert "ann@example.com" not in str(lake.rows())
    assert lake.added(log, pii=pii, max_quarantined=0.9) == 0
    lake.log("log.jsonl", "a", "b", "c", "write to ann@example.com", "e")
    assert lake.added(log, pii=pii) == 1


# ---------------------------------------------------------------- what the tests are made of


def withdraw(lake: Lake, batch: str) -> None:
    """As a gate does that refuses a batch, on record so that the lake stays sound."""

    def work(run: Run) -> Outcome:
        version = tables.resolve(lake.settings, batch)
        tables.withdraw(lake.settings, version, run_id=run.id, reason="refused")
        return Outcome()

    carry_out(lake.runtime, "withdraw", config={}, inputs=[batch], work=work)


def forget_book(lake: Lake) -> None:
    """As in a lake that is older than the book."""
    shutil.rmtree(Path(lake.settings.lake, "tables", SOURCE.name))
    tables.forget()


def between(monkeypatch: pytest.MonkeyPatch, other: Callable[[], object]) -> None:
    """Have another come once, after the rows were read and before they are committed."""
    commit = tables.commit

    def late(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(tables, "commit", commit)
        other()
        return commit(*args, **kwargs)

    monkeypatch.setattr(tables, "commit", late)


def test_another_field_map_over_the_same_file_stores_no_row_twice(lake: Lake):
    log = lake.write("pairs.jsonl", {"q": "a", "out": "b"}, {"q": "c", "out": "d"})
    maps = {name: lake.folder / f"{name}.toml" for name in ("one", "two")}
    for name, path in maps.items():
        path.write_text(f'[map]\ninput = "q"\nresponse = "out"\n[constant]\nscorer = "{name}"\n')
    lake.ingest(log, field_map=str(maps["one"]))
    again = lake.ingest(log, field_map=str(maps["two"]))
    assert (again.counts["in"], again.counts["known"]) == (2, 2)
    lake.require_sound()
