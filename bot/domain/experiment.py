"""The journal's events and the experiment they add up to.

A goal is an append-only journal. `experiment_of(journal)` folds it into an `Experiment`, which is all that deciding,
rendering and reporting ever look at; nothing about a goal is stored anywhere else. Every event is plain JSON, so a
journal can be kept in a database, on a git ref or in a test.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from bot.domain.diagnosis import DiagnosisReport
from bot.domain.goal import Goal, GoalId

BASELINE = 0
"""Run number that stands for the untouched base model."""


class State(StrEnum):
    """Where a goal is. The README draws the transitions."""

    CONTRACT = "contract"
    NEEDS_AUTHOR = "needs author"
    """The goal cannot be acted on as written; the contract comment says what to write instead."""
    PLAN = "plan"
    PROPOSED = "proposed"
    AWAITING_CONSENT = "awaiting consent"
    BASELINE = "baseline"
    TRAINING = "training"
    EVALUATING = "evaluating"
    REVIEWING = "reviewing"
    REVISING = "revising"
    CONFIRMING = "confirming"
    MET = "met"
    NOT_CONFIRMED = "not confirmed"
    EXHAUSTED = "exhausted"
    NEEDS_HUMAN = "needs human"
    STOPPED = "stopped"
    CLOSED = "closed"

    @property
    def ended(self) -> bool:
        return self in ENDED_STATES


ENDED_STATES = frozenset(
    {State.MET, State.NOT_CONFIRMED, State.EXHAUSTED, State.NEEDS_HUMAN, State.STOPPED, State.CLOSED}
)
RESUMABLE_STATES = frozenset({State.STOPPED, State.EXHAUSTED, State.NEEDS_HUMAN})
"""NOT_CONFIRMED is not among them: the sealed split has been opened, and it opens once."""


class EventKind(StrEnum):
    # From the world
    GOAL_OPENED = "goal_opened"
    GOAL_EDITED = "goal_edited"
    COMMAND = "command"
    HEAD_MOVED = "head_moved"
    """The pull request's branch has a commit that is not the bot's."""
    PULL_REQUEST_CLOSED = "pull_request_closed"
    PULL_REQUEST_REOPENED = "pull_request_reopened"
    JOB_ENDED = "job_ended"
    # From the bot's own actions
    CONTRACT_READ = "contract_read"
    JOB_LAUNCHED = "job_launched"
    REFUSED = "refused"
    """Found after the contract was read: the goal cannot be pursued as written."""
    BASELINE_RECORDED = "baseline_recorded"
    DATA_CHECKED = "data_checked"
    PLANNED = "planned"
    PROPOSED = "proposed"
    CONSENTED = "consented"
    CONSENT_ASKED = "consent_asked"
    RUN_STARTED = "run_started"
    DIAGNOSED = "diagnosed"
    REVIEWED = "reviewed"
    REVISED = "revised"
    HEAD_READ = "head_read"
    CONFIRMED = "confirmed"
    COMMAND_ANSWERED = "command_answered"
    STOPPED = "stopped"
    RESUMED = "resumed"
    ENDED = "ended"
    ISSUE_CLOSED = "issue_closed"
    """The pull request was merged after the end, so its issue is done."""
    CRASHED = "crashed"
    """An action met a bug; the goal stops with an apology."""


class JobRole(StrEnum):
    DATA = "data"
    BASELINE = "baseline"
    TRAIN = "train"
    EVALUATE = "evaluate"
    PROBE = "probe"
    CONFIRM = "confirm"


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a journal. `key` is unique within the goal: appending the same key twice keeps the first."""

    seq: int
    """0-based place in the goal's journal."""
    kind: EventKind
    key: str
    at: float
    """Unix seconds."""
    data: Mapping[str, Any]


class NewEvent(NamedTuple):
    """An event before the journal has given it a place and a time."""

    kind: EventKind
    key: str
    data: Mapping[str, Any]


