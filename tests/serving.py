"""The bot's server with a scripted runner, as a process of its own that tests may kill.

`python -m tests.serving` reads the usual POSTDOC_ settings, and:
  POSTDOC_TEST_RUNNER   folder of the ScriptedRunner
  POSTDOC_TEST_DEATHS   file of labels; the process kills itself at the first point whose label is not in it yet
  POSTDOC_TEST_DEATHS_AT  pattern; with it, only at points whose label it is found in
  POSTDOC_TEST_DIES     `committed` or `acknowledged`: it kills itself when it has stored a delivery, or answered for it
  POSTDOC_TEST_HOLDS    folder; after the effect of an action whose kind is a file's name there, and before its record,
                        the process touches `<kind>.reached` and waits until the file is gone or names another process
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bot.config import load_settings
from bot.domain.experiment import Experiment
from bot.domain.goal import GoalId
from bot.loop.action import Action
from bot.loop.treasury import Treasury
from bot.server.app import Bot
from bot.server.serving import Server
from tests.fakes.runner import ScriptedRunner


class Deaths:
    """Dies once at every point: before an action, after each of its writes, after its effect, after its record."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()
        self.current = "nothing"

    async def at(self, point: str, goal_id: GoalId, action: Action) -> None:
        self.current = f"{action.kind}:{'/'.join(map(str, action.args.values()))}"
        self.die(f"{goal_id} {point} {self.current}")

    async def on_write(self, what: str) -> None:
        if "/app/hook/deliveries/" in what:
            return  # asked for at every start, under an id of its own each time: dying there would never end
        self.die(f"write {what} in {self.current}")

    def watch_turns(self, treasury: Treasury) -> None:
        """Dies around what is set aside and paid for each turn of the language model."""

        def around(act: Callable[..., Any], what: str) -> Callable[..., Any]:
            def done(key: str, x: Experiment, *given: Any) -> Any:
                self.die(f"{x.goal_id} before {what} turn {key}")
                result = act(key, x, *given)
                self.die(f"{x.goal_id} after {what} turn {key}")
                return result

            return done

        treasury.reserve_turn = around(treasury.reserve_turn, "reserving")  # type: ignore[method-assign]
        treasury.settle_turn = around(treasury.settle_turn, "paying")  # type: ignore[method-assign]

    def die(self, label: str) -> None:
        label = label.replace("\n", " ")
        if not re.search(os.environ.get("POSTDOC_TEST_DEATHS_AT", ""), label):
            return
        if label in self.path.read_text(encoding="utf-8").splitlines():
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.write(label + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.kill(os.getpid(), signal.SIGKILL)


def die_with_a_delivery(bot: Bot, point: str) -> None:
    """Between the commit and the 202, or between the 202 and the handling of the first delivery."""
    commit, read = bot.inbox._commit, bot.reader._handlers.read

    def committed(batch: Any) -> Any:
        results = commit(batch)
        if any(work.row is not None for work in batch):
            os.kill(os.getpid(), signal.SIGKILL)
        return results

    async def acknowledged(delivery: Any) -> Any:
        await asyncio.sleep(0.3)
        os.kill(os.getpid(), signal.SIGKILL)
        return await read(delivery)

    if point == "committed":
        bot.inbox._commit = committed  # type: ignore[method-assign]
    else:
        bot.reader._handlers.read = acknowledged  # type: ignore[method-assign]


async def hold(point: str, goal_id: GoalId, action: Action) -> None:
    folder = Path(os.environ["POSTDOC_TEST_HOLDS"])
    with contextlib.suppress(FileNotFoundError):
        while point == "performed" and (folder / action.kind).read_text() in ("", str(os.getpid())):
            (folder / f"{action.kind}.reached").touch()
            await asyncio.sleep(0.02)


def main() -> None:
    settings = load_settings()
    runner = ScriptedRunner(Path(os.environ["POSTDOC_TEST_RUNNER"]))
    deaths = Deaths(Path(path)) if (path := os.environ.get("POSTDOC_TEST_DEATHS")) else None
    at = deaths.at if deaths else hold if "POSTDOC_TEST_HOLDS" in os.environ else None
    bot = Bot(settings, runner=runner, at=at, on_write=deaths.on_write if deaths else None)
    if deaths:
        deaths.watch_turns(bot.treasury)
    if point := os.environ.get("POSTDOC_TEST_DIES"):
        die_with_a_delivery(bot, point)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    Server(bot).run()


if __name__ == "__main__":
    main()
