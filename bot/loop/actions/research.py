"""Research for a plan: what may be asked for this goal, and by whose word data sets are judged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from bot.conversation.messages.tables import budget_words
from bot.conversation.policy import Policy
from bot.data.evaluation_sets import evaluation_set, training_refusal
from bot.data.licences import licence_gate
from bot.domain.experiment import Experiment
from bot.domain.goal import DEFAULT_METHOD
from bot.loop.world import World

_NOT_SHOWN = frozenset({"method", "init_from", "seed"})
"""The goal's own words, in the plan already."""


async def research_facts(world: World, x: Experiment) -> dict[str, Any]:
    """`bot.research.planner.Findings` as plain data; empty where this server does no research."""
    if not world.research or x.goal is None:
        return {}
    # Imported late: what reads papers takes memory that a server without research never needs.
    from bot.loop.library import way_out
    from bot.research.installed import Installed
    from bot.research.planner import Judges, Question, research

    recipe = yaml.safe_load(x.recipe) or {}
    shown = {key: value for key, value in recipe.items() if key not in _NOT_SHOWN and not key.startswith("data_")}
    public = evaluation_set(x.goal.benchmark)
    method = str(recipe.get("method") or DEFAULT_METHOD)
    allowed = x.goal.licences

    def gate(licence: str) -> tuple[bool, str]:
        found = licence_gate(licence, allowed)
        return found.ok, found.reason

    installed = Installed(world.job_python)
    found = await research(
        way_out(world, x), Question(method, public.name if public is not None else ""), shown, _sources(x, shown),
        Judges(training_refusal, gate), installed=installed, clock=world.clock,
    )  # fmt: skip
    return found.as_dict() | {"stops": _stops(x)}


def _stops(x: Experiment) -> list[str]:
    """What would end this plan, one sentence each."""
    assert x.goal is not None
    monitor = Policy.from_dict(x.policy).monitor
    doomed = {
        "abort": "A run that cannot come to anything any more is ended after a checkpoint.",
        "advise": "A run that cannot come to anything any more is pointed out, and goes on.",
    }
    return [
        f"The target {x.goal.said_target} is reached on the dev split, and holds on the sealed one.",
        f"The budget is spent: {budget_words(x.ceilings)}.",
        "Nothing that has not been tried is left: a person is asked.",
        *([doomed[monitor]] if monitor in doomed else []),
        "`/postdoc stop`, or the pull request is closed.",
    ]


def _sources(x: Experiment, recipe: Mapping[str, Any]) -> dict[str, str]:
    """Each key's source: the goal where it brought the key, else the playbook's row."""
    assert x.goal is not None
    brought = (yaml.safe_load(x.goal.recipe) or {}) if x.goal.recipe else {}
    return {key: "the goal" if key in brought else x.recipe_source for key in recipe}
