"""The agent's loop against a scripted model: what is kept, paid, shortened and stopped."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from bot.brain.agent.account import Account
from bot.brain.agent.circles import REPEATS, Circles, Warned, normalised, signature
from bot.brain.agent.transcript import Paid, Transcript
from bot.brain.agent.turns import Ended, Limits, Worker
from bot.brain.model.errors import ContextFull, ModelBusy, ModelRefused
from bot.brain.model.prices import Price
from bot.brain.model.talk import Again, Call, Reply, Result, Role, Said, Stop, Tool, Usage
from tests.fakes import language_models as api

Answer = Reply | Exception
PRICE = Price(1.0, 10.0, 0.1, 1.25)


class Scripted:
    """A model that says what a test wrote, and refuses what a provider would refuse."""

    name = "test:scripted"

    def __init__(self, *script: Answer | Callable[[Sequence[Said]], Answer], context_tokens: int = 100_000) -> None:
        self.script = list(script)
        self.context_tokens = context_tokens
        self.price = PRICE
        self.asked: list[list[Said]] = []

    async def reply(
        self, system: str, said: Sequence[Said], tools: Sequence[Tool] = (), *, most_tokens: int = 8192,
        again: Again | None = None,
    ) -> Reply:  # fmt: skip
        messages = [{"role": str(one.role), "content": _blocks(one)} for one in said]
        assert api._unanswered(messages) is None, api._unanswered(messages)
        self.asked.append(list(said))
        answer = self.script.pop(0)
        answer = answer(said) if callable(answer) else answer
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def close(self) -> None:
        pass


def _blocks(one: Said) -> list[dict[str, Any]]:
    blocks = [{"type": "tool_result", "tool_use_id": r.id} for r in one.results]
    blocks += [{"type": "text", "text": one.text}] if one.text else []
    return blocks + [{"type": "tool_use", "id": c.id} for c in one.calls]


_ids = iter(range(10**9))


def says(text: str, stop: Stop = Stop.END, *, context: int = 1000) -> Reply:
    usage = Usage(context, 100)
    return Reply(Said(Role.MODEL, text), stop, usage, PRICE.of(usage), "scripted")


def does(code: str, *more: str, stop: Stop = Stop.TOOLS, context: int = 1000, malformed: str = "") -> Reply:
    calls = tuple(Call(f"c{next(_ids)}", "python", {"code": each}, malformed) for each in (code, *more))
    usage = Usage(context, 100)
    return Reply(Said(Role.MODEL, "", calls), stop, usage, PRICE.of(usage), "scripted")


class Bench:
    """Tools that note what they are asked; `finish` ends the work."""

    tools = (Tool("python", "Run code.", {"type": "object"}),)
    finish = "call `python` with `finish`."

    def __init__(self, answers: Callable[[str], str] = lambda code: f"ran {code}") -> None:
        self.ran: list[str] = []
        self.answers = answers

    async def carry_out(self, call: Call) -> Result:
        code = str(call.arguments["code"])
        self.ran.append(code)
        return Result(call.id, self.answers(code), finishes="a proposal" if code == "finish" else "")


class Purse:
    """What was set aside and what was paid."""

    def __init__(self) -> None:
        self.reserved: dict[int, float] = {}
        self.paid: dict[int, float] = {}

    async def reserve(self, number: int, usd: float) -> None:
        assert number not in self.paid
        self.reserved[number] = usd

    async def left_behind(self, number: int) -> float:
        return self.reserved.get(number, self.paid.get(number, 0.0))

    async def release(self, number: int) -> None:
        del self.reserved[number]

    async def pay(self, number: int, paid: Paid) -> None:
        assert self.paid.setdefault(number, paid.usd) == paid.usd
        self.reserved.pop(number, None)


class Place:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "transcript.jsonl"
        self.bench = Bench()
        self.purse = Purse()
        self.paid = self.purse.paid
        self.pinned = "CONTRACT: never touch the benchmark."

    def worker(self, model: Scripted, *, usd: float = 100.0, turns: int = 300) -> Worker:
        account = Account(model, Transcript(self.path), self.purse, usd)
        return Worker(account, "You are a postdoc.", self.bench, Limits(turns, 1000), pinned=lambda: self.pinned)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


async def test_calls_are_carried_out_until_the_work_is_finished(place: Place) -> None:
    model = Scripted(does("a", "b"), does("finish"))
    work = await place.worker(model).work()
    assert (work.ended, work.why, work.turns) == (Ended.FINISHED, "a proposal", 2)
    assert place.bench.ran == ["a", "b", "finish"]
    assert [r.text for r in model.asked[1][-1].results] == ["ran a", "ran b"]
    assert sum(place.paid.values()) == pytest.approx(work.usd) == pytest.approx(2 * PRICE.of(Usage(1000, 100)))


async def test_a_kill_anywhere_pays_no_turn_twice_and_loses_none(place: Place, tmp_path: Path) -> None:
    """The transcript as every kill would have left it, cut at each of its bytes that ends a line, and within lines."""
    whole = Scripted(does("a", "b"), does("c"), does("finish"))
    await place.worker(whole).work()
    content = place.path.read_bytes()
    ends = [at + 1 for at, byte in enumerate(content) if byte == ord("\n")]
    for end in [0, *ends[:-1], *[end - 5 for end in ends]]:
        again = Place(tmp_path / str(end))
        again.path.parent.mkdir()
        again.path.write_bytes(content[:end])
        replies = content[: content.rfind(b"\n", 0, end) + 1].count(b'"kind": "reply"')
        rest = [does("a", "b"), does("c"), does("finish")][replies:]
        work = await again.worker(Scripted(*rest)).work()
        assert (work.ended, work.turns) == (Ended.FINISHED, 3), end
        assert sum(again.paid.values()) == pytest.approx(work.usd)
        assert again.bench.ran in ([], ["finish"], ["c", "finish"], ["b", "c", "finish"], ["a", "b", "c", "finish"])


async def test_the_next_turn_must_fit_into_what_is_left(place: Place) -> None:
    turn = PRICE.of(Usage(1000, 100))
    model = Scripted(*[does(f"step {letter}") for letter in "abcdefgh"])
    work = await place.worker(model, usd=3 * turn + PRICE.most(1100, 1000)).work()
    assert work.ended is Ended.BUDGET
    assert work.usd <= 3 * turn + PRICE.most(1100, 1000)
    assert "USD are left" in work.why and 0 < len(place.bench.ran) <= 4


async def test_turns_are_limited(place: Place) -> None:
    work = await place.worker(Scripted(*[does(f"step {letter}") for letter in "abc"]), turns=3).work()
    assert (work.ended, work.turns) == (Ended.TURNS, 3)


async def test_a_cut_reply_carries_nothing_out(place: Place) -> None:
    model = Scripted(does("rm -r half/a/pa", stop=Stop.LENGTH), does("x", malformed='{"code": '), does("finish"))
    await place.worker(model).work()
    assert place.bench.ran == ["finish"]
    assert model.asked[1][-1].results[0].failed and "cut at its limit" in model.asked[1][-1].results[0].text
    assert "no JSON object" in model.asked[2][-1].results[0].text


async def test_a_model_that_stops_is_asked_to_go_on_and_let_go_at_last(place: Place) -> None:
    model = Scripted(says("I think I am done."), says("Really."), says("Yes."))
    work = await place.worker(model).work()
    assert work.ended is Ended.GAVE_UP
    assert "call `python` with `finish`" in model.asked[1][-1].text


async def test_the_provider_away_leaves_the_transcript_to_go_on_with(place: Place) -> None:
    busy = ModelBusy("busy", retry_after_seconds=900, wasted=Usage(500), usd=0.002)
    work = await place.worker(Scripted(does("a"), busy)).work()
    assert (work.ended, work.retry_after_seconds) == (Ended.AWAY, 900)
    later = await place.worker(Scripted(does("finish"))).work()
    assert later.ended is Ended.FINISHED and place.bench.ran == ["a", "finish"]
    assert sum(place.paid.values()) == pytest.approx(later.usd)
    assert later.usd == pytest.approx(0.002 + 2 * PRICE.of(Usage(1000, 100)))


async def test_a_refusal_ends_the_work_in_a_sentence(place: Place) -> None:
    work = await place.worker(Scripted(ModelRefused("The key may not use this model: no."))).work()
    assert (work.ended, work.why) == (Ended.REFUSED, "The key may not use this model: no.")
    work = await place.worker(Scripted(says("", Stop.REFUSED))).work()
    assert work.ended is Ended.REFUSED


# --- growing too long


async def test_what_is_pinned_survives_every_shortening_word_for_word(place: Place) -> None:
    """Rules that were forgotten in a summary are a documented failure: https://arxiv.org/abs/2603.08640"""
    steps: list[Answer] = []
    for number in range(6):
        steps += [does(f"step {'abcdef'[number]}", context=80_000), says("I found 41.")]
    model = Scripted(*steps, does("finish"))
    place.bench.answers = lambda code: "x" * 30_000
    work = await place.worker(model).work()
    assert work.ended is Ended.FINISHED
    shortened = [asked for asked in model.asked if "in your own words" in asked[0].text]
    assert len(shortened) >= 6
    assert all(asked[0].text.startswith(place.pinned) and "I found 41." in asked[0].text for asked in shortened)
    assert all(len(asked) <= 6 for asked in shortened)


