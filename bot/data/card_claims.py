"""What a person wrote into a card and the measurements deny: rows, licence, languages, personal data, overlap, results.

Only lines that are new are looked at, so that nobody is answered for what the bot wrote. A claim is contradicted when a
measurement says otherwise, never because it was not measured.

Not covered: claims in other words than the few forms below, and claims that were taken out of a card.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from bot.data.licence_names import HUB_NAMES, IDENTIFIERS
from bot.data.licences import normalise_licence

LANGUAGES = {
    "english": "en", "german": "de", "french": "fr", "spanish": "es", "italian": "it", "portuguese": "pt",
    "dutch": "nl", "polish": "pl", "japanese": "ja", "korean": "ko", "chinese": "zh", "russian": "ru",
    "arabic": "ar", "hebrew": "he", "hindi": "hi", "thai": "th", "greek": "el",
}  # fmt: skip
"""Those that `bot.domain.languages` tells."""
_MOST_LINES = 2000
_LONGEST_LINE = 2000
_ABSENT, _MAIN = 0.01, 0.2
"""Shares of rows: below the first a language is not there, from the second on it has to be named."""
_ALL = 0.95
_NUMBER = r"(?P<number>\d{1,3}(?:[,\u202f ]\d{3})+|\d+)"
_COUNTED = r"(?:rows|examples|samples|conversations|records)"
_ROWS = re.compile(rf"(?<![\d.,]){_NUMBER}\s+(?:\w+\s+)?{_COUNTED}\b", re.IGNORECASE)
_NONE = r"\b(?:no|without|free of|free from|never|not contain(?:s|ing)?|removed|anonymi[sz]ed)\b"
_PRIVATE = r"\b(?:personal(?:ly)?\b|pii\b|e-?mail|phone|private (?:data|information)|secrets?\b|credentials)"
_PERSONAL = re.compile(rf"{_NONE}[^.]{{0,60}}{_PRIVATE}|\banonymi[sz]ed\b", re.IGNORECASE)
_CLEAN = re.compile(
    r"\bno (?:overlap|contamination|leak(?:age)?)\b|\bdecontaminated\b|\b(?:is|are) clean\b|verdict:\W*clean\b|"
    r"\bnot contaminated\b|\b0 (?:rows )?overlap",
    re.IGNORECASE,
)
_LICENCE_LINE = re.compile(r"\blicen[cs]ed?\b", re.IGNORECASE)
_FRONT_KEY = re.compile(r"^(?P<key>[A-Za-z_]+):\s*(?P<value>.*?)\s*$")
_ITEM = re.compile(r"^\s*-\s+(?P<value>.*?)\s*$")
_EVERY = re.compile(r"\b(?:only|all|entirely|exclusively|every|monolingual|100 ?%)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Measured:
    """What is known of the data and of the model; None and empty where nothing is."""

    counts: Mapping[str, int] = field(default_factory=dict)
    """What is counted, as a phrase (`training rows`) -> how many."""
    size: str = ""
    """The Hub's size category."""
    licence: str | None = None
    languages: Mapping[str, float] = field(default_factory=dict)
    sensitive: Mapping[str, int] = field(default_factory=dict)
    overlap: int | None = None
    """Training rows that hold evaluation items; None: not scanned."""
    unscannable: int = 0
    base_model: str = ""
    results: Mapping[str, float] = field(default_factory=dict)
    """Metric -> value as a card shows it."""


@dataclass(frozen=True, slots=True)
class Contradiction:
    line: int
    """1-based."""
    about: str
    """rows, licence, languages, personal data, overlap, base model or result."""
    found: str
    """What the measurement says: one sentence."""
    instead: str | None = None
    """The whole line as it could be; None where no one line follows."""


def contradictions(before: str, after: str, measured: Measured) -> list[Contradiction]:
    """Claims in the lines of `after` that `before` does not have and that `measured` denies, in the order of lines."""
    lines = [line[:_LONGEST_LINE] for line in after.splitlines()[:_MOST_LINES]]
    new = _new_lines([line[:_LONGEST_LINE] for line in before.splitlines()[:_MOST_LINES]], lines)
    front = _front_matter(lines)
    found: list[Contradiction] = []
    key = ""
    for number, line in enumerate(lines, 1):
        if number <= front:
            match = _FRONT_KEY.match(line)
            key = match["key"].lower() if match else key
            if number in new:
                found += _front_claims(number, line, key, measured)
        elif number in new:
            found += _prose_claims(number, line, measured)
    if front and any(number <= front for number in new):
        found += _unnamed_language(lines[:front], measured)
    return sorted(found, key=lambda each: each.line)


def _new_lines(before: Sequence[str], after: Sequence[str]) -> set[int]:
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    return {
        number + 1
        for tag, _, _, first, last in matcher.get_opcodes()
        if tag in ("insert", "replace")
        for number in range(first, last)
    }


def _front_matter(lines: Sequence[str]) -> int:
    """How many lines the front matter takes; 0 where there is none."""
    if not lines or lines[0].strip() != "---":
        return 0
    return next((number for number, line in enumerate(lines[1:], 2) if line.strip() == "---"), 0)


def _front_claims(number: int, line: str, key: str, measured: Measured) -> Iterator[Contradiction]:
    match = _ITEM.match(line) or _FRONT_KEY.match(line)
    value = match["value"].strip("\"'[] ") if match else ""
    if not value:
        return
    start = line[: line.index(value)]
    match key:
        case "license" | "licence":
            yield from _licence_claim(number, value, measured, f"{start}{measured.licence}")
        case "language":
            for code in re.split(r"[,\s]+", value):
                if measured.languages and code[:2].lower() in LANGUAGES.values():
                    yield from _language_claim(number, code[:2].lower(), measured)
        case "size_categories" if measured.size and value != measured.size:
            yield Contradiction(number, "rows", _count_words(measured), f"{start}{measured.size}")
        case "base_model" if measured.base_model and value != measured.base_model:
            words = f"The goal trains {measured.base_model}."
            yield Contradiction(number, "base model", words, f"{start}{measured.base_model}")


