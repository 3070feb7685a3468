"""Every goal in a few fields, folded again only when its journal has grown: for lists, sums and metrics."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bot.conversation.messages.progress import next_step_of
from bot.conversation.messages.wording import state_sentence
from bot.conversation.permissions import Tier
from bot.conversation.policy import Month, Policy
from bot.domain.budget import NOTHING, Spend, month_of
from bot.domain.experiment import Event, Experiment, Job, JobRole, Score, State
from bot.domain.fold import experiment_of
from bot.domain.goal import Budget, Goal, GoalId
from bot.loop.journal import Journal
from bot.loop.spending import spend_of

log = logging.getLogger("postdoc.summaries")

FRESH_SECONDS = 0.5
"""For this long the journals are not asked again: a page and its script come in bursts."""
UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Summary:
    """One goal as its journal tells it."""

    goal_id: GoalId
    opened_at: float
    last_at: float
    full_name: str = ""
    issue: int = 0
    pull_request: int | None = None
    title: str = ""
    author: str = ""
    state: State | None = None
    """None when this version cannot read the journal."""
    words: str = ""
    next_step: str = ""
    reason: str = ""
    goal: Goal | None = None
    baseline: Score | None = None
    best: tuple[int, Score] | None = None
    """The best run's number and value."""
    runs: int = 0
    spent: Spend = NOTHING
    ceilings: Budget = field(default_factory=Budget)
    waits_for: str = ""
    """Whom it waits for, in words; empty when it waits for nobody."""
    running: tuple[Job, ...] = ()
    lasted: tuple[tuple[JobRole, float], ...] = ()
    """Role and seconds of each job that succeeded."""
    months: Mapping[str, Spend] = field(default_factory=dict)
    """`2026-07` -> what was spent in that month (UTC); a job counts in the month in which it was started."""
    reserved: Mapping[str, Spend] = field(default_factory=dict)
    """The same of what is reserved for jobs under way."""
    month_ceiling: Month = field(default_factory=Month)

    @property
    def ended(self) -> bool:
        return self.state is not None and self.state.ended

    @property
    def state_name(self) -> str:
        return str(self.state) if self.state is not None else UNREADABLE


class Summaries:
    """The summaries of all goals. Methods block for a query, and for a fold of each journal that has grown."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._lock = threading.Lock()
        self._known: dict[GoalId, tuple[int, Summary | None]] = {}
        self._looked_at = float("-inf")

    def all(self) -> list[Summary]:
        """Every goal, the one with the latest event first."""
        with self._lock:
            if time.monotonic() - self._looked_at > FRESH_SECONDS:
                self._look()
                self._looked_at = time.monotonic()
            found = [summary for _, summary in self._known.values() if summary is not None]
        return sorted(found, key=lambda summary: -summary.last_at)

    def _look(self) -> None:
        lengths = self._journal.lengths()
        for gone in self._known.keys() - lengths.keys():
            del self._known[gone]
        for goal_id, length in lengths.items():
            if goal_id not in self._known or self._known[goal_id][0] != length:
                self._known[goal_id] = (length, summary_of(goal_id, self._journal.read(goal_id)))


def summary_of(goal_id: GoalId, journal: Sequence[Event]) -> Summary | None:
    """The goal's summary; None for a journal that is about no goal."""
    opened = next((event for event in journal if event.kind == "goal_opened"), None)
    if opened is None:
        return None
    x = experiment_of(goal_id, journal)
    try:
        if not x.unreadable:
            return _summary(x)
    except Exception:
        # One journal that makes no sense must not take every other goal from the page.
        log.exception("goal %s: its journal cannot be summed up", goal_id)
    full_name, _, number = goal_id.rpartition("#")
    return Summary(
        goal_id, opened.at, journal[-1].at, full_name, int(number) if number.isdigit() else 0,
        title=str(opened.data.get("title", "")), author=str(opened.data.get("author", "")), reason=x.unreadable,
        words="This version of Postdoc cannot read this goal's journal.",
        next_step="start the newer version that wrote it, or look at the server's log.",
    )  # fmt: skip


def _summary(x: Experiment) -> Summary:
    best = x.best_run
    policy = Policy.from_dict(x.policy)
    spent, reserved = _months(x)
    return Summary(
        goal_id=x.goal_id,
        opened_at=x.opened_at,
        last_at=x.last_at,
        full_name=x.full_name,
        issue=x.issue,
        pull_request=x.pull_request,
        title=x.title,
        author=x.author,
        state=x.state,
        words=state_sentence(x),
        next_step=next_step_of(x),
        reason=x.refusal or x.reason,
        goal=x.goal,
        baseline=x.baseline,
        best=(best.n, best.score) if best is not None and best.score is not None else None,
        runs=len(x.runs),
        spent=spend_of(x),
        ceilings=x.ceilings,
        waits_for=waits_for(x, policy),
        running=tuple(x.running_jobs),
        lasted=tuple((job.role, job.seconds) for job in x.jobs.values() if job.succeeded),
        months=spent,
        reserved=reserved,
        month_ceiling=policy.month,
    )


def waits_for(x: Experiment, policy: Policy) -> str:
    """Who has to do something before this goal goes on, in words; empty when nobody has to."""
    role = policy.permissions[Tier.TRAIN]
    match x.state:
        case State.NEEDS_AUTHOR:
            return f"@{x.author}"
        case State.AWAITING_CONSENT if x.goal is not None and x.goal.budget.usd > policy.self_approve_usd:
            return f"somebody with {role} permission, @{x.author} not alone"
        case State.AWAITING_CONSENT | State.NEEDS_HUMAN:
            return f"anybody with {role} permission"
    return ""


def _months(x: Experiment) -> tuple[dict[str, Spend], dict[str, Spend]]:
    """(spent, reserved) by month, as the treasury counts them, and what the language model cost."""
    spent: dict[str, Spend] = {}
    reserved: dict[str, Spend] = {}

    def add(months: dict[str, Spend], at: float, spend: Spend) -> None:
        months[month_of(at)] = months.get(month_of(at), NOTHING) + spend

    for job in x.jobs.values():
        if job.ended:
            hours = job.seconds / 3600
            add(spent, job.launched_at, Spend(usd=x.usd_of(job), gpu_hours=hours))
        else:
            add(reserved, job.launched_at, Spend.from_dict(job.reserved))
    for price in x.llm_paid.values():
        spent[price.month] = spent.get(price.month, NOTHING) + Spend(usd=price.usd)
    for run in x.runs:
        add(spent, run.started_at, Spend(runs=1))
    return spent, reserved


def sums(months: Sequence[Mapping[str, Any]]) -> dict[str, Spend]:
    """Several goals' months together."""
    total: dict[str, Spend] = {}
    for each in months:
        for month, spend in each.items():
            total[month] = total.get(month, NOTHING) + spend
    return total
