"""What is edited while work goes on: the sticky comment, and each run's check."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from bot.conversation.messages.ablations import ablation_step
from bot.conversation.messages.charts import sparkline
from bot.conversation.messages.keys import LONGEST_CHECK_TEXT, LONGEST_CHECK_TITLE, message, within_limit
from bot.conversation.messages.lineage import disowned
from bot.conversation.messages.publishing import published_row
from bot.conversation.messages.replies import answers_block
from bot.conversation.messages.reproductions import reproduction_step, reproductions
from bot.conversation.messages.tables import comparisons, ledger, spent_words, table
from bot.conversation.messages.wording import (
    amount,
    changes,
    clock,
    counted,
    duration,
    goal_of,
    scored,
    short,
    state_sentence,
    verdict_clause,
)
from bot.domain.evaluation import Verdict
from bot.domain.experiment import Experiment, JobRole, Run, Score, State
from bot.domain.inert import clipped, code, inert_line, inert_plain

STICKY = "sticky"
_BOX = re.compile(r"^[ \t]{0,3}[-*+] \[[xX]\] [^\n]{0,200}<!-- postdoc:box ([a-z]+) -->", re.MULTILINE)
_TRAINERS = (JobRole.TRAIN, JobRole.ABLATE, JobRole.RETRAIN)
_BOXES = {"stop": "Stop: end the running job, train nothing more", "hour": "One hour more of budget"}


def sticky(
    experiment: Experiment,
    next_step: str = "",
    *,
    spent_usd: float = 0.0,
    now: float | None = None,
) -> str:
    """The one comment that always says how things stand. `now` (Unix seconds) adds how long the goal has been open."""
    goal = goal_of(experiment)
    best = experiment.best_run
    target = f"{goal.said_target} {code(goal.metric, 80)} on {code(goal.benchmark, 120)}"
    rows = [
        ("Target", target),
        ("Base model", scored(experiment.baseline) if experiment.baseline is not None else "not measured yet"),
        (
            "Best run",
            f"run {best.n}: {scored(best.score)}" if best is not None and best.score is not None else "none yet",
        ),
        ("Spent", spent_words(experiment, spent_usd)),
        *published_row(experiment.published),
    ]
    if now is not None and experiment.opened_at:
        rows.append(("Open for", duration((experiment.ended_at or now) - experiment.opened_at)))
    runs = ledger(experiment)
    ended = experiment.state.ended
    asked = answers_block(experiment, experiment.pull_request) if experiment.pull_request is not None else ""
    reason = f" {inert_line(experiment.reason, 500)}" if experiment.reason else ""
    ticks = "" if ended else "\n".join(f"- [ ] {words} <!-- postdoc:box {name} -->" for name, words in _BOXES.items())
    return message(
        experiment.goal_id,
        STICKY,
        f"**{state_sentence(experiment)}**{reason}",
        lost_machine(experiment),
        table(("", ""), rows),
        f"### Runs\n\n{runs}" if runs else "",
        reproductions(experiment),
        f"Next: {next_step or next_step_of(experiment)}",
        ticks,
        f"---\n\n{asked}" if asked else "",
    )


def lost_machine(experiment: Experiment) -> str:
    """One line on the latest training job that had to be started again, "" when none had to."""
    again = [job for job in experiment.jobs.values() if job.attempt > 1 and job.role in _TRAINERS]
    if not again:
        return ""
    job = again[-1]
    what = {JobRole.TRAIN: f"Run {job.run}", JobRole.RETRAIN: f"Reproduction {job.run}"}.get(
        job.role, "A value of the ablation"
    )
    where = f"from step {job.resumed_from:,}" if job.resumed_from is not None else "from the beginning"
    stopped = any(
        (each.role, each.run, each.attempt) == (job.role, job.run, job.attempt - 1)
        and (each.status or {}).get("state") == "cancelled"
        for each in experiment.jobs.values()
    )
    why = "was stopped" if stopped else "lost its machine"
    return f"{what} {why}; attempt {job.attempt} went on {where}."


def boxes_ticked(body: str) -> frozenset[str]:
    """Names of the sticky comment's boxes that somebody ticked."""
    return frozenset(name for name in _BOX.findall(body) if name in _BOXES)


