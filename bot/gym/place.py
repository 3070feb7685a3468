"""Tasks as a team's repository: rows and benchmarks on the default branch, goals as a person would open them."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from bot.conversation.policy.value import DEFAULT_RECIPE_KEYS
from bot.data.scan import scan
from bot.domain.evaluation import Split
from bot.domain.metrics import metric_named
from bot.errors import UserError
from bot.evaluation.benchmark_file import ENGINES, read_benchmark_file
from bot.evaluation.benchmarks import items
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
        drawn = task.items(seed)
        files |= {
            f"data/{task.name}/train.jsonl": jsonl(clean_rows(task, seed)),
            f"data/{task.name}/README.md": f"---\nlicense: apache-2.0\n---\n\n# {task.title}\n\nMade by a generator.\n",
            f"benchmarks/{task.name}.jsonl": jsonl(drawn),
            f"benchmarks/{task.name}.yaml": benchmark_text(task, drawn[0]),
        }
    return Place(OWNER, REPOSITORY, (AUTHOR,), files=files, description="Goals on very small models")


def clean_rows(task: Task, seed: int) -> list[Row]:
    """The training rows, without those that the contamination scan would take for items: sentences of a small grammar,
    say, share eight words in a row by chance, and Postdoc trains on no set that holds such rows.

    Raises: UserError when hardly any are left.
    """
    rows, drawn = task.training_rows(seed), task.items(seed)
    with tempfile.TemporaryDirectory(prefix="postdoc-gym-") as folder:
        # Of too many items the first by their ids are taken, and an id depends on the benchmark's name.
        path = Path(folder, f"{task.name}.yaml")
        path.write_text(benchmark_text(task, drawn[0]), encoding="utf-8")
        path.with_suffix(".jsonl").write_text(jsonl(drawn), encoding="utf-8")
        benchmark = read_benchmark_file(f"benchmarks/{task.name}", path)
        asked = [items(benchmark, split, seed) for split in Split]
    # Wording that many items share is no evidence, so each split alone shows other rows than both together.
    flagged = {
        row for some in (*asked, [item for split in asked for item in split]) for row in scan(rows, some).flagged_rows
    }
    if 2 * len(flagged) > len(rows):
        raise UserError(
            f"{task.path.name}: {len(flagged)} of {len(rows)} training rows hold items of the benchmark, as the "
            "contamination scan reads them. Let `draw` make rows that differ in more words."
        )
    return [row for number, row in enumerate(rows) if number not in flagged]


def policy() -> str:
    """The policy template with ceilings that no goal of the gym meets, all of it granted, and every key that Postdoc
    changes by itself."""
    values = yaml.safe_load((TEMPLATES / "postdoc.yml").read_text(encoding="utf-8"))
    values["budget"] |= {"runs": MOST_RUNS, "gpu_hours": GPU_HOURS}
    values["month"]["gpu_hours"] = MONTH_HOURS
    values["consent"]["auto_approve"] |= {
        "runs": MOST_RUNS,
        "gpu_hours": GPU_HOURS,
        "recipe_keys": list(DEFAULT_RECIPE_KEYS),
    }
    return yaml.safe_dump(values, sort_keys=False)


def benchmark_text(task: Task, item: Row) -> str:
    """The YAML of the task's own benchmark; `item` shows its columns."""
    engine, answer = engine_of(task, item), answer_column(item)
    values: dict[str, Any] = {
        "description": task.title,
        "licence": "Apache-2.0",
        "engine": engine,
        "metric": metric_of(task, item),
        "items": {"file": f"{task.name}.jsonl"},
        "splits": {"dev": {"n": task.dev}, "sealed": {"n": task.sealed}},
    }
    if engine in ("generate", "classify") and answer is not None:
        values["items"]["reference"] = answer
    if engine in ("generate", "classify", "pairs"):
        question = next((name for name in item if name not in (answer, "rejected")), "text")
        values["prompt"] = "{{" + question + "}}"
    if engine == "generate":
        values["generation"] = {"max_gen_toks": 40, "until": [], "do_sample": False}
    for key, value in (task.benchmark or {}).items():
        if isinstance(value, Mapping) and isinstance(values.get(key), dict):
            values[key] |= value
        else:
            values[key] = value
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def engine_of(task: Task, item: Row) -> str:
    """How the evaluator asks: the engine of the task's METRIC that reads such an item."""
    fitting = ["generate"]
    if "image" in item:
        fitting = ["vision"]
    elif "audio" in item:
        fitting = ["speech"]
    elif "rejected" in item:
        fitting = ["generate", "pairs"]
    elif "text" in item:
        fitting = ["classify"] if "label" in item else ["likelihood"]
    wanted = [engine for engine in fitting if not task.metric or task.metric in ENGINES[engine]]
    if not wanted:
        metrics = ", ".join(metric for engine in fitting for metric in ENGINES[engine])
        raise UserError(f"{task.path.name}: METRIC {task.metric} is not for such rows. Write one of: {metrics}.")
    return wanted[0]


def metric_of(task: Task, item: Row) -> str:
    return task.metric or ENGINES[engine_of(task, item)][0]


def answers_to_form(task: Task, base_model: str, seed: int) -> dict[str, str]:
    """The goal form as it is filled in for `task`."""
    metric = metric_named(metric_of(task, task.draw_item(random.Random(0))))
    filled = {
        "base_model": base_model,
        "benchmark": f"benchmarks/{task.name}.yaml",
        "target": metric.said_target(task.target),
        "metric": metric.name,
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
