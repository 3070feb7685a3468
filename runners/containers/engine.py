"""The container engine of this machine, dockerd or podman, through the Docker SDK: which one it is, the image that jobs
run in, the few things that are done to a container, and one sentence for each way in which none of it works.

Not covered: engines on another machine. A job's folders are bound into its container, so both must see the same disk.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import docker
from docker.errors import APIError, DockerException

from bot.errors import PlatformError, UserError

_ANSWER_SECONDS = 30.0
_PULL_SECONDS = 1800.0
_KNOCK_SECONDS = 5.0
_PINNED = re.compile(r"(?:[a-z0-9][\w.:/-]*@)?sha256:[0-9a-f]{64}")
_SETTING = "POSTDOC_DOCKER_URL"
_ENDED = ("exited", "stopped", "dead", "removing")
"""podman says `stopped` where dockerd says `exited`, for a moment or for good."""

T = TypeVar("T")


class EngineAway(PlatformError):
    """The engine does not answer now; the same request may work later."""


@dataclass(frozen=True, slots=True)
class Description:
    """What an engine says of itself."""

    kind: str
    """`docker` or `podman`."""
    version: str
    rootless: bool
    remapped: bool
    """dockerd with `userns-remap`: root in a container is somebody else outside."""
    caps_hold: bool
    """Whether it can cap the memory and the number of processes of a container."""


@dataclass(frozen=True, slots=True)
class Image:
    identity: str
    """`sha256:...` of what is really here; a name could be moved meanwhile."""
    environment: tuple[str, ...]
    """`NAME=value`, its own."""
    volumes: tuple[str, ...]
    """Folders that it declares as volumes: the engine would make each a place to write to that nobody measures."""


@dataclass(frozen=True, slots=True)
class State:
    """A container as its engine sees it now."""

    identity: str
    status: str
    pid: int
    """Of its first process, in the engine's process namespace; 0 when none runs."""
    exit_code: int
    oom_killed: bool
    """podman says False on control groups of version 1 whatever happened."""
    error: str
    given_gpus: bool

    @property
    def ended(self) -> bool:
        return self.status in _ENDED


class Engine:
    """One engine behind one socket. Every call Raises: EngineAway when it does not answer, PlatformError when it
    refuses."""

    def __init__(self, url: str = "") -> None:
        """`url` is `unix:///...`; empty: `DOCKER_HOST`, else the usual places of dockerd and podman."""
        self.url = url
        self._client: docker.APIClient | None = None

    # what is there

    def describe(self) -> Description:
        """Raises: UserError as well, where this user may not use the engine or there is none."""
        version, info = self._ask(lambda client: client.version()), self._ask(lambda client: client.info())
        components = [str(each.get("Name", "")) for each in version.get("Components") or ()]
        options = [str(option) for option in info.get("SecurityOptions") or ()]
        return Description(
            kind="podman" if any("podman" in name.lower() for name in components) else "docker",
            version=str(version.get("Version", "")),
            rootless=bool(info.get("Rootless")) or any(option.startswith("name=rootless") for option in options),
            remapped=any(option.startswith("name=userns") for option in options),
            caps_hold=bool(info.get("MemoryLimit")) and bool(info.get("PidsLimit")),
        )

    def image(self, reference: str, *, pull: bool = False) -> Image:
        """The image that `reference` pins. Nothing is fetched unless `pull` says so.

        Raises: UserError when it is not pinned or not here.
        """
        check_pinned(reference)
        found = self._inspected(reference)
        if found is None and pull and not reference.startswith("sha256:"):
            self._ask(lambda client: client.pull(reference), seconds=_PULL_SECONDS)
            found = self._inspected(reference)
        if found is None:
            raise UserError(f"the engine at {self.place} does not have the image {reference}; {_how_to_get(reference)}")
        config = found.get("Config") or {}
        return Image(
            found["Id"] if found["Id"].startswith("sha256:") else f"sha256:{found['Id']}",
            tuple(config.get("Env") or ()),
            tuple(config.get("Volumes") or ()),
        )

    def _inspected(self, reference: str) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self._ask(lambda client: client.inspect_image(reference), missing=True)
        return found

    # what is done to a container

    def state(self, name: str) -> State | None:
        """None when the engine knows no such container."""
        found = self._ask(lambda client: client.inspect_container(name), missing=True)
        if found is None:
            return None
        state, host = found["State"], found.get("HostConfig") or {}
        return State(
            identity=found["Id"],
            status=str(state.get("Status", "")),
            pid=int(state.get("Pid") or 0),
            exit_code=int(state.get("ExitCode") or 0),
            oom_killed=bool(state.get("OOMKilled")),
            error=str(state.get("Error") or ""),
            given_gpus=bool(host.get("DeviceRequests") or host.get("Devices")),
        )

    def create(self, name: str, config: Mapping[str, Any]) -> None:
        """`config` is the body of the Engine API's `POST /containers/create`."""
        self._ask(lambda client: client.create_container_from_config(dict(config), name))

    def start(self, name: str) -> None:
        self._ask(lambda client: client.start(name))

    def kill(self, name: str) -> None:
        """A container that is gone or has ended is no error."""
        try:
            self._ask(lambda client: client.kill(name), missing=True)
        except EngineAway:
            raise
        except PlatformError:
            state = self.state(name)
            if state is not None and not state.ended:
                raise

    def remove(self, name: str) -> None:
        """With everything that runs in it and its nameless volumes; one that is gone is no error."""
        self._ask(lambda client: client.remove_container(name, force=True, v=True), missing=True)

    def labelled(self, labels: Mapping[str, str]) -> list[tuple[str, Mapping[str, str]]]:
        """Names and labels of all containers, ended ones included, that carry `labels`."""
        wanted = [f"{name}={value}" for name, value in labels.items()]
        found = self._ask(lambda client: client.containers(all=True, filters={"label": wanted}))
        return [(each["Names"][0].lstrip("/"), each.get("Labels") or {}) for each in found]

    # talking to it

    @property
    def place(self) -> str:
        return self.url or os.environ.get("DOCKER_HOST") or "its usual place"

    def _ask(
        self, question: Callable[[docker.APIClient], T], *, missing: bool = False, seconds: float = _ANSWER_SECONDS
    ) -> Any:
        """The engine's answer; with `missing`, None for what it does not have."""
        try:
            client = self._connected()
            client.timeout = seconds
            return question(client)
        except APIError as error:
            if missing and error.status_code == 404:
                return None
            raise PlatformError(f"the container engine refused: {_explanation(error)}") from error
        # What the SDK does not wrap are the errors of `requests`, which are OSErrors.
        except (DockerException, OSError) as error:
            self.close()
            raise EngineAway(f"the container engine at {self.place} does not answer: {error}") from error

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _connected(self) -> docker.APIClient:
        path = socket_path(self.url)
        # The SDK would bury each reason in three layers of retries.
        _knock(path)
        if self._client is None:
            self._client = docker.APIClient(base_url=f"unix://{path}", version="auto", timeout=int(_ANSWER_SECONDS))
        return self._client