@dataclass(slots=True)
class Job:
    """A job as the journal knows it."""

    job_id: str
    role: JobRole
    run: int
    attempt: int = 1
    launched_at: float = 0.0
    status: dict[str, Any] | None = None
    """`runners.job.JobStatus.as_dict()` once it has ended."""
    expects: str = ""
    """What the job was built from (the data key, for role data)."""

    @property
    def ended(self) -> bool:
        return self.status is not None

    @property
    def succeeded(self) -> bool:
        return self.status is not None and self.status["state"] == "succeeded"

    @property
    def blameless(self) -> bool:
        """True when the recipe is not to blame: lost, cancelled by a person who later resumed, or the sandbox broke."""
        if self.status is None:
            return False
        return self.status["state"] in ("lost", "cancelled") or self.status["failure"] == "platform"

    @property
    def seconds(self) -> float:
        if self.status is None or self.status.get("started_at") is None or self.status.get("ended_at") is None:
            return 0.0
        return float(self.status["ended_at"] - self.status["started_at"])


@dataclass(slots=True)
class Score:
    """The aggregate of an evaluation, as kept in the journal."""

    value: float
    standard_error: float
    n: int
    ci_low: float
    ci_high: float
    split: str
    harness_digest: str
    job_id: str = ""
    strict: float | None = None
    lenient: float | None = None
    termination_rate: float | None = None


@dataclass(slots=True)
class Run:
    """One execution of a recipe, numbered from 1."""

    n: int
    recipe: str
    """Text of recipe.yaml at `head_sha`."""
    recipe_hash: str
    head_sha: str
    method: str = "sft"
    digests: dict[str, str] = field(default_factory=dict)
    """SHA-256 of train.py and data/prepare.py at `head_sha`."""
    changed: dict[str, list[Any]] = field(default_factory=dict)
    """Keys changed since the run before: {key: [before, after]}."""
    check_run_id: int | None = None
    score: Score | None = None
    verdict: str | None = None
    """Against the baseline, paired: better, worse, cannot tell. None when the run failed before evaluation."""
    against_baseline: dict[str, Any] | None = None
    against_best: dict[str, Any] | None = None
    """`Comparison.as_dict()`; against_best is None for the first evaluated run."""
    failure: str | None = None
    """One sentence, when the run's job failed."""
    report: DiagnosisReport = field(default_factory=DiagnosisReport)
    remedy: dict[str, Any] | None = None
    """What the playbook would change next: {"key", "value", "line", "why", "symptom", "probe": bool}."""
    probe: dict[str, Any] | None = None
    diagnosed: bool = False
    review_id: int | None = None
    reviewed: bool = False
    started_at: float = 0.0
    ended_at: float | None = None

    @property
    def symptoms(self) -> list[str]:
        return [str(d.symptom) for d in self.report.diagnoses if d.severity != "advice"]


@dataclass(slots=True)
class Command:
    """A `/postdoc` line that has arrived."""

    seq: int
    verb: str
    args: list[str]
    author: str
    author_id: int
    comment_id: int
    number: int
    """Issue or pull request it was written on."""
    head_sha: str | None = None
    """The head that the author could see, when known."""
    answered: bool = False


