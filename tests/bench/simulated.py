"""Goals whose models are coins: everything that decides is Postdoc's own, only the answers to the items are drawn.

Every action that `next_action` names is carried out on the experiment as `bot.loop.actions` would, with the same pure
functions (`judged`, `holdout_events`, `seal_events`) on evaluations whose scores are drawn. An item has a probability
of its own of being answered right, drawn from a beta distribution, so that two models' answers to it correlate.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from typing import Any

from bot.brain.playbook import Remedy
from bot.domain.budget import Envelope
from bot.domain.evaluation import Evaluation, Sample, Verdict
from bot.domain.experiment import BASELINE, EventKind, Experiment, JobRole, NewEvent, State
from bot.domain.fold import tell
from bot.domain.goal import Budget, Goal, GoalId
from bot.loop.action import Action
from bot.loop.judging import holdout_events, judged, reached_run, seal_events, wise
from bot.loop.policy import head_recipe_hash, next_action
from bot.loop.spending import data_key

CORRELATION = 0.5
"""Of two models' answers to one item, the usual guess for GPQA and its like."""


@dataclass
class Items:
    """One split's items and what a model of the base model's ability answers."""

    split: str
    chances: list[float]
    right: list[Sample] = field(default_factory=list)
    wrong: list[Sample] = field(default_factory=list)

    @classmethod
    def drawn(cls, split: str, n: int, ability: float, rng: random.Random) -> Items:
        # Beta(a, b) with a + b = 1 / correlation - 1 gives answers of two models that correlation.
        weight = 1 / CORRELATION - 1
        chances = [rng.betavariate(ability * weight, (1 - ability) * weight) for _ in range(n)]
        ids = [f"{split}{i}" for i in range(n)]
        return cls(split, chances, [Sample(one, 1.0) for one in ids], [Sample(one, 0.0) for one in ids])

    def answered(self, model: str, rng: random.Random) -> Evaluation:
        samples = tuple(
            right if rng.random() < chance else wrong
            for chance, right, wrong in zip(self.chances, self.right, self.wrong, strict=True)
        )
        n = len(samples)
        value = sum(sample.score for sample in samples) / n
        error = math.sqrt(value * (1 - value) / (n - 1))
        return Evaluation("b", "d", model, "exact_match", value, error, n, self.split, samples=samples)


def score_of(found: Evaluation) -> dict[str, Any]:
    return {
        "value": found.value, "standard_error": found.standard_error, "n": found.n, "ci_low": 0.0, "ci_high": 1.0,
        "split": found.split, "harness_digest": found.harness_digest,
    }  # fmt: skip


@dataclass
class Ended:
    state: State
    runs: int
    better: bool
    """Whether any run was called better, than the base model or than the best before it."""


