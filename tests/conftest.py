"""One Ray session for the whole run, a lake per test, and real data where there is some."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from infra.runtime import Runtime
from infra.settings import Settings, prepare_environment, settings_from_environment, test_data_folder

prepare_environment()


@pytest.fixture(scope="session")
def ray_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Ray, started once by the first test that needs it."""
    lake = tmp_path_factory.mktemp("session")
    with Runtime(settings_from_environment(str(lake)), num_cpus=2) as runtime:
        runtime.ray()
        yield


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """An empty lake."""
    return settings_from_environment(str(tmp_path / "lake"))


@pytest.fixture
def runtime(settings: Settings, ray_session: None) -> Runtime:
    """A runtime on an empty lake, within the shared Ray session."""
    return Runtime(settings)


@pytest.fixture
def toys() -> SimpleNamespace:
    """Small inputs: toys.write_lines, toys.exchange, toys.lesson."""
    return SimpleNamespace(write_lines=write_lines, exchange=exchange, lesson=lesson)


@pytest.fixture
def data() -> Path:
    """The folder of real data."""
    folder = test_data_folder()
    if not folder.is_dir():
        pytest.skip(f"real data is not at {folder}; name its folder in STEMMA_TEST_DATA")
    return folder


def write_lines(path: Path, lines: Sequence[bytes | dict[str, Any]]) -> Path:
    """A file of JSON lines; bytes are taken as they are."""
    encoded = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    path.write_bytes(b"".join(line + b"\n" for line in encoded))
    return path


def exchange(
    question: str, answer: str, *, verdict: str = "pass", correction: str | None = None
) -> dict[str, Any]:
    """One logged and judged exchange."""
    record: dict[str, Any] = {
        "id": f"chatcmpl-{question}",
        "request": {
            "model": "router",
            "messages": [{"role": "user", "content": question}],
            "metadata": {"prompt_name": "router", "prompt_version": "1"},
        },
        "response": {
            "model": "router@1",
            "created": 1_760_000_000,
            "choices": [{"message": {"role": "assistant", "content": answer}, "finish_reason": "stop"}],
        },
        "verdict": {
            "value": verdict,
            "judge": "exact-match",
            "judge_version": "1",
            "score": 1.0 if verdict == "pass" else 0.0,
            "threshold": 0.5,
        },
    }
    if correction is not None:
        record["review"] = {"reviewer": "ann", "correction": correction}
    return record


def lesson(question: str, answer: str) -> dict[str, Any]:
    """One supervised line."""
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}
