"""The last steps: the sealed split that confirms, and the ending that is told once, in every place a person looks."""

from __future__ import annotations

import asyncio
from typing import Any

from bot.conversation import messages
from bot.conversation.github import Refused, StaleHead
from bot.domain.experiment import BASELINE, EventKind, Experiment, JobRole, NewEvent, State
from bot.domain.redaction import redact
from bot.loop.action import Action
from bot.loop.actions.card import experiment_card
from bot.loop.actions.generated import card_of
from bot.loop.actions.jobs import end_job, settle, status_of
from bot.loop.actions.planning import data_card, post_sticky, result_of, score_of
from bot.loop.actions.runs import complete_check
from bot.loop.actions.specs import trained_model
from bot.loop.actions.traces import committed_files
from bot.loop.judging import seal_events
from bot.loop.spending import spend_of
from bot.loop.world import World
from runners.job import JobId


async def confirm(world: World, x: Experiment, action: Action) -> list[NewEvent]:
    """Read what the sealed split said about the run. It is opened once; a failed seal is not asked again. Where the run
    reached the target and may still be no better than the base model, that one is asked on the same items first."""
    assert x.goal is not None and x.baseline is not None
    n = int(action.args["run"])
    job = x.job_for(JobRole.CONFIRM, n)
    assert job is not None
    if not job.succeeded:
        reason = f"the sealed evaluation failed ({status_of(job).get('failure') or status_of(job).get('state')})"
        data: dict[str, Any] = {"run": n, "confirmed": False, "reason": reason, "score": None}
        return [NewEvent(EventKind.CONFIRMED, "confirmed", data)]
    result = await result_of(world, x, job)
    base = x.job_for(JobRole.CONFIRM, BASELINE)
    on_seal = await result_of(world, x, base) if base is not None and base.succeeded else None
    why = str(action.args.get("why") or "")
    events = seal_events(x, n, result, score_of(result, job.job_id), why, on_seal)
    if base is None:
        return events
    if on_seal is not None:
        asked = {"run": BASELINE, "score": score_of(on_seal, base.job_id)}
        return [NewEvent(EventKind.SEAL_OPENED, f"seal/{BASELINE}", asked), *events]
    reason = "the base model could not be evaluated on the sealed items, so nothing says that the run is better"
    data = {"run": n, "confirmed": False, "reason": reason, "score": score_of(result, job.job_id)}
    return [NewEvent(EventKind.CONFIRMED, "confirmed", data)]


async def conclude(world: World, x: Experiment, action: Action) -> list[NewEvent]:
    """End the goal's jobs, commit its report, and say how it ended on the issue and the pull request."""
    state, reason = State(action.args["state"]), str(action.args["reason"])
    for job in x.running_jobs:
        await end_job(world, x, job)
    x.state, x.reason = state, reason
    events = []
    for job in x.running_jobs:
        status = await asyncio.to_thread(world.runner.status, JobId(job.job_id))
        if status is not None and status.state.ended:
            data = {"job_id": job.job_id, "status": status.as_dict()}
            events.append(NewEvent(EventKind.JOB_ENDED, f"job/{job.job_id}/ended", data))
            job.status = data["status"]  # type: ignore[assignment]
    await settle(world, x)
    head = None
    if x.pull_request is not None:
        head = await _close_pull_request(world, x)
    await _tell(world, x)
    ended = {"state": str(state), "reason": reason, "head_sha": head}
    return [*events, NewEvent(EventKind.ENDED, f"ended/{x.length}", ended)]


async def close_issue(world: World, x: Experiment, action: Action) -> list[NewEvent]:
    """A merged pull request settles its issue."""
    await world.repository(x).close_issue(x.issue, completed=x.state is State.MET)
    return [NewEvent(EventKind.ISSUE_CLOSED, f"issue-closed/{x.length}", {})]


async def _close_pull_request(world: World, x: Experiment) -> str | None:
    """The closing commit with its own verdict check, checks left open completed, the draft mark lifted when met."""
    repository = world.repository(x)
    for run in x.runs:
        if not run.reviewed:
            await complete_check(world, x, run)
    head = await _closing_commit(world, x)
    if head is not None and x.state is not State.CLOSED:
        verdict = messages.verdict_check(x)
        output = {"title": verdict.title, "summary": redact(verdict.summary, world.known_secrets)}
        external_id = f"{x.goal_id}/verdict/{x.length}"
        await repository.create_check(
            name=messages.VERDICT_CHECK, sha=head, external_id=external_id, output=output,
            conclusion=verdict.conclusion,
        )  # fmt: skip
    await post_sticky(world, x)
    if x.state is State.MET and not x.closed:
        assert x.pull_request is not None
        await repository.mark_ready(x.pull_request)
    return head


async def _closing_commit(world: World, x: Experiment) -> str | None:
    """The commit that carries the last results and the report; None when the branch is gone or has moved on."""
    files: dict[str, bytes | None] = {f"{x.folder}/README.md": experiment_card(world, x)}
    files |= await world.record_files(x)
    if card_of(x) is not None:
        files[f"{x.folder}/data/README.md"] = data_card(x, synthetic=card_of(x)).encode()
    for run in x.runs:
        if run.diagnosed:
            files |= committed_files(world, x, run)
    message = messages.closing_message(x)
    try:
        return await world.repository(x).commit(
            x.branch,
            expected_head=x.head_sha,
            message=f"{message.headline}\n\n{message.body}",
            key=f"{x.goal_id}/ending/{x.length}",
            files=files,
        )
    except (StaleHead, Refused):
        return None  # a person pushed or deleted the branch: their word stands, the comment still tells the ending


def _model_line(world: World, x: Experiment) -> str:
    """The one line that loads the best model from where it lies."""
    best = x.best_run
    if best is None:
        return ""
    line = f'AutoModelForCausalLM.from_pretrained("{trained_model(world, x, best.n)}")'
    return line if world.lasting else f"{line}\n# on the machine of this workflow run, for as long as it lasts"


async def _tell(world: World, x: Experiment) -> None:
    """One new comment, because an edit notifies nobody: on the pull request where there is one, else on the issue."""
    if x.crash_reference is not None:
        body, name = messages.crash_apology(x, x.crash_reference), f"crash/{x.length}"
    else:
        body, name = (
            messages.ending(x, spent_usd=spend_of(x).usd, model_line=_model_line(world, x)),
            messages.ending_name(x),
        )
    body, key = redact(body, world.known_secrets), messages.hidden_key(x.goal_id, name)
    number = x.pull_request or x.issue
    await world.repository(x).upsert_comment(number, key, body)
