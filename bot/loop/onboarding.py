"""The onboarding pull request: what a repository needs to work with Postdoc, offered once and inert until merged.

Nothing is kept about it here: whether a repository was asked, and what it said, is read from GitHub each time. A pull
request from the branch `postdoc/configure` that was closed without being merged is a no for good, unless the App is
installed anew (its installation has another number then) or a person asks on that pull request.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import re
import urllib.parse
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from bot.conversation.github import GitHubApp, Refused, Repository, StaleHead
from bot.conversation.messages.keys import key_of
from bot.conversation.messages.onboarding import (
    ONBOARDING,
    OnboardingFacts,
    onboarding_body,
    onboarding_key,
    onboarding_title,
)
from bot.conversation.policy import POLICY_PATH
from bot.loop.world import TEMPLATES

BRANCH = "postdoc/configure"
FORM_FOLDER = ".github/ISSUE_TEMPLATE"
FORM_PATH = f"{FORM_FOLDER}/goal.yml"
WORKFLOW_PATH = ".github/workflows/postdoc.yml"
_SCHEMA_LINE = re.compile(r"\A# yaml-language-server: .*\n")
_LABEL_COLOUR = "5319e7"


class Standing(StrEnum):
    """What a repository has said to the offer."""

    CONFIGURED = "configured"
    """It has a policy on its default branch, however that came there."""
    OFFERED = "offered"
    """The pull request is open."""
    ACCEPTED = "accepted"
    """The pull request was merged; a policy that is gone since was removed by a person."""
    DECLINED = "declined"
    """The pull request was closed without being merged."""
    UNFIT = "unfit"
    """Nothing is ever proposed there: a fork, an archive, an empty repository, one without issues."""
    BLOCKED = "blocked"
    """A person has to do something first, which `why` says."""


@dataclass(frozen=True, slots=True)
class Answer:
    standing: Standing
    pull_request: int | None = None
    opened_at: float | None = None
    """When the pull request was opened, in seconds since 1970."""
    opened_now: bool = False
    why: str = ""


@dataclass(frozen=True, slots=True)
class Offer:
    """What is proposed, the same for every repository of a server."""

    label: str = "postdoc"
    schema_url: str | None = None
    """Where the policy's JSON Schema is served; None where no editor could reach it."""

    def policy(self) -> bytes:
        text = (TEMPLATES / "postdoc.yml").read_text(encoding="utf-8")
        line = f"# yaml-language-server: $schema={self.schema_url}\n" if self.schema_url else ""
        text = _SCHEMA_LINE.sub(lambda _: line, text)
        # JSON's strings are YAML's.
        return (
            text if self.label == "postdoc" else text.replace("goal: postdoc", f"goal: {json.dumps(self.label)}")
        ).encode()

    def form(self) -> bytes:
        text = (TEMPLATES / "issue_form" / "goal.yml").read_text(encoding="utf-8")
        if self.label != "postdoc":
            text = text.replace("labels: [postdoc]", f"labels: [{json.dumps(self.label)}]")
        return text.encode()

    @staticmethod
    def workflow() -> str:
        return (TEMPLATES / "workflows" / "postdoc.yml").read_text(encoding="utf-8")


async def offer_configuration(
    app: GitHubApp,
    installation_id: int,
    full_name: str,
    offer: Offer,
    *,
    asked_by: int = 0,
) -> Answer:
    """Open the onboarding pull request where it is due; doing so again changes nothing.

    `asked_by` is the id of the comment in which a person asked for it after a no.
    Raises: TransientError, Refused.
    """
    owner, _, name = full_name.partition("/")
    repository = app.repository(installation_id, owner, name)
    for last in (False, True):
        try:
            return await _offer(_Desk(app, installation_id, full_name, repository), offer, asked_by)
        except StaleHead:
            if last:
                raise
            await asyncio.sleep(0.2)  # another process was in the middle of the same: see what it has done
    raise AssertionError("not reached")


async def ensure_label(app: GitHubApp, installation_id: int, full_name: str, label: str) -> None:
    """Make the label that turns an issue into a goal, if the repository lacks it."""
    await _Desk.of(app, installation_id, full_name).ensure_label(label)


@dataclass(frozen=True, slots=True)
class _Desk:
    """One repository, and the few calls that only onboarding makes."""

    app: GitHubApp
    installation_id: int
    full_name: str
    repository: Repository

    @classmethod
    def of(cls, app: GitHubApp, installation_id: int, full_name: str) -> _Desk:
        owner, _, name = full_name.partition("/")
        return cls(app, installation_id, full_name, app.repository(installation_id, owner, name))

    async def call(self, method: str, path: str = "", **options: Any) -> Any:
        response = await self.app.call(self.installation_id, method, f"/repos/{self.full_name}{path}", **options)
        return response.json() if response.content else None

    async def ensure_label(self, label: str) -> None:
        try:
            await self.call("GET", f"/labels/{urllib.parse.quote(label, safe='')}")
            return
        except Refused as refused:
            if refused.status != 404:
                raise
        payload = {"name": label, "color": _LABEL_COLOUR, "description": "A post-training goal for Postdoc"}
        try:
            await self.call("POST", "/labels", json=payload)
        except Refused as refused:
            if refused.status != 422:  # somebody was faster
                raise

    async def pull_requests(self) -> list[dict[str, Any]]:
        """The pull requests from our branch that we opened ourselves, open or closed, newest last."""
        params = {"head": f"{self.full_name.partition('/')[0]}:{BRANCH}", "state": "all", "per_page": 100}
        login = await self.app.login()
        found = await self.call("GET", "/pulls", params=params)
        ours = [each for each in found if (each["user"] or {}).get("login") == login]
        return sorted(ours, key=lambda each: int(each["number"]))

    async def open_pull_request(self, payload: dict[str, Any]) -> dict[str, Any]:
        try:
            opened: dict[str, Any] = await self.call("POST", "/pulls", json=payload)
        except Refused as refused:
            there = [each for each in await self.pull_requests() if each["state"] == "open"]
            if refused.status != 422 or not there:
                raise
            return there[-1]
        return opened


