"""Knowledge and code as rows: Markdown by its sections, text by its paragraphs, code by its definitions.

    ---                       front matter: on each row, under metadata
    title: Retries
    ---
    Before any heading.       a row, section null
    # Setup                   a row, section "Setup"
    ## Linux                  a row, section "Setup > Linux"

Each row's text is exactly the bytes of its part. Short sections are rows too, with their words counted:
what is too short to learn from is the business of curation.
"""

from __future__ import annotations

import ast
import codecs
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, ClassVar

from lineage.rows import Fingerprint
from lineage.schemas import DOCUMENT, UNSTATED, TableSpec
from pipelines.readers import Part, Unreadable, values
from pipelines.readers._markdown import Heading, front_matter, headings

_BOM = b"\xef\xbb\xbf"
_HEAD = 64 * 1024  # bytes that a source is recognised by
_LONGEST = 1024 * 1024  # bytes of a text's part
_MOST_PARSED = 4 * 1024 * 1024  # bytes of Python that a syntax tree is made of: it takes a hundred times more
_COMPRESSED = {".gz", ".bz2"}
_MARKDOWN = {".md", ".markdown", ".mdown", ".mkd"}
_TEXT = {".txt", ".text"}
_CONTROLS = re.compile(
    "[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f-\x9f]"
)  # tab, line ends, form feed, escape are text
_JSON = re.compile(r'\s*(?:\{\s*["}]|\[[\s\[]*[{"])')  # [[a wiki's link]] and [ ] a task are none
_BLANK_LINE = re.compile(rb"\n[ \t]*\r?\n")

LANGUAGES = {
    ".bash": "shell",
    ".c": "c",
    ".cc": "c++",
    ".clj": "clojure",
    ".cjs": "javascript",
    ".cpp": "c++",
    ".cs": "c#",
    ".css": "css",
    ".cxx": "c++",
    ".dart": "dart",
    ".ex": "elixir",
    ".exs": "elixir",
    ".go": "go",
    ".h": "c",
    ".hh": "c++",
    ".hpp": "c++",
    ".hs": "haskell",
    ".html": "html",
    ".java": "java",
    ".jl": "julia",
    ".js": "javascript",
    ".jsx": "javascript",
    ".kt": "kotlin",
    ".kts": "kotlin",
    ".lua": "lua",
    ".mjs": "javascript",
    ".ml": "ocaml",
    ".php": "php",
    ".pl": "perl",
    ".proto": "protobuf",
    ".ps1": "powershell",
    ".py": "python",
    ".pyi": "python",
    ".r": "r",
    ".rb": "ruby",
    ".rs": "rust",
    ".scala": "scala",
    ".sh": "shell",
    ".sql": "sql",
    ".swift": "swift",
    ".tf": "terraform",
    ".ts": "typescript",
    ".tsx": "typescript",
    ".zig": "zig",
    ".zsh": "shell",
}
"""A source file's ending, in lower case, and the language it says."""


@dataclass(frozen=True)
class Markdown:
    """A row per section of level 1 to 3."""

    writes: ClassVar[TableSpec] = DOCUMENT

    @property
    def fingerprint(self) -> Fingerprint:
        """The reader's identity."""
        return Fingerprint("markdown", 1, {})

    def recognises_document(self, name: str, content: bytes) -> str | None:
        """Text with Markdown's ending that is no JSON."""
        ending = _ending(name)
        return f"text in '{ending}'" if ending in _MARKDOWN and _is_prose(content) else None

    def read_document(self, name: str, content: bytes) -> list[Part]:
        """A part per section; one of the front matter where a document has nothing else."""
        text = _Decoded.of(content)
        lines = [line.decode(text.encoding) for line in text.lines]
        front = front_matter(lines)
        opaque = front.lines if front else 0  # no heading, even where it is kept as text
        said = opaque if front and front.broken is None else 0  # where the text begins
        begin = said if _has_words(lines[said:]) else 0
        found = list(headings(lines, opaque))
        fields = front.fields if front else {}
        common: dict[str, Any] = {
            "kind": "markdown",
            "title": _stated(fields, "title", "topic") or _first_of(found) or UNSTATED,
            "language": _stated(fields, "lang", "language") or UNSTATED,
        }
        about = text.about | {"front_matter": fields, "front_matter_broken": front and front.broken}
        parts = []
        for first, end, body, path in _sections(found, begin, len(lines)):
            if _has_words(lines[first:end]):
                counted = sum(len(line.split()) for line in lines[max(body, said) : end])
                row = {**common, "section": path, "text": "".join(lines[first:end])}
                row["metadata"] = _metadata(about, words=counted)
                parts.append(Part(text.byte_of(first), text.byte_of(end), [row]))
        return parts


