"""The mutations: commits on a branch, drafts, minimized comments, resolved threads, reactions."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any

from .. import issues, pulls
from ..commits import StaleBranch, commit_files
from ..model import Issue, IssueComment, PullRequest, Repository, Review, ReviewComment, Role
from ..permissions import require
from ..replies import ApiError
from .objects import Fields, Root, not_resolved, repository_of, thread_id

_CONTENTS = {
    "THUMBS_UP": "+1",
    "THUMBS_DOWN": "-1",
    "LAUGH": "laugh",
    "HOORAY": "hooray",
    "CONFUSED": "confused",
    "HEART": "heart",
    "ROCKET": "rocket",
    "EYES": "eyes",
}
Mutation = Callable[[Root, dict[str, Any]], Fields]


def fields(root: Root) -> Fields:
    def bound(mutation: Mutation) -> Callable[..., Fields]:
        return lambda _, input: {"clientMutationId": input.get("clientMutationId"), **mutation(root, input)}

    return {name: bound(mutation) for name, mutation in _MUTATIONS.items()}


def create_commit_on_branch(root: Root, given: dict[str, Any]) -> Fields:
    repository, branch = _branch(root, given["branch"])
    require(root.actor, repository, Role.WRITE, ("contents:write",))
    tip, expected = repository.git.branch(branch), given["expectedHeadOid"]
    if tip is None:
        raise not_resolved("a Ref", f"name '{branch}'")
    if tip != expected:
        raise _stale(expected)
    message = given["message"]["headline"]
    if given["message"].get("body"):
        message += f"\n\n{given['message']['body']}"
    if not message.strip():
        raise ApiError(422, "A commit message is needed.")
    changes = _changes(repository, expected, given.get("fileChanges") or {})
    try:
        commit = commit_files(root.forge, root.actor, repository, branch, expected, changes, message)
    except StaleBranch:
        raise _stale(expected) from None
    return {
        "commit": root.commit(repository, commit),
        "ref": lambda _: root.ref(repository, f"refs/heads/{branch}"),
    }


def _stale(expected: str) -> ApiError:
    return ApiError(409, f'Expected branch to point to "{expected}" but it did not. Pull and try again.')


def _branch(root: Root, given: dict[str, Any]) -> tuple[Repository, str]:
    full_name, name = given.get("repositoryNameWithOwner"), given.get("branchName")
    if not full_name or not name:
        raise ApiError(422, "branch needs repositoryNameWithOwner and branchName.")
    return root.find_repository(full_name), name.removeprefix("refs/heads/")


def _changes(repository: Repository, expected: str, given: dict[str, Any]) -> dict[str, bytes | None]:
    changes: dict[str, bytes | None] = {}
    tree = repository.git.commit(expected).tree
    for deletion in given.get("deletions") or []:
        entry = repository.git.entry_at(tree, deletion["path"])
        if entry is None or entry.type == "tree":
            raise ApiError(
                422,
                "A path was requested for deletion which does not exist as of commit oid "
                f"`{expected}`: {deletion['path']}",
            )
        changes[deletion["path"]] = None
    for addition in given.get("additions") or []:
        if addition["path"] in changes:
            raise ApiError(422, f"A path was requested for both addition and deletion: {addition['path']}")
        try:
            changes[addition["path"]] = base64.b64decode(addition["contents"], validate=True)
        except (binascii.Error, ValueError):
            raise ApiError(422, f"The contents of {addition['path']} are not valid Base64.") from None
    return changes


def _pull(root: Root, identifier: str) -> PullRequest:
    found = root.find_node(identifier)
    if not isinstance(found, PullRequest):
        raise not_resolved("a PullRequest", f"global id of '{identifier}'")
    author = root.actor.user is found.issue.user
    role = Role.READ if author and not root.actor.is_installation else Role.WRITE
    require(root.actor, found.repository, role, ("pull_requests:write",))
    return found


def mark_ready(root: Root, given: dict[str, Any]) -> Fields:
    pull = _pull(root, given["pullRequestId"])
    pulls.set_draft(root.forge, root.actor, pull, False)
    return {"pullRequest": root.pull(pull)}


def convert_to_draft(root: Root, given: dict[str, Any]) -> Fields:
    pull = _pull(root, given["pullRequestId"])
    pulls.set_draft(root.forge, root.actor, pull, True)
    return {"pullRequest": root.pull(pull)}


def _minimizable(root: Root, identifier: str) -> IssueComment | ReviewComment | Review:
    found = root.find_node(identifier)
    if not isinstance(found, IssueComment | ReviewComment | Review):
        raise not_resolved("a Minimizable", f"global id of '{identifier}'")
    repository = repository_of(found)
    assert repository is not None
    on_issue = isinstance(found, IssueComment) and found.issue.pull is None
    needs = ("issues:write",) if on_issue else ("issues:write", "pull_requests:write")
    require(root.actor, repository, Role.READ if found.user is root.actor.user else Role.WRITE, needs)
    return found


def minimize(root: Root, given: dict[str, Any]) -> Fields:
    found = _minimizable(root, given["subjectId"])
    found.minimized_reason = given["classifier"].lower().replace("_", "-")
    return {"minimizedComment": root.node(found.node_id)}


def unminimize(root: Root, given: dict[str, Any]) -> Fields:
    found = _minimizable(root, given["subjectId"])
    found.minimized_reason = None
    return {"unminimizedComment": root.node(found.node_id)}


def _thread(root: Root, identifier: str) -> ReviewComment:
    for found in list(root.forge.nodes.values()):
        if isinstance(found, ReviewComment) and found.in_reply_to is None and thread_id(found) == identifier:
            require(root.actor, found.pull.repository, Role.READ, ("pull_requests:read",))
            author = root.actor.user is found.pull.issue.user and not root.actor.is_installation
            role = Role.READ if author else Role.WRITE
            require(root.actor, found.pull.repository, role, ("pull_requests:write",))
            return found
    raise not_resolved("a node", f"global id of '{identifier}'")


def resolve_thread(root: Root, given: dict[str, Any]) -> Fields:
    top = _thread(root, given["threadId"])
    top.resolved = True
    return {"thread": root.thread(top)}


def unresolve_thread(root: Root, given: dict[str, Any]) -> Fields:
    top = _thread(root, given["threadId"])
    top.resolved = False
    return {"thread": root.thread(top)}


def add_reaction(root: Root, given: dict[str, Any]) -> Fields:
    found = root.find_node(given["subjectId"])
    target = found.issue if isinstance(found, PullRequest) else found
    if not isinstance(target, Issue | IssueComment | ReviewComment):
        raise not_resolved("a Reactable", f"global id of '{given['subjectId']}'")
    repository = repository_of(found)
    assert repository is not None
    require(root.actor, repository, Role.READ, ("issues:write", "pull_requests:write"))
    issues.react(root.forge, root.actor, target.reactions, _CONTENTS[given["content"]])
    return {"subject": root.node(found.node_id)}


_MUTATIONS: dict[str, Mutation] = {
    "createCommitOnBranch": create_commit_on_branch,
    "markPullRequestReadyForReview": mark_ready,
    "convertPullRequestToDraft": convert_to_draft,
    "minimizeComment": minimize,
    "unminimizeComment": unminimize,
    "resolveReviewThread": resolve_thread,
    "unresolveReviewThread": unresolve_thread,
    "addReaction": add_reaction,
}
