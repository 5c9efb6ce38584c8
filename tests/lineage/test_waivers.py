"""Which waivers a model rests on."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest

from infra import cli
from lineage import pedigrees, queries, registry, tables, verdicts, waivers
from lineage.consumption import find_checkpoint
from lineage.schemas import EXAMPLE, TRACE
from lineage.verdicts import Rule, Verdict


@pytest.fixture
def given(small):
    """A waiver of a rule of traces, whose reason is no HTML."""
    told = {"table": "traces", "rule": "judgement_whole", "until": date(2026, 2, 1), "by": "ann"}
    return waivers.grant(small.runtime, reason="<script>old</script>", **told)


def judged(small, spec, *, waived=""):
    """A passing verdict on the newest batch of a table."""
    run_id, batch = list(tables.batches(small.settings, spec).items())[-1]
    rule = Rule("judgement_whole", "fail" if waived else "pass", "", waived=waived)
    verdict = Verdict(batch, "pass", spec.name, "sha256:0", 1, (rule,))
    verdicts.record(small.runtime, verdict, batch_run=run_id, run_id=f"gate-{batch.version}")
    return verdict, run_id


def test_a_checkpoint_tells_the_waivers_under_which_what_it_rests_on_was_admitted(small, given, capsys):
    small.traces([1])
    verdict, run_id = judged(small, TRACE, waived=given.id)
    small.traces([2])
    judged(small, TRACE)
    small.examples({3: (1,)})
    judged(small, EXAMPLE)
    small.examples({4: (2,)})
    judged(small, EXAMPLE)
    over, clean = small.train(3), small.train(4)
    better = replace(verdict, rules=(Rule("judgement_whole", "pass", ""),))  # of later, without a waiver
    verdicts.record(small.runtime, better, batch_run=run_id, run_id="gate-9")
    later = small.train(3)
    made = {run: find_checkpoint(small.settings, run) for run in (over, clean, later)}
    under = {run: waivers.behind(small.settings, checkpoint) for run, checkpoint in made.items()}
    assert under == {over: [given], clean: [], later: [given]}

    assert cli.run("lineage", [over, "--lake", small.settings.lake]) == 0
    told = f"some of it was admitted under a waiver of traces: judgement_whole ({given.id}, by ann)"
    assert told in capsys.readouterr().out
    found = queries.lineage(small.settings, find_checkpoint(small.settings, over))
    page = registry.pedigree_html(pedigrees.of_model(small.settings, found, None))
    assert given.id in page
    assert "&lt;script&gt;old&lt;/script&gt;" in page
    assert "<script" not in page
