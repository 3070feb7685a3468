"""Engine `pairs`: which of two answers to a prompt a reward model prefers.

A reward model is a sequence classifier with one output, as TRL's RewardTrainer makes it. Prompt and answer are
rendered by the tokenizer's chat template, unless the benchmark says `chat: {template: false}` or there is none.
"""

from __future__ import annotations

import argparse
from typing import Any

LIBRARIES = ("torch", "transformers", "tokenizers")


def run(arguments: argparse.Namespace, benchmark: dict[str, Any], items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    gpu = torch.cuda.is_available()
    torch.manual_seed(0)  # a head that the model lacks is drawn
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    model = AutoModelForSequenceClassification.from_pretrained(
        arguments.model, num_labels=1, ignore_mismatched_sizes=True, dtype=torch.bfloat16 if gpu else torch.float32
    )
    model = model.to("cuda" if gpu else "cpu").eval()
    model.config.pad_token_id = tokenizer.pad_token_id  # a causal model finds each text's last token by it
    chat = benchmark.get("chat") or {}
    texts = [rendered(tokenizer, chat, item, item[side]) for item in items for side in ("chosen", "rejected")]
    rewards = [0.0] * len(texts)
    order = sorted(range(len(texts)), key=lambda n: -len(texts[n]))
    for start in range(0, len(order), arguments.batch_size):
        chosen = order[start : start + arguments.batch_size]
        inputs = tokenizer([texts[n] for n in chosen], padding=True, add_special_tokens=False, return_tensors="pt")
        with torch.inference_mode():
            outputs = model(input_ids=inputs["input_ids"].to(model.device),
                            attention_mask=inputs["attention_mask"].to(model.device))  # fmt: skip
        for n, reward in zip(chosen, outputs.logits.float()[:, 0].tolist(), strict=True):
            rewards[n] = reward
        print(f"answered {(start + len(chosen)) // 2}", flush=True)
    return [
        {
            "id": item["id"],
            "prompt": item["prompt"],
            "response": f"{rewards[2 * n]:.4f} for the chosen answer, {rewards[2 * n + 1]:.4f} for the rejected one",
            "finish": "stop",
            "margin": rewards[2 * n] - rewards[2 * n + 1],
            "score": float(rewards[2 * n] > rewards[2 * n + 1]),
        }
        for n, item in enumerate(items)
    ]


def rendered(tokenizer: Any, chat: dict[str, Any], item: dict[str, Any], answer: str) -> str:
    if not chat.get("template", True) or not tokenizer.chat_template:
        return f"{item['prompt']}{answer}{tokenizer.eos_token or ''}"
    messages = [{"role": "user", "content": item["prompt"]}, {"role": "assistant", "content": answer}]
    if chat.get("system"):
        messages.insert(0, {"role": "system", "content": chat["system"]})
    return str(tokenizer.apply_chat_template(messages, tokenize=False))


def summary(samples: list[dict[str, Any]]) -> dict[str, Any]:
    return {"mean_margin": sum(sample["margin"] for sample in samples) / len(samples)}
