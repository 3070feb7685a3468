"""A run as its folder tells it: what `runs/NN` holds, checked against itself, and the files that it was made from.

The folder lies in a checkout, `experiments/<goal>/runs/NN`, or in a bot's data folder, `goals/<goal>/runs/NN`. Every
file that is taken for one of the run's has the SHA-256 that run.json names; where it is found does not matter then.
"""

from __future__ import annotations

import glob
import hashlib
import json
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from bot.domain.evaluation import Evaluation
from bot.domain.goal import digest_of
from bot.domain.recipe import recipe_hash, run_name
from bot.domain.scripts import files_shipped_as
from bot.errors import UserError
from bot.evaluation.compare import load_evaluation
from bot.loop.world import digest

RUN_FILE = "run.json"
FORM = 2
"""Of run.json; what came before does not name libraries, weights and the recipe's text."""
_GIT_SECONDS = 60
_NEEDED = {
    "folder": str, "run": int, "commit": str, "recipe": str, "recipe_hash": str, "scripts": dict, "base_model": str,
    "base_revision": str, "benchmark": dict, "seed": int, "data": dict, "environment": dict, "place": dict,
    "files": dict,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """What one `runs/NN` says."""

    folder: Path
    facts: Mapping[str, Any]
    """run.json."""
    evaluation: Evaluation
    losses: Mapping[int, float] = field(default_factory=dict)
    """Of curve.json: step -> loss, at most 500 of them."""

    @property
    def n(self) -> int:
        return int(self.facts["run"])

    @property
    def recipe(self) -> str:
        return str(self.facts["recipe"])

    @property
    def values(self) -> Mapping[str, Any]:
        found: dict[str, Any] = yaml.safe_load(self.recipe) or {}
        return found

    @property
    def scripts(self) -> Mapping[str, str]:
        """Path in the experiment's folder -> SHA-256."""
        return dict(self.facts["scripts"])

    @property
    def rows_digest(self) -> str:
        """SHA-256 of train.jsonl."""
        return str(self.facts["data"].get("sha256") or "")

    def sibling(self, n: int) -> Path:
        return self.folder.parent / f"{n:02d}"


def read_run(folder: Path) -> RecordedRun:
    """The run in `folder`. Raises: UserError, which says what is wrong with it and what to do."""
    facts = _facts(folder)
    _check_paths(folder, facts)
    _check_files(folder, facts)
    hashed = recipe_hash(_yaml(folder, facts), script_digest=digest_of(dict(facts["scripts"])))
    if hashed != facts["recipe_hash"]:
        raise UserError(
            f"{folder / RUN_FILE} contradicts itself: its recipe and scripts have the hash {hashed}, and it says "
            f"{facts['recipe_hash']}. {_restore(folder, RUN_FILE)}"
        )
    if not isinstance(facts.get("score"), dict) or not (folder / "evaluation.json").is_file():
        why = f" ({facts['failure']})" if facts.get("failure") else ""
        raise UserError(f"{folder} holds no result to reproduce: the run was never evaluated{why}. Name another run.")
    evaluation = load_evaluation(folder / "evaluation.json")
    if facts["score"].get("value") != evaluation.value:
        raise UserError(
            f"{folder / RUN_FILE} and evaluation.json contradict each other: the score is "
            f"{facts['score'].get('value')} in one and {evaluation.value} in the other. {_restore(folder, '.')}"
        )
    return RecordedRun(folder, facts, evaluation, _losses(folder / "curve.json"))


def _facts(folder: Path) -> dict[str, Any]:
    path = folder / RUN_FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"There is no {path}. Name the folder of a run, as `experiments/0042-gsm8k/runs/03` in a checkout of the "
            "pull request's branch."
        ) from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError):
        raise UserError(f"{path} is not JSON. {_restore(folder, RUN_FILE)}") from None
    if not isinstance(found, dict) or found.get("form") != FORM:
        raise UserError(
            f"{path} was not written in form {FORM}, which names all that a run was made from (libraries, weights, the "
            "recipe's text): train the run again with this version of Postdoc, and reproduce that one."
        )
    wrong = [key for key, kind in _NEEDED.items() if not isinstance(found.get(key), kind)]
    if wrong:
        raise UserError(f"{path} lacks {', '.join(wrong)}. {_restore(folder, RUN_FILE)}")
    return found


