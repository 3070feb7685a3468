"""Pursuing tasks through the real loop: a practice forge, the real bot beside it, and warm jobs.

All goals of one policy and one seed share a repository and a bot, a few of them under way at a time. Whoever opens them
has agreed to their budgets, so a question for consent is answered in their name, as `postdoc pursue` does.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bot.domain.experiment import EventKind, Experiment, JobRole, State
from bot.domain.goal import GoalId
from bot.errors import PlatformError
from bot.gym.bases import base_name
from bot.gym.host import WarmHost
from bot.gym.place import AUTHOR, answers_to_form, place_of
from bot.gym.report import Result, RunTaken
from bot.gym.task_file import Task
from bot.loop.policy import next_action
from bot.practice.demo import MOST_RESTARTS, over
from bot.practice.goals import issue_of
from bot.practice.narration import Story
from bot.practice.world import PracticeWorld
from runners.job import read_json
from runners.warm import USAGE

POLL_SECONDS = 0.25
LONGEST_GOAL_SECONDS = 3600.0
"""Twelve runs of a minute take a quarter of it; a goal that takes longer has got stuck, and that is said."""
POLICIES = ("playbook", "random", "tpe", "none")
TRAINERS = (JobRole.TRAIN, JobRole.PROBE, JobRole.ABLATE)


@dataclass(slots=True)
class Pursued:
    """A goal under way."""

    task: Task
    issue: int
    story: Story
    opened_at: float = field(default_factory=time.monotonic)
    agreed_to: str = ""
    """The head that consent was given for."""
    agreed_at: int = 0
    """How far the journal was then."""

    @property
    def experiment(self) -> Experiment:
        return self.story.experiment

    def ended(self) -> str:
        """Why it is not followed any longer, empty while it is."""
        if time.monotonic() - self.opened_at > LONGEST_GOAL_SECONDS:
            return "it took longer than an hour"
        if not self.story.events:
            return ""
        x = self.experiment
        if over(x):
            return x.reason or x.refusal or "it is over"
        answered = any(
            event.kind is EventKind.COMMAND_ANSWERED and event.seq > self.agreed_at for event in self.story.events
        )
        if x.state is State.AWAITING_CONSENT and self.agreed_to == x.head_sha and answered and next_action(x) is None:
            # A change of scope, or of a key that nobody granted: a person would decide, and nobody is here.
            remedy = (x.run.remedy if x.run is not None else None) or {}
            return f"it waits for a person: {remedy.get('waits') or remedy.get('why') or 'no reason given'}"
        return ""


@dataclass(frozen=True, slots=True)
class Gym:
    """What stays the same from seed to seed."""

    host: WarmHost
    policy: str
    at_once: int = 1
    settings: Mapping[str, str] = field(default_factory=dict)
    """Further POSTDOC_ variables of the bot."""

    def pursue(
        self,
        tasks: Sequence[Task],
        seed: int,
        folder: Path,
        *,
        on_turn: Callable[[Sequence[Pursued]], None],
        on_result: Callable[[Result], None],
    ) -> None:
        """Pursue each task once with this seed. Raises: PlatformError, UserError."""
        models: dict[str, Path] = {}
        for task in tasks:
            models |= self.host.models_of(task)
        settings = {
            "POSTDOC_RUNNER": "warm",
            "POSTDOC_WARM_DOOR": str(self.host.door),
            "POSTDOC_SEARCH": self.policy,
            "POSTDOC_CHECK_UPDATE_SECONDS": "5",
            **self.settings,
        }
        waiting, under_way = deque(tasks), list[Pursued]()
        with PracticeWorld(folder, place_of(tasks, seed), models=models, settings=settings) as world:
            world.start_bot()
            restarts = 0
            while waiting or under_way:
                while waiting and len(under_way) < self.at_once:
                    under_way.append(opened(world, waiting.popleft(), seed))
                if not world.bot_runs:
                    restarts += 1
                    if restarts > MOST_RESTARTS:
                        raise PlatformError(f"the bot ended {restarts} times: {world.last_words()}")
                    world.start_bot()
                for goal in list(under_way):
                    look(world, goal)
                    if why := goal.ended():
                        under_way.remove(goal)
                        on_result(result_of(goal, world.data_folder, seed, why))
                on_turn(under_way)
                time.sleep(POLL_SECONDS)


def opened(world: PracticeWorld, task: Task, seed: int) -> Pursued:
    """The task as an issue of the practice forge."""
    body, labels = issue_of(answers_to_form(task, base_name(task), seed))
    issue = world.open_issue(AUTHOR.login, task.title, body, labels)
    return Pursued(task, issue, Story(GoalId(f"{world.place.full_name}#{issue}"), world.page()))


def look(world: PracticeWorld, goal: Pursued) -> None:
    """Hear what happened to the goal, and agree where the bot asks."""
    rows, _ = world.events(goal.issue, goal.story.last_seq)
    goal.story.heard(rows)
    if not goal.story.events:
        return
    x = goal.experiment
    if x.state is State.AWAITING_CONSENT and x.pull_request is not None and goal.agreed_to != x.head_sha:
        goal.agreed_to, goal.agreed_at = x.head_sha, goal.story.last_seq
        world.comment(AUTHOR.login, x.pull_request, f"/postdoc run {x.head_sha}")


def result_of(goal: Pursued, data_folder: Path, seed: int, why: str) -> Result:
    """How the goal ended, and `why`, with what its jobs took."""
    x, task = goal.experiment, goal.task
    best = x.best_run
    sealed = (x.confirmation or {}).get("score") or {}
    return Result(
        name=task.name,
        kind=task.kind,
        method=task.method or "",
        seed=seed,
        target=task.target,
        stages=task.stages,
        state=str(x.state),
        reached=x.state is State.MET,
        runs=tuple(
            RunTaken(
                value=run.score.value if run.score is not None else None,
                changed={key: list(pair) for key, pair in run.changed.items()},
                symptoms=tuple(str(symptom) for symptom in run.symptoms),
                trainer_seconds=processor_seconds(x, data_folder, run.n),
            )
            for run in x.runs
        ),
        baseline=x.baseline.value if x.baseline is not None else None,
        value=best.score.value if best is not None and best.score is not None else None,
        sealed=sealed.get("value"),
        seconds=round(time.monotonic() - goal.opened_at, 1),
        reason=why,
    )


def processor_seconds(x: Experiment, data_folder: Path, run: int) -> float:
    """What the training scripts of a run took of a processor core, range tests and ablations included."""
    took = 0.0
    for job in x.jobs.values():
        if job.role in TRAINERS and job.run == run:
            usage = read_json(data_folder / "jobs" / job.job_id / USAGE) or {}
            took += float(usage.get("cpu_seconds", 0.0))
    return round(took, 2)
