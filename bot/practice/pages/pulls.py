"""Pull requests: conversation, changed files with review comments on their lines, commits and checks."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

from bot.practice.pages.api import ApiError
from bot.practice.pages.conversation import Reader, Thread, pull_items
from bot.practice.pages.markdown import Setting, render
from bot.practice.pages.repository import changed_files, frame
from bot.practice.pages.site import Redirect, View, Visit

# Check states are looked up for the newest commits only; each is a call of its own.
COMMITS_WITH_CHECKS = 30


async def _pull(visit: Visit, section: str) -> tuple[dict[str, Any], Reader]:
    """What the head of every page of a pull request shows, and who reads it."""
    at = f"/repos/{visit.repository}"
    shared, pull, issue, commits = await asyncio.gather(
        frame(visit, "pulls"),
        visit.api.get(f"{at}/pulls/{visit.number}"),
        visit.api.get(f"{at}/issues/{visit.number}"),
        visit.api.all(f"{at}/pulls/{visit.number}/commits"),
    )
    checks = await _checks(visit, pull["head"]["sha"])
    known = frozenset(commit["sha"] for commit in commits)
    refusal = visit.site.forge.suggestion_refusal
    reader = Reader(visit.repository, visit.login, shared["may_write"], pull["head"]["ref"], known, refusal)
    issue = {**issue, "draft": pull.get("draft"), "merged": pull.get("merged"), "state": pull["state"]}
    values = {"pull": pull, "issue": issue, "commits": commits, "checks": checks, "section": section}
    return {**shared, **values}, reader


async def _checks(visit: Visit, sha: str) -> list[dict[str, Any]]:
    found = await visit.api.find(f"/repos/{visit.repository}/commits/{sha}/check-runs", per_page=100)
    runs: list[dict[str, Any]] = (found or {}).get("check_runs", [])
    return sorted(runs, key=lambda run: (run.get("started_at") or "", run["id"]))


async def _checks_by_commit(visit: Visit, values: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    shas = [commit["sha"] for commit in values["commits"]][-COMMITS_WITH_CHECKS:]
    found = await asyncio.gather(*(_checks(visit, sha) for sha in shas))
    return dict(zip(shas, found, strict=True))


async def show(visit: Visit) -> View:
    """The conversation of a pull request."""
    values, reader = await _pull(visit, "conversation")
    at = f"/repos/{visit.repository}"
    inline = await visit.api.all(f"{at}/pulls/{visit.number}/comments")
    items, labels, by_commit = await asyncio.gather(
        pull_items(visit.api, reader, visit.number, values["commits"], inline),
        visit.api.find(f"{at}/labels", per_page=100),
        _checks_by_commit(visit, values),
    )
    more = {
        "description": reader.comment("issue", values["issue"]), "items": items, "labels": labels or [],
        "checks_by_commit": by_commit,
    }  # fmt: skip
    return View("conversation.html", {**values, **more})


async def files(visit: Visit) -> View:
    """The diff with review comments under their lines."""
    values, reader = await _pull(visit, "files")
    at = f"/repos/{visit.repository}/pulls/{visit.number}"
    changed, inline = await asyncio.gather(visit.api.all(f"{at}/files"), visit.api.all(f"{at}/comments"))
    on_line: dict[tuple[str, str, int], list[Thread]] = defaultdict(list)
    on_file: dict[str, list[Thread]] = defaultdict(list)
    for thread in reader.threads(inline):
        if thread.line is None:
            on_file[thread.path].append(thread)
        else:
            on_line[thread.path, thread.side, thread.line].append(thread)
    chosen = {name: visit.query(name) for name in ("path", "line", "side")}
    shown = {"files": changed_files(changed), "on_line": on_line, "on_file": on_file, "chosen": chosen}
    return View("pull_files.html", {**values, **shown})


async def commits(visit: Visit) -> View:
    """The pull request's commits, each with the state of its checks."""
    values, _ = await _pull(visit, "commits")
    return View("pull_commits.html", {**values, "checks_by_commit": await _checks_by_commit(visit, values)})


async def checks(visit: Visit) -> View:
    """The check runs of every commit that has some, newest first, and one of them in full."""
    values, reader = await _pull(visit, "checks")
    by_commit = await _checks_by_commit(visit, values)
    groups = [
        (commit, by_commit[commit["sha"]]) for commit in reversed(values["commits"]) if by_commit.get(commit["sha"])
    ]
    asked = visit.query("check_run_id")
    runs = [run for _, found in groups for run in found]
    chosen = next((run for run in runs if str(run["id"]) == asked), runs[0] if runs else None)
    if asked and (chosen is None or str(chosen["id"]) != asked):
        raise ApiError(404, "Not Found")
    shown = await check(visit, chosen["id"], reader) if chosen else None
    return View("pull_checks.html", {**values, "groups": groups, "shown": shown})


async def run(visit: Visit) -> View:
    """One check run at the address that its `html_url` names."""
    shared = await frame(visit, "pulls")
    reader = Reader(visit.repository, visit.login, shared["may_write"])
    return View("check_run.html", {**shared, "shown": await check(visit, visit.integer("id"), reader)})


async def check(visit: Visit, number: int, reader: Reader) -> dict[str, Any]:
    """A check run with its texts rendered, its annotations and, once it has completed, its buttons."""
    at = f"/repos/{visit.repository}/check-runs/{number}"
    found, annotations = await asyncio.gather(visit.api.get(at), visit.api.find(f"{at}/annotations", per_page=100))
    output = found.get("output") or {}
    setting = Setting(
        visit.repository, reader.head_ref, hard_breaks=False, commits=reader.commits, anchor=f"check{number}"
    )
    buttons = visit.site.forge.check_run(number).actions if found["status"] == "completed" else []
    return {
        "run": found,
        "title": output.get("title") or found["name"],
        "summary": render(output.get("summary") or "", setting),
        "text": render(output.get("text") or "", setting),
        "annotations": annotations or [],
        "buttons": buttons,
    }


async def old_address(visit: Visit) -> Redirect:
    """GitHub answers at /pulls/{n} as well."""
    return Redirect(f"/{visit.repository}/pull/{visit.number}")
