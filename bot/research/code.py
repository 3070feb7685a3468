"""Code of public GitHub repositories: searched and read, through whatever client the caller gives.

GitHub's code search needs an account, so the App's installation asks; what it could see beside public repositories is
left out: every repository is looked up and has to say that it is public before a line of it is shown.

https://docs.github.com/en/rest/search/search#search-code · https://docs.github.com/en/rest/repos/contents
"""

from __future__ import annotations

import base64
import binascii
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote

from bot.research.errors import Malformed, NotFound, Refused

HOST = "api.github.com"
MOST_HITS = 30
MOST_BYTES = 1 << 20
"""Of a file: GitHub sends larger ones in another way."""
_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,38}/[A-Za-z0-9._-]{1,100}")
_PATH = re.compile(r"[^/\0\\?#%][^\0\\?#%]{0,255}")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,99}")
_QUALIFIER = re.compile(r"\b(?:repo|org|user|is|in|fork|archived|path|enterprise|saved):", re.IGNORECASE)
_HOUR = 3600.0


class Reader(Protocol):
    """A client of GitHub that reads, each request of which passes `Web` (`get`, or `admit` before it is sent)."""

    async def read(self, path: str, params: Mapping[str, str], accept: str) -> Any:
        """The JSON of `GET <path>`. Raises: NotFound, Busy, Refused, Malformed."""
        ...


@dataclass(frozen=True, slots=True)
class CodeHit:
    repository: str
    path: str
    fragments: tuple[str, ...]
    """Pieces of the file around what was looked for."""
    source: str
    fetched_at: float


@dataclass(frozen=True, slots=True)
class CodeFile:
    repository: str
    path: str
    revision: str
    """As it was asked for; empty for the default branch."""
    sha: str
    """Of the blob."""
    text: str
    source: str
    fetched_at: float


