"""Models that tasks start from or learn from: those that practice makes from seeds, a folder's own, or one of them
trained before the goal begins, as the task's FIRST or TEACHER says.

Such a model is trained once and kept in the cache under a name that depends on all that went into it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bot.domain.goal import digest_of
from bot.errors import PlatformError, UserError
from bot.gym.task_file import Row, Task
from bot.practice import tiny_base, tiny_models
from bot.practice.goals import TEMPLATES
from bot.practice.warm import Warm

FIRST_SECONDS = 300.0
_CARD = "---\nlicense: apache-2.0\n---\n\n# {title}\n\nTrained for practice by the gym before a goal begins.\n"


def practice_models() -> dict[str, Path]:
    """Name -> where it lies once built."""
    return {tiny_base.NAME: tiny_base.cached_path()} | {
        name: tiny_models.cached_path(name) for name in tiny_models.MAKERS
    }


def base_name(task: Task) -> str:
    """The base model as the goal names it."""
    if task.first is not None:
        return f"gym/{task.name.replace('_', '-')}-base"
    return f"gym/{Path(task.base_model).name}" if _is_folder(task) else task.base_model


def teacher_name(task: Task) -> str:
    """The teacher as the goal's recipe names it."""
    return f"gym/{task.name.replace('_', '-')}-teacher"


def models_of(task: Task, warm: Warm) -> dict[str, Path]:
    """Name -> folder of the task's base model and of its teacher, made where they are not in the cache.

    Raises: UserError for a model that is not there, PlatformError when one cannot be made.
    """
    start = _start_of(task)
    found = {base_name(task): start if task.first is None else _kept(task, base_name(task), task.first, start, warm)}
    if task.teacher is not None:
        found[teacher_name(task)] = _kept(task, teacher_name(task), task.teacher, start, warm)
    return found


def _kept(task: Task, name: str, made_by: Mapping[str, Any], start: Path, warm: Warm) -> Path:
    """The cached folder of the model that `made_by` describes."""
    rows = task.first_rows(0, int(made_by.get("rows", task.rows)))
    digest = digest_of([str(start.resolve()), dict(made_by), rows])[:12]
    folder = tiny_base.cache_folder() / "models" / f"{name}-{digest}"
    if not tiny_base.is_built(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".partial-") as partial:
            made = _trained(task, made_by, start, rows, Path(partial), warm)
            (made / "README.md").write_text(_CARD.format(title=name), encoding="utf-8")
            if not tiny_base.is_built(folder):
                made.replace(folder)
    return folder


def _is_folder(task: Task) -> bool:
    return (task.path.parent / task.base_model / "config.json").is_file()


def _start_of(task: Task) -> Path:
    if _is_folder(task):
        return (task.path.parent / task.base_model).resolve()
    known = practice_models()
    if task.base_model not in known:
        raise UserError(
            f"{task.path.name}: there is no base model `{task.base_model}`. Write one of: {', '.join(known)}, or the "
            "path of a model's folder from the task file."
        )
    if not tiny_base.is_built(known[task.base_model]):
        _build(task.base_model)
    return known[task.base_model]


def _build(name: str) -> None:
    """In a process of its own: this one never imports torch."""
    words = ["bot.practice.tiny_base", "--quiet"] if name == tiny_base.NAME else ["bot.practice.tiny_models", name]
    done = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise PlatformError(f"{name} could not be built: {said[:300]}")


def _trained(task: Task, made_by: Mapping[str, Any], start: Path, rows: list[Row], folder: Path, warm: Warm) -> Path:
    """The model that a recipe makes of `rows`."""
    method = str(made_by["method"])
    (folder / "data").mkdir()
    text = "".join(json.dumps(_trl(row)) + "\n" for row in rows)
    (folder / "data" / "train.jsonl").write_text(text, encoding="utf-8")
    (folder / "recipe.yaml").write_text(f"method: {method}\n{made_by['recipe']}\n", encoding="utf-8")
    for name in (f"{method}.py", "rewards.py"):
        if (source := TEMPLATES / "scripts" / name).is_file():
            shutil.copyfile(source, folder / name)
    argv = [f"{method}.py", "--config", "recipe.yaml", "--init_from", str(start), "--output_dir", "out"]
    ended = warm.start(argv, cwd=folder, log=folder / "log.txt").wait(FIRST_SECONDS)
    made = folder / "out" / "model"
    if ended is None or ended.exit_code != 0 or not tiny_base.is_built(made):
        said = ((folder / "log.txt").read_text(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
        raise PlatformError(f"{task.path.name}: the model to begin with could not be trained: {said[:300]}")
    return made


def _trl(row: Row) -> Row:
    """Prompts and answers as chat messages, as data/prepare.py writes them."""
    roles = {"prompt": "user", "completion": "assistant", "chosen": "assistant", "rejected": "assistant"}
    return {
        name: [{"role": roles[name], "content": value}] if name in roles and isinstance(value, str) else value
        for name, value in row.items()
    }
