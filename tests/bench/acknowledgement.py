"""How fast deliveries are acknowledged, beside Probot with an empty handler in the same run.

Same payload, same HMAC, same concurrency, an id of its own for each request. Our server is the real one with all that
runs in it, on SQLite with every commit flushed to the disk; that it stored each delivery it acknowledged is counted
afterwards. Probot stores nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bot.practice.auth import new_key_pair
from bot.practice.goals import practice_place
from bot.practice.world import PracticeWorld, free_port
from tests.bench.printing import figure

NODE = Path(__file__).resolve().parents[1] / "node"
EXAMPLES = NODE / "node_modules/@octokit/webhooks-examples/api.github.com/index.json"
CONNECTIONS, SECONDS, WARM_SECONDS = 32, 6.0, 1.0
FLOOR_RATE, BAR_P99 = 0.25, 10.0
SECRET = "a-secret-for-the-bench"


def measure(repeat: int) -> tuple[list[str], list[dict[str, Any]]]:
    """Lines to print, and what they were made of."""
    if not EXAMPLES.is_file():
        return ["Acknowledgement: skipped, because npm's packages are not installed (make setup-test)"], []
    with tempfile.TemporaryDirectory(prefix="postdoc-bench-") as place:
        folder = Path(place)
        body = next(
            example
            for event in json.loads(EXAMPLES.read_text())
            if event["name"] == "issues"
            for example in event["examples"]
            if example["action"] == "opened"
        )
        (folder / "body.json").write_text(json.dumps(body, separators=(",", ":")))
        rounds: list[dict[str, Any]] = []
        with probot() as theirs, ours(folder / "world") as (mine, database):
            for port, path in ((theirs, "/api/github/webhooks"), (mine, "/webhook")):
                load(port, path, folder / "body.json", WARM_SECONDS)
            for _ in range(repeat):
                before = stored(database)
                rounds.append(
                    {
                        "probot": load(theirs, "/api/github/webhooks", folder / "body.json", SECONDS),
                        "postdoc": load(mine, "/webhook", folder / "body.json", SECONDS),
                    }
                )
                acknowledged = rounds[-1]["postdoc"]["statuses"].get("202", 0)
                if stored(database) - before != acknowledged:
                    raise SystemExit(f"{acknowledged} deliveries acknowledged, {stored(database) - before} stored")
    size = len(json.dumps(body, separators=(",", ":")))
    lines = [f"Acknowledgement of {size:,} bytes over {CONNECTIONS} connections, beside Probot 14 in the same run"]
    for each in rounds:
        for name, found in each.items():
            rate, middle, tail = found["rate"], found["p50"], found["p99"]
            lines.append(f"  {name:<9} {rate:8,.0f} a second   p50 {middle:6.2f} ms   p99 {tail:6.2f} ms")
    rates = [each["postdoc"]["rate"] / each["probot"]["rate"] for each in rounds]
    tails = [each["postdoc"]["p99"] / each["probot"]["p99"] for each in rounds]
    lines.append(figure("rate ÷ Probot's", rates, FLOOR_RATE, at_least=True))
    lines.append(figure("p99 ÷ Probot's", tails, BAR_P99))
    return lines, rounds


@contextlib.contextmanager
def probot() -> Iterator[int]:
    port = free_port()
    environment = os.environ | {"SECRET": SECRET, "PRIVATE_KEY": new_key_pair()[0], "NODE_ENV": "production"}
    with subprocess.Popen(
        ["node", "probot-server.mjs", str(port)], cwd=NODE, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline().strip() != "ready":
                raise SystemExit("Probot did not start")
            yield port
        finally:
            process.terminate()


@contextlib.contextmanager
def ours(folder: Path) -> Iterator[tuple[int, Path]]:
    settings = {"POSTDOC_WEBHOOK_SECRET": SECRET}
    with PracticeWorld(folder, practice_place(0), settings=settings) as world:
        world.start_bot()
        yield int(world.bot_url.rpartition(":")[2]), world.data_folder / "postdoc.sqlite"


def load(port: int, path: str, body: Path, seconds: float) -> dict[str, Any]:
    """What the load generator tells: rate a second, p50 and p99 in milliseconds, how often each status."""
    signature = hmac.new(SECRET.encode(), body.read_bytes(), hashlib.sha256).hexdigest()
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "GitHub-Hookshot/bench",
        "X-GitHub-Event": "issues",
        "X-Hub-Signature-256": f"sha256={signature}",
    }
    asked = {
        "port": port, "path": path, "headers": headers, "body": str(body), "connections": CONNECTIONS,
        "seconds": seconds,
    }  # fmt: skip
    done = subprocess.run(["node", "load.mjs", json.dumps(asked)], cwd=NODE, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def stored(database: Path) -> int:
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return int(connection.execute("SELECT count(*) FROM inbox").fetchone()[0])