class Code:
    def __init__(self, reader: Reader, clock: Callable[[], float] = time.time) -> None:
        self._reader, self._clock = reader, clock
        self._public: dict[str, tuple[bool, float]] = {}

    async def search(self, words: str, *, language: str = "", repository: str = "", limit: int = 10) -> list[CodeHit]:
        """Files of public repositories that hold `words`. Raises: Refused, Busy, Malformed."""
        if _QUALIFIER.search(words):
            raise Refused("Search for words of the code itself: what narrows the search is given beside them.")
        if language and not re.fullmatch(r"[A-Za-z0-9+#-]{1,30}", language):
            raise Refused(f"`{language[:40]}` is no language of GitHub's.")
        if repository:
            await self._require_public(repository)
        query = " ".join([words, *([f"language:{language}"] if language else []),
                          *([f"repo:{repository}"] if repository else [])])  # fmt: skip
        params = {"q": query, "per_page": str(max(1, min(limit, MOST_HITS)))}
        answer = await self._read("/search/code", params, "application/vnd.github.text-match+json")
        items = answer.get("items") if isinstance(answer, dict) else None
        if not isinstance(items, list):
            raise Malformed("GitHub's code search answered without `items`.")
        hits = [self._hit(item) for item in items]
        return [hit for hit in hits if hit is not None and await self._is_public(hit.repository)]

    async def read(self, repository: str, path: str, *, revision: str = "") -> CodeFile:
        """One text file. Raises: NotFound, Refused (private, too large, no text), Busy, Malformed."""
        if not _PATH.fullmatch(path) or any(part in ("", ".", "..") for part in path.split("/")):
            raise Refused(f"`{path[:80]}` is no path inside of a repository.")
        if revision and (not _REVISION.fullmatch(revision) or ".." in revision):
            raise Refused(f"`{revision[:80]}` is no branch, tag or commit.")
        await self._require_public(repository)
        params = {"ref": revision} if revision else {}
        answer = await self._read(f"/repos/{repository}/contents/{quote(path)}", params)
        if isinstance(answer, list) or (isinstance(answer, dict) and answer.get("type") not in (None, "file")):
            raise Refused(f"`{path}` of {repository} is no file: name one inside of it.")
        return self._file(repository, path, revision, answer)

    async def folder(self, repository: str, path: str = "", *, revision: str = "") -> list[str]:
        """Paths in a folder, those of folders with a slash at the end. Raises: as `read`."""
        if path and (not _PATH.fullmatch(path) or any(part in ("", ".", "..") for part in path.split("/"))):
            raise Refused(f"`{path[:80]}` is no path inside of a repository.")
        await self._require_public(repository)
        params = {"ref": revision} if revision else {}
        answer = await self._read(f"/repos/{repository}/contents/{quote(path)}".rstrip("/"), params)
        if not isinstance(answer, list) or not all(isinstance(each, dict) for each in answer):
            raise Refused(f"`{path}` of {repository} is no folder.")
        return [f"{each.get('path')}{'/' if each.get('type') == 'dir' else ''}" for each in answer]

    def _hit(self, item: Any) -> CodeHit | None:
        """None for what GitHub itself calls private."""
        repository = item.get("repository") if isinstance(item, dict) else None
        if not isinstance(repository, dict) or not isinstance(repository.get("full_name"), str):
            raise Malformed("GitHub's code search named no repository of a file.")
        if repository.get("private") is not False or not _REPOSITORY.fullmatch(repository["full_name"]):
            return None
        matches = item.get("text_matches") or []
        fragments = [str(each.get("fragment", ""))[:1000] for each in matches if isinstance(each, dict)]
        source = f"https://github.com/{repository['full_name']}/blob/HEAD/{quote(str(item.get('path', '')))}"
        return CodeHit(repository["full_name"], str(item.get("path", "")), tuple(fragments[:5]), source, self._clock())

    def _file(self, repository: str, path: str, revision: str, answer: Any) -> CodeFile:
        if not isinstance(answer, dict) or not isinstance(answer.get("content"), str):
            raise Malformed(f"GitHub sent `{path}` of {repository} without its content.")
        if int(answer.get("size") or 0) > MOST_BYTES or (answer.get("encoding") == "none"):
            raise Refused(f"`{path}` of {repository} is larger than {MOST_BYTES // 2**20} MiB, the most that is read.")
        if answer.get("encoding") != "base64":
            raise Malformed(f"GitHub sent `{path}` of {repository} in no known encoding.")
        try:
            data = base64.b64decode("".join(answer["content"].split()), validate=True)
            text = data.decode("utf-8")
        except binascii.Error:
            raise Malformed(f"GitHub sent `{path}` of {repository} with a broken content.") from None
        except UnicodeDecodeError:
            raise Refused(f"`{path}` of {repository} is no text.") from None
        source = f"https://github.com/{repository}/blob/{revision or 'HEAD'}/{quote(path)}"
        return CodeFile(repository, path, revision, str(answer.get("sha") or ""), text, source, self._clock())

    async def _require_public(self, repository: str) -> None:
        if not _REPOSITORY.fullmatch(repository) or repository.endswith((".", ".git")):
            raise Refused(f"`{repository[:80]}` is no repository: write it as `owner/name`.")
        if not await self._is_public(repository):
            raise Refused(f"{repository} is not public, and research reads public repositories alone.")

    async def _is_public(self, repository: str) -> bool:
        """As GitHub says it, at most an hour ago. A repository that is not there is not public."""
        known, at = self._public.get(repository, (False, float("-inf")))
        if self._clock() - at < _HOUR:
            return known
        try:
            answer = await self._read(f"/repos/{repository}", {})
        except NotFound:
            answer = {}
        public = (
            isinstance(answer, dict)
            and answer.get("private") is False
            and answer.get("visibility", "public") == "public"
        )
        self._public[repository] = (public, self._clock())
        return public

    async def _read(self, path: str, params: Mapping[str, str], accept: str = "application/vnd.github+json") -> Any:
        return await self._reader.read(path, params, accept)
