"""The Messages API, through `anthropic` 2.x: https://platform.claude.com/docs/en/api/messages

Always streamed, because a long reply that is not can be cut by any proxy on the way. Three places are cached: the
tools, the system text, and the conversation up to its last message, so that each turn pays in full only for what is
new.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from bot.brain.model.errors import ModelBusy, refusal, said
from bot.brain.model.patience import Attempt, patiently
from bot.brain.model.prices import Price
from bot.brain.model.talk import Again, Call, Reply, Role, Said, Stop, Tool, Usage

PROVIDER = "anthropic"
EFFORTS = ("low", "medium", "high", "xhigh", "max")
_SECONDS = 600.0
_STOPS = {
    "end_turn": Stop.END, "stop_sequence": Stop.END, "tool_use": Stop.TOOLS, "max_tokens": Stop.LENGTH,
    "refusal": Stop.REFUSED, "pause_turn": Stop.PAUSED, "model_context_window_exceeded": Stop.FULL,
}  # fmt: skip
_CACHED = {"type": "ephemeral"}


class MessagesModel:
    """A model behind the Messages API."""

    def __init__(
        self, model: str, key: str, price: Price, *, context_tokens: int = 200_000, effort: str = "", url: str = ""
    ) -> None:
        """`url` replaces the API's own address: a gateway, or a test."""
        import anthropic  # half a second that a server without a brain does not pay

        self.name = f"{PROVIDER}:{model}"
        self.context_tokens = context_tokens
        self._model = model
        self.price = price
        self._effort = effort
        # Retries are ours (`patience`), and so is the key: none that lies about in the environment is taken.
        self._client = anthropic.AsyncAnthropic(
            api_key=key, auth_token=None, base_url=url or "https://api.anthropic.com", max_retries=0, timeout=_SECONDS
        )

    async def reply(
        self, system: str, said: Sequence[Said], tools: Sequence[Tool] = (), *, most_tokens: int = 8192,
        again: Again | None = None,
    ) -> Reply:  # fmt: skip
        request: dict[str, Any] = {
            "model": self._model,
            "max_tokens": most_tokens,
            "system": [{"type": "text", "text": system, "cache_control": _CACHED}],
            "messages": _messages(said),
        }
        if tools:
            request["tools"] = _tools(tools)
        if self._effort:
            request["output_config"] = {"effort": self._effort}
        return await patiently(lambda attempt: self._once(request, attempt), self.price, again)

    async def close(self) -> None:
        await self._client.close()

    async def _once(self, request: Mapping[str, Any], attempt: Attempt) -> Reply:
        import anthropic
        import httpx2

        try:
            async with self._client.messages.stream(**request) as stream:
                async for event in stream:
                    if event.type == "message_start":
                        attempt.usage = _usage(event.message.usage)
                final = await stream.get_final_message()
                request_id = stream.request_id or ""
        except anthropic.APIStatusError as error:
            kind, words = str(getattr(error, "type", "") or ""), getattr(error, "api_message", "") or error.message
            raise refusal(error.status_code, str(words), error.response.headers, kind) from error
        except (anthropic.APIConnectionError, httpx2.HTTPError) as error:  # the second while a stream is read
            raise ModelBusy(f"The language model's provider could not be reached: {said(str(error))}.") from error
        except (anthropic.APIError, ValueError) as error:
            # An answer that is none: cut in its middle, or somebody else's page. The next one may be whole.
            raise ModelBusy(f"The language model's provider sent no readable answer: {said(str(error))}.") from error
        native = tuple(_native(block) for block in final.content)
        message = Said(
            Role.MODEL,
            "".join(block["text"] for block in native if block["type"] == "text"),
            tuple(_call(block) for block in native if block["type"] == "tool_use"),
            native=native,
            provider=PROVIDER,
        )
        stop = _STOPS.get(final.stop_reason or "", Stop.END)
        return Reply(message, stop, _usage(final.usage), 0.0, final.model, request_id)


def _native(block: Any) -> dict[str, Any]:
    """A block as it was received; what the client library has added to it is left out."""
    data: dict[str, Any] = block.model_dump(mode="json", exclude_unset=True)
    data.pop("parsed_output", None)
    return data


def _call(block: Mapping[str, Any]) -> Call:
    given = block.get("input")
    if isinstance(given, Mapping):
        return Call(block["id"], block["name"], given)
    return Call(block["id"], block["name"], {}, malformed=json.dumps(given))


def _usage(usage: Any) -> Usage:
    return Usage(
        usage.input_tokens or 0,
        usage.output_tokens or 0,
        usage.cache_read_input_tokens or 0,
        usage.cache_creation_input_tokens or 0,
    )


def _tools(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = [
        {"name": tool.name, "description": tool.description, "input_schema": dict(tool.schema)} for tool in tools
    ]
    made[-1]["cache_control"] = _CACHED
    return made


def _messages(said: Sequence[Said]) -> list[dict[str, Any]]:
    """The conversation in the API's form, its last message marked for the cache."""
    made = [(one.role, _content(one)) for one in said]
    if made and made[-1][0] is Role.USER and made[-1][1]:
        made[-1][1][-1]["cache_control"] = _CACHED
    return [{"role": str(role), "content": content} for role, content in made]


def _content(one: Said) -> list[dict[str, Any]]:
    if one.native and one.provider == PROVIDER:
        return [dict(block) for block in one.native]
    # Answers stand before words: a tool_result that does not come first is refused.
    blocks: list[dict[str, Any]] = [
        {"type": "tool_result", "tool_use_id": result.id, "content": result.text or "(nothing)",
         **({"is_error": True} if result.failed else {})}
        for result in one.results
    ]  # fmt: skip
    if one.text:
        blocks.append({"type": "text", "text": one.text})
    blocks += [{"type": "tool_use", "id": c.id, "name": c.name, "input": dict(c.arguments)} for c in one.calls]
    return blocks
