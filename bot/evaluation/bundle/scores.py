"""From items' scores to a value with its standard error, and what the engines share. Standard library only."""

from __future__ import annotations

import base64
import binascii
import math
import sys
from pathlib import Path
from typing import Any

# Metric -> how scores become its value: the share or (weighted) mean of the scores, or exp of that mean.
COUNTING = {
    "exact_match": "right",
    "accuracy": "right",
    "pairwise_accuracy": "right",
    "macro_f1": "mean",
    "wer": "mean",
    "cer": "mean",
    "bits_per_byte": "mean",
    "perplexity": "log",
    "word_perplexity": "log",
}


def value_and_error(metric: str, samples: list[dict[str, Any]]) -> tuple[float, float]:
    """The metric's value and its standard error over items.

    With weights the value is a ratio of sums (errors per word, nats per token), whose error is that of the ratio
    estimator (Cochran, Sampling Techniques, 1977, section 6.4); without them it is sd / sqrt(n). exp multiplies the
    error by the value (delta method). For macro_f1 the scores are set here, see `spread_macro_f1`.
    """
    if metric == "macro_f1":
        spread_macro_f1(samples)
    scores = [float(sample["score"]) for sample in samples]
    weights = [float(sample.get("weight", 1.0)) for sample in samples]
    total = math.fsum(weights)
    if total <= 0:
        raise refused(f"{metric} has nothing to divide by: every item is empty")
    mean = math.fsum(w * s for w, s in zip(weights, scores, strict=True)) / total
    error = standard_error(scores, weights, mean, [str(sample.get("cluster") or i) for i, sample in enumerate(samples)])
    if COUNTING[metric] == "log":
        value = math.exp(min(mean, 700.0))
        return value, value * error
    return mean, error


def standard_error(scores: list[float], weights: list[float], mean: float, clusters: list[str]) -> float:
    """0 when all scores agree: the interval is then Wilson's business. Items of one cluster (a passage) are right and
    wrong together, so their residuals are added up first (Miller, https://arxiv.org/abs/2411.00640, section 2.2)."""
    residuals: dict[str, float] = {}
    for weight, score, cluster in zip(weights, scores, clusters, strict=True):
        residuals[cluster] = residuals.get(cluster, 0.0) + weight * (score - mean)
    n = len(residuals)
    if n < 2:
        return 0.0
    squares = math.fsum(residual**2 for residual in residuals.values())
    return math.sqrt(squares * n / (n - 1)) / math.fsum(weights)


def spread_macro_f1(samples: list[dict[str, Any]]) -> None:
    """Give every item the score with which the items' mean is the macro-averaged F1.

    F1 is no mean over items. Its pseudo-values are: F1 plus the item's influence on it (infinitesimal jackknife; Efron
    and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 22), so that standard errors and paired
    comparisons of the means hold for F1 as for any mean, to first order. A class that nobody names counts as 0, like
    scikit-learn's `f1_score(average="macro", zero_division=0)`.
    """
    predicted = [sample["response"] for sample in samples]
    wanted = [sample["reference"] for sample in samples]
    classes = sorted(set(predicted) | set(wanted))
    n = len(samples)
    sizes = {c: predicted.count(c) + wanted.count(c) for c in classes}
    hits = {c: sum(p == r == c for p, r in zip(predicted, wanted, strict=True)) for c in classes}
    f1 = {c: 2 * hits[c] / sizes[c] for c in classes}
    value = sum(f1.values()) / len(classes)
    for sample, p, r in zip(samples, predicted, wanted, strict=True):
        influence = 2 / sizes[r] if p == r else 0.0
        influence -= f1[p] / sizes[p] + f1[r] / sizes[r]
        sample["score"] = value + n * influence / len(classes)


def headline(evaluation: dict[str, Any]) -> str:
    """The one line that the job's log ends with."""
    said = (
        f"{evaluation['benchmark']} {evaluation['split']}: {evaluation['metric']} {evaluation['value']:.3f} "
        f"(n {evaluation['n']}, standard error {evaluation['standard_error']:.3f})"
    )
    if "lenient" in evaluation:
        said += f", lenient {evaluation['lenient']:.3f}, ended by itself {evaluation['termination_rate']:.3f}"
    for name, value in (evaluation.get("metrics") or {}).items():
        if name != evaluation["metric"]:
            said += f", {name} {value:.3f}"
    return said


# --- Labels ---------------------------------------------------------------------------------------------------------


def labels_of(benchmark: dict[str, Any], items: list[dict[str, Any]]) -> list[str]:
    """The labels that are asked for: the benchmark's, or those of its references, in order."""
    listed = benchmark.get("labels")
    return [str(one) for one in listed] if listed else sorted({str(item["reference"]) for item in items})


def head_for(configuration: Any, labels: list[str]) -> dict[str, Any]:
    """Settings that load a classifier for `labels`: none when it has a head for them, else those of a new head.

    An untouched base model has no head, or one for other labels. It is then asked with a head of random weights, which
    is what it knows about these labels: nothing.
    """
    own = {str(name) for name in (configuration.id2label or {}).values()}
    if own & set(labels):
        return {}
    names = dict(enumerate(labels))
    return {
        "id2label": names,
        "label2id": {name: n for n, name in names.items()},
        "num_labels": len(labels),
        "ignore_mismatched_sizes": True,
    }


def judged(items: list[dict[str, Any]], answers: list[tuple[str, float]], text: str | None) -> list[dict[str, Any]]:
    """A sample for every item from its (label, probability); `text` names the column to keep as the prompt."""
    return [
        {
            "id": item["id"],
            **({"prompt": item[text]} if text else {}),
            "response": label,
            "reference": str(item["reference"]),
            "probability": round(probability, 6),
            "finish": "stop",
            "score": float(label == str(item["reference"])),
        }
        for item, (label, probability) in zip(items, answers, strict=True)
    ]


def label_summary(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Both metrics of labels, and how often each label is wanted and given."""
    copies = [dict(sample) for sample in samples]
    right = [float(sample["response"] == sample["reference"]) for sample in samples]
    counts: dict[str, dict[str, int]] = {}
    for sample in samples:
        counts.setdefault(sample["reference"], {"wanted": 0, "given": 0})["wanted"] += 1
        counts.setdefault(sample["response"], {"wanted": 0, "given": 0})["given"] += 1
    return {
        "metrics": {"accuracy": sum(right) / len(right), "macro_f1": value_and_error("macro_f1", copies)[0]},
        "labels": dict(sorted(counts.items())),
    }


# --- Media ----------------------------------------------------------------------------------------------------------


def media_bytes(item: dict[str, Any], column: str) -> bytes:
    """The bytes of an item's image or recording, which the job gets as base64."""
    try:
        return base64.b64decode(item[column], validate=True)
    except (KeyError, TypeError, ValueError, binascii.Error):
        raise refused(f"item {item.get('id')}: {column} is not base64") from None


def refused(message: str) -> SystemExit:
    """To be raised when the benchmark or its items are wrong: one line that says what to write instead."""
    print(f"{Path(sys.argv[0]).name}: {message}", file=sys.stderr, flush=True)
    return SystemExit(2)
