"""Pull requests: opening, following their branch, drafts, closing and merging."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import issues, reviews
from .auth import Actor
from .git_store import ZERO
from .model import AccountType, PullRequest, Repository, Role
from .permissions import can_see, grants, role_of
from .replies import ApiError, invalid

if TYPE_CHECKING:
    from .forge import Forge


def open_pull(
    forge: Forge,
    actor: Actor,
    repository: Repository,
    *,
    title: str,
    body: str | None,
    head: str,
    base: str,
    draft: bool,
    maintainer_can_modify: bool = False,
) -> PullRequest:
    """Raises: ApiError 422 in GitHub's words: unknown branches, nothing between them, or one open already."""
    source, head_ref = _head(forge, actor, repository, head)
    head_sha, base_sha = source.git.branch(head_ref), repository.git.branch(base)
    if base_sha is None:
        raise invalid("PullRequest", "base", "invalid")
    if head_sha is None:
        raise invalid("PullRequest", "head", "invalid")
    _refuse_duplicate(repository, source, head_ref, base)
    if source is not repository:
        repository.git.fetch(source.git.path, f"refs/heads/{head_ref}:refs/practice/incoming")
    if not repository.git.commits_between(base_sha, head_sha):
        message = f"No commits between {base} and {head}"
        raise ApiError(422, "Validation Failed", [{"resource": "PullRequest", "code": "custom", "message": message}])
    issue = issues.new_issue(forge, actor, repository, title, body)
    pull = PullRequest(
        id=forge.next_id("issue"),
        issue=issue,
        head_repository=source,
        head_ref=head_ref,
        head_sha=head_sha,
        base_ref=base,
        base_sha=base_sha,
        draft=draft,
        maintainer_can_modify=maintainer_can_modify and source is not repository,
    )
    issue.pull = forge.nodes[pull.node_id] = pull
    _set_pull_ref(pull, None)
    issues.emit_pull(forge, actor, pull, "opened")
    return pull


def _head(forge: Forge, actor: Actor, repository: Repository, head: str) -> tuple[Repository, str]:
    owner, _, ref = head.rpartition(":")
    if not owner or owner.lower() == repository.owner.login.lower():
        return repository, ref
    for candidate in forge.repositories.values():
        theirs = candidate.fork_of is repository and candidate.owner.login.lower() == owner.lower()
        if theirs and can_see(actor, candidate):
            return candidate, ref
    raise invalid("PullRequest", "head", "invalid")


def _refuse_duplicate(repository: Repository, source: Repository, head_ref: str, base: str) -> None:
    for pull in repository.pulls:
        same = pull.head_repository is source and pull.head_ref == head_ref and pull.base_ref == base
        if same and pull.issue.state == "open":
            message = f"A pull request already exists for {source.owner.login}:{head_ref}."
            raise ApiError(
                422, "Validation Failed", [{"resource": "PullRequest", "code": "custom", "message": message}]
            )


def _set_pull_ref(pull: PullRequest, old: str | None) -> None:
    """refs/pull/N/head, which `git fetch` can ask for."""
    pull.repository.git.update_ref(f"refs/pull/{pull.number}/head", pull.head_sha, old)


def follow_branch(forge: Forge, actor: Actor, repository: Repository, branch: str, new: str, old: str) -> None:
    """What a moved or deleted branch does to the pull requests from it and into it."""
    targets = [repository, *(r.fork_of for r in [repository] if r.fork_of is not None)]
    for pull in [pull for target in targets for pull in target.pulls if pull.issue.state == "open"]:
        if pull.head_repository is repository and pull.head_ref == branch:
            if new == ZERO:
                issues.close_issue(forge, actor, pull.issue)
            else:
                _synchronize(forge, actor, pull, new, old)
        elif pull.repository is repository and pull.base_ref == branch and new != ZERO:
            _merge_if_contained(forge, actor, pull, new)


def _merge_if_contained(forge: Forge, actor: Actor, pull: PullRequest, tip: str) -> None:
    if pull.repository.git.is_ancestor(pull.head_sha, tip):
        mark_merged(forge, actor, pull, tip)


def _synchronize(forge: Forge, actor: Actor, pull: PullRequest, new: str, old: str) -> None:
    if pull.head_repository is not pull.repository:
        pull.repository.git.fetch(pull.head_repository.git.path, f"refs/heads/{pull.head_ref}:refs/practice/incoming")
    before, pull.head_sha = pull.head_sha, new
    pull.base_sha = pull.repository.git.branch(pull.base_ref) or pull.base_sha
    _set_pull_ref(pull, before)
    pull.issue.updated_at = forge.clock()
    reviews.follow_head(forge, pull, before)
    issues.emit_pull(forge, actor, pull, "synchronize", {"before": old, "after": new})


def set_draft(forge: Forge, actor: Actor, pull: PullRequest, draft: bool) -> None:
    if pull.draft == draft:
        return
    pull.draft = draft
    event = "convert_to_draft" if draft else "ready_for_review"
    issues.note(forge, actor, pull.issue, event)
    issues.emit_pull(forge, actor, pull, "converted_to_draft" if draft else "ready_for_review")


def reopen(forge: Forge, actor: Actor, pull: PullRequest) -> None:
    """Raises: ApiError 422 when it was merged or its branch is gone."""
    tip = pull.head_repository.git.branch(pull.head_ref)
    if pull.merged_at is not None or tip is None:
        raise invalid("PullRequest", "state", "custom", "state cannot be changed. The pull request cannot be reopened.")
    if pull.issue.state == "closed" and tip != pull.head_sha:
        before, pull.head_sha = pull.head_sha, tip
        _set_pull_ref(pull, before)
        reviews.follow_head(forge, pull, before)
    issues.reopen_issue(forge, actor, pull.issue)


def may_write_head(actor: Actor, pull: PullRequest) -> bool:
    """Whether this person may push to the pull request's branch."""
    source = pull.head_repository
    if actor.is_installation:
        return grants(actor, source, ("contents:write",))
    if role_of(source, actor.user).includes(Role.WRITE):
        return True
    return pull.maintainer_can_modify and role_of(pull.repository, actor.user).includes(Role.WRITE)


def mark_merged(forge: Forge, actor: Actor, pull: PullRequest, oid: str, announce: bool = True) -> None:
    issue = pull.issue
    pull.merged_at = issue.closed_at = forge.clock()
    pull.merged_by = issue.closed_by = actor.account
    pull.merge_commit_sha = oid
    issue.state = "closed"
    issues.note(forge, actor, issue, "merged")
    issues.note(forge, actor, issue, "closed")
    if announce:
        issues.emit_pull(forge, actor, pull, "closed")


def require_head_push(actor: Actor, repository: Repository, head: str) -> None:
    """People open pull requests only from branches of repositories they may push to. Raises: ApiError 403."""
    if actor.is_installation or actor.user is None or ":" in head:
        return
    if not role_of(repository, actor.user).includes(Role.WRITE) and actor.user.type is AccountType.USER:
        raise ApiError(403, "Must have push access to this repository.")
