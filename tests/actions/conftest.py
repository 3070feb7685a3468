"""A team's repository on a practice forge, and a machine that executes its workflow files."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from actions import prepare
from bot.practice.forge import Forge
from bot.practice.server import serve
from tests.actions.judge import Judge, missing
from tests.actions.stepper import JobRun, Machine
from tests.openapi import Recorder, available

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = ROOT / "templates" / "workflows"
REPOSITORY = "acme/lab"
ACTION = "OWNER/postdoc"


@dataclass
class Place:
    """The forge, its repository, and the machine that runs its jobs."""

    forge: Forge
    url: str
    folder: Path
    judge: Judge
    recorder: Recorder
    runs: int = 0
    http: httpx.Client = field(default_factory=lambda: httpx.Client(trust_env=False))

    def token(self, **permissions: str) -> str:
        """The workflow's own token, with the permissions of its file."""
        return self.forge.workflow_token(REPOSITORY, permissions or {"contents": "read"}).token

    def push(self, files: Mapping[str, str | None], branch: str = "main", base: str = "main") -> str:
        """Commit the files (None removes one, `-> target` makes a link) on a branch; the commit's SHA."""
        work = self.folder / f"push-{len(list(self.folder.glob('push-*')))}"
        header = base64.b64encode(f"x-access-token:{self.forge.user_token('ada')}".encode()).decode()
        git = ["git", "-c", f"http.extraheader=AUTHORIZATION: basic {header}", "-c", "user.name=Ada",
               "-c", "user.email=ada@example.org"]  # fmt: skip

        def run(*words: str) -> str:
            cwd = work if work.exists() else self.folder
            return subprocess.run([*git, *words], cwd=cwd, check=True, capture_output=True, text=True).stdout.strip()

        run("clone", "--quiet", "--branch", base, f"{self.url}/{REPOSITORY}.git", str(work))
        for name, content in files.items():
            path = work / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if content is None:
                path.unlink()
            elif content.startswith("-> "):
                path.symlink_to(content[3:])
            else:
                path.write_text(content, encoding="utf-8")
        run("add", "--all", "--force")
        run("commit", "--quiet", "--message", "Files")
        run("push", "--quiet", "origin", f"HEAD:refs/heads/{branch}")
        return run("rev-parse", "HEAD")

    def open_pull(self, branch: str, title: str = "A change") -> dict[str, Any]:
        """The event `pull_request.opened` of a new pull request of that branch."""
        headers = {"authorization": f"Bearer {self.forge.user_token('ada')}"}
        body = {"title": title, "head": branch, "base": "main"}
        answer = self.http.post(f"{self.url}/api/v3/repos/{REPOSITORY}/pulls", json=body, headers=headers)
        assert answer.status_code == 201, answer.text
        pull = answer.json()
        return {"action": "opened", "number": pull["number"], "pull_request": pull, "repository": pull["base"]["repo"]}

    def comments(self, number: int) -> list[dict[str, Any]]:
        headers = {"authorization": f"Bearer {self.forge.user_token('ada')}"}
        url = f"{self.url}/api/v3/repos/{REPOSITORY}/issues/{number}/comments"
        found: list[dict[str, Any]] = self.http.get(url, headers=headers).json()
        return found

    def comment(self, number: int, body: str, login: str = "mallory") -> None:
        headers = {"authorization": f"Bearer {self.forge.user_token(login)}"}
        url = f"{self.url}/api/v3/repos/{REPOSITORY}/issues/{number}/comments"
        assert self.http.post(url, json={"body": body}, headers=headers).status_code == 201

    def machine(self, **settings: Any) -> Machine:
        machine = Machine(self.folder / "machine", self.judge, {ACTION: ROOT}, **settings)
        machine.environment.setdefault("HOME", str(self.folder / "home"))
        (self.folder / "home").mkdir(exist_ok=True)
        for mode in prepare.MODES:
            ready_environment(machine.folder / "tools", prepare.requirements(prepare.wants_training(mode)))
        return machine

    def run(
        self,
        workflow: Path | str,
        event_name: str,
        event: Mapping[str, Any],
        *,
        sha: str = "",
        machine: Machine | None = None,
        token: str = "",
        secrets: Mapping[str, str] | None = None,
        actor: str = "ada",
    ) -> JobRun:
        """Execute the workflow file (a path, or its text)."""
        self.runs += 1
        path = workflow if isinstance(workflow, Path) else self.folder / f"workflow-{self.runs}.yml"
        if isinstance(workflow, str):
            path.write_text(workflow, encoding="utf-8")
        head = (event.get("pull_request") or {}).get("head", {}).get("sha")
        tip = self.forge.repository(REPOSITORY).git.branch("main")
        return (machine or self.machine()).run(
            path, event_name, event, sha=sha or head or str(tip), repository=REPOSITORY, server=self.url,
            token=token or self.token(), secrets=secrets, actor=actor, run_id=self.runs,
        )  # fmt: skip


def ready_environment(tools: Path, wanted: list[str]) -> None:
    """The machine has been here before: its tool cache holds the environment, which is that of the tests."""
    folder = Path(prepare.environment_folder(str(tools), wanted))
    if (folder / "complete").exists():
        return
    (folder / "bin").mkdir(parents=True, exist_ok=True)
    python = folder / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    (folder / "complete").touch()


@pytest.fixture(scope="session")
def judge() -> Iterator[Judge]:
    if reason := missing():
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI needs the actions' judge: {reason}")
        pytest.skip(reason)
    judge = Judge()
    yield judge
    judge.close()


@pytest.fixture
def place(tmp_path: Path, judge: Judge) -> Iterator[Place]:
    """ada may write, mallory may read."""
    forge = Forge(tmp_path / "forge")
    for login in ("ada", "mallory"):
        forge.add_user(login)
    owner, name = REPOSITORY.split("/")
    forge.add_repository(owner, name, {"README.md": "# Lab\n"})
    forge.add_collaborator(REPOSITORY, "ada", "write")
    recorder = Recorder()
    with serve(forge, wrap=recorder.wrap if available() else None) as url:
        place = Place(forge, url, tmp_path, judge, recorder)
        yield place
        place.http.close()
    forge.close()
    if available():
        found = recorder.violations()
        assert found == [], found


def evaluation(right: int, n: int = 200, *, shift: int = 0, model: str = "m", benchmark: str = "ours") -> str:
    """An evaluation.json with `right` of `n` items right, those from number `shift` on."""
    scores = [1.0 if shift <= i < shift + right else 0.0 for i in range(n)]
    value = sum(scores) / n
    spread = sum((score - value) ** 2 for score in scores)
    content = {
        "benchmark": benchmark, "harness_digest": "ab" * 32, "model": model, "metric": "exact_match", "value": value,
        "standard_error": (spread / (n - 1) / n) ** 0.5, "n": n, "split": "dev",
        "samples": [{"id": f"{i:016x}", "score": score, "finish": "stop"} for i, score in enumerate(scores)],
    }  # fmt: skip
    return json.dumps(content)
