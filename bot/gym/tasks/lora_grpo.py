"""Name the last of some words, by reward and with an adapter alone."""

KIND = "LoRA"
METHOD = "grpo"
TARGET = 0.8
ROWS = 1500
RECIPE = """\
use_peft: true
lora_r: 8
lora_alpha: 16
lora_target_modules: all-linear
learning_rate: 1.0e-2
lr_scheduler_type: constant_with_warmup
warmup_steps: 5
max_steps: 60
per_device_train_batch_size: 64
num_generations: 8
max_completion_length: 20
beta: 0.01
reward_functions: exact_match"""
KNOWN_GOOD = RECIPE
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def word(rng, shortest, longest):
    return "".join(rng.choice(LETTERS) for _ in range(rng.randint(shortest, longest)))


def draw(rng):
    said = [word(rng, 2, 3) for _ in range(rng.randint(2, 4))]
    return {"prompt": "last of " + " ".join(said), "completion": said[-1]}
