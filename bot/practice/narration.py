"""What the terminal says of a goal: its journal's events as short entries, and the running job as one line.

Pure: the same journal gives the same entries. Nothing here knows whether a terminal is listening.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from bot.domain.budget import Envelope
from bot.domain.diagnosis import Diagnosis, Severity
from bot.domain.experiment import Event, EventKind, Experiment, JobRole, Run, State
from bot.domain.fold import experiment_of
from bot.domain.goal import GoalId
from bot.domain.metrics import DEFAULT, metric_named

SHOWN_RECIPE_KEYS = (
    "learning_rate", "lr_scheduler_type", "max_steps", "num_train_epochs", "per_device_train_batch_size", "max_length",
)  # fmt: skip
"""What of a starting recipe fits into one line."""


class Tone(StrEnum):
    PLAIN = "plain"
    QUIET = "quiet"
    GOOD = "good"
    WARN = "warn"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened."""

    at: float
    """Unix seconds."""
    label: str
    text: str
    details: tuple[str, ...] = ()
    tone: Tone = Tone.PLAIN


@dataclass(slots=True)
class Story:
    """One goal's journal, told as it grows."""

    goal_id: GoalId
    page: str
    """Address of the repository's pages."""
    events: list[Event] = field(default_factory=list)

    @property
    def experiment(self) -> Experiment:
        return experiment_of(self.goal_id, self.events)

    @property
    def last_seq(self) -> int:
        return self.events[-1].seq if self.events else -1

    def heard(self, rows: Iterable[Mapping[str, Any]]) -> list[Entry]:
        """What the new events say, in their order; events that were heard before are passed over."""
        entries: list[Entry] = []
        for row in rows:
            event = Event(row["seq"], EventKind(row["kind"]), row["key"], row["at"], row["data"])
            if event.seq > self.last_seq:
                self.events.append(event)
                entries += entries_of(event, self.experiment, self.page)
        return entries


def entries_of(event: Event, x: Experiment, page: str) -> list[Entry]:
    """What `event` says; `x` is the experiment with this event folded in."""
    tell = _TELLERS.get(event.kind)
    return [] if tell is None else tell(event, x, page)


def _entry(
    event: Event, label: str, text: str, details: Iterable[str | None] = (), tone: Tone = Tone.PLAIN
) -> list[Entry]:
    return [Entry(event.at, label, text, tuple(detail for detail in details if detail), tone)]


def _contract(event: Event, x: Experiment, page: str) -> list[Entry]:
    goal = x.goal
    if goal is None:
        return _entry(event, "refused", x.refusal or "the goal cannot be read", tone=Tone.BAD)
    budget = goal.budget
    text = f"{goal.metric} on {goal.benchmark} of at least {percent(goal.target)}, starting from {goal.base_model}"
    ceiling = f"at most {count(budget.runs, 'run')}, {budget.gpu_hours:g} h of jobs, {budget.usd:g} USD"
    return _entry(event, "contract", text, (f"{ceiling} · goal hash {goal.hash}", _recipe_line(x)))


def _recipe_line(x: Experiment) -> str:
    source = x.recipe_source.partition("\n")[0]
    return f"starting recipe: {source} ({recipe_summary(x.recipe)})"


def _refused(event: Event, x: Experiment, page: str) -> list[Entry]:
    return _entry(event, "refused", str(event.data["reason"]), tone=Tone.BAD)


