"""Reviews of a pull request."""

from __future__ import annotations

from typing import Any

from .. import reviews
from ..model import Review, Role
from ..replies import ApiError, Reply, not_found
from ..reviews import Draft
from ..routing import Call, Routes
from ..shapes import pulls as shapes

routes = Routes()
READ = ("pull_requests:read",)
WRITE = ("pull_requests:write",)
_REVIEWS = "/repos/{owner}/{repo}/pulls/{number}/reviews"


def visible(call: Call, review: Review) -> bool:
    """A pending review is seen by its author alone."""
    return review.state != "PENDING" or review.user is call.actor.user


def _review(call: Call) -> Review:
    for review in call.pull().reviews:
        if review.id == call.number("id") and visible(call, review):
            return review
    raise not_found()


def draft(given: Any) -> Draft:
    """One entry of `comments`. Raises: ApiError 422."""
    if not isinstance(given, dict):
        raise ApiError(422, "Invalid request.\n\nFor 'properties/comments', every item must be an object.")
    for name in ("path", "body"):
        if not isinstance(given.get(name), str):
            raise ApiError(422, f'Invalid request.\n\n"{name}" wasn\'t supplied.')
    for name in ("line", "start_line", "position"):
        value = given.get(name)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            raise ApiError(422, f"Invalid request.\n\nFor 'properties/{name}', {value!r} is not an integer.")
    return Draft(
        path=given["path"],
        body=given["body"],
        line=given.get("line"),
        side=given.get("side"),
        start_line=given.get("start_line"),
        start_side=given.get("start_side"),
        position=given.get("position"),
        whole_file=given.get("subject_type") == "file",
    )


@routes.get(_REVIEWS, needs=READ)
def list_reviews(call: Call) -> Reply:
    found = [review for review in call.pull().reviews if visible(call, review)]
    return Reply(body=[shapes.review(call.forge, each) for each in call.page(found)])


@routes.post(_REVIEWS, needs=WRITE, role=Role.READ)
def create_review(call: Call) -> Reply:
    given = call.value("comments", list) or []
    review = reviews.submit_review(
        call.forge,
        call.actor,
        call.pull(),
        call.text("event"),
        call.text("body", "") or "",
        [draft(each) for each in given],
        call.text("commit_id"),
    )
    return Reply(body=shapes.review(call.forge, review))


@routes.get(_REVIEWS + "/{id}", needs=READ)
def get_review(call: Call) -> Reply:
    return Reply(body=shapes.review(call.forge, _review(call)))


@routes.put(_REVIEWS + "/{id}", needs=WRITE, role=Role.READ)
def update_review(call: Call) -> Reply:
    review = _review(call)
    if review.user is not call.actor.user:
        raise ApiError(403, "You may only edit your own review.")
    review.body = call.required_text("body")
    return Reply(body=shapes.review(call.forge, review))


@routes.delete(_REVIEWS + "/{id}", needs=WRITE, role=Role.READ)
def delete_pending_review(call: Call) -> Reply:
    review = _review(call)
    if review.state != "PENDING":
        raise reviews.refusal("Can not delete a non-pending pull request review")
    review.pull.reviews.remove(review)
    return Reply(body=shapes.review(call.forge, review))


@routes.post(_REVIEWS + "/{id}/events", needs=WRITE, role=Role.READ)
def submit_review(call: Call) -> Reply:
    review = _review(call)
    reviews.submit_pending(call.forge, call.actor, review, call.required_text("event"), call.text("body"))
    return Reply(body=shapes.review(call.forge, review))


@routes.get(_REVIEWS + "/{id}/comments", needs=READ)
def list_comments_of_review(call: Call) -> Reply:
    comments = call.page(_review(call).comments)
    return Reply(body=[shapes.review_comment(call.forge, each) | {"position": each.position} for each in comments])
