"""What results mean for a goal: levels, forgetting, the holdout and the seal, decided by the policy itself."""

from __future__ import annotations

import random
from typing import Any

import pytest

from bot.conversation import messages
from bot.domain.evaluation import Evaluation, Sample, Verdict
from bot.domain.experiment import BASELINE, EventKind, JobRole, NewEvent, State
from bot.domain.fold import tell
from bot.loop.action import ActionKind
from bot.loop.judging import chance, forgotten, judged, reached_run, told_together, wise
from bot.loop.policy import next_action
from tests.bench.simulated import SimulatedGoal
from tests.bench.verdicts import MOST_RUNS, POWER_BARS, null_goal, power_at


def evaluation(right: set[int], n: int = 200, split: str = "dev") -> Evaluation:
    samples = tuple(Sample(f"{split}{i}", float(i in right)) for i in range(n))
    value = len(right) / n
    return Evaluation("b", "d", "m", "exact_match", value, (value * (1 - value) / n) ** 0.5, n, split, samples=samples)


class Scripted(SimulatedGoal):
    """A goal whose answers are written down: {(split, run): share}; the target is 85 %."""

    def __init__(self, shares: dict[tuple[str, int], float], *, runs: int = 4, target: float = 0.85) -> None:
        self.shares = {("dev", BASELINE): 0.2, **shares}
        super().__init__(0, runs=runs, n=200, gain=target - 0.2)
        self.x.splits = {"dev": 200, "holdout": 100, "sealed": 300}

    def answer(self, split: str, run: int) -> Evaluation:
        n = {"dev": 200, "holdout": 100, "sealed": 300}[split]
        share = self.shares.get((split, run), self.shares.get(("dev", run), 0.2))
        return evaluation(set(range(round(share * n))), n, split)


def kinds(goal: SimulatedGoal) -> list[str]:
    """The roles of the goal's jobs, in order."""
    return [f"{job.role}-{job.run}" for job in goal.x.jobs.values()]


# --- When the seal is opened


def test_a_run_that_barely_meets_the_target_is_followed_by_another() -> None:
    goal = Scripted({("dev", 1): 0.855, ("dev", 2): 0.92, ("sealed", 1): 0.83, ("sealed", 2): 0.91})
    ended = goal.pursued()
    assert (ended.state, ended.runs) == (State.MET, 2)
    assert goal.x.confirmation is not None and goal.x.confirmation["run"] == 2
    assert "confirm-1" not in kinds(goal)


def test_with_nothing_left_it_is_opened_anyway_and_says_so() -> None:
    goal = Scripted({("dev", 1): 0.855, ("sealed", 1): 0.83}, runs=1)
    ended = goal.pursued()
    assert (ended.state, ended.runs) == (State.NOT_CONFIRMED, 1)
    reason = goal.x.reason
    assert "83.0 % on 300 sealed items" in reason and "2.0 points are missing" in reason
    assert "It was opened at an estimated chance of " in reason and "run" in reason.rpartition("(")[2]
    assert goal.x.seal is not None and goal.x.seal["why"] and 0.3 < goal.x.seal["chance"] < 0.7


def test_the_holdout_can_keep_the_seal_closed() -> None:
    dev_alone = {("dev", 1): 0.89, ("dev", 2): 0.94}
    assert "confirm-1" in kinds(pursued(Scripted(dev_alone | {("holdout", 1): 0.89})))
    against = pursued(Scripted(dev_alone | {("holdout", 1): 0.70}))
    assert "confirm-1" not in kinds(against) and "confirm-2" in kinds(against)
    assert against.x.rung is not None and against.x.rung.run == 2


def pursued(goal: Scripted) -> Scripted:
    goal.pursued()
    return goal


def test_runs_below_the_target_ask_the_holdout_nothing() -> None:
    goal = pursued(Scripted({("dev", 1): 0.5, ("dev", 2): 0.6, ("dev", 3): 0.95}))
    assert goal.x.rung is not None and goal.x.rung.run == 3


def test_base_model_is_asked_on_the_seal_where_its_own_error_could_explain_the_gain() -> None:
    # Target 26 % over a baseline of 20 % on 200 items: 27 % on the seal may be luck of the baseline's.
    goal = pursued(Scripted({("dev", 1): 0.32, ("sealed", 1): 0.27, ("sealed", 0): 0.20}, target=0.26))
    assert kinds(goal)[-2:] == ["confirm-1", "confirm-0"]
    assert goal.x.state is State.MET and "base model's 20.0 % on the same items" in goal.x.reason
    equal = pursued(Scripted({("dev", 1): 0.32, ("sealed", 1): 0.27, ("sealed", 0): 0.27}, target=0.26))
    assert equal.x.state is State.NOT_CONFIRMED and "cannot be told from the base model's 27.0 %" in equal.x.reason


