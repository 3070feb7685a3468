"""Training data from where a goal or a recipe says: pinned when the goal is read, fetched before the data job needs it.

What is fetched is kept in the data folder under the name of its pin, so that a later run, a restart and another goal
find it there; without it, the same bytes are fetched again or the change is noticed. A job gets files, no network.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from bot.conversation.github import Repository
from bot.conversation.goal_fields import address_problem
from bot.conversation.policy import Policy
from bot.data.evaluation_sets import evaluation_set, training_refusal
from bot.data.licences import licence_of_card
from bot.domain.data_source import SUFFIXES, AddressSource, HubSource, RepositorySource, Source, is_pinned, parse_source
from bot.domain.experiment import Experiment
from bot.domain.goal import digest_of
from bot.errors import TransientError, UserError
from bot.evaluation.benchmark_file import Benchmark
from bot.loop import hub
from bot.loop.address import fetch_address
from bot.loop.own_benchmark import LFS_ADVICE, is_lfs_pointer
from bot.loop.world import World

MOST_TRIES = 4
LONGEST_WAIT_SECONDS = 30.0

_T = TypeVar("_T")


class Pinned(NamedTuple):
    line: str
    """As it stands in the recipe's `data_sources`."""
    note: str = ""
    """One sentence for the contract; empty for a path, which the commit pins."""


async def pin(
    world: World, repository: Repository, ref: str, policy: Policy, line: str, benchmark: Benchmark,
    benchmark_pin: Mapping[str, Any] | None,
) -> Pinned:  # fmt: skip
    """The training data that `line` names, looked at and pinned. `ref` is the default branch's commit.

    Raises: UserError, TransientError.
    """
    source = parse_source(line)
    if isinstance(source, RepositorySource):
        check_independence(source, benchmark, benchmark_pin)
        await _check_path(repository, source.path, ref)
        return Pinned(source.path)
    if isinstance(source, HubSource):
        check_independence(source, benchmark, benchmark_pin)
        data = await _patiently(lambda: hub.resolve(source, world.hub_token), f"`{source}`")
        check_independence(data.source, benchmark, benchmark_pin, made_from=tuple(data.made_from))
        files = f"{len(data.files)} file{'' if len(data.files) == 1 else 's'}"
        return Pinned(str(data.source), f"The training data is {files} of `{data.source}`, pinned to that commit.")
    fetched = await _fetched_address(world, source, policy)
    return Pinned(
        str(fetched), f"The training data is pinned to what lies at its address now, sha256 `{fetched.sha256[:12]}`."
    )


def check_independence(
    source: Source, benchmark: Benchmark, pinned: Mapping[str, Any] | None, *, made_from: tuple[str, ...] = ()
) -> None:
    """Refuse what is the benchmark's own items by its very name; the scan of the rows comes later and looks deeper.

    Raises: UserError.
    """
    instead = "Name other data: a score reached on rows that are asked again would mean nothing."
    if isinstance(source, HubSource):
        names = {source.repo.lower(), *made_from}
        if (refusal := training_refusal(source.repo, source.path)) is not None:
            raise UserError(f"The training data cannot be used: {refusal}")
        for name in made_from:
            # A benchmark with rows for training may have lent those; of the others everything is scored.
            if (listed := evaluation_set(name)) is not None and not listed.train:
                raise UserError(
                    f"The training data `{source}` says of itself that it is made from `{name}`, the benchmark "
                    f"{listed.name} ({listed.source}). {instead}"
                )
        for own in benchmark.datasets:
            if any(own in name for name in names):
                raise UserError(
                    f"The training data `{source}` is, or is made from, `{own}`, which the benchmark "
                    f"`{benchmark.name}` takes its items from. {instead}"
                )
    if isinstance(source, RepositorySource) and pinned is not None and (held := _held(source, pinned)) is not None:
        raise UserError(f"The training data `{source}` holds `{held}`, the benchmark's own items. {instead}")


def _held(source: RepositorySource, pinned: Mapping[str, Any]) -> str | None:
    """The first file of the pinned benchmark that the source is, or that lies in it."""
    paths = [str(path) for path in (pinned["items_path"], *pinned.get("beside", {})) if path]
    return next((path for path in paths if _holds(source, path)), None)


def _holds(source: RepositorySource, path: str) -> bool:
    return f"{path}/".startswith(f"{source.path.strip('/')}/")


async def source_files(world: World, x: Experiment, line: str, folder: Path) -> dict[str, str]:
    """Path among the data job's inputs -> file on this machine, of one of the recipe's `data_sources`.

    Files of the repository are written into `folder`. Raises: UserError, TransientError.
    """
    source = _read(line)
    if isinstance(source, RepositorySource):
        contents = await _repository_files(world, x, source)
        return {path: await asyncio.to_thread(_write, folder / path, data) for path, data in contents.items()}
    if isinstance(source, HubSource):
        kept, names = await _kept_hub_data(world, source)
        return {f"hf/{source.repo}/{name}": str((kept / name).resolve()) for name in names}
    fetched = await _fetched_address(world, source, Policy.from_dict(x.policy))
    name = source.url.rpartition("/")[2].replace("%", "_")
    return {f"https/{fetched.sha256[:12]}/{name}": str((_addresses(world) / fetched.sha256).resolve())}


