"""What happens next: a pure function from a goal's experiment to one action, or to waiting.

`next_action` reads top to bottom in the order of urgency: people first, then endings, then the road from contract to
confirmation. It knows no clock, no network and no file; everything it weighs stands in the journal.
"""

from __future__ import annotations

import yaml

from bot.brain.playbook import Kind
from bot.conversation.policy import Policy
from bot.domain.ablation import Ablation, Arm
from bot.domain.experiment import BASELINE, Experiment, Job, JobRole, Run, State
from bot.domain.goal import digest_of
from bot.domain.metrics import metric_named
from bot.domain.recipe import recipe_hash
from bot.loop.action import Action, ActionKind, conclude
from bot.loop.auditing import audit_wanted
from bot.loop.due import baseline_due, data_due, data_lost, earlier_again, job_due, model_again, run_data_due
from bot.loop.judging import reached_run, wise
from bot.loop.spending import budget_exhausted, consent_missing, data_key, policy_covers, remedy_waits
from bot.loop.thinking import Due, names_data, next_step


def next_action(x: Experiment) -> Action | None:
    """The next thing to do for this goal, None to wait for the world (a job, a person)."""
    if not x.is_goal:
        command = x.pending_command
        return Action(ActionKind.ANSWER_COMMAND, {"command": command.seq}) if command is not None else None
    if x.crash is not None and not x.concluded:
        return conclude(State.NEEDS_HUMAN, x.crash)
    if x.contract_version < x.text_version:
        kind = ActionKind.READ_CONTRACT if x.pull_request is None else ActionKind.READ_EDIT
        return Action(kind, {"version": x.text_version})
    if (command := x.pending_command) is not None:
        return Action(ActionKind.ANSWER_COMMAND, {"command": command.seq})
    if x.closed and not x.concluded:
        return conclude(State.CLOSED, "the pull request was merged" if x.merged else "the pull request was closed")
    if x.stop_requested is not None and not x.concluded:
        return conclude(State.STOPPED, x.stop_requested)
    if x.spending_refused is not None and not x.concluded:
        return conclude(State(x.spending_refused["state"]), x.spending_refused["reason"])
    if x.refusal is not None:
        if x.pull_request is not None and not x.concluded:
            return conclude(State.NEEDS_HUMAN, x.refusal)
        return None
    if x.unread_head is not None and not x.running_jobs and x.pull_request is not None and not x.closed:
        return Action(ActionKind.READ_HEAD, {"head_sha": x.unread_head})
    if x.concluded and x.merged and publishing_due(x):
        return Action(ActionKind.PUBLISH)
    if x.concluded and x.merged and not x.issue_closed:
        return Action(ActionKind.CLOSE_ISSUE)
    if (due := _judge(x) or _ablate(x) or _reproduce(x)) is not None:
        return due
    if x.concluded or x.running_jobs:
        return None
    return _onwards(x)


def _judge(x: Experiment) -> Action | None:
    """The ended evaluation whose answers are to be scored before anybody reads it, where a rubric scores them."""
    for job in x.jobs.values():
        if job.succeeded and not job.gone and x.unjudged(job) and _wanted(x, job):
            return Action(ActionKind.JUDGE, {"job_id": job.job_id})
    return None


def _wanted(x: Experiment, job: Job) -> bool:
    """Whether anybody still waits for what this evaluation found."""
    if job.role.of_reproduction:
        return x.reproduction is not None and x.reproduction.n == job.run and not x.reproduction.refused
    if job.role.of_ablation:
        return x.ablation is not None and x.spending_refused is None and job.run in [arm.n for arm in x.ablation.arms]
    return not x.concluded


def _ablate(x: Experiment) -> Action | None:
    """What an ablation needs next. Its arms run side by side; a run of the goal's own is let to its end first, and the
    next one waits for the report."""
    ablation = x.ablation
    if ablation is None or any(not job.role.of_ablation for job in x.running_jobs):
        return None
    if x.run is not None and not x.run.reviewed and not x.concluded:
        return None
    if x.consent is not None:
        if (due := _ablation_ready(x, ablation)) is not None:
            return due
        for arm in ablation.trained if _trainable(x, ablation) else ():
            train = x.job_for(JobRole.ABLATE, arm.n)
            if (due := job_due(x, JobRole.ABLATE, arm.n)) is not None:
                return due
            if train is not None and train.succeeded and (due := job_due(x, JobRole.WEIGH, arm.n)) is not None:
                return due
    return None if x.running_jobs else Action(ActionKind.REPORT_ABLATION, {"ablation": ablation.n})


