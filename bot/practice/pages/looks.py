"""Small pictures and words that the templates use: icons, avatars, times, and how a state or conclusion is shown."""

from __future__ import annotations

import hashlib
from datetime import datetime
from html import escape
from typing import Any

from markupsafe import Markup

_ICONS = {
    "issue": '<circle cx="8" cy="8" r="6"/><circle class="solid" cx="8" cy="8" r="1.6"/>',
    "issue-closed": '<circle cx="8" cy="8" r="6"/><path d="M5.4 8.2l1.8 1.8 3.4-3.8"/>',
    "pull": '<circle cx="4" cy="3.5" r="1.8"/><circle cx="4" cy="12.5" r="1.8"/><circle cx="12" cy="12.5" r="1.8"/>'
    '<path d="M4 5.3v5.4M12 10.7V6.5a2.5 2.5 0 0 0-2.5-2.5H7.5M9.3 2.2L7.5 4l1.8 1.8"/>',
    "merged": '<circle cx="4" cy="3.5" r="1.8"/><circle cx="4" cy="12.5" r="1.8"/><circle cx="12" cy="9" r="1.8"/>'
    '<path d="M4 5.3v5.4M4.3 5.2C5 8 7 9 10.2 9"/>',
    "commit": '<circle cx="8" cy="8" r="3"/><path d="M1 8h4M11 8h4"/>',
    "check": '<path d="M3 8.5l3.3 3.3L13 4.8"/>',
    "cross": '<path d="M4 4l8 8M12 4l-8 8"/>',
    "dot": '<circle class="solid" cx="8" cy="8" r="4"/>',
    "skip": '<circle cx="8" cy="8" r="6"/><path d="M4 12l8-8"/>',
    "neutral": '<rect class="solid" x="3" y="6.5" width="10" height="3" rx="1"/>',
    "alert": '<path d="M8 2.2L14.5 13.6h-13z"/><path d="M8 6.5v3.2M8 11.4v.3"/>',
    "clock": '<circle cx="8" cy="8" r="6"/><path d="M8 4.5V8l2.4 1.6"/>',
    "folder": '<path d="M1.8 4V13h12.4V4.8H7.5L6 3H1.8z"/>',
    "file": '<path d="M4 1.8h5.2L12.5 5v9.2H4zM9 2v3.2h3.3"/>',
    "branch": '<circle cx="4.5" cy="3.5" r="1.8"/><circle cx="4.5" cy="12.5" r="1.8"/>'
    '<circle cx="11.5" cy="5" r="1.8"/><path d="M4.5 5.3v5.4M11.5 6.8c0 2.4-4 2-6.5 3.6"/>',
    "tag": '<path d="M2 2.2h5.6l6.4 6.4-5.4 5.4L2 7.6z"/><circle cx="5.2" cy="5.4" r=".9"/>',
    "comment": '<path d="M2 3h12v8.2H7.5L4.4 14v-2.8H2z"/>',
    "eye": '<path d="M1.3 8S3.8 3.6 8 3.6 14.7 8 14.7 8 12.2 12.4 8 12.4 1.3 8 1.3 8z"/><circle cx="8" cy="8" r="2"/>',
    "edit": '<path d="M10.8 2.6l2.6 2.6-8 8-3.2.6.6-3.2z"/>',
    "smile": '<circle cx="8" cy="8" r="6"/><path d="M5.4 9.4c1.4 2 3.8 2 5.2 0M6 6v.6M10 6v.6"/>',
    "repo": '<path d="M3 2h9.5v10.2H4.2A1.4 1.4 0 0 0 3 13.6zM3 13.6c0 .6.5 1 1.2 1h8.3v-2.4"/>',
}  # fmt: skip

REACTIONS = {
    "+1": "👍", "-1": "👎", "laugh": "😄", "hooray": "🎉", "confused": "😕", "heart": "❤️", "rocket": "🚀", "eyes": "👀",
}  # fmt: skip

# A check's conclusion: icon, tone, and the word for it.
CONCLUSIONS = {
    "success": ("check", "good", "Succeeded"),
    "failure": ("cross", "bad", "Failed"),
    "timed_out": ("clock", "bad", "Timed out"),
    "action_required": ("alert", "warn", "Action required"),
    "cancelled": ("skip", "quiet", "Cancelled"),
    "neutral": ("neutral", "quiet", "Neutral"),
    "skipped": ("skip", "quiet", "Skipped"),
    "stale": ("clock", "quiet", "Stale"),
}


