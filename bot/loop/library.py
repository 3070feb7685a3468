"""What code in the sandbox may ask of the world for one goal: research that is recorded, and that carries nothing of
the goal's own rows out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from bot.brain.agent.research_functions import Library
from bot.conversation.policy import Policy
from bot.data.licences import licence_gate
from bot.data.rows import read_rows, segments
from bot.domain.experiment import Experiment
from bot.evaluation.benchmarks import Item
from bot.loop.actions.specs import goal_folder
from bot.loop.github_reader import AppReader
from bot.loop.world import World
from bot.research.code import Code
from bot.research.installed import Installed
from bot.research.private import PrivateTexts
from bot.research.queries import Private
from bot.research.web import Web

RECORD = "research.jsonl"
"""In the goal's folder: everything that left for its research, one line of JSON each."""


def way_out(world: World, x: Experiment, private: Private | None = None) -> Web:
    """What was fetched for one goal serves the others too. `private` knows texts that no query may carry.

    No token goes along: what is asked for is public, whatever this server may read.
    """
    return Web(
        world.data_folder / "research", addresses=world.research_addresses, secrets=world.known_secrets,
        private=private, record=goal_folder(world, x) / RECORD, clock=world.clock,
    )  # fmt: skip


def library_of(world: World, x: Experiment, train: Path | None, held_out: Sequence[Item]) -> Library:
    """`train` is the goal's training file, where there is one; it is read, so this is for a thread. GitHub is asked
    with the App's token."""
    web = way_out(world, x, _private(train, held_out))
    allowed = x.goal.licences if x.goal is not None else Policy.from_dict(x.policy).licences_allowed

    def licence(name: str | None) -> tuple[bool, str]:
        found = licence_gate(name, allowed, what="the data set", file="its card")
        return found.ok, found.reason

    return Library(
        web,
        Installed(world.job_python),
        Code(AppReader(web, world.app, x.installation_id), clock=world.clock),
        licence=licence,
        clock=world.clock,
    )


def _private(train: Path | None, held_out: Sequence[Item]) -> PrivateTexts:
    """Made once while the rows stay as they are: a conversation has many sittings."""
    stamp = (str(train), train.stat().st_mtime_ns, train.stat().st_size) if train is not None else None
    return _private_of(stamp, tuple((item.prompt, item.reference) for item in held_out))


@lru_cache(maxsize=2)
def _private_of(stamp: tuple[str, int, int] | None, items: tuple[tuple[str, str], ...]) -> PrivateTexts:
    def texts() -> Iterator[str]:
        for item in items:
            yield from item
        if stamp is not None:
            for row in read_rows(Path(stamp[0])):
                yield from (text for _, text in segments(row))

    return PrivateTexts(texts())
