"""What to try next, decided once for each run when it is diagnosed: repair, stage, draft, search, or nothing more.

The default policy repairs what a diagnosis names, one cause at a time, building on the run that is worth keeping. Where
nothing is named it tries a few independent drafts, then lets Optuna search around the best of them. The policies
`random`, `tpe` and `none` look at no diagnosis; they are what the playbook is compared with. Everything here is a pure
function of the experiment, so that a journal read again decides the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from enum import StrEnum
from itertools import pairwise
from typing import Any, NamedTuple

import yaml

from bot.brain.fitting import Room, fitted
from bot.brain.keeping import best_of, comparable_runs, is_worse, kept_run, metric_of, overshot_runs
from bot.brain.playbook import Kind, Means, Remedy, remedies_for
from bot.brain.remedies import family_of, is_shorter
from bot.brain.space import Dimension, Trial, random_edits, seed_of, space_of, tpe_proposals
from bot.brain.stages import next_stage, sft_first
from bot.brain.suspects import suspects
from bot.diagnosis.learning_rates import rate_of, tidy
from bot.diagnosis.remedies import duration_key, scaled_duration
from bot.domain.diagnosis import Severity
from bot.domain.experiment import Experiment, JobRole, Run
from bot.domain.goal import digest_of
from bot.domain.recipe import as_yaml, differences, recipe_hash


class Search(StrEnum):
    """How the next change is found."""

    PLAYBOOK = "playbook"
    RANDOM = "random"
    """One key of the space, chosen and set at random, on the best run so far."""
    TPE = "tpe"
    """Optuna's proposals over the whole space from the first run on."""
    NONE = "none"


MOST_FAILED_REPAIRS = 3
"""Changes of one family that may leave the same symptom standing."""
MOST_CRASHES = 5
"""Times in a row that a run that ended in a crash is followed by another try."""
MOST_TOLD = 8
"""Runs of a ledger in words; the sticky comment has them all."""
AIR = 0.9
"""† Of the time that is left, what a longer training is planned to fill: no two take exactly as long."""
FIRST_DRAFTS = 6
"""† Runs of budget from which on drafts are worth their price: two, and one more for each two runs, four at most."""


class Decision(NamedTuple):
    remedy: Remedy | None
    stuck: str = ""
    """Why there is none, a sentence without its full stop."""
    kept: Mapping[str, Any] | None = None
    """{"run", "why"}: what the change builds on."""


def next_change(x: Experiment, means: Means, search: Search = Search.PLAYBOOK) -> Decision:
    """What follows the latest run of `x`, which has been diagnosed."""
    run = x.run
    assert run is not None and x.goal is not None
    if search is not Search.PLAYBOOK and (stage := next_stage(x, run, means, repairable=False)) is not None:
        return Decision(stage)
    match search:
        case Search.NONE:
            return Decision(None, "one run was asked for, and nothing is tried after it (POSTDOC_SEARCH=none)")
        case Search.RANDOM:
            return Decision(_random_edit(x, run, means), "no edit at random is left that has not been tried")
        case Search.TPE:
            return Decision(_proposal(x, run, means), "the search space is used up")
        case Search.PLAYBOOK:
            return _playbook(x, run, means)


# --- by diagnosis