def _data(event: Event, x: Experiment, page: str) -> list[Entry]:
    d = event.data
    if d.get("build_failed"):
        return _entry(event, "data", f"could not be built: {d['build_failed']}", tone=Tone.BAD)
    build, scan = d.get("build", {}), d.get("scan", {})
    counts = f"{build.get('rows', '?')} rows to train on, {build.get('validation_rows', 0)} to validate"
    licences = [
        f"{gate['found'] or 'unknown licence'} ({'base model' if x.goal and name == x.goal.base_model else name})"
        for name, gate in d.get("licences", {}).items()
    ]
    flagged = len(scan.get("flagged", ()))
    scanned = (
        f"contamination scan: {scan.get('verdict', 'not made')}, {flagged} of {scan.get('rows', '?')} rows flagged"
    )
    dropped = ", ".join(f"{number} {reason}" for reason, number in build.get("dropped", {}).items() if number)
    details = (
        f"licences: {', '.join(licences)}" if licences else None,
        scanned,
        f"left out: {dropped}" if dropped else None,
        *(f"seen before training: {warning}" for warning in d.get("warnings", ())),
    )
    if d.get("blocked"):
        return _entry(event, "data", str(d["blocked"]), details, Tone.BAD)
    return _entry(event, "plan", counts, details)


def _baseline(event: Event, x: Experiment, page: str) -> list[Entry]:
    return _entry(event, "baseline", f"{score_text(event.data['score'])} · the untouched base model")


def _proposed(event: Event, x: Experiment, page: str) -> list[Entry]:
    return _entry(event, "proposed", f"pull request #{x.pull_request}", (f"{page}/pull/{x.pull_request}",), Tone.GOOD)


def _consented(event: Event, x: Experiment, page: str) -> list[Entry]:
    d = event.data
    who = "the repository's policy" if d["by"] == "policy" else f"@{d['by']}"
    ceilings = Envelope.from_dict(d["envelope"]).ceilings
    text = f"given by {who}: {count(ceilings.runs, 'run')}, {ceilings.gpu_hours:g} h of jobs, {ceilings.usd:g} USD"
    return _entry(event, "consent", text, tone=Tone.QUIET)


def _consent_asked(event: Event, x: Experiment, page: str) -> list[Entry]:
    where = f"{page}/pull/{x.pull_request}"
    return _entry(event, "waiting", "a person has to agree to this spending: /postdoc run", (where,), Tone.WARN)


def _run_started(event: Event, x: Experiment, page: str) -> list[Entry]:
    run = x.runs[-1]
    what = changes_text(run.changed) or ("the starting recipe" if run.n == 1 else "the recipe as it stands")
    return _entry(event, f"run {run.n}", f"{run.method} on {run.head_sha[:7]} · {what}")


def _job_ended(event: Event, x: Experiment, page: str) -> list[Entry]:
    job = x.jobs.get(event.data["job_id"])
    if job is None or job.status is None:
        return []
    entries: list[Entry] = []
    ended = [other for other in x.jobs.values() if other.ended]
    if len(ended) == 1 and job.status.get("tier"):
        entries += _entry(event, "sandbox", f"jobs run in the tier {job.status['tier']}", tone=Tone.QUIET)
    if job.role is JobRole.TRAIN and job.succeeded:
        entries += _entry(event, f"run {job.run}", f"trained in {job.seconds:.1f} s", tone=Tone.QUIET)
    if not job.succeeded:
        what = job.status.get("failure") or job.status.get("state")
        evidence = tuple(str(line) for line in job.status.get("evidence", ()))[:2]
        entries += _entry(event, "job", f"{job.role} of run {job.run} did not succeed: {what}", evidence, Tone.WARN)
    return entries


def _diagnosed(event: Event, x: Experiment, page: str) -> list[Entry]:
    run = x.runs[event.data["run"] - 1]
    label = f"run {run.n}"
    if run.score is not None:
        better = {"better": Tone.GOOD, "worse": Tone.BAD}.get(run.verdict or "", Tone.PLAIN)
        entries = _entry(event, label, f"{score_text(event.data['score'])} · {verdict_text(run)}", tone=better)
    else:
        entries = _entry(event, label, run.failure or "not evaluated", tone=Tone.BAD)
    for diagnosis in run.report.diagnoses:
        entries += _diagnosis(event, diagnosis)
    if not run.report.diagnoses:
        entries += _entry(event, "diagnosis", "nothing to blame", tone=Tone.QUIET)
    if run.remedy is not None and run.remedy.get("probe"):
        rates = ", ".join(f"{rate:g}" for rate in run.remedy.get("rates", ()))
        entries += _entry(event, "probe", f"a learning-rate range test follows (not a run): {rates}", tone=Tone.QUIET)
    return entries


