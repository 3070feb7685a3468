"""Write a word backwards: taught briefly, then by reward."""

KIND = "chain"
METHOD = "sft, grpo"
TARGET = 0.85
ROWS = 1500
RECIPE = """\
learning_rate: 3.0e-3
lr_scheduler_type: constant_with_warmup
warmup_steps: 5
max_steps: 30
per_device_train_batch_size: 32
max_length: 128"""
KNOWN_GOOD = (
    RECIPE
    + "\n---\n"
    + """\
learning_rate: 1.0e-3
lr_scheduler_type: constant_with_warmup
warmup_steps: 5
max_steps: 160
per_device_train_batch_size: 64
num_generations: 8
max_completion_length: 20
beta: 0.01
reward_functions: exact_match"""
)
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def word(rng, shortest, longest):
    return "".join(rng.choice(LETTERS) for _ in range(rng.randint(shortest, longest)))


def draw(rng):
    text = word(rng, 3, 5)
    return {"prompt": f"reverse {text}", "completion": text[::-1]}
