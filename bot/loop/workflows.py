"""What DBOS remembers of actions: which were left unfinished, and when to forget those that were finished.

An action is the workflow `<goal>/<n>/<fence>`: decided from a journal of length n, under the goal's lease with that
fence. Whoever holds the lease next finds what the holder before was in the middle of, and carries it out under its own
fence. The order makes this safe: a workflow is stored, then its lease is looked at in the database, then it acts. So
every action that began before its lease was taken is seen by whoever took it.
"""

from __future__ import annotations

import datetime
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from dbos import DBOS, WorkflowStatus

from bot.domain.goal import GoalId

log = logging.getLogger("postdoc.engine")

WORKFLOW = "action"
_UNFINISHED = ["PENDING", "ENQUEUED"]
_FINISHED = ["SUCCESS", "ERROR", "CANCELLED"]
_ID = re.compile(r"(?P<goal>.+#\d+)/(?P<n>\d+)(/(?P<fence>\d+))?")
_BATCH = 500


@dataclass(frozen=True, slots=True)
class Unfinished:
    """An action that somebody was in the middle of."""

    n: int
    decided: dict[str, Any]
    workflow_ids: tuple[str, ...]
    """Workflows that carrying it out once more stands for."""


def workflow_id(goal_id: GoalId, n: int, fence: int) -> str:
    return f"{goal_id}/{n}/{fence}"


async def unfinished(goal_ids: Iterable[GoalId]) -> dict[GoalId, Unfinished]:
    """Of these goals, those with an action to carry out before anything else is decided.

    Call it after the goals' leases were taken. What a process that had already lost its lease wrote down too late is
    cancelled here.
    """
    wanted = set(goal_ids)
    prefixes = [f"{goal_id}/" for goal_id in wanted] if len(wanted) <= 50 else None
    rows = await DBOS.list_workflows_async(
        status=_UNFINISHED, name=WORKFLOW, workflow_id_prefix=prefixes, load_output=False
    )
    found: dict[GoalId, list[tuple[int, WorkflowStatus]]] = {}
    for row in rows:
        goal_id, fence = _goal_and_fence(row.workflow_id)
        if goal_id in wanted:
            found.setdefault(goal_id, []).append((fence, row))
    result = {}
    for goal_id, candidates in found.items():
        ids = tuple(row.workflow_id for _, row in candidates)
        fence, latest = max(candidates, key=lambda each: each[0])
        if fence < await _last_finished(goal_id):
            await DBOS.cancel_workflows_async(list(ids))
            continue
        assert latest.input is not None
        _, n, decided = latest.input["args"]
        result[goal_id] = Unfinished(int(n), dict(decided), ids)
    return result


async def _last_finished(goal_id: GoalId) -> int:
    """The highest fence under which an action of this goal came to its end; -1 for none."""
    rows = await DBOS.list_workflows_async(
        status="SUCCESS", name=WORKFLOW, workflow_id_prefix=f"{goal_id}/", load_input=False, load_output=False,
        sort_desc=True, limit=_BATCH,
    )  # fmt: skip
    return max((_goal_and_fence(row.workflow_id)[1] for row in rows), default=-1)


async def prune(older_than_days: float) -> int:
    """Forget finished workflows; returns how many. The journals keep what they did."""
    before = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=older_than_days)
    # First those that were written down too late: only the finished ones tell that they were.
    pending = await DBOS.list_workflows_async(
        status=_UNFINISHED, name=WORKFLOW, end_time=before.isoformat(), load_input=False, load_output=False
    )
    for goal_id, fence, stale in ((*_goal_and_fence(row.workflow_id), row.workflow_id) for row in pending):
        if fence < await _last_finished(goal_id):
            await DBOS.cancel_workflows_async([stale])
    deleted = 0
    while True:
        rows = await DBOS.list_workflows_async(
            status=_FINISHED, name=WORKFLOW, completed_before=before.isoformat(), limit=_BATCH,
            load_input=False, load_output=False,
        )  # fmt: skip
        if not rows:
            return deleted
        await DBOS.delete_workflows_async([row.workflow_id for row in rows])
        deleted += len(rows)


def _goal_and_fence(text: str) -> tuple[GoalId, int]:
    match = _ID.fullmatch(text)
    if match is None:
        return GoalId(text), 0
    return GoalId(match["goal"]), int(match["fence"] or 0)
