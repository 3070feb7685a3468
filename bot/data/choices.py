"""Multiple-choice items whose choices stand in another order: the question, and after it every choice, in any order.

Only questions that no run of eight words gives away need this: short ones, and such as "Which of the following is
true?". Not covered: items that lost a choice, or whose choices were reworded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from bot.data.item_index import GRAM, IndexedItem, RarestPairs, Run, Span, runs
from bot.data.row_text import RowText
from bot.data.words import normalised_words

_MARK = re.compile(r"(?:^|(?<=\s))[(\[]?([A-Ja-j]|10|[1-9])[)\].:]\s+")
_FEWEST_CHOICES, _FEWEST_WORDS = 2, 6
# Words beside the choices themselves that may stand after the question: letters, "Options:", "Answer:".
_BESIDE_EACH, _BESIDE_ALL = 3, 12


class Question(NamedTuple):
    item: int
    stem: list[str]
    choices: tuple[Run, ...]
    """Longest first, so that none is found inside another's words."""


class ChoiceItems:
    def __init__(self, items: Sequence[IndexedItem], texts: Iterable[tuple[str, Sequence[str]]]) -> None:
        """`texts`: prompt and choices of each item; without choices of their own they are read from the prompt."""
        self.probes: list[Run] = []
        """Two or three words of each question here."""
        self._by_probe: dict[Run, list[tuple[Question, int]]] = {}
        questions = [
            question
            for number, (prompt, choices) in enumerate(texts)
            if (question := _question(number, prompt, choices)) is not None
            and (len(question.stem) < GRAM or items[number].is_form)
        ]
        rare = RarestPairs([question.stem for question in questions])
        for question in questions:
            place = min(rare.place_in(question.stem), max(0, len(question.stem) - 3))
            probe = tuple(question.stem[place : place + 3])
            self._by_probe.setdefault(probe, []).append((question, place))
        self.probes += self._by_probe

    def found(self, text: RowText) -> Iterable[Span]:
        for length in {len(probe) for probe in self._by_probe}:
            for place, run in enumerate(runs(text.words, length)):
                for question, offset in self._by_probe.get(run, ()):
                    start = place - offset
                    stem_end = start + len(question.stem)
                    if start >= 0 and text.words[start:stem_end] == question.stem:
                        end = _end_of_choices(text.words, stem_end, question.choices)
                        if end is not None:
                            yield Span(question.item, "shuffled choices", start, end, 1.0)


def split_choices(prompt: str) -> tuple[str, list[str]]:
    """(the question, its choices) of a prompt that lists them as A., B., C. or (1) (2) (3); no choices otherwise."""
    marks: list[re.Match[str]] = []
    for mark in _MARK.finditer(prompt):
        if _number(mark[1]) == len(marks) + 1:
            marks.append(mark)
        elif _number(mark[1]) == 1:
            marks = [mark]
    if len(marks) < _FEWEST_CHOICES:
        return prompt, []
    ends = [mark.start() for mark in marks[1:]] + [len(prompt)]
    choices = [prompt[mark.end() : end].strip() for mark, end in zip(marks, ends, strict=True)]
    # After the last choice more may follow, on lines of its own.
    choices[-1] = choices[-1].split("\n", 1)[0]
    return prompt[: marks[0].start()], choices


def _number(label: str) -> int:
    return int(label) if label.isdigit() else ord(label.lower()) - ord("a") + 1


def _question(number: int, prompt: str, choices: Sequence[str]) -> Question | None:
    stem_text, listed = split_choices(prompt)
    stem = normalised_words(stem_text)
    # "Options:" and the like stand between question and choices and need not be copied with them.
    while stem and stem[-1] in ("options", "choices", "answers"):
        stem.pop()
    each = [tuple(normalised_words(choice)) for choice in (listed or choices)]
    each = sorted((words for words in each if words), key=len, reverse=True)
    if len(set(each)) < _FEWEST_CHOICES or len(stem) < 2 or len(stem) + sum(map(len, each)) < _FEWEST_WORDS:
        return None
    return Question(number, stem, tuple(each))


def _end_of_choices(words: Sequence[str], start: int, choices: Sequence[Run]) -> int | None:
    """Where the last of the choices ends that stand after `start`, each on words of its own; None if one lacks."""
    room = sum(map(len, choices)) + _BESIDE_EACH * len(choices) + _BESIDE_ALL
    stretch = list(words[start : start + room])
    last = 0
    for choice in choices:
        place = next((at for at, run in enumerate(runs(stretch, len(choice))) if run == choice), None)
        if place is None:
            return None
        stretch[place : place + len(choice)] = [""] * len(choice)
        last = max(last, place + len(choice))
    return start + last
