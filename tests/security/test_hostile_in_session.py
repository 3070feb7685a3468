"""The hostile scripts, each run by the `python` tool in its sandbox: none gets what it wants, the host stays as it is.

Those that a later gate catches (contamination, preflight) run here too, to show that running them does no harm.
"""

from __future__ import annotations

import asyncio
import base64
import codecs
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bot.brain.agent import sandboxed_python
from tests.brain.agent.test_sandboxed_python import Place, needs_sandbox
from tests.runners.conftest import processes_naming

pytestmark = [needs_sandbox, pytest.mark.timeout(900)]
SCRIPTS = sorted((Path(__file__).parent / "hostile_scripts").glob("*.py"))
CANARY = "canary-77aa-of-the-host"
SECONDS = 2.0
"""Time limit of each."""
BOUND_SECONDS = 60.0
"""What a script takes at most, the end of its session included, on a machine under load."""
QUICK = [
    "connect_by_socket", "double_forked_daemon", "fill_memory", "flood_broker", "fork_many", "ignore_signals",
    "mount_and_namespaces", "one_endless_line", "plant_sitecustomize", "read_environment", "read_memory_of_parent",
    "symlink_in_outputs", "write_outside",
]  # fmt: skip
"""One of each class: what is reached over the network and in memory, written, left running, used up, or said."""


def filled(text: str) -> str:
    """The script with the driver's marks filled in."""
    values = {}
    for n in (0, 1):
        for part in ("question", "answer"):
            value = f"the benchmark's {part} number {n}"
            values[f"evaluation_{part}_{n}"] = value
            values[f"evaluation_{part}_{n}_base64"] = base64.b64encode(value.encode()).decode()
            values[f"evaluation_{part}_{n}_rot13"] = codecs.encode(value, "rot13")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values.get(match[1], CANARY), text)


def escapes(output: str) -> list[str]:
    """Lines by which a script says that it got what it wanted; with "if" in them the driver has to look itself."""
    return [line for line in output.splitlines() if line.startswith("ESCAPED") and not line.startswith("ESCAPED if")]


@pytest.fixture
async def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    monkeypatch.setenv("POSTDOC_BRAIN_KEY", CANARY)
    monkeypatch.setattr(sandboxed_python, "_INTERRUPT_SECONDS", 0.5)
    (tmp_path / "precious").write_text(CANARY)
    place = Place(tmp_path)
    yield place
    await place.python.close()


async def driven(place: Place, scripts: list[Path]) -> None:
    precious = place.folder / "precious"
    for script in scripts:
        async with asyncio.timeout(BOUND_SECONDS):
            output = await place.run(filled(script.read_text(encoding="utf-8")), SECONDS)
        assert escapes(output) == [], script.stem
        assert CANARY not in output and precious.name not in output, script.stem
        assert not any(character in output for character in "\x1b\u202e\u2066"), script.stem
    assert precious.read_text() == CANARY
    assert sorted(path.name for path in place.folder.iterdir()) == ["drafts", "precious", "sessions", "work"]
    assert "\n4\n" in await place.run("2 + 2"), "the tool goes on"
    await place.python.close()
    async with asyncio.timeout(BOUND_SECONDS):
        while await asyncio.to_thread(processes_naming, place.folder):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_no_hostile_script_of_any_class_gets_what_it_wants(place: Place) -> None:
    scripts = [script for script in SCRIPTS if script.stem in QUICK]
    assert len(scripts) == len(QUICK)
    await driven(place, scripts)


@pytest.mark.slow
async def test_no_hostile_script_gets_what_it_wants(place: Place) -> None:
    assert len(SCRIPTS) >= 40
    await driven(place, SCRIPTS)
