"""The task format: what a file says, what it may not say, and that nothing measured is trained on."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bot.data.scan import scan
from bot.domain.methods import METHODS
from bot.errors import UserError
from bot.evaluation.benchmark_file import read_benchmark_file
from bot.evaluation.benchmarks import items
from bot.gym.place import answers_to_form, benchmark_text, chosen, clean_rows, jsonl, place_of
from bot.gym.task_file import SHIPPED, Task, load_task, load_tasks

Write = Callable[..., Path]
LEAST_OF_A_KIND = 4
WANTED_KINDS = ("classification", "vision", "language modelling", "LoRA")
FEWEST_TASKS = 28
TASKS = load_tasks(SHIPPED)


def test_plain_file_is_a_task(write: Write) -> None:
    task = load_task(write())
    assert (task.name, task.title, task.target) == ("words", "Write a word backwards", 0.9)
    assert (task.method, task.stages, task.budget_runs) == (None, 1, 12)
    assert len(task.training_rows(0)) == 50


def test_chain_counts_its_stages(write: Write) -> None:
    task = load_task(write(more='METHOD = "sft,grpo"\n'))
    assert (task.method, task.stages) == ("sft, grpo", 2)


@pytest.mark.parametrize(
    ("old", "new", "more", "said"),
    [
        ('"""Write a word backwards."""', "", "", r"words\.py: it begins with no docstring\. Write the goal in words"),
        ("TARGET = 0.9", "", "", r"words\.py: it has no TARGET\. Write the value to reach, TARGET = 0\.9"),
        ("TARGET = 0.9", "TARGET = 'high'", "", r"TARGET is 'high'\. Write a whole number or a number"),
        ("TARGET = 0.9", "TARGET = float('nan')", "", r"TARGET is nan\. Write a number"),
        ("def draw", "def give", "", r"it has no function draw\. Write `def draw\(rng\)"),
        ("", "", "METHOD = 'sftt'\n", r"there is no method `sftt`\. Write one of: sft, dpo"),
        ("", "", "BUDGET_RUNS = 13\n", r"BUDGET_RUNS is 13\. Write a whole number from 1 to 12"),
        ("", "", "BUDGET_RUNS = True\n", r"BUDGET_RUNS is True\. Write a whole number"),
        ("", "", "ROWS = 0\n", r"ROWS is 0\. Write a whole number above 0"),
        ("", "", "spoil = 3\n", r"spoil is not a function"),
        ("", "", "FIRST = {'method': 'sft'}\n", r"FIRST needs .*draw_first"),
        ("word[::-1]}", "word[::-1]} + 1", "", r"words\.py, line 9: draw fails with TypeError: unsupported"),
        ('"completion": word[::-1]', '"completion": b"x"', "", r"a row holds a value that JSON cannot write"),
        ('return {"prompt"', 'return None, {"prompt"', "", r"a row is \(None, .*Let it be a dictionary"),
        ("range(5))", "range(1))", "", r"it draws only \d of 50 different training rows and \d of \d+ items"),
        ("    word = ", "  word == = ", "", r"words\.py, line 8: the file fails with .*Error"),
    ],
)
def test_problem_is_one_line_that_says_what_to_write(write: Write, old: str, new: str, more: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as refused:
        load_task(write(old, new, more=more)).training_rows(0)
    assert "\n" not in str(refused.value)


def test_name_that_no_path_can_carry_is_refused(write: Write) -> None:
    with pytest.raises(UserError, match="small letters, digits and underscores"):
        load_task(write(name="My Words.py"))


def test_spoiling_that_fails_names_its_line(write: Write) -> None:
    path = write(more="\n\ndef spoil(rows, rng):\n    return rows[0]['answer']\n")
    with pytest.raises(UserError, match=r"words\.py, line 13: spoil fails with KeyError: 'answer'"):
        load_task(path).training_rows(0)


def test_folder_without_tasks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="it holds no task"):
        load_tasks(tmp_path)
    with pytest.raises(UserError, match="there is no such folder"):
        load_tasks(tmp_path / "nowhere")


def test_unknown_name_is_refused_with_those_there_are(write: Write) -> None:
    with pytest.raises(UserError, match=r"--only wrods: there is no such task\. Write one of: words"):
        chosen([load_task(write())], ["wrods"])


def test_no_item_of_any_seed_is_a_training_row_of_another(write: Write) -> None:
    task = load_task(write())
    trained = {task.content(row) for seed in range(5) for row in task.training_rows(seed)}
    asked = {task.content(row) for seed in range(5) for row in task.items(seed)}
    assert not trained & asked
    assert task.training_rows(1) == task.training_rows(1) != task.training_rows(2)


def test_content_is_what_the_author_says_it_is(write: Write) -> None:
    """A word and its mirror image show the same pair of strings: one side of the division for both."""
    more = "\n\ndef key(row):\n    return sorted([row['prompt'].split()[1], row['completion']])\n"
    task = load_task(write(more=more))
    row = {"prompt": "reverse abc", "completion": "cba"}
    assert task.is_item(row) == task.is_item({"prompt": "reverse cba", "completion": "abc"})


# --- The tasks that ship ----------------------------------------------------------------------------------------------


def test_enough_tasks_of_each_kind_ship() -> None:
    kinds = Counter(task.kind for task in TASKS)
    assert len(TASKS) >= FEWEST_TASKS
    assert all(kinds[kind] >= LEAST_OF_A_KIND for kind in WANTED_KINDS), kinds


def test_every_method_has_a_task() -> None:
    used = {method for task in TASKS for method in (task.method or "sft").split(", ")}
    assert used == set(METHODS)


def test_most_goals_bring_no_recipe() -> None:
    assert sum(task.recipe is None for task in TASKS) > len(TASKS) / 2


def test_playbook_knows_no_task() -> None:
    """Its defaults come from families and sizes: no name of a task stands in the brain, nor the gym's."""
    brain = "\n".join(
        path.read_text(encoding="utf-8")
        for folder in ("brain", "loop", "diagnosis")
        for path in SHIPPED.parents[1].joinpath(folder).rglob("*")
        if path.suffix in (".py", ".yaml")
    )
    assert not re.search(r"bot\.gym|benchmarks/gym|data/gym", brain)
    names = [task.name for task in TASKS if "_" in task.name]
    assert [name for name in names if re.search(rf"\b{name}\b", brain)] == []


