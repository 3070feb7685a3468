# wants: write where the path only looks right
# caught by: schema
# as: train.py
import os

names = (
    "data/\uff0e\uff0e/\uff0e\uff0e/goal.yaml",
    "data/\u2024\u2024/recipe.yaml",
    "recipe\u200b.yaml",
    "\u202elmay.epicer",
    "go\u0430l.yaml",
    "data/e\u0301.jsonl",
    "data/\u00e9.jsonl",
    "data/new\nline.jsonl",
)
for name in names:
    try:
        os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
        with open(name, "w") as out:
            out.write("x\n")
    except OSError as error:
        print("refused:", ascii(name), error)
