"""A team's own benchmark: a YAML file of its repository with its items beside it, read from the default branch alone.

What stood at the default branch's commit when the goal was read is what the goal is measured on to its end: the journal
keeps commit and digests, the data folder the two files. A later change on the default branch is for the next goal, and
a change on any other branch counts nowhere. No item goes into the journal, a pull request or a training job.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from bot.conversation.github import Repository
from bot.domain.evaluation import Split
from bot.domain.experiment import Experiment
from bot.domain.goal import digest_of
from bot.errors import UserError
from bot.evaluation.benchmark_file import LARGEST_FILE_BYTES, Benchmark, local_files, read_benchmark_file
from bot.evaluation.benchmarks import items, load_benchmark
from bot.loop.benchmark_data import with_data
from bot.loop.kept import kept_folder
from bot.loop.world import World, digest

LARGEST_ITEMS_BYTES = 32 * 1024 * 1024
MOST_ITEMS = 50_000
FEW_ITEMS = 50
"""Below this, a value's interval is so wide that hardly any two runs can be told apart; it is said, not refused."""
LFS_ADVICE = (
    "is a Git LFS pointer, not the file itself, and LFS is not read: commit the file without LFS, or put the rows into "
    "a data set of the Hub."
)


class OwnBenchmark(NamedTuple):
    benchmark: Benchmark
    pin: dict[str, Any]
    """For the journal: paths, commit and digests, no text."""
    notes: list[str]


def is_own(name: str) -> bool:
    """True for the path of a benchmark file, false for the name of one that this server has."""
    return name.lower().endswith((".yaml", ".yml"))


def is_lfs_pointer(content: bytes | None) -> bool:
    """https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md"""
    return content is not None and content.startswith(b"version https://git-lfs.github.com/spec/")


async def read_own_benchmark(world: World, repository: Repository, path: str, ref: str) -> OwnBenchmark:
    """The benchmark at `path` as commit `ref` of the default branch holds it.

    Raises: UserError, TransientError.
    """
    name = _name_of(path)
    if path != f"{name}.yaml":
        raise UserError(f"The benchmark `{path}` must be called `{name}.yaml`: rename it.")
    text = await _content(repository, path, ref, LARGEST_FILE_BYTES, "benchmark")
    try:
        files = local_files(name, text.decode())
    except UnicodeDecodeError:
        raise UserError(f"The benchmark `{path}` is not UTF-8 text: save it as UTF-8.") from None
    if files is None:
        raise UserError(
            f"The benchmark `{path}` draws its items from a practice task. Write `items: {{file: ...}}`, or the name "
            "of the practice benchmark itself."
        )
    place = PurePosixPath(path).parent
    rows = {
        file: await _content(repository, str(place / file), ref, LARGEST_ITEMS_BYTES, "benchmark's items")
        for file in files
    }
    pin: dict[str, Any] = {"path": path, "commit": ref, "digest": digest(text), "items_path": "", "items_digest": ""}
    if rows:  # none lie here where the items are in a data set of the Hub
        first, *others = rows
        pin |= {"items_path": str(place / first), "items_digest": digest(rows[first])}
        pin |= {"beside": {str(place / file): digest(rows[file]) for file in others}} if others else {}
    folder = await asyncio.to_thread(_keep, world, pin, {PurePosixPath(path).name: text, **rows})
    benchmark = await asyncio.to_thread(read_benchmark_file, name, folder / PurePosixPath(path).name)
    if benchmark.configuration["items"].get("pattern"):
        # It would run in this server, on rows and with a pattern that anybody with a repository chooses.
        raise UserError(
            f"The benchmark `{path}` uses `items.pattern`, which is for benchmarks of the server: write the answers "
            "into a column of their own, and name it in `items.reference`."
        )
    benchmark = await with_data(benchmark, world.data_folder, world.hub_token)
    return OwnBenchmark(benchmark, pin, await asyncio.to_thread(_notes, benchmark, b"".join(rows.values())))


async def benchmark_of(world: World, x: Experiment) -> Benchmark:
    """The benchmark that the goal is measured on: its own as it was pinned, or one that this server has.

    Raises: UserError, TransientError.
    """
    assert x.goal is not None
    pin, commit = x.pins.get("benchmark"), x.pins.get("benchmark_data")
    if pin is None:
        named = load_benchmark(x.goal.benchmark, world.benchmark_folders)
        return await with_data(named, world.data_folder, world.hub_token, commit)
    file = _folder(world, pin) / PurePosixPath(pin["path"]).name
    if not file.is_file():
        found = await read_own_benchmark(world, world.repository(x), pin["path"], pin["commit"])
        if found.pin != pin:
            raise UserError(f"The benchmark `{pin['path']}` is not what it was at commit {pin['commit'][:12]}.")
    benchmark = await asyncio.to_thread(read_benchmark_file, _name_of(pin["path"]), file)
    return await with_data(benchmark, world.data_folder, world.hub_token, commit)


def _name_of(path: str) -> str:
    return path.rpartition(".")[0]


async def _content(repository: Repository, path: str, ref: str, most: int, what: str) -> bytes:
    entry = await repository.entry(path, ref)
    if entry is None:
        raise UserError(f"There is no {what} `{path}` on the default branch: write the path of a file that is there.")
    if entry["type"] != "file":
        raise UserError(f"The {what} `{path}` is a {entry['type']}: write the path of the file itself.")
    if entry["size"] > most:
        raise UserError(f"The {what} `{path}` has {entry['size']:,} bytes; at most {most:,} are read. Write fewer.")
    content = await repository.file(path, ref)
    if content is None:
        raise UserError(f"There is no {what} `{path}` on the default branch: write the path of a file that is there.")
    if is_lfs_pointer(content):
        raise UserError(f"The {what} `{path}` {LFS_ADVICE}")
    return content


def _folder(world: World, pin: Mapping[str, Any]) -> Path:
    more = [pin["beside"]] if "beside" in pin else []
    return world.data_folder / "benchmarks" / digest_of([pin["path"], pin["digest"], pin["items_digest"], *more])[:20]


def _keep(world: World, pin: Mapping[str, Any], files: Mapping[str, bytes]) -> Path:
    """The folder that holds the files; it appears whole or not at all."""
    folder = _folder(world, pin)
    if not folder.is_dir():
        with kept_folder(folder) as partial:
            for name, content in files.items():
                (partial / name).parent.mkdir(parents=True, exist_ok=True)
                (partial / name).write_bytes(content)
    return folder


def _notes(benchmark: Benchmark, rows: bytes) -> list[str]:
    """What its author should know. Reads every item of both splits. Raises: UserError for items that cannot be used."""
    count = rows.count(b"\n") + 1
    if count > MOST_ITEMS:
        raise UserError(f"The benchmark `{benchmark.name}` has {count:,} items; at most {MOST_ITEMS:,} are read.")
    notes = []
    for split in (Split.DEV, Split.SEALED):
        found = len(items(benchmark, split))
        if found < FEW_ITEMS:
            notes.append(
                f"The benchmark's {split} split has {found} items, so its values come with wide intervals: add items "
                "to tell smaller differences apart."
            )
    return notes
