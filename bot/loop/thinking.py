"""What the language model's part of a goal needs next: pure, like the policy that asks here.

A thought goes on in sittings, so that people are heard in between. What it proposes is first built and trained for two
steps, as jobs like any other, on an experiment that has the proposal at its head and stands in no journal.
"""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from typing import NamedTuple

from bot.brain.proposals import Proposal
from bot.brain.proposals.asking import names_data as recipe_names_data
from bot.conversation.recipe_rules import NUMBERS, SWITCHES
from bot.domain.experiment import Experiment
from bot.domain.goal import digest_of
from bot.domain.thought import Thought
from bot.loop.spending import data_key, policy_covers

MOST_REFUSALS = 4
"""† Proposals of one thought that may fail a check outside of the conversation; each costs a build and two steps."""


class Due(StrEnum):
    THINK = "think"
    BUILD = "build"
    """The rows that it would train on, and their gates."""
    SMOKE = "smoke"
    SETTLE = "settle"


class Step(NamedTuple):
    due: Due
    thought: int
    sitting: int = 0
    data_key: str = ""
    smoke: str = ""
    """Names what the smoke run tries."""


def next_step(x: Experiment, run: int) -> Step | None:
    """What is due for the thought about this run (0: the first plan) before anything else goes on; None when nothing
    is."""
    thought = x.thought_on(run)
    if thought is None:
        return Step(Due.THINK, len(x.thoughts) + 1, 1) if may_think(x, run) else None
    if thought.over:
        return None
    if thought.proposal is None:
        return Step(Due.THINK, thought.n, thought.sittings + 1)
    view = candidate(x, thought)
    key = data_key(view.recipe, view.recipe_digests)
    checked = x.data.get(key)
    if checked is None:
        return Step(Due.BUILD, thought.n, data_key=key)
    usable = not checked.get("blocked") and "build_failed" not in checked
    if usable and needs_smoke(x, thought) and may_spend(x):
        return Step(Due.SMOKE, thought.n, data_key=key, smoke=smoke_name(thought, key))
    return Step(Due.SETTLE, thought.n, data_key=key)


def smoke_name(thought: Thought, key: str) -> str:
    proposal = thought.proposal or {}
    return digest_of([proposal.get("recipe"), proposal.get("digests"), key])[:12]


def may_think(x: Experiment, run: int) -> bool:
    """Whether a model is there to be asked, and somebody has agreed to what that costs. One without a price costs
    nothing."""
    brain = x.runs[run - 1].brain if run else x.brain
    if brain is None:
        return False
    return not brain["priced"] or may_spend(x)


def names_data(x: Experiment) -> bool:
    """False while the training data of a goal are still to be found."""
    return recipe_names_data(x.recipe)


def may_spend(x: Experiment) -> bool:
    """Whether somebody has agreed, or the policy pays by itself; asked of what stands at the head."""
    return x.consent is not None or (x.goal is not None and policy_covers(x) is None)


def needs_smoke(x: Experiment, thought: Thought) -> bool:
    """Two steps of training say nothing about another number where the same scripts and rows have trained before."""
    proposal = proposal_of(thought)
    base = x.runs[proposal.base - 1] if proposal.base else x.run
    if base is None or proposal.files or base.failure is not None:
        return True
    return any(key not in NUMBERS and key not in SWITCHES for key in proposal.settings)


def proposal_of(thought: Thought) -> Proposal:
    assert thought.proposal is not None
    return Proposal.from_dict(thought.proposal)


def candidate(x: Experiment, thought: Thought) -> Experiment:
    """The experiment with what was proposed at its head."""
    proposal = proposal_of(thought)
    return replace(x, recipe=proposal.recipe, recipe_digests=dict(proposal.digests))


def with_candidate(x: Experiment, number: object) -> Experiment:
    """The same for an action that names the thought, and the experiment itself for one that names none."""
    thought = next((each for each in x.thoughts if each.n == number), None)
    return x if thought is None or thought.proposal is None else candidate(x, thought)
