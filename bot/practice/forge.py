"""The forge itself: its state, how it is seeded, how things are looked up, and how events reach the Apps."""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from . import checks, forks, hooks_folder, suggestions, workflow_runs
from . import events as outgoing
from .actions_model import Machine, WorkflowRun
from .auth import Actor, AppRegistration, new_key_pair, public_half
from .diffs import FileDiff
from .faults import Faults
from .git_store import EMPTY_TREE, Commit, GitStore, Identity, TreeEntry
from .manifests import Issued
from .model import (
    ACTIONS_SLUG,
    AccountType,
    App,
    CheckRun,
    Installation,
    InstallationToken,
    IssueComment,
    PullRequest,
    Repository,
    ReviewComment,
    Role,
    User,
)
from .rate_limits import RateLimits
from .tokens import Tokens
from .webhooks import Webhooks

T = TypeVar("T")
_LOGIN = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,37}[A-Za-z0-9])?")
_NAME = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,100}")
ACTIONS_PERMISSIONS = {
    "actions": "write", "checks": "write", "contents": "write", "issues": "write", "pull_requests": "write",
    "statuses": "write",
}  # fmt: skip
"""The most that a workflow file may ask for, as far as the forge knows what it opens."""
WEB_FLOW = ("web-flow", "GitHub", "noreply@github.com")


