"""Count the letters of a word."""

KIND = "arithmetic"
METHOD = "sft"
TARGET = 0.85
ROWS = 3000
KNOWN_GOOD = """\
learning_rate: 3.0e-3
lr_scheduler_type: constant_with_warmup
warmup_steps: 5
max_steps: 300
per_device_train_batch_size: 32
max_length: 128"""
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def word(rng, shortest, longest):
    return "".join(rng.choice(LETTERS) for _ in range(rng.randint(shortest, longest)))


def draw(rng):
    text = word(rng, 2, 9)
    return {"prompt": f"count {text}", "completion": str(len(text))}
