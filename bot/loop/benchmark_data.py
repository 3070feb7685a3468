"""Benchmarks whose items lie in a data set of the Hub: pinned to a commit when a goal is planned, fetched by the bot.

The files are kept in the bot's data folder, by repository, commit and names. None of their text goes into the journal,
a pull request, or a training job; an evaluation job gets the items of its one split.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

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
    if commit is None:
        commit = source.revision if source.pinned else await hub.commit_of(source, token)
    files = benchmark.hub_files
    kept = folder / "benchmarks" / "hub" / digest_of([source.repo, commit, sorted(files)])[:20]
    if not kept.is_dir():
        await asyncio.to_thread(kept.parent.mkdir, parents=True, exist_ok=True)
        await hub.fetch(
            hub.HubData(source.at(commit), benchmark.licence or None, {}, tuple(files)), kept, token, MOST_BYTES
        )
    return benchmark.fetched(commit, kept)
