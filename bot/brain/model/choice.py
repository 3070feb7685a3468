"""From `POSTDOC_BRAIN` to a model: `anthropic:claude-opus-4-6`, `together:Qwen/Qwen3-235B-A22B`, `openai:qwen3` at an
address of one's own."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from bot.brain.model import messages_api
from bot.brain.model.chat_completions import ChatModel
from bot.brain.model.messages_api import MessagesModel
from bot.brain.model.prices import price_of
from bot.brain.model.talk import Model
from bot.errors import SettingsError

DEFAULT_PROVIDER = "anthropic"
OWN = "openai"
"""Chat completions at `POSTDOC_BRAIN_URL`, whoever serves them."""
# https://huggingface.co/docs/inference-providers; `hf` lets Hugging Face choose.
HF = "hf"
_CHAT_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh")
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@/+-]{0,199}")


@dataclass(frozen=True, slots=True)
class BrainSettings:
    """What the server's owner says of the model; empty where nothing was said."""

    brain: str
    key: str = ""
    url: str = ""
    effort: str = ""
    price: str = ""
    context_tokens: int = 0


def model_of(settings: BrainSettings) -> Model:
    """Raises: SettingsError, with what to write instead."""
    named, colon, model = settings.brain.strip().partition(":")
    if not colon:
        named, model = DEFAULT_PROVIDER, named
    if not _MODEL.fullmatch(model):
        raise SettingsError(
            f"POSTDOC_BRAIN: {settings.brain!r} names no model. Write provider:model, anthropic:claude-opus-4-6 or "
            "together:Qwen/Qwen3-235B-A22B for example, or openai:NAME with POSTDOC_BRAIN_URL."
        )
    price = price_of(named, model, settings.price)
    url = _address(settings.url)
    if named == messages_api.PROVIDER:
        _check_effort(settings.effort, messages_api.EFFORTS)
        _check_key(settings.key, named)
        return MessagesModel(
            model, settings.key, price, effort=settings.effort, url=url,
            context_tokens=settings.context_tokens or 200_000,
        )  # fmt: skip
    _check_effort(settings.effort, _CHAT_EFFORTS)
    if named == OWN and not url:
        raise SettingsError(
            "POSTDOC_BRAIN names a model at an address of its own: set POSTDOC_BRAIN_URL, http://127.0.0.1:8000/v1 for "
            "example."
        )
    if named != OWN:
        _check_provider(named)
        _check_key(settings.key, named)
        url = ""
    return ChatModel(
        f"{named}:{model}", settings.key, price, model=model, provider="auto" if named == HF else named, url=url,
        effort=settings.effort, context_tokens=settings.context_tokens or 128_000,
    )  # fmt: skip


def _address(url: str) -> str:
    parts = urlsplit(url.strip())
    if url and (parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query):
        raise SettingsError(f"POSTDOC_BRAIN_URL: {url!r} is no address. Write https://host/v1, without key or query.")
    local = parts.hostname in ("localhost", "127.0.0.1", "::1")
    if parts.scheme == "http" and not local and not _private(parts.hostname or ""):
        raise SettingsError(
            "POSTDOC_BRAIN_URL: the key would travel in the clear. Write https://, or a private address."
        )
    return url.strip().rstrip("/")


def _private(host: str) -> bool:
    """Names and addresses of one's own network: the usual place of a model that is served without a certificate."""
    return "." not in host or bool(re.match(r"(10\.|192\.168\.|172\.(1[6-9]|2\d|3[01])\.)", host)) or host.endswith(
        (".local", ".internal", ".svc", ".lan")
    )  # fmt: skip


def _check_effort(effort: str, known: tuple[str, ...]) -> None:
    if effort and effort not in known:
        raise SettingsError(f"POSTDOC_BRAIN_EFFORT: {effort!r} is none of {', '.join(known)}.")


def _check_key(key: str, provider: str) -> None:
    if not key:
        raise SettingsError(f"POSTDOC_BRAIN_KEY is missing: set it to the key of {provider}.")


def _check_provider(named: str) -> None:
    from huggingface_hub.inference._providers import PROVIDERS

    if named != HF and named not in PROVIDERS:
        known = ", ".join(["anthropic", OWN, HF, *sorted(PROVIDERS)])
        raise SettingsError(f"POSTDOC_BRAIN: {named!r} is no provider. They are {known}.")
