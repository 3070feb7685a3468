"""Who may look: the journals hold private issues.

Without `POSTDOC_API_TOKEN` only somebody on this machine may; with it, whoever holds the token, whatever the address.
Any web site can point a name of its own at 127.0.0.1 (DNS rebinding), so on loopback the Host header has to be a name
of this machine; and what a proxy hands on does not come from this machine, so it needs the token.
Not covered: other users of this machine when no token is set.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from bot.config import Settings
from bot.errors import UserError

SESSION_COOKIE = "postdoc_session"
SESSION_SECONDS = 12 * 3600.0
"""A working day; a browser left open asks for the token again."""
MOST_TRIES, TRIES_SECONDS = 10, 60.0
MOST_ADDRESSES = 1_000
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip")


class Denied(UserError):
    """This request may not be answered. `status` is the HTTP code: 401 where the token would help."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Access:
    """The rule for everything that shows a journal, and the sessions of browsers that have shown the token."""

    def __init__(self, settings: Settings, *, clock: Callable[[], float] = time.time) -> None:
        self._loopback, self._clock = settings.loopback, clock
        self._token = settings.api_token.get_secret_value() if settings.api_token is not None else None
        # From both secrets, so that a stolen cookie is no means to guess a short token; another token voids it.
        secret = settings.webhook_secret.get_secret_value().encode()
        self._key = hmac.new(secret, b"postdoc pages\0" + (self._token or "").encode(), hashlib.sha256).digest()
        self._tries: OrderedDict[str, deque[float]] = OrderedDict()

    @property
    def needs_token(self) -> bool:
        return self._token is not None

    def require(self, headers: Mapping[str, str], session: str = "") -> None:
        """Raises: Denied unless this request may be answered."""
        if self._token is None:
            self._require_this_machine(headers)
            return
        given = headers.get("authorization", "")
        if _same(given, f"Bearer {self._token}") or self.is_session(session):
            return
        raise Denied(401, "A bearer token is needed.")

    def _require_this_machine(self, headers: Mapping[str, str]) -> None:
        if not self._loopback:
            raise Denied(403, "Set POSTDOC_API_TOKEN to read this on an address that others can reach.")
        if any(name in headers for name in _FORWARDED):
            raise Denied(403, "Set POSTDOC_API_TOKEN to read this through a proxy.")
        if not _is_this_machine(headers.get("host", "")):
            raise Denied(421, "Without POSTDOC_API_TOKEN this answers to http://127.0.0.1 and http://localhost only.")

    def is_session(self, value: str) -> bool:
        """Whether a cookie is one that `sign_in` gave out and that has not expired."""
        until, _, rest = value.partition(".")
        nonce, _, digest = rest.partition(".")
        if self._token is None or not _same(digest, self._digest(until, nonce)):
            return False
        return until.isdigit() and int(until) > self._clock()

    def sign_in(self, token: str, address: str) -> str:
        """The cookie of a new session. `address` is where the request comes from.

        Raises: Denied for a wrong token, and after many of them for any.
        """
        if self._token is None:
            raise Denied(403, "No token is set on this server, so there is nothing to sign in to.")
        tries = self._tries_of(address)
        if len(tries) >= MOST_TRIES:
            raise Denied(429, "That was wrong many times. Wait a minute and try again.")
        if not _same(token.strip(), self._token):
            tries.append(self._clock())
            raise Denied(401, "That is not the token. It is the value of POSTDOC_API_TOKEN on the server.")
        until, nonce = str(int(self._clock() + SESSION_SECONDS)), secrets.token_urlsafe(12)
        return f"{until}.{nonce}.{self._digest(until, nonce)}"

    def _tries_of(self, address: str) -> deque[float]:
        tries = self._tries.setdefault(address, deque())
        self._tries.move_to_end(address)
        while len(self._tries) > MOST_ADDRESSES:
            self._tries.popitem(last=False)
        while tries and tries[0] < self._clock() - TRIES_SECONDS:
            tries.popleft()
        return tries

    def _digest(self, until: str, nonce: str) -> str:
        return hmac.new(self._key, f"{until}.{nonce}".encode(), hashlib.sha256).hexdigest()


def _is_this_machine(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _same(given: str, wanted: str) -> bool:
    """Compared by digests, so that the time taken says nothing about the text or its length."""
    one, other = (hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest() for text in (given, wanted))
    return hmac.compare_digest(one, other)
