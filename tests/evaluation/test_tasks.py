"""The practice tasks' split, and the proof that the tiny base's pretraining never shows a held-out item."""

from __future__ import annotations

import functools
import itertools
import random
import re

import pytest

from bot.evaluation.tasks import SPLITS, TASKS, examples, held_out, is_held_out, shows_held_out, split_of, training_rows
from bot.practice.tiny_base import Configuration, chat_prompt, pretraining_rows

SEEDS = range(8)
ALL_TASKS = sorted(TASKS)


@pytest.mark.parametrize("task", ALL_TASKS)
def test_splits_of_different_seeds_share_no_prompt(task: str) -> None:
    drawn = {split: {item.prompt for seed in SEEDS for item in held_out(task, split, 100, seed)} for split in SPLITS}
    trained = {row["prompt"] for seed in SEEDS for row in training_rows(task, 400, seed)}
    assert not drawn["dev"] & drawn["sealed"]
    assert not (drawn["dev"] | drawn["sealed"]) & trained


@pytest.mark.parametrize("task", ALL_TASKS)
def test_same_seed_draws_same_items_and_another_seed_draws_others(task: str) -> None:
    assert held_out(task, "dev", 50, 3) == held_out(task, "dev", 50, 3)
    assert held_out(task, "dev", 50, 3) != held_out(task, "dev", 50, 4)
    assert training_rows(task, 50, 3) == training_rows(task, 50, 3)


@pytest.mark.parametrize("task", ALL_TASKS)
def test_items_are_distinct_and_about_a_tenth_of_all_contents_is_held_out_each(task: str) -> None:
    prompts = [item.prompt for item in held_out(task, "sealed", 200, 0)]
    assert len(set(prompts)) == 200
    rng = random.Random(5)
    contents = {TASKS[task].read(TASKS[task].draw(rng)).content for _ in range(3000)}
    shares = {split: sum(split_of(task, content) == split for content in contents) / len(contents) for split in SPLITS}
    assert all(0.06 < share < 0.14 for share in shares.values()), shares


def test_unknown_split_is_refused() -> None:
    with pytest.raises(ValueError, match="held-out splits are dev and sealed"):
        held_out("reverse", "train", 5, 0)


@pytest.mark.parametrize(
    ("task", "prompt", "reference"),
    [
        ("reverse", r"reverse (\w+)", lambda word: word[::-1]),
        ("upper", r"upper (\w+)", str.upper),
        ("last", r"last of (.+)", lambda words: words.split()[-1]),
        ("max", r"max of (.+)", lambda numbers: str(max(map(int, numbers.split())))),
        ("sort", r"sort (\w+)", lambda word: "".join(sorted(word))),
        ("dedup", r"dedup (\w+)", lambda word: "".join(letter for letter, _ in itertools.groupby(word))),
        ("json", r"json (.+)", lambda pair: '{{"{}": {}}}'.format(*pair.split())),
        ("count", r"count (.+)", lambda text: str(text.split(" in ")[1].count(text[0]))),
    ],
)
def test_reference_is_the_right_answer(task: str, prompt: str, reference) -> None:
    for item in held_out(task, "dev", 100, 0):
        match = re.fullmatch(prompt, item.prompt)
        assert match and reference(match[1]) == item.reference


@functools.cache
def held_out_items() -> list[tuple[str, str, str]]:
    """(prompt, input, reference) of the items that any of several seeds draws, for every task and split."""
    return [
        (item.prompt, re.sub(r"^\w+ (of )?", "", item.prompt), item.reference)
        for task in ALL_TASKS
        for split in SPLITS
        for seed in SEEDS
        for item in held_out(task, split, 200, seed)
    ]


def leaks(rows: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Rows that show a held-out item: its prompt, or its input together with its answer, in whatever notation."""
    items = held_out_items()
    prompts = {prompt for prompt, _, _ in items}
    pairs = {frozenset((text, reference)) for _, text, reference in items}
    found = []
    for prompt, answer in rows:
        question = re.sub(r"<\|\w+\|>", "", prompt)
        shown = {question.rstrip("/|> "), re.sub(r"^\w+ (of )?", "", question)}
        said = {answer, answer.removeprefix("The answer is ")}
        shows_pair = any(frozenset((left, right)) in pairs for left in shown for right in said)
        if question in prompts or answer in prompts or shows_pair:
            found.append((prompt, answer))
    return found


@pytest.mark.slow
def test_pretraining_stream_shows_no_held_out_item_in_any_form() -> None:
    configuration = Configuration()
    stream = pretraining_rows(configuration.seed)
    rows = [next(stream) for _ in range(configuration.steps * configuration.batch_size)]
    assert len(rows) == 64_000
    kinds = {re.sub(r"[^/|> <]", "", prompt)[:1] for prompt, _ in rows}
    assert kinds >= {"<", "/", "|", " "}, "every surface form is in the stream"
    assert leaks(rows) == []


def test_leak_check_notices_both_surface_forms() -> None:
    reverse = held_out("reverse", "dev", 1, 0)[0]
    word = reverse.prompt.removeprefix("reverse ")
    last = held_out("last", "sealed", 1, 2)[0]
    planted = [
        (f"{word}|", reverse.reference),
        (f"{reverse.reference}|", word),
        (chat_prompt(last.prompt), "hm, ok"),
        (f"{last.content}>", last.reference),
        (chat_prompt(f"upper {word}"), f"The answer is {reverse.reference}"),
    ]
    assert leaks(planted) == planted


@pytest.mark.parametrize("task", ALL_TASKS)
def test_held_out_pair_is_recognised_in_either_order(task: str) -> None:
    for _, text, reference in [item for item in held_out_items() if item[0].startswith(task)][:200]:
        assert shows_held_out(text, reference) and shows_held_out(reference, text)


def test_mirror_images_belong_to_one_split() -> None:
    for example in itertools.islice(examples("reverse", "dev", 0), 50):
        word = example.prompt.removeprefix("reverse ")
        assert is_held_out("reverse", min(word, word[::-1]))
