"""Every format, held to its golden example; and the catalogue that is made of these examples."""

from __future__ import annotations

import pytest

from pipelines.formats_catalogue import catalogue
from tests.conformance import FORMATS, Golden, ReaderConformance, every_golden

GOLDEN = every_golden()


class TestFormats(ReaderConformance):
    @pytest.fixture(params=GOLDEN, ids=lambda golden: golden.name)
    def golden(self, request: pytest.FixtureRequest) -> Golden:
        return request.param


def test_every_format_has_its_golden_folder_and_every_folder_its_format():
    assert len(GOLDEN) == 21
    assert sorted(each.name for each in GOLDEN) == sorted(folder.name for folder in FORMATS.iterdir())


def test_the_catalogue_of_formats_is_up_to_date():
    written = (FORMATS.parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")
    assert written == catalogue(), "run: make docs"
