"""Which language a text is in, as far as its script and its commonest words tell; nothing is said of short texts.

Not covered: languages that share script and words with none of the listed ones, and code or notation without words.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

# Some of the commonest function words of each language.
_COMMONEST = {
    "en": "the and that with for this are was have not you what which from they would there",
    "de": "der die und das nicht ist ein eine mit auf sich auch wird werden oder wie wenn noch",
    "fr": "les des est dans pour qui que une pas sur avec sont vous nous cette mais leur être",
    "es": "los las del una por con para como pero más este esta son muy también cuando hay ser",
    "it": "che di il della gli sono nel una non più questo anche come alla dei delle essere",
    "pt": "não uma para com os dos das mais você isso também pelo pela são foi está muito",
    "nl": "het een van niet dat zijn voor met ook wordt naar maar deze worden heeft geen bij",
    "pl": "nie się jest że na do to jak ale czy tak przez tylko może był które jego",
}
_WORDS = {code: frozenset(words.split()) for code, words in _COMMONEST.items()}
_SCRIPTS: tuple[tuple[str, int, int], ...] = (
    ("ja", 0x3040, 0x30FF),
    ("ko", 0xAC00, 0xD7AF),
    ("zh", 0x4E00, 0x9FFF),
    ("ru", 0x0400, 0x04FF),
    ("ar", 0x0600, 0x06FF),
    ("he", 0x0590, 0x05FF),
    ("hi", 0x0900, 0x097F),
    ("th", 0x0E00, 0x0E7F),
    ("el", 0x0370, 0x03FF),
)
_WORD = re.compile(r"[^\W\d_]+")
FEWEST_WORDS = 6


def language_of(text: str) -> str | None:
    """A two-letter code, None when the text does not tell."""
    letters = [ord(char) for char in text[:2000] if char.isalpha()]
    if not letters:
        return None
    for code, first, last in _SCRIPTS:
        share = sum(first <= letter <= last for letter in letters) / len(letters)
        # Japanese writes most of its nouns in Chinese characters.
        if share > (0.1 if code == "ja" else 0.4):
            return code
    words = [word.lower() for word in _WORD.findall(text[:2000])]
    if len(words) < FEWEST_WORDS:
        return None
    hits = {code: sum(word in known for word in words) for code, known in _WORDS.items()}
    best = max(hits, key=hits.__getitem__)
    second = max(count for code, count in hits.items() if code != best)
    return best if hits[best] >= max(2, 0.08 * len(words)) and hits[best] > second else None


def shares_of(texts: Iterable[str]) -> dict[str, float]:
    """Share of each language among the texts that tell theirs; empty when fewer than a third (or than 20) do."""
    return shares_of_known(Counter(map(language_of, texts)))


def shares_of_known(counts: Mapping[str | None, int]) -> dict[str, float]:
    """The same of texts that were counted by `language_of`, commonest first."""
    known = Counter({code: count for code, count in counts.items() if code is not None})
    total, read = sum(known.values()), sum(counts.values())
    if total < 20 or total < read / 3:
        return {}
    return {code: count / total for code, count in known.most_common()}


def unlike(found: Mapping[str, float], wanted: Mapping[str, float], least: float = 0.1) -> str | None:
    """The language that most of `wanted` is in and less than `least` of `found` is; None where they agree or one of
    them tells nothing."""
    main = next((code for code, share in wanted.items() if share > 0.8), None)
    if main is None or not found or found.get(main, 0.0) >= least:
        return None
    return main
