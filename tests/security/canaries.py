"""Planted secrets, none of them real, and the forms in which one leaks."""

from __future__ import annotations

import base64
import json
import string
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from urllib.parse import quote

_LOT = Random(20260714)


def drawn(length: int, alphabet: str = string.ascii_letters + string.digits) -> str:
    """Characters drawn by lot, with a capital, a small letter and a digit among the first eight."""
    start = "aZ7" if alphabet == string.ascii_letters + string.digits else ""
    return start + "".join(_LOT.choices(alphabet, k=length - len(start)))


def _base64url(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def jwt(length: int = 0) -> str:
    head = _base64url('{"alg":"RS256","typ":"JWT"}')
    payload = _base64url(json.dumps({"iss": "123456", "iat": 1_900_000_000, "jti": drawn(24)}))
    return f"{head}.{payload}.{drawn(max(86, length - len(head) - len(payload) - 2))}"


def _pem(kind: str, first: str, lines: int) -> str:
    base = string.ascii_letters + string.digits + "+/"
    body = [first + drawn(64 - len(first), base)] + [drawn(64, base) for _ in range(lines - 2)] + [drawn(40, base)]
    return "\n".join([f"-----BEGIN {kind}-----", *body, f"-----END {kind}-----"])


@dataclass(frozen=True)
class Canary:
    """A secret and, where its shape alone says nothing, the words around it that do."""

    secret: str
    before: str = ""
    after: str = ""
    droppable: int = 0
    """How many of its first characters may be missing with the rest still recognised."""

    @property
    def text(self) -> str:
        return self.before + self.secret + self.after


CANARIES: dict[str, Canary] = {
    "ghs_old": Canary("ghs_" + drawn(36), droppable=2),
    "ghs_new": Canary("ghs_123456_" + jwt(509), droppable=12),
    "ghp": Canary("ghp_" + drawn(36), droppable=2),
    "github_pat": Canary("github_pat_" + drawn(22) + "_" + drawn(59), droppable=6),
    "hf": Canary("hf_" + drawn(34, string.ascii_letters), droppable=1),
    "anthropic": Canary("sk-ant-api03-" + drawn(93, string.ascii_letters + string.digits + "_-") + "AA", droppable=3),
    "openai": Canary("sk-proj-" + drawn(48)),
    "openai_old": Canary("sk-" + drawn(48)),
    "aws_id": Canary("AKIA" + drawn(16, string.ascii_uppercase + string.digits), droppable=1),
    "aws_secret": Canary("wJ4/" + drawn(18) + "+" + drawn(17), before="aws_secret_access_key = "),
    "google": Canary("AIza" + drawn(35), droppable=1),
    "slack": Canary(f"xoxb-{_LOT.randrange(10**11, 10**12)}-{_LOT.randrange(10**11, 10**12)}-{drawn(24)}", droppable=5),
    "wandb": Canary(drawn(40, "0123456789abcdef"), before="WANDB_API_KEY="),
    "jwt": Canary(jwt(), droppable=4),
    "pem_rsa": Canary(_pem("RSA PRIVATE KEY", "MIIEpAIBAAKCAQEA", 25), droppable=5),
    "pem_pkcs8": Canary(_pem("PRIVATE KEY", "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQ", 26), droppable=5),
    "postgres": Canary("pW7-" + drawn(14), before="postgresql://postdoc:", after="@db.internal:5432/postdoc"),
    "redis": Canary(drawn(20), before="redis://:", after="@cache.internal/0"),
}
FRAME = ("-----BEGIN RSA PRIVATE KEY-----", "-----END RSA PRIVATE KEY-----", "-----BEGIN PRIVATE KEY-----",
         "-----END PRIVATE KEY-----")  # fmt: skip
PIECE = 10
"""A leak is this many characters of a form in a row; shorter ones are met by chance."""


def forms(canary: Canary) -> Iterator[tuple[str, str, str]]:
    """(name, text that leaks it, the part of that text that must not survive)."""
    text, secret = canary.text, canary.secret
    yield "plain", text, secret
    for offset in range(3):
        raw = b"\0\1"[:offset] + text.encode()
        # The characters that stand for the secret alone, without those they share with what is around it.
        first = -(-8 * (offset + len(canary.before.encode())) // 6)
        last = 8 * (offset + len(canary.before.encode()) + len(secret.encode())) // 6
        standard, urlsafe = base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode()
        yield f"base64+{offset}", standard, standard[first:last]
        yield f"base64url+{offset}", urlsafe, urlsafe[first:last]
        yield f"unpadded+{offset}", urlsafe.rstrip("="), urlsafe[first:last]
        wrapped = "\n".join(standard[at : at + 76] for at in range(0, len(standard), 76))
        yield f"wrapped+{offset}", wrapped, standard[first:last]
    yield "url", quote(text, safe=""), quote(secret, safe="")
    full = "".join(f"%{byte:02X}" for byte in secret.encode())
    yield "percent", canary.before + full + canary.after, full
    escaped = json.dumps(text)[1:-1].replace("/", "\\/")
    yield "json", escaped, json.dumps(secret)[1:-1].replace("/", "\\/")
    points = "".join(f"\\u{ord(character):04x}" for character in secret)
    yield "json_points", canary.before + points + canary.after, points
    yield "hex", text.encode().hex(), secret.encode().hex()
    yield "hex_upper", text.encode().hex().upper(), secret.encode().hex().upper()
    if "\n" not in secret:
        for share in (0.3, 0.5, 0.8):
            cut = max(4, round(len(secret) * share))
            for gap in ("\n", "\r\n    ", "\\n"):
                parted = f"{secret[:cut]}{gap}{secret[cut:]}"
                yield f"parted at {cut} by {gap!r}", canary.before + parted + canary.after, parted
    for dropped in range(1, canary.droppable + 1):
        yield f"without {dropped}", canary.before + secret[dropped:] + canary.after, secret[dropped:]


def leaks(secret: str, text: str, *, piece: int = PIECE) -> list[str]:
    """Pieces of `secret` that stand in `text`; what frames a key is none of it."""
    for frame in FRAME:
        secret = secret.replace(frame, "\n")
    found = []
    for part in secret.replace("\\n", "\n").split("\n"):
        pieces = {part[at : at + piece] for at in range(max(1, len(part) - piece + 1))}
        found += [each for each in sorted(pieces) if len(each) == piece and each in text]
    return found
