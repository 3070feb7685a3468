"""Reads a diagnosis folder into a frozen `Observations`; nearly everything may be absent or damaged."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bot.diagnosis.observations import Completion, Fresh, Observations, OldTask, Row
from bot.diagnosis.readings import LARGEST, Record, count, finite, json_lines, json_object, number, read_text
from bot.diagnosis.recipes import RECIPE_BYTES, parsed_recipe, under_our_names
from bot.diagnosis.trainer_folder import (
    TrainerLog,
    closed_by,
    history_of,
    loss_told_by,
    planned_by,
    recipe_told_by,
    state_of,
    trainer_log_of,
)
from bot.domain.evaluation import Evaluation, Sample
from bot.errors import UserError

__all__ = ["Observations", "observations_of", "read_folder", "row_of"]

STOPPED = "stopped"
"""State in job.json of a run that the monitor ended: neither failed by itself nor come to its end, so it is judged like
one that goes on."""
# Ceilings keep a diagnosis in milliseconds whatever lies in the folder. A million-row training set is judged by
# data_audit.json, which saw all of it; the rows here only serve for looking at what they contain.
METRICS_BYTES = 64 << 20
LOG_BYTES = 256 << 10
ROWS_BYTES = 2 << 20
ROWS_READ = 2000
COMPLETIONS_READ = 400


def read_folder(folder: Path) -> Observations:
    """Read what is there.

    A folder of the Trainer's own may lack the recipe: what its files tell stands in, and no line can be blamed.

    Raises: UserError when the folder is missing, or its recipe.yaml is and nothing of a run lies there either, or is no
    flat YAML mapping.
    """
    state = state_of(folder, folder / "out")
    trainer_log = trainer_log_of(folder, folder / "out")
    recipe_text, recipe = _recipe(folder, state, trainer_log)
    log = read_text(_path(folder, "log.txt"), limit_bytes=LOG_BYTES, tail=True) or ""
    records = (
        tuple(json_lines(_path(folder, "metrics.jsonl"), limit_bytes=METRICS_BYTES))
        or history_of(state)
        or trainer_log.records
        or _printed_records(log, recipe)
    )
    steps, evals, probes = _split(records)
    train_rows, columns = _rows(_path(folder, "train.jsonl"), recipe)
    eval_rows, _ = _rows(_path(folder, "eval.jsonl"), {})
    evaluation = json_object(_path(folder, "evaluation.json"))
    setup = json_object(_path(folder, "setup.json")) or {}
    job = json_object(_path(folder, "job.json")) or {}
    return Observations(
        recipe_text=recipe_text,
        recipe=recipe,
        steps=steps,
        evals=evals,
        probes=probes,
        log=log,
        evaluation=_evaluation(evaluation),
        baseline=_evaluation(json_object(_path(folder, "baseline.json"))),
        fresh=_fresh(evaluation),
        old_tasks=_old_tasks(evaluation),
        goal=json_object(_path(folder, "goal.json")) or {},
        audit=json_object(_path(folder, "data_audit.json")) or {},
        train_rows=train_rows,
        train_columns=columns,
        eval_rows=eval_rows,
        completions=_completions(json_lines(_path(folder, "completions.jsonl"), limit_bytes=ROWS_BYTES)),
        job=job,
        setup=planned_by(state, trainer_log) | loss_told_by(folder) | dict(setup),
        hardware=json_object(_path(folder, "hardware.json")) or {},
        timing=json_object(_path(folder, "timing.json")) or {},
        closed=closed_by(history_of(state)) or trainer_log.closed,
        running=job.get("state") == STOPPED,
    )


def observations_of(
    recipe_text: str,
    rows: Iterable[Record],
    *,
    setup: Mapping[str, Any] | None = None,
    audit: Mapping[str, Any] | None = None,
    completions: Iterable[Record] = (),
    log: str = "",
    job: Mapping[str, Any] | None = None,
    goal: Mapping[str, Any] | None = None,
) -> Observations:
    """What a run shows while it trains: its recipe and `rows`, the records of metrics.jsonl so far; the rest, where the
    caller has it, is as in the files of the same names. Its report holds only what can be said before the end.

    Raises: UserError for the recipe.
    """
    steps, evals, probes = _split(rows)
    return Observations(
        recipe_text,
        under_our_names(parsed_recipe(recipe_text)),
        steps,
        evals,
        probes,
        log=log[-LOG_BYTES:],
        goal=goal or {},
        audit=audit or {},
        completions=_completions(completions),
        job=job or {},
        setup=setup or {},
        running=True,
    )


def _path(folder: Path, name: str) -> Path:
    """Where `name` lies: in the folder, or where a job's own folder keeps it (`out/`, `data/`)."""
    places = (folder / name, folder / "out" / name, folder / "data" / name)
    return next((place for place in places if place.is_file()), places[0])


def _recipe(folder: Path, state: Record, trainer_log: TrainerLog) -> tuple[str, dict[str, Any]]:
    path = folder / "recipe.yaml"
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder. Name the folder that holds the run's recipe.yaml.")
    text = read_text(path, limit_bytes=RECIPE_BYTES) if path.is_file() else None
    if text is not None:
        return text, under_our_names(parsed_recipe(text))
    logged = any(_path(folder, name).is_file() for name in ("metrics.jsonl", "log.txt"))
    if not path.exists() and (state or trainer_log.records or logged):
        return "", under_our_names(recipe_told_by(folder, state))
    raise UserError(
        f"{path} cannot be read, and neither metrics.jsonl, trainer_log.jsonl, trainer_state.json nor log.txt of a run "
        "lies there. Name the folder that holds them, best with the recipe.yaml that the run was started with."
    )


