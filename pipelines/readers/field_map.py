"""Records of any shape, JSON or a table's, read by a map from our columns to their fields.

[map]                      # column = path into the record, dots between keys
input = "question"
response = "{key}.solution"
verdict = "{key}.is_correct"
correction = "ground_truth"
[constant]                 # column = value for every row
scorer = "exact-match"
[for_each]                 # one row per key that the record has; {key} stands for it in the map
keys = ["6b_finetuning", "175b_finetuning"]

Before the tables, `empty = "absent"` says that an empty text is no value: so it is in most CSV files.
Numbers and verdicts may be texts: "0.9", "passed". Knowledge is mapped into documents instead:

[document]
text = "body"
title = "heading"
[constant]
language = "en"
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from infra.redaction import without_secrets
from lineage.rows import Fingerprint
from lineage.schemas import DOCUMENT, NOT_APPLICABLE, STATED, TRACE, UNSTATED, TableSpec
from pipelines.readers import Unreadable, values

_TEXT = {"trace_key", "model_requested", "model_answered", "response", "correction", "finish_reason"}
_COLUMNS = {"input", "system", "verdict"} | _TEXT | set(STATED)
_OF_DOCUMENTS = {"kind", "title", "section", "text", "language"} | set(STATED)
_KINDS = ("markdown", "text", "code")
_NUMBERS = ("score", "threshold")
_JUDGE = ("scorer", "scorer_revision", "threshold")


class FieldMapError(ValueError):
    """A field map that cannot be used; the message says which key and what is allowed."""


def load_map(path: str | Path) -> FieldMap | DocumentMap:
    """Read a map from TOML: into documents where it has a table of that name, else into traces.

    Raises FieldMapError.
    """
    document = _toml(path)
    return DocumentMap.of(document, path) if "document" in document else FieldMap.of(document, path)


@dataclass(frozen=True)
class FieldMap:
    """Reads records by a map. Tuples instead of dicts, so that it is a value."""

    fields: tuple[tuple[str, str], ...]
    constants: tuple[tuple[str, str | float], ...] = ()
    keys: tuple[str, ...] = ()
    empty_is_absent: bool = False

    writes: ClassVar[TableSpec] = TRACE

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a map from TOML. Raises FieldMapError."""
        return cls.of(_toml(path), path)

    @classmethod
    def of(cls, document: dict[str, Any], path: str | Path) -> Self:
        """The map that a TOML document says. Raises FieldMapError, which names the file."""
        fields, constants = document.pop("map", {}), document.pop("constant", {})
        keys = document.pop("for_each", {}).get("keys", [])
        empty_is_absent = _empty_is_absent(document, path)
        _require_known(sorted(document), fields.keys() | constants.keys(), _COLUMNS, path)
        if "input" not in fields or "response" not in fields:
            raise FieldMapError(f"field map '{path}' must say where 'input' and 'response' are")
        return cls(
            tuple(sorted(fields.items())), tuple(sorted(constants.items())), tuple(keys), empty_is_absent
        )

    @property
    def fingerprint(self) -> Fingerprint:
        """The map is part of the identity: another map makes other rows."""
        parameters = {"map": dict(self.fields), "constant": dict(self.constants), "keys": list(self.keys)}
        return Fingerprint("field_map", 1, parameters | _empty(self.empty_is_absent))

    def recognises(self, record: Mapping[str, Any]) -> str | None:
        """A map is never guessed; it is given."""
        return None

    def read(self, record: Mapping[str, Any]) -> list[dict[str, Any]]:
        """One row, or one per key of `for_each` that the record has."""
        with values.readable():
            if not self.keys:
                return [self._row(record, "")]
            rows = [self._row(record, key) for key in self.keys if key in record]
        if not rows:
            raise Unreadable("no_key", f"the record has none of {list(self.keys)}")
        return rows

    def _row(self, record: Mapping[str, Any], key: str) -> dict[str, Any]:
        found: dict[str, Any] = {
            name: value.replace("{key}", key) if isinstance(value, str) else value
            for name, value in self.constants
        }
        stated = _found(record, self.fields, key, self.empty_is_absent)
        found.update(stated)
        if found.get("input") is None or found.get("response") is None:
            missing = "input" if found.get("input") is None else "response"
            raise Unreadable(
                "missing_field", f"no '{dict(self.fields)[missing].replace('{key}', key)}' in the record"
            )
        unread = {name: found[name] for name in (*_NUMBERS, "verdict") if _is_unread(name, found.get(name))}
        verdict = values.verdict_in(found.pop("verdict", None)) or UNSTATED
        messages = [{"role": "user", "content": values.text(found.pop("input"))}]
        if system := found.pop("system", None):
            messages.insert(0, {"role": "system", "content": values.text(system)})
        rest = _rest(record, self.fields, key)
        rest = {name: value for name, value in rest.items() if name not in self.keys or name == key}
        if unread:
            rest["unread"] = unread
        row: dict[str, Any] = {name: _column(name, value) for name, value in found.items()}
        for name in ("trace_key", "model_requested", "model_answered"):
            row[name] = UNSTATED if row.get(name) is None else row[name]
        if row.get("generator") is None:
            row["generator"] = row["model_answered"]
        if verdict != UNSTATED and row.get("score") is None:
            row["score"], row["threshold"] = (1.0 if verdict == "pass" else 0.0), 0.5
        if row.get("score") is None:  # whoever judges all others did not judge this
            row = {
                name: value
                for name, value in row.items()
                if name not in _JUDGE or stated.get(name) is not None
            }
        if row.get("correction") is not None:
            row.setdefault("review", "none")
            row.setdefault("reviewer", NOT_APPLICABLE)
        return row | {
            "messages": messages,
            "verdict": verdict,
            "extra": values.json_text(without_secrets(rest) or None),
        }


