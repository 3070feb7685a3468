"""GitHub's own actions that ours use, played for the stepper: same inputs, same outcome, by means of this machine.

Inputs are those of the pinned versions' action.yml; one that they do not know is refused, where GitHub only warns.
"""

from __future__ import annotations

import base64
import glob
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHECKOUT = "actions/checkout"
SETUP_PYTHON = "actions/setup-python"
UPLOAD_ARTIFACT = "actions/upload-artifact"
INPUTS: dict[str, dict[str, str]] = {
    CHECKOUT: {
        "repository": "", "ref": "", "token": "", "ssh-key": "", "ssh-known-hosts": "", "ssh-strict": "true",
        "ssh-user": "git", "persist-credentials": "true", "path": "", "clean": "true", "filter": "",
        "sparse-checkout": "", "sparse-checkout-cone-mode": "true", "fetch-depth": "1", "fetch-tags": "false",
        "show-progress": "true", "lfs": "false", "submodules": "false", "set-safe-directory": "true",
        "github-server-url": "", "allow-unsafe-pr-checkout": "false",
    },
    SETUP_PYTHON: {
        "python-version": "", "python-version-file": "", "cache": "", "architecture": "", "check-latest": "false",
        "token": "", "cache-dependency-path": "", "update-environment": "true", "allow-prereleases": "false",
        "freethreaded": "false", "pip-version": "",
    },
    UPLOAD_ARTIFACT: {
        "name": "artifact", "path": "", "if-no-files-found": "warn", "retention-days": "", "compression-level": "6",
        "overwrite": "false", "include-hidden-files": "false", "archive": "true",
    },
}  # fmt: skip
_NOT_PLAYED = {CHECKOUT: ("ssh-key", "filter", "sparse-checkout", "repository", "path"), SETUP_PYTHON: ("cache",)}


class Refused(Exception):
    """The stepper cannot play this as GitHub would, or a workflow asks for what GitHub does not know."""


class ActionFailed(Exception):
    """The action ends with these words as its error."""


@dataclass
class Call:
    """One `uses:` of a stand-in."""

    inputs: dict[str, str]
    github: Mapping[str, Any]
    artifacts: Path
    add_path: Any
    masks: set[str]


def metadata() -> dict[str, Any]:
    """For the language service: what each of them takes."""
    found = {}
    for name, inputs in INPUTS.items():
        told = {key: {"description": "", "default": value} for key, value in inputs.items()}
        found[name] = {"name": name, "description": "", "inputs": told}
    return found


def play(name: str, given: Mapping[str, str], call: Call) -> dict[str, str]:
    """The action's outputs. Raises: ActionFailed, Refused."""
    known = INPUTS[name]
    if unknown := sorted(set(given) - set(known)):
        raise Refused(f"{name} has no input {', '.join(unknown)}")
    for each in _NOT_PLAYED.get(name, ()):
        if given.get(each):
            raise Refused(f"{name}: `{each}` is not played here")
    call.inputs = known | {key: value for key, value in given.items() if value != ""}
    return {CHECKOUT: checkout, SETUP_PYTHON: setup_python, UPLOAD_ARTIFACT: upload_artifact}[name](call)


def checkout(call: Call) -> dict[str, str]:
    github = call.github
    if github["event_name"] in ("pull_request_target", "workflow_run") and call.inputs["ref"]:
        raise Refused("a checkout of somebody's commit in a trusted context")
    workspace = Path(github["workspace"])
    token = call.inputs["token"] or github["token"]
    header = f"AUTHORIZATION: basic {base64.b64encode(f'x-access-token:{token}'.encode()).decode()}"
    call.masks.add(header.rpartition(" ")[2])
    ref = call.inputs["ref"] or github["sha"]
    depth = call.inputs["fetch-depth"]
    for entry in workspace.iterdir():
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    remote = f"{github['server_url']}/{github['repository']}.git"
    _git(workspace, "init", "--quiet", "--initial-branch=main")
    _git(workspace, "remote", "add", "origin", remote)
    _git(workspace, "config", "--local", f"http.{github['server_url']}/.extraheader", header)
    deep = [] if depth == "0" else [f"--depth={depth}"]
    wanted = [ref] if depth != "0" else ["+refs/heads/*:refs/remotes/origin/*", ref]
    _git(workspace, "fetch", "--quiet", "--no-tags", *deep, "origin", *wanted)
    commit = ref if len(ref) == 40 else _git(workspace, "rev-parse", "FETCH_HEAD").strip()
    _git(workspace, "checkout", "--quiet", "--force", "--detach", commit)
    if call.inputs["persist-credentials"] != "true":
        _git(workspace, "config", "--local", "--unset-all", f"http.{github['server_url']}/.extraheader")
    return {"ref": ref, "commit": commit}


def _git(folder: Path, *words: str) -> str:
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder.parent), "GIT_TERMINAL_PROMPT": "0"}
    done = subprocess.run(["git", *words], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ActionFailed(f"git {words[0]}: {done.stderr.strip()}")
    return done.stdout


def setup_python(call: Call) -> dict[str, str]:
    """This machine's only Python, whatever version is asked for."""
    if not call.inputs["python-version"]:
        raise ActionFailed("There's no python-version")
    if call.inputs["update-environment"] == "true":
        call.add_path(str(Path(sys.executable).parent))
    version = ".".join(map(str, sys.version_info[:3]))
    return {"python-version": version, "cache-hit": "false", "python-path": sys.executable}


def upload_artifact(call: Call) -> dict[str, str]:
    """Files keep their place below the folder that all of them share; hidden ones stay behind."""
    name, inputs = call.inputs["name"], call.inputs
    if not name or any(character in '":<>|*?\r\n\\/' for character in name):
        raise ActionFailed(f"The artifact name is not valid: {name}")
    found = _files(inputs["path"], hidden=inputs["include-hidden-files"] == "true", top=Path(call.github["workspace"]))
    if not found:
        if inputs["if-no-files-found"] == "error":
            raise ActionFailed(f"No files were found with the provided path: {inputs['path']}")
        return {"artifact-id": "", "artifact-url": "", "artifact-digest": ""}
    target = call.artifacts / name
    if target.exists():
        if inputs["overwrite"] != "true":
            raise ActionFailed(f"(409) Conflict: an artifact with this name already exists: {name}")
        shutil.rmtree(target)
    single = Path(call.github["workspace"]) / inputs["path"].strip()
    above = single if single.is_dir() else Path(os.path.commonpath([path.parent for path in found]))
    for path in found:
        place = target / path.relative_to(above)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
    return {"artifact-id": "1", "artifact-url": "https://artifact.invalid/1", "artifact-digest": "0" * 64}


def _files(patterns: str, *, hidden: bool, top: Path) -> list[Path]:
    found: set[Path] = set()
    for pattern in filter(None, (line.strip() for line in patterns.splitlines())):
        for match in glob.glob(str(top / pattern), recursive=True, include_hidden=hidden):
            path = Path(match)
            below = [each for each in path.rglob("*") if each.is_file()] if path.is_dir() else [path]
            found |= {
                each for each in below
                if hidden or not any(part.startswith(".") for part in each.relative_to(path).parts)
            }  # fmt: skip
    return sorted(found)
