"""A forge with one repository, reached with its workflow's token; and a world whose workflow is `respond`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bot.conversation.github import Pacing, Refs, WorkflowApp
from bot.practice.forge import Forge
from bot.practice.server import serve
from tests.openapi import Recorder, available
from tests.serverless.workflows import WORKFLOW_PERMISSIONS, Workflow, workflow_world

REPOSITORY = "acme/lab"


@dataclass(frozen=True)
class Place:
    forge: Forge
    url: str
    token: str
    opened: list[WorkflowApp] = field(default_factory=list)

    def app(self) -> WorkflowApp:
        self.opened.append(
            WorkflowApp(self.token, REPOSITORY, base_url=f"{self.url}/api/v3", pacing=Pacing(0, 0))
        )  # fmt: skip
        return self.opened[-1]

    def refs(self) -> Refs:
        return Refs(self.app(), 0, *REPOSITORY.split("/"))

    def at(self, name: str) -> str | None:
        return self.forge.repository(REPOSITORY).git.ref(f"refs/postdoc/{name}")

    def move(self, name: str, sha: str | None) -> None:
        """Somebody's `git push --force` to the ref, or its deletion."""
        self.forge.repository(REPOSITORY).git.update_ref(f"refs/postdoc/{name}", sha, self.at(name))


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    forge = Forge(tmp_path / "forge")
    forge.add_user("ada")
    forge.add_repository("acme", "lab", {"README.md": "# Lab\n"})
    recorder = Recorder()
    with serve(forge, wrap=recorder.wrap if available() else None) as url:
        found = Place(forge, url, forge.workflow_token(REPOSITORY, WORKFLOW_PERMISSIONS).token)
        yield found
        for app in found.opened:
            await app.close()
        forge.close()
    assert recorder.violations() == []


@pytest.fixture
def workflow(tmp_path: Path) -> Iterator[Workflow]:
    with workflow_world(tmp_path) as found:
        yield found
