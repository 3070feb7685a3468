"""Text from outside made inert before it is shown: it notifies nobody, closes nothing, commands nothing, loads nothing.

Not covered: keeping secrets out, which is `redaction`'s part.
"""

from __future__ import annotations

import re

from bot.domain.visible import is_invisible

_GAP = "\u200b"
"""Zero-width space: drawn as nothing, and enough to break a mention or a reference."""

# GitHub takes `@name` for a mention unless a letter or digit stands before it: `name@revision` is none.
_MENTION = re.compile(r"(?<![A-Za-z0-9])@(?=[A-Za-z0-9_\[])")
_REFERENCE = re.compile(r"(#|\bGH-)(?=\d)", re.IGNORECASE)
# GitHub links an address without markup, also behind an underscore: https://github.github.com/gfm/#autolinks-extension-
_ADDRESS = re.compile(r":(?=//)|(?<=mailto:)(?=\S)|(?<=xmpp:)(?=\S)", re.IGNORECASE)
_WWW = re.compile(r"(?<![A-Za-z0-9])(www)\.", re.IGNORECASE)
_MAIL = re.compile(r"(?<=[A-Za-z0-9._+-])@(?=[A-Za-z0-9_-]+\.[A-Za-z0-9_-])")
_COMMAND = re.compile(r"^([ \t]*)/(?=[A-Za-z])", re.MULTILINE)
_WORD_COMMAND = re.compile(
    r"^([ \t]*)(atlantis|bors|renovate|dependabot|postdoc)(?=[ \t:])", re.MULTILINE | re.IGNORECASE
)
# An underscore inside a word is no emphasis, and escaping it would spoil every key in the plain text of a mail.
_MARKUP = re.compile(r"([\\`*~|$\[\]]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))")
# ECMA-48 control sequences, and operating system commands up to the bell or the string terminator that ends them.
_TERMINAL = re.compile(r"\x1b(?:\[[0-?]{0,64}[ -/]{0,16}[@-~]|\][^\x07\x1b\n]{0,2000}(?:\x07|\x1b\\)?|[@-Z\\^_])")
# What makes a line a heading, a list or a rule, or the line above it a heading.
_LINE_MARK = re.compile(r"^([ \t]*)([#+=-]|[0-9]{1,9}(?=[.)]))", re.MULTILINE)
_BACKTICKS = re.compile(r"`+")
_SPAN = re.compile(r"`([^`]+)`")


def inert_plain(text: str) -> str:
    """For titles and commit messages, where Markdown is not read but mentions and `Fixes #1` are."""
    text = _visible(text)
    text = _MENTION.sub(f"@{_GAP}", text)
    text = _REFERENCE.sub(rf"\1{_GAP}", text)
    text = _MAIL.sub(f"@{_GAP}", text)
    text = _ADDRESS.sub(lambda match: f"{match[0]}{_GAP}", text)
    text = _WWW.sub(rf"\1{_GAP}.", text)
    text = _WORD_COMMAND.sub(rf"\1\2{_GAP}", text)
    return _COMMAND.sub(rf"\1/{_GAP}", text)


def inert(text: str) -> str:
    """For running text in Markdown: no mention, reference, link, image, HTML, command or formatting survives."""
    text = inert_plain(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = _MARKUP.sub(r"\\\1", text)
    return _LINE_MARK.sub(lambda m: m[1] + (f"\\{m[2]}" if not m[2].isdigit() else f"{m[2]}{_GAP}"), text)


def unmentioned(text: str) -> str:
    """Markdown of ours with somebody's name in it: formatting stays, nobody is notified, nothing is closed."""
    return _REFERENCE.sub(rf"\1{_GAP}", _MENTION.sub(f"@{_GAP}", text))


def inert_line(text: str, limit: int = 200) -> str:
    """`inert` for one line of at most `limit` characters: table cells, list items."""
    return inert(clipped(" ".join(_visible(text).split()), limit))


def inert_sentence(text: str, limit: int = 200) -> str:
    """`inert_line` whose code spans stay code: a sentence of ours that quotes what somebody else wrote. A backtick in
    the quotation makes code of other words, and of nothing anything worse."""
    parts = _SPAN.split(clipped(" ".join(_visible(text).split()), limit))  # every other one stood between backticks
    return "".join(code(part) if number % 2 else inert(part) for number, part in enumerate(parts))


def code(text: object, limit: int = 200) -> str:
    """A code span that holds `text` whatever it contains; safe in a table cell."""
    line = clipped(" ".join(_visible(str(text)).split()), limit)
    if not line:
        return "(empty)"
    mark = "`" * (max((len(run) for run in _BACKTICKS.findall(line)), default=0) + 1)
    edge = " " if line.startswith("`") or line.endswith("`") else ""
    # GitHub splits a table row at `|` before it looks for code spans; a backslash keeps the cell whole, unless one
    # stands there already, which would escape ours.
    line = line.replace("\\|", f"\\{_GAP}|").replace("|", "\\|")
    return f"{mark}{edge}{line}{edge}{mark}"


def fenced(text: str, language: str = "") -> str:
    """A code block that holds `text` whatever it contains."""
    text = _visible(text).rstrip("\n")
    longest = max((len(run) for run in _BACKTICKS.findall(text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def printable(text: str) -> str:
    """A log as it may lie in a repository: no character that a terminal obeys or that an editor does not show."""
    text = _TERMINAL.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    return "".join(character for character in text if not is_invisible(character))


def clipped(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def _visible(text: str) -> str:
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = "".join(character for character in text if not is_invisible(character))
    # Nobody else writes a hidden key, not even inside a code block, where a search for one would find it.
    return text.replace("<!--", f"<{_GAP}!--")
