"""What the port does about every limit that GitHub states, on a clock that needs no waiting."""

from __future__ import annotations

import asyncio
import concurrent.futures
import email.utils
import itertools
import time
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.conversation.github import Pacing, Refused, Urgency
from bot.conversation.github.fitting import fitted
from bot.conversation.github.limits import Gate
from bot.errors import TransientError
from tests.fakes.clockwork import in_no_time, ticks
from tests.fakes.github import FakeGitHub, fail, refuse, reply

PACED = Pacing(write_pause_seconds=1.0, writes_per_hour=400)
WRITE = ("POST", "/repos/acme/lab/issues/1/comments")
READ = ("GET", "/repos/acme/lab")
SECONDARY = "You have exceeded a secondary rate limit. Please wait a few minutes before you try again."


async def waits(*calls: Any) -> list[float]:
    """What each call is told to wait, one after the other."""
    found = []
    for call in calls:
        with pytest.raises(TransientError) as error:
            await call()
        assert error.value.retry_after_seconds is not None
        found.append(error.value.retry_after_seconds)
    return found


def test_writes_of_an_installation_are_a_second_apart_and_reads_pass_them() -> None:
    async def work() -> None:
        github = FakeGitHub()
        app = github.app(pacing=PACED)
        writes = [app.call(1, *WRITE, json={"n": n}) for n in range(5)]
        others = [app.call(1, *READ) for _ in range(3)] + [app.call(2, *WRITE, json={"n": 9})]
        await asyncio.gather(*writes, *others)
        by = [(asked.at, asked.method, (asked.body or {}).get("n")) for asked in github.asked if "/repos" in asked.path]
        assert [at for at, method, n in by if method == "POST" and n != 9] == [0.0, 1.0, 2.0, 3.0, 4.0]
        assert {at for at, method, n in by if method == "GET" or n == 9} == {0.0}

    in_no_time(work())


def test_write_that_somebody_waits_for_goes_first_and_order_is_kept_otherwise() -> None:
    async def work() -> None:
        github = FakeGitHub()
        app = github.app(pacing=PACED)
        tasks = [asyncio.create_task(app.call(1, *WRITE, json={"n": n})) for n in range(4)]
        await asyncio.sleep(0.5)
        tasks.append(asyncio.create_task(app.call(1, *WRITE, json={"n": "answer"}, urgency=Urgency.ANSWER)))
        await asyncio.gather(*tasks)
        assert [a.body["n"] for a in github.asked if a.body] == [0, "answer", 1, 2, 3]
        assert [a.at for a in github.asked if a.body] == pytest.approx([0, 1, 2, 3, 4])

    in_no_time(work())


def test_write_that_was_cancelled_in_the_line_holds_nobody_up() -> None:
    async def work() -> None:
        github = FakeGitHub()
        app = github.app(pacing=PACED)
        tasks = [asyncio.create_task(app.call(1, *WRITE, json={"n": n})) for n in range(3)]
        await asyncio.sleep(0.1)
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert [a.body["n"] for a in github.asked if a.body] == [0, 2]
        await app.call(1, *WRITE, json={"n": 3})
        assert ticks() <= 3.1

    in_no_time(work())


def test_progress_is_left_out_rather_than_waited_for() -> None:
    async def work() -> None:
        github = FakeGitHub()
        app = github.app(pacing=PACED)
        repository = app.repository(1, "acme", "lab")
        output = {"title": "step 1", "summary": "s"}
        assert await repository.update_check(5, output=output)
        line = [asyncio.create_task(app.call(1, *WRITE, json={})) for _ in range(3)]
        await asyncio.sleep(0)
        assert not await repository.update_check(5, output=output)
        assert await repository.update_check(5, output=output, conclusion="success")
        await asyncio.gather(*line)
        assert app.counts["dropped"] == 1
        shown = [a.body for a in github.asked if a.method == "PATCH"]
        assert [body.get("conclusion") for body in shown] == [None, "success"]

    in_no_time(work())