def next_step_of(experiment: Experiment) -> str:
    """What happens next, in words."""
    thought = experiment.thoughts[-1] if experiment.thoughts else None
    if thought is not None and not thought.over and not experiment.concluded:
        about = f"run {thought.run}" if thought.run else "the plan"
        if thought.proposal is not None:
            return f"What the language model proposed about {about} is built and tried for two steps."
        return f"The language model looks at {about} ({counted(thought.turns, 'turn')} so far)."
    if experiment.ablation is not None:
        return ablation_step(experiment.ablation, experiment)
    if experiment.reproduction is not None:
        return reproduction_step(experiment.reproduction, experiment)
    run = experiment.run
    upcoming = f"run {run.n + 1 if run is not None else 1}"
    reached = run is not None and run.score is not None and goal_of(experiment).reached(run.score.value)
    if reached and experiment.state in (State.REVIEWING, State.REVISING):
        return "the sealed test is opened, once, to confirm."
    steps = {
        State.CONTRACT: "the goal is read.",
        State.NEEDS_AUTHOR: "the author edits the issue.",
        State.PLAN: "the data is built and scanned.",
        State.PROPOSED: f"{upcoming} is trained, within what was agreed.",
        State.AWAITING_CONSENT: f"a person agrees with `/postdoc run {short(experiment.head_sha)}`, or stops.",
        State.BASELINE: "training, once the base model's value is known.",
        State.TRAINING: "evaluation on the dev items, in a job of its own.",
        State.EVALUATING: "the review, with a diagnosis of what went wrong if anything did.",
        State.REVIEWING: "the remedy is committed, one cause at a time.",
        State.REVISING: f"{upcoming} with the changed recipe.",
        State.CONFIRMING: "the report.",
        State.MET: "merge this pull request to keep the record.",
        State.NOT_CONFIRMED: "nothing; the sealed test opens once. A merge keeps the record.",
        State.EXHAUSTED: "`/postdoc resume +2` grants two more runs, a merge keeps the record.",
        State.NEEDS_HUMAN: "change `recipe.yaml` here, or `/postdoc set key=value`; `/postdoc resume` goes on.",
        State.STOPPED: "`/postdoc resume` goes on.",
        State.CLOSED: "nothing; the record stays.",
    }
    return steps[experiment.state]


# --- a run's check


@dataclass(frozen=True, slots=True)
class Progress:
    """A running job as seen now."""

    step: int
    total_steps: int | None = None
    loss: float | None = None
    spent_usd: float = 0.0
    budget_usd: float = 0.0
    """0 when no money is involved; then none is mentioned."""
    eta_seconds: float | None = None
    phase: str = "train"
    """`starting`, or the job's role."""
    waits: str = ""
    """What it waits for, in its runner's words; empty once it has begun."""
    advice: str = ""
    """What the monitor sees in it, as Markdown."""


_PHASES = {
    "starting": "starting",
    "train": "training starts",
    "evaluate": "evaluating on the dev items",
    "confirm": "evaluating on the sealed test",
    "probe": "probing learning rates",
}


class Conclusion(StrEnum):
    """GitHub's words for how a check ended."""

    SUCCESS = "success"
    FAILURE = "failure"
    NEUTRAL = "neutral"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    ACTION_REQUIRED = "action_required"


def check_name(run: Run) -> str:
    return f"postdoc / run {run.n}"


def check_title(run: Run, progress: Progress) -> str:
    """`step 1,240/3,000 · loss 1.31 · $4.12 of $20 · ETA 14:20`: a title is no Markdown: a dollar sign is safe."""
    if progress.waits:
        return clipped(inert_plain(f"waiting: {progress.waits}"), LONGEST_CHECK_TITLE)
    if progress.step == 0 and progress.phase in _PHASES:
        return _PHASES[progress.phase]
    of = f"/{progress.total_steps:,}" if progress.total_steps else ""
    parts = [f"{'probe, ' if progress.phase == 'probe' else ''}step {progress.step:,}{of}"]
    if progress.loss is not None:
        parts.append(f"loss {_loss(progress.loss)}")
    if progress.budget_usd > 0:
        parts.append(f"${progress.spent_usd:,.2f} of ${progress.budget_usd:,.10g}")
    if progress.eta_seconds is not None:
        parts.append(f"ETA {clock(progress.eta_seconds)}")
    return clipped(inert_plain(" · ".join(parts)), LONGEST_CHECK_TITLE)


