"""Secrets and personal data that have a recognisable form. Patterns are bounded, so that no text makes them slow."""

from __future__ import annotations

import re
from collections.abc import Iterator

# Kind -> (a piece of text that every match contains, or "" when there is none; the pattern).
_PATTERNS: dict[str, tuple[str, re.Pattern[str]]] = {
    "an email address": (
        "@",
        re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){0,4}\.[A-Za-z]{2,24}\b"),
    ),
    "a GitHub token": ("g", re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{40})")),
    "a Hugging Face token": ("hf_", re.compile(r"\bhf_[A-Za-z0-9]{30}")),
    "an LLM provider's key": ("sk-", re.compile(r"\bsk-(?:ant-|proj-)?[A-Za-z0-9_-]{20}")),
    "an AWS key": ("A", re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b")),
    "a Google key": ("AIza", re.compile(r"\bAIza[0-9A-Za-z_-]{35}")),
    "a Slack token": ("xox", re.compile(r"\bxox[abprs]-[0-9A-Za-z-]{10}")),
    "a private key": ("PRIVATE KEY", re.compile(r"-----BEGIN (?:[A-Z]{1,12} ){0,3}PRIVATE KEY-----")),
    "a JSON web token": ("eyJ", re.compile(r"\beyJ[\w-]{10,2000}\.eyJ[\w-]{10,4000}\.[\w-]{10}")),
    "an address with a password": ("://", re.compile(r"://[^\s/:@]{1,64}:[^\s/@]{1,64}@")),
    "an IP address": (
        ".",
        re.compile(r"(?<![\d.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?![\d.]*\d)"),
    ),
    "a phone number": (
        "+",
        re.compile(r"(?<![\w+])\+[1-9]\d{0,2}(?:[ ().-]{1,2}\d{2,4}){2,4}(?!\d)|\+[1-9]\d{9,13}\b"),
    ),
}
_CARD = re.compile(r"(?<![\d.])\d(?:[ -]?\d){12,18}(?![\d.])")


def sensitive_kinds(text: str) -> Iterator[str]:
    """Each kind that occurs in `text`, once."""
    for kind, (needle, pattern) in _PATTERNS.items():
        if needle in text and pattern.search(text):
            yield kind
    if any(_is_card_number(match[0]) for match in _CARD.finditer(text)):
        yield "a card number"


def _is_card_number(text: str) -> bool:
    """Luhn's check digit and a first digit that card networks use; long numbers in arithmetic rarely pass both."""
    digits = [int(character) for character in text if character.isdigit()]
    if digits[0] not in (3, 4, 5, 6) or len(set(digits)) < 4:
        return False
    doubled = [sum(divmod(2 * digit, 10)) if place % 2 else digit for place, digit in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0
