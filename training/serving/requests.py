"""What a client may ask, and within which limits; whatever a model would ignore is refused, with its name.

Answers are greedy: the same question gives the same answer, so a temperature above 0 is refused, not ignored.

Errors: ServingError (a TrainingError); Refused among them, which becomes an HTTP status and OpenAI's error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from training.recipe import TrainingError


class ServingError(TrainingError):
    """A model cannot be served; the message says what to do."""


class Refused(ServingError):
    """What a client asked is not answered."""

    def __init__(self, message: str, *, status: int = 400, code: str = "invalid_request", param: str = ""):
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param


@dataclass(frozen=True)
class Limits:
    """How much one client may ask, and how many may wait."""

    max_body_bytes: int = 1024 * 1024
    max_messages: int = 256
    max_tokens: int = 1024
    """Most that an answer may be asked for; what it may be where nobody says is `default_tokens`."""
    default_tokens: int = 256
    max_waiting: int = 64
    """Questions that wait for a batch; one more is told to come again."""
    batch_size: int = 32


@dataclass(frozen=True)
class Question:
    """A request that was understood."""

    id: str
    """The trace's id: of the response, and of the log's line."""
    created: int
    """Seconds since 1970."""
    request: Mapping[str, Any]
    """As it was sent."""
    messages: list[dict[str, Any]]
    """As templates take them: contents are texts."""
    max_new_tokens: int
    is_stream: bool = False

    @property
    def text(self) -> str:
        """What a classifier reads: the last message of a user, as curation takes it."""
        return next(m["content"] for m in reversed(self.messages) if m["role"] == "user")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["text"]
    text: str


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[_Part] | None = None
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None


class _StreamOptions(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    include_usage: bool = False


class _TextFormat(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["text"]


_Short = Annotated[str, Field(max_length=512)]
_Zero = Annotated[float, Field(ge=0, le=0)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    model: str
    messages: list[_Message] = Field(min_length=1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    metadata: dict[Annotated[str, Field(max_length=64)], _Short] | None = Field(default=None, max_length=16)
    user: _Short | None = None
    # Taken at the one value that says what is done anyway.
    temperature: _Zero | None = None
    presence_penalty: _Zero | None = None
    frequency_penalty: _Zero | None = None
    top_p: Annotated[float, Field(ge=1, le=1)] | None = None
    n: Annotated[int, Field(ge=1, le=1)] | None = None
    seed: int | None = None
    logprobs: bool | None = None
    response_format: _TextFormat | None = None


def understood(body: bytes, *, id: str, created: int, limits: Limits) -> Question:
    """The question in a body. Raises Refused."""
    try:
        said = orjson.loads(body)  # which knows no NaN and no half characters
    except ValueError as error:
        raise Refused(f"the body is not JSON: {error}") from error
    if not isinstance(said, dict):
        raise Refused(f"the body is {type(said).__name__}, expected an object with model and messages")
    if isinstance(messages := said.get("messages"), list) and len(messages) > limits.max_messages:
        raise Refused(f"{len(messages)} messages, at most {limits.max_messages} are taken", param="messages")
    try:
        request = _Request.model_validate(said)
    except ValidationError as error:
        raise _refusal(error) from error
    if request.max_tokens and request.max_completion_tokens:
        raise Refused("max_tokens and max_completion_tokens say the same; give one", param="max_tokens")
    most = request.max_completion_tokens or request.max_tokens
    if most and most > limits.max_tokens:
        raise Refused(f"max_tokens is {most}, at most {limits.max_tokens} are given", param="max_tokens")
    messages = [_plain(message) for message in request.messages]
    if not any(message["role"] == "user" for message in messages):
        raise Refused("no message is a user's; expected one to answer", param="messages")
    if request.messages[-1].role == "assistant":
        raise Refused("the last message is the assistant's; expected one to answer", param="messages")
    return Question(
        id=id,
        created=created,
        request=said,
        messages=messages,
        max_new_tokens=most or min(limits.default_tokens, limits.max_tokens),
        is_stream=bool(request.stream),
    )


def _plain(message: _Message) -> dict[str, Any]:
    """A message whose content is one text, its parts joined as the reader of the log joins them."""
    content = message.content
    if isinstance(content, list):
        content = "".join(part.text for part in content)
    if content is None and not (message.role == "assistant" and message.tool_calls):
        raise Refused(f"a message of the {message.role} has no content", param="messages")
    told = {"role": message.role, "content": content or ""}
    more = {name: getattr(message, name) for name in ("name", "tool_calls", "tool_call_id")}
    return told | {name: value for name, value in more.items() if value is not None}


def _refusal(error: ValidationError) -> Refused:
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"] if part not in ("str", "_Part", "list[_Part]"))
    if first["type"] == "extra_forbidden":
        known = "" if "." in place else f"; known: {', '.join(_Request.model_fields)}"
        return Refused(f"unknown field '{place}'{known}", param=place, code="unknown_parameter")
    if first["type"] == "missing":
        return Refused(f"'{place}' is missing", param=place, code="missing_required_parameter")
    greedy = " (answers are greedy and single)" if first["type"].endswith("_equal") else ""
    return Refused(f"'{place}': {first['msg']}{greedy}", param=place, code="invalid_value")
