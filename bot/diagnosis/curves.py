"""What a metric's curve shows: level, noise, rise, fall, and whether it was still falling when training ended."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from bot.diagnosis.observations import Observations
from bot.diagnosis.readings import Record

# Losses below this are zero for every purpose here; the floor keeps logarithms and ratios of solved runs quiet. A run
# that begins below one has a floor as much lower: squared errors may begin at 1e-4.
LOSS_FLOOR = 1e-3
# A schedule has "let go" once the rate is below this share of its peak: what the loss does then says nothing about
# whether longer training would help. 0.2 leaves four fifths of a linear decay and 70 % of a cosine.
ALIVE_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class Series:
    """One metric over steps. `bad_steps` are those whose value was NaN or infinite; they are in no other field."""

    key: str
    steps: tuple[int, ...]
    values: tuple[float, ...]
    bad_steps: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.values)

    @property
    def first_step(self) -> int:
        return self.steps[0]

    @property
    def last_step(self) -> int:
        return self.steps[-1]

    def between(self, first_step: int, last_step: int) -> Series:
        """The part with first_step <= step <= last_step."""
        kept = [(s, v) for s, v in zip(self.steps, self.values, strict=True) if first_step <= s <= last_step]
        return Series(self.key, tuple(s for s, _ in kept), tuple(v for _, v in kept))

    def head(self, points: int) -> float:
        """Median of the first `points` values."""
        return median(self.values[:points])

    def tail(self, points: int) -> float:
        """Median of the last `points` values."""
        return median(self.values[-points:])


def series_of(records: Sequence[Record], key: str) -> Series:
    """The metric `key` of `records`, which are in order of step."""
    steps, values, bad = [], [], []
    for record in records:
        value = record.get(key)
        if not isinstance(value, float):
            continue
        step = int(record["step"])
        if math.isfinite(value):
            steps.append(step)
            values.append(value)
        else:
            bad.append(step)
    return Series(key, tuple(steps), tuple(values), tuple(bad))


def observed(observations: Observations, key: str) -> Series:
    """The training metric `key` of a run."""
    return observations.once(f"steps {key}", lambda: series_of(observations.steps, key))


def held_out_of(observations: Observations, key: str = "eval_loss") -> Series:
    """The evaluation metric `key` of a run, `eval_loss` most often."""
    return observations.once(f"evals {key}", lambda: series_of(observations.evals, key))


def shape_of(observations: Observations) -> LossShape | None:
    """The shape of a run's training loss, None with fewer than five finite values."""
    return observations.once("loss shape", lambda: loss_shape(observations.steps, observations.recipe))


def last_run(series: Series, test: Callable[[float], bool]) -> int:
    """How many of the last values in a row pass `test`."""
    return sum(1 for _ in itertools.takewhile(test, reversed(series.values)))


def longest_run(series: Series, test: Callable[[float], bool]) -> tuple[int, int]:
    """(length, first position) of the longest stretch of values in a row that pass `test`; (0, 0) without any."""
    best = start = length = 0
    best_start = 0
    for position, value in enumerate(series.values):
        if not test(value):
            length = 0
            continue
        start = position if not length else start
        length += 1
        if length > best:
            best, best_start = length, start
    return best, best_start


def smoothed(series: Series, window: int = 3) -> Series:
    """Running median: a spike shorter than half the window disappears, a jump that lasts stays where it is."""
    half = window // 2
    values = [median(series.values[max(0, i - half) : i + half + 1]) for i in range(len(series))]
    return Series(series.key, series.steps, tuple(values), series.bad_steps)


def relative_noise(values: Sequence[float], floor: float = LOSS_FLOOR) -> float:
    """Robust standard deviation of one value around its trend, relative to the value.

    Differences of neighbours cancel the trend; 1.4826 turns a median absolute deviation into a standard deviation,
    and the square root of two undoes the differencing.
    """
    logs = [math.log(max(value, floor)) for value in values]
    differences = [b - a for a, b in itertools.pairwise(logs)]
    if not differences:
        return 0.0
    middle = median(differences)
    return 1.4826 * median(abs(d - middle) for d in differences) / math.sqrt(2)


def noise_of_values(values: Sequence[float]) -> float:
    """Robust standard deviation of one value around its trend, in the values' unit; they may be negative."""
    differences = [b - a for a, b in itertools.pairwise(values)]
    if not differences:
        return 0.0
    middle = median(differences)
    return 1.4826 * median(abs(d - middle) for d in differences) / math.sqrt(2)


def beyond_luck(distance: float, noise: float, *, window: int, last: int, n: int) -> bool:
    """Whether `distance` between a median over `last` values and the best (or worst) of `n` medians over `window` is
    more than noise: the best of many is sqrt(2 ln n) standard errors out by luck alone, and one more is asked for.†"""
    error = 1.25 * noise * math.sqrt(1 / window + 1 / last)
    return distance > (math.sqrt(2 * math.log(max(2, n))) + 1) * error


@dataclass(frozen=True, slots=True)
class Trend:
    """How a stretch of a curve changes from its first half to its second."""

    relative_change: float
    """(second - first) / first; negative when it falls."""
    z: float
    """The change in standard errors; negative when it falls."""
    per_step: float
    """Change of the logarithm per training step."""
    first_step: int
    last_step: int
    first: float
    last: float


