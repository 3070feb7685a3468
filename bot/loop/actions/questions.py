"""`/postdoc ask`: a language model answers from the goal's record, and what that costs is the goal's."""

from __future__ import annotations

import math
from functools import partial

from bot.brain.agent.transcript import Transcript
from bot.brain.ask import ask
from bot.conversation import messages
from bot.domain.budget import remaining
from bot.domain.experiment import Command, EventKind, Experiment, JobRole, NewEvent
from bot.domain.redaction import redacted
from bot.loop.actions.specs import goal_folder
from bot.loop.actions.traces import job_path, metrics_of, number
from bot.loop.spending import spend_of
from bot.loop.world import World

_MOST_RUNS = 12
"""Whose curves are shown: the latest."""


async def answer_question(world: World, x: Experiment, command: Command) -> tuple[str, list[NewEvent]]:
    """The answer as Markdown with what it cost; or, without an event, why nothing was asked.

    The conversation is kept in the goal's folder, so that a process that is killed asks nothing twice.
    """
    model = world.brain
    if model is None:
        return "No language model is set here. Whoever runs this server can set POSTDOC_BRAIN.", []
    priced = model.price.most(1000, 1000) > 0
    if priced and x.consent is None:
        return "An answer costs money, and nobody has agreed to this goal's spending yet.", []
    transcript = Transcript(
        goal_folder(world, x) / "brain" / f"ask-{command.seq}.jsonl",
        clean=partial(redacted, known=world.known_secrets),
    )
    events: dict[int, NewEvent] = {}

    async def spent(number: int, usd: float, what: str) -> None:
        data = {"usd": usd, "what": f"an answer to {command.author}", "model": model.name}
        events[number] = NewEvent(EventKind.LLM_SPENT, f"llm/ask/{command.seq}/{number}", data)

    left = remaining(x.ceilings, spend_of(x)).usd if priced else math.inf
    asked = await ask(model, x, _curves(world, x), command.args[0], transcript, left, spent)
    text = messages.reply_asked(asked.text, model.name, transcript.conversation.usd, asked.wrong, failed=asked.failed)
    return text, list(events.values())


def _curves(world: World, x: Experiment) -> dict[int, dict[str, list[tuple[int, float | None]]]]:
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
