"""What the language model works with at one thought: files of the experiment, Python in the sandbox with the goal's own
rows and runs, and the one call that says what should change."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import bot
from bot.brain.agent.desk import Desk, Propose
from bot.brain.agent.functions import Function
from bot.brain.agent.goal_functions import Material, goal_functions
from bot.brain.agent.sandboxed_python import SandboxedPython
from bot.brain.agent.scratch import Scratch
from bot.brain.agent.traces import Hidden, Session, write_trace
from bot.brain.agent.transcript import Transcript
from bot.brain.proposals.schema import PATCHABLE
from bot.brain.proposals.tools import PROPOSE_TOOL
from bot.domain.experiment import BASELINE, Experiment, JobRole, Run
from bot.domain.redaction import redact, redacted
from bot.errors import TransientError, UserError
from bot.evaluation.benchmarks import Item
from bot.loop.actions.jobs import job_prefix
from bot.loop.actions.questions import curves_of
from bot.loop.actions.specs import goal_folder
from bot.loop.actions.traces import EVALUATION, job_path, output_json
from bot.loop.hub_traces import keep_traces
from bot.loop.spending import data_key
from bot.loop.world import World
from runners.job import JobId

_LOG = logging.getLogger(__name__)


def transcript_of(world: World, x: Experiment, thought: int) -> Transcript:
    path = goal_folder(world, x) / "brain" / f"thought-{thought}.jsonl"
    return Transcript(path, clean=partial(redacted, known=world.known_secrets))


class Workplace:
    """A desk with its session, for one sitting."""

    def __init__(
        self, world: World, x: Experiment, run: Run | None, thought: int, files: Mapping[str, str],
        transcript: Transcript, propose: Propose, held_out: Sequence[Item],
    ) -> None:  # fmt: skip
        folder = goal_folder(world, x) / "brain" / f"thought-{thought}"
        writable = tuple(path for path in PATCHABLE if path in files)
        scratch = Scratch(folder / "files", {path: text.encode() for path, text in files.items()}, writable)
        walls = world.sessions() if world.sessions is not None else None
        why = walls.problem if walls is not None else "this server has no place for it"
        self._python: SandboxedPython | None = None
        if walls is not None and not why:
            self._python = SandboxedPython(
                f"{job_prefix(x)}thought-{thought}", folder, walls, functions_of(world, x, held_out),
                mounts={"experiment": scratch.folder}, clean=partial(redacted, known=world.known_secrets),
            )  # fmt: skip
        self.desk = Desk(
            folder, number=lambda: len(transcript.conversation.actions), python=self._python, scratch=scratch,
            propose=propose, proposal=PROPOSE_TOOL, clean=partial(redact, known=world.known_secrets),
            why_no_python=why,
        )  # fmt: skip

    async def leave(self, *, over: bool) -> None:
        """Let the session wait for the next sitting, or end it."""
        if self._python is None:
            return
        if over:
            await self._python.close()
        else:
            await self._python.leave()


def functions_of(world: World, x: Experiment, held_out: Sequence[Item]) -> dict[str, Function]:
    """What code in the sandbox can call."""
    checked = x.data.get(data_key(x.recipe, x.recipe_digests), {})
    files: dict[str, Path] = {}
    if "job_id" in checked and "build_failed" not in checked:
        path = world.runner.folder(JobId(checked["job_id"])) / "data" / "train.jsonl"
        if path.is_file() and not path.is_symlink():
            files["train"] = path

    def evaluation(n: int) -> Mapping[str, Any] | None:
        return output_json(job_path(world, x, JobRole.EVALUATE if n else JobRole.BASELINE, n or BASELINE), EVALUATION)

    material = Material(x, curves_of(world, x), files, lambda: held_out, evaluation)
    if not world.research:
        return goal_functions(material)
    # Readers of papers are large, and most goals are pursued without them.
    from bot.brain.agent.research_functions import research_functions
    from bot.loop.library import library_of

    library = library_of(world, x, files.get("train"), held_out)
    return goal_functions(material) | research_functions(library)


async def keep_trace(world: World, x: Experiment, thought: int, held_out: Sequence[Item], *, over: bool) -> None:
    """The conversation as the Hub's trace viewer reads it, without secrets and without the benchmark's items; once it
    is over, also in the private data set that the server's owner has named."""
    transcript = transcript_of(world, x, thought)
    session = Session(f"{x.goal_id}/thought-{thought}", x.folder, x.branch, bot.__version__)
    hide = Hidden(text for item in held_out for text in (item.prompt, item.reference))
    path = goal_folder(world, x) / "traces" / f"thought-{thought}.jsonl"
    clean = partial(redacted, known=world.known_secrets)
    await asyncio.to_thread(write_trace, transcript.lines(), path, session, clean=clean, hide=hide)
    if over and world.traces_dataset:
        place = f"{x.owner}--{x.repository}--{x.issue}"
        try:
            await keep_traces(path.parent, world.traces_dataset, place=place, token=world.hub_token)
        except (UserError, TransientError) as error:  # the goal goes on; the next one takes this along
            _LOG.warning("the trace of %s is on this server alone: %s", session.name, error)
