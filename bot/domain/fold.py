"""From a journal to the experiment it tells: one small function for each kind of event."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable

from bot.domain.ablation import Ablation
from bot.domain.budget import Spend, month_of
from bot.domain.diagnosis import DiagnosisReport, verdict_in
from bot.domain.evaluation import Rung
from bot.domain.experiment import (
    BASELINE,
    RESUMABLE_STATES,
    Command,
    Edit,
    Event,
    EventKind,
    Experiment,
    Job,
    JobRole,
    LlmPrice,
    NewEvent,
    Run,
    Score,
    State,
)
from bot.domain.goal import Goal, GoalId
from bot.domain.reproduction import Reproduction
from bot.domain.thought import Outcome, Thought, scripts_of


def experiment_of(goal_id: GoalId, journal: Iterable[Event]) -> Experiment:
    """The experiment that `journal` tells. Pure: the same journal gives the same experiment.

    An event that cannot be read, because another version wrote it, ends the telling: see `Experiment.unreadable`.
    """
    experiment = Experiment(goal_id=goal_id)
    for event in journal:
        experiment.length += 1
        experiment.last_at = event.at
        if experiment.unreadable:
            continue
        try:
            _FOLDS[event.kind](experiment, event)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            writer = "another" if event.kind in _FOLDS else "a newer"
            experiment.unreadable = f"event {event.seq} (`{event.kind}`) was written by {writer} version of Postdoc"
            experiment.unreadable_error = f"{type(error).__name__}: {error}"
            experiment.reason = experiment.unreadable
    return experiment


def foreseen(experiment: Experiment, events: Iterable[NewEvent], at: float) -> Experiment:
    """The experiment as it will be once `events` are in its journal; the one that was given stays as it is."""
    after = copy.deepcopy(experiment)
    tell(after, events, at)
    return after


def tell(experiment: Experiment, events: Iterable[NewEvent], at: float) -> None:
    """Add `events` to what `experiment` knows, in place: for whoever keeps no journal, such as a simulation."""
    for new in events:
        event = Event(experiment.length, new.kind, new.key, at, json.loads(json.dumps(new.data)))
        experiment.length, experiment.last_at = experiment.length + 1, at
        _FOLDS[event.kind](experiment, event)


def _on_conversation_opened(x: Experiment, event: Event) -> None:
    d = event.data
    x.owner, x.repository, x.issue = d["owner"], d["repository"], d["issue"]
    x.installation_id, x.opened_at = d["installation_id"], event.at


def _on_goal_opened(x: Experiment, event: Event) -> None:
    d = event.data
    x.is_goal = True
    x.owner, x.repository, x.issue = d["owner"], d["repository"], d["issue"]
    x.installation_id, x.author, x.author_id = d["installation_id"], d["author"], d["author_id"]
    x.title, x.body, x.opened_at = d["title"], d["body"], event.at


def _on_goal_edited(x: Experiment, event: Event) -> None:
    # Nothing moves before it has been read: whoever edited may be nobody who has a say.
    d = event.data
    if x.pull_request is not None and "by_id" not in d:
        return  # written when an edit of an agreed goal was not read at all
    x.text_version += 1
    x.edit = Edit(x.text_version, d["title"], d["body"], d["by"], d.get("by_id"), event.seq)
    if x.concluded:
        x.crash, x.crash_reference = None, None  # told; what reading the new text meets is told again


def _on_goal_read(x: Experiment, event: Event) -> None:
    d = event.data
    _text_read(x, d["text_version"])
    x.offer = dict(d["offer"]) if d["offer"] else None
    x.edit_told = d["told"]
    x.contract_comment_id = d["comment_id"] or x.contract_comment_id


def _on_goal_adopted(x: Experiment, event: Event) -> None:
    """The offered goal replaces the agreed one. What was measured on another yardstick no longer counts, and consent is
    asked for anew; a seal that was opened is not among what can change (`actions.adoption` refuses)."""
    d = event.data
    yardstick, licences = x.yardstick, (x.goal.licences, x.goal.data_licence) if x.goal is not None else None
    x.goal, x.pins, x.policy = Goal.from_dict(d["goal"]), dict(d["pins"]), dict(d["policy"])
    if x.yardstick != yardstick:
        x.baseline, x.rung, x.tried = None, None, {}
    if x.yardstick != yardstick or licences != (x.goal.licences, x.goal.data_licence):
        x.data = {}  # scanned for other items, or held against other licences
    x.head_sha, x.recipe, x.recipe_digests = d["head_sha"], d["recipe"], dict(d["digests"])
    x.shipped_digests = dict(d["shipped_digests"])
    x.stage, x.changed_stage = d.get("stage", x.stage), False
    x.changed = {key: list(pair) for key, pair in d["changed"].items()}
    x.changed_why, x.changed_by = d["why"], d["by"]
    x.consent, x.consent_asked_for, x.refusal = None, "", None
    x.offer, x.edit_told = None, ""
    _drop_side_roads(x)
    if x.state in RESUMABLE_STATES:
        _reopen(x)


def _text_read(x: Experiment, version: int) -> None:
    x.contract_version = version
    if x.edit is not None and x.edit.version <= version:
        x.edit = None


def _on_contract_read(x: Experiment, event: Event) -> None:
    d = event.data
    if d["text_version"] > 0:
        x.title, x.body = d.get("title", x.title), d.get("body", x.body)
        if x.edit is not None and "title" not in d:
            x.title, x.body = x.edit.title, x.edit.body  # from before the event said it
        x.baseline, x.data = None, {}
        x.concluded, x.ended_at, x.reason, x.stop_requested = False, None, "", None
        x.crash, x.crash_reference = None, None
    _text_read(x, d["text_version"])
    x.contract_comment_id = d["comment_id"]
    x.refusal = d["refusal"]
    x.goal = Goal.from_dict(d["goal"]) if d["goal"] else None
    x.pins = dict(d.get("pins") or {})
    x.policy = dict(d["policy"])
    x.brain = d.get("brain")
    x.state = State.NEEDS_AUTHOR if x.refusal else State.PLAN
    if not x.refusal:
        x.recipe, x.recipe_source = d["recipe"], d["recipe_source"]
        x.recipe_digests, x.shipped_digests, x.stage = dict(d["digests"]), dict(d["shipped_digests"]), 0
        x.folder, x.branch = d["folder"], d["branch"]
        x.author_permission = d["author_permission"]


def _on_command(x: Experiment, event: Event) -> None:
    d = event.data
    x.commands.append(
        Command(
            seq=event.seq,
            verb=d["verb"],
            args=list(d["args"]),
            author=d["author"],
            author_id=d["author_id"],
            comment_id=d["comment_id"],
            number=d["number"],
            head_sha=d.get("head_sha") or x.head_sha or None,
            place=d.get("place", ""),
        )
    )


def _on_command_answered(x: Experiment, event: Event) -> None:
    for command in x.commands:
        if command.seq == event.data["command"]:
            command.answered, command.answer = True, event.data.get("reply", "")


def _on_head_moved(x: Experiment, event: Event) -> None:
    if event.data["head_sha"] != x.head_sha:
        x.unread_head = event.data["head_sha"]


def _on_head_read(x: Experiment, event: Event) -> None:
    d = event.data
    x.head_sha = d["head_sha"]
    if x.unread_head in (d["head_sha"], d.get("asked")):  # the branch may have moved on before it was read
        x.unread_head = None
    x.recipe = d["recipe"]
    x.recipe_digests = dict(d["digests"])
    x.changed = {key: list(pair) for key, pair in d["changed"].items()}
    if x.changed or d["scripts_changed"]:
        # A person's push is a new recipe: what was consented to is not what stands there now.
        x.consent = None
        x.changed_why, x.changed_by = d["why"], d["by"]
        if x.state in RESUMABLE_STATES:
            _reopen(x)


def _on_pull_request_closed(x: Experiment, event: Event) -> None:
    x.closed, x.merged = True, bool(event.data["merged"])


def _on_pull_request_reopened(x: Experiment, event: Event) -> None:
    x.closed = False
    if x.state is State.CLOSED:
        x.state, x.concluded, x.ended_at, x.stop_requested = State.STOPPED, True, event.at, None


def _on_job_launched(x: Experiment, event: Event) -> None:
    d = event.data
    role = JobRole(d["role"])
    x.jobs[d["job_id"]] = Job(
        d["job_id"],
        role,
        d["run"],
        d["attempt"],
        event.at,
        expects=d.get("expects", ""),
        reserved=d.get("reserved", {}),
        usd_per_hour=d.get("usd_per_hour"),
        resumed_from=d.get("resumed_from"),
        place=d.get("place", {}),
    )
    states = {
        JobRole.BASELINE: State.BASELINE,
        JobRole.TRAIN: State.TRAINING,
        JobRole.EVALUATE: State.EVALUATING,
        JobRole.PROBE: State.REVIEWING,
        JobRole.CONFIRM: State.CONFIRMING,
    }
    x.state = states.get(role, x.state)


def _on_job_refused(x: Experiment, event: Event) -> None:
    d = event.data
    status = {"state": "refused", "started_at": None, "ended_at": None, "failure": None, "exit_code": None}
    x.jobs[d["job_id"]] = Job(
        d["job_id"], JobRole(d["role"]), d["run"], d["attempt"], event.at, status, d["expects"],
        stopped=dict(d), refused=True,
    )  # fmt: skip


def _on_job_ended(x: Experiment, event: Event) -> None:
    job = x.jobs.get(event.data["job_id"])
    if job is not None and job.status is None:
        job.status = dict(event.data["status"])
        # The wrapper ended it while nobody listened, so that no event of its own tells of it.
        job.stopped = job.stopped or verdict_in(job.status)


def _on_monitored(x: Experiment, event: Event) -> None:
    job = x.jobs.get(event.data["job_id"])
    if job is not None and not job.ended:
        job.stopped = dict(event.data)


def _on_outputs_gone(x: Experiment, event: Event) -> None:
    job = x.jobs.get(event.data["job_id"])
    if job is None:
        return
    job.gone = True
    if job.role is JobRole.DATA:
        x.data = {key: found for key, found in x.data.items() if found.get("job_id") != job.job_id}


def _on_baseline_recorded(x: Experiment, event: Event) -> None:
    x.baseline, x.splits = Score.from_dict(event.data["score"]), dict(event.data.get("splits") or {})
    x.state = State.PLAN if x.pull_request is None else State.PROPOSED


def _on_refused(x: Experiment, event: Event) -> None:
    x.refusal = event.data["reason"]
    x.state = State.NEEDS_AUTHOR


def _on_data_checked(x: Experiment, event: Event) -> None:
    x.data[event.data["data_key"]] = dict(event.data)


def _on_planned(x: Experiment, event: Event) -> None:
    x.plan = dict(event.data)


def _on_proposed(x: Experiment, event: Event) -> None:
    d = event.data
    x.pull_request, x.sticky_comment_id = d["pull_request"], d["sticky_comment_id"]
    x.head_sha = d["head_sha"]
    x.state = State.PROPOSED


def _on_consented(x: Experiment, event: Event) -> None:
    x.consent = dict(event.data)
    if x.consented_at is None:
        x.consented_at = event.at
    x.consent_check_id = None  # the action that recorded this has completed it
    if x.state is State.AWAITING_CONSENT:
        x.state = State.PROPOSED


def _on_consent_asked(x: Experiment, event: Event) -> None:
    x.consent_asked_for = event.data["head_sha"]
    x.consent_check_id = event.data.get("check_run_id")
    x.state = State.AWAITING_CONSENT


def _on_run_started(x: Experiment, event: Event) -> None:
    d = event.data
    run = Run(
        n=d["run"],
        recipe=x.recipe,
        recipe_hash=d["recipe_hash"],
        head_sha=d["head_sha"],
        method=d["method"],
        digests=dict(x.recipe_digests),
        changed={key: list(pair) for key, pair in d["changed"].items()},
        check_run_id=d["check_run_id"],
        started_at=event.at,
        stage=x.stage,
        changed_by=x.changed_by,
        yardstick=x.yardstick,
    )
    x.runs.append(run)
    x.tried[run.recipe_hash] = run.n
    x.changed, x.changed_why, x.changed_by, x.changed_stage = {}, "", "", False
    x.state = State.TRAINING


def _on_diagnosed(x: Experiment, event: Event) -> None:
    d = event.data
    run = x.runs[d["run"] - 1]
    run.score = Score.from_dict(d["score"]) if d["score"] else None
    run.verdict = d["verdict"]
    run.against_baseline, run.against_best = d["against_baseline"], d["against_best"]
    run.failure, run.forgetting = d["failure"], list(d.get("forgetting") or ())
    run.report = DiagnosisReport.from_dict(d["report"])
    run.remedy = dict(d["remedy"]) if d["remedy"] else None
    run.kept, run.stuck = d.get("kept"), d.get("stuck", "")
    run.generated = d.get("generated")
    run.lineage = d.get("lineage")
    run.brain = d.get("brain")
    run.diagnosed = True
    x.state = State.REVIEWING


def _on_reviewed(x: Experiment, event: Event) -> None:
    run = x.runs[event.data["run"] - 1]
    run.review_id, run.reviewed, run.ended_at = event.data["review_id"], True, event.at
    run.remedy = dict(event.data["remedy"]) if event.data["remedy"] else None
    run.probe = event.data["probe"]
    x.state = State.REVISING


def _on_revised(x: Experiment, event: Event) -> None:
    d = event.data
    x.head_sha = d["head_sha"]
    x.recipe = d["recipe"]
    x.changed = {key: list(pair) for key, pair in d["changed"].items()}
    x.changed_why, x.changed_by = d["why"], d["by"]
    if (stage := d.get("stage")) is not None:
        x.stage, x.changed_stage = stage["index"], bool(stage["agreed"])
        x.recipe_digests, x.shipped_digests = dict(stage["digests"]), dict(stage["shipped_digests"])
    scripts = d.get("scripts") or {}
    rewritten = {path for path, digest in scripts.items() if x.recipe_digests.get(path) != digest}
    x.recipe_digests |= scripts
    if d["by"] != "postdoc" and x.consent is not None:
        allowed = set(x.consent["envelope"]["keys"])
        if "*" not in allowed and not x.changed.keys() | rewritten <= allowed:
            # Changing is not spending: somebody has to agree to what Postdoc could not have changed by itself.
            x.consent = None
    if x.state in RESUMABLE_STATES:
        _reopen(x)


def _on_holdout_asked(x: Experiment, event: Event) -> None:
    x.rung = Rung.from_dict(event.data["rung"])


def _on_seal_opened(x: Experiment, event: Event) -> None:
    if event.data["run"] != BASELINE:
        x.seal = dict(event.data)
    x.state = State.CONFIRMING


def _on_confirmed(x: Experiment, event: Event) -> None:
    x.confirmation = dict(event.data)
    x.state = State.CONFIRMING


def _on_ablation_opened(x: Experiment, event: Event) -> None:
    x.ablations.append(Ablation.from_dict(event.data))


def _on_ablation_reported(x: Experiment, event: Event) -> None:
    for ablation in x.ablations:
        if ablation.n == event.data["ablation"]:
            ablation.rows, ablation.over = list(event.data["rows"]), True


def _on_reproduction_opened(x: Experiment, event: Event) -> None:
    x.reproductions.append(Reproduction.from_dict(event.data))


def _on_reproduction_rebuilt(x: Experiment, event: Event) -> None:
    for reproduction in x.reproductions:
        if reproduction.n == event.data["reproduction"]:
            then, now = event.data["rows"]
            reproduction.rows = (then, now)


def _on_reproduction_reported(x: Experiment, event: Event) -> None:
    for reproduction in x.reproductions:
        if reproduction.n == event.data["reproduction"]:
            reproduction.report, reproduction.over = dict(event.data["report"]), True


def _on_stopped(x: Experiment, event: Event) -> None:
    x.stop_requested = event.data.get("reason") or f"{event.data['by']} asked to stop"
    if x.reproduction is not None:
        x.reproduction.refused = x.stop_requested


def _on_resumed(x: Experiment, event: Event) -> None:
    for job in x.jobs.values():
        job.again = job.gone
    _reopen(x)


def _on_budget_raised(x: Experiment, event: Event) -> None:
    x.raised = x.raised + Spend.from_dict(event.data["more"])


def _on_spending_refused(x: Experiment, event: Event) -> None:
    if "reproduction" in event.data:
        # The goal itself was not refused anything.
        if x.reproduction is not None:
            x.reproduction.refused = event.data["reason"]
        return
    x.spending_refused = dict(event.data)


def _on_llm_spent(x: Experiment, event: Event) -> None:
    # Journals from before the month was said have the moment at which they learned of it.
    x.llm_paid[event.key] = LlmPrice(event.data["usd"], event.data.get("month") or month_of(event.at))


def _on_judged(x: Experiment, event: Event) -> None:
    d = event.data
    x.judged[d["job_id"]] = {"usd": d["usd"], "answers": d["answers"], "done": d["done"]}


def _on_thought(x: Experiment, event: Event) -> None:
    d = event.data
    thought = next((each for each in x.thoughts if each.n == d["thought"]), None)
    if thought is None:
        thought = Thought(d["thought"], d["run"], x.contract_version)
        x.thoughts.append(thought)
    thought.model, thought.turns, thought.usd = d["model"], d["turns"], d["usd"]
    thought.sittings = d["sitting"]
    thought.outcome, thought.why = Outcome(d["outcome"]) if d["outcome"] else None, d["why"]
    thought.proposal = dict(d["proposal"]) if d["proposal"] else None
    if thought.proposal is not None:
        thought.proposals += 1
        x.written |= scripts_of(thought.proposal)


def _on_proposal_checked(x: Experiment, event: Event) -> None:
    d = event.data
    thought = next(each for each in x.thoughts if each.n == d["thought"])
    if d["refused"]:
        thought.refusals.append(d["refused"])
        thought.proposal = None
        if d["last"]:
            thought.outcome, thought.why = Outcome.REFUSED, d["refused"]
        return
    thought.outcome, thought.why = Outcome.ADOPTED, d["why"]
    if thought.run:
        run = x.runs[thought.run - 1]
        thought.instead_of, run.remedy = run.remedy, dict(d["remedy"])
    else:
        x.recipe, x.recipe_digests, x.recipe_source = d["recipe"], dict(d["digests"]), d["recipe_source"]


def _on_rethink(x: Experiment, event: Event) -> None:
    """The thought that stood is thought again, with what was asked for in mind."""
    d = event.data
    thought = Thought(len(x.thoughts) + 1, d["run"], x.contract_version, wish=d["wish"], asked_by=d["by"])
    x.thoughts.append(thought)


def _on_published(x: Experiment, event: Event) -> None:
    x.published = dict(event.data)


def _on_ended(x: Experiment, event: Event) -> None:
    x.state = State(event.data["state"])
    x.reason = event.data["reason"]
    x.head_sha = event.data.get("head_sha") or x.head_sha
    x.concluded = True
    x.ended_at = event.at
    _drop_side_roads(x)


def _on_issue_closed(x: Experiment, event: Event) -> None:
    x.issue_closed = True


def _on_crashed(x: Experiment, event: Event) -> None:
    x.crash, x.crash_reference = event.data["error"], event.data["reference"]
    # The event is named by the journal's length when its action was decided. A text that was there by then comes
    # before everything else, so it was its reading that broke: it is not read for ever, only its next edit is.
    decided = event.key.rpartition("/")[2]
    if x.edit is None or (decided.isdigit() and x.edit.seq < int(decided)):
        x.contract_version = x.text_version


def _drop_side_roads(x: Experiment) -> None:
    """What was under way beside the goal's own runs is not gone on with."""
    for ablation in x.ablations:
        ablation.over = True
    for reproduction in x.reproductions:
        reproduction.over = True


