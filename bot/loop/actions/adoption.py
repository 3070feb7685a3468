"""Adopting the goal that an edited issue offers: one commit that says so, and one event that the fold applies."""

from __future__ import annotations

from typing import Any

import yaml

from bot.conversation import messages
from bot.conversation.github import StaleHead
from bot.conversation.issue_form import goal_yaml
from bot.domain.experiment import RESUMABLE_STATES, EventKind, Experiment, JobRole, NewEvent
from bot.domain.goal import Goal, digest_of
from bot.domain.recipe import differences, with_value
from bot.domain.scripts import TRAIN, with_data_scripts
from bot.errors import UserError
from bot.loop.actions.card import experiment_card
from bot.loop.actions.contract import say
from bot.loop.actions.scripts import script_of
from bot.loop.world import World, digest

_ANEW = frozenset({"base_model", "base_revision", "method", "recipe"})
"""Fields of which each asks for another starting recipe, and so for the first stage."""
_LIGHT = frozenset({"title", "target", "budget"})
"""Fields that a run under way does not depend on."""


def adoption_problem(x: Experiment, wanted: str | None = None) -> str | None:
    """Why the offered goal cannot be adopted now, as a sentence; None when it can.

    `wanted` is the beginning of the hash of the goal that is meant, where its author wrote one.
    """
    if x.offer is None or x.goal is None:
        return "The issue states no other goal than the agreed one, so there is nothing to adopt."
    if wanted and not str(x.offer["hash"]).startswith(wanted.lower()):
        return f"The issue now states the goal `{x.offer['hash']}`, another than that: look at it and write it again."
    if x.pull_request is None or x.closed:
        return "There is no open pull request."
    if x.state.ended and x.state not in RESUMABLE_STATES:
        return f"This goal has ended: {x.reason}."
    if x.confirmation is not None or any(job.role is JobRole.CONFIRM for job in x.jobs.values()):
        return "The sealed test has been opened for this goal, and it opens once: open a new issue for another goal."
    if x.unread_head is not None:
        return "Somebody has pushed to the branch just now; look at it and write the command again."
    run = x.run
    if not _changed_fields(x) <= _LIGHT and (x.running_jobs or (run is not None and not run.reviewed)):
        return "A job is under way that what is changed would disturb: write it again when it has ended, or stop first."
    return None


async def adopt_goal(world: World, x: Experiment, *, by: str) -> list[NewEvent]:
    """Commit the offered goal, with the recipe and script that it brings, and adopt it. `adoption_problem` was asked.

    When the branch has moved meanwhile, the answer is that move: it is read before anything else is decided.
    Raises: UserError, TransientError.
    """
    assert x.goal is not None and x.offer is not None and x.pull_request is not None
    offer, goal = x.offer, Goal.from_dict(x.offer["goal"])
    fields = _changed_fields(x)
    recipe = _recipe(x, goal, fields)
    digests, shipped = dict(x.recipe_digests), dict(x.shipped_digests)
    files: dict[str, bytes | None] = {}
    if fields & {"script", "method"} or (x.stage and fields & _ANEW):
        digests = with_data_scripts(offer["digests"], digests)
        shipped = with_data_scripts(offer["shipped_digests"], shipped)
        files |= {
            f"{x.folder}/{path}": await _script(world, x, goal, path, wanted)
            for path, wanted in digests.items()
            if wanted != x.recipe_digests.get(path)
        }
    last = x.run.recipe if x.run is not None else x.recipe
    changed = {
        k: list(pair) for k, pair in differences(yaml.safe_load(last) or {}, yaml.safe_load(recipe) or {}).items()
    }
    why = f"{by} adopted the goal that the issue now states"
    x.goal, x.pins, x.recipe = goal, dict(offer["pins"]), recipe
    files |= {
        f"{x.folder}/goal.yaml": goal_yaml(goal).encode(),
        f"{x.folder}/recipe.yaml": recipe.encode(),
        f"{x.folder}/README.md": experiment_card(world, x),
    }
    body = messages.commit_message(x, len(x.runs), changed, why).body
    key = f"{x.goal_id}/adopt/{digest_of([x.head_sha, offer['hash']])[:12]}"
    repository = world.repository(x)
    try:
        head = await repository.commit(
            x.branch,
            expected_head=x.head_sha,
            message=f"Adopt the goal that the issue states\n\n{body}",
            key=key,
            files=files,
        )
    except StaleHead:
        actual = await repository.branch_head(x.branch)
        return [NewEvent(EventKind.HEAD_MOVED, f"head/{actual}", {"head_sha": actual, "by": "someone"})]
    await say(repository, x, messages.agreed_contract(x))
    data: dict[str, Any] = {
        "goal": goal.as_dict(),
        "hash": goal.hash,
        "by": by,
        "pins": x.pins,
        "policy": offer["policy"],
        "head_sha": head,
        "recipe": recipe,
        "digests": digests,
        "shipped_digests": shipped,
        "changed": changed,
        "why": why,
    }
    if fields & _ANEW:
        data["stage"] = 0
    return [NewEvent(EventKind.GOAL_ADOPTED, f"adopted/{head}", data)]


def _changed_fields(x: Experiment) -> set[str]:
    assert x.goal is not None and x.offer is not None
    agreed, offered = x.goal.as_dict(), Goal.from_dict(x.offer["goal"]).as_dict()
    return {name for name, value in offered.items() if agreed[name] != value}


def _recipe(x: Experiment, goal: Goal, fields: set[str]) -> str:
    """The recipe at the head after adoption: a new start where another model, method or recipe is asked for, else what
    stands there with the lines that the goal decides."""
    assert x.offer is not None
    if fields & _ANEW:
        return str(x.offer["recipe"])
    text = x.recipe
    if "dataset" in fields:
        sources = (yaml.safe_load(x.offer["recipe"]) or {})["data_sources"]
        text = with_value(text, "data_sources", sources)
    if "seed" in fields:
        text = with_value(text, "seed", goal.seed)
    return text


async def _script(world: World, x: Experiment, goal: Goal, path: str, wanted: str) -> bytes:
    if goal.script is None or path != TRAIN:
        return await script_of(world, x, path, wanted, x.head_sha)
    repository = world.repository(x)
    content = await repository.file(goal.script, (await repository.default_branch())[1])
    if content is None or digest(content) != wanted:
        raise UserError(f"The script `{goal.script}` has changed since the issue was read: edit the issue once more.")
    return content
