"""Say what is left of a number below a thousand when it is divided by five."""

KIND = "arithmetic"
METHOD = "sft"
TARGET = 0.85
ROWS = 700
DEV, SEALED = 60, 70
KNOWN_GOOD = """\
learning_rate: 3.0e-3
lr_scheduler_type: constant_with_warmup
warmup_steps: 5
max_steps: 250
per_device_train_batch_size: 32
max_length: 128"""


def draw(rng):
    number = rng.randrange(1000)
    return {"prompt": f"{number} mod 5", "completion": str(number % 5)}
