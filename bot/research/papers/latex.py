"""Papers from their LaTeX source: sections, paragraphs and tables, inline commands written out as plain text."""

from __future__ import annotations

import re

from bot.research.errors import Malformed
from bot.research.papers.archive import unpack
from bot.research.papers.building import Builder
from bot.research.papers.model import Form, Link, Paper, Table
from bot.research.papers.tex_math import SYMBOLS, math_text, plain
from bot.research.papers.tex_source import MOST_BROKEN, commands, group_at, told_before, whole_source

_LEVELS = {
    "part": 1,
    "chapter": 1,
    "section": 1,
    "subsection": 2,
    "subsubsection": 3,
    "paragraph": 4,
    "subparagraph": 5,
}
_HEADING = re.compile(rf"\\({'|'.join(_LEVELS)})\s*\*?\s*(?:\[[^\]]{{0,300}}\])?\s*(?=\{{)|\\(appendix)(?![A-Za-z])")
_ENVIRONMENT = re.compile(r"\\begin\{([A-Za-z]+)\*?\}")
_TABLES = {
    "table",
    "wraptable",
    "sidewaystable",
    "longtable",
    "tabular",
    "tabularx",
    "tabulary",
    "tabu",
    "supertabular",
}
_FIGURES = {"figure", "wrapfigure", "algorithm", "algorithmic", "tikzpicture", "subfigure"}
_FORMULAS = {"equation", "align", "gather", "multline", "eqnarray", "displaymath", "math", "flalign"}
_LISTINGS = {"verbatim", "lstlisting", "minted", "Verbatim"}
_LEFT_OUT = {"thebibliography", "CCSXML", "IEEEkeywords", "filecontents"}
_TABULAR = re.compile(r"\\begin\{(tabular[xy*]?|longtable|tabu|supertabular)\*?\}")
_RULE = re.compile(
    r"\\(?:hline|toprule|midrule|bottomrule|specialrule\{[^}]*\}\{[^}]*\}\{[^}]*\}|"
    r"endhead|endfirsthead|endfoot|endlastfoot)(?:\[[^\]]{0,300}\])?|\\c(?:mid|d)?(?:rule|"
    r"line)\s*(?:\([^)]*\))?(?:\[[^\]]{0,300}\])?\s*\{[^}]*\}"
)
_MATH = re.compile(r"\\\((.+?)\\\)|(?<!\\)\$\$?((?:[^$\\]|\\.)+?)\$\$?|\\\[(.+?)\\\]", re.DOTALL)
_GONE = re.compile(
    r"\\(?:label|ref|autoref|cref|Cref|eqref|pageref|vspace|hspace|includegraphics|"
    r"bibliography|bibliographystyle|thanks|"
    r"centering|resizebox|scalebox|rotatebox|setlength|addtolength|renewcommand|newcommand|vskip|hskip|input|noindent|"
    r"pagestyle|thispagestyle|color|definecolor|rowcolor|cellcolor|columncolor|"
    r"arraystretch|tabcolsep|footnotemark|index|"
    r"setcounter|addtocounter|hyphenation|phantomsection|addcontentsline)\*?(?![A-Za-z])\s*(?:\[[^\]]{0,300}\])*(?:\{[^{}]*\})?"
)
_CITE_AS_NOUN = re.compile(r"\\(?:citet|textcite|citeauthor|newcite|Citet)\*?\s*(?:\[[^\]]{0,300}\])*\s*\{([^{}]*)\}")
_CITE = re.compile(r"\\(?:[a-zA-Z]*cite[a-zA-Z]*)\*?\s*(?:\[[^\]]{0,300}\])*\s*\{([^{}]*)\}")
_HREF = re.compile(r"\\href\s*\{([^{}]*)\}\s*(?=\{)")
_URL = re.compile(r"\\(?:url|path|nolinkurl)\s*\{([^{}]*)\}")
_UNIT = re.compile(r"\\(?:SI|qty)\s*(?:\[[^\]]{0,300}\])?\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_NUMBER = re.compile(r"\\num\s*(?:\[[^\]]{0,300}\])?\s*\{([^{}]*)\}")
_TWO_GROUPS = re.compile(
    r"\\(?:textcolor|colorbox|parbox|raisebox|hypertarget|hyperlink|fontsize)\s*(?:\[[^\]]{0,300}\])?\s*\{[^{}]*\}"
)
_COMMAND = re.compile(r"\\([A-Za-z@]+)\*?\s?(?:\[[^\]\[{}]*\])?")
_SUPERSCRIPT = re.compile(r"\\textsuperscript\s*\{([^{}]*)\}")


