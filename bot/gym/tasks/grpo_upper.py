"""Write a word in capitals, found by reward alone."""

KIND = "reward"
METHOD = "grpo"
TARGET = 0.8
ROWS = 1500
KNOWN_GOOD = """\
learning_rate: 1.0e-3
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
    text = word(rng, 3, 6)
    return {"prompt": f"upper {text}", "completion": text.upper()}
