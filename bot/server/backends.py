"""Which runner the settings ask for."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from bot.config import Settings
from bot.conversation.github import GitHubApp
from bot.domain.redaction import redact
from bot.errors import SettingsError
from bot.server.actions_api import GitHubActions
from bot.server.run_tokens import RunTokens
from runners.github_actions import ActionsBackend, ActionsRunner, Dispatching
from runners.job import Runner
from runners.local import LocalRunner


def runner_of(
    settings: Settings, folder: Path, app: GitHubApp, tokens: RunTokens, known_secrets: tuple[str, ...]
) -> Runner:
    """The runner whose jobs (or whose mirrors of far jobs) lie below `folder`.

    Raises: SettingsError when a setting that this runner needs is missing.
    """
    clean = partial(redact, known=known_secrets)
    match settings.runner:
        case "local":
            return LocalRunner(folder, python=settings.job_python, slots=settings.job_slots)
        case "docker":
            return _docker(settings, folder, clean)
        case "actions":
            return _actions(settings, folder, app, tokens, clean)
        case "hf_jobs":
            return _hf_jobs(settings, folder, clean)
        case "ray":
            return _ray(settings, folder, clean)


def _docker(settings: Settings, folder: Path, clean: Callable[[str], str]) -> Runner:
    raise SettingsError("POSTDOC_RUNNER=docker is not there yet.")


def _actions(
    settings: Settings, folder: Path, app: GitHubApp, tokens: RunTokens, clean: Callable[[str], str]
) -> Runner:
    address = urlsplit(settings.public_url)
    if not address.hostname:
        raise SettingsError("POSTDOC_RUNNER=actions needs POSTDOC_PUBLIC_URL: where machines reach this server.")
    if address.scheme != "https" and address.hostname not in ("127.0.0.1", "::1", "localhost"):
        raise SettingsError("POSTDOC_PUBLIC_URL: over http others could read what jobs are given. Write https://.")
    dispatching = Dispatching(
        settings.public_url, settings.actions_workflow, settings.actions_label, settings.actions_queue_minutes * 60
    )
    backend = ActionsBackend(folder, GitHubActions(app), tokens.of, dispatching)
    return ActionsRunner(folder, backend, redact=clean)


def _hf_jobs(settings: Settings, folder: Path, clean: Callable[[str], str]) -> Runner:
    raise SettingsError("POSTDOC_RUNNER=hf_jobs is not there yet.")


def _ray(settings: Settings, folder: Path, clean: Callable[[str], str]) -> Runner:
    raise SettingsError("POSTDOC_RUNNER=ray is not there yet.")
