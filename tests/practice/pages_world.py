"""A practice forge with two people, a stranger and an App, for looking at its pages."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from bot.practice.auth import new_key_pair
from bot.practice.forge import Forge
from bot.practice.server import serve

KEY = new_key_pair()[0]
RECIPE = "method: sft\nlearning_rate: 2.0e-5\nmax_length: 64\nseed: 0\n"
GOAL_FORM = """
name: Goal
description: Ask for a better model.
title: "Raise <model>"
labels: [postdoc]
body:
  - type: markdown
    attributes: {value: "Read <script>alert(1)</script>**this**."}
  - type: input
    id: model
    attributes: {label: Base model}
    validations: {required: true}
  - type: textarea
    id: recipe
    attributes: {label: Starting recipe, render: yaml}
  - type: dropdown
    id: method
    attributes: {label: Method, options: [Choose for me, sft], default: 0}
  - type: checkboxes
    id: agreed
    attributes: {label: Acknowledgement, options: [{label: I may use this data., required: true}]}
"""
FILES = {
    "README.md": "# Lab\n\n<script>alert(1)</script>![far](https://evil.test/x.png)\n\n[data](data/rows.jsonl)\n",
    "data/rows.jsonl": '{"a": 1}\n',
    "src/model.py": "class Model:\n    pass\n",
    "page.html": "<script>alert(1)</script>",
    ".github/ISSUE_TEMPLATE/goal.yml": GOAL_FORM,
    ".github/ISSUE_TEMPLATE/broken.yml": "body: [",
}


class World:
    """A forge with two people, a stranger and an App, and callers for its API."""

    def __init__(self, forge: Forge, url: str, app_id: int) -> None:
        self.forge, self.url = forge, url
        repository = forge.repository("acme/lab")
        installation = forge.installation_for(forge.apps[app_id], repository)
        assert installation is not None
        self.bot = self._caller(forge.new_token(installation, None, None).token)
        self.ada = self._caller(forge.user_token("ada"))

    def _caller(self, token: str) -> httpx.Client:
        headers = {"Authorization": f"Bearer {token}", "User-Agent": "tests"}
        return httpx.Client(base_url=f"{self.url}/api/v3/repos/acme/lab", headers=headers, trust_env=False)

    def ask(self, who: httpx.Client, method: str, path: str, **payload: Any) -> Any:
        reply = who.request(method, path, json=payload or None)
        assert reply.is_success, reply.text
        return reply.json() if reply.content else None

    def issue(self, body: str = "Hello.", who: httpx.Client | None = None) -> int:
        return int(self.ask(who or self.ada, "POST", "/issues", title="A goal", body=body)["number"])

    def commit(self, path: str, text: str, branch: str) -> str:
        content = base64.b64encode(text.encode()).decode()
        answer = self.ask(self.bot, "PUT", f"/contents/{path}", message=f"Add {path}", content=content, branch=branch)
        return str(answer["commit"]["sha"])

    def pull(self) -> tuple[int, str]:
        """A pull request of the bot's with a recipe in it; its number and head."""
        base = self.ask(self.bot, "GET", "/git/ref/heads/main")["object"]["sha"]
        self.ask(self.bot, "POST", "/git/refs", ref="refs/heads/postdoc/0001", sha=base)
        head = self.commit("experiments/0001/recipe.yaml", RECIPE, "postdoc/0001")
        pull = self.ask(
            self.bot, "POST", "/pulls", title="Experiment 1", head="postdoc/0001", base="main", body="Runs."
        )
        return int(pull["number"]), head

    def review(self, number: int, head: str) -> int:
        """A review with a suggestion on the learning rate; the inline comment's id."""
        body = "**D1** too low\n\n```suggestion\nlearning_rate: 1.0e-3\n```"
        comment = {"path": "experiments/0001/recipe.yaml", "line": 2, "side": "RIGHT", "body": body}
        self.ask(
            self.bot, "POST", f"/pulls/{number}/reviews",
            event="COMMENT", body="Run 01", commit_id=head, comments=[comment],
        )  # fmt: skip
        return int(self.ask(self.bot, "GET", f"/pulls/{number}/comments")[0]["id"])

    def check(self, head: str, **fields: Any) -> int:
        return int(self.ask(self.bot, "POST", "/check-runs", name="run 01", head_sha=head, **fields)["id"])

    def close(self) -> None:
        self.bot.close()
        self.ada.close()


@contextmanager
def running(root: Path) -> Iterator[World]:
    """The forge, served on a free port until the block ends."""
    forge = Forge(root)
    for login in ("ada", "ben", "mallory"):
        forge.add_user(login)
    forge.add_repository("acme", "lab", FILES, description="Models")
    forge.add_repository("acme", "secret", {"README.md": "hidden words"}, private=True)
    forge.add_collaborator("acme/lab", "ada", "write")
    forge.add_collaborator("acme/secret", "ada", "read")
    permissions = {"contents": "write", "issues": "write", "pull_requests": "write", "checks": "write"}
    app = forge.register_app(slug="postdoc", permissions=permissions, private_key_pem=KEY)
    forge.install_app(app.app_id, "acme/lab")
    try:
        with serve(forge) as url:
            made = World(forge, url, app.app_id)
            yield made
            made.close()
    finally:
        forge.close()
