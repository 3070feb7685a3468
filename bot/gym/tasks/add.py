"""Add two numbers below thirty."""

KIND = "arithmetic"
METHOD = "sft"
TARGET = 0.8
ROWS = 680
DEV, SEALED = 50, 60
KNOWN_GOOD = """\
learning_rate: 3.0e-3
lr_scheduler_type: constant_with_warmup
warmup_steps: 5
max_steps: 400
per_device_train_batch_size: 32
max_length: 128"""


def draw(rng):
    a, b = rng.randrange(30), rng.randrange(30)
    return {"prompt": f"{a} + {b}", "completion": str(a + b)}
