"""Name the last of some words, by preferring the right answer to the model's own wrong one."""

KIND = "preference"
METHOD = "dpo"
TARGET = 0.85
ROWS = 1500
KNOWN_GOOD = """\
learning_rate: 5.0e-4
lr_scheduler_type: constant_with_warmup
warmup_steps: 5
max_steps: 60
per_device_train_batch_size: 32
max_length: 128
beta: 0.1
loss_type: sigmoid,sft
loss_weights: 1,0.2"""
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def word(rng, shortest, longest):
    return "".join(rng.choice(LETTERS) for _ in range(rng.randint(shortest, longest)))


def draw(rng):
    said = [word(rng, 2, 3) for _ in range(rng.randint(2, 4))]
    return {"prompt": "last of " + " ".join(said), "completion": said[-1]}
