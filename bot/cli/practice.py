"""The demo, and pursuing a goal without GitHub: both on the practice forge, with the real bot."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bot.cli.common import (
    DONE,
    FAILED,
    INTERRUPTED,
    WRONG_WORDS,
    JsonFile,
    Require,
    Seed,
    check_json,
    complain,
    empty_folder,
    end_as_by_ctrl_c,
    screen,
    write_json,
)
from bot.errors import UserError

if TYPE_CHECKING:
    from bot.practice.demo import Outcome


def demo(
    json_file: JsonFile = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep serving the pages afterwards, until Ctrl-C.")] = False,
    seed: Seed = 0,
    goal: Annotated[int, typer.Option("--goal", min=1, max=2, help="1: a recipe at fault; 2: data at fault.")] = 1,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Of the forge; 0 takes a free one.")] = 0,
    folder: Annotated[Path | None, typer.Option("--folder", help="Where everything is put; must be empty.")] = None,
    require: Require = None,
) -> int:
    """Watch the real bot pursue a goal on a practice forge."""
    from bot.practice.demo import run_demo

    check_json(json_file)
    _check_require(require)
    end_as_by_ctrl_c()
    place = _empty_folder(folder, "demo")
    outcomes: list[Outcome] = []

    def keep_outcome(outcome: Outcome) -> None:
        outcomes.append(outcome)
        write_json(json_file, outcome.as_dict())

    try:
        run_demo(
            screen(json_file), place, goal_number=goal, seed=seed, port=port, keep=keep, end_jobs=_end_jobs,
            on_outcome=keep_outcome,
        )  # fmt: skip
    except KeyboardInterrupt:
        if keep and outcomes:
            return _code(outcomes[0], require)
        return complain(f"interrupted; everything so far lies in {place}", INTERRUPTED)
    return _code(outcomes[0], require)


def pursue(
    goal: Annotated[str, typer.Argument(metavar="GOAL", help="A goal.yaml, or the goal in words.")],
    json_file: JsonFile = None,
    runner: Annotated[str, typer.Option("--runner", help="Where jobs run: local, docker, hf_jobs or ray.")] = "local",
    folder: Annotated[Path | None, typer.Option("--folder", help="Where everything is put; must be empty.")] = None,
    require: Require = None,
) -> int:
    """Pursue one goal over the git repository you are in.

    The bot works on a practice forge that holds a copy of HEAD; what it proposes comes back as a branch.
    """
    from bot.practice.pursue import repository_here, run_pursuit

    check_json(json_file)
    _check_require(require)
    settings = _runner_settings(runner)
    title, answers, words = _goal_in(goal)
    repository = repository_here(Path.cwd())
    end_as_by_ctrl_c()
    place = _empty_folder(folder, "pursue")
    try:
        outcome, _ = run_pursuit(
            screen(json_file), place, repository, title=title, answers=answers, words=words,
            end_jobs=partial(_end_jobs, runner=runner), settings=settings,
        )  # fmt: skip
    except KeyboardInterrupt:
        return complain(f"interrupted; everything so far lies in {place}", INTERRUPTED)
    write_json(json_file, outcome.as_dict())
    if outcome.experiment.refusal is not None and not outcome.experiment.runs:
        return complain(outcome.experiment.refusal, WRONG_WORDS)
    return _code(outcome, require)


def _goal_in(text: str) -> tuple[str, dict[str, str] | None, str]:
    """(the issue's title, the goal form's answers or None, the goal's words) of a file's name or of plain words."""
    from bot.practice.goals import answers_of

    if not text.endswith((".yaml", ".yml")):
        words = text.strip()
        if not words:
            raise UserError('Write the goal: `postdoc pursue "raise MODEL on BENCHMARK to 60 %"`, or name a goal.yaml.')
        return words.splitlines()[0][:200], None, words
    from bot.conversation.issue_form import goal_from_yaml
    from bot.evaluation.benchmarks import known_benchmarks, metric_of

    try:
        content = Path(text).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{text} cannot be read: {getattr(error, 'strerror', None) or 'it is not UTF-8'}.") from error
    goal = goal_from_yaml(content, known_benchmarks=known_benchmarks(), metric_of=metric_of)
    return goal.title or f"{goal.measure.aim} {goal.base_model} on {goal.benchmark}", answers_of(goal), ""


def _code(outcome: Outcome, require: str | None) -> int:
    return FAILED if outcome.failed or (require is not None and not outcome.met) else DONE


def _check_require(require: str | None) -> None:
    if require not in (None, "met"):
        raise UserError(f"--require {require}: write `--require met`, or leave it out.")


def _empty_folder(folder: Path | None, purpose: str) -> Path:
    """The folder that was named, made and empty, or a new temporary one."""
    import tempfile

    if folder is None:
        return Path(tempfile.mkdtemp(prefix=f"postdoc-{purpose}-"))
    return empty_folder(folder)


def _runner_settings(runner: str) -> dict[str, str]:
    """The bot's settings for where its jobs run and which language model it asks, as they stand in this environment."""
    import os

    if runner == "actions":
        raise UserError("--runner actions needs GitHub's machines, and `pursue` works on a forge of its own. Serve the "
                        "App with POSTDOC_RUNNER=actions, or use `mode: pursue` of the Action.")  # fmt: skip
    if runner not in _RUNNERS:
        raise UserError(f"There is no runner `{runner}`. Write --runner with one of: {', '.join(_RUNNERS)}.")
    passed = {name: value for name, value in os.environ.items() if name.startswith(_RUNNER_SETTINGS)}
    return passed | {"POSTDOC_RUNNER": runner}


def _end_jobs(data_folder: Path, runner: str = "local") -> None:
    """End what still runs there: a job outlives its bot on purpose."""
    from bot.server.backends import job_runner

    if not (data_folder / "jobs").is_dir():
        return
    jobs = job_runner(data_folder / "jobs", runner)
    for job_id in jobs.jobs():
        status = jobs.status(job_id)
        if status is not None and not status.state.ended:
            jobs.cancel(job_id)


_RUNNERS = ("local", "docker", "hf_jobs", "ray")
_RUNNER_SETTINGS = ("POSTDOC_DOCKER_", "POSTDOC_HF_JOBS_", "POSTDOC_RAY_", "POSTDOC_JOB_", "POSTDOC_BRAIN",
                     "POSTDOC_JUDGE")  # fmt: skip

COMMANDS = (
    demo,
    pursue,
)
