"""What `model` and `base-model` may name: a folder, a model of the Hub, an artifact, or an evaluation made earlier."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from actions import checkout
from actions.request import Request
from bot.domain.evaluation import Evaluation
from bot.errors import UserError

_HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?", re.ASCII)
FORMS = "a folder of the checkout, OWNER/NAME@REVISION of the Hub, artifact:NAME, or an evaluation.json"
LARGEST_EVALUATION_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Measured:
    """A model to evaluate, or what was measured of it already."""

    name: str
    """As the caller wrote it."""
    address: str = ""
    """What `postdoc evaluate --model` takes; empty with an `evaluation`."""
    evaluation: Evaluation | None = None


def measured(request: Request, name: str, text: str, commit: str = "") -> Measured:
    """The model that the input `name` means by `text`, at the base `commit` where one is given.

    Raises: UserError.
    """
    if text.startswith("artifact:"):
        from actions.artifacts import fetched_artifact

        return _in_folder(name, text, fetched_artifact(request, text.removeprefix("artifact:")))
    if Path(text).is_absolute():
        return _at(name, text, Path(text))
    if commit:
        path = checkout.base_folder(request, commit, text)
        if path.exists():
            return _at(name, f"{text}@{commit[:9]}", path)
    elif (path := checkout.inside(request, name, text)).exists():
        return _at(name, text, path)
    if _HUB.fullmatch(text):
        return Measured(text, text)
    where = f"the base commit {commit[:9]}" if commit else "the checkout"
    raise UserError(f"{name}: there is no {text} in {where}. Write {FORMS}.")


def _at(name: str, text: str, path: Path) -> Measured:
    if path.is_file():
        return Measured(text, evaluation=read_evaluation(path, name))
    return _in_folder(name, text, path)


def _in_folder(name: str, text: str, folder: Path) -> Measured:
    for place in (folder, folder / "model", folder / "out" / "model"):
        if (place / "config.json").is_file():
            return Measured(text, str(place))
    if (folder / "evaluation.json").is_file():
        return Measured(text, evaluation=read_evaluation(folder / "evaluation.json", name))
    raise UserError(f"{name}: {text} holds neither a model (config.json) nor an evaluation.json. Write {FORMS}.")


def read_evaluation(path: Path, name: str) -> Evaluation:
    """Raises: UserError for a file that is no evaluation."""
    try:
        if path.stat().st_size > LARGEST_EVALUATION_BYTES:
            raise ValueError("it is too large")
        found = Evaluation.from_dict(json.loads(path.read_text(encoding="utf-8-sig")))
        if not found.measure.has(found.value) or found.n < 1:
            raise ValueError("its value or n is out of range")
        return found
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        why = " ".join(str(error).split())[:200]
        raise UserError(f"{name}: {path.name} is no evaluation ({why}). Write {FORMS}.") from None
