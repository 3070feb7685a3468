"""Practice tasks: seeded string skills small enough to be taught to a tiny model, divided by a hash of their content.

An item belongs to the split that its *content* hashes to, whatever seed drew it. So for every seed at once: no item of
`dev` or `sealed` is ever a training row, and a generator that asks `shows_held_out` before it emits a row (the tiny
base's pretraining does) cannot leak an item in any other surface form either.

Not covered: rows that a person writes by hand. The contamination scan looks at those.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

LETTERS = "abcdefghijklmnopqrstuvwxyz"
TRAIN = "train"
SPLITS = ("dev", "sealed")
HELD_OUT_PERCENT = 10
"""Share of all contents that each held-out split owns."""


@dataclass(frozen=True, slots=True)
class Example:
    """One question with its answer."""

    prompt: str
    reference: str
    content: str
    """What the split hashes: the input in canonical form."""


@dataclass(frozen=True, slots=True)
class PracticeTask:
    name: str
    description: str
    draw: Callable[[random.Random], str]
    """A random input."""
    read: Callable[[str], Example | None]
    """The example that an input makes; None when the text is no input of this task."""


# --- The split ------------------------------------------------------------------------------------------------------


def split_of(task: str, content: str) -> str:
    """`train`, `dev` or `sealed`: a function of the content alone, the same for every seed and surface form."""
    bucket = int.from_bytes(hashlib.sha256(f"{task}\n{content}".encode()).digest()[:8]) % 100
    if bucket < HELD_OUT_PERCENT:
        return "dev"
    return "sealed" if bucket < 2 * HELD_OUT_PERCENT else TRAIN


def is_held_out(task: str, content: str) -> bool:
    return split_of(task, content) != TRAIN


def shows_held_out(left: str, right: str) -> bool:
    """Whether two texts seen together are the input and the answer, in either order, of a held-out item of any task."""
    for task in TASKS.values():
        for text, answer in ((left, right), (right, left)):
            example = task.read(text)
            if example and example.reference == answer and is_held_out(task.name, example.content):
                return True
    return False


# --- The tasks ------------------------------------------------------------------------------------------------------


def word(rng: random.Random, shortest: int, longest: int) -> str:
    return "".join(rng.choice(LETTERS) for _ in range(rng.randint(shortest, longest)))


def words(rng: random.Random, fewest: int, most: int) -> str:
    return " ".join(word(rng, 2, 3) for _ in range(rng.randint(fewest, most)))


def numbers(rng: random.Random) -> str:
    return " ".join(map(str, rng.sample(range(100), 3)))


def _runs(rng: random.Random) -> str:
    return "".join(letter * rng.randint(1, 3) for letter in rng.sample(LETTERS, rng.randint(2, 4)))


def _letter_and_text(rng: random.Random) -> str:
    letter, other = rng.sample(LETTERS, 2)
    return f"{letter} in " + "".join(rng.choice((letter, other)) for _ in range(rng.randint(3, 6)))


def _is_word(text: str) -> bool:
    return text.isascii() and text.isalpha() and text.islower()


def read_reverse(text: str) -> Example | None:
    # A word and its mirror image show the same pair of strings, so both belong to one split.
    return Example(f"reverse {text}", text[::-1], min(text, text[::-1])) if _is_word(text) else None


def read_upper(text: str) -> Example | None:
    return Example(f"upper {text}", text.upper(), text) if _is_word(text) else None


def read_last(text: str) -> Example | None:
    parts = text.split(" ")
    return Example(f"last of {text}", parts[-1], text) if len(parts) > 1 and all(map(_is_word, parts)) else None


def read_max(text: str) -> Example | None:
    parts = text.split(" ")
    if len(parts) < 2 or not all(part.isascii() and part.isdigit() for part in parts):
        return None
    return Example(f"max of {text}", max(parts, key=int), text)


def read_sort(text: str) -> Example | None:
    return Example(f"sort {text}", "".join(sorted(text)), text) if _is_word(text) else None


def read_json(text: str) -> Example | None:
    match = re.fullmatch(r"([a-z]+) (\d+)", text)
    return Example(f"json {text}", json.dumps({match[1]: int(match[2])}), text) if match else None


def read_dedup(text: str) -> Example | None:
    once = "".join(letter for letter, _ in itertools.groupby(text))
    return Example(f"dedup {text}", once, text) if _is_word(text) else None


def read_count(text: str) -> Example | None:
    match = re.fullmatch(r"([a-z]) in ([a-z]+)", text)
    return Example(f"count {text}", str(match[2].count(match[1])), text) if match else None


TASKS: dict[str, PracticeTask] = {
    task.name: task
    for task in (
        PracticeTask("reverse", "write a word backwards", lambda rng: word(rng, 3, 5), read_reverse),
        PracticeTask("upper", "write a word in capitals", lambda rng: word(rng, 3, 6), read_upper),
        PracticeTask("last", "repeat the last of two to four words", lambda rng: words(rng, 2, 4), read_last),
        PracticeTask("max", "name the largest of three numbers", numbers, read_max),
        PracticeTask(
            "sort",
            "put three or four letters in alphabetical order",
            lambda rng: "".join(rng.sample(LETTERS, rng.randint(3, 4))),
            read_sort,
        ),
        PracticeTask(
            "json",
            "write a key and a number as a JSON object",
            lambda rng: f"{word(rng, 2, 3)} {rng.randint(0, 99)}",
            read_json,
        ),
        PracticeTask("dedup", "write each run of a repeated letter once", _runs, read_dedup),
        PracticeTask("count", "count a letter in a word of two letters", _letter_and_text, read_count),
    )
}


# --- Rows -----------------------------------------------------------------------------------------------------------


def examples(task: str, split: str, seed: int) -> Iterator[Example]:
    """Distinct examples of `split`, without end, in an order that the seed decides. KeyError for an unknown task."""
    source = TASKS[task]
    rng = random.Random(f"{task}/{split}/{seed}")
    seen: set[str] = set()
    while True:
        example = source.read(source.draw(rng))
        if example and example.prompt not in seen and split_of(task, example.content) == split:
            seen.add(example.prompt)
            yield example


def held_out(task: str, split: str, n: int, seed: int) -> list[Example]:
    """`n` examples of a held-out split. ValueError for a split that is not held out."""
    if split not in SPLITS:
        raise ValueError(f"{split!r} is not held out; the held-out splits are {' and '.join(SPLITS)}")
    return list(itertools.islice(examples(task, split, seed), n))


def training_rows(task: str, n: int, seed: int) -> list[dict[str, str]]:
    """`n` distinct rows `{"prompt", "completion"}`, none of which can be a dev or sealed item of any seed."""
    rows = itertools.islice(examples(task, TRAIN, seed), n)
    return [{"prompt": row.prompt, "completion": row.reference} for row in rows]


def repetitive_rows(
    task: str, seed: int, *, once: int = 1000, often: int = 10, copies: int = 500
) -> list[dict[str, str]]:
    """Training rows as a log of real requests has them: a few are most of the file, the others are there once."""
    rows = training_rows(task, once + often, seed)
    log = rows[:often] * copies + rows[often:]
    random.Random(f"{task}/repetitive/{seed}").shuffle(log)
    return log
