"""Practice tasks: seeded string skills small enough to be taught to a tiny model, divided by a hash of their content.

An item belongs to the split that its *content* hashes to, whatever seed drew it. So for every seed at once: no item of
`dev` or `sealed` is ever a training row, and a generator that asks `split_of` before it emits a row (the tiny base's
pretraining does) cannot leak an item in any other surface form either.

Not covered: rows that a person writes by hand. The contamination scan looks at those.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

LETTERS = "abcdefghijklmnopqrstuvwxyz"
TRAIN = "train"
SPLITS = ("dev", "sealed")
HELD_OUT_PERCENT = 10
"""Share of all contents that each held-out split owns."""


@dataclass(frozen=True, slots=True)
class Example:
    """One question with its answer. `content` is what the split hashes: the input in canonical form."""

    prompt: str
    reference: str
    content: str


@dataclass(frozen=True, slots=True)
class PracticeTask:
    name: str
    description: str
    draw: Callable[[random.Random], Example]


def split_of(task: str, content: str) -> str:
    """`train`, `dev` or `sealed`: a function of the content alone, the same for every seed and surface form."""
    bucket = int.from_bytes(hashlib.sha256(f"{task}\n{content}".encode()).digest()[:8]) % 100
    if bucket < HELD_OUT_PERCENT:
        return "dev"
    return "sealed" if bucket < 2 * HELD_OUT_PERCENT else TRAIN


def is_held_out(task: str, content: str) -> bool:
    return split_of(task, content) != TRAIN


def word(rng: random.Random, shortest: int, longest: int) -> str:
    return "".join(rng.choice(LETTERS) for _ in range(rng.randint(shortest, longest)))


def reverse_example(text: str) -> Example:
    # A word and its mirror image show the same pair of strings, so both belong to one split.
    return Example(f"reverse {text}", text[::-1], min(text, text[::-1]))


def upper_example(text: str) -> Example:
    return Example(f"upper {text}", text.upper(), text)


def last_example(words: list[str]) -> Example:
    text = " ".join(words)
    return Example(f"last of {text}", words[-1], text)


def max_example(numbers: list[int]) -> Example:
    text = " ".join(map(str, numbers))
    return Example(f"max of {text}", str(max(numbers)), text)


def _sort(rng: random.Random) -> Example:
    text = "".join(rng.sample(LETTERS, rng.randint(3, 4)))
    return Example(f"sort {text}", "".join(sorted(text)), text)


def _json(rng: random.Random) -> Example:
    key, value = word(rng, 2, 3), rng.randint(0, 99)
    return Example(f"json {key} {value}", json.dumps({key: value}), f"{key} {value}")


def _dedup(rng: random.Random) -> Example:
    letters = rng.sample(LETTERS, rng.randint(2, 4))
    text = "".join(letter * rng.randint(1, 3) for letter in letters)
    return Example(f"dedup {text}", "".join(letters), text)


def _count(rng: random.Random) -> Example:
    letter, other = rng.sample(LETTERS, 2)
    text = "".join(rng.choice((letter, other)) for _ in range(rng.randint(3, 6)))
    return Example(f"count {letter} in {text}", str(text.count(letter)), f"{letter} {text}")


TASKS: dict[str, PracticeTask] = {
    task.name: task
    for task in (
        PracticeTask("reverse", "write a word backwards", lambda rng: reverse_example(word(rng, 3, 5))),
        PracticeTask("upper", "write a word in capitals", lambda rng: upper_example(word(rng, 3, 6))),
        PracticeTask(
            "last",
            "repeat the last of two to four words",
            lambda rng: last_example([word(rng, 2, 3) for _ in range(rng.randint(2, 4))]),
        ),
        PracticeTask("max", "name the largest of three numbers", lambda rng: max_example(_numbers(rng))),
        PracticeTask("sort", "put three or four letters in alphabetical order", _sort),
        PracticeTask("json", "write a key and a number as a JSON object", _json),
        PracticeTask("dedup", "write each run of a repeated letter once", _dedup),
        PracticeTask("count", "count a letter in a word of two letters", _count),
    )
}


def _numbers(rng: random.Random) -> list[int]:
    return rng.sample(range(100), 3)


def examples(task: str, split: str, seed: int) -> Iterator[Example]:
    """Distinct examples of `split`, without end, in an order that the seed decides. KeyError for an unknown task."""
    draw = TASKS[task].draw
    rng = random.Random(f"{task}/{split}/{seed}")
    seen: set[str] = set()
    while True:
        example = draw(rng)
        if example.prompt not in seen and split_of(task, example.content) == split:
            seen.add(example.prompt)
            yield example


def held_out(task: str, split: str, n: int, seed: int) -> list[Example]:
    """`n` examples of a held-out split. ValueError for a split that is not held out."""
    if split not in SPLITS:
        raise ValueError(f"{split!r} is not held out; the held-out splits are {' and '.join(SPLITS)}")
    stream = examples(task, split, seed)
    return [next(stream) for _ in range(n)]


def training_rows(task: str, n: int, seed: int) -> list[dict[str, str]]:
    """`n` distinct rows `{"prompt", "completion"}`, none of which can be a dev or sealed item of any seed."""
    stream = examples(task, TRAIN, seed)
    return [{"prompt": row.prompt, "completion": row.reference} for row, _ in zip(stream, range(n), strict=False)]
