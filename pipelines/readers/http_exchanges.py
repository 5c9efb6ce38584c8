"""Recorded HTTP exchanges with model servers, such as a proxy's log or the cassettes of a test suite.

{"request": {"method", "uri", "headers", "body"}, "response": {"status": {"code"}, "headers", "body"}}

A body is JSON, JSON as text, server-sent events or JSON lines. The provider is seen from the bodies:
_requests.py and _answers.py; _streams.py puts pieces together.

Embeddings, images, guardrails, lists of models and predictions that were only started answer nothing in
words: they give no row. A call that was refused (4xx, 5xx, or an error in place of the answer) is a row
without a response.

Credentials are never stored: headers that may hold one are left out, and of a URI's query all but what is
known to be harmless. extra["shortened"] names them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlsplit

from infra.redaction import redacted, without_credentials
from lineage.rows import Fingerprint
from lineage.schemas import TRACE, UNSTATED, TableSpec
from pipelines.readers import Unreadable, values
from pipelines.readers._answers import Answer, answer
from pipelines.readers._requests import Asked, asked
from pipelines.readers._streams import body_of, events_of

_HELD_BACK = re.compile(r"auth|cookie|token|secret|key|credential|signature|password|session", re.IGNORECASE)
_HARMLESS = {"alt", "$alt", "api-version", "beta", "version"}  # of a query; any other may be a key
_WORDLESS = re.compile(r"/(embed|images?|audio|moderations?|rerank|classify|files?|tokenize)", re.IGNORECASE)
_IN_WORDS = re.compile(r"/(responses|text|text_stream)/?$")  # whose 'input' is a prompt


@dataclass(frozen=True)
class HttpExchanges:
    """Reads an exchange each."""

    writes: ClassVar[TableSpec] = TRACE

    @property
    def fingerprint(self) -> Fingerprint:
        """The reader's identity."""
        return Fingerprint("http_exchange", 1, {})

    def recognises(self, record: Mapping[str, Any]) -> str | None:
        """A request with a URI, a response with a status."""
        request, response = record.get("request"), record.get("response")
        if not isinstance(request, Mapping) or not isinstance(response, Mapping):
            return None
        is_http = isinstance(_uri(request), str) and ("status" in response or "status_code" in response)
        return "'request' with a URI, 'response' with a status" if is_http else None

    def read(self, record: Mapping[str, Any]) -> list[dict[str, Any]]:
        """One row; none where nothing was put to a model."""
        with values.readable():
            return _read(record)


def _read(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    request, response = record.get("request"), record.get("response")
    if not isinstance(request, Mapping) or not isinstance(response, Mapping):
        raise Unreadable("no_exchange", f"found keys {sorted(record)[:8]}, expected 'request' and 'response'")
    uri = _uri(request)
    if not isinstance(uri, str):
        raise Unreadable("no_uri", "the request has no 'uri', expected where it was sent")
    if _WORDLESS.search(_path(uri)):
        return []
    sent = _events(request)
    question = asked(body_of(sent), _path(uri)) if sent else None
    if question is None:
        return []
    received = _events(response)
    body = body_of(received) if received else {}
    found = None if _status(response) >= 400 else answer(body)
    if found is None:
        if question.is_input and not _IN_WORDS.search(_path(uri)):
            return []
        if _status(response) < 400 and not body.get("error"):
            raise Unreadable("unknown_answer", f"the body has {sorted(body)[:8]}, as no provider answers")
        error = body["error"] if body.keys() == {"error"} else body
        found = Answer(finish_reason="error", rest={"error": values.by_reference(error)})
    return [_row(record, question, found, pieces=len(received))]


def _row(record: Mapping[str, Any], question: Asked, found: Answer, *, pieces: int) -> dict[str, Any]:
    request, response = values.object_in(record, "request"), values.object_in(record, "response")
    shortened = [f"response.body: {pieces} pieces of a stream, put together"] if pieces > 1 else []
    http = {
        **_without_secrets(request, "request", shortened),
        **{f"response_{name}": v for name, v in _without_secrets(response, "response", shortened).items()},
    }
    return {
        **found.columns(),
        "trace_key": found.key or _key(record),
        "model_requested": question.model or UNSTATED,
        "messages": question.messages,
        "verdict": UNSTATED,
        "extra": values.extra_of(
            **{name: value for name, value in found.rest.items() if value},
            request={name: _unless_secret(name, value) for name, value in question.rest.items()},
            http=http,
            record=redacted(values.without(record, {"request", "response"})),
            shortened=sorted(shortened),
        ),
    }


def _unless_secret(name: str, value: Any) -> Any:
    """Some clients send their key as a field of the body; texts deeper in it, such as a tool's, stay."""
    return next(iter(redacted({name: value}).values())) if isinstance(value, str) else value


def _key(record: Mapping[str, Any]) -> str:
    """Where the server gave no id: the record's own, or its place in the recording it was taken from."""
    if record.get("id") is not None:
        return values.text(record["id"]) or UNSTATED
    path, number = record.get("source_path"), record.get("interaction")
    return (
        f"{values.text(path)}#{values.text(number)}" if path is not None and number is not None else UNSTATED
    )


def _without_secrets(side: Mapping[str, Any], name: str, shortened: list[str]) -> dict[str, Any]:
    """What was said of one side besides its body; what was held back is named in `shortened`."""
    told = values.without(side, {"body", "headers", "uri", "url"})
    if isinstance(uri := _uri(side), str):
        told["uri"] = redacted(without_credentials(uri))
        if query := urlsplit(uri).query if _is_uri(uri) else "":
            pairs = dict(parse_qsl(query, keep_blank_values=True))
            told["query"] = {key: value for key, value in pairs.items() if key in _HARMLESS}
            if held_back := ", ".join(sorted(pairs.keys() - _HARMLESS)):
                shortened.append(f"{name}.uri: query ({held_back})")
    headers = side.get("headers")
    if isinstance(headers, Mapping):
        shortened += [f"{name}.headers: {key}" for key in headers if _HELD_BACK.search(key)]
        told["headers"] = {key: value for key, value in headers.items() if not _HELD_BACK.search(key)}
    elif headers is not None:
        shortened.append(f"{name}.headers")  # of no shape in which a credential could be told
    return redacted(values.by_reference(told))


def _events(side: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The JSON objects of a side's body: one, or a stream's; none where it has no body."""
    body = side.get("body")
    if isinstance(body, Mapping) and isinstance(body.get("string"), str):  # as VCR writes it
        body = body["string"]
    if isinstance(body, str):
        try:
            return events_of(body) if body.strip() else []
        except Unreadable:
            if _status(side) >= 400:  # a proxy's page
                return [{"body": body}]
            raise
    found = body if isinstance(body, list) else [body]
    return [event for event in found if isinstance(event, Mapping)]


def _status(response: Mapping[str, Any]) -> int:
    status = response.get("status", response.get("status_code"))
    code = status.get("code") if isinstance(status, Mapping) else status
    return values.count(code) or 0


def _uri(request: Mapping[str, Any]) -> Any:
    return request.get("uri", request.get("url"))


def _is_uri(uri: str) -> bool:
    try:
        return bool(urlsplit(uri))
    except ValueError:
        return False


def _path(uri: str) -> str:
    return urlsplit(uri).path if _is_uri(uri) else uri
