"""A goal told as a journal, from the opened issue to its end, so that messages are tested on what really arrives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from bot.domain.experiment import Event, EventKind, Experiment
from bot.domain.fold import experiment_of
from bot.domain.goal import Budget, Goal, GoalId

GOAL_ID = GoalId("acme/widgets#42")
RECIPE = "method: sft\nlearning_rate: 2e-5  # from the card\nnum_train_epochs: 3\nmax_length: 2048\n"
SHA = {0: "1a2b3c4d5e6f" + "0" * 28, 1: "1a2b3c4d5e6f" + "0" * 28, 2: "7d8e9f0a1b2c" + "1" * 28}


def make_goal(**changes: Any) -> Goal:
    fields: dict[str, Any] = {
        "title": "Raise tiny-qwen3 on reverse to 90 %",
        "base_model": "postdoc/tiny-qwen3",
        "benchmark": "practice/reverse",
        "target": 0.9,
        "recipe": RECIPE,
        "licences": ("apache-2.0",),
        "budget": Budget(usd=0.0, gpu_hours=1.0, runs=4, wall_hours=24.0),
        "seed": 7,
    }
    return Goal(**fields | changes)


def score(value: float, low: float, high: float, n: int = 200, **more: Any) -> dict[str, Any]:
    fields = {"value": value, "standard_error": 0.03, "n": n, "ci_low": low, "ci_high": high, "split": "dev"}
    return fields | {"harness_digest": "9f8e7d6c5b4a39281706", "job_id": "job"} | more


def comparison(
    difference: float, low: float, high: float, p: float, discordant: list[int], verdict: str
) -> dict[str, Any]:
    return {
        "difference": difference,
        "ci_low": low,
        "ci_high": high,
        "p_value": p,
        "n": 200,
        "discordant": discordant,
        "verdict": verdict,
        "minimum_detectable": 0.062,
        "n_needed": 1450 if verdict == "cannot tell" else None,
    }


PLATEAU = {
    "symptom": "plateau",
    "severity": "harmful",
    "confidence": 0.86,
    "evidence": [
        {"key": "loss", "step": 10, "value": 3.912},
        {"key": "loss", "step": 300, "value": 3.874},
        {"key": "grad_norm", "step": 300, "value": 1.9},
    ],
    "cause": "The loss fell by 1 % over 300 steps while the gradient norm stayed at 1.9: the rate is too small.",
    "line": 2,
    "key": "learning_rate",
    "suggested": 0.001,
    "runner_up": "The data has nothing that this model could learn.",
    "refuted_by": "A ten times larger rate leaves the loss as it is.",
}
CLIPPED = PLATEAU | {
    "symptom": "truncation",
    "severity": "advice",
    "confidence": 0.6,
    "cause": "12 of 4,000 rows are longer than max_length.",
    "key": "max_length",
    "suggested": None,
    "runner_up": None,
    "refuted_by": "",
    "line": 4,
    "evidence": [{"key": "truncated_rows", "step": None, "value": 12}],
}
RULED_OUT = ["divergence: the largest loss is 3.95, at the first step", "missing_eos: all 4,000 rows end with EOS"]


class Story:
    """A journal that grows by named chapters; `experiment()` folds it."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def add(self, kind: EventKind, **data: Any) -> Story:
        n = len(self.events)
        self.events.append(Event(n, kind, f"event/{n}", 1_000.0 + 30 * n, data))
        return self

    def experiment(self) -> Experiment:
        return experiment_of(GOAL_ID, self.events)

    def opened(self) -> Story:
        return self.add(
            EventKind.GOAL_OPENED,
            owner="acme",
            repository="widgets",
            issue=42,
            installation_id=1,
            author="alice",
            author_id=11,
            title="Raise tiny-qwen3 on reverse to 90 %",
            body="",
            delivery_id="d",
        )

    def contracted(self, goal: Goal | None = None, **policy: Any) -> Story:
        return self.add(
            EventKind.CONTRACT_READ,
            text_version=0,
            comment_id=1,
            refusal=None,
            goal=(goal or make_goal()).as_dict(),
            policy=policy,
            recipe=RECIPE,
            recipe_source="the goal's own starting recipe",
            digests={},
            shipped_digests={},
            author_permission="write",
            folder="experiments/0042-reverse",
            branch="postdoc/42-reverse",
        )

    def job(self, job_id: str, role: str, run: int, seconds: float = 12.0, **status: Any) -> Story:
        self.add(EventKind.JOB_LAUNCHED, job_id=job_id, role=role, run=run, attempt=1)
        done = {"state": "succeeded", "failure": None, "started_at": 100.0, "ended_at": 100.0 + seconds}
        return self.add(EventKind.JOB_ENDED, job_id=job_id, status=done | status)

    def proposed(self) -> Story:
        self.job("base", "baseline", 0)
        self.add(EventKind.BASELINE_RECORDED, score=score(0.015, 0.005, 0.043))
        return self.add(EventKind.PROPOSED, pull_request=43, sticky_comment_id=2, head_sha=SHA[0])

    def trained(self, n: int, changed: Mapping[str, Any] | None = None) -> Story:
        self.add(
            EventKind.RUN_STARTED,
            run=n,
            recipe_hash=f"{n}c0ffee0beef",
            head_sha=SHA[min(n, 2)],
            method="sft",
            changed=changed or {},
            check_run_id=n,
        )
        self.job(f"train-{n}", "train", n, 14.0)
        return self.job(f"evaluate-{n}", "evaluate", n, 9.0)

    def diagnosed(self, n: int, **found: Any) -> Story:
        fields: dict[str, Any] = {
            "score": None,
            "verdict": None,
            "against_baseline": None,
            "against_best": None,
            "failure": None,
            "report": {"diagnoses": [], "ruled_out": RULED_OUT},
            "remedy": None,
        }
        return self.add(EventKind.DIAGNOSED, run=n, **fields | found)

    def first_run_falls_short(self) -> Story:
        self.trained(1).diagnosed(
            1,
            score=score(0.025, 0.011, 0.057, strict=0.025, lenient=0.09, termination_rate=0.97),
            verdict="cannot tell",
            against_baseline=comparison(0.01, -0.015, 0.035, 0.625, [1, 3], "cannot tell"),
            report={"diagnoses": [PLATEAU, CLIPPED], "ruled_out": RULED_OUT},
            remedy={
                "key": "learning_rate",
                "value": 0.001,
                "line": "learning_rate: 0.001",
                "why": "The range test's loss fell fastest at 0.001.",
                "symptom": "plateau",
                "probe": True,
            },
        )
        probe = {
            "steps": 20,
            "trials": [
                {"learning_rate": 1e-4, "loss_first": 3.9, "loss_last": 3.1, "grad_norm_last": 1.7, "diverged": False},
                {"learning_rate": 1e-3, "loss_first": 3.9, "loss_last": 1.2, "grad_norm_last": 0.9, "diverged": False},
                {
                    "learning_rate": 1e-1,
                    "loss_first": 3.9,
                    "loss_last": "NaN",
                    "grad_norm_last": "NaN",
                    "diverged": True,
                },
            ],
            "suggested": 0.001,
            "reason": "its loss fell most without diverging.",
        }
        remedy = self.experiment().runs[0].remedy
        return self.add(EventKind.REVIEWED, run=1, review_id=5, remedy=remedy, probe=probe)

    def second_run_reaches(self) -> Story:
        changed = {"learning_rate": [2e-5, 0.001]}
        self.trained(2, changed).diagnosed(
            2,
            score=score(0.935, 0.892, 0.962, strict=0.935, lenient=0.935, termination_rate=1.0),
            verdict="better",
            against_baseline=comparison(0.92, 0.882, 0.958, 1e-40, [0, 184], "better"),
            against_best={"run": 1} | comparison(0.91, 0.87, 0.95, 1e-39, [0, 182], "better"),
        )
        return self.add(EventKind.REVIEWED, run=2, review_id=6, remedy=None, probe=None)

    def ended(self, state: str, reason: str = "") -> Story:
        return self.add(EventKind.ENDED, state=state, reason=reason)


@pytest.fixture
def story() -> Story:
    """An issue whose contract has been read and whose pull request stands."""
    return Story().opened().contracted().proposed()


@pytest.fixture
def after_two_runs(story: Story) -> Story:
    return story.first_run_falls_short().second_run_reaches()


@pytest.fixture
def goal() -> Callable[..., Goal]:
    return make_goal
