"""The part of the Hugging Face Hub that models are put on by: repositories, large files and commits, over HTTP.

What huggingface_hub asks for without Xet: https://huggingface.co/docs/hub/api and, for large files,
https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs

import yaml


@dataclass
class Model:
    private: bool = True
    gated: bool = False
    """Its facts are for everybody, its files for those who may write."""
    files: dict[str, bytes] = field(default_factory=lambda: {".gitattributes": b"*.safetensors filter=lfs\n"})
    commits: list[str] = field(default_factory=list)
    """Their messages."""
    history: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """Commit -> files at it."""

    @property
    def sha(self) -> str:
        return hashlib.sha1(repr((sorted(self.files.items()), self.commits)).encode()).hexdigest()

    @property
    def card(self) -> dict[str, Any]:
        text = self.files.get("README.md", b"").decode()
        return dict(yaml.safe_load(text.split("---\n")[1])) if text.startswith("---\n") else {}


@dataclass
class Answer:
    status: int
    body: Any = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    file: bytes | None = None
    """Sent as it is, instead of `body`."""


class FakeModels:
    def __init__(self) -> None:
        self.models: dict[str, Model] = {}
        self.writers: dict[str, set[str]] = {"hf_writer": {"acme"}}
        """Token -> namespaces, or single repositories, that it sees and writes."""
        self.lock = threading.Lock()
        self.large: dict[str, bytes] = {}
        """SHA-256 -> content of a large file."""

    def answer(self, method: str, path: str, body: bytes, token: str, url: str, query: str = "") -> Answer | None:
        """None: not about models."""
        if path == "/api/models":
            return self._listed({key: values[0] for key, values in parse_qs(query).items()})
        parts = path.strip("/").split("/")
        data = json.loads(body) if body[:1] == b"{" and "/commit/" not in path else {}
        if path == "/api/repos/create":
            return self._create(data, token, url)
        if path == "/api/validate-yaml":
            return self._validated(data["content"])
        if parts[0] == "lfs" and method == "PUT":
            if hashlib.sha256(body).hexdigest() != parts[1]:
                return Answer(400)
            self.large[parts[1]] = body
            return Answer(200)
        if parts[0] == "lfs":
            return Answer(200 if data["oid"] in self.large else 404)
        if path.endswith(".git/info/lfs/objects/batch"):
            return self._batch(path.removesuffix(".git/info/lfs/objects/batch").strip("/"), data, token, url)
        if (asked := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)) and asked[1] in self.models:
            return self._download(self.models[asked[1]], asked[1], asked[2], asked[3], token)
        repo, rest = "/".join(parts[2:4]), parts[4:]
        if path.startswith("/api/datasets/") and (token in self.writers or f"datasets/{repo}" in self.models):
            repo = f"datasets/{repo}"  # those that somebody writes; what is only read has a place of its own
        elif not path.startswith("/api/models/"):
            return None
        found = self.models.get(repo)
        if found is None or (found.private and not self._may(token, repo)):
            return Answer(404 if token else 401, {}, {"X-Error-Code": "RepoNotFound"})
        if not rest or rest[0] == "revision":
            return Answer(200, self._info(repo, found))
        if rest[0] == "tree":
            return self._tree(found, "/".join(rest[2:]))
        if not self._may(token, repo):
            return Answer(403, {"error": "Forbidden: pass `create_pr=1` as a query parameter"})
        return self._preupload(found, data) if rest[0] == "preupload" else self._commit(repo, found, body, url)

    def _may(self, token: str, repo: str) -> bool:
        repo = repo.removeprefix("datasets/")
        return not {repo, repo.partition("/")[0]}.isdisjoint(self.writers.get(token, ()))

    def _listed(self, asked: dict[str, str]) -> Answer:
        """By `filter=base_model:ID`, or by `author` and `search`; private ones never."""
        names = []
        for name, model in self.models.items():
            made_from = model.card.get("base_model") or []
            bases = made_from if isinstance(made_from, list) else [made_from]
            if "filter" in asked:
                fits = asked["filter"].removeprefix("base_model:") in bases
            else:
                owner, _, own = name.partition("/")
                fits = owner == asked.get("author") and asked.get("search", "").lower() in own.lower()
            if fits and not model.private:
                names.append({"id": name, "modelId": name, "tags": [], "downloads": 0, "likes": 0, "private": False})
        return Answer(200, names[: int(asked.get("limit", 100))])

    def _download(self, found: Model, repo: str, revision: str, path: str, token: str) -> Answer:
        if found.private and not self._may(token, repo):
            return Answer(404 if token else 401, {}, {"X-Error-Code": "RepoNotFound"})
        if found.gated and not self._may(token, repo):
            return Answer(403, {}, {"X-Error-Code": "GatedRepo"})
        current = found.files if revision in ("main", found.sha) else None
        files = found.history.get(revision, current)
        if files is None:
            return Answer(404, {}, {"X-Error-Code": "RevisionNotFound"})
        if path not in files:
            return Answer(404, {}, {"X-Error-Code": "EntryNotFound"})
        headers = {"ETag": f'"{hashlib.sha256(files[path]).hexdigest()}"', "Accept-Ranges": "bytes"}
        commit = found.sha if revision == "main" else revision
        return Answer(200, headers=headers | {"X-Repo-Commit": commit}, file=files[path])

    def _tree(self, found: Model, folder: str) -> Answer:
        prefix = f"{folder}/" if folder else ""
        below = {path: data for path, data in found.files.items() if path.startswith(prefix)}
        if folder and not below:
            return Answer(404, {"error": "not found"}, {"X-Error-Code": "EntryNotFound"})
        files = [
            {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
            for path, data in below.items() if not folder or "/" not in path.removeprefix(prefix)
        ]  # fmt: skip
        return Answer(200, files)

    def _create(self, data: dict[str, Any], token: str, url: str) -> Answer:
        repo = f"{data['organization']}/{data['name']}"
        if data.get("type") == "dataset":
            repo = f"datasets/{repo}"
        if not self._may(token, repo):
            return Answer(403, {"error": "You don't have the rights to create a model under this namespace"})
        if repo in self.models:
            return Answer(409, {"error": "You already created this model repo", "url": f"{url}/{repo}"})
        self.models[repo] = Model(private=data["visibility"] == "private")
        return Answer(200, {"url": f"{url}/{repo}"})

    def _validated(self, content: str) -> Answer:
        front = yaml.safe_load(content.split("---\n")[1])
        errors = [{"message": f'"{key}" is required'} for key in ("license", "base_model") if not front.get(key)]
        return Answer(400 if errors else 200, {"errors": errors, "warnings": []})

    def _info(self, repo: str, found: Model) -> dict[str, Any]:
        return {
            "id": repo, "sha": found.sha, "private": found.private,
            "gated": "auto" if found.gated else False, "disabled": False, "downloads": 0,
            "likes": 0, "tags": [], "siblings": [_sibling(name, data) for name, data in found.files.items()],
            "cardData": found.card,
        }  # fmt: skip

    def _preupload(self, found: Model, data: dict[str, Any]) -> Answer:
        files = []
        for path in (each["path"] for each in data["files"]):
            there, large = found.files.get(path), path.endswith((".safetensors", ".tar"))
            oid = None
            if there is not None:
                blob = b"blob %d\0" % len(there) + there
                oid = hashlib.sha256(there).hexdigest() if large else hashlib.sha1(blob).hexdigest()
            mode = "lfs" if large else "regular"
            files.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return Answer(200, {"files": files})

    def _batch(self, repo: str, data: dict[str, Any], token: str, url: str) -> Answer:
        if not self._may(token, repo):
            return Answer(403)
        objects = []
        for wanted in data["objects"]:
            actions = {"upload": {"href": f"{url}/lfs/{wanted['oid']}"}, "verify": {"href": f"{url}/lfs/verify"}}
            objects.append(wanted if wanted["oid"] in self.large else wanted | {"actions": actions})
        return Answer(200, {"transfer": "basic", "objects": objects})

    def _commit(self, repo: str, found: Model, body: bytes, url: str) -> Answer:
        with self.lock:
            return self._committed(repo, found, body, url)

    def _committed(self, repo: str, found: Model, body: bytes, url: str) -> Answer:
        found.history[found.sha] = found.files
        files = dict(found.files)
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            match line["key"]:
                case "header":
                    if value.get("parentCommit", found.sha) != found.sha:
                        return Answer(412, {"error": "A commit has happened since. Please refresh and try again."})
                    message = value["summary"]
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    files[value["path"]] = self.large[value["oid"]]
                case "deletedFile":
                    del files[value["path"]]
        found.files = files
        found.commits.append(message)
        found.history[found.sha] = files
        return Answer(200, {"commitUrl": f"{url}/{repo}/commit/{found.sha}", "commitOid": found.sha})


def _sibling(name: str, data: bytes) -> dict[str, Any]:
    """A file as the Hub lists it with `blobs=true`: a large one with the SHA-256 of its content."""
    found: dict[str, Any] = {"rfilename": name, "size": len(data), "blobId": hashlib.sha1(data).hexdigest()}
    if name.endswith(".safetensors"):
        found["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
    return found


def body_of(request: BaseHTTPRequestHandler) -> bytes:
    if request.headers.get("transfer-encoding", "") != "chunked":
        return request.rfile.read(int(request.headers.get("content-length") or 0))
    pieces = []
    while size := int(request.rfile.readline(), 16):
        pieces.append(request.rfile.read(size))
        request.rfile.readline()
    request.rfile.readline()
    return b"".join(pieces)
