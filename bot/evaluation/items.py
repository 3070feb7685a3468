"""A benchmark's items: from rows to what a model is asked, divided into splits by a hash of their content."""

from __future__ import annotations

import base64
import hashlib
import heapq
import json
import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from bot.domain.evaluation import Split
from bot.errors import UserError
from bot.evaluation import tasks
from bot.evaluation.benchmark_file import MEDIA, PROMPTS, REFERENCES, Benchmark
from bot.evaluation.rows import Row, rendered, rows_of, text_of, value_at

LARGEST_MEDIA_BYTES = 10_000_000
"""Of one image or recording; thirty seconds of 16-bit sound at 48,000 samples a second are three million."""
OLD_ITEMS = 50
"""Asked of each old task: enough to see that one was lost (a fall from 90 % to 70 % is three standard errors)."""
FEWEST_HELD = 50
"""Items below which a file's spare dev items make no holdout: they would hardly say anything."""
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True, slots=True)
class Item:
    id: str
    """Sixteen hex digits over benchmark and content."""
    prompt: str
    """What is asked, or the text itself; empty for images and recordings."""
    reference: str
    media: Mapping[str, str] = field(default_factory=dict)
    """`image` or `audio` in base64; for pairs `chosen` and `rejected`."""
    asked: Mapping[str, Any] = field(default_factory=dict)
    """What else the engine reads: `choices` and `answer`, `messages`, `code`, `instructions`, `rubric`, `row`."""
    cluster: str = ""
    """A hash of the passage or domain that it shares with other items."""

    @property
    def content(self) -> str:
        """What makes it this item."""
        return "\n".join([self.prompt, *self.media.values()]) if self.media else self.prompt

    def as_row(self) -> dict[str, Any]:
        row = {"id": self.id, "prompt": self.prompt, "reference": self.reference, **self.media, **self.asked}
        return row | ({"cluster": self.cluster} if self.cluster else {})


# --- Sets of items --------------------------------------------------------------------------------------------------


def items(benchmark: Benchmark, split: str, seed: int = 0) -> list[Item]:
    """The items of one split. A practice task draws others for another seed, always from the same side of the split.
    A holdout that the benchmark does not name is made of what dev leaves over, and may be empty.

    Raises: UserError when the benchmark's file has no usable row for that split.
    """
    if split == Split.HOLDOUT:
        return _holdout_items(benchmark, seed)
    if benchmark.task is not None:
        drawn = tasks.held_out(benchmark.task, split, benchmark.size(split), seed)
        return [item_of(benchmark, example_row(example)) for example in drawn]
    return _items_of_split(benchmark, split, benchmark.size(split))


