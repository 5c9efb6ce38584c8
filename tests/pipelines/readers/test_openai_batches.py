from __future__ import annotations

import json
from typing import Any

import pytest

from pipelines.readers import Unreadable
from pipelines.readers.openai_batches import OpenAIBatches

READER = OpenAIBatches()


def line(body: Any, status: int = 200) -> dict[str, Any]:
    return {"id": "b", "custom_id": "q-1", "response": {"status_code": status, "body": body}, "error": None}


def test_an_answer_is_found_by_its_custom_id():
    body = {"id": "c", "model": "m", "choices": [{"message": {"content": "hi"}}]}
    (row,) = READER.read(line(body))
    assert (row["trace_key"], row["response"], row["generator"]) == ("q-1", "hi", "m")
    assert row["messages"] == []  # the requests lie in another file
    assert json.loads(row["extra"])["answer_id"] == "c"


@pytest.mark.parametrize(
    "record",
    [
        line({"error": {"code": "too_long"}}, status=400),
        {"custom_id": "q-1", "response": None, "error": {"code": "too_long"}},
    ],
)
def test_a_line_that_failed_is_a_row_without_a_response(record: dict[str, Any]):
    (row,) = READER.read(record)
    assert (row["response"], row["finish_reason"], row["model_answered"]) == (None, "error", "unstated")
    assert "too_long" in row["extra"]


def test_embeddings_are_no_rows_and_an_unknown_body_has_a_reason():
    assert READER.read(line({"object": "list", "data": [{"embedding": [0.1]}]})) == []
    with pytest.raises(Unreadable, match="unknown_answer"):
        READER.read(line({"weather": "clear"}))
