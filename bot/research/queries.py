"""What may stand in a request: plain words, names and numbers, in amounts that carry a question and no data.

Whoever plans the research may have read a text that wants something taken out by way of a search, so every value and
every part of a path is looked at: its length, its characters, whether it looks encoded or like a secret, and whether
it says what the goal's private data say.

Not covered: something put into ordinary words of the writer's own. What leaves that way is bounded by length and pace,
and everything that leaves is recorded.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence

from bot.domain.redaction import redact
from bot.research.errors import Refused

MOST_CHARACTERS = 400
"""Of one value."""
MOST_TOGETHER = 1_200
"""Of all values and the path of one request."""
MOST_OPAQUE = 40
"""Characters of one value in pieces that are no words: numbers, versions, abbreviations with digits."""
SUSPECT_OPAQUE, SUSPECT_SHARE = 24, 2 / 3
"""From so many on, they may not be more than this share of the value."""
MOST_SIGNS = 6
"""Signs in one value that no question needs; base85 is a third signs."""

Private = Callable[[str], str | None]
"""Why this text may not leave, as the end of "because it ..."; None when it may."""

_SIGNS = re.compile(r"[~!$%^&*`|{}<>;@#=?\\]")
_PIECE = re.compile(r"[A-Za-z0-9+=]+")
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]{1,6}s?")
_WORD_PARTS = re.compile(r"[A-Z]?[a-z]{3,}")
_CONSONANTS = re.compile(r"[bcdfghjklmnpqrstvwxz]{6,}", re.IGNORECASE)
_HEX = re.compile(r"(?=[a-f]*[0-9])[0-9a-f]{24,}", re.IGNORECASE)
ARXIV_ID = r"(?:0[7-9]|[1-9][0-9])(?:0[1-9]|1[0-2])\.[0-9]{4,5}(?:v[0-9]{1,2})?"
_ARXIV_ID = re.compile(rf"(?<![0-9.]){ARXIV_ID}(?![0-9])")


def check_query(values: Iterable[str], *, secrets: Sequence[str] = (), private: Private | None = None) -> None:
    """Raises: Refused, in one sentence that says what to write instead."""
    together = 0
    for value in values:
        together += len(value)
        if why := _not_allowed(value, secrets) or (private(value) if private is not None else None):
            raise Refused(f"This query is not sent, because it {why}. Ask with a few plain words.")
    if together > MOST_TOGETHER:
        raise Refused(
            f"This query is not sent, because it has {together:,} characters and {MOST_TOGETHER:,} may leave."
        )


def _not_allowed(value: str, secrets: Sequence[str]) -> str | None:
    if len(value) > MOST_CHARACTERS:
        return f"has {len(value):,} characters where {MOST_CHARACTERS} are the most"
    if not all(map(_plain, value)):
        return "holds characters other than Latin or Greek letters, digits and plain punctuation"
    if redact(value, secrets) != value:
        return "holds something that looks like a secret"
    return _encoded(_ARXIV_ID.sub("", value))


def _plain(character: str) -> bool:
    if character.isascii():
        return character.isprintable()
    return unicodedata.category(character)[0] == "L" and unicodedata.name(character, "").startswith(("LATIN", "GREEK"))


def _encoded(value: str) -> str | None:
    """Why `value` looks like data in another form."""
    if len(_SIGNS.findall(value)) > MOST_SIGNS:
        return "holds more signs than a question needs"
    opaque = letters = 0
    for piece in _PIECE.findall(value):
        if _looks_encoded(piece):
            return f"holds what looks like encoded data (`{piece[:12]}…`)"
        letters += len(piece)
        if not _WORD.fullmatch(piece):
            opaque += len(piece) - sum(len(part) for part in _WORD_PARTS.findall(piece))
    if opaque > MOST_OPAQUE or (opaque >= SUSPECT_OPAQUE and opaque > SUSPECT_SHARE * letters):
        return "holds more numbers and codes than words"
    return None


def _looks_encoded(piece: str) -> bool:
    if _HEX.search(piece) or re.search(r"[0-9]{13,}", piece):
        return True
    if len(piece) >= 12 and _CONSONANTS.search(piece):
        return True
    if len(piece) > (24 if piece[1:].islower() else 30):
        return True
    in_words = sum(len(part) for part in _WORD_PARTS.findall(piece))
    # Names run together (DeepSeekMath7BInstruct) are words; base64 and base32 hardly ever have three small letters
    # in a row.
    return len(piece) >= 16 and 2 * in_words < len(piece)
