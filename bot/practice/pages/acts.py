"""What the buttons do: each act is one call of the API as the person who pressed, then back to the page."""

from __future__ import annotations

from starlette.responses import Response

from bot.practice.pages.access import safe_return
from bot.practice.pages.api import ApiError
from bot.practice.pages.markdown import Setting, render, toggled
from bot.practice.pages.site import Redirect, View, Visit

READY = (
    "mutation($id: ID!) { markPullRequestReadyForReview(input: {pullRequestId: $id}) { pullRequest { id isDraft } } }"
)
DRAFT = "mutation($id: ID!) { convertPullRequestToDraft(input: {pullRequestId: $id}) { pullRequest { id isDraft } } }"


async def sign_in(visit: Visit) -> Response | View:
    """Signs in as one of the forge's people (there are no passwords on a practice forge)."""
    login = visit.form["login"]
    if login and login not in visit.site.people():
        raise ApiError(422, "There is nobody of that name on this forge.")
    visitor = visit.site.sessions.signed_in(login)
    reply = Response(status_code=303, headers={"Location": safe_return(visit.form["back"])})
    visit.site.sessions.remember(visit.request, reply, visitor)
    return reply


async def preview(visit: Visit) -> Response:
    """A text as it will look, for the Preview button."""
    html = render(visit.form.markdown("body"), Setting(visit.form["repository"] if visit.form["repository"] else ""))
    return Response(html, media_type="text/html")


async def comment(visit: Visit) -> Redirect:
    """Comments, and closes or reopens where that button was pressed."""
    visit.person()
    at = f"/repos/{visit.repository}/issues/{visit.number}"
    text = visit.form.markdown("body")
    anchor = ""
    if text.strip():
        made = (await visit.api.send("POST", f"{at}/comments", {"body": text})).json()
        anchor = f"#issuecomment-{made['id']}"
    elif not visit.form["and"]:
        raise ApiError(422, "Write something first: an empty comment says nothing.")
    match visit.form["and"]:
        case "close":
            await visit.api.send("PATCH", at, {"state": "closed", "state_reason": "completed"})
        case "close-unplanned":
            await visit.api.send("PATCH", at, {"state": "closed", "state_reason": "not_planned"})
        case "reopen":
            await visit.api.send("PATCH", at, {"state": "open"})
    return Redirect(
        f"/{visit.repository}/issues/{visit.number}{anchor}" if not _is_pull(visit) else _pull(visit) + anchor
    )


def _is_pull(visit: Visit) -> bool:
    return visit.form["kind"] == "pull"


def _pull(visit: Visit) -> str:
    return f"/{visit.repository}/pull/{visit.number}"


def _back(visit: Visit) -> Redirect:
    return Redirect(safe_return(visit.form["back"]))


def _place(visit: Visit) -> str:
    """The API's address of a comment: kind and id as the page named them."""
    match visit.word("kind"):
        case "issue":
            return f"/repos/{visit.repository}/issues/{visit.integer('id')}"
        case "comment":
            return f"/repos/{visit.repository}/issues/comments/{visit.integer('id')}"
        case "inline":
            return f"/repos/{visit.repository}/pulls/comments/{visit.integer('id')}"
        case _:
            raise ApiError(404, "Not Found")


async def edit(visit: Visit) -> Redirect:
    """Changes the text of a description or comment."""
    visit.person()
    if visit.word("kind") == "review":
        at = f"/repos/{visit.repository}/pulls/{visit.form.integer('number')}/reviews/{visit.integer('id')}"
        await visit.api.send("PUT", at, {"body": visit.form.markdown("body")})
    else:
        await visit.api.send("PATCH", _place(visit), {"body": visit.form.markdown("body")})
    return _back(visit)


async def tick(visit: Visit) -> Redirect:
    """Ticks or unticks a task in a text, which reaches the bot as an edited comment."""
    visit.person()
    at = _place(visit)
    text = (await visit.api.get(at)).get("body") or ""
    changed = toggled(text, visit.form["task"])
    if changed is None:
        raise ApiError(409, "That box has changed in the meantime. Look at the page again.")
    await visit.api.send("PATCH", at, {"body": changed})
    return _back(visit)


async def delete(visit: Visit) -> Redirect:
    """Deletes a comment."""
    visit.person()
    if visit.word("kind") == "issue":
        raise ApiError(404, "Not Found")
    await visit.api.send("DELETE", _place(visit))
    return _back(visit)