def _reproduce(x: Experiment) -> Action | None:
    """What a reproduction needs next: its data, its training, its evaluation, its verdict. A run of the goal's own is
    let to its end first, and the next one waits; one that is asked for after the end moves nothing else."""
    asked = x.reproduction
    if asked is None or any(not job.role.of_reproduction for job in x.running_jobs):
        return None
    if x.run is not None and not x.run.reviewed and not x.concluded:
        return None
    report = Action(ActionKind.REPORT_REPRODUCTION, {"reproduction": asked.n})
    if asked.refused or x.consent is None:
        return report  # and whatever runs for it is ended
    for role in (JobRole.REBUILD, JobRole.RETRAIN, JobRole.REASSESS):
        if (due := job_due(x, role, asked.n)) is not None:
            return due
        job = x.job_for(role, asked.n)
        if job is None or not job.ended:
            return None
        if not job.succeeded:
            break
        if asked.rows is None:
            return Action(ActionKind.CHECK_REBUILT, {"reproduction": asked.n})
        if asked.rebuilt_otherwise is not None:
            break
    return report


def _ablation_ready(x: Experiment, ablation: Ablation) -> Action | None:
    """No arm without a baseline and a training set that has passed its gates."""
    if x.baseline is None:
        return baseline_due(x)
    same_data = data_key(x.recipe, x.recipe_digests) == ablation.data_key
    return data_due(x) if same_data else None


def _trainable(x: Experiment, ablation: Ablation) -> bool:
    checked = x.data.get(ablation.data_key)
    return checked is not None and not checked.get("blocked") and "build_failed" not in checked


def _onwards(x: Experiment) -> Action | None:
    """The road itself, with nothing urgent and nothing running."""
    if x.pull_request is None:
        # The base model is evaluated before anything is proposed where policy already pays for it, so that a target
        # it meets untouched costs the author one comment and no pull request.
        if policy_covers(x) is None and x.baseline is None:
            return baseline_due(x)
        if not names_data(x):
            # The action says what becomes of a goal for which nobody may think.
            begun = {"thought": len(x.thoughts) + 1, "run": BASELINE, "sitting": 1}
            return _think(x, BASELINE) or Action(ActionKind.THINK, begun)
        return data_due(x) or _think(x, BASELINE) or Action(ActionKind.PROPOSE)
    run = x.run
    if run is None and (due := _think(x, BASELINE)) is not None:
        return due
    if run is not None and not run.reviewed:
        return _finish_run(x, run)
    if run is not None and head_recipe_hash(x) == run.recipe_hash:
        return _after_review(x, run)
    return _start_run(x)


def _think(x: Experiment, run: int) -> Action | None:
    """What the language model's part of the plan (run 0) or of a run needs next."""
    step = next_step(x, run)
    if step is None:
        return None
    args = {"thought": step.thought, "run": run}
    match step.due:
        case Due.THINK:
            return Action(ActionKind.THINK, args | {"sitting": step.sitting})
        case Due.BUILD:
            upcoming = len(x.runs) + 1
            if (launch := job_due(x, JobRole.DATA, upcoming, step.data_key)) is not None:
                return Action(launch.kind, {**launch.args, "thought": step.thought})
            return Action(ActionKind.CHECK_DATA, args | {"data_key": step.data_key, "run": upcoming})
        case Due.SMOKE if (launch := job_due(x, JobRole.SMOKE, step.thought, step.smoke)) is not None:
            return Action(launch.kind, {**launch.args, "thought": step.thought})
    return Action(ActionKind.SETTLE_PROPOSAL, args)


def _start_run(x: Experiment) -> Action | None:
    if (ceiling := budget_exhausted(x)) is not None:
        return conclude(State.EXHAUSTED, ceiling)
    tried = x.tried.get(head_recipe_hash(x))
    if tried is not None:
        return conclude(State.NEEDS_HUMAN, f"this recipe has already been trained, as run {tried}")
    if (reason := consent_missing(x, keys=tuple(x.changed))) is not None:
        return _ask_consent(x, reason)
    if x.baseline is None:
        return baseline_due(x)
    if (due := data_due(x)) is not None:
        return due
    if blocked := x.data[data_key(x.recipe, x.recipe_digests)].get("blocked"):
        return conclude(State.NEEDS_HUMAN, blocked)
    return Action(ActionKind.START_RUN, {"run": len(x.runs) + 1})


def _ask_consent(x: Experiment, reason: str, *, remedy: bool = False) -> Action | None:
    """Consent from the policy where it covers this, else the question to a person, put once for each head."""
    if x.consent is None and policy_covers(x) is None:
        return Action(ActionKind.CONSENT_BY_POLICY, {"head_sha": x.head_sha})
    if x.consent_asked_for == x.head_sha:
        return None
    return Action(ActionKind.ASK_CONSENT, {"why": reason, "head_sha": x.head_sha, "remedy": remedy})


