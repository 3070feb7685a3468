"""One goal: its runs and curves, what was diagnosed, what was agreed and spent, and its journal in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup
from starlette.requests import Request

from bot.conversation.messages.review import labels_of
from bot.conversation.messages.tables import run_seconds
from bot.conversation.messages.thoughts import remedy_words
from bot.conversation.messages.wording import changes, listed
from bot.conversation.policy import Policy
from bot.domain.budget import Envelope
from bot.domain.diagnosis import Diagnosis
from bot.domain.experiment import Event, Experiment, Job, JobRole, Run, State
from bot.domain.fold import experiment_of
from bot.domain.goal import GoalId
from bot.domain.recipe import line_with
from bot.loop.actions.specs import goal_folder
from bot.loop.actions.traces import job_path
from bot.loop.spending import consent_missing, remedy_waits
from bot.server.pages.charts import curves as drawn
from bot.server.pages.charts import values_by_run
from bot.server.pages.overview import slots_of
from bot.server.pages.queue import Live, about, ordinal, placed
from bot.server.pages.timeline import FAILURES, task_of, timeline
from bot.server.pages.view import NotHere, View
from bot.server.summaries import summary_of

if TYPE_CHECKING:
    from bot.server.app import Bot

EVENTS_SHOWN = 60
RUNS_SHOWN = 12
"""Of the table, the latest ones and the best; `?runs=all` shows every one."""


def goal_page(bot: Bot, request: Request) -> View:
    """Raises: NotHere when nobody opened such a goal."""
    parts = request.path_params
    goal_id = GoalId(f"{parts['owner']}/{parts['repository']}#{parts['issue']}")
    journal = bot.journal.read(goal_id)
    summary = summary_of(goal_id, journal)
    if summary is None:
        raise NotHere("There is no goal here that Postdoc knows. The dashboard lists all of them.")
    values: dict[str, Any] = {
        "summary": summary, "events": timeline(journal), "every_event": request.query_params.get("events") == "all",
        "events_shown": EVENTS_SHOWN, "x": None, "refresh": 0 if summary.ended else 3,
    }  # fmt: skip
    if summary.state is not None:
        query = request.query_params
        values |= _shown(
            bot, experiment_of(goal_id, journal), journal, query.get("run", ""), query.get("runs") == "all"
        )
        values["place_in_line"] = _place_in_line(bot, goal_id) if summary.running else ""
    return View("goal.html", values, "goals")


def _shown(bot: Bot, x: Experiment, journal: Sequence[Event], wanted: str, every_run: bool) -> dict[str, Any]:
    policy = Policy.from_dict(x.policy)
    run = _chosen(x, wanted)
    listed_runs = x.runs if every_run else _telling(x, run)
    live = Live.of(bot.watcher.progress.get(x.goal_id)) if x.running_jobs else None
    return {
        "x": x,
        "run": run,
        "runs": [_ledger_row(x, each) for each in listed_runs],
        "hidden_runs": len(x.runs) - len(listed_runs),
        "live": live,
        "task": task_of(live.role, live.run) if live is not None else "",
        "values_chart": values_by_run(x.runs, x.baseline, x.goal.target if x.goal is not None else None),
        "charts": _charts(bot, x, run) if run is not None else [],
        "diagnoses": _reports(x, listed_runs, run),
        "asked": _asked(x) if x.state is State.AWAITING_CONSENT else None,
        "consent": _consent(x, journal),
        "jobs": [_job_row(job, x.usd_of(job)) for job in x.jobs.values()],
        "usd_per_hour": policy.usd_per_hour,
    }


def _chosen(x: Experiment, wanted: str) -> Run | None:
    """The run whose curves are shown: the one that was asked for, else the latest."""
    if wanted.isascii() and wanted.isdigit() and 0 < int(wanted[:6]) <= len(x.runs):
        return x.runs[int(wanted[:6]) - 1]
    return x.run


def _telling(x: Experiment, chosen: Run | None) -> list[Run]:
    """The runs that are listed at first: the latest, the best and the chosen one."""
    wanted = {run.n for run in x.runs[-RUNS_SHOWN:]} | {run.n for run in (x.best_run, chosen) if run is not None}
    return [run for run in x.runs if run.n in wanted]


@dataclass(frozen=True, slots=True)
class LedgerRow:
    run: Run
    changed: str
    seconds: float
    best: bool


def _ledger_row(x: Experiment, run: Run) -> LedgerRow:
    best = x.best_run
    words = changes(run.changed) or ("the first recipe" if run.n == 1 else "nothing")
    return LedgerRow(run, words, run_seconds(x, run), best is not None and best.n == run.n)


def _charts(bot: Bot, x: Experiment, run: Run) -> list[tuple[str, Markup, str]]:
    """(heading, drawing, what is missing from it) of the run's curves."""
    # The kept trace stands in for a job whose own folder has been removed.
    trace = goal_folder(bot.world, x) / "runs" / f"{run.n:02d}" / "trace"
    logged = bot.curves.read(
        [(job_path(bot.world, x, JobRole.TRAIN, run.n), "out/metrics.jsonl"), (trace, "metrics.jsonl")]
    )
    found = []
    for heading, keys in (("Loss", ("loss", "eval_loss")), ("Gradient norm", ("grad_norm",))):
        curves = [logged[key] for key in keys if key in logged]
        missing = [
            f"{each.missing:,} of {each.logged:,} logged values of the {each.line.name} are not numbers."
            for each in curves
            if each.missing
        ]
        drawing = drawn(f"{heading} of run {run.n}", [each.line for each in curves])
        if drawing or missing:
            found.append((heading, drawing, " ".join(missing)))
    return found


