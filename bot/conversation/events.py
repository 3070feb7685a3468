"""GitHub's webhook payloads as frozen values: the few fields Postdoc acts on, from whatever a server sends.

Tolerant on purpose: extra fields are ignored, absent ones have defaults, and a payload that makes no sense is answered
with a reason, never with an exception. Not covered: the signature, which is checked over the raw bytes before this.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NamedTuple

from pydantic import ValidationError

from bot.conversation import payloads as wire

# --- what Postdoc sees


@dataclass(frozen=True, slots=True)
class Person:
    id: int
    login: str
    kind: str
    """GitHub's account type: User, Bot, Organization, Mannequin."""

    @property
    def is_bot(self) -> bool:
        """True for accounts whose words command nothing."""
        return self.kind == "Bot" or self.login.endswith("[bot]")


@dataclass(frozen=True, slots=True)
class Where:
    owner: str
    repository: str
    repository_id: int
    installation_id: int
    """0 when the payload names none (a repository webhook instead of an App's)."""
    delivery_id: str
    default_branch: str = "main"

    @property
    def full_name(self) -> str:
        return f"{self.owner}/{self.repository}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Occurred:
    where: Where
    sender: Person


@dataclass(frozen=True, slots=True, kw_only=True)
class IssueText:
    """The issue as it stood when the event happened."""

    number: int
    title: str
    body: str
    author: Person
    labels: tuple[str, ...]
    on_pull_request: bool
    """GitHub sends `issues` events for pull requests' labels on some servers."""
    is_open: bool = True
    updated_at: float = 0.0
    """Unix seconds, whole ones on GitHub; 0 when the payload does not tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _OnIssue(_Occurred):
    issue: IssueText

    @property
    def number(self) -> int:
        return self.issue.number


@dataclass(frozen=True, slots=True, kw_only=True)
class PullText:
    """What tells whose branch a pull request has."""

    number: int
    author: Person
    head_ref: str
    head_sha: str
    from_fork: bool
    updated_at: float = 0.0
    closed_at: float = 0.0
    """Unix seconds; 0 when it is open or the payload does not tell."""

    @classmethod
    def of(cls, found: Any, home: str) -> PullText:
        """A pull request as the API answers it, in the repository `home`."""
        return _pull_text(wire.PullRequest.model_validate(found), home)


@dataclass(frozen=True, slots=True, kw_only=True)
class IssueOpened(_OnIssue):
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class IssueEdited(_OnIssue):
    title_before: str | None
    """None when the title did not change."""
    body_before: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class IssueLabeled(_OnIssue):
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IssueClosed(_OnIssue):
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class IssueReopened(_OnIssue):
    pass


class CommentPlace(StrEnum):
    """Which of GitHub's three kinds of comment; each has its own endpoints."""

    ISSUE = "issue"
    """In the conversation of an issue or a pull request."""
    REVIEW = "review"
    """The body of a submitted review."""
    REVIEW_COMMENT = "review_comment"
    """On a line of the diff."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommentCreated(_Occurred):
    number: int
    comment_id: int
    body: str
    author: Person
    place: CommentPlace
    on_pull_request: bool
    head_sha: str | None
    """Head that the author could see; None in the conversation, whose payload does not tell."""
    updated_at: float = 0.0
    """Unix seconds of the comment's latest edit."""
    issue: IssueText | None = None
    """Told in the conversation."""
    pull: PullText | None = None
    """Told by reviews and their comments."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommentEdited(CommentCreated):
    before: str | None
    """The text before the edit; None when the payload does not tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _OnPullRequest(_Occurred):
    pull: PullText

    @property
    def number(self) -> int:
        return self.pull.number


@dataclass(frozen=True, slots=True, kw_only=True)
class PullRequestOpened(_OnPullRequest):
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class PullRequestClosed(_OnPullRequest):
    merged: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PullRequestReopened(_OnPullRequest):
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class PullRequestSynchronized(_OnPullRequest):
    before: str
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Push(_Occurred):
    ref: str
    before: str
    after: str
    created: bool
    deleted: bool
    forced: bool

    @property
    def branch(self) -> str | None:
        """None for a tag."""
        return self.ref.removeprefix("refs/heads/") if self.ref.startswith("refs/heads/") else None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckRunAction(_Occurred):
    """A person pressed one of a completed check's buttons."""

    check_run_id: int
    name: str
    head_sha: str
    external_id: str
    identifier: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckRunRerequested(_Occurred):
    check_run_id: int
    name: str
    head_sha: str
    external_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallationChanged:
    sender: Person
    installation_id: int
    account: str
    delivery_id: str
    action: str
    """created, deleted, suspend, unsuspend, new_permissions_accepted, added or removed (repositories)."""
    repositories: tuple[str, ...]
    """Full names that the action is about."""


Occurrence = (
    IssueOpened
    | IssueEdited
    | IssueLabeled
    | IssueClosed
    | IssueReopened
    | CommentCreated
    | CommentEdited
    | PullRequestOpened
    | PullRequestClosed
    | PullRequestReopened
    | PullRequestSynchronized
    | Push
    | CheckRunAction
    | CheckRunRerequested
    | InstallationChanged
)


