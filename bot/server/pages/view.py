"""What a page's handler gives back: a template and what it shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bot.errors import UserError


class NotHere(UserError):
    """There is no such page; the text says what to look for instead."""


@dataclass(frozen=True, slots=True)
class View:
    template: str
    values: Mapping[str, Any]
    place: str = ""
    """The tab that is marked as the present one."""
    status: int = 200
