"""The language model at work within the loop: a sitting of thinking, up to a proposal or an end.

What it reads it can only answer with a proposal, and a proposal is data: `proposals` alone turns one into a change, as
the playbook's changes are made, after the rules, the rows' gates, the preflight and two steps of training have passed
it. The key and every token stay with the server; what the model sees is the record and the experiment's own files.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from bot.brain.agent.account import Account
from bot.brain.agent.quoting import RULE
from bot.brain.agent.transcript import Transcript
from bot.brain.agent.turns import Ended, Limits, Work, Worker
from bot.brain.model.talk import Model
from bot.brain.proposals import (
    PROPOSE,
    Asked,
    Ground,
    Kind,
    Proposal,
    Verdict,
    pinned_text,
    problems_of,
    read_proposal,
    system_text,
    unknown_keywords,
)
from bot.brain.proposals.asking import refusal_text
from bot.brain.proposals.schema import PATCHABLE, Standing, pinned
from bot.conversation.policy import Policy
from bot.data.scan import scan
from bot.data.script_audit import audit_scripts
from bot.domain.experiment import EventKind, Experiment, JobRole, NewEvent, Run, State
from bot.domain.thought import Outcome, Thought
from bot.errors import UserError
from bot.evaluation.benchmarks import Item, held_out_items
from bot.loop.action import Action
from bot.loop.actions.desks import Workplace, keep_trace, transcript_of
from bot.loop.actions.proposals import log_of, without_data
from bot.loop.actions.questions import curves_of
from bot.loop.actions.scripts import script_of
from bot.loop.actions.specs import base_model, sources_of
from bot.loop.models import describe_model
from bot.loop.own_benchmark import benchmark_of
from bot.loop.purse import GoalPurse, left_behind
from bot.loop.sources import pin
from bot.loop.spending import agreed_names, data_key, left_of_agreed, next_run_hours
from bot.loop.thinking import MOST_REFUSALS, may_spend
from bot.loop.world import World
from bot.research.installed import Installed

SITTING_TURNS = 4
"""† Turns between two looks at what people have written meanwhile."""
MOST_SHARE = 0.5
"""† Of the money that is left, where machines cost some too."""
MOST_WRONG = 12
"""Proposals within one conversation that break a rule at once, before the thought ends."""

_OUTCOMES = {
    Ended.BUDGET: Outcome.BUDGET, Ended.TURNS: Outcome.BUDGET, Ended.CIRCLING: Outcome.CIRCLING,
    Ended.GAVE_UP: Outcome.CIRCLING, Ended.REFUSED: Outcome.REFUSED, Ended.AWAY: Outcome.AWAY,
}  # fmt: skip


async def think(world: World, x: Experiment, action: Action) -> list[NewEvent]:
    """One sitting: some turns, up to a proposal, an end, or the next look at the world.

    The transcript has every turn before anything follows from it, so that after a kill none is paid twice; what was
    paid is booked under its number, in the treasury first.
    """
    n, run_number, sitting = (int(action.args[key]) for key in ("thought", "run", "sitting"))
    thought = next((each for each in x.thoughts if each.n == n), Thought(n, run_number, x.contract_version))
    run = x.runs[run_number - 1] if run_number else None
    if (halt := await asyncio.to_thread(world.treasury.halted, x.full_name)) is not None:
        refused = {"state": str(State.STOPPED), "reason": halt.sentence()}
        stopped = NewEvent(EventKind.SPENDING_REFUSED, f"spending-refused/{x.length}", refused)
        return [*await left_behind(world.treasury, x), stopped]
    if (over := _may_not_think(world, x, replace(thought, sittings=sitting))) is not None:
        return await _told(world, x, over, None, await left_behind(world.treasury, x))
    assert world.brain is not None
    transcript = transcript_of(world, x, n)
    before = await asyncio.to_thread(_before, thought, transcript)
    wrong = sum(call.name == PROPOSE and result.failed for call, result in transcript.conversation.actions)
    bench = await _Bench.of(world, x, run, wrong, thought.wish)
    _tell_refusal(transcript, thought)
    name = f"thought/{n}/{before.name}"
    lost = await left_behind(world.treasury, x, besides=name)
    purse = GoalPurse(world.treasury, x, name, of=f"thought {n}", model=world.brain.name)
    limit = _usd_limit(x, thought, world.brain) - before.usd - sum(each.data["usd"] for each in lost)
    place = await asyncio.to_thread(
        Workplace, world, x, run, n, bench.files, transcript, bench.propose, bench.held_out
    )  # fmt: skip
    system = "\n\n".join(part for part in (system_text(planning=run is None), RULE, place.desk.missing) if part)
    account = Account(world.brain, transcript, purse, limit)
    limits = Limits(sitting=SITTING_TURNS)
    worker = Worker(account, system, place.desk, limits, pinned=lambda: pinned_text(bench.asked))
    told = thought
    try:
        work = await worker.work()
        turns, usd = work.turns + before.turns, transcript.conversation.usd + before.usd
        told = replace(thought, model=world.brain.name, sittings=sitting, turns=turns, usd=usd)
        proposal, told = _come_of(told, work)
    finally:
        await place.leave(over=told.over)
    await keep_trace(world, x, n, bench.held_out, over=told.over)
    return await _told(world, x, told, proposal, [*lost, *purse.events])


def _may_not_think(world: World, x: Experiment, thought: Thought) -> Thought | None:
    """The thought ended because nothing may be asked for it any more; None where something may."""
    if world.brain is None:
        return replace(thought, outcome=Outcome.UNAVAILABLE, why="no language model is set any more")
    proposer = world.proposer(Policy.from_dict(x.policy))
    if proposer is None:
        return replace(thought, outcome=Outcome.UNAVAILABLE, why="no language model may propose changes here any more")
    if proposer["priced"] and not may_spend(x):
        return replace(thought, outcome=Outcome.BUDGET, why="nobody agrees to its spending any more")
    return None


class _Before(NamedTuple):
    """What was paid for a thought whose transcript went with another machine, so that it was begun anew."""

    sitting: int = 0
    turns: int = 0
    usd: float = 0.0

    @property
    def name(self) -> str:
        """Tells its prices from those of the transcript that is gone."""
        return f"since-{self.sitting}/" if self.sitting else ""


def _before(thought: Thought, transcript: Transcript) -> _Before:
    """Kept beside the new transcript, because after its first turn nothing else tells that there was another."""
    note = transcript.path.with_suffix(".since")
    if note.is_file():
        return _Before(*json.loads(note.read_text(encoding="utf-8")))
    if transcript.conversation.turns or not thought.turns:
        return _Before()
    found = _Before(thought.sittings, thought.turns, thought.usd)
    note.write_text(json.dumps(found), encoding="utf-8")
    return found


def _tell_refusal(transcript: Transcript, thought: Thought) -> None:
    """A proposal that failed outside of the conversation goes back into it, once."""
    talk = transcript.conversation
    finished = [result for _, result in talk.actions if result.finishes]
    if not thought.refusals or len(finished) > thought.proposals or not talk.results:
        return
    if any(result.finishes for result in talk.results.values()):
        left = MOST_REFUSALS - len(thought.refusals)
        words = f"{refusal_text([thought.refusals[-1]])} {left} more may fail like this before the playbook goes on."
        transcript.say(words, list(talk.results.values()))


def _usd_limit(x: Experiment, thought: Thought, model: Model) -> float:
    """For the whole of the thought. What the next run takes stays untouched, where its machine costs something."""
    if model.price.free:
        return math.inf
    left = left_of_agreed(x).usd
    price = Policy.from_dict(x.policy).usd_per_hour
    if price:
        kept = (next_run_hours(x) or 0.0) * price
        left = min(max(0.0, left - kept), left * MOST_SHARE)
    return thought.usd + left


def _come_of(thought: Thought, work: Work) -> tuple[Proposal | None, Thought]:
    """What the sitting came to."""
    if work.ended is Ended.PAUSED:
        return None, thought
    if work.ended is not Ended.FINISHED:
        return None, replace(thought, outcome=_OUTCOMES[work.ended], why=work.why)
    if work.why.startswith(GAVE_UP):
        return None, replace(thought, outcome=Outcome.REFUSED, why=work.why)
    proposal = Proposal.from_dict(json.loads(work.why))
    match proposal.kind:
        case Kind.NOTHING:
            return None, replace(thought, outcome=Outcome.NOTHING, why=proposal.reason)
        case Kind.QUESTION:
            return None, replace(thought, outcome=Outcome.QUESTION, why=proposal.question)
    return proposal, thought


async def _told(
    world: World, x: Experiment, thought: Thought, proposal: Proposal | None, paid: Sequence[NewEvent]
) -> list[NewEvent]:
    data = {
        "thought": thought.n,
        "run": thought.run,
        "sitting": thought.sittings,
        "model": thought.model,
        "turns": thought.turns,
        "usd": thought.usd,
        "outcome": str(thought.outcome) if thought.outcome is not None else None,
        "why": thought.why,
        "proposal": proposal.as_dict() if proposal is not None else None,
    }
    events = [*paid, NewEvent(EventKind.THOUGHT, f"thought/{thought.n}/{thought.sittings}", data)]
    if thought.over:
        events += await without_data(world, x, thought.why)
    return events


GAVE_UP = f"{MOST_WRONG} proposals broke the rules, the last one"
"""Finishes a conversation in which nothing else comes."""


class _Bench:
    """What one sitting rests on: the files as they stand, and the check of a proposal within the conversation."""

    def __init__(
        self, world: World, x: Experiment, ground: Ground, standing: Mapping[int, Standing],
        read_only: Mapping[str, str], asked: Asked, held_out: Sequence[Item], wrong: int,
    ) -> None:  # fmt: skip
        self.asked = asked
        self._world, self._x, self._ground, self._standing = world, x, ground, standing
        self._read_only = read_only
        self.held_out = held_out
        self._wrong = wrong

    @classmethod
    async def of(cls, world: World, x: Experiment, run: Run | None, wrong: int, wish: str) -> _Bench:
        """`wrong` is how many proposals of this conversation have broken a rule so far."""
        assert x.goal is not None
        here = Standing(x.recipe, x.recipe_digests, await texts_of(world, x, x.recipe_digests, x.head_sha))
        standing = {0: here}
        for each in x.runs:
            if run is not None and (each.stage, each.method) == (run.stage, run.method):
                texts = await texts_of(world, x, each.digests, each.head_sha)
                standing[each.n] = Standing(each.recipe, each.digests, texts)
        files = {"recipe.yaml": here.recipe, **here.texts}
        others = [path for path in x.recipe_digests if path not in PATCHABLE]
        read_only = await texts_of(world, x, x.recipe_digests, x.head_sha, others)
        parameters = (await asyncio.to_thread(describe_model, await base_model(world, x)))[1]
        open_data = run is None and x.goal.dataset is None and (x.goal.recipe is None or not sources_of(x.goal.recipe))
        ground = Ground(x, run, parameters or None, agreed_names(x), data_is_open=open_data)
        asked = Asked(
            x, run, await asyncio.to_thread(curves_of, world, x), ground.covered,
            {path: len(text) for path, text in files.items()}, run.remedy if run is not None else None,
            log=_failed_log(world, x, run) if run is not None else "",
            wish=wish,
        )  # fmt: skip
        benchmark = await benchmark_of(world, x)
        held_out = await asyncio.to_thread(held_out_items, benchmark, x.goal.seed)
        return cls(world, x, ground, standing, read_only, asked, held_out, wrong)

    @property
    def files(self) -> dict[str, str]:
        return {"recipe.yaml": self._standing[0].recipe, **self._standing[0].texts, **self._read_only}

    async def propose(self, arguments: Mapping[str, Any]) -> Verdict:
        """The rules, at once: everything that takes no job to find out."""
        try:
            proposal = await self._pinned(read_proposal(arguments, self._standing))
            wrong = problems_of(self._ground, proposal)
            wrong += await asyncio.to_thread(self._looked_through, proposal)
        except UserError as error:
            wrong = [str(error)]
        if wrong:
            self._wrong += 1
            ended = self._wrong >= MOST_WRONG
            return Verdict(refusal_text(wrong[:8]), ended, f"{GAVE_UP}: {' '.join(wrong)[:500]}" if ended else "")
        text = "Taken. It is built and tried now; if that fails you will be told how."
        return Verdict(text if proposal.kind.changes else "Taken.", True, json.dumps(proposal.as_dict()))

    async def _pinned(self, proposal: Proposal) -> Proposal:
        """A data set by the commit that it has now; the gates of licence and independence come with that."""
        if not proposal.dataset:
            return proposal
        world, x = self._world, self._x
        repository = world.repository(x)
        _, ref = await repository.default_branch()
        policy = Policy.from_dict(x.policy)
        found = await pin(
            world, repository, ref, policy, proposal.dataset, await benchmark_of(world, x), x.pins.get("benchmark")
        )  # fmt: skip
        return pinned(proposal, found.line).on(self._standing[proposal.base])

    def _looked_through(self, proposal: Proposal) -> list[str]:
        """Items in its words or its scripts, and arguments that no installed library takes."""
        found = []
        words = [{"text": text} for text in (proposal.reason, proposal.question) if text]
        if scan(words, self.held_out).flagged:
            found.append("The reason repeats an item of the benchmark, and it is published: say it without.")
        texts = {path: text.encode() for path, text in proposal.files.items()}
        found += [f"{each.sentence()} Take it out." for each in audit_scripts(texts, self.held_out)[:3]]
        installed = installed_beside(self._world)
        for path, text in proposal.files.items():
            found += unknown_keywords(installed, path, text)[:5] if installed is not None else []
        return found


def installed_beside(world: World) -> Installed | None:
    """The libraries that jobs of this machine train with; None where they run elsewhere."""
    return Installed(world.job_python) if world.runner.name in ("local", "warm", "scripted") else None


async def texts_of(
    world: World, x: Experiment, digests: Mapping[str, str], ref: str, paths: Collection[str] = PATCHABLE
) -> dict[str, str]:
    """Path -> text of these scripts: by default of those that a proposal may rewrite."""
    found = {}
    for path in paths:
        if path in digests:
            content = await script_of(world, x, path, digests[path], ref)
            found[path] = content.decode("utf-8", "replace")
    return found


def _failed_log(world: World, x: Experiment, run: Run) -> str:
    """The end of the log of the job that this run failed in."""
    if run.failure is None:
        return ""
    checked = x.data.get(data_key(run.recipe, run.digests), {})
    jobs = [x.jobs.get(checked["job_id"])] if checked.get("build_failed") and "job_id" in checked else []
    jobs += [x.job_for(role, run.n) for role in (JobRole.TRAIN, JobRole.EVALUATE)]
    failed = next((job for job in jobs if job is not None and not job.succeeded), None)
    return log_of(world, failed.job_id) if failed is not None else ""
