"""Run as a script in the job's environment: parses many recipes with the training scripts' own parsers, and writes how
each one ended.

    recipe_driver.py CASES.json OUTCOMES.json

A case is {"script", "recipe", "flags", "rows"}. One process for all of them. Not a test itself.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import sys
import tempfile
from pathlib import Path
from typing import Any


def script(path: str) -> Any:
    name = f"train_{Path(path).stem}"
    if name not in sys.modules:
        specification = importlib.util.spec_from_file_location(name, path)
        assert specification and specification.loader
        sys.modules[name] = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(sys.modules[name])
        # Recipes are also for machines with more packages than this one.
        sys.modules[name].refuse_missing_packages = lambda *_: None  # type: ignore[attr-defined]
    return sys.modules[name]


def outcome(module: Any, case: dict[str, Any], folder: Path) -> dict[str, Any]:
    (folder / "recipe.yaml").write_text(case["recipe"])
    (folder / "train.jsonl").write_text(case.get("rows") or "")
    sys.argv = ["train.py", "--config", str(folder / "recipe.yaml"), *case.get("flags", [])]
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            experiment, args, model_args = module.parse_arguments()
            if case.get("rows") is not None:
                module.read_rows(str(folder / "train.jsonl"))
    except SystemExit as stop:
        return {"code": stop.code, "stderr": errors.getvalue().replace(str(folder), "FOLDER")}
    values = {**vars(args), **vars(model_args), **vars(experiment)}
    return {"code": 0, "values": {key: str(values[key]) for key in values}}


if __name__ == "__main__":
    cases = json.loads(Path(sys.argv[1]).read_text())
    answer = Path(sys.argv[2])
    with tempfile.TemporaryDirectory() as place:
        answer.write_text(json.dumps([outcome(script(case["script"]), case, Path(place)) for case in cases]))
