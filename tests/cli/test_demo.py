"""The demo's parts that need no process: its goals, its repository, its result."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from bot.conversation.issue_form import parse_goal
from bot.conversation.policy import parse_policy
from bot.data.licences import licence_of_card
from bot.errors import UserError
from bot.evaluation.benchmarks import known_benchmarks
from bot.practice.demo import Outcome, ending_sentence, over
from bot.practice.goals import answers_of, demo_goals, issue_of, practice_place, practice_policy
from tests.cli.recorded import story


@pytest.mark.parametrize("number", [1, 2])
def test_demo_goal_is_understood_and_granted_by_the_practice_policy(number: int) -> None:
    goal = demo_goals(seed=3)[number]
    body, labels = issue_of(goal.answers)
    policy = parse_policy(practice_policy()).policy
    assert policy is not None
    parsed = parse_goal(
        goal.title, body, known_benchmarks=known_benchmarks(), model_exists=lambda _: None, policy=policy
    )
    assert (parsed.problems, parsed.questions) == ([], [])
    assert parsed.goal is not None
    assert (parsed.goal.benchmark, parsed.goal.target, parsed.goal.seed) == (goal.benchmark, goal.target, 3)
    assert policy.grants(parsed.goal)
    assert labels == ("postdoc",)


@pytest.mark.parametrize("number", [1, 2])
def test_demo_goals_data_lies_in_the_repository_with_a_known_licence(number: int) -> None:
    dataset = demo_goals(seed=0)[number].answers["dataset"]
    files = practice_place(seed=0).files
    assert licence_of_card(str(files[f"{dataset}/README.md"])) == "apache-2.0"
    rows = [json.loads(line) for line in str(files[f"{dataset}/train.jsonl"]).splitlines()]
    assert len(rows) >= 100


def test_practice_repository_has_one_person_of_each_role() -> None:
    place = practice_place(seed=0)
    assert [person.permission for person in place.people] == ["admin", "write", "read"]
    assert {"README.md", "LICENSE", ".github/ISSUE_TEMPLATE/goal.yml", ".github/postdoc.yml"} <= set(place.files)
    assert yaml.safe_load(str(place.files[".github/postdoc.yml"]))["consent"]["auto_approve"]["runs"] > 0


def test_issue_of_a_form_without_a_required_answer_says_which() -> None:
    with pytest.raises(UserError, match="Base model"):
        issue_of({"benchmark": "practice/reverse", "target": "90 %"})


def test_goal_survives_the_form() -> None:
    x = story().experiment
    assert x.goal is not None
    body, _ = issue_of(answers_of(x.goal))
    parsed = parse_goal(x.goal.title, body, known_benchmarks=known_benchmarks(), model_exists=lambda _: None)
    assert parsed.goal is not None
    assert parsed.goal.hash == x.goal.hash


def test_outcome_has_exactly_the_published_form() -> None:
    result = Outcome(story().experiment, 152.3456, Path("/somewhere/tiny-speller.git")).as_dict()
    assert list(result) == ["target", "metric", "state", "seconds", "runs", "pull_request", "repository", "model"]
    assert (result["target"], result["state"], result["seconds"], result["pull_request"]) == (0.9, "met", 152.35, 2)
    keys = ["n", "method", "value", "n_items", "standard_error", "verdict", "symptoms", "changed", "seconds"]
    assert [list(run) for run in result["runs"]] == [keys, keys]
    assert [run["symptoms"] for run in result["runs"]] == [["plateau"], []]
    assert result["runs"][1]["changed"] == {"learning_rate": [2e-05, 0.0063]}
    json.dumps(result, allow_nan=False)


def test_outcome_of_a_refused_goal_failed_and_has_no_runs() -> None:
    told = story(until="goal_opened")
    told.heard([_refusal()])
    outcome = Outcome(told.experiment, 1.0, Path("/x"))
    assert outcome.failed
    assert over(told.experiment)
    assert outcome.as_dict() | {"repository": ""} == {
        "target": None, "metric": None, "state": "needs author", "seconds": 1.0, "runs": [], "pull_request": None,
        "repository": "", "model": None,
    }  # fmt: skip
    assert ending_sentence(outcome) == "The goal ended after 0 runs and 1 s: refused. No such benchmark."


def _refusal() -> dict[str, object]:
    data = {"text_version": 0, "comment_id": 1, "policy": {}, "goal": None, "refusal": "no such benchmark"}
    return {"seq": 1, "kind": "contract_read", "key": "contract/0", "at": 1.0, "data": data}


def test_goal_in_the_middle_of_its_work_is_not_over() -> None:
    assert not over(story(until="diagnosed").experiment)
    assert over(story().experiment)
