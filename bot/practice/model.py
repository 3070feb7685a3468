"""What the practice forge remembers: accounts, Apps, repositories, conversations, pull requests and checks."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from .actions_model import ActionsState
from .git_store import GitStore
from .node_ids import node_id

Side = Literal["LEFT", "RIGHT"]
ACTIONS_SLUG = "github-actions"
"""GitHub's own App, as which a workflow's `GITHUB_TOKEN` speaks."""


class AccountType(StrEnum):
    USER = "User"
    BOT = "Bot"
    ORGANIZATION = "Organization"


class Role(StrEnum):
    """What a person may do in a repository, weakest first."""

    NONE = "none"
    READ = "read"
    TRIAGE = "triage"
    WRITE = "write"
    MAINTAIN = "maintain"
    ADMIN = "admin"

    @property
    def rank(self) -> int:
        return list(Role).index(self)

    def includes(self, other: Role) -> bool:
        return self.rank >= other.rank


@dataclass(slots=True, eq=False)
class User:
    id: int
    login: str
    type: AccountType
    name: str | None
    email: str | None
    """Public address; commits use the noreply address when it is None."""
    created_at: datetime

    @property
    def node_id(self) -> str:
        prefix = {AccountType.USER: "U", AccountType.BOT: "BOT", AccountType.ORGANIZATION: "O"}[self.type]
        return node_id(prefix, self.id)

    @property
    def commit_email(self) -> str:
        return self.email or f"{self.id}+{self.login}@users.noreply.github.com"


@dataclass(slots=True, eq=False)
class App:
    id: int
    client_id: str
    slug: str
    name: str
    owner: User
    bot: User
    permissions: dict[str, str]
    events: frozenset[str]
    private_key_pem: str
    public_key_pem: str
    created_at: datetime
    hook_id: int
    webhook_url: str | None
    webhook_secret: str | None
    public: bool = False
    """True: anybody may install it."""

    @property
    def node_id(self) -> str:
        return node_id("A", self.id)


@dataclass(slots=True, eq=False)
class Installation:
    id: int
    app: App
    account: User
    repositories: list[Repository]
    permissions: dict[str, str]
    created_at: datetime
    updated_at: datetime
    suspended_at: datetime | None = None


@dataclass(slots=True, eq=False)
class InstallationToken:
    token: str
    installation: Installation
    repositories: list[Repository]
    permissions: dict[str, str]
    narrowed: bool
    expires_at: datetime


@dataclass(slots=True, eq=False)
class Label:
    id: int
    name: str
    color: str
    description: str | None
    default: bool = False

    @property
    def node_id(self) -> str:
        return node_id("LA", self.id)


@dataclass(slots=True, eq=False)
class Reaction:
    id: int
    user: User
    content: str
    created_at: datetime

    @property
    def node_id(self) -> str:
        return node_id("REA", self.id)


@dataclass(slots=True, eq=False)
class TimelineEvent:
    """labeled, closed, renamed, ready_for_review ...: what GitHub lists under an issue's events."""

    id: int
    event: str
    actor: User
    created_at: datetime
    detail: dict[str, Any]

    @property
    def node_id(self) -> str:
        return node_id("EV", self.id)


@dataclass(slots=True, eq=False)
class IssueComment:
    id: int
    issue: Issue
    user: User
    app: App | None
    body: str
    created_at: datetime
    updated_at: datetime
    reactions: list[Reaction] = field(default_factory=list)
    minimized_reason: str | None = None
    editors: list[User] = field(default_factory=list)
    """Who changed the text, in order."""

    @property
    def node_id(self) -> str:
        return node_id("IC", self.id)


@dataclass(slots=True, eq=False)
class Issue:
    """An issue, or the conversation half of a pull request (`pull` is then set)."""

    id: int
    repository: Repository
    number: int
    user: User
    app: App | None
    title: str
    body: str | None
    created_at: datetime
    updated_at: datetime
    state: Literal["open", "closed"] = "open"
    state_reason: str | None = None
    closed_at: datetime | None = None
    closed_by: User | None = None
    locked: bool = False
    labels: list[Label] = field(default_factory=list)
    assignees: list[User] = field(default_factory=list)
    comments: list[IssueComment] = field(default_factory=list)
    reactions: list[Reaction] = field(default_factory=list)
    timeline: list[TimelineEvent] = field(default_factory=list)
    pull: PullRequest | None = None

    @property
    def node_id(self) -> str:
        return node_id("PR" if self.pull else "I", self.pull.id if self.pull else self.id)


@dataclass(slots=True, eq=False)
class ReviewComment:
    """A comment on a line or a whole file of a pull request's diff.

    `line`, `start_line` and `position` are None once a later push has changed the lines they name (outdated).
    """

    id: int
    pull: PullRequest
    review: Review
    user: User
    body: str
    path: str
    subject_type: Literal["line", "file"]
    side: Side
    start_side: Side | None
    line: int | None
    start_line: int | None
    position: int | None
    original_line: int | None
    original_start_line: int | None
    original_position: int | None
    commit_id: str
    original_commit_id: str
    diff_hunk: str
    created_at: datetime
    updated_at: datetime
    in_reply_to: ReviewComment | None = None
    reactions: list[Reaction] = field(default_factory=list)
    minimized_reason: str | None = None
    editors: list[User] = field(default_factory=list)
    resolved: bool = False
    """The thread that starts with this comment has been marked as resolved."""
    applied: bool = False
    """A person has turned this comment's suggestion into a commit."""

    @property
    def node_id(self) -> str:
        return node_id("PRRC", self.id)

    @property
    def outdated(self) -> bool:
        return self.subject_type == "line" and self.line is None


