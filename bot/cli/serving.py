"""For a server's owner: serving, the setup's examination, policies, and the halt of all spending."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bot.cli.common import DONE, FAILED, WRONG_WORDS, JsonFile, check_json, complain, say, write_json
from bot.errors import SettingsError, UserError

if TYPE_CHECKING:
    import socket


def serve(
    host: Annotated[str | None, typer.Option("--host", help="Instead of POSTDOC_HOST.")] = None,
    port: Annotated[int | None, typer.Option("--port", min=0, max=65535, help="Instead of POSTDOC_PORT.")] = None,
    pull: Annotated[
        bool, typer.Option("--pull", help="Read deliveries from GitHub: for a machine without a public address.")
    ] = False,
    setup: Annotated[
        bool, typer.Option("--setup", help="Register the App in a browser first, if none is there.")
    ] = False,
) -> int:
    """Serve the GitHub App; its settings are POSTDOC_* variables."""
    import logging

    from bot.config import load_settings, load_setup_settings
    from bot.conversation.policy import load_server_policy

    said = {"host": host, "port": port, "pull": pull or None}
    given = {name: value for name, value in said.items() if value is not None}
    if setup and (unset := load_setup_settings()) is not None:
        from bot.server.setup.serving import serve_setup

        unset = unset.model_copy(update=given)
        if not serve_setup(unset, _listen(unset.host, unset.port)):
            return DONE
    settings = load_settings(**given)
    load_server_policy(settings.policy_file)  # a mistake in it is said before anything is opened
    listening = _listen(settings.host, settings.port)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)

    from bot.server.app import Bot
    from bot.server.serving import Server

    server = Server(Bot(settings))
    address, bound = listening.getsockname()[:2]
    place = f"http://{address}:{bound}"
    pulls = f"reading deliveries from {settings.github_url}; pages at {place}"
    logging.getLogger("postdoc").info(pulls if settings.pull else f"listening for webhooks at {place}/webhook")
    server.run(sockets=[listening])
    return FAILED  # it returns only when serving could not begin


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises: SettingsError when the address cannot be had."""
    import socket

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        problem = f"{host}:{port} cannot be listened on: {error.strerror or error}."
        raise SettingsError(f"{problem} Set POSTDOC_HOST and POSTDOC_PORT, or --host and --port.") from error


def policy(
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="Instead of .github/postdoc.yml here.")] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of the file instead.")] = False,
) -> int:
    """Say what a repository's policy grants, or what is wrong in it."""
    from bot.conversation.policy import POLICY_PATH, policy_schema, read_policy

    if schema:
        print(json.dumps(policy_schema(), indent=2))
        return DONE
    path = file or Path(POLICY_PATH)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path}: {error.strerror}. Name a policy file, or run this in a repository with one."
        ) from error
    found, problems = read_policy(data)
    if found is None:
        for problem in problems[:-1]:
            complain(f"{path}:{problem}", WRONG_WORDS)
        return complain(f"{path}:{problems[-1]}", WRONG_WORDS)
    say(found.lines(), None)
    return DONE


def doctor(
    json_file: JsonFile = None,
    github: Annotated[bool, typer.Option("--github", help="Look at the App on GitHub instead of the machine.")] = False,
    hub: Annotated[bool, typer.Option("--hub", help="Look at Hugging Face Jobs instead of the machine.")] = False,
    redeliver: Annotated[
        bool, typer.Option("--redeliver", help="With --github: have GitHub send its last delivery once more.")
    ] = False,
) -> int:
    """Say what this machine can do and what it lacks, or whether GitHub or Hugging Face Jobs is set up."""
    check_json(json_file)
    if github and hub:
        raise UserError("--github and --hub are two examinations: ask for one at a time.")
    if redeliver and not github:
        raise UserError("--redeliver asks GitHub: write `postdoc doctor --github --redeliver`.")
    if github:
        return _doctor_of_github(json_file, redeliver)
    if hub:
        return _doctor_of_hub(json_file)
    from bot.doctor import as_json, examination, report_lines

    findings = examination()
    say(report_lines(findings), json_file)
    write_json(json_file, as_json(findings))
    return DONE


def _doctor_of_github(json_file: str | None, redeliver: bool) -> int:
    import asyncio

    from bot.config import load_settings
    from bot.doctor.github import github_examination, github_json, github_lines

    findings = asyncio.run(github_examination(load_settings(), redeliver=redeliver))
    say(github_lines(findings), json_file)
    result = github_json(findings)
    write_json(json_file, result)
    return DONE if result["ok"] else FAILED


def _doctor_of_hub(json_file: str | None) -> int:
    from bot.config import load_settings
    from bot.doctor.hub import hub_examination, hub_json
    from bot.doctor.machine import finding_lines, summary_line
    from bot.server.backends import hub_jobs

    settings = load_settings()
    findings = hub_examination(settings, hub_jobs(settings, settings.data_folder / "jobs"))
    say([*finding_lines(findings), "", summary_line(findings)], json_file)
    result = hub_json(findings)
    write_json(json_file, result)
    return DONE if result["ok"] else FAILED


def halt(
    repository: Annotated[str, typer.Argument(metavar="[OWNER/NAME]", help="One repository; none: all of them.")] = "",
    off: Annotated[bool, typer.Option("--off", help="Allow spending again.")] = False,
) -> int:
    """Stop all spending of the server: end what runs, start nothing, until `postdoc halt --off`.

    It works on the server's database, whether the server runs or not; each goal then goes on with `/postdoc resume`.
    """
    import getpass

    from bot.config import load_settings
    from bot.loop.database import open_database
    from bot.loop.treasury import SERVER, Treasury

    if repository and repository.count("/") != 1:
        raise UserError(f"{repository} is no repository. Write OWNER/NAME, or nothing for all of them.")
    treasury = Treasury(open_database(load_settings().database()))
    scope, where = repository or SERVER, repository or "this server"
    if off:
        say([f"Spending is allowed again: {where}." if treasury.lift(scope) else f"Nothing was halted: {where}."], None)
        return DONE
    treasury.halt(scope, getpass.getuser())
    say(
        [f"All spending is halted: {where}. `postdoc halt {f'{repository} ' if repository else ''}--off` ends it."],
        None,
    )
    return DONE


COMMANDS = (serve, halt, policy, doctor)
