"""What research found, in the plan: the recipe line by line with its sources, data sets, and what papers measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bot.conversation.messages.tables import folded, table
from bot.domain.inert import code, inert_line

_MOST_LINES = 40


def research_sections(found: Mapping[str, Any]) -> list[str]:
    """Paragraphs for the plan from `bot.research.planner.Findings` as plain data; none where nothing was asked."""
    if not found:
        return []
    parts = [_settings(found.get("settings", ())), _offers(found.get("offers", ())), _gains(found.get("gains", ()))]
    if stops := found.get("stops"):
        parts.append("**What ends it:**\n\n" + "\n".join(f"- {stop}" for stop in stops))
    notes = [inert_line(str(note), 300) for note in found.get("notes", ())]
    if notes:
        parts.append("Missing from this:\n\n" + "\n".join(f"- {note}" for note in notes))
    return [folded("Where the recipe comes from, and what research found", "\n\n".join(filter(None, parts)))]


def _settings(settings: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for each in settings[:_MOST_LINES]:
        default = code(each["default"], 60) if each.get("default") else ""
        papers = "; ".join(
            f"{code(quoted['value'], 40)} “{inert_line(quoted['quote'], 140)}” ({_paper(quoted)})"
            for quoted in each.get("papers", ())
        )
        source = inert_line(str(each.get("source") or ""), 160)
        rows.append((code(each["key"]), code(each["value"], 80), source, default, papers))
    return table(("Key", "Value", "From", "Default installed here", "In papers"), rows) if rows else ""


def _offers(offers: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        f"- {code(each['id'], 100)}: " + " ".join(inert_line(str(reason), 200) for reason in each["reasons"])
        for each in offers
    ]
    return (
        "**Data sets that may serve**, best first; none is used unless the goal names it:\n\n" + "\n".join(lines)
        if lines
        else ""
    )


def _gains(gains: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        (inert_line(each["model"], 80), inert_line(each["said"], 40), inert_line(each["caption"], 120), _paper(each))
        for each in gains
    ]
    if not rows:
        return ""
    return "**What papers measured on this benchmark**, with models and settings of their own:\n\n" + table(
        ("Model", "Value", "Table", "Paper"), rows
    )


def _paper(each: Mapping[str, Any]) -> str:
    """Its title, and its address as text: nothing of ours makes a link of an address from outside."""
    return f"{inert_line(str(each['title']), 80)}, {code(str(each['url']), 100)}"
