"""What the numbers of a curve say, at any scale."""

from __future__ import annotations

import math
from typing import Any

import pytest

from bot.diagnosis.curves import Series, consecutive, loss_shape, relative_noise, series_of, smoothed, trend_of


def series(*values: float) -> Series:
    return Series("loss", tuple(range(1, len(values) + 1)), values)


def test_values_that_are_not_finite_are_kept_apart() -> None:
    records = [{"step": 1.0, "loss": 2.0}, {"step": 2.0, "loss": math.nan}, {"step": 3.0, "loss": 1.0}, {"step": 4.0}]
    found = series_of(records, "loss")
    assert (found.steps, found.values, found.bad_steps) == ((1, 3), (2.0, 1.0), (2,))


def test_smoothing_removes_a_spike_and_keeps_a_jump() -> None:
    assert max(smoothed(series(1, 1, 9, 1, 1)).values) == 1
    assert smoothed(series(1, 1, 9, 9, 9)).values[2:] == (9, 9, 9)


def test_noise_is_relative_and_blind_to_the_trend() -> None:
    falling = [10 * 0.9**i for i in range(40)]
    assert relative_noise(falling) < 1e-9
    jagged = [value * (1.1 if i % 2 else 0.9) for i, value in enumerate(falling)]
    assert relative_noise(jagged) == pytest.approx(relative_noise([100 * v for v in jagged]), rel=1e-6)


def test_trend_gives_direction_and_certainty(build: Any) -> None:
    falling = trend_of(series(*build.noisy([2 - 0.01 * i for i in range(60)])))
    level = trend_of(series(*build.noisy([2.0] * 60)))
    assert falling is not None and falling.z < -5 and falling.relative_change == pytest.approx(-0.17, abs=0.05)
    assert level is not None and abs(level.z) < 3


def test_trend_of_three_values_is_none() -> None:
    assert trend_of(series(3, 2, 1)) is None


def test_schedule_that_lets_go_hides_the_flat_end(build: Any) -> None:
    records = build.curve([2 - 0.01 * i for i in range(70)] + [1.3] * 30, schedule="cosine")
    shape = loss_shape(records, {})
    assert shape is not None and 65 <= shape.alive_until <= 75
    assert shape.late is not None and shape.late.relative_change < -0.05


def test_half_way_share_tells_a_straight_line_from_a_knee(build: Any) -> None:
    straight = loss_shape(build.curve([8 - 0.02 * i for i in range(100)]), {})
    bent = loss_shape(build.curve(build.decay(8, 1, 100, knee=0.08)), {})
    assert straight is not None and straight.second_half_share == pytest.approx(0.5, abs=0.05)
    assert bent is not None and bent.second_half_share < 0.05


def test_loss_of_zero_beside_a_nan_norm_is_no_loss() -> None:
    records = [{"step": float(i), "loss": 2.0, "grad_norm": 1.0} for i in range(1, 7)]
    records += [{"step": float(i), "loss": 0.0, "grad_norm": math.nan} for i in range(7, 20)]
    shape = loss_shape(records, {})
    assert shape is not None and shape.final == 2.0


def test_too_few_values_have_no_shape(build: Any) -> None:
    assert loss_shape(build.curve([3, 2, 1, 1]), {}) is None


def test_consecutive_counts_logged_records_not_steps() -> None:
    assert consecutive([10, 20, 40], [10, 20, 30, 40]) == 2
    assert consecutive([], [1]) == 0
