"""Who may ask for what: Postdoc's four tiers and the repository permission each needs."""

from __future__ import annotations

from enum import StrEnum


class Tier(StrEnum):
    """What a command may cause, weakest first."""

    READ = "read"
    """Be told something."""
    PLAN = "plan"
    """Make or halt work that costs nothing."""
    TRAIN = "train"
    """Change what is trained, and spend."""
    ADMIN = "admin"
    """Raise what may be spent, publish."""

    @property
    def rank(self) -> int:
        return list(Tier).index(self)


GITHUB_PERMISSIONS = ("none", "read", "triage", "write", "maintain", "admin")
"""GitHub's repository roles, weakest first."""
# The REST field `permission` of old servers, and of some stand-ins, says pull and push.
_SYNONYMS = {"pull": "read", "push": "write"}


def permission_reaches(granted: str, needed: str) -> bool:
    """True when the role `granted` includes `needed`. A role that is not known (a custom one) reaches nothing:
    ask for the field `permission` as well, which GitHub fills with the role that a custom role is built on."""
    granted = _SYNONYMS.get(granted, granted)
    if granted not in GITHUB_PERMISSIONS or needed not in GITHUB_PERMISSIONS:
        return False
    return GITHUB_PERMISSIONS.index(granted) >= GITHUB_PERMISSIONS.index(needed)
