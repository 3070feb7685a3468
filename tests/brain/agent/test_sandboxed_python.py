"""The `python` tool in the real sandbox of this machine."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bot.brain.agent import sandboxed_python
from bot.brain.agent.desk import Desk
from bot.brain.agent.functions import Answer, Function, Kind, Parameter
from bot.brain.agent.sandboxed_python import SandboxedPython
from bot.brain.agent.scratch import Scratch
from bot.brain.model.talk import Call
from runners import sandbox
from runners.job import Caps
from runners.sessions import walls
from runners.sessions.walls import SessionWalls
from runners.tier import Tier

ROOT = Path(__file__).resolve().parents[3]
needs_sandbox = pytest.mark.skipif(
    not any(report.isolates for report in sandbox.probe()), reason="no sandbox here holds code that nobody trusts"
)
pytestmark = pytest.mark.timeout(120)
SMALL = Caps(memory_gib=0.25, pids=24, file_size_gib=0.01, disk_gib=0.05, timeout_seconds=120.0)


async def rows(count: int, start: int) -> Answer:
    return Answer([{"row": number} for number in range(start, start + count)], "train.jsonl of this goal")


FUNCTIONS = {
    "data.rows": Function(
        "Rows of the training set.",
        rows,
        {
            "count": Parameter(Kind.WHOLE, least=1, most=9),
            "start": Parameter(Kind.WHOLE, default=0, least=0, most=1e9),
        },
    )
}


class Place:
    """Sessions of one folder; `run` numbers the calls."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.walls = SessionWalls(folder / "sessions", caps=SMALL)
        self.number = 0
        self.drafts = folder / "drafts"
        self.drafts.mkdir(exist_ok=True)
        self.python = self.again()

    def again(self) -> SandboxedPython:
        """As a bot that has been restarted makes it."""
        self.python = SandboxedPython(
            "think-1", self.folder / "work", self.walls, FUNCTIONS, mounts={"drafts": self.drafts}, clean=_clean
        )
        return self.python

    async def run(self, code: str, seconds: float = 20) -> str:
        self.number += 1
        text, failed = await self.python.run(self.number, code, seconds)
        self.failed = failed
        return text


def _clean(value: Any) -> Any:
    return value.replace("hunter22", "[redacted]") if isinstance(value, str) else value


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    place = Place(tmp_path)
    yield place
    await place.python.close()
    assert not list((tmp_path / "sessions").glob("think-*")), "nothing of a session stays"


@needs_sandbox
async def test_variables_stay_and_the_last_value_is_shown(place: Place) -> None:
    assert "There is no output." in await place.run("x = 41")
    shown = await place.run("import os\nos.system('echo from a child')\nprint('printed')\nx + 1")
    assert "\nfrom a child\nprinted\n42\n</data" in shown and not place.failed
    raised = await place.run("def f():\n    return 1 / 0\nf()")
    assert place.failed and '  File "<call 3>", line 2, in f\n    return 1 / 0' in raised and "guest" not in raised
    assert "postdoc/__main__" not in raised and "variables are kept" in raised
    assert "SyntaxError" in await place.run("this is no Python")
    assert "exit" in await place.run("import sys; sys.stdout.close(); sys.exit(3)")
    assert "KeyboardInterrupt" in await place.run("import time; time.sleep(30)", 0.3)
    assert "Interrupted after 0.3 s" in await place.run("while True: pass", 0.3)
    assert "\n41\n" in await place.run("x")


@needs_sandbox
async def test_functions_are_asked_for_outside_and_their_sources_are_told(place: Place) -> None:
    shown = await place.run("from postdoc import data, Refused\nprint(data.rows(2), data.rows(start=5, count=1))")
    assert "TypeError" not in shown and "[{'row': 0}, {'row': 1}] [{'row': 5}]" in shown
    assert 'made from train.jsonl of this goal"' in shown and "It called data.rows, data.rows." in shown
    refused = await place.run("try:\n    data.rows('many')\nexcept Refused as error:\n    print(error)")
    assert "count is 'many'. Write a whole number." in refused and "data.rows (refused or failed)" in refused
    assert "missing a required argument" in await place.run("data.rows()")
    children = await place.run(
        "import subprocess, sys, os\n"
        "code = 'from postdoc import data; print(data.rows(1))'\n"
        "subprocess.run([sys.executable, '-c', code])\n"
        "if os.fork() == 0:\n    print(data.rows(1, 3), flush=True)\n    os._exit(0)\n"
        "os.wait()\nNone"
    )
    assert "\n[{'row': 0}]\n[{'row': 3}]\n" in children
    late = await place.run(
        "import threading, time\ntold = []\n"
        "def later():\n    time.sleep(0.3)\n    try:\n        data.rows(1)\n    except Refused as error:\n"
        "        told.append(str(error))\nthreading.Thread(target=later).start()"
    )
    assert "no output" in late
    await asyncio.sleep(0.6)
    assert "No code is being run" in await place.run("time.sleep(0.2); told")


