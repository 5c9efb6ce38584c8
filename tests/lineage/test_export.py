"""What other tools are told of a lake: each event fits OpenLineage's own classes and our facets' schema."""

from __future__ import annotations

import datetime as dt
import inspect
import json
import pkgutil
import threading
import types
import typing
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attr
import pytest
from jsonschema import Draft202012Validator, FormatChecker, ValidationError
from openlineage.client import generated
from openlineage.client.generated.base import RunEvent

import lineage.export
from infra.cli import run
from infra.redaction import HIDDEN, redacted
from infra.runtime import Runtime
from infra.settings import Settings
from lineage import models, tables
from lineage.bans import recalls
from lineage.export.endpoint import send
from lineage.export.selection import ExportError
from lineage.recall import recall
from lineage.runs import Outcome, Run, carry_out
from lineage.schemas import EXAMPLE, RUN
from lineage.selectors import Selector

Event = dict[str, Any]
OURS = json.loads(Path(lineage.export.__path__[0], "openlineage-facets-1-0-0.json").read_text())
FORMATS = {"runId": "uuid", "eventTime": "date-time", "url": "uri"} | dict.fromkeys(
    ("producer", "schemaURL", "_producer", "_schemaURL"), "uri"
)
formats = FormatChecker(["uuid"])


@formats.checks("date-time", raises=ValueError)
def _is_time(value: object) -> bool:
    return "T" in str(value) and dt.datetime.fromisoformat(str(value)).tzinfo is not None


@formats.checks("uri", raises=ValueError)
def _is_uri(value: object) -> bool:
    return bool(urlsplit(str(value)).scheme) and " " not in str(value)


def facet_classes() -> dict[str, type]:
    """Schema URL -> the class that OpenLineage generates from it."""
    found = {}
    for module in pkgutil.iter_modules(generated.__path__):
        for _, each in inspect.getmembers(import_module(f"{generated.__name__}.{module.name}"), attr.has):
            if hasattr(each, "_get_schema"):
                found[each._get_schema()] = each
    return found


def schema_of(kind: Any, within: tuple[Any, ...] = ()) -> dict[str, Any]:
    """A type of OpenLineage's generated code as JSON Schema; nothing that it does not name is allowed."""
    if kind in within:  # fields have fields: one level is judged
        return {}
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [schema_of(each, within) for each in inside if each is not type(None)]}
    if origin is list:
        return {"type": "array", "items": schema_of(inside[0], within)}
    if origin is dict:  # facets by name: judged one by one
        return {"type": "object"}
    if inspect.isclass(kind) and issubclass(kind, Enum):
        return {"enum": [each.value for each in kind]}
    if attr.has(kind):
        hints = typing.get_type_hints(kind)
        fields = attr.fields(kind)
        needed = [each.name for each in fields if each.default is attr.NOTHING]
        return {
            "type": "object",
            "properties": {
                each.name: schema_of(hints[each.name], (*within, kind))
                | ({"format": FORMATS[each.name]} if each.name in FORMATS else {})
                for each in fields
            },
            "required": needed + [name for name in FORMATS if name in attr.fields_dict(kind)],
            "additionalProperties": False,
        }
    return {"type": {str: "string", int: "integer", bool: "boolean", float: "number"}[kind]}


CLASSES = facet_classes()
EVENT = schema_of(RunEvent)


def check(event: Event) -> None:
    """Raise ValidationError unless the event and each of its facets are what their schemas say."""
    _validate(event, EVENT)
    holders = [(event["run"]["facets"], "RunFacet"), (event["job"]["facets"], "JobFacet")]
    for dataset in event["inputs"] + event["outputs"]:
        holders.append((dataset["facets"], "DatasetFacet"))
        holders.append((dataset.get("outputFacets", {}), "OutputDatasetFacet"))
    for facets, base in holders:
        for name, facet in facets.items():
            url = facet["_schemaURL"]
            if url.startswith(OURS["$id"]):
                assert name.startswith("stemma_")
                assert url.endswith(base)
                _validate(facet, OURS | {"$ref": url.removeprefix(OURS["$id"])})
            else:
                assert base in {each.__name__ for each in CLASSES[url].__mro__}, f"{name} is no {base}"
                _validate(facet, schema_of(CLASSES[url]))


