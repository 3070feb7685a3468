"""Answer in JSON, with an adapter alone, with the learning rate of a 7B model's adapter."""

import json

KIND = "LoRA"
METHOD = "sft"
TARGET = 0.9
RECIPE = """\
use_peft: true
lora_r: 8
lora_alpha: 16
lora_target_modules: all-linear
learning_rate: 2.0e-4
lr_scheduler_type: constant_with_warmup
warmup_steps: 5
max_steps: 150
per_device_train_batch_size: 32
max_length: 128"""
KNOWN_GOOD = """\
use_peft: true
lora_r: 8
lora_alpha: 16
lora_target_modules: all-linear
learning_rate: 5.0e-3
lr_scheduler_type: constant_with_warmup
warmup_steps: 5
max_steps: 150
per_device_train_batch_size: 32
max_length: 128"""
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def word(rng, shortest, longest):
    return "".join(rng.choice(LETTERS) for _ in range(rng.randint(shortest, longest)))


def draw(rng):
    name, number = word(rng, 2, 3), rng.randint(0, 99)
    return {"prompt": f"json {name} {number}", "completion": json.dumps({name: number})}
