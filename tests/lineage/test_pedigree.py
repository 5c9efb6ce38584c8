"""The pedigree pages: complete, safe whatever the data says, readable with ten rows and with 100,000."""

import datetime as dt
import json
import math
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroaring import BitMap64

from lineage import ancestry, models, pedigrees, queries, row_pedigrees, tables
from lineage.bans import recall_id
from lineage.consumption import find_checkpoint
from lineage.queries import Lineage
from lineage.registry.pedigree import Pedigree, RowPedigree, pedigree_html, pedigree_json, row_pedigree_html
from lineage.schemas import BAN, CHECKPOINT, CONSUMPTION, CURRICULUM, EXAMPLE, RECALL, TIMESTAMP, TableSpec
from lineage.selectors import Selector

AT = dt.datetime(2026, 11, 20, tzinfo=dt.UTC)
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
        "generator_revision": "2",
        "rows": 1000 - index,
        "loss_tokens": 3 * (1000 - index),
        "recalled": 0,
        "first_step": 0,
        "last_step": 59,
    } | changes


def fold(by, listed, others=None):
    names = {"source": ("source_uri", "source_revision"), "prompt": ("prompt_name", "prompt_version")}
    portion = ("rows", "loss_tokens", "recalled", "first_step", "last_step")
    values = [
        {name: each[name] for name in portion} | {"name": each[names[by][0]], "revision": each[names[by][1]]}
        for each in listed
    ]
    return {"by": by, "values": values, "others": others}


def others(n):
    """So many values that are not listed, of a row each."""
    if n <= 0:
        return None
    return {"values": n, "rows": n, "loss_tokens": n, "recalled": 0, "first_step": 0, "last_step": 59}


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
        "folds": [fold("source", [group(index) for index in range(min(n, 8))], others(n - 8))],
        "strips": [
            {
                "by": "slice",
                "steps": 60,
                "starts": [0, 30],
                "series": [{"name": "gold", "slots": [90, 20], "recalled": False}],
            }
        ],
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


@settings(deadline=None)
@given(st.text(max_size=60))
def test_data_never_becomes_markup(text):
    plain = pedigree(1)
    facts = pedigree(
        1,
        groups=[group(prompt_name=text, generator=text, scorer=text, source_uri=text, source_revision=text)],
        folds=[fold("source", [group(source_uri=text, source_revision=text)])],
        model=plain["model"] | {"name": text, "base_model": text, "run_id": text},
        aliases=[text],
    )
    assert Page(pedigree_html(facts)).elements == Page(pedigree_html(plain)).elements
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


# ---------------------------------------------------------------- rows, recalls, families


def ate(**changes):
    return {
        "row_id": "ab" * 16,
        "text": "where is my parcel",
        "answer": "parcel",
        "slice": "gold",
        "first_step": 4,
        "times": 3,
        "prompt": "route @ v7",
        "scorer": "judge @ 1",
        "recalled": "",
        "made_by": "merge_duplicates r1",
        "ancestors": [
            {
                "depth": 1,
                "table": "traces",
                "row_id": "cd" * 16,
                "step": "chat_completions r1",
                "prompt": "route @ v7",
                "source_uri": "s3://traces/part-001.jsonl",
                "span": "bytes:10-20",
            }
        ],
        "more": 0,
    } | changes


def test_few_rows_are_shown_one_by_one_down_to_their_places_in_sources():
    words = Page(pedigree_html(pedigree(1, rows=[ate()]))).words
    for fact in ("where is my parcel", "step 4, 3 times", "cdcdcdcdcd", "part-001.jsonl", "10-20"):
        assert fact in words


def test_a_recalled_model_says_so_before_anything_else():
    recall = {"id": "469d4370cd13", "selector": "--prompt a@2", "reason": "<b>", "rows": 7, "first_step": 3}
    words = Page(pedigree_html(pedigree(recalls=[recall], aliases=[]))).words
    told = words.index(
        "Recall 469d4370cd13 (--prompt a@2) took back 7 rows that it ate, the first at step 3: <b>"
    )
    assert told < words.index("How it came to be")