@dataclass(frozen=True, slots=True)
class Blamed:
    """A diagnosis beside the line that it blames."""

    label: str
    diagnosis: Diagnosis
    line: str
    """Text of the line, empty when no line is blamed."""
    instead: str
    """The line as it should be, empty when no single value follows."""
    runner_up: str


@dataclass(frozen=True, slots=True)
class RunReport:
    run: Run
    blamed: tuple[Blamed, ...]
    opened: bool


def _reports(x: Experiment, runs: Sequence[Run], chosen: Run | None) -> list[RunReport]:
    """The diagnosed runs, the latest first; unfolded is the chosen one, or the latest where that has none yet."""
    diagnosed = [run for run in reversed(runs) if run.diagnosed]
    unfolded = chosen if chosen in diagnosed else next(iter(diagnosed), None)
    return [_blame(x, run, run is unfolded) for run in diagnosed]


def _blame(x: Experiment, run: Run, opened: bool) -> RunReport:
    blamed = []
    for label, diagnosis in zip(labels_of(x, run), run.report.diagnoses, strict=True):
        lines = run.recipe.splitlines()
        number = diagnosis.line if diagnosis.file == "recipe.yaml" else None
        line = lines[number - 1] if number is not None and 0 < number <= len(lines) else ""
        instead = ""
        if line and diagnosis.key is not None and diagnosis.suggested is not None:
            instead = line_with(run.recipe, diagnosis.key, diagnosis.suggested)
        blamed.append(Blamed(label, diagnosis, line, instead, diagnosis.runner_up or ""))
    return RunReport(run, tuple(blamed), opened)


def _asked(x: Experiment) -> dict[str, Any]:
    """The question that waits for a person, and the line that answers it."""
    remedy = x.run.remedy if x.run is not None and not x.changed else None
    if x.run is not None and remedy is not None:
        why = remedy_waits(x, x.run)
    else:
        why = consent_missing(x, keys=tuple(x.changed)) if x.goal is not None else None
    changed = changes(x.changed)
    if remedy is not None:
        changed = f"{remedy_words(remedy)}: {remedy['why']}"
    return {"why": why or "", "changed": changed, "command": f"/postdoc run {x.head_sha[:12]}"}


def _consent(x: Experiment, journal: Sequence[Event]) -> dict[str, Any] | None:
    """The envelope that is in force, who gave it and when."""
    if x.consent is None:
        return None
    given = [event for event in journal if event.kind == "consented"]
    envelope = Envelope.from_dict(x.consent["envelope"])
    keys = listed([f"`{key}`" for key in sorted(envelope.keys)]) or "no line of the recipe"
    return {
        "by": "the repository's policy" if x.consent["by"] == "policy" else f"@{x.consent['by']}",
        "at": given[-1].at if given else None,
        "head_sha": str(x.consent["head_sha"]),
        "envelope": envelope,
        "keys_words": "any line of the recipe" if "*" in envelope.keys else keys,
        "holds": x.goal is not None and envelope.goal_hash == x.goal.hash,
    }  # fmt: skip


@dataclass(frozen=True, slots=True)
class JobRow:
    job: Job
    task: str
    state: str
    tone: str
    usd: float


def _job_row(job: Job, usd: float) -> JobRow:
    status: Mapping[str, Any] = job.status or {}
    state = str(status.get("state", "in progress"))
    failure = FAILURES.get(str(status.get("failure")), "")
    tone = {"succeeded": "good", "in progress": "busy", "cancelled": "done"}.get(state, "bad")
    attempt = f", attempt {job.attempt}" if job.attempt > 1 else ""
    words = f"{state}: {failure}" if failure else state
    return JobRow(job, task_of(job.role, job.run) + attempt, words, tone, usd)


def _place_in_line(bot: Bot, goal_id: GoalId) -> str:
    """Where the goal's own job stands in line, while it waits there."""
    _, waiting = placed(bot.summaries.all(), bot.runner.status, bot.watcher.progress, slots_of(bot))
    for each in waiting:
        if each.summary.goal_id == goal_id:
            wait = f", {about(each.seconds)}" if each.seconds is not None else ""
            return f"{ordinal(each.place)} in line on this machine{wait}"
    return ""
