"""Signs of doom in a stream of records: each looks at one kind of measurement, and each has to last.

The monitor takes no single one for a reason to end a run. Thresholds are the field's where it has one; those marked †
are this project's, set on healthy runs and injected faults of seeds 0 to 2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, median
from typing import Any

from bot.diagnosis import readings
from bot.diagnosis.readings import LARGEST, count
from bot.domain.diagnosis import Evidence

Rows = Sequence[Mapping[str, Any]]

WINDOW = 5
"""† Logged steps over which a signal has to last."""
NEAR = 8
"""Records back, among which a training step that is told twice is looked for: evaluations may stand between."""
FLAT_STEPS = 15
"""† Logged steps after which a loss that has not moved says something."""
FLAT_SHARE = 0.05
"""† A loss that lost less than this share of its beginning has not moved."""
SPENT_LOSS = 0.05
"""† Nats for each token below which training rows have nothing more to teach."""
ROUNDS = 4.0
"""† Rounds over the rows from which on they may be known by heart."""

KINDS = {
    "loss": "loss",
    "grad_norm": "gradient",
    "mean_token_accuracy": "accuracy",
    "entropy": "entropy",
    "eval_loss": "validation",
    "reward": "reward",
    "kl": "kl",
    "probe/termination_rate": "answers",
    "probe/exact_match": "what is wanted",
    "logps/chosen": "preference",
    "rewards/exact_match/mean": "what is wanted",
}
"""Metric of a signal -> what it says something about."""


def lasting_signals(rows: Rows) -> tuple[Evidence, ...]:
    """What has held on every one of the last `WINDOW` logged steps, at most one of each independent kind."""
    found = (signal(rows) for signal in SIGNALS)
    return tuple(evidence for evidence in found if evidence is not None)


def idle_signals(rows: Rows) -> tuple[Evidence, ...]:
    """What no longer moves. A run that has just begun, or that is solved, may stand still as well, so these count only
    beside a cause that says why nothing will move again."""
    found = (signal(rows) for signal in IDLE)
    return tuple(evidence for evidence in found if evidence is not None)


def in_order(rows: Rows) -> list[Mapping[str, Any]]:
    """The records as a run without interruptions would have logged them, each with a whole `step`.

    Where training steps go back, the run was resumed from a checkpoint (or begins another phase): what it had logged
    from there on is undone. A step that is told twice counts once, as it was told last.
    """
    told: list[Mapping[str, Any]] = []
    trained = 0
    for row in rows:
        step = count(row["step"]) if row.get("step") is not None else told[-1]["step"] + 1 if told else 1
        if step is None:
            continue
        if training(row):
            while step < trained and told and told[-1]["step"] >= step:
                told.pop()
            twice = next((at for at in range(1, NEAR + 1) if at <= len(told) and _same(told[-at], step)), None)
            if twice is not None:
                del told[-twice]
            trained = step
        told.append(row if row.get("step") == step else {**row, "step": step})
    return told


def last_step(rows: Rows) -> int:
    """Of rows `in_order`; 0 before the first."""
    return int(rows[-1]["step"]) if rows else 0


def _same(row: Mapping[str, Any], step: int) -> bool:
    return row["step"] == step and training(row)


def training(row: Mapping[str, Any]) -> bool:
    """Whether the record is of a training step; others are evaluations and probes."""
    return "loss" in row or "reward" in row or "grad_norm" in row


def values_of(rows: Rows, key: str) -> list[tuple[int, float]]:
    """(step, value) of the logged values. Not-a-number is infinite, and so is what no training number can be any more,
    so that sums stay numbers; what is no value at all is left out."""
    read = ((row, readings.number(row[key])) for row in rows if key in row)
    return [(int(row["step"]), value if abs(value) < LARGEST else math.inf) for row, value in read if value is not None]


def number(value: object) -> float | None:
    """As a finite float; None where it is none, or not there."""
    return readings.finite(value)


def _lasts(
    rows: Rows, key: str, wrong: Callable[[float, list[float]], bool], *, window: int = WINDOW
) -> Evidence | None:
    """The last value, where the whole window is wrong beside what came before it."""
    series = values_of(rows, key)
    before, last = [value for _, value in series[:-window]], series[-window:]
    if len(last) < window or len(before) < window or not all(wrong(value, before) for _, value in last):
        return None
    return _said(key, *last[-1])


def _said(key: str, step: int, value: float) -> Evidence:
    return Evidence(key, step, value if math.isfinite(value) else "Infinity")


def _reinforcement(rows: Rows) -> bool:
    return any("reward" in row for row in rows)


# --- what gets worse


def _loss(rows: Rows) -> Evidence | None:
    """Twice the loss it began with: Axolotl's loss_watchdog (about 2 times, three in a row)."""
    if _reinforcement(rows):
        return None  # of GRPO, whose loss is no sign of health
    return _lasts(rows, "loss", lambda value, before: value > 2 * median(before[:3]))


def _gradient(rows: Rows) -> Evidence | None:
    """Axolotl's training_stability guide: above 100 for supervised and preference runs, above 10 again and again for
    GRPO; and far above what was usual here."""
    most = 10.0 if _reinforcement(rows) else 100.0
    return _lasts(rows, "grad_norm", lambda value, before: value > most and value > 10 * median(before))


def _accuracy(rows: Rows) -> Evidence | None:
    """† Token accuracy below four fifths of where it began, and under half of its best."""
    return _lasts(
        rows,
        "mean_token_accuracy",
        lambda value, before: value < 0.8 * median(before[:WINDOW]) and value < 0.5 * max(before),
    )


def _spread(rows: Rows) -> Evidence | None:
    """† A supervised model that grows less sure than it began: entropy half as high again."""
    if _reinforcement(rows):
        return None
    return _lasts(rows, "entropy", lambda value, before: value > 1.5 * median(before[:WINDOW]) and value > 1.0)


