"""Comments on issues and on the conversation of pull requests."""

from __future__ import annotations

from .. import issues
from ..model import IssueComment, Role
from ..replies import Reply, not_found
from ..routing import Call, Routes
from ..shapes import conversations as shapes
from .issues import READ, WRITE, reachable_issue, require_for, since

routes = Routes()


def _comment(call: Call, level: str) -> IssueComment:
    number = call.number("id")
    for issue in call.repository.issues.values():
        for comment in issue.comments:
            if comment.id == number:
                own = level == "read" or comment.user is call.actor.user
                require_for(call, issue, level, Role.READ if own else Role.WRITE)
                return comment
    raise not_found()


@routes.get("/repos/{owner}/{repo}/issues/comments", needs=READ)
def list_repository_comments(call: Call) -> Reply:
    after = since(call)
    found = [c for issue in call.repository.issues.values() for c in issue.comments]
    found = [c for c in found if after is None or c.updated_at.replace(microsecond=0) >= after]
    by_update = call.query.get("sort") == "updated"
    found.sort(key=lambda c: (c.updated_at if by_update else c.created_at, c.id))
    if call.query.get("sort") and call.query.get("direction", "desc") == "desc":
        found.reverse()
    return Reply(body=[shapes.comment(call.forge, each) for each in call.page(found)])


@routes.get("/repos/{owner}/{repo}/issues/{number}/comments", needs=READ)
def list_comments(call: Call) -> Reply:
    after = since(call)
    listed = reachable_issue(call, "read").comments
    found = [c for c in listed if after is None or c.updated_at.replace(microsecond=0) >= after]
    return Reply(body=[shapes.comment(call.forge, each) for each in call.page(found)])


@routes.post("/repos/{owner}/{repo}/issues/{number}/comments", needs=WRITE, role=Role.READ)
def create_comment(call: Call) -> Reply:
    issue = reachable_issue(call, "write")
    issues.require_open_conversation(issue)
    comment = issues.comment(call.forge, call.actor, issue, call.required_text("body"))
    shape = shapes.comment(call.forge, comment)
    return Reply(201, shape, headers={"location": shape["url"]})


@routes.get("/repos/{owner}/{repo}/issues/comments/{id}", needs=READ)
def get_comment(call: Call) -> Reply:
    return Reply(body=shapes.comment(call.forge, _comment(call, "read")))


@routes.patch("/repos/{owner}/{repo}/issues/comments/{id}", needs=WRITE, role=Role.READ)
def update_comment(call: Call) -> Reply:
    comment = _comment(call, "write")
    issues.edit_comment(call.forge, call.actor, comment, call.required_text("body"))
    return Reply(body=shapes.comment(call.forge, comment))


@routes.delete("/repos/{owner}/{repo}/issues/comments/{id}", needs=WRITE, role=Role.READ)
def delete_comment(call: Call) -> Reply:
    issues.delete_comment(call.forge, call.actor, _comment(call, "write"))
    return Reply(204)
