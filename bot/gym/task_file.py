'''A gym task: one Python file that says what is asked, where it starts from, and how a row is drawn.

    """Write a word backwards."""                 # the goal in words; its first line is shown

    KIND = "ordering"                             # what the report counts it under
    METHOD = "sft"                                # None: Postdoc's choice; "sft, grpo": two stages
    BASE_MODEL = "postdoc/tiny-qwen3"             # a practice model, or the path of a model's folder, from this file
    METRIC = "exact_match"                        # by default the first that fits such rows (bot.evaluation)
    TARGET = 0.9                                  # in the metric's own unit: 0.9 is 90 %, 2.3 a perplexity
    KNOWN_GOOD = "learning_rate: 3.0e-3\\n..."     # a recipe that reaches the target; the playbook never sees it

    def draw(rng):                                # rng: random.Random
        word = "".join(rng.choice("abcdefgh") for _ in range(rng.randint(3, 5)))
        return {"prompt": f"reverse {word}", "completion": word[::-1]}

The file's name is the task's: `reverse.py` is `reverse`. These three are needed: the docstring, TARGET and `draw`.
What else may stand there:

    BUDGET_RUNS = 12      training runs, 1 to 12
    ROWS = 2000           rows to train on
    DEV, SEALED = 200, 300    items to iterate on, and to confirm with
    RECIPE = "..."        the goal brings this starting recipe, suitable or not
    NOTES = "..."         what a person would write into the form's field Notes
    BENCHMARK = {...}     keys of the benchmark's YAML file beyond the usual: {"generation": {"max_gen_toks": 40}}
    FIRST = {"method": "sft", "recipe": "...", "rows": 2000}
                          the base model is BASE_MODEL trained like this on rows of `draw_first(rng)`
    TEACHER = {...}       the same, but it makes the model to learn from; RECIPE names it as `gym/NAME-teacher`
    def draw_item(rng)    what is measured, where that is not what is trained on
    def spoil(rows, rng)  the training rows as a careless log would have them: repeated, mislabelled, cut
    def key(row)          the part of a row that is its content, for the division below; by default all but the answer

A row is an object of JSON values: prompt and completion; or prompt, chosen and rejected; text; text and label; image
(base64) and label; audio (base64) and text. The answer's column is the first there is of completion, chosen, label and,
beside an audio, text.

Nothing that is measured is trained on: by a hash of its content a row belongs to the training rows (80 %) or to the
items, whatever seed drew it, and the benchmark divides its items into dev and sealed in the same way. A seed decides
which rows are drawn and in which order.
'''

from __future__ import annotations

import hashlib
import json
import math
import random
import re
import runpy
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from bot.domain.methods import METHODS
from bot.errors import UserError