def check_pinned(reference: str) -> None:
    """Raises: UserError when `reference` could mean another image tomorrow."""
    if not reference:
        raise UserError("no image is named: set POSTDOC_DOCKER_IMAGE to the training image, name@sha256:...")
    if not _PINNED.fullmatch(reference):
        raise UserError(
            f"the image {reference!r} is not pinned: write name@sha256:..., which `docker image inspect --format "
            f"'{{{{index .RepoDigests 0}}}}' {reference}` prints after a pull; of an image that never was in a "
            "registry, write its id, which `docker image inspect --format '{{.Id}}'` prints"
        )


def socket_path(url: str = "") -> str:
    """The engine's socket.

    Raises: UserError when the engine is on another machine, or none is found.
    """
    url = url or os.environ.get("DOCKER_HOST", "")
    if url:
        scheme, _, path = url.partition("://")
        if scheme not in ("unix", "http+unix") or not path.startswith("/"):
            raise UserError(
                f"{_SETTING}: {url} is not a socket of this machine. A job's folders are bound into its container, so "
                "the engine must run here: write unix:///var/run/docker.sock"
            )
        return path
    usual = usual_sockets()
    found = next((path for path in usual if os.path.exists(path)), None)
    if found is None:
        raise UserError(
            f"no container engine is here (looked for {', '.join(usual)}). Install and start one: `apt-get install "
            f"docker.io`, or podman with `systemctl enable --now podman.socket`; or name its socket in {_SETTING}"
        )
    return found


def usual_sockets() -> tuple[str, ...]:
    own = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    return (
        "/var/run/docker.sock",
        f"{own}/docker.sock",
        *(("/run/podman/podman.sock",) if os.getuid() == 0 else ()),
        f"{own}/podman/podman.sock",
    )


def _knock(path: str) -> None:
    try:
        with socket.socket(socket.AF_UNIX) as door:
            door.settimeout(_KNOCK_SECONDS)
            door.connect(path)
    except PermissionError as error:
        group = _group_of(Path(path))
        raise UserError(
            f"this user may not use the container engine at {path}: `sudo usermod -aG {group} $USER` and a new login "
            "give that right, which is worth root; rootless podman needs none"
        ) from error
    except OSError as error:
        reason = error.strerror or "no answer"
        raise EngineAway(f"no container engine answers at {path} ({reason}): is it running?") from error


def _group_of(path: Path) -> str:
    try:
        name = path.group()
    except (OSError, KeyError):
        return "docker"
    return "docker" if name == "root" else name


def _how_to_get(reference: str) -> str:
    if reference.startswith("sha256:"):
        return "`docker images --no-trunc` lists the ids that it has"
    return f"fetch it with `docker pull {reference}`, or let the server do so with POSTDOC_DOCKER_PULL=true"


def _explanation(error: APIError) -> str:
    said = error.explanation
    text = said.decode(errors="replace") if isinstance(said, bytes) else str(said or error)
    return " ".join(text.split())[:500]
