"""Renders GitHub's Markdown to safe HTML: tables, task lists, alerts, references, suggestions and Mermaid charts.

What we draw ourselves (charts, tick boxes, suggestions, coloured code) would not pass the sanitiser, so it waits in
slots: a slot is a word that nobody can guess, put into the text before sanitising and exchanged afterwards.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from html import escape
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token
from mdit_py_plugins.footnote import footnote_plugin

from bot.practice.pages import mermaid
from bot.practice.pages.highlight import coloured
from bot.practice.pages.sanitize import sanitize

ALERTS = {"NOTE": "Note", "TIP": "Tip", "IMPORTANT": "Important", "WARNING": "Warning", "CAUTION": "Caution"}
EMOJI = {
    "+1": "👍", "-1": "👎", "eyes": "👀", "heart": "❤️", "hooray": "🎉", "laugh": "😄", "confused": "😕", "rocket": "🚀",
    "tada": "🎉", "warning": "⚠️", "white_check_mark": "✅", "x": "❌", "hourglass": "⌛", "robot": "🤖", "bulb": "💡",
    "chart_with_upwards_trend": "📈", "chart_with_downwards_trend": "📉", "moneybag": "💰", "lock": "🔒", "key": "🔑",
    "stop_sign": "🛑", "question": "❓", "memo": "📝", "bug": "🐛", "fire": "🔥", "seedling": "🌱", "microscope": "🔬",
}  # fmt: skip

_TASK = re.compile(r"\[([ xX])\](?=[ \t\u00a0]|$)")
_TASK_LINE = re.compile(r"^((?:[ \t]|>)*(?:[-*+]|\d{1,9}[.)])[ \t]+)\[([ xX])\](.*)$")
_AUTOLINK = re.compile(
    r"(?P<url>\bhttps?://[^\s<>\"'`]+)"
    r"|(?P<mention>(?<![\w/@.])@(?P<login>[A-Za-z0-9](?:[A-Za-z0-9-]{0,38}))(?:\[bot\])?(?![\w-]))"
    r"|(?P<issue>(?<![\w/&#])#(?P<number>[1-9]\d{0,8})(?!\w))"
    r"|(?P<sha>(?<![\w/#-])[0-9a-f]{7,40}(?![\w-]))"
    r"|(?P<emoji>(?<!\w):(?P<name>[a-z0-9_+-]+):(?!\w))"
)


@dataclass(frozen=True, slots=True)
class Setting:
    """Where a text stands: what its relative links and short references mean, and what may be done to it."""

    repository: str = ""
    # owner/name
    ref: str = "HEAD"
    # what relative links in a file are read at
    folder: str = ""
    # the folder of the file that is shown, for its relative links
    hard_breaks: bool = True
    # comments keep their line ends, files do not
    tick_form: str = ""
    # id of the form that a task's box submits; empty when this person may not tick
    commits: frozenset[str] = frozenset()
    # SHAs that exist, so that only these become links
    suggestion_lines: tuple[str, ...] | None = None
    # what a suggestion under this review comment would replace
    anchor: str = ""
    # keeps the footnotes of several comments on one page apart


@dataclass(slots=True)
class _Slots:
    mark: str = field(default_factory=lambda: "slot" + secrets.token_hex(16) + "x")
    filled: list[str] = field(default_factory=list)

    def put(self, html: str) -> str:
        self.filled.append(html)
        return f"{self.mark}{len(self.filled) - 1:06d}"

    def fill(self, html: str) -> str:
        return re.sub(self.mark + r"(\d{6})", lambda match: self.filled[int(match[1])], html)


def render(text: str, setting: Setting) -> str:
    """Safe HTML of a comment, a description or a file."""
    return _render(text, setting)


@lru_cache(maxsize=1024)
def _render(text: str, setting: Setting) -> str:
    slots = _Slots()
    parser = _parser(setting, slots)
    env: dict[str, Any] = {"docId": setting.anchor}
    tokens = parser.parse(text.replace("\x00", "\ufffd"), env)
    for index, token in enumerate(tokens):
        if token.type == "inline" and token.children is not None:
            token.children = _with_references(token.children, setting, slots)
            _tick_box(tokens, index, setting, slots)
    _mark_alerts(tokens, slots)
    _anchor_headings(tokens)
    _align_cells(tokens)
    html = parser.renderer.render(tokens, parser.options, env)
    return slots.fill(sanitize(html, _resolver(setting), strip_from_attributes=slots.mark))


def _parser(setting: Setting, slots: _Slots) -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": True, "breaks": setting.hard_breaks, "maxNesting": 40})
    parser.enable(["table", "strikethrough"])
    parser.use(footnote_plugin, inline=False)

    def fence(_renderer: object, tokens: list[Token], index: int, _options: object, _env: object) -> str:
        token = tokens[index]
        words = token.info.split()
        return slots.put(_code_block(token.content, words[0].lower() if words else "", setting)) + "\n"

    def indented(_renderer: object, tokens: list[Token], index: int, _options: object, _env: object) -> str:
        return slots.put(_code_block(tokens[index].content, "", setting)) + "\n"

    parser.add_render_rule("fence", fence)
    parser.add_render_rule("code_block", indented)
    return parser


def _code_block(content: str, language: str, setting: Setting) -> str:
    if language == "mermaid":
        return mermaid.figure(content)
    if language == "suggestion":
        return _suggestion(content, setting)
    return f'<pre class="code"><code>{coloured(content, language)}</code></pre>'


def _suggestion(content: str, setting: Setting) -> str:
    """A suggestion as the change it would make; the lines it replaces are known only under a review comment."""
    replaced = setting.suggestion_lines or ()
    proposed = content.removesuffix("\n").split("\n") if content else []
    rows = [("-", "del", line) for line in replaced] + [("+", "add", line) for line in proposed]
    cells = "".join(
        f'<tr class="{kind}"><td class="sign">{sign}</td><td class="text">{escape(line) or " "}</td></tr>'
        for sign, kind, line in rows
    )
    return (
        '<div class="suggestion"><div class="suggestion-head">Suggested change</div>'
        f'<table class="diff" aria-label="Suggested change"><tbody>{cells}</tbody></table></div>'
    )


def _resolver(setting: Setting) -> Callable[[str, bool], str]:
    def resolve(address: str, is_image: bool) -> str:
        if address.startswith("/") or not setting.repository:
            return address
        path, hash_sign, anchor = address.partition("#")
        parts: list[str] = [part for part in setting.folder.split("/") if part]
        for part in path.split("?")[0].split("/"):
            if part == "..":
                parts[-1:] = []
            elif part not in ("", "."):
                parts.append(part)
        kind = "raw" if is_image else "blob"
        return f"/{setting.repository}/{kind}/{setting.ref}/{'/'.join(parts)}{hash_sign}{anchor}"

    return resolve


def _with_references(children: list[Token], setting: Setting, slots: _Slots) -> list[Token]:
    """Bare addresses, @names, #numbers and known commits in running text become links; code and links stay."""
    out: list[Token] = []
    inside_link = 0
    for token in children:
        if token.type in ("link_open", "link_close"):
            inside_link += token.nesting
        elif token.type == "html_inline":
            inside_link += {"<a": 1, "</": -1}.get(token.content[:2].lower(), 0) if _is_anchor(token.content) else 0
        if token.type == "text" and inside_link <= 0:
            out.extend(_linked(token.content, setting, slots))
        else:
            out.append(token)
    return out


