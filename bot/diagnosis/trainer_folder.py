"""What transformers' Trainer, PEFT and LLaMA-Factory leave in an output folder: records of training, some settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bot.diagnosis.readings import Record, count, finite, json_lines, json_object
from bot.diagnosis.signals import in_order
from bot.diagnosis.units import told_by_model

STATE = "trainer_state.json"
# LLaMA-Factory's (src/llamafactory/train/callbacks.py), one line per record; older versions write every key, as null
# where the record has no such value, and `learning_rate` where newer ones write `lr`.
LOG = "trainer_log.jsonl"
_LOG_KEYS = {
    "current_steps": "step",
    "loss": "loss",
    "eval_loss": "eval_loss",
    "reward": "reward",
    "accuracy": "rewards/accuracies",
    "lr": "learning_rate",
    "learning_rate": "learning_rate",
    "epoch": "epoch",
}
ADAPTER, CONFIG = "adapter_config.json", "config.json"
STATE_BYTES = 64 << 20
# An iterable dataset has no epochs; transformers then writes the largest integer there is.
MOST_EPOCHS = 1e6


def state_of(*folders: Path) -> Record:
    """The first trainer_state.json of the `folders` that can be read, else that of their latest checkpoint, or nothing.

    Saved at the end of training only if the script asks for it, so that many an output folder has it in its checkpoints
    alone.
    """
    for folder in folders:
        for place in (folder, *_checkpoints(folder)):
            if (state := json_object(place / STATE, limit_bytes=STATE_BYTES)) is not None:
                return state
    return {}


def _checkpoints(folder: Path) -> list[Path]:
    """`checkpoint-<step>` folders, the latest first."""
    found = [path for path in folder.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdecimal()]
    return sorted(found, key=lambda path: int(path.name.removeprefix("checkpoint-")[:18]), reverse=True)


def history_of(state: Record) -> tuple[Record, ...]:
    """The records that the Trainer logged."""
    history = state.get("log_history")
    return tuple(item for item in history if isinstance(item, dict)) if isinstance(history, list) else ()


@dataclass(frozen=True, slots=True)
class TrainerLog:
    """A trainer_log.jsonl, under the names of a trainer_state.json."""

    records: tuple[Record, ...] = ()
    planned_steps: int | None = None
    closed: bool = False
    """It ends with the record of a training that came to its end."""


def trainer_log_of(*folders: Path) -> TrainerLog:
    """The first trainer_log.jsonl of the `folders` that has a record, as one run: each start in the same folder appends
    to it, and what it undid is left out."""
    for folder in folders:
        if lines := tuple(json_lines(folder / LOG, limit_bytes=STATE_BYTES)):
            return _trainer_log(lines)
    return TrainerLog()


def _trainer_log(lines: tuple[Record, ...]) -> TrainerLog:
    told: list[Record] = []
    planned, trained, closed = None, 0, False
    for line in lines:
        values = {ours: line[theirs] for theirs, ours in _LOG_KEYS.items() if line.get(theirs) is not None}
        step = count(values.get("step", 0)) or 0
        planned = count(line.get("total_steps", 0)) or planned
        training = "loss" in values or "reward" in values
        # An evaluation after the end is told at step 0; and what has neither loss is the record that closes the run.
        step = step if training else max(step, trained)
        trained = step if training else trained
        closed = (closed and not training) or (not values.keys() & {"loss", "reward", "eval_loss"} and step == planned)
        told.append({**values, "step": step})
    return TrainerLog(tuple(in_order(told)), planned, closed)


def closed_by(history: tuple[Record, ...]) -> bool:
    """The Trainer's closing record, with `train_runtime`, is there, and no training followed it."""
    last = max((index for index, record in enumerate(history) if "loss" in record), default=-1)
    return any("train_runtime" in record for record in history[last + 1 :])


def planned_by(state: Record, log: TrainerLog) -> dict[str, Any]:
    """The steps that the run was to take, as setup.json names them."""
    planned = state["max_steps"] if state.get("max_steps") is not None else log.planned_steps
    return {"max_steps": planned} if planned is not None else {}


def loss_told_by(folder: Path) -> dict[str, Any]:
    """What the model's own files say of the loss, as keys of setup; those of the latest checkpoint where the folder has
    none."""
    for place in (folder, *_checkpoints(folder)[:1]):
        config, adapter = (json_object(place / name, limit_bytes=1 << 20) for name in (CONFIG, ADAPTER))
        if config or adapter:
            return told_by_model(config or {}, adapter or {})
    return {}


def recipe_told_by(folder: Path, state: Record) -> dict[str, Any]:
    """Keys of a recipe that nobody wrote down, as far as the trainer's files tell them; empty without any."""
    adapter = json_object(folder / ADAPTER, limit_bytes=1 << 20) or {}
    model = json_object(folder / CONFIG, limit_bytes=1 << 20) or {}
    epochs = _positive(state.get("num_train_epochs"))
    told: dict[str, Any] = {
        "model_name_or_path": adapter.get("base_model_name_or_path") or model.get("_name_or_path"),
        "use_peft": True if adapter else None,
        "num_train_epochs": epochs if epochs is not None and epochs < MOST_EPOCHS else None,
        "per_device_train_batch_size": _positive(state.get("train_batch_size")),
        "logging_steps": _positive(state.get("logging_steps")),
        "save_steps": _positive(state.get("save_steps")),
    }
    return {key: value for key, value in told.items() if isinstance(value, str | float | bool)}


def _positive(value: object) -> float | None:
    number = finite(value) if value is not None else None
    return number if number is not None and number > 0 else None
