"""What a workflow's process is told: the server's settings where they apply, and what GitHub Actions itself says."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr, ValidationError, field_validator

from bot.config import Settings
from bot.conversation.github import ACTIONS_LOGIN
from bot.errors import SettingsError

_FULL_NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}/[A-Za-z0-9_.-]{1,100}")
_SECRETS = ("GITHUB_TOKEN", "POSTDOC_GITHUB_TOKEN", "POSTDOC_JOURNAL_KEY")
HOSTED = "github-hosted"
MEMORY = "memory"


class RespondSettings(Settings):
    """The server's settings, and these."""

    app_id: str = ACTIONS_LOGIN
    webhook_secret: SecretStr = Field(default_factory=lambda: SecretStr(secrets.token_hex(32)))
    check_update_seconds: float = Field(60.0, ge=0.2)
    onboarding: bool = False
    github_token: SecretStr = Field(min_length=1, description="The workflow's own token; `GITHUB_TOKEN` will do.")
    repository: str = Field(description="`owner/name`; `GITHUB_REPOSITORY` where that is set.")
    bot_login: str = Field(ACTIONS_LOGIN, description="Whose token it is, where it is not `GITHUB_TOKEN`.")
    journal_key: SecretStr | None = Field(
        None, description="A secret of 16 characters or more that seals the journals on `refs/postdoc/*`."
    )
    minutes: float = Field(340.0, gt=0, description="How long this process may take; a job has 360 by default.")
    look_seconds: float = Field(
        20.0, ge=0.2, description="Time between two looks at what people did, while a job runs."
    )
    lock_seconds: float = Field(300.0, ge=2, description="How long a process that was killed keeps others waiting.")
    run: str = Field("", description="Names the process in the lock; the workflow run's number where there is one.")
    nonce: str = Field(default_factory=lambda: secrets.token_hex(4))
    machine_is_thrown_away: bool = Field(
        False, description="`true`: the data folder goes with the machine; so it is on GitHub's own machines."
    )

    @field_validator("repository")
    @classmethod
    def _is_full_name(cls, value: str) -> str:
        if not _FULL_NAME.fullmatch(value):
            raise ValueError("write OWNER/NAME")
        return value

    @field_validator("journal_key")
    @classmethod
    def _is_long(cls, value: SecretStr | None) -> SecretStr | None:
        text = value.get_secret_value() if value is not None else ""
        if not text:
            return None  # how a workflow passes a secret that is not there
        if len(text) < 16:
            raise ValueError("write 16 characters or more, `openssl rand -hex 32` makes some")
        return value

    def key(self) -> str:
        return ""

    def database(self) -> str:
        """A database for this process alone: what has to be remembered lies on the repository's refs."""
        return f"sqlite:///{self.memory_folder / 'postdoc.sqlite'}"

    @property
    def memory_folder(self) -> Path:
        return self.data_folder.resolve() / MEMORY / f"{os.getpid()}-{self.nonce}"

    def secrets(self) -> tuple[str, ...]:
        values = [*super().secrets(), self.github_token.get_secret_value()]
        return (*values, self.journal_key.get_secret_value()) if self.journal_key is not None else tuple(values)


def load_respond_settings(**given: Any) -> RespondSettings:
    """The settings of this process. What is secret is taken out of the environment, so that no job inherits it.

    Raises: SettingsError naming the first variable that is missing or wrong.
    """
    found = _from_actions(os.environ) | {name: value for name, value in given.items() if value is not None}
    try:
        settings = RespondSettings(**found)
    except ValidationError as error:
        raise SettingsError(_first_problem(error)) from error
    settings.data_folder = settings.data_folder / settings.repository.replace("/", "-").lower()
    for name in _SECRETS:
        os.environ.pop(name, None)
    if not settings.machine_is_thrown_away:
        # With it in their environment GitHub's runner would end the jobs that are to go on.
        os.environ.pop("RUNNER_TRACKING_ID", None)
    return settings


def _from_actions(environment: Mapping[str, str]) -> dict[str, Any]:
    """https://docs.github.com/en/actions/reference/workflows-and-actions/variables"""
    found: dict[str, Any] = {}
    names = {"github_token": "GITHUB_TOKEN", "repository": "GITHUB_REPOSITORY", "github_url": "GITHUB_API_URL"}
    for field, name in names.items():
        if environment.get(name) and not environment.get(f"POSTDOC_{field.upper()}"):
            found[field] = environment[name]
    if environment.get("GITHUB_RUN_ID") and not environment.get("POSTDOC_RUN"):
        found["run"] = f"run {environment['GITHUB_RUN_ID']}"
    if not environment.get("POSTDOC_MACHINE_IS_THROWN_AWAY"):
        found["machine_is_thrown_away"] = environment.get("RUNNER_ENVIRONMENT") == HOSTED
    if environment.get("RUNNER_TEMP") and not environment.get("POSTDOC_DATA_FOLDER"):
        # Not the workspace: `actions/checkout` cleans that.
        found["data_folder"] = Path(environment["RUNNER_TEMP"]) / "postdoc-data"
    return found


def _first_problem(error: ValidationError) -> str:
    first = error.errors()[0]
    field = str(first["loc"][0])
    if field == "github_token" and first["type"] in ("missing", "string_too_short", "too_short"):
        return "GITHUB_TOKEN is not set: pass `GITHUB_TOKEN: ${{ github.token }}` in the step's `env`."
    if field == "repository" and first["type"] == "missing":
        return "GITHUB_REPOSITORY is not set: write `owner/name` into it."
    return f"POSTDOC_{field.upper()}: {str(first['msg']).removeprefix('Value error, ')}."
