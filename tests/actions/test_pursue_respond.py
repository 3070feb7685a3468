"""Modes `pursue` and `respond`, as far as they need no training."""

from __future__ import annotations

from tests.actions.conftest import TEMPLATES, Place

STEP = "OWNER/postdoc@0000000000000000000000000000000000000000"
PURSUE = TEMPLATES / "postdoc-pursue.yml"


def test_goal_that_cannot_be_acted_on_is_refused_with_what_to_write(place: Place) -> None:
    place.push({"goal.yaml": "base_model: a/b\nbenchmark: no/such\ntarget: 0.5\n"})
    run = place.run(PURSUE, "workflow_dispatch", {"inputs": {"goal": "goal.yaml"}})
    assert run.conclusion == "failure"
    assert run.step(STEP).outputs["state"] == "refused"
    assert "no/such" in run.log.text
    assert "Traceback" not in run.log.text


def test_goal_in_words_reaches_the_command_as_words_alone(place: Place) -> None:
    goal = "--folder /tmp/elsewhere $(touch pwned) `touch pwned`; touch pwned"
    run = place.run(PURSUE, "workflow_dispatch", {"inputs": {"goal": "--json=pwned.yaml"}})
    assert run.conclusion == "failure"
    assert "pwned.yaml cannot be read" in run.log.text
    run = place.run(PURSUE, "workflow_dispatch", {"inputs": {"goal": goal + ".yaml"}})
    assert run.conclusion == "failure"
    assert list(place.folder.rglob("pwned*")) == []
