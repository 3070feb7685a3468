"""Put three or four letters in alphabetical order."""

KIND = "ordering"
METHOD = "sft"
TARGET = 0.85
KNOWN_GOOD = """\
learning_rate: 3.0e-3
lr_scheduler_type: constant_with_warmup
warmup_steps: 5
max_steps: 200
per_device_train_batch_size: 32
max_length: 128"""
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def draw(rng):
    letters = rng.sample(LETTERS, rng.randint(3, 4))
    return {"prompt": f"sort {''.join(letters)}", "completion": "".join(sorted(letters))}
