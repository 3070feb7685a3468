"""What happens to issues, their comments, labels and reactions, and the events each of these sends."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .auth import Actor
from .model import Issue, IssueComment, Label, PullRequest, Reaction, Repository, TimelineEvent, User
from .replies import ApiError, invalid
from .shapes import conversations, pulls

if TYPE_CHECKING:
    from .forge import Forge

MAX_BODY = 65_536
MAX_TITLE = 256
DEFAULT_LABEL_COLOR = "ededed"


def check_body(resource: str, body: str | None) -> None:
    """Raises: ApiError 422 beyond GitHub's 65,536 characters."""
    if body is not None and len(body) > MAX_BODY:
        raise invalid(resource, "body", "custom", f"body is too long (maximum is {MAX_BODY} characters)")


def check_title(resource: str, title: str) -> None:
    if not title.strip():
        raise invalid(resource, "title", "missing_field")
    if len(title) > MAX_TITLE:
        raise invalid(resource, "title", "custom", f"title is too long (maximum is {MAX_TITLE} characters)")


def new_issue(forge: Forge, actor: Actor, repository: Repository, title: str, body: str | None) -> Issue:
    """An issue (or the conversation of a pull request) without any event yet. Raises: ApiError 422."""
    check_title("Issue", title)
    check_body("Issue", body)
    now = forge.clock()
    number = max(repository.issues, default=0) + 1
    issue = Issue(
        id=forge.next_id("issue"),
        repository=repository,
        number=number,
        user=actor.account,
        app=actor.via_app,
        title=title,
        body=body,
        created_at=now,
        updated_at=now,
    )
    repository.issues[number] = forge.nodes[issue.node_id] = issue
    return issue


def open_issue(
    forge: Forge,
    actor: Actor,
    repository: Repository,
    title: str,
    body: str | None,
    labels: Iterable[str] = (),
    assignees: Iterable[User] = (),
) -> Issue:
    """Raises: ApiError 422."""
    issue = new_issue(forge, actor, repository, title, body)
    issue.assignees = list(assignees)
    emit_issue(forge, actor, issue, "opened")
    add_labels(forge, actor, issue, labels)
    return issue


def emit_issue(forge: Forge, actor: Actor, issue: Issue, action: str, extra: dict[str, Any] | None = None) -> None:
    """`issues` for an issue, `pull_request` for a pull request's conversation."""
    if issue.pull is not None:
        emit_pull(forge, actor, issue.pull, action, extra)
        return

    def shape() -> dict[str, Any]:
        return {"issue": conversations.issue(forge, issue), **(extra or {})}

    forge.emit(issue.repository, "issues", action, actor.account, shape)


def emit_pull(forge: Forge, actor: Actor, pull: PullRequest, action: str, extra: dict[str, Any] | None = None) -> None:
    def shape() -> dict[str, Any]:
        return {"number": pull.number, "pull_request": pulls.pull(forge, pull), **(extra or {})}

    forge.emit(pull.repository, "pull_request", action, actor.account, shape)


def note(forge: Forge, actor: Actor, issue: Issue, event: str, detail: dict[str, Any] | None = None) -> None:
    """Adds to the timeline and touches the issue."""
    issue.updated_at = forge.clock()
    issue.timeline.append(TimelineEvent(forge.next_id("event"), event, actor.account, issue.updated_at, detail or {}))


def edit_issue(forge: Forge, actor: Actor, issue: Issue, title: str | None, body: str | None) -> None:
    """Changes title and body where given and different, as one `edited`. Raises: ApiError 422."""
    changes: dict[str, Any] = {}
    if title is not None and title != issue.title:
        check_title("Issue", title)
        changes["title"] = {"from": issue.title}
    if body is not None and body != issue.body:
        check_body("Issue", body)
        changes["body"] = {"from": issue.body or ""}
    if not changes:
        return
    if "title" in changes:
        note(forge, actor, issue, "renamed", {"rename": {"from": issue.title, "to": title}})
        issue.title = title or issue.title
    if "body" in changes:
        issue.body = body
    issue.updated_at = forge.clock()
    emit_issue(forge, actor, issue, "edited", {"changes": changes})


def close_issue(forge: Forge, actor: Actor, issue: Issue, reason: str | None = None) -> None:
    if issue.state == "closed":
        return
    issue.state, issue.closed_at, issue.closed_by = "closed", forge.clock(), actor.account
    issue.state_reason = None if issue.pull else reason or "completed"
    note(forge, actor, issue, "closed")
    emit_issue(forge, actor, issue, "closed")


