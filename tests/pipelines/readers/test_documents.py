from __future__ import annotations

import gzip
import json
import tarfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from lineage.schemas import DOCUMENT
from pipelines.readers import DocumentReader, Part, Unreadable
from pipelines.readers._markdown import front_matter, headings
from pipelines.readers.documents import LANGUAGES, Markdown, PlainText, SourceCode

READERS: dict[str, tuple[DocumentReader, str]] = {
    "markdown": (Markdown(), "input.md"),
    "text": (PlainText(), "input.txt"),
    "code": (SourceCode(), "input.py"),
}


def rows_of(parts: list[Part]) -> list[dict]:
    return [{key: value for key, value in row.items() if value is not None} for p in parts for row in p.rows]


def sections(text: str) -> list[tuple[str | None, str]]:
    return [
        (row.get("section"), row["text"]) for row in rows_of(Markdown().read_document("a.md", text.encode()))
    ]


def about(row: dict) -> dict:
    return json.loads(row["metadata"])


def assert_leads_back(content: bytes, parts: list[Part]) -> None:
    assert [part.end for part in parts] == sorted(part.end for part in parts)
    for part in parts:
        for row in part.rows:
            encoding = about(row).get("encoding", "utf-8")
            assert content[part.first : part.end].decode(encoding) == row["text"]
            assert row.keys() <= set(DOCUMENT.derivable.names)
            assert row["text"].strip()


HEAD = b"some words\n"


@pytest.mark.parametrize(
    ("name", "content", "reader"),
    [
        ("a.md", HEAD, "markdown"),
        ("A.MD.gz", HEAD, "markdown"),
        ("a.txt", HEAD, "text"),
        ("a.txt", "größer".encode("latin-1"), "text"),
        ("a.txt", ("x" * 65_535 + "é").encode()[:65_536], "text"),
        ("a.md", b"[a link](to) begins it", "markdown"),
        ("a.md", b"[[Home]] leads back", "markdown"),
        ("a.md", b"[ ] a task", "markdown"),
        ("a.txt", b'[[{"a": 1}]]', None),
        ("a.py", b"{'a': 1}", "code"),
        ("b.rs", HEAD, "code"),
        ("a.json", HEAD, None),
        ("a.jsonl", HEAD, None),
        ("a.csv", HEAD, None),
        ("a.parquet", b"PAR1", None),
        ("README", HEAD, None),
        ("a.txt", b'{"a": 1}\n', None),
        ("a.md", b'[\n {"a": 1}]', None),
        ("a.txt", b"PAR1\x00\x01", None),
        ("a.py", b"\x00\x01", None),
        ("a.md", b"\xff\xfe\x01", None),
        ("a.md", b" \n", None),
    ],
)
def test_a_document_is_known_by_its_ending_and_its_content(name: str, content: bytes, reader: str | None):
    seen = [each for each, (known, _) in READERS.items() if known.recognises_document(name, content)]
    assert seen == ([reader] if reader else [])


def test_a_section_is_named_by_the_headings_above_it():
    text = "before\n# A\n## B\nb\n### C\nc\n## D\n# E\n### F\n#### G\n"
    assert sections(text) == [
        (None, "before\n"),
        ("A", "# A\n"),
        ("A > B", "## B\nb\n"),
        ("A > B > C", "### C\nc\n"),
        ("A > D", "## D\n"),
        ("E", "# E\n"),
        ("E > F", "### F\n#### G\n"),
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a\nb\n===\nc", [(1, "a b", 0)]),
        ("a\n---\n", [(2, "a", 0)]),
        ("a\n\n---\n", []),
        ("- a\n---\n", []),
        ("> a\n---\n", []),
        ("- a\nlazy\n---\n", []),
        ("#no\n#\n# yes #\n", [(1, "", 1), (1, "yes", 2)]),
        ("    # code\n", []),
        ("```\n# a\n~~~\n# b\n````\n# c", [(1, "c", 5)]),
        ("~~~ sh ```\n# a\n", []),
        ("1. x\n   ```\n# a\n   ```\n# b", [(1, "b", 4)]),
        ("``` a ` b\n# c", [(1, "c", 1)]),
        ("<!-- a\n# b\n-->\n# c", [(1, "c", 3)]),
        ("<!-- a -->\n# c", [(1, "c", 1)]),
        ("<pre>\n# b\n</pre>\n# c", [(1, "c", 3)]),
        ("# a {#b}\r\n\r\nx\r\n===\r\n", [(1, "a", 0), (1, "x", 2)]),
    ],
)
def test_a_heading_is_what_markdown_says(text: str, found: list[tuple[int, str, int]]):
    assert [(h.level, h.words, h.first) for h in headings(text.splitlines(keepends=True))] == found


