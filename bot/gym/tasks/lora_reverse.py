"""Write a word backwards, with an adapter alone."""

KIND = "LoRA"
METHOD = "sft"
TARGET = 0.9
RECIPE = """\
use_peft: true
lora_r: 8
lora_alpha: 16
lora_target_modules: all-linear
learning_rate: 1.0e-2
lr_scheduler_type: constant_with_warmup
warmup_steps: 5
max_steps: 150
per_device_train_batch_size: 32
max_length: 128"""
KNOWN_GOOD = RECIPE
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def word(rng, shortest, longest):
    return "".join(rng.choice(LETTERS) for _ in range(rng.randint(shortest, longest)))


def draw(rng):
    text = word(rng, 3, 5)
    return {"prompt": f"reverse {text}", "completion": text[::-1]}