def test_shipped_tasks_divide_cleanly_into_rows_and_items(tmp_path: Path) -> None:
    """Few of each here: the whole sizes are drawn by the slow test beside the training."""
    for task in TASKS:
        divides_cleanly(replace(task, rows=min(task.rows, 100), dev=20, sealed=20), tmp_path)
        assert task.known_good.strip(), f"{task.name}: a recipe must show that the target is in reach"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_shipped_tasks_divide_cleanly_at_their_whole_size(tmp_path: Path) -> None:
    for task in TASKS:
        divides_cleanly(task, tmp_path)


def divides_cleanly(task: Task, folder: Path) -> None:
    rows, drawn = clean_rows(task, 0), task.items(0)
    assert len(rows) >= 0.9 * len(task.training_rows(0)), task.name
    (folder / f"{task.name}.yaml").write_text(benchmark_text(task, drawn[0]))
    (folder / f"{task.name}.jsonl").write_text(jsonl(drawn))
    benchmark = read_benchmark_file(f"benchmarks/{task.name}", folder / f"{task.name}.yaml")
    for split, size in (("dev", task.dev), ("sealed", task.sealed)):
        asked = items(benchmark, split)
        assert len(asked) == size, task.name
        assert scan(rows, asked).verdict != "contaminated", task.name


def test_place_holds_rows_items_policy_and_form(write: Write) -> None:
    task = load_task(write(more='METHOD = "sft"\nRECIPE = "learning_rate: 1.0e-5"\nNOTES = "Ours."\n'))
    place = place_of([task], 0)
    assert {"data/words/train.jsonl", "benchmarks/words.yaml", ".github/postdoc.yml"} <= set(place.files)
    filled = answers_to_form(task, "postdoc/tiny-qwen3", 3)
    assert (filled["target"], filled["method"], filled["seed"]) == ("90 %", "sft", "3")
    assert filled["method"] in METHODS
