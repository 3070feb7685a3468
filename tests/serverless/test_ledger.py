"""What outlives the machine: journals and the book come back as they were, and what is forged comes back not at all."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from bot.domain.budget import Spend
from bot.domain.experiment import EventKind, Experiment, NewEvent
from bot.domain.goal import GoalId
from bot.errors import LeaseLost, UserError
from bot.loop.database import open_database
from bot.loop.journal import Journal
from bot.loop.record import Record, key_of
from bot.loop.treasury import Refusal, Treasury
from bot.practice.git_store import TreeEntry
from bot.serverless.ledger import Ledger
from bot.serverless.lock import Lock
from runners.job import Caps, JobId, JobSpec
from runners.remote.runner import RemoteRunner
from tests.fakes.runner import ScriptedRunner
from tests.runners.harnesses.far import Harness
from tests.serverless.conftest import REPOSITORY, Place

NOW = 1_800_000_000.0
GOAL = GoalId(f"{REPOSITORY}#7")
KEY = "0123456789abcdef-a-secret"
OPENED = NewEvent(
    EventKind.GOAL_OPENED, "opened",
    {"owner": "acme", "repository": "lab", "issue": 7, "title": "T", "body": "B", "author": "ada", "author_id": 1,
     "installation_id": 0, "delivery_id": "", "updated_at": NOW},
)  # fmt: skip


class Machine:
    """One machine's memory, made anew for each."""

    def __init__(self, place: Place, folder: Path, lock: Lock, *, key: str, runner: Any = None) -> None:
        folder.mkdir(parents=True)
        self.database: sa.Engine = open_database(f"sqlite:///{folder / 'd.sqlite'}")
        self.journal, self.treasury = Journal(self.database), Treasury(self.database, clock=lambda: NOW)
        record = Record(self.journal, [key_of(key)])
        self.runner = runner or ScriptedRunner(folder / "runner")
        self.ledger = Ledger(place.refs(), lock, record, self.journal, self.treasury, self.runner, folder)

    def add(self, *events: NewEvent) -> None:
        self.journal.append(GOAL, events or [OPENED])


Make = Callable[..., Machine]


@pytest.fixture
async def machine(place: Place, tmp_path: Path) -> AsyncIterator[Make]:
    made: list[Machine] = []
    lock = Lock(place.refs(), "run 1", seconds=60, now=lambda: NOW)
    await lock.acquire(1)

    def make(key: str = "", runner: Any = None, holding: Lock | None = None) -> Machine:
        made.append(Machine(place, tmp_path / f"machine-{len(made)}", holding or lock, key=key, runner=runner))
        return made[-1]

    yield make
    for each in made:
        each.database.dispose()


def overwrite(place: Place, name: str, files: dict[str, bytes]) -> None:
    """Somebody with push access puts files of their own there."""
    git = place.forge.repository(REPOSITORY).git
    old = place.at(name)
    assert old is not None
    commit = git.commit(old)
    tree = git.edit_tree(commit.tree, {p: TreeEntry("100644", "blob", git.write_blob(c)) for p, c in files.items()})
    place.move(name, git.write_commit(tree, [old], "mine", commit.author, commit.author))


async def content(place: Place, name: str, path: str) -> bytes:
    return (await place.refs().file(path, place.at(name) or "")) or b""


async def test_journal_with_what_was_being_done_comes_back_on_another_machine(machine: Make) -> None:
    first = machine()
    await first.ledger.load(REPOSITORY, NOW)
    first.add()
    doing = {"n": 1, "action": {"kind": "read_contract", "args": {"version": 0}}}
    await first.ledger.keep(GOAL, doing)
    second = machine()
    found = await second.ledger.load(REPOSITORY, NOW)
    assert second.journal.read(GOAL) == first.journal.read(GOAL)
    assert found.doing == {GOAL: (1, doing["action"])}
    await second.ledger.keep(GOAL, None)
    assert (await machine().ledger.load(REPOSITORY, NOW)).doing == {}


async def test_what_stands_there_already_is_not_written_again(machine: Make, place: Place) -> None:
    first = machine()
    await first.ledger.load(REPOSITORY, NOW)
    first.add()
    await first.ledger.keep(GOAL, None)
    before = place.at("7")
    await first.ledger.keep(GOAL, None)
    await first.ledger.keep_all()
    assert place.at("7") == before


