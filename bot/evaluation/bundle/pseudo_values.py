"""Scores of items for metrics that are no mean over items: F1 and the area under the ROC curve. Standard library only.

An item's pseudo-value is the metric plus the item's influence on it (infinitesimal jackknife; Efron and Tibshirani, An
Introduction to the Bootstrap, 1993, chapter 22). The mean of the pseudo-values is the metric, so standard errors and
paired comparisons of means hold for it to first order. For the area under the ROC curve that error is the one of
DeLong, DeLong and Clarke-Pearson (Biometrics 44, 1988), up to n - 1 instead of n.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Any

Samples = list[dict[str, Any]]


def spread(metric: str, samples: Samples) -> None:
    """Set every item's score, for the metrics of `SPREAD`; samples hold response, reference, `_positive`, `_shares`."""
    n = len(samples)
    value, influences = SPREAD[metric](samples)
    for sample, influence in zip(samples, influences, strict=True):
        sample["score"] = value + n * influence


def macro_f1(samples: Samples) -> tuple[float, list[float]]:
    """Like scikit-learn's `f1_score(average="macro", zero_division=0)`: a class that nobody names counts as 0."""
    classes = sorted({s["response"] for s in samples} | {s["reference"] for s in samples})
    return _mean([_f1(samples, each) for each in classes])


def f1(samples: Samples) -> tuple[float, list[float]]:
    """Of the positive label alone; 0 when nobody names it."""
    return _f1(samples, samples[0]["_positive"])


def _f1(samples: Samples, label: str) -> tuple[float, list[float]]:
    given = [s["response"] == label for s in samples]
    wanted = [s["reference"] == label for s in samples]
    size = sum(given) + sum(wanted)
    if not size:
        return 0.0, [0.0] * len(samples)
    value = 2 * sum(g and w for g, w in zip(given, wanted, strict=True)) / size
    return value, [(2 * (g and w) - value * (g + w)) / size for g, w in zip(given, wanted, strict=True)]


def roc_auc(samples: Samples) -> tuple[float, list[float]]:
    """Of the positive label where there are two labels or one is named, else the mean over labels, each against the
    rest (scikit-learn's `multi_class="ovr", average="macro"`). Labels that no item or every item has are left out."""
    labels = [samples[0]["_positive"]] if samples[0]["_positive"] else sorted(samples[0]["_shares"])
    found = [_auc(samples, label) for label in labels]
    return _mean([each for each in found if each is not None] or [(0.5, [0.0] * len(samples))])


def _auc(samples: Samples, label: str) -> tuple[float, list[float]] | None:
    shares = [float(s["_shares"].get(label, 0.0)) for s in samples]
    wanted = [s["reference"] == label for s in samples]
    positive = sorted(share for share, is_it in zip(shares, wanted, strict=True) if is_it)
    negative = sorted(share for share, is_it in zip(shares, wanted, strict=True) if not is_it)
    if not positive or not negative:
        return None
    # For each item the share of the other kind that it is on the right side of; ties count half.
    placed = [_below(share, negative) if is_it else 1 - _below(share, positive)
              for share, is_it in zip(shares, wanted, strict=True)]  # fmt: skip
    value = sum(place for place, is_it in zip(placed, wanted, strict=True) if is_it) / len(positive)
    sizes = {True: len(positive), False: len(negative)}
    return value, [(place - value) / sizes[is_it] for place, is_it in zip(placed, wanted, strict=True)]


def _below(share: float, others: list[float]) -> float:
    return (bisect_left(others, share) + bisect_right(others, share)) / (2 * len(others))


def _mean(found: list[tuple[float, list[float]]]) -> tuple[float, list[float]]:
    n = len(found)
    return sum(value for value, _ in found) / n, [
        sum(column) / n for column in zip(*(i for _, i in found), strict=True)
    ]


SPREAD = {"macro_f1": macro_f1, "f1": f1, "roc_auc": roc_auc}
