"""Answers that a rubric scores: the server's language model judges them after the job, which has no key and no network.

The job generates, as for any benchmark, and scores nothing. What the judge says of each criterion is on the disk before
anything follows from it, so that a process that is killed pays for no answer twice; the evaluation is then written anew
where the job left it, with the judge in its digest, and everybody reads it there. What it costs is the goal's.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from bot.brain.model.errors import ModelBusy, ModelError
from bot.brain.model.talk import Model, Role, Said
from bot.conversation.policy import Policy
from bot.domain.budget import month_of
from bot.domain.experiment import EventKind, Experiment, Job, NewEvent, State
from bot.domain.redaction import redact
from bot.errors import PlatformError, PostdocError, TransientError, UserError
from bot.evaluation.benchmark_file import Benchmark
from bot.evaluation.benchmarks import items
from bot.evaluation.judge import TOKENS, judged
from bot.loop.action import Action
from bot.loop.actions.jobs import is_gone, outputs_gone
from bot.loop.actions.specs import goal_folder
from bot.loop.actions.traces import EVALUATION, HOLDOUT, output_json
from bot.loop.own_benchmark import benchmark_of
from bot.loop.purse import JUDGING, spent
from bot.loop.spending import left_of_agreed
from bot.loop.world import World
from runners.job import JobId

_SYSTEM = "You grade answers by written criteria. Answer with the JSON object that is asked for, and nothing else."
_RETRY_SECONDS = 60.0


class OutOfMoney(PostdocError):
    """The next answer might cost more than is left."""


class Halted(PostdocError):
    """All spending was halted meanwhile."""


async def judge_answers(world: World, x: Experiment, action: Action) -> list[NewEvent]:
    """Have the answers of one ended evaluation scored. Raises: UserError, TransientError while the judge is away."""
    job = x.jobs[str(action.args["job_id"])]
    if is_gone(world, job):
        return [outputs_gone(job)]
    if (halt := await asyncio.to_thread(world.treasury.halted, x.full_name)) is not None:
        return [_refused(x, job, State.STOPPED, halt.sentence())]
    model, named = world.judge, str(x.pins["judge"])
    if model is None or model.name != named:
        reason = f"the answers of this goal are scored by {named}, which POSTDOC_JUDGE does not name any more"
        return [_refused(x, job, State.NEEDS_HUMAN, reason)]
    path = goal_folder(world, x) / "brain" / f"judge-{job.job_id}.jsonl"
    before = x.judged.get(job.job_id, {})
    booked = before.get("usd", 0.0)
    answers = await asyncio.to_thread(Answers, path)
    left = math.inf if model.price.free else left_of_agreed(x).usd
    key = f"{JUDGING}{job.job_id}/{before.get('answers', 0)}"
    month = Policy.from_dict(x.policy).month.usd

    def reserve(usd: float) -> None:
        if (no := world.treasury.reserve_turn(key, x, usd - booked, month)) is not None:
            raise Halted(no.reason) if no.halted else OutOfMoney(no.reason)

    loop = asyncio.get_running_loop()
    judge = ModelJudge(model, answers, booked + left, loop, world.known_secrets, reserve=reserve)
    benchmark = await benchmark_of(world, x)
    folder = world.runner.folder(JobId(job.job_id))
    refused: list[NewEvent] = []
    try:
        assert x.goal is not None
        await asyncio.to_thread(_rewrite, folder, benchmark, x.goal.seed, judge, named)
    except Halted as error:
        refused = [_refused(x, job, State.STOPPED, str(error))]
    except OutOfMoney as error:
        refused = [_refused(x, job, State.EXHAUSTED, str(error))]
    except ModelBusy as error:
        raise TransientError(str(error), retry_after_seconds=error.retry_after_seconds or _RETRY_SECONDS) from error
    except (ModelError, PlatformError) as error:
        why = str(error).rstrip(".").replace("POSTDOC_BRAIN", "POSTDOC_JUDGE" if world.own_judge else "POSTDOC_BRAIN")
        refused = [_refused(x, job, State.NEEDS_HUMAN, f"the answers cannot be scored: {why}")]
    events = [*await asyncio.to_thread(_paid, world, x, key, job, answers.usd - booked), *refused]
    # Named by the answers there are, so that a replay books nothing twice.
    name = f"judge/{job.job_id}/{answers.count}" + ("" if refused else "/done")
    told = {"job_id": job.job_id, "usd": answers.usd, "answers": answers.count, "done": not refused}
    return [NewEvent(EventKind.JUDGED, name, told), *events]


def _paid(world: World, x: Experiment, key: str, job: Job, usd: float) -> list[NewEvent]:
    """What was paid since it was last booked, settled in the treasury."""
    if usd <= 0:
        world.treasury.release(world.treasury.turn_id(x.goal_id, key))
        return []
    month = month_of(world.clock())
    world.treasury.settle_turn(key, x, usd, month)
    return [spent(key, usd, f"the judging of {job.job_id}", str(x.pins["judge"]), month)]


def _refused(x: Experiment, job: Job, state: State, reason: str) -> NewEvent:
    data: dict[str, Any] = {"state": str(state), "reason": reason}
    if job.role.of_reproduction:  # the goal itself has met no problem
        data["reproduction"] = job.run
    return NewEvent(EventKind.SPENDING_REFUSED, f"spending-refused/{x.length}", data)


def _rewrite(folder: Path, benchmark: Benchmark, seed: int, judge: ModelJudge, name: str) -> None:
    """Replace what the evaluator wrote by what the judge makes of it: on the split, and on the holdout beside dev."""
    for path in (EVALUATION, HOLDOUT):
        found = output_json(folder, path)
        if found is None:
            if path == EVALUATION:
                raise UserError("the evaluation job ended without writing its result")
            continue
        if found.get("judged") is True:
            continue
        scored = judged(found, items(benchmark, str(found["split"]), seed), judge, name)
        partial_file = (folder / path).with_suffix(".judged")
        partial_file.write_text(json.dumps(scored), encoding="utf-8")
        partial_file.replace(folder / path)


class Answers:
    """What a judge has answered to the prompts of one evaluation, each line written before it counts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting: dict[str, list[str]] = {}
        self.usd = 0.0
        self.count = 0
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            lines = []
        for line in lines:
            try:
                each = json.loads(line)
            except ValueError:
                continue  # the process was killed while it wrote this one
            self._note(each)
            if "answer" in each:
                self._waiting.setdefault(each["prompt"], []).append(each["answer"])

    def _note(self, each: Mapping[str, Any]) -> None:
        self.usd += each["usd"]
        self.count += 1

    def taken(self, prompt: str) -> str | None:
        """The next answer that this prompt has had before."""
        waiting = self._waiting.get(prompt)
        return waiting.pop(0) if waiting else None

    def add(self, prompt: str, usd: float, answer: str | None) -> None:
        each = {"prompt": prompt, "usd": usd} | ({"answer": answer} if answer is not None else {})
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(each) + "\n")
        self._note(each)


