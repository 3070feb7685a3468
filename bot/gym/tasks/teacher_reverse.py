"""Write a word backwards as a teacher does."""

KIND = "distillation"
METHOD = "distill"
TARGET = 0.9
REVERSE = """\
learning_rate: 3.0e-3
lr_scheduler_type: constant_with_warmup
warmup_steps: 5
max_steps: 200
per_device_train_batch_size: 32
max_length: 128"""
TEACHER = {"method": "sft", "recipe": REVERSE, "rows": 3000}
RECIPE = """\
teacher: gym/teacher-reverse-teacher
learning_rate: 1.0e-3
lr_scheduler_type: constant_with_warmup
warmup_steps: 5
max_steps: 100
per_device_train_batch_size: 32
max_completion_length: 16
beta: 1.0"""
KNOWN_GOOD = RECIPE.replace("max_steps: 100", "max_steps: 250")
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def word(rng, shortest, longest):
    return "".join(rng.choice(LETTERS) for _ in range(rng.randint(shortest, longest)))


def draw(rng):
    text = word(rng, 3, 5)
    return {"prompt": f"reverse {text}", "completion": text[::-1]}


draw_first = draw