def trend_of(series: Series, floor: float = LOSS_FLOOR) -> Trend | None:
    """The trend of `series`, None with fewer than four values."""
    n = len(series)
    if n < 4:
        return None
    half = n // 2
    first, last = median(series.values[:half]), median(series.values[-half:])
    ratio = max(last, floor) / max(first, floor)
    # 1.25: standard error of a median over that of a mean, for normal noise.
    error = 1.25 * relative_noise(series.values, floor) * math.sqrt(2 / half)
    distance = fmean(series.steps[-half:]) - fmean(series.steps[:half])
    change = math.log(ratio)
    z = change / error if error > 1e-12 else math.copysign(99.0, change) if abs(change) > 1e-9 else 0.0
    return Trend(
        relative_change=ratio - 1,
        z=max(-99.0, min(99.0, z)),
        per_step=change / distance if distance > 0 else 0.0,
        first_step=series.first_step,
        last_step=series.last_step,
        first=first,
        last=last,
    )


@dataclass(frozen=True, slots=True)
class LossShape:
    """A training-loss curve in the few numbers that the rules compare."""

    series: Series
    initial: float
    """Median of the first values (at most three): before the optimizer has done much, warm-up or not."""
    final: float
    """Median of the last tenth, at least three values."""
    best: float
    """Lowest smoothed value."""
    best_step: int
    peak: float
    """Highest smoothed value: a single-step spike does not count."""
    peak_step: int
    late: Trend | None
    """Trend over the last third of the steps at which the schedule was still alive."""
    alive_until: int
    """Last step at which the learning rate was at least a fifth of its peak."""
    floor: float
    """The loss below which everything is zero: a thousandth of a nat, or of the first loss where that is less."""
    second_half_share: float
    """Share of the whole fall that happened in the second half of the alive steps: 0.5 is a straight line, and a run
    past its knee has nearly nothing there."""

    @property
    def fall(self) -> float:
        """1 - final/initial: 0 learned nothing, 1 learned everything, negative got worse."""
        return 1 - self.final / self.initial if self.initial > 0 else 0.0


def loss_shape(steps: Sequence[Record], recipe: Mapping[str, Any]) -> LossShape | None:
    """The shape of the training loss, None with fewer than five finite values."""
    loss = series_of([record for record in steps if not _hidden_nan(record)], "loss")
    if len(loss) < 5:
        return None
    smooth = smoothed(loss)
    best = min(range(len(smooth)), key=smooth.values.__getitem__)
    peak = max(range(len(smooth)), key=smooth.values.__getitem__)
    alive_until = _alive_until(series_of(steps, "learning_rate"), loss, recipe)
    alive = loss.between(loss.first_step, alive_until)
    late = alive.between(alive_until - (alive_until - loss.first_step) // 3, alive_until) if len(alive) else alive
    initial = loss.head(min(3, max(1, len(loss) // 5)))
    floor = LOSS_FLOOR * (min(1.0, initial) if initial > 0 else 1.0)
    return LossShape(
        series=loss,
        initial=initial,
        final=loss.tail(max(3, len(loss) // 10)),
        best=smooth.values[best],
        best_step=smooth.steps[best],
        peak=smooth.values[peak],
        peak_step=smooth.steps[peak],
        late=trend_of(late, floor),
        alive_until=alive_until,
        floor=floor,
        second_half_share=_second_half_share(alive),
    )


def _hidden_nan(record: Record) -> bool:
    """transformers' logging_nan_inf_filter prints a NaN loss as 0.0; the gradient's norm beside it stays NaN."""
    return record.get("loss") == 0.0 and not math.isfinite(record.get("grad_norm", 0.0))


def _alive_until(rate: Series, loss: Series, recipe: Mapping[str, Any]) -> int:
    if len(rate) >= 3 and max(rate.values) > 0:
        threshold = ALIVE_SHARE * max(rate.values)
        return max(s for s, v in zip(rate.steps, rate.values, strict=True) if v >= threshold)
    # TRL inherits transformers' default schedule, linear.
    schedule = str(recipe.get("lr_scheduler_type", "linear"))
    share = 1.0 if schedule.startswith("constant") else 0.7 if schedule.startswith("cosine") else 0.8
    return loss.first_step + int(share * (loss.last_step - loss.first_step))


def _second_half_share(alive: Series) -> float:
    n = len(alive)
    if n < 6:
        return 0.5
    k = max(1, n // 10)
    start, middle, end = alive.head(k), median(alive.values[n // 2 - k // 2 : n // 2 + k // 2 + 1]), alive.tail(k)
    return (middle - end) / (start - end) if start - end > 0.01 * abs(start) else 0.5


def tail_value(records: Sequence[Record], key: str) -> float | None:
    """Median of the last tenth (at least three values) of a metric; None when it was not logged."""
    series = series_of(records, key)
    return series.tail(max(3, len(series) // 10)) if len(series) else None


def consecutive(steps: Sequence[int], logged: Sequence[int]) -> int:
    """The longest run of `steps` without a gap, counted in logged records."""
    position = {step: index for index, step in enumerate(logged)}
    longest = current = 0
    previous: int | None = None
    for step in steps:
        index = position[step]
        current = current + 1 if previous is not None and index == previous + 1 else 1
        longest, previous = max(longest, current), index
    return longest
