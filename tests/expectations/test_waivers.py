"""A person waives a rule: for a reason, until a day, on record; recall's own rules nobody waives."""

from __future__ import annotations

import datetime as dt
import json

import pytest

from expectations.gate import admit, reason, waivers_used
from expectations.reports import as_text
from expectations.suites import SUITES
from expectations.thresholds import DEFAULTS
from infra import cli
from lineage import tables, verdicts, waivers
from lineage.schemas import EXAMPLE, TRACE, VERDICT, WAIVER
from lineage.waivers import NEVER, WaiverError, grant, revoke

SOON = dt.date(2026, 2, 1)  # the toy's clock begins on 2026-01-01


@pytest.fixture
def waived(lake):
    return grant(
        lake.runtime, table="traces", rule="judgement_whole", reason="old judge", until=SOON, by="ann"
    )


def broken(lake, toy, source="log-a"):
    return lake.store(toy.traces(source=source, scorer="unstated"), TRACE, key=source)


def test_what_a_waiver_covers_is_shown_and_does_not_refuse(lake, toy, waived):
    verdict = admit(lake.runtime, broken(lake, toy))
    assert (verdict.outcome, waivers_used(verdict), reason(verdict)) == ("pass", [waived.id], "")
    (rule,) = (rule for rule in verdict.rules if rule.outcome != "pass")
    assert (rule.outcome, rule.waived, rule.failing) == ("fail", waived.id, 6)
    assert verdicts.read_admitted(lake.settings, TRACE).num_rows == 6
    assert verdicts.unexpected(lake.settings, verdict).num_rows == 6
    told = as_text(verdict, lake.settings)
    assert "WAIVED judgement_whole" in told
    assert f"waived by ann until 2026-02-02 00:00 ({waived.id}): old judge" in told


def test_a_waiver_covers_one_rule_of_one_table_until_its_day_is_over(lake, toy, waived):
    assert not admit(lake.runtime, lake.store(toy.traces(verdict="perhaps"), TRACE, key="c")).passed
    examples = lake.store(toy.examples(kind="odd"), EXAMPLE, key="e")
    assert not admit(lake.runtime, examples).passed
    lake.seconds = 86_400 * 31 + 86_390  # the last seconds of 1 February
    assert admit(lake.runtime, broken(lake, toy)).passed
    lake.seconds = 86_400 * 32
    assert not admit(lake.runtime, broken(lake, toy, "log-b")).passed
    assert waived.state(lake.runtime.now()) == "expired"


def test_what_was_refused_stays_refused_and_its_report_says_that_it_must_come_again(lake, toy, change):
    version = broken(lake, toy)
    refused = admit(lake.runtime, version)
    assert "waive first, then store it again" in " ".join(as_text(refused, lake.settings).split())
    grant(lake.runtime, table="traces", rule="judgement_whole", reason="old judge", until=SOON)
    assert not admit(lake.runtime, version).passed
    again = change(toy.traces(scorer="unstated"), "run_id", "ingest-log-a-2")
    assert admit(lake.runtime, lake.store(again, TRACE, key="log-a")).passed


def test_what_was_admitted_stays_admitted_when_its_waiver_ends(lake, toy, waived):
    version = broken(lake, toy)
    assert admit(lake.runtime, version).passed
    ended = revoke(lake.runtime, waived.id[:6], reason="new judge", by="bob")
    assert ended.state(lake.runtime.now()) == "revoked"
    assert (ended.revoked.by, ended.revoked.reason) == ("bob", "new judge")
    assert admit(lake.runtime, version).passed
    assert tables.read(lake.settings, VERDICT).num_rows == 1
    assert not admit(lake.runtime, broken(lake, toy, "log-b")).passed


def test_given_twice_it_is_one_waiver_and_revoked_it_can_be_given_again(lake, waived):
    told = {"table": "traces", "rule": "judgement_whole", "reason": "old judge", "until": SOON, "by": "ann"}
    assert grant(lake.runtime, **told) == waived
    assert tables.read(lake.settings, WAIVER).num_rows == 1
    revoke(lake.runtime, waived.id, reason="enough")
    with pytest.raises(WaiverError, match="is revoked already"):
        revoke(lake.runtime, waived.id, reason="enough")
    second = grant(lake.runtime, **told)
    assert second.id != waived.id
    assert waivers.in_force(lake.settings, "traces", lake.runtime.now()) == {"judgement_whole": second}