def test_progress_stops_first_when_the_hours_writes_run_low_and_decisions_last() -> None:
    async def work() -> None:
        github = FakeGitHub()
        app = github.app(pacing=Pacing(write_pause_seconds=1.0, writes_per_hour=40))
        repository = app.repository(1, "acme", "lab")
        shown = []
        for _ in range(40):
            shown.append(await repository.update_check(5, output={"title": "t", "summary": "s"}))
            await asyncio.sleep(2)
        assert shown == [True] * 30 + [False] * 10
        for _ in range(10):
            await app.call(1, *WRITE, json={})
        began = ticks()
        [wait] = await waits(lambda: app.call(1, *WRITE, json={}))
        assert wait == pytest.approx(3600 - began, abs=1)
        await app.call(1, *READ)
        await app.call(2, *WRITE, json={})
        await asyncio.sleep(wait)
        await app.call(1, *WRITE, json={})

    in_no_time(work())


def test_reads_stay_within_the_points_of_a_minute() -> None:
    async def work() -> None:
        github = FakeGitHub()
        app = github.app(pacing=PACED)
        for _ in range(1500):
            await app.call(1, *READ)
        times = [asked.at for asked in github.asked if asked.method == "GET"]
        busiest = max(sum(at <= other < at + 60 for other in times) for at in times[::50])
        assert busiest <= 720
        assert 120 <= ticks() < 180

    in_no_time(work())


def test_requests_at_a_time_are_bounded_for_each_installation() -> None:
    async def work() -> None:
        github = FakeGitHub()
        github.answer_seconds = 1.0
        app = github.app()
        await app.call(1, *READ)
        began = ticks()
        await asyncio.gather(*(app.call(1, *READ) for _ in range(35)))
        assert github.most_at_a_time == 10
        assert ticks() - began == pytest.approx(4.0)

    in_no_time(work())


def test_limit_closes_the_gate_for_every_goal_of_the_installation() -> None:
    async def work() -> None:
        github = FakeGitHub()
        app = github.app()
        github.say("POST", ".*/comments", refuse(403, SECONDARY, retry_after=300), reply({"id": 1}, 201))
        assert await waits(lambda: app.call(1, *WRITE, json={})) == [300]
        before = len(github.asked)
        assert await waits(lambda: app.call(1, *READ), lambda: app.call(1, *WRITE, json={})) == [300, 300]
        assert len(github.asked) == before
        await app.call(2, *READ)
        await asyncio.sleep(300)
        await app.call(1, *WRITE, json={})
        assert app.counts["limited"] == 1

    in_no_time(work())


def test_short_closing_is_waited_out() -> None:
    async def work() -> None:
        github = FakeGitHub()
        app = github.app()
        github.say("GET", "/repos/acme/lab", refuse(429, SECONDARY, retry_after=20), reply({"id": 1}))
        assert await waits(lambda: app.call(1, *READ)) == [20]
        await app.call(1, *READ)
        assert ticks() == pytest.approx(20)

    in_no_time(work())


@pytest.mark.parametrize("status", [403, 429])
def test_secondary_limit_without_a_time_waits_a_minute_and_then_ever_longer(status: int) -> None:
    async def work() -> None:
        github = FakeGitHub()
        app = github.app()
        github.say("GET", "/repos/acme/lab", *[refuse(status, SECONDARY)] * 8, reply({"id": 1}))
        found = []
        for _ in range(8):
            found += await waits(lambda: app.call(1, *READ))
            await asyncio.sleep(found[-1])
        assert found == [60, 120, 240, 480, 960, 1920, 3600, 3600]
        await app.call(1, *READ)
        github.say("GET", "/repos/acme/lab", refuse(status, SECONDARY))
        assert await waits(lambda: app.call(1, *READ)) == [60]

    in_no_time(work())


