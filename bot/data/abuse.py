"""Abusive language that has a recognisable form: slurs, threats, calls to self-harm, crude sexual words.

Patterns are bounded, so that no text makes them slow. Covered is English alone, and of it the blunt part: what is
hurtful without such words is not found, and a text that quotes them is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_PATTERNS: dict[str, re.Pattern[str]] = {
    "a slur": re.compile(
        r"\b(?:n[i1]gg(?:er|a)s?|f[a@]gg?[o0]ts?|k[i1]kes?|sp[i1]cs?|ch[i1]nks?|tr[a@]nn(?:y|ies)|w[e3]tbacks?|"
        r"r[a@]gheads?|g[o0]{2}ks?|retards?)\b",
        re.IGNORECASE,
    ),
    "a threat": re.compile(
        r"\b(?:i(?:'ll| will| am going to|'m going to) (?:kill|murder|rape|stab|shoot|hurt) (?:you|her|him|them)|"
        r"(?:you|they) (?:deserve|ought) to (?:die|be killed|be shot)|hope you (?:die|get cancer))\b",
        re.IGNORECASE,
    ),
    "a call to self-harm": re.compile(
        r"\b(?:kill yourself|kys|go hang yourself|slit your wrists|end your (?:own )?life|drink bleach)\b",
        re.IGNORECASE,
    ),
    "crude sexual or insulting language": re.compile(
        r"\b(?:f+u+c+k(?:ing|ers?|ed|s)?|motherf\w{1,8}|cunts?|cocksuckers?|dickheads?|assholes?|whores?|sluts?|"
        r"bitch(?:es)?|wank(?:ers?|ing)|blowjobs?|gangbangs?)\b",
        re.IGNORECASE,
    ),
}


def abuse_kinds(text: str) -> Iterator[str]:
    """Each kind that occurs in `text`, once."""
    for kind, pattern in _PATTERNS.items():
        if pattern.search(text):
            yield kind