class ParsedEvent(NamedTuple):
    occurrence: Occurrence | None
    reason: str
    """Why there is no occurrence: `ignored: ...` for what is not acted on, `odd: ...` for what makes no sense."""


def acts_on(event_name: str, action: str | None = None) -> bool:
    """Whether a delivery of this event (and, when told, this action) can have an occurrence."""
    wanted = _ACTIONS.get(event_name)
    return wanted is not None and (action is None or not wanted or action in wanted)


def parse_event(event_name: str, payload: Any, delivery_id: str = "") -> ParsedEvent:
    """What a delivery says. Never raises."""
    build = _BUILDERS.get(event_name)
    if build is None:
        return ParsedEvent(None, f"ignored: event {event_name[:60]}")
    if not isinstance(payload, dict):
        return ParsedEvent(None, "odd: the payload is not an object")
    action = payload.get("action")
    if not (action is None or isinstance(action, str)):
        return ParsedEvent(None, "odd: the action is not a word")
    wanted = _ACTIONS[event_name]
    if wanted and action not in wanted:
        return ParsedEvent(None, f"ignored: {event_name} {str(action)[:60]}")
    try:
        occurrence = build(wire.Payload.model_validate(payload), delivery_id)
    except ValidationError as error:
        detail = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(str(part) for part in detail["loc"])[:120]
        return ParsedEvent(None, f"odd: {event_name}: {place}: {detail['msg']}"[:300])
    except _Odd as odd:
        return ParsedEvent(None, f"odd: {event_name}: {odd}")
    return ParsedEvent(occurrence, "")


# --- the wire


_NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}")


class _Odd(Exception):
    """A payload without something its event must have."""


def _text(value: str | None) -> str:
    """Half a surrogate pair can be written in JSON and nowhere else: neither stored, hashed nor sent on."""
    return (value or "").encode("utf-8", "replace").decode()


def _person(account: wire.Account | None) -> Person:
    # A deleted account is null in payloads; GitHub shows it as `ghost`.
    return Person(account.id, account.login, account.type) if account is not None else Person(0, "ghost", "User")


def _basics(payload: wire.Payload, delivery_id: str) -> dict[str, Any]:
    """The keyword arguments that every occurrence in a repository has."""
    repository = payload.repository
    if repository is None or payload.sender is None:
        raise _Odd("no repository or no sender")
    owner, _, name = repository.full_name.partition("/")
    owner = owner or (repository.owner.login if repository.owner is not None else "")
    name = name or repository.name
    if not owner or not name:
        raise _Odd("the repository has no name")
    if not (_NAME.fullmatch(owner) and _NAME.fullmatch(name)):
        raise _Odd("the repository's name is none that GitHub gives")
    installation_id = payload.installation.id if payload.installation is not None else 0
    branch = repository.default_branch or "main"
    where = Where(owner, name, repository.id, installation_id, delivery_id, branch)
    return {"where": where, "sender": _person(payload.sender)}


def _moment(stamp: object) -> float:
    """Unix seconds of GitHub's ISO 8601; 0 for anything else."""
    if not isinstance(stamp, str):
        return 0.0
    try:
        moment = datetime.fromisoformat(stamp)
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return 0.0


def _issue_text(issue: wire.Issue) -> IssueText:
    return IssueText(
        number=issue.number,
        title=_text(issue.title),
        body=_text(issue.body),
        author=_person(issue.user),
        labels=tuple(label if isinstance(label, str) else label.name for label in issue.labels or ()),
        on_pull_request=issue.pull_request is not None,
        is_open=issue.state != "closed",
        updated_at=_moment(issue.updated_at),
    )


def _pull_text(pull_request: wire.PullRequest, home: str) -> PullText:
    """`home` is the repository that sent the event, for payloads that leave the base out."""
    head, base = pull_request.head, pull_request.base
    if base is not None and base.repo is not None:
        home = base.repo.full_name
    return PullText(
        number=pull_request.number,
        author=_person(pull_request.user),
        head_ref=head.ref,
        head_sha=head.sha,
        # A deleted fork is null: not ours either.
        from_fork=head.repo is None or head.repo.full_name.lower() != home.lower(),
        updated_at=_moment(pull_request.updated_at),
        closed_at=_moment(pull_request.closed_at),
    )


def _on_issues(payload: wire.Payload, delivery_id: str) -> Occurrence:
    issue = payload.issue
    if issue is None:
        raise _Odd("no issue")
    fields = _basics(payload, delivery_id) | {"issue": _issue_text(issue)}
    match payload.action:
        case "opened":
            return IssueOpened(**fields)
        case "edited":
            changes = payload.changes or wire.Changes()
            return IssueEdited(
                **fields,
                title_before=changes.title.from_ if changes.title else None,
                body_before=changes.body.from_ if changes.body else None,
            )
        case "labeled":
            return IssueLabeled(**fields, label=payload.label.name if payload.label else "")
        case "closed":
            return IssueClosed(**fields)
        case _:
            return IssueReopened(**fields)


