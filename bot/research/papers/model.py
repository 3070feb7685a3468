"""A paper as it was read: sections with paragraphs and tables, whatever form it came in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum


class Form(StrEnum):
    """What a paper was read from, best first."""

    HTML = "arXiv HTML"
    AR5IV = "ar5iv HTML"
    LATEX = "LaTeX source"
    PDF = "PDF"

    @property
    def caution(self) -> str:
        """What a reader of values should know about the form; empty for most."""
        if self is Form.PDF:
            return "read from a PDF: tables survive badly there, so values that stand only in tables may be missing"
        return ""


@dataclass(frozen=True, slots=True)
class Link:
    """A hyperlink of the text."""

    text: str
    url: str


@dataclass(frozen=True, slots=True)
class Table:
    """A table as a grid: cells that span rows or columns are repeated in each place."""

    rows: tuple[tuple[str, ...], ...]
    header_rows: int
    """How many of the first rows are its header; 0 where the form does not say."""
    caption: str = ""
    label: str = ""
    """What it is called in the text: `Table 3`; empty where it has no number."""

    @property
    def header(self) -> tuple[tuple[str, ...], ...]:
        return self.rows[: self.header_rows]

    @property
    def body(self) -> tuple[tuple[str, ...], ...]:
        return self.rows[self.header_rows :]


@dataclass(frozen=True, slots=True)
class Section:
    """One heading and what stands below it up to the next heading of any level."""

    title: str
    level: int
    """1 for a section, 2 for a subsection, 4 for a run-in heading."""
    paragraphs: tuple[str, ...] = ()
    """Plain text; each item of a list is a paragraph of its own, formulas are written out (`2 × 10^-5`)."""
    tables: tuple[Table, ...] = ()
    captions: tuple[str, ...] = ()
    """Of figures; those of tables stand with them."""
    path: tuple[str, ...] = ()
    """Titles of the sections that it stands in, outermost first."""
    appendix: bool = False
    notes: tuple[str, ...] = ()
    """Footnotes."""

    @property
    def where(self) -> str:
        """Where it stands, for a person."""
        return " › ".join((*self.path, self.title))


@dataclass(frozen=True, slots=True)
class Paper:
    """A paper that was read."""

    id: str
    """arXiv's identifier with its version where that is known, or the name of a local file."""
    title: str
    abstract: str
    sections: tuple[Section, ...]
    source: str
    """Address or path of what was read."""
    fetched_at: float
    """Seconds since the epoch."""
    form: Form
    links: tuple[Link, ...] = ()
    notes: tuple[str, ...] = ()
    """What the reader should know about how it was read."""

    def section(self, title: str) -> Section | None:
        """The first section whose title holds these words, in any case."""
        wanted = title.casefold()
        return next((each for each in self.sections if wanted in each.title.casefold()), None)

    def tables(self) -> Iterator[tuple[Section, Table]]:
        for section in self.sections:
            for table in section.tables:
                yield section, table