def test_an_opened_seal_is_read_to_its_end_whatever_happens_to_the_runs() -> None:
    goal = Scripted({("dev", 1): 0.855, ("sealed", 1): 0.86}, runs=1)
    while goal.x.seal is None:
        action = next_action(goal.x)
        assert action is not None
        events = getattr(goal, f"_{action.kind}")(action)
        tell(goal.x, [each for each in events if each.kind is not EventKind.CONFIRMED], 0.0)
    more = NewEvent(EventKind.BUDGET_RAISED, "more", {"by": "ada", "more": {"runs": 3}})
    tell(goal.x, [more], 0.0)
    action = next_action(goal.x)
    assert action is not None
    assert action.kind is ActionKind.CONFIRM or action.args["role"] == JobRole.CONFIRM


def test_what_one_reviewer_reads_is_what_was_decided() -> None:
    goal = Scripted({("dev", 1): 0.855, ("dev", 2): 0.92})
    while not goal.x.runs or not goal.x.runs[0].reviewed:
        action = next_action(goal.x)
        assert action is not None
        tell(goal.x, getattr(goal, f"_{action.kind}")(action), 0.0)
    run = goal.x.runs[0]
    assert reached_run(goal.x) is run and not wise(goal.x, run)
    body = messages.review(goal.x, run)
    assert f"an estimated chance of {100 * chance(goal.x, run):.0f} % only" in body
    assert "The holdout, through the Ladder, says 86.0 % on 100 items." in body or "on 100 items." in body
    assert "p < 0.025" in body


# --- Levels


def test_the_same_result_is_better_as_first_run_and_not_as_fifth() -> None:
    goal = Scripted({("dev", n): 0.2 for n in range(1, 5)}, runs=5)
    base, better = evaluation(set(range(40))), evaluation(set(range(3, 55)))  # 3 lost, 15 gained: p = .0075
    assert judged(goal.x, better, base, None)["verdict"] == Verdict.BETTER
    while len(goal.x.scored_runs) < 4:
        action = next_action(goal.x)
        assert action is not None
        tell(goal.x, getattr(goal, f"_{action.kind}")(action), 0.0)
    found = judged(goal.x, better, base, None)
    assert found["verdict"] == Verdict.CANNOT_TELL
    assert found["against_baseline"]["level"] == pytest.approx(0.05 / 30)
    assert found["against_baseline"]["ci_low"] > 0  # its own interval stays a 95 % one


def test_runs_that_keep_being_better_lose_nothing() -> None:
    goal = Scripted({("dev", 1): 0.4, ("dev", 2): 0.45, ("dev", 3): 0.5})
    while len(goal.x.scored_runs) < 3:
        action = next_action(goal.x)
        assert action is not None
        tell(goal.x, getattr(goal, f"_{action.kind}")(action), 0.0)
    levels = [run.against_baseline["level"] for run in goal.x.runs if run.against_baseline]
    assert levels == pytest.approx([0.025, 0.025 + 0.05 / 6, 0.025 + 0.05 / 6 + 0.05 / 12])


def test_arms_that_are_told_together_are_corrected_by_holm() -> None:
    base = evaluation(set(range(40)))
    arms = [evaluation(set(range(40)) | set(range(100, 100 + more))) for more in (7, 7, 12)]  # p .0156, .0156, .0005
    assert [found["verdict"] for found in told_together([(base, arms[0])])] == [Verdict.BETTER]
    verdicts = [found["verdict"] for found in told_together([(base, arm) for arm in arms])]
    assert verdicts == [Verdict.BETTER] * 3  # .0005 < .0167, .0156 < .025, .0156 < .05
    weaker = [*arms[:2], evaluation(set(range(40)) | {150})]
    verdicts = [found["verdict"] for found in told_together([(base, arm) for arm in weaker])]
    assert verdicts == [Verdict.BETTER if 0.0156 < 0.05 / 3 else Verdict.CANNOT_TELL] * 2 + [Verdict.CANNOT_TELL]


# --- Forgetting


def asked(**scores: list[int]) -> dict[str, Any]:
    tasks = [
        {"name": name, "after": sum(each) / len(each), "n": len(each),
         "scores": {f"{name}{i}": score for i, score in enumerate(each)}}
        for name, each in scores.items()
    ]  # fmt: skip
    return {"metric": "exact_match", "model": "m", "harness_digest": "d", "old_tasks": tasks}


