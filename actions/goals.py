"""Modes `pursue` and `respond`: the whole bot as a process within the job."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from actions.child import clean_environment, postdoc
from actions.request import Request
from actions.result import Result, Score, cost
from bot.domain.statistics import wilson_interval
from bot.errors import PlatformError, UserError

BUNDLE_NOTE = (
    "The branches with every run are in the artifact: "
    "`git fetch postdoc.bundle 'refs/heads/postdoc/*:refs/heads/postdoc/*'`."
)


def pursue(request: Request) -> Result:
    """A goal in; the best model, the bot's branches as a git bundle, and a report out.

    Raises: UserError, PlatformError.
    """
    target = request.artifact
    target.mkdir(parents=True, exist_ok=True)
    outcome = target / "postdoc.json"
    words = ["pursue", "--json", str(outcome), "--folder", str(request.folder / "pursuit")]
    words += ["--require", request.require] if request.require else []
    started = time.monotonic()
    code = postdoc([*words, "--", request.goal], request.workspace)
    seconds = time.monotonic() - started
    if not outcome.is_file():
        if code == 2:
            raise UserError("the goal cannot be pursued as it is written: the log says what to write instead.")
        raise PlatformError(f"postdoc pursue ended with {code} and no result: the log says why.")
    found = json.loads(outcome.read_text(encoding="utf-8"))
    _bundle(request.workspace, target / "postdoc.bundle")
    model = _kept_model(found, target)
    scores = _scores(found)
    verdict = next((run["verdict"] for run in reversed(found["runs"]) if run["verdict"]), "")
    return Result(
        "pursue", found["state"], code, _told(found), scores, seconds=seconds,
        cost_usd=cost(seconds, request.usd_per_hour), model=model, verdict=verdict,
        notes=(BUNDLE_NOTE,),
    )  # fmt: skip


def _told(found: dict[str, Any]) -> str:
    runs = len(found["runs"])
    target = f" of {100 * found['target']:g} %" if found["target"] is not None else ""
    counted = "1 run" if runs == 1 else f"{runs} runs"
    return f"The goal{target} ended as {found['state']} after {counted}."


def _scores(found: dict[str, Any]) -> tuple[Score, ...]:
    """One for each run that was evaluated; the best comes last, because it is the one that is put out."""
    scores = []
    for run in found["runs"]:
        if run["value"] is None:
            continue
        low, high = wilson_interval(run["value"] * run["n_items"], run["n_items"])
        scores.append(
            Score(
                f"run {run['n']}", f"run {run['n']}", "", "", "dev", run["value"], run["standard_error"], low, high,
                run["n_items"], "",
            )
        )  # fmt: skip
    return tuple(sorted(scores, key=lambda score: score.value))


def _kept_model(found: dict[str, Any], target: Path) -> str:
    if not found.get("model") or not Path(found["model"]).is_dir():
        return ""
    shutil.move(found["model"], target / "model")
    return str(target / "model")


def _bundle(workspace: Path, target: Path) -> None:
    """Every branch of the bot; a job's checkout is thrown away with the machine."""
    listed = subprocess.run(
        ["git", "for-each-ref", "--format=%(refname)", "refs/heads/postdoc"],
        cwd=workspace, env=clean_environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.stdout.strip():
        subprocess.run(
            ["git", "bundle", "create", "--quiet", str(target), "--branches=postdoc/*"],
            cwd=workspace, env=clean_environment(), check=True,
        )  # fmt: skip


def respond(request: Request) -> Result:
    """The bot itself answers the event that started the workflow, with the workflow's token. Raises: UserError."""
    if not request.github_token:
        raise UserError("github-token is empty; leave the input out to use the workflow's own token.")
    words = ["respond", "--event", os.environ.get("GITHUB_EVENT_PATH", ""), "--event-name", request.event_name]
    words += ["--minutes", f"{request.timeout_minutes:g}"]
    if request.data_folder:
        words += ["--data-folder", request.data_folder]
    added = {"GITHUB_TOKEN": request.github_token}
    started = time.monotonic()
    code = postdoc(words, request.workspace, added)
    seconds = time.monotonic() - started
    state = {0: "succeeded", 2: "refused"}.get(code, "failed")
    headline = "The event was answered; what was done stands in the thread." if code == 0 else "The log says why."
    return Result("respond", state, code, headline, seconds=seconds, cost_usd=cost(seconds, request.usd_per_hour))
