"""Tasks as a repository: the benchmark that fits a task's rows, the policy, the models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from bot.conversation.policy import read_policy
from bot.errors import UserError
from bot.evaluation.benchmark_file import read_benchmark_file
from bot.gym.bases import base_name, models_of, teacher_name
from bot.gym.place import answers_to_form, benchmark_text, clean_rows, jsonl, policy
from bot.gym.task_file import MOST_RUNS, load_task
from bot.practice.warm import Warm

Write = Callable[..., Path]
PAIR = '{"prompt": word, "chosen": "a", "rejected": "b"}'


@pytest.mark.parametrize(
    ("row", "more", "engine", "metric"),
    [
        ('{"prompt": word, "completion": "a"}', "", "generate", "exact_match"),
        (PAIR, "", "generate", "exact_match"),
        (PAIR, 'METRIC = "pairwise_accuracy"', "pairs", "pairwise_accuracy"),
        ('{"text": word, "label": "a"}', "", "classify", "accuracy"),
        ('{"text": word, "label": "a"}', 'METRIC = "macro_f1"', "classify", "macro_f1"),
        ('{"text": word}', 'METRIC = "bits_per_byte"', "likelihood", "bits_per_byte"),
        ('{"image": word, "label": "a"}', "", "vision", "accuracy"),
        ('{"audio": word, "text": "a"}', "", "speech", "wer"),
    ],
)  # fmt: skip
def test_benchmark_is_the_one_that_reads_such_rows(
    write: Write, tmp_path: Path, row: str, more: str, engine: str, metric: str
) -> None:
    task = load_task(write('{"prompt": f"reverse {word}", "completion": word[::-1]}', row, more=more + "\n"))
    drawn = task.items(0)
    (tmp_path / "words.yaml").write_text(benchmark_text(task, drawn[0]))
    (tmp_path / "words.jsonl").write_text(jsonl(drawn))
    benchmark = read_benchmark_file("words", tmp_path / "words.yaml")
    assert (benchmark.configuration["engine"], benchmark.metric) == (engine, metric)
    assert answers_to_form(task, "postdoc/tiny-qwen3", 0)["metric"] == metric


def test_metric_that_reads_no_such_rows_is_refused(write: Write) -> None:
    task = load_task(write(more='METRIC = "wer"\n'))
    with pytest.raises(UserError, match=r"METRIC wer is not for such rows\. Write one of: exact_match"):
        benchmark_text(task, task.items(0)[0])


def test_keys_of_the_benchmark_are_the_authors(write: Write) -> None:
    task = load_task(write(more='BENCHMARK = {"generation": {"max_gen_toks": 8}, "fresh": {"n": 5}}\n'))
    values = yaml.safe_load(benchmark_text(task, task.items(0)[0]))
    assert values["generation"] == {"max_gen_toks": 8, "until": [], "do_sample": False}
    assert values["fresh"] == {"n": 5}


def test_target_is_said_in_the_metrics_unit(write: Write) -> None:
    row = ('{"prompt": f"reverse {word}", "completion": word[::-1]}', '{"text": word}')
    task = load_task(write(*row, more="TARGET = 2.3\n"))
    assert answers_to_form(task, "postdoc/tiny-gpt2", 0)["target"] == "2.3"
    assert answers_to_form(load_task(write()), "postdoc/tiny-qwen3", 0)["target"] == "90 %"


def test_policy_grants_what_a_goal_asks_for() -> None:
    granted, problems = read_policy(policy().encode())
    assert problems == [] and granted is not None
    assert granted.consent.runs == granted.budget.runs == MOST_RUNS


def test_rows_that_hold_the_items_are_refused_in_one_line(write: Write) -> None:
    """Eight words in a row that a row and an item share are what the contamination scan looks for."""
    row = ('{"prompt": f"reverse {word}", "completion": word[::-1]}',
           '{"prompt": "k" + word[:1] + " one two three four five six seven " + word, "completion": word}')  # fmt: skip
    more = "\n\ndef spoil(rows, rng):\n    return [dict(row) for row in ITEMS] * 3\n"
    path = write(*row, more=more)
    drawn = load_task(path).items(0)
    path.write_text(path.read_text() + f"\nITEMS = {drawn!r}\n")
    with pytest.raises(UserError, match="training rows hold items of the benchmark"):
        clean_rows(load_task(path), 0)


def test_base_model_may_be_a_folder_beside_the_task(write: Write, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    task = load_task(write(more='BASE_MODEL = "mine"\n'))
    assert base_name(task) == "gym/mine"
    assert models_of(task, Warm(())) == {"gym/mine": folder.resolve()}
    with pytest.raises(UserError, match=r"there is no base model `theirs`\. Write one of: postdoc/tiny-qwen3"):
        models_of(load_task(write(more='BASE_MODEL = "theirs"\n')), Warm(()))


def test_prepared_models_have_names_of_their_own(write: Write) -> None:
    more = '\n\ndef draw_first(rng):\n    return draw(rng)\n\n\nTEACHER = {"method": "sft", "recipe": "max_steps: 5"}\n'
    task = load_task(write(more=more + "FIRST = TEACHER\n"))
    assert (base_name(task), teacher_name(task)) == ("gym/words-base", "gym/words-teacher")
