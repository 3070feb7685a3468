"""For workflows of GitHub Actions: the bot without a server."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bot.cli.common import DONE, FAILED, INTERRUPTED, JsonFile, check_json, say, write_json

if TYPE_CHECKING:
    from bot.serverless.report import Report


def respond(
    event: Annotated[
        Path | None, typer.Option("--event", metavar="FILE", help="The event's payload; by default GITHUB_EVENT_PATH.")
    ] = None,
    event_name: Annotated[
        str | None, typer.Option("--event-name", metavar="NAME", help="By default GITHUB_EVENT_NAME.")
    ] = None,
    data_folder: Annotated[
        Path | None,
        typer.Option("--data-folder", metavar="FOLDER", help="Kept between events on a machine that stays."),
    ] = None,
    minutes: Annotated[
        float | None, typer.Option("--minutes", min=0.05, help="How long this may take; less than the job's own limit.")
    ] = None,
    json_file: JsonFile = None,
) -> int:
    """Be the bot for one event of a workflow, without a server; its memory is on git refs of the repository."""
    import logging
    import os

    from bot.conversation.policy import load_server_policy
    from bot.serverless.happening import read_happening
    from bot.serverless.settings import load_respond_settings

    check_json(json_file)
    path = event or (Path(os.environ["GITHUB_EVENT_PATH"]) if os.environ.get("GITHUB_EVENT_PATH") else None)
    settings = load_respond_settings(data_folder=data_folder, minutes=minutes)
    happening, why = read_happening(event_name or os.environ.get("GITHUB_EVENT_NAME", ""), path, settings.repository)
    load_server_policy(settings.policy_file)  # a mistake in it is said before anything is done
    from bot.serverless.report import Outcome, Report

    if happening is None:
        return _said(Report(Outcome.IGNORED, why), json_file)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    for noisy in ("httpx", "dbos"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    from bot.serverless.process import responded

    return _said(responded(settings, happening), json_file)


def _said(report: Report, json_file: str | None) -> int:
    from bot.serverless.report import Outcome

    lines = [f"{str(report.outcome).capitalize()}{f': {report.why}' if report.why else ''}."]
    for goal in report.goals:
        running = f", {len(goal['running'])} jobs running" if goal["running"] else ""
        lines.append(f"{goal['goal_id']}: {goal['state']}, {goal['runs']} runs{running}")
    say([*lines, *report.problems], json_file)
    write_json(json_file, report.as_dict())
    if report.outcome is Outcome.CANCELLED:
        return INTERRUPTED
    return FAILED if report.problems or report.outcome is Outcome.LOST else DONE


COMMANDS = (respond,)
