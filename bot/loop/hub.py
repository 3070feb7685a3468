"""Data sets of the Hugging Face Hub: which files of one hold training rows, pinned to a commit and fetched as files."""

from __future__ import annotations

import asyncio
import fnmatch
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from bot.data.licences import licence_of_card
from bot.domain.data_source import SUFFIXES, HubSource
from bot.errors import TransientError, UserError
from bot.loop.hub_process import ask_hub
from bot.loop.kept import kept_folder

MOST_BYTES = 128 * 1024 * 1024
"""Of one source. A data job may use 2 GiB, and rows read into it take several times their size in the file."""
MOST_FILES = 200
RESOLVE_SECONDS, DOWNLOAD_SECONDS = 60, 900
_SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+=-]*(/[A-Za-z0-9_][A-Za-z0-9_.@+=-]*)*")
# Files of other tools that hold facts about the rows, none of the rows.
_ABOUT = frozenset({"dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json", "metadata.json"})
# The Hub's own words for splits: https://huggingface.co/docs/hub/datasets-file-names-and-splits
_TRAIN = frozenset({"train", "training"})
_HELD_OUT = frozenset({"test", "testing", "eval", "evaluation", "validation", "valid", "val", "dev"})


@dataclass(frozen=True, slots=True)
class HubData:
    """A data set at one commit."""

    source: HubSource
    """Pinned."""
    licence: str | None
    """Of its card."""
    card: Mapping[str, Any]
    files: tuple[str, ...]
    """Those that hold the rows."""

    @property
    def made_from(self) -> list[str]:
        """Names of the data sets that its card says it was made from, in lower case."""
        named = self.card.get("source_datasets") or []
        return [str(name).lower() for name in (named if isinstance(named, list) else [named])]


async def resolve(source: HubSource, token: str) -> HubData:
    """The data set as it stands now, pinned to its commit, with the files that hold its training rows.

    Raises: UserError, beginning with the source's name, for what its author has to mend; TransientError.
    """
    request = {"do": "resolve", "repo": source.repo, "revision": source.revision, "token": token}
    answer = await _ask(source, request | {"seconds": RESOLVE_SECONDS})
    card = answer["card"]
    files = [(str(name), int(size)) for name, size in answer["files"]]
    chosen = training_files(source, files, card)
    stated = {key: card[key] for key in ("license", "license_name") if key in card}
    licence = licence_of_card(f"---\n{yaml.safe_dump(stated)}---\n")
    return HubData(source.at(str(answer["sha"])), licence, card, tuple(chosen))


async def named_files(source: HubSource, files: Sequence[str], token: str, most_bytes: int) -> HubData:
    """The data set at its commit, with these files of it. Raises: UserError, TransientError."""
    request = {"do": "resolve", "repo": source.repo, "revision": source.revision, "token": token}
    answer = await _ask(source, request | {"seconds": RESOLVE_SECONDS})
    sizes = {str(name): int(size) for name, size in answer["files"]}
    if missing := [name for name in files if name not in sizes]:
        raise UserError(f"The data set `{source}` has no file `{missing[0]}`. It holds {_shown(list(sizes))}.")
    if (total := sum(sizes[name] for name in files)) > most_bytes:
        raise UserError(_too_large(source, total, len(files), most_bytes))
    return HubData(source.at(str(answer["sha"])), None, answer["card"], tuple(files))


async def fetch(data: HubData, folder: Path, token: str, most_bytes: int = MOST_BYTES) -> None:
    """Put the files of `data` into the new folder `folder`, under their own names, all of them or none.

    Raises: UserError, TransientError.
    """
    with kept_folder(folder) as partial:
        request = {
            "do": "download", "repo": data.source.repo, "revision": data.source.revision, "token": token,
            "files": list(data.files), "folder": str(partial), "bytes": most_bytes, "seconds": DOWNLOAD_SECONDS,
        }  # fmt: skip
        answer = await _ask(data.source, request)
        if (total := sum(size for _, size, _ in answer["files"])) > most_bytes:
            raise UserError(_too_large(data.source, total, len(answer["files"]), most_bytes))
        await asyncio.to_thread(_finish, partial, {"licence": data.licence, "files": answer["files"]})


def _finish(folder: Path, manifest: Mapping[str, Any]) -> None:
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # the library's own notes
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def training_files(source: HubSource, files: Sequence[tuple[str, int]], card: Mapping[str, Any]) -> list[str]:
    """The files, of `files` with their sizes in bytes, that hold the rows to train on.

    Raises: UserError.
    """
    name = f"The data set `{source}`"
    rows = {path: size for path, size in files if _holds_rows(path)}
    if source.path:
        chosen = [path for path in rows if path == source.path or path.startswith(f"{source.path}/")]
        if not chosen:
            raise UserError(_nothing_there(name, source, files))
    elif not rows:
        raise UserError(_without_rows(name, source, files))
    else:
        chosen = _by_card(name, source, card, rows) or _by_names(name, source, rows)
    total = sum(rows[path] for path in chosen)
    if total > MOST_BYTES or len(chosen) > MOST_FILES:
        raise UserError(_too_large(source, total, len(chosen)))
    return sorted(chosen)


def _holds_rows(path: str) -> bool:
    return path.lower().endswith(SUFFIXES) and PurePosixPath(path).name not in _ABOUT and bool(_SAFE.fullmatch(path))


