"""Puts a paper together while it is read: headings open sections, paragraphs and tables go into the open one."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from bot.research.papers.model import Form, Link, Paper, Section, Table

MOST_PARAGRAPHS, MOST_SECTIONS = 20_000, 1_000
_NUMBER = re.compile(
    r"\A(?:Appendix\s+)?(?:(?!A\s+[a-z]|I\s+[a-z])[A-Z](?:\.\d+)*|\d+(?:\.\d+)*|[IVX]{2,})\.?[:.]?\s+(?=\S)"
)
_REFERENCES = re.compile(r"\A(?:references|bibliography|works cited)\W*\Z", re.IGNORECASE)


@dataclass
class _Open:
    title: str
    level: int
    path: tuple[str, ...]
    appendix: bool
    paragraphs: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Builder:
    """What the readers of all forms tell what they see."""

    def __init__(self) -> None:
        self.title = ""
        self.abstract = ""
        self.links: list[Link] = []
        self.notes: list[str] = []
        self._sections: list[_Open] = []
        self._appendix = False
        self._left_out = False
        self._count = 0

    def start_appendix(self) -> None:
        self._appendix = True
        self._left_out = False

    def heading(self, title: str, level: int) -> None:
        """A section starts. Its number is taken off: `A.2 Details` is `Details`."""
        bare = _NUMBER.sub("", title).strip() or title
        self._appendix = self._appendix or bool(re.match(r"\s*appendix", title, re.IGNORECASE))
        self._left_out = bool(_REFERENCES.match(bare))
        if self._left_out or len(self._sections) >= MOST_SECTIONS:
            return
        path: list[tuple[int, str]] = []
        for section in self._sections:
            path = [each for each in path if each[0] < section.level] + [(section.level, section.title)]
        parents = tuple(name for depth, name in path if depth < level)
        self._sections.append(_Open(bare, level, parents, self._appendix))

    def paragraph(self, text: str) -> None:
        if text and not self._left_out and self._count < MOST_PARAGRAPHS:
            self._count += 1
            self._now().paragraphs.append(text)

    def note(self, text: str) -> None:
        """A footnote."""
        if text and not self._left_out and self._count < MOST_PARAGRAPHS:
            self._count += 1
            self._now().notes.append(text)

    def table(self, table: Table) -> None:
        if table.rows and not self._left_out:
            self._now().tables.append(table)

    def caption(self, text: str) -> None:
        if text and not self._left_out:
            self._now().captions.append(text)

    def _now(self) -> _Open:
        if not self._sections:
            self._sections.append(_Open("", 1, (), False))
        return self._sections[-1]

    def paper(self, *, id: str, source: str, fetched_at: float, form: Form) -> Paper:
        sections = tuple(
            Section(
                each.title, each.level, tuple(each.paragraphs), tuple(each.tables), tuple(each.captions), each.path,
                each.appendix, tuple(each.notes),
            )
            for each in self._sections
        )  # fmt: skip
        caution = (form.caution,) if form.caution else ()
        return Paper(
            id, self.title, self.abstract, sections, source, fetched_at, form, tuple(dict.fromkeys(self.links)),
            (*caution, *self.notes),
        )  # fmt: skip
