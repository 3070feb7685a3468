"""What stands beside a question and its answer: of several models, predicted, begun, tested, explained; the right
mapping where it is plain, and a question that names what to write where it is not."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from bot.data.columns import map_columns, value_of
from tests.data.test_alternatives import Row, named, rows, text

IMAGE = {"bytes": b"\x89PNG1"}
Make = Callable[[random.Random, int], Row]


def cases(at: int) -> list[Row]:
    return [{"input": f"{at}", "output": f"{at + 1}", "type": "stdin_stdout"}]


def begun(rng: random.Random, _: int) -> Row:
    start, good, bad = text(rng), text(rng), text(rng)
    return {"prompt": text(rng), "initial_steps": start, "chosen": good, "rejected": bad,
            "full_chosen": f"{start} {good}", "full_rejected": f"{start} {bad}"}  # fmt: skip


def made(rng: random.Random, _: int) -> Row:
    concepts = text(rng, 2)
    return {"concepts": [concepts], "prompt": f"### Concepts:\n{concepts}\n\n### Instruction:\n",
            "instruction": text(rng), "response": text(rng)}  # fmt: skip


def conversation(rng: random.Random, _: int) -> Row:
    turns = [{"role": "user", "content": text(rng)}, {"role": "assistant", "content": text(rng, 40)}]
    return {"messages": turns, "answer": text(rng, 1)}


ASKED: dict[str, tuple[str, Make]] = {
    "deepseek_attempt": ("sft", lambda r, at: {
        "question": text(r), "solution": text(r, 1), "gemini_attempt": text(r, 5), "deepseek_attempt": text(r, 5),
        "gemini_thinking": text(r), "deepseek_thinking": text(r)}),
    "check.test_cases": ("grpo", lambda r, at: {"prompt": text(r), "gold_solution": text(r, 3), "check": {
        "language": "python", "test_cases": cases(at)}}),
    "public_test_cases": ("grpo", lambda r, at: {
        "prompt": text(r), "solution": text(r, 3), "public_test_cases": f'[{{"input": "{at}", "output": "1"}}]'}),
    "initial_steps": ("dpo", begun),
    "target": ("grpo", lambda r, at: {"problem": text(r), "answer": str(at), "target": str(at + 1)}),
    "answer": ("grpo", conversation),
    "gold_label": ("classify", lambda r, at: {"text": text(r), "label": "xy"[at % 2], "gold_label": "yx"[at % 2]}),
    "verdict": ("sft", lambda r, at: {"prompt": text(r), "response": text(r),
                                      "verdict": ["correct", "incorrect"][at % 2]}),
    "classification of images": ("vision", lambda r, at: {"image": IMAGE, "question": text(r), "answer": "yn"[at % 2]}),
    "text_de": ("speech", lambda r, at: {"audio": {"array": [0.1], "sampling_rate": 16000}, "text_de": text(r),
                                         "text_en": text(r)}),
}  # fmt: skip
"""What a question must name: method, and a row of the data."""


@pytest.mark.parametrize("name", ASKED)
def test_what_stands_beside_is_asked_about(name: str) -> None:
    method, make = ASKED[name]
    found = map_columns(rows(12, 3, make), method)
    assert found.question is not None and name in found.question.sentence()


@pytest.mark.parametrize("name", ["deepseek_attempt", "initial_steps", "target", "gold_label", "text_de"])
def test_each_line_about_what_stands_beside_settles_it(name: str) -> None:
    method, make = ASKED[name]
    data = rows(12, 3, make)
    asked = map_columns(data, method)
    assert asked.question is not None and len(asked.question.answers) >= 2
    for line in asked.question.answers:
        assert map_columns(data, method, None, named(line)).question is None, line


QUOTES = {"title": ["a title"], "extract": ["nobody said any of this so far"]}
PLAIN: dict[str, tuple[str, Make, dict[str, str]]] = {
    "thoughts": ("sft", lambda r, _: {"Question": text(r), "Complex_CoT": text(r), "Response": text(r)},
                 {"prompt": "Question", "completion": "Response"}),
    "what a level means": ("sft", lambda r, at: {
        "prompt": text(r), "task_type": ["one sum", "two sums"][at % 2], "task_type_description": text(r),
        "response": text(r)}, {"prompt": "prompt", "completion": "response"}),
    "the prompt that made the instruction": ("sft", made, {"prompt": "instruction", "completion": "response"}),
    "a title beside a summary": ("sft", lambda r, at: {"text": text(r, 20), "summary": text(r), "title": text(r)},
                                 {"prompt": "text", "completion": "summary"}),
    "passages in objects": ("sft", lambda r, at: {
        "query": text(r), "passages": {"chosen": [0, 1], "passage_text": [text(r), text(r)]}, "answer": text(r)},
        {"prompt": "passages.passage_text + query", "completion": "answer"}),
    "who asks and who answers": ("sft", lambda r, at: {"Patient": text(r, 12), "Doctor": text(r)},
                                 {"prompt": "Patient", "completion": "Doctor"}),
    "SQL under query": ("sft", lambda r, at: {"query": f"SELECT a FROM t WHERE b = {at}", "question": text(r)},
                        {"prompt": "question", "completion": "query"}),
    "content after thoughts": ("sft", lambda r, at: {"prompt": text(r), "reasoning_content": text(r),
                                                     "content": text(r)},
                               {"prompt": "prompt", "completion": "content"}),
    "several answers of one teacher": ("distill", lambda r, at: {
        "question": text(r), **{f"r1_solution_{at}": text(r) for at in (1, 2, 3)}},
        {"prompt": "question", "completion": "r1_solution_1"}),
    "a page that is drawn": ("sft", lambda r, at: {"image": IMAGE, "html": f"<html>{text(r)}</html>",
                                                   "description": text(r)},
                             {"prompt": "description", "completion": "html"}),
    "a pattern filled in elsewhere": ("grpo", lambda r, at: {
        "messages": [{"role": "user", "content": text(r)}], "ground_truth": str(at),
        "constraint": f"{text(r, 4)} at least {{N}} words"}, {"prompt": "messages", "completion": "ground_truth"}),
    "what was expected": ("grpo", lambda r, at: {"problem": text(r), "output": str(at + 1), "expected": str(at)},
                          {"prompt": "problem", "completion": "expected"}),
    "whether the prediction was right": ("grpo", lambda r, at: {
        "question": text(r), "prediction": str(at % 3), "answer": str(at), "is_correct": at % 2 > 0},
        {"prompt": "question", "completion": "answer"}),
    "a predicted class": ("classify", lambda r, at: {"text": text(r), "true_label": "xy"[at % 2],
                                                     "predicted_label": "xy"[at // 2 % 2]},
                          {"text": "text", "label": "true_label"}),
    "quotes of each answer": ("reward", lambda r, at: {
        "question": text(r), "answer_0": text(r), "answer_1": text(r), "quotes_0": QUOTES, "quotes_1": QUOTES,
        "score_0": 0.5 - at % 2, "score_1": at % 2 - 0.5},
        {"prompt": "question", "chosen": "higher(answer_0, score_0, answer_1, score_1)",
         "rejected": "lower(answer_0, score_0, answer_1, score_1)"}),
}  # fmt: skip
"""Method, a row of the data, and the mapping."""


@pytest.mark.parametrize("name", PLAIN)
def test_what_is_plain_is_not_asked_about(name: str) -> None:
    method, make, said = PLAIN[name]
    data = rows(12, 5, make)
    found = map_columns(data, method)
    assert found.question is None, found.question
    assert found.expressions == said
    assert all(value_of(one, row) for one in said.values() for row in data)


def test_an_image_that_is_asked_about_is_no_drawing() -> None:
    data = rows(6, 1, lambda r, _: {"image": IMAGE, "description": "turn this picture into a page",
                                    "html": f"<html>{text(r)}</html>"})  # fmt: skip
    found = map_columns(data, "sft")
    assert found.question is not None and "reads texts alone" in found.question.text


def test_questions_differing_from_what_was_asked_first_are_not_their_headings() -> None:
    data = rows(6, 1, lambda r, _: {"prompt": text(r), "instruction": text(r), "response": text(r)})
    assert map_columns(data, "sft").question is not None


@pytest.mark.parametrize("beside", [{"score": 1}, {"winner": "1"}])
def test_numbered_answers_that_are_judged_are_not_the_first_one(beside: dict[str, Any]) -> None:
    data = rows(6, 1, lambda r, at: {"question": text(r), "answer_1": text(r), "answer_2": text(r), **beside})
    assert map_columns(data, "sft").question is not None


def test_a_text_that_announces_its_input_is_asked_with_it() -> None:
    data = rows(6, 1, lambda r, _: {"prompt": f"{text(r)}\n### Input:\n", "input": text(r), "output": text(r)})
    found = map_columns(data, "sft")
    said = found.expressions.get("prompt", "")
    assert found.question is not None or ("prompt" in said and "input" in said)
