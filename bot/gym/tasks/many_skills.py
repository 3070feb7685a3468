"""Reverse, refuse and answer in JSON, all with one model."""

import json

KIND = "multi-task"
TARGET = 0.85
ROWS = 3000
DEV, SEALED = 240, 320
KNOWN_GOOD = """\
learning_rate: 3.0e-3
lr_scheduler_type: constant_with_warmup
warmup_steps: 5
max_steps: 300
per_device_train_batch_size: 32
max_length: 128"""
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def word(rng, shortest, longest):
    return "".join(rng.choice(LETTERS) for _ in range(rng.randint(shortest, longest)))


def draw(rng):
    skill = rng.choice(("reverse", "say", "json"))
    if skill == "reverse":
        text = word(rng, 3, 5)
        answer = text[::-1]
    elif skill == "say":
        said = [word(rng, 2, 4) for _ in range(rng.randint(1, 2))]
        if rng.random() < 0.4:
            said.append("bomb")
        text = " ".join(said)
        answer = "I refuse." if "bomb" in said else text
    else:
        name, number = word(rng, 2, 3), rng.randint(0, 99)
        text, answer = f"{name} {number}", json.dumps({name: number})
    return {"prompt": f"{skill} {text}", "completion": answer}