class ModelJudge:
    """`bot.evaluation.judge.Judge` by a language model of the loop `loop`, called from threads, within some money."""

    def __init__(
        self, model: Model, answers: Answers, most_usd: float, loop: asyncio.AbstractEventLoop,
        secrets: tuple[str, ...] = (), *, reserve: Callable[[float], None] = lambda usd: None,
    ) -> None:  # fmt: skip
        """`reserve` sets aside what all answers may have cost by then, and raises what ends the judging."""
        self._reserve = reserve
        self._model, self._answers, self._most_usd, self._loop = model, answers, most_usd, loop
        self._clean = partial(redact, known=secrets)
        self._lock = threading.Lock()
        self._held = 0.0
        """For what is being asked."""
        self._failed: PostdocError | None = None
        """After the first failure nothing more is asked."""

    def __call__(self, prompt: str) -> str:
        """Raises: OutOfMoney, ModelError."""
        prompt = self._clean(prompt)
        name = hashlib.sha256(prompt.encode()).hexdigest()
        # A character is at most a token.
        most = self._model.price.most(len(_SYSTEM) + len(prompt), TOKENS)
        with self._lock:
            if (known := self._answers.taken(name)) is not None:
                return known
            if self._failed is None and self._answers.usd + self._held + most > self._most_usd:
                left = max(0.0, self._most_usd - self._answers.usd)
                self._failed = OutOfMoney(
                    f"the {left:.2f} USD that are left do not pay for the judging of the answers; "
                    "`/postdoc budget +5usd` and `/postdoc resume` go on with it"
                )
            if self._failed is None:
                try:
                    self._reserve(self._answers.usd + self._held + most)
                except PostdocError as error:
                    self._failed = error
            if self._failed is not None:
                raise self._failed
            self._held += most
        return self._paid(prompt, name, most)

    def _paid(self, prompt: str, name: str, most: float) -> str:

        async def again(wasted: float) -> bool:
            return self._answers.usd + self._held + wasted <= self._most_usd

        asked = self._model.reply(_SYSTEM, [Said(Role.USER, prompt)], most_tokens=TOKENS, again=again)
        usd, text = 0.0, None
        try:
            reply = asyncio.run_coroutine_threadsafe(asked, self._loop).result()
            usd, text = reply.usd, reply.said.text
            return text
        except ModelError as error:
            usd = error.usd
            self._failed = error
            raise
        finally:
            with self._lock:
                self._held -= most
                if usd or text is not None:
                    self._answers.add(name, usd, text)
