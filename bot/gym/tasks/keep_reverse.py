"""Learn JSON without forgetting how to write a word backwards.

The base model reverses words already. The rows hold a few of them; half of the items ask for it."""

import json

KIND = "forgetting"
METHOD = "sft"
TARGET = 0.85
ROWS = 2200
DEV, SEALED = 240, 320
REVERSE = """\
learning_rate: 3.0e-3
lr_scheduler_type: constant_with_warmup
warmup_steps: 5
max_steps: 150
per_device_train_batch_size: 32
max_length: 128"""
FIRST = {"method": "sft", "recipe": REVERSE, "rows": 2000}
KNOWN_GOOD = """\
learning_rate: 3.0e-3
lr_scheduler_type: constant_with_warmup
warmup_steps: 5
max_steps: 200
per_device_train_batch_size: 32
max_length: 128"""
BENCHMARK = {"old_tasks": ["reverse"]}
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def word(rng, shortest, longest):
    return "".join(rng.choice(LETTERS) for _ in range(rng.randint(shortest, longest)))


def draw_first(rng):
    text = word(rng, 3, 5)
    return {"prompt": f"reverse {text}", "completion": text[::-1]}


def draw_json(rng):
    name, number = word(rng, 2, 3), rng.randint(0, 99)
    return {"prompt": f"json {name} {number}", "completion": json.dumps({name: number})}


def draw(rng):
    return draw_first(rng) if rng.random() < 0.1 else draw_json(rng)


def draw_item(rng):
    return draw_first(rng) if rng.random() < 0.5 else draw_json(rng)