def test_models_before_and_after_are_drawn_few_and_counted():
    parents = [{"name": "teacher", "version": n, "run_id": f"{n:016x}-1", "rows": n} for n in range(1, 12)]
    children = [{"name": "pupil", "version": 4, "run_id": "f" * 16 + "-1", "rows": 20}]
    words = Page(pedigree_html(pedigree(parents=parents, children=children))).words
    assert "teacher@11wrote 11 rows" in words
    assert "and 3 more" in words
    assert "pupil@4ate 20 rows" in words


def row_facts(said: str) -> RowPedigree:
    nodes = [
        {"key": key, "level": level, "kind": "row", "title": said, "note": said, "recalled": True}
        for key, level in (("a", -1), ("b", 0), ("c", 1))
    ]
    return RowPedigree(
        table="traces",
        row_id="ab" * 16,
        text=said,
        answer=f"to {said}",
        provenance={"Prompt": said},
        recall={"id": said, "selector": said, "reason": said, "rows": 1, "first_step": 0},
        nodes=nodes,
        edges=[("a", "b"), ("b", "c")],
        more={1: 214},
        rejected=[said],
    )


@settings(deadline=None)
@given(st.text(max_size=60))
def test_what_a_row_says_never_becomes_markup_on_its_page(said):
    page = Page(row_pedigree_html(row_facts(said)))
    assert page.elements == Page(row_pedigree_html(row_facts("plain"))).elements
    assert "and 214 more" in page.words


# ---------------------------------------------------------------- facts from a lake


def big(small, n=100_000, sources=300, prompts=40) -> Lineage:
    """What a checkpoint of 1,000 steps ate; prompt v31 came late and was called back."""
    source, prompt = np.arange(n) * 7 % sources, np.arange(n) * 11 % prompts
    first = np.where(prompt == 31, 700, 0) + np.arange(n) % 200
    bad, call = prompt == 31, Selector(prompt="route@v31")
    ids = [number.to_bytes(16, "big") for number in range(n)]
    rows = {
        "row_no": range(n),
        "row_id": ids,
        "source_uri": [f"s3://traces/part-{index:03d}.jsonl" for index in source],
        "source_revision": [f"sha256:{index:064x}" for index in source],
        "prompt_name": ["route"] * n,
        "prompt_version": [f"v{index}" for index in prompt],
    }
    run_id, root = "9f31c07a2be4d815-1", "c" * 64
    members = {
        "curriculum": [root] * n,
        "row_no": range(n),
        "slice": ["gold" if i % 3 else "hard" for i in source],
    }
    eaten = {
        "run_id": [run_id] * 2 * n,
        "row_no": np.tile(np.arange(n), 2),
        "step": np.concatenate([first, first + 50]),
        "slot": range(2 * n),
        "loss_tokens": [3] * 2 * n,
    }
    taken = {"recall": [recall_id(call)] * bad.sum(), "table": ["examples"] * bad.sum()}
    taken |= {
        "row_no": np.flatnonzero(bad),
        "row_id": [each for each, is_bad in zip(ids, bad, strict=True) if is_bad],
    }
    ordered = {"recall": [recall_id(call)], "selector": [call.encode()], "orders": ["[]"], "at": [AT]}
    state = {"run_id": [run_id], "step": [1_000], "curriculum": [root], "at": [AT]}
    state |= {"row_bitmap": [BitMap64(range(n)).serialize()]}
    for spec, said in (
        (EXAMPLE, rows),
        (CURRICULUM, members),
        (CONSUMPTION, eaten),
        (BAN, taken),
        (RECALL, ordered),
        (CHECKPOINT, state),
    ):
        table = filled(spec, said)
        file = tables.write_file(small.settings, table, into=spec, name="big")
        tables.commit(small.settings, [file], into=spec, run_id="big", keys=["big"])
    return queries.lineage(small.settings, find_checkpoint(small.settings, run_id))


