"""The bot's end of the socket against whoever may sit in the sandbox."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bot.brain.agent import broker as rules
from bot.brain.agent.broker import MOST_CALLS, MOST_CONNECTIONS, MOST_LINE_BYTES, MOST_STRIKES, Broker
from bot.brain.agent.functions import Answer, Function, Kind, Parameter
from bot.errors import TransientError, UserError

pytestmark = pytest.mark.timeout(60)


class Outside:
    """The functions of these tests, and what they were called with."""

    def __init__(self) -> None:
        self.called: list[dict[str, Any]] = []
        self.at_once = self.most_at_once = 0
        self.go_on = asyncio.Event()

    async def search(self, **given: Any) -> Answer:
        self.called.append(given)
        match given["query"]:
            case "slow":
                self.at_once += 1
                self.most_at_once = max(self.most_at_once, self.at_once)
                await self.go_on.wait()
                self.at_once -= 1
            case "large":
                return Answer("x" * (rules.MOST_ANSWER_BYTES + 1), "here")
            case "wrong":
                raise UserError("There is no such paper. Write its number.")
            case "busy":
                raise TransientError("arXiv wants a pause", retry_after_seconds=3)
            case "bug":
                raise RuntimeError("/home/bot/secret-path")
            case "endless":
                await asyncio.Event().wait()
            case "secret":
                return Answer({"key hunter22": ["hunter22"]}, "hunter22 file")
            case "odd":
                return Answer("\ud800 \u2028 \0", "odd")
        return Answer([given["query"]], f"found for {given['query']}")


class Inside:
    """One raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, *lines: Any) -> None:
        for line in lines:
            self.writer.write(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n")
        with contextlib.suppress(ConnectionError):
            await self.writer.drain()

    async def next(self) -> dict[str, Any] | None:
        """None when the bot has hung up."""
        try:
            line = await asyncio.wait_for(self.reader.readline(), 20)
        except ConnectionError:
            return None
        return json.loads(line) if line else None

    async def call(self, number: int, query: Any, function: str = "papers.search") -> dict[str, Any] | None:
        await self.send({"call": number, "function": function, "arguments": {"query": query}})
        return await self.next()


class Place:
    def __init__(self, folder: Path) -> None:
        self.outside = Outside()
        function = Function("Find.", self.outside.search, {"query": Parameter(Kind.TEXT, characters=10_000)})
        self.broker = Broker(folder / "door", {"papers.search": function}, clean=_clean, function_seconds=5)
        self.path = folder / "door" / "socket"
        self.opened: list[Inside] = []

    async def connect(self, hello: Any = "calls") -> Inside:
        found = Inside(*await asyncio.open_unix_connection(str(self.path), limit=1 << 24))
        self.opened.append(found)
        await found.send({"hello": hello} if isinstance(hello, str) else hello)
        return found

    async def until(self, condition: Any) -> None:
        async with asyncio.timeout(20):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.005)


def _piece(place: Place) -> Any:
    assert place.broker._piece is not None
    return place.broker._piece


def _clean(value: Any) -> Any:
    return json.loads(json.dumps(value).replace("hunter22", "[redacted]"))


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    place = Place(tmp_path)
    await place.broker.start()
    place.broker.begin(1, "code", "outputs/0001.txt")
    yield place
    for each in place.opened:
        each.writer.transport.abort()
    await place.broker.close()


async def test_a_call_is_answered_with_its_source(place: Place) -> None:
    inside = await place.connect()
    assert await inside.call(7, "dpo") == {"answer": 7, "value": ["dpo"], "source": "found for dpo"}
    assert [(each.function, each.source, each.failed) for each in place.broker.finish()] == [
        ("papers.search", "found for dpo", False)
    ]


async def test_answers_come_as_they_are_ready_and_not_in_order(place: Place) -> None:
    inside = await place.connect()
    await inside.send({"call": 1, "function": "papers.search", "arguments": {"query": "slow"}})
    assert (await inside.call(2, "fast") or {})["answer"] == 2
    place.outside.go_on.set()
    assert (await inside.next() or {})["answer"] == 1


