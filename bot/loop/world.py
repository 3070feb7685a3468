"""What actions act on: the forge, the runner, the folders. One value, built once by the server."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bot.brain.model.talk import Model
from bot.conversation.github import GitHubApp, Repository
from bot.conversation.policy import Policy
from bot.domain import methods
from bot.domain.experiment import Experiment
from bot.domain.goal import GoalId
from bot.domain.scripts import training_files
from bot.loop.record import Record
from bot.loop.screening import Embeddings
from bot.loop.treasury import Treasury
from runners.job import Hardware, Runner
from runners.sessions.walls import SessionWalls

KeptFile = Callable[[GoalId, str], Awaitable[bytes | None]]
"""(goal, path) -> the file that was kept for it; None when there is none. Raises: TransientError."""

PACKAGE = Path(__file__).resolve().parent.parent
TEMPLATES = PACKAGE.parent / "templates"
METHODS = tuple(
    sorted(name for name in methods.METHODS if all(file.is_file() for file in training_files(name).values()))
)
"""Methods that a script ships for, with all that it imports."""


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
    traces_dataset: str = ""
    """Private data set of the Hub that the language model's conversations are kept in; empty: none."""
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
    own_judge: Model | None = None
    """Judges answers that a rubric scores; None: the brain does."""
    sessions: Callable[[], SessionWalls] | None = None
    """Where its code runs; None: nowhere."""
    research: bool = False
    """Whether papers, data sets and documentation outside are read: for plans, and by the language model's code."""
    research_addresses: Mapping[str, str] = field(default_factory=dict)
    """Host -> the base URL that is asked in its place: a mirror, a test's stand-in."""
    job_python: Path | None = None
    """Interpreter of the jobs' environment on this machine; None: the server's own."""
    embeddings: Embeddings | None = None
    """Screen rows for paraphrases; None: their words alone are looked at."""
    kept_file: KeptFile | None = None
    """What of a goal outlives this machine, where the data folder may not; None where it does."""

    @property
    def judge(self) -> Model | None:
        return self.own_judge or self.brain

    def proposer(self, policy: Policy) -> dict[str, Any] | None:
        """{"model", "priced"} of the language model that is asked for changes, as the journal keeps it; None where none
        is, where the repository's policy lets none propose, or where another way of searching is to be compared."""
        if self.brain is None or self.search != "playbook" or policy.brain != "propose":
            return None
        return {"model": self.brain.name, "priced": not self.brain.price.free}

    def repository(self, x: Experiment) -> Repository:
        return self.app.repository(x.installation_id, x.owner, x.repository)

    async def record_files(self, x: Experiment) -> dict[str, bytes]:
        """Files that every commit of the bot on the goal's branch carries along."""
        return await asyncio.to_thread(self.record.files, x) if self.record is not None else {}


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