async def react(visit: Visit) -> Redirect:
    """Adds a reaction, or takes one's own away when it is pressed again."""
    visit.person()
    at = f"{_place(visit)}/reactions"
    reply = await visit.api.send("POST", at, {"content": visit.form["content"]})
    if reply.status_code == 200:  # it was there already
        await visit.api.send("DELETE", f"{at}/{reply.json()['id']}")
    return _back(visit)


async def retitle(visit: Visit) -> Redirect:
    """Changes the title."""
    visit.person()
    await visit.api.send(
        "PATCH", f"/repos/{visit.repository}/issues/{visit.number}", {"title": visit.form["title"].strip()}
    )
    return _back(visit)


async def set_labels(visit: Visit) -> Redirect:
    """Sets the labels to exactly the ticked ones."""
    visit.person()
    at = f"/repos/{visit.repository}/issues/{visit.number}/labels"
    await visit.api.send("PUT", at, {"labels": visit.form.every("label")})
    return _back(visit)


async def review_comment(visit: Visit) -> Redirect:
    """Comments on a line of the diff, or answers in a thread."""
    visit.person()
    at = f"/repos/{visit.repository}/pulls/{visit.number}/comments"
    text = visit.form.markdown("body")
    if not text.strip():
        raise ApiError(422, "Write something first: an empty comment says nothing.")
    if visit.form["in_reply_to"]:
        made = await visit.api.send("POST", f"{at}/{visit.form.integer('in_reply_to')}/replies", {"body": text})
    else:
        head = (await visit.api.get(f"/repos/{visit.repository}/pulls/{visit.number}"))["head"]["sha"]
        line, side = visit.form.integer("line"), visit.form["side"]
        place: dict[str, str | int] = {"path": visit.form["path"], "line": line, "side": side}
        if visit.form["start_line"] and visit.form.integer("start_line") < line:
            place |= {"start_line": visit.form.integer("start_line"), "start_side": side}
        made = await visit.api.send("POST", at, {"body": text, "commit_id": head, **place})
    return Redirect(f"{safe_return(visit.form['back'])}#discussion_r{made.json()['id']}")


async def review(visit: Visit) -> Redirect:
    """Submits a review without inline comments: comment, approve or request changes."""
    visit.person()
    payload = {"event": visit.form["event"], "body": visit.form.markdown("body")}
    await visit.api.send("POST", f"/repos/{visit.repository}/pulls/{visit.number}/reviews", payload)
    return Redirect(_pull(visit))


async def accept_suggestion(visit: Visit) -> Redirect:
    """Commits a suggestion, as the person who pressed."""
    login = visit.person()
    comment_id = visit.integer("id")
    # The API decides who may see it; the forge decides who may commit.
    await visit.api.get(f"/repos/{visit.repository}/pulls/comments/{comment_id}")
    visit.site.forge.accept_suggestion(comment_id, login)
    return _back(visit)


async def press_button(visit: Visit) -> Redirect:
    """Presses a button of a completed check run."""
    login = visit.person()
    number = visit.integer("id")
    await visit.api.get(f"/repos/{visit.repository}/check-runs/{number}")
    visit.site.forge.press_button(number, visit.form["identifier"], login)
    return _back(visit)


async def rerun(visit: Visit) -> Redirect:
    """Asks the App to run a check again."""
    visit.person()
    await visit.api.send("POST", f"/repos/{visit.repository}/check-runs/{visit.integer('id')}/rerequest")
    return _back(visit)


async def merge(visit: Visit) -> Redirect:
    """Merges the pull request at the head that the page showed."""
    visit.person()
    payload = {"sha": visit.form["sha"], "merge_method": visit.form["method"] or "merge"}
    await visit.api.send("PUT", f"/repos/{visit.repository}/pulls/{visit.number}/merge", payload)
    return Redirect(_pull(visit))


async def set_draft(visit: Visit) -> Redirect:
    """Marks a draft as ready, or a pull request as a draft: GitHub has these in GraphQL only."""
    visit.person()
    pull = await visit.api.get(f"/repos/{visit.repository}/pulls/{visit.number}")
    await visit.api.graphql(DRAFT if visit.form["draft"] else READY, id=pull["node_id"])
    return Redirect(_pull(visit))