def test_limit_met_by_ten_requests_at_once_is_one_limit() -> None:
    async def work() -> None:
        github = FakeGitHub()
        app = github.app()
        await app.call(1, *READ)
        github.answer_seconds = 0.1
        github.say("GET", "/repos/acme/lab", refuse(403, SECONDARY))
        results = await asyncio.gather(*(app.call(1, *READ) for _ in range(10)), return_exceptions=True)
        assert {getattr(each, "retry_after_seconds", None) for each in results} == {60.0}

    in_no_time(work())


@pytest.mark.parametrize(
    ("stated", "seconds"),
    [("7", 7), ("0", 1), ("-5", 1), ("1e9", 3600), ("nan", 60), ("soon", 60), ("date", 90)],
)
def test_retry_after_is_read_in_every_form(stated: str, seconds: float) -> None:
    async def work() -> None:
        github = FakeGitHub()
        app = github.app()
        text = email.utils.formatdate(github.time() + 90, usegmt=True) if stated == "date" else stated
        github.say("GET", "/repos/acme/lab", refuse(403, SECONDARY, retry_after=text))
        [wait] = await waits(lambda: app.call(1, *READ))
        assert wait == pytest.approx(seconds, abs=2 if stated == "date" else 0)

    in_no_time(work())


@pytest.mark.parametrize("behind", [0.0, 3000.0, -3000.0])
def test_primary_limit_waits_for_its_reset_on_githubs_clock(behind: float) -> None:
    async def work() -> None:
        github = FakeGitHub()
        github.machine_behind = behind
        app = github.app()
        reset = int(github.time()) + 1200
        limits = {"x_ratelimit_limit": 5000, "x_ratelimit_remaining": 0, "x_ratelimit_reset": reset}
        words = "API rate limit exceeded for installation ID 1."
        github.say("GET", "/repos/acme/lab", refuse(403, words, x_ratelimit_resource="core", **limits))
        [wait] = await waits(lambda: app.call(1, *READ))
        assert wait == pytest.approx(1201, abs=3)
        github.say("POST", "/graphql", reply({"data": {"viewer": None}}))
        await app.graphql(1, "{ viewer { login } }", {})  # another limit, which is not used up

    in_no_time(work())


def test_last_request_of_the_hour_closes_the_gate_without_a_refusal() -> None:
    async def work() -> None:
        github = FakeGitHub()
        app = github.app()
        limits = {"x_ratelimit_limit": 5000, "x_ratelimit_reset": int(github.time()) + 600}
        left = [reply({}, x_ratelimit_remaining=n, **limits) for n in (400, 0)]
        github.say("GET", "/repos/acme/lab", *left, reply({"id": 1}))
        await app.call(1, *READ)
        assert app.least_remaining() == 400
        # Progress is left out well before the last request.
        assert not await app.repository(1, "acme", "lab").update_check(5, output={"title": "t", "summary": "s"})
        await app.call(1, *READ)
        before = len(github.asked)
        [wait] = await waits(lambda: app.call(1, *READ))
        assert wait == pytest.approx(601, abs=2)
        assert len(github.asked) == before
        await asyncio.sleep(wait)
        await app.call(1, *READ)

    in_no_time(work())


def test_refusal_that_meets_the_last_request_is_a_refusal() -> None:
    async def work() -> None:
        github = FakeGitHub()
        app = github.app()
        limits = {"x_ratelimit_limit": 5000, "x_ratelimit_remaining": 0, "x_ratelimit_reset": int(github.time()) + 600}
        github.say("GET", "/repos/acme/lab", refuse(403, "Resource not accessible by integration", **limits))
        with pytest.raises(Refused, match="lacks a permission"):
            await app.call(1, *READ)

    in_no_time(work())


@pytest.mark.parametrize("broken", [refuse(502), refuse(503), fail(httpx.ReadTimeout), fail(httpx.ConnectError)])
def test_outage_is_waited_out_in_growing_steps_that_end_at_a_minute(broken: Any) -> None:
    async def work() -> None:
        github = FakeGitHub()
        app = github.app()
        await app.call(1, *READ)
        github.say("GET", "/repos/acme/lab", *[broken] * 9, reply({"id": 1}), broken)
        ask = [lambda: app.call(1, *READ)]
        assert await waits(*ask * 9) == [1, 2, 4, 8, 16, 32, 60, 60, 60]
        await app.call(1, *READ)
        assert await waits(*ask) == [1]
        assert app.counts["limited"] == 0

    in_no_time(work())


