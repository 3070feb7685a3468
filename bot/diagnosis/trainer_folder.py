"""What transformers' Trainer and PEFT leave in an output folder: records of training, and some of its settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bot.diagnosis.readings import Record, finite, json_object

STATE = "trainer_state.json"
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


def planned_by(state: Record) -> dict[str, Any]:
    """The steps that the run was to take, as setup.json names them."""
    return {"max_steps": state["max_steps"]} if state.get("max_steps") is not None else {}


def recipe_told_by(folder: Path, state: Record) -> dict[str, Any]:
    """Keys of a recipe that nobody wrote down, as far as the trainer's files tell them; empty without any."""
    adapter = json_object(folder / "adapter_config.json", limit_bytes=1 << 20) or {}
    model = json_object(folder / "config.json", limit_bytes=1 << 20) or {}
    rates = [rate for record in history_of(state) if (rate := _positive(record.get("learning_rate"))) is not None]
    epochs = _positive(state.get("num_train_epochs"))
    told: dict[str, Any] = {
        "model_name_or_path": adapter.get("base_model_name_or_path") or model.get("_name_or_path"),
        "use_peft": True if adapter else None,
        # The highest that was logged: a schedule warms up to the recipe's own and decays from it.
        "learning_rate": max(rates, default=None),
        "num_train_epochs": epochs if epochs is not None and epochs < MOST_EPOCHS else None,
        "per_device_train_batch_size": _positive(state.get("train_batch_size")),
        "logging_steps": _positive(state.get("logging_steps")),
        "save_steps": _positive(state.get("save_steps")),
    }
    return {key: value for key, value in told.items() if isinstance(value, str | float | bool)}


def _positive(value: object) -> float | None:
    number = finite(value) if value is not None else None
    return number if number is not None and number > 0 else None