def test_a_title_is_the_front_matters_or_the_first_heading_or_unstated():
    def title(text: str) -> str:
        return rows_of(Markdown().read_document("a.md", text.encode()))[0]["title"]

    assert title("---\ntitle: T\n---\n# H\n") == "T"
    assert title("---\nTopic: T\n---\n# H\n") == "T"
    assert title("---\ntitle: 2026\n---\nx") == "2026"
    assert title("---\ntitle:\n---\n## G\n# H\n") == "H"
    assert title("## G\n") == "unstated"


def test_broken_front_matter_is_kept_as_text():
    text = "---\ntitle: [x\n# no heading\n---\nbody\n# H\n"
    (first, second) = rows_of(Markdown().read_document("a.md", text.encode()))
    assert first["text"] == text.removesuffix("# H\n")
    assert about(first)["front_matter_broken"].startswith("no YAML in line")
    assert second["title"] == "H"


@pytest.mark.parametrize(
    ("yaml", "broken"),
    [
        ("a: !!python/object/apply:os.system [true]", "no YAML in line 2"),
        ("a: &a [x, x]\nb: &b [*a, *a, *a, *a]\n" + "c: [*b, *b, *b, *b]\n", None),
        (
            "\n".join(f"{c}: &{c} [{', '.join([f'*{p}'] * 9)}]" for p, c in pairwise("abcdefghij")),
            "no YAML in",
        ),
        ("a: &a [" + "x, " * 99 + "x]\n" + "\n".join(f"b{n}: *a" for n in range(200)), "no YAML"),
        ("a: &a [*a]", "no YAML"),
        ("[" * 5000, "no YAML"),
        ("just words", "no mapping"),
        ("a: !!timestamp x", "no YAML"),
        ('a: "\\uD800"', "no YAML"),
        ("a: 2026-13-45", "no YAML"),
        ("# nothing", None),
        ("{1: .nan, 2026-01-01: !!set {x, y}, b: !!binary aGk=, c: 10:30}", None),
    ],
)
def test_front_matter_of_any_kind_is_plain_or_broken(yaml: str, broken: str | None):
    found = front_matter(f"---\n{yaml}\n---\n".splitlines(keepends=True))
    assert found is not None
    assert (found.broken or "").startswith(broken or "")
    assert (found.broken is None) == (broken is None)
    assert isinstance(found.fields, dict)
    json.dumps(found.fields, allow_nan=False)


def test_short_sections_are_rows_and_can_be_told():
    rows = rows_of(Markdown().read_document("a.md", b"# One two three\n\nfour five\n# Empty\n"))
    assert [about(row)["words"] for row in rows] == [2, 0]


def test_a_document_of_front_matter_alone_is_a_row_without_words():
    content = b"---\ntitle: Blog\n---\n\n"
    (row,) = rows_of(Markdown().read_document("a.md", content))
    assert (row["title"], row["text"], about(row)["words"]) == ("Blog", content.decode(), 0)


def test_marks_line_ends_and_missing_ones_are_kept_out_of_nothing():
    content = b"\xef\xbb\xbf---\r\ntitle: T\r\n---\r\n# A\r\n\r\nx\r\n## B"
    parts = Markdown().read_document("a.md", content)
    assert [content[part.first : part.end] for part in parts] == [b"# A\r\n\r\nx\r\n", b"## B"]
    assert_leads_back(content, parts)


@pytest.mark.parametrize(("reader", "name"), READERS.values())
def test_what_is_no_text_is_unreadable_and_latin_1_is_said(reader: DocumentReader, name: str):
    with pytest.raises(Unreadable, match="not_text"):
        reader.read_document(name, b"a\x00b")
    with pytest.raises(Unreadable, match="not_text"):
        reader.read_document(name, b"a\xff\x01b")
    content = "# größer\n".encode("latin-1")
    parts = reader.read_document(name, content)
    assert_leads_back(content, parts)
    assert {about(row)["encoding"] for row in rows_of(parts)} == {"latin-1"}