def _is_anchor(tag: str) -> bool:
    return re.match(r"</?a[\s>]", tag, re.IGNORECASE) is not None


def _linked(text: str, setting: Setting, slots: _Slots) -> list[Token]:
    tokens: list[Token] = []
    done = 0
    for match in _AUTOLINK.finditer(text):
        html, end = _reference(match, setting)
        if html is None:
            continue
        tokens.append(Token("text", "", 0, content=text[done : match.start()] + slots.put(html)))
        done = end
    tokens.append(Token("text", "", 0, content=text[done:]))
    return tokens


def _reference(match: re.Match[str], setting: Setting) -> tuple[str | None, int]:
    found, end = match[0], match.end()
    match match.lastgroup:
        case "url":
            url = _without_trailing_punctuation(found)
            link = f'<a href="{escape(url)}" rel="nofollow noopener noreferrer">{escape(url)}</a>'
            return link, match.start() + len(url)
        case "mention":
            return f'<span class="mention">{escape(found)}</span>', end
        case "issue" if setting.repository:
            return f'<a href="/{setting.repository}/issues/{match["number"]}">{found}</a>', end
        case "sha" if setting.repository:
            known = next((sha for sha in setting.commits if sha.startswith(found)), None)
            if known:
                return f'<a class="sha" href="/{setting.repository}/commit/{known}"><code>{found[:7]}</code></a>', end
        case "emoji" if match["name"] in EMOJI:
            return EMOJI[match["name"]], end
    return None, end


