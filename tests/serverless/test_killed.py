"""`kill -9` before and after every action and every write, and rivals: the goal ends the same, nothing is doubled."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.loop.test_recovery import difference, seen
from tests.serverless.test_respond import ASKING, said_once
from tests.serverless.workflows import SCHEDULE, Event, Workflow, kill, workflow_world
from tests.world import GOOD, POLICY, REPOSITORY

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3400)]
VISIBLE = "performed|recorded|decided|write (?!POST /repos/acme/speller/git/(trees|commits))"
"""Every point but the making of git objects that no ref names yet, of which nobody can see anything."""


def survive(workflow: Workflow, event: Event, *, lose: bool = False) -> int:
    """Run the workflow for the event again and again until it lives to the end; returns how often it died."""
    variables = {"POSTDOC_TEST_DEATHS": str(workflow.folder / "deaths"), "POSTDOC_TEST_DEATHS_AT": VISIBLE}
    for deaths in range(400):
        process = workflow.begin(event, run=7, variables=variables)
        output = workflow.finish(process, expect=None)
        if process.returncode == 0:
            return deaths
        assert process.returncode == -9, f"{process.returncode}: {output}\n{workflow.log()}"
        if lose:
            workflow.lose_machine()
    raise AssertionError(f"it dies for ever:\n{workflow.log()}")


def test_killed_at_every_point_ends_the_same_and_doubles_nothing(tmp_path: Path) -> None:
    with workflow_world(tmp_path / "undisturbed") as workflow:
        workflow.open_goal()
        workflow.handle(workflow.pending()[0])
        expected = seen(workflow, 1)
    with workflow_world(tmp_path / "killed") as workflow:
        workflow.open_goal()
        deaths = survive(workflow, workflow.pending()[0])
        found = seen(workflow, 1)
        points = (workflow.folder / "deaths").read_text().splitlines()
        assert deaths == len(points)
        assert sum(" performed " in point for point in points) >= 20
        assert sum("/git/refs" in point for point in points) >= 20
    for what in expected:
        assert found[what] == expected[what], f"{what}:\n" + "\n".join(difference(expected[what], found[what]))
    assert len(set(found["launches"])) == len(found["launches"])


def test_killed_with_its_machine_at_every_action_says_nothing_twice(tmp_path: Path) -> None:
    """The folders of all jobs go each time; what was lost is done again within what was agreed, or asked about."""
    policy = POLICY.replace("gpu_hours: 2", "gpu_hours: 90")
    with workflow_world(tmp_path, policy=policy) as workflow:
        issue = workflow.open_goal(None)
        event = workflow.pending()[0]
        deaths = workflow.folder / "deaths"
        deaths.touch()
        for _ in range(40):
            # Not at the launches: their names carry the attempt, so that dying there would never end.
            at = " performed (?!launch)"
            variables = {
                "POSTDOC_TEST_DEATHS": str(deaths),
                "POSTDOC_TEST_DEATHS_AT": at,
                "RUNNER_ENVIRONMENT": "github-hosted",
            }
            process = workflow.begin(event, run=7, variables=variables)
            workflow.finish(process, expect=None)
            workflow.lose_machine()
            if process.returncode == 0 and workflow.state(issue) is not None:
                if workflow.state(issue) != "needs human":
                    break
                workflow.comment(workflow.pulls()[0]["number"], "/postdoc resume")
                event = workflow.pending()[-1]
        assert workflow.state(issue) == "met", workflow.log()
        pull = workflow.pulls()[0]["number"]
        said_once(workflow, issue)
        said_once(workflow, pull)
        assert len(workflow.pulls()) == 1
        reviews = [review["body"].splitlines()[0] for review in workflow.reviews(pull)]
        assert len(reviews) == len(set(reviews)) == 2
        log = workflow.branch_log(workflow.pulls()[0]["head"]["ref"])
        assert len(log) == len(set(log))


def test_rivals_that_start_at_once_do_everything_once(tmp_path: Path) -> None:
    """A workflow without a concurrency group: one is at work, the others ring and leave, or wait and find it done."""
    with workflow_world(tmp_path / "alone") as workflow:
        workflow.open_goal()
        workflow.handle(workflow.pending()[0])
        expected = seen(workflow, 1)
    with workflow_world(tmp_path / "rivals") as workflow:
        workflow.open_goal()
        event = workflow.pending()[0]
        processes = [workflow.begin(event) for _ in range(3)]
        for process in processes:
            workflow.finish(process)
        assert seen(workflow, 1) == expected


def test_rival_of_a_paused_process_takes_over_and_the_paused_one_stops(tmp_path: Path) -> None:
    """Frozen for longer than its lock lasts, as a machine that sleeps: what it wakes up to is not its own any more."""
    import signal

    with workflow_world(tmp_path) as workflow:
        workflow.runner.script(GOOD | {"train-01": {"curve": "flat", "hold": True}})
        issue = workflow.open_goal()
        event = workflow.pending()[0]
        short = {"POSTDOC_LOCK_SECONDS": "6"}
        frozen = workflow.begin(event, variables=short)
        workflow.until_job("train-01")
        workflow.until(lambda: workflow.events(issue)[-1]["kind"] == "job_launched", "the launch on the ref")
        frozen.send_signal(signal.SIGSTOP)
        workflow.runner.release("train-01")
        workflow.handle(SCHEDULE, variables=short)
        assert workflow.state(issue) == "met"
        kept = workflow.git("for-each-ref", "refs/postdoc/1")
        frozen.send_signal(signal.SIGCONT)
        assert "Lost" in workflow.finish(frozen, expect=1)
        assert workflow.git("for-each-ref", "refs/postdoc/1") == kept
        said_once(workflow, workflow.pulls()[0]["number"])
        assert len(set(workflow.runner.launches())) == len(workflow.runner.launches())


def test_killed_process_is_replaced_by_the_next_event(tmp_path: Path) -> None:
    """Of another workflow run: it waits until the lock's time is over, and goes on with the job that still runs."""
    with workflow_world(tmp_path) as workflow:
        workflow.runner.script(GOOD | {"train-01": {"curve": "flat", "hold": True}})
        issue = workflow.open_goal()
        process = workflow.begin(workflow.pending()[0], variables={"POSTDOC_LOCK_SECONDS": "6"})
        workflow.until_job("train-01")
        kill(process)
        workflow.runner.release("train-01")
        workflow.handle(SCHEDULE, variables={"POSTDOC_LOCK_SECONDS": "6"})
        assert workflow.state(issue) == "met"
        assert len(set(workflow.runner.launches())) == len(workflow.runner.launches())