async def test_the_pinned_text_is_written_anew_at_a_shortening(place: Place) -> None:
    def answer(said: Sequence[Said]) -> Answer:
        place.pinned = "CONTRACT: never touch the benchmark. LEDGER: run 4, 61 %."
        return says("summary")

    model = Scripted(does("a", context=80_000), answer, does("finish"))
    await place.worker(model).work()
    assert model.asked[-1][0].text.startswith("CONTRACT: never touch the benchmark. LEDGER: run 4, 61 %.")


async def test_a_full_context_shortens_even_when_the_summary_does_not_fit_at_first(place: Place) -> None:
    full = ContextFull("too long")
    model = Scripted(does("a"), does("b"), does("c"), full, full, says("summary"), does("finish"))
    work = await place.worker(model).work()
    assert work.ended is Ended.FINISHED
    assert "summary" in model.asked[-1][0].text


async def test_a_context_that_stays_full_is_told_as_a_list(place: Place) -> None:
    full = ContextFull("too long")
    model = Scripted(does("load('a.json')"), does("b"), does("c"), full, full, full, does("finish"))
    work = await place.worker(model).work()
    assert work.ended is Ended.FINISHED
    assert "load('a.json')" in model.asked[-1][0].text and "No summary could be made" in model.asked[-1][0].text


