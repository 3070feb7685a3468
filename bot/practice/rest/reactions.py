"""Reactions to issues, comments and review comments: creating one that exists answers 200 with the existing one."""

from __future__ import annotations

from .. import issues
from ..model import Reaction, Role
from ..replies import ApiError, Reply, not_found
from ..routing import Call, Routes
from ..shapes import conversations as shapes
from .issues import READ, WRITE, reachable_issue, require_for

routes = Routes()
_ISSUE = "/repos/{owner}/{repo}/issues/{number}/reactions"
_COMMENT = "/repos/{owner}/{repo}/issues/comments/{id}/reactions"
_REVIEW_COMMENT = "/repos/{owner}/{repo}/pulls/comments/{id}/reactions"


def _of_comment(call: Call, level: str) -> list[Reaction]:
    for issue in call.repository.issues.values():
        for comment in issue.comments:
            if comment.id == call.number("id"):
                require_for(call, issue, level, Role.READ)
                return comment.reactions
    raise not_found()


def _of_review_comment(call: Call) -> list[Reaction]:
    for pull in call.repository.pulls:
        for comment in pull.review_comments:
            if comment.id == call.number("id"):
                return comment.reactions
    raise not_found()


def _list(call: Call, reactions: list[Reaction]) -> Reply:
    content = call.query.get("content")
    found = [each for each in reactions if content in (None, each.content)]
    return Reply(body=[shapes.reaction(call.forge, each) for each in call.page(found)])


def _create(call: Call, reactions: list[Reaction]) -> Reply:
    reaction, new = issues.react(call.forge, call.actor, reactions, call.required_text("content"))
    return Reply(201 if new else 200, shapes.reaction(call.forge, reaction))


def _delete(call: Call, reactions: list[Reaction]) -> Reply:
    for reaction in reactions:
        if reaction.id == call.number("reaction"):
            if reaction.user is not call.actor.user:
                raise ApiError(403, "You may only delete your own reactions.")
            reactions.remove(reaction)
            return Reply(204)
    raise not_found()


@routes.get(_ISSUE, needs=READ)
def list_issue_reactions(call: Call) -> Reply:
    return _list(call, reachable_issue(call, "read").reactions)


@routes.post(_ISSUE, needs=WRITE, role=Role.READ)
def create_issue_reaction(call: Call) -> Reply:
    return _create(call, reachable_issue(call, "write").reactions)


@routes.delete(_ISSUE + "/{reaction}", needs=WRITE, role=Role.READ)
def delete_issue_reaction(call: Call) -> Reply:
    return _delete(call, reachable_issue(call, "write").reactions)


@routes.get(_COMMENT, needs=READ)
def list_comment_reactions(call: Call) -> Reply:
    return _list(call, _of_comment(call, "read"))


@routes.post(_COMMENT, needs=WRITE, role=Role.READ)
def create_comment_reaction(call: Call) -> Reply:
    return _create(call, _of_comment(call, "write"))


@routes.delete(_COMMENT + "/{reaction}", needs=WRITE, role=Role.READ)
def delete_comment_reaction(call: Call) -> Reply:
    return _delete(call, _of_comment(call, "write"))


@routes.get(_REVIEW_COMMENT, needs=("pull_requests:read",))
def list_review_comment_reactions(call: Call) -> Reply:
    return _list(call, _of_review_comment(call))


@routes.post(_REVIEW_COMMENT, needs=("pull_requests:write",), role=Role.READ)
def create_review_comment_reaction(call: Call) -> Reply:
    return _create(call, _of_review_comment(call))


@routes.delete(_REVIEW_COMMENT + "/{reaction}", needs=("pull_requests:write",), role=Role.READ)
def delete_review_comment_reaction(call: Call) -> Reply:
    return _delete(call, _of_review_comment(call))
