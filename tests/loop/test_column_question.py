"""Columns that can be read in two ways: a question on the issue, settled by a line of the recipe there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bot.conversation.messages import column_question
from tests.world import GOOD, World, goal_body, practice_world

ASKED = (
    "prepare.py: cannot tell which column to use: pick (whole numbers: 0, 1) says which of a and b is better, and not "
    "in words. Write into recipe.yaml `data_chosen_column: by(pick, 1=a, 0=b)`, or `data_chosen_column: by(pick, 1=b, "
    "0=a)`"
)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with practice_world(tmp_path) as found:
        found.start()
        found.wait_ready()
        yield found


def test_two_readings_become_a_question_on_the_issue_and_nothing_is_trained(world: World) -> None:
    world.runner.script(GOOD | {"data-01": {"fail": f"Reading\n{ASKED}"}})
    issue = world.open_goal(goal_body())
    world.until_event(issue, "refused")
    [body] = world.bot_comments(issue)
    assert "I can start as soon as this is answered" in body
    assert "`data_chosen_column: by(pick, 1=a, 0=b)`, or `data_chosen_column: by(pick, 1=b, 0=a)`" in body
    assert "Starting recipe" in body and not world.pulls()


@pytest.mark.parametrize(
    "line", ["prepare.py: no row is left of 3 with the columns a: dropped 3 empty prompt", "Traceback", ""]
)
def test_line_that_asks_nothing_is_no_question(line: str) -> None:
    assert column_question(line) is None


def test_names_of_columns_cannot_mention_anybody() -> None:
    said = column_question("prepare.py: cannot tell which column to use; the columns are @octocat, [x](http://y.z)")
    assert said is not None and "@octocat" not in said and "[x](http" not in said
