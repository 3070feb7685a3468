"""The tables that several messages share: the goal, the ledger of runs, comparisons, a probe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bot.conversation.messages.wording import (
    amount,
    changes,
    counted,
    difference,
    duration,
    hours,
    p_value,
    scored,
    scored_briefly,
    short,
    usd,
    verdict_word,
    with_unit,
)
from bot.domain.experiment import Experiment, JobRole, Run
from bot.domain.goal import Budget, Goal
from bot.domain.inert import code, inert_line, unmentioned


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"| {' | '.join('---' for _ in head)} |"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows])


def sentences(items: Sequence[str]) -> str:
    """Sentences of ours as a list; outside text in them is already in code spans, and nobody is notified by them."""
    return "\n".join(f"- {unmentioned(' '.join(item.split()))}" for item in items)


def folded(title: str, content: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{content}\n\n</details>"


NOT_STATED = "what its card says"


def goal_rows(goal: Goal, pins: Mapping[str, Any] | None = None) -> list[tuple[str, str]]:
    """Every field of the contract with its value; `pins` (`Experiment.pins`) say what a name stood for."""
    pins = pins or {}
    revision = "" if goal.base_revision == "main" else f" at {code(goal.base_revision, 60)}"
    pinned = pins.get("benchmark")
    commit = f" as of commit {code(short(pinned['commit']))}" if pinned else ""
    data = pins.get("dataset") or goal.dataset
    return [
        ("Goal", inert_line(goal.title)),
        ("Base model", code(goal.base_model, 120) + revision),
        ("Benchmark", code(goal.benchmark, 250) + commit),
        ("Metric", code(goal.metric, 80)),
        ("Target", goal.said_target),
        ("Method", code(goal.method) if goal.method else "Postdoc chooses"),
        ("Training data", code(data, 1_000) if data else "the benchmark's own training split"),
        ("Licence of the data", code(goal.data_licence, 64) if goal.data_licence else NOT_STATED),
        ("Starting recipe", "given below" if goal.recipe else "the playbook's for this base model"),
        ("Training script", code(goal.script, 200) if goal.script else "Postdoc's own"),
        ("Licences", ", ".join(code(name, 64) for name in goal.licences) or "any that is known"),
        ("Budget", budget_words(goal.budget)),
        ("Seed", str(goal.seed)),
        *([("Forgetting", "a run that forgets an old task does not count")] if goal.forgetting == "block" else []),
    ]


def goal_table(goal: Goal, pins: Mapping[str, Any] | None = None) -> str:
    """The contract as it was understood."""
    return table(("", "As understood"), [row for row in goal_rows(goal, pins) if row[1] != NOT_STATED])


def budget_words(budget: Budget) -> str:
    money = usd(budget.usd) if budget.usd else "no money"
    wait = f"{budget.wall_hours:g} hour" + ("" if budget.wall_hours == 1 else "s")
    return f"{counted(budget.runs, 'run')}, {hours(budget.gpu_hours)}, {money}, {wait} from consent to end"


def spent_words(experiment: Experiment, spent_usd: float) -> str:
    top = experiment.ceilings
    worked = experiment.job_hours()
    used = f"{worked:.2f}" if worked >= 0.01 or worked == 0 else "under 0.01"
    money = f"{spent_usd:,.2f} of {usd(top.usd)}" if top.usd or spent_usd else "no money"
    return f"{experiment.runs_taken} of {counted(top.runs, 'run')}, {used} of {hours(top.gpu_hours)}, {money}"


def run_seconds(experiment: Experiment, run: Run) -> float:
    """Job time of a run, evaluation and probes included."""
    return sum(
        job.seconds
        for job in experiment.jobs.values()
        if job.run == run.n and job.role is not JobRole.CONFIRM and job.role.of_run
    )


def reproduced(experiment: Experiment, run: Run) -> str:
    """How the run came out when it was made again, the latest word on it; "" where it was not."""
    found = [each.verdict for each in experiment.reproductions if each.run == run.n and each.verdict]
    return f"made again: {found[-1]}" if found else ""


def ledger(experiment: Experiment) -> str:
    """Every run in a row, the untouched base model first; with what the language model cost where it was asked."""
    rows: list[tuple[str, ...]] = []
    if experiment.baseline is not None:
        rows.append(("base", "", "untouched", scored_briefly(experiment.baseline), "", "", "", thinking(experiment, 0)))
        if (shown := experiment.baseline.with_shots) is not None:
            examples = counted(int((experiment.baseline.few_shot or {})["shots"]), "example")
            rows.append(("base", "", f"untouched, with {examples}", scored_briefly(shown), "", "", "", ""))
    best = experiment.best_run
    for run in experiment.runs:
        number = f"**{run.n}**" if best is not None and run.n == best.n and len(experiment.runs) > 1 else str(run.n)
        if made_again := reproduced(experiment, run):
            number += f" ({made_again})"
        value = scored_briefly(run.score) if run.score is not None else ("none" if run.diagnosed else "")
        seconds = run_seconds(experiment, run)
        rows.append(
            (
                number,
                short(run.head_sha),
                _changed(experiment, run),
                value,
                verdict_word(run),
                ", ".join(code(name) for name in run.symptoms) or ("none" if run.diagnosed else ""),
                duration(seconds) if seconds else "",
                thinking(experiment, run.n),
            )
        )
    if not rows:
        return ""
    head = ("Run", "Commit", "Changed", "Value (95 % interval)", "Against base", "Symptoms", "Time", "Language model")
    columns = 8 if any(row[-1] for row in rows) else 7  # one that says nothing is left out
    return table(head[:columns], [row[:columns] for row in rows])


def thinking(experiment: Experiment, run: int) -> str:
    """What was thought about a run (0: the first plan) and what that cost, as a cell."""
    found = [each for each in experiment.thoughts if each.run == run]
    turns, cost = sum(each.turns for each in found), sum(each.usd for each in found)
    if not turns:
        return ""
    return f"{counted(turns, 'turn')}, {usd(cost)}" if cost else counted(turns, "turn")


def _changed(experiment: Experiment, run: Run) -> str:
    rewritten = [f"{code(path, 64)} rewritten" for path in experiment.rewritten_in(run)]
    said = ", ".join(part for part in (changes(run.changed), *rewritten) if part)
    return said or ("first recipe" if run.n == 1 else "nothing")


def comparisons(rows: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """Paired comparisons on the same items; `Comparison.as_dict()` each."""
    cells = []
    for name, c in rows:
        lost, gained = c["discordant"]
        cells.append(
            (
                name,
                with_unit(c),
                f"{difference(c, 'ci_low')} to {difference(c, 'ci_high')}",
                f"{gained} gained, {lost} lost of {c['n']}",
                p_value(c["p_value"]),
                str(c["verdict"]),
            )
        )
    return table(("Against", "Difference", "95 % interval", "Items", "Test", "Verdict"), cells)


def probe_table(probe: Mapping[str, Any]) -> str:
    """What a learning-rate range probe measured."""
    rows = []
    for trial in probe.get("trials", ()):
        rows.append(
            (
                code(amount_or_word(trial.get("learning_rate"))),
                amount_or_word(trial.get("loss_first")),
                amount_or_word(trial.get("loss_last")),
                amount_or_word(trial.get("grad_norm_last")),
                "diverged" if trial.get("diverged") else "",
            )
        )
    columns = 5 if any(row[-1] for row in rows) else 4  # one that says nothing is left out
    head = ("Learning rate", "Loss at start", "Loss at end", "Gradient norm", "Ended")
    return table(head[:columns], [row[:columns] for row in rows])


def amount_or_word(value: object) -> str:
    """A number shortly; anything else, `NaN` as text for example, as it is."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return amount(float(value))
    return "none" if value is None else inert_line(str(value), 60)


def value_sentence(experiment: Experiment) -> str:
    """Baseline and target, with interval and n."""
    goal = experiment.goal
    if goal is None:
        return ""
    aim = f"Target: {goal.said_target} {code(goal.metric)} on {code(goal.benchmark)}."
    if experiment.baseline is None:
        return f"{aim} Base model: not measured yet."
    return f"{aim} Base model, untouched: {scored(experiment.baseline)}."
