"""The visible part of a Markdown text: what a reader of the page sees is all that Postdoc reads.

Not covered: text made small, or hidden by a style, which GitHub's own sanitiser removes.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

# Drawn as nothing or as blank: fillers, the Braille blank and variation selectors, which can carry hidden bytes.
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
# Every class excludes what would begin it again, or is bounded, so that a failed attempt ends soon: linear time.
_BRACKETS = r"\[(?:[^\[\]]|\[[^\[\]]{0,500}\]){0,2000}\]"
_TARGET = r"\((?:[^()\n]|\n(?![ \t]*\n)|\([^()\n]{0,500}\)){0,2000}\)"
_IMAGE = re.compile(rf"!{_BRACKETS}(?:{_TARGET}|\[[^\[\]\n]{{0,200}}\])?")
_URL = r"(?:<[^<>\n]{0,2000}>|(?:[^()\s\"'<]|\([^()\s]{0,500}\)){0,2000})"
# A title may hold anything but its own mark, over several lines, and no empty one.
_TITLE = (
    r"(?:\"(?:[^\"\\\n]|\\.|\n(?![ \t]*\n)){0,2000}\"|'(?:[^'\\\n]|\\.|\n(?![ \t]*\n)){0,2000}'"
    r"|\([^()]{0,2000}\))"
)
_LINK_TITLE = re.compile(rf"(\]\([ \t]*{_URL})[ \t\n]+{_TITLE}[ \t]*\)")
_LINK_DEFINITION = re.compile(
    rf"^ {{0,3}}\[(?!\^)[^\[\]]{{1,999}}\]:[ \t]*\n?[^\n]*$(?:\n[ \t]*{_TITLE}[ \t]*$)?", re.MULTILINE
)
_AUTOLINK = re.compile(r"<([A-Za-z][A-Za-z0-9+.-]{1,31}:[^<>\s]{0,1000})>")
# What stands in quotes inside of a tag may hold a `>`; a tag ends with its paragraph at the latest.
_QUOTED = r"(?:\"(?:[^\"\n]|\n(?![ \t]*\n)){0,4000}\"|'(?:[^'\n]|\n(?![ \t]*\n)){0,4000}')"
_TAG = re.compile(rf"<[/!?]?[A-Za-z](?:[^<>\"'\n]|\n(?![ \t]*\n)|{_QUOTED}){{0,4000}}>")
# A quotation that is never closed swallows what follows it; where the paragraph ends, the page shows text again.
_OPEN_TAG = re.compile(
    r"<[/!?]?[A-Za-z][A-Za-z0-9-]{0,40}\s[^<>\"']{0,500}=[ \t]*[\"'](?:[^\n]|\n(?![ \t]*\n)){0,8000}"
)
_HIDDEN = {"<!--": ("-->", "--!>"), "<![CDATA[": ("]]>",), "<?": ("?>",)}
_OPENING = re.compile(r"<!--|<!\[CDATA\[|<\?")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})[^\n`]*")


def visible_text(text: str) -> str:
    """`text` without HTML comments and tags, images, link titles, control and invisible characters."""
    text = without_comments(text.replace("\r\n", "\n").replace("\r", "\n"))
    text = "".join(character for character in text if not is_invisible(character))
    text = _IMAGE.sub("", text)
    text = _LINK_TITLE.sub(r"\1)", text)
    text = _LINK_DEFINITION.sub("", text)
    text = _AUTOLINK.sub(r"\1", text)
    return _OPEN_TAG.sub("", _TAG.sub("", text))


def visible_markdown(text: str) -> str:
    """`visible_text` of everything outside of fenced code, which is shown, and kept, as it is written."""
    text = without_comments(text.replace("\r\n", "\n").replace("\r", "\n"))
    text = "".join(character for character in text if not is_invisible(character))
    parts: list[str] = []
    plain: list[str] = []
    fence = ""
    for line in text.split("\n"):
        opening = _FENCE.fullmatch(line)
        if fence:
            parts.append(line)
            fence = "" if line.strip().startswith(fence) and not line.strip().strip(fence[0]) else fence
        elif opening and not _inside_tag(plain):
            if plain:
                parts.append(visible_text("\n".join(plain)))
                plain = []
            parts.append(line)
            fence = opening[1]
        else:
            plain.append(line)
    if plain:
        parts.append(visible_text("\n".join(plain)))
    return "\n".join(parts)


def _inside_tag(lines: Sequence[str]) -> bool:
    """True when the last paragraph of `lines` may end inside of a tag's quotation, where a fence is none. A long one is
    taken to: its fence is then read like other text, which takes tags out of it and nothing else."""
    paragraph: list[str] = []
    for line in reversed(lines):
        if not line.strip():
            break
        paragraph.insert(0, line)
        if len(paragraph) > 40 or len(line) > 1_000:
            return True
    return _OPEN_TAG.search(_TAG.sub("", "\n".join(paragraph)[-4_000:])) is not None


def without_comments(text: str) -> str:
    """`text` without HTML comments, CDATA sections and processing instructions, which a page does not show. One that
    opens a line and is never closed hides the rest, as it does on GitHub."""
    parts: list[str] = []
    position = 0
    while match := _OPENING.search(text, position):
        start, opening = match.start(), match[0]
        # `<!-->` and `<!--->` are whole comments: https://spec.commonmark.org/0.31.2/#html-comment
        if short := re.compile(r"<!--(?:-?>)").match(text, start):
            end = short.end()
        else:
            found = [(at, len(mark)) for mark in _HIDDEN[opening] if (at := text.find(mark, match.end())) >= 0]
            if not found:
                opens_line = not text[text.rfind("\n", 0, start) + 1 : start].strip()
                parts.append(text[position:start] if opens_line else text[position:])
                return "".join(parts)
            end = sum(min(found))
        parts.append(text[position:start])
        position = end
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
