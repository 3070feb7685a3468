"""OpenAI's chat completions, through `huggingface_hub`'s inference client: Hugging Face's providers, or an address of
one's own (vLLM, Ollama, llama.cpp, a gateway). https://huggingface.co/docs/huggingface_hub/guides/inference

Always streamed. Some servers count no tokens in a stream; then they are estimated upwards, so that a budget holds.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bot.brain.model.errors import ModelBusy, ModelError, ModelRefused, refusal, said
from bot.brain.model.patience import Attempt, patiently
from bot.brain.model.prices import Price
from bot.brain.model.talk import Again, Call, Reply, Role, Said, Stop, Tool, Usage

if TYPE_CHECKING:
    import httpx2

_SECONDS = 600.0
_MOST_REFUSAL = 1_000_000
"""Bytes."""
_STOPS = {"stop": Stop.END, "eos_token": Stop.END, "tool_calls": Stop.TOOLS, "function_call": Stop.TOOLS,
          "length": Stop.LENGTH, "content_filter": Stop.REFUSED}  # fmt: skip
_OFFLINE = (
    "HF_HUB_OFFLINE is set on this server, so Hugging Face's inference providers are not asked. Unset it, or name a "
    "model at an address of its own: `openai:NAME` in POSTDOC_BRAIN with POSTDOC_BRAIN_URL."
)
_CHARACTERS_PER_TOKEN = 3
"""Fewer than usual (about four of English), so that an estimate errs towards more tokens."""


class ChatModel:
    """A model behind chat completions."""

    def __init__(
        self,
        name: str,
        key: str,
        price: Price,
        *,
        model: str,
        provider: str = "",
        url: str = "",
        context_tokens: int = 128_000,
        effort: str = "",
    ) -> None:
        """`provider` is one of Hugging Face's; `url` an address with `/chat/completions` below it, instead."""
        self.name = name
        self.context_tokens = context_tokens
        self._key = key
        self.price = price
        self._model = model
        self._provider = provider
        self._url = url
        self._effort = effort

    async def reply(
        self, system: str, said: Sequence[Said], tools: Sequence[Tool] = (), *, most_tokens: int = 8192,
        again: Again | None = None,
    ) -> Reply:  # fmt: skip
        request: dict[str, Any] = {
            "messages": [{"role": "system", "content": system}, *(m for one in said for m in _messages(one))],
            "max_tokens": most_tokens,
            "model": self._model,
            "stream_options": {"include_usage": True},
        }
        if tools:
            request["tools"] = [
                {"type": "function", "function": {"name": t.name, "description": t.description,
                                                  "parameters": dict(t.schema)}}
                for t in tools
            ]  # fmt: skip
        if self._effort:
            request["extra_body"] = {"reasoning_effort": self._effort}
        return await patiently(lambda attempt: self._once(request, attempt), self.price, again)

    async def close(self) -> None:
        """Nothing is kept between turns: the library's client keeps every response it ever streamed."""

    async def _once(self, request: Mapping[str, Any], attempt: Attempt) -> Reply:
        import httpx2
        from huggingface_hub import AsyncInferenceClient, is_offline_mode, set_async_client_factory
        from huggingface_hub.errors import HfHubHTTPError, InferenceTimeoutError

        if self._url:
            set_async_client_factory(
                _session
            )  # of this process; nothing else in it uses the library's asynchronous side
        elif is_offline_mode():
            raise ModelRefused(_OFFLINE)
        where: dict[str, Any] = {"base_url": self._url} if self._url else {"provider": self._provider or "auto"}
        asked = len(json.dumps([request["messages"], request.get("tools", [])])) // _CHARACTERS_PER_TOKEN
        attempt.usage = Usage(input=asked)
        async with AsyncInferenceClient(api_key=self._key or "none", timeout=_SECONDS, **where) as client:
            try:
                stream = await client.chat_completion(**request, stream=True)
                gathered = await _gathered(stream)
            except HfHubHTTPError as error:
                raise refusal(error.response.status_code, _words(error.response), error.response.headers) from error
            except InferenceTimeoutError as error:
                raise ModelBusy("The language model's provider did not answer in time.") from error
            except httpx2.HTTPError as error:
                raise ModelBusy(f"The language model's provider could not be reached: {said(str(error))}.") from error
            except ModelError:
                raise
            except Exception as error:
                # The library raises many kinds for an error inside of a stream, or for an answer that is none.
                raise ModelBusy(f"The language model's provider broke off: {said(str(error))}.") from error
        return gathered.reply(asked, self._model)


