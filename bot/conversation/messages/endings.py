"""How a goal ends: what was reached, what was tried, how to go on; and the apology when Postdoc itself is at fault."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from bot.conversation.messages.keys import LONGEST_CHECK_TEXT, LONGEST_CHECK_TITLE, message, within_limit
from bot.conversation.messages.progress import Conclusion
from bot.conversation.messages.tables import ledger, spent_words, value_sentence
from bot.conversation.messages.wording import (
    counted,
    duration,
    goal_of,
    scored,
    short,
)
from bot.domain.experiment import Experiment, Score, State
from bot.domain.inert import clipped, code, fenced, inert_line, inert_plain

VERDICT_CHECK = "postdoc / verdict"
"""Name of the check on the closing commit."""


def ending_name(experiment: Experiment) -> str:
    """A goal that is resumed may end again, so the name carries the journal's length."""
    return f"ending/{experiment.length}"


def ending(experiment: Experiment, *, spent_usd: float = 0.0, model_line: str = "") -> str:
    """The closing comment, by the experiment's state. `model_line` says where the model lies and how to load it."""
    return message(
        experiment.goal_id,
        ending_name(experiment),
        *_report_parts(experiment, spent_usd, model_line),
        _go_on(experiment),
    )


def _report_parts(experiment: Experiment, spent_usd: float, model_line: str) -> list[str]:
    return [
        f"**{_headline(experiment)}**" + (f" {inert_line(experiment.reason, 600)}" if experiment.reason else ""),
        _confirmation(experiment),
        value_sentence(experiment),
        _best(experiment),
        ledger(experiment),
        _tried(experiment),
        f"Spent: {spent_words(experiment, spent_usd)}{_elapsed(experiment)}.",
        _loading(model_line),
    ]


def _loading(model_line: str) -> str:
    if not model_line:
        return ""
    imported = "from transformers import AutoModelForCausalLM\n\n" if model_line.startswith("AutoModel") else ""
    return f"To load the best model:\n\n{fenced(imported + model_line, 'python')}"


def _headline(experiment: Experiment) -> str:
    runs = counted(len(experiment.runs), "run")
    goal, best = goal_of(experiment), experiment.best_run
    target = goal.said_target
    reached = best is not None and best.score is not None and goal.reached(best.score.value)
    how_far = "reached on the dev items but not confirmed" if reached else "not reached"
    headlines = {
        State.MET: f"Target of {target} met in {runs}, and confirmed on the sealed test.",
        State.NOT_CONFIRMED: f"Target of {target} reached on the dev items, but not confirmed on the sealed test.",
        State.EXHAUSTED: f"Target of {target} {how_far}: the budget is spent after {runs}.",
        State.NEEDS_HUMAN: f"Target of {target} {how_far} after {runs}; a person is needed.",
        State.STOPPED: f"Stopped after {runs}.",
        State.CLOSED: f"{'Merged' if experiment.merged else 'Closed'} after {runs}.",
    }
    return headlines.get(experiment.state, f"In progress, {runs} so far.")


def _confirmation(experiment: Experiment) -> str:
    """The sealed test's numbers."""
    found = experiment.confirmation
    if not found or not found.get("score"):
        return ""
    run = f"Run {found['run']}" if found.get("run") else "The best run"
    lines = [f"{run} on the sealed test, opened once: {_score_words(found['score'])}."]
    # Where the reason heads the message already, it is not said twice.
    if found.get("reason") and found["reason"] != experiment.reason:
        lines.append(inert_line(str(found["reason"]), 600))
    return " ".join(lines)


def _score_words(score: Mapping[str, Any]) -> str:
    return scored(Score.from_dict(score))


def _best(experiment: Experiment) -> str:
    best = experiment.best_run
    if best is None or best.score is None:
        return "No run reached an evaluation." if experiment.runs else ""
    reading = {"better": "better than", "worse": "worse than"}.get(best.verdict or "", "not to be told from")
    return f"Best run: {best.n}, at {short(best.head_sha)}, {scored(best.score)}, {reading} the untouched base model."


def _tried(experiment: Experiment) -> str:
    """Every change with what came of it, for the person who goes on from here."""
    if experiment.state not in (State.EXHAUSTED, State.NEEDS_HUMAN, State.NOT_CONFIRMED):
        return ""
    lines = []
    for run in experiment.runs:
        for diagnosis in run.report.diagnoses[:3]:
            lines.append(f"- run {run.n}, `{diagnosis.symptom}`: {inert_line(diagnosis.cause, 300)}")
        if run.failure:
            lines.append(f"- run {run.n} failed: {inert_line(run.failure, 300)}")
    return "What was found on the way:\n\n" + "\n".join(lines[:40]) if lines else ""


def _elapsed(experiment: Experiment) -> str:
    seconds = (experiment.ended_at or experiment.last_at) - experiment.opened_at
    return f", {duration(seconds)} since the issue was opened" if seconds > 0 and experiment.opened_at else ""


def _go_on(experiment: Experiment) -> str:
    if experiment.pull_request is None:
        return "There is no pull request yet; a new issue starts afresh."
    lines = {
        State.MET: "Merge this pull request to keep the record, or close it; the results stay either way.",
        State.NOT_CONFIRMED: "The sealed test opens once, so this goal ends here; a merge keeps the record. To go on, "
        "open a new goal, best on a benchmark with more items.",
        State.EXHAUSTED: "`/postdoc resume +2` grants two more runs; merging keeps the record as it is.",
        State.NEEDS_HUMAN: "To go on, change `recipe.yaml` on this branch or write `/postdoc set key=value`; a "
        "recipe that was tried already is not trained again.",
        State.STOPPED: "`/postdoc resume` goes on from here.",
        State.CLOSED: "" if experiment.merged else "Reopen the pull request and write `/postdoc resume` to go on.",
    }
    return lines.get(experiment.state, "")


class VerdictCheck(NamedTuple):
    title: str
    summary: str
    conclusion: str


def verdict_check(experiment: Experiment) -> VerdictCheck:
    """The closing commit's own check: did the goal succeed?"""
    conclusions = {
        State.MET: Conclusion.SUCCESS,
        State.NOT_CONFIRMED: Conclusion.FAILURE,
        State.STOPPED: Conclusion.CANCELLED,
        State.CLOSED: Conclusion.CANCELLED,
    }
    best = experiment.best_run
    value = ""
    if best is not None and best.score is not None:
        value = f" Best run: {best.score.measure.said(best.score.value)}, n {best.score.n}."
    title = clipped(inert_plain(f"{_headline(experiment)}{value}"), LONGEST_CHECK_TITLE)
    summary = "\n\n".join(part for part in _report_parts(experiment, 0.0, "") if part)
    conclusion = conclusions.get(experiment.state, Conclusion.NEUTRAL)
    return VerdictCheck(title, within_limit(f"{summary}\n", LONGEST_CHECK_TEXT), str(conclusion))


def crash_apology(experiment: Experiment, reference: str) -> str:
    """Postdoc has a bug: say so, spend nothing more, give a reference that finds the log."""
    return message(
        experiment.goal_id,
        f"crash/{experiment.length}",
        "**Something in Postdoc itself broke, and I am sorry.** This is not your recipe's fault. Work on this goal has "
        "stopped; other goals are not affected, and nothing more is spent here.",
        f"The server's log has the details under {code(reference, 120)}. `/postdoc resume` tries again.",
    )
