"""The reader of Claude Code's sessions: which branches there are, and what each of them tells."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from pipelines.readers import Part
from pipelines.readers.claude_code import ClaudeCode


def test_a_session_without_forks_is_one_row_however_many_answers_it_has():
    session = [user("u0", None, "Count")]
    for n in range(1, 200):
        session += [answer(f"a{n}", f"u{n - 1}", text=f"<{n}>"), user(f"u{n}", f"a{n}", "On")]
    content = document(session)
    (part,) = ClaudeCode().read_document("x", content)
    (row,) = part.rows
    assert row["response"] == "<199>"
    assert len(row["messages"]) == 397
    told = json.dumps(row, default=str)
    assert all(told.count(f"<{n}>") == 1 for n in range(1, 200))
    assert (part.first, part.end) == (0, len(content))


def test_lines_of_one_answer_are_one_message_with_the_last_lines_tokens():
    first = answer("a1", "u1", text="I ", identity="m", tokens=1)
    second = answer("a2", "a1", text="look.", identity="m", tokens=9)
    (row,) = rows(document([user("u1", None, "Look"), first, second]))
    assert (row["response"], row["output_tokens"], row["trace_key"]) == ("I look.", 9, "s/a2")


def test_results_of_calls_made_at_once_follow_their_answer_although_only_one_leads_on():
    session = [
        user("u1", None, "Look"),
        answer("a1", "u1", calls=["t1"], identity="m"),
        answer("a2", "a1", calls=["t2"], identity="m"),
        result("r1", "a1", "t1", "one"),
        result("r2", "a2", "t2", "two"),
        answer("a3", "r2", text="Both seen."),
    ]
    (row,) = rows(document(session))
    assert [message["content"] for message in row["messages"]] == ["Look", None, "one", "two"]
    assert "unanswered" not in json.loads(row["extra"])


def test_a_question_asked_anew_is_a_second_branch_from_the_same_root():
    session = [
        user("u1", None, "Hello"),
        answer("a1", "u1", text="Hi"),
        user("u2", "a1", "Red?"),
        answer("a2", "u2", text="Red."),
        user("u3", "a1", "Blue?"),
        answer("a3", "u3", text="Blue."),
    ]
    found = rows(document(session))
    assert [[m["content"] for m in row["messages"]] for row in found] == [
        ["Hello", "Hi", "Red?"],
        ["Hello", "Hi", "Blue?"],
    ]
    assert [row["trace_key"] for row in found] == ["s/a2", "s/a3"]


def test_what_follows_a_compaction_begins_with_the_summary():
    session = [
        user("u1", None, "Hello"),
        answer("a1", "u1", text="Hi"),
        line("b", None, type="system", subtype="compact_boundary", logicalParentUuid="a1"),
        user("c", "b", "So far: greetings.") | {"isCompactSummary": True},
        answer("a2", "c", text="Go on."),
    ]
    before, after = rows(document(session))
    assert before["response"] == "Hi"
    assert [message["content"] for message in after["messages"]] == ["So far: greetings."]
    assert json.loads(after["extra"])["branch"] == {"begins": "compaction", "root": "b", "follows": "a1"}


def test_a_side_chain_is_a_branch_of_its_own_even_where_it_names_a_parent():
    side = [user("s1", "a1", "Find"), answer("s2", "s1", text="None.")]
    session = [
        user("u1", None, "Look"),
        answer("a1", "u1", calls=["t1"]),
        *[each | {"isSidechain": True, "agentId": "f"} for each in side],
        result("r1", "a1", "t1", "None."),
        answer("a2", "r1", text="Nothing."),
    ]
    chain, main = rows(document(session))
    assert [message["content"] for message in chain["messages"]] == ["Find"]
    assert json.loads(chain["extra"])["branch"]["begins"] == "side_chain"
    assert [message["content"] for message in main["messages"]] == ["Look", None, "None."]


def test_a_line_that_is_no_json_is_unreadable_alone():
    content = b"\n".join(
        [document([user("u1", None, "Hello")]), b'{"cut', document([answer("a1", "u1", text="Hi")])]
    )
    bad, good = ClaudeCode().read_document("x", content)
    assert bad.unreadable is not None
    assert bad.unreadable.reason == "not_json"
    assert content[bad.first : bad.end] == b'{"cut'
    assert [row["response"] for row in good.rows] == ["Hi"]


def test_a_session_in_which_nothing_was_answered_gives_parts_without_rows():
    assert [part.rows for part in ClaudeCode().read_document("x", document([user("u1", None, "/exit")]))] == [
        ()
    ]
    titles = document([{"type": "summary", "summary": "x", "leafUuid": "y"}])
    assert ClaudeCode().read_document("x", titles) == [Part(0, len(titles))]
    assert ClaudeCode().read_document("x", b"\n") == []


def test_an_answer_that_the_agent_made_up_is_none():
    error = answer("e", "u1", text="API Error") | {"isApiErrorMessage": True}
    assert rows(document([user("u1", None, "Hello"), error])) == []


@pytest.mark.data
def test_real_sessions_give_a_row_per_chain(data: Path):
    found: dict[str, list[Part]] = {}
    with tarfile.open(data / "claude_code_sessions" / "sessions.tar.gz") as archive:
        for member in archive:
            if member.isfile() and (file := archive.extractfile(member)) is not None:
                content = file.read()
                assert ClaudeCode().recognises_document(member.name, content[:65536])
                found[member.name.rpartition("/")[2][:4]] = ClaudeCode().read_document(member.name, content)
    assert {name: len(parts) for name, parts in found.items()} == {"1af7": 1, "5c03": 3, "fe5e": 6}
    assert all(part.unreadable is None and len(part.rows) == 1 for parts in found.values() for part in parts)
    (row,) = found["1af7"][0].rows
    assert row["trace_key"] == "1af7fc5e-8455-4414-9ccd-011d40f70b2a/549b3502-6e30-4fa5-869f-c998df26c3f0"
    assert row["model_answered"] == "claude-sonnet-4-20250514"
    # 29 lines are 14 of the user's and 7 answers, the last of which is the response
    assert [message["role"] for message in row["messages"]].count("assistant") == 6
    assert (row["finish_reason"], row["input_tokens"], row["output_tokens"]) == ("end_turn", 5, 72)
    begins = [json.loads(part.rows[0]["extra"])["branch"]["begins"] for part in found["fe5e"]]
    assert begins == ["side_chain"] * 5 + ["session"]


def line(uuid: str, parent: str | None, **fields: Any) -> dict[str, Any]:
    return {"uuid": uuid, "parentUuid": parent, "sessionId": "s", "isSidechain": False} | fields


def user(uuid: str, parent: str | None, content: Any) -> dict[str, Any]:
    return line(uuid, parent, type="user", message={"role": "user", "content": content})


def result(uuid: str, parent: str, call: str, words: str) -> dict[str, Any]:
    return user(uuid, parent, [{"type": "tool_result", "tool_use_id": call, "content": words}])


def answer(
    uuid: str,
    parent: str,
    *,
    text: str = "",
    calls: list[str] | None = None,
    identity: str = "",
    tokens: int = 1,
) -> dict[str, Any]:
    parts: list[dict[str, Any]] = [{"type": "text", "text": text}] if text else []
    parts += [{"type": "tool_use", "id": call, "name": "Read", "input": {}} for call in calls or ()]
    message = {
        "id": identity or f"msg_{uuid}",
        "model": "claude",
        "content": parts,
        "usage": {"output_tokens": tokens},
    }
    return line(uuid, parent, type="assistant", message=message)


def document(lines: list[dict[str, Any]]) -> bytes:
    return "\n".join(json.dumps(each) for each in lines).encode()


def rows(content: bytes) -> list[dict[str, Any]]:
    return [row for part in ClaudeCode().read_document("x", content) for row in part.rows]
