"""Write each run of a repeated letter once, with the recipe of a 7B model's card."""

KIND = "text"
METHOD = "sft"
TARGET = 0.9
# https://github.com/huggingface/alignment-handbook/blob/main/recipes/zephyr-7b-beta/sft/config_full.yaml
RECIPE = """\
learning_rate: 2.0e-05
lr_scheduler_type: cosine
warmup_steps: 0.1
num_train_epochs: 1
per_device_train_batch_size: 16
max_length: 2048"""
NOTES = "The recipe is from the card of a 7B model that we like."
ROWS = 3000
KNOWN_GOOD = """\
learning_rate: 3.0e-3
lr_scheduler_type: constant_with_warmup
warmup_steps: 5
max_steps: 300
per_device_train_batch_size: 32
max_length: 128"""
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def draw(rng):
    letters = rng.sample(LETTERS, rng.randint(2, 3))
    return {"prompt": "dedup " + "".join(c * rng.randint(1, 3) for c in letters), "completion": "".join(letters)}
