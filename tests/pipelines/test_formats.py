"""Every format, held to its golden example; and the catalogue that is made of these examples."""

from __future__ import annotations

import pytest

from pipelines.formats import FORMATS, UnknownFormat, as_named, recognised
from pipelines.formats_catalogue import catalogue
from tests.conformance import FORMATS as FOLDERS
from tests.conformance import Golden, ReaderConformance, every_golden

GOLDEN = every_golden()


class TestFormats(ReaderConformance):
    @pytest.fixture(params=GOLDEN, ids=lambda golden: golden.name)
    def golden(self, request: pytest.FixtureRequest) -> Golden:
        return request.param


def test_every_format_has_its_golden_folder_and_every_folder_its_format():
    assert len(GOLDEN) == 22
    assert sorted(each.name for each in GOLDEN) == sorted(folder.name for folder in FOLDERS.iterdir())


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"How to begin\n============\n", "it is text .* read from files that end in .md, .* --format text"),
        (b"[[Home]] leads back\n", "it is text"),
        (b'{"cut": \n', "it holds no JSON object"),
        (b"\x00\x01\n", "it holds no JSON object"),
        (b'{"colour": "red"}\n', "its first record has .*colour.* --field-map"),
    ],
)
def test_a_source_in_no_format_is_told_what_was_seen_and_what_would_be_read(content: bytes, sentence: str):
    with pytest.raises(UnknownFormat, match=sentence):
        recognised("file:///notes/README", content)
    assert as_named("file:///notes/README", content, FORMATS["text"]).framing == "document"


def test_the_catalogue_of_formats_is_up_to_date():
    written = (FOLDERS.parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")
    assert written == catalogue(), "run: make docs"
