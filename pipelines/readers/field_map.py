"""Any JSON lines, read by a map from our columns to their fields.

[map]                      # column = path into the record, dots between keys
input = "question"
response = "{key}.solution"
verdict = "{key}.is_correct"
correction = "ground_truth"
[constant]                 # column = value for every row
scorer = "exact-match"
[for_each]                 # one row per key that the record has; {key} stands for it in the map
keys = ["6b_finetuning", "175b_finetuning"]
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from lineage.rows import Fingerprint
from lineage.schemas import NOT_APPLICABLE, STATED, TRACE, UNSTATED, TableSpec
from pipelines.readers import Unreadable

_TEXT = {"trace_key", "model_requested", "model_answered", "response", "correction", "finish_reason"}
_COLUMNS = {"input", "system", "verdict"} | _TEXT | set(STATED)


class FieldMapError(ValueError):
    """A field map that cannot be used; the message says which key and what is allowed."""


@dataclass(frozen=True)
class FieldMap:
    """Reads records by a map. Tuples instead of dicts, so that it is a value."""

    fields: tuple[tuple[str, str], ...]
    constants: tuple[tuple[str, str | float], ...] = ()
    keys: tuple[str, ...] = ()

    writes: ClassVar[TableSpec] = TRACE

    @classmethod
    def load(cls, path: str | Path) -> FieldMap:
        """Read a map from TOML. Raises FieldMapError."""
        try:
            document = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise FieldMapError(f"field map '{path}' cannot be read: {error}") from error
        fields, constants = document.pop("map", {}), document.pop("constant", {})
        keys = document.pop("for_each", {}).get("keys", [])
        unknown = sorted(document) + sorted((fields.keys() | constants.keys()) - _COLUMNS)
        if unknown:
            raise FieldMapError(
                f"field map '{path}' has unknown {unknown[0]!r}; allowed: {', '.join(sorted(_COLUMNS))}"
            )
        if "input" not in fields or "response" not in fields:
            raise FieldMapError(f"field map '{path}' must say where 'input' and 'response' are")
        return cls(tuple(sorted(fields.items())), tuple(sorted(constants.items())), tuple(keys))

    @property
    def fingerprint(self) -> Fingerprint:
        """The map is part of the identity: another map makes other rows."""
        parameters = {"map": dict(self.fields), "constant": dict(self.constants), "keys": list(self.keys)}
        return Fingerprint("field_map", 1, parameters)

    def recognises(self, record: Mapping[str, Any]) -> str | None:
        """A map is never guessed; it is given."""
        return None

    def read(self, record: Mapping[str, Any]) -> list[dict[str, Any]]:
        """One row, or one per key of `for_each` that the record has."""
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
        found.update({name: _at(record, path.replace("{key}", key)) for name, path in self.fields})
        if found.get("input") is None or found.get("response") is None:
            missing = "input" if found.get("input") is None else "response"
            raise Unreadable(
                "missing_field", f"no '{dict(self.fields)[missing].replace('{key}', key)}' in the record"
            )
        verdict = _verdict(found.pop("verdict", None))
        messages = [{"role": "user", "content": _text(found.pop("input"))}]
        if system := found.pop("system", None):
            messages.insert(0, {"role": "system", "content": _text(system)})
        mapped = {path.replace("{key}", key).partition(".")[0] for _, path in self.fields}
        rest = {name: value for name, value in record.items() if name not in mapped and name not in self.keys}
        row: dict[str, Any] = {"trace_key": UNSTATED, "model_requested": UNSTATED, "model_answered": UNSTATED}
        row.update(
            {name: value if name in ("score", "threshold") else _text(value) for name, value in found.items()}
        )
        if row.get("generator") is None:
            row["generator"] = row["model_answered"]
        if verdict != UNSTATED and row.get("score") is None:
            row["score"], row["threshold"] = (1.0 if verdict == "pass" else 0.0), 0.5
        if row.get("correction") is not None:
            row.setdefault("review", "none")
            row.setdefault("reviewer", NOT_APPLICABLE)
        return row | {
            "messages": messages,
            "verdict": verdict,
            "extra": json.dumps(rest, sort_keys=True) if rest else None,
        }


def _at(record: Any, path: str) -> Any:
    for part in path.split("."):
        if not isinstance(record, Mapping) or part not in record:
            return None
        record = record[part]
    return record


def _text(value: Any) -> str | None:
    return (
        value
        if value is None or isinstance(value, str)
        else json.dumps(value, ensure_ascii=False, sort_keys=True)
    )


def _verdict(value: Any) -> str:
    if value is None:
        return UNSTATED
    if isinstance(value, bool | int | float):
        return "pass" if value else "fail"
    return {"pass": "pass", "fail": "fail", "true": "pass", "false": "fail"}.get(str(value).lower(), UNSTATED)