def test_a_long_text_is_cut_between_paragraphs():
    paragraph = "wörd " * 40_000 + "\n\n"
    content = (paragraph * 20).encode()
    parts = PlainText().read_document("a.txt", content)
    assert len(parts) == 5
    assert all(row["text"].endswith(" \n\n") for row in rows_of(parts))
    assert about(rows_of(parts)[1])["part"] == 2
    assert_leads_back(content, parts)
    assert "".join(row["text"] for row in rows_of(parts)).encode() == content


def test_a_text_without_any_gap_is_cut_between_characters():
    content = ("x" + "é" * 1_500_000).encode()
    parts = PlainText().read_document("a.txt", content)
    assert "".join(row["text"] for row in rows_of(parts)).encode() == content
    assert max(part.end - part.first for part in parts) <= 1024 * 1024


def test_python_that_does_not_parse_is_one_row():
    for source in ("def f(:\n", "(" * 3000, "x = '\\d'\ndef f(): pass\n"):
        rows = rows_of(SourceCode().read_document("a.py", source.encode()))
        assert about(rows[-1])["parsed"] == (len(rows) == 2)


def test_an_ending_says_one_language():
    assert all(ending == ending.lower() and ending.startswith(".") for ending in LANGUAGES)
    (row,) = rows_of(SourceCode().read_document("a.RS.bz2", b"fn main() {}\n"))
    assert (row["language"], row["kind"]) == ("rust", "code")


MARKUP = ("# a", "## b", "x", "", "---", "===", "```", "~~~", "- a", "> q", "1. x", "<!--", "-->", "é", "\t")
OTHER = ("title: T", "a: [", "...", "def f():", "    pass", "@d", "class C: pass", "\x0c", "\x85", "\u2028")
SCRAPS = st.lists(st.sampled_from(MARKUP + OTHER), max_size=12)


@pytest.mark.parametrize(("reader", "name"), READERS.values())
@given(
    content=st.tuples(SCRAPS, st.sampled_from(["\n", "\r\n", "\r"])).map(lambda s: s[1].join(s[0]).encode())
    | st.binary(max_size=80)
)
def test_any_bytes_are_parts_or_unreadable(reader: DocumentReader, name: str, content: bytes):
    reader.recognises_document(name, content)
    try:
        parts = reader.read_document(name, content)
    except Unreadable:
        return
    assert_leads_back(content, parts)


def documents(data: Path, name: str) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(data / name / "knowledge.tar.gz") as archive:
        for member in archive.getmembers():
            if member.isfile() and (file := archive.extractfile(member)):
                yield member.name, file.read()


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "files", "rows"), [("knowledge_grpc_io", 170, 795), ("knowledge_prometheus", 71, 656)]
)
def test_real_knowledge_is_read_whole(data: Path, name: str, files: int, rows: int):
    markdown = MarkdownIt("commonmark")
    found = {}
    for path, content in documents(data, name):
        assert Markdown().recognises_document(path, content[:65536])
        parts = Markdown().read_document(path, content)
        assert_leads_back(content, parts)
        found[path] = rows_of(parts)
        lines = content.decode().splitlines(keepends=True)
        front = front_matter(lines)
        assert front is not None
        assert front.broken is None
        tokens = markdown.parse("".join(lines[front.lines :]))
        told = [
            (int(t.tag[1]), t.map[0]) for t in tokens if t.type == "heading_open" and t.level == 0 and t.map
        ]
        mine = [(heading.level, heading.first - front.lines) for heading in headings(lines, front.lines)]
        assert mine == [each for each in told if each[0] <= 3], path
    assert len(found) == files
    assert sum(map(len, found.values())) == rows
    assert all(rows and rows[0]["title"] != "unstated" for rows in found.values())


@pytest.mark.data
def test_a_real_chat_history_is_read_whole(data: Path):
    content = gzip.decompress((data / "aider_logs" / "chat-history.md.gz").read_bytes())
    assert Markdown().recognises_document("chat-history.md.gz", content[:65536])
    parts = Markdown().read_document("chat-history.md.gz", content)
    assert_leads_back(content, parts)
    assert sum(part.end - part.first for part in parts) == len(content)
    assert len(parts) == 1427
    first, second, *_ = rows_of(parts)
    assert first["text"].startswith("-*- mode: fundamental -*-\n")
    assert second["section"] == second["title"] == "aider chat started at 2024-08-05 19:33:02"
