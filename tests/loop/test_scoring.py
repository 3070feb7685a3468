"""A goal on a benchmark that a rubric scores: the server's model judges after the job, and the goal pays for it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bot.brain.model.errors import ModelRefused
from bot.brain.model.prices import Price
from bot.brain.model.talk import Reply, Role, Said, Stop, Usage
from bot.domain.experiment import Experiment, Job, JobRole, State
from bot.domain.goal import GoalId
from bot.loop.action import ActionKind
from bot.loop.actions.scoring import Answers, ModelJudge, OutOfMoney
from bot.loop.policy import next_action
from tests.fakes.language_models import Answer, Json, MessagesApi, error, text
from tests.loop.test_spending import say
from tests.world import GOOD, POLICY, World, goal_body, practice_world

KEY = "sk-ant-api03-of-a-test-0123456789"
JUDGE = "anthropic:claude-opus-4-6"
YAML = """\
description: Answers that a rubric scores.
licence: cc0-1.0
metric: rubric_score
items: {file: judged.jsonl}
rubric: {items: rubrics}
splits: {dev: {n: 30}, sealed: {n: 30}}
"""
ITEMS = "".join(
    json.dumps({"prompt": f"How is the weather on day {n} of the voyage?",
                "rubrics": [{"criterion": "It tells the weather.", "points": 4}]}) + "\n"
    for n in range(80)
)  # fmt: skip


# --- What is due ------------------------------------------------------------------------------------------------------


def evaluated(role: JobRole, run: int, **fields: Any) -> Experiment:
    status = {"state": "succeeded", "seconds": 1.0}
    job = Job(f"{role}-{run}", role, run, 1, 0.0, status=status)
    return Experiment(
        GoalId("o/r#1"),
        is_goal=True,
        text_version=1,
        contract_version=1,
        pins={"judge": JUDGE},
        jobs={job.job_id: job},
        **fields,
    )


def test_an_ended_evaluation_is_judged_before_anything_else_goes_on() -> None:
    x = evaluated(JobRole.BASELINE, 0)
    action = next_action(x)
    assert action is not None and (action.kind, dict(action.args)) == (ActionKind.JUDGE, {"job_id": "baseline-0"})
    x.judged["baseline-0"] = {"usd": 0.1, "done": False}
    assert (again := next_action(x)) is not None and again.kind is ActionKind.JUDGE
    x.spending_refused = {"state": str(State.EXHAUSTED), "reason": "no money"}
    assert (ending := next_action(x)) is not None and ending.kind is ActionKind.CONCLUDE


def test_nothing_is_judged_where_no_rubric_scores_or_nobody_waits() -> None:
    x = evaluated(JobRole.EVALUATE, 1, concluded=True)
    assert next_action(x) is None
    assert next_action(evaluated(JobRole.WEIGH, 1, concluded=True)) is None
    assert next_action(evaluated(JobRole.REASSESS, 1, concluded=True)) is None
    x.pins = {}
    assert not x.unjudged(x.jobs["evaluate-1"])


# --- The judge --------------------------------------------------------------------------------------------------------


class Model:
    """Answers at once; each reply costs 0.01 USD."""

    name, context_tokens = JUDGE, 100_000
    price = Price(3, 15, 0.3, 3.75)

    def __init__(self, refuse_after: int = 1000) -> None:
        self.asked: list[str] = []
        self._refuse_after = refuse_after

    async def reply(
        self, system: str, said: Any, tools: Any = (), *, most_tokens: int = 8192, again: Any = None
    ) -> Reply:
        if len(self.asked) >= self._refuse_after:
            raise ModelRefused("The key is wrong.", usd=0.002)
        self.asked.append(said[-1].text)
        return Reply(Said(Role.MODEL, f"answer {len(self.asked)}"), Stop.END, Usage(), 0.01, self.name)

    async def close(self) -> None:
        return


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    found = asyncio.new_event_loop()
    thread = threading.Thread(target=found.run_forever)
    thread.start()
    yield found
    found.call_soon_threadsafe(found.stop)
    thread.join()
    found.close()


def test_what_was_answered_before_a_kill_is_not_asked_again(tmp_path: Path, loop: asyncio.AbstractEventLoop) -> None:
    path, model = tmp_path / "brain" / "judge.jsonl", Model()
    judge = ModelJudge(model, Answers(path), 1.0, loop)
    assert [judge("one"), judge("one"), judge("two")] == ["answer 1", "answer 2", "answer 3"]
    with path.open("a") as file:
        file.write('{"prompt": "torn')
    again = Answers(path)
    assert (again.count, again.usd) == (3, pytest.approx(0.03))
    judge = ModelJudge(model, again, 1.0, loop)
    assert [judge("two"), judge("one"), judge("one"), judge("three")] == [
        "answer 3", "answer 1", "answer 2", "answer 4",
    ]  # fmt: skip
    assert model.asked == ["one", "one", "two", "three"] and again.usd == pytest.approx(0.04)


def test_no_answer_is_asked_for_that_might_cost_more_than_is_left(
    tmp_path: Path, loop: asyncio.AbstractEventLoop
) -> None:
    model = Model()
    judge = ModelJudge(model, Answers(tmp_path / "judge.jsonl"), 0.025, loop)
    for _ in range(2):
        judge("a prompt")
    for _ in range(2):
        with pytest.raises(OutOfMoney, match=r"the 0.01 USD that are left do not pay"):
            judge("a prompt")
    assert len(model.asked) == 2


def test_after_a_refusal_nothing_more_is_asked_and_what_it_cost_is_kept(
    tmp_path: Path, loop: asyncio.AbstractEventLoop
) -> None:
    model, answers = Model(refuse_after=1), Answers(tmp_path / "judge.jsonl")
    judge = ModelJudge(model, answers, 1.0, loop)
    judge("one")
    for _ in range(2):
        with pytest.raises(ModelRefused):
            judge("two")
    assert answers.usd == pytest.approx(0.012)
    assert Answers(tmp_path / "judge.jsonl").usd == pytest.approx(0.012)


def test_no_secret_reaches_the_judge(tmp_path: Path, loop: asyncio.AbstractEventLoop) -> None:
    model = Model()
    ModelJudge(model, Answers(tmp_path / "judge.jsonl"), 1.0, loop, ("the-secret",))("it says the-secret here")
    assert "the-secret" not in model.asked[0]


# --- A goal -----------------------------------------------------------------------------------------------------------


def graded(body: Json) -> Answer:
    """The model's side: it judges well, and has no credit for anything else."""
    asked = json.dumps(body)
    if "You grade one answer" not in asked:
        return error(402, "billing_error", "Your credit balance is too low")
    return text(json.dumps({"explanation": "so", "criteria_met": "a good answer" in asked}))


