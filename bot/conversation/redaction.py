"""Secrets kept out of every text that leaves: exact values with their base64 and URL forms, then known patterns.

Not covered: a secret that was cut, reversed or re-encoded on purpose. Redaction is the last fence, not the
containment: what runs untrusted code is never given a secret.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from functools import lru_cache
from urllib.parse import quote, quote_plus

MARK = "[redacted]"
_SHORTEST = 6
"""A known value shorter than this is not searched for: it would blank ordinary words."""

_PATTERNS: tuple[re.Pattern[str], ...] = (
    # A PEM block, also one that a log cut before its end or whose newlines were escaped.
    re.compile(
        r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----(?:(?!-----END)[A-Za-z0-9+/=\s:,\\-])*+"
        r"(?:-----END [A-Z ]{0,40}PRIVATE KEY-----)?"
    ),
    # GitHub: 36 characters, and since 2026 `ghs_<app id>_<JWT>` of about 520 characters with dots in it.
    re.compile(r"\bgh[pousr]_[A-Za-z0-9_]{20,}(?:[.\-][A-Za-z0-9_\-]+)*"),
    re.compile(r"\bgithub_pat_[A-Za-z0-9_]{22,}"),
    re.compile(r"\bhf_[A-Za-z0-9]{20,}"),
    re.compile(r"\bapi_org_[A-Za-z0-9]{20,}"),
    re.compile(r"\bsk-(?:ant-|proj-|or-|svcacct-)?[A-Za-z0-9_\-]{20,}"),
    re.compile(r"\b(?:AKIA|ASIA|AGPA|AIDA|AROA)[A-Z0-9]{16}\b"),
    re.compile(r"\bAIza[A-Za-z0-9_\-]{35}"),
    re.compile(r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}"),
    re.compile(r"\bglpat-[A-Za-z0-9_\-]{20,}"),
    re.compile(r"\beyJ[A-Za-z0-9_\-]{5,}\.[A-Za-z0-9_\-]{5,}\.[A-Za-z0-9_\-]{5,}"),
)
# Secrets without a shape of their own, known by the name before them. Group 1 stays.
_NAMED: tuple[re.Pattern[str], ...] = (
    re.compile(r"(?i)((?:wandb|w&b|weights\s*(?:and|&)\s*biases)[^\n]{0,60}?)\b[0-9a-f]{40}(?:[0-9a-f]{46})?\b"),
    re.compile(r"(?i)(aws_secret_access_key[\"'\s:=]{1,6})[A-Za-z0-9/+=]{40}"),
    re.compile(
        r"(?i)\b((?:proxy-)?authorization[\"']?\s{0,4}[:=]\s{0,4}[\"']?(?:bearer|basic|token)\s+)[A-Za-z0-9._~+/=\-]{8,}"
    ),
    re.compile(
        r"(?i)((?:api[_-]?key|access[_-]?token|auth[_-]?token|client[_-]?secret|webhook[_-]?secret|password|passwd)"
        r"[\"']?\s{0,4}[:=]\s{0,4}[\"']?)(?!\[redacted)[^\s\"',;`]{8,}"
    ),
    re.compile(r"(?i)(\b[a-z][a-z0-9+.\-]{1,20}://[^\s/@:]{0,100}:)[^\s/@]{3,}(?=@)"),
)


def redact(text: str, known: Sequence[str] = ()) -> str:
    """`text` with every secret in it replaced by a mark."""
    forms = _forms(tuple(sorted({value for value in known if len(value) >= _SHORTEST})))
    if forms is not None:
        text = forms.sub(MARK, text)
    for pattern in _PATTERNS:
        text = pattern.sub(MARK, text)
    for pattern in _NAMED:
        text = pattern.sub(rf"\1{MARK}", text)
    return text


@lru_cache(maxsize=32)
def _forms(known: tuple[str, ...]) -> re.Pattern[str] | None:
    """One pattern for every form of the known values, longest first; None when there are none."""
    found: set[str] = set()
    for value in known:
        # A PEM key is shown in one piece or line by line.
        lines = [line for line in value.splitlines() if len(line.strip()) >= 16 and "-----" not in line]
        for piece in {value, value.strip(), *(line.strip() for line in lines)}:
            if len(piece) >= _SHORTEST:
                found |= {piece, piece.replace("\n", "\\n"), quote(piece, safe=""), quote(piece), quote_plus(piece)}
                found |= _base64_forms(piece)
    if not found:
        return None
    return re.compile("|".join(re.escape(form) for form in sorted(found, key=lambda form: (-len(form), form))))


def _base64_forms(value: str) -> set[str]:
    """How `value` looks inside a base64 text, at each of the three offsets it can have there."""
    raw = value.encode()
    forms: set[str] = set()
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for offset in range(3):
            encoded = encode(b"\0" * offset + raw).decode().rstrip("=")
            # Characters that share bits with a neighbouring byte are not certain, so they are left out.
            start = (0, 2, 3)[offset]
            end = len(encoded) - (1 if (offset + len(raw)) % 3 else 0)
            if end - start >= 8:
                forms.add(encoded[start:end])
        # The command `base64` breaks its lines after 76 characters.
        whole = encode(raw).decode().rstrip("=")
        lines = (whole[at : at + 76] for at in range(0, len(whole), 76))
        forms |= {line for line in lines if len(line) >= 24}
    return forms
