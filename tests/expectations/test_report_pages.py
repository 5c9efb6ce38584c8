"""The pages of verdicts: complete, safe whatever rows say, cheap to build again; and their server."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import subprocess
import threading
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from expectations import reports
from expectations.gate import admit
from expectations.reports import index as index_pages
from expectations.reports.page import facts_of, verdict_html
from expectations.reports.serve import server
from expectations.reports.trend import sparkline, trends
from infra.settings import SettingsError
from lineage import verdicts
from lineage.schemas import TRACE
from lineage.verdicts import Rule

EVIL = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"


class Page(HTMLParser):
    """What a browser would make of a page: its elements, links and words."""

    def __init__(self, html: str):
        super().__init__()
        self.elements, self.links, self.words = [], [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        self.links += [value for name, value in attrs if name == "href"]

    def handle_data(self, data):
        self.words += data


@pytest.fixture
def site(lake, toy, tmp_path: Path) -> Path:
    """Two admitted batches of traces around one whose rows want to run scripts."""
    batches = (
        toy.traces(source="log-a"),
        toy.traces(
            source="log-b",
            scorer="unstated",
            generator=EVIL,
            response=EVIL,
            verdict=EVIL,
            messages=[{"role": "user", "content": EVIL}],
        ),
        toy.traces(source="log-c"),
    )
    for number, rows in enumerate(batches):
        admit(lake.runtime, lake.store(rows, TRACE, key=str(number)))
    return reports.build(lake.runtime, into=tmp_path / "site", docs=True).parent


def test_the_page_of_a_refused_batch_tells_rules_trend_rows_and_what_it_stands_on(lake, site):
    page = Page((site / "verdicts" / "traces@2.html").read_text(encoding="utf-8"))
    given = verdicts.history(lake.settings)[1]
    for said in (
        "refused",
        "withdrawn",
        "judgement_whole",
        "0.0% hold",
        "6 rows",
        "stemma ingest SOURCE",
        "/logs/log-b.jsonl bytes:0-100",
        "intent@v3",
        given.run_id,
        "ingest-log-b-1",
        "stemma reports traces@2",
    ):
        assert said in page.words, said
    assert "svg" in page.elements
    assert page.links == ["../index.html"]


def test_what_rows_say_is_text_on_every_page(site):
    pages = [page for page in site.rglob("*.html") if "traces@2" in page.name or page.name == "index.html"]
    assert len(pages) == 3  # ours, Great Expectations', the index
    for path in pages:
        page = Page(path.read_text(encoding="utf-8"))
        assert "img" not in page.elements
        assert page.elements.count("script") == (path.name == "index.html")
    (docs,) = site.glob("validations/**/traces@2.html")
    assert "document.title='owned'" in Page(docs.read_text(encoding="utf-8")).words, "it names the values"
    assert EVIL in Page((site / "verdicts" / "traces@2.html").read_text(encoding="utf-8")).words


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium on this machine")
def test_in_a_browser_the_pages_open_from_a_file_run_no_script_of_a_row_and_the_filter_works(site, tmp_path):
    def opened(path: Path) -> str:
        command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
        folder = f"--user-data-dir={tmp_path / 'profile'}"
        done = subprocess.run(
            [*command, folder, f"file://{path}"], capture_output=True, text=True, timeout=120, check=True
        )
        return done.stdout

    for path in site.rglob("traces@2.html"):
        assert "<title>owned" not in opened(path)
    index = opened(site / "index.html")
    assert ">3 of 3</span>" in index
    # As a person would: the word of the box is given before its own script runs.
    asked = (site / "index.html").read_text(encoding="utf-8").replace("id=only", "id=only checked")
    (site / "asked.html").write_text(asked)
    assert ">1 of 3</span>" in opened(site / "asked.html")


def test_the_worst_rows_are_those_that_broke_most_rules_twenty_at_most(lake, toy, change):
    scores = [42.0 if row == 3 else 1.0 for row in range(24)]
    rows = change(toy.traces(24, scorer="unstated"), "score", scores)
    admit(lake.runtime, lake.store(rows, TRACE, key="a"))
    (given,) = verdicts.history(lake.settings)
    facts = facts_of(lake.settings, given, [given], withdrawn=True)
    assert (len(facts.rows), facts.broken) == (20, 24)
    assert "The worst 20 of 24 rows that broke rules" in verdict_html(facts)
    assert [len(row.rules) for row in facts.rows] == [2] + [1] * 19
    assert facts.rows[0].row_id == rows["row_id"][3].as_py().hex()


def test_warnings_and_waivers_are_told_apart_from_what_refuses(lake, toy):
    admit(lake.runtime, lake.store(toy.traces(), TRACE, key="a"))
    (given,) = verdicts.history(lake.settings)

    rules = (
        Rule("tolerated", "fail", "is waived", 0.5, 1.0, 3, waived="a1b2c3"),
        Rule("mild", "fail", "only warns", 0.5, 1.0, 3, severity="warn"),
        Rule("hard", "fail", "refuses", 0.5, 1.0, 3),
    )
    shown = replace(given, verdict=replace(given.verdict, outcome="fail", rules=rules))
    page = Page(verdict_html(facts_of(lake.settings, shown, [shown], withdrawn=True)))
    assert re.search(r"tolerated.*waived.*mild.*warned.*hard.*failed", page.words, re.DOTALL)
    assert "covered by waiver a1b2c3" in page.words


def test_a_page_looks_back_and_not_ahead(lake, site):
    history = verdicts.history(lake.settings)
    facts = facts_of(lake.settings, history[1], history, withdrawn=True)
    assert [str(each.verdict.batch) for each in facts.past] == ["traces@1", "traces@2"]


def test_a_trend_has_a_point_for_each_version_on_which_something_was_observed(lake, site):
    history = verdicts.history(lake.settings)
    rule = next(rule for rule in history[1].verdict.rules if rule.name == "judgement_whole")
    (path,) = re.findall(r'class="line" d="M([^"]*)"', sparkline(trends(history)["judgement_whole"], rule))
    heights = [float(point.split(" ")[1]) for point in path.split("L")]
    assert heights[0] == heights[2] < heights[1], "all rows hold it, none do, all do: down and up again"
    assert sparkline([{"": 1.0}], rule) == "", "one version has no trend"


def test_what_stands_is_not_built_again_and_another_verdict_is(lake, toy, site):
    page = site / "verdicts" / "traces@2.html"
    page.write_text("stands")
    reports.build(lake.runtime, into=site)
    assert page.read_text() == "stands"
    page.unlink()
    reports.build(lake.runtime, into=site)
    assert page.is_file()
    given = verdicts.history(lake.settings)[0]
    verdicts.record(lake.runtime, given.verdict, batch_run=given.stored_by, run_id="again-1")
    reports.build(lake.runtime, into=site)
    assert "again-1" in (site / "verdicts" / "traces@1.html").read_text(encoding="utf-8")


def test_only_the_newest_have_pages_the_index_says_so_and_links_no_other(lake, site, tmp_path):
    index = reports.build(lake.runtime, into=tmp_path / "small", newest=1)
    page = Page(index.read_text(encoding="utf-8"))
    assert page.links == ["verdicts/traces@4.html"]
    assert "the newest 1 of 3" in page.words
    given = verdicts.history(lake.settings)[0]
    asked = reports.build_page(lake.runtime, given, into=tmp_path / "small")
    assert asked.name == "traces@1.html"
    again = Page(reports.build(lake.runtime, into=tmp_path / "small", newest=1).read_text(encoding="utf-8"))
    assert again.links == ["verdicts/traces@4.html", "verdicts/traces@1.html"]


def test_thousands_of_verdicts_are_cut_into_pages_newest_first(lake, site):
    (given, *_) = verdicts.history(lake.settings)
    entries = [index_pages.Entry(given, page=f"verdicts/{n}.html") for n in range(2_500)]
    made = index_pages.pages(entries, lake="lake")
    assert list(made) == ["index.html", "index-2.html", "index-3.html"]
    assert Page(made["index.html"]).links[0] == "verdicts/0.html"
    assert Page(made["index-3.html"]).links[0] == "verdicts/2000.html"
    assert {"index.html", "index-3.html"} <= set(Page(made["index-2.html"]).links)


def test_a_disk_that_cannot_be_written_is_told_in_one_sentence(lake, site, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match=r"reports cannot be written to .* choose a folder with --into"):
        reports.build(lake.runtime, into=tmp_path / "file" / "site")


def get(port: int, path: str, host: str = "127.0.0.1") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.putrequest("GET", path, skip_host=True)
    connection.putheader("Host", f"{host}:{port}")
    connection.endheaders()
    answer = connection.getresponse()
    said = answer.read().decode(errors="replace")
    connection.close()
    return answer.status, said


def test_the_server_gives_the_site_and_nothing_beside_it(site, tmp_path):
    (tmp_path / "secret.txt").write_text("secret")
    os.symlink(tmp_path / "secret.txt", site / "link.txt")
    (site.parent / "site-two").mkdir()
    (site.parent / "site-two" / "index.html").write_text("secret")
    with server(site, 0) as serving:
        assert serving.server_address[0] == "127.0.0.1"
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        port = serving.server_port
        assert get(port, "/")[0] == 200
        assert "traces" in get(port, "/verdicts/traces@2.html")[1]
        for path in (
            "/../secret.txt",
            "/..%2fsecret.txt",
            "/%2e%2e/secret.txt",
            "//" + str(tmp_path / "secret.txt"),
            "/link.txt",
            "/../site-two/index.html",
            "/verdicts/",
            "/nothing.html",
        ):
            status, said = get(port, path)
            assert (status, "secret" in said) == (404, False), path
        assert get(port, "/", host="evil.example")[0] == 403
        with pytest.raises(SettingsError, match=f"port {port} cannot be served"):
            server(site, port)
        serving.shutdown()


def test_the_record_of_what_was_built_may_be_lost(lake, site):
    (site / "built.json").write_text("{half")
    reports.build(lake.runtime, into=site)
    assert set(json.loads((site / "built.json").read_text())) == {"traces@1", "traces@2", "traces@4"}