def _validate(value: Any, schema: dict[str, Any]) -> None:
    Draft202012Validator(schema, format_checker=formats).validate(value)


def exported(settings: Settings, *words: str, to: Path) -> list[Event]:
    assert run("export", [*words, "--lake", settings.lake, "--out", str(to)]) == 0
    return [json.loads(line) for line in to.read_text().splitlines()]


@pytest.fixture(scope="module")
def lived(trained_lake, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The trained lake after a recall and a job that failed in its part."""
    settings = trained_lake.copied(tmp_path_factory.mktemp("export") / "lake")
    runtime = Runtime(settings)
    reached = tables.read(settings, EXAMPLE).filter(
        tables.read(settings, EXAMPLE)["split"].to_numpy() == "train"
    )
    recall(runtime, Selector(rows=(reached["row_id"][0].as_py().hex(),)), reason="wrong", anyway=True)

    def fail(run: Run) -> Outcome:
        carry_out(runtime, "part", config={}, inputs=[], work=_raise, parent=run)
        return Outcome()

    with pytest.raises(OSError, match="s3://"):
        carry_out(
            runtime, "whole", config=SECRETS, inputs=["s3://me:pass-1@bucket/a.jsonl#sha256:0"], work=fail
        )
    return settings


SECRETS = {
    "uri": "postgresql://me:pass-2@host/db",
    "storage": {"aws_secret_access_key": "pass-3", "region": "eu", "AccountKey": "pass-4"},
    "note": "AccountKey=pass-5;Endpoint=x",
    "max_tokens": 7,
    "pad_token": "pass-6",
}


def _raise(run: Run) -> Outcome:
    raise OSError("cannot read s3://me:pass-7@bucket/a?sig=pass-8&x=1")


def test_every_event_of_a_lake_fits_the_specification(lived: Settings, tmp_path: Path):
    events = exported(lived, to=tmp_path / "all.ndjson")
    stored = tables.read(lived, RUN)
    assert len(events) == stored.num_rows > 20
    for event in events:
        check(event)
    jobs = {event["job"]["name"] for event in events}
    assert jobs >= {"ingest", "gate", "curate", "curriculum", "finetune", "evaluate", "promote", "recall"}
    assert [event["eventTime"] for event in events] == sorted(event["eventTime"] for event in events)
    assert {event["eventType"] for event in events} == {"START", "COMPLETE", "FAIL"}
    assert len({event["run"]["runId"] for event in events}) == len(set(stored["run_id"].to_pylist()))


def test_the_check_finds_what_does_not_fit(lived: Settings, tmp_path: Path):
    def broken(change: Callable[[Event], Any]) -> None:
        event = json.loads(json.dumps(sound))
        change(event)
        with pytest.raises((ValidationError, AssertionError, KeyError)):
            check(event)

    sound = exported(lived, to=tmp_path / "all.ndjson")[1]
    check(sound)
    broken(lambda event: event["run"].update(runId="07b7a50ee1cb3aed-1"))
    broken(lambda event: event.update(eventTime="2026-01-01 00:00:00"))
    broken(lambda event: event.update(eventType="DONE"))
    broken(lambda event: event.update(producer="no uri"))
    broken(lambda event: event["job"].pop("namespace"))
    broken(lambda event: event["outputs"][0]["facets"]["version"].update(datasetVersion=7))
    broken(lambda event: event["run"]["facets"]["stemma_agent"].pop("_producer"))
    broken(lambda event: event["run"]["facets"]["stemma_counts"]["counts"].update(out="7"))


def test_what_one_run_writes_the_next_one_reads_under_the_same_name(lived: Settings, tmp_path: Path):
    events = exported(lived, to=tmp_path / "all.ndjson")

    def names(job: str, side: str) -> set[tuple[str, str]]:
        ended = [e for e in events if e["job"]["name"] == job and e["eventType"] == "COMPLETE"]
        return {(each["namespace"], each["name"]) for event in ended for each in event[side]}

    path = (
        ("ingest", "curate"),
        ("curate", "curriculum"),
        ("curriculum", "finetune"),
        ("finetune", "evaluate"),
    )
    for first, second in path:
        assert names(first, "outputs") & names(second, "inputs"), f"{first} -> {second}"
    assert (
        names("recall", "inputs")
        == names("recall", "outputs")
        == {
            (f"file://{lived.lake}", "traces"),
            (f"file://{lived.lake}", "examples"),
        }
        & names("recall", "outputs")
    )
    assert (f"file://{lived.lake}", "models/router") in names("promote", "outputs")
    assert {namespace for namespace, _ in names("ingest", "inputs")} == {"file"}


def test_rows_are_counted_as_they_were_stored(lived: Settings, tmp_path: Path):
    counted = 0
    for event in exported(lived, to=tmp_path / "all.ndjson"):
        for dataset in event["outputs"]:
            if "outputStatistics" in dataset["outputFacets"] and dataset["name"] in ("traces", "examples"):
                version = f"{dataset['name']}@{dataset['facets']['version']['datasetVersion']}"
                stored = tables.read_batch(lived, tables.resolve(lived, version))
                assert dataset["outputFacets"]["outputStatistics"]["rowCount"] == stored.num_rows
                counted += 1
    assert counted == 4


def test_a_trained_model_says_what_it_ate_and_which_recall_took_some_of_it_back(
    lived: Settings, tmp_path: Path
):
    events = exported(lived, to=tmp_path / "all.ndjson")
    (trained,) = (e for e in events if (e["job"]["name"], e["eventType"]) == ("finetune", "COMPLETE"))
    provenance = trained["run"]["facets"]["stemma_provenance"]
    checkpoint = models.resolve(lived, "router@1")[0]
    assert provenance["curriculum"] == checkpoint.curriculum
    assert sum(provenance["slices"].values()) == trained["run"]["facets"]["stemma_counts"]["counts"]["rows"]
    assert provenance["recalled_by"] == {recalls(lived)[0].id: 1}
    model = trained["outputs"][0]["facets"]["stemma_model"]
    assert (model["adapter_digest"], model["registered_as"]) == (checkpoint.adapter_digest, ["router@1"])


def test_a_part_names_its_whole_and_a_failure_its_error(lived: Settings, tmp_path: Path):
    events = exported(lived, to=tmp_path / "all.ndjson")
    (part,) = (e for e in events if (e["job"]["name"], e["eventType"]) == ("part", "FAIL"))
    (whole,) = (e for e in events if (e["job"]["name"], e["eventType"]) == ("whole", "FAIL"))
    parent = part["run"]["facets"]["parent"]
    assert (parent["run"]["runId"], parent["job"]["name"]) == (whole["run"]["runId"], "whole")
    assert "cannot read s3://bucket/a" in part["run"]["facets"]["errorMessage"]["message"]
    chosen = exported(
        lived, whole["run"]["facets"]["stemma_provenance"]["run_id"], to=tmp_path / "one.ndjson"
    )
    assert [(e["job"]["name"], e["eventType"]) for e in chosen] == [
        ("whole", "START"),
        ("part", "START"),
        ("part", "FAIL"),
        ("whole", "FAIL"),
    ]


def test_no_secret_leaves_the_lake(lived: Settings, tmp_path: Path):
    exported(lived, to=tmp_path / "all.ndjson")
    told = (tmp_path / "all.ndjson").read_text()
    assert "pass-" not in told
    assert '"max_tokens": 7' in told
    assert '"region": "eu"' in told
    assert redacted("https://x/y?X-Amz-Signature=abc&z=1") == f"https://x/y?X-Amz-Signature={HIDDEN}&z=1"
    assert redacted("Authorization: Bearer abcdefgh1234") == f"Authorization: Bearer {HIDDEN}"
    assert redacted("10 tokens: 3, n_tokens=4; mail ann@example.org") == (
        "10 tokens: 3, n_tokens=4; mail ann@example.org"
    )


def test_a_second_export_says_the_same_and_so_does_a_lake_that_was_moved(lived: Settings, tmp_path: Path):
    first = exported(lived, to=tmp_path / "1.ndjson")
    assert exported(lived, to=tmp_path / "2.ndjson") == first
    moved = Path(lived.lake).rename(Path(lived.lake).with_name("moved"))
    try:
        again = exported(Settings(str(moved), ""), to=tmp_path / "3.ndjson")
    finally:
        moved.rename(lived.lake)
    assert [event["run"]["runId"] for event in again] == [event["run"]["runId"] for event in first]


def test_a_model_comes_with_all_that_it_rests_on_and_nothing_else(lived: Settings, tmp_path: Path):
    events = exported(lived, "router@1", to=tmp_path / "model.ndjson")
    jobs = {event["job"]["name"] for event in events}
    assert jobs == {"ingest", "gate", "curate", "curriculum", "finetune", "evaluate", "promote"}


def test_what_cannot_be_exported_is_one_sentence(
    lived: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "mine").write_text("mine")
    for words, sentence in {
        ("nonsense",): "is no model",
        ("all", "--out", str(tmp_path / "mine")): "exists; nothing is written over",
        ("all", "--out", "x", "--url", "http://h"): "choose one",
        ("all", "--url", "ftp://host/x"): "is no endpoint",
        ("all", "--url", "http://me:pass@host/x"): "holds a password",
        ("all", "--url", "http://127.0.0.1:1/x"): "cannot be reached",
        ("all", "--format", "croissant"): "--format 'croissant' is not known; expected openlineage",
    }.items():
        assert run("export", [*words, "--lake", lived.lake]) == 2
        said = capsys.readouterr()
        assert sentence in said.err
        assert said.err.count("\n") == 1
        assert "me:pass" not in said.err
    assert (tmp_path / "mine").read_text() == "mine"


class Endpoint(ThreadingHTTPServer):
    """Takes events that fit, and answers as it is told to."""

    daemon_threads = True

    def __init__(self, answers: Callable[[int], int]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers, self.asked = answers, 0
        self.taken: list[Event] = []
        self.keys: set[str | None] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/api/v1/lineage"


class _Handler(BaseHTTPRequestHandler):
    server: Endpoint  # pyright: ignore

    def do_POST(self) -> None:
        event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key = self.headers["Authorization"]
        self.server.keys.add(key)
        self.server.asked += 1
        status = self.server.answers(self.server.asked)
        try:
            check(event)
        except (ValidationError, AssertionError, KeyError):
            status = 422
        if status == 201:
            self.server.taken.append(event)
        self.send_response(status)
        if status == 302:
            self.send_header("Location", self.server.url)
        self.end_headers()
        self.wfile.write(f"as {key} you may not".encode())

    def log_message(self, *_: Any) -> None:
        """Nothing to the test's output."""


@pytest.fixture
def endpoint() -> Callable[..., AbstractContextManager[Endpoint]]:
    @contextmanager
    def listening(answers: Callable[[int], int] = lambda asked: 201) -> Iterator[Endpoint]:
        with Endpoint(answers) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield server
            server.shutdown()

    return listening


def test_an_endpoint_takes_every_event_in_order_with_the_key(
    lived: Settings,
    endpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setenv("OPENLINEAGE_API_KEY", "key-of-mine")
    with endpoint() as server:
        assert run("export", ["--lake", lived.lake, "--url", server.url]) == 0
    assert server.taken == exported(lived, to=tmp_path / "all.ndjson")
    assert server.keys == {"Bearer key-of-mine"}
    assert capsys.readouterr().out.startswith(f"{len(server.taken)} events taken\n")


def test_an_endpoint_that_refuses_halfway_is_one_sentence_with_what_was_sent(
    lived: Settings, endpoint, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("OPENLINEAGE_API_KEY", "key-of-mine")
    with endpoint(lambda asked: 201 if asked <= 3 else 401) as server:
        assert run("export", ["--lake", lived.lake, "--url", server.url]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert f"{server.url} did not take event 4 of " in said.err
    assert "HTTP 401" in said.err
    assert "3 were sent" in said.err
    assert "key-of-mine" not in said.err
    assert (len(server.taken), server.asked) == (3, 4)


@pytest.mark.parametrize(("status", "asked"), [(503, 4), (500, 4), (400, 1), (302, 1)])
def test_only_what_another_try_may_help_is_tried_again(
    status: int, asked: int, endpoint, lived: Settings, tmp_path: Path
):
    events = exported(lived, to=tmp_path / "all.ndjson")[:2]
    waited: list[float] = []
    with endpoint(lambda asked: status) as server:
        with pytest.raises(ExportError, match=f"HTTP {status}.*0 were sent"):
            send(events, to=server.url, wait=waited.append)
        assert server.asked == asked
    assert waited == sorted(waited)
    assert len(waited) == asked - 1
    with endpoint(lambda asked: status if asked == 1 and status >= 500 else 201) as server:
        send(events, to=server.url, wait=waited.append)
        assert server.taken == events
