"""Which runner the settings ask for."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from bot.config import Settings
from bot.conversation.github import GitHubApp
from bot.domain.redaction import redact
from bot.errors import SettingsError, UserError
from runners.job import Runner
from runners.local import LocalRunner


def runner_of(settings: Settings, folder: Path, app: GitHubApp, known_secrets: tuple[str, ...]) -> Runner:
    """The runner whose jobs (or whose mirrors of far jobs) lie below `folder`.

    Raises: SettingsError when a setting that this runner needs is missing.
    """
    clean = partial(redact, known=known_secrets)
    match settings.runner:
        case "local":
            return LocalRunner(folder, python=settings.job_python, slots=settings.job_slots, redact=clean)
        case "docker":
            return _docker(settings, folder, clean)
        case "actions":
            return _actions(settings, folder, app, clean)
        case "hf_jobs":
            return _hf_jobs(settings, folder, clean)
        case "ray":
            return _ray(settings, folder, clean)


def _docker(settings: Settings, folder: Path, clean: Callable[[str], str]) -> Runner:
    try:
        from runners.containers import ContainerRunner
    except ImportError as error:
        raise SettingsError("POSTDOC_RUNNER=docker needs the Docker SDK: `pip install 'postdoc[docker]'`.") from error
    try:
        return ContainerRunner(
            folder,
            settings.docker_image,
            settings.docker_url,
            python=str(settings.job_python or "python3"),
            pull=settings.docker_pull,
            slots=settings.job_slots,
            redact=clean,
        )
    except UserError as error:
        raise SettingsError(f"POSTDOC_RUNNER=docker: {error}.") from error


def _actions(settings: Settings, folder: Path, app: GitHubApp, clean: Callable[[str], str]) -> Runner:
    raise SettingsError("POSTDOC_RUNNER=actions is not there yet.")


def _hf_jobs(settings: Settings, folder: Path, clean: Callable[[str], str]) -> Runner:
    raise SettingsError("POSTDOC_RUNNER=hf_jobs is not there yet.")


def _ray(settings: Settings, folder: Path, clean: Callable[[str], str]) -> Runner:
    raise SettingsError("POSTDOC_RUNNER=ray is not there yet.")