def read_latex(data: bytes, *, id: str, source: str, fetched_at: float) -> Paper:
    """A paper from its e-print. Raises: Malformed."""
    return read_source(whole_source(unpack(data, source), source), id=id, source=source, fetched_at=fetched_at)


def read_source(text: str, *, id: str, source: str, fetched_at: float) -> Paper:
    """A paper from one LaTeX text whose includes and macros have been written out. Raises: Malformed."""
    reader = _Reader()
    body = re.sub(r"\A.*?\\begin\s*\{document\}", lambda found: told_before(found[0]), text, count=1, flags=re.DOTALL)
    reader.document(re.split(r"\\end\s*\{document\}", body, maxsplit=1)[0])
    paper = reader.builder.paper(id=id, source=source, fetched_at=fetched_at, form=Form.LATEX)
    if not any(section.paragraphs or section.tables for section in paper.sections) and not paper.abstract:
        raise Malformed(f"{source} holds no text of a paper")
    return paper


class _Reader:
    def __init__(self) -> None:
        self.builder = Builder()
        self._endless = 0

    def document(self, text: str) -> None:
        found = re.search(r"\\title\s*(?:\[[^\]]{0,300}\])?\s*(?=\{)", text)
        if found and (inside := group_at(text, found.end())) is not None:
            self.builder.title = self.inline(re.sub(r"\\\\", " ", inside))
            text = text[: found.start()] + text[found.end() + len(inside) + 2 :]
        at = broken = 0
        while broken < MOST_BROKEN and (heading := _HEADING.search(text, at)) is not None:
            self._flow(text[at : heading.start()])
            at = heading.end()
            if heading[2]:
                self.builder.start_appendix()
                continue
            title = group_at(text, at)
            broken += title is None
            if title is not None:
                at += len(title) + 2
                self.builder.heading(self.inline(title).rstrip(" .:") or "untitled", _LEVELS[heading[1]])
        self._flow(text[at:])

    def _flow(self, text: str, depth: int = 0) -> None:
        """Paragraphs and environments between two headings."""
        at = 0
        while (begin := _ENVIRONMENT.search(text, at)) is not None:
            self._paragraphs(text[at : begin.start()])
            name = begin[1]
            inside, at = _environment(text, begin) if self._endless < MOST_BROKEN else (None, 0)
            if inside is None:
                self._endless += 1
                at = begin.end()
            elif depth < 20:
                self._environment(name, inside, begin[0], depth)
        self._paragraphs(text[at:])

    def _environment(self, name: str, inside: str, begin: str, depth: int) -> None:
        bare = name.rstrip("*")
        if bare == "abstract":
            self.builder.abstract = plain(self.inline(inside))
        elif bare in _TABLES or (bare in {"center", "figure", "minipage", "adjustbox"} and _TABULAR.search(inside)):
            self._tables(bare, inside, begin)
        elif bare in _FIGURES:
            self.builder.caption(self._caption(inside))
        elif bare in _FORMULAS:
            for line in re.split(r"\\\\", re.sub(r"\\label\{[^}]*\}|&", " ", inside)):
                self.builder.paragraph(math_text(line))
        elif bare in _LISTINGS:
            for line in re.sub(r"\A(?:\[[^\]]{0,300}\])?(?:\{[^}]*\})?", "", inside).splitlines():
                self.builder.paragraph(plain(line))
        elif bare in {"itemize", "enumerate", "description", "compactitem", "inparaenum", "list"}:
            for item in re.split(r"\\item(?![A-Za-z])", inside):
                named = re.match(r"\s*\[([^\]]*)\]", item)
                self._flow(f"{named[1]} {item[named.end() :]}" if named else item, depth + 1)
        elif bare not in _LEFT_OUT:
            self._flow(re.sub(r"\A(?:\s*\[[^\]]{0,300}\]|\s*\{[^{}]*\})*", "", inside), depth + 1)

    def _paragraphs(self, text: str) -> None:
        for piece in re.split(r"\n\s*\n|\\par(?![A-Za-z])|\\\[|\\\]|\$\$", text):
            if piece.strip():
                piece, notes = _without_footnotes(piece)
                self.builder.paragraph(self.inline(piece))
                for note in notes:
                    self.builder.note(self.inline(note))

    def _caption(self, text: str) -> str:
        found = re.search(r"\\(?:caption|captionof\{[a-z]+\})\*?\s*(?:\[[^\]]{0,300}\])?\s*(?=\{)", text)
        inside = group_at(text, found.end()) if found else None
        return self.inline(inside) if inside is not None else ""

    def _tables(self, name: str, inside: str, begin: str) -> None:
        caption = self._caption(inside)
        if _TABULAR.match(begin):
            self.builder.table(self._grid(inside, caption))
            return
        at = 0
        while (tabular := _TABULAR.search(inside, at)) is not None:
            body, at = _environment(inside, tabular)
            if body is None:
                return
            self.builder.table(self._grid(body, caption))

    def _grid(self, text: str, caption: str) -> Table:
        """One tabular's grid: `&` and `\\\\` apart, `\\multicolumn` and `\\multirow` written out."""
        text = _without_columns(text)
        text, _notes = _without_footnotes(_inner_tables_flat(text))
        rows: list[list[str]] = []
        first_rule: int | None = None
        hanging: dict[int, tuple[int, str]] = {}
        for line in re.split(r"\\\\(?:\s*\[[^\]]{0,300}\])?|\\tabularnewline|\\cr(?![A-Za-z])", text):
            ruled = bool(_RULE.match(line.lstrip()))
            line = re.sub(
                r"\\caption\*?\s*(?:\[[^\]]{0,300}\])?\s*\{.*?\}\s*(?=\\|\Z)", "", _RULE.sub(" ", line), flags=re.DOTALL
            )
            if ruled and rows and first_rule is None:
                first_rule = len(rows)
            if not line.strip():
                continue
            row: list[str] = []
            for cell in re.split(r"(?<!\\)&", line):
                wide, high, inside = _spans(cell.strip())
                value = self.inline(inside)
                if not value and (left := hanging.get(len(row))) and left[0] > 0:
                    hanging[len(row)] = (left[0] - 1, left[1])
                    value = left[1]
                elif high > 1:
                    hanging[len(row)] = (high - 1, value)
                else:
                    hanging.pop(len(row), None)
                row += [value] * wide
            if any(row):
                rows.append(row[:60])
        width = max((len(row) for row in rows), default=0)
        whole = tuple(tuple(row + [""] * (width - len(row))) for row in rows[:400])
        return Table(whole, first_rule if first_rule is not None and first_rule < len(whole) else 0, caption)

    def inline(self, text: str) -> str:
        """Running text in one plain line."""
        text = _MATH.sub(
            lambda found: (
                f" {math_text(found[1] or found[2] or found[3] or '')} "
                if found[0].startswith("$$")
                else math_text(found[1] or found[2] or found[3] or "")
            ),
            text,
        )
        text = _URL.sub(self._url, text)
        text = _HREF.sub(self._href, text)
        text = _CITE_AS_NOUN.sub(lambda found: f"{_names(found[1])} et al.", text)
        text = _CITE.sub(lambda found: f"({_names(found[1])})", text)
        text = _UNIT.sub(lambda found: f"{math_text(found[1])} {math_text(found[2])}", text)
        text = _NUMBER.sub(lambda found: math_text(found[1]), text)
        text = _SUPERSCRIPT.sub(lambda found: "" if found[1].strip().isdigit() else found[1], text)
        for _ in range(3):
            text = _GONE.sub(" ", text)
        text = _TWO_GROUPS.sub("", text)
        text = text.replace("\\%", "%").replace("\\&", "&").replace("\\#", "#").replace("\\$", "$").replace("\\_", "_")
        text = re.sub(r"\\(?:,|;|:|!|>|<|\s|/|@)|(?<!\\)~", " ", text)
        text = re.sub(r"\\[\"'`^~=.](?:\{(\w)\}|(\w))", lambda found: found[1] or found[2], text)
        text = text.replace("\\{", "⦃").replace("\\}", "⦄").replace("\\\\", " ")
        text = re.sub(r"\\xspace(?![A-Za-z])(?:\{\})?\s*(?=[\w(])", " ", text)
        text = _COMMAND.sub(_symbol, text)
        text = text.replace("{", "").replace("}", "").replace("⦃", "{").replace("⦄", "}")
        text = text.replace("---", "—").replace("--", "–").replace("``", "“").replace("''", "”")
        return plain(text)

    def _url(self, found: re.Match[str]) -> str:
        self._note_link(found[1], found[1])
        return found[1]

    def _href(self, found: re.Match[str]) -> str:
        inside = group_at(found.string, found.end())
        self._note_link(plain(inside or ""), found[1])
        return ""

    def _note_link(self, text: str, address: str) -> None:
        address = address.replace("\\_", "_").replace("\\%", "%").replace("\\#", "#").strip()
        if address.startswith(("https://", "http://")) and len(address) < 500:
            self.builder.links.append(Link(text[:200], address))