def test_significant_drops_are_found_item_by_item_and_others_are_not() -> None:
    before = asked(upper=[1] * 45 + [0] * 5, json=[1] * 40 + [0] * 10)
    after = asked(upper=[1] * 25 + [0] * 25, json=[1] * 38 + [0] * 12)
    upper, json_ = forgotten(before, after)
    assert (upper["name"], upper["before"], upper["after"], upper["verdict"]) == ("upper", 0.9, 0.5, "worse")
    assert json_["verdict"] == "cannot tell" and json_["difference"] == pytest.approx(-0.04)
    assert forgotten(before, None) == forgotten(None, after) == []


def forgetful(goal: Scripted, word: str) -> Scripted:
    """The same goal, whose second run forgot `upper`."""
    from dataclasses import replace

    assert goal.x.goal is not None and goal.x.consent is not None
    goal.x.goal = replace(goal.x.goal, forgetting=word)
    goal.x.consent["envelope"]["goal_hash"] = goal.x.goal.hash
    plain = goal._diagnose

    def diagnose(action: Any) -> list[NewEvent]:
        events = plain(action)
        if action.args["run"] == 1:
            goal.x.runs[0].forgetting = forgotten(asked(upper=[1] * 50), asked(upper=[1] * 20 + [0] * 30))
            goal.x.runs[0].remedy = {"key": "learning_rate", "value": 2, "symptom": "forgetting", "why": "less"}
        return events

    goal._diagnose = diagnose  # type: ignore[method-assign]
    return goal


def test_blocking_keeps_a_run_that_forgot_from_being_confirmed() -> None:
    shares = {("dev", 1): 0.95, ("dev", 2): 0.93}
    reported, blocked = forgetful(Scripted(shares), "report"), forgetful(Scripted(shares), "block")
    assert pursued(reported).x.confirmation is not None and reported.x.confirmation["run"] == 1  # type: ignore[index]
    assert pursued(blocked).x.confirmation is not None and blocked.x.confirmation["run"] == 2  # type: ignore[index]
    assert blocked.x.best_run is blocked.x.runs[1]  # what would be published
    body = messages.review(blocked.x, blocked.x.runs[0])
    assert "### What it could do before" in body and "**forgotten**" in body and "does not count" in body
    assert "not held against the run" in messages.review(reported.x, reported.x.runs[0])


def test_a_goal_that_ends_says_that_forgetting_was_why() -> None:
    goal = pursued(forgetful(Scripted({("dev", 1): 0.95}, runs=1), "block"))
    assert goal.x.state is State.EXHAUSTED
    assert "run 1 reached the target but forgot upper" in goal.x.reason


# --- What is claimed by chance (`make bench ARGS=statistics` has all 2,000 goals)


def test_few_goals_without_effect_claim_one() -> None:
    ended = [SimulatedGoal(seed, runs=6, n=120).pursued() for seed in range(40)]
    assert sum(one.better for one in ended) <= 6  # 2.5 % to 5 % expected; 7 of 40 has a chance below 1 in 200 at 5 %
    assert sum(one.state is State.MET for one in ended) <= 6


@pytest.mark.slow
def test_bars_hold_over_hundreds_of_goals_and_power_is_the_published_one() -> None:
    ended = [null_goal(seed) for seed in range(400)]
    assert MOST_RUNS == 20
    assert sum(one.better for one in ended) / 400 <= 0.05 + 2 * (0.05 * 0.95 / 400) ** 0.5
    assert sum(one.state is State.MET for one in ended) / 400 <= 0.05 + 2 * (0.05 * 0.95 / 400) ** 0.5
    for discordance, bar in POWER_BARS.items():
        assert power_at(discordance) == pytest.approx(bar, abs=0.03)


def test_uncorrected_verdicts_would_not_hold() -> None:
    """The bar is one: with every run at 5 % far more goals would claim something."""
    from bot.domain.comparison import compare

    claimed = 0
    for seed in range(30):
        goal = SimulatedGoal(seed, runs=20, n=120)
        base = goal.answer("dev", BASELINE)
        claimed += any(compare(base, goal.answer("dev", run)).verdict is Verdict.BETTER for run in range(1, 21))
    assert claimed >= 4


def test_the_draws_are_what_they_claim() -> None:
    goal = SimulatedGoal(1, runs=1, n=4000)
    a, b = goal.answer("dev", 1), goal.answer("dev", 2)
    assert a.value == pytest.approx(0.3, abs=0.05)
    discordant = sum(x.score != y.score for x, y in zip(a.samples, b.samples, strict=True)) / 4000
    assert discordant == pytest.approx(2 * 0.3 * 0.7 * 0.5, abs=0.03)
    assert random.Random(0).random() == random.Random(0).random()
