"""The check `postdoc / policy`: whoever changes `.github/postdoc.yml` is told on the line what is wrong with it.

A pull request's policy, from a fork too, is read and never obeyed; nothing of it is run. A push to the default branch
gets the same check, because that is the file that counts.
"""

from __future__ import annotations

import logging
from typing import Any

from bot.conversation import events as hooks
from bot.conversation.github import GitHubApp, Refused, Repository
from bot.conversation.messages.policy import POLICY_CHECK, PolicyReport, policy_meaning, policy_mistakes
from bot.conversation.policy import POLICY_PATH, Policy, policy_places, read_policy
from bot.loop.onboarding import BRANCH, ensure_label

log = logging.getLogger("postdoc.policy")

_FILES_PER_PAGE, _MOST_FILES = 100, 3_000
"""GitHub lists no more of a pull request's files: https://docs.github.com/en/rest/pulls/pulls#list-pull-requests-files"""


class PolicyChecks:
    """Looks at pushes and pull requests as they arrive. A check that was made is not made again."""

    def __init__(self, app: GitHubApp, *, server_policy: Policy | None, label: str) -> None:
        self._app, self._server_policy, self._label = app, server_policy, label

    async def note(self, event: hooks.Occurrence) -> None:
        """Check what the event is about, when it is about a policy. Raises: TransientError, to be asked again."""
        try:
            match event:
                case hooks.PullRequestOpened() | hooks.PullRequestSynchronized():
                    await self._pull_request(event)
                case hooks.Push() if event.branch == event.where.default_branch and not event.deleted:
                    await self._push(event)
                case hooks.CheckRunRerequested() if event.name == POLICY_CHECK:
                    await self._again(event)
        except Refused as refused:
            where = event.where.full_name if not isinstance(event, hooks.InstallationChanged) else event.account
            log.warning("the policy of %s could not be checked: %s", where, refused)

    async def _pull_request(self, event: hooks.PullRequestOpened | hooks.PullRequestSynchronized) -> None:
        # Goals' own branches change with every run and never touch the policy.
        if event.sender.login == await self._app.login() and event.pull.head_ref != BRANCH:
            return
        changed = await self._changed_file(event.where, event.number)
        if changed is None:
            return
        repository = self._repository(event.where)
        data = None
        if changed == "there":
            # A fork's commit is part of the base repository too, as refs/pull/N/head.
            data = await repository.file(POLICY_PATH, event.pull.head_sha)
            data = data if data is not None else await repository.file(POLICY_PATH, f"refs/pull/{event.number}/head")
            if data is None:
                log.warning("%s#%d: the changed policy could not be read", event.where.full_name, event.number)
                return
        default = await repository.file(POLICY_PATH, event.where.default_branch)
        await self._check(event.where, event.pull.head_sha, data, default)

    async def _push(self, event: hooks.Push) -> None:
        repository = self._repository(event.where)
        after = await repository.file(POLICY_PATH, event.after)
        before = None if event.created else await repository.file(POLICY_PATH, event.before)
        if before == after:
            return
        policy = await self._check(event.where, event.after, after, before)
        if policy is not None and after is not None:
            # The goal form can only set a label that is there.
            await ensure_label(self._app, event.where.installation_id, event.where.full_name, self._label)

    async def _again(self, event: hooks.CheckRunRerequested) -> None:
        repository = self._repository(event.where)
        data = await repository.file(POLICY_PATH, event.head_sha)
        default = await repository.file(POLICY_PATH, event.where.default_branch)
        await self._check(event.where, event.head_sha, data, default, again=event.check_run_id)

    async def _changed_file(self, where: hooks.Where, number: int) -> str | None:
        """`there` or `removed` when the pull request changes the policy; None when it does not."""
        for page in range(1, _MOST_FILES // _FILES_PER_PAGE + 1):
            params = {"per_page": _FILES_PER_PAGE, "page": page}
            path = f"/repos/{where.full_name}/pulls/{number}/files"
            rows = (await self._app.call(where.installation_id, "GET", path, params=params)).json()
            for row in rows:
                if row["filename"] == POLICY_PATH:
                    return "removed" if row["status"] == "removed" else "there"
                if row.get("previous_filename") == POLICY_PATH:
                    return "removed"
            if len(rows) < _FILES_PER_PAGE:
                break
        return None

    async def _check(
        self, where: hooks.Where, sha: str, data: bytes | None, before: bytes | None, *, again: int | None = None
    ) -> Policy | None:
        """Write the check run on `sha`; returns the policy where it can be read."""
        policy, report = self._report(data, before)
        external_id = f"policy/{sha}" if again is None else f"policy/{sha}/again/{again}"
        root = f"/repos/{where.full_name}"
        params = {"check_name": POLICY_CHECK, "filter": "all", "per_page": 100}
        call = self._app.call
        found = (await call(where.installation_id, "GET", f"{root}/commits/{sha}/check-runs", params=params)).json()
        if not any(check["external_id"] == external_id for check in found["check_runs"]):
            payload: dict[str, Any] = {
                "name": POLICY_CHECK, "head_sha": sha, "external_id": external_id, "status": "completed",
                "conclusion": report.conclusion, "output": report.output,
            }  # fmt: skip
            await call(where.installation_id, "POST", f"{root}/check-runs", json=payload)
        return policy

    def _report(self, data: bytes | None, before: bytes | None) -> tuple[Policy | None, PolicyReport]:
        policy, problems = read_policy(data or b"")
        if policy is None:
            return None, policy_mistakes(problems)
        bounded = policy.bounded_by(self._server_policy)
        places = policy_places(data or b"")
        standing = read_policy(before or b"").policy
        return policy, policy_meaning(standing, policy, removed=data is None, cut=bounded, places=places)

    def _repository(self, where: hooks.Where) -> Repository:
        return self._app.repository(where.installation_id, where.owner, where.repository)
