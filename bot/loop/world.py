"""What actions act on: the forge, the runner, the folders. One value, built once by the server."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bot.brain.model.talk import Model
from bot.conversation.github import GitHubApp, Repository
from bot.conversation.policy import Policy
from bot.domain import methods
from bot.domain.experiment import Experiment
from bot.domain.goal import GoalId
from bot.loop.record import Record
from bot.loop.screening import Embeddings
from bot.loop.treasury import Treasury
from runners.job import Hardware, Runner

KeptFile = Callable[[GoalId, str], Awaitable[bytes | None]]
"""(goal, path) -> the file that was kept for it; None when there is none. Raises: TransientError."""

PACKAGE = Path(__file__).resolve().parent.parent
TEMPLATES = PACKAGE.parent / "templates"
SCRIPTS = TEMPLATES / "scripts"
METHODS = tuple(
    sorted(
        name
        for name, method in methods.METHODS.items()
        if all((SCRIPTS / file).is_file() for file in (f"{name}.py", *method.companions))
    )
)
"""Methods that a script ships for, with all that it imports."""
TRAIN, PREPARE = "train.py", "data/prepare.py"
"""Paths in an experiment's folder; what a method's script imports lies beside train.py under its own name."""


@dataclass(frozen=True, slots=True)
class World:
    app: GitHubApp
    runner: Runner
    treasury: Treasury
    data_folder: Path
    """Where traces, built items and diagnosis folders lie; nothing in it is needed that the journal cannot rebuild."""
    model_folders: tuple[Path, ...]
    """Looked through in order for `<name>/config.json`."""
    benchmark_folders: tuple[Path, ...] = ()
    """Beside the shipped benchmarks."""
    engine_environments: Mapping[str, Path] = field(default_factory=dict)
    """`inspect` and `vllm` -> the folder of an environment that has it, where jobs do not have it themselves."""
    known_secrets: tuple[str, ...] = ()
    """Exact values that no comment, commit, check or log may carry."""
    train_memory_gib: float = 8.0
    cpu_threads: int = 1
    hardware: Hardware = field(default_factory=Hardware)
    """What training and evaluation jobs ask for."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Given to every job; never a secret."""
    hub_token: str = ""
    """Reads data sets of the Hub (empty: public ones only) and writes published models. It reaches no job."""
    hub_namespaces: tuple[str, ...] = ()
    """Users or organisations of the Hub that models are published under, the default first."""
    private_data_hosts: tuple[str, ...] = ()
    """`host` or `host:port` names on a private network that training data may be fetched from."""
    clock: Callable[[], float] = time.time
    record: Record | None = None
    """Of the journals, for the bot's own commits; without one they carry none."""
    server_policy: Policy | None = None
    """Bounds every repository's policy."""
    buttons: bool = True
    """Whether we hear of it when somebody presses a button of our checks."""
    machine: str = "this server's own machine"
    """Where jobs run, as the plan says it."""
    lasting: bool = True
    """False where the data folder goes with the machine once the process has ended."""
    search: str = "playbook"
    """How the next change is found: a value of `bot.brain.search.Search`."""
    brain: Model | None = None
    """The language model that is asked; None: nothing is, and the playbook decides alone."""
    embeddings: Embeddings | None = None
    """Screen rows for paraphrases; None: their words alone are looked at."""
    kept_file: KeptFile | None = None
    """What of a goal outlives this machine, where the data folder may not; None where it does."""

    def repository(self, x: Experiment) -> Repository:
        return self.app.repository(x.installation_id, x.owner, x.repository)

    async def record_files(self, x: Experiment) -> dict[str, bytes]:
        """Files that every commit of the bot on the goal's branch carries along."""
        return await asyncio.to_thread(self.record.files, x) if self.record is not None else {}


def shipped_scripts(method: str) -> dict[str, bytes]:
    """Path in an experiment's folder -> the file that ships for `method`, byte for byte what is committed."""
    beside = {name: (SCRIPTS / name).read_bytes() for name in methods.METHODS[method].companions}
    return {
        TRAIN: (SCRIPTS / f"{method}.py").read_bytes(),
        **beside,
        PREPARE: (SCRIPTS / "prepare.py").read_bytes(),
    }


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
