"""Which runner the settings ask for."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from bot.config import Settings
from bot.conversation.github import GitHubApp
from bot.domain.redaction import redact
from bot.errors import SettingsError, UserError
from bot.server.actions_api import GitHubActions
from bot.server.run_tokens import RunTokens
from runners.github_actions.backend import ActionsBackend, ActionsRunner, Dispatching
from runners.job import Runner
from runners.local import LocalRunner
from runners.ray_jobs.backend import RayJobs
from runners.ray_jobs.dashboard import Dashboard
from runners.remote.runner import RemoteRunner
from runners.warm import WarmRunner

if TYPE_CHECKING:
    from runners.hf_jobs.backend import HubJobs


def runner_of(
    settings: Settings,
    folder: Path,
    app: GitHubApp | None,
    known_secrets: tuple[str, ...],
    tokens: RunTokens | None = None,
) -> Runner:
    """The runner whose jobs (or whose mirrors of far jobs) lie below `folder`.

    Raises: SettingsError when a setting that this runner needs is missing.
    """
    clean = partial(redact, known=known_secrets)
    match settings.runner:
        case "local":
            return _local(settings, folder, clean)
        case "docker":
            return _docker(settings, folder, clean)
        case "actions":
            return _actions(settings, folder, app, tokens, clean)
        case "hf_jobs":
            return _hf_jobs(settings, folder, clean)
        case "ray":
            return _ray(settings, folder, clean)
        case "warm":
            return _warm(settings, folder, clean)


def job_runner(folder: Path, name: str) -> Runner:
    """The runner of a bot that is not, or no longer, a server: settings come from the environment, secrets are unknown.

    Raises: SettingsError.
    """
    # Of what a server must be told, nothing reaches a runner.
    given: dict[str, Any] = {"app_id": "none", "webhook_secret": "no webhook", "runner": name}
    return runner_of(Settings(**given), folder, None, ())


def _warm(settings: Settings, folder: Path, clean: Callable[[str], str]) -> Runner:
    """For practice: no sandbox stands around a job, so nothing but a shipped script runs, and on this machine only."""
    door = settings.warm_door
    if door is None or not door.is_absolute():
        raise SettingsError(
            "POSTDOC_RUNNER=warm is the gym's own and has no sandbox: it needs POSTDOC_WARM_DOOR, the absolute path of "
            "the gym's socket. Write POSTDOC_RUNNER=local for a server."
        )
    if not settings.loopback:
        raise SettingsError("POSTDOC_RUNNER=warm has no sandbox and serves this machine only: set POSTDOC_HOST to "
                            "127.0.0.1, or POSTDOC_RUNNER to local or docker.")  # fmt: skip
    return WarmRunner(folder, door, redact=clean)


def _local(settings: Settings, folder: Path, clean: Callable[[str], str]) -> Runner:
    try:
        return LocalRunner(
            folder, settings.job_python, slots=settings.job_slots, redact=clean, cache=settings.job_cache
        )
    except UserError as error:
        raise SettingsError(f"POSTDOC_JOB_CACHE: {error}.") from error


def _docker(settings: Settings, folder: Path, clean: Callable[[str], str]) -> Runner:
    try:
        from runners.containers.runner import ContainerRunner
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


def _actions(
    settings: Settings, folder: Path, app: GitHubApp | None, tokens: RunTokens | None, clean: Callable[[str], str]
) -> Runner:
    if app is None or tokens is None:
        raise SettingsError("POSTDOC_RUNNER=actions needs a server that its machines can talk to.")
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
    from runners.hf_jobs import backend as hf_jobs
    from runners.remote.runner import RemoteRunner

    backend = hub_jobs(settings, folder)
    # Its log is its sign of life, and a log can be away for a while when the job is well.
    return RemoteRunner(
        folder, backend, redact=clean, lease_seconds=hf_jobs.LEASE_SECONDS, timeout_grace_seconds=hf_jobs.GRACE_SECONDS
    )


def hub_jobs(settings: Settings, folder: Path) -> HubJobs:
    """Hugging Face Jobs as the settings name it. Raises: SettingsError."""
    from runners.hf_jobs.backend import HubJobs, Machine
    from runners.hf_jobs.hub import Hub

    hub_token, runs_token = settings.hub_token, settings.hf_jobs_token
    if hub_token is None:
        raise SettingsError("Set POSTDOC_HUB_TOKEN to a token that may start jobs in POSTDOC_HF_JOBS_NAMESPACE.")
    if runs_token is None or runs_token.get_secret_value() == hub_token.get_secret_value():
        raise SettingsError(
            "Set POSTDOC_HF_JOBS_TOKEN to a second, fine-grained token that writes POSTDOC_HF_JOBS_REPOSITORY and "
            "opens nothing else: it is in the container of every job."
        )
    for name in ("hf_jobs_namespace", "hf_jobs_flavor", "hf_jobs_image", "hf_jobs_repository"):
        if not getattr(settings, name):
            said = Settings.model_fields[name].description
            raise SettingsError(f"POSTDOC_RUNNER=hf_jobs needs POSTDOC_{name.upper()} ({said})")
    if settings.hf_jobs_repository.count("/") != 1:
        raise SettingsError("POSTDOC_HF_JOBS_REPOSITORY: write OWNER/NAME of a private model repository on the Hub.")
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    hub = Hub(endpoint, hub_token.get_secret_value(), settings.hf_jobs_namespace, settings.hf_jobs_repository)
    machine = Machine(settings.hf_jobs_image, settings.hf_jobs_flavor, runs_token.get_secret_value())
    return HubJobs(hub, machine, folder)


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
