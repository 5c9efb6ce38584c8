from __future__ import annotations

from typing import Any

import pytest

from pipelines.readers import Unreadable
from pipelines.readers.openai_preferences import OpenAIPreferences

READER = OpenAIPreferences()
ASKED = {"messages": [{"role": "user", "content": "2 + 2?"}]}


def said(words: str, role: str = "assistant") -> list[dict[str, Any]]:
    return [{"role": role, "content": words}]


@pytest.mark.parametrize("noun", ["output", "completion"])
def test_the_preferred_answer_corrects_the_other(noun: str):
    record = {"input": ASKED, f"preferred_{noun}": said("4"), f"non_preferred_{noun}": said("5")}
    rows = READER.read(record)
    assert [(row["response"], row["verdict"], row.get("correction")) for row in rows] == [
        ("4", "pass", None),
        ("5", "fail", "4"),
    ]
    assert all("generator" not in row for row in rows)  # the line does not say who wrote them


def test_an_output_must_end_in_an_answer():
    record = {"input": ASKED, "preferred_output": said("4", "user"), "non_preferred_output": said("5")}
    with pytest.raises(Unreadable, match="no_answer"):
        READER.read(record)