def _holdout_items(benchmark: Benchmark, seed: int) -> list[Item]:
    """Half as many as dev has, where the benchmark does not say how many."""
    wanted, dev = benchmark.size(Split.HOLDOUT), benchmark.size(Split.DEV)
    if benchmark.task is not None:
        used = {item.prompt for item in [*items(benchmark, Split.DEV, seed), *fresh_items(benchmark, seed)]}
        drawn = (one for one in tasks.examples(benchmark.task, Split.DEV, seed + 2_000_003) if one.prompt not in used)
        return [item_of(benchmark, example_row(one)) for one in islice(drawn, wanted or dev // 2)]
    if wanted:
        return _items_of_split(benchmark, Split.HOLDOUT, wanted)
    used_up = dev + benchmark.fresh
    spare = _items_of_split(benchmark, Split.DEV, used_up + max(dev // 2, FEWEST_HELD))[used_up:]
    return spare[: dev // 2] if len(spare) >= FEWEST_HELD else []


def split_sizes(benchmark: Benchmark, seed: int = 0) -> dict[str, int]:
    """Split -> how many items it has."""
    return {str(split): len(items(benchmark, split, seed)) for split in Split}


def fresh_items(benchmark: Benchmark, seed: int = 0) -> list[Item]:
    """Items like those of dev that nothing else uses, `fresh.n` at most. A file may have none left."""
    if benchmark.task is None:
        n = benchmark.size(Split.DEV)
        return _items_of_split(benchmark, Split.DEV, n + benchmark.fresh)[n:]
    used = {item.prompt for item in items(benchmark, Split.DEV, seed)}
    drawn = (one for one in tasks.examples(benchmark.task, Split.DEV, seed + 1_000_003) if one.prompt not in used)
    return [item_of(benchmark, example_row(one)) for one in islice(drawn, benchmark.fresh)]


def shots(benchmark: Benchmark, n: int, seed: int = 0) -> list[dict[str, Any]]:
    """Examples with their answers that stand before a prompt: of a practice task's training side, or of the rows that
    `shots.file` names, the same for every model."""
    if not n:
        return []
    settings = benchmark.configuration.get("shots") or {}
    if benchmark.task is not None:
        drawn = islice(tasks.examples(benchmark.task, tasks.TRAIN, seed), n)
        found = [item_of(benchmark, example_row(example)) for example in drawn]
        return [item.as_row() | {"answer": item.reference} for item in found]
    rows = [row for _, row in rows_of(benchmark.folder / str(settings["file"]))]
    made = {item.id: (item, row) for row in rows for item in [item_of(benchmark, row)]}
    if len(made) < n:
        raise UserError(f"Benchmark `{benchmark.name}` needs {n} shots, and `{settings['file']}` has {len(made)}.")
    return [_shot(benchmark, *made[key], settings) for key in sorted(made)[:n]]


def _shot(benchmark: Benchmark, item: Item, row: Row, settings: Mapping[str, Any]) -> dict[str, Any]:
    if "answer" in item.asked:
        return item.as_row()  # the engine `choices` reads the answer's number
    template = settings.get("answer")
    if template is None:
        return item.as_row() | {"answer": item.reference}
    return item.as_row() | {"answer": _filled(benchmark, str(template), row, {"reference": item.reference})}


def old_items(benchmark: Benchmark, name: str, seed: int = 0) -> list[Item]:
    """Items of an old task: a practice task's, or those of a file beside the benchmark with prompt and reference."""
    if name in tasks.TASKS:
        drawn = tasks.held_out(name, Split.DEV, OLD_ITEMS, seed)
        return [Item(_id(name, one.prompt), one.prompt, one.reference) for one in drawn]
    rows = [row for _, row in islice(rows_of(benchmark.path.parent / name), OLD_ITEMS)]
    if missing := [row for row in rows if not {"prompt", "reference"} <= row.keys()]:
        raise UserError(f"`{name}` needs the columns prompt and reference; a row has only {', '.join(missing[0])}.")
    return [Item(_id(name, str(row["prompt"])), str(row["prompt"]), str(row["reference"]).strip()) for row in rows]


def example_row(example: tasks.Example) -> dict[str, str]:
    return {"prompt": example.prompt, "reference": example.reference}


def _items_of_split(benchmark: Benchmark, split: str, most: int) -> list[Item]:
    """The first `most` items of the split in an order that their hashes decide, so that adding rows moves no item."""
    files = benchmark.files_of(split)
    sealed = _named_sealed(benchmark)

    def mine(item: Item) -> bool:
        if sealed is None:
            return split_of_item(item, benchmark) == split
        if split == Split.SEALED or item.id in sealed:
            return split == Split.SEALED and item.id in sealed
        return split_of_item(item, benchmark, ruled=True) == split

    found = heapq.nsmallest(most, filter(mine, _each(benchmark, files)), key=lambda item: item.id)
    if not found:
        raise UserError(f"Benchmark `{benchmark.name}` has no item for {split}; `{files[0]}` needs more rows.")
    return found


def _named_sealed(benchmark: Benchmark) -> set[str] | None:
    """The sealed items' ids where a file of their own or a column names them; None where a hash divides. What is
    sealed is nothing else as well: GPQA's Diamond is part of its Main."""
    files, rule = benchmark.files_of(Split.SEALED), benchmark.sealed_where
    if rule:
        named = (row for row in _rows(benchmark, files) if all(row.get(key) == value for key, value in rule.items()))
        return {item_of(benchmark, row).id for row in named}
    if files == benchmark.files_of(Split.DEV):
        return None
    return {item.id for item in _each(benchmark, files)}


def _rows(benchmark: Benchmark, files: Iterable[str]) -> Iterator[Row]:
    joined = _joined(benchmark)
    return (joined(row) for file in files for _, row in rows_of(benchmark.folder / file))


def _each(benchmark: Benchmark, files: Iterable[str]) -> Iterator[Item]:
    """Every item of the files once."""
    seen: set[str] = set()
    for row in _rows(benchmark, files):
        item = item_of(benchmark, row)
        # The lines between paragraphs are rows of their own in some corpora.
        blank = benchmark.engine == "likelihood" and not item.prompt.strip()
        if item.id not in seen and not blank:
            seen.add(item.id)
            yield item


def _joined(benchmark: Benchmark) -> Callable[[Row], Row]:
    """Adds the columns of `items.join`'s file to the row with the same key."""
    join = benchmark.configuration["items"].get("join")
    if not join:
        return lambda row: row
    key = str(join["key"])
    others = {str(row.get(key)): row for _, row in rows_of(benchmark.folder / str(join["file"]))}

    def with_other(row: Row) -> Row:
        if (other := others.get(str(row.get(key)))) is None:
            raise UserError(
                f"`{join['file']}` has no row whose {key} is {str(row.get(key))[:60]}: correct `items.join`."
            )
        return {**other, **row}

    return with_other


def split_of_item(item: Item, benchmark: Benchmark, *, ruled: bool = False) -> str:
    """dev, holdout or sealed, in proportion to their n, by a hash of the content that differs from that in `Item.id`;
    items of one cluster go together. `ruled`: the sealed items are named, and this one is none of them."""
    dev, holdout, sealed = (benchmark.size(split) for split in (Split.DEV, Split.HOLDOUT, Split.SEALED))
    content = item.cluster or item.content
    all_of_them = dev + holdout + (0 if ruled else sealed)
    bucket = int.from_bytes(hashlib.sha256(f"split\n{content}".encode()).digest()[:8]) % all_of_them
    if bucket < dev:
        return Split.DEV
    return Split.SEALED if bucket < dev + sealed and not ruled else Split.HOLDOUT


# --- From a row to an item --------------------------------------------------------------------------------------------


def item_of(benchmark: Benchmark, row: Row) -> Item:
    """What the row asks, with its id. Raises: UserError naming a column that is not there."""
    source = benchmark.configuration["items"]
    reference, places, asked = _answered(benchmark, row)
    media = _media_of(benchmark, row)
    if benchmark.engine == "lm_eval":
        prompt, asked = _all_text(row), {"row": json.loads(json.dumps(row, default=str))}
    elif source.get("messages"):
        asked["messages"] = _messages(benchmark, row, str(source["messages"]))
        prompt = "\n\n".join(f"{message['role']}: {message['content']}" for message in asked["messages"])
    else:
        prompt = "" if benchmark.engine in MEDIA else _prompt(benchmark, row, places)
    asked |= _extras(benchmark, row)
    content = Item("", prompt, reference, media).content
    return Item(_id(benchmark.name, content), prompt, reference, media, asked, _cluster(benchmark, row))


def _cluster(benchmark: Benchmark, row: Row) -> str:
    """A hash of the column that says what an item shares with others. Raises: UserError for a row without it."""
    column = benchmark.configuration["items"].get("cluster")
    if column is None:
        return ""
    if not isinstance(row.get(column), str | int):
        raise UserError(f"Benchmark `{benchmark.name}` needs the column {column} (items.cluster) in every item.")
    return _id(f"{benchmark.name}/cluster", str(row[column]))


def _answered(benchmark: Benchmark, row: Row) -> tuple[str, dict[str, str], dict[str, Any]]:
    """(reference, what {{choices}} stands for, what engine `choices` needs to know)"""
    source = benchmark.configuration["items"]
    if "choices" in source:
        texts, answer = _choices(benchmark, row, source)
        lettered = "\n".join(f"{letter}) {text}" for letter, text in zip(LETTERS, texts, strict=False))
        asked = {"choices": texts, "answer": answer} if benchmark.engine == "choices" else {}
        return LETTERS[answer], {"choices": lettered}, asked
    none = benchmark.engine in ("likelihood", "pairs", "lm_eval") or benchmark.metric in _WITHOUT_REFERENCE
    return "" if none else _reference(benchmark, row, source), {}, {}


def _media_of(benchmark: Benchmark, row: Row) -> dict[str, str]:
    engine, source = benchmark.engine, benchmark.configuration["items"]
    if engine in MEDIA:
        kind = MEDIA[engine]
        return {kind: _media(benchmark, _needed(benchmark, row, str(source.get(kind) or kind)))}
    if engine == "pairs":
        sides = ("chosen", "rejected")
        return {side: text_of(_needed(benchmark, row, str(source.get(side) or side))) for side in sides}
    return {}


_WITHOUT_REFERENCE = ("pass_at_1", "instructions_followed", "rubric_score")


def _prompt(benchmark: Benchmark, row: Row, places: Row) -> str:
    template = benchmark.configuration.get("prompt") or PROMPTS.get(benchmark.engine, "{{prompt}}")
    return _filled(benchmark, str(template), row, places)


def _filled(benchmark: Benchmark, template: str, row: Row, places: Row) -> str:
    try:
        return rendered(template, row, places)
    except KeyError as error:
        raise _lacking(benchmark, row, str(error.args[0])) from None


def _needed(benchmark: Benchmark, row: Row, place: str) -> Any:
    if (value := value_at(row, place)) is None:
        raise _lacking(benchmark, row, place)
    return value


def _lacking(benchmark: Benchmark, row: Row, place: str) -> UserError:
    return UserError(
        f"Benchmark `{benchmark.name}` needs the column {place} in every item, and one has only "
        f"{', '.join(map(str, row))}; correct `prompt` or what `items` names in its YAML file."
    )


def _reference(benchmark: Benchmark, row: Row, source: Row) -> str:
    place = str(source.get("reference") or REFERENCES.get(benchmark.engine, "reference"))
    value = _needed(benchmark, row, place)
    labels = [str(label) for label in benchmark.configuration.get("labels") or []]
    if isinstance(value, int) and not isinstance(value, bool) and str(value) not in labels and value < len(labels):
        return labels[value]  # the data set keeps numbers, and the benchmark says what they stand for
    text = text_of(value).strip()
    if pattern := source.get("pattern"):
        matches = list(re.finditer(str(pattern), text))
        if not matches:
            raise UserError(
                f"Benchmark `{benchmark.name}`: items.pattern finds nothing in the {place} of an item; correct it."
            )
        return (matches[-1].group(1 if matches[-1].re.groups else 0) or "").strip()
    return text


def _choices(benchmark: Benchmark, row: Row, source: Row) -> tuple[list[str], int]:
    """(the choices as they are shown, number of the right one). Shuffled by a hash of the question, so that every
    model sees the same order and the right one is at no place more often."""
    named = source["choices"]
    answer = source.get("reference") or "answer"
    if isinstance(named, list):
        texts = [text_of(_needed(benchmark, row, str(place))).strip() for place in named]
        right = (
            named.index(answer) if answer in named else _number_of(benchmark, _needed(benchmark, row, answer), texts)
        )
    else:
        held = _needed(benchmark, row, str(named))
        texts = [text_of(one).strip() for one in (held if isinstance(held, list) else [held])]
        right = _number_of(benchmark, _needed(benchmark, row, str(answer)), texts)
    if len(texts) < 2 or right >= len(texts):
        raise UserError(f"Benchmark `{benchmark.name}` has an item with {len(texts)} choices and answer {right + 1}.")
    if source.get("shuffle"):
        order = list(range(len(texts)))
        random.Random(hashlib.sha256("\n".join(sorted(texts)).encode()).hexdigest()).shuffle(order)
        # From an order that the file's own does not show through.
        ranked = sorted(range(len(texts)), key=lambda n: texts[n])
        shown = [ranked[n] for n in order]
        return [texts[n] for n in shown], shown.index(right)
    return texts, right


def _number_of(benchmark: Benchmark, answer: Any, texts: list[str]) -> int:
    """From 0: a number as it stands, a letter, a digit of a list that counts from 1, or the choice's own text."""
    if isinstance(answer, int) and not isinstance(answer, bool) and answer >= 0:
        return answer
    said = str(answer).strip()
    if said in texts:
        return texts.index(said)
    if len(said) == 1 and said.upper() in LETTERS:
        return LETTERS.index(said.upper())
    if said.isdigit() and int(said) > 0:
        return int(said) - 1
    raise UserError(f"Benchmark `{benchmark.name}` has an item whose answer `{said[:60]}` is none of its choices.")


def _messages(benchmark: Benchmark, row: Row, place: str) -> list[dict[str, str]]:
    held = _needed(benchmark, row, place)
    while isinstance(held, list) and held and isinstance(held[0], list):
        held = held[0]  # the first of several turns
    if not isinstance(held, list) or not all(isinstance(m, dict) and {"role", "content"} <= m.keys() for m in held):
        raise UserError(
            f"Benchmark `{benchmark.name}`: {place} of an item is no list of messages with role and content."
        )
    return [{"role": str(message["role"]), "content": str(message["content"])} for message in held]


def _extras(benchmark: Benchmark, row: Row) -> dict[str, Any]:
    """What the metric needs beside prompt and reference."""
    match benchmark.metric:
        case "pass_at_1":
            code = benchmark.configuration.get("code") or {}
            test = text_of(_needed(benchmark, row, str(code.get("test") or "test")))
            call = _filled(benchmark, str(code.get("call") or ""), row, {})
            prefix = text_of(_needed(benchmark, row, str(code["prefix"]))) if code.get("prefix") else ""
            point = text_of(_needed(benchmark, row, str(code.get("entry_point") or "entry_point")))
            return {"code": {"prefix": prefix, "entry_point": point, "test": f"{test}\n{call}\n"}}
        case "instructions_followed":
            return {"instructions": _instructions(benchmark, row)}
        case "rubric_score":
            rubric = _needed(
                benchmark, row, str((benchmark.configuration.get("rubric") or {}).get("items") or "rubrics")
            )
            return {"rubric": [{"criterion": str(r["criterion"]), "points": float(r["points"])} for r in rubric]}
    return {}


def _instructions(benchmark: Benchmark, row: Row) -> list[dict[str, Any]]:
    settings = benchmark.configuration.get("instructions") or {}
    kinds = _needed(benchmark, row, str(settings.get("kinds") or "instruction_id_list"))
    arguments = _needed(benchmark, row, str(settings.get("arguments") or "kwargs"))
    # Parquet fills in every argument of every kind with null.
    return [
        {"kind": str(kind), **{key: value for key, value in (given or {}).items() if value is not None}}
        for kind, given in zip(kinds, arguments, strict=True)
    ]


def _all_text(row: Row) -> str:
    return "\n".join(text_of(value) for value in row.values() if isinstance(value, (str, list, dict)) and value)


def _media(benchmark: Benchmark, value: Any) -> str:
    """Base64 as it stands, or of bytes, or of the file beside the benchmark that it names. Raises: UserError."""
    if isinstance(value, Mapping):  # how Parquet files of the Hub keep images and recordings
        value = value.get("bytes")
    if isinstance(value, bytes):
        return base64.b64encode(_small_enough(value, f"An item of `{benchmark.name}`")).decode()
    text = str(value)
    if len(text) < 200 and "." in text:  # base64 has no full stop
        file = benchmark.folder / text
        if not file.resolve().is_relative_to(benchmark.folder.resolve()) or not file.is_file():
            raise UserError(f"Benchmark `{benchmark.name}` names `{text[:80]}`, and no such file lies beside it.")
        return base64.b64encode(_small_enough(_read(file), f"`{text[:80]}`")).decode()
    if len(text) > LARGEST_MEDIA_BYTES * 4 // 3:
        raise UserError(f"An item of `{benchmark.name}` holds more than {LARGEST_MEDIA_BYTES // 1_000_000} MB.")
    return text


def _read(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(LARGEST_MEDIA_BYTES + 1)


def _small_enough(content: bytes, what: str) -> bytes:
    if len(content) > LARGEST_MEDIA_BYTES:
        raise UserError(f"{what} is larger than {LARGEST_MEDIA_BYTES // 1_000_000} MB: make it smaller.")
    return content


def _id(name: str, content: str) -> str:
    return hashlib.sha256(f"{name}\n{content}".encode()).hexdigest()[:16]