def _playbook(x: Experiment, run: Run, means: Means) -> Decision:
    kept = kept_run(x)
    said = {"run": kept[0].n, "why": kept[1]} if kept is not None else None
    base = _built_on(x, run, kept[0] if kept is not None else None)
    if (why := _crashes(x, run)) is not None:
        return Decision(None, why, said)
    harmful = [found for found in base.report.diagnoses if found.severity is not Severity.ADVICE]
    failed = _failed_repairs(x)
    repairs = [each for each in _repairs(x, run, base, means) if failed[_attempt(each)] < MOST_FAILED_REPAIRS]
    named = {str(found.symptom) for found in harmful}
    repairable = any(each.symptom in named and not each.waits for each in repairs)
    if (stage := next_stage(x, run, means, repairable=repairable)) is not None:
        return Decision(stage, "", said)
    if (first := sft_first(x, run, means, harmful)) is not None and not first.waits:
        return Decision(first, "", said)
    if (ablation := suspects(x, run, means, _room(x, run, means))) is not None:
        return Decision(ablation, "", said)
    free = sorted(
        (each for each in repairs if not each.waits),
        key=lambda each: (each.symptom not in named, failed[_attempt(each)] >= MOST_FAILED_REPAIRS - 1),
    )
    if free:
        return Decision(free[0], "", said)
    if (why := _doom(x, run, named, failed)) is not None:
        return Decision(first, why, said)
    asked = first or next((each for each in repairs if each.symptom in named), None)
    if asked is not None and any(found.severity is Severity.FATAL for found in harmful):
        return Decision(asked, "", said)
    if base.failure is not None:
        # Other starts and searches are for recipes that train.
        return Decision(asked, f"run {base.n} ended in a crash, and no change is known against it. {_ledger(x)}", said)
    found = _draft(x, run, base, means) or _proposal(x, run, means, base=base)
    return Decision(found or asked, "nothing is left to try that has not been tried", said)


def _built_on(x: Experiment, run: Run, kept: Run | None) -> Run:
    """The run whose recipe the next change is made of: the one worth keeping, or a crashed one whose crash is to be
    repaired. A crash that our own last change explains is not repaired: the change is taken back."""
    if run.score is not None:
        return kept or run
    before = next((each for each in comparable_runs(x) if each.n == run.n - 1), None)
    if run.failure is None or before is None or before.remedy is None or run.changed_by != "postdoc":
        return run
    remedy = Remedy.from_dict(before.remedy)
    blamed = {found.key for found in run.report.diagnoses if found.severity is Severity.FATAL and found.key}
    still = remedy.symptom in run.symptoms  # half of a batch that was four times too large
    if still or (blamed and not blamed & remedy.settings.keys()):
        return run
    return kept or (x.runs[remedy.base - 1] if remedy.base else before)


def _repairs(x: Experiment, run: Run, base: Run, means: Means) -> Iterator[Remedy]:
    """Untried changes of the recipe that is built on, for what its run showed."""
    scripts = digest_of(run.digests)
    probed = any(job.role is JobRole.PROBE and x.runs[job.run - 1].stage == run.stage for job in x.jobs.values())
    useless = {(failed.symptom, what) for failed, changed in failed_remedies(x) for what in _ideas(failed, changed)}
    for remedy in remedies_for(
        base.report, base.recipe, tried=x.tried, script_digest=scripts, probed=probed, overshot=overshot_runs(x, base),
        parameters=means.parameters, room=_room(x, base, means),
    ):  # fmt: skip
        if not useless & {(remedy.symptom, what) for what in _ideas(remedy, base)}:
            yield _on(remedy, run, base)


def _room(x: Experiment, base: Run, means: Means) -> Room:
    """What a change of this run's recipe has to fit into."""
    assert x.goal is not None
    job = x.job_for(JobRole.TRAIN, base.n)
    timed = job is not None and job.seconds > 0 and means.seconds is not None
    times = AIR * means.seconds / job.seconds if timed and job is not None and means.seconds is not None else None
    return Room(x.goal.script is not None, means.positions, times)


def _on(remedy: Remedy, run: Run, base: Run) -> Remedy:
    """The change as one of the run that is built on, said where that is not the latest."""
    if base is run:
        return remedy
    why = f"Back to run {base.n}'s recipe, with one change. {remedy.why}"
    return replace(remedy, base=base.n, recipe=base.recipe, why=why)


# --- endings


def _crashes(x: Experiment, run: Run) -> str | None:
    """Why a recipe that keeps crashing is not tried once more; None while it may be."""
    crashed = []
    for each in reversed(comparable_runs(x)):
        if each.failure is None:
            break
        crashed.append(each)
    if run.failure is None or len(crashed) <= MOST_CRASHES:
        return None
    runs = ", ".join(str(each.n) for each in reversed(crashed))
    return f"runs {runs} ended in a crash one after the other, and {MOST_CRASHES} retries are the limit. {_ledger(x)}"