def reopen_issue(forge: Forge, actor: Actor, issue: Issue) -> None:
    if issue.state == "open":
        return
    issue.state, issue.closed_at, issue.closed_by = "open", None, None
    issue.state_reason = None if issue.pull else "reopened"
    note(forge, actor, issue, "reopened")
    emit_issue(forge, actor, issue, "reopened")


# Comments


def comment(forge: Forge, actor: Actor, issue: Issue, body: str) -> IssueComment:
    """Raises: ApiError 422."""
    check_comment(body)
    now = forge.clock()
    stored = IssueComment(forge.next_id("comment"), issue, actor.account, actor.via_app, body, now, now)
    issue.comments.append(stored)
    issue.updated_at = now
    forge.nodes[stored.node_id] = stored
    emit_comment(forge, actor, stored, "created")
    return stored


def check_comment(body: str) -> None:
    if not body.strip():
        raise invalid("IssueComment", "body", "custom", "Body cannot be blank")
    check_body("IssueComment", body)


def edit_comment(forge: Forge, actor: Actor, stored: IssueComment, body: str) -> None:
    """Raises: ApiError 422."""
    check_comment(body)
    before, stored.body = stored.body, body
    stored.updated_at = stored.issue.updated_at = forge.clock()
    if before != body:
        stored.editors.append(actor.account)
        emit_comment(forge, actor, stored, "edited", {"changes": {"body": {"from": before}}})


def delete_comment(forge: Forge, actor: Actor, stored: IssueComment) -> None:
    stored.issue.comments.remove(stored)
    del forge.nodes[stored.node_id]
    emit_comment(forge, actor, stored, "deleted")


def emit_comment(
    forge: Forge, actor: Actor, stored: IssueComment, action: str, extra: dict[str, Any] | None = None
) -> None:
    def shape() -> dict[str, Any]:
        return {
            **(extra or {}),
            "issue": conversations.issue(forge, stored.issue),
            "comment": conversations.comment(forge, stored),
        }

    forge.emit(stored.issue.repository, "issue_comment", action, actor.account, shape)


# Labels


def create_label(
    forge: Forge, repository: Repository, name: str, color: str | None = None, description: str | None = None
) -> Label:
    """Raises: ApiError 422 when it exists."""
    if name.lower() in repository.labels:
        raise invalid("Label", "name", "already_exists")
    if not name.strip() or len(name) > 50:
        raise invalid("Label", "name", "invalid")
    label = Label(forge.next_id("label"), name, (color or DEFAULT_LABEL_COLOR).lstrip("#").lower(), description)
    repository.labels[name.lower()] = label
    return label


def add_labels(forge: Forge, actor: Actor, issue: Issue, names: Iterable[str]) -> None:
    """Adds labels; one that the repository does not have yet is created, as the API does."""
    for name in names:
        label = issue.repository.labels.get(name.lower()) or create_label(forge, issue.repository, name)
        if label in issue.labels:
            continue
        issue.labels.append(label)
        note(forge, actor, issue, "labeled", {"label": {"name": label.name, "color": label.color}})
        shape = conversations.label(forge, issue.repository, label)
        emit_issue(forge, actor, issue, "labeled", {"label": shape})


def remove_label(forge: Forge, actor: Actor, issue: Issue, label: Label) -> None:
    issue.labels.remove(label)
    note(forge, actor, issue, "unlabeled", {"label": {"name": label.name, "color": label.color}})
    shape = conversations.label(forge, issue.repository, label)
    emit_issue(forge, actor, issue, "unlabeled", {"label": shape})


def set_labels(forge: Forge, actor: Actor, issue: Issue, names: list[str]) -> None:
    wanted = {name.lower() for name in names}
    for label in [label for label in issue.labels if label.name.lower() not in wanted]:
        remove_label(forge, actor, issue, label)
    add_labels(forge, actor, issue, names)


# Reactions


def react(forge: Forge, actor: Actor, reactions: list[Reaction], content: str) -> tuple[Reaction, bool]:
    """The reaction, and whether it is new: the same person's second one of a kind is the first one again."""
    if content not in conversations.REACTIONS:
        raise invalid("Reaction", "content", "invalid")
    for existing in reactions:
        if existing.user is actor.account and existing.content == content:
            return existing, False
    reaction = Reaction(forge.next_id("reaction"), actor.account, content, forge.clock())
    reactions.append(reaction)
    return reaction, True


def require_open_conversation(issue: Issue) -> None:
    if issue.locked:
        raise ApiError(403, "Unable to create comment because issue is locked.")
