"""Reviews and their comments on lines: which lines can carry one, and where they are after the next push."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import issues
from .auth import Actor
from .diffs import DiffLine, FileDiff, moved_line
from .model import PullRequest, Review, ReviewComment, Side
from .replies import ApiError, invalid
from .shapes import pulls as shapes

if TYPE_CHECKING:
    from .forge import Forge

STATES = {"COMMENT": "COMMENTED", "APPROVE": "APPROVED", "REQUEST_CHANGES": "CHANGES_REQUESTED"}


@dataclass(frozen=True, slots=True)
class Draft:
    """A review comment as the caller wrote it."""

    path: str
    body: str
    line: int | None = None
    side: str | None = None
    start_line: int | None = None
    start_side: str | None = None
    position: int | None = None
    whole_file: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the diff a comment stands. `line` is None for one on the whole file."""

    file: FileDiff
    side: Side
    line: DiffLine | None = None
    start_side: Side | None = None
    start: DiffLine | None = None


def refusal(message: str) -> ApiError:
    """How the reviews endpoint says no."""
    return ApiError(422, "Unprocessable Entity", [message])


class NotInDiff(ApiError):
    """A comment on something that the diff does not show. Reviews say so in one way, single comments in another."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(422, "Unprocessable Entity", [message])
        self.name = name

    def for_single_comment(self) -> ApiError:
        field = f"pull_request_review_thread.{self.name}"
        return invalid("PullRequestReviewComment", field, "custom", f"{field} must be part of the diff")


def find_place(forge: Forge, pull: PullRequest, draft: Draft) -> Place:
    """Raises: ApiError 422 in GitHub's words when the diff does not show what the comment is about."""
    file = next((file for file in forge.pull_files(pull) if file.path == draft.path), None)
    if file is None:
        raise NotInDiff("path", "Path could not be resolved")
    if draft.whole_file:
        return Place(file, "RIGHT")
    if draft.position is not None and draft.line is None:
        shown = next((line for line in file.lines if line.position == draft.position and line.kind in " +-"), None)
        if shown is None:
            raise NotInDiff("position", "Position could not be resolved")
        return Place(file, "LEFT" if shown.kind == "-" else "RIGHT", shown)
    side = _side(draft.side or "RIGHT", "side")
    last = None if draft.line is None else file.find(side, draft.line)
    if last is None:
        raise NotInDiff("line", "Line could not be resolved")
    if draft.start_line is None or (draft.start_line == draft.line and (draft.start_side or side) == side):
        return Place(file, side, last)
    start_side = _side(draft.start_side or side, "start_side")
    first = file.find(start_side, draft.start_line)
    if first is None:
        raise NotInDiff("start_line", "Start line could not be resolved")
    if first.position >= last.position:
        raise NotInDiff("start_line", "Start line must precede the end line.")
    if not file.same_hunk(first, last):
        raise NotInDiff("start_line", "Start line must be part of the same hunk as the line.")
    return Place(file, side, last, start_side, first)


def _side(word: str, name: str) -> Side:
    if word == "LEFT" or word == "RIGHT":
        return "LEFT" if word == "LEFT" else "RIGHT"
    raise NotInDiff(name, f"{name.replace('_', ' ').capitalize()} could not be resolved")


def submit_review(
    forge: Forge,
    actor: Actor,
    pull: PullRequest,
    event: str | None,
    body: str,
    drafts: list[Draft],
    commit_id: str | None,
) -> Review:
    """Raises: ApiError 422; nothing is stored then."""
    for text in (body, *(draft.body for draft in drafts)):
        if len(text) > issues.MAX_BODY:
            raise refusal(f"Body is too long (maximum is {issues.MAX_BODY} characters)")
    if any(not draft.body.strip() for draft in drafts):
        raise refusal("Body can't be blank")
    _check_event(actor, pull, event, body, drafts)
    places = [(draft, find_place(forge, pull, draft)) for draft in drafts]
    if not _is_part_of(pull, commit_id):
        raise refusal("The commit is not part of the pull request")
    now = forge.clock()
    review = Review(
        id=forge.next_id("review"),
        pull=pull,
        user=actor.account,
        state=STATES[event] if event else "PENDING",  # type: ignore[arg-type]
        body=body,
        commit_id=commit_id or pull.head_sha,
        submitted_at=now if event else None,
    )
    for draft, place in places:
        _add(forge, actor, review, draft.body, place, review.commit_id)
    keep(forge, pull, review)
    if event:
        announce_review(forge, actor, review)
    return review


