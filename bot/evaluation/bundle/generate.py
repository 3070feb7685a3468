"""Engine `generate`: the model answers each prompt, and its answer is compared with the reference.

Two scores are kept of every answer:

    strict    the whole answer (or what the benchmark's strict pattern finds in it) is the reference, and the model
              ended its turn by itself; this is the item's score
    lenient   the reference is found after extraction: pattern, quotes, final full stop, letter case as configured

Strict far below lenient means that the format is wrong; `finish: length` means that the model did not stop.

Not covered: sampling, tools.
"""

from __future__ import annotations

import argparse
import gc
import logging
import re
from typing import Any

LIBRARIES = ("lm_eval", "torch", "transformers", "tokenizers")
METRIC = "exact_match"
TRIM = " \t\n\r\"'`*."
"""What lenient scoring ignores around an answer: white space, quotes, Markdown emphasis, a final full stop."""


def run(arguments: argparse.Namespace, benchmark: dict[str, Any], items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    samples = respond(arguments, benchmark, items)
    for sample in samples:
        sample["score"], sample["lenient_score"] = score(sample, benchmark.get("extraction") or {})
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
    arguments: argparse.Namespace, benchmark: dict[str, Any], items: list[dict[str, str]]
) -> list[dict[str, Any]]:
    """Every item with the model's response and how it finished, in the items' order."""
    gc.disable()  # importing makes a million long-lived objects, and each collection looks at all of them again
    import torch
    from datasets import Dataset, disable_progress_bars
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM
    from transformers.utils import logging as transformers_logging

    gc.enable()
    gc.freeze()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    disable_progress_bars()
    transformers_logging.disable_progress_bar()
    torch.manual_seed(0)
    gpu = torch.cuda.is_available()
    chat = benchmark.get("chat") or {}
    generation = benchmark.get("generation") or {}
    lm = finish_recorder(HFLM)(
        pretrained=arguments.model,
        device="cuda" if gpu else "cpu",
        dtype="bfloat16" if gpu else "float32",
        batch_size=arguments.batch_size,
        **({"enable_thinking": chat["enable_thinking"]} if "enable_thinking" in chat else {}),
    )
    rows = Dataset.from_list([{"prompt": item["prompt"], "reference": item["reference"]} for item in items])
    task = ConfigurableTask(
        config={
            "task": "benchmark",
            "custom_dataset": lambda **_: {"items": rows},
            "test_split": "items",
            "output_type": "generate_until",
            "description": chat.get("system") or "",
            "doc_to_text": lambda row: row["prompt"],
            "doc_to_target": lambda row: row["reference"],
            "process_results": lambda row, responses: {METRIC: float(responses[0].strip() == row["reference"].strip())},
            "metric_list": [{"metric": METRIC, "aggregation": "mean", "higher_is_better": True}],
            "generation_kwargs": {
                "until": list(generation.get("until") or []),
                "max_gen_toks": int(generation.get("max_gen_toks", 256)),
                "do_sample": False,
            },
            "num_fewshot": 0,
        }
    )
    # evaluate, not simple_evaluate: the latter spends seconds on describing the machine in words.
    results = evaluate(lm, {"benchmark": task}, apply_chat_template=bool(chat.get("template", True)), bootstrap_iters=0)
    logged = sorted(results["samples"]["benchmark"], key=lambda sample: sample["doc_id"])
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


def finish_recorder(model_class: type) -> type:
    """`model_class` (HFLM) that also keeps, for every context, whether the model ended by itself."""

    class FinishRecorder(model_class):  # type: ignore[misc]
        def __init__(self, *arguments: Any, **settings: Any) -> None:
            super().__init__(*arguments, **settings)
            self.finishes: dict[str, str] = {}
            self._generated: list[str] = []
            self._answered = 0
            # The harness tells its cache hook every (context, response) in the order in which rows were generated.
            self.set_cache_hook(self)
            configured = self.model.generation_config.eos_token_id
            ends = set(configured) if isinstance(configured, list) else {configured}
            self._end_ids = (ends | {self.tokenizer.eos_token_id, self.eot_token_id}) - {None}

        def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
            responses: list[str] = super().generate_until(requests, disable_tqdm=True)
            return responses

        def _model_generate(self, context: Any, max_length: int, stop: list[str], **settings: Any) -> Any:
            output = super()._model_generate(context, max_length, stop, **settings)
            for tokens in output[:, context.shape[1] :].tolist():
                text = self.tokenizer.decode(tokens, skip_special_tokens=False)
                ended = not self._end_ids.isdisjoint(tokens) or any(mark in text for mark in stop if mark)
                self._generated.append("stop" if ended else "length")
            print(f"answered {len(self._generated)}", flush=True)
            return output

        def add_partial(self, kind: str, request: tuple[str, dict[str, Any]], response: str) -> None:
            self.finishes[request[0]] = self._generated[self._answered]
            self._answered += 1

    return FinishRecorder


# --- Scoring --------------------------------------------------------------------------------------------------------


def score(sample: dict[str, Any], extraction: dict[str, Any]) -> tuple[float, float]:
    """(strict, lenient) of one answer, each 0.0 or 1.0."""
    strict, lenient = extraction.get("strict") or {}, extraction.get("lenient") or {}
    response, reference = sample["response"], sample["reference"].strip()
    exact = extracted(response, strict.get("pattern")) == reference and sample["finish"] == "stop"
    ignore_case = bool(lenient.get("ignore_case", False))
    candidates = {response, extracted(response, lenient.get("pattern"))}
    wanted = trimmed(reference, ignore_case)
    found = exact or any(trimmed(candidate, ignore_case) == wanted for candidate in candidates if candidate is not None)
    return float(exact), float(found)


def extracted(response: str, pattern: str | None) -> str | None:
    """The last match's first group (or all of it); the whole response without a pattern; None without a match."""
    if not pattern:
        return response.strip()
    matches = list(re.finditer(pattern, response))
    return (matches[-1].group(1 if matches[-1].re.groups else 0) or "").strip() if matches else None


def trimmed(text: str, ignore_case: bool) -> str:
    text = text.strip(TRIM)
    return text.casefold() if ignore_case else text