DEEP = b'{"a":' * 9000 + b"1" + b"}" * 9000
NESTED = b'{"hello":' + b"[" * 50_000 + b"]" * 50_000 + b"}\n"
HOSTILE = {
    "no JSON": b"GET / HTTP/1.1\r\n\r\n\n",
    "no UTF-8": b'{"call": 1, "function": "\xff\xfe"}\n',
    "no object": b"[1, 2]\n",
    "a number": b"7\n",
    "nothing": b"\n",
    "deep nesting": NESTED,
    "a deep argument": b'{"call": 1, "function": "papers.search", "arguments": ' + DEEP + b"}\n",
    "a number without end": b'{"call": ' + b"9" * 10_000 + b', "function": "papers.search", "arguments": {}}\n',
    "a line without end": b"x" * (MOST_LINE_BYTES + 10),
    "another field": {"call": 1, "function": "papers.search", "arguments": {}, "shell": "id"},
    "a field missing": {"call": 1, "function": "papers.search"},
    "a negative number": {"call": -1, "function": "papers.search", "arguments": {}},
    "a flag as a number": {"call": True, "function": "papers.search", "arguments": {}},
    "a number as text": {"call": "1", "function": "papers.search", "arguments": {}},
    "an answer to itself": {"answer": 1, "value": "forged"},
    "something to run": {"run": 2, "code": "import os", "output": "/etc/passwd"},
    "the end of code, from no session": {"done": 1, "ended": "ok"},
    "a second hello": {"hello": "session"},
}  # fmt: skip


@pytest.mark.parametrize("line", HOSTILE.values(), ids=HOSTILE.keys())
async def test_what_is_no_request_ends_the_connection_and_nothing_else(place: Place, line: Any) -> None:
    friend, foe = await place.connect(), await place.connect()
    await foe.send(line)
    assert await foe.next() is None
    assert (await friend.call(1, "dpo") or {})["value"] == ["dpo"]
    assert place.outside.called == [{"query": "dpo"}] and not _piece(place).ended.done()


@pytest.mark.parametrize(
    "hello", [{"hello": "root"}, {"hello": ["session"]}, {}, {"call": 1}, {"hello": "session", "x": 1}]
)
async def test_who_does_not_say_who_it_is_is_not_listened_to(place: Place, hello: Any) -> None:
    inside = await place.connect(hello)
    assert await inside.call(1, "dpo") is None and place.outside.called == []


@pytest.mark.parametrize(
    ("function", "says"),
    [("os.system", "There is no such function"), ("papers.search.__globals__", "There is no such"),
     ("", "There is no such"),
     ("papers.Search", "There is no such"), (["papers.search"], "There is no such"), (None, "There is no such")],
)  # fmt: skip
async def test_only_what_is_registered_is_called(place: Place, function: Any, says: str) -> None:
    answer = await (await place.connect()).call(1, "x", function)
    assert says in (answer or {})["error"] and place.outside.called == []


@pytest.mark.parametrize("given", [None, [], "x", {"query": 1}, {"query": "a" * 10_001}, {"query": "a\x1b[2J"},
                                   {"query": "a", "host": "evil.example"}, {}])  # fmt: skip
async def test_arguments_are_checked_before_the_function_sees_them(place: Place, given: Any) -> None:
    inside = await place.connect()
    await inside.send({"call": 1, "function": "papers.search", "arguments": given})
    assert "rite" in (await inside.next() or {})["error"] and place.outside.called == []


