"""`/postdoc ask`: a language model answers from the goal's record, and what that costs is the goal's."""

from __future__ import annotations

import math
from functools import partial

from bot.brain.agent.account import Account
from bot.brain.agent.transcript import Transcript
from bot.brain.ask import ask
from bot.conversation import messages
from bot.conversation.policy import Policy
from bot.domain.experiment import Command, Experiment, JobRole, NewEvent
from bot.domain.redaction import redacted
from bot.loop.actions.specs import goal_folder
from bot.loop.actions.traces import job_path, metrics_of, number
from bot.loop.purse import GoalPurse, left_behind
from bot.loop.spending import left_of_agreed
from bot.loop.world import World

_MOST_RUNS = 12
"""Whose curves are shown: the latest."""


EXPLAIN = (
    "Explain what the next run tries, to somebody who has to decide whether it is worth its price: what it changes, "
    "which evidence of this record speaks for it and which against, what gain may be expected and why, and what would "
    "make you stop."
)
"""What `/postdoc plan` asks."""


async def answer_question(world: World, x: Experiment, command: Command, question: str) -> tuple[str, list[NewEvent]]:
    """The answer as Markdown with what it cost; or, without an event, why nothing was asked.

    The conversation is kept in the goal's folder, so that a process that is killed asks nothing twice.
    """
    model = world.brain
    name = f"ask/{command.seq}/"
    lost = await left_behind(world.treasury, x, besides=name)
    why = _may_not_ask(world, x)
    if model is None or why:
        return why, lost
    transcript = Transcript(
        goal_folder(world, x) / "brain" / f"ask-{command.seq}.jsonl",
        clean=partial(redacted, known=world.known_secrets),
    )
    purse = GoalPurse(world.treasury, x, name, of=f"an answer to {command.author}", model=model.name)
    left = math.inf if model.price.free else left_of_agreed(x).usd - sum(each.data["usd"] for each in lost)
    asked = await ask(Account(model, transcript, purse, left), x, curves_of(world, x), question)
    text = messages.reply_asked(asked.text, model.name, transcript.conversation.usd, asked.wrong, failed=asked.failed)
    return text, [*lost, *purse.events]


def may_ask(world: World, x: Experiment) -> bool:
    """Whether there is a language model that may be asked about this goal now."""
    return not _may_not_ask(world, x)


def _may_not_ask(world: World, x: Experiment) -> str:
    """Why no language model may be asked, as a sentence; empty where one may."""
    if world.brain is None:
        return "No language model is set here. Whoever runs this server can set POSTDOC_BRAIN."
    if Policy.from_dict(x.policy).brain == "off":
        return "The policy of this repository (`brain: off`) lets no language model be asked about it."
    if not world.brain.price.free and x.consent is None:
        return "An answer costs money, and nobody has agreed to this goal's spending yet."
    return ""


def curves_of(world: World, x: Experiment) -> dict[int, dict[str, list[tuple[int, float | None]]]]:
    found: dict[int, dict[str, list[tuple[int, float | None]]]] = {}
    for run in x.runs[-_MOST_RUNS:]:
        for row in metrics_of(job_path(world, x, JobRole.TRAIN, run.n)):
            step = row.get("step")
            if not isinstance(step, int) or isinstance(step, bool):
                continue
            for key, value in row.items():
                if key != "step" and isinstance(value, int | float | None) and not isinstance(value, bool):
                    found.setdefault(run.n, {}).setdefault(key, []).append((step, number(value)))
    return found
