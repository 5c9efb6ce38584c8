"""Messages in the attributes of an OpenTelemetry span, for exports that keep them nowhere else.

llm.input_messages.0.message.role, .content, .contents.0.message_content.text     OpenInference
llm.output_messages.0.message.tool_calls.0.tool_call.function.name
gen_ai.prompt.0.role, gen_ai.completion.0.content                                 OpenLLMetry
gen_ai.input.messages, gen_ai.output.messages                                     OpenTelemetry GenAI
ai.prompt.messages, ai.response.text, ai.response.toolCalls                       Vercel AI SDK
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.readers import values
from pipelines.readers._message_shapes import tool_calls
from pipelines.readers._otlp_attributes import indexed, names_under
from pipelines.readers._payloads import Answered, Asked, answered, asked, conversation, decoded, of_list


def of_attributes(attributes: Mapping[str, Any]) -> tuple[Asked | None, Answered | None]:
    """Both from attributes of an OpenTelemetry span, for exports that keep them there."""
    sent = (_listed(attributes, "llm.input_messages"), _listed(attributes, "gen_ai.prompt"))
    back = (_listed(attributes, "llm.output_messages"), _listed(attributes, "gen_ai.completion"))
    ask = next((conversation(found) for found in sent if found), None)
    answer = next((of_list(found) for found in back if found), None)
    for key in ("gen_ai.input.messages", "ai.prompt.messages", "ai.prompt", "llm.prompts"):
        if ask is None and isinstance(decoded(attributes.get(key)), list | Mapping):
            ask = asked(attributes[key])
    if answer is None and isinstance(decoded(attributes.get("gen_ai.output.messages")), list):
        answer = answered(attributes["gen_ai.output.messages"])
    if answer is None and isinstance(attributes.get("ai.response.text"), str):
        calls = tool_calls(decoded(attributes.get("ai.response.toolCalls")))
        answer = Answered(attributes["ai.response.text"], calls)
    return ask, answer


def _listed(attributes: Mapping[str, Any], prefix: str) -> list[dict[str, Any]]:
    return [_message(fields) for fields in indexed(attributes, prefix).values()]


def _message(fields: Mapping[str, Any]) -> dict[str, Any]:
    """OpenAI's message from flat names: `tool_calls.0.tool_call.function.name` goes into its tool calls."""
    rest = {name.removeprefix("message."): value for name, value in fields.items()}
    calls, parts = _parts(rest, "tool_calls"), _parts(rest, "contents")
    listed = {*names_under(rest, "tool_calls"), *names_under(rest, "contents")}
    message = {"content": None, **values.without(rest, listed)}
    if calls:
        message["tool_calls"] = calls
    if parts:
        message["content" if message["content"] is None else "contents"] = parts
    return message


def _parts(fields: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """The objects of a list, by the last of the names that lead to each value."""
    found = indexed(fields, name).values()
    return [{key.rpartition(".")[2]: value for key, value in each.items()} for each in found]
