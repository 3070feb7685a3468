"""Merging a pull request: a merge commit or a squash, made by the forge and signed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import issues
from .auth import Actor
from .commits import move_ref
from .model import PullRequest
from .pulls import mark_merged
from .replies import ApiError

if TYPE_CHECKING:
    from .forge import Forge


def merge(
    forge: Forge, actor: Actor, pull: PullRequest, method: str, title: str | None, message: str | None, sha: str | None
) -> str:
    """The merge commit. Raises: ApiError 405 when it cannot be merged, 409 when the head is not `sha`."""
    repository, git = pull.repository, pull.repository.git
    if sha is not None and sha != pull.head_sha:
        raise ApiError(409, "Head branch was modified. Review and try the merge again.")
    if pull.issue.state == "closed" or pull.draft:
        raise ApiError(405, "Pull Request is still a draft" if pull.draft else "Pull Request is not mergeable")
    if method not in ("merge", "squash"):
        raise ApiError(405, "Rebase merges are not allowed on this repository.")
    tip = git.branch(pull.base_ref)
    tree = None if tip is None else git.merge_tree(tip, pull.head_sha)
    if tip is None or tree is None:
        raise ApiError(405, "Pull Request is not mergeable")
    subject = title or (
        f"Merge pull request #{pull.number} from {pull.head_repository.owner.login}/{pull.head_ref}"
        if method == "merge"
        else f"{pull.issue.title} (#{pull.number})"
    )
    text = f"{subject}\n\n{pull.issue.title if message is None and method == 'merge' else message or ''}".rstrip()
    parents = [tip, pull.head_sha] if method == "merge" else [tip]
    oid = git.write_commit(tree, parents, text, forge.identity(actor.account), forge.committer())
    repository.verified_commits.add(oid)
    mark_merged(forge, actor, pull, oid, announce=False)
    move_ref(forge, actor, repository, f"refs/heads/{pull.base_ref}", oid, tip)
    issues.emit_pull(forge, actor, pull, "closed")
    return oid


def update_branch(forge: Forge, actor: Actor, pull: PullRequest, expected: str | None) -> None:
    """Merges the base branch into the pull request's. Raises: ApiError 422 when it conflicts or the head has moved."""
    repository, git = pull.head_repository, pull.head_repository.git
    tip = pull.repository.git.branch(pull.base_ref)
    if expected is not None and expected != pull.head_sha:
        raise ApiError(422, "expected head sha didn't match current head ref.")
    if repository is not pull.repository or tip is None or git.is_ancestor(tip, pull.head_sha):
        raise ApiError(422, "There are no new commits on the base branch.")
    tree = git.merge_tree(pull.head_sha, tip)
    if tree is None:
        raise ApiError(422, "merge conflict between base and head")
    message = f"Merge branch '{pull.base_ref}' into {pull.head_ref}"
    oid = git.write_commit(tree, [pull.head_sha, tip], message, forge.identity(actor.account), forge.committer())
    repository.verified_commits.add(oid)
    move_ref(forge, actor, repository, f"refs/heads/{pull.head_ref}", oid, pull.head_sha)
