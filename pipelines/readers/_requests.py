"""What a model was asked, read from the body that was sent to a provider.

{"contents", "systemInstruction"}       Gemini
{"messages", "system"?}                 chat completions, Anthropic, Bedrock, Cohere, Ollama
{"input", "instructions"}               OpenAI responses, watsonx
{"prompt" | "inputText", "system"?}     whatever completes a prompt: the prompt is the user's message
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from pipelines.readers import values
from pipelines.readers._blocks import said_also, turn

_MODEL_IN_PATH = re.compile(r"/(?:models?|deployments)/([^/?]+)")
_AFTER_MODEL = re.compile(r":[A-Za-z]+$")  # Google's method: models/gemini-2.5-flash:generateContent
_SYSTEM = ("system", "systemInstruction", "system_instruction", "instructions")
_ASKED = ("contents", "messages", "input", "prompt", "inputText")


@dataclass(frozen=True)
class Asked:
    """A request in the shape of columns."""

    model: str | None
    messages: list[dict[str, Any]]
    rest: Mapping[str, Any]
    """Fields without a column: tools, temperature, ..."""

    is_input: bool
    """Asked as 'input', as embeddings and much else are too."""


def asked(body: Mapping[str, Any], uri: str) -> Asked | None:
    """The request in a body; None where nothing in it is put to a model. Raises Unreadable.

    Where the body does not name the model, the path may: Bedrock's, Google's and Azure's do.
    """
    name = next((key for key in _ASKED if body.get(key) is not None), None)
    if name is None:
        return None
    messages: list[dict[str, Any]] = []
    system = next((key for key in _SYSTEM if body.get(key) not in (None, "")), None)
    if system:
        said = body[system]
        is_content = isinstance(said, Mapping) and "parts" in said
        messages += turn("system", said["parts"] if is_content else said)
    messages += _MESSAGES[name](body, name)
    named = "model" if body.get("model") is not None else "model_id"
    read = {name, named, *([system] if system else [])}
    return Asked(
        model=values.text(body.get(named)) or _model_in(uri),
        messages=messages,
        rest=values.by_reference(said_also(body, read)),
        is_input=name == "input",
    )


def _chat(body: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    for each in values.objects_in(body, name):
        if (
            isinstance(each.get("content"), list)
            and not each.get("tool_calls")
            and each.get("role") != "tool"
        ):
            rest = said_also(each, {"role", "content"})
            messages += turn(values.text(each.get("role")) or "user", each["content"], extra=rest)
        else:
            messages.append(values.message(each))
    return messages


def _contents(body: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    contents = body[name]
    if not isinstance(contents, list):
        contents = [contents]
    messages: list[dict[str, Any]] = []
    for each in contents:
        if isinstance(each, Mapping) and "parts" in each:
            role = values.text(each.get("role")) or "user"
            rest = values.without(each, {"role", "parts"})
            messages += turn("assistant" if role == "model" else role, each["parts"], extra=rest)
        else:
            messages += turn("user", each)
    return messages


def _items(body: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    if not isinstance(body[name], list):
        return turn("user", body[name])
    messages: list[dict[str, Any]] = []
    for item in body[name]:
        if not isinstance(item, Mapping):
            messages += turn("user", item)
        elif item.get("type") == "function_call":
            call = values.tool_call(values.text(item.get("call_id")), item.get("name"), item.get("arguments"))
            rest = values.without(item, {"type", "call_id", "name", "arguments"})
            messages.append(values.said("assistant", None, tool_calls=[call], extra=rest))
        elif item.get("type") == "function_call_output":
            words, call_id = values.content(item.get("output")), values.text(item.get("call_id"))
            rest = values.without(item, {"type", "call_id", "output"})
            messages.append(values.said("tool", words, tool_call_id=call_id, extra=rest))
        elif "role" in item:
            rest = values.without(item, {"type", "role", "content"})
            messages += turn(values.text(item.get("role")) or "user", item.get("content"), extra=rest)
        else:  # reasoning, a search, a reference to an earlier item
            messages.append(values.said("assistant", None, extra={"item": values.by_reference(item)}))
    return messages


def _prompt(body: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    prompts = body[name]
    if not isinstance(prompts, list) or all(isinstance(token, int) for token in prompts):
        return turn("user", prompts)
    messages: list[dict[str, Any]] = []
    for prompt in prompts:
        if isinstance(prompt, Mapping) and isinstance(prompt.get("data"), str):  # Aleph Alpha
            rest = said_also(prompt, {"type", "data"})
            messages.append(values.said("user", prompt["data"], extra=rest))
        else:
            messages += turn("user", prompt)
    return messages


def _model_in(uri: str) -> str | None:
    found = _MODEL_IN_PATH.search(uri)
    return _AFTER_MODEL.sub("", unquote(found[1])) if found else None


_MESSAGES = {
    "contents": _contents,
    "messages": _chat,
    "input": _items,
    "prompt": _prompt,
    "inputText": _prompt,
}
