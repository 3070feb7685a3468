"""Colours code by its language, as spans with class names that the stylesheet knows in light and in dark."""

from __future__ import annotations

from functools import lru_cache
from html import escape

from pygments import highlight as pygments_highlight  # type: ignore[import-untyped]
from pygments.formatters import HtmlFormatter  # type: ignore[import-untyped]
from pygments.lexer import Lexer  # type: ignore[import-untyped]
from pygments.lexers import get_lexer_by_name, get_lexer_for_filename  # type: ignore[import-untyped]
from pygments.util import ClassNotFound  # type: ignore[import-untyped]

# Colouring is a nicety; beyond this many characters the text is shown plain, at once.
LARGEST_COLOURED = 200_000


@lru_cache(maxsize=256)
def coloured(code: str, language: str) -> str:
    """`code` as escaped HTML, with spans where the language is known."""
    if not language or len(code) > LARGEST_COLOURED:
        return escape(code, quote=False)
    try:
        lexer = get_lexer_by_name(language, stripnl=False, ensurenl=False)
    except ClassNotFound:
        return escape(code, quote=False)
    return _format(code, lexer)


def coloured_lines(code: str, path: str) -> list[str]:
    """Each line of a file as HTML of its own; a span that reaches over several lines is closed and opened again."""
    return list(_coloured_lines(code, path))


@lru_cache(maxsize=64)
def _coloured_lines(code: str, path: str) -> tuple[str, ...]:
    plain = code.split("\n")
    if plain and not plain[-1]:
        plain.pop()
    if len(code) > LARGEST_COLOURED:
        return tuple(escape(line, quote=False) for line in plain)
    try:
        lexer = get_lexer_for_filename(path, stripnl=False, ensurenl=False)
    except ClassNotFound:
        return tuple(escape(line, quote=False) for line in plain)
    # HtmlFormatter closes its spans at every line end by itself.
    lines = _format(code, lexer).split("\n")[: len(plain)]
    return tuple(lines) if len(lines) == len(plain) else tuple(escape(line, quote=False) for line in plain)


def _format(code: str, lexer: Lexer) -> str:
    html: str = pygments_highlight(code, lexer, HtmlFormatter(nowrap=True, classprefix="hl-"))
    return html