@contextlib.contextmanager
def judging_world(
    folder: Path,
    script: dict[str, dict[str, Any]] = GOOD,
    *,
    deaths: Path | None = None,
    by: str = "BRAIN",
    **more: str,
) -> Iterator[tuple[World, MessagesApi]]:
    settings = more | {f"POSTDOC_{by}": JUDGE, f"POSTDOC_{by}_KEY": KEY, f"POSTDOC_{by}_PRICE": "3/15"}
    with MessagesApi(KEY).serve() as api:
        api.say(*[graded] * 2000)
        settings[f"POSTDOC_{by}_URL"] = api.url.rstrip("/")
        with practice_world(
            folder, policy=POLICY.replace("usd: 0", "usd: 10"), settings=settings, deaths=deaths
        ) as world:
            world.commit("benchmarks/judged.yaml", YAML)
            world.commit("benchmarks/judged.jsonl", ITEMS)
            world.runner.script(script)
            world.start()
            world.wait_ready()
            yield world, api


def on_the_rubric(**fields: str) -> str:
    return goal_body(Benchmark="benchmarks/judged.yaml", Metric="rubric_score", Target="70 %", **fields)


def judgements(api: MessagesApi) -> list[str]:
    return [asked for body in api.asked if "You grade one answer" in (asked := json.dumps(body))]