def _licence_claim(number: int, value: str, measured: Measured, instead: str) -> Iterator[Contradiction]:
    claimed = normalise_licence(value)
    if measured.licence and claimed != measured.licence and value.lower() != "other":
        words = f"What was read in the sources' own cards and files comes to {measured.licence}."
        single = " " not in measured.licence
        yield Contradiction(number, "licence", words, instead if single else None)


def _language_claim(number: int, code: str, measured: Measured) -> Iterator[Contradiction]:
    if measured.languages.get(code, 0.0) < _ABSENT:
        yield Contradiction(number, "languages", f"Hardly a row is in {code}: {_shares(measured)}.")


def _unnamed_language(front: Sequence[str], measured: Measured) -> Iterator[Contradiction]:
    """A language that much of the data is in and that a list of languages leaves out."""
    place = next((number for number, line in enumerate(front, 1) if line.lower().startswith("language:")), None)
    if place is None:
        return
    listed = [front[place - 1].partition(":")[2]]
    for line in front[place:]:
        if not (item := _ITEM.match(line)):
            break
        listed.append(item["value"])
    named = {code[:2].lower() for code in re.split(r"[^A-Za-z-]+", " ".join(listed)) if code}
    for code, share in measured.languages.items():
        if share >= _MAIN and named and code not in named:
            words = f"{code} is not named, and {100 * share:.0f} % of the rows are in it."
            yield Contradiction(place, "languages", words)


def _prose_claims(number: int, line: str, measured: Measured) -> Iterator[Contradiction]:
    yield from _count_claims(number, line, measured)
    if measured.sensitive and _PERSONAL.search(line):
        found = ", ".join(f"{kind} in {count:,} rows" for kind, count in measured.sensitive.items())
        yield Contradiction(number, "personal data", f"What looks like {found} was found.")
    if measured.overlap is not None and (measured.overlap or measured.unscannable) and _CLEAN.search(line):
        rest = f", and {measured.unscannable:,} rows or items could not be scanned" if measured.unscannable else ""
        if measured.overlap:
            yield Contradiction(number, "overlap", f"{measured.overlap:,} training rows hold evaluation items{rest}.")
    if _LICENCE_LINE.search(line) and measured.licence:
        yield from _licence_words(number, line, measured)
    if measured.languages:
        yield from _language_words(number, line, measured)
    yield from _result_claims(number, line, measured)


def _count_claims(number: int, line: str, measured: Measured) -> Iterator[Contradiction]:
    known = set(measured.counts.values())
    for match in _ROWS.finditer(line) if known else ():
        claimed = int(re.sub(r"\D", "", match["number"]))
        if claimed not in known:
            rows = measured.counts.get("training rows")
            instead = (
                None if rows is None else line[: match.start("number")] + f"{rows:,}" + line[match.end("number") :]
            )
            yield Contradiction(number, "rows", _count_words(measured), instead)
            return


def _count_words(measured: Measured) -> str:
    return f"Counted were {', '.join(f'{count:,} {what}' for what, count in list(measured.counts.items())[:3])}."


def _licence_words(number: int, line: str, measured: Measured) -> Iterator[Contradiction]:
    words = re.findall(r"[A-Za-z0-9][A-Za-z0-9.+-]*[A-Za-z0-9]", line)
    known = {word.lower() for word in words} & (IDENTIFIERS | set(HUB_NAMES))
    phrases = {normalise_licence(piece) for piece in re.split(r"[.;:,(){}\[\]`*]| under | is | the ", line)}
    known |= {each for each in phrases if each in IDENTIFIERS or each in HUB_NAMES}
    parts = set(re.split(r" and | or ", measured.licence or ""))
    if known and not known & parts:
        found = f"What was read in the sources' own cards and files comes to {measured.licence}."
        yield Contradiction(number, "licence", found)


def _language_words(number: int, line: str, measured: Measured) -> Iterator[Contradiction]:
    words = {word.lower() for word in re.findall(r"[A-Za-z]+", line)}
    for name in sorted(words & LANGUAGES.keys()):
        share = measured.languages.get(LANGUAGES[name], 0.0)
        negated = re.search(rf"\b(?:no|not|without|except)\b[^.]{{0,30}}\b{name}\b", line, re.IGNORECASE)
        if negated is None and (share < _ABSENT or (_EVERY.search(line) and share < _ALL)):
            yield Contradiction(number, "languages", f"{_shares(measured)}.")
            return


def _shares(measured: Measured) -> str:
    told = ", ".join(f"{code} {100 * share:.0f} %" for code, share in list(measured.languages.items())[:4])
    return f"Of the rows that tell theirs, {told}"


def _result_claims(number: int, line: str, measured: Measured) -> Iterator[Contradiction]:
    """`exact_match of 97 %` where no evaluation says so."""
    for metric, value in measured.results.items():
        spelled = re.escape(metric).replace("_", r"[_\s-]")
        match = re.search(rf"\b{spelled}\b[^\d\n]{{0,20}}(\d+(?:\.\d+)?)\s*(?:%|points)", line, re.IGNORECASE)
        if match and round(float(match[1]), 1) not in {round(each, 1) for each in measured.results.values()}:
            yield Contradiction(number, "result", f"The best run was measured at {metric} {value:.1f} %.")
            return
