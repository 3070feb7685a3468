"""Whether a query says what the goal's private data say: four words in a row, a name, a number, an address.

Texts are kept as 32-bit hashes, 4 bytes for each word, so a query is refused without reason once in 100,000 times for
each million words of private data.

Not covered: private data in other words, single words, and names that no capital letter shows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np
from numpy.typing import NDArray

GRAM = 4
"""Words in a row."""
MOST_GRAMS = 40_000_000
"""160 MB. What cannot be compared is not sent."""
_COMMON_NAME = 5
"""Two capitalised words that stand in so many texts are a term of the field (New York, Machine Learning)."""
_BLOCK = 4096
_WALL = "\n"
"""No word. Rows of words that hold one are in no query."""
_WORD = re.compile(r"\w+")
_ADDRESS = re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]+")
_NUMBER = re.compile(r"\d(?:[ ().-]{0,2}\d){3,20}")
"""Of at least four digits, as people write them: 555-0199."""
_PRIMES = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x27D4EB2F165667C5], np.uint64)
_EVERYDAY = re.compile(r"(?:19|20)\d\d|\d{1,3}000")
"""Years and round numbers."""
Hashes = NDArray[np.uint32]


class PrivateTexts:
    """Called with a text that is about to leave: the reason why it may not, or None."""

    def __init__(self, texts: Iterable[str]) -> None:
        told: list[Hashes] = []
        names: list[Hashes] = []
        self._complete, size = True, 0
        for block in _blocks(texts):
            words, short = _words_of(block)
            told += [_rows(_hashes(words), GRAM), *(_rows(_hashes(each), GRAM - 1) for each in short)]
            told.append(_identifiers("\n".join(block)))
            names.append(_names(words))
            size += len(words)
            if size > MOST_GRAMS:
                self._complete = False
                break
        pairs, counts = np.unique(_joined(names), return_counts=True)
        self._known = np.unique(_joined([*told, pairs[counts < _COMMON_NAME]]))

    def __call__(self, text: str) -> str | None:
        words = _WORD.findall(text)
        if not self._complete and words:
            return "cannot be compared with all of this goal's private data, which are too many"
        asked = _joined([_grams(words), _rows(_hashes(words), 2), _identifiers(text)])
        return "repeats words of this goal's private data" if self._holds(asked) else None

    def _holds(self, asked: Hashes) -> bool:
        if not len(self._known):
            return False
        places = np.minimum(np.searchsorted(self._known, asked), len(self._known) - 1)
        return bool((self._known[places] == asked).any())


def _blocks(texts: Iterable[str]) -> Iterator[list[str]]:
    """Many texts at a time: an array for each of a million rows would take minutes."""
    rest = iter(texts)
    while block := list(islice(rest, _BLOCK)):
        yield block


def _words_of(block: list[str]) -> tuple[list[str], list[list[str]]]:
    """The words of all texts, a wall between two of them, and the texts of three words apart."""
    found: list[str] = []
    short: list[list[str]] = []
    for text in block:
        words = _WORD.findall(text)
        if len(words) == GRAM - 1:
            short.append(words)  # looked for whole
        found += words
        found.append(_WALL)
    return found, short


def _joined(parts: list[Hashes]) -> Hashes:
    return np.concatenate([np.empty(0, np.uint32), *parts])


def _hashes(words: list[str]) -> NDArray[np.uint64]:
    """Python's own: they differ from process to process, and nothing of them is kept."""
    return np.array([hash(word.lower()) for word in words], np.int64).view(np.uint64)


def _rows(hashes: NDArray[np.uint64], length: int) -> Hashes:
    """One hash for each `length` neighbours."""
    count = max(0, len(hashes) - length + 1)
    mixed = np.full(count, length, np.uint64)
    for place in range(length):
        mixed = (mixed ^ hashes[place : place + count]) * _PRIMES[place]
    return (mixed >> np.uint64(32)).astype(np.uint32)


def _grams(words: list[str]) -> Hashes:
    # A text of three words is looked for whole.
    return _rows(_hashes(words), len(words) if len(words) == GRAM - 1 else GRAM)


def _names(words: list[str]) -> Hashes:
    """Neighbouring words that both begin with a capital letter, each pair once for each text."""
    capital = np.array([len(word) > 1 and word[0].isupper() for word in words], bool)
    both: NDArray[np.bool_] = capital[:-1] & capital[1:]
    pairs = np.compress(both, _rows(_hashes(words), 2)).astype(np.uint64)
    texts = np.compress(both, np.cumsum([word == _WALL for word in words])[:-1]).astype(np.uint64)
    apart: NDArray[np.uint64] = np.unique((pairs << np.uint64(32)) | texts)
    return (apart >> np.uint64(32)).astype(np.uint32)


def _identifiers(text: str) -> Hashes:
    numbers = [re.sub(r"[ ().-]", "", found) for found in _NUMBER.findall(text)]
    found = [
        *(_ADDRESS.findall(text) if "@" in text else ()),
        *(number for number in numbers if not _EVERYDAY.fullmatch(number)),
    ]
    return _rows(_hashes(found), 1)