@pytest.mark.slow
@pytest.mark.parametrize("by", ["BRAIN", "JUDGE"])
def test_goal_on_a_rubric_is_met_by_the_judges_word_and_pays_for_it(tmp_path: Path, by: str) -> None:
    with judging_world(tmp_path, by=by) as (world, api):
        issue = world.open_goal(on_the_rubric(Budget_in_USD="5"))
        assert world.until_ended(issue) == "met"
        events = world.events(issue)
        assert world.first(issue, "contract_read")["pins"]["judge"] == JUDGE
        assert f"`{JUDGE}`" in "\n".join(world.bot_comments(issue))
        scores = [event["data"]["score"] for event in events if event["kind"] == "diagnosed"]
        n = scores[0]["n"]
        assert n > 20 and [score["value"] * n for score in scores] == [pytest.approx(1), pytest.approx(n - 1)]
        assert len({score["harness_digest"] for score in scores}) == 1 and scores[0]["harness_digest"] != "d" * 64
        judged = [event["data"] for event in events if event["kind"] == "judged"]
        spent = sum(event["data"]["usd"] for event in events if event["kind"] == "llm_spent")
        assert all(each["done"] for each in judged) and spent == pytest.approx(sum(each["usd"] for each in judged))
        assert all(event["data"]["month"] for event in events if event["kind"] == "llm_spent")
        results = [json.loads(path.read_text()) for path in world.runner.root.glob("*/work/out/evaluation.json")]
        assert all(each["judged"] and each["harness"]["judge"]["model"] == JUDGE for each in results)
        assert len(results) == len(judged) == 4
        assert len(judgements(api)) == sum(each["n"] for each in results), "each answer is paid once"
        folder = world.first(issue, "contract_read")
        kept = json.loads(world.file(folder["branch"], f"{folder['folder']}/runs/02/evaluation.json"))
        assert kept["value"] == scores[1]["value"]
        for spec in world.runner.root.glob("*/spec.json"):
            assert KEY not in spec.read_text()
        assert "of the voyage" not in json.dumps(events)


@pytest.mark.slow
def test_judging_stops_where_the_money_does_and_goes_on_with_more(tmp_path: Path) -> None:
    script = GOOD | {"train-01": {"curve": "flat", "hold": True}}
    with judging_world(tmp_path, script) as (world, api):
        issue = world.open_goal(on_the_rubric(Budget_in_USD="0.05"))
        assert world.until_ended(issue) == "exhausted"
        assert world.first(issue, "judged")["done"] is False
        before = len(judgements(api))
        assert 0 < before < 30
        assert world.pulls() == []
        told = "\n".join(world.bot_comments(issue))
        assert "do not pay for the judging of the answers" in told
        say(world, issue, "/postdoc budget +5usd", goal=issue)
        say(world, issue, "/postdoc resume", goal=issue)
        world.until_event(issue, "baseline_recorded")
        first = [event["data"] for event in world.events(issue) if event["kind"] == "judged"][:2]
        assert [each["done"] for each in first] == [False, True] and first[0]["job_id"] == first[1]["job_id"]
        baseline = world.first(issue, "baseline_recorded")["score"]
        assert len(judgements(api)) == baseline["n"], "what was answered before is not asked again"
        world.comment(issue, "/postdoc stop")
        world.until_ended(issue)


@pytest.mark.slow
def test_bot_killed_at_any_point_of_the_judging_pays_once_and_books_it_once(tmp_path: Path) -> None:
    deaths = tmp_path / "deaths"
    script = GOOD | {"train-01": {"curve": "flat", "hold": True}}
    at = r"(performed|write|recorded).* judge:"
    with judging_world(tmp_path / "world", script, deaths=deaths, POSTDOC_TEST_DEATHS_AT=at) as (world, api):
        issue = world.open_goal(on_the_rubric(Budget_in_USD="5"))
        until = time.monotonic() + 180
        while not any(event["kind"] == "run_started" for event in world.events(issue)):
            assert time.monotonic() < until, world.log()
            if world.process is not None and world.process.poll() is not None:
                world.start()
            time.sleep(0.1)
        assert deaths.read_text().strip(), "it died at least once"
        assert len(judgements(api)) == world.first(issue, "baseline_recorded")["score"]["n"]
        [spent] = [event["data"]["usd"] for event in world.events(issue) if event["kind"] == "llm_spent"]
        assert spent == pytest.approx(world.first(issue, "judged")["usd"])


@pytest.mark.slow
def test_goal_without_money_is_told_what_to_write(tmp_path: Path) -> None:
    with judging_world(tmp_path) as (world, api):
        issue = world.open_goal(on_the_rubric())
        world.until_event(issue, "contract_read")
        assert "write a `Budget in USD`" in world.bot_comments(issue)[-1] and not judgements(api)
