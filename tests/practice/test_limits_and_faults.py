"""Rate limits, conditional requests, and the faults that tests switch on."""

from __future__ import annotations

import time

import httpx
import pytest

from .conftest import World


def headers(answer: httpx.Response) -> tuple[int, int, int, str]:
    names = ("limit", "remaining", "used")
    limit, remaining, used = (int(answer.headers[f"x-ratelimit-{name}"]) for name in names)
    return limit, remaining, used, answer.headers["x-ratelimit-resource"]


def test_rate_limit_counts_down_for_each_token(world: World, ada: httpx.Client, bot: httpx.Client):
    assert headers(ada.get(world.repo())) == (5000, 4999, 1, "core")
    assert headers(ada.get(world.repo())) == (5000, 4998, 2, "core")
    assert headers(bot.get(world.repo())) == (5000, 4999, 1, "core")
    assert headers(world.client().get(world.repo()))[0] == 60
    reset = int(ada.get(world.repo()).headers["x-ratelimit-reset"])
    assert 3500 < reset - time.time() <= 3600
    overview = ada.get("/rate_limit").json()
    assert overview["rate"]["used"] == 3
    assert ada.get("/rate_limit").json()["rate"]["used"] == 3
    world.clock.advance(hours=1, seconds=1)
    assert headers(ada.get(world.repo()))[2] == 1


def test_graphql_has_its_own_limit(world: World, ada: httpx.Client):
    body = world.graphql(ada, "{ viewer { login } rateLimit { limit used remaining cost resetAt } }")
    assert body["data"]["viewer"] == {"login": "ada"}
    assert (body["data"]["rateLimit"]["limit"], body["data"]["rateLimit"]["used"]) == (5000, 1)
    assert headers(ada.get(world.repo()))[2] == 1


def test_exhausted_limit_is_403_with_retry_after(world: World, ada: httpx.Client):
    world.forge.limits.set_limit("core", 2)
    assert [ada.get(world.repo()).status_code for _ in range(3)] == [200, 200, 403]
    answer = ada.get(world.repo())
    assert "API rate limit exceeded" in answer.json()["message"]
    assert answer.headers["x-ratelimit-remaining"] == "0"
    assert int(answer.headers["retry-after"]) > 0
    world.clock.advance(hours=1)
    assert ada.get(world.repo()).status_code == 200


def test_unchanged_answer_is_304_and_free(world: World, ada: httpx.Client):
    first = ada.get(world.repo("/issues"))
    tag = first.headers["etag"]
    again = ada.get(world.repo("/issues"), headers={"if-none-match": tag})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert again.headers["x-ratelimit-used"] == first.headers["x-ratelimit-used"]
    ada.post(world.repo("/issues"), json={"title": "x"})
    assert ada.get(world.repo("/issues"), headers={"if-none-match": tag}).status_code == 200


@pytest.mark.parametrize("status", [403, 429])
def test_secondary_limit(world: World, ada: httpx.Client, status: int):
    world.forge.faults.secondary_limit(1, retry_after_seconds=7, status=status)
    answer = ada.post(world.repo("/issues"), json={"title": "x"})
    assert (answer.status_code, answer.headers["retry-after"]) == (status, "7")
    assert "secondary rate limit" in answer.json()["message"]
    assert world.names("issues") == []
    assert ada.post(world.repo("/issues"), json={"title": "x"}).status_code == 201


def test_server_error_on_what_matches(world: World, ada: httpx.Client):
    world.forge.faults.server_error(2, 503, lambda method, path: method == "POST" and path.endswith("/issues"))
    assert ada.get(world.repo("/issues")).status_code == 200
    codes = [ada.post(world.repo("/issues"), json={"title": "x"}).status_code for _ in range(3)]
    assert codes == [503, 503, 201]
    assert len(ada.get(world.repo("/issues")).json()) == 1


@pytest.mark.parametrize("performed", [False, True])
def test_dropped_connection_before_or_after_the_work(world: World, ada: httpx.Client, performed: bool):
    world.forge.faults.drop_connection(1, performed=performed)
    with pytest.raises(httpx.TransportError):
        ada.post(world.repo("/issues"), json={"title": "x"})
    assert len(ada.get(world.repo("/issues")).json()) == performed


def test_faults_reach_graphql_too_and_can_be_cleared(world: World, ada: httpx.Client):
    world.forge.faults.server_error(1, matches=lambda _, path: path == "/graphql")
    answer = ada.post(f"{world.url}/api/graphql", json={"query": "{ viewer { login } }"})
    assert answer.status_code == 502
    world.forge.faults.server_error(100)
    world.forge.faults.clear()
    assert ada.get(world.repo()).status_code == 200
