"""A job's store behind the server's endpoints (`bot/server/job_store.py`), with the standard library alone: the wrapper
runs in whatever environment the other machine has.

What is large travels in pieces and goes on after a broken connection where it stopped: outwards with `Content-Range`
(an empty piece `bytes */TOTAL` asks how much has arrived), inwards with `Range`. The whole is checked by its
`Repr-Digest` (RFC 9530) before it counts as arrived.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import logging
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from email.message import Message
from pathlib import Path
from typing import IO, Any, NamedTuple

from bot.errors import PlatformError, UserError
from runners.remote.store import StoreClosed, check_key

log = logging.getLogger("postdoc.store")

PIECE_BYTES = 32 << 20
_ANSWER_SECONDS = 60.0
_LAST_PIECE_SECONDS = 900.0
"""The other side reads all of it once more before it answers the last piece."""
_TRIES_WITHOUT_PROGRESS = 5
_LARGEST_ANSWER_BYTES = 64 << 20
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The token is for one address; where that sends its callers elsewhere, it does not go along."""

    def redirect_request(self, *_: Any) -> None:
        return None


class _Answer(NamedTuple):
    status: int
    body: bytes
    headers: Message


class HttpStore:
    """One job's store at `https://SERVER/runs/JOB/store`."""

    def __init__(self, address: str, token: str, *, piece_bytes: int = PIECE_BYTES) -> None:
        """Raises: UserError for an address at which the token could be read on the way."""
        parts = urllib.parse.urlsplit(address)
        if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
            raise UserError(f"{parts.scheme}://{parts.hostname}: over http the job could be read on the way; use https")
        if not token:
            raise UserError("a store behind an address needs the job's token, in the file that is named for it")
        self._address = address.rstrip("/")
        self._token = token
        self._piece_bytes = piece_bytes
        self._opener = urllib.request.build_opener(_NoRedirect)

    # the protocol

    def read(self, key: str) -> bytes | None:
        answer = self._ask("GET", key)
        return None if answer is None else answer.body

    def write(self, key: str, content: bytes) -> None:
        self._ask("PUT", key, data=content)

    def names(self, prefix: str) -> Sequence[str]:
        answer = self._ask("GET", "", query={"prefix": prefix})
        assert answer is not None
        return [str(name) for name in _object(answer)["names"]]

    def fetch(self, key: str, path: Path) -> bool:
        with open(path, "wb") as file:
            tries, found = 0, None
            while found is None:
                have = file.tell()
                problem: Exception = PlatformError("the connection ended early")
                try:
                    found = self._continue(key, file)
                except StoreClosed:
                    raise
                except (OSError, PlatformError, http.client.HTTPException) as error:
                    problem = error
                if found is None:
                    tries = 1 if file.tell() > have else tries + 1
                    _pause_or_give_up(tries, problem)
        return found

    def push(self, path: Path, key: str) -> None:
        total = path.stat().st_size
        if total <= self._piece_bytes:
            self.write(key, path.read_bytes())
            return
        digest = _repr_digest(path)
        received, furthest, tries = -1, -1, 0
        with open(path, "rb") as file:
            while received < total:
                try:
                    received = self._send_piece(key, file, received, total, digest)
                except StoreClosed:
                    raise
                except (OSError, PlatformError) as error:
                    received = -1  # asked anew: some of it may have arrived
                    tries += 1
                    _pause_or_give_up(tries, error)
                if received > furthest:
                    furthest, tries = received, 0

    # pieces

    def _send_piece(self, key: str, file: IO[bytes], received: int, total: int, digest: str) -> int:
        """How much has arrived after the next piece; with `received` -1, how much had before."""
        headers = {"Repr-Digest": digest, "Content-Range": f"bytes */{total}"}
        data, seconds = b"", _ANSWER_SECONDS
        if received >= 0:
            file.seek(received)
            data = file.read(min(self._piece_bytes, total - received))
            headers["Content-Range"] = f"bytes {received}-{received + len(data) - 1}/{total}"
            seconds = _LAST_PIECE_SECONDS if received + len(data) == total else seconds
        answer = self._ask("PUT", key, data=data, headers=headers, seconds=seconds, known=(416,))
        assert answer is not None
        return total if answer.status == 201 else int(_object(answer)["received"])

    def _continue(self, key: str, file: IO[bytes]) -> bool | None:
        """Append what is still missing: True when it is whole, False when there is no such file, None to go on."""
        have = file.tell()
        request = self._request("GET", key, headers={"Range": f"bytes={have}-"} if have else {})
        try:
            with self._opener.open(request, timeout=_ANSWER_SECONDS) as response:
                total = int(response.headers["Content-Length"])
                if have and response.status != 206:
                    file.seek(0)
                    file.truncate()
                elif have:
                    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
                    if match is None or int(match[1]) != have:
                        raise PlatformError("the store answered with another part of the file than was asked for")
                    total = int(match[3])
                while chunk := response.read(1 << 20):
                    file.write(chunk)
        except urllib.error.HTTPError as error:
            if error.code == 416 and have:
                return True  # nothing is left after the end
            self._explained(error)
            return False
        return True if file.tell() == total else None

    # one request

    def _request(
        self, method: str, key: str, *, data: bytes | None = None, headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> urllib.request.Request:  # fmt: skip
        address = f"{self._address}/{check_key(key)}" if key else self._address
        if query:
            address += f"?{urllib.parse.urlencode(query)}"
        given = {"Authorization": f"Bearer {self._token}", "User-Agent": "postdoc-wrapper", **(headers or {})}
        if data is not None:
            given.setdefault("Content-Type", "application/octet-stream")
        return urllib.request.Request(address, data, given, method=method)

    def _ask(
        self, method: str, key: str, *, data: bytes | None = None, headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None, seconds: float = _ANSWER_SECONDS, known: Sequence[int] = (),
    ) -> _Answer | None:  # fmt: skip
        """The answer, None for a file that is not there; `known` are refusals that the caller reads itself."""
        request = self._request(method, key, data=data, headers=headers, query=query)
        try:
            with self._opener.open(request, timeout=seconds) as response:
                return _Answer(response.status, response.read(_LARGEST_ANSWER_BYTES), response.headers)
        except urllib.error.HTTPError as error:
            if error.code in known:
                with error:
                    return _Answer(error.code, error.read(4096), error.headers)
            self._explained(error)
            return None
        except http.client.HTTPException as error:
            raise PlatformError(f"the store's answer could not be read: {type(error).__name__}") from error

    def _explained(self, error: urllib.error.HTTPError) -> None:
        """None for a file that is not there; raises what any other refusal means.

        A page of a proxy that happens to be a 404 or 410 is none of ours: only our own words end a job.
        """
        with error:
            try:
                said = json.loads(error.read(4096))
            except (OSError, ValueError, http.client.HTTPException):
                said = {}
        said = said if isinstance(said, dict) else {}
        why = str(said.get("error", error.reason))[:300]
        if error.code == 404 and said.get("missing") is True:
            return
        if said.get("closed") is True:
            raise StoreClosed(why)
        wait = error.headers.get("Retry-After", "")
        if error.code in (429, 503) and wait.isdecimal():
            time.sleep(min(int(wait), 30))
        raise PlatformError(f"the store answered {error.code}: {why}")


def _object(answer: _Answer) -> dict[str, Any]:
    try:
        found = json.loads(answer.body)
    except ValueError as error:
        raise PlatformError("the store's answer is no JSON") from error
    if not isinstance(found, dict):
        raise PlatformError("the store's answer is not the object that was asked for")
    return found


def _repr_digest(path: Path) -> str:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
    return f"sha-256=:{base64.b64encode(digest).decode()}:"


def _pause_or_give_up(tries: int, error: Exception) -> None:
    """Raises: PlatformError after several tries that brought nothing."""
    if tries >= _TRIES_WITHOUT_PROGRESS:
        raise PlatformError(f"nothing more arrives: {error}") from error
    log.warning("the connection broke and is taken up again: %s", error)
    time.sleep(0.1 * 2**tries)
