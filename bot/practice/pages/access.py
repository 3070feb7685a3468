"""Who is looking, and whether a request may act: loopback host names, a signed cookie, a CSRF token on every form.

Any web site can point a name of its own at 127.0.0.1 (DNS rebinding) or send a form here from a person's browser. The
first is refused by the Host header, the second by the token, the Origin and Sec-Fetch-Site.
Not covered: other programs on this machine. The forge holds nothing that needs guarding from them.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from starlette.requests import Request
from starlette.responses import Response

LOOPBACK_NAMES = frozenset(("127.0.0.1", "localhost", "::1"))
# Twice GitHub's longest comment in its longest encoding (3 bytes, each written %XX), and some room.
LARGEST_FORM = 65_536 * 18 + 65_536
SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    # Not no-referrer: a browser would then send `Origin: null` with our own forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Refused(Exception):
    """This request may not be answered; the message says what to do instead."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(frozen=True, slots=True)
class Visitor:
    """A browser, and the person it is signed in as."""

    nonce: str
    login: str | None
    csrf: str


class FormData:
    """The fields of a sent form; a missing one is empty."""

    def __init__(self, fields: dict[str, list[str]]) -> None:
        self._fields = fields

    def __getitem__(self, name: str) -> str:
        return self._fields.get(name, [""])[0]

    def integer(self, name: str) -> int:
        """Raises: Refused when it is not a whole number."""
        if not re.fullmatch(r"[0-9]{1,12}", self[name]):
            raise Refused(422, f"“{name}” must be a whole number.")
        return int(self[name])

    def every(self, name: str) -> list[str]:
        return self._fields.get(name, [])

    def markdown(self, name: str) -> str:
        """A text that a person typed, with the line ends that its textarea showed (browsers send CRLF)."""
        return self[name].replace("\r\n", "\n")


def require_loopback_host(request: Request) -> None:
    """Refuses a request that was sent to any other name than this machine's own."""
    name = urlsplit("//" + request.headers.get("host", "")).hostname or ""
    if name not in LOOPBACK_NAMES:
        raise Refused(421, "The practice forge answers on this machine only: use http://127.0.0.1 in the address.")


class Sessions:
    """Signs cookies with a key that lives as long as this forge."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def visitor(self, request: Request) -> Visitor:
        """The visitor named by the cookie, or a new one who is nobody yet."""
        nonce, _, rest = request.cookies.get(self._cookie(request), "").partition(".")
        login, _, signature = rest.rpartition(".")
        expected = self._sign("session", nonce, login)
        if not nonce or not hmac.compare_digest(signature.encode(), expected.encode()):
            nonce, login = secrets.token_urlsafe(18), ""
        return self._visitor(nonce, login)

    def signed_in(self, login: str) -> Visitor:
        """A visitor with a new nonce, so that tokens from before the sign-in are void."""
        return self._visitor(secrets.token_urlsafe(18), login)

    def remember(self, request: Request, reply: Response, visitor: Visitor) -> None:
        """Sets the cookie, unless the browser has just this one."""
        value = f"{visitor.nonce}.{visitor.login or ''}.{self._sign('session', visitor.nonce, visitor.login or '')}"
        name = self._cookie(request)
        if request.cookies.get(name) != value:
            reply.set_cookie(name, value, httponly=True, samesite="lax", path="/")

    def _visitor(self, nonce: str, login: str) -> Visitor:
        return Visitor(nonce, login or None, self._sign("csrf", nonce, login))

    def _cookie(self, request: Request) -> str:
        # Cookies are shared between the ports of a host; two forges must not sign each other's visitors out.
        return f"practice_session_{request.url.port or 80}"

    def _sign(self, *words: str) -> str:
        return hmac.new(self._key, "|".join(words).encode(), hashlib.sha256).hexdigest()


async def read_form(request: Request, visitor: Visitor) -> FormData:
    """The fields of a form that one of our own pages sent.

    Raises:
        Refused: when it came from elsewhere, without its token, or is too large.
    """
    if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
        raise Refused(403, "This form was sent from another site. Open the page on the practice forge and try again.")
    origin = request.headers.get("origin")
    if origin is not None and origin != f"{request.url.scheme}://{request.headers.get('host', '')}":
        raise Refused(403, "This form was sent from another site. Open the page on the practice forge and try again.")
    if not request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        raise Refused(415, "Send the page's own form.")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_FORM:
            raise Refused(413, "The text is too long: a comment holds at most 65,536 characters.")
    form = FormData(parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=1_000))
    if not hmac.compare_digest(form["csrf"].encode(), visitor.csrf.encode()):
        raise Refused(
            403, "This page was opened before you signed in, or the forge was restarted. Reload it and try again."
        )
    return form


def safe_return(address: str) -> str:
    """An address on this site to go back to; anything else becomes the front page."""
    return address if re.fullmatch(r"/(?![/\\])[^\x00-\x20\\]*", address) else "/"
