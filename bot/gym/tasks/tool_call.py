"""Answer a question that takes arithmetic with one call of the tool, its arguments exact."""

KIND = "tools"
METHOD = "sft"
TARGET = 0.8
KNOWN_GOOD = """\
learning_rate: 3.0e-3
lr_scheduler_type: constant_with_warmup
warmup_steps: 5
max_steps: 450
per_device_train_batch_size: 32
max_length: 128"""


def draw(rng):
    a, b, sign = rng.randint(0, 99), rng.randint(0, 99), rng.choice("+-*")
    return {"prompt": f"compute {a}{sign}{b}", "completion": f"<call>calc({a}{sign}{b})</call>"}
