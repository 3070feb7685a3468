"""Going in circles: the same action again, or two or three in turns, with nothing new to show for it.

What counts is the action without what changes by itself (times, dates, process ids, temporary names, hashes, the order
of a call's arguments, blanks and comments of code) together with what came of it, normalised the same way. A first
circle is told to the model once; it ends the work where it goes on.
"""

from __future__ import annotations

import io
import json
import re
import tokenize
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from bot.domain.goal import digest_of

WINDOW = 30
"""Actions that are looked back over."""
REPEATS = 3
"""† The same action and outcome so often, in a row or among others, is a circle."""
LONGEST_CYCLE = 4
WARNED_ACTIONS = 6
"""† Actions after a warning in which the circle may end."""

_CHANGING = (
    (re.compile(r"\b\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?)?"), "<time>"),
    (re.compile(r"\b\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?\b"), "<time>"),
    (re.compile(r"\b1[5-9]\d{8}(?:\.\d+)?\b|\b1[5-9]\d{11}\b"), "<time>"),
    (re.compile(r"\b\d+(?:\.\d+)?\s?(?:ns|µs|us|ms|s|sec|seconds?|min|minutes?)\b"), "<duration>"),
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", re.I), "<id>"),
    (re.compile(r"\b0x[0-9a-f]+\b", re.I), "<id>"),
    (re.compile(r"\b(?=[0-9a-f]*\d)(?=[0-9a-f]*[a-f])[0-9a-f]{7,64}\b", re.I), "<id>"),
    (re.compile(r"\b(pid|process|port|attempt|try|run)[ =:#]*\d+", re.I), r"\1 <n>"),
    (re.compile(r"/(?:tmp|var/tmp|run|proc)/[\w./-]+"), "<path>"),
    (re.compile(r"\btmp[\w-]{6,}"), "<path>"),
)
_BLANK = re.compile(r"\s+")
_NUMBERED = re.compile(r"(?<=[A-Za-z_-])\d+(?=\.\w{1,5}\b)")
"""`report7.txt` and `report8.txt` are one name."""


class Warned(StrEnum):
    FINE = "fine"
    WARN = "warn"
    """Say so to the model, once."""
    STOP = "stop"


def normalised(text: str) -> str:
    """The text without what changes from one time to the next."""
    for pattern, put in _CHANGING:
        text = pattern.sub(put, text)
    return _BLANK.sub(" ", _NUMBERED.sub("<n>", text)).strip()


def normalised_code(code: str) -> str:
    """Python without comments, blank lines and quoting, then as `normalised`; other text as it is."""
    try:
        tokens = [
            repr(token.string.strip("'\"")) if token.type == tokenize.STRING else token.string
            for token in tokenize.generate_tokens(io.StringIO(code).readline)
            if token.type not in (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
        ]
    except (tokenize.TokenError, IndentationError, SyntaxError):
        return normalised(code)
    return normalised(" ".join(tokens))


def signature(name: str, arguments: Mapping[str, Any], outcome: str) -> str:
    """One action with what came of it."""
    given = {
        key: normalised_code(value) if key == "code" else normalised(value) if isinstance(value, str) else value
        for key, value in arguments.items()
    }
    return digest_of([name, normalised(json.dumps(given, sort_keys=True, default=str)), normalised(outcome)])


@dataclass
class Circles:
    """Watches one piece of work; put together anew from its transcript after a restart."""

    seen: list[str] = field(default_factory=list)
    warned_at: int | None = None
    warned_of: frozenset[str] = frozenset()

    def look(self, name: str, arguments: Mapping[str, Any], outcome: str) -> Warned:
        """Take in an action and say what to do about it."""
        self.seen.append(signature(name, arguments, outcome))
        circle = circle_in(self.seen[-WINDOW:])
        if self.warned_at is None or len(self.seen) - self.warned_at > WINDOW:
            if not circle:
                return Warned.FINE
            self.warned_at, self.warned_of = len(self.seen), circle
            return Warned.WARN
        since = self.seen[self.warned_at :]
        # Only the circle that was warned of, gone on with: somebody who has moved on is left alone.
        again = sum(each in self.warned_of for each in since)
        if len(since) <= WARNED_ACTIONS:
            return Warned.STOP if again >= REPEATS else Warned.FINE
        if circle_in(since):
            return Warned.STOP
        return Warned.FINE


def circle_in(actions: Sequence[str]) -> frozenset[str]:
    """The actions that the latest of these go round in; empty where they do not."""
    if not actions:
        return frozenset()
    latest = actions[-1]
    if actions.count(latest) >= REPEATS:
        return frozenset({latest})
    for length in range(2, LONGEST_CYCLE + 1):
        tail = list(actions[-2 * length :])
        if len(tail) == 2 * length and tail[:length] == tail[length:]:
            return frozenset(tail)
    return frozenset()
