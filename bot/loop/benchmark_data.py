"""Benchmarks whose items lie in a data set of the Hub: pinned to a commit when a goal is planned, fetched by the bot.

The files are kept in the bot's data folder, by repository, commit and names. None of their text goes into the journal,
a pull request, or a training job; an evaluation job gets the items of its one split.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from bot.domain.data_source import HubSource
from bot.domain.goal import digest_of
from bot.evaluation.benchmark_file import Benchmark
from bot.loop import hub

MOST_BYTES = 1024 * 1024 * 1024
"""Of all files of a benchmark; LibriSpeech's test recordings are a third of it."""


async def with_data(benchmark: Benchmark, folder: Path, token: str, commit: str | None = None) -> Benchmark:
    """The benchmark with its items at hand: as it is where they lie beside it, else with what `commit` (by default the
    commit that the file names, or the data set's newest one) holds, kept below `folder`.

    Raises: UserError for what somebody has to mend; TransientError.
    """
    source = benchmark.hub
    if source is None:
        return benchmark
    source, files = source.at(commit) if commit else source, benchmark.hub_files
    if source.pinned and (kept := _folder(folder, source, files)).is_dir():
        return benchmark.fetched(source.revision, kept)
    found = await hub.named_files(source, files, token, MOST_BYTES)
    kept = _folder(folder, found.source, files)
    if not kept.is_dir():
        await asyncio.to_thread(kept.parent.mkdir, parents=True, exist_ok=True)
        await hub.fetch(found, kept, token, MOST_BYTES)
    return benchmark.fetched(found.source.revision, kept)


def _folder(folder: Path, source: HubSource, files: list[str]) -> Path:
    return folder / "benchmarks" / "hub" / digest_of([source.repo, source.revision, sorted(files)])[:20]