class Forge:
    """State in memory, git data in bare repositories `root/<owner>/<name>.git`.

    `base_url` becomes right once `serve` has bound a port. Every method may be called from any thread: they take
    `lock`, as each request does.
    """

    def __init__(self, root: Path, clock: Callable[[], datetime] | None = None) -> None:
        self.root = Path(root).resolve()
        self.root.mkdir(parents=True, exist_ok=True)
        self.hooks = hooks_folder.create(self.root)
        self.clock = clock or (lambda: datetime.now(UTC))
        self.base_url = "http://127.0.0.1"
        self.lock = threading.RLock()
        self.faults = Faults()
        self.limits = RateLimits()
        self.webhooks = Webhooks(self.clock, self.faults)
        self.tokens = Tokens(self.clock)
        self.users: dict[int, User] = {}
        self.apps: dict[int, App] = {}
        self.installations: dict[int, Installation] = {}
        self.repositories: dict[str, Repository] = {}
        self.nodes: dict[str, Any] = {}
        self.manifest_codes: dict[str, Issued] = {}
        self.machine_secret = secrets.token_bytes(32)
        """Signs the addresses at which archives lie for a minute."""
        self._ids: dict[str, int] = {}
        self._web_flow = self._new_user(WEB_FLOW[0], AccountType.USER, WEB_FLOW[1], WEB_FLOW[2])

    @property
    def api_url(self) -> str:
        return f"{self.base_url}/api/v3"

    def close(self) -> None:
        """Ends the webhook workers and the git processes."""
        self.webhooks.close()
        for repository in self.repositories.values():
            repository.git.close()

    def settle(self, timeout_seconds: float = 10.0) -> bool:
        """Waits until every webhook so far has been answered (or has failed)."""
        return self.webhooks.settle(timeout_seconds)

    def next_id(self, kind: str) -> int:
        """Comments and the like get ids above 32 bits, as on GitHub: a client that stores them too small fails here.

        Apps and installations start at a chance number: clients keep tokens by these ids for as long as their process
        lives, and would take one forge's token to the next.
        """
        if kind not in self._ids:
            large = kind in (
                "comment",
                "review",
                "reaction",
                "issue",
                "check",
                "workflow_run",
                "workflow_job",
                "artifact",
            )
            unlike = kind in ("app", "installation")
            self._ids[kind] = 3_000_000_000 if large else 100_000 + secrets.randbelow(900_000) if unlike else 1_000
        self._ids[kind] += 1
        return self._ids[kind]

    # Seeding

    def add_user(self, login: str, *, name: str | None = None, email: str | None = None) -> User:
        """A person. Raises: ValueError for a login that GitHub would not allow or that is taken."""
        return self._add_account(login, AccountType.USER, name, email)

    def add_organization(self, login: str, *, name: str | None = None) -> User:
        return self._add_account(login, AccountType.ORGANIZATION, name, None)

    def user_token(self, login: str) -> str:
        """A fresh personal access token (ghp_...)."""
        with self.lock:
            return self.tokens.for_user(self.user(login))

    def add_repository(
        self,
        owner: str,
        name: str,
        files: Mapping[str, bytes | str] | None = None,
        *,
        private: bool = False,
        description: str | None = None,
        default_branch: str = "main",
    ) -> Repository:
        """A repository whose first commit holds `files`. An owner nobody has added becomes an organization."""
        with self.lock:
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} is not a repository name: use letters, digits, '-', '_' and '.'")
            account = self.find_user(owner) or self.add_organization(owner)
            repository = self._new_repository(account, name, private, description, default_branch)
            if files:
                contents = {path: data.encode() if isinstance(data, str) else data for path, data in files.items()}
                self._first_commit(repository, contents)
            return repository

    def add_collaborator(self, full_name: str, login: str, permission: str) -> None:
        """`permission` is read, triage, write, maintain or admin; none removes the person."""
        with self.lock:
            repository, user, role = self.repository(full_name), self.user(login), Role(permission)
            if role is Role.NONE:
                repository.collaborators.pop(user.id, None)
            else:
                repository.collaborators[user.id] = role

    def register_app(
        self,
        *,
        slug: str,
        name: str | None = None,
        permissions: Mapping[str, str],
        events: Iterable[str] = (),
        webhook_url: str | None = None,
        webhook_secret: str | None = None,
        owner: str | None = None,
        private_key_pem: str | None = None,
        installable_by_all: bool = False,
    ) -> AppRegistration:
        """Registers a GitHub App. `private_key_pem` saves making a key where many forges are built.

        Raises: ValueError for an event whose permission the App does not ask for.
        """
        with self.lock:
            granted = {"metadata": "read", **permissions}
            subscribed = frozenset(events)
            outgoing.require_permissions(subscribed, granted)
            account = self.user(owner) if owner else self.find_user("app-owner") or self.add_user("app-owner")
            private, public = (private_key_pem, public_half(private_key_pem)) if private_key_pem else new_key_pair()
            app_id = self.next_id("app")
            app = App(
                id=app_id,
                client_id=f"Iv23li{app_id:014d}",
                slug=slug,
                name=name or slug,
                owner=account,
                bot=self._new_user(f"{slug}[bot]", AccountType.BOT, None, None),
                permissions=granted,
                events=subscribed,
                private_key_pem=private,
                public_key_pem=public,
                created_at=self.clock(),
                hook_id=self.next_id("hook"),
                webhook_url=webhook_url,
                webhook_secret=webhook_secret,
                public=installable_by_all,
            )
            self.apps[app.id] = app
            return AppRegistration(app.id, app.client_id, slug, private)

    def workflow_token(
        self, full_name: str, permissions: Mapping[str, str], *, may_open_pulls: bool = True
    ) -> InstallationToken:
        """What GitHub hands a workflow's job as `GITHUB_TOKEN`: an installation token of its own App `github-actions`,
        for that repository and with the permissions that the workflow file names.

        https://docs.github.com/en/actions/concepts/security/github_token
        """
        with self.lock:
            app = self.app_by_slug(ACTIONS_SLUG)
            if app is None:
                registered = self.register_app(
                    slug=ACTIONS_SLUG, name="GitHub Actions", permissions=ACTIONS_PERMISSIONS
                )
                app = self.apps[registered.app_id]
            repository = self.repository(full_name)
            repository.actions_may_open_pulls = may_open_pulls
            installation = self.installations[self.install_app(app.id, full_name)]
            return self.tokens.for_installation(installation, [repository], dict(permissions))

    def set_webhook(self, app_id: int, url: str | None, secret: str | None = None) -> None:
        """Points an App's webhook somewhere else, once the bot's port is known for example."""
        with self.lock:
            app = self.apps[app_id]
            app.webhook_url, app.webhook_secret = url, secret or app.webhook_secret

    def install_app(self, app_id: int, *full_names: str) -> int:
        """Installs an App on repositories of one owner; adds to the installation that the owner already has."""
        with self.lock:
            app, repositories = self.apps[app_id], [self.repository(name) for name in full_names]
            account = repositories[0].owner
            if any(repository.owner is not account for repository in repositories):
                raise ValueError("an installation belongs to one owner: install on each owner's repositories in turn")
            for installation in self.installations.values():
                if installation.app is app and installation.account is account:
                    self._extend_installation(installation, repositories)
                    return installation.id
            now = self.clock()
            installation = Installation(
                self.next_id("installation"), app, account, repositories, dict(app.permissions), now, now
            )
            self.installations[installation.id] = installation
            outgoing.installation(self, installation, "installation", "created", {"repositories": repositories})
            return installation.id

    def suspend_app(self, installation_id: int, *, suspended: bool = True) -> None:
        """An owner suspends the installation, or lifts that."""
        with self.lock:
            self.installations[installation_id].suspended_at = self.clock() if suspended else None

    def uninstall_app(self, installation_id: int) -> None:
        """An owner removes the App; its tokens end with that."""
        with self.lock:
            self.tokens.end(self.installations.pop(installation_id))

    def add_machine(self, full_name: str, name: str, labels: Iterable[str]) -> Machine:
        """A self-hosted machine that takes the repository's jobs with these labels, by `machines.py`."""
        with self.lock:
            return workflow_runs.add_machine(self, self.repository(full_name), name, tuple(labels))

    def lose_machine(self, machine: Machine) -> None:
        """It stops answering: the jobs that it had taken fail."""
        with self.lock:
            workflow_runs.lose(self, machine)

    def runs_of(self, full_name: str) -> list[WorkflowRun]:
        """Of a repository, the oldest first."""
        with self.lock:
            return list(self.repository(full_name).actions.runs)

    def ping_app(self, app_id: int) -> None:
        """What GitHub sends when a webhook is set up."""
        outgoing.ping(self, self.apps[app_id])

    # Looking up

    def find_user(self, login: str) -> User | None:
        return next((user for user in self.users.values() if user.login.lower() == login.lower()), None)

    def user(self, login: str) -> User:
        """Raises: KeyError when nobody has that login."""
        user = self.find_user(login)
        if user is None:
            raise KeyError(f"no account named {login!r}")
        return user

    def user_by_email(self, email: str) -> User | None:
        return next((u for u in self.users.values() if email in (u.email, u.commit_email)), None)

    def repository(self, full_name: str) -> Repository:
        """Raises: KeyError when there is none."""
        return self.repositories[full_name.lower()]

    def app_by_slug(self, slug: str) -> App | None:
        return next((app for app in self.apps.values() if app.slug == slug), None)

    def installation_for(self, app: App, repository: Repository) -> Installation | None:
        return next((i for i in self.installations.values() if i.app is app and repository in i.repositories), None)

    def check_run(self, check_run_id: int) -> CheckRun:
        """Raises: KeyError."""
        return _one(run for r in self.repositories.values() for run in r.check_runs if run.id == check_run_id)

    def review_comment(self, comment_id: int) -> ReviewComment:
        """Raises: KeyError."""
        pulls = (pull for repository in self.repositories.values() for pull in repository.pulls)
        return _one(c for pull in pulls for c in pull.review_comments if c.id == comment_id)

    def issue_comment(self, comment_id: int) -> IssueComment:
        """Raises: KeyError."""
        issues = (issue for repository in self.repositories.values() for issue in repository.issues.values())
        return _one(c for issue in issues for c in issue.comments if c.id == comment_id)

    def association(self, repository: Repository, user: User) -> str:
        if user is repository.owner:
            return "OWNER"
        if user.id in repository.collaborators:
            return "COLLABORATOR"
        merged = any(pull.merged_at and pull.issue.user is user for pull in repository.pulls)
        return "CONTRIBUTOR" if merged else "NONE"

    # Callers

    def authenticate(self, authorization: str | None) -> Actor:
        """The caller that an Authorization header names. Raises: ApiError 401."""
        return self.tokens.caller(authorization, list(self.apps.values()))

    def actor(self, login: str) -> Actor:
        """A person acting on a page, without a token."""
        user = self.user(login)
        return Actor(user=user, rate_key=f"user:{user.id}")

    def new_token(
        self,
        installation: Installation,
        repositories: list[Repository] | None = None,
        permissions: dict[str, str] | None = None,
    ) -> InstallationToken:
        """An installation token without the detour over a JWT. Raises: ApiError 422 for more than was granted."""
        with self.lock:
            return self.tokens.for_installation(installation, repositories, permissions)

    # Git data of pull requests

    def pull_base(self, pull: PullRequest) -> str:
        """Where the pull request's branch left its base: diffs are drawn from here (three dots)."""
        return pull.repository.git.merge_base(pull.base_sha, pull.head_sha) or pull.base_sha

    def pull_files(self, pull: PullRequest) -> tuple[FileDiff, ...]:
        return pull.repository.git.diff(self.pull_base(pull), pull.head_sha)

    def pull_commits(self, pull: PullRequest) -> list[Commit]:
        git = pull.repository.git
        return [git.commit(oid) for oid in git.commits_between(self.pull_base(pull), pull.head_sha)]

    def mergeable(self, pull: PullRequest) -> bool | None:
        if pull.issue.state == "closed":
            return None
        tip = pull.repository.git.branch(pull.base_ref)
        return tip is not None and pull.repository.git.merge_tree(tip, pull.head_sha) is not None

    def commit_diff(self, repository: Repository, commit: Commit) -> tuple[FileDiff, ...]:
        return repository.git.diff(commit.parents[0] if commit.parents else EMPTY_TREE, commit.oid)

    def identity(self, user: User) -> Identity:
        return Identity(user.name or user.login, user.commit_email, self.clock())

    def committer(self) -> Identity:
        """Who GitHub writes as the committer of what it commits itself (and signs)."""
        return Identity(WEB_FLOW[1], WEB_FLOW[2], self.clock())

    # What people do on pages

    def press_button(self, check_run_id: int, identifier: str, login: str) -> None:
        """A person presses a completed check run's button. Raises: KeyError; ApiError 403, 422."""
        with self.lock:
            checks.press_button(self, self.check_run(check_run_id), identifier, self.user(login))

    def rerequest_check(self, check_run_id: int, login: str) -> None:
        """A person presses "Re-run" on a check. Raises: KeyError."""
        with self.lock:
            checks.rerequest(self, self.user(login), self.check_run(check_run_id))

    def suggestion_refusal(self, comment_id: int, login: str) -> str | None:
        """Why "Commit suggestion" is not offered to this person, or None when it is."""
        with self.lock:
            return suggestions.refused_because(self.review_comment(comment_id), self.user(login))

    def accept_suggestion(self, comment_id: int, login: str, title: str | None = None) -> Commit:
        """A person commits the suggestion of a review comment to the pull request's branch.

        Raises: KeyError; ApiError 403, 404, 422 in GitHub's words.
        """
        return self.accept_suggestions([comment_id], login, title)

    def accept_suggestions(self, comment_ids: list[int], login: str, title: str | None = None) -> Commit:
        """Several suggestions of one pull request as one commit. Raises: as `accept_suggestion`."""
        with self.lock:
            found = [self.review_comment(comment_id) for comment_id in comment_ids]
            return suggestions.accept(self, found, self.user(login), title)

    def fork(self, full_name: str, login: str) -> Repository:
        """The person's fork of a repository, made at the first call. Raises: KeyError."""
        with self.lock:
            return forks.create(self, self.user(login), self.repository(full_name))

    def emit(
        self,
        repository: Repository,
        event: str,
        action: str | None,
        sender: User,
        payload: Callable[[], Mapping[str, Any]],
        only: App | None = None,
    ) -> None:
        """Delivers an event to every App that is installed here and subscribed to it, or to `only` one App."""
        outgoing.emit(self, repository, event, action, sender, payload, only)

    # Building blocks

    def new_bare_repository(self, owner: User, name: str, default_branch: str) -> GitStore:
        """Raises: ValueError when the name is taken."""
        if f"{owner.login}/{name}".lower() in self.repositories:
            raise ValueError(f"the repository {owner.login}/{name} exists already")
        return GitStore.create(self.root / owner.login / f"{name}.git", self.hooks, default_branch)

    def _new_repository(
        self, owner: User, name: str, private: bool, description: str | None, default_branch: str
    ) -> Repository:
        git, now = self.new_bare_repository(owner, name, default_branch), self.clock()
        repository = Repository(
            id=self.next_id("repository"),
            owner=owner,
            name=name,
            private=private,
            description=description,
            default_branch=default_branch,
            created_at=now,
            updated_at=now,
            pushed_at=now,
            git=git,
        )
        return self.keep_repository(repository)

    def keep_repository(self, repository: Repository) -> Repository:
        self.repositories[repository.full_name.lower()] = repository
        self.nodes[repository.node_id] = repository
        return repository

    def _first_commit(self, repository: Repository, files: Mapping[str, bytes]) -> None:
        git = repository.git
        oids = git.write_blobs(list(files.values()))
        entries = {path: TreeEntry("100644", "blob", oid) for path, oid in zip(files, oids, strict=True)}
        people = [user for user in self.users.values() if user.type is AccountType.USER and user is not self._web_flow]
        author = repository.owner if repository.owner.type is AccountType.USER or not people else people[0]
        tree = git.edit_tree(EMPTY_TREE, entries)
        oid = git.write_commit(tree, [], "Initial commit", self.identity(author), self.committer())
        git.update_ref(f"refs/heads/{repository.default_branch}", oid, None)
        repository.verified_commits.add(oid)

    def _add_account(self, login: str, kind: AccountType, name: str | None, email: str | None) -> User:
        with self.lock:
            if not _LOGIN.fullmatch(login) or "--" in login:
                raise ValueError(f"{login!r} is not a login: letters, digits and single hyphens, at most 39")
            if self.find_user(login) is not None:
                raise ValueError(f"the login {login!r} is taken")
            return self._new_user(login, kind, name, email)

    def _new_user(self, login: str, kind: AccountType, name: str | None, email: str | None) -> User:
        user = User(self.next_id("user"), login, kind, name, email, self.clock())
        self.users[user.id] = self.nodes[user.node_id] = user
        return user

    def _extend_installation(self, installation: Installation, repositories: list[Repository]) -> None:
        added = [repository for repository in repositories if repository not in installation.repositories]
        installation.repositories += added
        installation.updated_at = self.clock()
        listed: Mapping[str, list[Repository]] = {"repositories_added": added, "repositories_removed": []}
        outgoing.installation(self, installation, "installation_repositories", "added", listed)


def _one(found: Iterable[T]) -> T:
    for each in found:
        return each
    raise KeyError("no such id")
