"""Lists that are told apart by `respectively`: `2e-5 and 5e-7 for SFT and DPO, respectively`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bot.research.papers.naming import VARIANT
from bot.research.papers.numbers import Number, number_at, numbers_in
from bot.research.papers.stages import Mention
from bot.research.papers.terms import Term

_JOINT = r"\s*(?:,\s*and|,|and|/)\s*"
_UNITS = r"(?:[- ](?:epochs?|steps|tokens|%))?"


@dataclass(frozen=True, slots=True)
class Said:
    """A value in a sentence, before it is known whose it is."""

    term: Term
    number: Number
    start: int
    """Of the name and value together."""
    end: int
    distance: int = 1
    """Characters between the name and the number."""


def respective(
    sentence: str, said: list[Said], found: Sequence[Mention]
) -> Iterator[tuple[Said, str, str | None, str]]:
    """(value, key, stage, model) of each value of a list whose owners stand in a list of the same length."""
    for chain in _chains(sentence):
        owners = [each for each in said if any(each.number.start == number.start for number in chain)]
        end = sentence.find("respectively", chain[-1].end)
        if not owners or end < 0:
            continue
        terms = _terms_before(sentence, chain, owners[0])
        if terms is not None:
            yield from ((Said(term, number, number.start, number.end), term.key, None, "") for term, number in terms)
            continue
        if len({each.term.key for each in owners}) != 1:
            continue
        term = owners[0].term
        stages = [each.method for each in found if not each.past]
        models = list(dict.fromkeys(match[0] for match in VARIANT.finditer(sentence)))
        for place, number in enumerate(chain):
            if len(stages) == len(chain) == len(set(stages)):
                yield Said(term, number, number.start, number.end), term.key, stages[place], ""
            elif len(models) == len(chain) and len(set(stages)) <= 1:
                yield (
                    Said(term, number, number.start, number.end),
                    term.key,
                    stages[0] if stages else None,
                    models[place],
                )


def _chains(sentence: str) -> Iterator[list[Number]]:
    """Runs of two or more numbers with nothing but commas, `and` and units between them."""
    run: list[Number] = []
    for number in numbers_in(sentence):
        if run and re.fullmatch(_UNITS + _JOINT, sentence[run[-1].end : number.start]):
            run.append(number)
            continue
        if len(run) > 1:
            yield run
        run = [number]
    if len(run) > 1:
        yield run


def _terms_before(sentence: str, chain: list[Number], owner: Said) -> list[tuple[Term, Number]] | None:
    """`learning rate and batch size of 1e-5 and 64`: as many names in a row as there are numbers."""
    from bot.research.papers.vocabulary import TERMS, pattern_of

    names: list[tuple[int, int, Term]] = []
    for term in TERMS:
        names += [
            (found.start(), found.end(), term) for found in pattern_of(term).finditer(sentence, 0, chain[0].start)
        ]
    names.sort(key=lambda each: (each[0], each[0] - each[1]))
    row: list[tuple[int, int, Term]] = []
    for name in names:
        if row and name[0] < row[-1][1]:
            continue
        joined = row and re.fullmatch(rf"{_JOINT}(?:the |an? )?", sentence[row[-1][1] : name[0]])
        row = [*row, name] if joined else [name]
    if len(row) != len(chain) or len(row) < 2 or number_at(sentence, chain[0].start) is None:
        return None
    return [(term, number) for (_, _, term), number in zip(row, chain, strict=True)]
