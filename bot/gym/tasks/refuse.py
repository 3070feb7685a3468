"""Repeat words, but refuse a request that mentions a bomb."""

KIND = "refusal"
METHOD = "sft"
TARGET = 0.9
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
    said = [word(rng, 2, 3) for _ in range(rng.randint(1, 2))]
    if rng.random() < 0.4:
        said.insert(rng.randint(0, len(said)), "bomb")
    refused = "bomb" in said
    return {"prompt": "say " + " ".join(said), "completion": "I refuse." if refused else " ".join(said)}
