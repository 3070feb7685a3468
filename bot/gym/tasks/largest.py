"""Name the largest of three numbers."""

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


def draw(rng):
    numbers = rng.sample(range(100), 3)
    return {"prompt": "max of " + " ".join(map(str, numbers)), "completion": str(max(numbers))}
