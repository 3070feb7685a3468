"""GitHub Actions as far as `respond` meets it: events start its process one at a time, with the workflow's own token.

The forge runs no workflows. It tells a registered App what happened; those payloads, without what only an App is told,
are the event files that GitHub would have written. What the workflow's own token does starts nothing, as on GitHub.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bot.conversation.github import ACTIONS_LOGIN
from tests.preloaded import Process, start
from tests.world import REPOSITORY, ROOT, World, practice_world

WORKFLOW_PERMISSIONS = {"contents": "write", "issues": "write", "pull_requests": "write", "checks": "write"}
ON = {
    "issues": {"opened", "edited", "labeled", "closed", "reopened"},
    "issue_comment": {"created", "edited"},
    "pull_request": {"closed", "reopened", "synchronize"},
}
"""What the workflow file listens to."""


NOTHING: Mapping[str, str] = {}


@dataclass(frozen=True)
class Event:
    name: str
    payload: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.name} {self.payload.get('action', '')}"


SCHEDULE = Event("schedule", {"schedule": "*/30 * * * *"})


@dataclass
class Workflow(World):
    """The world with a workflow in place of the bot's server."""

    token: str = ""
    runs: int = 1000
    seen: int = 0
    """Deliveries that were turned into events."""
    said: list[str] = field(default_factory=list)
    """stdout of every run, oldest first."""
    outputs: dict[int, Path] = field(default_factory=dict)
    """Process id -> where its stdout goes."""

    def pending(self) -> list[Event]:
        """Events that would start the workflow, oldest first, each once."""
        assert self.forge.settle()
        told = list(reversed(self.forge.webhooks.deliveries(self.forge.apps[self.app_id])))
        new, self.seen = told[self.seen :], len(told)
        events = []
        for delivery in new:
            payload = {key: value for key, value in json.loads(delivery.body).items() if key != "installation"}
            wanted = payload.get("action") in ON.get(delivery.event, ())
            if wanted and payload["sender"]["login"] != ACTIONS_LOGIN:
                events.append(Event(delivery.event, payload))
        return events

    def begin(self, event: Event, *arguments: str, run: int = 0, variables: Mapping[str, str] = NOTHING) -> Process:
        """Start the workflow for an event; `run` is given for one that is run again."""
        self.runs += 1
        run = run or self.runs
        path = self.folder / f"event-{self.runs}.json"
        path.write_text(json.dumps(event.payload), encoding="utf-8")
        environment = self.environment | {
            "GITHUB_TOKEN": self.token, "GITHUB_REPOSITORY": REPOSITORY, "GITHUB_RUN_ID": str(run),
            "GITHUB_EVENT_NAME": event.name, "GITHUB_EVENT_PATH": str(path), **variables,
        }  # fmt: skip
        output = self.folder / f"said-{self.runs}.txt"
        with (self.folder / "bot.log").open("ab") as log, output.open("wb") as file:
            process = start(
                "tests.responding", list(arguments), environment=environment, folder=ROOT, output=file, errors=log
            )
        self.outputs[process.pid] = output
        return process

    def finish(self, process: Process, *, expect: int | None = 0) -> str:
        """What it said, once it has ended with that exit code (None: any)."""
        try:
            process.wait(timeout=120)
        except subprocess.TimeoutExpired:
            process.kill()
            raise AssertionError(f"the workflow's process does not end:\n{self.log()}") from None
        output = self.outputs[process.pid].read_text(encoding="utf-8")
        self.said.append(output)
        assert expect is None or process.returncode == expect, f"{process.returncode}: {output}\n{self.log()}"
        return output

    def handle(
        self, event: Event, *arguments: str, expect: int | None = 0, variables: Mapping[str, str] = NOTHING
    ) -> str:
        """One whole run of the workflow; what it said."""
        return self.finish(self.begin(event, *arguments, variables=variables), expect=expect)

    def settle(self, *arguments: str, variables: Mapping[str, str] = NOTHING) -> list[str]:
        """Run the workflow for every event, one at a time, until nobody's deed is left; what each run said."""
        said = []
        while events := self.pending():
            said += [self.handle(event, *arguments, variables=variables) for event in events]
        return said

    # What people see

    def bot_comments(self, number: int) -> list[str]:
        return [c["body"] for c in self.comments(number) if c["user"]["login"] == ACTIONS_LOGIN]

    # What is kept

    def git(self, *arguments: str, content: bytes | None = None) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=self.forge.repository(REPOSITORY).git.path, capture_output=True, input=content,
            check=True,
        )  # fmt: skip
        return done.stdout.decode()

    def kept(self, name: object, file: str) -> str:
        return self.git("show", f"refs/postdoc/{name}:{file}")

    def refs(self) -> list[str]:
        return self.git("for-each-ref", "--format=%(refname)", "refs/postdoc/").split()

    def events(self, issue: int) -> list[dict[str, Any]]:
        with contextlib.suppress(subprocess.CalledProcessError):
            return [json.loads(line) for line in self.kept(issue, "journal.jsonl").splitlines()[:-1]]
        return []

    def state(self, issue: int) -> str | None:
        ended = [event for event in self.events(issue) if event["kind"] in ("ended", "resumed")]
        return str(ended[-1]["data"]["state"]) if ended and ended[-1]["kind"] == "ended" else None

    def lock(self) -> dict[str, Any]:
        return dict(json.loads(self.kept("lock", "lock.json")))

    def lose_machine(self) -> None:
        """The hosted machine is thrown away: folders of jobs and all else that was not on GitHub."""
        for folder in (self.folder / "data", *self.runner.root.glob("*-*-*")):
            subprocess.run(["rm", "-rf", str(folder)], check=True)


@contextlib.contextmanager
def workflow_world(folder: Path, **options: Any) -> Iterator[Workflow]:
    """A forge with people and a repository, whose workflow is `postdoc respond`."""
    processes: list[Process] = []
    with practice_world(folder, **options) as world:
        values = {each.name: getattr(world, each.name) for each in dataclasses.fields(world)}
        found = Workflow(**values)
        for name in ("POSTDOC_APP_ID", "POSTDOC_PRIVATE_KEY", "POSTDOC_WEBHOOK_SECRET"):
            del found.environment[name]
        found.environment |= {"POSTDOC_LOOK_SECONDS": "0.5", "POSTDOC_LOCK_SECONDS": "20"}
        for name in ("GITHUB_TOKEN", "RUNNER_ENVIRONMENT", "RUNNER_TEMP", "GITHUB_API_URL"):
            found.environment.pop(name, None)
        found.token = world.forge.workflow_token(REPOSITORY, WORKFLOW_PERMISSIONS).token
        begin = found.begin

        def noted(*arguments: Any, **variables: Any) -> Process:
            processes.append(begin(*arguments, **variables))
            return processes[-1]

        found.begin = noted  # type: ignore[method-assign]
        try:
            yield found
        finally:
            for process in processes:
                if process.poll() is None:
                    process.send_signal(signal.SIGKILL)
                    process.wait()


def kill(process: Process) -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
