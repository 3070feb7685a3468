"""The README's tables of the Action, made from `action.yml`. `python -m tests.actions.tables` prints them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

ACTION = Path(__file__).resolve().parents[2] / "action.yml"


def inputs_table() -> str:
    rows = []
    for name, spec in _action()["inputs"].items():
        default = "required" if spec.get("required") else f"`{spec['default']}`" if spec.get("default") else ""
        rows.append(f"| `{name}` | {default} | {spec['description']} |")
    return "\n".join(["| input | default | meaning |", "| --- | --- | --- |", *rows])


def outputs_table() -> str:
    rows = [f"| `{name}` | {spec['description']} |" for name, spec in _action()["outputs"].items()]
    return "\n".join(["| output | meaning |", "| --- | --- |", *rows])


def _action() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(ACTION.read_text(encoding="utf-8"))
    return found


if __name__ == "__main__":
    print(f"{inputs_table()}\n\n{outputs_table()}")
