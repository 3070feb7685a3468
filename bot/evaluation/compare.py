"""Reading evaluation files and comparing two of them, for `postdoc compare`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from bot.domain.comparison import compare_seeds
from bot.domain.evaluation import Comparison, Evaluation
from bot.domain.metrics import metric_named
from bot.domain.statistics import weighted_mean
from bot.errors import UserError

_TEXTS = ("benchmark", "harness_digest", "model", "metric", "split")
_NUMBERS = ("value", "standard_error", "n")


def load_evaluation(path: Path) -> Evaluation:
    """The evaluation in `path`, an `evaluation.json` in its full or its committed form.

    Raises: UserError that says what is wrong with the file.
    """
    data = _object(path)
    missing = [key for key in (*_TEXTS, *_NUMBERS) if key not in data]
    if missing:
        raise UserError(
            f"{path} is not an evaluation: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing. "
            "Name a file that `postdoc evaluate --json FILE` wrote."
        )
    wrong = next((problem for problem in _problems(data)), None)
    if wrong is not None:
        raise UserError(f"{path} is not a usable evaluation: {wrong}. Evaluate again.")
    try:
        found = Evaluation.from_dict(data)
        if (edited := _edited(found)) is not None:
            raise UserError(f"{path} has been edited: {edited}. Evaluate again.")
        return found
    except (TypeError, ValueError, KeyError, AttributeError):
        raise UserError(f"{path} has samples of another form than `id`, `score`, `finish`. Evaluate again.") from None


def _edited(found: Evaluation) -> str | None:
    """What in a file does not fit together as the evaluator wrote it; None where all of it does."""
    if not found.samples:
        return None
    ids = {sample.id for sample in found.samples}
    if found.n not in (len(found.samples), len(ids)):
        return f"it says n = {found.n} and holds {len(found.samples)} samples"
    scores = [sample.score for sample in found.samples]
    value = found.measure.of_mean(weighted_mean(scores, [sample.weight for sample in found.samples]))
    if abs(value - found.value) > 1e-6 * max(1.0, abs(value)):
        return f"its samples make {value:.6g}, and it says {found.value:.6g}"
    return None


def load_evaluations(path: Path) -> list[Evaluation]:
    """The evaluation in a file, or those in a folder: its evaluation.json, else one file for each seed of a recipe.

    Raises: UserError.
    """
    if not path.is_dir():
        return [load_evaluation(path)]
    whole = path / "evaluation.json"
    files = [whole] if whole.is_file() else sorted(path.glob("*.json"))
    if not files:
        raise UserError(f"{path} is a folder without a .json file. Put one evaluation of each seed there, or name one.")
    return [load_evaluation(file) for file in files]


def compare_files(a: Path, b: Path) -> Comparison:
    """B against A, each a file or a folder of several seeds, which are pooled. Raises: UserError for files that cannot
    be read or do not compare."""
    return compare_seeds(load_evaluations(a), load_evaluations(b))


def _object(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except IsADirectoryError:
        raise UserError(f"{path} is a folder. Name the evaluation.json in it.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError):
        raise UserError(f"{path} is not JSON. Name a file that `postdoc evaluate --json FILE` wrote.") from None
    if not isinstance(data, dict):
        raise UserError(f"{path} holds a JSON {type(data).__name__}, not an evaluation.")
    return data


def _problems(data: dict[str, Any]) -> list[str]:
    found = [f"`{key}` is not text" for key in _TEXTS if not isinstance(data[key], str)]
    found += [f"`{key}` is not a number" for key in _NUMBERS if not _is_number(data[key])]
    if found:
        return found
    if not isinstance(data["n"], int) or data["n"] < 1:
        found.append("`n` is not a count of items")
    measure = metric_named(data["metric"])
    if not measure.has(data["value"]):
        least, most = f"{measure.low:g}", "" if math.isinf(measure.high) else f" to {measure.high:g}"
        what = "fractions" if measure.is_share else "numbers"
        found.append(f"`value` is {data['value']:g}, and values of {measure.name} are {what} from {least}{most}")
    if data["standard_error"] < 0:
        found.append("`standard_error` is negative")
    if not data["harness_digest"]:
        found.append("`harness_digest` is empty, so nothing says how it was measured")
    samples = data.get("samples", [])
    if not isinstance(samples, list):
        found.append("`samples` is not a list")
    elif not all(isinstance(sample, dict) and _is_number(sample.get("score")) for sample in samples):
        found.append("a sample has no numeric `score`")
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
