"""Tell a right answer from a wrong one, as a reward model."""

KIND = "reward model"
METHOD = "reward"
METRIC = "pairwise_accuracy"
TARGET = 0.85
ROWS = 1500
KNOWN_GOOD = """\
learning_rate: 2.0e-3
lr_scheduler_type: constant_with_warmup
warmup_steps: 5
max_steps: 150
per_device_train_batch_size: 32
max_length: 128"""
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def word(rng, shortest, longest):
    return "".join(rng.choice(LETTERS) for _ in range(rng.randint(shortest, longest)))


def draw(rng):
    said = [word(rng, 2, 3) for _ in range(rng.randint(2, 4))]
    return {"prompt": "last of " + " ".join(said), "chosen": said[-1], "rejected": rng.choice(said[:-1])}