def test_a_crash_is_covered_by_no_waiver(lake, toy, crashing):
    version = lake.store(toy.traces(), TRACE, key="a")
    grant(lake.runtime, table="traces", rule="crashes", reason="it crashes", until=SOON)
    verdict = admit(lake.runtime, version, suites={"traces": crashing(SUITES["traces"])})
    assert (verdict.outcome, waivers_used(verdict)) == ("error", [])


@pytest.mark.parametrize("rule", NEVER)
def test_what_recall_rests_on_nobody_waives(rule, lake):
    table = {"members": "curricula", "root": "curricula", "rows": "predictions"}.get(
        rule.split("_")[0], "traces"
    )
    rules = [each.meta["rule"] for each in SUITES[table].build(DEFAULTS).expectations]
    assert rule in rules
    with pytest.raises(WaiverError, match=f"'{rule}' cannot be waived: .*; correct the rows"):
        grant(lake.runtime, table=table, rule=rule, reason="hurry", until=SOON)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"reason": " "}, "needs a reason"),
        ({"until": dt.date(2025, 12, 31)}, "is over"),
        ({"until": dt.date(2026, 4, 2)}, "more than 90 days ahead; give 2026-04-01"),
    ],
)
def test_a_waiver_without_reason_or_end_in_sight_is_refused(changes, sentence, lake):
    told = {"table": "traces", "rule": "judgement_whole", "reason": "old judge", "until": SOON} | changes
    with pytest.raises(WaiverError, match=sentence):
        grant(lake.runtime, **told)
    assert waivers.all_waivers(lake.settings) == []


def test_more_than_a_quarter_ahead_is_possible_when_it_is_meant(lake):
    far = grant(
        lake.runtime, table="traces", rule="judgement_whole", reason="x", until=dt.date(2027, 1, 1), long=True
    )
    assert far.state(lake.runtime.now()) == "in force"


def stemma(lake, *words):
    return cli.run(words[0], [*words[1:], "--lake", lake.settings.lake])


def test_the_command_gives_lists_and_revokes_waivers(lake, toy, capsys):
    broken(lake, toy)
    until = f"{dt.datetime.now(dt.UTC).date() + dt.timedelta(days=10)}"
    words = ["gate", "--waive", "judgement_whole", "--table", "traces", "--reason", "old judge"]
    assert stemma(lake, *words, "--until", until, "--by", "ann") == 0
    assert stemma(lake, "gate", "--waivers", "--json") == 0
    (given,) = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (given["state"], given["by"], given["reason"]) == ("in force", "ann", "old judge")
    assert stemma(lake, "status") == 0
    shown = capsys.readouterr().out
    assert "waivers in force" in shown
    assert given["id"] in shown
    assert stemma(lake, "gate", "traces@1") == 0
    assert "WAIVED" in capsys.readouterr().out
    assert stemma(lake, "reports", "traces@1") == 0
    assert "waived by ann until" in capsys.readouterr().out
    assert stemma(lake, "gate", "--revoke", given["id"], "--reason", "done") == 0
    assert "revoked" in capsys.readouterr().out
    assert stemma(lake, "status") == 0
    assert "waivers in force" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--waive", "judgement_whole"], "needs --table"),
        (["--waive", "nonsense", "--table", "traces", "--until", "2026-02-01"], "has no rule 'nonsense'"),
        (["--waive", "x", "--table", "runs", "--until", "2026-02-01"], "has no suite"),
        (["--waive", "review_known", "--table", "traces", "--until", "soon"], "is no day"),
        (["--revoke", "abcd1234", "--reason", "x"], "names no waiver; known: none"),
        (["traces@1", "--waivers"], "name one commit as TABLE@VERSION, or give one of"),
        (["traces@1", "--until", "2026-02-01"], "need --waive RULE"),
        (["traces@1", "--reason", "x"], "belong to --waive or --revoke"),
        ([], "name one commit as TABLE@VERSION, or give one of"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(words, sentence, lake, toy, capsys):
    broken(lake, toy)
    assert stemma(lake, "gate", *words) == 2
    assert sentence in capsys.readouterr().err
    assert waivers.all_waivers(lake.settings) == []
