"""A journal in sentences: what happened, and why. Every kind of event has one; backticks mark code."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bot.conversation.messages.monitoring import stopped_sentence
from bot.conversation.messages.thoughts import remedy_words
from bot.conversation.messages.wording import (
    changes,
    clock,
    counted,
    duration,
    scored,
    short,
    usd,
)
from bot.domain.experiment import Event, Score
from bot.domain.goal import Goal

ROLES = {
    "data": "build the training data",
    "baseline": "evaluate the untouched base model",
    "train": "train run {run}",
    "evaluate": "evaluate run {run} on the dev items",
    "probe": "probe learning rates after run {run}",
    "confirm": "evaluate run {run} on the sealed test",
    "ablate": "train value {run} of the ablation",
    "weigh": "evaluate value {run} of the ablation",
    "rebuild": "build the data of reproduction {run} again",
    "retrain": "train for reproduction {run}",
    "reassess": "evaluate reproduction {run}",
    "smoke": "train two steps of proposal {run}",
    "audit": "look at the data of run {run} in tokens",
}
"""What a job of each role is there to do."""
FAILURES = {
    "timeout": "it ran out of time",
    "oom": "it ran out of memory",
    "disk_full": "the disk was full",
    "process_limit": "it started too many processes",
    "signal": "it was killed by a signal",
    "script_error": "its script ended with an error",
    "platform": "the machine broke, not the recipe",
}


@dataclass(frozen=True, slots=True)
class Happening:
    """One line of the timeline."""

    seq: int
    at: float
    kind: str
    words: str
    why: str = ""
    tone: str = ""
    """good, bad, wait or nothing."""


Data = Mapping[str, Any]
Said = tuple[str, str, str]
"""(what happened, why, tone)."""


def timeline(journal: Sequence[Event]) -> list[Happening]:
    """Every event as a sentence, the latest first."""
    jobs = {event.data["job_id"]: event.data for event in journal if event.kind == "job_launched"}
    commands = {event.seq: event.data for event in journal if event.kind == "command"}
    found = []
    for event in journal:
        try:
            words, why, tone = _sentence(event, jobs, commands)
        except (KeyError, TypeError, ValueError, AttributeError):
            words, why, tone = _unknown(event.kind), "", ""
        found.append(Happening(event.seq, event.at, str(event.kind), words, why, tone))
    return found[::-1]


def _sentence(event: Event, jobs: Mapping[str, Data], commands: Mapping[int, Data]) -> Said:
    match str(event.kind):
        case "job_ended":
            return _job_ended(event.data, jobs.get(event.data["job_id"], {}))
        case "command_answered":
            return _answered(commands.get(event.data["command"]))
        case kind if kind in SENTENCES:
            return SENTENCES[kind](event.data)
        case kind:
            return _unknown(kind), "", ""


def _unknown(kind: str) -> str:
    return f"{kind.replace('_', ' ').capitalize()}: this version of Postdoc has no sentence for it."


def task_of(role: str, run: int) -> str:
    """What a job is there to do, as a verb with its object."""
    return ROLES.get(role, role).format(run=run)


def _job_ended(d: Data, launched: Data) -> Said:
    status = d["status"]
    what = f"The job to {task_of(launched.get('role', 'work'), launched.get('run', 0))}"
    started, ended = status.get("started_at"), status.get("ended_at")
    took = f" after {duration(ended - started)}" if started is not None and ended is not None else ""
    failure = FAILURES.get(str(status.get("failure")), "")
    match status["state"]:
        case "succeeded":
            return f"{what} succeeded{took}.", "", "good"
        case "cancelled":
            return f"{what} was cancelled{took}.", "", ""
        case "lost":
            return (
                f"{what} was lost{took}.",
                "Its supervisor or the machine went away; the recipe is not blamed.",
                "bad",
            )
    return f"{what} failed{took}.", failure.capitalize() + "." if failure else "", "bad"


def _answered(command: Data | None) -> Said:
    line = f"`{_line(command)}` by @{command['author']}" if command is not None else "A command"
    return f"{line} was answered.", "", ""


def _line(d: Data) -> str:
    return " ".join(["/postdoc", d["verb"], *d["args"]])


def _opened(d: Data) -> Said:
    return f"@{d['author']} opened the goal as issue #{d['issue']}.", "", ""


def _contract_read(d: Data) -> Said:
    if d["refusal"]:
        return "The goal was read and cannot be pursued as written.", d["refusal"], "wait"
    goal = d["goal"]
    aim = f"{goal['metric']} on {goal['benchmark']} to {Goal.from_dict(goal).said_target} with {goal['base_model']}"
    return "The goal was understood.", f"{aim}. The first recipe: {d['recipe_source'] or 'as given'}.", ""


def _refused(d: Data) -> Said:
    return "The goal turned out to be impossible to pursue as written.", d["reason"], "wait"


def _baseline(d: Data) -> Said:
    return f"The untouched base model reaches {_scored(d['score'])}.", "", ""


def _scored(score: Data) -> str:
    return scored(Score(**{key: score[key] for key in Score.__dataclass_fields__ if key in score}))


def _data_checked(d: Data) -> Said:
    if d.get("build_failed"):
        return "The training data could not be built.", d["build_failed"], "bad"
    rows = f"{d.get('build', {}).get('rows', 0):,} rows"
    if d.get("blocked"):
        return f"The training data ({rows}) may not be trained on.", d["blocked"], "bad"
    verdict = d.get("scan", {}).get("verdict", "not scanned")
    why = f"Scan for items of the evaluation: {verdict}."
    return f"The training data was built and checked: {rows}.", " ".join([why, *d.get("warnings", ())]), ""


def _planned(d: Data) -> Said:
    return "The plan was made.", f"Its base is `{d['base']}` at `{short(d['base_sha'])}`.", ""


def _proposed(d: Data) -> Said:
    return f"Pull request #{d['pull_request']} was opened at `{short(d['head_sha'])}`.", "", ""


def _consented(d: Data) -> Said:
    if d["by"] == "policy":
        who, why = "The repository's policy agreed to the spending", "`.github/postdoc.yml` grants this much by itself."
    else:
        who, why = f"@{d['by']} agreed to the spending", ""
    return f"{who}, for the recipe at `{short(d['head_sha'])}`.", why, "good"


def _consent_asked(d: Data) -> Said:
    return f"Asked whether the recipe at `{short(d['head_sha'])}` may be trained.", d.get("why", ""), "wait"


def _run_started(d: Data) -> Said:
    changed = changes(d["changed"], marked=False)
    return f"Run {d['run']} started at `{short(d['head_sha'])}`.", f"Changed: {changed}." if changed else "", ""


def _diagnosed(d: Data) -> Said:
    if d["failure"]:
        words, tone = f"Run {d['run']} failed.", "bad"
        return words, d["failure"], tone
    words = f"Run {d['run']} reaches {_scored(d['score'])}: {d['verdict']} against the base model."
    found = [each for each in d["report"]["diagnoses"] if each["severity"] != "advice"]
    why = " ".join(f"{each['symptom']}: {each['cause']}" for each in found)
    return words, why or "Nothing harmful was found in it.", {"better": "good", "worse": "bad"}.get(d["verdict"], "")


def _reviewed(d: Data) -> Said:
    remedy = d["remedy"]
    why = f"Next: {remedy_words(remedy)}. {remedy['why']}" if remedy else ""
    return f"The review of run {d['run']} was posted.", why, ""


def _revised(d: Data) -> Said:
    who = "Postdoc" if d["by"] == "postdoc" else f"@{d['by']}"
    return f"{who} changed {changes(d['changed'], marked=False)}, as `{short(d['head_sha'])}`.", d["why"], ""


def _head_read(d: Data) -> Said:
    changed = changes(d["changed"], marked=False)
    words = f"Read what stands at `{short(d['head_sha'])}`" + (f": {changed}." if changed else ".")
    return words, "The training scripts changed too." if d["scripts_changed"] else "", ""


def _thought(d: Data) -> Said:
    about = f"run {d['run']}" if d["run"] else "the first plan"
    who = f"{d['model'] or 'A language model'} thought about {about} ({counted(d['turns'], 'turn')}, {usd(d['usd'])})"
    if d["proposal"]:
        return f"{who} and proposed a change.", str(d["proposal"]["reason"]), ""
    if d["outcome"] is None:
        return f"{who} and goes on.", "", ""
    return f"{who}: {d['outcome']}.", str(d["why"]), "wait" if d["outcome"] == "question" else ""


def _proposal_checked(d: Data) -> Said:
    if d["refused"]:
        return f"What thought {d['thought']} proposed was refused.", str(d["refused"]), "bad"
    return f"What thought {d['thought']} proposed passed its checks.", "", "good"


def _confirmed(d: Data) -> Said:
    value = f" {_scored(d['score'])}" if d["score"] else ""
    if d["confirmed"]:
        return f"The sealed test confirmed run {d['run']}:{value}.", d["reason"], "good"
    return f"The sealed test did not confirm run {d['run']}{':' + value if value else ''}.", d["reason"], "bad"


def _holdout_asked(d: Data) -> Said:
    rung = d["rung"]
    what = "and told a new value" if d["told"] else f"and repeated what it had told of run {rung['run']}"
    return f"The holdout was asked about run {d['run']}, {what}.", f"{rung['value']:.3f} on {rung['n']} items.", ""


def _seal_opened(d: Data) -> Said:
    if not d["run"]:
        return "The base model was asked on the sealed items.", _scored(d["score"]), ""
    against = f", although {d['why']}" if d.get("why") else ""
    return f"The seal was opened for run {d['run']}{against}.", f"Estimated chance: {100 * d['chance']:.0f} %.", ""


def _ended(d: Data) -> Said:
    return f"The goal ended: {d['state']}.", d["reason"], {"met": "good", "needs human": "wait"}.get(d["state"], "")


def _pull_request_closed(d: Data) -> Said:
    return f"@{d['by']} {'merged' if d['merged'] else 'closed'} the pull request.", "", ""


def _crashed(d: Data) -> Said:
    reference = f" The server's log says more under `{d['reference']}`." if d["reference"] else ""
    return "A step of Postdoc's failed.", f"{d['error']}.{reference}", "bad"


def _budget_raised(d: Data) -> Said:
    more = d["more"]
    parts = [
        counted(int(more["runs"]), "run") if more.get("runs") else "",
        f"{more['gpu_hours']:g} GPU hours" if more.get("gpu_hours") else "",
        usd(more["usd"]) if more.get("usd") else "",
        f"{clock(more['wall_hours'] * 3600)} more until the end" if more.get("wall_hours") else "",
    ]
    return f"@{d['by']} raised the budget by {', '.join(filter(None, parts)) or 'nothing'}.", "", "good"


def _resumed(d: Data) -> Said:
    extra = d.get("extra_runs") or 0
    return f"@{d['by']} resumed the goal" + (f" with {counted(extra, 'more run')}." if extra else "."), "", "good"


SENTENCES: dict[str, Callable[[Data], Said]] = {
    "conversation_opened": lambda d: ("A conversation began where there is no goal.", "", ""),
    "goal_opened": _opened,
    "goal_edited": lambda d: (f"@{d['by']} edited the issue.", "", ""),
    "goal_read": lambda d: ("The edited issue was read.", "It states another goal." if d.get("offer") else "", ""),
    "goal_adopted": lambda d: (f"@{d['by']} adopted the goal `{d['hash']}` of the edited issue.", "", "good"),
    "command": lambda d: (f"@{d['author']} wrote `{_line(d)}`.", "", ""),
    "head_moved": lambda d: (f"@{d['by']} pushed `{short(d['head_sha'])}`.", "", ""),
    "pull_request_closed": _pull_request_closed,
    "pull_request_reopened": lambda d: (f"@{d['by']} reopened the pull request.", "", ""),
    "contract_read": _contract_read,
    "job_launched": lambda d: (
        f"A job was started to {task_of(d['role'], d['run'])}.",
        f"Attempt {d['attempt']}: the one before was not the recipe's fault." if d["attempt"] > 1 else "", "",
    ),
    "refused": _refused,
    "baseline_recorded": _baseline,
    "data_checked": _data_checked,
    "planned": _planned,
    "proposed": _proposed,
    "consented": _consented,
    "consent_asked": _consent_asked,
    "budget_raised": _budget_raised,
    "monitored": lambda d: ("The monitor ended a job.", stopped_sentence(d), "bad"),
    "spending_refused": lambda d: (
        "A job was not started" + ("." if "reproduction" in d else ": spending is not allowed now."),
        str(d["reason"]), "wait",
    ),
    "job_refused": lambda d: (f"No job was started to {task_of(d['role'], d['run'])}.", stopped_sentence(d), "bad"),
    "llm_spent": lambda d: (f"A language model was asked for {usd(d['usd'])}.", str(d.get("what", "")), ""),
    "judged": lambda d: (
        "The answers of an evaluation were scored." if d["done"] else "The scoring of an evaluation's answers stopped.",
        f"{counted(d['answers'], 'judgement')} for {usd(d['usd'])} so far", "" if d["done"] else "wait",
    ),
    "thought": _thought,
    "proposal_checked": _proposal_checked,
    "rethink": lambda d: (f"@{d['by']} asked for the plan to be thought over.", "", ""),
    "run_started": _run_started,
    "diagnosed": _diagnosed,
    "reviewed": _reviewed,
    "revised": _revised,
    "head_read": _head_read,
    "holdout_asked": _holdout_asked,
    "seal_opened": _seal_opened,
    "confirmed": _confirmed,
    "outputs_gone": lambda d: (
        f"What the job to {task_of(d['role'], d['run'])} left is gone with its machine.", "", "wait",
    ),
    "ablation_opened": lambda d: (
        f"@{d['by']} asked to try {counted(len(d['arms']), 'value')} of `{d['key']}` side by side.", "", "",
    ),
    "ablation_reported": lambda d: (f"Ablation {d['ablation']} was reported in one table.", "", "good"),
    "reproduction_opened": lambda d: (f"@{d['by']} asked for run {d['run']} to be made again.", "", ""),
    "reproduction_rebuilt": lambda d: (
        "The training set of the reproduction was built again.",
        "It is not the one that the run trained on." if d["rows"][0] not in ("", d["rows"][1]) else "", "",
    ),
    "reproduction_reported": lambda d: (
        f"Reproduction of run {d['run']}: {d['report'].get('verdict') or 'no verdict'}.",
        str(d["report"].get("failure") or d["report"].get("first") or ""),
        "good" if d["report"].get("verdict") in ("bitwise", "within seed noise") else "wait",
    ),
    "stopped": lambda d: (f"@{d['by']} asked to stop.", str(d.get("reason", "")), ""),
    "resumed": _resumed,
    "ended": _ended,
    "issue_closed": lambda d: ("The issue was closed, because its pull request was merged.", "", ""),
    "published": lambda d: (
        ("The best model was not published.", str(d["problem"]), "wait") if "problem" in d
        else ("The best model was published on the Hub.", str(d.get("url", "")), "good")
    ),
    "crashed": _crashed,
}  # fmt: skip
SPOKEN = frozenset(SENTENCES) | {"job_ended", "command_answered"}
"""Kinds of events that have a sentence."""
