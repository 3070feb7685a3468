"""Name the largest of three numbers: taught by a few rows, then by reward."""

KIND = "chain"
METHOD = "sft, grpo"
TARGET = 0.85
ROWS = 300
KNOWN_GOOD = """\
learning_rate: 3.0e-3
lr_scheduler_type: constant_with_warmup
warmup_steps: 5
max_steps: 60
per_device_train_batch_size: 32
max_length: 128
---
learning_rate: 1.0e-3
lr_scheduler_type: constant_with_warmup
warmup_steps: 5
max_steps: 80
per_device_train_batch_size: 64
num_generations: 8
max_completion_length: 20
beta: 0.01
reward_functions: exact_match"""


def draw(rng):
    numbers = rng.sample(range(100), 3)
    return {"prompt": "max of " + " ".join(map(str, numbers)), "completion": str(max(numbers))}