def _diagnosis(event: Event, diagnosis: Diagnosis) -> list[Entry]:
    advice = diagnosis.severity is Severity.ADVICE
    place = diagnosis.file + (f" line {diagnosis.line}" if diagnosis.line else "")
    blamed = f" ({diagnosis.key})" if diagnosis.key else ""
    symptom, sure = str(diagnosis.symptom).replace("_", " "), f"{round(100 * diagnosis.confidence)} % sure"
    text = f"{symptom} · {place}{blamed} · {diagnosis.severity}, {sure}"
    return _entry(event, "diagnosis", text, (diagnosis.cause,), Tone.QUIET if advice else Tone.WARN)


def _reviewed(event: Event, x: Experiment, page: str) -> list[Entry]:
    run = x.runs[event.data["run"] - 1]
    entries: list[Entry] = []
    if run.probe is not None:
        entries += _entry(event, "probe", *probe_text(run.probe))
    blamed = sum(diagnosis.severity is not Severity.ADVICE for diagnosis in run.report.diagnoses)
    text = f"of run {run.n} posted on pull request #{x.pull_request}" + (", with its line comments" if blamed else "")
    return entries + _entry(event, "review", text, tone=Tone.QUIET)


def _revised(event: Event, x: Experiment, page: str) -> list[Entry]:
    by = "" if event.data["by"] == "postdoc" else f" (asked for by @{event.data['by']})"
    stage = event.data.get("stage")
    what = f"stage {stage['index'] + 1} begins" if stage else changes_text(x.changed) or "recipe unchanged"
    text = f"{x.head_sha[:7]} {what}{by}"
    return _entry(event, "commit", text)


def _head_moved(event: Event, x: Experiment, page: str) -> list[Entry]:
    return _entry(event, "push", f"{event.data['head_sha'][:7]} by @{event.data['by']}")


def _command(event: Event, x: Experiment, page: str) -> list[Entry]:
    words = " ".join(["/postdoc", str(event.data["verb"]), *map(str, event.data["args"])])
    return _entry(event, "command", f"@{event.data['author']}: {words}")


def _holdout(event: Event, x: Experiment, page: str) -> list[Entry]:
    d = event.data
    found = "the target may be within reach" if d["told"] else "no better than what was told before"
    return _entry(event, "holdout", f"run {d['run']} held against {d['rung']['n']} items that chose nothing: {found}")


def _confirmed(event: Event, x: Experiment, page: str) -> list[Entry]:
    d = event.data
    score = f"{score_text(d['score'])} · on items that no run has seen" if d.get("score") else ""
    # Why it is confirmed or not is the ending's reason, which comes next.
    return _entry(event, "sealed", score or str(d["reason"]), tone=Tone.GOOD if d["confirmed"] else Tone.BAD)


def _ended(event: Event, x: Experiment, page: str) -> list[Entry]:
    tone = Tone.GOOD if x.state is State.MET else Tone.WARN
    return _entry(event, str(x.state), x.reason, tone=tone)


def _closed(event: Event, x: Experiment, page: str) -> list[Entry]:
    what = "merged" if event.data["merged"] else "closed"
    return _entry(event, what, f"pull request #{x.pull_request}, by @{event.data['by']}")


def _reopened(event: Event, x: Experiment, page: str) -> list[Entry]:
    return _entry(event, "reopened", f"pull request #{x.pull_request}, by @{event.data['by']}")


def _edited(event: Event, x: Experiment, page: str) -> list[Entry]:
    return _entry(event, "edited", f"the issue's text, by @{event.data['by']}")


def _goal_read(event: Event, x: Experiment, page: str) -> list[Entry]:
    offered = event.data["offer"]
    return _entry(event, "offered", f"another goal, {offered['hash']}: /postdoc accept goal") if offered else []


def _adopted(event: Event, x: Experiment, page: str) -> list[Entry]:
    return _entry(event, "adopted", f"the goal {event.data['hash']}, by @{event.data['by']}")


