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
from bot.domain.evaluation import Evaluation
from bot.domain.metrics import DEFAULT, Counting, Metric, metric_named
from bot.domain.statistics import value_interval, wilson_interval
from bot.errors import PlatformError, UserError

BUNDLE_NOTE = (
    "The branches with every run are in the artifact: "
    "`git fetch postdoc.bundle 'refs/heads/postdoc/*:refs/heads/postdoc/*'`."
)


def pursue(request: Request) -> Result:
    """A goal in; the best model, the bot's branches as a git bundle, and a report out.

    Raises: UserError, PlatformError.
    """
    _refuse_shallow(request.workspace)
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


def _refuse_shallow(workspace: Path) -> None:
    """The checkout is cloned, and git clones no repository that lacks a part of its history."""
    done = subprocess.run(
        ["git", "rev-parse", "--is-shallow-repository"],
        cwd=workspace, env=clean_environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.stdout.strip() == "true":
        raise UserError("mode: pursue needs the whole history: write `fetch-depth: 0` at actions/checkout.")


def _told(found: dict[str, Any]) -> str:
    runs = len(found["runs"])
    measure = metric_named(found.get("metric") or DEFAULT)
    target = f" of {measure.said_target(found['target'])}" if found["target"] is not None else ""
    counted = "1 run" if runs == 1 else f"{runs} runs"
    return f"The goal{target} ended as {found['state']} after {counted}."


def _scores(found: dict[str, Any]) -> tuple[Score, ...]:
    """One for each run that was evaluated; the best comes last, because it is the one that is put out."""
    scores = []
    measure = metric_named(found.get("metric") or DEFAULT)
    for run in found["runs"]:
        if run["value"] is None:
            continue
        low, high = _interval(run, measure)
        scores.append(
            Score(
                f"run {run['n']}", f"run {run['n']}", "", measure.name, "dev", run["value"], run["standard_error"],
                low, high, run["n_items"], "",
            )
        )  # fmt: skip
    return tuple(sorted(scores, key=lambda score: measure.rank(score.value)))


def _interval(run: dict[str, Any], measure: Metric) -> tuple[float, float]:
    if measure.counting is Counting.RIGHT:
        return wilson_interval(run["value"] * run["n_items"], run["n_items"])
    evaluation = Evaluation("", "", "", measure.name, run["value"], run["standard_error"], run["n_items"], "dev")
    return value_interval(evaluation)


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
    """The bot itself answers the event that started the workflow, with the workflow's token.

    Raises: UserError, PlatformError.
    """
    if not request.github_token:
        raise UserError("github-token is empty; leave the input out to use the workflow's own token.")
    request.artifact.mkdir(parents=True, exist_ok=True)
    told = request.artifact / "postdoc.json"
    words = ["respond", "--event", os.environ.get("GITHUB_EVENT_PATH", ""), "--event-name", request.event_name]
    words += ["--minutes", f"{request.timeout_minutes:g}", "--json", str(told)]
    if folder := _respond_folder(request):
        folder.mkdir(parents=True, exist_ok=True)
        words += ["--data-folder", str(folder)]
    started = time.monotonic()
    # In a folder of its own: the checkout, where there is one, is nothing that the bot should read.
    code = postdoc(words, request.folder, {"GITHUB_TOKEN": request.github_token})
    seconds = time.monotonic() - started
    if not told.is_file():
        if code == 2:
            raise UserError("the bot cannot work as this workflow is set up: the log says what to change.")
        raise PlatformError(f"postdoc respond ended with {code} and no result: the log says why.")
    found = json.loads(told.read_text(encoding="utf-8"))
    goals = [f"{goal['goal_id']}: {goal['state']}, {goal['runs']} runs." for goal in found["goals"]]
    problems = [str(problem) for problem in found["problems"]]
    return Result(
        "respond", found["outcome"], code, " ".join([found["why"] or "The event was answered.", *goals, *problems]),
        seconds=seconds, cost_usd=cost(seconds, request.usd_per_hour), model=_model_of(found["goals"]),
    )  # fmt: skip


def _respond_folder(request: Request) -> Path | None:
    """On a machine that stays, what the bot keeps has to outlive RUNNER_TEMP, which is emptied with every job."""
    if request.data_folder:
        return Path(request.data_folder).expanduser()
    stays = os.environ.get("RUNNER_ENVIRONMENT") == "self-hosted"
    return Path("~/.postdoc/respond").expanduser() if stays else None


def _model_of(goals: list[dict[str, Any]]) -> str:
    return next((str(goal["model"]) for goal in reversed(goals) if goal.get("model")), "")
