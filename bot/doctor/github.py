"""`postdoc doctor --github`: whether the App is registered, reached and installed as it has to be."""

from __future__ import annotations

import asyncio
import datetime
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from bot.config import Settings
from bot.conversation.github import GitHubApp, Installation, Refused
from bot.conversation.github.registration import EVENTS, OPTIONAL, PERMISSIONS
from bot.conversation.policy import parse_policy
from bot.doctor.machine import finding_lines, is_fault, summary_line
from bot.errors import PostdocError
from runners.doctor import Finding

POLICY_PATH = ".github/postdoc.yml"
CLOCK_SECONDS = 60.0
"""GitHub takes a JWT that is dated so far ahead or back; Postdoc follows GitHub's clock beyond that."""
MOST_REPOSITORIES = 50
"""Policies that are read for each installation."""
REDELIVERY_SECONDS, LOOK_SECONDS = 30.0, 1.0
_LEVELS = ("read", "write", "admin")
_LISTENING = {
    401: "POSTDOC_WEBHOOK_SECRET is not the secret in the App's settings: set the same one on both sides",
    403: "something in front of the server refuses GitHub: let https://api.github.com/meta's hook addresses through",
    404: "no Postdoc answers at that path: the webhook URL ends with /webhook",
    502: "nothing answered: is `postdoc serve` running, and reached at that address? Else use `postdoc serve --pull`",
    504: "the answer took longer than ten seconds: look at the server's log and at what stands in front of it",
}


def github_lines(findings: Sequence[Finding]) -> list[str]:
    """The findings for people."""
    return [*finding_lines(findings), "", summary_line(findings)]


def github_json(findings: Sequence[Finding]) -> dict[str, Any]:
    listed = [{"name": f.name, "ok": f.ok, "detail": f.detail, "advice": f.advice} for f in findings]
    return {"ok": not any(is_fault(finding) for finding in findings), "findings": listed}


async def github_examination(settings: Settings, *, redeliver: bool = False) -> list[Finding]:
    """Everything that can be seen of the App from its own side; `redeliver` has GitHub send the last event once more.

    Raises: SettingsError where the settings cannot be right, whatever GitHub says.
    """
    async with GitHubApp(app_id=settings.app_id, private_key=settings.key(), base_url=settings.github_url) as app:
        try:
            about = await app.about()
            findings = [_app(app, about)]
        except (PostdocError, KeyError, TypeError) as error:
            return [_no_app(app, error), *_clock(app)]
        findings += [*_clock(app), *_permissions(about), *_events(about)]
        parts = [_webhook(app, settings), _deliveries(app, settings), _installations(app, settings, about)]
        if redeliver:
            parts.insert(2, _redelivery(app))
        for part in parts:
            findings += await _collected(part)
    return findings


async def _collected(part: AsyncIterator[Finding]) -> list[Finding]:
    """The part's findings, and as the last one what broke it off."""
    found: list[Finding] = []
    try:
        async for finding in part:
            found.append(finding)
    except PostdocError as error:
        found.append(Finding("GitHub", False, str(error), "try again later; https://www.githubstatus.com says more"))
    except (KeyError, TypeError, ValueError) as error:
        detail = f"an answer has not the form that GitHub documents ({type(error).__name__}: {error})"
        found.append(Finding("GitHub", False, detail, "is POSTDOC_GITHUB_URL a GitHub, and no older than 3.10?"))
    return found


def _no_app(app: GitHubApp, error: Exception) -> Finding:
    name, detail = f"App at {app.server.rest}", str(error)
    if not isinstance(error, Refused):
        advice = "check POSTDOC_GITHUB_URL, the network and, behind one, the proxy (https_proxy)"
        return Finding(name, False, detail if isinstance(error, PostdocError) else "this is no GitHub", advice)
    if error.status == 401:
        where = f"{app.server.html}/settings/apps (or the organization's)"
        return Finding(name, False, detail, f"take POSTDOC_APP_ID and a new private key from the same App in {where}")
    if error.status == 404:
        return Finding(name, False, detail, "POSTDOC_APP_ID names no App of this server, or its address is another's")
    return Finding(name, False, detail, "read what it says above")


def _app(app: GitHubApp, about: Mapping[str, Any]) -> Finding:
    return Finding("App", True, f"{about['slug']} at {app.server.rest}, {about.get('html_url', 'no page')}")


def _clock(app: GitHubApp) -> list[Finding]:
    skew = app.skew_seconds
    if not app.counts["2xx"] + app.counts["4xx"]:
        return []  # nobody answered, so nobody said what time it is
    if abs(skew) <= CLOCK_SECONDS:
        detail = (
            f"{abs(skew):.0f} s {'behind' if skew > 0 else 'ahead of'} GitHub's" if skew else "agrees with GitHub's"
        )
        return [Finding("clock", True, detail)]
    side = "behind" if skew > 0 else "ahead of"
    advice = "let the machine's clock follow the network's: `timedatectl set-ntp true`"
    return [Finding("clock", False, f"{abs(skew):,.0f} s {side} GitHub's", advice)]


