"""Write a word in capitals, with the recipe of a 7B model's card."""

KIND = "text"
METHOD = "sft"
TARGET = 0.85
# https://github.com/huggingface/alignment-handbook/blob/main/recipes/zephyr-7b-beta/sft/config_full.yaml
RECIPE = """\
learning_rate: 2.0e-05
lr_scheduler_type: cosine
warmup_steps: 0.1
num_train_epochs: 1
per_device_train_batch_size: 16
max_length: 2048"""
NOTES = "The recipe is from the card of a 7B model that we like."
KNOWN_GOOD = """\
learning_rate: 3.0e-3
lr_scheduler_type: constant_with_warmup
warmup_steps: 5
max_steps: 150
per_device_train_batch_size: 32
max_length: 128"""
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def word(rng, shortest, longest):
    return "".join(rng.choice(LETTERS) for _ in range(rng.randint(shortest, longest)))


def draw(rng):
    text = word(rng, 3, 6)
    return {"prompt": f"upper {text}", "completion": text.upper()}
