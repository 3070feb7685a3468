"""Name the last of some words by reward alone, with the learning rate of a 4B model."""

KIND = "reward"
METHOD = "grpo"
TARGET = 0.85
ROWS = 1500
RECIPE = """\
learning_rate: 1.0e-6
lr_scheduler_type: constant_with_warmup
warmup_steps: 5
max_steps: 50
per_device_train_batch_size: 64
num_generations: 8
max_completion_length: 20
beta: 0.01
reward_functions: exact_match"""
KNOWN_GOOD = """\
learning_rate: 1.0e-3
lr_scheduler_type: constant_with_warmup
warmup_steps: 5
max_steps: 50
per_device_train_batch_size: 64
num_generations: 8
max_completion_length: 20
beta: 0.01
reward_functions: exact_match"""
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def word(rng, shortest, longest):
    return "".join(rng.choice(LETTERS) for _ in range(rng.randint(shortest, longest)))


def draw(rng):
    said = [word(rng, 2, 3) for _ in range(rng.randint(2, 4))]
    return {"prompt": "last of " + " ".join(said), "completion": said[-1]}
