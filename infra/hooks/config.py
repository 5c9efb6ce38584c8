"""The hooks of a lake: hooks.toml in its folder, or the file that STEMMA_HOOKS names.

    [[hook]]
    name = "deploy"
    on = ["promotion", "rollback", "recall"]
    command = ["systemctl", "--user", "restart", "router"]     the event is its standard input

    [[hook]]
    name = "tell-the-team"
    on = ["recall"]
    url = "https://hooks.example.com/stemma"                    the event is the body of a POST
    headers = { Authorization = "TEAM_TOKEN" }                  the variable that holds the header's value

Errors: HookError. No message repeats a value: somebody may have written a secret where its name belongs.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from infra.settings import Settings, hooks_override

Kind = Literal["promotion", "rollback", "recall"]
FILE = "hooks.toml"
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_Word = Annotated[str, Field(min_length=1, max_length=4096)]


class HookError(ValueError):
    """The file of hooks cannot be used, or names no such hook; the message says what to change."""


class Hook(BaseModel):
    """One command or one webhook, and what it is told of."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")
    """Of letters, digits, dashes and underscores; it is part of a file's name."""

    on: tuple[Kind, ...] = Field(min_length=1)
    """The moves of `champion` that it is told of."""

    command: tuple[_Word, ...] = ()
    """A program and its arguments. No shell reads them, and the event is not among them."""

    url: str = ""
    """Where the event is posted."""

    url_from: str = ""
    """The environment variable that holds the URL, for one that is itself a secret."""

    headers: dict[str, str] = Field(default_factory=dict)
    """Header -> the environment variable that holds its value."""

    timeout_s: float = Field(default=30.0, gt=0, le=3600, allow_inf_nan=False)
    """After this many seconds a command is ended with all that it started, and a request is given up."""

    cwd: str = ""
    """The folder in which a command runs; as it stands, that of the verb."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        given = [key for key in ("command", "url", "url_from") if getattr(self, key)]
        if len(given) != 1:
            found = " and ".join(given) or "none of them"
            raise ValueError(f"found {found}, expected one of command, url and url_from")
        if self.command and self.headers:
            raise ValueError("headers belong to a webhook, and this hook is a command")
        if self.cwd and not self.command:
            raise ValueError("cwd belongs to a command, and this hook is a webhook")
        if "\0" in "".join((*self.command, self.cwd)):
            raise ValueError("a command holds a NUL, which no program takes")
        if self.url:
            check_url(self.url)
        if self.url_from and not _VARIABLE.fullmatch(self.url_from):
            raise ValueError("url_from holds no name of an environment variable")
        for header, variable in self.headers.items():
            if not _HEADER.fullmatch(header):
                raise ValueError("headers has a key that is no name of a header")
            if not _VARIABLE.fullmatch(variable):
                raise ValueError(
                    f"headers.{header} holds no name of an environment variable; put the value into one, and "
                    "its name here"
                )
        return self

    @property
    def target(self) -> str:
        """Where it leads, as it may be told: a program's name, or a URL's scheme and host."""
        if self.command:
            return self.command[0]
        if self.url_from:
            return f"the URL in {self.url_from}"
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    hook: tuple[Hook, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [hook.name for hook in self.hook]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two hooks are named {', '.join(twice)}; a name stands for one")
        return self


def check_url(url: str) -> None:
    """Raise ValueError for what is no URL of a webhook. The message does not repeat it."""
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_url, parts = False, urlsplit("")
    if not is_url or re.search(r"[\s\x00-\x20\x7f]", url):
        raise ValueError("url is none, expected one like https://host/path")
    if "@" in parts.netloc:
        raise ValueError("url holds a password; name a variable in headers, or the whole URL by url_from")


def hooks_file(settings: Settings) -> Path | None:
    """The file of the lake's hooks, be it there or not; None for a lake of objects without STEMMA_HOOKS."""
    named_file = hooks_override()
    if named_file:
        return Path(named_file).expanduser().absolute()
    return Path(settings.path(FILE)) if settings.is_local else None


def find_hooks(settings: Settings) -> tuple[Hook, ...]:
    """The lake's hooks in the file's order; none where there is no file. Raises HookError."""
    path = hooks_file(settings)
    if path is None:
        return ()
    is_named = bool(hooks_override())
    try:
        with path.open("rb") as file:
            if not is_named:
                _require_own(path, os.fstat(file.fileno()))
            values = tomllib.load(file)
    except FileNotFoundError as error:
        if not is_named:
            return ()
        raise HookError(f"'{path}', which STEMMA_HOOKS names, does not exist") from error
    except (OSError, UnicodeDecodeError) as error:
        raise HookError(
            f"'{path}' cannot be read: {getattr(error, 'strerror', 'it is not UTF-8')}"
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise HookError(f"'{path}' is not TOML: {error}") from error
    try:
        return _File.model_validate(values).hook
    except ValidationError as error:
        raise HookError(f"'{path}': {_explain(error)}") from error


def named(hooks: tuple[Hook, ...], name: str) -> Hook:
    """The hook of this name. Raises HookError."""
    for hook in hooks:
        if hook.name == name:
            return hook
    raise HookError(f"no hook is named '{name}'; known: {', '.join(hook.name for hook in hooks) or 'none'}")


def _require_own(path: Path, found: os.stat_result) -> None:
    """A lake may be shared; a file in it that others can write would run their commands as us."""
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) or found.st_uid not in (0, os.getuid()):
        raise HookError(
            f"'{path}' is another user's or can be written by others, and its commands would run as you; "
            "take it over and chmod go-w it, or trust it by naming it in STEMMA_HOOKS"
        )


def _explain(error: ValidationError) -> str:
    """The first mistake as a sentence, without the value that was found."""
    first = error.errors(include_input=False, include_url=False)[0]
    key = _key(first["loc"])
    if first["type"] == "extra_forbidden":
        known: Any = Hook if first["loc"][0] == "hook" and len(first["loc"]) > 2 else _File
        return f"unknown key '{key}'; known: {', '.join(known.model_fields)}"
    if first["type"] == "missing":
        return f"key '{key}' is missing"
    if first["type"] == "literal_error":
        return f"'{key}' is none of {first.get('ctx', {}).get('expected')}"
    return f"'{key}': {first['msg'].removeprefix('Value error, ')}"


def _key(location: tuple[int | str, ...]) -> str:
    """The place as TOML counts it: hook[0].name."""
    words = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return words.removeprefix(".") or "the whole"
