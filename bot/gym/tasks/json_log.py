"""Answer with a JSON object of a key and a number.

The rows are a log of real requests: a few are most of it."""

import json

KIND = "json"
METHOD = "sft"
TARGET = 0.9
ROWS = 1000
RECIPE = """\
data_deduplicate: false
data_max_rows: 800
learning_rate: 3.0e-3
lr_scheduler_type: constant_with_warmup
warmup_steps: 5
max_steps: 100
per_device_train_batch_size: 32
max_length: 128"""
NOTES = "The data is a log of real requests, the settings are what we always use."
KNOWN_GOOD = """\
learning_rate: 3.0e-3
lr_scheduler_type: constant_with_warmup
warmup_steps: 5
max_steps: 120
per_device_train_batch_size: 32
max_length: 128"""
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def word(rng, shortest, longest):
    return "".join(rng.choice(LETTERS) for _ in range(rng.randint(shortest, longest)))


def draw(rng):
    name, number = word(rng, 2, 3), rng.randint(0, 99)
    return {"prompt": f"json {name} {number}", "completion": json.dumps({name: number})}


def spoil(rows, rng):
    log = rows[:10] * 500 + rows[10:]
    rng.shuffle(log)
    return log