def submit_pending(forge: Forge, actor: Actor, review: Review, event: str, body: str | None) -> None:
    """Raises: ApiError 422."""
    if review.state != "PENDING":
        raise refusal("Can not submit a review that is not pending")
    _check_event(actor, review.pull, event, body or review.body, [Draft("", "")] if review.comments else [])
    review.state, review.submitted_at = STATES[event], forge.clock()  # type: ignore[assignment]
    review.body = review.body if body is None else body
    announce_review(forge, actor, review)


def keep(forge: Forge, pull: PullRequest, review: Review) -> None:
    pull.reviews.append(review)
    pull.issue.updated_at = forge.clock()
    forge.nodes[review.node_id] = review


def announce_review(forge: Forge, actor: Actor, review: Review) -> None:
    pull = review.pull

    def shape() -> dict[str, Any]:
        state = review.state.lower()
        return {
            "review": shapes.review(forge, review) | {"state": state},
            "pull_request": shapes.pull_simple(forge, pull),
        }

    forge.emit(pull.repository, "pull_request_review", "submitted", actor.account, shape)
    for comment in review.comments:
        emit_comment(forge, actor, comment, "created")


def _check_event(actor: Actor, pull: PullRequest, event: str | None, body: str, drafts: list[Draft]) -> None:
    if event is None:
        return
    if event not in STATES:
        raise ApiError(
            422,
            "Invalid request.\n\n" + f"{event} is not a member of " + str(["APPROVE", "REQUEST_CHANGES", "COMMENT"]),
        )
    if actor.account is pull.issue.user and event != "COMMENT":
        verb = "approve" if event == "APPROVE" else "request changes on"
        raise refusal(f"Can not {verb} your own pull request")
    if event == "REQUEST_CHANGES" and not body.strip():
        raise refusal("Review body can't be blank when requesting changes")
    if event == "COMMENT" and not body.strip() and not drafts:
        raise refusal("Review body can't be blank without comments")


def _is_part_of(pull: PullRequest, commit_id: str | None) -> bool:
    git = pull.repository.git
    return commit_id is None or (git.type_of(commit_id) == "commit" and git.is_ancestor(commit_id, pull.head_sha))


def check_comment_body(body: str) -> None:
    if not body.strip():
        raise invalid("PullRequestReviewComment", "body", "custom", "body can't be blank")
    issues.check_body("PullRequestReviewComment", body)


def add_comment(forge: Forge, actor: Actor, pull: PullRequest, draft: Draft, commit_id: str | None) -> ReviewComment:
    """A single comment: GitHub wraps it in a review of its own. Raises: ApiError 422."""
    check_comment_body(draft.body)
    try:
        place = find_place(forge, pull, draft)
    except NotInDiff as error:
        raise error.for_single_comment() from None
    if not _is_part_of(pull, commit_id):
        field = "pull_request_review_thread.commit_id"
        raise invalid("PullRequestReviewComment", field, "custom", f"{field} is not part of the pull request")
    review = _silent_review(forge, actor, pull, commit_id)
    comment = _add(forge, actor, review, draft.body, place, review.commit_id)
    announce_review(forge, actor, review)
    return comment


def reply(forge: Forge, actor: Actor, parent: ReviewComment, body: str) -> ReviewComment:
    """An answer in the same thread. Raises: ApiError 422."""
    check_comment_body(body)
    top = parent.in_reply_to or parent
    review = _silent_review(forge, actor, parent.pull, top.commit_id)
    comment = ReviewComment(
        id=forge.next_id("comment"),
        pull=top.pull,
        review=review,
        user=actor.account,
        body=body,
        path=top.path,
        subject_type=top.subject_type,
        side=top.side,
        start_side=top.start_side,
        line=top.line,
        start_line=top.start_line,
        position=top.position,
        original_line=top.original_line,
        original_start_line=top.original_start_line,
        original_position=top.original_position,
        commit_id=top.commit_id,
        original_commit_id=top.original_commit_id,
        diff_hunk=top.diff_hunk,
        created_at=forge.clock(),
        updated_at=forge.clock(),
        in_reply_to=top,
    )
    review.comments.append(comment)
    forge.nodes[comment.node_id] = comment
    announce_review(forge, actor, review)
    return comment