def _symbol(found: re.Match[str]) -> str:
    known = SYMBOLS.get(found[1])
    return known + " " if known and found[0].endswith(" ") else known or ""


def _names(keys: str) -> str:
    return ", ".join(key.strip() for key in keys.split(","))


def _environment(text: str, begin: re.Match[str]) -> tuple[str | None, int]:
    """What stands between `\\begin{x}` and its `\\end{x}`, and where that ends; (None, 0) where it never does."""
    name = re.escape(begin[0][7:-1])
    depth = 1
    for found in re.compile(rf"\\(begin|end)\{{{name}\}}").finditer(text, begin.end()):
        depth += 1 if found[1] == "begin" else -1
        if depth == 0:
            return text[begin.end() : found.start()], found.end()
    return None, 0


_FOOTNOTE = re.compile(r"\\(?:footnote|footnotetext)\s*(?:\[[^\]]{0,300}\])?\s*(?=\{)")
_BROKEN_CELL = re.compile(r"\\(?:makecell|shortstack|thead|specialcell)\s*(?:\[[^\]]{0,300}\])?\s*(?=\{)")
MOST_INNER_TABLES = 200


def _without_footnotes(text: str) -> tuple[str, list[str]]:
    notes: list[str] = []
    pieces, at = [], 0
    for found, inside in commands(text, _FOOTNOTE):
        pieces.append(text[at : found.start()])
        at = found.end() + len(inside) + 2
        notes.append(inside)
    return "".join([*pieces, text[at:]]), notes


