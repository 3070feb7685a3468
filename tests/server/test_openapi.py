"""schemathesis over whatever the server mounts: no request that its description allows or forbids is answered 5xx."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode

from tests.server.conftest import client_of, make_bot
from tests.world import practice_world


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The description of a running server that has a goal."""
    with practice_world(tmp_path_factory.mktemp("described")) as world:
        world.start()
        world.wait_ready(120)
        issue = world.open_goal()
        world.until(lambda: world.pulls() and world.events(issue), "a pull request", 120)
        yield schemathesis.openapi.from_url(f"{world.bot_url}/openapi.json")
        assert "Traceback" not in world.log()


def test_no_request_is_answered_with_a_server_error(described: Any) -> None:
    # By hand instead of `schema.parametrize`: the plugin reads names that pytest 9 no longer has.
    tried = 0
    for found in described.get_all_operations():
        operation = found.ok()

        @settings(max_examples=15, deadline=None, derandomize=True, phases=[Phase.explicit, Phase.generate],
                  suppress_health_check=list(HealthCheck))  # fmt: skip
        @given(case=st.one_of(operation.as_strategy(), operation.as_strategy(GenerationMode.NEGATIVE)))
        def asked(case: Any) -> None:
            answer = case.call(timeout=20)
            assert answer.status_code < 500, (case.method, case.formatted_path, answer.text[:500])
            assert "Traceback" not in answer.text

        asked()
        tried += 1
    assert tried >= 4


def test_the_webhook_takes_no_other_method(tmp_path: Path) -> None:
    async def ask() -> list[int]:
        bot = make_bot(tmp_path)
        async with client_of(bot) as client:
            answers = [await client.request(method, "/webhook") for method in ("GET", "PUT", "DELETE", "OPTIONS")]
        bot.inbox.close()
        return [answer.status_code for answer in answers]

    assert asyncio.run(ask()) == [405] * 4
