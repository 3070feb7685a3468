"""Numbers as papers write them: `2e-5`, `2 × 10^-5`, `10−5` of a PDF, `1,024`, `64k`, `3 %`, `1/8`, `three`."""

from __future__ import annotations

import re
from dataclasses import dataclass

_WORDS = {
    "zero": 0,
    "one": 1,
    "single": 1,
    "two": 2,
    "three": 3,
    "four": 4,
    "five": 5,
    "six": 6,
    "seven": 7,
    "eight": 8,
    "nine": 9,
    "ten": 10,
    "twelve": 12,
    "sixteen": 16,
    "thirty-two": 32,
    "sixty-four": 64,
}
_SUFFIXES = {"k": 1_000, "thousand": 1_000, "m": 1_000_000, "million": 1_000_000, "b": 10**9, "billion": 10**9}
_PLAIN = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+\.\d+|\.\d+|\d+"
NUMBER = (
    rf"(?<![\w.^])(?:(?P<mantissa>{_PLAIN})\s?(?:[×xX·*⋅]|\\times)\s?10\s?\^?\s?\(?(?P<power>[-+–]?\s?\d{{1,2}})(?!\d|"
    r"\.\d)\)?"
    r"|10\^\(?(?P<bare>[-+–]?\d{1,2})\)?"
    r"|10\s?[-–](?P<flat>\d{1,2})(?!\d|\.\d)"
    rf"|(?P<scientific>(?:{_PLAIN})\s?[eE]\s?[-+–]?\s?\d{{1,2}})(?!\w)"
    r"|(?P<over>\d{1,3})\s?/\s?(?P<under>\d{1,4})(?![\d/])"
    rf"|(?P<plain>{_PLAIN})(?:\s?(?P<percent>%|percent\b)|\s?(?P<suffix>[kKMB](?![\w/])|"
    r"(?:thousand|million|billion)\b))?"
    rf"|(?P<word>(?:{'|'.join(sorted(_WORDS, key=len, reverse=True))})\b(?! (?:million|billion|thousand|hundred|"
    rf"dozen))))"
)
_NUMBER = re.compile(NUMBER)


@dataclass(frozen=True, slots=True)
class Number:
    value: float
    start: int
    end: int
    percent: bool = False
    """`value` is the fraction already: 3 % is 0.03."""
    suffix: str = ""
    """`k`, `m` or `b` where one was written; the value has been multiplied with it."""
    flat: bool = False
    """Written `10-5`: a power that lost its place, or a range."""
    fraction: bool = False
    word: bool = False

    @property
    def whole(self) -> bool:
        return float(self.value).is_integer()

    @property
    def tidy(self) -> int | float:
        """An int where it is one."""
        return int(self.value) if self.whole and abs(self.value) >= 1 else self.value


def number_at(text: str, at: int) -> Number | None:
    """The number that starts exactly at `at`."""
    found = _NUMBER.match(text, at)
    return _read(found) if found else None


def numbers_in(text: str, start: int = 0, end: int | None = None) -> list[Number]:
    """All numbers of `text` in order."""
    found = _NUMBER.finditer(text, start, len(text) if end is None else end)
    return [number for match in found if (number := _read(match)) is not None]


def only_number(text: str) -> Number | None:
    """The number that is all there is in a cell, footnote signs and one parenthesis without digits excepted."""
    bare = re.sub(r"\((?!early|up to|searched|tried|at most)[^)\d]*\)|[†‡*§¶↑↓✓]", " ", text).strip().rstrip(".")
    bare = re.sub(r"\A(?:~|≈|∼|=)\s*", "", bare)
    number = number_at(bare, 0)
    return number if number is not None and number.end == len(bare) else None


def _read(found: re.Match[str]) -> Number | None:
    start, end = found.span()

    def number(value: float, **said: bool | str) -> Number:
        return Number(value, start, end, **said)  # type: ignore[arg-type]

    groups = found.groupdict()
    if groups["mantissa"] is not None:
        return number(_scientific(groups["mantissa"], groups["power"]))
    if groups["bare"] is not None:
        return number(_scientific("1", groups["bare"]))
    if groups["flat"] is not None:
        return number(_scientific("1", "-" + groups["flat"]), flat=True)
    if groups["scientific"] is not None:
        mantissa, power = re.split(r"[eE]", groups["scientific"])
        return number(_scientific(mantissa, power))
    if groups["over"] is not None:
        under = int(groups["under"])
        return number(int(groups["over"]) / under, fraction=True) if under else None
    if groups["word"] is not None:
        return number(_WORDS[groups["word"]], word=True)
    value = float(groups["plain"].replace(",", ""))
    if groups["percent"]:
        return number(float(f"{value / 100:.12g}"), percent=True)
    if groups["suffix"]:
        suffix = groups["suffix"].lower()
        return number(float(f"{value * _SUFFIXES[suffix]:.15g}"), suffix=suffix[0])
    return number(value)


def _scientific(mantissa: str, power: str) -> float:
    """By its decimal text, so that 2 × 10^-5 is exactly the float that `2e-5` is."""
    exponent = power.replace(" ", "").replace("–", "-")
    return float(f"{mantissa.replace(',', '').strip()}e{exponent}")
