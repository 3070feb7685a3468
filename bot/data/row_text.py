"""A row of training data as one sequence of words that remembers where its segments began."""

from __future__ import annotations

from collections.abc import Sequence

from bot.data.rows import Part, Segment
from bot.data.words import signs_between, split_words


class RowText:
    __slots__ = ("answer", "gaps", "pieces", "prompt", "words")

    def __init__(self, parts: Sequence[Segment]) -> None:
        self.words: list[str] = []
        self.gaps: list[str] = [""]
        self.pieces: list[tuple[Part, int, int]] = []
        """Part, first word and end of each segment that has words."""
        for part, text in parts:
            words, gaps = split_words(text)
            if not words:
                continue
            start = len(self.words)
            self.pieces.append((part, start, start + len(words)))
            self.words += words
            self.gaps[-1] += ("\n" if start else "") + gaps[0]
            self.gaps += gaps[1:]
        self.prompt = self._side(asking=True)
        self.answer = self._side(asking=False)

    def _side(self, *, asking: bool) -> tuple[int, int]:
        """Words from the first to the last segment of one side; (0, 0) when there is none."""
        ranges = [(start, end) for part, start, end in self.pieces if (part is not Part.ANSWER) == asking]
        return (ranges[0][0], ranges[-1][1]) if ranges else (0, 0)

    def signs(self, start: int, end: int) -> list[str]:
        return signs_of(self.words[start:end], self.gaps[start : end + 1])


def signs_of(words: Sequence[str], gaps: Sequence[str]) -> list[str]:
    """Arithmetic signs inside a run of words, one entry for each gap between two of them."""
    return [signs_between(words[i], gaps[i + 1], words[i + 1]) for i in range(len(words) - 1)]
