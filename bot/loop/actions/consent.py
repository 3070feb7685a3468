"""Consent: the question, the policy's own answer, and the envelope that a person's word becomes."""

from __future__ import annotations

from typing import Any

import yaml

from bot.brain.playbook import Remedy
from bot.conversation import messages
from bot.conversation.github import InlineComment
from bot.conversation.policy import Policy
from bot.domain.budget import NOTHING, Envelope, Spend, raised, remaining
from bot.domain.experiment import Command, EventKind, Experiment, NewEvent
from bot.domain.goal import Budget
from bot.domain.recipe import differences, line_with
from bot.loop.action import Action
from bot.loop.actions.planning import plan_facts
from bot.loop.hardware import Unfit
from bot.loop.spending import granted_names, memory_unfit, spend_of
from bot.loop.world import World

AGREE = "agree"
"""Identifier of the button on the consent check."""


async def consent_by_policy(world: World, x: Experiment, action: Action) -> list[NewEvent]:
    """Record what the repository's policy grants by itself."""
    assert x.goal is not None
    grant, asked = Policy.from_dict(x.policy).consent, x.ceilings
    ceilings = Budget(
        usd=min(grant.usd, asked.usd),
        gpu_hours=min(grant.gpu_hours, asked.gpu_hours),
        runs=min(grant.runs, asked.runs),
        wall_hours=asked.wall_hours,
    )
    consent = {
        "by": "policy",
        "head_sha": action.args["head_sha"],
        "envelope": Envelope(x.goal.hash, ceilings, granted_names(Policy.from_dict(x.policy))).as_dict(),
    }
    return [NewEvent(EventKind.CONSENTED, f"consent/{x.length}", consent)]


async def ask_consent(world: World, x: Experiment, action: Action) -> list[NewEvent]:
    """Put the question to people, once for each head: a comment with the exact command, and a check with a button."""
    assert x.goal is not None and x.pull_request is not None
    sha, why = str(action.args["head_sha"]), str(action.args["why"])
    left, repository = left_of(x, x.ceilings), world.repository(x)
    key = messages.hidden_key(x.goal_id, f"consent/{sha[:12]}")
    if action.args["remedy"]:
        # The head has been trained; what waits is a change that goes beyond what was agreed. Its button is on the
        # run's own check, its suggestion on the line.
        body = messages.remedy_question(
            x, sha=sha, left=left, why=why, changed=_remedy_changes(x), buttons=world.buttons
        )
        await repository.upsert_comment(x.pull_request, key, body)
        asked: dict[str, Any] = {"head_sha": sha, "check_run_id": None}
        return [NewEvent(EventKind.CONSENT_ASKED, f"consent-asked/{sha}/{x.length}", asked)]
    too_large = memory_unfit(x)
    if too_large is not None:
        await _say_unfit(world, x, sha, too_large)
    what = [why] if too_large is None or too_large.diagnosis.cause in why else [why, too_large.diagnosis.cause]
    facts = messages.PlanFacts(**plan_facts(world, x))
    body = messages.consent_question(x, sha=sha, left=left, what=what, facts=facts)
    await repository.upsert_comment(x.pull_request, key, body)
    title, summary = messages.consent_check(x, sha, left, buttons=world.buttons)
    output = {"title": title, "summary": summary}
    button = {"label": "Agree", "description": "Train this, within the ceilings", "identifier": AGREE}
    check = await repository.create_check(
        name=messages.CONSENT_CHECK, sha=sha, external_id=f"{x.goal_id}/consent/{sha}", output=output,
        conclusion="action_required", actions=[button] if world.buttons else [],
    )  # fmt: skip
    asked = {"head_sha": sha, "check_run_id": check}
    return [NewEvent(EventKind.CONSENT_ASKED, f"consent-asked/{sha}/{x.length}", asked)]


async def _say_unfit(world: World, x: Experiment, sha: str, too_large: Unfit) -> None:
    """Where the recipe does not fit on its machine, a review on the line that would change that."""
    assert x.pull_request is not None
    diagnosis, changes = too_large
    line = (
        line_with(x.recipe, diagnosis.key, diagnosis.suggested)
        if diagnosis.key and diagnosis.line and changes
        else None
    )
    comment = messages.preflight_comment(x, sha, diagnosis, changes, line)
    await world.repository(x).review(
        x.pull_request,
        sha=sha,
        key_line=messages.hidden_key(x.goal_id, messages.preflight_name(sha)),
        body=messages.preflight_review(x, sha),
        comments=[InlineComment(f"{x.folder}/{diagnosis.file}", diagnosis.line, comment)],
    )


def _remedy_changes(x: Experiment) -> dict[str, list[Any]]:
    run = x.run
    assert run is not None and run.remedy is not None
    before = yaml.safe_load(run.recipe) or {}
    after = yaml.safe_load(Remedy.from_dict(run.remedy).applied(run.recipe)) or {}
    return {key: list(pair) for key, pair in differences(before, after).items()}


def left_of(x: Experiment, ceilings: Budget) -> Spend:
    """What may still be spent under these ceilings."""
    return remaining(ceilings, spend_of(x))


def agreement(x: Experiment, command: Command, more: Spend = NOTHING) -> NewEvent:
    """A person's consent: the goal as it stands, up to its ceilings and `more`, for the recipe keys that policy lets
    Postdoc change."""
    assert x.goal is not None
    keys = granted_names(Policy.from_dict(x.policy))
    data: dict[str, Any] = {
        "by": command.author,
        "by_id": command.author_id,
        "head_sha": x.head_sha,
        "envelope": Envelope(x.goal.hash, raised(x.ceilings, more), keys).as_dict(),
    }
    return NewEvent(EventKind.CONSENTED, f"consent/{command.seq}", data)


async def close_question(world: World, x: Experiment, by: str, ceilings: Budget) -> None:
    """Turn the check that waited for a person into a green one."""
    if x.consent_check_id is not None:
        title, summary = messages.agreed_check(by, left_of(x, ceilings))
        output = {"title": title, "summary": summary}
        await world.repository(x).update_check(x.consent_check_id, output=output, conclusion="success")


def needs_second_person(x: Experiment, command: Command, more: Spend = NOTHING) -> float | None:
    """The ceiling in USD above which the goal's author alone cannot agree, when this command would pass it."""
    limit = Policy.from_dict(x.policy).self_approve_usd
    alone = command.author_id == x.author_id
    return limit if alone and raised(x.ceilings, more).usd > limit else None


def above_policy(x: Experiment, more: Spend) -> str | None:
    """Why policy forbids raising the goal's ceilings by `more`; None when it does not."""
    allowed, wanted = Policy.from_dict(x.policy).budget, raised(x.ceilings, more)
    for name, words in (("usd", "USD"), ("gpu_hours", "GPU hours"), ("runs", "runs"), ("wall_hours", "hours in all")):
        top, new = getattr(allowed, name), getattr(wanted, name)
        if getattr(more, name) and new > top:
            return (
                f"That makes {new:g} {words}, and this repository's policy allows a goal {top:g}. "
                f"`budget.{name}` in `.github/postdoc.yml` on the default branch holds it."
            )
    return None
