"""`/metrics`: what is counted, that it names nobody, and that many goals stay few series."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from bot.domain.experiment import Experiment, NewEvent
from bot.domain.goal import GoalId
from bot.errors import TransientError, UserError
from bot.loop.action import Action, ActionKind
from bot.server.app import Bot, create_app
from bot.server.metrics import EVENTS, Metrics
from tests.server.pages_world import SECRET, Story, every_state, make_bot, started_jobs
from tests.server.test_pages import many_goals

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture
def bot(tmp_path: Path) -> Bot:
    return make_bot(tmp_path)


@pytest.fixture
async def client(bot: Bot) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=create_app(bot))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8787") as found:
        yield found


def read(text: str) -> Samples:
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation, family.name
        for sample in family.samples:
            found[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
    return found


def of(samples: Samples, name: str, **labels: str) -> float:
    return samples.get((name, tuple(sorted(labels.items()))), 0.0)


async def deliver(client: httpx.AsyncClient, event: str, body: bytes = b"{}", *, signed: bool = True) -> int:
    digest = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest() if signed else "0"
    headers = {"X-Hub-Signature-256": f"sha256={digest}", "X-GitHub-Event": event, "X-GitHub-Delivery": event[:99]}
    return (await client.post("/webhook", content=body, headers=headers)).status_code


async def test_deliveries_are_counted_by_known_event_and_outcome(bot: Bot, client: httpx.AsyncClient) -> None:
    for event in ("issues", "issues", "push"):
        await deliver(client, event)
    await deliver(client, "issues", signed=False)
    for n in range(300):
        await deliver(client, f"made-up-{n}", signed=False)
    bot.metrics.handled("issues", None)
    bot.metrics.handled("issues", "about no goal")
    bot.metrics.handled("made-up", "error: KeyError")
    samples = read((await client.get("/metrics")).text)
    assert of(samples, "postdoc_deliveries_total", event="issues", outcome="accepted") == 2
    assert of(samples, "postdoc_deliveries_total", event="issues", outcome="refused") == 1
    assert of(samples, "postdoc_deliveries_total", event="other", outcome="refused") == 300
    assert of(samples, "postdoc_deliveries_handled_total", event="issues", outcome="done") == 1
    assert of(samples, "postdoc_deliveries_handled_total", event="issues", outcome="nothing_to_do") == 1
    assert of(samples, "postdoc_deliveries_handled_total", event="other", outcome="failed") == 1
    assert of(samples, "postdoc_acknowledgement_seconds_count") == 304
    assert 0 < of(samples, "postdoc_acknowledgement_seconds_sum") < 304
    assert of(samples, "postdoc_inbox_waiting") == len(bot.inbox.unhandled()) == 2
    assert 0 <= of(samples, "postdoc_inbox_oldest_seconds") < 120


async def test_actions_are_counted_by_kind_and_outcome(bot: Bot, client: httpx.AsyncClient) -> None:
    async def perform(x: Experiment, action: Action) -> list[NewEvent]:
        error = action.args.get("error")
        if error is not None:
            raise error
        return []

    counted = bot.metrics.counted(perform)
    x = Experiment(GoalId("acme/speller#1"))
    for error in (None, TransientError("later"), TransientError("later"), UserError("no"), ZeroDivisionError()):
        with contextlib.suppress(TransientError, UserError, ZeroDivisionError):
            await counted(x, Action(ActionKind.REVIEW, {"error": error}))
            assert error is None
    samples = read((await client.get("/metrics")).text)
    for outcome, count in (("done", 1), ("put_off", 2), ("refused", 1), ("broke", 1)):
        assert of(samples, "postdoc_action_seconds_count", kind="review", outcome=outcome) == count
    assert of(samples, "postdoc_retries_total") == 2


async def test_goals_jobs_and_spending_are_as_the_journals_say(bot: Bot, client: httpx.AsyncClient) -> None:
    made = every_state(bot)
    started_jobs(bot, made)
    samples = read((await client.get("/metrics")).text)
    assert sum(value for (name, _), value in samples.items() if name == "postdoc_goals") == len(made)
    assert of(samples, "postdoc_goals", state="met") == 1
    assert of(samples, "postdoc_goals", state="unreadable") == 0
    assert of(samples, "postdoc_jobs", role="train", state="running") == 1
    assert of(samples, "postdoc_jobs", role="confirm", state="queued") == 1
    assert of(samples, "postdoc_goals_waiting_for_people") == sum(bool(s.waits_for) for s in bot.summaries.all())
    spent = sum(summary.spent.usd for summary in bot.summaries.all())
    assert of(samples, "postdoc_spend_usd_total") == pytest.approx(spent)
    assert spent > 10
    assert of(samples, "process_resident_memory_bytes") > 10e6
    assert of(samples, "postdoc_ready") == 0


def test_github_answers_are_counted_by_class() -> None:
    metrics = Metrics()
    for method, status in (
        ("GET", 200),
        ("POST", 201),
        ("PATCH", 422),
        ("GET", 304),
        ("GET", 502),
        ("PUT", 0),
        ("GET", 999),
    ):
        metrics.github_answered(method, status, {})
    metrics.github_answered("GET", 200, {"x-ratelimit-remaining": "4987"})
    metrics.github_answered("POST", 200, {"x-ratelimit-remaining": "12", "x-ratelimit-resource": "graphql"})
    metrics.github_answered("GET", 200, {"x-ratelimit-remaining": "lies", "x-ratelimit-resource": "<b>"})
    samples = read(metrics.text("")[0].decode())
    for name, count in (("2xx", 5), ("3xx", 1), ("4xx", 1), ("5xx", 1), ("none", 2)):
        assert of(samples, "postdoc_github_requests_total", status=name) == count
    assert of(samples, "postdoc_github_writes_total") == 4
    assert of(samples, "postdoc_github_rate_limit_remaining", resource="core") == 4987
    assert of(samples, "postdoc_github_rate_limit_remaining", resource="graphql") == 12


async def test_1000_odd_goals_add_no_series_are_not_named_and_are_summed_in_less_than_100_ms(
    bot: Bot, client: httpx.AsyncClient
) -> None:
    every_state(bot)
    before = read((await client.get("/metrics")).text)
    many_goals(bot, 1_000)
    Story(bot, 5_000, title="secret plans", full_name="very/private", author="mallory\n# TYPE x counter\nx 1")
    for n in range(200):
        bot.metrics.handled(f"event-{n}", f"odd outcome {n}")
        bot.metrics.github_answered("GET", n, {"x-ratelimit-remaining": "5", "x-ratelimit-resource": f"resource-{n}"})
    bot.summaries._looked_at = float("-inf")
    text = (await client.get("/metrics")).text
    after = read(text)
    assert of(after, "postdoc_goals", state="awaiting consent") == 1
    assert sum(value for (name, _), value in after.items() if name == "postdoc_goals") > 1_000
    grown = {name for name, _ in after.keys() - before.keys()}
    assert grown <= {
        "postdoc_deliveries_handled_total", "postdoc_deliveries_handled_created", "postdoc_github_requests_total",
        "postdoc_github_requests_created", "postdoc_github_rate_limit_remaining",
    }  # fmt: skip
    assert len(after) < 250
    taken = []
    for _ in range(5):
        bot.summaries._looked_at = float("-inf")
        began = time.process_time()
        assert (await client.get("/metrics")).status_code == 200
        taken.append(time.process_time() - began)
    assert min(taken) < 0.1, taken
    for word in ("acme", "speller", "private", "mallory", "secret", "event-", "resource-"):
        assert word not in text


def test_labels_can_take_few_values_only() -> None:
    metrics = Metrics()
    for event in [*EVENTS, *(f"e{n}" for n in range(100))]:
        for status in range(600):
            metrics.delivered(event, status, 0.1)
    names = {sample.name for family in metrics.registry.collect() for sample in family.samples}
    series = sum(len(family.samples) for family in metrics.registry.collect())
    assert series < 250, names


async def test_setting_opens_the_metrics_and_nothing_else(tmp_path: Path) -> None:
    bot = make_bot(tmp_path, host="0.0.0.0", metrics_open=True)
    transport = httpx.ASGITransport(app=create_app(bot))
    async with httpx.AsyncClient(transport=transport, base_url="http://postdoc.acme.com") as client:
        assert (await client.get("/metrics")).status_code == 200
        assert (await client.get("/")).status_code == 403


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", "text/plain"),
        ("*/*", "text/plain"),
        ("application/openmetrics-text; version=1.0.0", "application/openmetrics-text"),
    ],
)
async def test_both_text_forms_are_spoken(client: httpx.AsyncClient, accept: str, kind: str) -> None:
    reply = await client.get("/metrics", headers={"Accept": accept})
    assert reply.headers["content-type"].startswith(kind)
    assert re.search(r"^postdoc_info\{version=\"[^\"]+\"\} 1", reply.text, re.MULTILINE)
