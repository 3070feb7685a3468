"""The brain's two clients against the APIs they speak, each played by a stand-in over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from bot.brain.model import patience
from bot.brain.model.choice import BrainSettings, model_of
from bot.brain.model.errors import ContextFull, ModelBusy, ModelError, ModelRefused
from bot.brain.model.prices import Price, price_of
from bot.brain.model.talk import Model, Result, Role, Said, Stop, Tool, Usage
from bot.errors import SettingsError
from tests.fakes.language_models import (
    Answer,
    ChatApi,
    MessagesApi,
    broken_off,
    calls,
    error,
    hung_up,
    overloaded,
    text,
)

PYTHON = Tool("python", "Run code.", {"type": "object", "properties": {"code": {"type": "string"}}})
ASKED = [Said(Role.USER, "What is 6 times 7?")]


@pytest.fixture(params=[MessagesApi, ChatApi])
def api(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    async def at_once(seconds: float) -> None:
        waited.append(seconds)

    waited: list[float] = []
    monkeypatch.setattr(patience, "pause", at_once)
    made = request.param()
    made.waited = waited
    with made.serve():
        yield made


Client = Callable[..., Model]


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    """`client(api)`: the real client of that API, closed when the test ends."""
    opened: list[Model] = []

    def open_one(api: Any, **changes: Any) -> Model:
        brain = "anthropic:claude-opus-4-6" if isinstance(api, MessagesApi) else "openai:qwen3"
        settings: dict[str, Any] = {"brain": brain, "key": api.key, "url": api.url.rstrip("/"), "price": "3/15"}
        opened.append(model_of(BrainSettings(**settings | changes)))
        return opened[-1]

    yield open_one
    for model in opened:
        await model.close()


async def test_a_reply_with_its_tokens_and_price(client: Client, api: Any) -> None:
    api.say(text("Forty-two."))
    reply = await client(api).reply("Be brief.", ASKED)
    assert (reply.said.text, reply.stop, reply.attempts) == ("Forty-two.", Stop.END, 1)
    assert reply.usage.context > 5
    price = Price.listed(3, 15) if isinstance(api, MessagesApi) else Price.uncached(3, 15)
    assert reply.usd == pytest.approx(price.of(reply.usage)) and reply.usd > 0


async def test_calls_side_by_side_are_answered_and_the_talk_goes_on(client: Client, api: Any) -> None:
    api.say(calls(("python", {"code": "6*7"}), ("python", {"code": "é\n'\""}), words="I compute."), text("42"))
    model = client(api)
    first = await model.reply("", ASKED, [PYTHON])
    assert first.stop is Stop.TOOLS
    assert [dict(call.arguments) for call in first.said.calls] == [{"code": "6*7"}, {"code": "é\n'\""}]
    one, other = first.said.calls
    answers = Said(Role.USER, "", results=(Result(one.id, "42"), Result(other.id, "SyntaxError", failed=True)))
    # What a transcript holds goes back as well as what was received.
    kept = Said.from_dict(first.said.as_dict())
    assert kept == first.said
    assert (await model.reply("", [*ASKED, kept, answers], [PYTHON])).said.text == "42"


async def test_a_call_without_its_answer_is_refused_by_name(client: Client, api: Any) -> None:
    api.say(calls(("python", {"code": "1"})))
    model = client(api)
    first = await model.reply("", ASKED, [PYTHON])
    with pytest.raises(ModelRefused, match=r"without tool_result|did not have response"):
        await model.reply("", [*ASKED, first.said, Said(Role.USER, "Well?")], [PYTHON])


@pytest.mark.parametrize("trouble", [overloaded(), broken_off("For"), hung_up("For"), error(500, "api_error"),
                                     Answer(raw=b"<html>", status=502)])  # fmt: skip
async def test_a_turn_that_broke_is_tried_again_whole_and_its_tokens_are_counted(
    client: Client, api: Any, trouble: Answer
) -> None:
    api.say(trouble, text("Forty-two."))
    reply = await client(api).reply("", ASKED)
    assert (reply.said.text, reply.attempts) == ("Forty-two.", 2)
    assert api.asked[0] == api.asked[1]
    if trouble.break_after:
        assert reply.wasted.context > 0
        assert reply.usd > Price.listed(3, 15).of(reply.usage) * 0.999


async def test_a_wait_that_the_provider_names_is_kept(client: Client, api: Any) -> None:
    api.say(error(429, "rate_limit_error", "slow down", retry_after="17"), text("Yes"))
    await client(api).reply("", ASKED)
    assert api.waited == [17.0]


async def test_a_long_wait_is_left_to_the_goal(client: Client, api: Any) -> None:
    api.say(error(429, "rate_limit_error", "slow down", retry_after="3600"))
    with pytest.raises(ModelBusy) as found:
        await client(api).reply("", ASKED)
    assert found.value.retry_after_seconds == 3600
    assert api.waited == []


async def test_a_provider_that_stays_away_is_given_up_with_what_it_cost(client: Client, api: Any) -> None:
    api.say(*[broken_off("Fo")] * patience.ATTEMPTS)
    with pytest.raises(ModelBusy) as found:
        await client(api).reply("", ASKED)
    assert len(api.asked) == patience.ATTEMPTS
    assert found.value.wasted.context > 0 and found.value.usd > 0


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        (error(401, "authentication_error", "invalid x-api-key"), ModelRefused, "POSTDOC_BRAIN_KEY"),
        (error(402, "billing_error", "Your credit balance is too low"), ModelRefused, "no credit"),
        (error(403, "permission_error"), ModelRefused, "may not use"),
        (error(404, "not_found_error", "model: claude-opus-9"), ModelRefused, "Correct POSTDOC_BRAIN"),
        (error(400, "invalid_request_error", "max_tokens: too large"), ModelRefused, "max_tokens: too large"),
        (error(413, "request_too_large", "Request exceeds the maximum size"), ContextFull, "too long"),
    ],
)
async def test_a_refusal_is_one_sentence_and_is_not_repeated(
    client: Client, api: Any, said: Answer, kind: type[ModelError], words: str
) -> None:
    api.say(said)
    with pytest.raises(kind, match=words):
        await client(api).reply("", ASKED)
    assert len(api.asked) == 1


async def test_a_full_context_is_told_apart_from_other_bad_requests(client: Client, api: Any) -> None:
    words = "prompt is too long: 210000 tokens > 200000 maximum"
    if isinstance(api, ChatApi):
        words = "This model's maximum context length is 8192 tokens."
    api.say(error(400, "invalid_request_error", words))
    with pytest.raises(ContextFull):
        await client(api).reply("", ASKED)


@pytest.mark.parametrize(("word", "stop"), [("max_tokens", Stop.LENGTH), ("refusal", Stop.REFUSED)])
async def test_why_a_reply_ended(client: Client, api: Any, word: str, stop: Stop) -> None:
    api.say(text("I", stop=word))
    assert (await client(api).reply("", ASKED)).stop is stop


async def test_nobody_there(client: Client, api: Any) -> None:
    with pytest.raises(ModelBusy, match="could not be reached"):
        await client(api, url="http://127.0.0.1:9/v1").reply("", ASKED)


# --- what is one client's alone


@pytest.fixture
def messages_api() -> Iterator[MessagesApi]:
    with MessagesApi().serve() as made:
        yield made


async def test_what_was_said_before_is_read_from_the_cache(client: Client, messages_api: MessagesApi) -> None:
    messages_api.say(calls(("python", {"code": "1"})), text("1"))
    model, system = client(messages_api), "You are careful. " * 300
    first = await model.reply(system, ASKED, [PYTHON])
    answered = Said(Role.USER, "", results=(Result(first.said.calls[0].id, "1"),))
    second = await model.reply(system, [*ASKED, first.said, answered], [PYTHON])
    assert first.usage.cache_write > 1000 and second.usage.cache_read >= first.usage.cache_write
    assert second.usage.input + second.usage.cache_write < 200


async def test_thinking_goes_back_as_it_came(client: Client, messages_api: MessagesApi) -> None:
    thought = {"type": "thinking", "thinking": "6 * 7 is 42.", "signature": "c2ln"}
    messages_api.say(Answer([thought, {"type": "tool_use", "name": "python", "input": {"code": "6*7"}}], "tool_use"))
    messages_api.say(text("42"))
    model = client(messages_api, effort="high")
    first = await model.reply("", ASKED, [PYTHON])
    answered = Said(Role.USER, "", results=(Result(first.said.calls[0].id, "42"),))
    await model.reply("", [*ASKED, Said.from_dict(first.said.as_dict()), answered], [PYTHON])
    assert messages_api.asked[1]["messages"][1]["content"][0] == thought
    assert messages_api.asked[0]["output_config"] == {"effort": "high"}


async def test_no_key_that_lies_about_is_taken(
    client: Client, messages_api: MessagesApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "somebody-elses")
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "somebody-elses")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:9")
    messages_api.say(text("Hello"))
    assert (await client(messages_api).reply("", ASKED)).said.text == "Hello"
    assert "somebody-elses" not in str(messages_api.headers)


async def test_tokens_are_estimated_upwards_where_a_server_counts_none(client: Client) -> None:
    with ChatApi(counts=False).serve() as api:
        api.say(text("word " * 300))
        reply = await client(api).reply("", [Said(Role.USER, "x" * 3000)])
    assert reply.usage.input >= 3000 // 4 and reply.usage.output >= 1500 // 4


async def test_arguments_that_are_no_json_are_kept_as_they_are(client: Client) -> None:
    with ChatApi().serve() as api:
        api.say(Answer([{"type": "tool_use", "name": "python", "input": '{"code": '}], "tool_use"), text("Sorry"))
        model = client(api)
        first = await model.reply("", ASKED, [PYTHON])
        (call,) = first.said.calls
        assert (dict(call.arguments), call.malformed) == ({}, '{"code": ')
        answered = Said(Role.USER, "", results=(Result(call.id, "no JSON object", failed=True),))
        assert (await model.reply("", [*ASKED, first.said, answered], [PYTHON])).said.text == "Sorry"


# --- settings


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (BrainSettings("anthropic:claude-opus-4-6"), "POSTDOC_BRAIN_KEY is missing"),
        (BrainSettings("anthropic:claude-next-9", "k"), "POSTDOC_BRAIN_PRICE"),
        (BrainSettings("anthropic:claude-opus-4-6", "k", effort="huge"), "none of low, medium"),
        (BrainSettings("nobody:model", "k", price="1/2"), "'nobody' is no provider"),
        (BrainSettings("openai:qwen3", price="0/0"), "POSTDOC_BRAIN_URL"),
        (BrainSettings("openai:qwen3", price="free", url="http://127.0.0.1/v1"), "'free' is no price"),
        (BrainSettings("openai:qwen3", price="0/0", url="http://example.com/v1"), "in the clear"),
        (BrainSettings("openai:qwen3", price="0/0", url="https://k:s@example.com/v1"), "is no address"),
        (BrainSettings("anthropic:", "k"), "names no model"),
    ],
)
def test_settings_that_say_what_to_write_instead(settings: BrainSettings, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        model_of(settings)


def test_a_models_own_price_counts_every_kind_of_token() -> None:
    price = price_of("anthropic", "claude-sonnet-4-5-20250929")
    assert price.of(Usage(1_000_000, 1_000_000, 1_000_000, 1_000_000)) == pytest.approx(3 + 15 + 0.3 + 3.75)
    assert price_of("openai", "own", "1/2/0.5/4").of(Usage(2, 2, 2, 2)) == pytest.approx(15e-6)


@pytest.fixture
def chat_api() -> Iterator[ChatApi]:
    with ChatApi().serve() as made:
        yield made


async def test_an_address_of_ones_own_has_nothing_to_do_with_the_hub(
    client: Client, chat_api: ChatApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    chat_api.say(text("42"), error(402, "billing_error", "Your credit balance is too low"))
    assert (await client(chat_api).reply("", ASKED)).said.text == "42"
    with pytest.raises(ModelRefused, match="no credit"):
        await client(chat_api).reply("", ASKED)


async def test_a_provider_of_hugging_faces_is_not_asked_offline(
    client: Client, chat_api: ChatApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelRefused, match="HF_HUB_OFFLINE is set on this server") as found:
        await client(chat_api, brain="together:Qwen/Qwen3-8B", url="").reply("", ASKED)
    assert "POSTDOC_BRAIN_URL" in str(found.value) and found.value.usd == 0 and not chat_api.asked
