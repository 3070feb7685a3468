"""Experiments as a journal would tell them, for tests of what is decided next."""

from __future__ import annotations

from typing import Any

import yaml

from bot.brain.playbook import Means, Remedy
from bot.brain.search import Decision, Search, next_change
from bot.domain.diagnosis import Diagnosis, DiagnosisReport, Severity, Symptom
from bot.domain.experiment import Experiment, Job, JobRole, Run, Score
from bot.domain.goal import Budget, Goal, GoalId, digest_of
from bot.domain.recipe import differences, recipe_hash

RECIPE = """\
method: sft
init_from: postdoc/tiny-qwen3
data_sources: data/rows.jsonl
seed: 0
learning_rate: 0.001
max_steps: 100
per_device_train_batch_size: 32
max_length: 256
"""
SCRIPTS = {"train.py": "a" * 64, "data/prepare.py": "b" * 64}
ALL = Means(runs_left=8, family="qwen3", parameters=3.3e5, covered=frozenset({"*"}))


def goal(**fields: Any) -> Goal:
    budget = Budget(runs=fields.pop("runs", 4))
    values: dict[str, Any] = {"base_model": "postdoc/tiny-qwen3", "benchmark": "practice/reverse", "target": 0.9}
    return Goal(title="Raise", budget=budget, **(values | fields))


def found(symptom: Symptom, key: str | None = None, suggested: Any = None, **fields: Any) -> Diagnosis:
    values: dict[str, Any] = {
        "severity": Severity.HARMFUL,
        "confidence": 0.9,
        "evidence": (),
        "cause": f"It is {symptom}.",
    }
    return Diagnosis(symptom, key=key, suggested=suggested, line=1 if key else None, **(values | fields))


class Place:
    """An experiment that grows run by run."""

    def __init__(self, recipe: str = RECIPE, **fields: Any) -> None:
        self.x = Experiment(GoalId("acme/lab#1"), is_goal=True, goal=goal(**fields), recipe=recipe)
        self.x.recipe_digests = self.x.shipped_digests = dict(SCRIPTS)

    def ran(
        self, value: float | None, *diagnoses: Diagnosis, seconds: float = 60.0, by: str | None = None, **fields: Any
    ) -> Place:
        """The recipe at the head was trained; `value` None: it crashed."""
        x, n = self.x, len(self.x.runs) + 1
        values = yaml.safe_load(x.recipe)
        last = yaml.safe_load(x.runs[-1].recipe) if x.runs else values
        run = Run(
            n, x.recipe, recipe_hash(values, script_digest=digest_of(x.recipe_digests)), f"{n:040d}",
            method=values["method"], digests=dict(x.recipe_digests), stage=x.stage, yardstick=x.yardstick,
            changed={key: list(pair) for key, pair in differences(last, values).items()},
            changed_by=("postdoc" if n > 1 else "") if by is None else by,
        )  # fmt: skip
        if value is not None:
            run.score = Score(value, 0.02, 200, value - 0.04, value + 0.04, "dev", "d")
        else:
            run.failure = "The train job failed."
        run.report, run.diagnosed, run.reviewed = DiagnosisReport(diagnoses), True, True
        for name, given in fields.items():
            setattr(run, name, told(given) if name == "against_best" else given)
        status = {"state": "succeeded" if value is not None else "failed", "failure": None}
        x.jobs[f"train-{n}"] = Job(
            f"train-{n}", JobRole.TRAIN, n, status=status | {"started_at": 0.0, "ended_at": seconds}
        )
        x.runs.append(run)
        x.tried[run.recipe_hash] = n
        return self

    def decided(self, search: Search = Search.PLAYBOOK, means: Means = ALL) -> Decision:
        return next_change(self.x, means, search)

    def remedy(self, search: Search = Search.PLAYBOOK, means: Means = ALL) -> Remedy:
        decision = self.decided(search, means)
        assert decision.remedy is not None, decision.stuck
        return decision.remedy

    def revised(self, search: Search = Search.PLAYBOOK, means: Means = ALL) -> Place:
        """What is decided is committed: it stands at the head."""
        remedy = self.remedy(search, means)
        run = self.x.runs[-1]
        run.remedy = Remedy.from_dict(remedy.as_dict()).as_dict()
        self.x.recipe = remedy.applied(run.recipe)
        if remedy.stage is not None:
            self.x.stage = remedy.stage["index"]
        return self

    def values(self) -> dict[str, Any]:
        """Of the recipe at the head."""
        return dict(yaml.safe_load(self.x.recipe))


def told(against: dict[str, Any]) -> dict[str, Any]:
    """A comparison as a journal has it, from the run and the verdict alone."""
    low, high = {"better": (0.05, 0.15), "worse": (-0.15, -0.05), "cannot tell": (-0.05, 0.05)}[against["verdict"]]
    clear = against["verdict"] != "cannot tell"
    return {
        "difference": (low + high) / 2,
        "ci_low": low,
        "ci_high": high,
        "p_value": 0.001 if clear else 0.9,
        **against,
    }
