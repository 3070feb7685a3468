"""What happens when a person clicks "Commit suggestion" on a review comment."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from . import pulls
from .auth import Actor
from .commits import StaleBranch, commit_files
from .git_store import Commit
from .model import PullRequest, ReviewComment, User
from .replies import ApiError

if TYPE_CHECKING:
    from .forge import Forge

_BLOCK = re.compile(
    r"^ {0,3}(?P<fence>`{3,}|~{3,})[ \t]*suggestion[^\n]*\n(?P<text>.*?)^ {0,3}(?P=fence)[`~]*[ \t]*$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Suggestion:
    """Replace the lines `first` to `last` of `path` with `text` (which may be empty: delete them)."""

    path: str
    first: int
    last: int
    text: str


def blocks(body: str) -> list[str]:
    """The replacement texts of a comment's suggestion blocks, in order."""
    return [match["text"] for match in _BLOCK.finditer(body.replace("\r\n", "\n"))]


def refused_because(comment: ReviewComment, user: User) -> str | None:
    """Why this person cannot commit the comment's suggestion now, in GitHub's words; None when they can."""
    pull = comment.pull
    if comment.applied:
        return "This suggestion has been applied or marked as resolved."
    if pull.issue.state == "closed":
        return "Suggestions cannot be applied while the pull request is closed."
    if comment.review.state == "PENDING":
        return "Suggestions cannot be applied from pending reviews."
    if comment.outdated or comment.subject_type == "file":
        return "Outdated suggestions cannot be applied."
    if comment.side == "LEFT" or comment.start_side == "LEFT":
        return "Suggestions cannot be applied on deleted lines."
    if not pulls.may_write_head(_person(user), pull):
        return "You do not have permission to push to this pull request's branch."
    return None


def accept(forge: Forge, comments: list[ReviewComment], user: User, title: str | None = None) -> Commit:
    """Commits the suggestions of `comments` (each one's first block) as `user`, in one commit on the branch.

    Raises: ApiError 404 for a comment without a suggestion, 422 in GitHub's words when one cannot be applied.
    """
    pull = comments[0].pull
    for comment in comments:
        if comment.pull is not pull:
            raise ApiError(422, "Suggestions must be on the same pull request.")
        if reason := refused_because(comment, user):
            raise ApiError(403 if "permission" in reason else 422, reason)
    changes = _apply(pull, [_suggestion(comment) for comment in comments])
    path = comments[0].path
    subject = title or (f"Update {path}" if len(comments) == 1 else "Apply suggestions from code review")
    try:
        commit = commit_files(
            forge,
            _person(user),
            pull.head_repository,
            pull.head_ref,
            pull.head_sha,
            changes,
            _message(subject, comments, user),
        )
    except StaleBranch:
        raise ApiError(422, "Outdated suggestions cannot be applied.") from None
    for comment in comments:
        comment.applied = comment.resolved = True
    return commit


def _suggestion(comment: ReviewComment) -> Suggestion:
    found = blocks(comment.body)
    if not found or comment.line is None:
        raise ApiError(404, "This comment carries no suggestion.")
    return Suggestion(comment.path, comment.start_line or comment.line, comment.line, found[0])


def _apply(pull: PullRequest, suggestions: list[Suggestion]) -> dict[str, bytes | None]:
    changes: dict[str, bytes | None] = {}
    for path in dict.fromkeys(suggestion.path for suggestion in suggestions):
        before = pull.head_repository.git.file_at(pull.head_sha, path)
        if before is None:
            raise ApiError(422, "Outdated suggestions cannot be applied.")
        mine = sorted((s for s in suggestions if s.path == path), key=lambda s: s.first, reverse=True)
        if any(lower.first <= upper.last for lower, upper in pairwise(mine)):
            raise ApiError(422, "Only one suggestion per line can be applied in a batch.")
        lines = before.decode(errors="surrogateescape").splitlines(keepends=True)
        for suggestion in mine:
            ending = "\r\n" if lines[suggestion.last - 1].endswith("\r\n") else "\n"
            lines[suggestion.first - 1 : suggestion.last] = [suggestion.text.replace("\n", ending)]
        after = "".join(lines).encode(errors="surrogateescape")
        if after == before:
            raise ApiError(422, "This suggestion is invalid because no changes were made to the code.")
        changes[path] = after
    return changes


def _message(subject: str, comments: list[ReviewComment], user: User) -> str:
    authors = dict.fromkeys(comment.user for comment in comments if comment.user is not user)
    trailers = [f"Co-authored-by: {author.name or author.login} <{author.commit_email}>" for author in authors]
    return "\n\n".join([subject, "\n".join(trailers)]) if trailers else subject


def _person(user: User) -> Actor:
    return Actor(user=user, rate_key=f"user:{user.id}")
