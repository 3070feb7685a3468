"""A reward that collapses again after a repair: its suspects are trained side by side, and the best one is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.world import World, goal_body

RECIPE = """\
method: grpo
learning_rate: 0.001
max_steps: 100
num_generations: 8
per_device_train_batch_size: 64
"""


def collapsing() -> str:
    """KL that runs away while the reward rises and falls below where it began."""
    rows = [
        {"step": n, "loss": 0.0, "grad_norm": 1.0, "reward": 0.1 + n * 0.02 if n < 45 else 0.05, "reward_std": 0.3,
         "frac_reward_zero_std": 0.2, "kl": 0.1 * n if n > 20 else 0.05, "entropy": 1.0, "learning_rate": 0.001}
        for n in range(1, 101)
    ]  # fmt: skip
    return "".join(json.dumps(row) + "\n" for row in rows)


COLLAPSED: dict[str, Any] = {"files": {"out/metrics.jsonl": collapsing()}}
SCRIPT: dict[str, dict[str, Any]] = {
    "baseline-00": {"value": 0.0},
    "train-01": COLLAPSED, "evaluate-01": {"value": 0.30},
    "train-02": COLLAPSED, "evaluate-02": {"value": 0.30},
    "ablate-01": {}, "weigh-01": {"value": 0.40},
    "ablate-02": {}, "weigh-02": {"value": 0.80},
    "ablate-03": {}, "weigh-03": {"value": 0.20},
    "train-03": {}, "evaluate-03": {"value": 0.97}, "confirm-03": {"value": 0.96},
}  # fmt: skip


@pytest.mark.slow
def test_suspects_are_tried_side_by_side_and_the_best_is_trained(world: World, tmp_path: Path) -> None:
    world.runner.script(SCRIPT)
    issue = world.open_goal(goal_body(Method="grpo", Starting_recipe=f"```yaml\n{RECIPE}```", Budget_in_runs="6"))
    assert world.until_ended(issue, 100) == "met"
    opened = world.first(issue, "ablation_opened")
    assert (opened["by"], opened["for_run"]) == ("postdoc", 2)
    keys = [arm["key"] for arm in opened["arms"]]
    assert len(keys) == 3
    assert "learning_rate" in keys
    [second] = [e["data"] for e in world.events(issue) if e["kind"] == "revised"][1:2]
    assert "beta" in keys
    best = opened["arms"][1]
    assert second["changed"][best["key"]][1] == best["value"]
    assert "did best (0.8)" in second["why"]
    pull = world.pulls()[0]["number"]
    [table] = [body for body in world.bot_comments(pull) if "### Ablation 1" in body]
    assert f"`{best['key']}=" in table
    assert "only what the row names differs" in table
    files = [path.name for path in world.runner.root.glob("*train-01-1/work/*.py")]
    assert sorted(files) == ["rewards.py", "train.py"]
