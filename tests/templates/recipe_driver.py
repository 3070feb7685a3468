"""Run as a process: parses many recipes with the training script's own parser, and reports how each one ended.

One process for all of them, because importing the training stack takes seconds. Not a test itself.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import sys
import tempfile
from pathlib import Path


def outcome(module, case: dict) -> dict:
    folder = Path(tempfile.mkdtemp())
    (folder / "recipe.yaml").write_text(case["recipe"])
    (folder / "train.jsonl").write_text(case.get("rows", ""))
    sys.argv = ["train.py", "--config", str(folder / "recipe.yaml"), *case.get("flags", [])]
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            experiment, args, model_args = module.parse_arguments()
            if "rows" in case:
                module.read_rows(str(folder / "train.jsonl"))
    except SystemExit as stop:
        return {"code": stop.code, "stderr": errors.getvalue().replace(str(folder), "FOLDER")}
    values = {**vars(args), **vars(model_args), **vars(experiment)}
    return {"code": 0, "values": {key: str(values[key]) for key in values}}


if __name__ == "__main__":
    specification = importlib.util.spec_from_file_location("train", sys.argv[1])
    assert specification and specification.loader
    train = importlib.util.module_from_spec(specification)
    sys.modules["train"] = train
    specification.loader.exec_module(train)
    print(json.dumps([outcome(train, case) for case in json.load(sys.stdin)]))
