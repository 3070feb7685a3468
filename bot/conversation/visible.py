"""The visible part of a Markdown text: what a reader of the page sees is all that Postdoc reads.

Not covered: text made small, or hidden by a style, which GitHub's own sanitiser removes.
"""

from __future__ import annotations

import re
import unicodedata

# Drawn as nothing or as blank: fillers, the Braille blank and variation selectors, which can carry hidden bytes.
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
# Every class excludes its own opening character, so that a failed attempt ends at the next one: linear time.
_IMAGE = re.compile(r"!\[[^\[\]]{0,2000}\](?:\([^()\n]{0,2000}\)|\[[^\[\]\n]{0,200}\])?")
_LINK_TITLE = re.compile(r"(\]\([^()\s\"']{0,2000})[ \t]+(?:\"[^\"()\n]*\"|'[^'()\n]*')[ \t]*\)")
_LINK_DEFINITION = re.compile(r"^ {0,3}\[[^\[\]\n]{1,200}\]:[^\n]*$", re.MULTILINE)
_TAG = re.compile(r"<[/!?]?[A-Za-z][^<>]{0,2000}>")


def visible_text(text: str) -> str:
    """`text` without HTML comments and tags, images, link titles, control and invisible characters."""
    text = without_comments(text.replace("\r\n", "\n").replace("\r", "\n"))
    text = "".join(character for character in text if not is_invisible(character))
    text = _IMAGE.sub("", text)
    text = _LINK_TITLE.sub(r"\1)", text)
    text = _LINK_DEFINITION.sub("", text)
    return _TAG.sub("", text)


def without_comments(text: str) -> str:
    """`text` without HTML comments. One that opens a line and is never closed hides the rest, as it does on GitHub."""
    parts: list[str] = []
    position = 0
    while (start := text.find("<!--", position)) >= 0:
        end = text.find("-->", start + 4)
        if end < 0:
            opens_line = not text[text.rfind("\n", 0, start) + 1 : start].strip()
            parts.append(text[position:start] if opens_line else text[position:])
            return "".join(parts)
        parts.append(text[position:start])
        position = end + 3
    parts.append(text[position:])
    return "".join(parts)


def is_invisible(character: str) -> bool:
    """True for what a page does not draw: control, format (zero-width, bidi, tags), private and unassigned ones."""
    if character.isascii():
        return (character < " " and character not in "\n\t") or character == "\x7f"
    if character in _BLANK or "\ufe00" <= character <= "\ufe0f" or "\U000e0000" <= character <= "\U000e01ef":
        return True
    return unicodedata.category(character) in ("Cc", "Cf", "Co", "Cn", "Cs", "Zl", "Zp")


def has_bidi(text: str) -> bool:
    """True when characters that turn the reading direction make the shown order differ from the stored one."""
    return any(character in _BIDI for character in text)
