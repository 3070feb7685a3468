"""Write a word backwards."""

KIND = "ordering"
METHOD = "sft"
TARGET = 0.9
KNOWN_GOOD = """\
learning_rate: 3.0e-3
lr_scheduler_type: constant_with_warmup
warmup_steps: 5
max_steps: 120
per_device_train_batch_size: 32
max_length: 128"""


def draw(rng):
    word = "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(3, 5)))
    return {"prompt": f"reverse {word}", "completion": word[::-1]}