async def source_licence(world: World, x: Experiment, line: str) -> tuple[str | None, str]:
    """(licence of one of the recipe's `data_sources`, the place to write it when it is not known)."""
    source = _read(line)
    stated = x.goal.data_licence if x.goal is not None else None
    if isinstance(source, HubSource):
        kept, _ = await _kept_hub_data(world, source)
        found = json.loads((kept / "manifest.json").read_text(encoding="utf-8"))["licence"]
        return found or stated, f"huggingface.co/datasets/{source.repo}/README.md"
    if isinstance(source, AddressSource):
        return stated, "the goal's field Licence of the data"
    parent = line.rpartition("/")[0] if line.lower().endswith(SUFFIXES) else line
    card_path = f"{parent}/README.md" if parent else "README.md"
    repository = world.repository(x)
    card = await repository.file(card_path, x.head_sha or (await repository.default_branch())[1])
    found = licence_of_card(card.decode("utf-8", "replace")) if card is not None else None
    return found or stated, card_path


def _read(line: str) -> Source:
    try:
        source = parse_source(line)
    except UserError as error:
        raise UserError(f"`data_sources` names `{line[:120]}`, which {error}.") from None
    if not is_pinned(source):
        raise UserError(f"`data_sources` names `{line[:120]}` without its commit or digest, so it may change: add it.")
    return source


# --- The repository ---------------------------------------------------------------------------------------------------


async def _check_path(repository: Repository, path: str, ref: str) -> None:
    entry = await repository.entry(path, ref)
    if entry is None:
        raise UserError(
            f"The training data `{path}` is neither a file nor a folder on the default branch. "
            "Write the path of a JSONL file that is there, or leave the field empty."
        )
    if entry["type"] in ("symlink", "submodule"):
        raise UserError(f"The training data `{path}` is a {entry['type']}: write the path of the file itself.")
    names = [path] if entry["type"] == "file" else await repository.folder(path, ref)
    readable = [name for name in names if name.lower().endswith(SUFFIXES)]
    if not readable:
        raise UserError(
            f"The training data `{path}` holds no {', '.join(SUFFIXES)} file: write the path of one that is there."
        )
    if is_lfs_pointer(await repository.file(readable[0], ref)):
        raise UserError(f"The training data `{readable[0]}` {LFS_ADVICE}")


async def _repository_files(world: World, x: Experiment, source: RepositorySource) -> dict[str, bytes]:
    pinned = x.pins.get("benchmark")
    if pinned is not None and _held(source, pinned) is not None:
        raise UserError(f"`data_sources` names `{source}`, which holds the benchmark's own items. Name other data.")
    repository = world.repository(x)
    ref = x.head_sha or (await repository.default_branch())[1]
    found: dict[str, bytes] = {}
    single = await repository.file(source.path, ref)
    if single is not None:
        found[source.path] = single
    else:
        for path in await repository.folder(source.path, ref):
            if path.lower().endswith(SUFFIXES) and (content := await repository.file(path, ref)) is not None:
                found[path] = content
    if not found:
        raise UserError(
            f"`data_sources` names `{source}`, which is neither a file nor a folder of rows in this repository."
        )
    for path, content in found.items():
        if is_lfs_pointer(content):
            raise UserError(f"`data_sources` names `{path}`, which {LFS_ADVICE}")
    return found


def _write(path: Path, content: bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return str(path.resolve())


# --- From elsewhere ---------------------------------------------------------------------------------------------------


def _addresses(world: World) -> Path:
    return world.data_folder / "sources" / "https"


async def _kept_hub_data(world: World, source: HubSource) -> tuple[Path, list[str]]:
    """The folder that holds the data set's files, fetched first when it is not there, and their names."""
    folder = world.data_folder / "sources" / "hf" / digest_of(str(source))[:20]
    if not folder.is_dir():

        async def fetched() -> None:
            await hub.fetch(await hub.resolve(source, world.hub_token), folder, world.hub_token)

        await _patiently(fetched, f"`{source}`")
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return folder, [str(name) for name, _, _ in manifest["files"]]


async def _fetched_address(world: World, source: AddressSource, policy: Policy) -> AddressSource:
    """The address pinned, its bytes kept. The policy is asked each time: what it no longer allows is not used."""
    if (why := address_problem(source, policy)) is not None:
        raise UserError(f"The training data `{source.url}` {why}.")
    if source.sha256 and (_addresses(world) / source.sha256).is_file():
        return source
    return await _patiently(
        lambda: fetch_address(
            source, _addresses(world), allowed=lambda asked: address_problem(asked, policy),
            private_hosts=world.private_data_hosts,
        ),
        f"`{source.url}`",
    )  # fmt: skip


async def _patiently(fetch: Callable[[], Awaitable[_T]], what: str) -> _T:
    """`fetch`, a few times when it may pass: somebody waits for the answer, and a comment says more than silence."""
    wait = 1.0
    for left in reversed(range(MOST_TRIES)):
        try:
            return await fetch()
        except TransientError as error:
            if not left:
                raise UserError(
                    f"The training data {what} could not be fetched just now: {error}. Edit the issue and I will try "
                    "again; once the pull request is open, write `/postdoc resume`."
                ) from error
            await asyncio.sleep(min(LONGEST_WAIT_SECONDS, max(wait, error.retry_after_seconds or 0.0)))
            wait *= 2
    raise AssertionError("unreachable")
