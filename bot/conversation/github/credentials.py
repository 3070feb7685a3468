"""Proving who we are: the App's short-lived JWT, and for each installation a token that GitHub hands out for an hour.

Both live by GitHub's clock, not by this machine's: every answer's Date header says how far the two are apart.
https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from bot.conversation.github.answers import github_date, moment
from bot.errors import SettingsError

ISSUED_BEFORE_SECONDS = 60
"""GitHub advises to date a JWT back, against clocks that are slightly off."""
JWT_SECONDS = 540
"""From issue to end; GitHub takes at most 600."""
REFRESH_SECONDS = 300.0
"""A token is not used in its last minutes, so that no request outlives it."""
TOKEN_SECONDS = 3600.0
SKEW_NOISE_SECONDS = 2.0
"""The Date header has whole seconds, and an answer takes its time: less than this is no skew."""


@dataclass(frozen=True, slots=True)
class Token:
    """An installation token. Its value, of any length, is in no representation of it."""

    value: str = field(repr=False)
    expires_at: float
    """Seconds since 1970, by GitHub's clock."""


class Credentials:
    """The App's key and the tokens it was given. Threads may share it; nothing in it is ever written down."""

    def __init__(self, app_id: str, private_key: str, *, clock: Callable[[], float] = time.time) -> None:
        """Raises: SettingsError for a key that GitHub cannot have made."""
        self._app_id, self._clock = app_id, clock
        self._key = _read_key(private_key)
        self._lock = threading.Lock()
        self._jwt: tuple[str, float, float] | None = None
        """(JWT, until when it is used by GitHub's clock, the skew it was signed with)."""
        self._tokens: dict[int, Token] = {}
        self.skew_seconds = 0.0
        """How far GitHub's clock is ahead of this machine's."""

    def github_time(self) -> float:
        """GitHub's clock, in seconds since 1970."""
        return self._clock() + self.skew_seconds

    def observe(self, response: httpx.Response) -> None:
        """Set our idea of GitHub's clock by an answer that has just arrived."""
        date = github_date(response)
        if date is None:
            return
        skew = date + 0.5 - self._clock()
        if abs(skew - self.skew_seconds) > SKEW_NOISE_SECONDS:
            self.skew_seconds = skew if abs(skew) > SKEW_NOISE_SECONDS else 0.0

    def app_jwt(self) -> str:
        with self._lock:
            now = self.github_time()
            if self._jwt is not None and now < self._jwt[1] and self._jwt[2] == self.skew_seconds:
                return self._jwt[0]
            issued = int(now) - ISSUED_BEFORE_SECONDS
            claims = {"iss": self._app_id, "iat": issued, "exp": issued + JWT_SECONDS}
            signed = jwt.encode(claims, self._key, algorithm="RS256")
            self._jwt = (signed, issued + JWT_SECONDS - 60.0, self.skew_seconds)
            return signed

    def token(self, installation_id: int) -> str | None:
        """The installation's token; None when it has none that lasts."""
        with self._lock:
            token = self._tokens.get(installation_id)
            if token is None or self.github_time() >= token.expires_at - REFRESH_SECONDS:
                return None
            return token.value

    def keep(self, installation_id: int, answer: Mapping[str, Any]) -> str:
        """Keep the token of GitHub's answer. Raises: KeyError where there is none in it."""
        ends = moment(answer.get("expires_at")) or self.github_time() + TOKEN_SECONDS
        token = Token(str(answer["token"]), ends)
        with self._lock:
            self._tokens[installation_id] = token
        return token.value

    def forget(self, installation_id: int, value: str) -> None:
        """Drop a token that was refused, unless another task has put a newer one in its place."""
        with self._lock:
            kept = self._tokens.get(installation_id)
            if kept is not None and kept.value == value:
                del self._tokens[installation_id]


def _read_key(pem: str) -> RSAPrivateKey:
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError) as error:
        raise SettingsError(
            "The App's private key cannot be read; download a new one from the App's settings page."
        ) from error
    if not isinstance(key, RSAPrivateKey):
        raise SettingsError("The App's private key is not an RSA key; download it from the App's settings page.")
    return key
