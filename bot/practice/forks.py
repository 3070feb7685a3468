"""Forks: a person's own copy of a repository, from which pull requests can come."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from .model import Repository, User

if TYPE_CHECKING:
    from .forge import Forge


def create(forge: Forge, owner: User, source: Repository) -> Repository:
    """The owner's fork, made at the first call. Raises: ValueError when they have another repository of that name."""
    for repository in forge.repositories.values():
        if repository.fork_of is source and repository.owner is owner:
            return repository
    git = forge.new_bare_repository(owner, source.name, source.default_branch)
    git.fetch(source.git.path, "refs/heads/*:refs/heads/*")
    now = forge.clock()
    fork = replace(
        source,
        id=forge.next_id("repository"),
        owner=owner,
        git=git,
        fork_of=source,
        created_at=now,
        updated_at=now,
        pushed_at=now,
        labels={},
        issues={},
        collaborators={},
        suites=[],
        statuses=[],
        verified_commits=set(source.verified_commits),
    )
    return forge.keep_repository(fork)
