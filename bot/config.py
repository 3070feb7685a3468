"""The server's settings, read from the environment once, at the start."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from bot.errors import SettingsError


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/postdoc`, `~/.cache/postdoc` by default."""
    import os

    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "postdoc"


class Settings(BaseSettings):
    """Every field is the environment variable `POSTDOC_<FIELD>`."""

    model_config = SettingsConfigDict(env_prefix="POSTDOC_", extra="ignore")

    app_id: str = Field(min_length=1, description="App id, or client id.")
    private_key: SecretStr | None = Field(None, description="PEM text of the App's key; or name a file:")
    private_key_path: Path | None = Field(None, description="The App's `.pem` file.")
    webhook_secret: SecretStr = Field(min_length=8, description="Signs every delivery.")
    github_url: str = Field(
        "https://api.github.com", description="REST root; `https://HOST/api/v3` on GitHub Enterprise Server."
    )
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8787, ge=0, le=65535, description="Port to listen on.")
    data_folder: Path = Field(Path("postdoc-data"), description="Journal, jobs, traces, trained models.")
    database_url: str = Field("", description="SQLAlchemy URL; empty: a SQLite file in the data folder.")
    model_folders: Annotated[tuple[Path, ...], NoDecode] = Field(
        (), description="Folders of base models, separated by `:`; a model is `FOLDER/owner/name`."
    )
    benchmark_folders: Annotated[tuple[Path, ...], NoDecode] = Field(
        (), description="Folders of your own benchmark files, separated by `:`."
    )
    job_python: Path | None = Field(None, description="Interpreter of the jobs' environment; empty: the server's.")
    job_slots: int | None = Field(None, ge=1, description="Jobs at a time; empty: one for each core.")
    job_memory_gib: float = Field(8.0, gt=0, description="Memory cap of a training or evaluation job.")
    job_threads: int = Field(1, ge=1, description="CPU threads of a job.")
    check_update_seconds: float = Field(30.0, ge=0.2, description="Shortest time between two updates of a check run.")
    label: str = Field("postdoc", description="The label that makes an issue a goal.")
    api_token: SecretStr | None = Field(
        None, description="Bearer token of the read-only `/api`; without one it answers on loopback only."
    )

    @field_validator("model_folders", "benchmark_folders", mode="before")
    @classmethod
    def _folders(cls, value: object) -> object:
        return tuple(Path(part) for part in value.split(":") if part) if isinstance(value, str) else value

    @field_validator("github_url")
    @classmethod
    def _address(cls, value: str) -> str:
        parts = urlsplit(value.strip())
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or "@" in parts.netloc:
            raise PydanticCustomError(
                "address", "write the REST root, `https://api.github.com` or `https://HOST/api/v3`"
            )
        return value.strip().rstrip("/")

    @property
    def loopback(self) -> bool:
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def key(self) -> str:
        """PEM text of the App's private key.

        Raises: SettingsError when it is missing, unreadable or not an RSA key in PEM form.
        """
        if self.private_key is not None:
            name = "POSTDOC_PRIVATE_KEY"
            text = self.private_key.get_secret_value()
            if "\n" not in text:
                text = text.replace("\\n", "\n")  # how a file of variables writes a text of several lines
        elif self.private_key_path is not None:
            name = "POSTDOC_PRIVATE_KEY_PATH"
            try:
                text = self.private_key_path.read_text(encoding="ascii", errors="replace")
            except OSError as error:
                raise SettingsError(f"{name}: {self.private_key_path}: {error.strerror}.") from error
        else:
            raise SettingsError("Set POSTDOC_PRIVATE_KEY_PATH to the App's private key (a .pem file).")
        problem = _key_problem(text)
        if problem is not None:
            again = "Generate and download one on the App's settings page."
            raise SettingsError(f"{name}: the App's private key {problem}. {again}")
        return text

    def secrets(self) -> tuple[str, ...]:
        """Exact values that nothing the server writes may carry."""
        values = [self.webhook_secret.get_secret_value()]
        if self.private_key is not None or self.private_key_path is not None:
            values.append(self.key())
        if self.api_token is not None:
            values.append(self.api_token.get_secret_value())
        return tuple(values)


def _key_problem(text: str) -> str | None:
    """What is wrong with the App's key, without any of it; None when it can sign."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    if "PUBLIC KEY-----" in text and "PRIVATE KEY-----" not in text:
        return "is a public key"
    if "PRIVATE KEY-----" not in text:
        return "is not a PEM key"
    try:
        key = load_pem_private_key(text.encode("utf-8", "replace"), password=None)
    except TypeError:
        return "is encrypted with a password, and there is nobody to ask for it"
    except (ValueError, UnsupportedAlgorithm):
        return "cannot be read: it is cut off or damaged"
    return None if isinstance(key, RSAPrivateKey) else "is not an RSA key, and GitHub's Apps sign with RSA"


def load_settings() -> Settings:
    """The settings of this process.

    Raises: SettingsError naming the first variable that is missing or wrong.
    """
    try:
        settings = Settings()  # type: ignore[call-arg]  # pydantic-settings fills them from the environment
    except ValidationError as error:
        first = error.errors()[0]
        name = "POSTDOC_" + str(first["loc"][0]).upper()
        if first["type"] == "missing":
            raise SettingsError(f"{name} is not set. `postdoc doctor` lists what a server needs.") from error
        if first["type"] in ("too_short", "string_too_short"):
            least = first["ctx"]["min_length"]
            raise SettingsError(f"{name}: write at least {least} character{'' if least == 1 else 's'}.") from error
        raise SettingsError(f"{name}: {first['msg']}.") from error
    settings.key()
    return settings