def filled(spec: TableSpec, said: dict[str, Any]) -> pa.Table:
    """Rows of a table; columns that are not given say nothing."""
    count = len(next(iter(said.values())))
    rows = {name: pa.array(values, spec.schema.field(name).type) for name, values in said.items()}
    for column in spec.columns:
        if column.name not in rows:
            said_nothing = {pa.string(): "unstated", pa.binary(): b"", TIMESTAMP: AT, pa.bool_(): False}
            empty = said_nothing.get(column.type, 0)
            nothing = None if column.nullable else [] if pa.types.is_list(column.type) else empty
            rows[column.name] = pa.repeat(pa.scalar(nothing, column.type), count)
    return pa.table([rows[name] for name in spec.schema.names], schema=spec.schema)


def test_a_hundred_thousand_rows_fit_on_a_page_and_every_table_accounts_for_all_of_them(small):
    facts = pedigrees.of_model(small.settings, big(small), None)
    html = pedigree_html(facts)
    assert len(html.encode()) < 500_000
    for fold in facts["folds"]:
        listed = [*fold["values"], *([fold["others"]] if fold["others"] else [])]
        assert sum(each["rows"] for each in listed) == 100_000, fold["by"]
        assert sum(each["recalled"] for each in listed) == 2_500, fold["by"]
    assert sum(each["rows"] for each in [*facts["groups"], facts["others"]]) == 100_000
    for strip in facts["strips"][:2]:
        assert sum(sum(series["slots"]) for series in strip["series"]) == 200_000
    assert facts["rows"] == []


def test_the_first_contact_with_what_was_called_back_can_be_seen(small):
    facts = pedigrees.of_model(small.settings, big(small), None)
    by_prompt = next(strip for strip in facts["strips"] if strip["by"] == "prompt_version")
    (bad,) = [series for series in by_prompt["series"] if series["recalled"]]
    assert bad["name"] == "v31"  # one of 40 equally frequent ones
    assert by_prompt["starts"][next(i for i, n in enumerate(bad["slots"]) if n)] == 720  # bins of ten steps
    called_back = facts["strips"][-1]
    assert (called_back["by"], [sum(s["slots"]) for s in called_back["series"]]) == ("recalled", [5_000])
    assert facts["recalls"][0]["first_step"] == 721
    prompts = next(fold for fold in facts["folds"] if fold["by"] == "prompt")
    assert "v31" in [value["revision"] for value in prompts["values"]]


def test_a_model_names_the_models_that_wrote_its_rows_and_those_that_ate_what_it_wrote(small):
    small.traces([1, 2, 3])
    small.examples({11: (1,)}, generator="human")
    small.promote(small.train(11))
    small.examples({12: (2,), 13: (3,)}, generator="router", generator_revision="1")
    small.promote(small.train(11, 12, 13))
    for version, parents, children in ((1, [], [(2, 2)]), (2, [(1, 2)], [])):
        checkpoint, named = models.resolve(small.settings, f"router@{version}")
        facts = pedigrees.of_model(small.settings, queries.lineage(small.settings, checkpoint), named)
        assert [(each["version"], each["rows"]) for each in facts["parents"]] == parents
        assert [(each["version"], each["rows"]) for each in facts["children"]] == children
    assert facts["previous"]["version"] == 1


def test_a_rows_tree_shows_few_of_many_and_counts_the_others(small):
    small.traces(range(1, 21))
    small.examples({100 + n: (1,) for n in range(30)})
    small.examples({200: tuple(range(1, 21))})
    small.promote(small.train(100, 101, 200))
    spec, row = ancestry.find_row(small.settings, "0001")
    facts = row_pedigrees.of_row(small.settings, spec, row)
    levels = [node["level"] for node in facts["nodes"]]
    assert (levels.count(-1), levels.count(0), levels.count(1), levels.count(2)) == (1, 1, 8, 1)
    assert facts["more"] == {1: 23}
    assert facts["nodes"][-1]["title"] == "router@1"
    assert facts["nodes"][-1]["note"] == "ate 3 of the rows, candidate, champion"
    spec, row = ancestry.find_row(small.settings, "00c8")
    facts = row_pedigrees.of_row(small.settings, spec, row)
    assert facts["more"] == {-2: 12, -1: 12}
    at = {node["key"]: node["level"] for node in facts["nodes"]}
    assert all(at[start] < at[end] for start, end in facts["edges"])
    assert Page(row_pedigree_html(facts)).words.count("and 12 more") == 2