def _without_columns(text: str) -> str:
    """The tabular without its arguments: width, position, columns."""
    at = 0
    for _ in range(3):
        stripped = text[at:].lstrip()
        at = len(text) - len(stripped)
        opening = stripped[:1]
        if opening not in "{[" or not opening:
            break
        inside = group_at(text, at, opening, "]" if opening == "[" else "}")
        if inside is None:
            break
        at += len(inside) + 2
    return text[at:]


def _inner_tables_flat(text: str) -> str:
    """Tables and broken lines within a cell in one line, so that their `\\\\` end no row."""
    for _ in range(MOST_INNER_TABLES):
        inner = _TABULAR.search(text)
        if inner is None:
            break
        body, end = _environment(text, inner)
        if body is None:
            break
        flat = re.sub(r"\\\\|(?<!\\)&", " ", _without_columns(body))
        text = text[: inner.start()] + flat + text[end:]
    pieces, at = [], 0
    for found, inside in commands(text, _BROKEN_CELL):
        pieces += [text[at : found.start()], inside.replace("\\\\", " ")]
        at = found.end() + len(inside) + 2
    return "".join([*pieces, text[at:]])


def _spans(cell: str) -> tuple[int, int, str]:
    """(columns, rows, content) of a cell."""
    wide = high = 1
    for _ in range(2):
        many = re.match(r"\\multicolumn\s*\{\s*(\d+)\s*\}\s*(?=\{)", cell)
        tall = re.match(
            r"\\multirow\s*(?:\[[^\]]{0,300}\])?\s*\{\s*(-?\d+)\s*\}\s*(?:\[[^\]]{0,300}\])?\s*\{[^{}]*\}\s*(?:\[[^\]]{0,300}\])?\s*(?=\{)",
            cell,
        )
        if many and (columns := group_at(cell, many.end())) is not None:
            start = many.end() + len(columns) + 2
            start += len(cell[start:]) - len(cell[start:].lstrip())
            wide, cell = max(1, min(60, int(many[1]))), group_at(cell, start) or ""
        elif tall:
            high, cell = max(1, min(60, abs(int(tall[1])))), group_at(cell, tall.end()) or ""
    return wide, high, cell