def test_write_that_failed_is_not_repeated_by_the_port() -> None:
    async def work() -> None:
        github = FakeGitHub()
        app = github.app()
        github.say("POST", ".*/comments", fail(httpx.ReadTimeout))
        await waits(lambda: app.call(1, *WRITE, json={}))
        assert github.paths("POST") == ["POST /repos/acme/lab/issues/1/comments"]
        assert app.writes == 0

    in_no_time(work())


def test_limit_inside_of_an_answer_of_graphql() -> None:
    async def work() -> None:
        github = FakeGitHub()
        app = github.app()
        error = {"type": "RATE_LIMITED", "message": "API rate limit exceeded"}
        github.say("POST", "/graphql", reply({"data": None, "errors": [error]}))
        assert await waits(lambda: app.graphql(1, "mutation { x }", {})) == [60]
        github.say(
            "POST", "/graphql", reply({"errors": [{"message": "Something went wrong while executing your query"}]})
        )
        with pytest.raises(TransientError):
            await app.graphql(1, "mutation { x }", {})

    in_no_time(work())


def test_limit_on_the_apps_own_name_reaches_whoever_needs_a_token() -> None:
    async def work() -> None:
        github = FakeGitHub()
        app = github.app()
        await app.call(1, *READ)
        github.say("POST", "/app/installations/.*", refuse(403, SECONDARY, retry_after=100))
        assert await waits(lambda: app.call(2, *READ)) == [100]
        await app.call(1, *READ)

    in_no_time(work())


def test_two_event_loops_share_one_line() -> None:
    gate = Gate(Pacing(write_pause_seconds=0.05, writes_per_hour=0))

    async def work() -> list[float]:
        went = []
        for _ in range(5):
            async with gate.passage(write=True):
                went.append(time.monotonic())
        return went

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        went = sorted(itertools.chain(*pool.map(lambda _: asyncio.run(work()), range(2))))
    assert len(went) == 10
    # A thread may be put to sleep between its leave and its note of the time, so single gaps are not judged.
    assert went[-1] - went[0] >= 9 * 0.05 - 0.02


HEADERS = st.dictionaries(
    st.sampled_from(["retry-after", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "date", "age"]),
    st.one_of(
        st.integers().map(str), st.floats().map(str), st.text(st.characters(codec="ascii", exclude_characters="\r\n\0"))
    ),
)


@given(
    st.sampled_from([200, 304, 403, 404, 429, 500, 503]), HEADERS, st.one_of(st.none(), st.text(), st.lists(st.none()))
)
def test_whatever_an_answer_says_the_wait_is_between_a_second_and_an_hour(
    status: int, headers: dict[str, str], message: Any
) -> None:
    gate = Gate(Pacing(), tick=lambda: 100.0)
    try:
        response = httpx.Response(status, headers=headers, json={"message": message, "errors": message})
    except UnicodeEncodeError:
        return
    failed = gate.heard(response, started=99.0, github_time=1.8e9)
    assert (failed is not None) >= (status == 429 or status >= 500)
    if failed is not None:
        assert failed.retry_after_seconds is not None
        assert 1 <= failed.retry_after_seconds <= 3600
    assert 0 <= gate.closed_seconds() <= 3601


@given(st.text(), st.integers(200, 400))
def test_cut_text_fits_and_begins_as_it_did(text: str, most: int) -> None:
    long = "<!-- key -->\n" + text * (1 + 500 // (len(text) or 1))
    found = fitted(long, most)
    assert len(found) <= most
    assert found.startswith("<!-- key -->")
    assert found == long or found.endswith(f"*Cut here: GitHub takes {most:,} characters.*")
