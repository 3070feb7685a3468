"""`/metrics` in Prometheus' text form: counts of what happened, and sums over the goals taken when it is asked.

No label holds a repository, a goal, a person or free text, so the number of series is bounded by this file.
https://prometheus.io/docs/practices/naming/
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter as Tally
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from sqlalchemy.exc import SQLAlchemyError

from bot import __version__
from bot.domain.experiment import Experiment, JobRole, NewEvent, State
from bot.errors import TransientError, UserError
from bot.loop.action import Action
from bot.server.api import may_read
from bot.server.summaries import UNREADABLE
from runners.job import JobId, JobState

if TYPE_CHECKING:
    from bot.server.app import Bot

EVENTS = frozenset({
    "check_run", "check_suite", "installation", "installation_repositories", "issue_comment", "issues", "label",
    "ping", "pull_request", "pull_request_review", "pull_request_review_comment", "push", "repository", "workflow_job",
    "workflow_run",
})  # fmt: skip
"""Events that are counted by name; whatever else a sender writes is `other`."""
ANSWERS = {202: "accepted", 400: "refused", 401: "refused", 403: "refused", 413: "refused", 503: "put_off"}
"""HTTP status of `/webhook` -> outcome."""
ACKNOWLEDGED_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
ACTION_BUCKETS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
Perform = Callable[[Experiment, Action], Awaitable[list[NewEvent]]]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Metrics:
    """The counters of one process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._deliveries = Counter(
            "postdoc_deliveries",
            "Webhook deliveries answered, by event and outcome.",
            ["event", "outcome"],
            registry=registry,
        )
        self._handled = Counter(
            "postdoc_deliveries_handled",
            "Stored deliveries that were acted on.",
            ["event", "outcome"],
            registry=registry,
        )
        self._acknowledged = Histogram(
            "postdoc_acknowledgement_seconds", "From a delivery's request to its answer.",
            buckets=ACKNOWLEDGED_BUCKETS, registry=registry,
        )  # fmt: skip
        self._actions = Histogram(
            "postdoc_action_seconds", "Attempts at an action, by kind and outcome.", ["kind", "outcome"],
            buckets=ACTION_BUCKETS, registry=registry,
        )  # fmt: skip
        self._retries = Counter(
            "postdoc_retries", "Attempts that an outage ended and that are made again.", registry=registry
        )
        self._requests = Counter(
            "postdoc_github_requests", "Requests to GitHub, by status class; `none` where no answer came.",
            ["status"], registry=registry,
        )  # fmt: skip
        self._writes = Counter(
            "postdoc_github_writes", "Requests to GitHub that could change something.", registry=registry
        )
        self._remaining = Gauge(
            "postdoc_github_rate_limit_remaining",
            "As GitHub's latest answer said, by resource.",
            ["resource"],
            registry=registry,
        )
        ProcessCollector(registry=registry)

    def watch(self, bot: Bot) -> None:
        """Add what is read from `bot` whenever the metrics are asked for."""
        self.registry.register(_Now(bot))

    def delivered(self, event: str, status: int, seconds: float) -> None:
        self._deliveries.labels(_event(event), ANSWERS.get(status, "failed")).inc()
        self._acknowledged.observe(seconds)

    def handled(self, event: str, outcome: str | None) -> None:
        """`outcome` is what the inbox keeps: None when something was done, else why nothing was."""
        word = "done" if outcome is None else "failed" if outcome.startswith("error: ") else "nothing_to_do"
        self._handled.labels(_event(event), word).inc()

    def github_answered(self, method: str, status: int, headers: Mapping[str, str]) -> None:
        self._requests.labels(f"{status // 100}xx" if 100 <= status < 600 else "none").inc()
        if method in WRITES:
            self._writes.inc()
        remaining, resource = headers.get("x-ratelimit-remaining", ""), headers.get("x-ratelimit-resource", "core")
        if remaining.isdigit():
            known = resource if resource in ("core", "graphql", "search") else "other"
            self._remaining.labels(known).set(int(remaining))

    def counted(self, perform: Perform) -> Perform:
        """`perform` with each attempt counted and timed."""

        async def performed(x: Experiment, action: Action) -> list[NewEvent]:
            began, outcome = time.perf_counter(), "broke"
            try:
                events = await perform(x, action)
                outcome = "done"
            except TransientError:
                outcome = "put_off"
                self._retries.inc()
                raise
            except UserError:
                outcome = "refused"
                raise
            finally:
                self._actions.labels(str(action.kind), outcome).observe(time.perf_counter() - began)
            return events

        return performed

    def text(self, accept: str) -> tuple[bytes, str]:
        """(body, content type) for an `Accept` header. Blocks for as long as a look at the goals takes."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type


class _Now:
    """What is true at the moment of asking: sums over the goals' summaries, the jobs and the inbox."""

    def __init__(self, bot: Bot) -> None:
        self._bot = bot

    def describe(self) -> Iterable[Metric]:
        return []  # else the registry would collect once to learn the names

    def collect(self) -> Iterable[Metric]:
        bot = self._bot
        info = GaugeMetricFamily("postdoc_info", "Always 1; the version as a label.", labels=["version"])
        info.add_metric([__version__], 1)
        yield info
        yield GaugeMetricFamily("postdoc_ready", "1 while the server takes work.", int(bot.ready))
        reachable = 1
        try:
            stored = [*self._inbox(), *self._goals()]
        except (TransientError, SQLAlchemyError):
            # What the process itself counted is told all the same: that is when it is wanted most.
            stored, reachable = [], 0
        yield GaugeMetricFamily("postdoc_database_reachable", "1 while the database can be read.", reachable)
        yield from stored

    def _inbox(self) -> Iterable[Metric]:
        depth, age = self._bot.inbox.backlog()
        yield GaugeMetricFamily("postdoc_inbox_waiting", "Stored deliveries that nobody has acted on.", depth)
        yield GaugeMetricFamily("postdoc_inbox_oldest_seconds", "Age of the oldest of them.", age)
        halts = len(self._bot.treasury.halts())
        yield GaugeMetricFamily("postdoc_halts", "Repositories, or the server, whose spending is halted.", halts)

    def _goals(self) -> Iterable[Metric]:
        summaries = self._bot.summaries.all()
        states = Tally(summary.state_name for summary in summaries)
        goals = GaugeMetricFamily("postdoc_goals", "Goals by state.", labels=["state"])
        for state in [*map(str, State), UNREADABLE]:
            goals.add_metric([state], states[state])
        yield goals
        waiting = sum(bool(summary.waits_for) for summary in summaries)
        yield GaugeMetricFamily("postdoc_goals_waiting_for_people", "Goals in which a person's turn it is.", waiting)
        jobs = GaugeMetricFamily("postdoc_jobs", "Jobs on this machine, by role.", labels=["role", "state"])
        found: Tally[tuple[str, str]] = Tally()
        for summary in summaries:
            for job in summary.running:
                status = self._bot.runner.status(JobId(job.job_id))
                if status is not None and not status.state.ended:
                    found[str(job.role), "queued" if status.state is JobState.QUEUED else "running"] += 1
        for role in JobRole:
            for state in ("running", "queued"):
                jobs.add_metric([str(role), state], found[str(role), state])
        yield jobs
        money = sum(summary.spent.usd for summary in summaries)
        yield CounterMetricFamily("postdoc_spend_usd", "Spent by all goals together, US dollars.", money)
        hours = sum(summary.spent.gpu_hours for summary in summaries)
        yield CounterMetricFamily("postdoc_spend_job_hours", "Job time of all goals together, hours.", hours)
        reserved = sum(spend.usd for summary in summaries for spend in summary.reserved.values())
        yield GaugeMetricFamily("postdoc_reserved_usd", "Reserved for jobs under way, US dollars.", reserved)
        yield CounterMetricFamily("postdoc_runs", "Training runs of all goals.", sum(s.runs for s in summaries))


class TimedDeliveries:
    """ASGI middleware that counts and times what `/webhook` answers; everything else passes untouched."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/webhook" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def noted(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noted)
        finally:
            event = next((value for name, value in scope["headers"] if name == b"x-github-event"), b"")
            self.metrics.delivered(event.decode("latin-1"), status, time.perf_counter() - began)


def metrics_routes(bot: Bot) -> APIRouter:
    """`GET /metrics`; open to all only where `POSTDOC_METRICS_OPEN` says so."""
    router = APIRouter()

    async def metrics(request: Request) -> Response:
        if not bot.settings.metrics_open:
            may_read(bot.access, request)
        body, content_type = await asyncio.to_thread(bot.metrics.text, request.headers.get("accept", ""))
        return Response(body, headers={"Content-Type": content_type, "Cache-Control": "no-store"})

    router.add_route("/metrics", metrics, methods=["GET"], include_in_schema=False)
    return router


def _event(name: str) -> str:
    return name if name in EVENTS else "other"