@dataclass(slots=True)
class Experiment:
    """All that one goal tries, as its journal tells it."""

    goal_id: GoalId
    state: State = State.CONTRACT
    length: int = 0
    """Events in the journal; names the next action's workflow."""
    opened_at: float = 0.0
    last_at: float = 0.0
    # Where it lives
    owner: str = ""
    repository: str = ""
    issue: int = 0
    installation_id: int = 0
    author: str = ""
    author_id: int = 0
    title: str = ""
    body: str = ""
    text_version: int = 0
    """Counts the issue text's versions; a contract is read once per version."""
    # The contract
    contract_version: int = -1
    goal: Goal | None = None
    policy: dict[str, Any] = field(default_factory=dict)
    refusal: str | None = None
    contract_comment_id: int | None = None
    author_permission: str = "none"
    """Of the goal's author on the repository, when the contract was read."""
    # The plan and the pull request
    plan: dict[str, Any] = field(default_factory=dict)
    recipe: str = ""
    """Text of recipe.yaml as it stands at the head: what the next run would train."""
    recipe_source: str = ""
    """Where the first recipe came from, in words."""
    recipe_digests: dict[str, str] = field(default_factory=dict)
    """SHA-256 of train.py and data/prepare.py at the head."""
    shipped_digests: dict[str, str] = field(default_factory=dict)
    """The same of the scripts that ship; a policy grants spending to these alone."""
    folder: str = ""
    branch: str = ""
    pull_request: int | None = None
    sticky_comment_id: int | None = None
    head_sha: str = ""
    unread_head: str | None = None
    """A head that a person pushed and the bot has not read yet."""
    changed: dict[str, list[Any]] = field(default_factory=dict)
    """Keys changed since the last run, waiting to be trained."""
    changed_why: str = ""
    changed_by: str = ""
    # Consent
    consent: dict[str, Any] | None = None
    consent_asked_for: str = ""
    """Head for which the question was put."""
    # Work
    jobs: dict[str, Job] = field(default_factory=dict)
    data: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Data key -> {"job_id", "build", "scan", "blocked"}."""
    baseline: Score | None = None
    runs: list[Run] = field(default_factory=list)
    tried: dict[str, int] = field(default_factory=dict)
    """Recipe hash -> run number."""
    confirmation: dict[str, Any] | None = None
    commands: list[Command] = field(default_factory=list)
    stop_requested: str | None = None
    closed: bool = False
    merged: bool = False
    issue_closed: bool = False
    reason: str = ""
    """Why it ended, one sentence."""
    crash: str | None = None
    crash_reference: str | None = None
    """Finds the log when the crash was a bug of ours; None when it was something a person can mend."""
    concluded: bool = False
    """The ending has been told on GitHub."""
    ended_at: float | None = None
    extra_runs: int = 0
    """Runs that a person granted beyond the budget by resuming."""

    @property
    def full_name(self) -> str:
        return f"{self.owner}/{self.repository}"

    @property
    def run(self) -> Run | None:
        """The latest run."""
        return self.runs[-1] if self.runs else None

    @property
    def best_run(self) -> Run | None:
        """Highest dev value; the earliest among equals, because a later tie is more often luck."""
        scored = [run for run in self.runs if run.score is not None]
        return max(scored, key=lambda run: run.score.value if run.score else 0.0, default=None)

    @property
    def running_jobs(self) -> list[Job]:
        return [job for job in self.jobs.values() if not job.ended]

    @property
    def pending_command(self) -> Command | None:
        return next((command for command in self.commands if not command.answered), None)

    def job_for(self, role: JobRole, run: int, expects: str = "") -> Job | None:
        """The latest attempt of the job that does `role` for run `run`."""
        found = [
            job
            for job in self.jobs.values()
            if job.role is role and job.run == run and (not expects or job.expects == expects)
        ]
        return found[-1] if found else None

    def job_hours(self) -> float:
        """Hours of ended jobs' time, what the budget's gpu_hours counts."""
        return sum(job.seconds for job in self.jobs.values()) / 3600


def experiment_of(goal_id: GoalId, journal: Iterable[Event]) -> Experiment:
    """The experiment that `journal` tells. Pure: the same journal gives the same experiment."""
    experiment = Experiment(goal_id=goal_id)
    for event in journal:
        experiment.length += 1
        experiment.last_at = event.at
        _FOLDS[event.kind](experiment, event)
    return experiment


def _on_goal_opened(x: Experiment, event: Event) -> None:
    d = event.data
    x.owner, x.repository, x.issue = d["owner"], d["repository"], d["issue"]
    x.installation_id, x.author, x.author_id = d["installation_id"], d["author"], d["author_id"]
    x.title, x.body, x.opened_at = d["title"], d["body"], event.at


def _on_goal_edited(x: Experiment, event: Event) -> None:
    # Once a pull request stands, the contract is bound to the text that was agreed; an edit does not move it.
    if x.pull_request is None:
        x.title, x.body = event.data["title"], event.data["body"]
        x.text_version += 1
        x.state, x.refusal, x.goal = State.CONTRACT, None, None
        x.baseline, x.data = None, {}
        x.concluded, x.ended_at, x.reason, x.stop_requested = False, None, "", None
        x.crash, x.crash_reference = None, None


def _on_contract_read(x: Experiment, event: Event) -> None:
    d = event.data
    x.contract_version = d["text_version"]
    x.contract_comment_id = d["comment_id"]
    x.refusal = d["refusal"]
    x.goal = Goal.from_dict(d["goal"]) if d["goal"] else None
    x.policy = dict(d["policy"])
    x.state = State.NEEDS_AUTHOR if x.refusal else State.PLAN
    if not x.refusal:
        x.recipe, x.recipe_source = d["recipe"], d["recipe_source"]
        x.recipe_digests, x.shipped_digests = dict(d["digests"]), dict(d["shipped_digests"])
        x.folder, x.branch = d["folder"], d["branch"]
        x.author_permission = d["author_permission"]


def _on_command(x: Experiment, event: Event) -> None:
    d = event.data
    x.commands.append(
        Command(
            seq=event.seq,
            verb=d["verb"],
            args=list(d["args"]),
            author=d["author"],
            author_id=d["author_id"],
            comment_id=d["comment_id"],
            number=d["number"],
            head_sha=d.get("head_sha"),
        )
    )


def _on_command_answered(x: Experiment, event: Event) -> None:
    for command in x.commands:
        if command.seq == event.data["command"]:
            command.answered = True


def _on_head_moved(x: Experiment, event: Event) -> None:
    if event.data["head_sha"] != x.head_sha:
        x.unread_head = event.data["head_sha"]


def _on_head_read(x: Experiment, event: Event) -> None:
    d = event.data
    x.head_sha = d["head_sha"]
    if x.unread_head == d["head_sha"]:
        x.unread_head = None
    x.recipe = d["recipe"]
    x.recipe_digests = dict(d["digests"])
    x.changed = {key: list(pair) for key, pair in d["changed"].items()}
    if x.changed or d["scripts_changed"]:
        # A person's push is a new recipe: what was consented to is not what stands there now.
        x.consent = None
        x.changed_why, x.changed_by = d["why"], d["by"]
        if x.state in RESUMABLE_STATES:
            _reopen(x)


def _on_pull_request_closed(x: Experiment, event: Event) -> None:
    x.closed, x.merged = True, bool(event.data["merged"])


def _on_pull_request_reopened(x: Experiment, event: Event) -> None:
    x.closed = False
    if x.state is State.CLOSED:
        x.state, x.concluded, x.ended_at, x.stop_requested = State.STOPPED, True, event.at, None


def _on_job_launched(x: Experiment, event: Event) -> None:
    d = event.data
    role = JobRole(d["role"])
    x.jobs[d["job_id"]] = Job(d["job_id"], role, d["run"], d["attempt"], event.at, expects=d.get("expects", ""))
    states = {
        JobRole.BASELINE: State.BASELINE,
        JobRole.TRAIN: State.TRAINING,
        JobRole.EVALUATE: State.EVALUATING,
        JobRole.PROBE: State.REVIEWING,
        JobRole.CONFIRM: State.CONFIRMING,
    }
    x.state = states.get(role, x.state)


def _on_job_ended(x: Experiment, event: Event) -> None:
    job = x.jobs.get(event.data["job_id"])
    if job is not None and job.status is None:
        job.status = dict(event.data["status"])


def _on_baseline_recorded(x: Experiment, event: Event) -> None:
    x.baseline = Score(**event.data["score"])
    x.state = State.PLAN if x.pull_request is None else State.PROPOSED


def _on_refused(x: Experiment, event: Event) -> None:
    x.refusal = event.data["reason"]
    x.state = State.NEEDS_AUTHOR


def _on_data_checked(x: Experiment, event: Event) -> None:
    x.data[event.data["data_key"]] = dict(event.data)


def _on_planned(x: Experiment, event: Event) -> None:
    x.plan = dict(event.data)


def _on_proposed(x: Experiment, event: Event) -> None:
    d = event.data
    x.pull_request, x.sticky_comment_id = d["pull_request"], d["sticky_comment_id"]
    x.head_sha = d["head_sha"]
    x.state = State.PROPOSED


def _on_consented(x: Experiment, event: Event) -> None:
    x.consent = dict(event.data)
    if x.state is State.AWAITING_CONSENT:
        x.state = State.PROPOSED


def _on_consent_asked(x: Experiment, event: Event) -> None:
    x.consent_asked_for = event.data["head_sha"]
    x.state = State.AWAITING_CONSENT


def _on_run_started(x: Experiment, event: Event) -> None:
    d = event.data
    run = Run(
        n=d["run"],
        recipe=x.recipe,
        recipe_hash=d["recipe_hash"],
        head_sha=d["head_sha"],
        method=d["method"],
        digests=dict(x.recipe_digests),
        changed={key: list(pair) for key, pair in d["changed"].items()},
        check_run_id=d["check_run_id"],
        started_at=event.at,
    )
    x.runs.append(run)
    x.tried[run.recipe_hash] = run.n
    x.changed, x.changed_why, x.changed_by = {}, "", ""
    x.state = State.TRAINING


def _on_diagnosed(x: Experiment, event: Event) -> None:
    d = event.data
    run = x.runs[d["run"] - 1]
    run.score = Score(**d["score"]) if d["score"] else None
    run.verdict = d["verdict"]
    run.against_baseline, run.against_best = d["against_baseline"], d["against_best"]
    run.failure = d["failure"]
    run.report = DiagnosisReport.from_dict(d["report"])
    run.remedy = dict(d["remedy"]) if d["remedy"] else None
    run.diagnosed = True
    x.state = State.REVIEWING


def _on_reviewed(x: Experiment, event: Event) -> None:
    run = x.runs[event.data["run"] - 1]
    run.review_id, run.reviewed, run.ended_at = event.data["review_id"], True, event.at
    run.remedy = dict(event.data["remedy"]) if event.data["remedy"] else None
    run.probe = event.data["probe"]
    x.state = State.REVISING


def _on_revised(x: Experiment, event: Event) -> None:
    d = event.data
    x.head_sha = d["head_sha"]
    x.recipe = d["recipe"]
    x.changed = {key: list(pair) for key, pair in d["changed"].items()}
    x.changed_why, x.changed_by = d["why"], d["by"]
    if x.state in RESUMABLE_STATES:
        _reopen(x)


def _on_confirmed(x: Experiment, event: Event) -> None:
    x.confirmation = dict(event.data)
    x.state = State.CONFIRMING


def _on_stopped(x: Experiment, event: Event) -> None:
    x.stop_requested = event.data["by"]


def _on_resumed(x: Experiment, event: Event) -> None:
    x.extra_runs += event.data.get("extra_runs", 0)
    _reopen(x)


def _on_ended(x: Experiment, event: Event) -> None:
    x.state = State(event.data["state"])
    x.reason = event.data["reason"]
    x.head_sha = event.data.get("head_sha") or x.head_sha
    x.concluded = True
    x.ended_at = event.at


def _on_issue_closed(x: Experiment, event: Event) -> None:
    x.issue_closed = True


def _on_crashed(x: Experiment, event: Event) -> None:
    x.crash, x.crash_reference = event.data["error"], event.data["reference"]


def _reopen(x: Experiment) -> None:
    """From an ending that is not final back to work."""
    x.state, x.concluded, x.ended_at, x.reason = State.PROPOSED, False, None, ""
    x.stop_requested, x.crash, x.crash_reference, x.confirmation = None, None, None, None


_FOLDS = {
    EventKind.GOAL_OPENED: _on_goal_opened,
    EventKind.GOAL_EDITED: _on_goal_edited,
    EventKind.COMMAND: _on_command,
    EventKind.HEAD_MOVED: _on_head_moved,
    EventKind.PULL_REQUEST_CLOSED: _on_pull_request_closed,
    EventKind.PULL_REQUEST_REOPENED: _on_pull_request_reopened,
    EventKind.JOB_ENDED: _on_job_ended,
    EventKind.CONTRACT_READ: _on_contract_read,
    EventKind.JOB_LAUNCHED: _on_job_launched,
    EventKind.REFUSED: _on_refused,
    EventKind.BASELINE_RECORDED: _on_baseline_recorded,
    EventKind.DATA_CHECKED: _on_data_checked,
    EventKind.PLANNED: _on_planned,
    EventKind.PROPOSED: _on_proposed,
    EventKind.CONSENTED: _on_consented,
    EventKind.CONSENT_ASKED: _on_consent_asked,
    EventKind.RUN_STARTED: _on_run_started,
    EventKind.DIAGNOSED: _on_diagnosed,
    EventKind.REVIEWED: _on_reviewed,
    EventKind.REVISED: _on_revised,
    EventKind.HEAD_READ: _on_head_read,
    EventKind.CONFIRMED: _on_confirmed,
    EventKind.COMMAND_ANSWERED: _on_command_answered,
    EventKind.STOPPED: _on_stopped,
    EventKind.RESUMED: _on_resumed,
    EventKind.ENDED: _on_ended,
    EventKind.ISSUE_CLOSED: _on_issue_closed,
    EventKind.CRASHED: _on_crashed,
}