def _by_card(name: str, source: HubSource, card: Mapping[str, Any], rows: Mapping[str, int]) -> list[str]:
    """Files that the card's `configs` call training rows: https://huggingface.co/docs/hub/datasets-manual-configuration"""
    configs = [each for each in card.get("configs") or () if isinstance(each, dict) and each.get("data_files")]
    if len(configs) > 1:
        configs = [each for each in configs if each.get("default") is True] or configs
    if len(configs) > 1:
        subsets = ", ".join(f"`{each.get('config_name')}`" for each in configs[:8])
        example = _matching(configs[0]["data_files"], rows)
        raise UserError(
            f"{name} has several subsets ({subsets}): write the folder or file of the one meant, "
            f"`{HubSource(source.repo, source.revision, example[0] if example else 'folder')}` for example."
        )
    return _matching(configs[0]["data_files"], rows) if configs else []


def _matching(data_files: Any, rows: Mapping[str, int]) -> list[str]:
    entries = data_files if isinstance(data_files, list) else [data_files]
    splits = [entry for entry in entries if isinstance(entry, dict)]
    if splits:
        entries = [entry.get("path") for entry in splits if str(entry.get("split", "train")) in _TRAIN]
    patterns = [str(p) for entry in entries for p in (entry if isinstance(entry, list) else [entry]) if p]
    return [path for path in rows if any(fnmatch.fnmatchcase(path, pattern.removeprefix("./")) for pattern in patterns)]


def _by_names(name: str, source: HubSource, rows: Mapping[str, int]) -> list[str]:
    words = {path: set(re.split(r"[^a-z0-9]+", path.lower())) for path in rows}
    chosen = [path for path in rows if words[path] & _TRAIN] or [path for path in rows if not words[path] & _HELD_OUT]
    if not chosen:
        raise UserError(
            f"{name} holds evaluation splits only ({_shown(list(rows))}): name the file meant, "
            f"`{HubSource(source.repo, source.revision, next(iter(rows)))}`, or another data set."
        )
    folders = sorted({str(PurePosixPath(path).parent) for path in chosen} - {"data"})
    if len(folders) > 1:
        example = HubSource(source.repo, source.revision, folders[0] if folders[0] != "." else folders[1])
        raise UserError(
            f"{name} has rows in several folders ({_shown(folders)}): write the one meant, `{example}` for example."
        )
    return chosen


def _nothing_there(name: str, source: HubSource, files: Sequence[tuple[str, int]]) -> str:
    there = [path for path, _ in files if path == source.path or path.startswith(f"{source.path}/")]
    if there:
        return _without_rows(name, source, [(path, 0) for path in there])
    return f"{name} has nothing at that path. It holds {_shown([path for path, _ in files])}."


def _without_rows(name: str, source: HubSource, files: Sequence[tuple[str, int]]) -> str:
    if any(path.endswith(".py") for path, _ in files):
        converted = HubSource(source.repo, "refs/convert/parquet")
        return (
            f"{name} is built by a script, and code from the Hub is never run. The Hub often keeps a converted copy: "
            f"write `{converted}/default/train`, or name another data set."
        )
    kinds = sorted({PurePosixPath(path).suffix for path, _ in files} - {"", ".md"})
    found = f"only {', '.join(f'`{kind}`' for kind in kinds[:8])}" if kinds else "nothing to read"
    return f"{name} holds {found}. Rows are read from {', '.join(SUFFIXES)} files alone: name a data set that has them."


def _too_large(source: HubSource, size: int, count: int, most_bytes: int = MOST_BYTES) -> str:
    held = f"{size / 2**20:,.0f} MiB in {count:,} file{'' if count == 1 else 's'}"
    return (
        f"The data set `{source}` holds {held}; at most {most_bytes // 2**20} MiB and {MOST_FILES} files are fetched. "
        f"Write a file or folder of it, `hf:{source.repo}/path`."
    )


def _shown(names: Sequence[str]) -> str:
    rest = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return (", ".join(f"`{name[:80]}`" for name in names[:6]) or "nothing") + rest


async def _ask(source: HubSource, request: dict[str, Any]) -> dict[str, Any]:
    """The child's answer. Raises: UserError, TransientError."""
    answer = await ask_hub(request, f"deliver `{source}`")
    if "error" in answer:
        raise _raised(source, answer)
    return answer


def _raised(source: HubSource, answer: Mapping[str, Any]) -> Exception:
    repo = f"`hf:{source.repo}`"
    match answer["error"]:
        case "missing":
            return UserError(
                f"There is no data set {repo} on the Hub that this server may read: correct the name, or have the "
                "server's POSTDOC_HUB_TOKEN given access to it."
            )
        case "revision":
            return UserError(f"The data set {repo} has no revision `{source.revision}`: write a branch, tag or commit.")
        case "gated":
            return UserError(
                f"The data set {repo} is gated: accept its terms on its page with the account of the server's "
                "POSTDOC_HUB_TOKEN."
            )
        case "token" | "forbidden":
            return UserError(
                f"The Hub refuses this server's token for {repo}: have POSTDOC_HUB_TOKEN replaced by one that may "
                "read it."
            )
        case "file":
            return UserError(f"A file of the data set `{source}` is gone from the Hub: name another revision.")
        case "offline":
            return UserError(
                f"{repo} cannot be fetched, because this server is kept off the Hub (HF_HUB_OFFLINE): put the rows "
                "into this repository and write their path."
            )
        case "broken":
            return RuntimeError(f"asking the Hub for {source.repo} failed: {answer['detail']}")
    return TransientError(
        f"the Hub could not be asked for {source.repo} ({answer['detail']})", retry_after_seconds=answer["retry_after"]
    )
