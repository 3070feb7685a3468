"""Papers from PDF, with pypdf (https://pypdf.readthedocs.io): running text by section.

A PDF holds glyphs in places, not paragraphs or tables: headings are known by their numbers and short lines, powers lose
their place (`10−5`), and of tables only lines of a name and one value are of use. The answer says so.
"""

from __future__ import annotations

import io
import re
import unicodedata

from bot.research.errors import Malformed, ResearchError
from bot.research.papers.building import Builder
from bot.research.papers.model import Form, Link, Paper
from bot.research.papers.tex_math import plain

MOST_PAGES, MOST_CHARACTERS = 150, 2 << 20
_HEADING = re.compile(
    r"(?:(\d+(?:\.\d+){0,3})\.?|([A-Z](?:\.\d+){0,3})\.?|Appendix\s+([A-Z]))[:.]?\s+([A-Z][^.!?]{2,80})\Z"
)
_NAMED = re.compile(
    r"(?:abstract|introduction|conclusions?|references|acknowledge?ments?|appendix|"
    r"related work|limitations|discussion)\Z",
    re.IGNORECASE,
)
_CAPTION = re.compile(r"(?:Table|Figure|Fig\.)\s*[A-Z]?\.?\d+[.:|]\s")
_ENDS = re.compile(r"[.!?:;]['\")\]”’]*\Z")
_WORD = re.compile(r"[A-Za-z]{2,}")


def read_pdf(data: bytes, *, id: str, source: str, fetched_at: float) -> Paper:
    """Raises: Malformed; ResearchError where pypdf is not installed."""
    lines, title = _lines(data, source)
    builder = Builder()
    builder.title = title
    _Reader(builder).read(lines)
    builder.links = [Link(address, address) for address in _addresses(lines)]
    paper = builder.paper(id=id, source=source, fetched_at=fetched_at, form=Form.PDF)
    if not any(section.paragraphs for section in paper.sections) and not paper.abstract:
        raise Malformed(f"{source} holds no text that can be read: a scan, or a broken PDF")
    return paper


def _lines(data: bytes, source: str) -> tuple[list[str], str]:
    try:
        from pypdf import PdfReader
        from pypdf.errors import PyPdfError
    except ImportError as error:
        raise ResearchError("papers in PDF need one more library: `pip install 'postdoc[papers]'`") from error
    if data[:5] != b"%PDF-":
        raise Malformed(f"{source} is no PDF")
    lines: list[str] = []
    size = 0
    try:
        document = PdfReader(io.BytesIO(data))
        if document.is_encrypted:
            raise Malformed(f"{source} is an encrypted PDF")
        title = str((document.metadata.get("/Title") if document.metadata else None) or "")
        for page in document.pages[:MOST_PAGES]:
            text = unicodedata.normalize("NFKC", page.extract_text())
            size += len(text)
            if size > MOST_CHARACTERS:
                break
            lines += [plain(line) for line in text.splitlines()] + [""]
    except (PyPdfError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, OSError) as error:
        # pypdf meets broken files with whichever of these the broken object leads to.
        raise Malformed(f"{source} is a broken PDF") from error
    return _without_running_heads(lines), title


def _without_running_heads(lines: list[str]) -> list[str]:
    """Page numbers, and short lines that stand on many pages."""
    seen: dict[str, int] = {}
    for line in lines:
        seen[line] = seen.get(line, 0) + 1
    return [
        line
        for line in lines
        if not line.isdigit() and not (line and seen[line] > 3 and not re.search(r"\d", line) and len(line) > 12)
    ]


def _addresses(lines: list[str]) -> list[str]:
    found = re.findall(r"https?://[^\s<>\"')\]]+", "\n".join(lines))
    return [address.rstrip(".,;") for address in found[:500]]


class _Reader:
    def __init__(self, builder: Builder) -> None:
        self._builder = builder
        self._pending: list[str] = []
        self._in_abstract = False
        self._last = 0
        self._started = False

    def read(self, lines: list[str]) -> None:
        for line in lines:
            if not line:
                if self._pending and _ENDS.search(self._pending[-1]):
                    self._flush()
            elif self._heading(line):
                continue
            elif _CAPTION.match(line):
                self._flush()
                self._pending.append(line)
            elif _is_row(line):
                self._flush()
                self._builder.paragraph(line)
            else:
                self._pending.append(line)
                if _ENDS.search(line) and len(line) < 60:
                    self._flush()
        self._flush()

    def _heading(self, line: str) -> bool:
        if _NAMED.match(line):
            self._flush()
            self._started = True
            self._in_abstract = line.casefold() == "abstract"
            if not self._in_abstract:
                self._builder.heading(line.capitalize() if line.isupper() else line, 1)
            return True
        if not self._started and not self._builder.title and len(_WORD.findall(line)) >= 2:
            self._builder.title = line
            return True
        found = _HEADING.match(line)
        if found is None or not self._plausible(found):
            return False
        self._flush()
        self._in_abstract = False
        self._started = True
        number = found[1] or found[2] or found[3]
        if not number[0].isdigit():
            self._builder.start_appendix()
        self._builder.heading(found[4], number.count(".") + 1)
        return True

    def _plausible(self, found: re.Match[str]) -> bool:
        """Whether a numbered line is a heading, not a row of a table or the middle of a sentence."""
        words = found[4].split()
        if len(words) > 12 or re.search(r"\d", found[4]) or found[4].endswith((",", ";")):
            return False
        if self._pending and not _ENDS.search(self._pending[-1]) and not self._pending[-1][-1].isupper():
            return (
                len(words) <= 6 and found[1] is not None and int(found[1].split(".")[0]) in {self._last, self._last + 1}
            )
        if found[1]:
            self._last = int(found[1].split(".")[0])
        return True

    def _flush(self) -> None:
        if not self._pending:
            return
        text = self._pending[0]
        for line in self._pending[1:]:
            # A word that was broken at the end of its line; compounds such as fine-tuning lose nothing a reader needs.
            broken = re.search(r"[a-z]-\Z", text) and re.match(r"[a-z]{2,}", line)
            text = text[:-1] + line if broken and not _compound(text, line) else text + ("" if broken else " ") + line
        self._pending = []
        if self._in_abstract:
            self._builder.abstract = plain(f"{self._builder.abstract} {text}")
        elif _CAPTION.match(text):
            self._builder.caption(text)
        else:
            self._builder.paragraph(plain(text))


_COMPOUND = re.compile(
    r"(?:fine|pre|post|multi|non|self|low|high|long|short|mini|micro|per|warm|top|fixed|weight|on|off|co|re)-\Z",
    re.IGNORECASE,
)


def _compound(text: str, line: str) -> bool:
    return bool(_COMPOUND.search(re.split(r"\s", text)[-1]))


_ROW = re.compile(
    r"(?P<name>[A-Za-zαβγεηλτμ][A-Za-z0-9 \-/()_.αβγεηλτμ%]{1,45}?)\s*[:=]?\s+(?P<value>\S+(?: "
    r"?[×x·] ?10 ?\^?[-−]? ?\d+)?)\Z"
)


def _is_row(line: str) -> bool:
    """A table's line of a name and one value; whoever reads values decides whether the name means one."""
    found = _ROW.match(line)
    return bool(found and re.search(r"\d", found["value"]) and len(line.split()) <= 7 and not _ENDS.search(line))