@pytest.mark.parametrize("change", ["event", "count", "goal", "cut", "doing", "nothing"])
async def test_forged_journal_is_refused_and_nothing_of_it_is_taken(machine: Make, place: Place, change: str) -> None:
    first = machine(KEY)
    await first.ledger.load(REPOSITORY, NOW)
    first.add(OPENED, NewEvent(EventKind.STOPPED, "stopped/1", {"by": "ada"}))
    await first.ledger.keep(GOAL, None)
    whole = await content(place, "7", "journal.jsonl")
    opened, stopped, seal = whole.splitlines(keepends=True)
    launching = json.loads(seal) | {"doing": {"n": 2, "action": {"kind": "launch", "args": {}}}}
    forged = {
        "event": opened.replace(b'"ada"', b'"eve"', 1) + stopped + seal,
        "count": opened + seal.replace(b'"events":2', b'"events":1'),
        "goal": whole.replace(b"#7", b"#8"),
        "cut": opened + seal,
        "doing": opened + stopped + json.dumps(launching, separators=(",", ":")).encode() + b"\n",
        "nothing": b"",
    }
    assert forged[change] != whole
    overwrite(place, "7", {"journal.jsonl": forged[change]})
    found = await (second := machine(KEY)).ledger.load(REPOSITORY, NOW)
    assert list(found.refused) == [GOAL]
    assert not second.journal.read(GOAL)


async def test_key_is_needed_to_write_what_is_read_with_it(machine: Make, place: Place) -> None:
    """Neither a journal of another key nor one without any passes for one of ours."""
    plain = machine()
    await plain.ledger.load(REPOSITORY, NOW)
    plain.add()
    await plain.ledger.keep(GOAL, None)
    with pytest.raises(UserError, match="refs/postdoc/spending"):
        await machine(KEY).ledger.load(REPOSITORY, NOW)
    place.move("spending", None)
    assert list((await machine(KEY).ledger.load(REPOSITORY, NOW)).refused) == [GOAL]
    assert (await machine().ledger.load(REPOSITORY, NOW)).refused == {}


async def test_another_goals_genuine_journal_is_refused(machine: Make, place: Place) -> None:
    first = machine()
    await first.ledger.load(REPOSITORY, NOW)
    first.add()
    await first.ledger.keep(GOAL, None)
    place.move("8", place.at("7"))
    found = await (second := machine()).ledger.load(REPOSITORY, NOW)
    assert list(found.refused) == [GoalId(f"{REPOSITORY}#8")]
    assert second.journal.goals() == [GOAL]


async def test_months_ceiling_and_halt_hold_on_the_next_machine(machine: Make) -> None:
    first = machine()
    await first.ledger.load(REPOSITORY, NOW)
    x = Experiment(GOAL, owner="acme", repository="lab")
    ceiling = Spend(usd=10, gpu_hours=10)
    assert isinstance(first.treasury.reserve("a", x, Spend(usd=8, gpu_hours=8), ceiling), Spend)
    await first.ledger.keep_book()
    second = machine()
    assert (await second.ledger.load(REPOSITORY, NOW + 99)).book
    assert second.ledger.began_at == first.ledger.began_at
    assert second.treasury.reserve("b", x, Spend(usd=8, gpu_hours=8), ceiling) == Spend(usd=2, gpu_hours=2)
    second.treasury.halt(REPOSITORY, "ada")
    await second.ledger.keep_book()
    third = machine()
    await third.ledger.load(REPOSITORY, NOW)
    refused = third.treasury.reserve("c", x, Spend(usd=1, gpu_hours=1), Spend(usd=99, gpu_hours=99))
    assert isinstance(refused, Refusal)
    assert refused.halted


async def test_forged_book_stops_everything(machine: Make, place: Place) -> None:
    first = machine()
    await first.ledger.load(REPOSITORY, NOW)
    first.treasury.halt(REPOSITORY, "ada")
    await first.ledger.keep_book()
    line, seal = (await content(place, "spending", "spending.json")).splitlines(keepends=True)
    lifted = json.dumps(json.loads(line) | {"halts": []}).encode() + b"\n"
    overwrite(place, "spending", {"spending.json": lifted + seal})
    with pytest.raises(UserError, match="refused"):
        await machine().ledger.load(REPOSITORY, NOW)