class SimulatedGoal:
    """A goal without effect: every run answers like the base model, and the target lies `gain` above its dev value."""

    def __init__(self, seed: int, *, runs: int, ability: float = 0.3, gain: float = 0.03, n: int = 448) -> None:
        self.rng = random.Random(seed)
        sizes = {"dev": n, "holdout": n // 2, "sealed": n}
        self.items = {split: Items.drawn(split, size, ability, self.rng) for split, size in sizes.items()}
        self.answers: dict[tuple[str, int], Evaluation] = {}
        baseline = self.answer("dev", BASELINE)
        goal = Goal("g", "m", "b", target=baseline.value + gain, budget=Budget(runs=runs, gpu_hours=1000.0))
        envelope = Envelope(goal.hash, Budget(runs=runs, gpu_hours=1000.0, wall_hours=1e6), frozenset({"*"})).as_dict()
        self.x = Experiment(
            GoalId("o/r#1"), is_goal=True, contract_version=0, goal=goal, pull_request=1, head_sha="h0",
            recipe="learning_rate: 1\n", consent={"by": "ada", "head_sha": "h0", "envelope": envelope}, splits=sizes,
            recipe_digests={"train.py": "t"}, shipped_digests={"train.py": "t"},
        )  # fmt: skip
        self.x.data[data_key(self.x.recipe, self.x.recipe_digests)] = {}
        tell(self.x, [NewEvent(EventKind.BASELINE_RECORDED, "b", {"score": score_of(baseline), "splits": sizes})], 0.0)

    def answer(self, split: str, run: int) -> Evaluation:
        if (split, run) not in self.answers:
            self.answers[split, run] = self.items[split].answered(f"run {run}", self.rng)
        return self.answers[split, run]

    def pursued(self) -> Ended:
        while not self.x.concluded:
            action = next_action(self.x)
            assert action is not None, f"nothing follows in state {self.x.state}"
            tell(self.x, getattr(self, f"_{action.kind}")(action), 0.0)
        found = [each for run in self.x.runs for each in (run.against_baseline, run.against_best) if each]
        return Ended(self.x.state, len(self.x.runs), any(each["verdict"] == Verdict.BETTER for each in found))

    # What the actions bring about

    def _start_run(self, action: Action) -> list[NewEvent]:
        n = action.args["run"]
        data = {"run": n, "recipe_hash": head_recipe_hash(self.x), "head_sha": self.x.head_sha, "method": "sft",
                "changed": {}, "check_run_id": None}  # fmt: skip
        return [NewEvent(EventKind.RUN_STARTED, f"run/{n}", data)]

    def _launch(self, action: Action) -> list[NewEvent]:
        job = f"{action.args['role']}-{action.args['run']}"
        status = {"state": "succeeded", "failure": None, "started_at": 0.0, "ended_at": 0.0}
        return [
            NewEvent(EventKind.JOB_LAUNCHED, f"{job}/launched", {**action.args, "job_id": job}),
            NewEvent(EventKind.JOB_ENDED, f"{job}/ended", {"job_id": job, "status": status}),
        ]

    def _diagnose(self, action: Action) -> list[NewEvent]:
        n = action.args["run"]
        result, best = self.answer("dev", n), self.x.best_run
        before = (best.n, self.answer("dev", best.n)) if best is not None else None
        found = {"run": n, "score": score_of(result), "failure": None, "remedy": None, "report": {"diagnoses": []}}
        found |= judged(self.x, result, self.answer("dev", BASELINE), before)
        told = NewEvent(EventKind.DIAGNOSED, f"run/{n}/diagnosed", found)
        tell(self.x, [told], 0.0)  # what follows is decided by an experiment that knows it
        run, reached = self.x.runs[n - 1], reached_run(self.x)
        if reached is not None and reached.n == n:
            rung = self.x.rung
            held = self.answer("holdout", rung.run) if rung is not None else None
            tell(self.x, holdout_events(self.x, n, self.answer("holdout", n), held), 0.0)
        if reached is None or not wise(self.x, reached):
            run.remedy = Remedy("learning_rate", n + 1, "", "something is always left to try").as_dict()
        return []

    def _review(self, action: Action) -> list[NewEvent]:
        n = action.args["run"]
        data = {"run": n, "review_id": 1, "remedy": self.x.runs[n - 1].remedy, "probe": None}
        return [NewEvent(EventKind.REVIEWED, f"run/{n}/reviewed", data)]

    def _revise(self, action: Action) -> list[NewEvent]:
        n = action.args["run"] + 1
        data = {"head_sha": f"h{n}", "recipe": f"learning_rate: {n}\n", "changed": {"learning_rate": [n - 1, n]},
                "why": "", "by": "postdoc"}  # fmt: skip
        return [NewEvent(EventKind.REVISED, f"revised/{n}", data)]

    def _confirm(self, action: Action) -> list[NewEvent]:
        n, sealed = action.args["run"], self.answer("sealed", action.args["run"])
        asked = self.x.job_for(JobRole.CONFIRM, BASELINE) is not None
        base = self.answer("sealed", BASELINE) if asked else None
        return seal_events(self.x, n, sealed, score_of(sealed), action.args["why"], base)

    def _conclude(self, action: Action) -> list[NewEvent]:
        return [NewEvent(EventKind.ENDED, "ended", dict(action.args))]
