"""The demo: a person opens a goal on the practice forge, the real bot pursues it, and the terminal shows it live."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from bot.domain.evaluation import Split
from bot.domain.experiment import BASELINE, Experiment, JobRole, Run, Score, State
from bot.domain.goal import GoalId
from bot.errors import PlatformError
from bot.practice.goals import MAINTAINER, WRITER, DemoGoal, demo_goals, issue_of, practice_place
from bot.practice.narration import Activity, Story, Tone, activity_of, changes_text, count
from bot.practice.terminal import Screen, duration
from bot.practice.tiny_base import NAME, cached_path, is_built
from bot.practice.world import PACKAGE_ROOT, PracticeWorld

POLL_SECONDS = 0.25
LOOK_FOR_GOALS_SECONDS = 1.0
MOST_RESTARTS = 10
"""A bot that dies more often than this in one demo is not going to recover."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a pursued goal ended."""

    experiment: Experiment
    seconds: float
    """From the opened issue to the ending; the first build of the base model is not counted."""
    repository: Path
    model: Path | None = None
    """The best run's weights."""

    @property
    def failed(self) -> bool:
        """The goal could not be pursued: not understood, or ended by an error of ours."""
        return self.experiment.state is State.NEEDS_AUTHOR or self.experiment.crash is not None

    @property
    def met(self) -> bool:
        return self.experiment.state is State.MET

    def as_dict(self) -> dict[str, Any]:
        """The form of `--json`."""
        x = self.experiment
        return {
            "target": x.goal.target if x.goal is not None else None,
            "metric": x.goal.metric if x.goal is not None else None,
            "state": str(x.state),
            "seconds": round(self.seconds, 2),
            "runs": [run_row(run) for run in x.runs],
            "pull_request": x.pull_request,
            "repository": str(self.repository),
            "model": str(self.model) if self.model is not None else None,
        }


def run_row(run: Run) -> dict[str, Any]:
    """One run in the form of `--json`; the value is null where a run failed before it was evaluated."""
    score = run.score
    return {
        "n": run.n,
        "method": run.method,
        "value": score.value if score is not None else None,
        "n_items": score.n if score is not None else None,
        "standard_error": score.standard_error if score is not None else None,
        "verdict": run.verdict,
        "symptoms": run.symptoms,
        "changed": run.changed,
        "seconds": round(run.ended_at - run.started_at, 2) if run.ended_at is not None else None,
    }


