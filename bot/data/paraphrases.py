"""Paraphrases of evaluation items: the rows nearest to each item by embeddings, and a verdict on each pair.

Words alone do not find an item that was told anew (n-grams: F1 0 on rephrased HumanEval; arXiv 2311.04850, which this
follows: for each item the nearest rows by embeddings, and a language model's word on each pair). Embeddings are made by
a process of its own, so that whoever asks never loads torch. `Judge` is the port for a language model; without one a
pair counts by its cosine alone.

Not covered: translations where the embedding model knows one language, and items that are mostly a form filled in,
which embeddings cannot tell apart.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from bot.data.detectors import ItemLike, Match
from bot.data.item_index import GRAM, ItemIndex
from bot.data.rows import Part, Row, Segment, segments
from bot.errors import PlatformError, UserError

Vectors = NDArray[np.float32]
"""One row a text, each of length 1."""

THRESHOLD = 0.8
"""Cosine from which on a pair counts where nobody is asked. No value suits every model: measure your own."""
ASKED_FROM = 0.5
"""Cosine from which on a judge is asked about a pair."""
NEAREST = 3
"""Rows that are kept for each item, as candidates."""
_BATCH = 256
_LONGEST_TEXT = 4000
_CHILD = Path(__file__).with_name("embedding_child.py")


class Pair(NamedTuple):
    row: int
    eval_id: str
    cosine: float
    row_text: str
    item_text: str


class Embedder(Protocol):
    def __call__(self, texts: Sequence[str]) -> Vectors: ...


Judge = Callable[[Sequence[Pair]], Sequence[bool]]
"""For each pair whether its row gives the item away, in their order. Both texts are data, never instructions."""


@dataclass(frozen=True, slots=True)
class Paraphrases:
    matches: tuple[Match, ...]
    pairs: int
    """Candidates, nearest rows of all items together."""
    judged: bool
    """False: `matches` are by cosine alone."""


def find_paraphrases(
    train: Iterable[Row],
    items: Iterable[ItemLike],
    embed: Embedder,
    *,
    judge: Judge | None = None,
    threshold: float = THRESHOLD,
) -> Paraphrases:
    """Look through `train`, which may be a stream: memory holds the items, one batch of rows and NEAREST rows an item.

    Raises: what `embed` and `judge` raise.
    """
    asked = _tellable(list(items))
    pairs = [pair for near in _nearest(train, asked, embed) for pair in near] if asked else []
    if judge is not None:
        pairs = [pair for pair in pairs if pair.cosine >= ASKED_FROM]
        guilty = [pair for pair, given_away in zip(pairs, judge(pairs), strict=True) if given_away]
    else:
        guilty = [pair for pair in pairs if pair.cosine >= threshold]
    matches = (Match(p.row, p.eval_id, "paraphrase", p.row_text[:200], round(p.cosine, 4)) for p in guilty)
    return Paraphrases(tuple(sorted(matches, key=lambda match: match.row)), len(pairs), judge is not None)


def _tellable(items: Sequence[ItemLike]) -> list[tuple[str, str]]:
    """Id and prompt of the items that embeddings can tell from one another."""
    index = ItemIndex((item.id, item.prompt, item.reference) for item in items)
    return [
        (item.id, item.prompt[:_LONGEST_TEXT])
        for item, held in zip(items, index.items, strict=True)
        if len(held.words) >= GRAM - 2 and not held.is_form
    ]


def _nearest(train: Iterable[Row], items: Sequence[tuple[str, str]], embed: Embedder) -> list[list[Pair]]:
    """For each item its nearest rows, nearest first."""
    wanted = embed([text for _, text in items])
    best: list[list[Pair]] = [[] for _ in items]
    for batch in _batches(_texts(train)):
        cosines = embed([text for _, text in batch]) @ wanted.T
        # Only what is near enough to matter is looked at one by one.
        for place, number in np.argwhere(cosines >= ASKED_FROM).tolist():
            row, text = batch[place]
            cosine = float(cosines[place, number])
            held = best[number]
            if len(held) < NEAREST or cosine > held[-1].cosine:
                others = [pair for pair in held if pair.row != row or pair.cosine > cosine]
                if len(others) == len(held) and any(pair.row == row for pair in held):
                    continue  # another text of the same row is nearer
                pair = Pair(row, items[number][0], cosine, text, items[number][1])
                best[number] = sorted([*others, pair], key=lambda each: -each.cosine)[:NEAREST]
    return best


def _texts(train: Iterable[Row]) -> Iterator[tuple[int, str]]:
    """Row and text of what a row asks; of a row that asks nothing, each of its texts."""
    for number, row in enumerate(train):
        parts: list[Segment] = segments(row)
        asking = [text for part, text in parts if part is Part.PROMPT] or [text for _, text in parts]
        for text in asking:
            yield number, text[:_LONGEST_TEXT]


def _batches(texts: Iterator[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
    while batch := list(islice(texts, _BATCH)):
        yield batch


class ModelEmbedder:
    """Embeddings by a model of the Hub or of a folder, in a process of its own that ends with the `with` block."""

    def __init__(self, model: str, *, python: str = sys.executable) -> None:
        """`model`: for transformers' AutoModel; `python`: of an environment that has torch and transformers."""
        self._model, self._python = model, python
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> ModelEmbedder:
        self._process = subprocess.Popen(
            [self._python, str(_CHILD), self._model], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        ready = self._answer()
        if "error" in ready:
            self.__exit__()
            raise UserError(f"--embeddings {self._model}: {ready['error']}")
        return self

    def __exit__(self, *_: object) -> None:
        process, self._process = self._process, None
        if process is not None:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.close()
            process.stdout.close()
            process.wait()

    def __call__(self, texts: Sequence[str]) -> Vectors:
        """Raises: PlatformError when the process has ended."""
        assert self._process is not None and self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(list(texts)).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise PlatformError("the process that makes embeddings has ended") from None
        head = self._answer()
        if "error" in head:
            raise PlatformError(f"the embeddings could not be made: {head['error']}")
        size = head["rows"] * head["columns"] * 4
        data = self._process.stdout.read(size)
        return np.frombuffer(data, np.float32).reshape(head["rows"], head["columns"])

    def _answer(self) -> dict[str, int]:
        assert self._process is not None and self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise PlatformError("the process that makes embeddings has ended")
        answer: dict[str, int] = json.loads(line)
        return answer
