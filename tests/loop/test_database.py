"""A database that cannot be opened is one clear line; one that goes away is waited for; an older one is brought up."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa

from bot.errors import SettingsError, TransientError
from bot.loop.database import metadata, open_database
from bot.practice.auth import new_key_pair
from tests.postgres import PASSWORD, Postgres
from tests.world import GOOD, SECRET, World, practice_world


@pytest.mark.parametrize("url", ["sqlite:////proc/nowhere/journal.sqlite", "no-such-dialect://x", "not a url"])
def test_database_that_cannot_be_opened_is_one_clear_line(url: str) -> None:
    with pytest.raises(SettingsError) as error:
        open_database(url)
    assert "POSTDOC_DATABASE_URL" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda url, port: url.replace(f":{port}/", ":1/"), "refused"),
        (lambda url, port: url.replace(PASSWORD, "wrong-secret-55"), "password authentication failed"),
        pytest.param(lambda url, port: url, "does not exist", marks=pytest.mark.slow),
        pytest.param(
            lambda url, port: url.replace("postgresql://", "postgresql+nodriver://"), "nodriver", marks=pytest.mark.slow
        ),
    ],
)
def test_serve_without_its_database_is_one_line_and_exit_code_2(
    postgres: Postgres, tmp_path: Path, change: object, says: str
) -> None:
    url = change(postgres.url("good"), postgres.port)
    key = new_key_pair()[0]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("POSTDOC_")} | {
        "POSTDOC_APP_ID": "1", "POSTDOC_PRIVATE_KEY": key, "POSTDOC_WEBHOOK_SECRET": SECRET, "POSTDOC_PORT": "0",
        "POSTDOC_DATA_FOLDER": str(tmp_path), "POSTDOC_DATABASE_URL": url,
    }  # fmt: skip
    command = [sys.executable, "-m", "bot", "serve", "--port", "0"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert says in done.stderr
    assert "POSTDOC_DATABASE_URL" in done.stderr
    assert PASSWORD not in done.stderr
    assert "wrong-secret-55" not in done.stderr


def test_columns_and_indexes_of_a_newer_version_are_added_and_an_older_one_still_writes(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as old, old:
        old.execute("CREATE TABLE leases (name TEXT PRIMARY KEY, holder TEXT NOT NULL, fence INTEGER NOT NULL)")
        old.execute("INSERT INTO leases VALUES ('inbox', 'somebody', 7)")
    engine = open_database(f"sqlite:///{path}")
    with engine.begin() as connection:
        assert connection.execute(sa.text("SELECT fence, poked FROM leases")).all() == [(7, 0)]
        connection.execute(sa.text("INSERT INTO leases (name, holder, fence) VALUES ('other', '', 1)"))
    indexes = {index["name"] for table in ("leases", "journal") for index in sa.inspect(engine).get_indexes(table)}
    assert indexes >= {"ix_leases_holder", "journal_goals"}
    engine.dispose()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_many_may_open_an_empty_database_at_once(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    url = f"sqlite:///{tmp_path / 'new.sqlite'}"
    if kind == "postgresql":
        url = request.getfixturevalue("postgres").create(tmp_path.name)
    failed: list[BaseException] = []

    def open_it() -> None:
        try:
            open_database(url).dispose()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    engine = open_database(url)
    assert set(metadata.tables) <= set(sa.inspect(engine).get_table_names())
    engine.dispose()


def test_what_may_pass_is_a_transient_error(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path / 'locked.sqlite'}")
    other = sqlite3.connect(tmp_path / "locked.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(TransientError, match="locked"), engine.connect() as connection:  # noqa: PT012
        connection.exec_driver_sql("PRAGMA busy_timeout=50")
        connection.execute(sa.text("INSERT INTO leases (name, holder, fence) VALUES ('x', '', 1)"))
    other.close()
    engine.dispose()


@pytest.mark.slow
def test_database_that_goes_away_is_waited_for(postgres: Postgres, tmp_path: Path) -> None:
    """Deliveries are refused, never acknowledged; the process says that it is not ready; then all goes on."""
    url = postgres.create(tmp_path.name)
    settings = {"POSTDOC_DATABASE_URL": url, "POSTDOC_LEASE_SECONDS": "3"}
    with practice_world(tmp_path, settings=settings) as world:
        world.runner.script(GOOD | {"train-01": {"curve": "flat", "hold": True}})
        world.start()
        world.wait_ready()
        issue = world.open_goal()
        world.until_job("train-01")
        postgres.stop()
        try:
            refused = deliver(world, "while-away")
            world.until(lambda: httpx.get(f"{world.bot_url}/readyz", timeout=20).status_code == 503, "unreadiness")
            assert refused.status_code == 503, refused.text
            assert refused.headers["Retry-After"]
            assert httpx.get(f"{world.bot_url}/healthz", timeout=20).status_code == 200
            second = world.open_goal(title="While the database is away")
            world.runner.release("train-01")
            # Longer than a lease: nobody took it meanwhile, so it is this process's still.
            httpx.get(f"{world.bot_url}/healthz", timeout=20)
            threading.Event().wait(4)
        finally:
            postgres.start()
        world.until(lambda: httpx.get(f"{world.bot_url}/readyz", timeout=20).status_code == 200, "readiness")
        assert deliver(world, "while-away").status_code == 202
        assert world.until_ended(issue, 60) == "met"
        assert world.until_ended(second, 60) == "met"  # the delivery that was refused was asked for again
        assert len(set(world.runner.launches())) == len(world.runner.launches())
        assert "Traceback" not in world.log(), world.log()
        assert PASSWORD not in world.log()


@pytest.mark.slow
def test_pursuit_on_postgresql(postgres: Postgres, tmp_path: Path) -> None:
    url = postgres.create(tmp_path.name).replace("postgresql://", "postgres://")
    with practice_world(tmp_path, settings={"POSTDOC_DATABASE_URL": url}) as world:
        world.start()
        world.wait_ready()
        issue = world.open_goal()
        assert world.until_ended(issue, 60) == "met"
        assert len(world.reviews(world.pulls()[0]["number"])) == 2
        assert not (tmp_path / "data" / "postdoc.sqlite").exists()


def deliver(world: World, delivery_id: str) -> httpx.Response:
    body = json.dumps({"zen": "Keep it logically awesome."}).encode()
    signature = "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    headers = {"X-GitHub-Event": "issues", "X-GitHub-Delivery": delivery_id, "X-Hub-Signature-256": signature}
    return httpx.post(f"{world.bot_url}/webhook", content=body, headers=headers, timeout=30)
