"""Whether a change can be trained at all: its script knows the key, the values go together, and it fits into the model
and into the time that is left.

A diagnosis may be wrong, come from another version or from a folder that somebody else wrote, and a search draws what
nobody has looked at. What would only end in a crash is not worth a run, so it is not tried; where a smaller step of the
same change fits, that is taken.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bot.conversation.recipe_rules import setting_problem
from bot.diagnosis.remedies import DEFAULT_BATCH_SIZE, duration_key, scaled_duration
from bot.domain.goal import DEFAULT_METHOD
from bot.domain.methods import METHODS
from bot.domain.recipe import normalised_value

Values = Mapping[str, Any]

_TEXTS = frozenset({"sft", "pretrain", "rft", "synthetic"})
_SAMPLED = frozenset({"grpo", "rft", "synthetic"})
_GRPO = frozenset({"grpo"})
ONLY_OF: Mapping[str, frozenset[str]] = {
    "assistant_only_loss": _TEXTS,
    "beta": frozenset({"dpo", "grpo", "distill"}),
    "chat_template_path": _TEXTS | {"reward"},
    "completion_only_loss": _TEXTS,
    "eos_token": _TEXTS | {"reward"},
    "epsilon": _GRPO,
    "epsilon_high": _GRPO,
    "loss_type": _TEXTS | {"dpo", "grpo"},
    "loss_weights": frozenset({"dpo"}),
    "mask_truncated_completions": _GRPO,
    "max_completion_length": _SAMPLED | {"distill"},
    "max_length": _TEXTS | {"dpo", "reward", "classify"},
    "num_generations": _GRPO,
    "packing": _TEXTS,
    "pad_token": _TEXTS | {"reward", "dpo"},
    "reward_functions": _SAMPLED,
    "reward_weights": _SAMPLED,
    "temperature": _SAMPLED | {"distill"},
    "timeout_seconds": frozenset(),
    "vllm_gpu_memory_utilization": frozenset({"grpo", "distill"}),
    "vllm_importance_sampling_correction": _GRPO,
    "warmup_ratio": frozenset(),
}
"""Key -> the methods whose scripts take it (TRL 1.16); every script takes what is not here. Scripts refuse a key that
they do not know."""
WORTH_IT = 1.25
"""† Times as long that a training has to become for a longer one to be worth a run."""
DEFAULT_GENERATIONS = 8
"""GRPOConfig.num_generations: https://huggingface.co/docs/trl/grpo_trainer"""


@dataclass(frozen=True, slots=True)
class Room:
    """What a change has to fit into; None where that is not known."""

    own_script: bool = False
    """The goal brings its script. Nobody knows which keys it reads, so only those that its recipe has are changed."""
    positions: int | None = None
    """Tokens of the longest sequence that the model takes."""
    times_longer: float | None = None
    """How many times as long as the run that is changed a training may take."""


ANYWHERE = Room()


def fitted(before: Values, settings: Values, room: Room = ANYWHERE) -> dict[str, Any] | None:
    """`settings` of the recipe `before` as they can be trained, a step as long as there is room for; None where they
    cannot."""
    changed: dict[str, Any] | None = _within_positions(before, dict(settings), room.positions)
    changed = _within_time(before, changed, room.times_longer) if changed is not None else None
    if changed is None:
        return None
    changed = _with_own_schedule(before, _with_warm_up(before, changed))
    wrong = any(_problem(before, key, value, room) for key, value in changed.items())
    return None if wrong or _contradictions({**before, **changed}) - _contradictions(before) else changed


def _number(values: Values, key: str) -> float | None:
    value = normalised_value(values.get(key))
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _problem(before: Values, key: str, value: Any, room: Room) -> bool:
    """Whether the script refuses this line."""
    method = str(before.get("method") or DEFAULT_METHOD).lower()
    if key not in before and (room.own_script or (method in METHODS and method not in ONLY_OF.get(key, METHODS))):
        return True
    return value is not None and setting_problem(key, value) is not None


def _within_positions(before: Values, changed: dict[str, Any], positions: int | None) -> dict[str, Any] | None:
    """No sequence longer than what the model has positions for: the rest of a doubling, or nothing."""
    for key in ("max_length", "max_completion_length"):
        length, held = _number(changed, key), _number(before, key)
        if positions is None or length is None or length <= positions:
            continue
        if key != "max_length" or (held is not None and held >= positions):
            return None
        changed[key] = positions
    return changed


def _within_time(before: Values, changed: dict[str, Any], times: float | None) -> dict[str, Any] | None:
    """No longer training than there is time for."""
    key = duration_key({**before, **changed})
    if times is None or key not in changed or key != duration_key(before):
        return changed
    old, new = scaled_duration(before, 1.0), _number(changed, key)
    if new is None or old <= 0 or not math.isfinite(new) or new <= old * max(1.0, times):
        return changed
    if times < WORTH_IT:
        return None
    most = old * times
    return changed | {key: int(most) if key == "max_steps" else math.floor(10 * most) / 10}


def _with_warm_up(before: Values, changed: dict[str, Any]) -> dict[str, Any]:
    """A training that becomes shorter than its warm-up warms up for as much shorter, or it would never leave it."""
    old, new, warm_up = _steps(before), _steps({**before, **changed}), _number(before, "warmup_steps")
    if old is None or new is None or warm_up is None or "warmup_steps" in changed or not new < warm_up <= old:
        return changed
    return changed | {"warmup_steps": int(warm_up * new / old)}


def _with_own_schedule(before: Values, changed: dict[str, Any]) -> dict[str, Any]:
    """Another schedule without the arguments of the one before, which it would refuse."""
    key, theirs = "lr_scheduler_type", "lr_scheduler_kwargs"
    other = key in changed and changed[key] != before.get(key)
    return changed | {theirs: None} if other and before.get(theirs) and theirs not in changed else changed


def _steps(values: Values) -> float | None:
    steps = _number(values, "max_steps")
    return steps if steps is not None and steps > 0 else None


def _contradictions(values: Values) -> set[str]:
    """Values that are right by themselves and wrong together, by name: a warm-up beyond the last step; for GRPO, groups
    of one, and batches that do not hold whole groups of samples (`generation_batch_size` of GRPOConfig)."""
    steps, warm_up = _steps(values), _number(values, "warmup_steps") or 0.0
    found = {"warm-up"} if steps is not None and warm_up >= 1 and warm_up > steps else set()
    if str(values.get("method")).lower() != "grpo":
        return found
    group = _number(values, "num_generations") or DEFAULT_GENERATIONS
    batch = _number(values, "per_device_train_batch_size") or DEFAULT_BATCH_SIZE
    whole = batch * (_number(values, "gradient_accumulation_steps") or 1.0)
    evaluated = values.get("eval_strategy") not in (None, False, "no")
    asked = _number(values, "per_device_eval_batch_size") or DEFAULT_BATCH_SIZE
    wrong = {"group": group < 2, "batch": whole % group != 0, "evaluation": evaluated and asked % group != 0}
    return found | {name for name, is_wrong in wrong.items() if is_wrong}
