"""From issue to merge without a server: one process for each event, and nothing between them but the repository."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from bot.conversation.github import ACTIONS_LOGIN
from tests.serverless.workflows import SCHEDULE, Workflow, workflow_world
from tests.world import GOOD, REPOSITORY

HOSTED = {"RUNNER_ENVIRONMENT": "github-hosted"}
ASKING = "consent:\n  auto_approve:\n    runs: 0\n"
"""A policy that grants nothing by itself."""


def sent(workflow: Workflow) -> list[Any]:
    return [exchange for exchange in workflow.recorder.exchanges if exchange.agent == "postdoc"]


def said_once(workflow: Workflow, number: int) -> None:
    keys = [body.splitlines()[0] for body in workflow.bot_comments(number)]
    assert len(keys) == len(set(keys)), keys


def merge(workflow: Workflow, number: int) -> None:
    workflow.api("ada", "PUT", f"/repos/{REPOSITORY}/pulls/{number}/merge", json={})


@pytest.mark.timeout(400)
@pytest.mark.slow
def test_goal_is_pursued_from_issue_to_merge_on_machines_that_are_thrown_away(tmp_path: Path) -> None:
    """Each event on a new machine: the training set of the proposal is gone when somebody agrees to it."""
    with workflow_world(tmp_path, policy=ASKING) as workflow:
        issue = workflow.open_goal()
        workflow.handle(workflow.pending()[0], variables=HOSTED)
        (pull,) = workflow.pulls()
        assert pull["user"]["login"] == ACTIONS_LOGIN
        question = next(body for body in workflow.bot_comments(pull["number"]) if "/postdoc run" in body)
        (check,) = workflow.api("ada", "GET", f"/repos/{REPOSITORY}/commits/{pull['head']['sha']}/check-runs")[
            "check_runs"
        ]
        assert check["conclusion"] == "action_required"
        assert "button" not in question + check["output"]["summary"]
        workflow.lose_machine()

        workflow.comment(pull["number"], f"/postdoc run {pull['head']['sha'][:12]}")
        workflow.handle(workflow.pending()[0], variables=HOSTED)
        kinds = [event["kind"] for event in workflow.events(issue)]
        assert workflow.state(issue) == "met", workflow.log()
        assert kinds.count("outputs_gone") == 1
        built = [job for job in workflow.runner.launches() if "-data-" in job]
        assert len(built) == len(set(built)) == 2
        ending = workflow.bot_comments(pull["number"])[-1]
        assert "on the machine of this workflow run" in ending
        workflow.lose_machine()

        merge(workflow, pull["number"])
        workflow.handle(workflow.pending()[0], variables=HOSTED)
        assert workflow.api("ada", "GET", f"/repos/{REPOSITORY}/issues/{issue}")["state"] == "closed"
        for number in (issue, pull["number"]):
            said_once(workflow, number)
        told = [
            json.loads(exchange.request)
            for exchange in sent(workflow)
            if "/check-runs" in exchange.path and exchange.request
        ]
        assert told
        assert not any("actions" in each for each in told)
        assert workflow.lock()["holder"] == ""
        assert sorted(workflow.refs()) == ["refs/postdoc/1", "refs/postdoc/lock", "refs/postdoc/spending"]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_stop_reaches_a_running_job_and_its_own_process_ends_at_once(workflow: Workflow) -> None:
    workflow.runner.script(GOOD | {"train-01": {"curve": "flat", "hold": True}})
    issue = workflow.open_goal()
    running = workflow.begin(workflow.pending()[0])
    workflow.until_job("train-01")
    number = workflow.pulls()[0]["number"]
    workflow.comment(number, "/postdoc status")
    (asked,) = workflow.pending()
    assert "Answered elsewhere" in workflow.handle(asked)
    assert running.poll() is None
    workflow.until(lambda: "status" in "".join(workflow.bot_comments(number)), "the answer")
    workflow.comment(number, "/postdoc stop")
    workflow.finish(running)
    assert workflow.state(issue) == "stopped"
    assert "stopped" in workflow.bot_comments(number)[-1].lower()
    said_once(workflow, number)
    stood = workflow.git("for-each-ref", "refs/postdoc/1")
    (stop,) = workflow.pending()
    assert workflow.handle(stop) == "Handled.\n"
    assert workflow.git("for-each-ref", "refs/postdoc/1") == stood


def test_token_that_may_not_write_is_told_what_it_needs(workflow: Workflow) -> None:
    workflow.token = workflow.forge.workflow_token(REPOSITORY, {"issues": "write", "contents": "read"}).token
    workflow.handle(SCHEDULE, expect=2)
    last = (workflow.folder / "bot.log").read_text().splitlines()[-1]
    assert "permissions: contents: write" in last
    assert workflow.token not in workflow.log()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_event_that_is_told_again_or_late_or_never_changes_nothing(workflow: Workflow) -> None:
    """Replayed, out of order, and one of them dropped by GitHub's queue: the look finds it."""
    issue = workflow.open_goal()
    first = workflow.pending()
    workflow.handle(first[0])
    assert workflow.state(issue) == "met"
    pull = workflow.pulls()[0]["number"]
    stood = workflow.git("for-each-ref", "refs/postdoc/1")
    comments = len(workflow.bot_comments(pull))
    for event in [*reversed(first), *first]:
        workflow.handle(event)
    assert workflow.git("for-each-ref", "refs/postdoc/1") == stood
    assert len(workflow.bot_comments(pull)) == comments
    workflow.comment(pull, "/postdoc status")
    dropped = workflow.pending()
    workflow.comment(pull, "/postdoc plan")
    (second,) = workflow.pending()
    workflow.handle(second)
    asked = [event["data"]["verb"] for event in workflow.events(issue) if event["kind"] == "command"]
    assert asked == ["status", "plan"]
    for event in [*dropped, second]:
        workflow.handle(event)
    assert [event["data"]["verb"] for event in workflow.events(issue) if event["kind"] == "command"] == asked
    said_once(workflow, pull)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_time_that_is_up_ends_the_job_of_a_hosted_machine_and_says_so(workflow: Workflow) -> None:
    workflow.runner.script(GOOD | {"train-01": {"curve": "flat", "hold": True}})
    issue = workflow.open_goal()
    opened = workflow.pending()[0]
    out = workflow.handle(opened, "--minutes", "0.5", variables=HOSTED)
    assert "Out of time" in out, workflow.log()
    assert workflow.state(issue) == "stopped"
    pull = workflow.pulls()[0]["number"]
    assert any("0.5 minutes ended" in body and "/postdoc resume" in body for body in workflow.bot_comments(pull))
    assert workflow.lock()["holder"] == ""
    workflow.lose_machine()
    workflow.runner.script(GOOD)
    workflow.comment(pull, "/postdoc resume")
    workflow.settle(variables=HOSTED)
    assert workflow.state(issue) == "met", workflow.log()
    said_once(workflow, pull)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_time_that_is_up_leaves_the_job_of_a_machine_that_stays(workflow: Workflow) -> None:
    workflow.runner.script(GOOD | {"train-01": {"curve": "flat", "hold": True}})
    issue = workflow.open_goal()
    out = workflow.handle(workflow.pending()[0], "--minutes", "0.4")
    assert "Out of time" in out
    assert workflow.state(issue) is None
    workflow.runner.release("train-01")
    workflow.handle(SCHEDULE)
    assert workflow.state(issue) == "met"
    assert len(set(workflow.runner.launches())) == len(workflow.runner.launches())


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_cancelled_workflow_run_stops_its_job_and_keeps_all(workflow: Workflow, number: int) -> None:
    workflow.runner.script(GOOD | {"train-01": {"curve": "flat", "hold": True}})
    issue = workflow.open_goal()
    process = workflow.begin(workflow.pending()[0], variables=HOSTED)
    workflow.until_job("train-01")
    workflow.until(lambda: workflow.events(issue)[-1]["kind"] == "job_launched", "the launch on the ref", 30)
    started = time.monotonic()
    process.send_signal(number)
    assert "Cancelled" in workflow.finish(process, expect=130)
    assert time.monotonic() - started < 60
    assert [event["kind"] for event in workflow.events(issue)][-2:] == ["job_ended", "stopped"]
    assert workflow.lock()["holder"] == ""
    workflow.lose_machine()
    workflow.handle(SCHEDULE, variables=HOSTED)
    assert workflow.state(issue) == "stopped"
    assert "cancelled" in workflow.bot_comments(workflow.pulls()[0]["number"])[-1]