SHIPPED = Path(__file__).with_name("tasks")
MOST_RUNS = 12
"""Runs of a goal are counted up to here; one that is never reached counts as twelve."""
HELD_OUT_PERCENT = 20
ANSWERS = ("completion", "chosen", "label")
MOST_IDLE_DRAWS = 2000
"""A task that gives nothing new for so many draws has too few different rows."""
Row = dict[str, Any]

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_KEYS = {
    "KIND": (str,), "METHOD": (str, type(None)), "BASE_MODEL": (str,), "METRIC": (str,), "TARGET": (int, float),
    "BUDGET_RUNS": (int,), "ROWS": (int,), "DEV": (int,), "SEALED": (int,), "RECIPE": (str, type(None)),
    "NOTES": (str,), "BENCHMARK": (dict,), "FIRST": (dict,), "TEACHER": (dict,), "KNOWN_GOOD": (str,),
}  # fmt: skip
_WORDS = {str: "text", int: "a whole number", float: "a number", dict: "a dictionary", type(None): "None"}


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """What a task file says. Functions take a `random.Random`."""

    name: str
    words: str
    """The goal in words."""
    target: float
    draw: Callable[[random.Random], Row]
    draw_item: Callable[[random.Random], Row]
    path: Path
    kind: str = "text"
    method: str | None = None
    base_model: str = "postdoc/tiny-qwen3"
    metric: str = ""
    """Empty: the first of the engine that reads such rows."""
    budget_runs: int = MOST_RUNS
    rows: int = 2000
    dev: int = 200
    sealed: int = 300
    recipe: str | None = None
    notes: str = ""
    benchmark: Mapping[str, Any] | None = None
    first: Mapping[str, Any] | None = None
    teacher: Mapping[str, Any] | None = None
    draw_first: Callable[[random.Random], Row] | None = None
    spoil: Callable[[list[Row], random.Random], list[Row]] | None = None
    key: Callable[[Row], Any] | None = None
    known_good: str = ""

    @property
    def title(self) -> str:
        return self.words.splitlines()[0].rstrip(".")

    @property
    def stages(self) -> int:
        """Runs that the method takes at least: a chain of two is trained twice before it can be judged."""
        return len(self.method.split(",")) if self.method else 1

    def content(self, row: Row) -> str:
        """What the division into training rows and items hashes."""
        answer = answer_column(row)
        if self.key is None:
            return json.dumps({k: row[k] for k in row if k in _asked(row, answer)}, sort_keys=True, ensure_ascii=False)
        try:
            value = self.key(row)
        except Exception as error:
            raise _broken(self.path, error, "key") from error
        return json.dumps(value, sort_keys=True, ensure_ascii=False)

    def is_item(self, row: Row) -> bool:
        digest = hashlib.sha256(f"gym/{self.name}\n{self.content(row)}".encode()).digest()
        return int.from_bytes(digest[:8]) % 100 < HELD_OUT_PERCENT

    def training_rows(self, seed: int) -> list[Row]:
        """Distinct rows, none of which can be an item of any seed, then spoiled where the task does so.

        Raises: UserError.
        """
        rows = list(_division(self, seed).rows)
        if self.spoil is None:
            return rows
        try:
            spoiled = self.spoil(rows, random.Random(f"{self.name}/spoil/{seed}"))
        except Exception as error:
            raise _broken(self.path, error, "spoil") from error
        return [_checked(self.path, row) for row in spoiled]

    def items(self, seed: int) -> list[Row]:
        """A fifth more than both splits take, because a hash divides them unevenly. Raises: UserError."""
        return list(_division(self, seed).items)

    def first_rows(self, seed: int, n: int) -> list[Row]:
        """What the base model, or the teacher, was trained on before the goal began; the items are not among them.

        Raises: UserError.
        """
        assert self.draw_first is not None
        return self.drawn(self.draw_first, random.Random(f"{self.name}/first/{seed}"), n, 0).rows

    def drawn(self, draw: Callable[[random.Random], Row], rng: random.Random, rows: int, items: int) -> Division:
        """So many distinct rows and items, from one stream of draws. Raises: UserError when it runs dry."""
        found: tuple[dict[str, Row], dict[str, Row]] = {}, {}
        wanted, idle = (rows, items), 0
        while any(len(each) < n for each, n in zip(found, wanted, strict=True)):
            row = _drawn_row(self.path, draw, rng)
            content, item = self.content(row), self.is_item(row)
            if content not in found[item] and len(found[item]) < wanted[item]:
                found[item][content] = row
                idle = 0
                continue
            idle += 1
            if idle > MOST_IDLE_DRAWS:
                raise UserError(
                    f"{self.path.name}: it draws only {len(found[0])} of {rows} different training rows and "
                    f"{len(found[1])} of {items} items. Let `draw` make more kinds of rows, or lower ROWS, DEV and "
                    "SEALED."
                )
        return Division(list(found[0].values()), list(found[1].values()))


class Division(NamedTuple):
    rows: list[Row]
    items: list[Row]


@lru_cache(maxsize=128)
def _division(task: Task, seed: int) -> Division:
    """Drawn once for whoever asks: an image takes milliseconds."""
    wanted = math.ceil(1.2 * (task.dev + task.sealed)) + 20
    if task.draw_item is task.draw:
        return task.drawn(task.draw, random.Random(f"{task.name}/{seed}"), task.rows, wanted)
    rows = task.drawn(task.draw, random.Random(f"{task.name}/train/{seed}"), task.rows, 0).rows
    return Division(rows, task.drawn(task.draw_item, random.Random(f"{task.name}/items/{seed}"), 0, wanted).items)


def answer_column(row: Mapping[str, Any]) -> str | None:
    """The column that holds the answer; None where a row is text to be modelled."""
    named = next((name for name in ANSWERS if name in row), None)
    return "text" if named is None and "audio" in row else named


def load_tasks(folder: Path) -> list[Task]:
    """The tasks of a folder, by name. Raises: UserError for a folder without any, or the first file that is wrong."""
    if not folder.is_dir():
        raise UserError(f"--tasks {folder}: there is no such folder. Name one that holds task files.")
    paths = [path for path in sorted(folder.glob("*.py")) if not path.name.startswith("_")]
    if not paths:
        raise UserError(f"--tasks {folder}: it holds no task, which is a file such as reverse.py.")
    return [load_task(path) for path in paths]


