"""`next_action` on a journal that a real demo wrote: what is decided, and that deciding is pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bot.domain.experiment import Event, EventKind, Experiment, JobRole, NewEvent, State
from bot.domain.fold import experiment_of
from bot.domain.goal import GoalId
from bot.loop.action import ActionKind
from bot.loop.policy import next_action
from bot.loop.spending import allowance, budget_exhausted, data_key, evaluation_hours, spend_of

RECORDED = Path(__file__).resolve().parent.parent / "cli" / "payloads" / "goal-met.json"
GOAL = GoalId("acme/tiny-speller#1")
# Events that the world brings by itself; every other one is an action's doing.
FROM_THE_WORLD = {EventKind.GOAL_OPENED, EventKind.JOB_ENDED}


def journal() -> list[Event]:
    raw = json.loads(RECORDED.read_text(encoding="utf-8"))
    rows = raw["events"] if isinstance(raw, dict) else raw
    return [Event(row["seq"], EventKind(row["kind"]), row["key"], row["at"], row["data"]) for row in rows]


def at(events: Sequence[Event], *more: NewEvent) -> Experiment:
    added = [
        Event(len(events) + i, new.kind, new.key, events[-1].at + 1, json.loads(json.dumps(new.data)))
        for i, new in enumerate(more)
    ]
    return experiment_of(GOAL, [*events, *added])


def until(kind: EventKind, count: int = 1) -> list[Event]:
    """The journal up to and with the `count`-th event of this kind."""
    found: list[Event] = []
    for event in journal():
        found.append(event)
        count -= event.kind is kind
        if count == 0:
            return found
    raise AssertionError(f"the recorded journal has no such {kind}")


def command(verb: str, *args: str) -> NewEvent:
    data: dict[str, Any] = {
        "verb": verb,
        "args": list(args),
        "author": "maya",
        "author_id": 1,
        "comment_id": 5,
        "number": 2,
    }
    return NewEvent(EventKind.COMMAND, f"command/{verb}", data)


def test_every_recorded_event_is_what_the_decided_action_brings() -> None:
    brings = {
        ActionKind.READ_CONTRACT: {EventKind.CONTRACT_READ},
        ActionKind.LAUNCH: {EventKind.JOB_LAUNCHED},
        ActionKind.RECORD_BASELINE: {EventKind.BASELINE_RECORDED},
        ActionKind.CHECK_DATA: {EventKind.DATA_CHECKED},
        ActionKind.PROPOSE: {EventKind.PLANNED, EventKind.PROPOSED},
        ActionKind.CONSENT_BY_POLICY: {EventKind.CONSENTED},
        ActionKind.START_RUN: {EventKind.RUN_STARTED},
        ActionKind.DIAGNOSE: {EventKind.DIAGNOSED},
        ActionKind.REVIEW: {EventKind.REVIEWED},
        ActionKind.REVISE: {EventKind.REVISED},
        ActionKind.CONFIRM: {EventKind.CONFIRMED},
        ActionKind.CONCLUDE: {EventKind.ENDED},
    }
    events = journal()
    for n, event in enumerate(events):
        if event.kind in FROM_THE_WORLD or event.kind is EventKind.PROPOSED:
            continue
        action = next_action(experiment_of(GOAL, events[:n]))
        assert action is not None, f"nothing was decided before event {n}, {event.kind}"
        assert event.kind in brings[action.kind], f"event {n}"
    assert next_action(experiment_of(GOAL, events)) is None


def test_deciding_twice_is_the_same_decision() -> None:
    events = journal()
    for n in range(1, len(events) + 1):
        assert next_action(experiment_of(GOAL, events[:n])) == next_action(experiment_of(GOAL, events[:n]))


def test_running_job_is_waited_for() -> None:
    x = at(until(EventKind.JOB_LAUNCHED))
    assert len(x.running_jobs) == 1
    assert next_action(x) is None


def test_command_comes_before_the_road() -> None:
    x = at(until(EventKind.JOB_LAUNCHED), command("status"))
    action = next_action(x)
    assert action is not None
    assert action.kind is ActionKind.ANSWER_COMMAND


@pytest.mark.parametrize("kind", [kind for kind in EventKind if kind in {e.kind for e in journal()}])
def test_stop_at_any_moment_ends_the_goal_as_stopped(kind: EventKind) -> None:
    x = at(until(kind), NewEvent(EventKind.STOPPED, "stopped", {"by": "maya"}))
    if x.contract_version < 0 or x.state is State.MET:
        return
    action = next_action(x)
    assert action is not None
    assert (action.kind, action.args["state"]) == (ActionKind.CONCLUDE, "stopped")


def test_closed_pull_request_ends_the_goal_even_while_a_job_runs() -> None:
    x = at(until(EventKind.RUN_STARTED), NewEvent(EventKind.PULL_REQUEST_CLOSED, "closed", {"merged": False}))
    action = next_action(x)
    assert action is not None
    assert action.args["state"] == "closed"


def test_merge_after_the_end_closes_the_issue_once() -> None:
    merged = NewEvent(EventKind.PULL_REQUEST_CLOSED, "closed", {"merged": True})
    action = next_action(at(journal(), merged))
    assert action is not None
    assert action.kind is ActionKind.CLOSE_ISSUE
    assert next_action(at(journal(), merged, NewEvent(EventKind.ISSUE_CLOSED, "issue", {}))) is None


def test_lost_job_is_launched_again_at_most_three_times() -> None:
    events = until(EventKind.JOB_LAUNCHED)
    job = events[-1].data
    for attempt in (1, 2, 3):
        job_id = job["job_id"][:-1] + str(attempt)
        if attempt > 1:
            launched = {**job, "job_id": job_id, "attempt": attempt}
            events.append(Event(len(events), EventKind.JOB_LAUNCHED, job_id, 0.0, launched))
        status = {"state": "lost", "failure": None, "started_at": 0.0, "ended_at": 1.0}
        events.append(Event(len(events), EventKind.JOB_ENDED, f"e{job_id}", 0.0, {"job_id": job_id, "status": status}))
        action = next_action(experiment_of(GOAL, events))
        assert action is not None
        assert (action.kind is ActionKind.LAUNCH) == (attempt < 3)


def test_persons_push_voids_the_consent() -> None:
    x = at(until(EventKind.REVIEWED))
    read = {
        "head_sha": "f" * 40, "recipe": x.recipe.replace("2.0e-05", "1.0e-05"), "digests": x.recipe_digests,
        "changed": {"learning_rate": [2e-05, 1e-05]}, "scripts_changed": False, "why": "pushed", "by": "tomas",
    }  # fmt: skip
    x = at(until(EventKind.REVIEWED), NewEvent(EventKind.HEAD_READ, "read", read))
    assert x.consent is None
    action = next_action(x)
    assert action is not None
    assert action.kind in (ActionKind.CONSENT_BY_POLICY, ActionKind.ASK_CONSENT)


def test_pushed_script_is_never_paid_for_by_policy() -> None:
    x = at(until(EventKind.REVIEWED))
    digests = x.recipe_digests | {"train.py": "0" * 64}
    read = {"head_sha": "f" * 40, "recipe": x.recipe, "digests": digests, "changed": {}, "scripts_changed": True,
            "why": "pushed", "by": "tomas"}  # fmt: skip
    x = at(until(EventKind.REVIEWED), NewEvent(EventKind.HEAD_READ, "read", read))
    action = next_action(x)
    assert action is None or action.kind in (ActionKind.ASK_CONSENT, ActionKind.REVISE)
    assert x.consent is None


def test_budget_of_runs_is_a_ceiling() -> None:
    x = at(until(EventKind.RUN_STARTED))
    assert x.goal is not None
    assert budget_exhausted(x) is None
    x.runs = x.runs * x.goal.budget.runs
    assert "training runs" in (budget_exhausted(x) or "")


def test_data_is_built_again_only_when_its_lines_change() -> None:
    recipe = "learning_rate: 1e-5\ndata_sources: a.jsonl\ndata_max_rows: 10 # few\nseed: 0\n"
    key = data_key(recipe, {"data/prepare.py": "x"})
    assert key == data_key(recipe.replace("1e-5", "1e-3").replace(" # few", ""), {"data/prepare.py": "x"})
    assert key != data_key(recipe.replace("10", "20"), {"data/prepare.py": "x"})
    assert key != data_key(recipe, {"data/prepare.py": "y"})


def set_by_hand(key: str, value: float) -> NewEvent:
    data = {"head_sha": "e" * 40, "recipe": f"{key}: {value}\n", "changed": {key: [1, value]}, "why": "", "by": "maya"}
    return NewEvent(EventKind.REVISED, "by hand", data)


def test_key_set_by_a_person_voids_a_consent_that_does_not_cover_it() -> None:
    x = at(until(EventKind.REVIEWED), set_by_hand("learning_rate", 1e-3))
    assert x.consent is not None
    assert at(until(EventKind.REVIEWED), set_by_hand("seed", 4)).consent is None


def test_raised_ceilings_make_room_for_another_run() -> None:
    events = until(EventKind.REVIEWED)
    x = at(events)
    assert x.goal is not None
    x.runs = x.runs * x.goal.budget.runs
    assert budget_exhausted(x) is not None
    x = at(events, NewEvent(EventKind.BUDGET_RAISED, "raised", {"by": "maya", "more": {"runs": 1, "usd": 2.0}}))
    assert x.goal is not None
    assert (x.ceilings.runs, x.ceilings.usd) == (x.goal.budget.runs + 1, x.goal.budget.usd + 2.0)
    x.runs = x.runs * x.goal.budget.runs
    assert budget_exhausted(x) is None


def test_job_may_take_what_is_left_and_training_leaves_time_to_evaluate() -> None:
    x = at(until(EventKind.RUN_STARTED))
    now = x.last_at
    whole = allowance(x, JobRole.EVALUATE, now).gpu_hours
    assert x.goal is not None
    assert whole == pytest.approx(x.goal.budget.gpu_hours - x.job_hours())
    assert allowance(x, JobRole.TRAIN, now).gpu_hours == pytest.approx(whole - evaluation_hours(x))
    assert evaluation_hours(x) > 0
    # Nothing is left once the hours since consent are over, however little was used.
    assert allowance(x, JobRole.EVALUATE, now + 3600 * x.goal.budget.wall_hours).gpu_hours == 0


def test_price_of_the_machine_caps_the_time() -> None:
    x = at(until(EventKind.RUN_STARTED))
    assert x.consent is not None
    x.policy = x.policy | {"usd_per_hour": 4.0}
    x.consent["envelope"]["ceilings"]["usd"] = spend_of(x).usd + 1.0
    found = allowance(x, JobRole.EVALUATE, x.last_at)
    assert (found.usd, found.gpu_hours) == (pytest.approx(1.0), pytest.approx(0.25))


def test_llm_counts_against_the_money() -> None:
    x = at(until(EventKind.RUN_STARTED), NewEvent(EventKind.LLM_SPENT, "llm/1", {"usd": 0.75}))
    assert spend_of(x).usd == pytest.approx(0.75)


def test_refused_reservation_ends_the_goal_and_a_resume_tries_again() -> None:
    refused = NewEvent(EventKind.SPENDING_REFUSED, "refused", {"state": "exhausted", "reason": "the month is used up"})
    action = next_action(at(until(EventKind.RUN_STARTED), refused))
    assert action is not None
    assert action.args == {"state": "exhausted", "reason": "the month is used up"}
    ended = NewEvent(EventKind.ENDED, "ended", {"state": "exhausted", "reason": "the month is used up"})
    action = next_action(
        at(until(EventKind.RUN_STARTED), refused, ended, NewEvent(EventKind.RESUMED, "r", {"by": "m"}))
    )
    assert action is not None
    assert action.kind is ActionKind.LAUNCH


def test_conversation_without_a_goal_only_answers() -> None:
    opened = {"owner": "acme", "repository": "tiny-speller", "issue": 7, "installation_id": 1}
    started = [Event(0, EventKind.CONVERSATION_OPENED, "conversation", 0.0, opened)]
    assert next_action(at(started)) is None
    action = next_action(at(started, command("halt")))
    assert action is not None
    assert action.kind is ActionKind.ANSWER_COMMAND
    answered = NewEvent(EventKind.COMMAND_ANSWERED, "answered", {"command": 1, "reply": "Halted."})
    assert next_action(at(started, command("halt"), answered)) is None


def test_run_that_starts_from_a_lost_model_waits_for_a_person_and_then_for_that_model() -> None:
    events = until(EventKind.RUN_STARTED, 2)
    x = at(events)
    first = x.job_for(JobRole.TRAIN, 1)
    assert first is not None and x.run is not None
    x.run.recipe = x.run.recipe.replace("seed:", "init_from: runs/01\nseed:")
    action = next_action(x)
    assert action is not None
    assert (action.kind, action.args["role"], action.args["run"]) == (ActionKind.LAUNCH, "train", 2)
    first.gone = True
    action = next_action(x)
    assert action is not None
    assert action.kind is ActionKind.CONCLUDE
    assert "run 2 starts from run 1, whose model is gone" in action.args["reason"]
    first.again = True
    action = next_action(x)
    assert action is not None
    assert (action.kind, action.args["role"], action.args["run"]) == (ActionKind.LAUNCH, "train", 1)


def test_job_that_the_monitor_ended_is_diagnosed_and_not_launched_again() -> None:
    events = until(EventKind.RUN_STARTED)
    launched = next(
        event for event in journal() if event.kind is EventKind.JOB_LAUNCHED and event.data["role"] == "train"
    )
    job_id = launched.data["job_id"]
    doomed = {"job_id": job_id, "role": "train", "run": 1, "tier": "hard", "step": 9, "diagnoses": []}
    status = {"state": "cancelled", "failure": None, "started_at": 0.0, "ended_at": 1.0}
    ended = NewEvent(EventKind.JOB_ENDED, "ended", {"job_id": job_id, "status": status})
    started = NewEvent(EventKind.JOB_LAUNCHED, "launched", dict(launched.data))
    action = next_action(at(events, started, ended))
    assert action is not None
    assert action.kind is ActionKind.LAUNCH  # a person cancelled it: done again when they resume
    x = at(events, started, NewEvent(EventKind.MONITORED, "monitored", doomed))
    assert next_action(x) is None  # it still runs
    action = next_action(at(events, started, NewEvent(EventKind.MONITORED, "monitored", doomed), ended))
    assert action is not None
    assert action.kind is ActionKind.DIAGNOSE