async def test_of_two_machines_one_writes_and_the_other_stops(machine: Make, place: Place) -> None:
    """Without any lock between them: the ref itself decides."""
    other = Lock(place.refs(), "run 2", seconds=60, now=lambda: NOW)
    other._fresh_until = float("inf")
    one, two = machine(), machine(holding=other)
    await one.ledger.load(REPOSITORY, NOW)
    await two.ledger.load(REPOSITORY, NOW)
    one.add()
    two.add()
    two.ledger._book = one.ledger._book = one.treasury.book() | {"began_at": one.ledger.began_at}
    await one.ledger.keep(GOAL, None)
    stood = place.at("7")
    with pytest.raises(LeaseLost):
        await two.ledger.keep(GOAL, None)
    assert place.at("7") == stood
    with pytest.raises(LeaseLost):
        await two.ledger.keep(GOAL, None)


async def test_kept_evaluation_carries_scores_and_no_text(machine: Make, place: Place) -> None:
    first = machine()
    await first.ledger.load(REPOSITORY, NOW)
    job = JobId("lab-7-x-baseline-00-1")
    status = {"job_id": job, "state": "succeeded", "started_at": NOW, "ended_at": NOW + 1, "failure": None}
    launched = {"job_id": job, "role": "baseline", "run": 0, "attempt": 1, "expects": "h"}
    first.add(
        OPENED, NewEvent(EventKind.JOB_LAUNCHED, "l", launched),
        NewEvent(EventKind.JOB_ENDED, "e", {"job_id": job, "status": status}),
    )  # fmt: skip
    sample = {"id": "i1", "score": 1.0, "finish": "stop", "prompt": "a secret item", "response": "r", "reference": "s"}
    result = {"benchmark": "b", "harness_digest": "d", "model": "m", "metric": "e", "value": 1.0,
              "standard_error": 0.0, "n": 1, "split": "dev", "samples": [sample]}  # fmt: skip
    out = first.runner.folder(job) / "out"
    out.mkdir(parents=True)
    (out / "evaluation.json").write_text(json.dumps(result))
    await first.ledger.keep(GOAL, None)
    path = f"evaluations/{job}.json"
    raw = await content(place, "7", path)
    assert b"secret item" not in raw
    second = machine()
    await second.ledger.load(REPOSITORY, NOW)
    kept = json.loads(await second.ledger.kept_file(GOAL, path) or b"")
    assert [(s["id"], s["score"]) for s in kept["samples"]] == [("i1", 1.0)]
    overwrite(place, "7", {path: raw.replace(b'"value":1.0', b'"value":0.1')})
    third = machine()
    await third.ledger.load(REPOSITORY, NOW)
    assert await third.ledger.kept_file(GOAL, path) is None


async def test_job_on_another_machine_is_found_again(machine: Make, tmp_path: Path) -> None:
    """A far job outlives the machine that asked for it; the next one watches it, and asks for no second."""
    far = Harness(tmp_path / "far")
    runners = [RemoteRunner(tmp_path / name, far.machine, redact=str) for name in ("one", "two")]
    first = machine(runner=runners[0])
    await first.ledger.load(REPOSITORY, NOW)
    job_id = JobId("lab-7-x-train-01-1")
    spec = JobSpec(job_id, ("{python}", "-c", "import time; time.sleep(60)"), caps=Caps(timeout_seconds=120))
    try:
        runners[0].launch(spec)
        data = {"job_id": job_id, "role": "train", "run": 1, "attempt": 1, "expects": ""}
        first.add(OPENED, NewEvent(EventKind.JOB_LAUNCHED, "l", data))
        await first.ledger.keep(GOAL, None)
        second = machine(runner=runners[1])
        assert runners[1].status(job_id) is None
        await second.ledger.load(REPOSITORY, NOW)
        found = runners[1].status(job_id)
        assert found is not None
        assert not found.state.ended
        assert far.machine.submitted == [job_id]
    finally:
        ended = runners[0].cancel(job_id)
        assert ended is not None
        assert ended.state.ended
        far.machine.processes[job_id].wait(timeout=20)