def _reopen(x: Experiment) -> None:
    """From an ending that is not final back to work."""
    x.state, x.concluded, x.ended_at, x.reason = State.PROPOSED, False, None, ""
    x.stop_requested, x.crash, x.crash_reference = None, None, None
    x.spending_refused = None


_FOLDS = {
    EventKind.CONVERSATION_OPENED: _on_conversation_opened,
    EventKind.GOAL_OPENED: _on_goal_opened,
    EventKind.GOAL_EDITED: _on_goal_edited,
    EventKind.GOAL_READ: _on_goal_read,
    EventKind.GOAL_ADOPTED: _on_goal_adopted,
    EventKind.COMMAND: _on_command,
    EventKind.HEAD_MOVED: _on_head_moved,
    EventKind.PULL_REQUEST_CLOSED: _on_pull_request_closed,
    EventKind.PULL_REQUEST_REOPENED: _on_pull_request_reopened,
    EventKind.JOB_ENDED: _on_job_ended,
    EventKind.MONITORED: _on_monitored,
    EventKind.OUTPUTS_GONE: _on_outputs_gone,
    EventKind.CONTRACT_READ: _on_contract_read,
    EventKind.JOB_LAUNCHED: _on_job_launched,
    EventKind.JOB_REFUSED: _on_job_refused,
    EventKind.REFUSED: _on_refused,
    EventKind.BASELINE_RECORDED: _on_baseline_recorded,
    EventKind.DATA_CHECKED: _on_data_checked,
    EventKind.PLANNED: _on_planned,
    EventKind.PROPOSED: _on_proposed,
    EventKind.CONSENTED: _on_consented,
    EventKind.CONSENT_ASKED: _on_consent_asked,
    EventKind.BUDGET_RAISED: _on_budget_raised,
    EventKind.SPENDING_REFUSED: _on_spending_refused,
    EventKind.LLM_SPENT: _on_llm_spent,
    EventKind.JUDGED: _on_judged,
    EventKind.THOUGHT: _on_thought,
    EventKind.PROPOSAL_CHECKED: _on_proposal_checked,
    EventKind.RETHINK: _on_rethink,
    EventKind.PUBLISHED: _on_published,
    EventKind.RUN_STARTED: _on_run_started,
    EventKind.DIAGNOSED: _on_diagnosed,
    EventKind.REVIEWED: _on_reviewed,
    EventKind.REVISED: _on_revised,
    EventKind.HEAD_READ: _on_head_read,
    EventKind.HOLDOUT_ASKED: _on_holdout_asked,
    EventKind.SEAL_OPENED: _on_seal_opened,
    EventKind.CONFIRMED: _on_confirmed,
    EventKind.ABLATION_OPENED: _on_ablation_opened,
    EventKind.ABLATION_REPORTED: _on_ablation_reported,
    EventKind.REPRODUCTION_OPENED: _on_reproduction_opened,
    EventKind.REPRODUCTION_REBUILT: _on_reproduction_rebuilt,
    EventKind.REPRODUCTION_REPORTED: _on_reproduction_reported,
    EventKind.COMMAND_ANSWERED: _on_command_answered,
    EventKind.STOPPED: _on_stopped,
    EventKind.RESUMED: _on_resumed,
    EventKind.ENDED: _on_ended,
    EventKind.ISSUE_CLOSED: _on_issue_closed,
    EventKind.CRASHED: _on_crashed,
}
