"""Reservations under the month's ceilings, and the halt: nothing is promised twice, and what fails fails closed."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from bot.domain.budget import Spend
from bot.domain.experiment import Experiment, Job, JobRole
from bot.domain.goal import GoalId
from bot.errors import UserError
from bot.loop.action import Action, ActionKind
from bot.loop.actions import jobs
from bot.loop.database import open_database
from bot.loop.treasury import SERVER, Refusal, Treasury
from runners.job import JobId, JobSpec

NOVEMBER, DECEMBER = 1_795_000_000.0, 1_796_500_000.0
CEILINGS = Spend(usd=10.0, gpu_hours=5.0)


def goal(number: int = 1, repository: str = "lab") -> Experiment:
    return Experiment(GoalId(f"acme/{repository}#{number}"), owner="acme", repository=repository, issue=number)


class Clock:
    now = NOVEMBER

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def treasury(tmp_path: Path, clock: Clock) -> Treasury:
    return Treasury(open_database(f"sqlite:///{tmp_path / 't.sqlite'}"), clock=clock)


def test_reservation_is_granted_once_for_a_job(treasury: Treasury) -> None:
    wanted = Spend(usd=4.0, gpu_hours=2.0)
    assert treasury.reserve("a", goal(), wanted, CEILINGS) == wanted
    assert treasury.reserve("a", goal(), Spend(usd=9.0, gpu_hours=4.5), CEILINGS) == wanted
    assert treasury.month_spend("acme/lab") == wanted


def test_job_that_was_never_started_gives_its_reservation_back(treasury: Treasury) -> None:
    wanted = Spend(usd=4.0, gpu_hours=2.0)
    treasury.reserve("a", goal(), wanted, CEILINGS)
    treasury.release("a")
    assert treasury.month_spend("acme/lab") == Spend()
    assert treasury.reserve("a", goal(), wanted, CEILINGS) == wanted
    treasury.settle("a", Spend(usd=1.0, gpu_hours=0.5))
    treasury.release("a")
    assert treasury.month_spend("acme/lab") == Spend(usd=1.0, gpu_hours=0.5)


@pytest.mark.parametrize("where", ["spec_of", "launch"])
async def test_job_that_cannot_be_started_sets_nothing_aside(
    treasury: Treasury, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def refuse(*_: object) -> None:
        raise UserError("there is no such model")

    async def described(*_: object) -> JobSpec:
        if where == "spec_of":
            refuse()
        return JobSpec(JobId("a"), ("true",))

    async def nothing(*_: object) -> None:
        return None

    monkeypatch.setattr(jobs, "spec_of", described)
    monkeypatch.setattr(jobs, "machine_price", nothing)
    monkeypatch.setattr(jobs, "_gone_before", lambda *_: None)
    monkeypatch.setattr(jobs, "_last_checkpoint", lambda *_: None)
    monkeypatch.setattr(jobs, "allowance", lambda *_: Spend(gpu_hours=1.0))
    world = SimpleNamespace(treasury=treasury, clock=time.time, runner=SimpleNamespace(launch=refuse))
    action = Action(ActionKind.LAUNCH, {"role": "smoke", "run": 1, "attempt": 1, "expects": "rows"})
    with pytest.raises(UserError, match="no such model"):
        await jobs.launch(world, goal(), action)  # type: ignore[arg-type]
    assert treasury.month_spend("acme/lab") == Spend()


def test_what_is_left_of_the_month_cuts_the_grant_and_then_refuses(treasury: Treasury) -> None:
    treasury.reserve("a", goal(1), Spend(usd=8.0, gpu_hours=2.0), CEILINGS)
    assert treasury.reserve("b", goal(2), Spend(usd=8.0, gpu_hours=2.0), CEILINGS) == Spend(usd=2.0, gpu_hours=0.5)
    refused = treasury.reserve("c", goal(3), Spend(usd=8.0, gpu_hours=2.0), CEILINGS)
    assert isinstance(refused, Refusal)
    assert "2026-11" in refused.reason
    assert "10.00 USD" in refused.reason
    # Another repository has a month of its own.
    assert not isinstance(treasury.reserve("d", goal(1, "app"), Spend(usd=8.0, gpu_hours=2.0), CEILINGS), Refusal)


def test_hours_are_a_ceiling_where_no_money_is(treasury: Treasury) -> None:
    treasury.reserve("a", goal(), Spend(gpu_hours=5.0), CEILINGS)
    refused = treasury.reserve("b", goal(2), Spend(gpu_hours=1.0), CEILINGS)
    assert isinstance(refused, Refusal)
    assert "5 h of job time" in refused.reason


def test_settling_frees_what_a_job_did_not_take(treasury: Treasury) -> None:
    treasury.reserve("a", goal(), Spend(usd=10.0, gpu_hours=5.0), CEILINGS)
    assert treasury.running("acme/lab") == 1
    treasury.settle("a", Spend(usd=1.0, gpu_hours=0.5))
    assert treasury.running("acme/lab") == 0
    assert treasury.month_spend("acme/lab") == Spend(usd=1.0, gpu_hours=0.5)


def test_next_month_is_another_one(treasury: Treasury, clock: Clock) -> None:
    treasury.reserve("a", goal(), Spend(usd=10.0, gpu_hours=5.0), CEILINGS)
    clock.now = DECEMBER
    assert treasury.reserve("b", goal(), Spend(usd=10.0, gpu_hours=5.0), CEILINGS) == Spend(usd=10.0, gpu_hours=5.0)
    assert treasury.month_spend("acme/lab", "2026-11").usd == 10.0


def test_goals_that_ask_at_the_same_moment_never_share_the_same_room(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 't.sqlite'}"
    treasuries = [Treasury(open_database(url), clock=Clock()) for _ in range(8)]
    granted: list[float] = []

    def ask(number: int) -> None:
        found = treasuries[number].reserve(f"job-{number}", goal(number), Spend(usd=3.0, gpu_hours=1.0), CEILINGS)
        granted.append(0.0 if isinstance(found, Refusal) else found.usd)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(granted) == pytest.approx(10.0)
    assert len(granted) == 8


def test_halt_refuses_every_reservation_in_its_scope_until_it_is_lifted(treasury: Treasury) -> None:
    wanted = Spend(gpu_hours=1.0)
    treasury.halt("acme/lab", "ada")
    refused = treasury.reserve("a", goal(), wanted, CEILINGS)
    assert isinstance(refused, Refusal)
    assert refused.halted
    assert "@ada" in refused.reason
    assert not isinstance(treasury.reserve("b", goal(1, "app"), wanted, CEILINGS), Refusal)
    treasury.halt(SERVER, "root")
    assert isinstance(treasury.reserve("c", goal(1, "app"), wanted, CEILINGS), Refusal)
    assert treasury.lift(SERVER)
    assert treasury.lift("acme/lab")
    assert not treasury.lift("acme/lab")
    assert treasury.reserve("a", goal(), wanted, CEILINGS) == wanted


def test_rows_come_back_with_the_journal(treasury: Treasury) -> None:
    x = goal()
    x.policy = {"usd_per_hour": 2.0}
    ended = {"state": "succeeded", "failure": None, "started_at": 0.0, "ended_at": 1800.0}
    x.jobs = {
        "a": Job("a", JobRole.TRAIN, 1, launched_at=NOVEMBER, status=ended, reserved={"usd": 4.0, "gpu_hours": 2.0}),
        "b": Job("b", JobRole.TRAIN, 2, launched_at=NOVEMBER, reserved={"usd": 4.0, "gpu_hours": 2.0}),
    }
    for _ in range(2):
        treasury.restore(x)
        assert treasury.month_spend("acme/lab") == Spend(usd=5.0, gpu_hours=2.5)
    assert treasury.running("acme/lab") == 1
    x.jobs["b"].status = ended
    treasury.restore(x)
    assert treasury.month_spend("acme/lab") == Spend(usd=2.0, gpu_hours=1.0)
