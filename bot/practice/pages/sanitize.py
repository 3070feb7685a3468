"""Keeps of an HTML fragment what GitHub would keep: a short list of tags and attributes, no script, no foreign image.

The fragment is parsed and written anew: every text is escaped, every attribute is quoted and every tag is closed, so
that nothing in it can reach past its own box. Not covered: CSS (no `style` or `class` attribute survives) and SVG or
MathML (dropped whole).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from html import escape
from html.parser import HTMLParser

ALLOWED_TAGS = frozenset((
    "h1", "h2", "h3", "h4", "h5", "h6", "br", "b", "i", "strong", "em", "a", "pre", "code", "img", "tt", "div", "ins",
    "del", "sup", "sub", "p", "ol", "ul", "li", "table", "thead", "tbody", "tfoot", "tr", "td", "th", "blockquote",
    "dl",
    "dt", "dd", "kbd", "q", "samp", "var", "hr", "ruby", "rt", "rp", "s", "strike", "summary", "details", "figure",
    "figcaption", "abbr", "cite", "dfn", "mark", "small", "span", "time", "wbr",
))  # fmt: skip
# Their content is dropped along with the tag; of any other unknown tag the content stays.
DROPPED_WITH_CONTENT = frozenset((
    "script", "style", "svg", "math", "iframe", "object", "embed", "template", "noscript", "textarea", "select",
    "title",
    "xmp", "plaintext", "noembed", "noframes",
))  # fmt: skip
VOID_TAGS = frozenset(("br", "img", "hr", "wbr"))
ALLOWED_ATTRIBUTES: dict[str, frozenset[str]] = {
    "a": frozenset(("href",)),
    "img": frozenset(("src", "alt", "width", "height")),
    "ol": frozenset(("start", "reversed")),
    "details": frozenset(("open",)),
    "td": frozenset(("colspan", "rowspan")),
    "th": frozenset(("colspan", "rowspan", "scope")),
    "time": frozenset(("datetime",)),
}
ALLOWED_EVERYWHERE = frozenset(("title", "align", "dir", "lang", "id"))
PREFIX = "user-content-"
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
_IGNORED_IN_URLS = re.compile(r"[\x00-\x20\x7f-\x9f\u200b-\u200f\u2028\u2029\ufeff]")

LinkResolver = Callable[[str, bool], str]
"""Turns a relative address into one of this site; the second argument says whether it is an image."""


def safe_link(href: str, resolve: LinkResolver) -> str | None:
    """The address to follow, or None when it must not become a link (a scheme other than http, https and mailto)."""
    plain = _IGNORED_IN_URLS.sub("", href)
    if plain.lower().startswith(("http://", "https://", "mailto:")):
        return plain
    if _SCHEME.match(plain) or plain.startswith(("//", "\\")):
        return None
    if plain.startswith("#"):
        return "#" + PREFIX + plain[1:].removeprefix(PREFIX)
    return resolve(plain, False)


def is_foreign(address: str) -> bool:
    """Whether showing this image would tell another server that the page was read."""
    plain = _IGNORED_IN_URLS.sub("", address)
    return bool(_SCHEME.match(plain)) or plain.startswith(("//", "\\"))


class _Sanitizer(HTMLParser):
    def __init__(self, resolve: LinkResolver, strip_from_attributes: str) -> None:
        super().__init__(convert_charrefs=True)
        self.resolve = resolve
        self.strip = strip_from_attributes
        self.out: list[str] = []
        self.open: list[str] = []
        self.dropping: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self.dropping or tag in DROPPED_WITH_CONTENT:
            self._note_dropped(tag)
            return
        if tag not in ALLOWED_TAGS:
            return
        if tag == "img":
            self.out.append(self._image(dict(attrs)))
            return
        self.out.append(f"<{tag}{self._attributes(tag, attrs)}>")
        if tag not in VOID_TAGS:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if not self.dropping and tag not in DROPPED_WITH_CONTENT:
            self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if self.dropping:
            if tag == self.dropping[-1]:
                self.dropping.pop()
            return
        if tag not in self.open:
            return
        while True:
            closing = self.open.pop()
            self.out.append(f"</{closing}>")
            if closing == tag:
                return

    def handle_data(self, data: str) -> None:
        if not self.dropping:
            self.out.append(escape(data, quote=False))

    def finish(self) -> str:
        self.close()
        self.out.extend(f"</{tag}>" for tag in reversed(self.open))
        return "".join(self.out)

    def _note_dropped(self, tag: str) -> None:
        # Only the same tag is counted inside a dropped one: a stray <form> within <form> must not swallow the rest.
        if not self.dropping or tag == self.dropping[-1]:
            self.dropping.append(tag)

    def _attributes(self, tag: str, attrs: list[tuple[str, str | None]]) -> str:
        allowed = ALLOWED_EVERYWHERE | ALLOWED_ATTRIBUTES.get(tag, frozenset())
        kept: dict[str, str] = {}
        for name, raw in attrs:
            if name not in allowed or name in kept:
                continue
            value = self._plain(raw)
            if name == "href":
                link = safe_link(value, self.resolve)
                if link is None:
                    continue
                value = link
            if name == "id":
                value = PREFIX + value.removeprefix(PREFIX)
            kept[name] = value
        if "href" in kept:
            kept["rel"] = "nofollow noopener noreferrer"
        return "".join(f' {name}="{escape(value)}"' for name, value in kept.items())

    def _image(self, attrs: dict[str, str | None]) -> str:
        source, words = self._plain(attrs.get("src")), self._plain(attrs.get("alt"))
        if not source:
            return ""
        if is_foreign(source):
            shown = escape(words or "image")
            link = safe_link(source, self.resolve)
            if link is None or "a" in self.open:
                return f"<em>[{shown}]</em>"
            return f'<a href="{escape(link)}" rel="nofollow noopener noreferrer">[image elsewhere: {shown}]</a>'
        sizes = "".join(
            f' {name}="{value}"' for name in ("width", "height") if (value := self._plain(attrs.get(name))).isdigit()
        )
        return f'<img src="{escape(self.resolve(source, True))}" alt="{escape(words)}" loading="lazy"{sizes}>'

    def _plain(self, value: str | None) -> str:
        return (value or "").replace(self.strip, "") if self.strip else value or ""


def sanitize(html: str, resolve: LinkResolver, *, strip_from_attributes: str = "") -> str:
    """The safe rest of `html`. `strip_from_attributes` never survives inside an attribute (see markdown.py's slots)."""
    parser = _Sanitizer(resolve, strip_from_attributes)
    opened = html.rfind("<!--")
    if opened >= 0 and "-->" not in html[opened:]:
        html = html[:opened]  # an unfinished comment hides what follows, as in a browser
    parser.feed(html)
    return parser.finish()
