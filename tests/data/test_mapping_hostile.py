"""Rows of any form, made by chance and by malice: a mapping or a question, never an error, and never slow."""

from __future__ import annotations

import json
import random
import time
from typing import Any

import pytest

from bot.data.columns import ROLES, as_turns, map_columns

NAMES = [
    "prompt", "question", "answer", "answers", "choices", "options", "text", "label", "labels", "messages",
    "conversations", "chosen", "rejected", "response_a", "response_b", "winner", "score_a", "score_b", "input",
    "instruction", "output", "context", "image", "audio", "tools", "system", "role", "id", "completions", "rank", "A",
    "B", "opa", "opb", "cop", "solution", "tests", "metadata", "reward_model", "weird (name), x", "a + b", "\ud800", "",
    "Is it?",
]  # fmt: skip
KEYS = [
    "role", "content", "from", "value", "text", "label", "A", "B", "bytes", "src", "score", "user", "assistant", "path",
]  # fmt: skip
PLAIN = [
    None, "", "  ", "x", "yes", "a", "0", "2", "-1", "tie", "model_a", -2, 0, 3, 10**400, True, False, 1.5, 1e308,
    float("nan"), float("inf"), "### Human: hi### Assistant: ho", "[INST] a [/INST] b", b"\x89PNG", "so\n#### 4",
    "some words here", "other words there", "{", "\\boxed{{",
]  # fmt: skip


def value(rng: random.Random, depth: int = 0) -> Any:
    match rng.randrange(6) if depth < 3 else 0:
        case 4:
            return [value(rng, depth + 1) for _ in range(rng.randrange(4))]
        case 5:
            return {rng.choice(KEYS): value(rng, depth + 1) for _ in range(rng.randrange(4))}
        case 3:
            return json.dumps(value(rng, depth + 1), default=str)
    return rng.choice(PLAIN)


def row(rng: random.Random, kinds: dict[str, int], at: int) -> dict[str, Any]:
    """Most columns hold the same kind of thing in every row."""
    present = [name for name in kinds if rng.random() < 0.95]
    return {name: value(random.Random(kinds[name] + (at if rng.random() < 0.3 else 0))) for name in present}


@pytest.mark.parametrize("seed", range(60))
def test_rows_of_any_form_give_a_mapping_or_a_question(seed: int) -> None:
    rng = random.Random(seed)
    columns = rng.sample(NAMES, rng.randrange(1, 8))
    kinds = {name: rng.randrange(10**6) for name in columns}
    rows = [row(rng, kinds, at) for at in range(rng.randrange(1, 8))]
    for method in ROLES:
        found = map_columns(rows, method)
        assert bool(found.uses) != (found.question is not None)
        assert json.dumps(found.as_dict())


@pytest.mark.parametrize(
    "text",
    [
        "[/INST]" + "[INST]" * 50_000, "the answer is " * 30_000 + " " * 30_000, "#### " + " " * 300_000 + "x",
        "\n" + " \t" * 200_000, "\nA:" * 100_000, "<|user|>" * 50_000, "### Human: " * 40_000, "[" * 100_000,
        "\\boxed{" * 50_000,
    ],
    ids=range(9),
)  # fmt: skip
def test_no_text_makes_reading_slow(text: str) -> None:
    started = time.process_time()
    as_turns(text)
    map_columns([{"question": text, "answer": text}, {"question": "a b", "answer": text}], "grpo")
    assert time.process_time() - started < 10