@dataclass(frozen=True)
class PlainText:
    """A row per file, or per MiB of one, cut between paragraphs."""

    writes: ClassVar[TableSpec] = DOCUMENT

    @property
    def fingerprint(self) -> Fingerprint:
        """The reader's identity."""
        return Fingerprint("text", 1, {})

    def recognises_document(self, name: str, content: bytes) -> str | None:
        """Text with a text's ending that is no JSON."""
        ending = _ending(name)
        return f"text in '{ending}'" if ending in _TEXT and _is_prose(content) else None

    def read_document(self, name: str, content: bytes) -> list[Part]:
        """One part, or several of a long text; none of a blank one."""
        text = _Decoded.of(content)
        spans = list(_cut(content, text.first))
        parts = []
        for number, (first, end) in enumerate(spans, 1):
            words = content[first:end].decode(text.encoding)
            if words.strip():
                place = {"part": number, "parts": len(spans)} if len(spans) > 1 else {}
                row = {
                    "kind": "text",
                    "title": UNSTATED,
                    "section": None,
                    "text": words,
                    "language": UNSTATED,
                }
                row["metadata"] = _metadata(text.about | place, words=len(words.split()))
                parts.append(Part(first, end, [row]))
        return parts


@dataclass(frozen=True)
class SourceCode:
    """A row per file; of Python also one per function and class at its top level."""

    writes: ClassVar[TableSpec] = DOCUMENT

    @property
    def fingerprint(self) -> Fingerprint:
        """The reader's identity."""
        return Fingerprint("code", 1, {})

    def recognises_document(self, name: str, content: bytes) -> str | None:
        """Text with a programming language's ending."""
        language = LANGUAGES.get(_ending(name))
        return f"{language} in '{_ending(name)}'" if language and _is_text(content) else None

    def read_document(self, name: str, content: bytes) -> list[Part]:
        """The definitions' parts, then the file's. Python is parsed, never run."""
        text = _Decoded.of(content)
        whole = "".join(line.decode(text.encoding) for line in text.lines)
        if not whole.strip():
            return []
        language = LANGUAGES.get(_ending(name), UNSTATED)
        common: dict[str, Any] = {"kind": "code", "title": UNSTATED, "language": language}
        defined = _definitions(whole) if language == "python" and len(content) <= _MOST_PARSED else None
        parts = []
        for node in defined or ():
            first = min([node.lineno, *(each.lineno for each in node.decorator_list)]) - 1
            end = node.end_lineno or node.lineno
            lines = [line.decode(text.encoding) for line in text.lines[first:end]]
            kind = "class" if isinstance(node, ast.ClassDef) else "function"
            metadata = _metadata(text.about | {"defines": kind, "first_line": first + 1}, lines=end - first)
            row = {**common, "section": node.name, "text": "".join(lines), "metadata": metadata}
            parts.append(Part(text.byte_of(first), text.byte_of(end), [row]))
        about = text.about | ({"parsed": defined is not None} if language == "python" else {})
        row = {**common, "section": None, "text": whole, "metadata": _metadata(about, lines=len(text.lines))}
        return [*parts, Part(text.first, len(content), [row])]


