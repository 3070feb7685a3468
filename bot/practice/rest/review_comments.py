"""Comments on the diff of a pull request."""

from __future__ import annotations

from .. import reviews
from ..model import PullRequest, ReviewComment, Role
from ..replies import Reply, not_found
from ..routing import Call, Routes
from ..shapes import pulls as shapes
from .issues import since
from .reviews import READ, WRITE, draft, visible

routes = Routes()


def _listed(call: Call, pulls: list[PullRequest]) -> Reply:
    after = since(call)
    found = [
        comment
        for pull in pulls
        for comment in pull.review_comments
        if visible(call, comment.review) and (after is None or comment.updated_at.replace(microsecond=0) >= after)
    ]
    if call.query.get("direction") == "desc":
        found.reverse()
    return Reply(body=[shapes.review_comment(call.forge, each) for each in call.page(found)])


def _comment(call: Call, level: str = "read") -> ReviewComment:
    for pull in call.repository.pulls:
        for comment in pull.review_comments:
            if comment.id == call.number("id") and visible(call, comment.review):
                if level == "write" and comment.user is not call.actor.user:
                    call.require(Role.WRITE, *WRITE)
                return comment
    raise not_found()


@routes.get("/repos/{owner}/{repo}/pulls/comments", needs=READ)
def list_repository_comments(call: Call) -> Reply:
    return _listed(call, call.repository.pulls)


@routes.get("/repos/{owner}/{repo}/pulls/comments/{id}", needs=READ)
def get_comment(call: Call) -> Reply:
    return Reply(body=shapes.review_comment(call.forge, _comment(call)))


@routes.patch("/repos/{owner}/{repo}/pulls/comments/{id}", needs=WRITE, role=Role.READ)
def update_comment(call: Call) -> Reply:
    comment = _comment(call, "write")
    reviews.edit_comment(call.forge, call.actor, comment, call.required_text("body"))
    return Reply(body=shapes.review_comment(call.forge, comment))


@routes.delete("/repos/{owner}/{repo}/pulls/comments/{id}", needs=WRITE, role=Role.READ)
def delete_comment(call: Call) -> Reply:
    reviews.delete_comment(call.forge, call.actor, _comment(call, "write"))
    return Reply(204)


@routes.get("/repos/{owner}/{repo}/pulls/{number}/comments", needs=READ)
def list_comments(call: Call) -> Reply:
    return _listed(call, [call.pull()])


@routes.post("/repos/{owner}/{repo}/pulls/{number}/comments", needs=WRITE, role=Role.READ)
def create_comment(call: Call) -> Reply:
    pull = call.pull()
    if (parent := call.value("in_reply_to", int)) is not None:
        return _reply(call, pull, parent)
    comment = reviews.add_comment(call.forge, call.actor, pull, draft(call.body), call.required_text("commit_id"))
    return Reply(201, shapes.review_comment(call.forge, comment))


@routes.post("/repos/{owner}/{repo}/pulls/{number}/comments/{id}/replies", needs=WRITE, role=Role.READ)
def create_reply(call: Call) -> Reply:
    return _reply(call, call.pull(), call.number("id"))


def _reply(call: Call, pull: PullRequest, parent_id: int) -> Reply:
    parent = next((comment for comment in pull.review_comments if comment.id == parent_id), None)
    if parent is None:
        raise not_found()
    comment = reviews.reply(call.forge, call.actor, parent, call.required_text("body"))
    return Reply(201, shapes.review_comment(call.forge, comment))
