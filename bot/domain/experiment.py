"""The journal's events, and the experiment that they add up to (`bot.domain.fold` adds them up).

A goal is an append-only journal. The `Experiment` folded from it is all that deciding, rendering and reporting ever
look at; nothing about a goal is stored anywhere else. Every event is plain JSON, so a journal can be kept in a
database, on a git ref or in a test.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, NamedTuple

from bot.domain.ablation import Ablation
from bot.domain.budget import Spend, raised
from bot.domain.diagnosis import DiagnosisReport
from bot.domain.evaluation import Rung
from bot.domain.goal import Budget, Goal, GoalId, digest_of
from bot.domain.metrics import DEFAULT, Metric, metric_named
from bot.domain.reproduction import Reproduction
from bot.domain.thought import Thought

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
    CONVERSATION_OPENED = "conversation_opened"
    """A command was written where there is no goal: the repository's own matters, a fork's pull request."""
    GOAL_OPENED = "goal_opened"
    GOAL_EDITED = "goal_edited"
    COMMAND = "command"
    HEAD_MOVED = "head_moved"
    """The pull request's branch has a commit that is not the bot's."""
    PULL_REQUEST_CLOSED = "pull_request_closed"
    PULL_REQUEST_REOPENED = "pull_request_reopened"
    JOB_ENDED = "job_ended"
    OUTPUTS_GONE = "outputs_gone"
    """The machine that an ended job's outputs lay on has gone with them; where needed, the job is done again."""
    # From the bot's own actions
    CONTRACT_READ = "contract_read"
    JOB_LAUNCHED = "job_launched"
    JOB_REFUSED = "job_refused"
    """What is known before a training job is submitted says that it cannot work, so it was not."""
    GOAL_READ = "goal_read"
    """An edit of the issue has been read that does not move the goal by itself: an offer, or nothing."""
    GOAL_ADOPTED = "goal_adopted"
    """The goal is now the one that an edit offered."""
    REFUSED = "refused"
    """Found after the contract was read: the goal cannot be pursued as written."""
    MONITORED = "monitored"
    """A running job was judged to be doomed, so it is ended."""
    BASELINE_RECORDED = "baseline_recorded"
    DATA_CHECKED = "data_checked"
    PLANNED = "planned"
    PROPOSED = "proposed"
    CONSENTED = "consented"
    CONSENT_ASKED = "consent_asked"
    BUDGET_RAISED = "budget_raised"
    SPENDING_REFUSED = "spending_refused"
    """A job may not be started: all spending is halted, or a ceiling outside of the goal is reached."""
    LLM_SPENT = "llm_spent"
    JUDGED = "judged"
    """An evaluation's answers were scored by the goal's judge, all of them or as far as the money went."""
    THOUGHT = "thought"
    """The language model has thought for a while about the plan or a run: it goes on, proposes, or is done."""
    PROPOSAL_CHECKED = "proposal_checked"
    """What it proposed was refused, or is the next change."""
    RETHINK = "rethink"
    """A person asked for the plan to be thought over."""
    RUN_STARTED = "run_started"
    DIAGNOSED = "diagnosed"
    REVIEWED = "reviewed"
    REVISED = "revised"
    HEAD_READ = "head_read"
    HOLDOUT_ASKED = "holdout_asked"
    """A run that reached the target on dev was held against the holdout, through the Ladder."""
    SEAL_OPENED = "seal_opened"
    """A run's answers to the sealed items were read, or (run 0) the base model's to the same items."""
    CONFIRMED = "confirmed"
    ABLATION_OPENED = "ablation_opened"
    """A person asked to try several values of one key, within what was agreed."""
    ABLATION_REPORTED = "ablation_reported"
    REPRODUCTION_OPENED = "reproduction_opened"
    """A person asked for a run to be made again and compared, within what was agreed."""
    REPRODUCTION_REBUILT = "reproduction_rebuilt"
    """Its training set was built again; nothing is trained on it unless it is the same."""
    REPRODUCTION_REPORTED = "reproduction_reported"
    COMMAND_ANSWERED = "command_answered"
    STOPPED = "stopped"
    RESUMED = "resumed"
    ENDED = "ended"
    ISSUE_CLOSED = "issue_closed"
    """The pull request was merged after the end, so its issue is done."""
    PUBLISHED = "published"
    CRASHED = "crashed"
    """An action met a bug; the goal stops with an apology."""


