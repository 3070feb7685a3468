"""Engine `likelihood`: how well a causal language model predicts texts, token by token.

Texts longer than the model's window are read in windows that predict `likelihood.stride` tokens each, every token once
and with as much text before it as the window holds; the first token follows the token that begins or ends texts. With
the default stride, a whole window, that is lm-evaluation-harness's `loglikelihood_rolling`, so values compare with
published ones; a smaller stride lowers perplexity a little and costs more
(https://huggingface.co/docs/transformers/perplexity).

    perplexity        exp of nats per token; compares models with the same tokenizer only
    word_perplexity   exp of nats per word between spaces, whatever the tokenizer, as lm-evaluation-harness counts it
    bits_per_byte     bits per byte of UTF-8
"""

from __future__ import annotations

import argparse
import math
import re
from typing import Any

from scores import refused, value_and_error

LIBRARIES = ("torch", "transformers", "tokenizers")


def run(arguments: argparse.Namespace, benchmark: dict[str, Any], items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    gpu = torch.cuda.is_available()
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.bfloat16 if gpu else torch.float32)
    model = model.to("cuda" if gpu else "cpu").eval()
    settings = benchmark.get("likelihood") or {}
    longest = int(settings.get("window") or getattr(model.config, "max_position_embeddings", None) or 2048)
    stride = min(int(settings.get("stride") or longest), longest)
    before = next((one for one in (tokenizer.bos_token_id, tokenizer.eos_token_id) if one is not None), None)
    if before is None:
        raise refused("the model's tokenizer names neither a token that begins texts nor one that ends them")
    samples = []
    pieces: list[tuple[int, list[int], int]] = []
    for number, item in enumerate(items):
        ids = tokenizer(item["prompt"], add_special_tokens=False).input_ids
        pieces += [(number, *window) for window in windows(ids, before, longest, stride)]
        samples.append(
            {
                "id": item["id"],
                "prompt": item["prompt"],
                "finish": "stop",
                "_nats": 0.0,
                "_tokens": len(ids),
                "_words": len(re.split(r"\s+", item["prompt"])),
                "_bytes": len(item["prompt"].encode()),
            }
        )
    pieces.sort(key=lambda piece: -len(piece[1]))  # like lengths together; the longest first, to fail early
    for start in range(0, len(pieces), arguments.batch_size):
        batch = pieces[start : start + arguments.batch_size]
        for (number, _, _), nats in zip(batch, nats_of(model, batch), strict=True):
            samples[number]["_nats"] += nats
        print(f"read {min(start + len(batch), len(pieces))} of {len(pieces)} windows", flush=True)
    for sample in samples:
        sample["score"], sample["weight"] = scored(sample, benchmark["metric"])
    return samples


def windows(ids: list[int], before: int, longest: int, stride: int) -> list[tuple[list[int], int]]:
    """(tokens, how many of the last ones are predicted) with `longest` + 1 tokens at most, each predicted once."""
    whole = [before, *ids]
    found = []
    done = 0
    while done < len(ids):
        predicted = min(longest if done == 0 else stride, len(ids) - done)
        end = done + predicted + 1
        found.append((whole[max(0, end - longest - 1) : end], predicted))
        done += predicted
    return found


def nats_of(model: Any, batch: list[tuple[int, list[int], int]]) -> list[float]:
    """Minus the log-likelihood of each window's last tokens, in nats."""
    import torch

    width = max(len(tokens) for _, tokens, _ in batch)
    ids = torch.tensor([tokens + [0] * (width - len(tokens)) for _, tokens, _ in batch], device=model.device)
    mask = torch.tensor([[1] * len(tokens) + [0] * (width - len(tokens)) for _, tokens, _ in batch]).to(model.device)
    with torch.inference_mode():
        # The last token is only predicted: nothing follows it.
        logits = model(input_ids=ids[:, :-1], attention_mask=mask[:, :-1]).logits.float()
    losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none").double().cpu()
    return [float(row[len(t) - 1 - n : len(t) - 1].sum()) for row, (_, t, n) in zip(losses, batch, strict=True)]


def scored(sample: dict[str, Any], metric: str) -> tuple[float, float]:
    """(score, weight) whose weighted mean is the metric's, or its logarithm."""
    nats = sample["_nats"]
    weight = sample[{"perplexity": "_tokens", "word_perplexity": "_words", "bits_per_byte": "_bytes"}[metric]]
    if not weight:
        return 0.0, 0.0
    return (nats / math.log(2) if metric == "bits_per_byte" else nats) / weight, float(weight)


def summary(samples: list[dict[str, Any]]) -> dict[str, Any]:
    values = {}
    for metric in ("perplexity", "word_perplexity", "bits_per_byte"):
        parts = [scored(sample, metric) for sample in samples]
        values[metric] = value_and_error(metric, [{"score": score, "weight": weight} for score, weight in parts])[0]
    return {"metrics": values, "tokens": sum(sample["_tokens"] for sample in samples)}
