"""What GitHub would make of a text of the bot's: read by a Markdown parser as it reads it, not by patterns alone.

Decided here: an address in running text is broken too, because GitHub links it without markup; inside of code it stays,
since code is neither linked nor notifies.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape

from markdown_it import MarkdownIt
from markdown_it.token import Token

from bot.conversation.commands import parse_commands
from bot.conversation.messages import key_of
from bot.conversation.visible import is_invisible

MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"]).disable("text_join")
_MENTION = re.compile(r"(?<![A-Za-z0-9])@[A-Za-z0-9]")
_CLOSES = re.compile(
    r"\b(?:close[sd]?|fix(?:e[sd])?|resolve[sd]?)\b:?\s*(?:[\w.-]+/[\w.-]+)?(?:#|GH-|https?://github\.com/\S+/issues/)\d",
    re.IGNORECASE,
)
_REFERENCE = re.compile(r"(?<![A-Za-z0-9&])(?:[\w.-]+/[\w.-]+)?#\d+|\bGH-\d+", re.IGNORECASE)
# GFM's extended autolinks: https://github.github.com/gfm/#autolinks-extension-
_AUTOLINK = re.compile(
    r"(?:^|[\s*_~(>])(?:www\.|(?:https?|ftp)://)[^\s<]|[\w.+-]+@[\w-]+\.[\w-]|\b(?:mailto|xmpp):[^\s\u200b]"
)
_OUR_HTML = re.compile(
    r"<!-- postdoc:(?:[A-Za-z0-9._/#-]+|box [a-z]+) -->|</details>|</?sub>|<br>"
    r"|<details>(?:<summary>(?:[^<>]|<code>[^<>]*</code>)*</summary>)?"
)
_GAPS = "\u200b\u2060"
"""What `inert` and the cards break words with; they are ours."""


def markdown_problems(
    body: str, own_references: frozenset[str] = frozenset(), *, is_file: bool = False
) -> Iterator[str]:
    """What in a comment, a review or a file would notify, close, load, link, command or pass for something else."""
    for token in _flat(MARKDOWN.parse(body)):
        if token.type == "image":
            yield f"an image: {token.attrGet('src')}"
        if token.type == "link_open" and re.match(r"(?:[a-z]+:)?//|[a-z]+:", str(token.attrGet("href"))):
            yield f"a link: {token.attrGet('href')}"
        if token.type in ("html_block", "html_inline") and _OUR_HTML.sub("", token.content).strip():
            yield f"HTML: {token.content!r}"
    for text in (*_running_texts(body), *_html_texts(body)):
        for name, pattern in (("a mention", _MENTION), ("a closing word", _CLOSES), ("an address", _AUTOLINK)):
            if found := pattern.search(text):
                yield f"{name}: {text[max(0, found.start() - 20) : found.end() + 20]!r}"
        for reference in _REFERENCE.findall(text):
            if reference not in own_references:
                yield f"a reference: {reference}"
        if re.search(r"(?<!\\)\$\S[^$\n]*\$", text):
            yield f"a formula: {text[:80]!r}"
    if not is_file and (commands := parse_commands(body)):
        yield f"commands: {[command.text for command in commands]}"
    # Nobody looks for a key, or for a command, in a file.
    keys = [] if is_file else re.findall(r"<!-- postdoc:(?!box )", body)
    if len(keys) > 1 or (keys and key_of(body) is None):
        yield f"a hidden key that is not the first line: {len(keys)}"
    yield from character_problems(body)


def plain_problems(text: str) -> Iterator[str]:
    """The same for a title or a commit's message, where nothing is code."""
    for name, pattern in (("a mention", _MENTION), ("a closing word", _CLOSES), ("an address", _AUTOLINK)):
        if found := pattern.search(text):
            yield f"{name}: {text[max(0, found.start() - 20) : found.end() + 20]!r}"
    if re.search(r"(?m)^[ \t]*(?:/[a-z]|atlantis |bors )", text):
        yield f"a command: {text!r}"
    yield from character_problems(text)


def character_problems(text: str) -> Iterator[str]:
    """Characters that are not drawn, turn the order or drive a terminal."""
    found = sorted({f"U+{ord(c):04X}" for c in text if c not in _GAPS and (is_invisible(c) or c == "\r")})
    if found:
        yield f"characters: {found}"


def structure(body: str) -> list[str]:
    """The blocks of a Markdown text; a text from outside must not change them."""
    return [token.type for token in MARKDOWN.parse(body)]


def _flat(tokens: list[Token]) -> Iterator[Token]:
    for token in tokens:
        yield token
        yield from _flat(token.children or [])


def _html_texts(body: str) -> Iterator[str]:
    """The text of HTML blocks (a fold's title), entities decoded, code and comments left out."""
    for token in _flat(MARKDOWN.parse(body)):
        if token.type == "html_block":
            yield unescape(re.sub(r"<!--.*?-->|<code>[^<>]*</code>|<[^<>]*>", " \0 ", token.content, flags=re.DOTALL))


def _running_texts(body: str) -> Iterator[str]:
    """The text of each block as GitHub's filters see it: entities decoded, code left out."""
    for token in MARKDOWN.parse(body):
        if token.type == "inline":
            yield "".join(
                # An escaped dollar sign opens no formula; everything else that was escaped is what it is.
                ("\\" if each.markup == "\\$" else "") + each.content
                if each.type in ("text", "text_special")
                else "\n"
                if "break" in each.type
                else " \0 "
                for each in token.children or ()
            )
