"""What a goal has spent, may spend and will spend, and who has agreed to it: pure functions of its experiment."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import yaml

from bot.brain.playbook import Remedy
from bot.conversation.permissions import Tier
from bot.conversation.policy import Policy
from bot.domain.ablation import Ablation
from bot.domain.budget import Envelope, Spend, exceeded, remaining, used_up
from bot.domain.experiment import Experiment, JobRole, Run
from bot.domain.goal import DEFAULT_METHOD, Budget, digest_of
from bot.domain.methods import METHODS
from bot.domain.recipe import differences
from bot.domain.scripts import PREPARE, builds_data
from bot.domain.thought import Outcome
from bot.loop.hardware import Estimates, Unfit, estimates, unfit

_METHOD_LINE = re.compile(r"^method:[ \t]*[\"']?([a-z]+)", re.MULTILINE)

NEXT_RUN = Spend(runs=1)
"""What is known of the next run before it starts; its time is capped by what is left."""

SMOKE_HOURS = 0.25
"""Two steps of training, however long the libraries and the weights take to load; and an audit, which takes none."""

SHORTEST_JOB_HOURS = 60 / 3600
"""A job that is granted less could not even import its libraries."""

EVALUATIONS_KEPT = 2.5
"""Of the base model's evaluation time, what training must leave: the run's evaluation, the sealed one, and some air."""


def spend_of(x: Experiment, now: float | None = None) -> Spend:
    """What the goal has cost so far: job time, its price where the machine has one, the LLM's price, runs, and hours
    since the first consent (until `now` in Unix seconds, the journal's last event by default)."""
    hours = x.job_hours()
    since = x.consented_at
    return Spend(
        usd=sum(x.usd_of(job) for job in x.jobs.values()) + sum(price.usd for price in x.llm_paid.values()),
        gpu_hours=hours,
        runs=x.runs_taken,
        wall_hours=0.0 if since is None else max(0.0, (now or x.last_at) - since) / 3600,
    )


def allowance(x: Experiment, role: JobRole, now: float, usd_per_hour: float | None = None) -> Spend:
    """What a job started at `now` may cost at most, as usd and gpu_hours: its reservation and its time-out.

    The ceilings are those that were agreed to (the goal's own before anybody was asked), less what is spent and what
    running jobs may still take. Training leaves the time that evaluating it takes, so that no run is paid for and
    then never measured. `usd_per_hour` is what the machine costs now, the policy's price when it is None.
    """
    if role.of_reproduction and x.concluded and x.ended_at is not None:
        now = x.ended_at  # the hours to the end are over; what is made again after it takes money and job time alone
    left = left_of_agreed(x, now)
    price = Policy.from_dict(x.policy).usd_per_hour if usd_per_hour is None else usd_per_hour
    hours = min(left.gpu_hours, left.wall_hours, left.usd / price if price else left.gpu_hours)
    if role in (JobRole.TRAIN, JobRole.PROBE, JobRole.RETRAIN):
        hours -= evaluation_hours(x)
    elif role in (JobRole.SMOKE, JobRole.AUDIT):
        hours = min(hours - evaluation_hours(x), SMOKE_HOURS)
    elif role.of_ablation and x.ablation is not None:
        hours = _share(x, x.ablation, role, hours)
    hours = max(0.0, hours)
    return Spend(usd=hours * price, gpu_hours=hours)


def left_of_agreed(x: Experiment, now: float | None = None) -> Spend:
    """Of the ceilings that were agreed to (the goal's own before anybody was asked), what is neither spent nor set
    aside for running jobs."""
    ceilings = Envelope.from_dict(x.consent["envelope"]).ceilings if x.consent is not None else x.ceilings
    reserved = Spend(
        usd=sum(job.reserved.get("usd", 0.0) for job in x.running_jobs),
        gpu_hours=sum(job.reserved.get("gpu_hours", 0.0) for job in x.running_jobs),
    )
    return remaining(ceilings, spend_of(x, now), reserved)


def _share(x: Experiment, ablation: Ablation, role: JobRole, hours: float) -> float:
    """Of what is left, an arm's part: arms run side by side, and what one takes is another's no more."""
    unweighed = [arm for arm in ablation.trained if x.job_for(JobRole.WEIGH, arm.n) is None]
    if role is JobRole.WEIGH:
        return hours / max(1, len(unweighed))
    waiting = [arm for arm in unweighed if x.job_for(JobRole.ABLATE, arm.n) is None]
    return (hours - evaluation_hours(x) * len(unweighed)) / max(1, len(waiting))


def evaluation_hours(x: Experiment) -> float:
    """Job time that a run's evaluations will take, judged by the base model's; 0 before that is known."""
    job = next((job for job in x.jobs.values() if job.role is JobRole.BASELINE and job.succeeded), None)
    return EVALUATIONS_KEPT * job.seconds / 3600 if job is not None else 0.0


def next_run_hours(x: Experiment) -> float | None:
    """Job time of the next run with its evaluation, judged by the last one's and by how much longer the recipe at the
    head trains; None before a run has been timed."""
    timed = [run for run in x.runs if (job := x.job_for(JobRole.TRAIN, run.n)) is not None and job.succeeded]
    if not timed:
        return None
    last = timed[-1]
    train, evaluate = x.job_for(JobRole.TRAIN, last.n), x.job_for(JobRole.EVALUATE, last.n)
    seconds = (train.seconds if train else 0.0) * _longer(last.recipe, x.recipe)
    return (seconds + (evaluate.seconds if evaluate else 0.0)) / 3600


def estimated(x: Experiment) -> Estimates | None:
    """Memory, time and price of training the head, by arithmetic; None before its data has been checked."""
    return estimates(x, _hardware_facts(x))


def estimated_run_hours(x: Experiment) -> float | None:
    """Job time of the next run with its evaluation, where no run has been timed yet: by arithmetic, and by the base
    model's evaluation."""
    found = estimated(x)
    if found is None:
        return None
    return found.here.time.seconds / 3600 + evaluation_hours(x) / EVALUATIONS_KEPT


def memory_unfit(x: Experiment) -> Unfit | None:
    """What keeps the head from fitting on its machine. A policy's consent does not cover that; a person's does,
    because an estimate may be wrong and whoever agrees has been told."""
    return unfit(x, _hardware_facts(x))


def _hardware_facts(x: Experiment) -> Mapping[str, Any] | None:
    facts: Mapping[str, Any] | None = x.data.get(data_key(x.recipe, x.recipe_digests), {}).get("hardware")
    return facts


def _longer(before: str, after: str) -> float:
    """How many times longer training takes, as far as the recipe alone can say it."""
    old, new = yaml.safe_load(before) or {}, yaml.safe_load(after) or {}
    for key in ("max_steps", "num_train_epochs"):
        a, b = old.get(key), new.get(key)
        if isinstance(a, int | float) and isinstance(b, int | float) and a > 0 and b > 0:
            return b / a
    return 1.0


def consent_missing(x: Experiment, *, keys: tuple[str, ...]) -> str | None:
    """Why the present consent does not allow training the head with these recipe keys changed; None when it does."""
    assert x.goal is not None
    if x.consent is None:
        return "nobody has agreed to this spending yet"
    # The envelope's keys say what Postdoc may change by itself. What a person changed outside of them has voided the
    # consent already (bot.domain.fold), so that whoever agrees afresh agrees to that change.
    changed = keys if x.changed_by in ("", "postdoc") and not x.changed_stage else ()
    if x.consent["by"] == "policy" and (too_large := memory_unfit(x)) is not None:
        return too_large.diagnosis.cause
    envelope = Envelope.from_dict(x.consent["envelope"])
    return envelope.covers(changed, NEXT_RUN, spent=spend_of(x), goal_hash=x.goal.hash)


def remedy_waits(x: Experiment, run: Run) -> str | None:
    """Why the run's remedy may not be committed and trained without a person; None when it may."""
    assert run.remedy is not None
    if x.consent is None:
        return "nobody has agreed to this spending yet"
    assert x.goal is not None
    remedy = Remedy.from_dict(run.remedy)
    if remedy.waits:
        return remedy.waits
    envelope = Envelope.from_dict(x.consent["envelope"])
    tried = any(ablation.for_run == run.n for ablation in x.ablations)
    cost = NEXT_RUN if tried else Spend(runs=max(1, len(remedy.arms)))
    return envelope.covers(_keys_of(remedy, run), cost, spent=spend_of(x), goal_hash=x.goal.hash)


def _keys_of(remedy: Remedy, run: Run) -> Collection[str]:
    """Recipe keys that it changes beyond what was agreed with the goal itself."""
    if remedy.stage is not None and remedy.stage["agreed"]:
        return ()
    if remedy.arms:
        return {key for key, _ in remedy.arms}
    if not remedy.recipe:
        return (*remedy.settings, *remedy.scripts)
    changed = differences(yaml.safe_load(run.recipe) or {}, yaml.safe_load(remedy.applied(run.recipe)) or {})
    return (*changed, *remedy.scripts)


def policy_covers(x: Experiment) -> str | None:
    """Why the repository's policy does not grant this goal's spending by itself; None when it does."""
    goal = x.goal
    assert goal is not None
    policy = Policy.from_dict(x.policy)
    grant = policy.consent
    if not grant.runs:
        return "the repository's policy grants no run by itself"
    if not policy.allows(Tier.TRAIN, x.author_permission):
        return f"@{x.author} may not start training here, so somebody who may has to agree"
    foreign = [
        path
        for path, digest in x.recipe_digests.items()
        if x.shipped_digests.get(path) != digest and not (path in grant.scripts and digest in x.written)
    ]
    if foreign:
        return f"{', '.join(foreign)} is not the shipped script, so a person has to agree"
    if (chosen := _data_chosen(x)) and "data_sources" not in grant.recipe_keys:
        return f"the training data `{chosen}` was found by the language model, so a person has to agree"
    if (too_large := memory_unfit(x)) is not None:
        return too_large.diagnosis.cause
    if goal.budget.usd > grant.usd:
        return f"the policy grants {grant.usd:g} USD, the goal asks for {goal.budget.usd:g}"
    if policy.usd_per_hour and not goal.budget.usd:
        return f"this machine costs {policy.usd_per_hour:g} USD an hour and the goal's budget has no money"
    granted = Budget(usd=grant.usd, gpu_hours=grant.gpu_hours, runs=grant.runs, wall_hours=goal.budget.wall_hours)
    return exceeded(granted, spend_of(x), NEXT_RUN)


def _data_chosen(x: Experiment) -> str:
    """The data set of the first plan, where the language model named it; else empty."""
    thought = x.thought_on(0)
    if thought is None or thought.outcome is not Outcome.ADOPTED or x.runs:
        return ""
    return str((thought.proposal or {}).get("settings", {}).get("data_sources") or "")


def granted_names(policy: Policy) -> frozenset[str]:
    """Recipe keys and scripts that the policy lets Postdoc change inside one consent."""
    return frozenset(policy.consent.recipe_keys) | frozenset(policy.consent.scripts)


def agreed_names(x: Experiment) -> frozenset[str]:
    """The same as it was agreed to; before anybody was asked, as the policy would grant it by itself."""
    if x.consent is not None:
        return frozenset(x.consent["envelope"]["keys"])
    policy = Policy.from_dict(x.policy)
    return granted_names(policy) if policy.consent.runs else frozenset()


def budget_exhausted(x: Experiment) -> str | None:
    """The ceiling that leaves no room for another run, as a sentence, or None."""
    if (ceiling := used_up(x.ceilings, spend_of(x))) is not None:
        return ceiling
    left = allowance(x, JobRole.TRAIN, x.last_at).gpu_hours
    if left < SHORTEST_JOB_HOURS:
        return "What is left of the budget is too little for another run and its evaluation."
    return None


def data_key(recipe: str, digests: Mapping[str, str]) -> str:
    """Names the training set that this recipe's data keys and these scripts build."""
    lines = sorted(line.partition("#")[0].rstrip() for line in recipe.splitlines() if line.startswith("data_"))
    seed = [line for line in recipe.splitlines() if line.startswith("seed:")]
    scripts = {path: digest for path, digest in digests.items() if builds_data(path)}
    # Where prepare.py stands alone, as in older goals, its digest names what it builds.
    named = [lines, seed, scripts if len(scripts) > 1 else scripts.get(PREPARE, "")]
    method = _METHOD_LINE.search(recipe)
    rows = METHODS[method[1]] if method is not None and method[1] in METHODS else METHODS[DEFAULT_METHOD]
    # Methods whose rows are alike share a training set, and what was named before there were others keeps its name.
    return digest_of(named if rows.columns == METHODS[DEFAULT_METHOD].columns else [*named, rows.name])[:12]
