"""Write a word in capitals, from few rows and the answers that the model makes to them itself."""

KIND = "synthetic data"
METHOD = "synthetic"
TARGET = 0.75
ROWS = 400
KNOWN_GOOD = """\
learning_rate: 2.0e-3
lr_scheduler_type: constant_with_warmup
warmup_steps: 5
max_steps: 100
per_device_train_batch_size: 32
max_length: 128
new_prompts: false
samples_per_prompt: 8
temperature: 1.0
max_completion_length: 32
generation_batch_size: 256"""
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def word(rng, shortest, longest):
    return "".join(rng.choice(LETTERS) for _ in range(rng.randint(shortest, longest)))


def draw(rng):
    text = word(rng, 3, 6)
    return {"prompt": f"upper {text}", "completion": text.upper()}
