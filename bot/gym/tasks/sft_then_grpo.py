"""Write a word backwards: taught by a few rows, then by reward on them."""

KIND = "chain"
METHOD = "sft, grpo"
TARGET = 0.9
ROWS = 400
KNOWN_GOOD = """\
learning_rate: 3.0e-3
lr_scheduler_type: constant_with_warmup
warmup_steps: 5
max_steps: 60
per_device_train_batch_size: 32
max_length: 128
---
learning_rate: 5.0e-4
lr_scheduler_type: constant_with_warmup
warmup_steps: 5
max_steps: 60
per_device_train_batch_size: 64
num_generations: 8
max_completion_length: 20
beta: 0.01
reward_functions: exact_match"""
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def word(rng, shortest, longest):
    return "".join(rng.choice(LETTERS) for _ in range(rng.randint(shortest, longest)))


def draw(rng):
    text = word(rng, 3, 5)
    return {"prompt": f"reverse {text}", "completion": text[::-1]}
