"""The pull request, through PyGithub and the workflow's token: its base, and one comment that is kept up to date."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from actions.request import Request
from bot.errors import PlatformError, UserError

if TYPE_CHECKING:
    from github import Github
    from github.IssueComment import IssueComment
    from github.Repository import Repository

LARGEST_COMMENT = 60_000
"""GitHub refuses a body of more than 65,536 characters."""
_WORKFLOW_ACCOUNT = "github-actions[bot]"
_VIEWER = "query { viewer { login } }"


def client(request: Request) -> Github:
    """Raises: UserError without a token."""
    from github import Auth, Github

    if not request.github_token:
        raise UserError("github-token is empty; leave the input out to use the workflow's own token.")
    api = os.environ.get("GITHUB_API_URL", "https://api.github.com")
    return Github(
        auth=Auth.Token(request.github_token), base_url=api, user_agent="postdoc-action", retry=2, timeout=30, lazy=True
    )


def repository(github: Github) -> Repository:
    return github.get_repo(os.environ["GITHUB_REPOSITORY"])


def base_sha_of(request: Request, number: int) -> str:
    """Raises: PlatformError when GitHub does not say."""
    from github import GithubException

    try:
        return repository(client(request)).get_pull(number).base.sha
    except GithubException as error:
        raise PlatformError(f"pull request #{number} cannot be read: {_said(error)}") from error


def post_comment(request: Request, number: int, body: str) -> str:
    """Write the comment of this job and mode, or edit the one that is there; its address.

    Raises: PlatformError with GitHub's words, when the token may not write (a fork's pull request) for one.
    """
    from github import GithubException

    key = f"<!-- postdoc-action:{_key(request)} -->"
    text = f"{key}\n{body[:LARGEST_COMMENT]}"
    try:
        github = client(request)
        issue = repository(github).get_issue(number)
        own = _account(github, request.github_token)
        # Others can write our key into a comment of theirs, which is not ours to edit then.
        mine = (each for each in issue.get_comments() if each.user.login == own and each.body.startswith(key))
        found: IssueComment | None = next(mine, None)
        if found is None:
            return issue.create_comment(text).html_url
        if found.body != text:
            found.edit(text)
        return found.html_url
    except GithubException as error:
        raise PlatformError(f"the comment cannot be written: {_said(error)}") from error


def _key(request: Request) -> str:
    """One comment for each job of each workflow file, whatever the run."""
    path = os.environ.get("GITHUB_WORKFLOW_REF", "").partition("@")[0].rpartition("/")[2]
    parts = (path or os.environ.get("GITHUB_WORKFLOW", ""), os.environ.get("GITHUB_JOB", ""), request.mode)
    return "/".join("".join(c if c.isalnum() or c in "._-" else "-" for c in part) for part in parts)


def _account(github: Github, token: str) -> str:
    """Who this token writes as. An App's account is called `slug[bot]` by REST and, in places, `slug` by GraphQL."""
    from github import GithubException

    try:
        _, answer = github.requester.graphql_query(_VIEWER, {})
        login = str(answer["data"]["viewer"]["login"])
    except (GithubException, KeyError, TypeError):
        return _WORKFLOW_ACCOUNT
    return f"{login.removesuffix('[bot]')}[bot]" if token.startswith("ghs_") else login


def _said(error: Exception) -> str:
    data = getattr(error, "data", None)
    message = data.get("message") if isinstance(data, dict) else None
    return f"{getattr(error, 'status', '')} {message or type(error).__name__}".strip()