def _validation(rows: Rows) -> Evidence | None:
    """† The loss on validation rows half as high again as its first, twice in a row."""
    series = values_of(rows, "eval_loss")
    if len(series) < 3 or not all(value > 1.5 * series[0][1] for _, value in series[-2:]):
        return None
    return _said("eval_loss", *series[-1])


def _reward(rows: Rows) -> Evidence | None:
    """A peak, then below the level that it began on: the sign of doom of reinforcement runs (peak-then-collapse)."""
    series = [value for _, value in values_of(rows, "reward")]
    if len(series) < 4 * WINDOW:
        return None
    early, best = median(series[:WINDOW]), max(
        median(series[at : at + WINDOW]) for at in range(0, len(series) - WINDOW + 1, WINDOW)
    )  # fmt: skip
    rose = best - early
    if rose <= 0.1 * max(1e-9, abs(best)) or rose < 0.05:
        return None
    return _lasts(rows, "reward", lambda value, before: value < early - 0.1 * rose)


def _divergence(rows: Rows) -> Evidence | None:
    """Above 2: Axolotl's GRPO guide. One spike of 43 was seen in a healthy run, so the whole window counts."""
    return _lasts(rows, "kl", lambda value, before: value > 2.0 and value > 2 * median(before))


def _chosen(rows: Rows) -> Evidence | None:
    """† The chosen answers of a preference run at less than half of their log-probability at the start, so that they
    become unlikely while they are preferred. A chosen *reward* below 0 alone is normal (trl issue 1236)."""
    return _lasts(rows, "logps/chosen", lambda value, before: value < 2 * min(median(before[:3]), -1.0) - 1)


def _shadow(rows: Rows) -> Evidence | None:
    """† What is really wanted (exact_match, logged beside the rewards) at half of where it began, while the reward that
    is trained on stands above its own beginning."""
    wanted, reward = values_of(rows, "rewards/exact_match/mean"), values_of(rows, "reward")
    if len(wanted) < 3 * WINDOW or len(reward) < 3 * WINDOW:
        return None
    first, last = (fmean(value for _, value in part) for part in (wanted[:WINDOW], wanted[-2 * WINDOW :]))
    paid_first, paid_last = (median(value for _, value in part) for part in (reward[:WINDOW], reward[-2 * WINDOW :]))
    if first < 0.03 or last > 0.5 * first or paid_last <= paid_first:
        return None
    return Evidence("rewards/exact_match/mean", wanted[-1][0], last)


def _behaviour(rows: Rows) -> Evidence | None:
    """† Greedy answers that ended by themselves and do no more: at half on two probes in a row, or hardly any."""
    series = values_of(rows, "probe/termination_rate")
    for last, least in ((2, 0.5), (1, 0.25)):
        best = max((value for _, value in series[:-last]), default=0.0)
        if len(series) > last and best >= 0.5 and all(value < least * best for _, value in series[-last:]):
            return Evidence("probe/termination_rate", *series[-1])
    return None


# --- what stands still


def _flat(rows: Rows) -> Evidence | None:
    """The loss is where it was: no logged step of the window is below its beginning by more than noise."""
    series = values_of(rows, "loss")
    if len(series) < FLAT_STEPS + WINDOW or _reinforcement(rows):
        return None
    first, last = (median(value for _, value in part) for part in (series[:WINDOW], series[-2 * WINDOW :]))
    if last < (1 - FLAT_SHARE) * first or last <= SPENT_LOSS:
        return None
    return _said("loss", series[-1][0], last)


def _unlearned(rows: Rows) -> Evidence | None:
    """Greedy answers, asked as they will be served, of which hardly one is right."""
    series = values_of(rows, "probe/exact_match")
    if not series or any(value > 0.5 for _, value in series[-2:]):
        return None
    return _said("probe/exact_match", *series[-1])


def _unmoved(rows: Rows) -> Evidence | None:
    """The policy is the one that it began as."""
    series = values_of(rows, "kl")
    if len(series) < FLAT_STEPS + WINDOW or any(value > 1e-4 for _, value in series[-2 * WINDOW :]):
        return None
    return _said("kl", *series[-1])


def _constant(rows: Rows) -> Evidence | None:
    """The loss on the same validation rows, equal to the last digit: no weight that matters has changed between."""
    series = values_of(rows, "eval_loss")
    if len(series) < 2 or series[-1][1] != series[-2][1] or series[-1][1] <= SPENT_LOSS:
        return None
    return _said("eval_loss", *series[-1])


def _spent(rows: Rows) -> Evidence | None:
    """Training rows are known by heart, so that nothing in them pulls any more, and validation rows are not."""
    loss, rounds = values_of(rows, "loss"), values_of(rows, "epoch")
    held_out = values_of(rows, "eval_loss")
    if len(loss) < 2 * WINDOW or not rounds or rounds[-1][1] < ROUNDS or len(held_out) < 3:
        return None
    known = all(value <= SPENT_LOSS for _, value in loss[-2 * WINDOW :])
    apart = all(value > max(0.3, 10 * SPENT_LOSS) for _, value in held_out[-3:])
    falling = held_out[-1][1] < held_out[-2][1] < held_out[-3][1]
    return _said("eval_loss", *held_out[-1]) if known and apart and not falling else None


SIGNALS: tuple[Callable[[Rows], Evidence | None], ...] = (
    _loss, _gradient, _accuracy, _spread, _validation, _reward, _divergence, _chosen, _shadow, _behaviour,
)  # fmt: skip
IDLE: tuple[Callable[[Rows], Evidence | None], ...] = (_flat, _unlearned, _unmoved, _constant, _spent)
