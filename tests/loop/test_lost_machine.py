"""A machine that goes away in the middle of training: the next attempt goes on from its last checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.loop.test_spending import pull_of, serving
from tests.world import GOOD, POLICY


@pytest.mark.slow
def test_lost_run_goes_on_from_its_checkpoint_and_the_sticky_comment_says_so(tmp_path: Path) -> None:
    script: dict[str, dict[str, Any]] = GOOD | {
        "train-01": {"state": "lost", "checkpoint": 40},
        "train-01-2": {"curve": "flat", "hold": True},
    }
    with serving(tmp_path, POLICY, script) as world:
        issue = world.open_goal()
        world.until_job("train-01-2")
        [job] = [job for job in world.runner.launches() if job.endswith("train-01-2")]
        spec = json.loads((world.runner.root / job / "spec.json").read_text())
        assert spec["argv"][-2:] == ["--resume_from_checkpoint", "{mount:checkpoint}"]
        assert spec["mounts"]["checkpoint"].endswith("train-01-1/work/out/checkpoint-40")
        kept = [json.loads(line) for line in Path(spec["files"]["out/metrics.jsonl"]).read_text().splitlines()]
        assert [row["step"] for row in kept] == list(range(1, 41))

        def resumed_from() -> list[int | None]:
            launched = [event["data"] for event in world.events(issue) if event["kind"] == "job_launched"]
            return [data["resumed_from"] for data in launched if data["role"] == "train"]

        world.until(lambda: len(resumed_from()) == 2, "the launch to be noted")
        assert resumed_from() == [None, 40]
        world.runner.release("train-01")
        assert world.until_ended(issue) == "met"
        [sticky] = [body for body in world.bot_comments(pull_of(world)) if "| Target |" in body]
        assert sticky.count("Run 1 lost its machine; attempt 2 went on from step 40.") == 1


@pytest.mark.slow
def test_lost_run_without_a_checkpoint_begins_again(tmp_path: Path) -> None:
    with serving(tmp_path, POLICY, GOOD | {"train-01": {"state": "lost"}, "train-01-2": {"curve": "flat"}}) as world:
        issue = world.open_goal()
        assert world.until_ended(issue) == "met"
        [sticky] = [body for body in world.bot_comments(pull_of(world)) if "| Target |" in body]
        assert "Run 1 lost its machine; attempt 2 went on from the beginning." in sticky
