"""What the caller's workflow asked for: the Action's inputs, read from `INPUT_*` and checked before anything starts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from bot.domain.evaluation import Split
from bot.errors import UserError


class Mode(StrEnum):
    TRAIN = "train"
    EVALUATE = "evaluate"
    GATE = "gate"
    PURSUE = "pursue"
    RESPOND = "respond"


@dataclass(frozen=True, slots=True)
class Request:
    """The inputs, by the names of `action.yml`. A text that was not given is empty."""

    mode: Mode
    folder: Path
    """This call's own folder below RUNNER_TEMP: results, reports, jobs."""
    workspace: Path
    """The checkout."""
    event: Mapping[str, Any]
    event_name: str
    experiment: str = ""
    recipe: str = ""
    job: str = ""
    store: str = ""
    model: str = ""
    base_model: str = ""
    base_ref: str = ""
    benchmark: str = ""
    split: Split = Split.DEV
    seed: int = 0
    goal: str = ""
    require: str = ""
    data_folder: str = ""
    memory_gib: float = 8.0
    timeout_minutes: float = 330.0
    usd_per_hour: float | None = None
    """None: nobody said what this machine costs, so no cost is told."""
    unsandboxed: bool = False
    comment: bool = False
    github_token: str = ""

    @property
    def artifact(self) -> Path:
        """What becomes the artifact."""
        return self.folder / "artifact"


def request_of(environment: Mapping[str, str], event: Mapping[str, Any]) -> Request:
    """Raises: UserError that names the input and says what to write instead."""
    given = {
        name.removeprefix("INPUT_").lower(): value.strip()
        for name, value in environment.items()
        if name.startswith("INPUT_") and value.strip()
    }
    mode = _choice("mode", given.get("mode", ""), Mode)
    request = Request(
        mode=mode,
        folder=Path(environment["POSTDOC_FOLDER"]),
        workspace=Path(environment.get("GITHUB_WORKSPACE") or ".").resolve(),
        event=event,
        event_name=environment.get("GITHUB_EVENT_NAME", ""),
        split=_choice("split", given.get("split", "dev"), Split),
        seed=int(_number("seed", given.get("seed", "0"), whole=True)),
        memory_gib=_number("memory-gib", given.get("memory_gib", "8"), above=0.0),
        timeout_minutes=_number("timeout-minutes", given.get("timeout_minutes", "330"), above=0.0),
        usd_per_hour=_number("usd-per-hour", given["usd_per_hour"]) if "usd_per_hour" in given else None,
        unsandboxed=_truth("unsandboxed", given.get("unsandboxed", "false")),
        comment=_truth("comment", given.get("comment", "false")),
        **{name: given[name] for name in _TEXTS if name in given},
    )
    _check(request)
    return request


_TEXTS = (
    "experiment", "recipe", "job", "store", "model", "base_model", "base_ref", "benchmark", "goal", "require",
    "data_folder", "github_token",
)  # fmt: skip


def _check(request: Request) -> None:
    """What each mode cannot do without."""
    match request.mode:
        case Mode.TRAIN if request.store and not request.job:
            raise UserError("mode: train with `store` needs `job` too, the job's id.")
        case Mode.TRAIN if not request.store and not request.experiment and not request.recipe:
            raise UserError("mode: train needs `experiment`, a folder with a recipe.yaml (or `recipe`, the file).")
        case Mode.EVALUATE | Mode.GATE if not request.model or not request.benchmark:
            missing = " and ".join(f"`{name}`" for name in ("model", "benchmark") if not getattr(request, name))
            raise UserError(f"mode: {request.mode} needs {missing}.")
        case Mode.PURSUE if not request.goal:
            raise UserError("mode: pursue needs `goal`: a goal.yaml, or the goal in words.")
        case _:
            pass
    if request.require not in ("", "met"):
        raise UserError(f"require: {request.require} is not known; write met, or leave it out.")


def _choice(name: str, value: str, kind: type[Any]) -> Any:
    try:
        return kind(value)
    except ValueError:
        known = ", ".join(str(each) for each in kind)
        raise UserError(f"{name}: {value or '(empty)'} is not known; write one of {known}.") from None


def _number(name: str, text: str, *, above: float | None = None, whole: bool = False) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    wrong = not math.isfinite(value) or value < 0 or (whole and not value.is_integer())
    if wrong or (above is not None and value <= above):
        kind = "a whole number from 0" if whole else f"a number above {above:g}" if above is not None else "a number"
        raise UserError(f"{name}: {text} cannot be used; write {kind}.")
    return value


def _truth(name: str, text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise UserError(f"{name}: {text} is neither true nor false; write one of them.")
    return text.lower() == "true"
