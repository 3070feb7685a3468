"""The checkout: what lies in it now, and what its base commit holds.

A pull request may change everything in the checkout, the benchmark it is measured with included. So whatever judges it
is read from the base commit, out of reach of the change that is being judged.
"""

from __future__ import annotations

import base64
import os
import subprocess
from pathlib import Path, PurePosixPath
from typing import Any

from actions.request import Request
from bot.errors import PlatformError, UserError

_TIMEOUT_SECONDS = 600.0


def inside(request: Request, name: str, text: str) -> Path:
    """The path `text` of the checkout. Raises: UserError when it leads out of it, through a link included."""
    path = (request.workspace / text).resolve()
    if not path.is_relative_to(request.workspace):
        raise UserError(f"{name}: {text} leads out of the checkout; write a path inside of it.")
    return path


def base_commit(request: Request) -> str:
    """The commit to compare with: `base-ref`, or the pull request's base. Empty when the event has none."""
    if request.base_ref:
        return _resolved(request, request.base_ref)
    pull = request.event.get("pull_request")
    if isinstance(pull, dict):
        return _fetched(request, str(pull["base"]["sha"]))
    issue = request.event.get("issue")
    if isinstance(issue, dict) and "pull_request" in issue:
        from actions.pull_request import base_sha_of

        return _fetched(request, base_sha_of(request, int(issue["number"])))
    return ""


def pull_request_number(event: Any) -> int | None:
    """The pull request that the event is about."""
    for key in ("pull_request", "issue"):
        found = event.get(key)
        if isinstance(found, dict) and (key == "pull_request" or "pull_request" in found):
            return int(found["number"])
    return None


def base_file(request: Request, commit: str, path: str) -> bytes:
    """Raises: UserError when `commit` holds no such file."""
    done = _git(request, "cat-file", "blob", f"{commit}:{path}")
    if done.returncode != 0:
        raise UserError(
            f"{path} is not in the base commit {commit[:9]}. What judges a pull request is read from there."
        )
    return done.stdout


def base_folder(request: Request, commit: str, path: str) -> Path:
    """The folder `path` as `commit` holds it, written out below our own folder. Raises: UserError."""
    target = request.folder / "base"
    if not target.exists():
        done = _git(request, "worktree", "add", "--detach", "--quiet", str(target), commit)
        if done.returncode != 0:
            raise PlatformError(f"the base commit cannot be checked out: {_last_line(done.stderr)}")
    found = (target / path).resolve()
    if not found.is_relative_to(target.resolve()):
        raise UserError(f"{path} leads out of the base commit's checkout; write a path inside of it.")
    return found


def remove_base_folder(request: Request) -> None:
    target = request.folder / "base"
    if target.exists():
        _git(request, "worktree", "remove", "--force", str(target))


def relative(request: Request, path: Path) -> str:
    """As GitHub names a file of the repository; empty outside of the checkout."""
    try:
        return PurePosixPath(path.relative_to(request.workspace)).as_posix()
    except ValueError:
        return ""


def _resolved(request: Request, ref: str) -> str:
    if ref.startswith("-"):
        raise UserError(f"base-ref: {ref} is no name of a commit; write a branch, a tag or a SHA.")
    for name in (ref, f"origin/{ref}"):
        done = _git(request, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
        if done.returncode == 0:
            return done.stdout.decode().strip()
    return _fetched(request, ref)


def _fetched(request: Request, ref: str) -> str:
    """The commit's SHA, fetched when a shallow checkout lacks it. Raises: UserError."""
    if _git(request, "cat-file", "-e", f"{ref}^{{commit}}").returncode == 0:
        return _git(request, "rev-parse", f"{ref}^{{commit}}").stdout.decode().strip()
    done = _git(request, "fetch", "--quiet", "--no-tags", "--depth=1", "--", "origin", ref)
    if done.returncode != 0:
        raise UserError(
            f"The base commit {ref} cannot be fetched ({_last_line(done.stderr)}). Check out with `fetch-depth: 0`, or "
            "name another one in `base-ref`."
        )
    return _git(request, "rev-parse", "FETCH_HEAD^{commit}").stdout.decode().strip()


def _git(request: Request, *words: str) -> subprocess.CompletedProcess[bytes]:
    environment = os.environ | {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    if request.github_token:
        # The checkout keeps no credentials; in the environment the token is in no process list.
        server = os.environ.get("GITHUB_SERVER_URL", "https://github.com")
        basic = base64.b64encode(f"x-access-token:{request.github_token}".encode()).decode()
        environment |= {
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": f"http.{server}/.extraheader",
            "GIT_CONFIG_VALUE_0": f"AUTHORIZATION: basic {basic}",
        }
    for name in list(environment):
        if name.startswith("INPUT_"):
            del environment[name]
    try:
        return subprocess.run(
            ["git", *words], cwd=request.workspace, env=environment, capture_output=True, timeout=_TIMEOUT_SECONDS
        )
    except FileNotFoundError:
        raise UserError("git is not installed on this machine: apt-get install git.") from None
    except subprocess.TimeoutExpired:
        raise PlatformError(f"git {words[0]} took longer than {_TIMEOUT_SECONDS:.0f} s") from None


def _last_line(text: bytes) -> str:
    lines = text.decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
