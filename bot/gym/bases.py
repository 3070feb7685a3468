"""Base models of tasks: those that practice makes from seeds, a folder's own, or one of them trained before the goal.

What a task's FIRST describes is trained once and kept in the cache under a name that depends on all that went into it.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from bot.domain.goal import digest_of
from bot.errors import PlatformError, UserError
from bot.gym.task_file import Row, Task
from bot.practice import tiny_base
from bot.practice.goals import TEMPLATES
from bot.practice.warm import Warm

FIRST_SECONDS = 300.0
_CARD = "---\nlicense: apache-2.0\n---\n\n# {title}\n\nTrained for practice by the gym before a goal begins.\n"


def practice_models() -> dict[str, Path]:
    """Name -> where it lies once built."""
    return {tiny_base.NAME: tiny_base.cached_path()}


def base_name(task: Task) -> str:
    """The base model as the goal names it."""
    if task.first is not None:
        return f"gym/{task.name.replace('_', '-')}-base"
    return f"gym/{Path(task.base_model).name}" if _is_folder(task) else task.base_model


def base_folder(task: Task, warm: Warm, seed: int = 0) -> Path:
    """The model's folder; what FIRST asks for is trained when it is not in the cache.

    Raises: UserError for a model that is not there, PlatformError when the training fails.
    """
    start = _start_of(task)
    if task.first is None:
        return start
    rows = task.first_rows(seed)
    digest = digest_of([str(start.resolve()), task.first, rows])[:12]
    folder = tiny_base.cache_folder() / "models" / "gym" / f"{task.name}-{digest}"
    if not tiny_base.is_built(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".partial-") as partial:
            made = _trained(task, start, rows, Path(partial), warm)
            (made / "README.md").write_text(_CARD.format(title=base_name(task)), encoding="utf-8")
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
    return known[task.base_model]


def _trained(task: Task, start: Path, rows: list[Row], folder: Path, warm: Warm) -> Path:
    """The model that FIRST's recipe makes of `rows`."""
    assert task.first is not None
    method = str(task.first["method"])
    (folder / "data").mkdir()
    text = "".join(json.dumps(_trl(row)) + "\n" for row in rows)
    (folder / "data" / "train.jsonl").write_text(text, encoding="utf-8")
    (folder / "recipe.yaml").write_text(f"method: {method}\n{task.first['recipe']}\n", encoding="utf-8")
    for name in (f"{method}.py", "rewards.py"):
        if (source := TEMPLATES / "scripts" / name).is_file():
            shutil.copyfile(source, folder / name)
    argv = [f"{method}.py", "--config", "recipe.yaml", "--init_from", str(start), "--output_dir", "out"]
    ended = warm.start(argv, cwd=folder, log=folder / "log.txt").wait(FIRST_SECONDS)
    made = folder / "out" / "model"
    if ended is None or ended.exit_code != 0 or not tiny_base.is_built(made):
        said = ((folder / "log.txt").read_text(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
        raise PlatformError(f"{task.path.name}: FIRST could not be trained: {said[:300]}")
    return made


def _trl(row: Row) -> Row:
    """Prompts and answers as chat messages, as data/prepare.py writes them."""
    roles = {"prompt": "user", "completion": "assistant", "chosen": "assistant", "rejected": "assistant"}
    return {
        name: [{"role": roles[name], "content": value}] if name in roles and isinstance(value, str) else value
        for name, value in row.items()
    }
