"""Messages in the attributes of an OpenTelemetry span, for exports that keep them nowhere else.

llm.input_messages.0.message.role, .content, .contents.0.message_content.text     OpenInference
llm.output_messages.0.message.tool_calls.0.tool_call.function.name
gen_ai.prompt.0.role, gen_ai.completion.0.content                                 OpenLLMetry
gen_ai.input.messages, gen_ai.output.messages                                     OpenTelemetry GenAI
ai.prompt.messages, ai.response.text, ai.response.toolCalls                       Vercel AI SDK
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pipelines.readers._message_shapes import tool_calls
from pipelines.readers._payloads import Answered, Asked, answered, asked, conversation, decoded, of_list

_ATTRIBUTE = re.compile(
    r"(llm\.input_messages|llm\.output_messages|gen_ai\.prompt|gen_ai\.completion)\.(\d{1,4})\.(.+)"
)


def of_attributes(attributes: Mapping[str, Any]) -> tuple[Asked | None, Answered | None]:
    """Both from attributes of an OpenTelemetry span, for exports that keep them there."""
    listed: dict[str, dict[int, dict[str, Any]]] = {}
    for name, value in attributes.items():
        if matched := _ATTRIBUTE.fullmatch(name):
            fields = listed.setdefault(matched[1], {}).setdefault(int(matched[2]), {})
            _place(fields, matched[3].removeprefix("message.").split("."), value)
    sent = (listed.get("llm.input_messages"), listed.get("gen_ai.prompt"))
    back = (listed.get("llm.output_messages"), listed.get("gen_ai.completion"))
    ask = next((conversation(_in_order(found)) for found in sent if found), None)
    answer = next((of_list(_in_order(found)) for found in back if found), None)
    for key in ("gen_ai.input.messages", "ai.prompt.messages", "ai.prompt", "llm.prompts"):
        if ask is None and isinstance(decoded(attributes.get(key)), list | Mapping):
            ask = asked(attributes[key])
    if answer is None and isinstance(decoded(attributes.get("gen_ai.output.messages")), list):
        answer = answered(attributes["gen_ai.output.messages"])
    if answer is None and isinstance(attributes.get("ai.response.text"), str):
        calls = tool_calls(decoded(attributes.get("ai.response.toolCalls")))
        answer = Answered(attributes["ai.response.text"], calls)
    return ask, answer


def _place(fields: dict[str, Any], path: list[str], value: Any) -> None:
    """A flat name goes into OpenAI's message: `tool_calls.0.tool_call.function.name` into its tool calls."""
    if path[0] in ("contents", "tool_calls") and len(path) > 2 and path[1].isdigit():
        part = fields.setdefault(f"{path[0]}.{int(path[1]):06d}", {})
        below = path[3:] if path[2] in ("message_content", "tool_call") else path[2:]
        if below:
            part[below[-1]] = value
        return
    fields[".".join(path)] = value


def _in_order(found: Mapping[int, Mapping[str, Any]]) -> list[dict[str, Any]]:
    messages = []
    for _, fields in sorted(found.items()):
        one: dict[str, Any] = {"content": None}
        for key in sorted(fields):
            if key.startswith("contents."):
                one["content"] = [*(one["content"] or []), fields[key]]
            elif key.startswith("tool_calls."):
                one["tool_calls"] = [*one.get("tool_calls", []), fields[key]]
            else:
                one[key] = fields[key]
        messages.append(one)
    return messages
