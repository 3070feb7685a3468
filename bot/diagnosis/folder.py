"""Reads a diagnosis folder into a frozen `Observations`; everything but `recipe.yaml` may be absent or damaged."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from bot.diagnosis.learning_rates import Rate, rate_of
from bot.diagnosis.readings import Record, count, finite, json_lines, json_object, number, read_text
from bot.domain.evaluation import Evaluation, Sample
from bot.domain.recipe import line_of, normalised
from bot.errors import UserError

# Ceilings keep a diagnosis in milliseconds whatever lies in the folder. A million-row training set is judged by
# data_audit.json, which saw all of it; the rows here only serve for looking at what they contain.
RECIPE_BYTES = 64 << 10
RECIPE_DEPTH = 8
RECIPE_BRACKETS = 200
METRICS_BYTES = 64 << 20
LOG_BYTES = 256 << 10
ROWS_BYTES = 2 << 20
ROWS_READ = 2000


@dataclass(frozen=True, slots=True)
class Row:
    """One training or evaluation example, reduced to text. None where the row has no such part."""

    prompt: str | None
    completion: str | None


@dataclass(frozen=True, slots=True)
class Observations:
    """Everything a rule may look at. Numbers in `steps` and `evals` are floats, NaN and infinity included."""

    recipe_text: str
    recipe: Mapping[str, Any]
    """Normalised: numeric strings are numbers."""
    steps: tuple[Record, ...] = ()
    """Training records in order of `step`, one per step."""
    evals: tuple[Record, ...] = ()
    """Records with `eval_*` keys, in order of `step`."""
    log: str = ""
    evaluation: Evaluation | None = None
    baseline: Evaluation | None = None
    target: float | None = None
    audit: Mapping[str, Any] = field(default_factory=dict)
    train_rows: tuple[Row, ...] = ()
    train_columns: tuple[str, ...] = ()
    """Columns of train.jsonl as they are, sorted."""
    eval_rows: tuple[Row, ...] = ()
    job: Mapping[str, Any] = field(default_factory=dict)
    setup: Mapping[str, Any] = field(default_factory=dict)
    """What the script wrote when training began: planned max_steps, parameters."""
    hardware: Mapping[str, Any] = field(default_factory=dict)
    """What it needs of its machine by estimate: needed_gib, available_gib, machine, changes."""

    def line(self, key: str) -> int | None:
        return line_of(self.recipe_text, key)

    def first_key(self, *keys: str) -> str:
        """The first of `keys` that the recipe sets, else the first of them."""
        return next((key for key in keys if key in self.recipe), keys[0])

    def setting(self, key: str, default: float) -> float:
        """A numeric key of the recipe, `default` (TRL's, most often) when it is absent or no number."""
        value = finite(self.recipe[key]) if self.recipe.get(key) is not None else None
        return default if value is None else value

    @property
    def rate(self) -> Rate:
        """The learning rate beside the band of this model and method."""
        parameters = finite(self.setup["parameters"]) if self.setup.get("parameters") is not None else None
        return rate_of(self.recipe, parameters)

    @property
    def finished(self) -> bool:
        """Something says that training ended by itself: its job succeeded, or its model was evaluated."""
        return self.job.get("state") == "succeeded" or (self.evaluation is not None and not self.failed)

    @property
    def failed(self) -> bool:
        return self.job.get("state") in ("failed", "lost") or self.job.get("failure") is not None

    @property
    def shortfall(self) -> float | None:
        """Target minus value: above 0 the target was missed. None without both."""
        if self.target is None or self.evaluation is None:
            return None
        return self.target - self.evaluation.value

    @property
    def met(self) -> bool:
        return self.shortfall is not None and self.shortfall <= 0

    @property
    def missed(self) -> bool:
        return self.shortfall is not None and self.shortfall > 0

    @property
    def poor(self) -> bool:
        """The outcome is bad enough to look for a cause: the target was missed by far, or, where no target was named,
        less than half of the answers are right."""
        if self.target is None:
            return self.evaluation is not None and self.evaluation.value < 0.5
        return self.missed_by_far

    @property
    def unimproved(self) -> bool:
        """Training did not help: the target was missed by far, or, where no target was named, the score is not above
        the base model's by two standard errors."""
        if self.target is not None or self.evaluation is None or self.baseline is None:
            return self.missed_by_far
        error = math.hypot(self.evaluation.standard_error, self.baseline.standard_error)
        return self.evaluation.value - self.baseline.value <= max(0.02, 2 * error)

    @property
    def missed_by_far(self) -> bool:
        """The gap to the target is more than sampling noise (two standard errors) and at least five points."""
        if self.shortfall is None or self.evaluation is None:
            return False
        return self.shortfall >= max(0.05, 2 * self.evaluation.standard_error)


def read_folder(folder: Path) -> Observations:
    """Read what is there.

    Raises: UserError when the folder or its recipe.yaml is missing or is no flat YAML mapping.
    """
    recipe_text, recipe = _recipe(folder)
    records = tuple(json_lines(_path(folder, "metrics.jsonl"), limit_bytes=METRICS_BYTES)) or _trainer_state(folder)
    steps, evals = _split(records)
    train_rows, columns = _rows(_path(folder, "train.jsonl"), recipe)
    eval_rows, _ = _rows(_path(folder, "eval.jsonl"), {})
    goal = json_object(_path(folder, "goal.json")) or {}
    return Observations(
        recipe_text=recipe_text,
        recipe=recipe,
        steps=steps,
        evals=evals,
        log=read_text(_path(folder, "log.txt"), limit_bytes=LOG_BYTES, tail=True) or "",
        evaluation=_evaluation(json_object(_path(folder, "evaluation.json"))),
        baseline=_evaluation(json_object(_path(folder, "baseline.json"))),
        target=finite(goal["target"]) if goal.get("target") is not None else None,
        audit=json_object(_path(folder, "data_audit.json")) or {},
        train_rows=train_rows,
        train_columns=columns,
        eval_rows=eval_rows,
        job=json_object(_path(folder, "job.json")) or {},
        setup=json_object(_path(folder, "setup.json")) or {},
        hardware=json_object(_path(folder, "hardware.json")) or {},
    )


def observations_of(recipe_text: str, rows: Iterable[Record]) -> Observations:
    """What a run shows while it trains: its recipe and the steps logged so far. Raises: UserError for the recipe."""
    steps, evals = _split(rows)
    return Observations(recipe_text, parsed_recipe(recipe_text), steps, evals)


def _path(folder: Path, name: str) -> Path:
    """Where `name` lies: in the folder, or where a job's own folder keeps it (`out/`, `data/`)."""
    places = (folder / name, folder / "out" / name, folder / "data" / name)
    return next((place for place in places if place.is_file()), places[0])


def _recipe(folder: Path) -> tuple[str, dict[str, Any]]:
    path = folder / "recipe.yaml"
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder. Name the folder that holds the run's recipe.yaml.")
    text = read_text(path, limit_bytes=RECIPE_BYTES) if path.is_file() else None
    if text is None:
        raise UserError(
            f"{path} cannot be read. A diagnosis folder needs the recipe.yaml that the run was started with."
        )
    return text, parsed_recipe(text)


def parsed_recipe(text: str) -> dict[str, Any]:
    """The recipe's keys, normalised.

    Raises: UserError when `text` is no YAML mapping, or uses aliases (a few lines of them expand without end).
    """
    # PyYAML takes seconds for a few thousand open brackets, and minutes for a file of them.
    if len(text) >= RECIPE_BYTES or text.count("[") + text.count("{") > RECIPE_BRACKETS:
        raise UserError("recipe.yaml is too large or too nested for a recipe. Write one `key: value` per line.")
    try:
        _refuse_expansion(text)
        values = yaml.safe_load(text)
        if values is None:
            return {}
        if isinstance(values, dict):
            return normalised(values)
    except UserError:
        raise
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        reason = str(error).split("\n", 1)[0][:200]
        raise UserError(f"recipe.yaml is not valid YAML ({reason}). Write one `key: value` per line.") from error
    raise UserError(f"recipe.yaml holds a {type(values).__name__}, not keys. Write one `key: value` per line.")


def _refuse_expansion(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise UserError("recipe.yaml uses YAML aliases (*name). Write each value out, one key per line.")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > RECIPE_DEPTH:
            raise UserError("recipe.yaml is nested too deeply. Write one `key: value` per line.")


def _trainer_state(folder: Path) -> tuple[Record, ...]:
    state = json_object(_path(folder, "trainer_state.json"), limit_bytes=METRICS_BYTES) or {}
    history = state.get("log_history")
    return tuple(item for item in history if isinstance(item, dict)) if isinstance(history, list) else ()


def _split(records: Iterable[Record]) -> tuple[tuple[Record, ...], tuple[Record, ...]]:
    """Training and evaluation records, each one per step and sorted; a resumed run's later record wins."""
    steps: dict[int, Record] = {}
    evals: dict[int, Record] = {}
    last_step = 0
    for record in records:
        step = count(record.get("step", last_step + 1))
        values = {str(key): value for key, raw in record.items() if (value := _value(raw)) is not None}
        if step is None or not values:
            continue
        last_step = step
        values["step"] = float(step)
        if any(key.startswith("eval_") for key in values):
            evals[step] = {**evals.get(step, {}), **values}
        if "loss" in values or "grad_norm" in values or "reward" in values:
            steps[step] = values
    return tuple(steps[s] for s in sorted(steps)), tuple(evals[s] for s in sorted(evals))


def _value(raw: Any) -> float | None:
    return number(raw) if not isinstance(raw, (dict, list)) else None


def _evaluation(data: Record | None) -> Evaluation | None:
    """The evaluation in `data`, or None when it has no usable value; samples that are no objects are left out."""
    value = finite(data["value"]) if data and data.get("value") is not None else None
    if data is None or value is None:
        return None
    raw_samples = data.get("samples")
    samples = tuple(
        _sample(index, raw)
        for index, raw in enumerate(raw_samples if isinstance(raw_samples, list) else ())
        if isinstance(raw, dict)
    )
    n = count(data["n"]) if data.get("n") is not None else None
    n = len(samples) if n is None else n
    error = finite(data["standard_error"]) if data.get("standard_error") is not None else None
    if error is None:
        error = math.sqrt(max(0.0, value * (1 - value)) / n) if n else 0.0
    return Evaluation(
        benchmark=str(data.get("benchmark", "")),
        harness_digest=str(data.get("harness_digest", "")),
        model=str(data.get("model", "")),
        metric=str(data.get("metric", "")),
        value=value,
        standard_error=error,
        n=n,
        split=str(data.get("split", "")),
        strict=finite(data["strict"]) if data.get("strict") is not None else None,
        lenient=finite(data["lenient"]) if data.get("lenient") is not None else None,
        samples=samples,
    )


def _sample(index: int, raw: Record) -> Sample:
    score = finite(raw["score"]) if raw.get("score") is not None else None
    return Sample(
        id=str(raw.get("id", index)),
        score=score if score is not None else 0.0,
        finish=str(raw.get("finish", "stop")),
        prompt=_text(raw.get("prompt")),
        response=_text(raw.get("response")),
        reference=_text(raw.get("reference")),
    )


def _rows(path: Path, recipe: Mapping[str, Any]) -> tuple[tuple[Row, ...], tuple[str, ...]]:
    rows: list[Row] = []
    columns: set[str] = set()
    for record in json_lines(path, limit_bytes=ROWS_BYTES):
        columns.update(str(key) for key in record)
        rows.append(row_of(record, recipe))
        if len(rows) >= ROWS_READ:
            break
    return tuple(rows), tuple(sorted(columns))


def row_of(record: Record, recipe: Mapping[str, Any]) -> Row:
    """Prompt and completion of one row: in any of TRL's dataset formats, by the columns that the recipe names (the file
    may be the source that the rows were built from), or as the evaluation's items; both None for other columns."""
    messages = record.get("messages")
    if isinstance(messages, list) and messages:
        return Row(_text(messages[:-1]), _text(messages[-1:]))
    if "completion" in record:
        return Row(_text(record.get("prompt")), _text(record.get("completion")))
    for prompt, completion in (
        (str(recipe.get("data_prompt_column")), str(recipe.get("data_completion_column"))),
        ("question", "answer"),
        ("prompt", "reference"),
    ):
        if prompt in record and completion in record:
            return Row(_text(record[prompt]), _text(record[completion]))
    return Row(None, _text(record.get(str(recipe.get("dataset_text_field", "text")))))


def _text(value: Any) -> str | None:
    """A string, or the contents of a list of chat messages joined by newlines."""
    if isinstance(value, str):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, list):
        parts = [item.get("content") for item in value if isinstance(item, dict)]
        return "\n".join(part for part in parts if isinstance(part, str))
    return None
