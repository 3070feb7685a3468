"""Licences judged together before anything is trained: what the plan says, what is asked, and the model's name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bot.domain.experiment import Experiment
from bot.domain.goal import Goal, GoalId
from bot.loop.actions.publish import repository_name
from tests.world import goal_body, practice_world

LLAMA = "---\nlicense: llama3.2\n---\n# A tiny model\n"
ROWS = "".join(json.dumps({"prompt": f"speak {i}", "completion": str(i)}) + "\n" for i in range(50))


@pytest.mark.slow
def test_what_llama_asks_is_in_the_plan_and_what_cannot_go_together_is_asked(tmp_path: Path) -> None:
    with practice_world(tmp_path) as world:
        (tmp_path / "models" / "postdoc" / "tiny-test" / "README.md").write_text(LLAMA)
        world.start()
        assert world.wait_ready()
        world.commit("data/alike/README.md", "---\nlicense: cc-by-sa-4.0\n---\n# Rows\n")
        world.commit("data/alike/train.jsonl", ROWS)
        issue = world.open_goal()
        pull = world.until_event(issue, "proposed")["data"]["pull_request"]
        plan = next(each["body"] for each in world.pulls() if each["number"] == pull)
        assert "the trained model goes under llama3.2" in plan
        assert "Built with Llama" in plan and "name begins with" in plan
        contract = world.first(issue, "contract_read")
        report = world.file(contract["branch"], f"{contract['folder']}/README.md")
        assert "license: llama3.2" in report and "**Built with Llama**" in report

        alike = goal_body(Training_data="data/alike/train.jsonl")
        asked = world.open_goal(alike, title="Share-alike rows")
        refusal = world.until_event(asked, "refused")["data"]["reason"]
        assert "one asks for its own terms without more" in refusal
        assert "`Licences allowed`: `llama3.2`, `cc-by-sa-4.0`" in refusal
        # A person has read them.
        answered = goal_body(Training_data="data/alike/train.jsonl", Licences_allowed="llama3.2, cc-by-sa-4.0")
        agreed = world.open_goal(answered, title="Share-alike rows, read")
        assert world.until_event(agreed, "proposed")


@pytest.mark.parametrize(
    ("model", "begins", "name"),
    [
        ("meta-llama/Llama-3.2-1B", "Llama", "acme/Llama-3-2-1b-gsm8k-speller-7"),
        ("Qwen/Qwen3-1.7B", "Llama", "acme/Llama-qwen3-1-7b-gsm8k-speller-7"),
        ("meta-llama/Meta-Llama-3-8B", "Llama-3", "acme/Llama-3-meta-llama-3-8b-gsm8k-speller-7"),
        ("Qwen/Qwen3-1.7B", "", "acme/qwen3-1-7b-gsm8k-speller-7"),
    ],
)
def test_published_name_begins_as_the_licence_asks(model: str, begins: str, name: str) -> None:
    x = Experiment(GoalId("acme/speller#7"), owner="acme", repository="speller", issue=7)
    x.goal = Goal("Raise it", model, "gsm8k", 0.5)
    assert repository_name(x, "acme", begins) == name
