"""The page of a promotion: what somebody else wrote is data on it, and the same facts give the same bytes."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

import pytest

from training.promotion import Check, Decision, Evidence, Reign, arm_of, groups_of
from training.promotion.page import promotion_html
from training.promotion.shown import Moved, PageFacts, Standing

EVIL = '<script>alert("x")</script>\u202e'


@pytest.fixture
def facts() -> PageFacts:
    champion, candidate = [True] * 6 + [False] * 4, [False] * 5 + [True] * 5
    evidence = Evidence(champion, candidate, [champion], 0, categories=[EVIL] * 5 + ["room"] * 5)
    moved = Moved(
        row_id="ab" * 16,
        text=EVIL + "why is " * 200,
        answer="room",
        champion="room",
        candidate=EVIL,
        nulls_right=1,
        nulls=1,
        source=f"file:///{EVIL}",
        span="bytes:0-9",
        prompt=(EVIL, "2"),
        scorer=("exact-match", "1"),
        category="room",
    )
    checks = (Check("better", True, "Better."), Check("categories", False, f"'{EVIL}' fell."))
    return PageFacts(
        version="desk@3",
        champion="desk@2",
        run_id="0" * 16 + "-1",
        at=dt.datetime(2026, 1, 2, 3, 4, tzinfo=dt.UTC),
        decision=Decision(False, (checks[1].text,), checks, ("A note.",), {"items": 10}),
        gate={"category": EVIL},
        standings=[Standing("candidate", 0.5, 0.2, 0.8, arm_of(champion, candidate))],
        reports=[],
        groups=groups_of(evidence),
        losses=[moved] * 2,
        wins=[],
        lost=62,
        won=0,
        reigns=[(Reign("desk@1", [True] * 10, champion, 1, 6), 5)],
        evaluations={"candidate": "1" * 16 + "-1"},
    )


def test_nothing_on_it_is_markup_but_ours(facts):
    page = promotion_html(facts)
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 6
    assert "\u202e" not in page
    assert "default-src &#x27;none&#x27;" in page or "default-src 'none'" in page


def test_it_says_what_failed_first_and_how_much_it_does_not_list(facts):
    page = promotion_html(facts)
    assert "failed <b>1 of 2 checks</b> (categories). <b>desk@2</b> stays champion." in page
    assert page.index("<code>categories</code>") < page.index("<code>better</code>")
    assert "Lost (62)" in page
    assert "And 60 more" in page
    assert "Won" not in page  # nothing was
    assert "1 of 4<small>" not in page
    assert "5 of 6<small>83.3% [35.9%, 99.6%]</small>" in page


def test_the_same_facts_give_the_same_bytes(facts):
    assert promotion_html(facts) == promotion_html(replace(facts))
