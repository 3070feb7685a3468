"""SIGTERM: nothing new is begun, what is in progress ends and is kept, and the process exits 0 within its limit."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import signal
import socket
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.world import GOOD, SECRET, World, practice_world


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A goal whose first review has been written and not yet recorded."""
    holds = tmp_path / "holds"
    holds.mkdir()
    (holds / "review").touch()
    settings = {"POSTDOC_TEST_HOLDS": str(holds), "POSTDOC_DRAIN_SECONDS": "10"}
    with practice_world(tmp_path, settings=settings) as found:
        found.runner.script(GOOD)
        found.start()
        found.wait_ready()
        assert found.open_goal() == 1
        found.until((holds / "review.reached").exists, "the review's effect")
        yield found


def terminate(world: World) -> float:
    assert world.process is not None
    world.process.send_signal(signal.SIGTERM)
    return time.monotonic()


def code(world: World, timeout_seconds: float) -> int:
    assert world.process is not None
    return world.process.wait(timeout=timeout_seconds)


def half_sent(world: World, delivery_id: str) -> tuple[socket.socket, bytes]:
    """A delivery whose second half has not been sent yet."""
    body = json.dumps({"zen": "x" * 2000}).encode()
    signature = "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    head = (
        f"POST /webhook HTTP/1.1\r\nHost: here\r\nContent-Length: {len(body)}\r\nX-GitHub-Event: issues\r\n"
        f"X-GitHub-Delivery: {delivery_id}\r\nX-Hub-Signature-256: {signature}\r\nConnection: close\r\n\r\n"
    )
    connection = socket.create_connection(("127.0.0.1", world.port), timeout=20)
    connection.sendall(head.encode() + body[:1000])
    time.sleep(0.2)
    return connection, body[1000:]


def test_action_in_progress_ends_and_a_request_in_flight_is_stored(world: World, tmp_path: Path) -> None:
    connection, rest = half_sent(world, "in-flight")
    terminate(world)
    world.until(lambda: httpx.get(f"{world.bot_url}/readyz", timeout=5).status_code == 503, "the readiness to end")
    (tmp_path / "holds" / "review").unlink()
    time.sleep(0.5)
    with connection, connection.makefile("rb") as reader:
        connection.sendall(rest)
        answer = reader.read().decode()
    assert answer.startswith("HTTP/1.1 202"), answer
    assert code(world, 60) == 0
    assert "Traceback" not in world.log()
    kinds = journal(world)
    assert kinds.count("reviewed") == 1
    assert kinds[-1] == "reviewed"  # and no other action was begun
    assert stored(world, "in-flight")
    world.start()
    world.wait_ready()
    assert world.until_ended(1) == "met"
    assert len(world.reviews(world.pulls()[0]["number"])) == 2


@pytest.mark.slow
def test_action_that_does_not_end_is_left_for_the_next_process(world: World, tmp_path: Path) -> None:
    asked_at = terminate(world)
    assert code(world, 60) == 0
    assert time.monotonic() - asked_at > 4  # it was given the time that a deployment leaves
    assert "reviewed" not in journal(world)
    (tmp_path / "holds" / "review").unlink()
    world.start()
    world.wait_ready()
    assert world.until_ended(1) == "met"
    assert len(world.reviews(world.pulls()[0]["number"])) == 2
    assert len(set(world.runner.launches())) == len(world.runner.launches())


@pytest.mark.slow
def test_second_signal_ends_it_at_once(world: World, tmp_path: Path) -> None:
    terminate(world)
    time.sleep(0.5)
    asked_at = terminate(world)
    assert code(world, 60) == 0
    assert time.monotonic() - asked_at < 6
    (tmp_path / "holds" / "review").unlink()
    world.start()
    world.wait_ready()
    assert world.until_ended(1) == "met"
    assert len(world.reviews(world.pulls()[0]["number"])) == 2


@pytest.mark.slow
def test_process_with_nothing_to_do_ends_quickly(tmp_path: Path) -> None:
    with practice_world(tmp_path) as world:
        world.start()
        world.wait_ready()
        asked_at = terminate(world)
        assert code(world, 60) == 0
        print(f"ended after {time.monotonic() - asked_at:.2f} s")
        assert "Traceback" not in world.log()
        assert not list((tmp_path / "data" / "executors").iterdir())


def journal(world: World) -> list[str]:
    return [str(row) for row in ask(world, "SELECT kind FROM journal ORDER BY goal_id, seq")]


def stored(world: World, delivery_id: str) -> bool:
    return bool(ask(world, "SELECT 1 FROM inbox WHERE delivery_id = ?", delivery_id))


def ask(world: World, statement: str, *values: object) -> list[object]:
    with contextlib.closing(sqlite3.connect(world.folder / "data" / "postdoc.sqlite")) as connection:
        return [row[0] for row in connection.execute(statement, values)]
