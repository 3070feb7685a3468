"""An artifact of this repository, fetched by its name: what an earlier job trained or measured."""

from __future__ import annotations

import os
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING

from actions.pull_request import client, repository
from actions.request import Request
from bot.errors import PlatformError, UserError

if TYPE_CHECKING:
    from github.Artifact import Artifact

LARGEST_BYTES = 200 << 30


def fetched_artifact(request: Request, text: str) -> Path:
    """The folder with the files of `NAME`, or of `NAME@RUN_ID` of one workflow run.

    Raises: UserError, PlatformError.
    """
    from github import GithubException

    name, _, run = text.partition("@")
    try:
        found = _newest(request, name, run)
    except GithubException as error:
        raise PlatformError(
            f"the artifacts cannot be listed ({error.status}): the job needs `actions: read`"
        ) from error
    folder = request.folder / "artifacts" / f"{found.id}"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=request.folder) as file:
        _download(request, found.archive_download_url, file)
        try:
            with zipfile.ZipFile(file) as archive:
                if sum(each.file_size for each in archive.infolist()) > LARGEST_BYTES:
                    raise UserError(f"the artifact {name} holds more than {LARGEST_BYTES >> 30} GiB")
                archive.extractall(folder)  # zipfile drops `..` and roots, and makes no links
        except zipfile.BadZipFile as error:
            raise PlatformError(f"the artifact {name} came back broken: {error}") from error
    return folder


def _newest(request: Request, name: str, run: str) -> Artifact:
    home = repository(client(request))
    if run and not run.isdecimal():
        raise UserError(f"artifact:{name}@{run}: write the workflow run's number behind @.")
    trusted: Callable[[Artifact], bool] | None
    if run:
        everything, trusted = home.get_workflow_run(int(run)).get_artifacts(), None
        where = f"workflow run {run}"
    else:
        everything, trusted = home.get_artifacts(name=name), _ours(request)
        where = "this workflow run or one of the default branch"
    found = [
        each for each in everything if each.name == name and not each.expired and (trusted is None or trusted(each))
    ]
    if not found:
        raise UserError(f"artifact:{name}: there is none of that name in {where}, or it has expired.")
    return max(found, key=lambda each: each.id)


def _ours(request: Request) -> Callable[[Artifact], bool]:
    """A fork's pull request uploads to the same list under any name it likes: of this workflow run, or of one of the
    default branch of this very repository (a fork's branch may be called the same)."""
    here = os.environ.get("GITHUB_RUN_ID", "")
    default = str((request.event.get("repository") or {}).get("default_branch", ""))

    def ours(artifact: Artifact) -> bool:
        run = artifact.raw_data.get("workflow_run") or {}
        if str(run.get("id")) == here:
            return True
        same = run.get("head_repository_id") is not None and run.get("head_repository_id") == run.get("repository_id")
        return same and bool(default) and run.get("head_branch") == default

    return ours


def _download(request: Request, url: str, file: IO[bytes]) -> None:
    """GitHub answers with an address that is good for one minute, at another host, which gets no token of ours."""
    question = urllib.request.Request(url, headers={"Authorization": f"Bearer {request.github_token}"})
    opener = urllib.request.build_opener(_Bare)
    try:
        with opener.open(question, timeout=60) as answer:
            while piece := answer.read(1 << 20):
                file.write(piece)
    except (OSError, urllib.error.HTTPError) as error:
        raise PlatformError(f"the artifact cannot be downloaded: {error}") from error
    file.seek(0)


class _Bare(urllib.request.HTTPRedirectHandler):
    """Follows a redirection without the request's headers."""

    def redirect_request(self, *words, **named):  # type: ignore[no-untyped-def]
        following = super().redirect_request(*words, **named)
        if following is not None:
            following.remove_header("Authorization")
        return following
