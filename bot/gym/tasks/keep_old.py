"""Learn to sort three letters and keep answering in JSON, from a recipe that forgets.

The base model answers in JSON already. The rows hold very few of them; half of the items ask for it."""

import json

KIND = "forgetting"
METHOD = "sft"
TARGET = 0.8
ROWS = 2400
DEV, SEALED = 240, 320
OLD = """\
learning_rate: 3.0e-3
lr_scheduler_type: constant_with_warmup
warmup_steps: 5
max_steps: 150
per_device_train_batch_size: 32
max_length: 128"""
FIRST = {"method": "sft", "recipe": OLD, "rows": 2000}
KNOWN_GOOD = """\
learning_rate: 2.0e-3
lr_scheduler_type: constant_with_warmup
warmup_steps: 5
max_steps: 300
per_device_train_batch_size: 32
max_length: 128"""
BENCHMARK = {"old_tasks": ["json"]}
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def word(rng, shortest, longest):
    return "".join(rng.choice(LETTERS) for _ in range(rng.randint(shortest, longest)))


def draw_first(rng):
    name, number = word(rng, 2, 3), rng.randint(0, 99)
    return {"prompt": f"json {name} {number}", "completion": json.dumps({name: number})}


def draw_sort(rng):
    letters = rng.sample(LETTERS, 3)
    return {"prompt": f"sort {''.join(letters)}", "completion": "".join(sorted(letters))}


def draw(rng):
    return draw_first(rng) if rng.random() < 0.04 else draw_sort(rng)


def draw_item(rng):
    return draw_first(rng) if rng.random() < 0.5 else draw_sort(rng)
