"""Talks to the Hugging Face Hub, as a process of its own: `python hub_child.py`, a request as JSON on standard input.

A process, because the library's memory and a stalled download then end with it: it ends itself at its deadline, also
when nobody waits any more. Run by path, so that it imports nothing of ours.

    {"do": "resolve", "repo", "revision", "token", "seconds"}
        -> {"sha", "card", "files": [[path, bytes], ...]}
    {"do": "download", "repo", "revision", "token", "seconds", "files": [path, ...], "folder", "bytes"}
        -> {"files": [[path, bytes, sha256], ...]}
    {"do": "publish", "repo", "private", "token", "seconds", "folder", "message", "goal"}
        -> {"url", "sha", "private"}
    {"do": "keep", "repo", "token", "seconds", "files": [[path, file on this machine], ...], "message"}
        -> {"sha"}
    -> {"error": missing|revision|gated|token|forbidden|offline|file|busy, also taken|public|rejected for "publish" and
        "keep", "detail", "retry_after"}

Nothing of a data set is executed: files are written as they are, and read by `data/prepare.py` inside of a job.
"""

import fnmatch
import hashlib
import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

Json = dict[str, Any]
PUBLISHED = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "README.md", "recipe.yaml")
"""Names of the files that a published model may consist of: nothing that runs when it is loaded."""


class Refused(Exception):
    """What stands on the Hub does not allow this. `kind` is the error's word."""

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(detail)
        self.kind = kind


def main() -> None:
    request: Json = json.load(sys.stdin)
    signal.alarm(int(request["seconds"]))
    if "bytes" in request:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(request["bytes"]), int(request["bytes"])))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    prepare()
    answer = {"resolve": resolve, "download": download, "publish": publish, "keep": keep}[request["do"]]
    try:
        print(json.dumps(answer(request)))
    except Exception as error:
        print(json.dumps(told(error)))


def prepare() -> None:
    """Settings that the library reads when it is imported."""
    os.environ |= {
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
        # Xet keeps caches of its own that no limit here reaches; the Hub serves the same files without it.
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_ETAG_TIMEOUT": "15",
        "HF_HUB_DOWNLOAD_TIMEOUT": "15",
    }


def resolve(request: Json) -> Json:
    from huggingface_hub import HfApi

    info = HfApi().dataset_info(
        request["repo"], revision=request["revision"] or None, files_metadata=True, token=request["token"] or False,
        timeout=20,
    )  # fmt: skip
    if info.gated:  # its facts are for everybody, its files are not: better said now than when they are fetched
        HfApi().auth_check(request["repo"], repo_type="dataset", token=request["token"] or False)
    card = info.card_data.to_dict() if info.card_data is not None else {}
    files = [[file.rfilename, int(file.size or 0)] for file in info.siblings or ()]
    # Dates and the like of somebody's front matter: only what JSON knows goes further.
    return {"sha": info.sha, "card": json.loads(json.dumps(card, default=str)), "files": files}


def download(request: Json) -> Json:
    from huggingface_hub import hf_hub_download

    found = []
    for name in request["files"]:
        path = hf_hub_download(
            request["repo"], name, repo_type="dataset", revision=request["revision"], local_dir=request["folder"],
            token=request["token"] or False,
        )  # fmt: skip
        digest = hashlib.sha256()
        with Path(path).open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        found.append([name, Path(path).stat().st_size, digest.hexdigest()])
    return {"files": found}


def publish(request: Json) -> Json:
    """Make the model's repository hold exactly what is in the folder, by one commit. Repeating it changes nothing."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    api, repo = HfApi(token=request["token"]), request["repo"]
    try:
        try:
            info = api.model_info(repo, timeout=20)
        except RepositoryNotFoundError:
            # Also the answer where one is there that the token may not see; asking again then says so.
            api.create_repo(repo, private=request["private"], exist_ok=True)
            info = api.model_info(repo, timeout=20)
        there = {file.rfilename for file in info.siblings or ()} - {".gitattributes"}
        card = info.card_data.to_dict() if info.card_data is not None else {}
        # An empty one is what is left when this process ended between making it and filling it.
        if there and card.get("postdoc_goal") != request["goal"]:
            raise Refused("taken")
        if request["private"] and not info.private:
            raise Refused("public")
        new = sorted(path for path in Path(request["folder"]).iterdir() if path.is_file() and may_go(path.name))
        gone = sorted(name for name in there - {path.name for path in new} if may_go(name))
        # The commit that was looked at is named, so that a change by somebody else in between is not run over.
        done = api.create_commit(
            repo,
            [*(CommitOperationAdd(path.name, path) for path in new), *map(CommitOperationDelete, gone)],
            commit_message=request["message"], parent_commit=info.sha,
        )  # fmt: skip
    except ValueError as error:  # the name, the card or the commit is not as the Hub wants it
        raise Refused("rejected", str(error)) from error
    return {"url": f"{api.endpoint}/{repo}", "sha": done.oid, "private": bool(info.private)}


def keep(request: Json) -> Json:
    """Put files into a data set that is private, by one commit; it is made where there is none."""
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    api, repo = HfApi(token=request["token"]), request["repo"]
    try:
        try:
            info = api.dataset_info(repo, timeout=20)
        except RepositoryNotFoundError:
            api.create_repo(repo, repo_type="dataset", private=True, exist_ok=True)
            info = api.dataset_info(repo, timeout=20)
        if not info.private:
            raise Refused("public")
        adds = [CommitOperationAdd(path, file) for path, file in request["files"]]
        done = api.create_commit(repo, adds, repo_type="dataset", commit_message=request["message"])
    except ValueError as error:
        raise Refused("rejected", str(error)) from error
    return {"sha": done.oid}


def may_go(name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in PUBLISHED)


def told(error: Exception) -> Json:
    """The error as one of the words that the other side knows."""
    from huggingface_hub import errors

    if isinstance(error, Refused):
        return {"error": error.kind, "detail": str(error), "retry_after": None}
    if isinstance(error, RuntimeError) and isinstance(error.__cause__, Exception):
        return told(error.__cause__)  # an upload's failure, wrapped with the file's name
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    kind = "busy"
    if isinstance(error, errors.GatedRepoError):
        kind = "gated"
    elif isinstance(error, errors.RevisionNotFoundError):
        kind = "revision"
    elif isinstance(error, errors.RepositoryNotFoundError | errors.HFValidationError | errors.DisabledRepoError):
        kind = "missing"
    elif isinstance(error, errors.OfflineModeIsEnabled):
        kind = "offline"
    elif isinstance(error, errors.RemoteEntryNotFoundError):
        kind = "file"
    elif status in (401, 403, 404):
        kind = {401: "token", 403: "forbidden", 404: "missing"}[status]
    elif status in (402, 413, 422):  # no room, or no right to private repositories: the Hub says which
        said = getattr(error, "server_message", None) or type(error).__name__
        return {"error": "rejected", "detail": said, "retry_after": None}
    elif isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        # "Not found locally" is what a download says when the network failed; its cause says how.
        return told(error.__cause__)
    elif not isinstance(error, errors.HfHubHTTPError | OSError | errors.HTTPError):
        kind = "busy" if "httpx" in type(error).__module__ else "broken"
    wait = response.headers.get("retry-after") if response is not None else None
    retry_after = float(wait) if wait and wait.isdigit() else None
    return {"error": kind, "detail": type(error).__name__, "status": status, "retry_after": retry_after}


if __name__ == "__main__":
    main()
