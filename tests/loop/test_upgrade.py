"""A goal goes on when the code under it changes: forward to a newer version, and back to an older one.

The newer version is a copy of the package in which something real is different: the order of two actions, a new kind of
event, new fields in events and in what they hold, a new table column, the application's version.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from bot.domain.experiment import Event, EventKind
from bot.domain.fold import experiment_of
from bot.domain.goal import GoalId
from tests.world import GOOD, ROOT, World, practice_world

HELD = GOOD | {"train-01": {"curve": "flat", "hold": True}}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with practice_world(tmp_path) as found:
        found.runner.script(HELD)
        yield found


def newer(folder: Path, *changes: tuple[str, str, str]) -> Path:
    """A copy of the code, with (file, pattern, replacement) changes that must each apply and leave it Python."""
    for name in ("bot", "runners", "templates", "tests"):
        shutil.copytree(
            ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "node_modules", ".ruff_cache")
        )
    changes = (("bot/__init__.py", r'__version__ = ".*"', '__version__ = "99.0.0"'), *changes)
    for file, pattern, replacement in changes:
        path = folder / file
        text, count = re.subn(pattern, replacement, path.read_text(encoding="utf-8"), count=1, flags=re.DOTALL)
        assert count == 1, f"{file}: {pattern}"
        compile(text, file, "exec")
        path.write_text(text, encoding="utf-8")
    return folder


NEW_FIELDS = (
    ("bot/domain/experiment.py", r"    termination_rate: float \| None = None\n", r"\g<0>    novelty: float = 1.5\n"),
    ("bot/domain/goal.py", r"    seed: int = 0\n", r"\g<0>    novelty: str = 'new'\n"),
    ("bot/loop/leases.py", r'(    sa.Column\("poked".*?\),\n)', r'\g<1>    sa.Column("novelty", sa.Text),\n'),
)
_CLOSED = r"(    if x\.closed and [^\n]*\n        return [^\n]*\n)"
_STOPPED = r"(    if x\.stop_requested [^\n]*\n        return [^\n]*\n)"
NEW_ORDER = (
    ("bot/loop/policy.py", _CLOSED + r"(.*?)" + _STOPPED, r"\g<3>\g<1>\g<2>"),
    # The data is built before the untouched base model is evaluated.
    (
        "bot/loop/policy.py",
        r"(        if policy_covers\(x\) is None and x\.baseline is None:\n)",
        r"        if (early := _data_ready(x)) is not None:\n            return early\n\g<1>",
    ),
)
NEW_KIND = (
    ("bot/domain/experiment.py", r'    CRASHED = "crashed"\n', r'\g<0>    ADMIRED = "admired"\n'),
    (
        "bot/domain/fold.py",
        r"    EventKind\.CRASHED: _on_crashed,\n",
        r"\g<0>    EventKind.ADMIRED: lambda x, e: None,\n",
    ),
    (
        "bot/loop/engine.py",
        r"        await self\._reach\(\"performed\", goal_id, action\)\n",
        r'\g<0>        events = [*events, NewEvent(EventKind.ADMIRED, f"admired/{n}", {})]\n',
    ),
)


def half(world: World, root: Path) -> int:
    """Open a goal under the code in `root`, and kill the process while the first training job runs."""
    world.root = root
    world.start()
    world.wait_ready()
    issue = world.open_goal()
    world.until_job("train-01")
    world.kill()
    world.runner.release("train-01")
    return issue


def assert_nothing_twice(world: World, issue: int) -> None:
    assert len(set(world.runner.launches())) == len(world.runner.launches())
    [pull] = world.pulls()
    for number in (issue, pull["number"]):
        keys = [body.splitlines()[0] for body in world.bot_comments(number)]
        assert len(set(keys)) == len(keys)
    assert len(world.reviews(pull["number"])) == 2


def version(world: World) -> str:
    return str(httpx.get(f"{world.bot_url}/healthz", timeout=20).json()["version"])


def test_goal_begun_by_the_old_version_is_finished_by_the_new(world: World, tmp_path: Path) -> None:
    issue = half(world, ROOT)
    world.root = newer(tmp_path / "new", *NEW_FIELDS, *NEW_ORDER, *NEW_KIND)
    world.start()
    world.wait_ready()
    assert version(world) == "99.0.0"
    assert world.until_ended(issue, 60) == "met"
    assert "admired" in {event["kind"] for event in world.events(issue)}
    assert_nothing_twice(world, issue)


ALONE = (
    ("bot/domain/scripts.py", r'(return \{PREPARE: SCRIPTS / "prepare\.py"\}) \| modules', r"\g<1>"),
    ("templates/scripts/prepare.py", r'"""Builds the training set:', r'"""Builds the training set by itself:'),
)


@pytest.mark.slow
def test_goal_whose_prepare_stands_alone_keeps_it(world: World, tmp_path: Path) -> None:
    """As older versions began goals: no package beside prepare.py, in the folder and in the jobs, up to the end."""
    issue = half(world, newer(tmp_path / "old", *ALONE))
    branch = world.pulls()[0]["head"]["ref"]
    folder = "experiments/0001-reverse"
    assert "by itself" in world.file(branch, f"{folder}/data/prepare.py")
    world.root = ROOT
    world.start()
    world.wait_ready()
    assert world.until_ended(issue, 60) == "met"
    assert "by itself" in world.file(branch, f"{folder}/data/prepare.py")
    run = json.loads(world.file(branch, f"{folder}/runs/02/run.json"))
    assert set(run["scripts"]) == {"train.py", "data/prepare.py"}
    work = world.runner.folder(world.first(issue, "data_checked")["job_id"])
    assert not (work / "data" / "columns").exists()
    assert_nothing_twice(world, issue)


@pytest.mark.slow
def test_goal_begun_by_the_new_version_is_finished_by_the_old(world: World, tmp_path: Path) -> None:
    """A rollback: what the new version wrote beside what the old one knows does not disturb it."""
    issue = half(world, newer(tmp_path / "new", *NEW_FIELDS, *NEW_ORDER))
    assert any("novelty" in str(event["data"]) for event in offline_events(world))
    world.root = ROOT
    world.start()
    world.wait_ready()
    assert version(world) != "99.0.0"
    assert world.until_ended(issue, 60) == "met"
    assert_nothing_twice(world, issue)


@pytest.mark.slow
def test_goal_with_an_event_only_the_new_version_knows_is_left_alone_by_the_old(world: World, tmp_path: Path) -> None:
    """And by nothing else: the old version pursues other goals, and the new one goes on where it stopped."""
    root = newer(tmp_path / "new", *NEW_KIND)
    issue = half(world, root)
    before = (offline_events(world), world.bot_comments(issue), world.runner.launches())
    world.root = ROOT
    world.start()
    world.wait_ready()
    other = world.open_goal(title="Another")
    world.until_event(other, "contract_read")
    world.until(lambda: "is left alone" in world.log(), "the notice")
    assert "was written by a newer version of Postdoc" in world.log()
    world.comment(issue, "/postdoc status")
    world.until_event(issue, "command")
    world.runner.release("train-01")
    assert world.until_ended(other, 60) == "met"
    kinds = [event["kind"] for event in world.events(issue)]
    assert kinds == [str(event["kind"]) for event in before[0]] + ["command"]
    assert world.bot_comments(issue) == before[1]
    world.kill()
    world.root = root
    world.start()
    world.wait_ready()
    assert world.until_ended(issue, 60) == "met"


def test_event_that_cannot_be_read_ends_the_telling_and_says_why() -> None:
    opened = {
        "owner": "acme", "repository": "lab", "issue": 1, "installation_id": 1, "author": "ada", "author_id": 1,
        "title": "t", "body": "b",
    }  # fmt: skip
    journal = [
        Event(0, EventKind.GOAL_OPENED, "opened", 1.0, opened),
        Event(1, "admired", "a", 2.0, {}),  # type: ignore[arg-type]
        Event(2, EventKind.STOPPED, "stopped", 3.0, {"by": "ada"}),
    ]
    x = experiment_of(GoalId("acme/lab#1"), journal)
    assert x.unreadable == "event 1 (`admired`) was written by a newer version of Postdoc"
    assert x.length == 3
    assert x.stop_requested is None
    journal[1] = Event(1, EventKind.ENDED, "e", 2.0, {"state": "transcended", "reason": ""})
    assert "another version" in experiment_of(GoalId("acme/lab#1"), journal).unreadable


def offline_events(world: World) -> list[dict[str, object]]:
    with contextlib.closing(sqlite3.connect(world.folder / "data" / "postdoc.sqlite")) as connection:
        rows = connection.execute("SELECT kind, data FROM journal WHERE goal_id LIKE '%#1' ORDER BY seq")
        return [{"kind": kind, "data": json.loads(data)} for kind, data in rows]
