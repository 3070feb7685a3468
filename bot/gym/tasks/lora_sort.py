"""Put three letters in alphabetical order, with an adapter of whatever settings suit."""

KIND = "LoRA"
METHOD = "sft"
TARGET = 0.75
RECIPE = """\
use_peft: true"""
KNOWN_GOOD = """\
use_peft: true
lora_r: 8
lora_alpha: 16
lora_target_modules: all-linear
learning_rate: 1.0e-2
lr_scheduler_type: constant_with_warmup
warmup_steps: 5
max_steps: 350
per_device_train_batch_size: 32
max_length: 128"""
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def draw(rng):
    letters = rng.sample(LETTERS, 3)
    return {"prompt": f"sort {''.join(letters)}", "completion": "".join(sorted(letters))}