@dataclass(slots=True)
class BaseBuild:
    """`python -m bot.practice.tiny_base` in a process of its own, followed line by line."""

    process: subprocess.Popen[str]
    progress: dict[str, Any] = field(default_factory=dict)
    last_words: str = ""
    since: float = field(default_factory=time.time)
    _reader: threading.Thread | None = None

    @classmethod
    def start(cls) -> BaseBuild:
        process = subprocess.Popen(
            [sys.executable, "-m", "bot.practice.tiny_base"],
            cwd=PACKAGE_ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip
        build = cls(process)
        build._reader = threading.Thread(target=build._read, daemon=True)
        build._reader.start()
        return build

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.last_words = line.strip() or self.last_words
            try:
                found = json.loads(line)
            except ValueError:
                continue
            if isinstance(found, dict) and "step" in found:
                self.progress = found

    @property
    def activity(self) -> Activity:
        return Activity(
            "building the base model", int(self.progress.get("step", 0)), self.progress.get("steps"),
            self.progress.get("loss"), since=self.since,
        )  # fmt: skip

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait()


def built_base(screen: Screen) -> float:
    """See to it that the tiny base model is there; returns the seconds that this took.

    Raises: PlatformError when it cannot be built.
    """
    if is_built(cached_path()):
        return 0.0
    started = time.monotonic()
    screen.say("base", f"{NAME} is built once, about two minutes on one core, and kept in the cache", tone=Tone.QUIET)
    build = BaseBuild.start()
    try:
        first: tuple[float, int] | None = None
        while build.process.poll() is None:
            activity = build.activity
            if activity.step and first is None:
                first = (time.monotonic(), activity.step)
            screen.show(_with_eta(activity, first))
            time.sleep(POLL_SECONDS)
    finally:
        build.stop()
    if build.process.returncode != 0 or not is_built(cached_path()):
        raise PlatformError(f"the base model could not be built: {build.last_words}")
    seconds = time.monotonic() - started
    screen.say("base", f"built in {duration(seconds)}", tone=Tone.QUIET)
    return seconds


def _with_eta(activity: Activity, first: tuple[float, int] | None) -> Activity:
    if first is None or not activity.total_steps or activity.step <= first[1]:
        return activity
    rate = (time.monotonic() - first[0]) / (activity.step - first[1])
    return Activity(
        activity.what, activity.step, activity.total_steps, activity.loss, rate * (activity.total_steps - activity.step)
    )


@dataclass(slots=True)
class Follower:
    """Reads the bot's journals as they grow and shows them; restarts a bot that was killed."""

    world: PracticeWorld
    screen: Screen
    main_issue: int
    on_consent_asked: Callable[[Experiment], None] | None = None
    """Called once for each head that waits for a person's word."""
    stories: dict[int, Story] = field(default_factory=dict)
    restarts: int = 0
    _looked_at: float = 0.0
    _asked_for: str = ""

    def __post_init__(self) -> None:
        self._add(self.main_issue)

    @property
    def main(self) -> Story:
        return self.stories[self.main_issue]

    def until_over(self) -> Experiment:
        """Show everything until the main goal has ended. Raises: PlatformError when the bot cannot be kept alive."""
        while True:
            self.turn()
            x = self.main.experiment
            if over(x):
                self.screen.show(None)
                return x
            waits = x.state is State.AWAITING_CONSENT and self._asked_for != x.head_sha
            if waits and self.on_consent_asked is not None:
                self._asked_for = x.head_sha
                self.on_consent_asked(x)
            time.sleep(POLL_SECONDS)

    def forever(self) -> None:
        """Show everything until interrupted."""
        while True:
            self.turn()
            time.sleep(POLL_SECONDS)

    def turn(self) -> None:
        """One look at every goal."""
        if not self.world.bot_runs:
            self._restart()
        self._look_for_goals()
        activities = []
        for issue, story in self.stories.items():
            rows, progress = self.world.events(issue, story.last_seq)
            entries = story.heard(rows)
            self.screen.tell(entries, goal=f"#{issue}" if issue != self.main_issue else "")
            if story.events and (activity := activity_of(story.experiment, progress)) is not None:
                activities.append(activity)
        if not self.main.events:
            activities.append(Activity("waiting for the bot to hear of the issue"))
        # The goal with a job that can be measured is the one worth watching.
        self.screen.show(max(activities, key=lambda a: (a.step > 0, a.since is not None), default=None))

    def _look_for_goals(self) -> None:
        """Goals that somebody opened in the browser meanwhile."""
        if time.monotonic() - self._looked_at < LOOK_FOR_GOALS_SECONDS:
            return
        self._looked_at = time.monotonic()
        for goal in self.world.goals():
            issue = int(str(goal["goal_id"]).rpartition("#")[2])
            if issue not in self.stories:
                self._add(issue)
                self.screen.say("goal", f"#{issue} opened", (self.world.page(f"issues/{issue}"),))

    def _add(self, issue: int) -> None:
        self.stories[issue] = Story(GoalId(f"{self.world.place.full_name}#{issue}"), self.world.page())

    def _restart(self) -> None:
        code, self.restarts = self.world.bot_exit_code, self.restarts + 1
        if self.restarts > MOST_RESTARTS:
            raise PlatformError(
                f"the bot ended {self.restarts} times: {self.world.last_words()} ({self.world.log_path})"
            )
        how = f"was killed (signal {-code})" if code is not None and code < 0 else f"ended with code {code}"
        self.screen.say("bot", f"its process {how}; started again, it goes on where it was", tone=Tone.WARN)
        self.world.start_bot()


def over(x: Experiment) -> bool:
    """Nothing more happens by itself: the ending has been told, or the goal was refused."""
    return x.concluded or (x.state is State.NEEDS_AUTHOR and x.pull_request is None)


def run_demo(
    screen: Screen,
    folder: Path,
    *,
    goal_number: int = 1,
    seed: int = 0,
    port: int = 0,
    keep: bool = False,
    end_jobs: Callable[[Path], None],
    on_outcome: Callable[[Outcome], None],
) -> Outcome:
    """Open the goal, show what becomes of it, and hand the outcome to `on_outcome` before anything is kept serving."""
    goal = demo_goals(seed)[goal_number]
    place = practice_place(seed)
    settings = {"POSTDOC_CHECK_UPDATE_SECONDS": "2"}
    world = PracticeWorld(
        folder, place, port=port, models={NAME: cached_path()}, settings=settings, end_jobs=end_jobs
    )  # fmt: skip
    with world, screen:
        _introduce(screen, world, goal)
        began = time.monotonic()
        issue = open_demo_issue(world, goal)
        screen.say("issue", f"#{issue} opened by @{WRITER.login}: {goal.title}", (goal.teaser,))
        built = built_base(screen)
        screen.show(Activity("starting the bot"))
        world.start_bot()
        follower = Follower(world, screen, issue)
        x = follower.until_over()
        model = best_model(world.data_folder, x)
        outcome = Outcome(x, time.monotonic() - began - built, world.repository, model)
        on_outcome(outcome)
        show_outcome(screen, outcome, world)
        if keep:
            _invite(screen, world, x)
            screen.open_live()
            follower.forever()
        else:
            _suggest(screen, world, goal)
    return outcome


def open_demo_issue(world: PracticeWorld, goal: DemoGoal) -> int:
    """As a person fills the form: with that person's token and the Markdown that GitHub makes of it."""
    body, labels = issue_of(goal.answers)
    return world.open_issue(WRITER.login, goal.title, body, labels)


def _introduce(screen: Screen, world: PracticeWorld, goal: DemoGoal) -> None:
    screen.heading(
        f"Postdoc demo, goal {goal.number}",
        "A practice forge in place of GitHub, the real bot, real training on this machine's processor.",
    )
    # The forge numbers issues and pull requests from 1, so the addresses are known before anything is opened.
    screen.addresses([("issue", world.page("issues/1")), ("pull requests", world.page("pulls"))])
    screen.blank()


def show_outcome(screen: Screen, outcome: Outcome, world: PracticeWorld) -> None:
    """The summary: a table of the runs, how it ended, and where everything lies."""
    x = outcome.experiment
    screen.close_live()
    screen.blank()
    if x.runs:
        screen.table(summary_table(x))
        screen.blank()
    screen.note(ending_sentence(outcome))
    screen.blank()
    rows = [("git repository", str(world.repository)), ("look at it", look_command(world.repository))]
    if (model := outcome.model) is not None:
        rows.append(("trained model", str(model)))
    rows.append(("bot's log", str(world.log_path)))
    screen.addresses(rows)
    screen.blank()


def ending_sentence(outcome: Outcome) -> str:
    """How it ended, in one or two sentences."""
    x = outcome.experiment
    after = f"after {count(len(x.runs), 'run')} and {outcome.seconds:.0f} s"
    if outcome.met:
        return f"The goal is met and confirmed {after}."
    words = {State.NEEDS_AUTHOR: "refused", State.NEEDS_HUMAN: "needs a person"}.get(x.state, str(x.state))
    return f"The goal ended {after}: {words}. {_sentence(x.reason or x.refusal or '')}".strip()


def _sentence(text: str) -> str:
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".") if text else ""


