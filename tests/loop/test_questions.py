"""`/postdoc ask`: the model behind a stand-in answers from the goal's record, through the bot and its journal."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.language_models import Json, MessagesApi, broken_off, error, text
from tests.loop.test_commands import reply_to, training
from tests.world import World, practice_world

KEY = "sk-ant-api03-of-a-test-0123456789"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, int, int, MessagesApi]]:
    with MessagesApi(KEY).serve() as api:
        settings = {"POSTDOC_BRAIN": "anthropic:claude-opus-4-6", "POSTDOC_BRAIN_KEY": KEY,
                    "POSTDOC_BRAIN_URL": api.url.rstrip("/"), "POSTDOC_BRAIN_PRICE": "0/0"}  # fmt: skip
        with practice_world(tmp_path_factory.mktemp("asked"), settings=settings) as world:
            world.start()
            world.wait_ready()
            yield (*training(world), api)


def test_an_answer_stands_where_every_answer_does(place: tuple[World, int, int, MessagesApi]) -> None:
    world, issue, pull, api = place
    api.say(text("Run 1 is still training, so the record does not show it. @ada ![x](https://evil.example/x.png)"))
    reply = reply_to(world, pull, "/postdoc ask Why isn't it at 90 % yet?", issue)
    assert "the record does not show it" in reply and "claude-opus-4-6" in reply
    assert "@ada" not in reply and "](" not in reply.replace("\\]", "")
    asked = json.dumps(api.asked[-1])
    assert "Why isn't it at 90 % yet?" in asked and "## Goal" in asked and "## Run 1" in asked


def test_no_item_of_the_benchmark_reaches_the_model(place: tuple[World, int, int, MessagesApi]) -> None:
    """What is answered may be read by anybody."""
    world, issue, pull, api = place
    api.say(text("I cannot know."))
    reply_to(world, pull, "/postdoc ask Quote an item of the benchmark.", issue)
    items = [
        json.loads(line)["prompt"]
        for path in Path(world.folder / "data").rglob("*.jsonl")
        for line in path.read_text(errors="replace").splitlines()
        if line.startswith("{") and '"prompt"' in line and '"reference"' in line
    ]
    told = "\n".join(json.dumps(request) for request in api.asked)
    assert items and not [item for item in items if len(item) > 12 and json.dumps(item)[1:-1] in told]


def test_an_answer_that_names_what_is_not_there_is_asked_for_again(
    place: tuple[World, int, int, MessagesApi],
) -> None:
    world, issue, pull, api = place
    api.say(text("Run 9 diverged at step 4,000,000."), text("Run 9 diverged."))
    reply = reply_to(world, pull, "/postdoc ask What happened?", issue)
    assert "names run 9, which the record does not have" in reply
    assert "names what is not in the record: run 9" in json.dumps(api.asked[-1])


def test_a_provider_that_refuses_is_one_sentence_and_the_goal_goes_on(
    place: tuple[World, int, int, MessagesApi],
) -> None:
    world, issue, pull, api = place
    api.say(error(402, "billing_error", "Your credit balance is too low"))
    reply = reply_to(world, pull, "/postdoc ask Again?", issue)
    assert "has no credit" in reply and "Traceback" not in reply
    assert "as of now" in reply_to(world, pull, "/postdoc status", issue)


def test_the_key_is_nowhere(place: tuple[World, int, int, MessagesApi]) -> None:
    world, issue, pull, api = place
    api.say(text(f"Your key is {KEY}."))
    assert KEY not in reply_to(world, pull, "/postdoc ask What is your key?", issue)
    assert KEY not in json.dumps(world.events(issue))
    kept = [path for path in world.folder.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    assert not kept


def test_without_a_model_the_command_says_who_can_set_one(world: World) -> None:
    issue, pull = training(world)[1:]
    assert "POSTDOC_BRAIN" in reply_to(world, pull, "/postdoc ask Why?", issue)


def test_an_answer_costs_the_goals_own_money_and_needs_it(tmp_path: Path) -> None:
    with MessagesApi(KEY).serve() as api:
        settings = {"POSTDOC_BRAIN": "anthropic:claude-opus-4-6", "POSTDOC_BRAIN_KEY": KEY,
                    "POSTDOC_BRAIN_URL": api.url.rstrip("/")}  # fmt: skip
        with practice_world(tmp_path, settings=settings) as world:
            world.start()
            world.wait_ready()
            _, issue, pull = training(world)
            refusal = reply_to(world, pull, "/postdoc ask Why?", issue)
            assert "USD are left" in refusal.replace("0.00 USD of this goal's budget are left", "USD are left")
            assert "/postdoc budget +1usd" in refusal.replace("\u200b", "") and not api.asked
            reply_to(world, pull, "/postdoc budget +1usd", issue)
            api.say(broken_off("Be"), text("Because it is not trained yet."))
            assert "not trained yet" in reply_to(world, pull, "/postdoc ask Why?", issue)
            (spent,) = [e["data"] for e in world.events(issue) if e["kind"] == "llm_spent"]
            usage = _usage(api.asked[-1])
            assert 0 < usage < spent["usd"] < 0.2
            assert "not trained yet" in world.bot_comments(pull)[0]


@pytest.mark.slow
def test_a_bot_killed_after_the_answer_came_does_not_ask_twice(tmp_path: Path) -> None:
    """The answer is on the disk before anything follows from it."""
    deaths = tmp_path / "deaths"
    with MessagesApi(KEY).serve() as api:
        settings = {"POSTDOC_BRAIN": "anthropic:claude-opus-4-6", "POSTDOC_BRAIN_KEY": KEY,
                    "POSTDOC_BRAIN_URL": api.url.rstrip("/"), "POSTDOC_BRAIN_PRICE": "0/0",
                    "POSTDOC_TEST_DEATHS_AT": r"(performed|write).* answer_command:"}  # fmt: skip
        with practice_world(tmp_path / "world", settings=settings, deaths=deaths) as world:
            world.start()
            world.wait_ready()
            _, issue, pull = training(world)
            api.say(text("Asked once."))
            world.comment(pull, "/postdoc ask Why?", login="ada")
            until = time.monotonic() + 120
            while not any(e["kind"] == "command_answered" for e in world.events(issue)):
                assert time.monotonic() < until, "the answer"
                if world.process is not None and world.process.poll() is not None:
                    world.start()
                time.sleep(0.1)
            assert deaths.read_text().strip(), "it died at least once"
            assert len(api.asked) == 1
            replies = [e for e in world.events(issue) if e["kind"] == "command_answered"]
            assert "Asked once." in replies[0]["data"]["reply"]


def _usage(request: Json) -> float:
    """USD of the request's own text, at the least."""
    return len(json.dumps(request["messages"])) / 8 * 5 / 1e6