def _without_trailing_punctuation(url: str) -> str:
    while url and (url[-1] in ".,:;!?*_~" or (url[-1] == ")" and url.count(")") > url.count("("))):
        url = url[:-1]
    return url


def _tick_box(tokens: list[Token], index: int, setting: Setting, slots: _Slots) -> None:
    inline = tokens[index]
    in_item = index >= 2 and tokens[index - 1].type == "paragraph_open" and tokens[index - 2].type == "list_item_open"
    first = inline.children[0] if inline.children else None
    if not in_item or first is None or first.type != "text" or inline.map is None:
        return
    match = _TASK.match(inline.content)
    if match is None or not first.content.startswith(match[0]):
        return
    first.content = first.content[len(match[0]) :]
    words = inline.content[match.end() :].split("\n")[0].strip()
    box = _box(match[1] != " ", inline.map[0], words, setting)
    inline.children = [Token("text", "", 0, content=slots.put(box)), *(inline.children or [])]


def _box(ticked: bool, line: int, words: str, setting: Setting) -> str:
    state = f'role="checkbox" aria-checked="{str(ticked).lower()}" aria-label="{escape(words)}"'
    if not setting.tick_form:
        return f'<span class="tick" {state} aria-disabled="true"></span>'
    value = f"{line}:{task_key(words)}:{'x' if ticked else ' '}"
    return (
        f'<button class="tick" type="submit" form="{setting.tick_form}" name="task" value="{value}" {state}></button>'
    )


def task_key(words: str) -> str:
    """Names a task by its words, so that a comment edited meanwhile still has the right box ticked."""
    return hashlib.sha256(words.strip().encode()).hexdigest()[:16]


def toggled(text: str, task: str) -> str | None:
    """`text` with one task ticked or unticked; None when the task is no longer there as it was shown."""
    line_number, key, was = [*task.split(":"), "", "", ""][:3]
    lines = text.split("\n")
    matches = [(number, match) for number, line in enumerate(lines) if (match := _TASK_LINE.match(line.rstrip("\r")))]
    same = [
        (number, match) for number, match in matches if task_key(match[3]) == key and (match[2] == " ") == (was == " ")
    ]
    if not same:
        return None
    number, match = min(same, key=lambda pair: abs(pair[0] - int(line_number) if line_number.isdigit() else 0))
    ending = "\r" if lines[number].endswith("\r") else ""
    lines[number] = f"{match[1]}[{'x' if was == ' ' else ' '}]{match[3]}{ending}"
    return "\n".join(lines)


def _mark_alerts(tokens: list[Token], slots: _Slots) -> None:
    """`> [!NOTE]` becomes a box with a title; the quote's own tags are exchanged, so nothing else changes."""
    for index in range(len(tokens) - 2):
        inline = tokens[index + 2]
        if tokens[index].type != "blockquote_open" or inline.type != "inline" or not inline.children:
            continue
        match = re.match(r"\[!(\w+)\][ \t]*$", inline.content.split("\n")[0])
        if match is None or match[1].upper() not in ALERTS:
            continue
        kind = match[1].upper()
        breaks = (place for place, child in enumerate(inline.children) if child.type in ("softbreak", "hardbreak"))
        inline.children = inline.children[next(breaks, len(inline.children) - 1) + 1 :]
        title = slots.put(f'<span class="alert alert-{kind.lower()}">{ALERTS[kind]}</span>')
        inline.children.insert(0, Token("text", "", 0, content=title))


def _anchor_headings(tokens: list[Token]) -> None:
    seen: dict[str, int] = {}
    for token, inline in itertools.pairwise(tokens):
        if token.type == "heading_open":
            slug = re.sub(r"[^\w\- ]", "", inline.content.lower()).strip().replace(" ", "-")
            count = seen.get(slug, 0)
            seen[slug] = count + 1
            token.attrSet("id", f"{slug}-{count}" if count else slug)


def _align_cells(tokens: list[Token]) -> None:
    # The parser says the alignment in a style attribute, which no page of ours may carry.
    for token in tokens:
        style = str(token.attrGet("style") or "")
        if token.type in ("td_open", "th_open") and style.startswith("text-align:"):
            token.attrSet("align", style.removeprefix("text-align:"))
