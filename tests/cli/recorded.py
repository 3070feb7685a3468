"""A journal that a real demo left behind, and its parts for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bot.domain.goal import GoalId
from bot.practice.narration import Story

PAGE = "http://127.0.0.1:8080/acme/tiny-speller"
GOAL = GoalId("acme/tiny-speller#1")


def rows() -> list[dict[str, Any]]:
    """As `/api/goals/.../events` answers: a goal met in its second run, after a range test."""
    text = (Path(__file__).parent / "payloads" / "goal-met.json").read_text(encoding="utf-8")
    found: list[dict[str, Any]] = json.loads(text)
    return found


def story(until: str | None = None) -> Story:
    """The story up to the first event of kind `until`, that one included; all of it without."""
    told = Story(GOAL, PAGE)
    for row in rows():
        told.heard([row])
        if row["kind"] == until:
            break
    return told