def _on_comment(payload: wire.Payload, delivery_id: str) -> Occurrence:
    issue, comment = payload.issue, payload.comment
    if issue is None or comment is None:
        raise _Odd("no issue or no comment")
    text = _issue_text(issue)
    fields = _basics(payload, delivery_id) | {
        "number": issue.number,
        "place": CommentPlace.ISSUE,
        "on_pull_request": text.on_pull_request,
        "head_sha": None,
        "issue": text,
    }
    return _comment(payload, comment, fields)


def _on_review(payload: wire.Payload, delivery_id: str) -> Occurrence:
    pull_request = payload.pull_request
    said, place = (
        (payload.review, CommentPlace.REVIEW)
        if payload.review is not None
        else (payload.comment, CommentPlace.REVIEW_COMMENT)
    )
    if pull_request is None or said is None:
        raise _Odd("no pull request or no comment")
    basics = _basics(payload, delivery_id)
    fields = basics | {
        "number": pull_request.number,
        "place": place,
        "on_pull_request": True,
        "head_sha": said.commit_id or pull_request.head.sha or None,
        "pull": _pull_text(pull_request, basics["where"].full_name),
    }
    return _comment(payload, said, fields)


def _comment(payload: wire.Payload, comment: wire.Comment, fields: dict[str, Any]) -> Occurrence:
    fields |= {
        "comment_id": comment.id,
        "body": _text(comment.body),
        "author": _person(comment.user),
        "updated_at": _moment(comment.updated_at),
    }
    if payload.action != "edited":
        return CommentCreated(**fields)
    before = payload.changes.body.from_ if payload.changes is not None and payload.changes.body is not None else None
    return CommentEdited(**fields, before=before)


def _on_pull_request(payload: wire.Payload, delivery_id: str) -> Occurrence:
    pull_request = payload.pull_request
    if pull_request is None:
        raise _Odd("no pull request")
    basics = _basics(payload, delivery_id)
    fields = basics | {"pull": _pull_text(pull_request, basics["where"].full_name)}
    match payload.action:
        case "opened":
            return PullRequestOpened(**fields)
        case "closed":
            return PullRequestClosed(**fields, merged=bool(pull_request.merged))
        case "reopened":
            return PullRequestReopened(**fields)
        case _:
            before, after = payload.before or "", payload.after or pull_request.head.sha
            return PullRequestSynchronized(**fields, before=before, after=after)


def _on_push(payload: wire.Payload, delivery_id: str) -> Occurrence:
    if payload.ref is None or payload.after is None:
        raise _Odd("no ref or no commit")
    return Push(
        **_basics(payload, delivery_id),
        ref=payload.ref,
        before=payload.before or "",
        after=payload.after,
        created=bool(payload.created),
        deleted=bool(payload.deleted),
        forced=bool(payload.forced),
    )


def _on_check_run(payload: wire.Payload, delivery_id: str) -> Occurrence:
    check = payload.check_run
    if check is None:
        raise _Odd("no check run")
    fields = _basics(payload, delivery_id) | {
        "check_run_id": check.id,
        "name": check.name,
        "head_sha": check.head_sha,
        "external_id": check.external_id or "",
    }
    if payload.action == "rerequested":
        return CheckRunRerequested(**fields)
    if payload.requested_action is None:
        raise _Odd("no requested action")
    return CheckRunAction(**fields, identifier=payload.requested_action.identifier)


def _on_installation(payload: wire.Payload, delivery_id: str) -> Occurrence:
    installation = payload.installation
    if installation is None or payload.sender is None:
        raise _Odd("no installation or no sender")
    listed = payload.repositories_removed if payload.action == "removed" else payload.repositories_added
    return InstallationChanged(
        sender=_person(payload.sender),
        installation_id=installation.id,
        account=installation.account.login if installation.account is not None else "",
        delivery_id=delivery_id,
        action=payload.action or "",
        repositories=tuple(item.full_name for item in listed or payload.repositories or ()),
    )


_BUILDERS: dict[str, Callable[[wire.Payload, str], Occurrence]] = {
    "issues": _on_issues,
    "issue_comment": _on_comment,
    "pull_request": _on_pull_request,
    "pull_request_review": _on_review,
    "pull_request_review_comment": _on_review,
    "push": _on_push,
    "check_run": _on_check_run,
    "installation": _on_installation,
    "installation_repositories": _on_installation,
}
_ACTIONS: dict[str, frozenset[str]] = {
    "issues": frozenset({"opened", "edited", "labeled", "closed", "reopened"}),
    "issue_comment": frozenset({"created", "edited"}),
    "pull_request": frozenset({"opened", "closed", "reopened", "synchronize"}),
    "pull_request_review": frozenset({"submitted", "edited"}),
    "pull_request_review_comment": frozenset({"created", "edited"}),
    "push": frozenset(),
    "check_run": frozenset({"requested_action", "rerequested"}),
    "installation": frozenset(),
    "installation_repositories": frozenset(),
}
