"""The pages about a repository's files and history, and the front page."""

from __future__ import annotations

import asyncio
import base64
import mimetypes
from typing import Any
from urllib.parse import quote

from starlette.responses import Response

from bot.practice.pages.api import ApiError
from bot.practice.pages.diff import LONG_PATCH_ROWS, rows
from bot.practice.pages.highlight import coloured_lines
from bot.practice.pages.markdown import Setting, render
from bot.practice.pages.site import Redirect, View, Visit

LARGEST_SHOWN = 1_000_000
# Served as what they are; anything else in a repository is plain text to a browser.
IMAGE_TYPES = frozenset(("image/png", "image/jpeg", "image/gif", "image/webp", "image/svg+xml"))
RAW = "application/vnd.github.raw+json"


async def home(visit: Visit) -> View:
    """Every repository that the visitor may see, with what is open in it."""
    entries = []
    for name in visit.site.repositories():
        repository = await visit.api.find(f"/repos/{name}")
        if repository is None:
            continue
        issues = await visit.api.find(f"/repos/{name}/issues", state="open", per_page=30) or []
        entries.append({"repository": repository, "open": issues})
    return View("home.html", {"entries": entries})


async def frame(visit: Visit, tab: str) -> dict[str, Any]:
    """What the head of every page of a repository shows."""
    repository = await visit.api.get(f"/repos/{visit.repository}")
    issues = await visit.api.find(f"/repos/{visit.repository}/issues", state="open", per_page=100) or []
    pulls = sum(1 for issue in issues if issue.get("pull_request"))
    return {
        "repository": repository,
        "repo": repository["full_name"],
        "tab": tab,
        "open_issues": len(issues) - pulls,
        "open_pulls": pulls,
        "may_write": bool((repository.get("permissions") or {}).get("push")),
    }


async def code(visit: Visit) -> View:
    """The front page of a repository: its files and its README."""
    shared = await frame(visit, "code")
    return await _folder(visit, shared, shared["repository"]["default_branch"], "")


async def tree(visit: Visit) -> View:
    """A folder at a branch or commit."""
    ref, path = await _split_ref(visit)
    return await _folder(visit, await frame(visit, "code"), ref, path)


async def _folder(visit: Visit, shared: dict[str, Any], ref: str, path: str) -> View:
    at = f"/repos/{visit.repository}"
    entries, branches, history = await asyncio.gather(
        visit.api.find(f"{at}/contents/{quote(path)}", ref=ref),
        visit.api.all(f"{at}/branches"),
        visit.api.find(f"{at}/commits", sha=ref, per_page=1, **({"path": path} if path else {})),
    )
    if isinstance(entries, dict):
        raise ApiError(404, "Not Found")
    if entries is None and path:
        raise ApiError(404, "Not Found")
    listed = sorted(entries or [], key=lambda entry: (entry["type"] != "dir", entry["name"].lower()))
    readme = next((entry for entry in listed if entry["name"].lower() in ("readme.md", "readme")), None)
    html = await _readme(visit, ref, path, readme["path"]) if readme else ""
    values = {"ref": ref, "path": path, "entries": listed, "branches": branches, "last": (history or [None])[0]}
    return View("tree.html", {**shared, **values, "crumbs": _crumbs(path), "readme": html})


async def _readme(visit: Visit, ref: str, folder: str, path: str) -> str:
    text = (await visit.api.text(f"/repos/{visit.repository}/contents/{quote(path)}", RAW, ref=ref)).decode(
        "utf-8", "replace"
    )
    return render(text, Setting(visit.repository, ref, folder, hard_breaks=False, anchor="readme"))


async def blob(visit: Visit) -> View:
    """A file with numbered lines, and Markdown rendered unless `?plain=1`."""
    ref, path = await _split_ref(visit)
    shared, data = await asyncio.gather(
        frame(visit, "code"), visit.api.text(f"/repos/{visit.repository}/contents/{quote(path)}", RAW, ref=ref)
    )
    is_text = b"\0" not in data[:8_000] and len(data) <= LARGEST_SHOWN
    text = data.decode("utf-8", "replace") if is_text else ""
    is_markdown = path.lower().endswith((".md", ".markdown")) and not visit.query("plain")
    html = ""
    if is_markdown:
        folder = path.rpartition("/")[0]
        html = render(text, Setting(visit.repository, ref, folder, hard_breaks=False, anchor="file"))
    kind = mimetypes.guess_type(path)[0] or ""
    values = {
        "ref": ref, "path": path, "crumbs": _crumbs(path), "size": len(data), "is_text": is_text, "rendered": html,
        "is_markdown": path.lower().endswith((".md", ".markdown")), "is_image": kind in IMAGE_TYPES,
        "lines": coloured_lines(text, path) if is_text and not is_markdown else [],
    }  # fmt: skip
    return View("blob.html", {**shared, **values})