def _lacking(granted: Mapping[str, str]) -> list[str]:
    def rank(level: str | None) -> int:
        return _LEVELS.index(level) if level in _LEVELS else -1

    return [f"{name}: {level}" for name, level in PERMISSIONS.items() if rank(granted.get(name)) < rank(level)]


def _permissions(about: Mapping[str, Any]) -> list[Finding]:
    granted = {str(name): str(level) for name, level in dict(about.get("permissions") or {}).items()}
    found = []
    if lacking := _lacking(granted):
        advice = "add them under Permissions & events of the App; each owner then accepts them"
        found.append(Finding("permissions", False, f"missing: {', '.join(lacking)}", advice))
    useful = PERMISSIONS.keys() | {name for name, level in OPTIONAL.items() if granted.get(name) == level}
    beyond = {name: level for name, level in granted.items() if name not in useful}
    dangerous = [f"{name}: {level}" for name, level in beyond.items() if level != "read"]
    harmless = [f"{name}: {level}" for name, level in beyond.items() if level == "read"]
    if dangerous:
        advice = "take them away: whoever got hold of the App's key could use what Postdoc never needs"
        found.append(Finding("permissions", False, f"not needed: {', '.join(dangerous)}", advice))
    if harmless:
        advice = "optional: take them away, Postdoc never reads this"
        found.append(Finding("permissions", False, f"not needed: {', '.join(harmless)}", advice))
    return found or [Finding("permissions", True, ", ".join(f"{name}: {level}" for name, level in granted.items()))]


def _events(about: Mapping[str, Any]) -> list[Finding]:
    subscribed = set(map(str, about.get("events") or ()))
    if lacking := [name for name in EVENTS if name not in subscribed]:
        advice = "tick them under Permissions & events of the App"
        return [Finding("events", False, f"missing: {', '.join(lacking)}", advice)]
    if beyond := sorted(subscribed - set(EVENTS)):
        return [Finding("events", False, f"not needed: {', '.join(beyond)}", "optional: untick them, they are ignored")]
    return [Finding("events", True, ", ".join(EVENTS))]


async def _webhook(app: GitHubApp, settings: Settings) -> AsyncIterator[Finding]:
    try:
        config = await app.hook_config()
    except Refused as refused:
        if refused.status != 404:
            raise
        advice = "optional: this server does not show it; compare the App's settings page with POSTDOC_WEBHOOK_SECRET"
        yield Finding("webhook", False, "its settings cannot be read", advice)
        return
    url = str(config.get("url") or "")
    problems = []
    if not url:
        problems.append(("no address", "set the webhook URL to https://YOUR-HOST/webhook and tick Active"))
    elif not settings.pull and not url.partition("?")[0].rstrip("/").endswith("/webhook"):
        problems.append((url, "Postdoc listens at /webhook: end the address with it"))
    elif settings.public_url and not settings.pull and not url.startswith(settings.public_url.rstrip("/") + "/"):
        problems.append((url, f"POSTDOC_PUBLIC_URL is {settings.public_url}: one of the two is wrong"))
    if not config.get("secret"):
        problems.append(("no secret", "set the webhook secret to the value of POSTDOC_WEBHOOK_SECRET"))
    if str(config.get("content_type", "json")) != "json":
        problems.append(("content type is not JSON", "choose application/json"))
    if str(config.get("insecure_ssl", "0")) == "1" and url.startswith("https:"):
        problems.append(("certificates are not checked", "turn SSL verification on"))
    for detail, advice in problems:
        yield Finding("webhook", False, detail, advice)
    if not problems:
        yield Finding("webhook", True, f"{url}, signed")


async def _deliveries(app: GitHubApp, settings: Settings) -> AsyncIterator[Finding]:
    rows, _ = await app.deliveries()
    if not rows:
        advice = "optional: comment on an issue of a repository that has the App, and look again"
        yield Finding("deliveries", False, "none in the last three days", advice)
        return
    codes = Counter(int(row["status_code"]) for row in rows)
    newest = rows[0]
    said = ", ".join(f"{count} × {code or 'no answer'}" for code, count in sorted(codes.items()))
    detail = f"{said}; the last one, {newest['event']}, {_ago(newest['delivered_at'])}: {newest['status']}"
    last = int(newest["status_code"])
    if settings.pull:
        yield Finding("deliveries", True, f"{detail} (read with --pull, whatever came of them)")
    elif 200 <= last < 300:
        yield Finding("deliveries", True, detail)
    else:
        advice = _LISTENING.get(last, _LISTENING[502] if last >= 500 or last == 0 else _LISTENING[404])
        yield Finding("deliveries", False, detail, f"{advice}; what was missed is asked for again by itself")


