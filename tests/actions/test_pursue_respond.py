"""Modes `pursue` and `respond`, as far as they need no training."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from tests.actions.conftest import REPOSITORY, TEMPLATES, Place
from tests.actions.stepper import Machine
from tests.world import goal_body, tiny_model

STEP = "OWNER/postdoc@0000000000000000000000000000000000000000"
PURSUE = TEMPLATES / "postdoc-pursue.yml"
ROWS = "".join(json.dumps({"prompt": f"speak {i}", "completion": str(i)}) + "\n" for i in range(50))


@pytest.mark.slow
def test_goal_that_cannot_be_acted_on_is_refused_with_what_to_write(place: Place) -> None:
    place.push({"goal.yaml": "base_model: a/b\nbenchmark: no/such\ntarget: 0.5\n"})
    run = place.run(PURSUE, "workflow_dispatch", {"inputs": {"goal": "goal.yaml"}})
    assert run.conclusion == "failure"
    assert run.step(STEP).outputs["state"] == "refused"
    assert "no/such" in run.log.text
    assert "Traceback" not in run.log.text


def test_shallow_checkout_is_refused_before_anything_is_started(place: Place) -> None:
    workflow = PURSUE.read_text().replace("fetch-depth: 0", "fetch-depth: 1")
    place.push({"goal.yaml": "base_model: a/b\n"})
    run = place.run(workflow, "workflow_dispatch", {"inputs": {"goal": "goal.yaml"}})
    assert run.conclusion == "failure"
    assert any("fetch-depth: 0" in each.message for each in run.annotations)


def test_goal_in_words_reaches_the_command_as_words_alone(place: Place) -> None:
    goal = "--json=x $(touch pwned) `touch pwned`; touch pwned.yaml"
    run = place.run(PURSUE, "workflow_dispatch", {"inputs": {"goal": goal}})
    assert run.conclusion == "failure"
    assert "pwned.yaml cannot be read" in run.log.text
    assert list(place.folder.rglob("pwned*")) == []


# --- respond --------------------------------------------------------------------------------------------------------

RESPOND = TEMPLATES / "postdoc-respond.yml"
ALL = {"contents": "write", "issues": "write", "pull_requests": "write", "checks": "write"}
GOAL = goal_body(Base_model="postdoc/tiny-test", Benchmark="practice/reverse", Target="90 %")


def issue_event(place: Place, title: str, body: str) -> dict[str, Any]:
    api, headers = (
        f"{place.url}/api/v3/repos/{REPOSITORY}",
        {"authorization": f"Bearer {place.forge.user_token('ada')}"},
    )
    answer = place.http.post(
        f"{api}/issues", json={"title": title, "body": body, "labels": ["postdoc"]}, headers=headers
    )
    assert answer.status_code == 201, answer.text
    repository = place.http.get(api, headers=headers).json()
    return {"action": "opened", "issue": answer.json(), "repository": repository, "sender": answer.json()["user"]}


def comment_event(place: Place, opened: dict[str, Any], body: str) -> dict[str, Any]:
    place.comment(opened["issue"]["number"], body, "ada")
    comment = place.comments(opened["issue"]["number"])[-1]
    return opened | {"action": "created", "comment": comment, "sender": comment["user"]}


def machine_of(place: Place) -> Machine:
    tiny_model(place.folder / "models")
    machine = place.machine()
    machine.environment |= {
        "POSTDOC_MODEL_FOLDERS": str(place.folder / "models"), "POSTDOC_WRITE_PAUSE_SECONDS": "0", "HF_HUB_OFFLINE": "1"
    }  # fmt: skip
    return machine


@pytest.mark.slow
def test_bot_without_a_server_answers_an_issue_and_a_comment_as_the_workflows_account(place: Place) -> None:
    """From the issue to the proposal, with the data really built; then a command in the thread."""
    place.push({"data/train.jsonl": ROWS, "data/README.md": "---\nlicense: cc-by-4.0\n---\n# Rows\n"})
    machine, token = machine_of(place), place.token(**ALL)
    opened = issue_event(place, "Spell backwards $(touch pwned)`touch pwned`", GOAL)
    run = place.run(RESPOND, "issues", opened, token=token, machine=machine, secrets={"POSTDOC_JOURNAL_KEY": "k" * 32})
    assert run.conclusion == "success", run.log.text
    assert run.step(STEP).outputs["state"] == "handled"
    own = [each for each in place.comments(opened["issue"]["number"]) if each["user"]["login"] == "github-actions[bot]"]
    assert "practice/reverse" in own[0]["body"]
    assert any(name.startswith("refs/postdoc/") for name in refs(place))
    assert token not in run.log.text
    assert "k" * 32 not in run.log.text
    commented = comment_event(place, opened, "/postdoc status")
    again = place.run(RESPOND, "issue_comment", commented, token=token, machine=machine,
                      secrets={"POSTDOC_JOURNAL_KEY": "k" * 32})  # fmt: skip
    assert again.conclusion == "success", again.log.text
    assert list(place.folder.rglob("pwned")) == []


def test_events_that_are_not_for_the_bot_start_nothing(place: Place) -> None:
    opened = issue_event(place, "A question", "How are you?")
    run = place.run(RESPOND, "issues", opened, token=place.token(**ALL), actor="github-actions[bot]")
    assert (run.conclusion, run.steps) == ("skipped", [])


def refs(place: Place) -> list[str]:
    folder = place.forge.repository(REPOSITORY).git.path
    done = subprocess.run(["git", "for-each-ref", "--format=%(refname)"], cwd=folder, capture_output=True, text=True)
    return done.stdout.split()