def _session() -> httpx2.AsyncClient:
    """As the library makes its own, without the hook that refuses every request while HF_HUB_OFFLINE is set: that is
    said of the Hub, and an address of one's own is not there."""
    import httpx2

    return httpx2.AsyncClient(event_hooks={"response": [_read_refusal]}, follow_redirects=True, timeout=None)


async def _read_refusal(response: httpx2.Response) -> None:
    """What a provider says of a refusal; of a stream it would not have been read."""
    if response.status_code >= 400 and int(response.headers.get("Content-Length", "0")) < _MOST_REFUSAL:
        await response.aread()


class _Gathered:
    """A reply put together from its pieces."""

    def __init__(self) -> None:
        self.text = ""
        self.calls: dict[int, dict[str, str]] = {}
        self.reason = ""
        self.usage: Any = None
        self.id = ""
        self.model = ""

    def take(self, piece: Any) -> None:
        self.id, self.model = self.id or piece.id or "", self.model or piece.model or ""
        self.usage = getattr(piece, "usage", None) or self.usage
        for choice in (piece.choices or [])[:1]:
            self.reason = choice.finish_reason or self.reason
            self.text += getattr(choice.delta, "content", None) or ""
            for call in getattr(choice.delta, "tool_calls", None) or []:
                known = self.calls.setdefault(call.index or 0, {"id": "", "name": "", "arguments": ""})
                known["id"] = known["id"] or getattr(call, "id", None) or ""
                known["name"] = known["name"] or getattr(call.function, "name", None) or ""
                known["arguments"] += getattr(call.function, "arguments", None) or ""

    def reply(self, asked: int, model: str) -> Reply:
        calls = tuple(_call(number, self.calls[number]) for number in sorted(self.calls))
        written = len(self.text) + sum(len(call["arguments"]) for call in self.calls.values())
        usage = Usage(asked, written // _CHARACTERS_PER_TOKEN + 1)
        if self.usage is not None:
            # Those read from a cache are told by few servers, and priced as others where they are not.
            details = _get(self.usage, "prompt_tokens_details")
            cached = int(_get(details, "cached_tokens") or 0)
            whole = int(_get(self.usage, "prompt_tokens") or 0)
            usage = Usage(max(0, whole - cached), int(_get(self.usage, "completion_tokens") or 0), cached)
        stop = _STOPS.get(self.reason, Stop.END)
        if calls and stop is Stop.END:  # several servers end a reply with calls by `stop`
            stop = Stop.TOOLS
        return Reply(Said(Role.MODEL, self.text, calls), stop, usage, 0.0, self.model or model, self.id)


async def _gathered(stream: AsyncIterable[Any]) -> _Gathered:
    """Raises: ModelBusy when the stream ended before the reply did."""
    gathered = _Gathered()
    async for piece in stream:
        gathered.take(piece)
    if not gathered.reason:
        raise ModelBusy("The language model's provider broke off in the middle of its reply.")
    return gathered


def _call(number: int, parts: Mapping[str, str]) -> Call:
    name, written = parts["name"], parts["arguments"]
    # A server that gives its calls no id still needs them told apart.
    identity = parts["id"] or f"call_{number}"
    try:
        arguments = json.loads(written or "{}")
    except ValueError:
        arguments = None
    if isinstance(arguments, dict):
        return Call(identity, name, arguments)
    return Call(identity, name, {}, malformed=written)


def _messages(one: Said) -> list[dict[str, Any]]:
    """One message in the API's form; answers of tools are messages of their own there."""
    made: list[dict[str, Any]] = [
        {"role": "tool", "tool_call_id": r.id, "content": ("Error: " if r.failed else "") + (r.text or "(nothing)")}
        for r in one.results
    ]
    if one.role is Role.MODEL:
        message: dict[str, Any] = {"role": "assistant", "content": one.text}
        if one.calls:
            message["tool_calls"] = [
                {"id": c.id, "type": "function",
                 "function": {"name": c.name, "arguments": c.malformed or json.dumps(dict(c.arguments))}}
                for c in one.calls
            ]  # fmt: skip
        made.append(message)
    elif one.text:
        made.append({"role": "user", "content": one.text})
    return made


def _words(response: Any) -> str:
    """What the provider says of its refusal, out of any of the shapes in use."""
    try:
        body = response.json()
    except Exception:
        return said(f"status {response.status_code}")
    found = body.get("error", body) if isinstance(body, dict) else body
    if isinstance(found, dict):
        parts = [str(found[key]) for key in ("message", "code") if found.get(key)]
        found = ", ".join(parts) or json.dumps(found)
    return said(str(found))


def _get(thing: Any, key: str) -> Any:
    """A field of an object of the library's, or of the plain dictionary that it leaves unknown parts as."""
    return thing.get(key) if isinstance(thing, Mapping) else getattr(thing, key, None)
