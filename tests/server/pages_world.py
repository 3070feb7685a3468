"""Goals for the pages: journals of every state and of every oddity, and a server that shows them but starts nothing."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import uvicorn

from bot.config import Settings
from bot.conversation.policy import Policy
from bot.domain.budget import Envelope
from bot.domain.experiment import EventKind, JobRole, NewEvent
from bot.domain.goal import Budget, Goal, GoalId
from bot.practice.auth import new_key_pair
from bot.practice.world import free_port
from bot.server.app import Bot, create_app
from runners.job import JobId, JobState, JobStatus
from tests.fakes.runner import ScriptedRunner

SECRET = "a-secret-for-webhooks"
HOUR = 3600.0
RECIPE = (
    "method: sft\n"
    "learning_rate: 2.0e-05  # from the card of the 7B model\n"
    "num_train_epochs: 1\n"
    "max_length: 128\n"
    "seed: 0\n"
)
_key = ""


def make_bot(folder: Path, **changes: object) -> Bot:
    global _key
    _key = _key or new_key_pair()[0]
    values = {"app_id": "1", "private_key": _key, "webhook_secret": SECRET, "data_folder": folder / "data"}
    bot = Bot(Settings.model_validate(values | changes), runner=ScriptedRunner(folder / "runner"))
    # Thousands of events are written here one by one, and nobody pulls the plug.
    engine = bot.journal._engine
    sa.event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF"))
    engine.dispose()
    return bot


class Story:
    """One goal's journal, told event by event. Times are hours before now."""

    def __init__(
        self,
        bot: Bot,
        issue: int,
        *,
        title: str = "Raise exact match on reversal",
        full_name: str = "acme/speller",
        author: str = "ada",
        hours_ago: float = 5.0,
        step_minutes: float = 7.0,
    ) -> None:
        self.bot, self.issue = bot, issue
        self.goal_id = GoalId(f"{full_name}#{issue}")
        self.at, self.step = time.time() - hours_ago * HOUR, step_minutes * 60
        self.n = self.job_number = 0
        self.recipe = RECIPE
        owner, _, repository = full_name.partition("/")
        self.say("goal_opened", owner=owner, repository=repository, issue=issue, title=title, body="b", author=author,
                 author_id=7, installation_id=1, delivery_id="d")  # fmt: skip

    def say(self, kind: str, **data: Any) -> Story:
        self.n += 1
        self.at = min(self.at + self.step, time.time())
        self.bot.journal._clock = lambda: self.at
        self.bot.journal.append(self.goal_id, [NewEvent(EventKind(kind), f"{kind}/{self.n}", data)])
        return self

    def understood(self, *, usd_per_hour: float = 0.0, **changes: Any) -> Story:
        fields: dict[str, Any] = {
            "title": "t", "base_model": "Qwen/Qwen3-0.6B-Base", "benchmark": "practice/reverse", "target": 0.9,
            "budget": Budget(usd=20.0 if usd_per_hour else 0.0, gpu_hours=4.0, runs=6),
        }  # fmt: skip
        goal = Goal(**fields | changes)
        self.goal = goal
        policy = Policy.from_dict({"usd_per_hour": usd_per_hour}).as_dict()
        digests = {"train.py": "a" * 64, "data/prepare.py": "b" * 64}
        return self.say(
            "contract_read", text_version=0, comment_id=1, refusal=None, goal=goal.as_dict(), policy=policy,
            recipe=self.recipe, recipe_source="the playbook's row for Qwen3", digests=digests, shipped_digests=digests,
            folder=f"experiments/{self.issue:04d}-reverse", branch=f"postdoc/{self.issue}-reverse",
            author_permission="admin",
        )  # fmt: skip

    def not_understood(self, why: str) -> Story:
        policy = Policy.from_dict({}).as_dict()
        return self.say("contract_read", text_version=0, comment_id=1, refusal=why, goal=None, policy=policy)

    def job(self, role: str, run: int, *, seconds: float = 600.0, state: str = "succeeded", failure: str | None = None,
            ends: bool = True) -> str:  # fmt: skip
        self.job_number += 1
        job_id = f"speller-{self.issue}-{self.job_number:06d}-{role}-{run:02d}-1"
        self.say("job_launched", job_id=job_id, role=role, run=run, attempt=1, expects="")
        if ends:
            self.at = min(self.at + seconds, time.time())
            status = {"job_id": job_id, "state": state, "started_at": self.at - seconds, "ended_at": self.at,
                      "exit_code": 0, "failure": failure, "evidence": [], "tier": "plain",
                      "peak_memory_gib": 1.0}  # fmt: skip
            self.say("job_ended", job_id=job_id, status=status)
        return job_id

    def planned(self, baseline: float = 0.031) -> Story:
        self.job("baseline", 0, seconds=140)
        self.say("baseline_recorded", score=score(baseline))
        self.job("data", 1, seconds=20)
        self.say("data_checked", data_key="k", job_id="j", build={"rows": 3000}, scan={"verdict": "clean"}, warnings=[],
                 licences={}, blocked=None)  # fmt: skip
        self.say("planned", facts={}, base="main", base_sha="c0ffee" * 6)
        return self.say(
            "proposed", pull_request=self.issue + 1, head_sha=f"{self.issue:02d}ab" * 10, sticky_comment_id=2
        )

    def agreed(self, by: str = "policy") -> Story:
        envelope = Envelope(
            self.goal.hash, self.goal.budget, frozenset({"learning_rate", "num_train_epochs", "max_length"})
        )
        return self.say("consented", by=by, head_sha=f"{self.issue:02d}ab" * 10, envelope=envelope.as_dict())

    def started(self, run: int, changed: dict[str, Any] | None = None) -> Story:
        return self.say("run_started", run=run, head_sha=f"{run:02d}cd" * 10, recipe_hash=f"h{run}", method="sft",
                        changed=changed or {}, check_run_id=run)  # fmt: skip

    def curve(self, job_id: str, rows: list[dict[str, Any]]) -> Story:
        folder = self.bot.runner.folder(job_id)  # type: ignore[arg-type]
        (folder / "out").mkdir(parents=True, exist_ok=True)
        (folder / "out" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return self

    def trained(self, run: int, value: float | None, *, verdict: str = "better", failure: str | None = None,
                diagnoses: tuple[dict[str, Any], ...] = (), changed: dict[str, Any] | None = None,
                curve: list[dict[str, Any]] | None = None, seconds: float = 1500.0) -> Story:  # fmt: skip
        self.started(run, changed)
        job_id = self.job("train", run, seconds=seconds, state="failed" if failure else "succeeded",
                          failure="oom" if failure else None)  # fmt: skip
        self.curve(job_id, curve if curve is not None else losses(run))
        if value is not None:
            self.job("evaluate", run, seconds=150)
        against = {"difference": (value or 0) - 0.031, "ci_low": 0.1, "ci_high": 0.3, "p_value": 0.0004, "n": 250,
                   "discordant": [3, 40], "verdict": verdict, "minimum_detectable": 0.05, "n_needed": None}  # fmt: skip
        remedy = {"key": "learning_rate", "value": 0.003, "symptom": "plateau", "why": "the loss fell to the end",
                  "also": {}, "probe": False, "rates": []} if diagnoses else None  # fmt: skip
        self.say("diagnosed", run=run, score=score(value) if value is not None else None,
                 verdict=verdict if value is not None else None,
                 against_baseline=against if value is not None else None,
                 against_best=None, failure=failure, remedy=remedy,
                 report={"diagnoses": list(diagnoses), "ruled_out": ["oom"]})  # fmt: skip
        return self.say("reviewed", run=run, review_id=run, remedy=remedy, probe=None)

    def revised(self, run: int, **changed: Any) -> Story:
        return self.say("revised", head_sha=f"{run:02d}ef" * 10, recipe=self.recipe, changed=changed or
                        {"learning_rate": [2e-5, 0.003]}, why="the loss fell to the end", by="postdoc")  # fmt: skip

    def ended(self, state: str, reason: str) -> Story:
        return self.say("ended", state=state, reason=reason, head_sha=None)


def score(value: float, n: int = 250) -> dict[str, Any]:
    low, high = max(0.0, value - 0.04), min(1.0, value + 0.03)
    return {"value": value, "standard_error": 0.01, "n": n, "ci_low": low, "ci_high": high, "split": "dev",
            "harness_digest": "d" * 64, "job_id": "j", "strict": value, "lenient": value,
            "termination_rate": 1.0}  # fmt: skip


def losses(run: int, steps: int = 300) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for i in range(1, steps + 1):
        loss = 0.4 + 5.5 * 0.985**i / run + 0.05 * ((i * 7919) % 13 - 6) / 6
        rows.append({"step": i, "loss": loss, "grad_norm": 1 + loss / 4})
        if i % 25 == 0:
            rows.append({"step": i, "eval_loss": loss + 0.15})
    return rows


PLATEAU: dict[str, Any] = {
    "symptom": "plateau", "severity": "harmful", "confidence": 0.86,
    "evidence": [{"key": "loss", "step": 300, "value": 5.91}, {"key": "learning_rate", "step": None, "value": 2e-5}],
    "cause": "The loss fell from 6.31 to 5.91 over 300 steps and was still falling: `learning_rate` 2.0e-05 is too "
             "small for a model trained from this start.",
    "file": "recipe.yaml", "line": 2, "key": "learning_rate", "suggested": 0.003, "runner_up": "too few epochs",
    "refuted_by": "a range test in which no larger rate lowers the loss",
}  # fmt: skip
ADVICE: dict[str, Any] = {
    "symptom": "duplicates", "severity": "advice", "confidence": 0.6, "evidence": [], "cause": "12 rows occur twice.",
    "file": "data/README.md", "line": None, "key": None, "suggested": None, "runner_up": None, "refuted_by": "",
}  # fmt: skip


def every_state(bot: Bot) -> dict[str, Story]:
    """One goal for each state, and the odd ones, by name."""
    made: dict[str, Story] = {}

    def goal(name: str, **options: Any) -> Story:
        made[name] = Story(bot, len(made) + 1, **({"title": f"Goal that is {name}"} | options))
        return made[name]

    goal("contract", hours_ago=0.1)
    goal("needs author").not_understood(
        "The target `ninety` is no number. Write a percentage, `90 %`.; Which benchmark?"
    )
    goal("plan").understood()
    goal("proposed").understood().planned()
    story = goal("awaiting consent", title="Train the support model to answer in JSON", full_name="acme/support")
    story.understood(usd_per_hour=2.5).planned().say("consent_asked", head_sha=f"{story.issue:02d}ab" * 10)
    story = goal("baseline").understood()
    story.job("baseline", 0, ends=False)
    story = goal("training", title="GSM8K to 60 % with Qwen3", full_name="acme/maths").understood(usd_per_hour=1.2)
    story.planned().agreed("bob").trained(1, 0.11, diagnoses=(PLATEAU, ADVICE)).revised(2)
    story.started(2, {"learning_rate": [2e-5, 0.003]})
    story.curve(story.job("train", 2, ends=False), losses(2, 120))
    made["training"] = story
    story = goal("evaluating").understood().planned().agreed()
    story.started(1).curve(story.job("train", 1), losses(1)).job("evaluate", 1, ends=False)
    goal("reviewing").understood().planned().agreed().started(1).say(
        "diagnosed", run=1, score=None, verdict=None, against_baseline=None, against_best=None, remedy=None,
        failure="The train job failed (oom, exit code 137): Killed", report={"diagnoses": [], "ruled_out": []},
    )  # fmt: skip
    goal("revising").understood().planned().agreed().trained(1, 0.2, diagnoses=(PLATEAU,))
    story = goal("confirming").understood().planned().agreed().trained(1, 0.93)
    story.job("confirm", 1, ends=False)
    story = goal("met", title="Reverse words: exact match 90 %").understood().planned().agreed()
    story.trained(1, 0.02, diagnoses=(PLATEAU,), verdict="cannot tell").revised(2)
    story.trained(2, 0.97, changed={"learning_rate": [2e-5, 0.003]})
    story.say(
        "confirmed", run=2, confirmed=True, reason="96.0 % on the sealed items", lower_bound=0.93, score=score(0.96)
    )
    story.ended("met", "96.0 % on the sealed items, at least 93.0 %")
    story = goal("not confirmed").understood().planned().agreed().trained(1, 0.91)
    story.say(
        "confirmed", run=1, confirmed=False, reason="84.0 % is below the target", lower_bound=0.8, score=score(0.84)
    )
    story.ended("not confirmed", "84.0 % is below the target")
    goal("exhausted").understood().planned().agreed().trained(1, 0.4).ended(
        "exhausted", "The ceiling of 6 runs is used up."
    )
    goal("needs human").understood().planned().agreed().trained(1, 0.4).ended("needs human", "nothing is left to try")
    story = goal("stopped").understood().planned().agreed()
    story.say("command", verb="stop", args=[], author="bob", author_id=8, comment_id=3, number=2)
    story.say("stopped", by="bob").say("command_answered", command=story.n - 2)
    story.ended("stopped", "bob asked to stop")
    goal("closed").understood().planned().say("pull_request_closed", merged=True, by="ada").ended("closed", "merged")
    odd(goal)
    return made


def odd(goal: Any) -> None:
    goal("crashed").understood().planned().say(
        "crashed", error="something in Postdoc itself broke", reference="ab12cd34"
    )
    story = goal("forty runs", title="Forty runs of one goal", full_name="acme/maths", hours_ago=90.0, step_minutes=0.5)
    story.understood(usd_per_hour=1.2, budget=Budget(usd=60, gpu_hours=40, runs=40)).planned().agreed("ada")
    for run in range(1, 41):
        story.trained(run, 0.1 + 0.02 * run, curve=losses(1 + run % 4, 60), changed={"learning_rate": [run, run + 1]},
                      diagnoses=(PLATEAU,) if run % 5 == 0 else ())  # fmt: skip
    story.ended("exhausted", "The ceiling of 40 training runs is used up (40).")
    broken: list[dict[str, Any]] = [
        {"step": i, "loss": "NaN" if i > 40 else 3.0 * 1.2**i, "grad_norm": "Infinity"} for i in range(1, 80)
    ]
    goal("without numbers", title="The loss is NaN").understood().planned().agreed().trained(
        1, None, failure="The train job failed (script_error, exit code 1): loss is NaN", curve=broken,
        diagnoses=(PLATEAU,),
    )  # fmt: skip
    hostile = "<script>alert(1)</script> \u202egnp.exe\u202c & \"quotes\" '{{ 7*7 }}' @everyone " + "W" * 10_000
    goal("hostile", title=hostile, author="<b>mallory</b>").not_understood(
        f"`{'x' * 3_000}` <img src=x onerror=alert(1)>"
    )
    goal("foreign words", title="ارفع الدقة إلى ٩٠٪ — 精度を九割に上げる").understood().planned()


def started_jobs(bot: Bot, made: dict[str, Story]) -> None:
    """Give the runner what the journals say: training and evaluating run, every other open job is in line."""
    training = made["training"].goal_id
    for summary in bot.summaries.all():
        for job in summary.running:
            state = JobState.RUNNING if job.role in (JobRole.TRAIN, JobRole.EVALUATE) else JobState.QUEUED
            bot.runner._write(JobStatus(JobId(job.job_id), state, time.time() - 400))  # type: ignore[attr-defined]
            if summary.goal_id == training:
                bot.watcher.progress[training] = {
                    "job_id": job.job_id, "role": "train", "run": 2, "step": 120, "total_steps": 300, "loss": 1.234,
                    "eta_seconds": 754.0, "phase": "train",
                }  # fmt: skip


@contextlib.contextmanager
def shown(bot: Bot) -> Iterator[str]:
    """The bot's address, served over HTTP without starting its work: nothing is asked of any GitHub."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(create_app(bot), port=port, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(timeout=20)
