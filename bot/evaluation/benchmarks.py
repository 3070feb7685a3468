"""Benchmarks by their names, and what an evaluation job is given of one (`benchmark_file` has the format).

Nothing here imports torch: the bot process reads benchmarks, only the job's bundle (`bundle/evaluate.py`) runs them.
"""

from __future__ import annotations

import difflib
import json
import re
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml

from bot.domain.evaluation import Split
from bot.domain.goal import digest_of
from bot.errors import UserError
from bot.evaluation.benchmark_file import Benchmark, read_benchmark_file
from bot.evaluation.items import Item, example_row, fresh_items, items, old_items, shots, split_sizes

__all__ = [
    "BUNDLE", "SHIPPED", "Benchmark", "Item", "bundle_digest", "evaluation_words", "example_row", "fresh_items",
    "held_out_items", "items", "known_benchmarks", "load_benchmark", "metric_of", "old_items", "shots", "split_sizes",
    "write_job_files",
]  # fmt: skip

SHIPPED = Path(__file__).with_name("benchmarks")
BUNDLE = Path(__file__).with_name("bundle")
LONGEST_NAME = 100
FRESH, OLD, HOLDOUT, SHOTS, SHOTS_BESIDE = "fresh", "old:", "holdout", "shots", "shots_beside"
"""The sets that rows beside a split's own belong to, as the evaluator reads them."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*(?:[./][a-z0-9][a-z0-9_-]*)*", re.IGNORECASE)


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


def held_out_items(benchmark: Benchmark, seed: int = 0) -> list[Item]:
    """Everything that is ever measured on, whatever split it stands in. Raises: UserError as `items` does."""
    return [item for split in Split for item in items(benchmark, split, seed)]


# --- What an evaluation job needs -------------------------------------------------------------------------------------


def write_job_files(
    benchmark: Benchmark, split: str, folder: Path, seed: int = 0, *, beside: bool = False
) -> dict[str, str]:
    """The `files` of an evaluation job's specification: the bundle, the configuration and the items of one split, the
    last two written into `folder`. Only `split` is in there: a job that evaluates dev cannot read a sealed item.
    `beside` brings the examples of `shots_beside`: the base model is asked with them as well.

    Raises: UserError when an item cannot be used, or the benchmark's data have not been fetched.
    """
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
    rows += [shot | {"set": SHOTS} for shot in shots(benchmark, benchmark.shots, seed)]
    if beside:
        rows += [shot | {"set": SHOTS_BESIDE} for shot in shots(benchmark, benchmark.shots_beside, seed)]
    chosen.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return {"bundle": str(BUNDLE), "benchmark.yaml": str(configuration), "items.jsonl": str(chosen)}


def evaluation_words(
    benchmark: Benchmark, split: str, model_name: str, *, environment: bool = False
) -> tuple[str, ...]:
    """The `argv` of an evaluation job whose model is the mount `model`, and whose environment, if it has one of its
    own, is the mount `environment`."""
    return (
        "{python}", "bundle/evaluate.py", "--model", "{mount:model}", "--benchmark", "benchmark.yaml",
        "--items", "items.jsonl", "--split", split, "--output", "out/evaluation.json", "--model_name", model_name,
        *(("--environment", "{mount:environment}") if environment else ()),
        *(("--run_code",) if benchmark.runs_code else ()),
    )  # fmt: skip


def bundle_digest() -> str:
    """SHA-256 over the evaluator bundle's files. evaluation.json repeats it as `harness.bundle`; with the benchmark's
    configuration and the libraries' versions it makes up `harness_digest`."""
    files = sorted(path for path in BUNDLE.rglob("*") if path.suffix in {".py", ".yaml", ".md"})
    return digest_of({path.relative_to(BUNDLE).as_posix(): path.read_text(encoding="utf-8") for path in files})
