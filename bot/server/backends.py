"""Which runner the settings ask for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from bot.config import Settings
from bot.conversation.github import GitHubApp
from bot.domain.redaction import redact
from bot.errors import SettingsError
from runners.job import Runner
from runners.local import LocalRunner
from runners.ray_dashboard import Dashboard
from runners.ray_jobs import RayJobs
from runners.remote.runner import RemoteRunner


def runner_of(settings: Settings, folder: Path, app: GitHubApp, known_secrets: tuple[str, ...]) -> Runner:
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
            return _actions(settings, folder, app, clean)
        case "hf_jobs":
            return _hf_jobs(settings, folder, clean)
        case "ray":
            return _ray(settings, folder, clean)


def _docker(settings: Settings, folder: Path, clean: Callable[[str], str]) -> Runner:
    raise SettingsError("POSTDOC_RUNNER=docker is not there yet.")


def _actions(settings: Settings, folder: Path, app: GitHubApp, clean: Callable[[str], str]) -> Runner:
    raise SettingsError("POSTDOC_RUNNER=actions is not there yet.")


def _hf_jobs(settings: Settings, folder: Path, clean: Callable[[str], str]) -> Runner:
    raise SettingsError("POSTDOC_RUNNER=hf_jobs is not there yet.")


def _ray(settings: Settings, folder: Path, clean: Callable[[str], str]) -> Runner:
    parts = urlsplit(settings.ray_address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SettingsError(
            "POSTDOC_RUNNER=ray needs POSTDOC_RAY_ADDRESS: write the address of the cluster's dashboard, "
            "`http://127.0.0.1:8265`."
        )
    storage = settings.ray_storage
    if storage is None or not storage.is_absolute() or not storage.is_dir():
        raise SettingsError(
            "POSTDOC_RUNNER=ray needs POSTDOC_RAY_STORAGE: write the absolute path of a folder that this machine and "
            f"every node can write to{f'; {storage} is none here' if storage else ''}."
        )
    token = settings.ray_token.get_secret_value() if settings.ray_token else ""
    # Two bots that share a cluster must not sweep each other's jobs; those of one App share a data folder.
    owner = hashlib.sha256(f"{settings.app_id}\n{folder.resolve()}".encode()).hexdigest()[:16]
    backend = RayJobs(
        Dashboard(settings.ray_address, token), storage, owner, python=settings.job_python, hub=settings.ray_hub
    )
    return RemoteRunner(folder, backend, redact=clean)