class JobRole(StrEnum):
    DATA = "data"
    BASELINE = "baseline"
    TRAIN = "train"
    EVALUATE = "evaluate"
    PROBE = "probe"
    CONFIRM = "confirm"
    ABLATE = "ablate"
    """Trains one arm of an ablation; the job's `run` is the arm's number."""
    WEIGH = "weigh"
    """Evaluates that arm."""
    REBUILD = "rebuild"
    """Builds the training set of a reproduction again; the job's `run` is the reproduction's number."""
    RETRAIN = "retrain"
    """Trains that run again."""
    REASSESS = "reassess"
    """Evaluates what came out."""
    SMOKE = "smoke"
    """Trains two steps of what a language model proposed; the job's `run` is the thought's number."""
    AUDIT = "audit"
    """Tokenises a run's data as its training will, without the model's weights, on a machine that costs little."""

    @property
    def evaluates(self) -> bool:
        return self in (JobRole.BASELINE, JobRole.EVALUATE, JobRole.CONFIRM, JobRole.WEIGH, JobRole.REASSESS)

    @property
    def of_ablation(self) -> bool:
        return self in (JobRole.ABLATE, JobRole.WEIGH)

    @property
    def of_reproduction(self) -> bool:
        return self in (JobRole.REBUILD, JobRole.RETRAIN, JobRole.REASSESS)

    @property
    def of_run(self) -> bool:
        """The job's `run` is a run's number (0 the baseline's)."""
        return not (self.of_ablation or self.of_reproduction or self is JobRole.SMOKE)


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


class LlmPrice(NamedTuple):
    """What a turn of the language model has cost."""

    usd: float
    month: str
    """Calendar month (UTC) in which it was paid, `2026-11`."""


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
    reserved: Mapping[str, float] = field(default_factory=dict)
    """{"usd", "gpu_hours"} that it may cost at most; its time-out is set from it."""
    gone: bool = False
    """Its outputs are gone with the machine that they lay on."""
    stopped: dict[str, Any] | None = None
    """What the monitor ended it for: the data of its MONITORED, or of its JOB_REFUSED."""
    refused: bool = False
    """It was never submitted: it left nothing and cost nothing."""
    again: bool = False
    """Somebody who may train has agreed that it is done once more for that."""
    usd_per_hour: float | None = None
    """What its machine cost when it was launched; None where only the policy puts a price on it."""
    resumed_from: int | None = None
    """The step of the checkpoint that it goes on from, left by an attempt whose machine was lost."""
    place: Mapping[str, Any] = field(default_factory=dict)
    """What it was launched on: {"runner", "image", "flavor", "gpus", "nodes", "threads", "memory_gib", "postdoc"};
    empty in a journal from before it was recorded."""

    @property
    def ended(self) -> bool:
        return self.status is not None

    @property
    def succeeded(self) -> bool:
        return self.status is not None and self.status["state"] == "succeeded"

    @property
    def blameless(self) -> bool:
        """True when the recipe is not to blame: lost, cancelled by a person who later resumed, or the sandbox broke."""
        if self.status is None or self.stopped is not None:
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
    metric: str = DEFAULT
    """In a journal from before others existed, exact_match."""
    results: str = ""
    """Digest of the items' scores when they were read; empty in a journal from before it was kept."""
    few_shot: dict[str, Any] | None = None
    """{"shots", "value", "ci_low", "ci_high", "n"} of the base model with examples before each prompt."""

    @property
    def measure(self) -> Metric:
        return metric_named(self.metric)

    @property
    def with_shots(self) -> Score | None:
        """The score with `few_shot["shots"]` examples, to be shown beside this one and never compared with."""
        if self.few_shot is None:
            return None
        found = {key: self.few_shot[key] for key in ("value", "standard_error", "n", "ci_low", "ci_high")}
        return replace(self, **found, strict=None, lenient=None, termination_rate=None, few_shot=None)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Score:
        """What a newer version wrote beside the fields of this one is left out."""
        return cls(**{key: data[key] for key in cls.__dataclass_fields__ if key in data})


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
    """Path in the experiment's folder -> SHA-256, of every script at `head_sha`."""
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
    forgetting: list[dict[str, Any]] = field(default_factory=list)
    """What the model could do before, and does now: {"name", "before", "after", "n", "difference", "ci_low", "ci_high",
    "p_value", "verdict"} of each old task."""
    report: DiagnosisReport = field(default_factory=DiagnosisReport)
    remedy: dict[str, Any] | None = None
    """What the playbook would change next: {"key", "value", "line", "why", "symptom", "probe": bool}."""
    probe: dict[str, Any] | None = None
    diagnosed: bool = False
    review_id: int | None = None
    reviewed: bool = False
    started_at: float = 0.0
    ended_at: float | None = None
    stage: int = 0
    """0-based place in the goal's `stages`."""
    changed_by: str = ""
    """Who made the change that this run tries: `postdoc`, or a person's login; empty for the first recipe."""
    kept: dict[str, Any] | None = None
    """What the next change builds on: {"run", "why"}; None in a journal from before it was said."""
    stuck: str = ""
    """Why nothing follows, where nothing does; a sentence without its full stop."""
    generated: dict[str, Any] | None = None
    """Rows that its training job made itself: {"file", "rows", "verdict", "flagged", "flagged_rows", "card"}."""
    lineage: dict[str, Any] | None = None
    """`bot.domain.lineage.Lineage.as_dict()`, or {"error"} where it could not be checked; None before."""
    yardstick: str = ""
    """`Experiment.yardstick` when it was started: values of another one cannot be compared with this one's."""
    brain: dict[str, Any] | None = None
    """{"model", "priced"} of the language model that is asked what to change next; None where none is."""

    @property
    def forgets(self) -> list[str]:
        """Old tasks on which it is worse than the base model, beyond doubt."""
        return [str(each["name"]) for each in self.forgetting if each["verdict"] == "worse"]

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
    """The head that the author could see: as the event tells it, else as it stood when the command arrived."""
    place: str = ""
    """Where it was written: `issue`, `pull_request`, `review`, `review_comment`, `check`, `box`."""
    answered: bool = False
    answer: str = ""
    """Markdown, as shown below the command in the thread's one comment."""


