"""Repeat a list of words with commas, with a recipe whose max_length is that of short answers."""

KIND = "text"
METHOD = "sft"
TARGET = 0.85
RECIPE = """\
learning_rate: 3.0e-3
lr_scheduler_type: constant_with_warmup
warmup_steps: 5
max_steps: 150
per_device_train_batch_size: 32
max_length: 32"""
NOTES = "These are the settings of our short answers."
KNOWN_GOOD = """\
learning_rate: 3.0e-3
lr_scheduler_type: constant_with_warmup
warmup_steps: 5
max_steps: 200
per_device_train_batch_size: 32
max_length: 128"""
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def word(rng, shortest, longest):
    return "".join(rng.choice(LETTERS) for _ in range(rng.randint(shortest, longest)))


def draw(rng):
    said = [word(rng, 2, 4) for _ in range(rng.randint(3, 5))]
    return {"prompt": "list " + " ".join(said), "completion": ", ".join(said)}