def load_task(path: Path) -> Task:
    """The task in one file. Raises: UserError, one line that says what to write instead."""
    if not _NAME.fullmatch(path.stem):
        raise UserError(f"{path.name}: call it by small letters, digits and underscores, `reverse_words.py`.")
    try:
        found = runpy.run_path(str(path), run_name=f"gym_task_{path.stem}")
    except (Exception, SystemExit) as error:
        raise _broken(path, error, "the file") from error
    values = {key: found[key] for key in found if key.isupper() and not key.startswith("_")}
    _check_values(path, found, values)
    task = Task(
        name=path.stem,
        words=str(found["__doc__"]).strip(),
        target=float(values["TARGET"]),
        draw=found["draw"],
        draw_item=found.get("draw_item", found["draw"]),
        path=path,
        **{key.lower(): values[key] for key in values if key in _KEYS and key not in ("TARGET", "METHOD")},
        method=", ".join(_methods(path, values.get("METHOD"))) or None,
        **{name: found[name] for name in ("draw_first", "spoil", "key") if name in found},
    )
    for draw in (task.draw, task.draw_item, task.draw_first):
        if draw is not None:
            task.content(_drawn_row(path, draw, random.Random(0)))
    return task


def _check_values(path: Path, found: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    def refuse(text: str) -> None:
        raise UserError(f"{path.name}: {text}")

    if not str(found.get("__doc__") or "").strip():
        refuse('it begins with no docstring. Write the goal in words there: """Write a word backwards."""')
    if "TARGET" not in values:
        refuse("it has no TARGET. Write the value to reach, TARGET = 0.9")
    for name in ("draw", "draw_item", "draw_first", "spoil", "key"):
        if name in found and not callable(found[name]):
            refuse(f"{name} is not a function. Write `def {name}(...)`.")
    if "draw" not in found:
        refuse('it has no function draw. Write `def draw(rng): return {"prompt": ..., "completion": ...}`.')
    for key, value in values.items():
        kinds = _KEYS.get(key)
        if kinds is not None and (not isinstance(value, kinds) or isinstance(value, bool)):
            refuse(f"{key} is {value!r}. Write {' or '.join(_WORDS[kind] for kind in kinds)}.")
    if not math.isfinite(values["TARGET"]):
        refuse(f"TARGET is {values['TARGET']!r}. Write a number.")
    if not 1 <= values.get("BUDGET_RUNS", MOST_RUNS) <= MOST_RUNS:
        refuse(f"BUDGET_RUNS is {values['BUDGET_RUNS']}. Write a whole number from 1 to {MOST_RUNS}.")
    for key in ("ROWS", "DEV", "SEALED"):
        if values.get(key, 1) < 1:
            refuse(f"{key} is {values[key]}. Write a whole number above 0.")
    for key in ("FIRST", "TEACHER"):
        if key in values and ("draw_first" not in found or not {"method", "recipe"} <= set(values[key])):
            refuse(key + ' needs {"method": ..., "recipe": ...} and a function `draw_first(rng)` for its rows.')


def _methods(path: Path, named: str | None) -> Iterable[str]:
    for name in (part.strip() for part in (named or "").split(",") if part.strip()):
        if name not in METHODS:
            raise UserError(f"{path.name}: there is no method `{name}`. Write one of: {', '.join(METHODS)}, or None.")
        yield name


def _asked(row: Row, answer: str | None) -> set[str]:
    """The columns that make up a row's question."""
    return set(row) - {answer, "rejected"}


def _drawn_row(path: Path, draw: Callable[[random.Random], Row], rng: random.Random) -> Row:
    try:
        row = draw(rng)
    except Exception as error:
        raise _broken(path, error, getattr(draw, "__name__", "draw")) from error
    return _checked(path, row)


def _checked(path: Path, row: Any) -> Row:
    if not isinstance(row, dict) or not row or not all(isinstance(name, str) for name in row):
        raise UserError(f"{path.name}: a row is {row!r:.80}. Let it be a dictionary of columns, such as prompt.")
    try:
        json.dumps(row)
    except (TypeError, ValueError):
        raise UserError(f"{path.name}: a row holds a value that JSON cannot write. Encode bytes as base64.") from None
    return row


def _broken(path: Path, error: BaseException, what: str) -> UserError:
    """What went wrong inside the file, with its line there."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    number = lines[-1] if lines else getattr(error, "lineno", None)
    place = f"{path.name}, line {number}" if number else path.name
    said = " ".join(str(error).split())[:200]
    return UserError(f"{place}: {what} fails with {type(error).__name__}: {said}. Correct it there.")
