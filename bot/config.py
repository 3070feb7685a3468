"""The server's settings, read from the environment once, at the start."""

from __future__ import annotations

import ipaddress
import os
import re
import secrets
import shutil
import tempfile
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from bot.errors import SettingsError

_NAMESPACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,41}")
_DATA_SET = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,41}/[A-Za-z0-9][A-Za-z0-9_.-]{0,95}")
_ACCOUNT = re.compile(r"[A-Za-z0-9_.-]{1,100}(/[A-Za-z0-9_.-]{1,100})?")


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/postdoc`, `~/.cache/postdoc` by default."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "postdoc"


class Settings(BaseSettings):
    """Every field is the environment variable `POSTDOC_<FIELD>`."""

    model_config = SettingsConfigDict(env_prefix="POSTDOC_", extra="ignore")

    app_id: str = Field(min_length=1, description="App id, or client id.")
    private_key: SecretStr | None = Field(None, description="PEM text of the App's key; or name a file:")
    private_key_path: Path | None = Field(None, description="The App's `.pem` file.")
    webhook_secret: SecretStr = Field(min_length=8, description="Signs every delivery.")
    github_url: str = Field(
        "https://api.github.com", description="GitHub's address; on GitHub Enterprise Server `https://HOST`."
    )
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8787, ge=0, le=65535, description="Port to listen on.")
    data_folder: Path = Field(Path("postdoc-data"), description="Journal, jobs, traces, trained models.")
    database_url: str = Field(
        "", description="`postgresql://host/name`, with user and password as usual; empty: SQLite in the data folder."
    )
    model_folders: Annotated[tuple[Path, ...], NoDecode] = Field(
        (), description="Folders of base models, separated by `:`; a model is `FOLDER/owner/name`."
    )
    benchmark_folders: Annotated[tuple[Path, ...], NoDecode] = Field(
        (), description="Folders of your own benchmark files, separated by `:`."
    )
    inspect_environment: Path | None = Field(
        None, description="Folder of a Python environment with inspect-ai, for benchmarks with `engine: inspect`."
    )
    vllm_environment: Path | None = Field(
        None, description="Folder of a Python environment with vLLM and lm-eval, for benchmarks with `backend: vllm`."
    )
    runner: Literal["local", "docker", "actions", "hf_jobs", "ray", "warm"] = Field(
        "local",
        description="Where jobs run: `local`, `docker`, `actions`, `hf_jobs` or `ray`; `warm` is the gym's own.",
    )
    warm_door: Path | None = Field(
        None, description="warm: the gym's socket. No sandbox: shipped scripts alone run there, for practice only."
    )
    docker_url: str = Field("", description="docker: the engine's socket; empty: `DOCKER_HOST`, else its usual place.")
    docker_image: str = Field("", description="docker: the training image with its digest, `name@sha256:...`.")
    docker_pull: bool = Field(
        False, description="docker: `true`: an image that is not here is fetched at the first launch."
    )
    actions_workflow: str = Field(
        "postdoc-train.yml", description="actions: the workflow file on the default branch that runs jobs."
    )
    actions_label: str = Field("postdoc", description="actions: the label of the machines that take jobs.")
    actions_queue_minutes: float = Field(
        60.0, gt=0, description="actions: how long a job waits for a machine before it is called off."
    )
    hf_jobs_namespace: str = Field("", description="hf_jobs: the user or organisation that pays.")
    hf_jobs_flavor: str = Field("", description="hf_jobs: the default hardware, `a10g-large`.")
    hf_jobs_image: str = Field("", description="hf_jobs: the container image with its digest.")
    hf_jobs_repository: str = Field("", description="hf_jobs: the private repository for inputs and outputs of jobs.")
    hf_jobs_token: SecretStr | None = Field(
        None, description="hf_jobs: the token that jobs are given; it should open that repository and nothing else."
    )
    ray_address: str = Field("", description="ray: the cluster's dashboard, `http://127.0.0.1:8265`.")
    ray_storage: Path | None = Field(
        None, description="ray: a folder that this machine and every node can write to, under the same path."
    )
    ray_token: SecretStr | None = Field(None, description="ray: the token of a cluster with RAY_AUTH_MODE=token.")
    ray_flavor: str = Field("", description="ray: the kind of machine, `A100` or a resource's name; empty: any.")
    ray_nodes: int = Field(1, ge=1, description="ray: machines that train together.")
    ray_hub: bool = Field(False, description="ray: `true`: the nodes fetch base models from the Hub by themselves.")
    job_gpus: int = Field(0, ge=0, description="GPUs that a training or evaluation job is given.")
    job_cache: Path | None = Field(
        None, description="local: a Hugging Face cache (`~/.cache/huggingface`) that jobs read and cannot change."
    )
    job_python: Path | None = Field(None, description="Interpreter of the jobs' environment; empty: the server's.")
    job_slots: int | None = Field(None, ge=1, description="Jobs at a time; empty: one for each core.")
    job_memory_gib: float = Field(8.0, gt=0, description="Memory cap of a training or evaluation job.")
    job_threads: int = Field(1, ge=1, description="CPU threads of a job.")
    search: Literal["playbook", "random", "tpe", "none"] = Field(
        "playbook",
        description="How the next change of a recipe is found: `playbook` by diagnosis, `random` and `tpe` (Optuna) "
        "without one, for comparison; `none`: one run.",
    )
    research: bool = Field(
        False,
        description="Whether plans are made with papers and data sets from arXiv, Semantic Scholar and the Hub. The "
        "method and a public benchmark's name are sent, and every request is recorded in the goal's folder.",
    )
    check_update_seconds: float = Field(30.0, ge=0.2, description="Shortest time between two updates of a check run.")
    label: str = Field("postdoc", description="The label that makes an issue a goal.")
    api_token: SecretStr | None = Field(
        None,
        description="Opens the pages and, as a bearer token, `/api`; without one they answer on this machine only.",
    )
    allowed_accounts: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Accounts served, `owner` or `owner/repo`, separated by `,`; empty: wherever it is installed."
    )
    pull: bool = Field(
        False, description="Read deliveries from GitHub instead of waiting for them; `postdoc serve --pull`."
    )
    sweep_seconds: float = Field(
        300.0, ge=0.2, description="Time between two looks for deliveries that GitHub could not deliver."
    )
    write_pause_seconds: float = Field(
        1.0, ge=0, le=60, description="Time between two writes of an installation; 0 where GitHub counts nothing."
    )
    writes_per_hour: int = Field(
        400, ge=0, description="Writes of an installation in an hour, by this process; GitHub allows about 500. 0: any."
    )
    lease_seconds: float = Field(
        30.0, ge=2, description="How long a process of several may be silent before others take over its goals."
    )
    drain_seconds: float = Field(20.0, ge=0, description="How long actions in progress may take to end on SIGTERM.")
    keep_days: float = Field(30.0, ge=4, description="How long finished steps are kept for looking up; journals stay.")
    metrics_open: bool = Field(False, description="`true`: `/metrics` answers anybody; it names no goal or person.")
    public_url: str = Field(
        "", description="Address at which GitHub and people reach this server, `https://postdoc.example.org`."
    )
    policy_file: Path | None = Field(
        None, description="The server's own policy, in the form of `.github/postdoc.yml`: an upper bound of every one."
    )
    onboarding: bool = Field(True, description="Offer repositories without a policy one pull request that adds it.")
    onboarding_per_hour: int = Field(
        6, ge=1, le=1000, description="Such pull requests an hour and installation; further repositories wait."
    )
    hub_token: SecretStr | None = Field(
        None,
        description="Hugging Face token that reads the data sets that goals name and writes published models; empty: "
        "public data sets only.",
    )
    traces_dataset: str = Field(
        "",
        description="Private data set of the Hub, `owner/name`, that the language model's conversations are kept in, "
        "secrets and items of benchmarks taken out; POSTDOC_HUB_TOKEN must write it. Empty: on this server alone.",
    )

    @field_validator("traces_dataset")
    @classmethod
    def _is_a_data_set(cls, value: str) -> str:
        if value and not _DATA_SET.fullmatch(value):
            raise PydanticCustomError(
                "data_set", "write owner and name of a data set of the Hub, `acme/postdoc-traces`"
            )
        return value

    brain: str = Field(
        "",
        description="The language model that is asked, `provider:model`: `anthropic:claude-opus-4-6`, one of Hugging "
        "Face's providers (`together:Qwen/Qwen3-235B-A22B`), or `openai:NAME` at POSTDOC_BRAIN_URL. Empty: none.",
    )
    brain_key: SecretStr | None = Field(None, description="Its key.")
    brain_url: str = Field(
        "", description="Address of an own server (vLLM, Ollama) or a gateway, `http://host:8000/v1`."
    )
    brain_effort: str = Field("", description="How hard it thinks, in its provider's words: `low`, `medium`, `high`.")
    brain_price: str = Field(
        "", description="USD for a million input and output tokens, `3/15`; empty: the list price, where it is known."
    )
    brain_context_tokens: int = Field(0, ge=0, description="Its context window; 0: the usual one of its provider.")
    judge: str = Field(
        "",
        description="The language model that judges answers which a rubric scores, as in POSTDOC_BRAIN. Empty: that "
        "one judges what it has proposed itself.",
    )
    judge_key: SecretStr | None = Field(None, description="Its key.")
    judge_url: str = Field("", description="Its address, as in POSTDOC_BRAIN_URL.")
    judge_price: str = Field("", description="Its price, as in POSTDOC_BRAIN_PRICE.")
    scan_embeddings: str = Field(
        "",
        description="Embedding model that training rows are screened with for paraphrases of the benchmark, a folder "
        "or `OWNER/NAME`; empty: their words alone are looked at.",
    )
    scan_cosine: float = Field(
        0.8, gt=0, lt=1, description="Cosine from which on a row counts as a paraphrase; measure it for your model."
    )
    private_data_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Hosts on a private network that policies may let data be fetched from, separated by `,`."
    )

    @field_validator("private_data_hosts", mode="before")
    @classmethod
    def _hosts(cls, value: object) -> object:
        parts = value.split(",") if isinstance(value, str) else value
        return tuple(str(part).strip().lower() for part in parts if str(part).strip()) if parts else ()  # type: ignore[attr-defined]

    reconcile_seconds: float = Field(
        600.0, ge=0.5, description="How often GitHub is compared with the journals, for deliveries that never arrived."
    )
    retired_key_paths: Annotated[tuple[Path, ...], NoDecode] = Field(
        (), description="The App's earlier private keys, separated by `:`: records sealed with them can still be read."
    )

    hub_namespaces: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Users or organisations of the Hub that models are published under, separated by `,`; the first "
        "is the default. Empty: nothing is published.",
    )

    @field_validator("hub_namespaces")
    @classmethod
    def _are_namespaces(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        wrong = next((name for name in value if not _NAMESPACE.fullmatch(name)), None)
        if wrong is not None:
            raise PydanticCustomError("namespace", "write names of users or organisations of the Hub, `acme,acme-labs`")
        return value

    @field_validator("model_folders", "benchmark_folders", "retired_key_paths", mode="before")
    @classmethod
    def _folders(cls, value: object) -> object:
        return tuple(Path(part) for part in value.split(":") if part) if isinstance(value, str) else value

    @field_validator("allowed_accounts", "hub_namespaces", mode="before")
    @classmethod
    def _names(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("allowed_accounts")
    @classmethod
    def _are_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        wrong = next((name for name in value if not _ACCOUNT.fullmatch(name)), None)
        if wrong is not None:
            raise ValueError(f"{wrong!r} is neither an owner nor owner/repo")
        return value

    @model_validator(mode="before")
    @classmethod
    def _needs_no_secret(cls, values: Any) -> Any:
        """What is read from GitHub carries no signature; a secret that nobody knows lets nothing else in."""
        if isinstance(values, dict) and str(values.get("pull", "")).lower() in ("1", "true", "yes", "on", "t", "y"):
            values.setdefault("webhook_secret", secrets.token_hex(32))
        return values

    @field_validator("github_url")
    @classmethod
    def _server_address(cls, value: str) -> str:
        parts = urlsplit(value.strip())
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or "@" in parts.netloc:
            raise PydanticCustomError(
                "address", "write `https://api.github.com`, or `https://HOST` of a GitHub Enterprise Server"
            )
        return value.strip().rstrip("/")

    @field_validator("public_url")
    @classmethod
    def _address(cls, value: str) -> str:
        parts = urlsplit(value)
        if value and (parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment):
            raise ValueError("write an address such as https://postdoc.example.org")
        return value.rstrip("/")

    @property
    def loopback(self) -> bool:
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def database(self) -> str:
        """SQLAlchemy URL of the database."""
        return self.database_url or f"sqlite:///{self.data_folder.resolve() / 'postdoc.sqlite'}"

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

    def retired_keys(self) -> tuple[str, ...]:
        """PEM texts of the App's earlier private keys. Raises: SettingsError when one cannot be read."""
        try:
            return tuple(path.read_text(encoding="utf-8") for path in self.retired_key_paths)
        except OSError as error:
            raise SettingsError(f"POSTDOC_RETIRED_KEY_PATHS: {error.filename}: {error.strerror}.") from error

    def flavor(self) -> str:
        """The kind of machine that jobs ask their runner for; empty: its default."""
        return {"hf_jobs": self.hf_jobs_flavor, "ray": self.ray_flavor}.get(self.runner, "")

    def nodes(self) -> int:
        """Machines that train together."""
        return self.ray_nodes if self.runner == "ray" else 1

    def secrets(self) -> tuple[str, ...]:
        """Exact values that nothing the server writes may carry."""
        values = [self.webhook_secret.get_secret_value()]
        if self.private_key is not None or self.private_key_path is not None:
            values.append(self.key())
        tokens = self.api_token, self.hub_token, self.hf_jobs_token, self.ray_token, self.brain_key, self.judge_key
        values += [token.get_secret_value() for token in tokens if token is not None]
        if password := urllib.parse.urlsplit(self.database_url).password:
            values += [password, urllib.parse.unquote(password)]
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


class SetupSettings(Settings):
    """The settings of a server that has no App yet."""

    app_id: str = ""
    webhook_secret: SecretStr = SecretStr("")


def load_settings(**given: Any) -> Settings:
    """The settings of this process: `given`, then the environment, then an App that `postdoc serve --setup` has kept.

    Raises: SettingsError naming the first variable that is missing or wrong.
    """
    settings = _read(Settings, _from_kept_app(kept_app(_data_folder())) | given)
    settings.key()
    return settings


def load_setup_settings() -> SetupSettings | None:
    """The settings for registering an App; None when there is one already, in the environment or kept.

    Raises: SettingsError as `load_settings`, and when an App is half there.
    """
    there = [name for name in ("APP_ID", "PRIVATE_KEY", "PRIVATE_KEY_PATH") if os.environ.get(f"POSTDOC_{name}")]
    if there or kept_app(_data_folder()):
        load_settings()
        return None
    return _read(SetupSettings, {})


_S = TypeVar("_S", bound=Settings)


def _read(kind: type[_S], given: Mapping[str, Any]) -> _S:
    try:
        return kind(**given)
    except ValidationError as error:
        first = error.errors()[0]
        name = "POSTDOC_" + str(first["loc"][0]).upper()
        if first["type"] == "missing":
            raise SettingsError(
                f"{name} is not set. `postdoc serve --setup` registers an App in the browser; "
                "`postdoc doctor` lists what a server needs."
            ) from error
        if first["type"] in ("too_short", "string_too_short"):
            least = first["ctx"]["min_length"]
            raise SettingsError(f"{name}: write at least {least} character{'' if least == 1 else 's'}.") from error
        raise SettingsError(f"{name}: {first['msg']}.") from error


# --- the App that /setup has registered, in files

_KEPT = ("app_id", "private_key", "webhook_secret")
_APP_FILES = dict(zip(_KEPT, ("id", "private-key.pem", "webhook-secret"), strict=True))


def kept_app(data_folder: Path) -> dict[str, str]:
    """`app_id`, `private_key` and `webhook_secret` of the App that was registered at /setup; empty when none was.

    Raises: SettingsError when the files are there and cannot be read.
    """
    folder = data_folder / "app"
    if not folder.is_dir():
        return {}
    try:
        return {name: (folder / file).read_text(encoding="utf-8").strip() for name, file in _APP_FILES.items()}
    except OSError as error:
        raise SettingsError(
            f"{error.filename}: {error.strerror}. Mend it, or remove the folder {folder} and set the App up again."
        ) from error


def keep_app(data_folder: Path, values: Mapping[str, str]) -> Path:
    """Write what `kept_app` reads, for the owner alone to read; returns the folder. All three files or none.

    Raises: OSError.
    """
    data_folder.mkdir(parents=True, exist_ok=True)
    folder = data_folder / "app"
    new = Path(tempfile.mkdtemp(prefix=".app-", dir=data_folder))  # readable by its owner alone, as mkdtemp promises
    try:
        for name, file in _APP_FILES.items():
            descriptor = os.open(new / file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "w", encoding="utf-8") as stream:
                stream.write(values[name].strip() + "\n")
                stream.flush()
                os.fsync(stream.fileno())
        new.rename(folder)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    return folder


def _data_folder() -> Path:
    return Path(os.environ.get("POSTDOC_DATA_FOLDER") or Settings.model_fields["data_folder"].default)


def _from_kept_app(kept: Mapping[str, str]) -> dict[str, str]:
    """What of the kept App is used: what the environment does not say itself, and nothing beside another App's id."""
    named = os.environ.get("POSTDOC_APP_ID")
    if named and named != kept.get("app_id"):
        return {}
    found = {name: value for name, value in kept.items() if not os.environ.get(f"POSTDOC_{name.upper()}")}
    if os.environ.get("POSTDOC_PRIVATE_KEY_PATH"):
        found.pop("private_key", None)
    return found