@dataclass(frozen=True)
class DocumentMap:
    """Reads a document per record by a map."""

    fields: tuple[tuple[str, str], ...]
    constants: tuple[tuple[str, str | float], ...] = ()
    empty_is_absent: bool = False

    writes: ClassVar[TableSpec] = DOCUMENT

    @classmethod
    def of(cls, document: dict[str, Any], path: str | Path) -> Self:
        """The map that a TOML document says. Raises FieldMapError, which names the file."""
        fields, constants = document.pop("document", {}), document.pop("constant", {})
        empty_is_absent = _empty_is_absent(document, path)
        _require_known(sorted(document), fields.keys() | constants.keys(), _OF_DOCUMENTS, path)
        if "text" not in fields:
            raise FieldMapError(f"field map '{path}' must say where a document's 'text' is")
        if (kind := constants.get("kind", "text")) not in _KINDS:
            raise FieldMapError(f"field map '{path}' has kind {kind!r}; allowed: {', '.join(_KINDS)}")
        return cls(tuple(sorted(fields.items())), tuple(sorted(constants.items())), empty_is_absent)

    @property
    def fingerprint(self) -> Fingerprint:
        """The map is part of the identity: another map makes other rows."""
        parameters = {"document": dict(self.fields), "constant": dict(self.constants)}
        return Fingerprint("document_map", 1, parameters | _empty(self.empty_is_absent))

    def recognises(self, record: Mapping[str, Any]) -> str | None:
        """A map is never guessed; it is given."""
        return None

    def read(self, record: Mapping[str, Any]) -> list[dict[str, Any]]:
        """One row; fields without a column are kept as metadata."""
        with values.readable():
            return [self._row(record)]

    def _row(self, record: Mapping[str, Any]) -> dict[str, Any]:
        stated = _found(record, self.fields, "", self.empty_is_absent)
        found: dict[str, Any] = {**dict(self.constants), **{k: v for k, v in stated.items() if v is not None}}
        rest = _rest(record, self.fields, "")
        if unread := {name: found[name] for name in _NUMBERS if _is_unread(name, found.get(name))}:
            rest["unread"] = unread
        row = {"kind": "text", "title": UNSTATED, "section": None, "language": UNSTATED}
        row |= {name: _column(name, value) for name, value in found.items()}
        if not (row.get("text") or "").strip():
            raise Unreadable("missing_field", f"no text in '{dict(self.fields)['text']}' of the record")
        if row["kind"] not in _KINDS:
            raise Unreadable(
                "unknown_kind", f"kind {row['kind'][:40]!r}, expected one of {', '.join(_KINDS)}"
            )
        return row | {"metadata": values.json_text(without_secrets(rest) or None)}


def _toml(path: str | Path) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise FieldMapError(f"field map '{path}' cannot be read: {error}") from error


def _empty_is_absent(document: dict[str, Any], path: str | Path) -> bool:
    empty = document.pop("empty", None)
    if empty not in (None, "absent"):
        raise FieldMapError(f"field map '{path}' has empty = {empty!r}; allowed: \"absent\"")
    return empty == "absent"


def _empty(is_absent: bool) -> dict[str, Any]:
    return {"empty": "absent"} if is_absent else {}  # not said where it is not used: older identities stay


def _require_known(tables: list[str], columns: Set[str], allowed: Set[str], path: str | Path) -> None:
    unknown = tables + sorted(columns - allowed)
    if unknown:
        raise FieldMapError(
            f"field map '{path}' has unknown {unknown[0]!r}; allowed: {', '.join(sorted(allowed))}"
        )


def _found(
    record: Mapping[str, Any], fields: tuple[tuple[str, str], ...], key: str, empty_is_absent: bool
) -> dict[str, Any]:
    found = {name: _at(record, path.replace("{key}", key)) for name, path in fields}
    return {name: None if empty_is_absent and value == "" else value for name, value in found.items()}


def _rest(record: Mapping[str, Any], fields: tuple[tuple[str, str], ...], key: str) -> dict[str, Any]:
    """What of the record no path of the map leads to, at any depth."""
    rest: dict[str, Any] = dict(record)
    for _, path in fields:
        *above, last = path.replace("{key}", key).split(".")
        at: Any = rest
        for part in above:
            if not isinstance(at.get(part), Mapping):
                break
            at[part] = dict(at[part])
            at = at[part]
        else:
            at.pop(last, None)
    emptied = {path.replace("{key}", key).partition(".")[0] for _, path in fields}
    return {name: value for name, value in rest.items() if value != {} or name not in emptied}


def _column(name: str, value: Any) -> str | float | None:
    return values.number_in(value) if name in _NUMBERS else values.text(value)


def _is_unread(name: str, value: Any) -> bool:
    """Whether a value says something that no number or verdict can be made of."""
    if value is None or value in ("", UNSTATED):
        return False
    return (values.verdict_in(value) if name == "verdict" else values.number_in(value)) is None


def _at(record: Any, path: str) -> Any:
    for part in path.split("."):
        if not isinstance(record, Mapping) or part not in record:
            return None
        record = record[part]
    return record