@needs_sandbox
async def test_a_long_output_is_cut_and_stays_whole_in_a_file(place: Place) -> None:
    shown = await place.run("for n in range(60_000): print(f'{n:06d}')\nprint('hunter22 is the end')")
    assert len(shown) < 20_000 and "\n000000\n" in shown and "[redacted] is the end" in shown
    assert "outputs/0001.txt" in shown and "most of 420,020 bytes left out here" in shown
    assert "\n000300\n" in await place.run("text = open('outputs/0001.txt').read(); print(text[2100:2106])")
    flood = await place.run("while True: print('y' * 100_000)", 30)
    assert place.failed and "OSError" in flood and "File too large" in flood, "an endless output ends at the file's cap"


@needs_sandbox
async def test_a_session_that_died_is_begun_anew_and_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandboxed_python, "_INTERRUPT_SECONDS", 0.3)
    await place.run("x = 1")
    died = await place.run("import os; os._exit(7)")
    assert place.failed and "The session was ended: script_error; exit code 7" in died
    new = await place.run("'x' in globals()")
    assert "This is a new session; variables and files of the one before are gone" in new and "False" in new
    assert "exit code 7" in new and "new session" not in await place.run("1")
    hog = await place.run("held = [bytearray(1 << 20) for _ in range(4096)]")
    assert place.failed and ("oom" in hog or "MemoryError" in hog)
    deaf = await place.run("import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass", 0.2)
    assert place.failed and "did not listen to an interrupt" in deaf
    assert "did not listen to an interrupt" in await place.run("2")


@needs_sandbox
async def test_the_drafts_can_be_read_and_not_written(place: Place) -> None:
    scratch = Scratch(place.drafts, {"train.py": b"rate = 1\n"})
    scratch.write("train.py", "rate = 2\n")
    shown = await place.run("print(open('/mounts/drafts/train.py').read())\nopen('/mounts/drafts/train.py', 'w')")
    assert "rate = 2" in shown and "Read-only file system" in shown
    scratch.write("train.py", "rate = 3\n")
    assert "rate = 3" in await place.run("open('/mounts/drafts/train.py').read()")


_KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from tests.brain.agent.test_sandboxed_python import Place
async def main():
    place = Place(Path(sys.argv[1]))
    await place.run("x = 1; open('count', 'a').write('a')")
    asyncio.get_running_loop().call_later(0.7, os.kill, os.getpid(), signal.SIGKILL)
    await place.run(sys.argv[2])
asyncio.run(main())
"""


@needs_sandbox
async def test_after_kill_9_the_session_goes_on_and_nothing_is_run_twice(place: Place) -> None:
    code = "import time; time.sleep(1.5); x += 1; open('count', 'a').write('b'); print('slept')"
    killed = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", _KILLED, str(place.folder), code], cwd=ROOT, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=60,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL
    place.again()
    place.number = 1
    again = await place.run(code)
    assert not place.failed and "slept" in again and "new session" not in again
    assert "(2, 'ab')" in await place.run("x, open('count').read()")
    await place.python.leave()
    place.again()
    place.number = 1
    assert "slept" in await place.run(code), "the answer that it has, without a second run"
    place.number = 4
    assert "(2, 'ab')" in await place.run("x, open('count').read()")


@needs_sandbox
async def test_a_session_that_ended_while_the_bot_was_away_is_begun_anew(place: Place) -> None:
    await place.run("x = 1")
    await place.python.leave()
    await asyncio.to_thread(place.walls.end, "think-1-1")
    place.again()
    assert "new session" in await place.run("3")


@needs_sandbox
async def test_what_nobody_closed_is_removed_when_it_is_old(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    await place.run("1")
    await place.python.leave()
    await asyncio.to_thread(place.walls.end, "think-1-1")
    other = SandboxedPython("think-2", place.folder / "other", place.walls, {})
    assert "\n2\n" in (await other.run(1, "2", 20))[0] and place.walls.why_ended("think-1-1").startswith("cancelled")
    await other.close()
    monkeypatch.setattr(walls, "OLD_SECONDS", -1.0)
    await other.run(2, "3", 20)
    assert place.walls.why_ended("think-1-1") == "nothing is left of it"
    await other.close()


def test_without_a_sandbox_there_is_no_python_and_the_reason_is_said(tmp_path: Path) -> None:
    plain = SessionWalls(tmp_path / "sessions", tier=Tier.PLAIN)
    assert plain.problem.startswith("this machine has no sandbox that holds code which nobody trusts")
    scratch = Scratch(tmp_path / "scratch", {})
    desk = Desk(tmp_path, number=lambda: 0, python=None, scratch=scratch, why_no_python=plain.problem)
    assert "python" not in [tool.name for tool in desk.tools] and plain.problem in desk.missing
    answer = asyncio.run(desk.carry_out(Call("c", "python", {"code": "1"})))
    assert answer.failed and plain.problem in answer.text


@needs_sandbox
async def test_the_desk_offers_python_with_what_can_be_called(place: Place) -> None:
    desk = Desk(place.folder, number=lambda: 3, python=place.python, scratch=Scratch(place.folder / "s", {}))
    tool = next(tool for tool in desk.tools if tool.name == "python")
    assert "data.rows(count: int, start: int = 0): Rows of the training set." in tool.description
    assert "/mounts/drafts" in tool.description and tool.schema["required"] == ["code"]
    result = await desk.carry_out(Call("c", "python", {"code": "print(6 * 7)"}))
    assert "42" in result.text and not result.failed
    assert (await desk.carry_out(Call("c", "python", {"code": "1", "seconds": 10**6}))).failed
    await desk.close()