@pytest.mark.parametrize(
    ("query", "says"),
    [("large", "Ask for less"), ("wrong", "Write its number"),
     ("busy", "not now: arXiv wants a pause Try again in 3 s."),
     ("bug", "failed inside of Postdoc"), ("endless", "took longer than 5 s")],
)  # fmt: skip
async def test_a_function_that_fails_is_one_sentence(
    place: Place, query: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.broker._function_seconds = 0.05 if query == "endless" else 5
    answer = await (await place.connect()).call(1, query)
    assert says.replace("5 s", "0.05 s") in (answer or {})["error"] and "secret-path" not in str(answer)
    assert [each.failed for each in place.broker.finish()] == [True]


async def test_secrets_and_odd_characters_pass_no_answer(place: Place) -> None:
    inside = await place.connect()
    assert (await inside.call(1, "secret") or {}) == {
        "answer": 1, "value": {"key [redacted]": ["[redacted]"]}, "source": "[redacted] file"
    }  # fmt: skip
    assert (await inside.call(2, "odd") or {})["value"] == "\ud800 \u2028 \0"


async def test_nothing_is_answered_while_no_code_of_the_model_runs(place: Place) -> None:
    place.broker.finish()
    answer = await (await place.connect()).call(1, "dpo")
    assert "No code is being run" in (answer or {})["error"] and place.outside.called == []


async def test_one_piece_of_code_asks_so_often_and_no_oftener(place: Place) -> None:
    inside = await place.connect()
    for number in range(MOST_CALLS):
        assert "value" in (await inside.call(number, "dpo") or {})
    assert "which is the most" in (await inside.call(999, "dpo") or {})["error"]
    assert len(place.outside.called) == MOST_CALLS


async def test_who_goes_on_and_on_spoils_the_session(place: Place) -> None:
    for _ in range(MOST_STRIKES):
        foe = await place.connect()
        await foe.send(b"junk\n")
        assert await foe.next() is None
    assert place.broker.why_spoilt == f"it sent what is no JSON, {MOST_STRIKES} times"
    assert await (await place.connect()).call(1, "dpo") is None


async def test_few_connections_are_taken_and_none_starves_the_session(place: Place) -> None:
    session = await place.connect("session")
    assert (await session.next() or {})["run"] == 1
    held = [await place.connect() for _ in range(MOST_CONNECTIONS)]
    for each in held:
        await each.send(b'{"call": 1, "fun')  # half a line, and then nothing
    await place.until(lambda: len(place.broker._connections) == MOST_CONNECTIONS)
    assert await (await place.connect()).next() is None
    assert (await session.call(5, "dpo") or {})["value"] == ["dpo"]


async def test_half_a_line_at_the_end_is_no_request(place: Place) -> None:
    inside = await place.connect()
    await inside.send(json.dumps({"call": 1, "function": "papers.search", "arguments": {"query": "dpo"}}).encode())
    inside.writer.write_eof()
    assert await inside.next() is None and place.outside.called == []


async def test_functions_run_a_few_at_a_time_and_the_rest_is_not_even_read(place: Place) -> None:
    inside = await place.connect()
    await inside.send(*({"call": n, "function": "papers.search", "arguments": {"query": "slow"}} for n in range(50)))
    await place.until(lambda: place.outside.at_once == rules.AT_ONCE)
    assert len(place.broker._answering) == rules.AT_ONCE
    place.outside.go_on.set()
    assert {(await inside.next() or {})["answer"] for _ in range(50)} == set(range(50))
    assert place.outside.most_at_once == rules.AT_ONCE


async def test_who_never_reads_its_answers_is_hung_up_on(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "_SEND_SECONDS", 0.1)
    inside = await place.connect()
    inside.writer.transport.pause_reading()  # type: ignore[attr-defined]
    query = "q" * 9_900
    await inside.send(*({"call": n, "function": "papers.search", "arguments": {"query": query}} for n in range(120)))
    await place.until(lambda: not place.broker._connections)
    assert len(place.outside.called) < 120


async def test_one_session_at_a_time_and_its_end_is_told_once(place: Place) -> None:
    session = await place.connect("session")
    assert await session.next() == {"run": 1, "code": "code", "output": "outputs/0001.txt"}
    second = await place.connect("session")
    assert await second.next() is None, "the first one is the session"
    ended = _piece(place).ended
    await session.send({"done": 2, "ended": "ok"}, {"done": 1, "ended": "error"}, {"done": 1, "ended": "ok"})
    assert await asyncio.wait_for(ended, 20) == "error"


@pytest.mark.parametrize("end", [{"done": 1, "ended": "MET"}, {"done": 1}, {"done": 1, "ended": "ok", "value": 1},
                                 {"done": "1", "ended": "ok"}])  # fmt: skip
async def test_an_end_in_another_form_is_none(place: Place, end: Any) -> None:
    session = await place.connect("session")
    await session.next()
    await session.send(end)
    assert await session.next() is None and not _piece(place).ended.done()


async def test_a_session_that_comes_back_is_sent_the_same_piece_again(place: Place) -> None:
    session = await place.connect("session")
    await session.next()
    session.writer.transport.abort()
    await place.until(lambda: place.broker._session is None)
    back = await place.connect("session")
    assert (await back.next() or {})["run"] == 1
    await back.send({"done": 1, "ended": "ok"})
    assert await asyncio.wait_for(_piece(place).ended, 20) == "ok"


async def test_a_link_in_the_sockets_place_is_replaced_and_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / "door").mkdir()
    (tmp_path / "door" / "socket").symlink_to(precious)
    place = Place(tmp_path)
    await place.broker.start()
    try:
        assert stat.S_ISSOCK(os.lstat(place.path).st_mode) and precious.read_text() == "mine"
    finally:
        await place.broker.close()
    assert not place.path.exists() and precious.read_text() == "mine"


async def test_a_folder_with_a_long_name_can_have_a_socket(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 40)
    folder.mkdir()
    place = Place(folder)
    await place.broker.start()
    await place.broker.close()


def test_a_registry_of_odd_names_is_a_mistake_of_ours(tmp_path: Path) -> None:
    async def nothing() -> Answer:
        return Answer(None, "")

    for name in ("os", "os.system()", "Papers.search", "papers.__class__", "a.b.c"):
        with pytest.raises(ValueError, match="cannot be"):
            Broker(tmp_path, {name: Function("x", nothing)})
    late = {"a": Parameter(Kind.FLAG, default=True), "b": Parameter(Kind.FLAG)}
    with pytest.raises(ValueError, match="cannot come after"):
        Broker(tmp_path, {"papers.search": Function("x", nothing, late)})
