"""What is said of a run that is made again: that it was asked for, how far it is, and how it came out."""

from __future__ import annotations

from typing import Any

from bot.conversation.messages.tables import table
from bot.conversation.messages.wording import counted, difference, hours, measure_of, with_unit
from bot.domain.experiment import Experiment, JobRole
from bot.domain.inert import clipped, inert_line, unmentioned
from bot.domain.metrics import metric_named
from bot.domain.reproduction import Outcome, Reproduction

MOST_DIFFERENCES = 8
"""Of the environment, named one by one; run.json has them all."""

_MEANING = {
    Outcome.BITWISE: "the same weights to the bit, the same score of every item",
    Outcome.WITHIN_NOISE: "not the same to the bit; neither scores nor losses tell the two apart",
    Outcome.NOT_REPRODUCED: "it did not come out the same",
}


def reply_reproduce(experiment: Experiment, asked: Reproduction, hours_each: float | None) -> str:
    """It was opened; `hours_each` is what a run took, as far as one was timed."""
    each = f", about {hours(round(hours_each, 3))} by the last run's time" if hours_each is not None else ""
    waits = " It begins when the run under way has ended." if experiment.running_jobs else ""
    return (
        f"Run {asked.run} is made again: its training set is built and compared first, then it is trained and "
        f"evaluated as it was. It takes one run of the budget{each}.{waits} The verdict will stand in the table of "
        "reproductions here; neither the best run nor the goal's end looks at it."
    )


def reply_reproduction_stopped(asked: Reproduction) -> str:
    return f"Stopping: run {asked.run} is not made again to its end, and what ran for that is ended."


def reproduction_step(asked: Reproduction, experiment: Experiment) -> str:
    """What happens next, for the sticky comment."""
    begun = {job.role for job in experiment.jobs.values() if job.role.of_reproduction and job.run == asked.n}
    if JobRole.REASSESS in begun:
        doing = "evaluated again"
    elif JobRole.RETRAIN in begun:
        doing = "trained again"
    else:
        doing = "made again, its training set first"
    return f"run {asked.run} is {doing}, to compare."


def reproductions(experiment: Experiment) -> str:
    """The table of all that were asked for, with what differs below it; "" when none was."""
    if not experiment.reproductions:
        return ""
    head = ("Run made again", "Verdict", "Then", "Again", "Difference (95 % interval)", "Items with another score")
    rows = [_row(each) for each in experiment.reproductions]
    notes = [note for each in experiment.reproductions if (note := _note(each))]
    return "\n\n".join(["### Reproductions", table(head, rows), *notes])


def _row(asked: Reproduction) -> tuple[str, ...]:
    report = asked.report or {}
    verdict = f"**{report['verdict']}**" if asked.verdict else "none"
    if asked.report is None:
        verdict = "dropped: the goal ended" if asked.over else "under way"
    values = report.get("value")
    if values is None:
        return (str(asked.run), verdict, "", "", "", "")
    measure = metric_named(str(report["metric"]))
    return (
        str(asked.run),
        verdict,
        measure.said(values[0]),
        measure.said(values[1]),
        _difference(report.get("comparison")),
        f"{report['items_differing']:,}",
    )


def _difference(found: dict[str, Any] | None) -> str:
    if found is None:
        return "does not compare"
    low, high = measure_of(found).said_difference(found["ci_low"]), difference(found, "ci_high")
    return f"{with_unit(found)} ({low} to {high})"


def _note(asked: Reproduction) -> str:
    report = asked.report
    if report is None:
        return ""
    if "failure" in report:
        return f"Run {asked.run}, no verdict: {_safe(str(report['failure']))}."
    lines = [f"Run {asked.run}: {_MEANING[Outcome(report['verdict'])]}."]
    if report["first"]:
        lines.append(f"What differs first: {_safe(report['first'])}.")
    curve = report["curve"]
    if curve is not None and curve["first_step"] is not None and curve["mean"] is not None:
        lines.append(
            f"The losses differ from step {curve['first_step']:,} on, by {curve['mean']:.3g} on average over the last "
            f"quarter; from one step to the next the first run's moved by {curve['scatter']:.3g} there."
        )
    if differences := report["differences"]:
        named = [_safe(f"{each['what']} {each['then'] or 'none'} → {each['now'] or 'none'}") for each in differences]
        more = len(named) - MOST_DIFFERENCES
        listed = "; ".join(named[:MOST_DIFFERENCES]) + (f"; and {counted(more, 'other')}" if more > 0 else "")
        lines.append(f"Surroundings that are not the same: {listed}.")
    return " ".join(lines)


def _safe(text: str) -> str:
    return unmentioned(inert_line(clipped(text, 300), 300))