@dataclass(frozen=True, slots=True)
class Edit:
    """The issue's text as somebody left it, not read yet."""

    version: int
    """The `text_version` that it is."""
    title: str
    body: str
    by: str
    by_id: int | None
    """None in a journal from before it was recorded."""
    seq: int
    """Of its event."""


@dataclass(slots=True)
class Experiment:
    """All that one goal tries, as its journal tells it."""

    goal_id: GoalId
    state: State = State.CONTRACT
    length: int = 0
    """Events in the journal; names the next action's workflow."""
    is_goal: bool = False
    """False: only a conversation, in which commands are answered and nothing is pursued."""
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
    """Counts the issue text's versions; the latest that is not read yet is read."""
    edit: Edit | None = None
    """The latest text, until it has been read."""
    # The contract
    contract_version: int = -1
    """The latest text version that has been read."""
    goal: Goal | None = None
    pins: dict[str, Any] = field(default_factory=dict)
    """What the goal's names stood for when it was read: {"dataset": a pinned `data_source` line, "benchmark": {"path",
    "commit", "digest", "items_path", "items_digest"}}, each only where there is one."""
    offer: dict[str, Any] | None = None
    """The goal that the edited issue states, when it is another than the agreed one: the data of its GOAL_READ's
    `offer`. `/postdoc accept goal` adopts it."""
    edit_told: str = ""
    """What the contract comment says of the edited issue: offer, unreadable, ended, or nothing."""
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
    """Path in the experiment's folder -> SHA-256, of every script at the head."""
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
    changed_stage: bool = False
    """They are what the goal's next stage brings, so they were agreed to with the goal."""
    stage: int = 0
    """0-based place in the goal's `stages` of what stands at the head."""
    changed_why: str = ""
    changed_by: str = ""
    # Consent
    consent: dict[str, Any] | None = None
    consented_at: float | None = None
    """When the first consent was given; `wall_hours` count from here."""
    consent_asked_for: str = ""
    """Head for which the question was put."""
    consent_check_id: int | None = None
    """The check that says `action_required` on that head, until somebody has agreed."""
    raised: Spend = field(default_factory=Spend)
    """What a person granted beyond the goal's own budget."""
    spending_refused: dict[str, Any] | None = None
    """{"state", "reason"}: the ending that this means."""
    llm_paid: dict[str, LlmPrice] = field(default_factory=dict)
    """Each price of the language model, by the key of its event."""
    # The language model
    brain: dict[str, Any] | None = None
    """{"model", "priced"} of the one that is asked about the first plan; None where none is."""
    thoughts: list[Thought] = field(default_factory=list)
    judged: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Evaluation job -> {"usd", "done"} of the judging of its answers, where the benchmark has a rubric."""
    written: dict[str, str] = field(default_factory=dict)
    """Digest -> text of the scripts that it has proposed."""
    # Work
    jobs: dict[str, Job] = field(default_factory=dict)
    data: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Data key -> {"job_id", "build", "scan", "blocked"}."""
    baseline: Score | None = None
    runs: list[Run] = field(default_factory=list)
    tried: dict[str, int] = field(default_factory=dict)
    """Recipe hash -> run number."""
    splits: dict[str, int] = field(default_factory=dict)
    """Items of each split, as the baseline's evaluation found them; empty in a journal from before it was said."""
    rung: Rung | None = None
    """What the Ladder over the holdout told last; None before it was asked, or without a holdout."""
    seal: dict[str, Any] | None = None
    """The data of SEAL_OPENED, once the sealed items have been read for a run."""
    confirmation: dict[str, Any] | None = None
    ablations: list[Ablation] = field(default_factory=list)
    reproductions: list[Reproduction] = field(default_factory=list)
    commands: list[Command] = field(default_factory=list)
    stop_requested: str | None = None
    """Why it was to stop, a sentence without its full stop."""
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
    published: dict[str, Any] | None = None
    """Where the best model lies on the Hub."""
    unreadable: str = ""
    """Why the journal cannot be read to its end by this version. Such a goal is left alone."""
    unreadable_error: str = ""

    @property
    def ceilings(self) -> Budget:
        """The goal's budget and what was granted beyond it."""
        return raised(self.goal.budget if self.goal is not None else Budget(), self.raised)

    @property
    def full_name(self) -> str:
        return f"{self.owner}/{self.repository}"

    @property
    def run(self) -> Run | None:
        """The latest run."""
        return self.runs[-1] if self.runs else None

    @property
    def best_run(self) -> Run | None:
        """Best dev value, of those that count where any does; the earliest among equals, because a later tie is more
        often luck."""
        return self.candidate or self._best(self.scored_runs)

    @property
    def scored_runs(self) -> list[Run]:
        """Evaluated on what the goal is measured on now."""
        here = ("", self.yardstick)
        return [run for run in self.runs if run.score is not None and run.yardstick in here]

    @property
    def candidate(self) -> Run | None:
        """The run that the seal would be opened for: the best, among those that have not forgotten what the goal says
        must be kept."""
        blocks = self.goal is not None and self.goal.forgetting == "block"
        return self._best([run for run in self.scored_runs if not (blocks and run.forgets)])

    @staticmethod
    def _best(scored: Sequence[Run]) -> Run | None:
        return max(scored, key=lambda run: run.score.measure.rank(run.score.value) if run.score else 0.0, default=None)

    @property
    def yardstick(self) -> str:
        """Names what values are measured on and against: base model, benchmark with its pin, metric, seed."""
        goal = self.goal
        if goal is None:
            return ""
        pinned = (self.pins.get("benchmark") or {}).get("items_digest")
        named = [goal.base_model, goal.base_revision, goal.benchmark, goal.metric, goal.seed, pinned]
        named += [self.pins["judge"]] if "judge" in self.pins else []
        return digest_of(named)[:12]

    def unjudged(self, job: Job) -> bool:
        """Whether the answers of this evaluation still wait for the judge, so that they have no score."""
        return "judge" in self.pins and job.role.evaluates and not self.judged.get(job.job_id, {}).get("done", False)

    @property
    def ablation(self) -> Ablation | None:
        """The one under way."""
        return next((ablation for ablation in self.ablations if not ablation.over), None)

    @property
    def reproduction(self) -> Reproduction | None:
        """The one under way."""
        return next((each for each in self.reproductions if not each.over), None)

    def thought_on(self, run: int) -> Thought | None:
        """What was thought last about this run; of the first plan (0) only what was thought about the present text."""
        found = [each for each in self.thoughts if each.run == run and (run or each.contract == self.contract_version)]
        return found[-1] if found else None

    def rewritten_in(self, run: Run) -> list[str]:
        """Scripts that differ from those of the run before, within one stage."""
        before = self.runs[run.n - 2] if run.n >= 2 else None
        if before is None or (before.stage, before.method) != (run.stage, run.method):
            return []
        return sorted(path for path, digest in run.digests.items() if before.digests.get(path) != digest)

    @property
    def runs_taken(self) -> int:
        """What the budget's runs count: every run, every arm of an ablation and every reproduction that is trained or
        still may be."""
        trained = {job.run for job in self.jobs.values() if job.role is JobRole.ABLATE}
        if self.ablation is not None:
            trained |= {arm.n for arm in self.ablation.trained}
        again = {job.run for job in self.jobs.values() if job.role is JobRole.RETRAIN}
        if self.reproduction is not None:
            again.add(self.reproduction.n)
        return len(self.runs) + len(trained) + len(again)

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

    def price_of(self, job: Job) -> float:
        """USD per hour."""
        return job.usd_per_hour if job.usd_per_hour is not None else float(self.policy.get("usd_per_hour", 0.0))

    def usd_of(self, job: Job) -> float:
        """What an ended job has cost."""
        return job.seconds / 3600 * self.price_of(job)

    def job_hours(self) -> float:
        """Hours of ended jobs' time, what the budget's gpu_hours counts."""
        return sum(job.seconds for job in self.jobs.values()) / 3600