def _check_paths(folder: Path, facts: Mapping[str, Any]) -> None:
    """A record may come from anybody: no path in it leads out of the folders that are read and written for it."""
    pin = facts["benchmark"].get("pin") or {}
    sources = facts["data"].get("sources") or []
    if not isinstance(pin, dict) or not all(isinstance(each, dict) for each in sources):
        raise UserError(f"{folder / RUN_FILE} is not as Postdoc writes it. {_restore(folder, RUN_FILE)}")
    named = [facts["folder"], *facts["scripts"], *(each.get("path") for each in sources)]
    named += [pin.get("path"), pin.get("items_path")] if pin else []
    for path in named:
        if not isinstance(path, str) or PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise UserError(
                f"{folder / RUN_FILE} names the path {str(path)[:80]!r}, and paths lie inside the repository. "
                f"{_restore(folder, RUN_FILE)}"
            )


def _check_files(folder: Path, facts: Mapping[str, Any]) -> None:
    """An edit of a curve or an evaluation shows before anything is paid for."""
    for name, wanted in facts["files"].items():
        path = folder / PurePosixPath(str(name)).name
        try:
            found = digest(path.read_bytes())
        except OSError:
            raise UserError(f"There is no {path}, which run.json names. {_restore(folder, path.name)}") from None
        if found != wanted:
            raise UserError(
                f"{path} is not the file that the run wrote: its SHA-256 is {found[:12]}, and run.json names "
                f"{str(wanted)[:12]}. {_restore(folder, path.name)}"
            )


def _restore(folder: Path, name: str) -> str:
    return f"Take it from the commit again: `git checkout HEAD -- {folder / name}`."


def _yaml(folder: Path, facts: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        values = yaml.safe_load(facts["recipe"]) or {}
    except yaml.YAMLError:
        values = None
    if not isinstance(values, dict):
        raise UserError(f"The recipe in {folder / RUN_FILE} is not one. {_restore(folder, RUN_FILE)}")
    return values


def _losses(path: Path) -> dict[int, float]:
    """Raises: UserError for a curve of another form."""
    try:
        points = json.loads(path.read_text(encoding="utf-8")).get("loss", [])
        return {int(step): float(loss) for step, loss in points if loss is not None}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        raise UserError(f"{path} holds no curves as Postdoc writes them. {_restore(path.parent, path.name)}") from None


# --- The files that a run was made from -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Archive:
    """Where files that a run was made from may still lie."""

    run: RecordedRun

    def script(self, path: str) -> bytes:
        """A script of the experiment's folder. Raises: UserError when it is nowhere to be found."""
        wanted = self.run.scripts[path]
        return self._found(f"{self.run.facts['folder']}/{path}", wanted, self._shipped(path))

    def source(self, path: str, wanted: str) -> bytes:
        """A file of the repository that rows were built from, or a benchmark's. Raises: UserError."""
        return self._found(path, wanted, ())

    def is_shipped(self) -> bool:
        """Whether every script is byte for byte one that ships with this version."""
        return all(
            any(digest(content) == wanted for content in self._shipped(path))
            for path, wanted in self.run.scripts.items()
        )

    def _found(self, path: str, wanted: str, also: Iterable[bytes]) -> bytes:
        here = None
        for content in chain(self._beside(path), also, self._committed(path)):
            if digest(content) == wanted:
                return content
            here = here or content
        commit = str(self.run.facts["commit"])
        if here is None:
            what = f"`{path}` is not here"
        else:
            what = f"`{path}` is not what {run_name(self.run.n)} was made from (SHA-256 {digest(here)[:12]} here, "
            what += f"{wanted[:12]} then)"
        raise UserError(
            f"{what}, and commit {commit[:12]} is not in this repository. Fetch it with `git fetch origin {commit}`, "
            "and write the command again."
        )

    def _beside(self, path: str) -> Iterator[bytes]:
        """In the checkout, or in the bot's data folder around the run."""
        name = PurePosixPath(path).name
        top = self.run.folder.resolve().parents[1]
        places = [parent / path for parent in (top, *top.parents)][:6]
        name = glob.escape(name)
        places += [*sorted((top / "inputs").glob(f"**/{name}")), *sorted(top.parents[1].glob(f"benchmarks/*/{name}"))]
        for place in places:
            if place.is_file():
                yield place.read_bytes()

    def _committed(self, path: str) -> Iterator[bytes]:
        pin = self.run.facts["benchmark"].get("pin") or {}
        for commit in (self.run.facts["commit"], pin.get("commit")):
            if commit and (content := self._at(str(commit), path)) is not None:
                yield content

    def _at(self, commit: str, path: str) -> bytes | None:
        if not all(letter in "0123456789abcdef" for letter in commit):
            return None
        done = subprocess.run(
            ["git", "show", f"{commit}:{path}"],
            cwd=self.run.folder, capture_output=True, timeout=_GIT_SECONDS, check=False,
        )  # fmt: skip
        content: bytes = done.stdout
        return content if done.returncode == 0 else None

    def _shipped(self, path: str) -> Iterator[bytes]:
        yield from (file.read_bytes() for file in files_shipped_as(path))


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