async def _offer(desk: _Desk, offer: Offer, asked_by: int) -> Answer:
    about = await desk.call("GET")
    branch = str(about["default_branch"])
    base = await desk.repository.branch_head(branch)
    if why := _unfit(about, base):
        return Answer(Standing.UNFIT, why=why)
    assert base is not None
    if await desk.repository.file(POLICY_PATH, base) is not None:
        return Answer(Standing.CONFIGURED)
    earlier = await desk.pull_requests()
    key = onboarding_key(desk.full_name, desk.installation_id, asked_by)
    if earlier:
        last = earlier[-1]
        number, opened_at = int(last["number"]), _seconds(last["created_at"])
        if last["merged_at"]:
            return Answer(Standing.ACCEPTED, number, opened_at)
        if last["state"] == "open":
            return Answer(Standing.OFFERED, number, opened_at)
        if _declined([key_of(each["body"] or "") for each in earlier], key, desk.installation_id, asked_by):
            return Answer(Standing.DECLINED, number, opened_at)
    await desk.ensure_label(offer.label)
    files = {POLICY_PATH: offer.policy()}
    forms = await desk.repository.folder(FORM_FOLDER, base)
    if not any(re.fullmatch(r"goal\.ya?ml", path.rpartition("/")[2].lower()) for path in forms):
        files[FORM_PATH] = offer.form()
    if not await _commit(desk, branch, base, files):
        return Answer(Standing.BLOCKED, why=f"the branch {BRANCH} holds commits of somebody else's; delete it")
    facts = OnboardingFacts(
        full_name=desk.full_name, page=str(about["html_url"]), branch=branch, label=offer.label, files=tuple(files),
        workflow=offer.workflow(), workflow_path=WORKFLOW_PATH, first_form=not forms,
        private=bool(about["private"]), bot=(await desk.app.login()).removesuffix("[bot]"),
    )  # fmt: skip
    payload = {"head": BRANCH, "base": branch, "title": onboarding_title(), "body": onboarding_body(facts, key)}
    opened = await desk.open_pull_request(payload)
    return Answer(Standing.OFFERED, int(opened["number"]), _seconds(opened["created_at"]), opened_now=True)


def _unfit(about: dict[str, Any], base: str | None) -> str:
    if about["fork"]:
        return "a fork"
    if about.get("archived") or about.get("disabled"):
        return "archived"
    if not about.get("has_issues", True):
        return "its issues are turned off"
    return "" if base else "it has no commit yet"


def _declined(earlier: list[str | None], key: str, installation_id: int, asked_by: int) -> bool:
    """Whether the newest closed pull request is this installation's no, and nobody has asked since.

    `earlier` are the keys of all of them, newest last. A key that was edited away counts as a no.
    """
    if asked_by:
        return key in earlier  # that comment has had its pull request
    last = earlier[-1]
    return last is None or last.rpartition("/")[0] == key.rpartition("/")[0]


async def _commit(desk: _Desk, branch: str, base: str, files: dict[str, bytes]) -> bool:
    """Put `files` on our branch, as one commit on top of `base`; False when the branch is not ours to use."""
    trailer_key = f"{desk.full_name}/{ONBOARDING}/{base[:12]}"
    head = await desk.repository.create_branch(BRANCH, base)
    if head != base and f"Postdoc-Key: {trailer_key}" not in await _message(desk, head):
        compared = await desk.call("GET", f"/compare/{branch}...{BRANCH}")
        login = await desk.app.login()
        # Left by an attempt that was interrupted, or by an offer of long ago; a person's commits stay where they are.
        if any((commit["author"] or {}).get("login") != login for commit in compared["commits"]):
            return False
        await desk.call("PATCH", f"/git/refs/heads/{BRANCH}", json={"sha": base, "force": True})
    title = "Configure Postdoc"
    body = "Adds the policy with its defaults, which grant nothing that costs, and the form for goals."
    await desk.repository.commit(
        BRANCH, expected_head=base, message=f"{title}\n\n{body}\n", key=trailer_key, files=dict(files)
    )
    return True


async def _message(desk: _Desk, sha: str) -> list[str]:
    return str((await desk.call("GET", f"/git/commits/{sha}"))["message"]).splitlines()


def _seconds(stamp: str) -> float:
    return datetime.datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp()