def _issue_closed(event: Event, x: Experiment, page: str) -> list[Entry]:
    return _entry(event, "closed", f"issue #{x.issue}, by @{event.data['by']}")


def _crashed(event: Event, x: Experiment, page: str) -> list[Entry]:
    reference = event.data["reference"]
    found = f"the bot's log has it under {reference}" if reference else None
    return _entry(event, "error", str(event.data["error"]), (found,), Tone.BAD)


def _budget_raised(event: Event, x: Experiment, page: str) -> list[Entry]:
    return _entry(event, "budget", f"raised by @{event.data['by']}")


def _outputs_gone(event: Event, x: Experiment, page: str) -> list[Entry]:
    what = _ROLES[event.data["role"]].format(run=event.data["run"])
    return _entry(event, "gone", f"what {what} left is gone with its machine", tone=Tone.WARN)


def _monitored(event: Event, x: Experiment, page: str) -> list[Entry]:
    of = f"/{event.data['total_steps']:,}" if event.data.get("total_steps") else ""
    cause = event.data["diagnoses"][0]["cause"]
    return _entry(event, "monitor", f"ends the job at step {event.data['step']:,}{of}: {cause}", tone=Tone.WARN)


def _job_refused(event: Event, x: Experiment, page: str) -> list[Entry]:
    cause = event.data["diagnoses"][0]["cause"]
    return _entry(event, "preflight", f"does not start run {event.data['run']}: {cause}", tone=Tone.WARN)


def _ablation_opened(event: Event, x: Experiment, page: str) -> list[Entry]:
    values = ", ".join(str(arm["value"]) for arm in event.data["arms"])
    who = "Postdoc tries" if event.data.get("for_run") else f"@{event.data['by']} asked for"
    return _entry(event, "ablation", f"{who} {event.data['key']} = {values}, side by side")


def _ablation_reported(event: Event, x: Experiment, page: str) -> list[Entry]:
    told = [
        f"{row['value']}: {score_text(row['score']) if row['score'] else row['failure']}" for row in event.data["rows"]
    ]
    return _entry(event, "ablation", f"table {event.data['ablation']} posted", tuple(told))


def _reproduction_opened(event: Event, x: Experiment, page: str) -> list[Entry]:
    return _entry(event, "reproduce", f"@{event.data['by']} asked for run {event.data['run']} to be made again")


def _reproduction_rebuilt(event: Event, x: Experiment, page: str) -> list[Entry]:
    then, now = event.data["rows"]
    told = "the same rows as then" if then == now else "what it was built from is not known any more"
    differs = then not in ("", now)
    text = "the training set was built again: " + ("other rows than then" if differs else told)
    return _entry(event, "reproduce", text, tone=Tone.WARN if differs else Tone.PLAIN)


def _reproduction_reported(event: Event, x: Experiment, page: str) -> list[Entry]:
    report = event.data["report"]
    told = tuple(filter(None, [str(report.get("first") or "")]))
    return _entry(event, "reproduce", f"run {event.data['run']}: {report.get('verdict') or report['failure']}", told)


def _spending_refused(event: Event, x: Experiment, page: str) -> list[Entry]:
    return _entry(event, "refused", str(event.data["reason"]), tone=Tone.BAD)


def _published(event: Event, x: Experiment, page: str) -> list[Entry]:
    return _entry(event, "published", str(event.data.get("url") or event.data.get("problem")))


def _thought(event: Event, x: Experiment, page: str) -> list[Entry]:
    data, about = event.data, f"run {event.data['run']}" if event.data["run"] else "the first plan"
    cost = f"{data['turns']} turn{'' if data['turns'] == 1 else 's'}" + (f", ${data['usd']:.2f}" if data["usd"] else "")
    if data["proposal"]:
        return _entry(event, "thought", f"proposes a {data['proposal']['kind']} change after {cost}",
                      (data["proposal"]["reason"],))  # fmt: skip
    if data["outcome"] is None:
        return []
    return _entry(event, "thought", f"about {about}: {data['outcome']}, {cost}", (data["why"],))