def _silent_review(forge: Forge, actor: Actor, pull: PullRequest, commit_id: str | None) -> Review:
    now = forge.clock()
    review = Review(forge.next_id("review"), pull, actor.account, "COMMENTED", "", commit_id or pull.head_sha, now)
    keep(forge, pull, review)
    return review


def _add(forge: Forge, actor: Actor, review: Review, body: str, place: Place, commit_id: str) -> ReviewComment:
    line, start = _number(place.line, place.side), _number(place.start, place.start_side)
    position = place.line.position if place.line else 1
    comment = ReviewComment(
        id=forge.next_id("comment"),
        pull=review.pull,
        review=review,
        user=actor.account,
        body=body,
        path=place.file.path,
        subject_type="line" if place.line else "file",
        side=place.side,
        start_side=place.start_side,
        line=line,
        start_line=start,
        position=position,
        original_line=line,
        original_start_line=start,
        original_position=position,
        commit_id=commit_id,
        original_commit_id=commit_id,
        diff_hunk=place.file.hunk_until(place.line) if place.line else "",
        created_at=forge.clock(),
        updated_at=forge.clock(),
    )
    review.comments.append(comment)
    forge.nodes[comment.node_id] = comment
    return comment


def _number(shown: DiffLine | None, side: Side | None) -> int | None:
    return None if shown is None else shown.new if side == "RIGHT" else shown.old


def edit_comment(forge: Forge, actor: Actor, comment: ReviewComment, body: str) -> None:
    """Raises: ApiError 422."""
    check_comment_body(body)
    before, comment.body, comment.updated_at = comment.body, body, forge.clock()
    if before != body:
        comment.editors.append(actor.account)
        emit_comment(forge, actor, comment, "edited", {"changes": {"body": {"from": before}}})


def delete_comment(forge: Forge, actor: Actor, comment: ReviewComment) -> None:
    comment.review.comments.remove(comment)
    del forge.nodes[comment.node_id]
    emit_comment(forge, actor, comment, "deleted")


def emit_comment(
    forge: Forge, actor: Actor, comment: ReviewComment, action: str, extra: dict[str, Any] | None = None
) -> None:
    def shape() -> dict[str, Any]:
        return {
            **(extra or {}),
            "comment": shapes.review_comment_with_nulls(forge, comment),
            "pull_request": shapes.pull_simple(forge, comment.pull),
        }

    forge.emit(comment.pull.repository, "pull_request_review_comment", action, actor.account, shape)


def follow_head(forge: Forge, pull: PullRequest, before: str) -> None:
    """After a push: comments move with their lines, those whose lines changed become outdated."""
    shown = {file.path: file for file in forge.pull_files(pull)}
    changed = {file.previous_path or file.path: file for file in pull.repository.git.diff(before, pull.head_sha)}
    for comment in pull.review_comments:
        if comment.subject_type == "line" and comment.line is not None:
            _move(comment, shown.get(comment.path), changed.get(comment.path), pull.head_sha)


def _move(comment: ReviewComment, file: FileDiff | None, change: FileDiff | None, head: str) -> None:
    assert comment.line is not None
    first = comment.line if comment.start_line is None or comment.start_side != comment.side else comment.start_line
    places: list[int | None] = list(range(first, comment.line + 1))
    if comment.side == "RIGHT":
        places = [moved_line(change, line) for line in range(first, comment.line + 1)]
    start, last = places[0], places[-1]
    intact = start is not None and last is not None and last - start == comment.line - first and None not in places
    found = file.find(comment.side, last) if file is not None and last is not None and intact else None
    if found is None:
        comment.line = comment.start_line = comment.position = None
        return
    if comment.start_line is not None and comment.start_side == comment.side:
        comment.start_line = start
    comment.line, comment.position, comment.commit_id = last, found.position, head
