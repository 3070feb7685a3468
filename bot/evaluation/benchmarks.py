"""Benchmarks: their files (`benchmark_file` has the format), their items by split, and what an evaluation job needs.

Nothing here imports torch: the bot process reads benchmarks, only the job's bundle (`bundle/evaluate.py`) runs them.
"""

from __future__ import annotations

import base64
import difflib
import hashlib
import json
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from bot.domain.evaluation import Split
from bot.domain.goal import digest_of
from bot.errors import UserError
from bot.evaluation import tasks
from bot.evaluation.benchmark_file import MEDIA, PROMPTS, REFERENCES, Benchmark, read_benchmark_file

SHIPPED = Path(__file__).with_name("benchmarks")
BUNDLE = Path(__file__).with_name("bundle")
LONGEST_NAME = 100
LARGEST_MEDIA_BYTES = 10_000_000
"""Of one image or recording; thirty seconds of 16-bit sound at 48,000 samples a second are three million."""
OLD_ITEMS = 50
"""Asked of each old task: enough to see that one was lost (a fall from 90 % to 70 % is three standard errors †)."""
FRESH, OLD, HOLDOUT = "fresh", "old:", "holdout"
"""The sets that items beside a split's own belong to, as the evaluator reads them."""

FEWEST_HELD = 50
"""Items below which a file's spare dev items make no holdout: they would hardly say anything."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*(?:[./][a-z0-9][a-z0-9_-]*)*", re.IGNORECASE)
_COLUMN = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_]*)\s*\}\}")


@dataclass(frozen=True, slots=True)
class Item:
    id: str
    """Sixteen hex digits over benchmark and content."""
    prompt: str
    """What is asked, or the text itself; empty for images and recordings."""
    reference: str
    media: Mapping[str, str] = field(default_factory=dict)
    """`image` or `audio` in base64; for pairs `chosen` and `rejected`."""
    cluster: str = ""
    """A hash of the passage or domain that it shares with other items."""

    @property
    def content(self) -> str:
        """What makes it this item."""
        return "\n".join([self.prompt, *self.media.values()]) if self.media else self.prompt

    def as_row(self) -> dict[str, str]:
        row = {"id": self.id, "prompt": self.prompt, "reference": self.reference, **self.media}
        return row | ({"cluster": self.cluster} if self.cluster else {})


def load_benchmark(name: str, folders: Iterable[Path] = ()) -> Benchmark:
    """The benchmark called `name`: looked for in `folders` in their order, then among those that ship with Postdoc.

    Raises: UserError for an unknown name or a file that cannot be used; it says what to write instead.
    """
    searched = [*folders, SHIPPED]
    if len(name) <= LONGEST_NAME and _NAME.fullmatch(name):
        for folder in searched:
            path = folder / f"{name}.yaml"
            if path.is_file() and path.resolve().is_relative_to(folder.resolve()):
                return read_benchmark_file(name, path)
    known = known_benchmarks(searched)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(f'`{match}`' for match in close)}?" if close else ""
    shown = textwrap.shorten(name, 80, placeholder="...") or "(no name)"
    raise UserError(f"There is no benchmark `{shown}`.{hint} Known here: {', '.join(f'`{one}`' for one in known)}.")


def known_benchmarks(folders: Sequence[Path] = (SHIPPED,)) -> list[str]:
    """The names of all benchmarks in `folders`, sorted."""
    found = {
        path.relative_to(folder).with_suffix("").as_posix()
        for folder in folders
        if folder.is_dir()
        for path in folder.rglob("*.yaml")
    }
    return sorted(found)


def metric_of(name: str, folders: Iterable[Path] = ()) -> str | None:
    """What the benchmark called `name` measures; None when there is none that can be read."""
    try:
        return load_benchmark(name, folders).metric
    except UserError:
        return None


# --- Items ----------------------------------------------------------------------------------------------------------


def items(benchmark: Benchmark, split: str, seed: int = 0) -> list[Item]:
    """The items of one split. A practice task draws others for another seed, always from the same side of the split.
    A holdout that the benchmark does not name is made of what dev leaves over, and may be empty.

    Raises: UserError when the benchmark's file has no usable row for that split.
    """
    if split == Split.HOLDOUT:
        return _holdout_items(benchmark, seed)
    if benchmark.task is not None:
        drawn = tasks.held_out(benchmark.task, split, benchmark.size(split), seed)
        return [_item(benchmark, example_row(example), "reference") for example in drawn]
    return _items_of_file(benchmark, split)[: benchmark.size(split)]


def _holdout_items(benchmark: Benchmark, seed: int) -> list[Item]:
    """Half as many as dev has, where the benchmark does not say how many."""
    wanted = benchmark.size(Split.HOLDOUT)
    if benchmark.task is not None:
        used = {item.prompt for item in [*items(benchmark, Split.DEV, seed), *fresh_items(benchmark, seed)]}
        drawn = (one for one in tasks.examples(benchmark.task, Split.DEV, seed + 2_000_003) if one.prompt not in used)
        some = islice(drawn, wanted or benchmark.size(Split.DEV) // 2)
        return [_item(benchmark, example_row(example), "reference") for example in some]
    if wanted:
        return _items_of_file(benchmark, Split.HOLDOUT)[:wanted]
    spare = _items_of_file(benchmark, Split.DEV)[benchmark.size(Split.DEV) + benchmark.fresh :]
    return spare[: benchmark.size(Split.DEV) // 2] if len(spare) >= FEWEST_HELD else []


def split_sizes(benchmark: Benchmark, seed: int = 0) -> dict[str, int]:
    """Split -> how many items it has."""
    return {str(split): len(items(benchmark, split, seed)) for split in Split}


def fresh_items(benchmark: Benchmark, seed: int = 0) -> list[Item]:
    """Items like those of dev that nothing else uses, `fresh.n` at most. A file may have none left."""
    if benchmark.task is None:
        return _items_of_file(benchmark, Split.DEV)[benchmark.size(Split.DEV) :][: benchmark.fresh]
    used = {item.prompt for item in items(benchmark, Split.DEV, seed)}
    drawn = (one for one in tasks.examples(benchmark.task, Split.DEV, seed + 1_000_003) if one.prompt not in used)
    return [_item(benchmark, example_row(one), "reference") for one in islice(drawn, benchmark.fresh)]


def old_items(benchmark: Benchmark, name: str, seed: int = 0) -> list[Item]:
    """Items of an old task: a practice task's, or those of a file beside the benchmark with prompt and reference."""
    if name in tasks.TASKS:
        drawn = tasks.held_out(name, Split.DEV, OLD_ITEMS, seed)
        return [_plain_item(name, example.prompt, example.reference) for example in drawn]
    rows = [row for _, row in _rows_of(benchmark, name)][:OLD_ITEMS]
    if missing := [row for row in rows if not {"prompt", "reference"} <= row.keys()]:
        raise UserError(f"`{name}` needs the columns prompt and reference; a row has only {', '.join(missing[0])}.")
    return [_plain_item(name, str(row["prompt"]), str(row["reference"]).strip()) for row in rows]


