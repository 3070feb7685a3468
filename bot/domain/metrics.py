"""The metrics that a goal may name: which way is better, where values end, how an item counts, how a value is said.

Values are kept as they are computed: shares as fractions of 1 (30 % is 0.30), perplexity as a plain number. An item's
score and weight make up the value in one of three ways:

    RIGHT    score 0 or 1, the value is their share; two models are compared by McNemar's test
    MEAN     the value is the weighted mean of the scores (word errors per word, weighted by words)
    LOG      the value is exp of that mean (perplexity of nats per token, weighted by tokens)

Where a metric is no mean of items by nature (F1, macro F1, area under the ROC curve), its items carry pseudo-values
with that mean, so that its error and its paired comparisons hold to first order.

The weights follow lm-evaluation-harness (`weighted_perplexity`, `bits_per_byte` in its api/metrics.py) and jiwer's
corpus-level word error rate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum


class Counting(StrEnum):
    RIGHT = "right"
    MEAN = "mean"
    LOG = "log"


@dataclass(frozen=True, slots=True)
class Metric:
    name: str
    title: str
    """As a sentence has it."""
    higher_is_better: bool = True
    low: float = 0.0
    high: float = 1.0
    """The ends of what a value can be; infinity where there is none."""
    counting: Counting = Counting.RIGHT
    is_share: bool = True
    """Said in percent."""
    example: str = "90 %"
    """A target as a person writes it."""
    of_answers: bool = True
    """The model writes an answer, which it ends by itself or not."""

    # --- Which way --------------------------------------------------------------------------------------------------

    def reached(self, value: float, target: float) -> bool:
        """Whether `value` meets the target."""
        return value >= target if self.higher_is_better else value <= target

    def gain(self, before: float, after: float) -> float:
        """How much better `after` is, in the metric's own unit; below 0 when it is worse."""
        return after - before if self.higher_is_better else before - after

    def better(self, value: float, than: float) -> bool:
        return self.gain(than, value) > 0

    def rank(self, value: float) -> float:
        """For `max` and `sorted`: the better value has the higher rank."""
        return value if self.higher_is_better else -value

    @property
    def worst(self) -> float:
        return self.low if self.higher_is_better else self.high

    @property
    def best(self) -> float:
        return self.high if self.higher_is_better else self.low

    def has(self, value: float) -> bool:
        """Whether `value` can be one of this metric's."""
        return math.isfinite(value) and self.low <= value <= self.high

    def clipped(self, value: float) -> float:
        return min(max(value, self.low), self.high)

    # --- From the items' mean to the value --------------------------------------------------------------------------

    def of_mean(self, mean: float) -> float:
        """The value that a mean of item scores stands for."""
        return math.exp(min(mean, 700.0)) if self.counting is Counting.LOG else mean

    def mean_of(self, value: float) -> float:
        """The mean of item scores behind a value."""
        return math.log(max(value, 1e-300)) if self.counting is Counting.LOG else value

    # --- In words ---------------------------------------------------------------------------------------------------

    @property
    def unit(self) -> str:
        """Behind a difference, with its space; nothing for plain numbers."""
        return " points" if self.is_share else ""

    def said(self, value: float) -> str:
        """A measured value: one decimal of a percentage, three or more digits of a number."""
        return f"{value * 100:.1f} %" if self.is_share else number(value)

    def said_target(self, value: float) -> str:
        """A value that a person chose: as many decimals as it was given."""
        return f"{round(value * 100, 6):g} %" if self.is_share else f"{round(value, 6):g}"

    def said_interval(self, low: float, high: float) -> str:
        return f"{self.bare_interval(low, high)} %" if self.is_share else self.bare_interval(low, high)

    def bare_interval(self, low: float, high: float) -> str:
        """Without the sign, where a table's cell or a title has it already."""
        if self.is_share:
            return f"{low * 100:.1f} to {high * 100:.1f}"
        return f"{number(low)} to {number(high)}"

    def said_difference(self, difference: float) -> str:
        """Signed, without its unit."""
        shown = (
            f"{difference * 100:+.1f}" if self.is_share else ("+" if difference >= 0 else "-") + number(abs(difference))
        )
        return shown.replace("-", "\u2212")

    def said_change(self, difference: float, low: float, high: float) -> str:
        """For a terminal or a log, in ASCII: `+3.1 points (+1.0 to +5.2)`."""
        ends = f"({self.said_difference(low)} to {self.said_difference(high)})"
        return f"{self.said_difference(difference)}{self.unit} {ends}".replace("\u2212", "-")

    def said_size(self, difference: float) -> str:
        """A size of a difference, with its unit and no sign."""
        return (f"{abs(difference) * 100:.1f}" if self.is_share else number(abs(difference))) + self.unit

    @property
    def aim(self) -> str:
        """The verb of a goal: `Raise` or `Lower`."""
        return "Raise" if self.higher_is_better else "Lower"


def number(value: float) -> str:
    """Two decimals, or three digits of what is smaller or much larger."""
    if not math.isfinite(value):
        return "infinite" if value > 0 else "minus infinite"
    if value == 0 or 1 <= abs(value) < 1000:
        return f"{value:.2f}"
    return f"{value:,.0f}" if 1000 <= abs(value) < 10_000_000 else f"{value:.3g}"


_ERRORS = {"higher_is_better": False, "high": math.inf, "counting": Counting.MEAN, "example": "12 %"}

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("exact_match", "exact match"),
        Metric("pass_at_1", "share of programs that pass their tests at the first try"),
        Metric("instructions_followed", "share of prompts with every instruction followed"),
        Metric("tool_call_match", "share of prompts answered by the one right tool call"),
        Metric("rubric_score", "share of a rubric's points, as a judge model gives them", counting=Counting.MEAN),
        Metric("task_success", "share of tasks that the agent solved"),
        Metric("accuracy", "accuracy", of_answers=False),
        Metric("accuracy_norm", "accuracy by likelihood per character of each choice", of_answers=False),
        Metric("macro_f1", "macro-averaged F1", counting=Counting.MEAN, of_answers=False),
        Metric("f1", "F1 of the positive label", counting=Counting.MEAN, of_answers=False),
        Metric("roc_auc", "area under the ROC curve", counting=Counting.MEAN, of_answers=False),
        Metric("pairwise_accuracy", "pairwise accuracy", of_answers=False),
        # More errors than words are possible, when much is inserted.
        Metric("wer", "word error rate", **_ERRORS),  # type: ignore[arg-type]
        Metric("cer", "character error rate", **_ERRORS),  # type: ignore[arg-type]
        Metric(
            "perplexity", "perplexity per token of the model's own tokenizer", higher_is_better=False,
            low=1.0, high=math.inf, counting=Counting.LOG, is_share=False, example="25",
            of_answers=False,
        ),
        Metric(
            "word_perplexity", "perplexity per word", higher_is_better=False,
            low=1.0, high=math.inf, counting=Counting.LOG, is_share=False, example="25",
            of_answers=False,
        ),
        Metric(
            "bits_per_byte", "bits per byte", higher_is_better=False,
            low=0.0, high=math.inf, counting=Counting.MEAN, is_share=False, example="1.1",
            of_answers=False,
        ),
    )
}  # fmt: skip
DEFAULT = "exact_match"


def metric_named(name: str) -> Metric:
    """The metric called `name`; one that is unknown here (a journal may hold any) is taken for a share to raise."""
    return METRICS.get(name) or Metric(name, name)
