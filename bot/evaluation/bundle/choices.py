"""Engine `choices`: the model picks the choice that it finds likeliest after the prompt, with lm-evaluation-harness.

    accuracy        by the likelihood of each choice's text
    accuracy_norm   by that likelihood per character, which does not favour short choices

Nothing is generated, so an answer has no format to miss; a model that scores well here may still fail to write the
letter when it is asked to (engine generate).
"""

from __future__ import annotations

import argparse
from typing import Any

import generate
import language_model

libraries = language_model.libraries
THEIRS = {"accuracy": "acc", "accuracy_norm": "acc_norm"}


def run(
    arguments: argparse.Namespace,
    benchmark: dict[str, Any],
    items: list[dict[str, Any]],
    shots: list[dict[str, Any]],
) -> list[dict[str, Any]]:
    lm = language_model.load(arguments, benchmark)
    logged = generate.asked(
        lm,
        benchmark,
        [row_of(item) for item in items],
        [row_of(shot) for shot in shots],
        output_type="multiple_choice",
        doc_to_choice=lambda row: row["choices"],
        doc_to_target=lambda row: row["answer"],
        metric_list=[{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in THEIRS.values()],
    )
    print(f"answered {len(items)}", flush=True)
    return [
        {
            "id": item["id"],
            "prompt": item["prompt"],
            "response": picked(item["choices"], sample),
            "reference": item["choices"][item["answer"]],
            "finish": "stop",
            "score": float(sample[THEIRS[benchmark["metric"]]]),
            "_scores": {ours: float(sample[theirs]) for ours, theirs in THEIRS.items()},
        }
        for item, sample in zip(items, logged, strict=True)
    ]


def row_of(item: dict[str, Any]) -> dict[str, Any]:
    return {"prompt": item["prompt"], "choices": item["choices"], "answer": item["answer"]}


def picked(choices: list[str], sample: dict[str, Any]) -> str:
    """The choice with the greatest likelihood; the harness logs (log-likelihood, greedy) of each."""
    likelihoods = [float(response[0][0]) for response in sample["resps"]]
    return choices[max(range(len(choices)), key=lambda n: likelihoods[n])]


def summary(samples: list[dict[str, Any]]) -> dict[str, Any]:
    return {"metrics": {name: generate.mean([s["_scores"][name] for s in samples]) for name in THEIRS}}