def look_command(repository: Path) -> str:
    return f"git -C {repository} log --oneline --all --graph"


def best_model(data_folder: Path, x: Experiment) -> Path | None:
    """Where the best run's weights lie."""
    if x.best_run is None:
        return None
    job = x.job_for(JobRole.TRAIN, x.best_run.n)
    found = sorted((data_folder / "jobs").glob(f"{job.job_id}/**/out/model/config.json")) if job is not None else []
    return found[0].parent if found else None


def summary_table(x: Experiment) -> Table:
    """Run, what changed, value with its 95 % interval, verdict, seconds."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name, side in (("run", "left"), ("changed", "left"), ("value", "right"), ("verdict", "left")):
        table.add_column(name, justify=side, header_style="bold")  # type: ignore[arg-type]
    table.add_column("seconds", justify="right", header_style="bold")
    if x.baseline is not None:
        job = x.job_for(JobRole.BASELINE, BASELINE)
        seconds = f"{job.seconds:.0f}" if job is not None else ""
        table.add_row("base", "", _value(x.baseline), "", seconds)
    for run in x.runs:
        value = _value(run.score) if run.score is not None else "failed"
        changed = changes_text(run.changed) or ("the starting recipe" if run.n == 1 else "")
        took = f"{run.ended_at - run.started_at:.0f}" if run.ended_at is not None else ""
        table.add_row(str(run.n), changed, value, run.verdict or "", took)
    sealed = (x.confirmation or {}).get("score")
    if x.confirmation is not None and sealed is not None and sealed["split"] == Split.SEALED:
        told = "confirmed" if x.confirmation["confirmed"] else "not confirmed"
        job = x.job_for(JobRole.CONFIRM, int(x.confirmation["run"]))
        took = f"{job.seconds:.0f}" if job is not None else ""
        table.add_row("sealed", f"run {x.confirmation['run']} on unseen items",
                      _value(Score(**sealed)), told, took)  # fmt: skip
    return table


def _value(score: Score) -> str:
    """The interval, not ± a standard error: at 0 % and 100 % the latter is 0, which claims too much."""
    return f"{score.measure.said(score.value)} ({score.measure.bare_interval(score.ci_low, score.ci_high)})"


def _invite(screen: Screen, world: PracticeWorld, x: Experiment) -> None:
    screen.note("Serving until Ctrl-C. Choose a person at the top of a page, then open another goal, comment")
    screen.note("`/postdoc help`, or accept a suggestion on the pull request.")
    rows = [("open a goal", world.page("issues/new/choose"))]
    if x.pull_request is not None:
        rows.append(("pull request", world.page(f"pull/{x.pull_request}")))
    rows.append(("people", f"{WRITER.login} may train, {MAINTAINER.login} maintains"))
    screen.addresses(rows)
    screen.blank()


def _suggest(screen: Screen, world: PracticeWorld, goal: DemoGoal) -> None:
    other, command = 2 if goal.number == 1 else 1, _command()
    screen.addresses(
        [
            ("next", f"{command} demo --goal {other}  another goal, with another fault"),
            ("", f"{command} demo --keep    the pages stay open in the browser"),
            ("", f'{command} pursue "raise postdoc/tiny-qwen3 on practice/last to 90 %"'),
            ("clean up", f"rm -r {world.folder}"),
        ]
    )


def _command() -> str:
    """`postdoc` as it can be typed here: `make demo` leaves it in the virtual environment, off the search path."""
    if shutil.which("postdoc"):
        return "postdoc"
    script = Path(sys.executable).with_name("postdoc")
    return os.path.relpath(script) if script.is_file() else f"{os.path.relpath(sys.executable)} -m bot"
