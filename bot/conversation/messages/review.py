"""A run's review: verdict in words, the numbers behind it, curves, diagnoses on their lines, and what comes next."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from bot.conversation.messages.charts import Curve, told, xychart
from bot.conversation.messages.keys import message
from bot.conversation.messages.lineage import disowned, lineage_section
from bot.conversation.messages.progress import compared_with
from bot.conversation.messages.tables import amount_or_word, comparisons, probe_table, table
from bot.conversation.messages.thoughts import remedy_words, thought_section
from bot.conversation.messages.wording import (
    changes,
    counted,
    goal_of,
    listed,
    measure_of,
    percent,
    setting,
    short,
    verdict_clause,
)
from bot.domain.diagnosis import Diagnosis, Evidence, Severity
from bot.domain.evaluation import Verdict
from bot.domain.experiment import Experiment, Run
from bot.domain.inert import code, fenced, inert, inert_line
from bot.domain.metrics import Counting
from bot.domain.recipe import as_yaml
from bot.domain.sealing import WISE, chance_of_confirming, wise_to_open
from bot.domain.statistics import CONFIDENCE, luck_of_best

_SEVERITY = {
    Severity.FATAL: "the run produced nothing usable",
    Severity.HARMFUL: "the run is worse than it could be",
    Severity.ADVICE: "worth knowing",
}


def review_name(run: Run) -> str:
    return f"run/{run.n:02d}/review"


def review(
    experiment: Experiment,
    run: Run,
    *,
    curves: Sequence[Curve] = (),
    seeds: Sequence[int] = (),
    next_step: str = "",
    reproduction: str = "",
) -> str:
    """The body of a run's review. `seeds` default to the goal's."""
    seeds = seeds or (goal_of(experiment).seed,)
    return message(
        experiment.goal_id,
        review_name(run),
        _verdict_sentence(experiment, run, seeds),
        _comparison_section(experiment, run),
        _format_sentence(run),
        lineage_section(run),
        _forgetting_section(experiment, run),
        _seal_sentence(experiment, run),
        _curves_section(curves),
        _findings(experiment, run),
        _probe_section(run),
        _kept_sentence(experiment, run),
        thought_section(experiment, run),
        _next_sentence(run, next_step),
        _reproduction(run, seeds, reproduction),
    )


def _verdict_sentence(experiment: Experiment, run: Run, seeds: Sequence[int]) -> str:
    changed = changes(run.changed)
    if rewritten := experiment.rewritten_in(run):
        changed = listed(
            [part for part in (changed, f"rewrote {listed([code(each, 64) for each in rewritten])}") if part]
        )
    trained = f"Run {run.n} changed {changed}." if changed else f"Run {run.n} trained the first recipe."
    if disowned(run) is not None:
        return f"**Run {run.n} was trained, and {inert_line(run.failure or '', 600)}**\n\n{trained}"
    if run.score is None:
        why = f": {inert_line(run.failure, 500)}" if run.failure else "."
        return f"**Run {run.n} ended before it could be evaluated{why}**\n\n{trained}"
    score, goal = run.score, goal_of(experiment)
    reached = "reached on the dev items" if goal.reached(score.value) else "not reached"
    metric = code(goal.metric) + ("" if goal.measure.higher_is_better else ", of which less is better")
    margin = score.measure.said_interval(score.ci_low, score.ci_high)
    sentence = (
        f"**{verdict_clause(run.verdict)}: {score.measure.said(score.value)} (95 % interval {margin}, n = {score.n}, "
        f"{counted(len(seeds), 'seed')}); the target of {goal.said_target} is {reached}.**"
    )
    return f"{sentence}\n\n{trained} The metric is {metric}."


_PAIRED = {
    True: "The same items, paired: gained are items that only this run has right.",
    False: "The same items, paired: gained are items that this run does better.",
}


def _comparison_section(experiment: Experiment, run: Run) -> str:
    rows = compared_with(run)
    if not rows:
        return ""
    parts = [comparisons(rows), _PAIRED[measure_of(rows[0][1]).counting is Counting.RIGHT]]
    for found in [found for _, found in rows if found["verdict"] == Verdict.CANNOT_TELL][:1]:
        enough = f"; about {found['n_needed']:,} items would tell the observed one" if found.get("n_needed") else ""
        least = measure_of(found).said_size(found["minimum_detectable"])
        parts.append(f"{found['n']} items show differences from about {least} on (power 0.8){enough}.")
    scored_runs = sum(other.score is not None for other in experiment.runs)
    if scored_runs > 1 and run.score is not None:
        luck = luck_of_best(scored_runs, run.score.standard_error)
        parts.append(
            f"{scored_runs} runs were compared on these items, so the best of them is flattered by about "
            f"{run.score.measure.said_size(luck)}; the sealed test, opened once, decides."
        )
    parts += [_level_sentence(experiment, found) for name, found in rows[:1] if found.get("level")]
    return "\n\n".join(parts)


def _level_sentence(experiment: Experiment, found: Mapping[str, Any]) -> str:
    """What a p-value has to stay below by now, where that is not what one comparison alone would need."""
    level, scored_runs = float(found["level"]), sum(other.score is not None for other in experiment.runs)
    doubtful = level <= found["p_value"] < 1 - CONFIDENCE
    said = f"after {counted(scored_runs, 'run')} a verdict takes p < {level:.2g}"
    return f"All runs of this goal together may say something false with a probability of 5 %, so {said}" + (
        "; by itself this difference would pass for one." if doubtful else "."
    )


def _forgetting_section(experiment: Experiment, run: Run) -> str:
    """What the model could do before, and does now."""
    if not run.forgetting:
        return ""
    rows = []
    for each in run.forgetting:
        margin = f"{100 * each['difference']:+.1f} ({100 * each['ci_low']:+.1f} to {100 * each['ci_high']:+.1f})"
        told = {"worse": "**forgotten**", "better": "better"}.get(each["verdict"], "kept, as far as it can be told")
        before, after = percent(each["before"]), percent(each["after"])
        rows.append((code(each["name"], 64), before, after, margin.replace("-", "\u2212"), str(each["n"]), told))
    said = ""
    if run.forgets:
        blocks = goal_of(experiment).forgetting == "block"
        said = f"{listed([code(name, 64) for name in run.forgets])} got worse beyond chance. " + (
            "This goal says `forgetting: block`, so this run does not count." if blocks else "It is told, not held "
            "against the run; a goal with `forgetting: block` would not count it."
        )  # fmt: skip
    shown = table(("Old task", "Base model", "This run", "Points (95 % interval)", "Items", ""), rows)
    return f"### What it could do before\n\n{shown}\n\n{said}".strip()


def _seal_sentence(experiment: Experiment, run: Run) -> str:
    """Why a run that reaches the target is followed by another one."""
    reached = experiment.candidate
    if reached is None or reached.n != run.n or run.score is None or not goal_of(experiment).reached(run.score.value):
        return ""
    sealed, looks = experiment.splits.get("sealed", run.score.n), len(experiment.scored_runs)
    target, rung = goal_of(experiment).target, experiment.rung
    found = chance_of_confirming(run.score, looks, rung, target=target, sealed=sealed)
    held = ""
    if rung is not None:
        value = f"{run.score.measure.said(rung.value)} on {rung.n} items"
        held = f" The holdout, through the Ladder, says {value}" + (
            "." if rung.run == run.n else f" of run {rung.run}, and that this run is no clear step from there."
        )
    if wise_to_open(run.score, looks, rung, target=target, sealed=sealed) or not run.remedy:
        return f"The sealed items will confirm this run with an estimated chance of {100 * found:.0f} %.{held}"
    return (
        f"The target is reached on dev, but by so little that the {sealed} sealed items would confirm it with an "
        f"estimated chance of {100 * found:.0f} % only. They are opened once, from {100 * WISE:.0f} % on or when "
        f"nothing is left to try, so another run comes first.{held}"
    )


def _format_sentence(run: Run) -> str:
    """How the answers ended and whether only their form is wrong."""
    score = run.score
    if score is None:
        return ""
    said = []
    if score.termination_rate is not None:
        said.append(f"{percent(score.termination_rate)} of the {score.n} answers ended by themselves.")
    if score.strict is not None and score.lenient is not None and score.lenient - score.strict > 0.005:
        lenient, strict = percent(score.lenient), percent(score.strict)
        said.append(f"Read leniently, {lenient} would be right instead of {strict} (n = {score.n}).")
    return " ".join(said)


def _curves_section(curves: Sequence[Curve]) -> str:
    """The first curve in sight, the others a click away: a goal may take a dozen runs, each with its review."""
    drawn = [f"{told(curve)}\n\n{xychart(curve)}".strip() for curve in curves if curve.points]
    if not drawn:
        return ""
    others = _folded(f"More curves ({len(drawn) - 1})", "\n\n".join(drawn[1:])) if drawn[1:] else ""
    return f"### Curves\n\n{drawn[0]}\n\n{others}".rstrip()


def _folded(summary: str, text: str) -> str:
    return f"<details><summary>{summary}</summary>\n\n{text}\n\n</details>"


def _findings(experiment: Experiment, run: Run) -> str:
    report = run.report
    lines = []
    for label, found in zip(labels_of(experiment, run), report.diagnoses, strict=True):
        place = f" on {code(found.key, 64)}" if found.key else ""
        lines.append(
            f"- **{label}** `{found.symptom}`{place}, {found.severity}, confidence {found.confidence:.2f}: "
            f"{inert_line(found.cause, 600)}"
        )
    parts = ["### Diagnosis"]
    if report.healthy:
        parts.append("Nothing wrong was found in this run.")
    parts += ["\n".join(lines)] if lines else []
    if report.ruled_out:
        items = "\n".join(f"- {inert_line(item, 300)}" for item in report.ruled_out)
        parts.append(_folded(f"Ruled out ({len(report.ruled_out)})", items))
    return "\n\n".join(parts)


def _probe_section(run: Run) -> str:
    probe = run.probe
    if not probe:
        return ""
    steps = probe.get("steps")
    each = f", {steps} steps each" if steps else ""
    reason = inert_line(str(probe.get("reason") or ""), 400).rstrip(".")
    suggested = probe.get("suggested")
    chosen = f"It suggests {code(setting(suggested), 80) if suggested is not None else 'no value'}"
    return (
        f"### Learning-rate probe\n\nShort trials from the same start{each}: a probe picks a value to try, it is not a "
        f"run and proves nothing by itself.\n\n{probe_table(probe)}\n\n{chosen}{f': {reason}' if reason else ''}."
    )


def _next_sentence(run: Run, next_step: str) -> str:
    if next_step:
        return f"**Next:** {next_step}"
    remedy = run.remedy
    if not remedy:
        return ""
    why = f" {inert_line(str(remedy['why']), 500)}" if remedy.get("why") else ""
    waits = f" It waits for a person: {inert_line(str(remedy['waits']), 300)}." if remedy.get("waits") else ""
    match remedy.get("kind"):
        case "ablation":
            said = "several suspects side by side, in one ablation"
        case "stage":
            said = f"train by {code(remedy['value'], 64)}, from {code(setting(remedy['also']['init_from']), 120)}"
        case _ if remedy.get("probe") and remedy.get("value") is None:
            said = f"a short probe of {code(remedy['key'], 64)}"
        case _:
            said = f"set {remedy_words(remedy)}" if not remedy.get("scripts") else f"train with {remedy_words(remedy)}"
    return f"**Next:** {said}.{why}{waits}"


def _kept_sentence(experiment: Experiment, run: Run) -> str:
    """Which run the next change builds on, where that had to be decided."""
    if not run.kept or len([each for each in experiment.runs if each.score is not None]) < 2:
        return ""
    return f"**Kept:** run {run.kept['run']}, because {inert_line(str(run.kept['why']), 300)}."


def _reproduction(run: Run, seeds: Sequence[int], command: str) -> str:
    """The command that trains it again. The commit stands outside the code span, so that GitHub links it."""
    number = listed([str(seed) for seed in seeds])
    evaluator = run.score.harness_digest[:12] if run.score is not None else "none"
    return (
        f"Reproduce: {code(command or 'uv run train.py --config recipe.yaml', 400)}, commit {short(run.head_sha)}, "
        f"seed {number} (recipe `{run.recipe_hash}`, evaluator `{evaluator}`)."
    )


# --- one diagnosis on its line


def inline_comment(
    experiment: Experiment,
    run: Run,
    label: str,
    diagnosis: Diagnosis,
    suggested_line: str | None = None,
    *,
    remedy_why: str = "",
) -> str:
    """The comment on the line that a diagnosis blames. `suggested_line` is the whole new line, `remedy_why` says in one
    sentence why that value."""
    severity = f"{diagnosis.severity}: {_SEVERITY[diagnosis.severity]}"
    evidence = "\n".join(_evidence_line(item) for item in diagnosis.evidence[:4])
    return message(
        experiment.goal_id,
        f"run/{run.n:02d}/{label}",
        f"**{label} · `{diagnosis.symptom}`** · {severity} · confidence {diagnosis.confidence:.2f}",
        inert(diagnosis.cause),
        evidence,
        f"Second most likely: {inert_line(diagnosis.runner_up, 400)}" if diagnosis.runner_up else "",
        f"This would prove it wrong: {inert_line(diagnosis.refuted_by, 400)}" if diagnosis.refuted_by else "",
        f"Why this value: {inert_line(remedy_why, 500)}" if remedy_why and suggested_line is not None else "",
        _suggestion(label, suggested_line),
    )


def preflight_name(sha: str) -> str:
    return f"preflight/{sha[:12]}"


def preflight_review(experiment: Experiment, sha: str) -> str:
    """The body of the review that stands on a recipe before it has been trained."""
    said = f"**The recipe at {short(sha)} does not fit on its machine, by estimate.** Nothing has been spent on it."
    return message(experiment.goal_id, preflight_name(sha), said)


def preflight_comment(
    experiment: Experiment, sha: str, diagnosis: Diagnosis, changes: Mapping[str, Any], suggested_line: str | None
) -> str:
    """What keeps the recipe from fitting, on the line that would change that. `changes` is all that it takes."""
    settings = " ".join(f"{key}={as_yaml(value)}" for key, value in changes.items())
    suggestion = ""
    if suggested_line is not None and len(changes) == 1:
        suggestion = fenced(suggested_line.split("\n")[0].rstrip("\r"), "suggestion")
    return message(
        experiment.goal_id,
        f"{preflight_name(sha)}/{diagnosis.key}",
        f"**`{diagnosis.symptom}`** · before training · confidence {diagnosis.confidence:.2f}",
        inert(diagnosis.cause),
        suggestion,
        f"To change it, comment:\n\n{fenced(f'/postdoc set {settings}')}" if settings else "",
        f"This would prove it wrong: {inert_line(diagnosis.refuted_by, 400)}",
    )


def _evidence_line(item: Evidence) -> str:
    where = f" at step {item.step:,}" if item.step is not None else ""
    value = (
        code(amount_or_word(item.value), 120) if isinstance(item.value, str) else f"**{amount_or_word(item.value)}**"
    )
    return f"- {code(item.key, 80)} {value}{where}"


def _suggestion(label: str, line: str | None) -> str:
    if line is None:
        return "No single value follows from the evidence, so there is no suggestion."
    # The line is committed as it stands, so it is not made inert; one line only, and a fence that it cannot close.
    line = line.split("\n")[0].rstrip("\r")
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", line)), default=0))
    return (
        f"{fence}suggestion\n{line}\n{fence}\n\nCommit the suggestion, or comment `/postdoc accept {label}`. "
        "Neither spends anything by itself."
    )


def diagnosis_labels(experiment: Experiment) -> dict[str, tuple[int, int]]:
    """`D3` -> (run number, place in that run's report). Numbered through the whole goal, so that a label names one
    diagnosis whichever run it came from."""
    found: dict[str, tuple[int, int]] = {}
    for run in experiment.runs:
        for index in range(len(run.report.diagnoses)):
            found[f"D{len(found) + 1}"] = (run.n, index)
    return found


def labels_of(experiment: Experiment, run: Run) -> list[str]:
    """The labels of one run's diagnoses, in its report's order."""
    before = sum(len(other.report.diagnoses) for other in experiment.runs if other.n < run.n)
    return [f"D{before + index + 1}" for index in range(len(run.report.diagnoses))]


def remedy_label(experiment: Experiment, run: Run) -> str | None:
    """The label of the diagnosis whose remedy comes next; None when nothing does."""
    if run.remedy is None:
        return None
    if run.remedy.get("label"):
        return str(run.remedy["label"])
    named = zip(labels_of(experiment, run), run.report.diagnoses, strict=True)
    return next((label for label, diagnosis in named if diagnosis.symptom == run.remedy["symptom"]), None)


def diagnosis_named(experiment: Experiment, label: str) -> tuple[Run, Diagnosis] | None:
    """The diagnosis behind a label that a person wrote."""
    place = diagnosis_labels(experiment).get(label.upper())
    if place is None:
        return None
    run = experiment.runs[place[0] - 1]
    return run, run.report.diagnoses[place[1]]
