"""A run that is doomed is ended beside everything else, told in its check, and followed by the next like any other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.world import GOOD, POLICY, World, goal_body, practice_world

DEAD = "".join(
    json.dumps({"step": n, "loss": 0.0, "grad_norm": 0.0, "reward": 0.0, "frac_reward_zero_std": 1.0}) + "\n"
    for n in range(1, 31)
)
DOOMED = {"hold": True, "saves": True, "files": {"out/metrics.jsonl": DEAD}}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with practice_world(tmp_path) as found:
        found.runner.script(GOOD | {"train-01": DOOMED})
        found.start()
        found.wait_ready()
        yield found


def summary(world: World, issue: int, run: int = 0) -> str:
    """Of a run's check, the first one by default."""
    started = [event["data"] for event in world.events(issue) if event["kind"] == "run_started"]
    if len(started) <= run:
        return ""
    found = world.api("ada", "GET", f"/repos/acme/speller/commits/{started[run]['head_sha']}/check-runs")
    return str(found["check_runs"][0]["output"]["summary"])


def checkpoint_asked(world: World) -> Path:
    return next(iter(world.runner.root.glob("*train-01-1/work/out/checkpoint_now")), Path("/nowhere"))


def test_doomed_run_makes_a_checkpoint_is_ended_and_the_next_one_follows(world: World) -> None:
    issue = world.open_goal(goal_body(method="grpo"))
    ended = world.until_event(issue, "monitored")["data"]
    assert (ended["tier"], ended["step"], ended["total_steps"]) == ("hard", 30, 100)
    assert ended["diagnoses"][0]["symptom"] == "reward_zero"
    world.until(lambda: "A checkpoint is made first" in summary(world, issue), "the check to say so")
    assert checkpoint_asked(world).exists()
    # Killed here, it goes on here: the journal says what is to be done.
    world.kill()
    world.start()
    world.wait_ready()
    checkpoint_asked(world).unlink()  # as the script does once it has made one
    assert world.until_ended(issue) == "met"
    assert [job[-10:] for job in world.runner.launches() if "train" in job] == ["train-01-1", "train-02-1"]
    diagnosed = world.first(issue, "diagnosed")
    assert diagnosed["report"]["diagnoses"][0]["symptom"] == "reward_zero"
    assert diagnosed["failure"].startswith("Ended by the monitor at step 30 of 100, because no further step can take")
    # The scripted steps take no time: on a quick machine there is nothing to have saved.
    assert ("That saved about" in diagnosed["failure"]) == (ended["saved_seconds"] > 0)
    assert diagnosed["remedy"]["symptom"] == "reward_zero"
    assert "Ended by the monitor" in summary(world, issue)


VERDICT = {
    "tier": "hard", "step": 30, "worth_saving": True, "total_steps": 100, "signals": [], "saved_seconds": 60.0,
    "device": "GPU",
    "diagnoses": [{"symptom": "reward_zero", "severity": "fatal", "confidence": 0.95, "evidence": [],
                   "cause": "Every sample got the same reward."}],
}  # fmt: skip


@pytest.mark.slow
def test_verdict_of_the_wrapper_counts_and_nobody_judges_once_more(tmp_path: Path) -> None:
    with practice_world(tmp_path) as world:
        # Of the first the server never sees more than its end, as when it was away meanwhile.
        ended = {"state": "cancelled", "judged": VERDICT, "watched": True, "files": {"out/metrics.jsonl": DEAD}}
        watched = GOOD["train-02"] | {"hold": True, "watched": True, "files": {"out/metrics.jsonl": DEAD}}
        world.runner.script(GOOD | {"train-01": ended, "train-02": watched})
        world.start()
        world.wait_ready()
        issue = world.open_goal(goal_body(method="grpo"))
        world.until_event(issue, "revised")
        diagnosed = world.first(issue, "diagnosed")
        assert diagnosed["report"]["diagnoses"][0]["symptom"] == "reward_zero"
        assert diagnosed["failure"].startswith("Ended by the monitor at step 30 of 100, because no further step")
        # The second is doomed by its curve too, and its wrapper has not said so: the server only advises.
        world.until(lambda: "The monitor sees" in summary(world, issue, 1), "the advice in the check")
        told = [event for event in world.events(issue) if event["kind"] == "monitored"]
        assert [event["data"]["diagnoses"][0]["cause"] for event in told] == ["Every sample got the same reward."]
        assert len([job for job in world.runner.launches() if "train-01" in job]) == 1
        world.runner.release("train-02")
        world.until_ended(issue)


@pytest.mark.slow
def test_stopped_training_makes_a_checkpoint_and_goes_on_from_there(tmp_path: Path) -> None:
    with practice_world(tmp_path) as world:
        held = GOOD["train-01"] | {"hold": True, "saves": True, "checkpoint": 40}
        world.runner.script(GOOD | {"train-01-1": held})
        world.start()
        world.wait_ready()
        issue = world.open_goal()
        world.until_event(issue, "run_started")
        world.until_job("train-01")
        world.comment(issue, "/postdoc stop")
        world.until(lambda: checkpoint_asked(world).exists(), "the request for a checkpoint")
        assert world.state(issue) != "stopped"
        checkpoint_asked(world).unlink()
        assert world.until_ended(issue) == "stopped"
        world.comment(issue, "/postdoc resume")
        world.until_job("train-01-2")
        world.until(lambda: len(resumed_from(world, issue)) == 2, "the second attempt in the journal")
        assert resumed_from(world, issue) == [None, 40]


def resumed_from(world: World, issue: int) -> list[int | None]:
    """Of each launch of the first run."""
    launched = [event["data"] for event in world.events(issue) if event["kind"] == "job_launched"]
    return [job["resumed_from"] for job in launched if (job["role"], job["run"]) == ("train", 1)]


@pytest.mark.slow
def test_policy_that_only_wants_advice_lets_it_go_on(tmp_path: Path) -> None:
    with practice_world(tmp_path, policy=POLICY + "monitor: advise\n") as world:
        world.runner.script(GOOD | {"train-01": DOOMED})
        world.start()
        world.wait_ready()
        issue = world.open_goal()
        world.until_event(issue, "run_started")
        world.until(lambda: "lets it go on" in summary(world, issue), "the advice in the check")
        assert not any(event["kind"] == "monitored" for event in world.events(issue))
        world.runner.release("train-01")
        assert world.until_ended(issue) == "met"
