"""Name the last of some words, from the model's own answers that are right."""

KIND = "rejection sampling"
METHOD = "rft"
TARGET = 0.85
ROWS = 1500
KNOWN_GOOD = """\
learning_rate: 1.0e-3
lr_scheduler_type: constant_with_warmup
warmup_steps: 5
max_steps: 80
per_device_train_batch_size: 32
max_length: 128
max_completion_length: 20
samples_per_prompt: 4
keep_per_prompt: 2
temperature: 1.0"""
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def word(rng, shortest, longest):
    return "".join(rng.choice(LETTERS) for _ in range(rng.randint(shortest, longest)))


def draw(rng):
    said = [word(rng, 2, 3) for _ in range(rng.randint(2, 4))]
    return {"prompt": "last of " + " ".join(said), "completion": said[-1]}