@dataclass(frozen=True)
class _Decoded:
    """A document's lines, its encoding, and where its lines begin."""

    lines: list[bytes]
    starts: list[int]
    encoding: str

    @classmethod
    def of(cls, content: bytes) -> _Decoded:
        """Raises Unreadable for what is no text."""
        encoding = _encoding(content)
        if encoding is None:
            raise Unreadable("not_text", "neither UTF-8 nor Latin-1 without control characters")
        lines = content.removeprefix(_BOM).splitlines(keepends=True)
        starts = [len(content) - sum(map(len, lines))]
        for line in lines:
            starts.append(starts[-1] + len(line))
        return cls(lines, starts, encoding)

    @property
    def first(self) -> int:
        """The first byte after a byte order mark."""
        return self.starts[0]

    @property
    def about(self) -> dict[str, Any]:
        return {} if self.encoding == "utf-8" else {"encoding": self.encoding}

    def byte_of(self, line: int) -> int:
        return self.starts[line]


def _encoding(content: bytes, *, is_head: bool = False) -> str | None:
    """utf-8, or latin-1 where that gives no control characters. A head may end inside a character."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(content, final=not is_head)
    except UnicodeDecodeError:
        return None if _CONTROLS.search(content.decode("latin-1")) else "latin-1"
    return None if b"\x00" in content else "utf-8"


def _is_text(content: bytes) -> bool:
    head = content[:_HEAD]
    return bool(head.strip()) and _encoding(head, is_head=len(content) >= _HEAD) is not None


def _is_prose(content: bytes) -> bool:
    head = content[:_HEAD].removeprefix(_BOM).decode("utf-8", "replace")
    return _is_text(content) and _JSON.match(head) is None


def _ending(name: str) -> str:
    path = PurePosixPath(name.lower())
    return PurePosixPath(path.stem).suffix if path.suffix in _COMPRESSED else path.suffix


def _has_words(lines: list[str]) -> bool:
    return any(line.strip() for line in lines)


def _metadata(about: dict[str, Any], **counts: int) -> str | None:
    return values.json_text({k: v for k, v in about.items() if v not in (None, {})} | counts)


def _stated(fields: dict[str, Any], *names: str) -> str | None:
    """The first of some fields that says something, whichever way it is capitalised."""
    lowered = {name.lower(): value for name, value in reversed(fields.items())}
    said = (values.text(lowered.get(name)) for name in names)
    return next((words.strip() for words in said if words and words.strip()), None)


def _first_of(found: list[Heading]) -> str | None:
    return next((each.words for each in found if each.level == 1 and each.words), None)


def _sections(found: list[Heading], begin: int, end: int) -> Iterator[tuple[int, int, int, str | None]]:
    """(first line, line after it, first line below the heading, heading path) of each section."""
    ends = [each.first for each in found[1:]] + [end]
    yield begin, found[0].first if found else end, begin, None
    path: list[Heading] = []
    for heading, after in zip(found, ends, strict=bool(found)):
        path = [*(above for above in path if above.level < heading.level), heading]
        words = " > ".join(each.words for each in path if each.words)
        yield heading.first, after, heading.end, words or None


def _cut(content: bytes, first: int) -> Iterator[tuple[int, int]]:
    """Stretches of at most a MiB: up to a blank line, else a line's end, else a space, else a character's."""
    while len(content) - first > _LONGEST:
        window = content[first : first + _LONGEST]
        blank = max((found.end() for found in _BLANK_LINE.finditer(window)), default=0)
        cut = blank or window.rfind(b"\n") + 1 or window.rfind(b" ") + 1 or _LONGEST
        while 0xC0 > content[first + cut] >= 0x80:  # inside a character of UTF-8
            cut -= 1
        yield first, first + cut
        first += cut
    yield first, len(content)


def _definitions(source: str) -> list[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef] | None:
    """The functions and classes at a module's top level; None where it is no Python that we know."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a source's own odd escapes
            body = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return [node for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)]