# `{'loss': 1.2, 'grad_norm': nan, 'epoch': 0.3}`: how transformers' Trainer prints its records.
_PRINTED = re.compile(r"\{'(?:loss|eval_loss|reward)': [^{}\n]{1,2000}\}")
_BARE = re.compile(r"(?<=: )(-?)(nan|inf|Infinity|NaN)(?=[,}])")


def _printed_records(log: str, recipe: Mapping[str, Any]) -> tuple[Record, ...]:
    """The records that a trainer printed into its log, for runs that kept no file of them. They carry no step, so each
    counts as `logging_steps` of them."""
    every = count(recipe.get("logging_steps", 1) or 1) or 1
    found: list[Record] = []
    step, epoch = 0, 0.0
    for match in _PRINTED.finditer(log):
        try:
            record = ast.literal_eval(_BARE.sub(r"'\1\2'", match[0]))
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(record, dict):
            reached = finite(record.get("epoch", epoch)) or 0.0
            if reached < epoch:  # a log to which each of several runs appended: the last one counts
                found.clear()
                step = 0
            epoch = reached
            step += every if "loss" in record or "reward" in record else 0
            found.append({"step": step} | {str(key): value for key, value in record.items()})
    return tuple(found)


def _split(records: Iterable[Record]) -> tuple[tuple[Record, ...], tuple[Record, ...], tuple[Record, ...]]:
    """Training, evaluation and probe records, each one per step and sorted; a resumed run's later record wins."""
    steps: dict[int, Record] = {}
    evals: dict[int, Record] = {}
    probes: dict[int, Record] = {}
    last_step = 0
    for record in records:
        step = count(record.get("step", last_step + 1))
        values = {_plain(str(key)): value for key, raw in record.items() if (value := _value(raw)) is not None}
        if step is None or not values:
            continue
        last_step = step
        values["step"] = float(step)
        for kind, prefix in ((evals, "eval_"), (probes, "probe/")):
            if any(key.startswith(prefix) for key in values):
                kind[step] = {**kind.get(step, {}), **values}
        if "loss" in values or "grad_norm" in values or "reward" in values:
            steps[step] = values
    return tuple(tuple(kind[s] for s in sorted(kind)) for kind in (steps, evals, probes))  # type: ignore[return-value]


def _plain(key: str) -> str:
    """`train/loss` and `eval/loss`, as trackers export them, under the trainer's own names."""
    head, mark, rest = key.partition("/")
    return rest if mark and head == "train" else f"eval_{rest}" if mark and head == "eval" else key


def _value(raw: Any) -> float | None:
    """A metric. What no training number can be any more is infinite, so that sums of squares stay numbers."""
    value = number(raw) if not isinstance(raw, (dict, list)) else None
    return value if value is None or abs(value) < LARGEST or math.isnan(value) else math.copysign(math.inf, value)


def _completions(records: Iterable[Record]) -> tuple[Completion, ...]:
    """Those that carry a text; evenly thinned when there are very many."""
    found = []
    for record in records:
        text, rewards = _text(record.get("completion")), record.get("rewards")
        if text is None:
            continue
        rewards = rewards if isinstance(rewards, dict) else {}
        values = {str(k): v for k, raw in rewards.items() if raw is not None and (v := _value(raw)) is not None}
        values = {name: value for name, value in values.items() if math.isfinite(value)}
        step, prompt = count(record.get("step", 0)) or 0, _text(record.get("prompt")) or ""
        reference, finish = _text(record.get("reference")), str(record.get("finish", "stop"))
        found.append(Completion(step, prompt, text, reference, values, finish))
    found.sort(key=lambda completion: completion.step)
    every = max(1, len(found) // COMPLETIONS_READ)
    return tuple(found[::every])


def _fresh(data: Record | None) -> Fresh | None:
    raw = (data or {}).get("fresh")
    if not isinstance(raw, dict) or raw.get("value") is None or (value := finite(raw["value"])) is None:
        return None
    return Fresh(value, count(raw.get("n", 0)) or 0)


def _old_tasks(data: Record | None) -> tuple[OldTask, ...]:
    raw = (data or {}).get("old_tasks")
    tasks = []
    for each in raw if isinstance(raw, list) else ():
        if not isinstance(each, dict) or each.get("before") is None or each.get("after") is None:
            continue
        before, after = finite(each["before"]), finite(each["after"])
        if before is not None and after is not None:
            tasks.append(OldTask(str(each.get("name", "an old task")), before, after, count(each.get("n", 0)) or 0))
    return tuple(tasks)


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
    if "chosen" in record:
        return _preference(record)
    if "label" in record:
        return Row(_text(record.get("text")), _text(record["label"]))
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


def _preference(record: Record) -> Row:
    """A pair of answers; where the prompt is not apart, it is all but the last message of the chosen conversation."""
    chosen, rejected = record["chosen"], record.get("rejected")
    if "prompt" in record or not isinstance(chosen, list):
        return Row(_text(record.get("prompt")), _text(chosen), _text(rejected))
    return Row(_text(chosen[:-1]), _text(chosen[-1:]), _text(rejected[-1:] if isinstance(rejected, list) else rejected))


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
