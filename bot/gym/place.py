"""Tasks as a team's repository: rows and benchmarks on the default branch, goals as a person would open them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from bot.errors import UserError
from bot.gym.task_file import MOST_RUNS, Row, Task, answer_column
from bot.practice.goals import FORM_PATH, TEMPLATES
from bot.practice.world import Person, Place

AUTHOR = Person("gym", "The Gym", "admin")
OWNER, REPOSITORY = "postdoc", "gym"
GPU_HOURS = 2.0
"""Of one goal; twelve runs of a minute each and their evaluations take a quarter of it."""
MONTH_HOURS = 10_000


def place_of(tasks: Sequence[Task], seed: int) -> Place:
    """The repository that holds the rows and benchmarks of `tasks`, drawn by `seed`. Raises: UserError."""
    files: dict[str, bytes | str] = {
        "README.md": "# The gym\n\nGoals on very small models, one folder of rows and one benchmark for each.\n",
        FORM_PATH: (TEMPLATES / "issue_form" / "goal.yml").read_bytes(),
        ".github/postdoc.yml": policy(),
    }
    for task in tasks:
        items = task.items(seed)
        files |= {
            f"data/{task.name}/train.jsonl": jsonl(task.training_rows(seed)),
            f"data/{task.name}/README.md": f"---\nlicense: apache-2.0\n---\n\n# {task.title}\n\nMade by a generator.\n",
            f"benchmarks/{task.name}.jsonl": jsonl(items),
            f"benchmarks/{task.name}.yaml": benchmark_text(task, items[0]),
        }
    return Place(OWNER, REPOSITORY, (AUTHOR,), files=files, description="Goals on very small models")


def policy() -> str:
    """The policy template with ceilings that no goal of the gym meets, all of it granted."""
    values = yaml.safe_load((TEMPLATES / "postdoc.yml").read_text(encoding="utf-8"))
    values["budget"] |= {"runs": MOST_RUNS, "gpu_hours": GPU_HOURS}
    values["month"]["gpu_hours"] = MONTH_HOURS
    values["consent"]["auto_approve"] |= {"runs": MOST_RUNS, "gpu_hours": GPU_HOURS}
    return yaml.safe_dump(values, sort_keys=False)


def benchmark_text(task: Task, item: Row) -> str:
    """The YAML of the task's own benchmark; `item` shows its columns."""
    answer = answer_column(item)
    question = next((name for name in item if name not in (answer, "rejected")), None)
    values: dict[str, Any] = {
        "description": task.title,
        "licence": "Apache-2.0",
        "metric": task.metric,
        "prompt": "{{" + (question or answer or "text") + "}}",
        "items": {"file": f"{task.name}.jsonl"} | ({"reference": answer} if answer else {}),
        "splits": {"dev": {"n": task.dev}, "sealed": {"n": task.sealed}},
        "generation": {"max_gen_toks": 40, "until": [], "do_sample": False},
    }
    for key, value in (task.benchmark or {}).items():
        if value is None:
            values.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(values.get(key), dict):
            values[key] |= value
        else:
            values[key] = value
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def answers_to_form(task: Task, base_model: str, seed: int) -> dict[str, str]:
    """The goal form as it is filled in for `task`."""
    filled = {
        "base_model": base_model,
        "benchmark": f"benchmarks/{task.name}.yaml",
        "target": f"{100 * task.target:g} %" if 0 < task.target <= 1 else f"{task.target:g}",
        "metric": task.metric,
        "method": task.method or "",
        "dataset": f"data/{task.name}",
        "recipe": (task.recipe or "").strip(),
        "runs": str(task.budget_runs),
        "gpu_hours": f"{GPU_HOURS:g}",
        "usd": "0",
        "seed": str(seed),
        "notes": task.notes,
    }
    return {name: text for name, text in filled.items() if text}


def chosen(tasks: Sequence[Task], names: Sequence[str]) -> list[Task]:
    """Those called `names`, all of them when none is named. Raises: UserError."""
    known = {task.name: task for task in tasks}
    if unknown := [name for name in names if name not in known]:
        raise UserError(f"--only {unknown[0]}: there is no such task. Write one of: {', '.join(known)}.")
    return [known[name] for name in names] or list(tasks)


def jsonl(rows: Sequence[Row]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
