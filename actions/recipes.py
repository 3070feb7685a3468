"""An experiment's folder as the jobs need it: recipe, scripts, rows, and the model to start from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from actions import checkout
from actions.request import Request
from bot.diagnosis.recipes import parsed_recipe
from bot.domain.methods import METHODS
from bot.domain.recipe import earlier_run
from bot.domain.redaction import redact
from bot.domain.scripts import COLUMNS, PREPARE, TRAIN, data_files, shipped_files, training_files
from bot.errors import PlatformError, UserError
from runners.remote.origins import fetch_origin

RECIPE, ROWS = "recipe.yaml", "data/train.jsonl"

POLICY = ".github/postdoc.yml"
LOADS_CODE = frozenset({"trust_remote_code", "resume_from_checkpoint", "model_init_kwargs"})


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is trained."""

    text: str
    values: dict[str, Any]
    file: str
    """The recipe's path in the repository: where annotations go."""
    folder: Path
    training: dict[str, Path]
    """Path in the job's folder -> file: train.py and what it imports."""
    building: dict[str, Path]
    """The same of what builds the training set."""
    trusted: bool
    """All scripts are byte for byte the shipped ones, and no key of the recipe makes them load other code."""
    sources: tuple[str, ...]


def read_recipe(request: Request) -> Recipe:
    """Raises: UserError that says what to write instead."""
    path = _recipe_path(request)
    folder = checkout.inside(request, "experiment", request.experiment) if request.experiment else path.parent
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8"
        raise UserError(f"{checkout.relative(request, path)} cannot be read: {why}.") from None
    values = parsed_recipe(text)
    method = str(values.get("method") or "sft")
    shipped = training_files(method) if method in METHODS else {}
    if not (folder / TRAIN).is_file() and (TRAIN not in shipped or not shipped[TRAIN].is_file()):
        raise UserError(f"{RECIPE}: there is no script for method: {method}, and the experiment has no {TRAIN}.")
    training, building = _chosen(request, folder, {TRAIN, *shipped}, shipped), _building(request, folder)
    shipped |= data_files()
    ours = all(path in shipped and _same(each, shipped[path]) for path, each in (training | building).items())
    trusted = ours and not LOADS_CODE.intersection(values)
    file = checkout.relative(request, path)
    return Recipe(text, values, file, folder, training, building, trusted, _sources(values.get("data_sources")))


def own_scripts(recipe: Recipe) -> dict[str, Path]:
    """Path in the experiment -> file, of every script that is not byte for byte the shipped one."""
    method = str(recipe.values.get("method") or "sft")
    shipped = shipped_files(method) if method in METHODS else data_files()
    files = recipe.training | recipe.building
    return {path: file for path, file in files.items() if path not in shipped or not _same(file, shipped[path])}


def monitoring(request: Request) -> str:
    """What the checkout's policy says of the monitor: `abort`, `advise` or `off`. Raises: UserError."""
    path = checkout.inside(request, "policy", POLICY)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        values = {}  # what is wrong with the file is said by its own check
    how = values.get("monitor", "abort") if isinstance(values, dict) else "abort"
    how = "off" if how is False else how  # YAML reads a bare `off` as false
    if how not in ("abort", "advise", "off"):
        raise UserError(f"{POLICY}: monitor is {how!r:.40}; write abort, advise or off.")
    return str(how)


def _recipe_path(request: Request) -> Path:
    text = request.recipe or str(PurePosixPath(request.experiment) / RECIPE)
    path = checkout.inside(request, "recipe" if request.recipe else "experiment", text)
    if not path.is_file():
        raise UserError(f"there is no {text} in the checkout; `experiment` is a folder that holds a {RECIPE}.")
    return path


def _chosen(request: Request, folder: Path, paths: Iterable[str], shipped: Mapping[str, Path]) -> dict[str, Path]:
    """Path -> the experiment's own file where it has one, else the shipped one where there is one."""
    own = {path: _inside(request, folder / path) for path in paths if (folder / path).is_file()}
    return own | {path: shipped[path] for path in paths if path not in own and path in shipped}


