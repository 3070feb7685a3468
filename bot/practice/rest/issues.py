"""Issues: create, read, list, edit, close, assign."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from .. import issues, pulls
from ..model import Issue, Role, User
from ..permissions import role_of
from ..replies import ApiError, Reply, invalid
from ..routing import Call, Routes
from ..shapes import accounts
from ..shapes import conversations as shapes

routes = Routes()
READ = ("issues:read", "pull_requests:read")
WRITE = ("issues:write", "pull_requests:write")


def require_for(call: Call, issue: Issue, level: str, role: Role) -> None:
    """Plain issues need the `issues` permission; a pull request's conversation can be reached with either."""
    needs = (f"issues:{level}", f"pull_requests:{level}") if issue.pull else (f"issues:{level}",)
    call.require(role, *needs)


def reachable_issue(call: Call, level: str, role: Role = Role.READ) -> Issue:
    issue = call.issue()
    require_for(call, issue, level, role)
    return issue


def since(call: Call) -> datetime | None:
    """The `since` query parameter. Raises: ApiError 422."""
    text = call.query.get("since")
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise ApiError(422, "Invalid request.\n\nsince is not a valid date-time.") from None
    return moment if moment.tzinfo else moment.astimezone()


@routes.get("/repos/{owner}/{repo}/issues", needs=READ)
def list_issues(call: Call) -> Reply:
    state, labels = call.query.get("state", "open"), call.query.get("labels", "")
    wanted = {name.strip().lower() for name in labels.split(",") if name.strip()}
    creator, after = call.query.get("creator"), since(call)
    found = [
        issue
        for issue in call.repository.issues.values()
        if state in ("all", issue.state)
        and wanted <= {label.name.lower() for label in issue.labels}
        and (creator is None or issue.user.login.lower() == creator.lower())
        and (after is None or issue.updated_at.replace(microsecond=0) >= after)
    ]
    key = {"updated": lambda i: i.updated_at, "comments": lambda i: len(i.comments)}.get(
        call.query.get("sort", "created"), lambda i: i.number
    )
    found.sort(key=key, reverse=call.query.get("direction", "desc") != "asc")
    return Reply(body=[shapes.issue(call.forge, issue) for issue in call.page(found)])


@routes.post("/repos/{owner}/{repo}/issues", needs=("issues:write",), role=Role.READ)
def create_issue(call: Call) -> Reply:
    """Anybody who can read may open one; labels and assignees of people without triage rights are dropped."""
    title = call.value("title", str)
    if title is None:
        raise ApiError(422, 'Invalid request.\n\n"title" wasn\'t supplied.')
    privileged = call.actor.is_installation or role_of(call.repository, call.actor.user).includes(Role.TRIAGE)
    labels = _label_names(call) or []
    issue = issues.open_issue(
        call.forge,
        call.actor,
        call.repository,
        title,
        call.text("body"),
        labels if privileged else [],
        _assignees(call) if privileged else [],
    )
    shape = shapes.issue(call.forge, issue)
    return Reply(201, shape, headers={"location": shape["url"]})


def _label_names(call: Call) -> list[str] | None:
    given = call.value("labels", list)
    return None if given is None else [each["name"] if isinstance(each, dict) else str(each) for each in given]


def _assignees(call: Call) -> list[User]:
    people = []
    for login in call.texts("assignees") or []:
        user = call.forge.find_user(login)
        if user is None or not role_of(call.repository, user).includes(Role.READ):
            raise invalid("Issue", "assignees", "invalid", value=login)
        people.append(user)
    return people


@routes.get("/repos/{owner}/{repo}/issues/{number}", needs=READ)
def get_issue(call: Call) -> Reply:
    return Reply(body=shapes.issue(call.forge, reachable_issue(call, "read")))


@routes.patch("/repos/{owner}/{repo}/issues/{number}", needs=WRITE, role=Role.READ)
def update_issue(call: Call) -> Reply:
    issue = call.issue()
    author = call.actor.user is issue.user
    require_for(call, issue, "write", Role.READ if author else Role.TRIAGE)
    state, reason = call.text("state"), call.text("state_reason")
    if state not in (None, "open", "closed"):
        raise invalid("Issue", "state", "invalid", value=state)
    title = call.value("title", str)
    issues.edit_issue(call.forge, call.actor, issue, title, call.text("body"))
    if (labels := _label_names(call)) is not None and (not author or _privileged(call)):
        issues.set_labels(call.forge, call.actor, issue, labels)
    if "assignees" in call.body and (not author or _privileged(call)):
        issue.assignees = _assignees(call)
    if state == "closed":
        issues.close_issue(call.forge, call.actor, issue, reason)
    elif state == "open" and issue.pull is not None:
        pulls.reopen(call.forge, call.actor, issue.pull)
    elif state == "open":
        issues.reopen_issue(call.forge, call.actor, issue)
    return Reply(body=shapes.issue(call.forge, issue))


def _privileged(call: Call) -> bool:
    return call.actor.is_installation or role_of(call.repository, call.actor.user).includes(Role.TRIAGE)


@routes.post("/repos/{owner}/{repo}/issues/{number}/assignees", needs=WRITE, role=Role.TRIAGE)
def add_assignees(call: Call) -> Reply:
    issue = reachable_issue(call, "write", Role.TRIAGE)
    issue.assignees += [user for user in _assignees(call) if user not in issue.assignees]
    return Reply(201, shapes.issue(call.forge, issue))


@routes.delete("/repos/{owner}/{repo}/issues/{number}/assignees", needs=WRITE, role=Role.TRIAGE)
def remove_assignees(call: Call) -> Reply:
    issue = reachable_issue(call, "write", Role.TRIAGE)
    gone = {login.lower() for login in call.texts("assignees") or []}
    issue.assignees = [user for user in issue.assignees if user.login.lower() not in gone]
    return Reply(body=shapes.issue(call.forge, issue))


@routes.get("/repos/{owner}/{repo}/issues/{number}/events", needs=READ)
def list_events(call: Call) -> Reply:
    issue = reachable_issue(call, "read")
    return Reply(body=[shapes.timeline_event(call.forge, call.repository, each) for each in call.page(issue.timeline)])


@routes.get("/repos/{owner}/{repo}/issues/{number}/timeline", needs=READ)
def list_timeline(call: Call) -> Reply:
    issue = reachable_issue(call, "read")
    entries: list[tuple[datetime, dict[str, Any]]] = [
        (each.created_at, shapes.timeline_event(call.forge, call.repository, each)) for each in issue.timeline
    ]
    entries += [
        (
            each.created_at,
            shapes.comment(call.forge, each) | {"event": "commented", "actor": accounts.user(call.forge, each.user)},
        )
        for each in issue.comments
    ]
    return Reply(body=call.page(shape for _, shape in sorted(entries, key=lambda entry: entry[0])))
