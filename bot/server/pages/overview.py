"""The pages about all goals at once: the dashboard, the queue and the spending."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.requests import Request

from bot.conversation.policy import Month
from bot.domain.budget import NOTHING, Spend, month_of
from bot.server.pages.queue import Live, about, ordinal, placed
from bot.server.pages.view import View
from bot.server.summaries import Summary, sums

if TYPE_CHECKING:
    from bot.server.app import Bot

GOALS_A_PAGE = 25
MOST_GOALS, MOST_MONTHS = 200, 12
"""Of the spending page."""
_ROUNDING = 1e-6
"""USD below which two sums are the same."""
KINDS = ("all", "open", "waiting", "ended")


def dashboard(bot: Bot, request: Request) -> View:
    """Goals, open ones first, a page at a time."""
    summaries = bot.summaries.all()
    kind = request.query_params.get("show", "all")
    kind = kind if kind in KINDS else "all"
    counts = {name: sum(_is(summary, name) for summary in summaries) for name in KINDS}
    chosen = [summary for summary in summaries if _is(summary, kind)]
    chosen.sort(key=lambda summary: (summary.ended, -summary.last_at))
    pages = max(1, math.ceil(len(chosen) / GOALS_A_PAGE))
    page = min(max(1, _whole(request.query_params.get("page", "1"))), pages)
    month = month_of(time.time())
    shown = chosen[(page - 1) * GOALS_A_PAGE : page * GOALS_A_PAGE]
    values = {
        "goals": shown,
        "live": {each.goal_id: Live.of(bot.watcher.progress.get(each.goal_id)) for each in shown if each.running},
        "counts": counts, "kind": kind, "page": page, "pages": pages,
        "jobs": sum(len(summary.running) for summary in summaries),
        "this_month": sums([summary.months for summary in summaries]).get(month, NOTHING),
        "label": bot.settings.label,
        "refresh": 5 if counts["open"] else 30,
    }  # fmt: skip
    return View("dashboard.html", values, "goals")


def _is(summary: Summary, kind: str) -> bool:
    match kind:
        case "open":
            return not summary.ended
        case "waiting":
            return bool(summary.waits_for)
        case "ended":
            return summary.ended
    return True


def _whole(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 7 else 1


def queue_page(bot: Bot, request: Request) -> View:
    """What runs on this machine, what is in line, and which goals wait for people."""
    summaries = bot.summaries.all()
    slots = slots_of(bot)
    running, waiting = placed(summaries, bot.runner.status, bot.watcher.progress, slots)
    values = {
        "running": running, "waiting": waiting, "slots": slots,
        "people": sorted((s for s in summaries if s.waits_for), key=lambda s: s.last_at),
        "ordinal": ordinal, "about": about,
        "refresh": 3 if running or waiting else 15,
    }  # fmt: skip
    return View("queue.html", values, "queue")


def slots_of(bot: Bot) -> int:
    """How many jobs run at once on this machine: one for each core unless a setting says otherwise."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return bot.settings.job_slots or cores


@dataclass(frozen=True, slots=True)
class MonthRow:
    """What one repository spent in one month, against its policy's ceilings."""

    month: str
    spent: Spend
    reserved: Spend
    """For jobs under way, at most."""
    ceiling: Month


def spend_page(bot: Bot, request: Request) -> View:
    """Money and job time by repository and month, and by goal."""
    summaries = bot.summaries.all()
    repositories: dict[str, list[Summary]] = {}
    for summary in sorted(summaries, key=lambda each: each.full_name.lower()):
        repositories.setdefault(summary.full_name, []).append(summary)
    held = {place: spend.usd for place, spend in bot.treasury.months().items()}
    costing = [summary for summary in summaries if summary.goal is not None]
    values = {
        "repositories": {name: _month_rows(each, held) for name, each in repositories.items()},
        "goals": sorted(costing, key=lambda s: (-s.spent.usd, -s.spent.gpu_hours, s.goal_id))[:MOST_GOALS],
        "count": len(summaries),
        "costing": len(costing),
        "months": sums([summary.months for summary in summaries]),
        "this_month": month_of(time.time()),
        "refresh": 30,
    }
    return View("spend.html", values, "spend")


def _month_rows(summaries: Sequence[Summary], held: Mapping[tuple[str, str], float]) -> list[MonthRow]:
    """The present month first. The ceilings are those that the goal whose contract was read last was held to.

    `held` is what the treasury holds goals to, in USD by repository and month: it knows of turns of the language model
    that are under way, or that the journals will learn of at the end of a sitting.
    """
    spent, reserved = sums([each.months for each in summaries]), sums([each.reserved for each in summaries])
    now = month_of(time.time())
    known = [summary for summary in summaries if summary.state is not None] or list(summaries)
    ceiling = max(known, key=lambda summary: summary.opened_at).month_ceiling
    months = sorted({*spent, *reserved, now}, reverse=True)[:MOST_MONTHS]
    rows = []
    for month in months:
        paid, set_aside = spent.get(month, NOTHING), reserved.get(month, NOTHING)
        more = held.get((summaries[0].full_name, month), 0.0) - paid.usd - set_aside.usd
        set_aside += Spend(usd=more if more > _ROUNDING else 0.0)
        rows.append(MonthRow(month, paid, set_aside, ceiling))
    return rows