def _building(request: Request, folder: Path) -> dict[str, Path]:
    """What builds the training set. A prepare.py of the experiment's goes with the experiment's columns/, where it has
    one: what another version committed need not go with ours."""
    shipped = data_files()
    if not (folder / PREPARE).is_file():
        return shipped
    columns = {f"{COLUMNS}/{file.name}" for file in (folder / COLUMNS).glob("*.py")}
    return _chosen(request, folder, {PREPARE, *(columns or shipped)}, {} if columns else shipped)


def _inside(request: Request, path: Path) -> Path:
    return checkout.inside(request, path.name, str(path))


def _same(path: Path, shipped: Path) -> bool:
    if path == shipped:
        return True
    if not shipped.is_file():
        return False
    digests = [hashlib.sha256(each.read_bytes()).digest() for each in (path, shipped)]
    return digests[0] == digests[1]


def _sources(value: Any) -> tuple[str, ...]:
    parts = value if isinstance(value, list) else str(value or "").split(",")
    return tuple(text for part in parts if (text := str(part).strip()))


def source_files(request: Request, recipe: Recipe) -> dict[str, str]:
    """Path among the data job's inputs -> file of the checkout. Raises: UserError."""
    files = {}
    for source in recipe.sources:
        pure = PurePosixPath(source)
        if source == "benchmark/train.jsonl":
            raise UserError(
                "data_sources: benchmark/train.jsonl is drawn by the bot alone. Commit rows, and name their path."
            )
        if ":" in source or pure.is_absolute() or ".." in pure.parts:
            raise UserError(
                f"data_sources: {source} is no path of this repository. Without the bot, rows are read from the "
                "checkout alone: commit them, or fetch them in a step before this one."
            )
        path = checkout.inside(request, "data_sources", source)
        if not path.exists():
            raise UserError(
                f"data_sources: there is no {source} in the checkout. Paths begin at the repository's root."
            )
        files[f"inputs/{source}"] = str(path)
    return files


def base_model(request: Request, recipe: Recipe) -> Path:
    """The folder of the model that training starts from, fetched from the Hub where it is none of this machine.

    Raises: UserError, PlatformError.
    """
    text = request.base_model or str(recipe.values.get("init_from") or recipe.values.get("model_name_or_path") or "")
    if not text:
        raise UserError(
            f"{recipe.file}: init_from is missing; write the Hub id or the folder of the model to start from."
        )
    if earlier_run(text) is not None:
        raise UserError(
            f"{recipe.file}: init_from: {text} is an earlier run of the bot's, and its model is not in the checkout. "
            "Give the folder or Hub id of that model as `base-model`."
        )
    folder = Path(text) if Path(text).is_absolute() else checkout.inside(request, "init_from", text)
    if (folder / "config.json").is_file():
        return folder
    if folder.is_dir():
        raise UserError(f"init_from: {text} holds no config.json, so it is no model.")
    name, _, revision = text.partition("@")
    return hub_model(name, revision or str(recipe.values.get("model_revision") or "main"))


def hub_name(request: Request, recipe: Recipe, base: Path) -> tuple[str, str] | None:
    """(name, revision) of a base that `base_model` has fetched from the Hub; None of one of this machine."""
    text = request.base_model or str(recipe.values.get("init_from") or recipe.values.get("model_name_or_path") or "")
    if Path(text).is_absolute() or base.is_relative_to(request.workspace):
        return None
    name, _, revision = text.partition("@")
    return name, revision or str(recipe.values.get("model_revision") or "main")


def hub_model(name: str, revision: str) -> Path:
    """Fetched once for each commit into the user's cache. Raises: UserError, PlatformError."""
    import os

    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, RepositoryNotFoundError

    try:
        commit = str(HfApi().model_info(name, revision=revision, timeout=30).sha)
    except GatedRepoError:
        raise UserError(f"{name} is gated on the Hub: accept its terms and give the job HF_TOKEN.") from None
    except (RepositoryNotFoundError, HFValidationError):
        raise UserError(f"there is no model {name} in the checkout or on the Hub.") from None
    except (HfHubHTTPError, OSError) as error:
        raise PlatformError(f"the Hub cannot be asked for {name}: {redact(type(error).__name__)}") from error
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "postdoc" / "hub"
    folder = cache / f"{name.replace('/', '--')}-{commit[:12]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    fetch_origin(f"hub:{name}@{commit}", folder)
    return folder
