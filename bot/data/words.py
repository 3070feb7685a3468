"""Text as comparable words: case, punctuation, spacing and Unicode forms do not count, arithmetic signs can."""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

# Between captured words stand the gaps, so one split gives both. An underscore separates words. Scripts written
# without spaces (Chinese, Japanese, Thai, Lao, Khmer, Burmese) count every character as a word.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
# Vowel signs and other marks that belong to a word although `\\w` leaves them out (Latin accents are composed by NFKC).
_MARKS = "\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06ed\u0900-\u0963\u0966-\u0dff"
_WORD = re.compile(rf"([{_UNSPACED}]|[^\W_{_UNSPACED}](?:[^\W_{_UNSPACED}]|[{_MARKS}])*)")
# Apostrophes join ("don't" is "dont"); invisible characters would otherwise split a word unseen.
_DELETED = dict.fromkeys(map(ord, "'\u2019\u02bc\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"))
_SIGNS = frozenset("+-*/=<>^%\u00d7\u00f7\u00b1\u2212\u2264\u2265\u2260|&!~")


class Words(NamedTuple):
    words: list[str]
    gaps: list[str]
    """What stands before each word and after the last one: one more than there are words."""


def split_words(text: str) -> Words:
    text = text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()
    parts = _WORD.split(text.translate(_DELETED))
    return Words(parts[1::2], parts[::2])


def normalised_words(text: str) -> list[str]:
    return split_words(text).words


# Bytes of ASCII text -> lower-case letters and digits, all else a space. Apostrophes are deleted before.
_ASCII = bytes(byte if chr(byte).isalnum() and byte < 128 else 32 for byte in bytes(range(256)).lower())
# What typographers put into English text, as UTF-8 bytes -> what it is to `split_words`: a gap, or nothing.
_TYPOGRAPHY = {
    mark.encode(): b"" if ord(mark) in _DELETED else b" "
    for mark in "\u2019\u2018\u201c\u201d\u2013\u2014\u2026\u00a0\u2022\u200b\u00b7\u2212\u00b0\ufeff\u2192"
}


def spaced_words(text: str) -> bytes:
    """The words of `split_words` in UTF-8 with one or more spaces between them; far faster for most English text."""
    data = text.encode(errors="replace")
    if not data.isascii():
        for mark, gap in _TYPOGRAPHY.items():
            if mark in data:
                data = data.replace(mark, gap)
        if not data.isascii():
            return " ".join(split_words(text).words).encode(errors="replace")
    return data.translate(_ASCII, b"'")


def signs_between(left: str, gap: str, right: str) -> str:
    """The arithmetic and logic signs in the gap between two words, where they mean something.

    `12-7` and `12+7` differ; `well-known` and `well known` do not, because signs count beside a number or a
    one-letter name only.
    """
    if gap == " " or not (_operand(left) or _operand(right)):
        return ""
    return "".join(sign for sign in gap if sign in _SIGNS).replace("\u2212", "-")


def closes(gap: str) -> bool:
    """Whether a gap ends what was being said: more than spaces stand in it (a line end, punctuation, a marker)."""
    return gap.strip(" ") != ""


def _operand(word: str) -> bool:
    return len(word) == 1 or word[0].isdigit() or word[-1].isdigit()