def example_row(example: tasks.Example) -> dict[str, str]:
    return {"prompt": example.prompt, "reference": example.reference}


def _items_of_file(benchmark: Benchmark, split: str) -> list[Item]:
    """Every item of the split, in an order that their hashes decide, so that adding rows moves no item's split."""
    source = benchmark.configuration["items"]
    reference = str(source.get("reference") or REFERENCES.get(benchmark.engine, "reference"))
    found: dict[str, Item] = {}
    rows = [(row, _item(benchmark, row, reference)) for _, row in _rows_of(benchmark, source["file"])]
    rule = (benchmark.configuration["splits"].get("sealed") or {}).get("where") or {}
    named = {item.id for row, item in rows if rule and all(row.get(key) == value for key, value in rule.items())}
    for _, item in rows:
        if (Split.SEALED if item.id in named else split_of_item(item, benchmark, ruled=bool(rule))) == split:
            found.setdefault(item.id, item)
    if not found:
        raise UserError(f"Benchmark `{benchmark.name}` has no item for {split}; `{source['file']}` needs more rows.")
    return [found[key] for key in sorted(found)]


def _rows_of(benchmark: Benchmark, name: str) -> Iterable[tuple[int, dict[str, Any]]]:
    """(line, row) of a JSONL file beside the benchmark. Raises: UserError."""
    try:
        lines = (benchmark.path.parent / name).read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError:
        raise UserError(f"`{name}` is not UTF-8 text: save it as UTF-8.") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise UserError(f"`{name}` line {number} is not a JSON object; every line must be one item.")
        yield number, row


def split_of_item(item: Item, benchmark: Benchmark, *, ruled: bool = False) -> str:
    """dev, holdout or sealed, in proportion to their n, by a hash of the content that differs from that in `Item.id`;
    items of one cluster go together. `ruled`: a rule names the sealed items, and this one is none of them."""
    dev, holdout, sealed = (benchmark.size(split) for split in (Split.DEV, Split.HOLDOUT, Split.SEALED))
    content = item.cluster or item.content
    all_of_them = dev + holdout + (0 if ruled else sealed)
    bucket = int.from_bytes(hashlib.sha256(f"split\n{content}".encode()).digest()[:8]) % all_of_them
    if bucket < dev:
        return Split.DEV
    return Split.SEALED if bucket < dev + sealed and not ruled else Split.HOLDOUT