def _proposal_checked(event: Event, x: Experiment, page: str) -> list[Entry]:
    if event.data["refused"]:
        return _entry(event, "thought", "the proposal was refused", (event.data["refused"],), tone=Tone.WARN)
    return _entry(event, "thought", "the proposal passed its checks", tone=Tone.GOOD)


def _judged(event: Event, x: Experiment, page: str) -> list[Entry]:
    cost = f"{event.data['answers']:,} judgements, ${event.data['usd']:.2f}"
    how, tone = ("scored", Tone.PLAIN) if event.data["done"] else ("not all scored", Tone.WARN)
    return _entry(event, "judge", f"the answers are {how}: {cost}", tone=tone)


_TELLERS = {
    EventKind.JUDGED: _judged,
    EventKind.THOUGHT: _thought,
    EventKind.PROPOSAL_CHECKED: _proposal_checked,
    EventKind.CONTRACT_READ: _contract,
    EventKind.REFUSED: _refused,
    EventKind.DATA_CHECKED: _data,
    EventKind.BASELINE_RECORDED: _baseline,
    EventKind.PROPOSED: _proposed,
    EventKind.CONSENTED: _consented,
    EventKind.CONSENT_ASKED: _consent_asked,
    EventKind.RUN_STARTED: _run_started,
    EventKind.JOB_ENDED: _job_ended,
    EventKind.DIAGNOSED: _diagnosed,
    EventKind.REVIEWED: _reviewed,
    EventKind.REVISED: _revised,
    EventKind.HEAD_MOVED: _head_moved,
    EventKind.COMMAND: _command,
    EventKind.HOLDOUT_ASKED: _holdout,
    EventKind.CONFIRMED: _confirmed,
    EventKind.ENDED: _ended,
    EventKind.PULL_REQUEST_CLOSED: _closed,
    EventKind.PULL_REQUEST_REOPENED: _reopened,
    EventKind.GOAL_EDITED: _edited,
    EventKind.GOAL_READ: _goal_read,
    EventKind.GOAL_ADOPTED: _adopted,
    EventKind.BUDGET_RAISED: _budget_raised,
    EventKind.MONITORED: _monitored,
    EventKind.JOB_REFUSED: _job_refused,
    EventKind.OUTPUTS_GONE: _outputs_gone,
    EventKind.ABLATION_OPENED: _ablation_opened,
    EventKind.ABLATION_REPORTED: _ablation_reported,
    EventKind.REPRODUCTION_OPENED: _reproduction_opened,
    EventKind.REPRODUCTION_REBUILT: _reproduction_rebuilt,
    EventKind.REPRODUCTION_REPORTED: _reproduction_reported,
    EventKind.SPENDING_REFUSED: _spending_refused,
    EventKind.PUBLISHED: _published,
    EventKind.ISSUE_CLOSED: _issue_closed,
    EventKind.CRASHED: _crashed,
}


# Words and numbers


def percent(value: float) -> str:
    """0.9 -> `90 %`, 0.415 -> `41.5 %`."""
    return f"{100 * value:.1f}".removesuffix(".0") + " %"


def count(number: int, thing: str) -> str:
    return f"{number} {thing}" + ("" if number == 1 else "s")


def score_text(score: Mapping[str, Any]) -> str:
    """`41.5 % (34.9 to 48.4, n = 200)`: never a number without its interval and n."""
    measure = metric_named(str(score.get("metric") or DEFAULT))
    margin = measure.bare_interval(score["ci_low"], score["ci_high"])
    return f"{measure.said(score['value'])} ({margin}, n = {score['n']})"


def verdict_text(run: Run) -> str:
    comparison = run.against_baseline
    if comparison is None:
        return run.verdict or "not compared"
    measure, difference = metric_named(str(comparison.get("metric") or DEFAULT)), float(comparison["difference"])
    sure = "p < 0.001" if comparison["p_value"] < 0.001 else f"p = {comparison['p_value']:.2g}"
    match run.verdict:
        case "better" | "worse":
            return f"{run.verdict} than the baseline by {measure.said_size(difference)} ({sure})"
        case _:
            change = measure.said_difference(difference).replace("\u2212", "-") + measure.unit
            return f"cannot tell it from the baseline ({change}, {sure})"