@dataclass(slots=True, eq=False)
class Review:
    id: int
    pull: PullRequest
    user: User
    state: Literal["COMMENTED", "APPROVED", "CHANGES_REQUESTED", "DISMISSED", "PENDING"]
    body: str
    commit_id: str
    submitted_at: datetime | None
    comments: list[ReviewComment] = field(default_factory=list)
    minimized_reason: str | None = None

    @property
    def node_id(self) -> str:
        return node_id("PRR", self.id)


@dataclass(slots=True, eq=False)
class PullRequest:
    id: int
    issue: Issue
    head_repository: Repository
    head_ref: str
    head_sha: str
    base_ref: str
    base_sha: str
    draft: bool
    maintainer_can_modify: bool = False
    merged_at: datetime | None = None
    merged_by: User | None = None
    merge_commit_sha: str | None = None
    reviews: list[Review] = field(default_factory=list)
    requested_reviewers: list[User] = field(default_factory=list)

    @property
    def node_id(self) -> str:
        return node_id("PR", self.id)

    @property
    def repository(self) -> Repository:
        return self.issue.repository

    @property
    def number(self) -> int:
        return self.issue.number

    @property
    def review_comments(self) -> list[ReviewComment]:
        return sorted((c for review in self.reviews for c in review.comments), key=lambda comment: comment.id)


@dataclass(slots=True, eq=False)
class Annotation:
    path: str
    start_line: int
    end_line: int
    start_column: int | None
    end_column: int | None
    annotation_level: str
    title: str | None
    message: str
    raw_details: str | None


@dataclass(slots=True, eq=False)
class CheckSuite:
    id: int
    repository: Repository
    app: App
    head_sha: str
    head_branch: str | None
    created_at: datetime
    updated_at: datetime
    runs: list[CheckRun] = field(default_factory=list)

    @property
    def node_id(self) -> str:
        return node_id("CS", self.id)


@dataclass(slots=True, eq=False)
class CheckRun:
    id: int
    suite: CheckSuite
    name: str
    status: str
    started_at: datetime | None
    conclusion: str | None = None
    completed_at: datetime | None = None
    external_id: str = ""
    details_url: str | None = None
    title: str | None = None
    summary: str | None = None
    text: str | None = None
    annotations: list[Annotation] = field(default_factory=list)
    actions: list[dict[str, str]] = field(default_factory=list)
    """Buttons: label, description, identifier. Shown on the page once the run has completed."""

    @property
    def node_id(self) -> str:
        return node_id("CR", self.id)


@dataclass(slots=True, eq=False)
class CommitStatus:
    id: int
    sha: str
    state: str
    context: str
    description: str | None
    target_url: str | None
    creator: User
    created_at: datetime

    @property
    def node_id(self) -> str:
        return node_id("SC", self.id)


@dataclass(slots=True, eq=False)
class Repository:
    id: int
    owner: User
    name: str
    private: bool
    description: str | None
    default_branch: str
    created_at: datetime
    updated_at: datetime
    pushed_at: datetime
    git: GitStore
    fork_of: Repository | None = None
    archived: bool = False
    actions_may_open_pulls: bool = True
    """The setting "Allow GitHub Actions to create and approve pull requests"."""
    labels: dict[str, Label] = field(default_factory=dict)
    """Keyed by the name in lower case: GitHub's label names are case-insensitive."""
    issues: dict[int, Issue] = field(default_factory=dict)
    collaborators: dict[int, Role] = field(default_factory=dict)
    """By user id; the owner is not listed and is always an admin."""
    suites: list[CheckSuite] = field(default_factory=list)
    statuses: list[CommitStatus] = field(default_factory=list)
    verified_commits: set[str] = field(default_factory=set)
    """Commits that the forge made itself (API and web edits): GitHub signs those."""
    actions: ActionsState = field(default_factory=ActionsState)

    @property
    def full_name(self) -> str:
        return f"{self.owner.login}/{self.name}"

    @property
    def node_id(self) -> str:
        return node_id("R", self.id)

    @property
    def pulls(self) -> list[PullRequest]:
        return [issue.pull for issue in self.issues.values() if issue.pull is not None]

    @property
    def check_runs(self) -> list[CheckRun]:
        return [run for suite in self.suites for run in suite.runs]


@dataclass(slots=True, eq=False)
class Delivery:
    """One attempt to hand an event to an App's webhook."""

    id: int
    app: App
    guid: str
    event: str
    action: str | None
    installation_id: int | None
    repository_id: int | None
    body: bytes
    headers: dict[str, str]
    redelivery: bool
    delivered_at: datetime
    duration: float = 0.0
    status: str = "pending"
    status_code: int = 0
    response_headers: dict[str, str] = field(default_factory=dict)
    response_body: str = ""
    done: bool = False