async def _redelivery(app: GitHubApp) -> AsyncIterator[Finding]:
    """Have the newest delivery sent again: GitHub cannot ping an App's webhook on demand."""
    rows, _ = await app.deliveries()
    if not rows:
        advice = "optional: there is nothing to send again yet; comment on an issue first"
        yield Finding("test delivery", False, "no delivery to repeat", advice)
        return
    chosen, known = rows[0], {row["id"] for row in rows}
    await app.redeliver(int(chosen["id"]))
    waited = 0.0
    while waited < REDELIVERY_SECONDS:
        await asyncio.sleep(LOOK_SECONDS)
        waited += LOOK_SECONDS
        again = [r for r in (await app.deliveries())[0] if r["guid"] == chosen["guid"] and r["id"] not in known]
        if again:
            code = int(again[0]["status_code"])
            detail = f"{chosen['event']} sent again, answered {code} in {float(again[0]['duration']):.2f} s"
            well = 200 <= code < 300
            yield Finding("test delivery", well, detail, "" if well else _LISTENING.get(code, _LISTENING[502]))
            return
    advice = "look at Advanced in the App's settings, and run this again"
    yield Finding("test delivery", False, f"not recorded within {REDELIVERY_SECONDS:.0f} s", advice)


async def _installations(
    app: GitHubApp, settings: Settings, about: Mapping[str, Any]
) -> AsyncIterator[Finding]:  # fmt: skip
    installed = await app.installations()
    if not installed:
        page = f"{about.get('html_url') or app.server.html}/installations/new"
        yield Finding("installations", False, "the App is installed nowhere", f"install it: {page}")
    for each in installed:
        name = f"installed on {each.account}"
        if each.suspended:
            advice = "its owner lifts that under Settings, Applications; until then its goals rest"
            yield Finding(name, False, "suspended", advice)
            continue
        asked = _lacking(about.get("permissions") or {})
        if lacking := [need for need in _lacking(each.permissions) if need not in asked]:
            advice = "its owner accepts the App's new permissions under Settings, Applications"
            yield Finding(name, False, f"not granted: {', '.join(lacking)}", advice)
        async for finding in _installation(app, settings, each, name):
            yield finding


async def _installation(
    app: GitHubApp, settings: Settings, installed: Installation, name: str
) -> AsyncIterator[Finding]:
    core = (await app.rate_limit(installed.id)).get("core") or {}
    repositories = await app.installation_repositories(installed.id)
    served = [row for row in repositories if _served(row["full_name"], settings.allowed_accounts)]
    detail = f"{len(repositories)} repositor{'y' if len(repositories) == 1 else 'ies'}"
    if len(served) < len(repositories):
        detail += f", {len(served)} of them in POSTDOC_ALLOWED_ACCOUNTS"
    if core:
        detail += f"; {core['remaining']:,} of {core['limit']:,} requests left this hour"
    low = bool(core) and core["remaining"] < core["limit"] / 10
    yield Finding(name, not low, detail, "wait for the hour to end, and look for what asks so much" if low else "")
    for row in served[:MOST_REPOSITORIES]:
        yield await _policy(app, installed.id, row)
    if len(served) > MOST_REPOSITORIES:
        yield Finding(name, True, f"the policies of {len(served) - MOST_REPOSITORIES} more were not read")


async def _policy(app: GitHubApp, installation_id: int, row: Mapping[str, Any]) -> Finding:
    name = f"policy of {row['full_name']}"
    owner, _, repository = str(row["full_name"]).partition("/")
    try:
        text = await app.repository(installation_id, owner, repository).file(POLICY_PATH, str(row["default_branch"]))
    except Refused as refused:
        return Finding(name, False, str(refused), "look at the App's access to this repository")
    if text is None:
        advice = f"optional: commit {POLICY_PATH}; without one every goal waits for `/postdoc run`"
        return Finding(name, False, "there is none", advice)
    parsed = parse_policy(text.decode("utf-8", "replace"))
    if parsed.problems:
        more = f" (and {len(parsed.problems) - 1} more)" if len(parsed.problems) > 1 else ""
        return Finding(name, False, "not valid", f"{POLICY_PATH}:{parsed.problems[0]}{more}")
    return Finding(name, True, "valid")


def _served(full_name: str, allowed: Sequence[str]) -> bool:
    names = {each.lower() for each in allowed}
    return not names or full_name.lower() in names or full_name.partition("/")[0].lower() in names


def _ago(stamp: str) -> str:
    moment = datetime.datetime.fromisoformat(stamp)
    minutes = (datetime.datetime.now(datetime.UTC) - moment).total_seconds() / 60
    return f"{minutes:.0f} min ago" if minutes < 120 else f"{minutes / 60:.0f} h ago"