def changes_text(changed: Mapping[str, Sequence[Any]]) -> str:
    """`learning_rate 2e-05 → 0.003`."""
    return ", ".join(f"{key} {value_text(pair[0])} → {value_text(pair[1])}" for key, pair in changed.items())


def value_text(value: Any) -> str:
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def recipe_summary(recipe: str) -> str:
    """The settings that matter most, in one line."""
    found = {}
    for line in recipe.splitlines():
        key, colon, value = line.partition(":")
        if colon and key in SHOWN_RECIPE_KEYS:
            found[key] = value.partition("#")[0].strip()
    return ", ".join(f"{key} {found[key]}" for key in SHOWN_RECIPE_KEYS if key in found) or "the defaults"


def probe_text(probe: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """(what the range test suggests, what it saw at each rate)."""
    suggested = probe.get("suggested")
    steps = probe.get("steps")
    head = f"range test of {steps} steps a rate" if steps else "range test"
    verdict = f"suggests {suggested:g}" if isinstance(suggested, int | float) else "names no rate"
    return f"{head}: {verdict}", tuple(_trial(trial) for trial in probe.get("trials", ()))


def _trial(trial: Mapping[str, Any]) -> str:
    first, last = trial.get("loss_first"), trial.get("loss_last")
    seen = f"loss {first:.2f} → {last:.2f}" if _number(first) and _number(last) else "loss lost"
    return f"{trial['learning_rate']:<8g} {seen}" + (", diverged" if trial.get("diverged") else "")


def _number(value: object) -> bool:
    return isinstance(value, int | float)


@dataclass(frozen=True, slots=True)
class Activity:
    """What goes on now, for the one line that changes in place."""

    what: str
    step: int = 0
    total_steps: int | None = None
    loss: float | None = None
    eta_seconds: float | None = None
    since: float | None = None
    """Unix seconds; shown as elapsed time where no step is known."""


_ROLES = {
    "data": "building the training data",
    "baseline": "evaluating the base model",
    "train": "training run {run}",
    "evaluate": "evaluating run {run}",
    "probe": "range test for run {run}",
    "confirm": "opening the sealed split",
    "ablate": "training value {run} of the ablation",
    "weigh": "evaluating value {run} of the ablation",
    "rebuild": "building the data of reproduction {run} again",
    "retrain": "training for reproduction {run}",
    "reassess": "evaluating reproduction {run}",
    "smoke": "training two steps of what thought {run} proposed",
    "audit": "looking at the data of run {run} in tokens",
}
_STATES = {
    State.CONTRACT: "reading the goal",
    State.PLAN: "checking data and licences",
    State.PROPOSED: "preparing the run",
    State.AWAITING_CONSENT: "waiting for a person",
    State.TRAINING: "preparing the run",
    State.EVALUATING: "reading the evaluation",
    State.REVIEWING: "writing the review",
    State.REVISING: "committing what comes next",
    State.CONFIRMING: "weighing the confirmation",
}


def activity_of(x: Experiment, progress: Mapping[str, Any] | None) -> Activity | None:
    """The running job, else the step that the bot is at; None when the goal has ended."""
    running = x.running_jobs
    if running:
        job = running[-1]
        what = _ROLES[str(job.role)].format(run=job.run)
        if progress is None or progress.get("job_id") != job.job_id or not progress.get("step"):
            return Activity(what, since=job.launched_at)
        return Activity(
            what, int(progress["step"]), progress.get("total_steps"), progress.get("loss"),
            progress.get("eta_seconds"), job.launched_at,
        )  # fmt: skip
    if x.concluded or x.state is State.NEEDS_AUTHOR:
        return None
    return Activity(_STATES.get(x.state, str(x.state)))