def check_summary(run: Run, progress: Progress, losses: Sequence[float | None] = ()) -> str:
    """The running check's text: what is trained, and the loss as a line of bars."""
    lines = [f"Run {run.n} trains {short(run.head_sha)}: {changes(run.changed) or 'the first recipe'}."]
    if progress.total_steps:
        share = min(1.0, progress.step / progress.total_steps)
        filled = round(share * 30)
        lines.append(f"`{'█' * filled}{'░' * (30 - filled)}` {share:.0%}")
    lines += _loss_lines(losses)
    lines += [progress.advice] if progress.advice else []
    return within_limit("\n\n".join(lines) + "\n", LONGEST_CHECK_TEXT)


def check_conclusion(
    run: Run, *, job_status: Mapping[str, Any] | None = None, target: float | None = None
) -> Conclusion:
    """How a run's check ends. `job_status` is the last job's `JobStatus.as_dict()`, when a job went wrong.

    A model that got worse is a failure; a machine that broke is not the recipe's, so it is neutral.
    """
    status = job_status or {}
    match status.get("state"):
        case "cancelled":
            return Conclusion.CANCELLED
        case "lost":
            return Conclusion.NEUTRAL
        case "failed" if status.get("failure") == "platform":
            return Conclusion.NEUTRAL
        case "failed" if status.get("failure") == "timeout":
            return Conclusion.TIMED_OUT
        case "failed":
            return Conclusion.FAILURE
    if run.failure is not None:
        return Conclusion.FAILURE
    match run.verdict:
        case Verdict.BETTER:
            return Conclusion.SUCCESS
        case Verdict.WORSE:
            return Conclusion.FAILURE
        case _:
            return Conclusion.NEUTRAL


def check_done_title(run: Run, baseline: Score | None, target: float) -> str:
    """A completed check's title: the value, its uncertainty, the base model's, the verdict."""
    if disowned(run) is not None:
        return clipped(inert_plain(run.failure or ""), LONGEST_CHECK_TITLE)
    if run.score is None:
        return clipped(inert_plain(f"not evaluated: {run.failure or 'no value'}"), LONGEST_CHECK_TITLE)
    score, measure = run.score, run.score.measure
    margin = measure.bare_interval(score.ci_low, score.ci_high)
    reached = "target reached" if measure.reached(score.value, target) else f"target {measure.said_target(target)}"
    base = f"base {measure.said(baseline.value)} · " if baseline is not None else ""
    return f"{measure.said(score.value)} ({margin}, n {score.n}) · {base}{run.verdict or 'no verdict'} · {reached}"


def check_done_summary(run: Run, losses: Sequence[float | None] = ()) -> str:
    """A completed check's text; the review says more."""
    if disowned(run) is not None:
        lines = [f"**Run {run.n} was trained, and {inert_line(run.failure or '', 600)}**"]
    elif run.score is None:
        lines = [f"**Run {run.n} was not evaluated.** {inert_line(run.failure or '', 500)}"]
    else:
        lines = [f"**{verdict_clause(run.verdict)}:** {scored(run.score)}."]
    compared = [(name, found) for name, found in compared_with(run) if found]
    if compared:
        lines.append(comparisons(compared))
    lines += _loss_lines(losses)
    if run.symptoms:
        lines.append(f"Symptoms: {', '.join(f'`{name}`' for name in run.symptoms)}.")
    return within_limit("\n\n".join(lines) + "\n", LONGEST_CHECK_TEXT)


def _loss_lines(losses: Sequence[float | None]) -> list[str]:
    lines = []
    finite = [value for value in losses if value is not None and math.isfinite(value)]
    if finite:
        lines.append(f"`{sparkline(losses)}` loss {amount(finite[0])} → {amount(finite[-1])}")
    if len(finite) < len(losses):
        lines.append(f"{len(losses) - len(finite):,} of {len(losses):,} logged losses are not numbers.")
    return lines


def compared_with(run: Run) -> list[tuple[str, dict[str, Any]]]:
    """The run's paired comparisons with their names."""
    before = run.against_best or {}
    number = f" (run {before['run']})" if before.get("run") else ""
    found = [("untouched base model", run.against_baseline), (f"best before{number}", run.against_best)]
    return [(name, comparison) for name, comparison in found if comparison]


def _loss(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) and abs(value) < 1_000 else amount(value)
