"""A thought as the journal tells it, and the words that every kind of job has."""

from __future__ import annotations

import json
from typing import Any

from bot.domain.experiment import EventKind as Kind
from bot.domain.experiment import Experiment, JobRole, NewEvent
from bot.domain.fold import foreseen
from bot.domain.goal import GoalId
from bot.domain.thought import Outcome, text_digest
from bot.practice import narration
from bot.server.pages import timeline


def thought(sitting: int, **fields: Any) -> NewEvent:
    data = {"thought": 1, "run": 0, "sitting": sitting, "model": "openai:qwen3", "turns": sitting, "usd": 0.5,
            "outcome": None, "why": "", "proposal": None} | fields  # fmt: skip
    return NewEvent(Kind.THOUGHT, f"thought/1/{sitting}", data)


def checked(refused: str | None, *, last: bool = False) -> NewEvent:
    data = {"thought": 1, "run": 0, "refused": refused, "last": last, "why": "why", "recipe": "max_steps: 3\n",
            "recipe_source": "the playbook, changed", "remedy": None,
            "digests": {"train.py": text_digest("x = 1\n")}}  # fmt: skip
    return NewEvent(Kind.PROPOSAL_CHECKED, f"thought/1/checked/{refused}", data)


PROPOSAL = {"kind": "patch", "reason": "r", "files": {"train.py": "x = 1\n"}}


def told(*events: NewEvent) -> Experiment:
    return foreseen(
        Experiment(GoalId("acme/lab#1")), [NewEvent(e.kind, f"{n}", e.data) for n, e in enumerate(events)], 1.0
    )


def test_sittings_add_up_to_one_thought() -> None:
    [found] = told(thought(1), thought(2)).thoughts
    assert (found.sittings, found.turns, found.usd, found.over) == (2, 2, 0.5, False)


def test_a_refused_proposal_is_remembered_and_thought_on() -> None:
    x = told(thought(1, proposal=PROPOSAL), checked("It crashed."))
    [found] = x.thoughts
    assert (found.refusals, found.proposal, found.proposals, found.over) == (["It crashed."], None, 1, False)
    assert x.written == {text_digest("x = 1\n"): "x = 1\n"}
    assert told(thought(1, proposal=PROPOSAL), checked("No.", last=True)).thoughts[0].outcome is Outcome.REFUSED


def test_an_adopted_plan_is_what_stands_at_the_head() -> None:
    x = told(thought(1, proposal=PROPOSAL), checked(None))
    assert x.thoughts[0].outcome is Outcome.ADOPTED
    assert (x.recipe, x.recipe_source) == ("max_steps: 3\n", "the playbook, changed")
    assert x.recipe_digests == {"train.py": text_digest("x = 1\n")}
    assert json.loads(json.dumps(x.thoughts[0].proposal)) == PROPOSAL


def test_a_plan_of_another_text_is_not_this_one() -> None:
    x = told(thought(1, outcome="nothing"))
    assert x.thought_on(0) is not None
    x.contract_version += 1
    assert x.thought_on(0) is None


def test_every_kind_of_job_has_its_words() -> None:
    for role in JobRole:
        assert str(role) in timeline.ROLES and str(role) in narration._ROLES
