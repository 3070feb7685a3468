"""Adopting an edited goal: what is committed, what the fold makes of it, and when it is refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from bot.conversation.issue_form import goal_from_yaml
from bot.conversation.policy import Policy
from bot.domain.experiment import Event, EventKind, Experiment, State
from bot.domain.goal import Goal
from bot.loop.action import ActionKind
from bot.loop.actions.adoption import adopt_goal, adoption_problem
from bot.loop.policy import next_action
from tests.conversation.conftest import RECIPE, SHA, Story, make_goal

HEAD = "f" * 40


@pytest.fixture
def story() -> Story:
    """A goal whose pull request stands."""
    return Story().opened().contracted().proposed()


@pytest.fixture
def after_two_runs(story: Story) -> Story:
    return story.first_run_falls_short().second_run_reaches()


class Repository:
    """Remembers what is written."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.said: list[str] = []

    async def commit(self, branch: str, *, expected_head: str, files: dict[str, bytes], **_: Any) -> str:
        assert (branch, expected_head) == ("postdoc/42-reverse", SHA[0])
        self.files = {path.rpartition("/")[2]: data for path, data in files.items()}
        return HEAD

    async def upsert_comment(self, number: int, key: str, body: str, **_: Any) -> int:
        self.said.append(body)
        return 1


def offered(story: Story, goal: Goal, recipe: str = RECIPE) -> Story:
    offer = {
        "goal": goal.as_dict(), "hash": goal.hash, "pins": {}, "policy": Policy().as_dict(), "recipe": recipe,
        "digests": {}, "shipped_digests": {}, "changes": [], "by": "bob",
    }  # fmt: skip
    edit = {"title": "t", "body": "b", "by": "bob", "by_id": 5}
    story.add(EventKind.GOAL_EDITED, **edit)
    return story.add(EventKind.GOAL_READ, text_version=1, offer=offer, told="offer", comment_id=1, by="bob")


async def adopted(story: Story) -> tuple[Experiment, Repository]:
    repository = Repository()
    world: Any = SimpleNamespace(repository=lambda _: repository, runner=None)
    assert adoption_problem(story.experiment()) is None
    [event] = await adopt_goal(world, story.experiment(), by="ada")
    story.events.append(Event(len(story.events), event.kind, event.key, 9_000.0, event.data))
    return story.experiment(), repository


async def test_adopted_target_keeps_the_baseline_and_asks_for_consent_anew(story: Story) -> None:
    story.add(EventKind.CONSENTED, by="ada", head_sha=SHA[0], envelope={})
    goal = make_goal(target=0.95)
    x, repository = await adopted(offered(story, goal))

    assert (x.goal, x.head_sha, x.consent, x.offer) == (goal, HEAD, None, None)
    assert x.baseline is not None
    assert goal_from_yaml(repository.files["goal.yaml"].decode()).hash == goal.hash
    assert repository.files["recipe.yaml"].decode() == RECIPE
    assert "| Target | 95 % |" in repository.said[0]
    assert x.changed == {}


async def test_adopted_base_model_starts_over(story: Story) -> None:
    goal = make_goal(base_model="postdoc/other")
    recipe = "init_from: postdoc/other\nlearning_rate: 1.0e-4\n"
    x, repository = await adopted(offered(story, goal, recipe))

    assert x.baseline is None and x.tried == {}
    assert yaml.safe_load(repository.files["recipe.yaml"])["init_from"] == "postdoc/other"
    assert x.changed["learning_rate"] == [2e-5, 1e-4]
    assert x.changed_by == "ada"


async def test_adopted_data_changes_its_line_alone(story: Story) -> None:
    line = f"hf:acme/sums@{'a' * 40}"
    recipe = f'data_sources: "{line}"\nlearning_rate: 7.0\n'
    x, repository = await adopted(offered(story, make_goal(dataset="hf:acme/sums"), recipe))

    assert repository.files["recipe.yaml"].decode() == f'{RECIPE}data_sources: "{line}"\n'
    assert x.changed == {"data_sources": [None, line]}


async def test_runs_measured_on_another_benchmark_no_longer_count(after_two_runs: Story) -> None:
    before = after_two_runs.experiment()
    assert before.best_run is not None and before.best_run.n == 2
    goal = make_goal(benchmark="practice/upper")
    data = {
        "goal": goal.as_dict(), "hash": goal.hash, "by": "ada", "pins": {}, "policy": Policy().as_dict(),
        "head_sha": HEAD, "recipe": RECIPE, "digests": {}, "shipped_digests": {}, "changed": {}, "why": "",
    }  # fmt: skip
    x = after_two_runs.add(EventKind.GOAL_ADOPTED, **data).experiment()

    assert x.best_run is None and x.baseline is None and len(x.runs) == 2


async def test_end_that_is_not_final_is_taken_up_again(story: Story) -> None:
    story.ended("exhausted", "2 of 2 runs are used")
    x, _ = await adopted(offered(story, make_goal(target=0.95)))

    assert x.state is State.PROPOSED and not x.concluded


@pytest.mark.parametrize(
    ("chapter", "words"),
    [
        (lambda s: s, "nothing to adopt"),
        (lambda s: offered(s, make_goal(target=0.95)).ended("met"), "This goal has ended"),
        (lambda s: offered(s, make_goal(seed=8)).trained(1), "A job is under way"),
        (lambda s: offered(s, make_goal(target=0.95)).job("c", "confirm", 1), "The sealed test has been opened"),
        (lambda s: offered(s, make_goal(target=0.95)).add(EventKind.HEAD_MOVED, head_sha=HEAD), "has pushed"),
    ],
)
def test_adoption_is_refused_where_it_would_break_what_was_measured(story: Story, chapter: Any, words: str) -> None:
    problem = adoption_problem(chapter(story).experiment())

    assert problem is not None and words in problem


def test_hash_that_was_meant_must_be_the_one_that_is_offered(story: Story) -> None:
    goal = make_goal(target=0.95)
    x = offered(story, goal).experiment()

    assert adoption_problem(x, goal.hash[:6]) is None
    assert "another than that" in str(adoption_problem(x, "0000"))


def test_unread_edit_comes_before_everything_and_is_read_once(story: Story) -> None:
    story.add(EventKind.GOAL_EDITED, title="t", body="b", by="bob", by_id=5)
    action = next_action(story.experiment())
    assert action is not None and (action.kind, action.args) == (ActionKind.READ_EDIT, {"version": 1})
    story.add(EventKind.GOAL_READ, text_version=1, offer=None, told="", comment_id=None, by="bob")
    after = next_action(story.experiment())
    assert after is None or after.kind is not ActionKind.READ_EDIT


def test_edit_from_before_editors_were_recorded_is_left_alone(story: Story) -> None:
    story.add(EventKind.GOAL_EDITED, title="t", body="b", by="bob")

    assert story.experiment().edit is None