def _attempt(remedy: Remedy) -> tuple[str, str]:
    return remedy.symptom, family_of(remedy.key)


def failed_remedies(x: Experiment) -> Iterator[tuple[Remedy, Run]]:
    """(repair, the run it changed) of those that left their symptom standing, crashed, or made the result worse."""
    for before, after in pairwise(comparable_runs(x)):
        if before.remedy is None or after.changed_by != "postdoc" or not before.remedy["symptom"]:
            continue
        remedy = Remedy.from_dict(before.remedy)
        changed = x.runs[remedy.base - 1] if remedy.base else before
        if remedy.symptom in after.symptoms or after.failure is not None or is_worse(x, after, changed):
            yield remedy, changed


def _failed_repairs(x: Experiment) -> Counter[tuple[str, str]]:
    """(symptom, family of the change) -> repairs of it that failed."""
    return Counter(_attempt(remedy) for remedy, _ in failed_remedies(x))


def _ideas(remedy: Remedy, changed: Run) -> tuple[str, ...]:
    """What is not worth a second try where it has failed: the same words, on whichever run's recipe, and an even
    shorter training."""
    shorter = is_shorter(yaml.safe_load(changed.recipe) or {}, remedy.settings)
    return (digest_of(remedy.settings), *(["shorter"] if shorter else []))


def _doom(x: Experiment, run: Run, named: Collection[str], failed: Mapping[tuple[str, str], int]) -> str | None:
    """Why this goes round in circles; None when it does not."""
    looped = [pair for pair, count in failed.items() if count >= MOST_FAILED_REPAIRS and pair[0] in named]
    if not looped:
        return None
    symptom, family = looped[0]
    return (
        f"`{symptom}` still stands after {failed[looped[0]]} changes of one kind ({family}), and nothing else is known "
        f"against it. {_ledger(x)}"
    )


def _ledger(x: Experiment) -> str:
    """What was changed and what came of it, in words."""
    lines = []
    for run in comparable_runs(x):
        changed = ", ".join(f"{key} {as_yaml(old)} → {as_yaml(new)}" for key, (old, new) in run.changed.items())
        came = f"{run.score.value:.3g}" if run.score is not None else "no value"
        shown = ", ".join(run.symptoms) or "nothing found"
        lines.append(f"run {run.n} ({changed or 'the first recipe'}): {came}, {shown}")
    told = lines[-MOST_TOLD:]
    which = f", the last {len(told)} of {len(lines)} runs" if len(told) < len(lines) else ""
    return f"Tried{which}: " + "; ".join(told)


# --- drafts and search


def _draft(x: Experiment, run: Run, base: Run, means: Means) -> Remedy | None:
    """The next independent start, while the budget has room for one."""
    wanted = drafts_wanted(x.ceilings.runs)
    runs = comparable_runs(x)
    made = [each for each in runs if each.remedy is not None and each.remedy.get("kind") == Kind.DRAFT]
    if len(made) + 1 >= wanted or not runs:
        return None
    # Drafts start from where the first of them did, so that none inherits another's luck.
    start = x.runs[made[0].remedy["base"] - 1] if made and made[0].remedy and made[0].remedy.get("base") else base
    values = yaml.safe_load(start.recipe) or {}
    number = len(made) + 2
    room = _room(x, start, means)
    for drafted in draft_settings(values, means):
        settings = fitted(values, drafted, room)
        if settings is None or not (means.covered is None or means.covers(settings)):
            continue
        if _untried(x, run, values, {**values, **settings}):
            key, *others = settings
            shown = ", ".join(f"{each} {as_yaml(settings[each])}" for each in settings)
            why = (
                f"Draft {number} of {wanted}: nothing that was found says what to change, so another start is tried: "
                f"run {start.n}'s recipe with {shown}."
            )
            return Remedy(
                key, settings[key], "", why, also={other: settings[other] for other in others}, kind=Kind.DRAFT,
                base=start.n, recipe=start.recipe,
            )  # fmt: skip
    return None


