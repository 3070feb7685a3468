"""Outputs that went with their machine: built or trained again where agreed, asked about where not, never blamed."""

from __future__ import annotations

from typing import Any

from bot.domain.experiment import Event, EventKind, Experiment, JobRole, NewEvent
from bot.loop.action import Action, ActionKind
from bot.loop.policy import next_action
from bot.loop.spending import data_key
from tests.loop.test_policy import at, journal, until


def gone(x: Experiment, role: JobRole) -> NewEvent:
    job = [job for job in x.jobs.values() if job.role is role][-1]
    data = {"job_id": job.job_id, "role": str(role), "run": job.run}
    return NewEvent(EventKind.OUTPUTS_GONE, f"job/{job.job_id}/gone", data)


def due(x: Experiment) -> tuple[ActionKind, dict[str, Any]]:
    action = next_action(x)
    assert isinstance(action, Action)
    return action.kind, dict(action.args)


def done(
    x: Experiment, role: str, run: int, attempt: int, expects: str = "", state: str = "succeeded"
) -> list[NewEvent]:
    """The job was launched and has ended."""
    job_id = f"j-{role}-{run:02d}-{attempt}"
    launched = {"job_id": job_id, "role": role, "run": run, "attempt": attempt, "expects": expects}
    status = {"job_id": job_id, "state": state, "started_at": 1.0, "ended_at": 2.0, "failure": None}
    return [
        NewEvent(EventKind.JOB_LAUNCHED, f"job/{job_id}/launched", launched),
        NewEvent(EventKind.JOB_ENDED, f"job/{job_id}/ended", {"job_id": job_id, "status": status}),
    ]


def before_confirming() -> list[Event]:
    """The journal up to where the best run's model is about to meet the sealed test."""
    events = until(EventKind.REVIEWED, 2)
    kind, args = due(at(events))
    assert (kind, args["role"]) == (ActionKind.LAUNCH, "confirm")
    return events


def test_training_set_is_built_and_checked_again_before_the_run_goes_on() -> None:
    events = until(EventKind.RUN_STARTED)
    x = at(events)
    assert due(x)[1]["role"] == "train"
    lost = gone(x, JobRole.DATA)
    x = at(events, lost)
    key = data_key(x.recipe, x.recipe_digests)
    assert due(x) == (ActionKind.LAUNCH, {"role": "data", "run": 2, "attempt": 1, "expects": key})
    built = done(x, "data", 2, 1, key)
    assert due(at(events, lost, *built))[0] is ActionKind.CHECK_DATA
    checked = NewEvent(EventKind.DATA_CHECKED, "data/again", {"data_key": key, "job_id": "j-data-02-1", "build": {}})
    x = at(events, lost, *built, checked)
    assert due(x)[1] | {"expects": ""} == {"role": "train", "run": 1, "attempt": 1, "expects": ""}


def test_training_set_is_not_built_again_for_nobody() -> None:
    events = journal()
    assert next_action(at(events, gone(at(events), JobRole.DATA))) is None


def test_model_of_the_run_under_way_is_trained_again_within_what_was_agreed() -> None:
    events = journal()
    n = next(i for i, e in enumerate(events) if e.kind is EventKind.JOB_LAUNCHED and e.data["role"] == "evaluate")
    x = at(events[:n])
    assert due(x)[1]["role"] == "evaluate"
    lost = at(events[:n], gone(x, JobRole.TRAIN))
    assert due(lost) == (ActionKind.LAUNCH, {"role": "train", "run": 1, "attempt": 2, "expects": ""})


def test_reviewed_runs_model_is_trained_again_only_when_somebody_says_so() -> None:
    events = before_confirming()
    lost = gone(at(events), JobRole.TRAIN)
    kind, args = due(at(events, lost))
    assert (kind, args["state"]) == (ActionKind.CONCLUDE, "needs human")
    assert "/postdoc resume" in args["reason"]
    ended = NewEvent(EventKind.ENDED, "ended/x", {"state": "needs human", "reason": args["reason"], "head_sha": None})
    resumed = NewEvent(EventKind.RESUMED, "resumed/x", {"by": "maya"})
    assert next_action(at(events, lost, ended)) is None
    kind, args = due(at(events, lost, ended, resumed))
    assert (kind, args["role"], args["run"], args["attempt"]) == (ActionKind.LAUNCH, "train", 2, 2)
    again = done(at(events), "train", 2, 2)
    kind, args = due(at(events, lost, ended, resumed, *again))
    assert (kind, args["role"], args["run"]) == (ActionKind.LAUNCH, "confirm", 2)


def test_training_once_more_that_fails_asks_a_person() -> None:
    events = before_confirming()
    lost = gone(at(events), JobRole.TRAIN)
    ended = NewEvent(EventKind.ENDED, "ended/x", {"state": "needs human", "reason": "gone", "head_sha": None})
    resumed = NewEvent(EventKind.RESUMED, "resumed/x", {"by": "maya"})
    failed = done(at(events), "train", 2, 2, state="failed")
    kind, args = due(at(events, lost, ended, resumed, *failed))
    assert (kind, args["state"]) == (ActionKind.CONCLUDE, "needs human")


def test_what_was_lost_still_counts_as_spent() -> None:
    events = before_confirming()
    x = at(events)
    assert at(events, gone(x, JobRole.TRAIN)).job_hours() == x.job_hours()
