"""The server's policy as an upper bound: whoever runs the machines decides how far a repository's policy may go.

Only what the server's file states bounds anything; a setting that it leaves out leaves the repository free.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from bot.conversation.permissions import permission_reaches
from bot.conversation.policy.reading import read_policy
from bot.conversation.policy.value import NO_LICENCE, Cut, Policy
from bot.errors import SettingsError


def bounded(policy: Policy, server: Policy) -> Policy:
    """`policy`, no looser than `server` in anything that `server` states."""
    values, bound = policy.as_dict(), server.as_dict()
    cuts = []
    for path, rule in RULES.items():
        if server.stated is not None and path not in server.stated:
            continue
        *above, name = path.split(".")
        own = _below(values, above)
        asked, allowed = own[name], rule(own[name], _below(bound, above)[name])
        if allowed != asked:
            own[name] = allowed
            cuts.append(Cut(path, asked, allowed))
    return replace(Policy.from_dict(values), stated=policy.stated, cuts=(*policy.cuts, *cuts)) if cuts else policy


def load_server_policy(path: Path | None) -> Policy | None:
    """The policy in the file that POSTDOC_POLICY_FILE names; None when it names none.

    Raises: SettingsError, one line with the file's first mistake.
    """
    if path is None:
        return None
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"POSTDOC_POLICY_FILE: {path}: {error.strerror}.") from error
    policy, problems = read_policy(data)
    if policy is None:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise SettingsError(f"POSTDOC_POLICY_FILE: {path}:{problems[0]}{more}")
    return policy


def _below(values: dict[str, Any], above: list[str]) -> dict[str, Any]:
    for name in above:
        values = values[name]
    return values


def _stricter(own: str, server: str) -> str:
    return own if permission_reaches(own, server) else server


def _both(own: list[str], server: list[str]) -> list[str]:
    return [name for name in own if name in server]


def _licences(own: list[str], server: list[str]) -> list[str]:
    if not own or not server:
        return own or server
    known = {name.lower() for name in server}
    return [name for name in own if name.lower() in known] or [NO_LICENCE]


def _addresses(own: list[str], server: list[str]) -> list[str]:
    """Prefixes that both allow: of two of which one begins with the other, the longer. A server that names none
    leaves the repository free."""
    if not server:
        return own
    found = []
    for mine in own:
        found += [mine] if any(mine.startswith(theirs) for theirs in server) else []
        found += [theirs for theirs in server if theirs.startswith(mine) and theirs != mine]
    return list(dict.fromkeys(found))


RULES: Mapping[str, Callable[[Any, Any], Any]] = {
    "budget.usd": min,
    "budget.gpu_hours": min,
    "budget.runs": min,
    "budget.wall_hours": min,
    "month.usd": min,
    "month.gpu_hours": min,
    "consent.self_approve_usd": min,
    "consent.auto_approve.runs": min,
    "consent.auto_approve.gpu_hours": min,
    "consent.auto_approve.usd": min,
    "consent.auto_approve.recipe_keys": _both,
    "consent.auto_approve.scripts": _both,
    "permissions.read": _stricter,
    "permissions.plan": _stricter,
    "permissions.train": _stricter,
    "permissions.admin": _stricter,
    "licences.allowed": _licences,
    "data.urls": _addresses,
    "publish.namespace": lambda own, server: server or own,
    "publish.private": lambda own, server: own or server,
    "publish.on_merge": lambda own, server: own and server,
    "commits.skip_ci": lambda own, server: own or server,
    "monitor": lambda own, server: max(own, server, key=("off", "advise", "abort").index),
    "contamination": lambda own, server: max(own, server, key=("drop", "block").index),
    "brain": lambda own, server: min(own, server, key=("off", "ask", "propose").index),
    "usd_per_hour": max,
}
"""Setting -> (the repository's, the server's) -> what holds. The goal label is the repository's own affair."""
