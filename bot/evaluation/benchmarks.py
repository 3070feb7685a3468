"""Benchmarks: their files (`benchmark_file` has the format), their items by split, and what an evaluation job needs.

Nothing here imports torch: the bot process reads benchmarks, only the job's bundle (`bundle/evaluate.py`) runs them.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bot.domain.evaluation import Split
from bot.domain.goal import digest_of
from bot.errors import UserError
from bot.evaluation import tasks
from bot.evaluation.benchmark_file import Benchmark, read_benchmark_file

SHIPPED = Path(__file__).with_name("benchmarks")
BUNDLE = Path(__file__).with_name("bundle")
LONGEST_NAME = 100

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*(?:[./][a-z0-9][a-z0-9_-]*)*", re.IGNORECASE)
_COLUMN = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_]*)\s*\}\}")


@dataclass(frozen=True, slots=True)
class Item:
    id: str
    """Sixteen hex digits over benchmark and prompt."""
    prompt: str
    reference: str


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


# --- Items ----------------------------------------------------------------------------------------------------------


def items(benchmark: Benchmark, split: str, seed: int = 0) -> list[Item]:
    """The items of one split. A practice task draws others for another seed, always from the same side of the split.

    Raises: UserError when the benchmark's file has no usable row for that split.
    """
    source = benchmark.configuration["items"]
    if "task" in source:
        drawn = tasks.held_out(source["task"], split, benchmark.size(split), seed)
        rows = [{"prompt": example.prompt, "reference": example.reference} for example in drawn]
        found = [_item(benchmark, row, "reference") for row in rows]
    else:
        found = _items_of_file(benchmark, split)
    return found


def _items_of_file(benchmark: Benchmark, split: str) -> list[Item]:
    """At most n items, in an order that their hashes decide, so that adding rows to the file moves no item's split."""
    source = benchmark.configuration["items"]
    path = benchmark.path.parent / source["file"]
    reference = str(source.get("reference", "reference"))
    found: dict[str, Item] = {}
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError:
        raise UserError(f"`{source['file']}` is not UTF-8 text: save it as UTF-8.") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise UserError(f"`{source['file']}` line {number} is not a JSON object; every line must be one item.")
        item = _item(benchmark, row, reference)
        if split_of_prompt(item.prompt, benchmark) == split:
            found.setdefault(item.id, item)
    if not found:
        raise UserError(f"Benchmark `{benchmark.name}` has no item for {split}; `{source['file']}` needs more rows.")
    return [found[key] for key in sorted(found)][: benchmark.size(split)]


def split_of_prompt(prompt: str, benchmark: Benchmark) -> str:
    """dev or sealed, in proportion to their n, by a hash of the prompt that differs from the one in `Item.id`."""
    dev, sealed = benchmark.size(Split.DEV), benchmark.size(Split.SEALED)
    bucket = int.from_bytes(hashlib.sha256(f"split\n{prompt}".encode()).digest()[:8]) % (dev + sealed)
    return Split.DEV if bucket < dev else Split.SEALED


def _item(benchmark: Benchmark, row: Mapping[str, Any], reference: str) -> Item:
    template = str(benchmark.configuration.get("prompt") or "{{prompt}}")
    columns = [*_COLUMN.findall(template), reference]
    if missing := [column for column in columns if not isinstance(row.get(column), str | int | float)]:
        raise UserError(
            f"Benchmark `{benchmark.name}` needs the column {missing[0]} in every item, and one has only "
            f"{', '.join(map(str, row))}; correct `prompt` or `items.reference` in its YAML file."
        )
    prompt = _COLUMN.sub(lambda match: str(row[match[1]]), template)
    digest = hashlib.sha256(f"{benchmark.name}\n{prompt}".encode()).hexdigest()
    return Item(digest[:16], prompt, str(row[reference]).strip())


# --- What an evaluation job needs -------------------------------------------------------------------------------------


def write_job_files(benchmark: Benchmark, split: str, folder: Path, seed: int = 0) -> dict[str, str]:
    """The `files` of an evaluation job's specification: the bundle, the configuration and the items of one split, the
    last two written into `folder`. Only `split` is in there: a job that evaluates dev cannot read a sealed item."""
    folder.mkdir(parents=True, exist_ok=True)
    configuration, chosen = folder / "benchmark.yaml", folder / f"items-{split}.jsonl"
    content = dict(benchmark.configuration)
    configuration.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
    rows = [
        {"id": item.id, "prompt": item.prompt, "reference": item.reference} for item in items(benchmark, split, seed)
    ]
    chosen.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return {"bundle": str(BUNDLE), "benchmark.yaml": str(configuration), "items.jsonl": str(chosen)}


def bundle_digest() -> str:
    """SHA-256 over the evaluator bundle's files. evaluation.json repeats it as `harness.bundle`; with the benchmark's
    configuration and the libraries' versions it makes up `harness_digest`."""
    files = sorted(path for path in BUNDLE.rglob("*") if path.suffix in {".py", ".yaml", ".md"})
    return digest_of({path.relative_to(BUNDLE).as_posix(): path.read_text(encoding="utf-8") for path in files})