def drafts_wanted(runs: int) -> int:
    """How many independent starts a budget of so many runs pays for, the first recipe included; 0: none."""
    return 0 if runs < FIRST_DRAFTS else min(4, 2 + (runs - FIRST_DRAFTS) // 2)


def draft_settings(values: Mapping[str, Any], means: Means) -> Iterator[dict[str, Any]]:
    """Where other starts lie: at the learning rate that usually works, where the recipe is far below it; longer; and at
    the upper and the lower end of the band."""
    method = str(values.get("method", "sft"))
    found = rate_of(values, means.parameters, method)
    rate, band = found.current, found.band
    if found.size_known and rate < found.middle / 2:
        yield {"learning_rate": found.middle}
    yield {duration_key(values): scaled_duration(values, 2.0)}
    if rate > 0:
        yield {"learning_rate": tidy(min(rate * 3, band.ceiling))}
        yield {"learning_rate": tidy(max(rate / 3, band.low))}


def _random_edit(x: Experiment, run: Run, means: Means) -> Remedy | None:
    base = best_of(x, comparable_runs(x)) or run
    values = yaml.safe_load(base.recipe) or {}
    space, room = _space(x, means), _room(x, base, means)
    for key, value in random_edits(space, values, _seed(x, run, "random")):
        settings = fitted(values, {key: value}, room)
        if settings is not None and _untried(x, run, values, {**values, **settings}):
            why = f"An edit at random of run {base.n}'s recipe."
            return Remedy(
                key, settings.pop(key), "", why, also=settings, kind=Kind.SEARCH, base=0 if base is run else base.n,
                recipe="" if base is run else base.recipe,
            )  # fmt: skip
    return None


def _proposal(x: Experiment, run: Run, means: Means, base: Run | None = None) -> Remedy | None:
    """Optuna's next point. On a settled recipe (`base`) only over the few keys that matter most."""
    start = base or comparable_runs(x)[0]
    values = yaml.safe_load(start.recipe) or {}
    space = [each for each in _space(x, means) if base is None or each.core]
    metric, room = metric_of(x), _room(x, start, means)
    trials = [
        Trial(yaml.safe_load(each.recipe) or {}, metric.rank(each.score.value) if each.score is not None else None)
        for each in comparable_runs(x)
    ]
    for point in tpe_proposals(space, trials, _seed(x, run, "tpe")) if space else ():
        moved = {key: value for key, value in point.items() if differences(values, {**values, key: value})}
        settings = fitted(values, moved, room)
        if settings and _untried(x, run, values, {**values, **settings}):
            key, *others = settings
            what = "Nothing more was found wrong, so the recipe is searched" if base is not None else "A search"
            why = (
                f"{what} over {', '.join(each.key for each in space)}; this is what {len(trials)} "
                f"{'run' if len(trials) == 1 else 'runs'} of it propose, {len(settings)} "
                f"{'key' if len(settings) == 1 else 'keys at once'}, on run {start.n}'s recipe."
            )
            return Remedy(
                key, settings[key], "", why, also={other: settings[other] for other in others}, kind=Kind.SEARCH,
                base=0 if start is run else start.n, recipe="" if start is run else start.recipe,
            )  # fmt: skip
    return None


def _space(x: Experiment, means: Means) -> tuple[Dimension, ...]:
    """Around the recipe that the stage began with, so that it stays the same while the search goes on; of the keys that
    may be changed without asking."""
    assert x.goal is not None
    first = comparable_runs(x)[0]
    start = yaml.safe_load(first.recipe) or {}
    # Of a script that the goal brings nobody knows which further keys it reads.
    whole = (each for each in space_of(first.method, start, means.parameters) if not x.goal.script or each.key in start)
    return tuple(each for each in whole if means.covered is None or means.covers([each.key]))


def _untried(x: Experiment, run: Run, before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    name = recipe_hash(after, script_digest=digest_of(run.digests))
    return bool(differences(before, after)) and name not in x.tried


def _seed(x: Experiment, run: Run, what: str) -> int:
    assert x.goal is not None
    return seed_of(what, x.goal.seed, run.stage, run.n)
