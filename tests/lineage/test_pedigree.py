"""The pedigree page: complete, safe whatever the data says, readable with three groups and with 500."""

import datetime as dt
import json
import math
import re
from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from lineage.registry.pedigree import Pedigree, pedigree_html, pedigree_json

DIGEST = "5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9"


class Page(HTMLParser):
    """What a browser would make of a page: its elements and its words."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.attributes, self.words, self.visible, self._hidden = [], [], "", "", 0
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        self.attributes += attrs
        self._hidden += tag == "details"

    def handle_endtag(self, tag):
        self._hidden -= tag == "details"

    def handle_data(self, data):
        self.words += data
        self.visible += "" if self._hidden else data


def group(index=0, **changes):
    return {
        "source_uri": f"s3://traces/part-{index:03d}.jsonl",
        "source_revision": f"sha256:{index:064x}",
        "prompt_name": "route",
        "prompt_version": "v7",
        "scorer": "exact_match",
        "scorer_revision": "1",
        "generator": "human",
        "rows": 1000 - index,
        "first_step": 0,
        "last_step": 59,
    } | changes


def pedigree(n=3, **changes) -> Pedigree:
    facts = {
        "model": {
            "name": "intents",
            "version": 3,
            "run_id": "9f31c07a2be4d815-1",
            "adapter_digest": DIGEST,
            "base_model": "all-MiniLM-L6-v2",
            "base_digest": DIGEST[::-1],
            "at": dt.datetime(2026, 11, 20, 14, 5, tzinfo=dt.UTC),
        },
        "curriculum": {"root": "c" * 64, "rows": 1200, "slices": {"gold": 760, "hard": 280, "replay": 160}},
        "groups": [group(index) for index in range(n)],
        "reports": [
            {
                "metric": "accuracy",
                "split": "gate",
                "condition": "clean",
                "value": 0.941,
                "low": 0.911,
                "high": 0.965,
                "n": 600,
            }
        ],
        "previous": {"name": "intents", "version": 2, "run_id": "77aa01c2d3e4f506-1"},
        "parents": [{"name": "teacher", "version": 1, "run_id": "0011aabbccddeeff-1"}],
        "aliases": ["champion"],
    }
    return Pedigree(**(facts | changes))


def test_page_states_every_fact_that_identifies_the_model():
    words = Page(pedigree_html(pedigree())).words
    identities = (
        "intents",
        "9f31c07a2be4d815-1",
        DIGEST,
        DIGEST[::-1],
        "c" * 64,
        "all-MiniLM-L6-v2",
        "champion",
    )
    for fact in (
        *identities,
        "20 November 2026",
        "intents@2",
        "teacher@1",
        "0.941",
        "0.911 to 0.965",
        "part-002.jsonl",
    ):
        assert fact in words


def test_page_needs_nothing_from_elsewhere_and_runs_no_script():
    html = pedigree_html(pedigree())
    page = Page(html)
    assert not {"script", "link", "img", "iframe", "a"} & set(page.elements)
    assert not [name for name, _ in page.attributes if name in ("src", "href") or name.startswith("on")]
    assert not re.search(r"url\((?!#)|@import", html)


@given(st.text(max_size=60))
def test_data_never_becomes_markup(text):
    plain = pedigree(1)
    facts = pedigree(
        1,
        groups=[group(prompt_name=text, generator=text, scorer=text, source_uri=text, source_revision=text)],
        model=plain["model"] | {"name": text, "base_model": text, "run_id": text},
        aliases=[text],
    )
    page = Page(pedigree_html(facts))
    assert page.elements == Page(pedigree_html(plain)).elements
    pedigree_html(facts).encode()


def test_a_hostile_source_name_is_shown_as_text():
    hostile = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    page = Page(
        pedigree_html(pedigree(1, groups=[group(generator=hostile, source_uri='x" onclick="alert(3)')]))
    )
    assert "<script>alert(1)" in page.words
    assert not {"script", "img"} & set(page.elements)
    assert "onclick" not in {name for name, _ in page.attributes}


def test_marks_that_turn_text_around_are_made_visible():
    html = pedigree_html(pedigree(1, groups=[group(source_uri="report\u202efdp.exe", generator="bot\x00")]))
    assert "\u202e" not in html
    assert "\x00" not in html
    assert "report\ufffdfdp.exe" in html


def test_five_hundred_groups_show_the_largest_and_fold_the_rest():
    page = Page(pedigree_html(pedigree(500)))
    assert "part-011.jsonl" in page.visible
    assert "part-012.jsonl" not in page.visible
    assert "part-499.jsonl" in page.words
    assert "and 488 more" in page.words
    assert "495 more sources" in page.visible


def test_three_groups_fold_nothing():
    assert "details" not in Page(pedigree_html(pedigree(3))).elements


def test_a_model_without_reports_rows_or_alias_still_has_a_page():
    bare = pedigree(0, reports=[], aliases=[], parents=[], previous=None)
    bare["curriculum"] = {"root": "c" * 64, "rows": 0, "slices": {}}
    words = Page(pedigree_html(bare)).words
    for sentence in (
        "No report yet.",
        "No consumed row is recorded",
        "The curriculum holds no row.",
        "no alias",
    ):
        assert sentence in words


def test_page_and_json_do_not_depend_on_the_order_of_groups():
    facts = pedigree(20)
    turned = pedigree(20, groups=facts["groups"][::-1])
    assert pedigree_html(facts) == pedigree_html(turned)
    assert pedigree_json(facts) == pedigree_json(turned)


def test_json_gives_back_the_facts():
    facts = pedigree()
    found = json.loads(pedigree_json(facts))
    assert found["schema"] == "stemma.pedigree/1"
    assert found["model"] == facts["model"] | {"at": "2026-11-20T14:05:00+00:00"}
    for part in ("curriculum", "groups", "reports", "previous", "parents", "aliases"):
        assert found[part] == facts[part]


def test_a_number_that_is_none_is_null_in_json_and_none_on_the_page():
    report = pedigree()["reports"][0] | {"value": math.nan, "low": None, "high": math.inf}
    facts = pedigree(reports=[report])
    found = json.loads(pedigree_json(facts))["reports"][0]
    assert (found["value"], found["low"], found["high"]) == (None, None, None)
    assert "nan" not in Page(pedigree_html(facts)).words.lower()