def _finish_run(x: Experiment, run: Run) -> Action | None:
    """From a started run to its posted review."""
    if (due := run_data_due(x, run)) is not None:
        return due
    if not run.diagnosed:
        if "build_failed" not in x.data.get(data_key(run.recipe, run.digests), {}) and not data_lost(x, run):
            train = job_due(x, JobRole.TRAIN, run.n)
            if train is not None:
                audit = job_due(x, JobRole.AUDIT, run.n) if audit_wanted(x, run) else None
                return earlier_again(x, run) or audit or train
            job = x.job_for(JobRole.TRAIN, run.n)
            if job is not None and job.succeeded:
                evaluate = job_due(x, JobRole.EVALUATE, run.n)
                if evaluate is not None:
                    return evaluate
        return Action(ActionKind.DIAGNOSE, {"run": run.n})
    if (due := _think(x, run.n)) is not None:
        return due
    if run.remedy is not None and run.remedy.get("probe") and not data_lost(x, run):
        probe = job_due(x, JobRole.PROBE, run.n)
        if probe is not None:
            return probe
    return Action(ActionKind.REVIEW, {"run": run.n})


def _after_review(x: Experiment, run: Run) -> Action | None:
    assert x.goal is not None, "a run belongs to a goal that was understood"
    if x.confirmation is not None:
        state = State.MET if x.confirmation["confirmed"] else State.NOT_CONFIRMED
        return conclude(state, x.confirmation["reason"])
    if x.seal is not None:
        return _confirm(x, x.runs[x.seal["run"] - 1])
    onwards = _revised(x, run)
    reached = reached_run(x)
    if reached is None:
        return _blocked(x, onwards)
    if wise(x, reached):
        return _confirm(x, reached)
    # What is known says that the seal might well fail, and it opens once: while there is something left to try, that
    # comes first.
    if onwards is None or onwards.kind in (ActionKind.CONCLUDE, ActionKind.ASK_CONSENT):
        why = onwards.args.get("reason") or onwards.args.get("why") if onwards is not None else "a person is waited for"
        return _confirm(x, reached, str(why))
    return onwards


def _confirm(x: Experiment, run: Run, why: str = "") -> Action | None:
    """From a run to the seal's answer. `why` says what made it be opened although it might well fail."""
    if x.seal is None:
        due = model_again(x, run) or job_due(x, JobRole.CONFIRM, run.n)
    else:
        due = job_due(x, JobRole.CONFIRM, BASELINE)  # the run reached the target; is it better than the base model?
    return due or Action(ActionKind.CONFIRM, {"run": run.n, "why": why})


def _blocked(x: Experiment, action: Action | None) -> Action | None:
    """An ending says so where a run reached the target and does not count."""
    assert x.goal is not None
    found = [run for run in x.scored_runs if run.forgets and run.score and x.goal.reached(run.score.value)]
    if action is None or action.kind is not ActionKind.CONCLUDE or not found:
        return action
    run = found[-1]
    reason = f"run {run.n} reached the target but forgot {', '.join(run.forgets)}, which this goal does not allow; "
    return conclude(State(action.args["state"]), reason + action.args["reason"])


def _revised(x: Experiment, run: Run) -> Action | None:
    """From a review to the next recipe, or to why there is none."""
    if (ceiling := budget_exhausted(x)) is not None:
        return conclude(State.EXHAUSTED, ceiling)
    if run.remedy is None:
        return conclude(State.NEEDS_HUMAN, run.stuck or "nothing is left to try that has not been tried")
    if (reason := remedy_waits(x, run)) is not None:
        # Without any consent, agreeing to go on is asked for; with one, leave for a change that it does not cover.
        return _ask_consent(x, reason, remedy=x.consent is not None)
    if run.remedy.get("kind") == Kind.ABLATION:
        if not any(ablation.for_run == run.n for ablation in x.ablations):
            return Action(ActionKind.OPEN_ABLATION, {"run": run.n})
        if arm_chosen(x, run) is None:
            symptom = run.remedy["symptom"]
            reason = f"`{symptom}` came back after a repair, and of its suspects none did better side by side"
            return conclude(State.NEEDS_HUMAN, reason)
    return Action(ActionKind.REVISE, {"run": run.n})


def arm_chosen(x: Experiment, run: Run) -> tuple[Ablation, Arm, float] | None:
    """The ablation that is the run's remedy, the arm that did best and its value; None where none did better than the
    run itself."""
    assert x.goal is not None, "a run belongs to a goal that was understood"
    metric = metric_named(x.goal.metric)
    for ablation in x.ablations:
        best = ablation.best(metric.rank) if ablation.for_run == run.n else None
        if best is not None and (run.score is None or metric.better(best[1], run.score.value)):
            return ablation, *best
    return None


def publishing_due(x: Experiment) -> bool:
    """True when the policy wants the merged goal's model on the Hub and it was not put, or tried to be put, there."""
    best = x.best_run
    if x.state is not State.MET or best is None or not Policy.from_dict(x.policy).publish.on_merge:
        return False
    return x.published is None or x.published.get("run") != best.n


def head_recipe_hash(x: Experiment) -> str:
    """The hash under which the head's recipe and scripts are recorded as tried."""
    values = yaml.safe_load(x.recipe) or {}
    return recipe_hash(values, script_digest=digest_of(dict(x.recipe_digests)))
