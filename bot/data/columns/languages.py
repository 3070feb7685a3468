"""The same said in several languages: which is to be written from which is for a person to say."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

from .facts import Column, Kind
from .mapping import FEWEST, Table, Unclear
from .names import ANSWERS, PROMPTS, words_of

_CODES = frozenset(
    """
    af am ar as az be bg bn bs ca cs cy da de dv el en eo es et eu fa fi fil fr fy ga gl gu ha he hi hr hu hy id
    ig is it ja jv ka kk km kn ko ku ky la lb lo lt lv mg mi mk ml mn mr ms mt my nb ne nl nn no ny om or pa pl ps
    pt ro ru rw sa sd si sk sl sm sn so sq sr st su sv sw ta te tg th ti tk tl tn tr ts tt ug uk ur uz vi wo xh yi
    yo yue zh zu eng fra fre deu ger spa por ita nld dut rus zho chi jpn kor ara hin ben tur pol ukr vie tha ces
    swe fin heb ell english french german spanish portuguese italian dutch russian chinese japanese korean arabic
    hindi bengali turkish polish ukrainian vietnamese thai czech swedish finnish hebrew greek romanian hungarian
    danish norwegian indonesian persian urdu swahili yoruba hausa latin sanskrit catalan basque welsh irish
    """.split()  # noqa: SIM905
)
"""ISO 639 codes and the commonest English names of languages."""


def either_way(table: Table) -> Unclear | None:
    """The question which way to translate, where columns or the fields of one are named by languages, or an object
    holds two texts; None where there are none of these."""
    for column in table.columns:
        texts = [one for one in column.fields if one.is_text]
        whole = column.kind is Kind.OBJECT and len(texts) == len(column.fields) >= 2
        if whole and (len(texts) == 2 or len(by_language(texts)) >= 2):
            return _unclear([one.path for one in (by_language(texts) if len(texts) > 2 else texts)])
    if (twice := _told_twice(table)) is not None:
        return twice
    spoken = by_language([one for one in table.columns if one.is_text and one.filled >= FEWEST])
    return _unclear([one.path for one in spoken]) if len(spoken) >= 2 else None


def _told_twice(table: Table) -> Unclear | None:
    """`instruction` and `output` beside `instruction_zh` and `output_zh`: every row stands there in two languages."""
    plain = {tuple(words_of(one.path)): one for one in table.columns if one.is_text and one.filled >= FEWEST}
    sides: dict[str, dict[bool, tuple[str, str]]] = {}
    for words, one in plain.items():
        stem = plain.get(words[:-1])
        if words[-1:] and words[-1] in _CODES and stem is not None and words[-1] != "id":
            for answers, names in ((False, PROMPTS), (True, ANSWERS)):
                if "_".join(words[:-1]) in names:
                    sides.setdefault(words[-1], {}).setdefault(answers, (stem.path, one.path))
    for found in sides.values():
        if len(found) == 2:
            return Unclear(
                f"{' and '.join(found[False])} say the same in two languages, and so do {' and '.join(found[True])}: "
                "which of them is to be learned?",
                [f"data_prompt_column: {asked} and data_completion_column: {said}"
                 for asked, said in zip(found[False], found[True], strict=True)],
            )  # fmt: skip
    return None


def by_language(texts: Sequence[Column]) -> list[Column]:
    """Those whose names differ in a language alone: `en` and `fr`, `sentence_eng` and `sentence_deu`."""
    stems: dict[tuple[str, ...], list[Column]] = {}
    for one in texts:
        words = words_of(one.path)
        if len(words) <= 3 and one.words >= 1 and (told := [word for word in words if word in _CODES]):
            stem = list(words)
            stem.remove(told[-1])
            if told[-1] != "id" or one.words >= 2:  # Indonesian, or the number of the row
                stems.setdefault(tuple(stem), []).append(one)
    return max(stems.values(), key=len, default=[])


def _unclear(paths: Sequence[str]) -> Unclear:
    return Unclear(
        f"{' and '.join(paths)} can each be written from another: which from which?",
        [f"data_prompt_column: {one} and data_completion_column: {other}"
         for one, other in list(permutations(paths, 2))[:6]],
    )  # fmt: skip