def test_deleted_refs_are_rebuilt_from_the_pull_request(tmp_path: Path) -> None:
    with workflow_world(tmp_path, policy=ASKING) as workflow:
        issue = workflow.open_goal()
        workflow.settle()
        pull = workflow.pulls()[0]["number"]
        before = workflow.bot_comments(pull)
        for ref in workflow.refs():
            workflow.git("update-ref", "-d", ref)
        workflow.handle(SCHEDULE)
        assert workflow.bot_comments(pull) == before
        sha = workflow.pulls()[0]["head"]["sha"][:12]
        workflow.comment(pull, f"/postdoc run {sha}")
        workflow.settle()
        assert workflow.state(issue) == "met"
        said_once(workflow, issue)
        said_once(workflow, pull)
        assert len(workflow.pulls()) == 1


def test_forged_journal_is_refused_aloud_and_others_go_on(tmp_path: Path) -> None:
    key = {"POSTDOC_JOURNAL_KEY": "0123456789abcdef-of-the-repository"}
    with workflow_world(tmp_path, policy=ASKING) as workflow:
        issue = workflow.open_goal()
        workflow.settle(variables=key)
        pull = workflow.pulls()[0]["number"]
        _forge_consent(workflow, issue)
        before = workflow.bot_comments(pull)
        other = workflow.open_goal()
        output = ""
        for event in workflow.pending():
            output = workflow.handle(event, variables=key, expect=1)
        assert f"goal {REPOSITORY}#{issue} is left alone" in output
        assert workflow.bot_comments(pull) == before
        assert not any("train" in job for job in workflow.runner.launches())
        assert any("May I train" in body for body in workflow.bot_comments(workflow.pulls()[0]["number"]))
        assert other != issue
        workflow.git("update-ref", "-d", f"refs/postdoc/{issue}")
        workflow.handle(SCHEDULE, variables=key)
        assert workflow.bot_comments(pull) == before
        assert workflow.events(issue)


def _forge_consent(workflow: Workflow, issue: int) -> None:
    """What a person with push access might write: that somebody has agreed."""
    lines = workflow.kept(issue, "journal.jsonl").splitlines()
    events: list[dict[str, Any]] = [json.loads(line) for line in lines[:-1]]
    ceilings = {"usd": 1e6, "gpu_hours": 1e6, "runs": 99, "wall_hours": 1e6}
    goal = next(event["data"]["goal"] for event in events if event["kind"] == "contract_read")
    data = {
        "by": "ada",
        "head_sha": "0" * 40,
        "envelope": {"goal_hash": goal.get("hash", ""), "ceilings": ceilings, "keys": ["*"]},
    }
    events.append({"seq": len(events), "kind": "consented", "key": "consent/99", "at": events[-1]["at"], "data": data})
    seal = json.loads(lines[-1]) | {"events": len(events)}
    text = "".join(json.dumps(each, separators=(",", ":")) + "\n" for each in [*events, seal])
    blob = workflow.git("hash-object", "-w", "--stdin", content=text.encode()).strip()
    tree = workflow.git("mktree", content=f"100644 blob {blob}\tjournal.jsonl\n".encode()).strip()
    old = workflow.git("rev-parse", f"refs/postdoc/{issue}").strip()
    who = ["-c", "user.name=mallory", "-c", "user.email=m@example.org"]
    done = subprocess.run(
        ["git", *who, "commit-tree", tree, "-p", old, "-m", "agreed"],
        cwd=workflow.forge.repository(REPOSITORY).git.path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    workflow.git("update-ref", f"refs/postdoc/{issue}", done.stdout.strip())
