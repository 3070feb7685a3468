"""Engine `classify`: a sequence classifier gives each text a probability for every label."""

from __future__ import annotations

import argparse
from typing import Any

from scores import head_for, judged, label_summary, labels_of

LIBRARIES = ("torch", "transformers", "tokenizers")


def run(arguments: argparse.Namespace, benchmark: dict[str, Any], items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    gpu = torch.cuda.is_available()
    torch.manual_seed(0)  # a head that the model lacks is drawn
    head = head_for(AutoConfig.from_pretrained(arguments.model), labels_of(benchmark, items))
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    model = AutoModelForSequenceClassification.from_pretrained(
        arguments.model, dtype=torch.bfloat16 if gpu else torch.float32, **head
    )
    model = model.to("cuda" if gpu else "cpu").eval()
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id  # a causal model finds each text's last token by it
    longest = min(tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", None) or 10**9)
    # Like lengths together, so that little is padded; the answers go back to the items' order.
    order = sorted(range(len(items)), key=lambda n: -len(items[n]["prompt"]))
    answers: list[dict[str, float]] = [{}] * len(items)
    names = [str(model.config.id2label[n]) for n in range(model.config.num_labels)]
    for start in range(0, len(order), arguments.batch_size):
        chosen = order[start : start + arguments.batch_size]
        texts = [items[n]["prompt"] for n in chosen]
        inputs = tokenizer(texts, padding=True, truncation=True, max_length=longest, return_tensors="pt")
        with torch.inference_mode():
            shares = model(**inputs.to(model.device)).logits.float().softmax(-1)
        for n, row in zip(chosen, shares.tolist(), strict=True):
            answers[n] = dict(zip(names, row, strict=True))
        print(f"answered {start + len(chosen)}", flush=True)
    samples: list[dict[str, Any]] = judged(benchmark, items, answers, "prompt")
    return samples


def summary(samples: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = label_summary(samples)
    return found
