"""Engine `generate`: the model answers each prompt, and its answer is scored as the metric says.

    exact_match             it is the reference (`extraction` says how an answer is found in a response)
    pass_at_1               the program in it passes the item's tests (`code_execution`)
    instructions_followed   it follows every instruction of its prompt (`instructions`)
    tool_call_match         it is the one right tool call (`tool_calls`)
    rubric_score            a judge model gives it points; none is asked here, where no network is: see `unjudged`

Two scores are kept of every answer: strict is the item's score; lenient forgives the form. Strict far below lenient
means that the format is wrong; `finish: length` means that the model did not stop.

Not covered: sampling, several answers to one prompt.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import code_execution
import extraction
import instructions
import language_model
import tool_calls

libraries = language_model.libraries
Scorer = Callable[[list[dict[str, Any]], dict[str, Any], list[dict[str, Any]]], list[tuple[float, float]]]


def run(
    arguments: argparse.Namespace,
    benchmark: dict[str, Any],
    items: list[dict[str, Any]],
    shots: list[dict[str, Any]],
) -> list[dict[str, Any]]:
    samples = respond(arguments, benchmark, items, shots)
    for sample, (strict, lenient) in zip(samples, SCORERS[benchmark["metric"]](samples, benchmark, items), strict=True):
        sample["score"], sample["lenient_score"] = strict, lenient
    return samples


def summary(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """What evaluation.json says beside the value."""
    return {
        "strict": mean([sample["score"] for sample in samples]),
        "lenient": mean([sample["lenient_score"] for sample in samples]),
        "termination_rate": mean([float(sample["finish"] == "stop") for sample in samples]),
    }


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


# --- Asking the model -----------------------------------------------------------------------------------------------


def respond(
    arguments: argparse.Namespace,
    benchmark: dict[str, Any],
    items: list[dict[str, Any]],
    shots: list[dict[str, Any]],
) -> list[dict[str, Any]]:
    """Every item with the model's response and how it finished, in the items' order."""
    lm = language_model.load(arguments, benchmark)
    lm.conversations = {item["prompt"]: item["messages"] for item in items if item.get("messages")}
    generation = benchmark.get("generation") or {}
    logged = asked(
        lm,
        benchmark,
        [{"prompt": item["prompt"], "target": item["reference"]} for item in items],
        [{"prompt": shot["prompt"], "target": shot["answer"]} for shot in shots],
        output_type="generate_until",
        doc_to_target=lambda row: row["target"],
        process_results=lambda row, responses: {"answered": 1.0},
        metric_list=[{"metric": "answered", "aggregation": "mean", "higher_is_better": True}],
        generation_kwargs={
            "until": list(generation.get("until") or []),
            "max_gen_toks": int(generation.get("max_gen_toks", 256)),
            "do_sample": False,
        },
    )
    return [
        {
            "id": item["id"],
            "prompt": item["prompt"],
            "response": sample["resps"][0][0],
            "reference": item["reference"],
            "finish": lm.finishes[sample["arguments"][0][0]],
        }
        for item, sample in zip(items, logged, strict=True)
    ]


def asked(
    lm: Any, benchmark: dict[str, Any], rows: list[dict[str, Any]], shots: list[dict[str, Any]], **task: Any
) -> list[dict[str, Any]]:
    """What the harness logged of every row, in the rows' order; `prompt` is the column with the text."""
    from datasets import Dataset
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.evaluator import evaluate

    chat = benchmark.get("chat") or {}
    config = {
        "task": "benchmark",
        "custom_dataset": lambda **_: {"items": Dataset.from_list(rows)},
        "test_split": "items",
        "description": chat.get("system") or "",
        "doc_to_text": lambda row: row["prompt"],
        "num_fewshot": len(shots),
        **({"fewshot_config": {"sampler": "first_n", "samples": shots}} if shots else {}),
        **task,
    }
    template = bool(chat.get("template", True)) and lm.tokenizer.chat_template is not None
    # evaluate, not simple_evaluate: the latter spends seconds on describing the machine in words.
    results = evaluate(
        lm,
        {"benchmark": ConfigurableTask(config=config)},
        apply_chat_template=template,
        fewshot_as_multiturn=template and bool(shots),
        bootstrap_iters=0,
    )
    return sorted(results["samples"]["benchmark"], key=lambda sample: int(sample["doc_id"]))


# --- Scoring --------------------------------------------------------------------------------------------------------


def exact_match(
    samples: list[dict[str, Any]], benchmark: dict[str, Any], items: list[dict[str, Any]]
) -> list[tuple[float, float]]:
    return [extraction.score(sample, benchmark.get("extraction") or {}) for sample in samples]


def unjudged(
    samples: list[dict[str, Any]], benchmark: dict[str, Any], items: list[dict[str, Any]]
) -> list[tuple[float, float]]:
    """0 points each, until `postdoc evaluate --judge` has asked a model about every criterion."""
    return [(0.0, 0.0)] * len(samples)


SCORERS: dict[str, Scorer] = {
    "exact_match": exact_match,
    "pass_at_1": code_execution.scores,
    "instructions_followed": instructions.scores,
    "tool_call_match": tool_calls.scores,
    "rubric_score": unjudged,
}
