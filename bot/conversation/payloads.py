"""The wire form of GitHub's webhook payloads: the few fields that are read, each of them allowed to be absent."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class _Model(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=False)


class Account(_Model):
    id: int = 0
    login: str = ""
    type: str = "User"


class Repository(_Model):
    id: int = 0
    name: str = ""
    full_name: str = ""
    owner: Account | None = None
    default_branch: str | None = None


class Named(_Model):
    name: str = ""


class Issue(_Model):
    number: int
    title: str | None = None
    body: str | None = None
    user: Account | None = None
    labels: list[Named | str] | None = None
    pull_request: dict[str, Any] | None = None
    state: str | None = None
    updated_at: Any = None


class Comment(_Model):
    id: int
    body: str | None = None
    user: Account | None = None
    commit_id: str | None = None
    updated_at: Any = None


class HeadRepository(_Model):
    full_name: str = ""


class Branch(_Model):
    ref: str = ""
    sha: str = ""
    repo: HeadRepository | None = None


class PullRequest(_Model):
    number: int
    user: Account | None = None
    merged: bool | None = None
    updated_at: Any = None
    closed_at: Any = None
    head: Branch
    base: Branch | None = None


class CheckRun(_Model):
    id: int
    name: str = ""
    head_sha: str = ""
    external_id: str | None = None


class Action(_Model):
    identifier: str = ""


class From(_Model):
    from_: str | None = None

    model_config = ConfigDict(extra="ignore", alias_generator=lambda name: name.rstrip("_"))


class Changes(_Model):
    title: From | None = None
    body: From | None = None


class Installation(_Model):
    id: int = 0
    account: Account | None = None


class Payload(_Model):
    action: str | None = None
    sender: Account | None = None
    repository: Repository | None = None
    installation: Installation | None = None
    issue: Issue | None = None
    comment: Comment | None = None
    review: Comment | None = None
    label: Named | None = None
    changes: Changes | None = None
    pull_request: PullRequest | None = None
    check_run: CheckRun | None = None
    requested_action: Action | None = None
    ref: str | None = None
    before: str | None = None
    after: str | None = None
    created: bool | None = None
    deleted: bool | None = None
    forced: bool | None = None
    repositories: list[HeadRepository] | None = None
    repositories_added: list[HeadRepository] | None = None
    repositories_removed: list[HeadRepository] | None = None
