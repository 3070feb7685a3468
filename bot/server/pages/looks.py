"""How text, times and states look on a page. Whatever comes from outside passes `cleaned` before it is escaped."""

from __future__ import annotations

import datetime
import re
import time
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote

from markupsafe import Markup, escape

from bot.conversation.messages import wording
from bot.conversation.visible import is_invisible
from bot.domain.experiment import State
from bot.domain.inert import clipped
from bot.domain.redaction import redact

LONGEST_TEXT = 2_000
"""Of one text from outside; the issue, the review and the log on GitHub have all of it."""
_CODE = re.compile(r"(`+)([^`\n]+)\1")

TONES = {
    State.NEEDS_AUTHOR: "wait",
    State.AWAITING_CONSENT: "wait",
    State.NEEDS_HUMAN: "wait",
    State.MET: "good",
    State.NOT_CONFIRMED: "bad",
    State.EXHAUSTED: "done",
    State.STOPPED: "done",
    State.CLOSED: "done",
}
"""How a state's badge is coloured; work under way is `busy`."""


def tone(state: State | None) -> str:
    return "bad" if state is None else TONES.get(state, "busy")


def cleaner(known_secrets: Sequence[str]) -> Callable[[Any], Any]:
    """What Jinja's `finalize` does with every value: no secret, nothing invisible, no endless text. Markup is ours."""

    def cleaned(value: Any) -> Any:
        if not isinstance(value, str) or isinstance(value, Markup):
            return value
        if not value.isascii() or not value.isprintable():
            value = "".join(c for c in value if not is_invisible(c))
        return clipped(redact(value, known_secrets) if len(value) >= 6 else value, LONGEST_TEXT)

    return cleaned


def shortened(cleaned: Callable[[Any], Any]) -> Callable[[str, int], str]:
    """A filter that cuts a text to so many characters, once no secret is left in it that a cut would hide."""
    return lambda text, limit: clipped(str(cleaned(text)), limit)


def ticked(cleaned: Callable[[Any], Any]) -> Callable[[str], Markup]:
    """A filter that turns `code` in a sentence into a code element; everything else is text."""

    def marked(sentence: str) -> Markup:
        sentence = str(cleaned(str(sentence)))
        parts, last = [], 0
        for match in _CODE.finditer(sentence):
            parts += [escape(sentence[last : match.start()]), Markup("<code>{}</code>").format(match[2])]
            last = match.end()
        return Markup("").join([*parts, escape(sentence[last:])])

    return marked


def moment(at: float) -> str:
    """`2026-07-30 14:05 UTC`."""
    return datetime.datetime.fromtimestamp(at, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")


def when(at: float | None, *, now: float | None = None) -> Markup:
    """How long ago, with the exact time where a mouse looks for it; the page's script keeps the words current."""
    if not at:
        return Markup("")
    now = time.time() if now is None else now
    stamp = datetime.datetime.fromtimestamp(at, datetime.UTC).isoformat(timespec="seconds")
    return Markup('<time datetime="{}" title="{}">{}</time>').format(stamp, moment(at), ago(now - at))


def ago(seconds: float) -> str:
    """`3 min ago`, in the largest unit that is not zero."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit} ago"
    return "just now"


def path(text: object) -> str:
    """Text as a part of an address."""
    return quote(str(text), safe="/")


def share(used: float, ceiling: float) -> float | None:
    """How much of a ceiling is used; None where a ceiling of nothing is kept to."""
    if ceiling > 0:
        return used / ceiling
    return 1.0 if used > 1e-9 else None


def hours(value: float) -> str:
    """An amount of job time: `0.42 h`, `under 0.01 h`."""
    if 0 < value < 0.01:
        return "under 0.01 h"
    return f"{value:,.0f} h" if value >= 100 or value % 1 == 0 else f"{value:,.2f} h"


WORDS: dict[str, Any] = {
    name: getattr(wording, name)
    for name in ("percent", "scored", "with_unit", "p_value", "amount", "usd", "duration",
                 "counted", "short", "setting", "clock", "verdict_word")
}  # fmt: skip
"""The same words for the same things as in every comment."""
