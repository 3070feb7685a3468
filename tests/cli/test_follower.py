"""Following a bot's journals: until the end, through a bot that dies, and with goals that others open meanwhile."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, cast

import pytest
from rich.console import Console

from bot.domain.experiment import Experiment, State
from bot.errors import PlatformError
from bot.practice import demo
from bot.practice.demo import MOST_RESTARTS, Follower
from bot.practice.goals import practice_place
from bot.practice.terminal import Screen
from bot.practice.world import PracticeWorld
from tests.cli.recorded import rows


class RecordedWorld:
    """Serves a recorded journal a few events at a time, from a bot that dies when it is told to."""

    def __init__(self, journals: dict[int, list[dict[str, Any]]], *, dies: int = 0, at_once: int = 3) -> None:
        self.place, self.log_path = practice_place(0), Path("/nowhere/bot.log")
        self.journals, self.dies, self.at_once, self.starts = journals, dies, at_once, 0

    @property
    def bot_runs(self) -> bool:
        return self.starts >= self.dies

    @property
    def bot_exit_code(self) -> int:
        return -9

    def start_bot(self) -> None:
        self.starts += 1

    def last_words(self) -> str:
        return "no more"

    def page(self, path: str = "") -> str:
        return f"http://127.0.0.1:1/acme/tiny-speller/{path}"

    def goals(self) -> list[dict[str, Any]]:
        return [{"goal_id": f"acme/tiny-speller#{issue}"} for issue in self.journals]

    def events(self, issue: int, after: int = -1) -> tuple[list[dict[str, Any]], None]:
        newer = [row for row in self.journals[issue] if row["seq"] > after]
        return newer[: self.at_once], None


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "POLL_SECONDS", 0.0)


def follower(world: RecordedWorld, **options: Any) -> tuple[Follower, io.StringIO]:
    written = io.StringIO()
    screen = Screen(Console(file=written, width=300, force_terminal=False, no_color=True), started_at=rows()[0]["at"])
    return Follower(cast(PracticeWorld, world), screen, 1, **options), written


def test_goal_is_followed_to_its_end_and_everything_is_told_once() -> None:
    follow, written = follower(RecordedWorld({1: rows()}))
    x = follow.until_over()
    assert x.state is State.MET
    lines = written.getvalue().splitlines()
    assert sum(" commit: " in line for line in lines) == 1
    assert lines[-1].startswith(" 2:25  met: ")


def test_bot_that_was_killed_is_started_again_and_that_is_said() -> None:
    world = RecordedWorld({1: rows()}, dies=2)
    follow, written = follower(world)
    assert follow.until_over().state is State.MET
    assert world.starts == 2
    assert written.getvalue().count("was killed (signal 9); started again") == 2


def test_bot_that_dies_again_and_again_is_given_up() -> None:
    follow, _ = follower(RecordedWorld({1: rows()}, dies=MOST_RESTARTS + 5))
    with pytest.raises(PlatformError, match="no more"):
        follow.until_over()


def test_goal_that_somebody_else_opened_is_told_with_its_number() -> None:
    other = [row | {"at": row["at"] + 1} for row in rows()]
    follow, written = follower(RecordedWorld({1: rows(), 3: other}))
    follow.until_over()
    said = written.getvalue()
    assert "goal: #3 opened" in said
    assert "baseline: #3 0.0 %" in said
    assert "baseline: 0.0 %" in said


def test_question_for_consent_is_handed_on_once_for_each_head() -> None:
    journal = rows()[:10]
    head = journal[9]["data"]["head_sha"]
    asked_row = {"seq": 10, "kind": "consent_asked", "key": "asked", "at": 1.0, "data": {"head_sha": head}}
    world = RecordedWorld({1: [*journal, asked_row]})
    asked: list[str] = []

    def agree(x: Experiment) -> None:
        asked.append(x.head_sha)
        consented = rows()[10:]
        world.journals[1] += [row | {"seq": row["seq"] + 1} for row in consented]

    follow, _ = follower(world, on_consent_asked=agree)
    assert follow.until_over().state is State.MET
    assert asked == [head]
