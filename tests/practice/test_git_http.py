"""Clone, fetch and push with git itself."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import httpx
import pytest

from .conftest import REPOSITORY, World

ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.test",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.test",
    "no_proxy": "127.0.0.1",
}


def git(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["git", *map(str, arguments)], cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False
    )


def address(world: World, token: str | None = None, full_name: str = REPOSITORY) -> str:
    login = "" if token is None else f"x-access-token:{token}@"
    return f"{world.url.replace('http://', f'http://{login}')}/{full_name}.git"


def clone(world: World, tmp_path: Path, token: str | None, branch: str = "main") -> Path:
    done = git("clone", "--quiet", "--branch", branch, address(world, token), tmp_path / "clone")
    assert done.returncode == 0, done.stderr
    return tmp_path / "clone"


def write_and_push(folder: Path, path: str, text: str, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_text(text)
    git("add", "-A", cwd=folder)
    assert git("commit", "--quiet", "-m", f"Write {path}", cwd=folder).returncode == 0
    return git("push", "--quiet", "origin", "HEAD", *options, cwd=folder)


def test_clone_of_a_public_repository_needs_no_token(world: World, tmp_path: Path):
    folder = clone(world, tmp_path, None)
    assert (folder / "README.md").read_text() == "# Lab\n"
    shallow = git("clone", "--quiet", "--depth", "1", address(world), tmp_path / "shallow")
    assert shallow.returncode == 0, shallow.stderr


def test_private_repository_is_cloned_by_those_who_may_read_it(world: World, tmp_path: Path):
    def private(token: str | None) -> str:
        return address(world, token, "acme/secret")

    world.forge.install_app(world.app.app_id, "acme/secret")
    world.forge.add_collaborator("acme/secret", "ada", "read")
    refused = [None, world.forge.user_token("eve"), "garbage", world.bot_token(repositories=["lab"])]
    for token in refused:
        assert git("ls-remote", private(token)).returncode != 0
    for token in (world.forge.user_token("ada"), world.bot_token()):
        assert "refs/heads/main" in git("ls-remote", private(token)).stdout
    assert git("ls-remote", private(world.bot_token(permissions={"issues": "write"}))).returncode != 0


def test_push_moves_the_pull_request_and_sends_what_an_api_commit_sends(
    world: World, bot: httpx.Client, tmp_path: Path
):
    before = world.pull(bot)["head"]["sha"]
    sent = len(world.events())
    folder = clone(world, tmp_path, world.forge.user_token("ada"), "work")
    pushed = write_and_push(folder, "experiments/1/notes.md", "by hand\n")
    assert pushed.returncode == 0, pushed.stderr
    after = git("rev-parse", "HEAD", cwd=folder).stdout.strip()
    shown = bot.get(world.repo("/pulls/1")).json()
    assert (shown["head"]["sha"], shown["changed_files"]) == (after, 2)
    push, synchronize, suite = world.events()[sent:]
    assert (push.name, synchronize.name, suite.name) == ("push", "pull_request.synchronize", "check_suite.requested")
    assert (push.payload["before"], push.payload["after"], push.payload["sender"]["login"]) == (before, after, "ada")
    assert push.payload["commits"][0]["added"] == ["experiments/1/notes.md"]
    assert (synchronize.payload["before"], synchronize.payload["after"]) == (before, after)
    assert bot.get(world.repo(f"/commits/{after}")).json()["commit"]["verification"]["verified"] is False


def test_force_push_and_branch_deletion(world: World, bot: httpx.Client, tmp_path: Path):
    world.pull(bot)
    folder = clone(world, tmp_path, world.forge.user_token("ada"), "work")
    git("reset", "--quiet", "--hard", "origin/main", cwd=folder)
    rejected = write_and_push(folder, "other.txt", "x\n")
    assert rejected.returncode != 0
    forced = git("push", "--quiet", "--force", "origin", "HEAD:work", cwd=folder)
    assert forced.returncode == 0, forced.stderr
    push = next(each.payload for each in reversed(world.events()) if each.event == "push")
    assert push["forced"] is True
    assert [each["filename"] for each in bot.get(world.repo("/pulls/1/files")).json()] == ["other.txt"]
    assert git("push", "--quiet", "origin", ":work", cwd=folder).returncode == 0
    assert bot.get(world.repo("/pulls/1")).json()["state"] == "closed"
    assert world.names("delete") == ["delete"]


def test_push_needs_write_permission(world: World, tmp_path: Path):
    tokens = [
        world.forge.user_token("eve"),
        world.forge.user_token("carl"),
        world.bot_token(permissions={"issues": "write"}),
    ]
    for number, token in enumerate(tokens):
        folder = clone(world, tmp_path / str(number), token)
        assert write_and_push(folder, "x", "1").returncode != 0
    anonymous = clone(world, tmp_path / "none", None)
    assert write_and_push(anonymous, "x", "1").returncode != 0
    assert world.names("push") == []


@pytest.mark.parametrize("branch", ["main", "fresh"])
def test_app_cannot_push_workflow_files(world: World, tmp_path: Path, branch: str):
    folder = clone(world, tmp_path, world.bot_token())
    git("checkout", "--quiet", "-B", branch, cwd=folder)
    refused = write_and_push(folder, ".github/workflows/ci.yml", "on: push\n")
    assert refused.returncode != 0
    assert "refusing to allow a GitHub App to create or update workflow `.github/workflows/ci.yml`" in refused.stderr
    git("reset", "--quiet", "--hard", "HEAD~1", cwd=folder)
    allowed = write_and_push(folder, "harmless.txt", "x\n")
    assert allowed.returncode == 0, allowed.stderr


def test_pull_request_refs_can_be_fetched_but_not_pushed(world: World, bot: httpx.Client, tmp_path: Path):
    head = world.pull(bot)["head"]["sha"]
    folder = clone(world, tmp_path, world.forge.user_token("ada"))
    assert git("fetch", "--quiet", "origin", "refs/pull/1/head", cwd=folder).returncode == 0
    assert git("rev-parse", "FETCH_HEAD", cwd=folder).stdout.strip() == head
    assert git("push", "--quiet", "origin", "HEAD:refs/pull/1/head", "--force", cwd=folder).returncode != 0


def test_large_push_arrives_whole(world: World, tmp_path: Path):
    """More than one pipe buffer, and compressed or chunked as git sees fit."""
    folder = clone(world, tmp_path, world.forge.user_token("ada"))
    (folder / "big.bin").write_bytes(os.urandom(3_000_000))
    assert write_and_push(folder, "small.txt", "x").returncode == 0
    again = git("clone", "--quiet", address(world), tmp_path / "again")
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "again/big.bin").read_bytes() == (folder / "big.bin").read_bytes()


def test_dumb_protocol_and_paths_outside_are_refused(world: World):
    for path in ("/acme/lab.git/HEAD", "/acme/lab.git/config", "/acme/lab.git/objects/info/packs"):
        assert httpx.get(world.url + path, trust_env=False).status_code == 403
    for path in ("/acme/none.git/info/refs", "/acme/..%2Flab.git/info/refs"):
        answer = httpx.get(world.url + path, params={"service": "git-upload-pack"}, trust_env=False)
        assert answer.status_code in (401, 404)
