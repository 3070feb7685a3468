"""What becomes of a language model's proposal once its rows are built and two steps of it are trained: it is refused
with the reason, or made the next change as the playbook's changes are made."""

from __future__ import annotations

import json
from typing import Any

from bot.brain.playbook import Kind as RemedyKind
from bot.brain.playbook import Remedy
from bot.brain.proposals import Ground, Proposal
from bot.brain.proposals.rules import waits_for
from bot.domain.experiment import EventKind, Experiment, JobRole, NewEvent
from bot.domain.redaction import redact
from bot.domain.thought import Thought
from bot.loop.action import Action
from bot.loop.actions.contract import refuse
from bot.loop.actions.preflight import fatal_findings, upcoming
from bot.loop.actions.revising import commit_remedy
from bot.loop.actions.specs import sources_of
from bot.loop.spending import agreed_names, allowance, data_key, next_run_hours
from bot.loop.thinking import MOST_REFUSALS, candidate, proposal_of, smoke_name
from bot.loop.world import World
from runners.job import JobId

_LOG_LINES = 60


async def settle_proposal(world: World, x: Experiment, action: Action) -> list[NewEvent]:
    """Refuse it with the reason, or make it the next change; for the first plan, what is shown."""
    thought = next(each for each in x.thoughts if each.n == action.args["thought"])
    proposal, view = proposal_of(thought), candidate(x, thought)
    key = f"thought/{thought.n}/checked/{thought.proposals}"
    refused = await _refusal(world, x, view, thought, proposal)
    checked: dict[str, Any] = {"thought": thought.n, "run": thought.run, "refused": refused, "last": False}
    if refused is not None:
        checked["last"] = len(thought.refusals) + 1 >= MOST_REFUSALS
        events = [NewEvent(EventKind.PROPOSAL_CHECKED, key, checked)]
        return events + (await without_data(world, x, refused) if checked["last"] else [])
    checked |= {"why": proposal.reason, "recipe": proposal.recipe, "digests": dict(proposal.digests)}
    source = f"{x.recipe_source}, changed by {thought.model}: {proposal.reason}"
    checked["recipe_source"] = source[:600]
    remedy = _remedy(x, thought, proposal)
    checked["remedy"] = remedy.as_dict()
    events = [NewEvent(EventKind.PROPOSAL_CHECKED, key, checked)]
    if thought.run or x.pull_request is None:
        return events
    # The plan is shown already: what changes it is a commit, and whoever asked for it has made it.
    made = await commit_remedy(world, x, remedy, why=proposal.reason, by=thought.asked_by or "postdoc")
    return made if made[0].kind is EventKind.HEAD_MOVED else [*made, *events]


def _remedy(x: Experiment, thought: Thought, proposal: Proposal) -> Remedy:
    run = x.runs[thought.run - 1] if thought.run else None
    scripts = {path: digest for path, digest in proposal.digests.items() if x.recipe_digests.get(path) != digest}
    settings = dict(proposal.settings)
    key = next(iter(settings), None) or next(iter(scripts), "")
    based = x.runs[proposal.base - 1] if proposal.base else None
    ground = Ground(x, run, None, agreed_names(x))
    return Remedy(
        key, settings.pop(key, None), proposal.label, proposal.reason, also=settings, kind=RemedyKind.PROPOSED,
        base=proposal.base, recipe=based.recipe if based is not None else "", scripts=scripts,
        waits=waits_for(ground, proposal), label=f"P{thought.n}",
    )  # fmt: skip


async def _refusal(world: World, x: Experiment, view: Experiment, thought: Thought, proposal: Proposal) -> str | None:
    """Why it may not be trained, from what its rows and two steps of it have shown; None when it may."""
    key = data_key(view.recipe, view.recipe_digests)
    checked = x.data.get(key, {})
    if "build_failed" in checked:
        log = log_of(world, checked["job_id"]) if "job_id" in checked else ""
        return f"Its rows could not be built: {checked['build_failed']}.{_as_data(log)}"
    if checked.get("blocked"):
        return f"Its rows may not be trained on: {checked['blocked']}"
    fatal = await fatal_findings(world, view, upcoming(view))
    if fatal:
        return f"The preflight says that it cannot work: `{fatal[0].symptom}`. {fatal[0].cause}"
    smoke = x.job_for(JobRole.SMOKE, thought.n, smoke_name(thought, key))
    if smoke is not None and not smoke.succeeded:
        failure = (smoke.status or {}).get("failure") or (smoke.status or {}).get("state")
        return f"Two steps of it failed ({failure}).{_as_data(log_of(world, smoke.job_id))}"
    return _too_dear(world, x, view)


def _too_dear(world: World, x: Experiment, view: Experiment) -> str | None:
    needed, left = next_run_hours(view), allowance(x, JobRole.TRAIN, world.clock()).gpu_hours
    if needed is None or needed <= left:
        return None
    return f"It would train for about {needed:.2g} hours, and {left:.2g} are left of the budget. Propose a shorter one."


def _as_data(log: str) -> str:
    return f" The end of its log, as data: {json.dumps(log[-3000:], ensure_ascii=False)}" if log.strip() else ""


def log_of(world: World, job_id: str) -> str:
    return redact(world.runner.log_tail(JobId(job_id), _LOG_LINES), world.known_secrets)


async def without_data(world: World, x: Experiment, why: str) -> list[NewEvent]:
    """A goal that left its data to be found, and none was: one comment says what to write."""
    if x.pull_request is not None or sources_of(x.recipe):
        return []
    reason = (
        f"No training data was found for this goal ({why.rstrip('.')}). Name some in the goal: the path of a JSONL "
        "file in this repository, or a data set of the Hub, `hf:owner/name`."
    )
    return [await refuse(world, x, reason)]
