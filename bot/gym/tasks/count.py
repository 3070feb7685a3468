"""Count a letter in a word of two letters."""

KIND = "arithmetic"
METHOD = "sft"
TARGET = 0.85
ROWS = 3000
KNOWN_GOOD = """\
learning_rate: 3.0e-3
lr_scheduler_type: constant_with_warmup
warmup_steps: 5
max_steps: 400
per_device_train_batch_size: 32
max_length: 128"""
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def draw(rng):
    letter, other = rng.sample(LETTERS, 2)
    text = "".join(rng.choice((letter, other)) for _ in range(rng.randint(3, 6)))
    return {"prompt": f"count {letter} in {text}", "completion": str(text.count(letter))}
