"""What held where a recipe is silent: TRL's defaults, where it is known that they did.

Another trainer has others (Axolotl's micro batch is 1 and LLaMA-Factory cuts at 2048 tokens), and a folder without a
recipe tells of no trainer at all. Then nothing is said in place of a number.
"""

from __future__ import annotations

from bot.diagnosis.observations import Observations
from bot.diagnosis.readings import count
from bot.diagnosis.remedies import DEFAULT_BATCH_SIZE, DEFAULT_MAX_LENGTH


def batch_size(observations: Observations) -> int | None:
    """Sequences on a device at once, at least 1; None where nobody says."""
    return _told(observations, "per_device_train_batch_size") or _default(observations, DEFAULT_BATCH_SIZE)


def max_length(observations: Observations) -> int | None:
    """Tokens at which a row is cut, at least 1; None where nobody says."""
    return _told(observations, "max_length") or _default(observations, DEFAULT_MAX_LENGTH)


def _told(observations: Observations, key: str) -> int | None:
    """By the recipe, or by the audit of the rows."""
    told = (count(holder[key]) for holder in (observations.recipe, observations.audit) if holder.get(key) is not None)
    return next((value for value in told if value), None)


def _default(observations: Observations, value: int) -> int | None:
    return value if observations.defaults_hold else None