def _item(benchmark: Benchmark, row: Mapping[str, Any], reference: str) -> Item:
    engine, source = benchmark.engine, benchmark.configuration["items"]
    template = str(benchmark.configuration.get("prompt") or PROMPTS.get(engine, "{{prompt}}"))
    columns = [] if engine in MEDIA else _COLUMN.findall(template)
    if engine == "pairs":
        columns += [str(source.get(side) or side) for side in ("chosen", "rejected")]
    elif engine != "likelihood":
        columns.append(reference)
    if engine in MEDIA:
        columns.append(str(source.get(MEDIA[engine]) or MEDIA[engine]))
    if missing := [column for column in columns if not isinstance(row.get(column), str | int | float)]:
        raise UserError(
            f"Benchmark `{benchmark.name}` needs the column {missing[0]} in every item, and one has only "
            f"{', '.join(map(str, row))}; correct `prompt` or what `items` names in its YAML file."
        )
    prompt = "" if engine in MEDIA else _COLUMN.sub(lambda match: str(row[match[1]]), template)
    media = {}
    if engine in MEDIA:
        media = {MEDIA[engine]: _media(benchmark, str(row[columns[-1]]))}
    elif engine == "pairs":
        media = {side: str(row[str(source.get(side) or side)]) for side in ("chosen", "rejected")}
    wanted = "" if engine in ("likelihood", "pairs") else str(row[reference]).strip()
    whole = Item("", prompt, wanted, media, _cluster(benchmark, row))
    return replace(whole, id=_id(benchmark.name, whole.content))


def _cluster(benchmark: Benchmark, row: Mapping[str, Any]) -> str:
    """A hash of the column that says what an item shares with others. Raises: UserError for a row without it."""
    column = benchmark.configuration["items"].get("cluster")
    if column is None:
        return ""
    if not isinstance(row.get(column), str | int):
        raise UserError(f"Benchmark `{benchmark.name}` needs the column {column} (items.cluster) in every item.")
    return _id(f"{benchmark.name}/cluster", str(row[column]))


def _media(benchmark: Benchmark, value: str) -> str:
    """Base64 as it stands, or of the file beside the benchmark that it names. Raises: UserError."""
    if len(value) < 200 and "." in value:  # base64 has no full stop
        file = benchmark.path.parent / value
        if not file.resolve().is_relative_to(benchmark.path.parent.resolve()) or not file.is_file():
            raise UserError(f"Benchmark `{benchmark.name}` names `{value[:80]}`, and no such file lies beside it.")
        if file.stat().st_size > LARGEST_MEDIA_BYTES:
            raise UserError(f"`{value[:80]}` is larger than {LARGEST_MEDIA_BYTES // 1_000_000} MB: make it smaller.")
        return base64.b64encode(file.read_bytes()).decode()
    if len(value) > LARGEST_MEDIA_BYTES * 4 // 3:
        raise UserError(f"An item of `{benchmark.name}` holds more than {LARGEST_MEDIA_BYTES // 1_000_000} MB.")
    return value


def _plain_item(name: str, prompt: str, reference: str) -> Item:
    return Item(_id(name, prompt), prompt, reference)


def _id(name: str, content: str) -> str:
    return hashlib.sha256(f"{name}\n{content}".encode()).hexdigest()[:16]


# --- What an evaluation job needs -------------------------------------------------------------------------------------


def write_job_files(benchmark: Benchmark, split: str, folder: Path, seed: int = 0) -> dict[str, str]:
    """The `files` of an evaluation job's specification: the bundle, the configuration and the items of one split, the
    last two written into `folder`. Only `split` is in there: a job that evaluates dev cannot read a sealed item."""
    folder.mkdir(parents=True, exist_ok=True)
    configuration, chosen = folder / "benchmark.yaml", folder / f"items-{split}.jsonl"
    content = dict(benchmark.configuration)
    configuration.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
    rows = [item.as_row() for item in items(benchmark, split, seed)]
    if split == Split.DEV:
        # Behind the Ladder: the evaluator writes what it finds on them to a file of its own.
        rows += [item.as_row() | {"set": HOLDOUT} for item in items(benchmark, Split.HOLDOUT, seed)]
        # The sealed split is opened for one number alone.
        rows += [item.as_row() | {"set": FRESH} for item in (fresh_items(benchmark, seed) if benchmark.fresh else [])]
        for name in benchmark.old_tasks:
            label = OLD + name.removesuffix(".jsonl")
            rows += [item.as_row() | {"set": label} for item in old_items(benchmark, name, seed)]
    chosen.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return {"bundle": str(BUNDLE), "benchmark.yaml": str(configuration), "items.jsonl": str(chosen)}


def bundle_digest() -> str:
    """SHA-256 over the evaluator bundle's files. evaluation.json repeats it as `harness.bundle`; with the benchmark's
    configuration and the libraries' versions it makes up `harness_digest`."""
    files = sorted(path for path in BUNDLE.rglob("*") if path.suffix in {".py", ".yaml", ".md"})
    return digest_of({path.relative_to(BUNDLE).as_posix(): path.read_text(encoding="utf-8") for path in files})
