"""Paragraphs into sentences, and sentences into clauses that each say one thing about one party."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

_ABBREVIATIONS = re.compile(
    r"(?:\b(?:et al|e\.g|i\.e|cf|vs|resp|approx|ca|Fig|Figs|Tab|Sec|Secs|Eq|"
    r"Eqs|App|Appx|No|Nos|Dr|Prof|St|Inc|Ltd|Ref|Refs|"
    r"w\.r\.t|a\.k\.a|incl|max|min|avg|std|dim|temp|seq|len|Alg|Thm|Def|Prop)|\b[A-Z])\.\Z"
)
_END = re.compile(r"[.!?][\"”’)\]]*\s+(?=[\"“(\[]?[A-Z0-9αβγηλ])")
_CONTRAST = re.compile(
    r"\b(?:unlike|whereas|rather than|instead of|as opposed to|in contrast (?:to|"
    r"with)|compared (?:to|with)|versus|vs\.?|"
    r"differs? from|different from|contrary to|in comparison (?:to|with)|as compared (?:to|with))\b",
    re.IGNORECASE,
)
_CLAUSE = re.compile(
    r";\s*|,\s*(?=(?:since|because|half|although|even)\b)|"
    r",\s*(?=as (?:more|fewer|longer|shorter|larger|smaller|higher|lower|further|another|a (?:second|third|"
    r"larger|smaller))\b)|,\s*(?=(?:and |but "
    r"|so |where |while |whereas |although |though |"
    r"yet )?(?:we|our|they|the authors|the original|unlike|"
    r"whereas|while|rather than|instead of|in contrast|as opposed)\b)|\s(?=(?:whereas|"
    r"but|although|rather than|instead of|"
    r"as opposed to|unlike|compared (?:to|with)|in contrast)\b)|\s+—\s+",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Clause:
    text: str
    start: int
    """Of the sentence."""
    end: int
    contrast: bool
    """It names what somebody else does."""


def sentences(paragraph: str) -> list[str]:
    """The sentences of a paragraph; their texts joined by spaces give the paragraph again."""
    parts: list[str] = []
    start = 0
    for found in _END.finditer(paragraph):
        before = paragraph[start : found.start() + 1]
        if found[0].startswith(".") and _ABBREVIATIONS.search(before[-12:]):
            continue
        if len(before) < 400 and before.count("(") > before.count(")"):
            continue
        parts.append(paragraph[start : found.end()].strip())
        start = found.end()
    rest = paragraph[start:].strip()
    return [*parts, rest] if rest else parts


def clauses(sentence: str) -> list[Clause]:
    """Clauses in order. A contrast reaches to the next comma, or to the end of its clause."""
    cuts = [0, *(found.end() for found in _CLAUSE.finditer(sentence)), len(sentence)]
    parts: list[Clause] = []
    for start, end in itertools.pairwise(cuts):
        if end <= start:
            continue
        text = sentence[start:end]
        opening = _CONTRAST.search(text)
        if opening is None:
            parts.append(Clause(text, start, end, False))
            continue
        if text[: opening.start()].strip():
            parts.append(Clause(text[: opening.start()], start, start + opening.start(), False))
        rest_start = start + opening.start()
        # What follows a comma is ours again: "unlike X, a rate of ..."; a relative clause still belongs to X.
        stop = _end_of_contrast(sentence, rest_start, end)
        parts.append(Clause(sentence[rest_start:stop], rest_start, stop, True))
        if stop < end:
            parts.append(Clause(sentence[stop:end], stop, end, False))
    return parts


def _end_of_contrast(sentence: str, start: int, end: int) -> int:
    """The next comma outside of parentheses that starts no relative clause."""
    for comma in re.compile(r",\s+(?!who|which|that|whose|where)").finditer(sentence, start, end):
        before = sentence[start : comma.start()]
        if before.count("(") <= before.count(")"):
            return comma.end()
    return end


def clause_at(sentence: str, position: int) -> Clause:
    """The clause that a place of the sentence is in."""
    parts = clauses(sentence)
    return next(
        (part for part in parts if part.start <= position < part.end), Clause(sentence, 0, len(sentence), False)
    )