async def test_a_summary_that_was_paid_is_not_asked_for_again_after_a_kill(place: Place) -> None:
    await place.worker(Scripted(does("a", context=80_000), says("dear summary"), does("b"), does("finish"))).work()
    lines = place.path.read_bytes().splitlines(keepends=True)
    at = next(n for n, line in enumerate(lines) if json.loads(line)["kind"] == "compacted")
    place.path.write_bytes(b"".join(lines[:at]))
    model = Scripted(does("finish"))
    assert (await place.worker(model).work()).ended is Ended.FINISHED
    assert "dear summary" in model.asked[0][0].text


# --- going in circles


async def test_the_same_failure_is_warned_of_and_then_stopped(place: Place) -> None:
    """A documented blind spot: the same command failing with a time in its output."""
    clock = iter(range(100))
    place.bench.answers = lambda code: f"2026-11-20 10:{next(clock):02d}:07 Error: no such file /tmp/job-{code[-1]}/x"
    model = Scripted(*[does("open('rows.jsonl')") for _ in range(20)])
    work = await place.worker(model).work()
    assert work.ended is Ended.CIRCLING
    assert len(place.bench.ran) == 2 * REPEATS
    assert "several times" in model.asked[REPEATS][-1].text


async def test_who_moves_on_after_a_warning_is_left_alone(place: Place) -> None:
    """The retired rival fired on nine later turns after its agent had moved on."""
    steps = [does("same") for _ in range(REPEATS)] + [does(f"new {letter}") for letter in "abcdefghijklmn"]
    model = Scripted(*steps, does("finish"))
    work = await place.worker(model).work()
    assert work.ended is Ended.FINISHED
    assert sum("several times" in asked[-1].text for asked in model.asked) == 1


@pytest.mark.parametrize("length", [2, 3, 4])
def test_a_cycle_of_several_actions_is_a_circle(length: int) -> None:
    circles = Circles()
    told = [circles.look("python", {"code": f"step_{'abcd'[n % length]}()"}, "no change") for n in range(2 * length)]
    assert Warned.WARN in told


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ran at 2026-11-20T10:11:12Z in 3.2 s", "ran at 2026-11-21T00:00:00Z in 14 s"),
        ("pid 4711: /tmp/abc123/x.txt", "pid 12: /tmp/zz/y.txt"),
        ("commit 4f2a9c1 at 0x7fba100912d0", "commit 9c1e22d at 0x7fba108caac0"),
        ("run 3 wrote out7.json", "run 4 wrote out8.json"),
    ],
)
def test_what_changes_by_itself_does_not_count(one: str, other: str) -> None:
    assert normalised(one) == normalised(other)


def test_code_spelt_otherwise_is_the_same_action() -> None:
    one = signature("python", {"code": "x = load('a')  # again\nprint( x )\n"}, "out")
    other = signature("python", {"code": '# second try\nx = load("a")\n\nprint(x)'}, "out")
    assert one == other


@pytest.mark.parametrize(("one", "other"), [("loss 0.51", "loss 0.49"), ("learning_rate 1e-5", "learning_rate 3e-5"),
                                            ("12 rows kept", "13 rows kept")])  # fmt: skip
def test_progress_is_no_circle(one: str, other: str) -> None:
    assert normalised(one) != normalised(other)
