"""Finished workflows are forgotten after their days, unfinished ones never."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CODE = """
import asyncio, json, sys
from pathlib import Path
from dbos import DBOS
from bot.domain.experiment import EventKind, NewEvent
from bot.domain.goal import GoalId
from bot.loop import workflows
from bot.loop.database import open_database
from bot.loop.engine import Engine
from bot.loop.journal import Journal
from bot.loop.leases import Leases

async def main(url, folder):
    database = open_database(url)
    journal, done, held = Journal(database), [], asyncio.Event()
    async def perform(x, action):
        if x.goal_id.endswith("#2"):
            held.set()
            await asyncio.sleep(60)
        done.append(action.kind)
        return [NewEvent(EventKind.CRASHED, f"crashed/{x.length}", {"error": "e", "reference": None}),
                NewEvent(EventKind.ENDED, f"ended/{x.length}", {"state": "needs human", "reason": "r"}),
                NewEvent(EventKind.CONTRACT_READ, "read", {"text_version": 0, "comment_id": 1, "refusal": "no",
                         "goal": None, "policy": {}})]
    engine = Engine(journal, Leases(database, Path(folder)), perform,
                    database_url=database.url.render_as_string(hide_password=False))
    await engine.start()
    opened = {"owner": "a", "repository": "b", "issue": 1, "installation_id": 1, "author": "x", "author_id": 1,
              "title": "t", "body": "b"}
    for n in (1, 2):
        await engine.append(GoalId(f"a/b#{n}"), [NewEvent(EventKind.GOAL_OPENED, "opened", opened)])
    await held.wait()
    while GoalId("a/b#1") not in engine.waiting:
        await asyncio.sleep(0.02)
    early = await workflows.prune(1.0)
    late = await workflows.prune(-1.0)
    rows = await DBOS.list_workflows_async()
    print(json.dumps({"early": early, "late": late, "left": [row.workflow_id for row in rows], "done": done}))
    await engine.stop()

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_finished_workflows_are_forgotten_and_unfinished_ones_kept(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = f"sqlite:///{tmp_path / 'w.sqlite'}"
    if kind == "postgresql":
        url = request.getfixturevalue("postgres").create(tmp_path.name)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", CODE, url, str(tmp_path / "locks")], env=environment, capture_output=True, text=True,
        timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["early"] == 0
    assert said["late"] == len(said["done"]) > 0
    assert said["left"] == ["a/b#2/1/1"]