def icon(name: str, tone: str = "") -> Markup:
    """A picture of 16 units that takes the text's colour."""
    return Markup(f'<svg class="icon {escape(tone)}" viewBox="0 0 16 16" aria-hidden="true">{_ICONS[name]}</svg>')


def avatar(login: str) -> Markup:
    """A disc with the person's first letter, or a rounded square for an App; the colour follows from the name."""
    hue = int(hashlib.sha256(login.encode()).hexdigest()[:4], 16) % 360
    outline = '<rect width="40" height="40" rx="9"' if login.endswith("[bot]") else '<circle cx="20" cy="20" r="20"'
    letter = escape(login[:1].upper() or "?")
    return Markup(
        f'<svg class="avatar" viewBox="0 0 40 40" aria-hidden="true">{outline} fill="hsl({hue} 42% 44%)"/>'
        f'<text x="20" y="27.5" text-anchor="middle" fill="#fff" font-size="20" font-weight="600">{letter}</text></svg>'
    )


def label(item: dict[str, Any]) -> Markup:
    """A label: its colour as a dot, so that the words are readable on any of GitHub's colours."""
    colour = str(item.get("color") or "888888")
    safe = colour if all(digit in "0123456789abcdefABCDEF" for digit in colour) and len(colour) == 6 else "888888"
    title = f' title="{escape(item["description"])}"' if item.get("description") else ""
    return Markup(
        f'<span class="label"{title}><svg viewBox="0 0 10 10" aria-hidden="true"><circle cx="5" cy="5" r="5" '
        f'fill="#{safe}"/></svg>{escape(str(item["name"]))}</span>'
    )


def when(stamp: str | None) -> Markup:
    """A time as text that a script turns into “3 minutes ago”."""
    if not stamp:
        return Markup("")
    moment = datetime.fromisoformat(stamp.replace("Z", "+00:00"))
    words = f"{moment:%b} {moment.day}, {moment:%Y, %H:%M} UTC"
    return Markup(f'<time datetime="{escape(stamp)}">{words}</time>')


def check_look(run: dict[str, Any]) -> tuple[str, str, str]:
    """Icon, tone and word of a check run."""
    if run.get("status") == "completed":
        return CONCLUSIONS.get(str(run.get("conclusion")), ("neutral", "quiet", "Completed"))
    return ("dot", "warn", "In progress") if run.get("status") == "in_progress" else ("clock", "warn", "Queued")


def issue_look(issue: dict[str, Any]) -> tuple[str, str, str]:
    """Icon, tone and word of an issue or a pull request."""
    pull = issue.get("pull_request")
    is_pull = pull is not None or "head" in issue
    if is_pull:
        if (pull or {}).get("merged_at") or issue.get("merged_at") or issue.get("merged"):
            return ("merged", "done", "Merged")
        if issue["state"] == "closed":
            return ("pull", "bad", "Closed")
        return ("pull", "quiet", "Draft") if issue.get("draft") else ("pull", "good", "Open")
    if issue["state"] == "closed":
        reason = issue.get("state_reason")
        return (
            ("skip", "quiet", "Closed as not planned")
            if reason == "not_planned"
            else ("issue-closed", "done", "Closed")
        )
    return ("issue", "good", "Open")


def author_of(commit: dict[str, Any]) -> str:
    """Who wrote a commit: their login, or the name in the commit where the forge knows nobody of that address."""
    return str((commit.get("author") or {}).get("login") or commit["commit"]["author"]["name"])


def title_of(run: dict[str, Any]) -> str:
    """What a check run says in one line, if it has said something."""
    return str((run.get("output") or {}).get("title") or "")


def plural(count: int, one: str, many: str | None = None) -> str:
    """“1 commit”, “3 commits”."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


TEMPLATE_GLOBALS: dict[str, Any] = {
    "icon": icon, "avatar": avatar, "label": label, "when": when, "check_look": check_look, "issue_look": issue_look,
    "author_of": author_of, "title_of": title_of, "plural": plural, "REACTIONS": REACTIONS,
}  # fmt: skip
