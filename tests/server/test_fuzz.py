"""Whatever is sent, the door answers below 500 and says nothing of its insides, and no handler breaks on it.

The bodies are GitHub's payloads with some of their values replaced, and any JSON, and any bytes; the comments are
Markdown with commands in it. The quick test draws fewer of them than the slow one.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bot.conversation.events import _ACTIONS
from bot.domain.fold import experiment_of
from bot.server.app import Bot, create_app
from tests.server.conftest import (
    GOAL,
    LOGIN,
    FakeGitHub,
    closed,
    commented,
    edited,
    make_bot,
    opened,
    outcomes,
    payload,
    pull,
    pushed,
    reopened,
    signed,
)  # fmt: skip

AT_ONCE = 40
BASES = [
    opened(), edited("its text", "B", at=5), commented("/postdoc run"), commented("/postdoc help", number=2, pull=True),
    payload("opened", pull_request=pull()), closed(at=5), reopened(at=6), pushed("a", "b", at=7),
    payload("submitted", pull_request=pull(), review={"id": 3, "body": "/postdoc stop", "commit_id": "abc"}),
    payload("requested_action", check_run={"id": 1}, requested_action={"identifier": "accept"}),
    payload("created", installation={"id": 3, "account": {"login": "acme"}}, repositories=[{"full_name": "acme/x"}]),
]  # fmt: skip
WORDS = [
    "/postdoc", "run", "stop", "set", "learning_rate=1e-3", "a=b", "accept", "D1", "D999999", "resume", "+2", "+99",
    "budget", "+5usd", "\n\n", "> ", "```\n", "`", "# ", "<!-- ", " -->", "[x](y) ", '"', "'", "\\", "\u202e", "\x00",
    "é" * 20, "- [x] Stop <!-- postdoc:box stop -->", "@ada ", "9" * 40, "$(id)", "\ud800", " ",
]  # fmt: skip
text = st.lists(st.sampled_from(WORDS), max_size=8).map("".join) | st.text(max_size=12)
odd = st.one_of(
    st.none(), st.booleans(), st.integers(-1, 3), st.integers(), st.floats(), text,
    st.sampled_from([[], {}, [None], {"a": None}, "9999-99-99", "0001-01-01T00:00:00Z", 10**400, "x" * 300]),
)  # fmt: skip
json_text = st.recursive(
    odd, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3), max_leaves=6
)


def paths(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*at, key)
        yield from paths(inner, (*at, key))


PATHS = [list(paths(base)) for base in BASES]


@st.composite
def bent(draw: st.DrawFn) -> bytes:
    """A payload of GitHub's with one to three values replaced."""
    which = draw(st.integers(0, len(BASES) - 1))
    found = json.loads(json.dumps(BASES[which]))
    for _ in range(draw(st.integers(1, 3))):
        *way, last = draw(st.sampled_from(PATHS[which]))
        place = found
        for key in way:
            place = place[key] if isinstance(place, dict) and key in place else None
        if isinstance(place, dict):
            place[last] = draw(odd)
    return json.dumps(found).encode()


comments = st.tuples(text, text, st.integers(1, 3)).map(
    lambda drawn: json.dumps(
        commented(drawn[0], number=drawn[2], pull=drawn[2] == 2)
        | {"action": "edited", "changes": {"body": {"from": drawn[1]}}}
    ).encode()
)
deliveries = st.tuples(
    st.sampled_from([*_ACTIONS, "star", "ping"]),
    st.one_of(
        bent(), bent(), comments, json_text.map(lambda value: json.dumps(value).encode()), st.binary(max_size=60)
    ),
)


@contextmanager
def fuzzed_bot(folder: Path) -> Iterator[tuple[Bot, asyncio.Runner]]:
    bot, github = make_bot(folder), FakeGitHub()
    github.pulls = {2: pull(2), 3: pull(3, ref="postdoc/9-x")}
    login = mock.AsyncMock(return_value=LOGIN)
    with (
        mock.patch.object(bot.app, "login", login),
        mock.patch.object(bot.app, "repository", return_value=github),
        mock.patch.object(bot.engine, "turn", return_value=None),
        mock.patch.object(bot.reader, "_may_read", return_value=True),
        mock.patch.object(bot.reader._handlers, "_observe", None),
        asyncio.Runner() as runner,
    ):
        reading = runner.get_loop().create_task(bot.reader.run())
        yield bot, runner
        reading.cancel()
        runner.run(asyncio.sleep(0))
    bot.inbox.close()


@pytest.mark.parametrize(
    "examples", [30, pytest.param(250, marks=[pytest.mark.slow, pytest.mark.timeout(900)])], ids=["1200", "10000"]
)
def test_nothing_that_is_sent_breaks_anything(tmp_path: Path, examples: int) -> None:
    ids = itertools.count()
    sent = 0
    with fuzzed_bot(tmp_path) as (bot, runner):
        transport = httpx.ASGITransport(app=create_app(bot), raise_app_exceptions=True)
        client = httpx.AsyncClient(transport=transport, base_url="http://bot.test")

        async def deliver(drawn: list[tuple[str, bytes]]) -> None:
            answers = await asyncio.gather(
                *(
                    client.post("/webhook", content=body, headers=signed(body, event=event, delivery=str(next(ids))))
                    for event, body in drawn
                )
            )
            for answer in answers:
                assert answer.status_code == 202
                assert "Traceback" not in answer.text

        @settings(
            max_examples=examples, deadline=None, database=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
        )  # fmt: skip
        @given(st.lists(deliveries, min_size=AT_ONCE, max_size=AT_ONCE))
        def fuzz(drawn: list[tuple[str, bytes]]) -> None:
            nonlocal sent
            runner.run(deliver(drawn))
            sent += len(drawn)

        async def settled() -> None:
            async with asyncio.timeout(300):
                while bot.inbox.backlog()[0]:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)

        fuzz()
        runner.run(settled())
        runner.run(client.aclose())
        assert sent >= examples * AT_ONCE * 0.9
        assert [outcome for outcome in outcomes(bot) if outcome.startswith("error")] == []
        goals = bot.journal.goals()
        assert GOAL in goals
        for goal_id in goals:
            assert experiment_of(goal_id, bot.journal.read(goal_id)).issue >= 0
