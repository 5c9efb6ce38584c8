"""Job configs: people write sparse TOML, machines the resolved values; one sentence per mistake."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

Config = TypeVar("Config", bound=BaseModel)


class ConfigError(ValueError):
    """A config that cannot be used; the message names the key, what was found and what is allowed."""


def read_config(model: type[Config], path: str | Path | None, overrides: Sequence[str] = ()) -> Config:
    """A config from a TOML file and `key.path=value` overrides. Raises ConfigError."""
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ConfigError(f"config '{path}' does not exist; expected a TOML file") from error
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"config '{path}' cannot be read: {error}") from error
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"config '{path}' is not TOML: {error}") from error
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise ConfigError(f"--set '{override}' is not KEY=VALUE")
        try:
            _set(values, key.strip().split("."), _value(text.strip()))
        except TypeError as error:
            raise ConfigError(f"--set '{override}' goes below a key that holds a value") from error
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"config '{path or 'given by --set'}': {explain(error, model)}") from error


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """The first mistake as a sentence."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"]) or "the whole"
    if first["type"] == "extra_forbidden":
        return f"unknown key '{key}'; known: {', '.join(sorted(_fields_at(model, first['loc'][:-1])))}"
    if first["type"] == "missing":
        return f"key '{key}' is missing"
    return f"'{key}' is {first.get('input')!r}: {first['msg'].removeprefix('Value error, ')}"


def _fields_at(model: Any, location: Sequence[int | str]) -> list[str]:
    for part in location:
        if isinstance(part, int):  # one of a tuple, whose items are of one type
            model = next(iter(get_args(model)), None)
            continue
        field = model.model_fields.get(part) if isinstance(model, type) else None
        model = field.annotation if field is not None else None
    fields = getattr(model, "model_fields", None)
    return list(fields) if fields else []


def _set(values: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for part in path[:-1]:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise TypeError(part)
    values[path[-1]] = value


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
