"""Sort three letters, learning from the answers that a teacher wrote, at the rate of a 7B model."""

KIND = "distillation"
METHOD = "distill"
TARGET = 0.75
SORT = """\
learning_rate: 3.0e-3
lr_scheduler_type: constant_with_warmup
warmup_steps: 5
max_steps: 250
per_device_train_batch_size: 32
max_length: 128"""
TEACHER = {"method": "sft", "recipe": SORT, "rows": 3000}
RECIPE = """\
teacher: gym/teacher-outputs-teacher
on_policy: false
learning_rate: 2.0e-5
lr_scheduler_type: constant_with_warmup
warmup_steps: 5
max_steps: 200
per_device_train_batch_size: 32
max_completion_length: 16"""
KNOWN_GOOD = RECIPE.replace("2.0e-5", "3.0e-3")
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def draw(rng):
    letters = rng.sample(LETTERS, 3)
    return {"prompt": f"sort {''.join(letters)}", "completion": "".join(sorted(letters))}


draw_first = draw