async def raw(visit: Visit) -> Response:
    """A file's bytes, in a frame of their own: nothing in a repository runs as a page of the forge."""
    ref, path = await _split_ref(visit)
    data = await visit.api.text(f"/repos/{visit.repository}/contents/{quote(path)}", RAW, ref=ref)
    kind = mimetypes.guess_type(path)[0] or ""
    shown = kind if kind in IMAGE_TYPES else "text/plain; charset=utf-8"
    policy = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
    return Response(data, media_type=shown, headers={"Content-Security-Policy": policy})


async def commits(visit: Visit) -> View:
    """The history of a branch, a page of thirty at a time."""
    ref, path = await _split_ref(visit)
    page = int(visit.query("page", "1")) if visit.query("page", "1").isdigit() else 1
    more = {"path": path} if path else {}
    found = await visit.api.get(f"/repos/{visit.repository}/commits", sha=ref, per_page=30, page=page, **more)
    shared = await frame(visit, "code")
    return View("commits.html", {**shared, "ref": ref, "path": path, "commits": found, "page": page})


async def commit(visit: Visit) -> View:
    """One commit with its diff and its checks."""
    at = f"/repos/{visit.repository}/commits/{quote(visit.word('sha'), safe='')}"
    shared, found = await asyncio.gather(frame(visit, "code"), visit.api.get(at))
    checks = await visit.api.find(f"{at}/check-runs", per_page=100) or {"check_runs": []}
    return View(
        "commit.html",
        {**shared, "commit": found, "files": changed_files(found["files"]), "checks": checks["check_runs"]},
    )


def changed_files(files: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Files of a diff with their rows; a long one starts folded."""
    shown = []
    for file in files:
        lines = rows(file["patch"]) if file.get("patch") else []
        shown.append({**file, "rows": lines, "folded": len(lines) > LONG_PATCH_ROWS})
    return shown


async def edit(visit: Visit) -> View:
    """A file of a branch in a text box."""
    ref, path = await _split_ref(visit)
    visit.person()
    file = await visit.api.get(f"/repos/{visit.repository}/contents/{quote(path)}", ref=ref)
    data = await visit.api.text(f"/repos/{visit.repository}/contents/{quote(path)}", RAW, ref=ref)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise ApiError(415, "This file is not text.") from None
    shared = await frame(visit, "code")
    return View(
        "edit.html", {**shared, "ref": ref, "path": path, "text": text, "sha": file["sha"], "crumbs": _crumbs(path)}
    )


async def save(visit: Visit) -> Redirect:
    """Commits an edited file, as the person."""
    ref, path = await _split_ref(visit)
    visit.person()
    payload = {
        "message": visit.form["message"].strip() or f"Update {path.rpartition('/')[2]}",
        "content": base64.b64encode(visit.form.markdown("body").encode()).decode(),
        "branch": ref,
        "sha": visit.form["sha"],
    }
    await visit.api.send("PUT", f"/repos/{visit.repository}/contents/{quote(path)}", payload)
    return Redirect(f"/{visit.repository}/blob/{quote(ref)}/{quote(path)}")


async def _split_ref(visit: Visit) -> tuple[str, str]:
    """`{ref}/{path}` taken apart: a branch's name may hold slashes, so the longest known one wins."""
    rest = visit.word("rest").strip("/")
    branches = {branch["name"] for branch in await visit.api.all(f"/repos/{visit.repository}/branches")}
    words = rest.split("/")
    for count in range(len(words), 0, -1):
        if "/".join(words[:count]) in branches:
            return "/".join(words[:count]), "/".join(words[count:])
    return words[0], "/".join(words[1:])


def _crumbs(path: str) -> list[tuple[str, str]]:
    parts = [part for part in path.split("/") if part]
    return [(part, "/".join(parts[: index + 1])) for index, part in enumerate(parts)]
