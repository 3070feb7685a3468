"""A practice forge with one repository and the App's own client, for what onboarding does there."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from bot.conversation.github import GitHubApp, OnWrite
from bot.conversation.github.registration import EVENTS, PERMISSIONS
from bot.loop.onboarding import Answer, Offer, offer_configuration
from bot.practice.auth import AppRegistration, new_key_pair
from bot.practice.forge import Forge
from bot.practice.model import PullRequest
from bot.practice.server import serve
from tests.openapi import Recorder, available
from tests.world import REPOSITORY

KEY = new_key_pair()[0]
BOT = "postdoc[bot]"


@dataclass
class Place:
    forge: Forge
    url: str
    registration: AppRegistration
    installation_id: int
    tokens: dict[str, str] = field(default_factory=dict)

    def app(self, on_write: OnWrite | None = None) -> GitHubApp:
        registration = self.registration
        return GitHubApp(
            app_id=str(registration.app_id), private_key=registration.private_key_pem, base_url=f"{self.url}/api/v3",
            on_write=on_write,
        )  # fmt: skip

    async def offer(
        self, name: str = REPOSITORY, *, asked_by: int = 0, on_write: OnWrite | None = None, offer: Offer | None = None
    ) -> Answer:
        async with self.app(on_write) as app:
            return await offer_configuration(app, self.installation_id, name, offer or Offer(), asked_by=asked_by)

    def api(self, method: str, path: str, login: str = "ada", **options: Any) -> Any:
        self.tokens.setdefault(login, self.forge.user_token(login))
        headers = {"Authorization": f"Bearer {self.tokens[login]}"}
        url = f"{self.url}/api/v3/repos/{REPOSITORY}{path}"
        reply = httpx.request(method, url, headers=headers, timeout=20, trust_env=False, **options)
        assert reply.status_code < 400, reply.text
        return reply.json() if reply.content else None

    def commit(self, path: str, text: str, branch: str = "main") -> str:
        content = base64.b64encode(text.encode()).decode()
        payload = {"message": f"Edit {path}", "content": content, "branch": branch}
        return str(self.api("PUT", f"/contents/{path}", json=payload)["commit"]["sha"])

    def close(self, number: int) -> None:
        self.api("PATCH", f"/pulls/{number}", json={"state": "closed"})

    def offers(self, name: str = REPOSITORY) -> list[PullRequest]:
        return [each for each in self.forge.repository(name).pulls if each.head_ref == "postdoc/configure"]

    def commits(self) -> list[str]:
        """Messages of the commits that are on our branch and not on main, newest first; their author is the App."""
        git = self.forge.repository(REPOSITORY).git
        main, ours = git.branch("main"), git.branch("postdoc/configure")
        assert main is not None and ours is not None
        return [git.commit(oid).message.splitlines()[0] for oid in git.commits_between(main, ours)]

    def text(self, path: str, branch: str = "postdoc/configure") -> str:
        headers = {
            "Accept": "application/vnd.github.raw+json",
            "Authorization": f"Bearer {self.forge.user_token('ada')}",
        }
        url = f"{self.url}/api/v3/repos/{REPOSITORY}/contents/{path}"
        return httpx.get(url, params={"ref": branch}, headers=headers, trust_env=False).raise_for_status().text

    def reinstall(self) -> None:
        """Uninstall the App and install it again: its installation has another number then."""
        with self.forge.lock:
            del self.forge.installations[self.installation_id]
        self.installation_id = self.forge.install_app(self.registration.app_id, REPOSITORY)


@contextlib.contextmanager
def open_place(folder: Path, **files: str) -> Iterator[Place]:
    forge = Forge(folder / "forge")
    for login in ("ada", "bob", "mallory"):
        forge.add_user(login)
    owner, _, name = REPOSITORY.partition("/")
    forge.add_repository(owner, name, {"README.md": "# Speller\n"} | files)
    for login, permission in (("ada", "admin"), ("bob", "write"), ("mallory", "read")):
        forge.add_collaborator(REPOSITORY, login, permission)
    registration = forge.register_app(slug="postdoc", permissions=PERMISSIONS, events=EVENTS, private_key_pem=KEY)
    installation_id = forge.install_app(registration.app_id, REPOSITORY)
    recorder = Recorder()
    with serve(forge, wrap=recorder.wrap if available() else None) as url:
        try:
            yield Place(forge, url, registration, installation_id)
        finally:
            forge.close()
    if available():
        assert recorder.violations() == []
