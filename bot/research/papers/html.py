"""Papers in HTML: arXiv's own pages and ar5iv's, both written by LaTeXML (https://math.nist.gov/~BMiller/LaTeXML/).

Plain HTML with headings, paragraphs and tables is read as well. Scripts, styles, navigation and the bibliography are
left out; formulas come from the TeX that LaTeXML keeps beside them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from lxml import etree
from lxml import html as lxml_html

from bot.research.errors import Malformed
from bot.research.papers.building import Builder
from bot.research.papers.model import Form, Link, Paper, Table
from bot.research.papers.tex_math import math_text, plain

MOST_ROWS, MOST_COLUMNS, MOST_DEPTH = 400, 60, 200
_LEVELS = {"part": 1, "chapter": 1, "section": 1, "appendix": 1, "subsection": 2, "subsubsection": 3, "paragraph": 4}
_HEADING = re.compile(r"h[1-6]\Z")
_SKIPPED = frozenset(
    [
        "script",
        "style",
        "nav",
        "header",
        "footer",
        "button",
        "form",
        "template",
        "noscript",
        "annotation",
        "annotation-xml",
        "svg",
    ]
)
_SKIPPED_CLASSES = frozenset(
    [
        "ltx_bibliography",
        "ltx_authors",
        "ltx_page_footer",
        "ltx_page_header",
        "ltx_TOC",
        "ltx_ERROR",
        "ltx_note_mark",
        "ltx_dates",
    ]
)
_ENDS_TEN = re.compile(r"10\s*\Z")
_POWER = re.compile(r"[-+−]?\d{1,2}\Z")


def read_html(data: bytes | str, *, id: str, source: str, fetched_at: float, form: Form = Form.HTML) -> Paper:
    """Raises: Malformed where it is no page with text."""
    text = data.decode("utf-8", "replace") if isinstance(data, bytes) else data
    # lxml refuses text that carries an XML declaration with an encoding.
    text = re.sub(r"\A\s*<\?xml[^>]*\?>", "", text).replace("\x00", "")
    try:
        parser = lxml_html.HTMLParser(recover=True, no_network=True, huge_tree=False, remove_comments=True)
        root = lxml_html.document_fromstring(text, parser=parser)
    except (etree.LxmlError, ValueError) as error:
        raise Malformed(f"{source} is no HTML page that can be read") from error
    reader = _Reader()
    articles = root.xpath("//article") or root.xpath("//body") or [root]
    reader.block(articles[0], 0)
    if not reader.builder.title:
        reader.builder.title = plain(" ".join(root.xpath("//title/text()")))
    paper = reader.builder.paper(id=id, source=source, fetched_at=fetched_at, form=form)
    if not any(section.paragraphs or section.tables for section in paper.sections) and not paper.abstract:
        raise Malformed(f"{source} holds no text of a paper")
    return paper


def _classes(element: Any) -> set[str]:
    return set((element.get("class") or "").split())


def _is_tabular(element: Any) -> bool:
    classes = _classes(element)
    if classes & {"ltx_equation", "ltx_equationgroup", "ltx_eqn_table"}:
        return False
    return element.tag == "table" or "ltx_tabular" in classes


class _Reader:
    """Walks the page once and tells the builder what it sees."""

    def __init__(self) -> None:
        self.builder = Builder()
        self._notes: list[str] = []

    def block(self, element: Any, depth: int, caption: str = "") -> None:
        if depth > MOST_DEPTH or not isinstance(element.tag, str) or element.tag in _SKIPPED:
            return
        classes = _classes(element)
        if classes & _SKIPPED_CLASSES:
            return
        if "ltx_abstract" in classes or element.get("id") == "abstract":
            self._abstract(element)
        elif "ltx_appendix" in classes:
            self.builder.start_appendix()
            self._children(element, depth)
        elif _HEADING.match(element.tag) or any(each.startswith("ltx_title_") for each in classes):
            self._heading(element, classes)
        elif _is_tabular(element):
            self.builder.table(_table(element, caption or self._own_caption(element), self._text))
            self._flush_notes()
        elif element.tag == "figure":
            self._figure(element, depth)
        elif classes & {"ltx_equation", "ltx_equationgroup", "ltx_eqn_table"} or element.tag == "math":
            self.builder.paragraph(" ".join(self._formulas(element)))
        elif (
            element.tag in {"p", "blockquote", "dd", "dt", "pre"}
            or classes & {"ltx_p", "ltx_verbatim"}
            or (element.tag == "li" and not element.xpath(".//p | .//*[contains(@class, 'ltx_p')] | .//li"))
        ):
            self._paragraph(element)
        else:
            self._children(element, depth, caption)

    def _children(self, element: Any, depth: int, caption: str = "") -> None:
        if element.text and element.text.strip() and element.tag in {"div", "section", "body", "article", "li"}:
            self.builder.paragraph(plain(element.text))
        for child in element:
            self.block(child, depth + 1, caption)

    def _abstract(self, element: Any) -> None:
        paragraphs = element.xpath(".//p | .//*[contains(@class, 'ltx_p')]")
        texts = [self._text(each) for each in paragraphs] or [self._text(element)]
        text = plain(" ".join(texts))
        self.builder.abstract = re.sub(r"\Aabstract[.:]?\s*", "", text, flags=re.IGNORECASE)

    def _heading(self, element: Any, classes: set[str]) -> None:
        title = self._text(element)
        kind = next((each[10:] for each in classes if each.startswith("ltx_title_")), "")
        if kind == "document" or (not kind and element.tag == "h1" and not self.builder.title):
            self.builder.title = self.builder.title or title
            return
        if kind in {"abstract", "bibliography", "acknowledgements", "keywords", "contents"}:
            return
        level = _LEVELS.get(kind) or max(1, int(element.tag[1]) - 1 if _HEADING.match(element.tag) else 4)
        self.builder.heading(title, level)
        self._flush_notes()

    def _figure(self, element: Any, depth: int) -> None:
        captions = element.xpath("./figcaption | ./*[contains(@class, 'ltx_caption')]")
        caption = plain(" ".join(self._text(each) for each in captions))
        tabulars = [each for each in element.iter() if isinstance(each.tag, str) and _is_tabular(each)]
        if not tabulars and caption:
            self.builder.caption(caption)
        for child in element:
            if child not in captions:
                self.block(child, depth + 1, caption)

    def _own_caption(self, element: Any) -> str:
        return plain(" ".join(self._text(each) for each in element.xpath("./caption")))

    def _paragraph(self, element: Any) -> None:
        if element.tag == "pre" or "ltx_verbatim" in _classes(element):
            for line in (element.text_content() or "").splitlines():
                self.builder.paragraph(plain(line))
            return
        self.builder.paragraph(self._text(element))
        self._flush_notes()

    def _flush_notes(self) -> None:
        """Footnotes are kept apart, so that no sentence is broken by one and none passes for running text."""
        for note in self._notes:
            self.builder.note(note)
        self._notes = []

    def _formulas(self, element: Any) -> Iterator[str]:
        for each in element.iter("math"):
            yield _formula(each)

    def _text(self, element: Any) -> str:
        pieces: list[str] = []
        self._collect(element, pieces, 0)
        return plain("".join(pieces))

    def _collect(self, element: Any, pieces: list[str], depth: int) -> None:
        if depth > MOST_DEPTH:
            return
        if element.text:
            pieces.append(element.text)
        for child in element:
            if isinstance(child.tag, str):
                self._inline(child, pieces, depth)
            if child.tail:
                pieces.append(child.tail)

    def _inline(self, child: Any, pieces: list[str], depth: int) -> None:
        classes = _classes(child)
        if child.tag == "math":
            pieces.append(_formula(child))
        elif "ltx_note" in classes:
            self._note(child)
        elif child.tag in _SKIPPED or classes & _SKIPPED_CLASSES:
            return
        elif child.tag == "sup":
            inside = plain(child.text_content())
            # A power is kept; a footnote's or citation's mark is not part of a sentence.
            if _POWER.match(inside) and _ENDS_TEN.search("".join(pieces[-2:])):
                pieces.append("^" + inside.replace("−", "-"))
            elif not inside.replace(",", "").isdigit():
                self._collect(child, pieces, depth + 1)
        elif child.tag == "br":
            pieces.append(" ")
        else:
            self._link(child)
            spaced = child.tag in {"td", "th", "tr", "p", "div", "li", "table"} or classes & {"ltx_td", "ltx_tr"}
            pieces.append(" " if spaced or "ltx_tag" in classes else "")
            self._collect(child, pieces, depth + 1)
            pieces.append(" " if spaced or "ltx_tag" in classes else "")

    def _note(self, element: Any) -> None:
        content = element.xpath(".//*[contains(@class, 'ltx_note_content')]") or [element]
        text = re.sub(r"\A[\d*†‡]+\s+(?:[\d*†‡]+\s+)?", "", self._text(content[0]))
        if text:
            self._notes.append(text)

    def _link(self, element: Any) -> None:
        address = element.get("href") or "" if element.tag == "a" else ""
        if address.startswith(("https://", "http://")) and len(address) < 500:
            self.builder.links.append(Link(plain(element.text_content())[:200], address))


def _formula(element: Any) -> str:
    tex = element.get("alttext")
    if tex is None:
        notes = element.xpath(".//*[local-name()='annotation'][contains(@encoding, 'tex')]")
        tex = notes[0].text if notes else None
    return math_text(tex) if tex is not None else _presentation(element)


def _presentation(element: Any) -> str:
    """MathML without its TeX: the characters in order, powers marked."""
    if element.tag in {"annotation", "annotation-xml"}:
        return ""
    inside = [_presentation(child) for child in element if isinstance(child.tag, str)]
    if element.tag == "msup" and len(inside) == 2:
        return f"{inside[0]}^{inside[1]}"
    if element.tag == "mfrac" and len(inside) == 2:
        return f"{inside[0]}/{inside[1]}"
    return plain((element.text or "") + "".join(inside)) if not inside else "".join(inside)


def _table(element: Any, caption: str, text_of: Any) -> Table:
    """The grid of one table, spans written out."""
    grid: list[list[str | None]] = []
    heads: list[bool] = []
    for number, row in enumerate(_rows(element)):
        if number >= MOST_ROWS:
            break
        while len(grid) <= number:
            grid.append([])
        column, titles = 0, []
        for cell in _cells(row):
            while column < len(grid[number]) and grid[number][column] is not None:
                column += 1
            text = text_of(cell)
            if text:
                titles.append(cell.tag == "th" and "ltx_th_row" not in _classes(cell) - {"ltx_th_column"})
            wide, high = _span(cell, "colspan", MOST_COLUMNS), _span(cell, "rowspan", 50)
            for down in range(high):
                for across in range(wide):
                    _put(grid, number + down, column + across, text)
            column += wide
        heads.append("ltx_thead" in _classes(row.getparent()) or row.getparent().tag == "thead" or _all(titles))
    rows = [[cell or "" for cell in row] for row in grid[: len(heads)]]
    width = max((len(row) for row in rows), default=0)
    whole = tuple(tuple(row + [""] * (width - len(row))) for row in rows)
    header = 0
    while header < len(heads) - 1 and heads[header]:
        header += 1
    label = re.match(r"\s*Table\s+[A-Z]?\.?\d*", caption)
    return Table(whole, header, caption, label[0].strip() if label else "")


def _all(flags: list[bool]) -> bool:
    return bool(flags) and all(flags)


def _put(grid: list[list[str | None]], row: int, column: int, text: str) -> None:
    if column >= MOST_COLUMNS or row >= MOST_ROWS:
        return
    while len(grid) <= row:
        grid.append([])
    while len(grid[row]) <= column:
        grid[row].append(None)
    if grid[row][column] is None:
        grid[row][column] = text


def _rows(table: Any) -> Iterator[Any]:
    for child in table:
        if not isinstance(child.tag, str):
            continue
        if child.tag == "tr" or "ltx_tr" in _classes(child):
            yield child
        elif child.tag in {"thead", "tbody", "tfoot"} or _classes(child) & {"ltx_thead", "ltx_tbody", "ltx_tfoot"}:
            yield from _rows(child)


def _cells(row: Any) -> Iterator[Any]:
    for child in row:
        if isinstance(child.tag, str) and (child.tag in {"td", "th"} or "ltx_td" in _classes(child)):
            yield child


def _span(cell: Any, name: str, most: int) -> int:
    said = cell.get(name) or next(
        (each.rsplit("_", 1)[1] for each in _classes(cell) if each.startswith(f"ltx_{name}_")), "1"
    )
    return max(1, min(most, int(said))) if said.isdigit() else 1
