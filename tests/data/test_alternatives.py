"""Columns that nothing explains, and several answers to one question: the right one, or a question; never silence."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from bot.data.columns import map_columns, value_of
from bot.data.columns.mapping import ColumnMapping
from tests.data.mapped_shapes import features_of, mapped
from tests.data.pair_direction import verdicts
from tests.data.schema_scoring import SCHEMAS, UNSEEN, shapes

Row = dict[str, Any]
SYLLABLES = "ka lo mi re tu vo sa ne pi du gra sto bel fin hor".split()  # noqa: SIM905
SHAPES = shapes()
TEXTS = {name: shape for name, shape in SHAPES.items()
         if shape["method"] in ("sft", "distill", "dpo", "reward", "grpo", "classify")
         and (found := mapped(shape)) is not None and found.question is None}  # fmt: skip


def text(rng: random.Random, words: int = 9) -> str:
    """Words that no other text has."""
    return " ".join("".join(rng.choice(SYLLABLES) for _ in range(4)) for _ in range(words))


def rows(n: int, seed: int, make: Callable[[random.Random, int], Row]) -> list[Row]:
    rng = random.Random(seed)
    return [make(rng, at) for at in range(n)]


# --- Every column accounted for ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TEXTS)
def test_a_column_of_texts_that_nothing_explains_is_asked_about(name: str) -> None:
    shape, rng = TEXTS[name], random.Random(name)
    for value in (lambda: text(rng), lambda: [text(rng), text(rng)], lambda: [{"body": text(rng)}]):
        data = [{**row, "zorblat": value()} for row in shape["rows"]]
        found = map_columns(data, shape["method"], features_of(shape["columns"]))
        assert found.question is not None and "zorblat" in found.question.text


@pytest.mark.parametrize("name", TEXTS)
def test_what_is_known_beside_a_row_is_not_asked_about(name: str) -> None:
    shape = TEXTS[name]
    before = mapped(shape)
    assert before is not None
    taken = {column.lower() for column in shape["columns"]}
    known = {"row_id": "a7f3-11", "source_url": "https://example.org/a/b", "data_split": "train", "token_count": 31,
             "generator_model": "m-7b", "created_date": "2024-05-01", "content_hash": "9f2e77aa", "lang_code": "en",
             "annotation_notes": "checked twice by two people, and found to be good"}  # fmt: skip
    data = [{**row, **{key: value for key, value in known.items() if key not in taken}} for row in shape["rows"]]
    after = map_columns(data, shape["method"], features_of(shape["columns"]))
    assert after.expressions == before.expressions


def test_a_template_filled_in_is_not_asked_about_and_one_with_more_in_it_is() -> None:
    def row(rng: random.Random, at: int) -> Row:
        asked, said = text(rng), text(rng)
        return {"question": asked, "answer": said, "rendered": f"### You are asked:\n{asked}\n### You say:\n{said}"}

    data = rows(8, 1, row)
    assert map_columns(data, "sft").expressions == {"prompt": "question", "completion": "answer"}
    rng = random.Random(2)
    more = [{**one, "rendered": f"{text(rng, 30)} {one['rendered']}"} for one in data]
    found = map_columns(more, "sft")
    assert found.question is not None and "rendered" in found.question.text


@pytest.mark.parametrize("beside", ["Body", "passages", "context", "zorblat", "facts"])
def test_what_a_question_is_about_goes_into_it_or_is_asked_about(beside: str) -> None:
    data = rows(8, 3, lambda rng, _: {"ID": rng.random(), beside: text(rng), "Question": text(rng, 6), "Answer": 4.0})
    found = map_columns(data, "grpo")
    told = found.question.text if found.question is not None else found.expressions["prompt"]
    assert beside in told


def test_languages_are_asked_about_with_both_ways() -> None:
    data = rows(2, 4, lambda rng, at: {"en": text(rng), "fr": text(rng), "id": f"x{at}"})
    found = map_columns(data, "sft")
    assert found.question is not None
    assert found.question.answers == (
        "data_prompt_column: en and data_completion_column: fr",
        "data_prompt_column: fr and data_completion_column: en",
    )


def test_passages_for_a_retriever_are_no_preference() -> None:
    for several in (False, True):
        data = rows(6, 5, lambda rng, _: {"query": text(rng), "pos": [text(rng)] if several else text(rng),  # noqa: B023
                                          "neg": [text(rng)] * 2 if several else text(rng)})  # noqa: B023  # fmt: skip
        assert map_columns(data, "dpo").question is not None


IMAGE = {"bytes": b"\x89PNG1"}
SAID: dict[str, tuple[str, Callable[[random.Random, int], Row]]] = {
    "style": ("sft", lambda rng, at: {"prompt": f"text {at // 2} to rewrite", "style": ["formal", "terse"][at % 2],
                                      "response": text(rng)}),
    "aspect": ("classify", lambda rng, at: {"text": text(rng), "aspect": text(rng, 1), "label": at % 2}),
    "severe_toxic": ("classify", lambda rng, at: {"comment": text(rng), "toxic": at % 2, "severe_toxic": at // 2 % 2}),
    "right_image": ("vision", lambda rng, at: {"image": IMAGE, "right_image": IMAGE, "label": ["x", "y"][at % 2]}),
    "is_safe": ("sft", lambda rng, at: {"prompt": text(rng), "response": text(rng), "is_safe": at % 3 > 0}),
    "correct": ("distill", lambda rng, at: {"question": text(rng), "solution": text(rng), "correct": at % 2}),
    "task": ("sft", lambda rng, at: {"task": ["make it short please", "put it into rhyme"][at % 2], "input": text(rng),
                                     "output": text(rng)}),
    "context.sentences": ("sft", lambda rng, at: {"question": text(rng), "answer": text(rng, 2), "context": {
        "title": ["A", "B"], "sentences": [[text(rng)], [text(rng)]]}}),
    "normalized_text": ("speech", lambda rng, at: {"audio": {"array": [0.1], "sampling_rate": 16000},
                                                   "raw_text": f"{text(rng)}, {at}.", "normalized_text": text(rng)}),
    "score": ("classify", lambda rng, at: {"text": text(rng), "score": at * at * 7}),
    "target": ("classify", lambda rng, at: {"text": text(rng), "target": ["tax", "sea"][at % 2], "label": at // 2 % 3}),
    "reference_answer": ("grpo", lambda rng, at: {"prompt": text(rng), "reference_answer": text(rng, 60)}),
    "distractor": ("dpo", lambda rng, at: {"question": text(rng), "answer": text(rng), "distractor": text(rng)}),
}  # fmt: skip
"""What a question must name: method, and a row of the data."""


@pytest.mark.parametrize("name", SAID)
def test_what_changes_the_answer_is_asked_about(name: str) -> None:
    method, make = SAID[name]
    found = map_columns(rows(20, 7, make), method)
    assert found.question is not None and name in found.question.text


# --- The better of several answers ------------------------------------------------------------------------------------

Form = Callable[[str, str, bool, int], Row]
"""The better answer, the worse one, whether the better one stands first, the row's number -> columns."""


def _two(good: str, bad: str, first: bool, *names: str) -> Row:
    return dict(zip(names, (good, bad) if first else (bad, good), strict=True))


def _list(good: str, bad: str, first: bool) -> list[str]:
    return [good, bad] if first else [bad, good]


TOLD: dict[str, Form] = {
    "winner by letter": lambda g, b, f, _: {**_two(g, b, f, "answer_a", "answer_b"), "winner": "A" if f else "B"},
    "winner by model": lambda g, b, f, _: {**_two(g, b, f, "response_a", "response_b"),
                                           "winner": "model_a" if f else "model_b"},
    "loser by letter": lambda g, b, f, _: {**_two(g, b, f, "answer_a", "answer_b"), "loser": "B" if f else "A"},
    "numbered alike": lambda g, b, f, _: {**_two(g, b, f, "output_1", "output_2"), "preference": 1 if f else 2},
    "a score of each": lambda g, b, f, at: {**_two(g, b, f, "response_1", "response_2"),
                                            "score_1": 9 if f else at % 3, "score_2": at % 3 if f else 9},
    "a rank of each": lambda g, b, f, _: {**_two(g, b, f, "reply_a", "reply_b"), "rank_a": 1 if f else 2,
                                          "rank_b": 2 if f else 1},
    "scores in a list": lambda g, b, f, at: {"answers": _list(g, b, f), "scores": [70.5, at][:: 1 if f else -1]},
    "ranks in a list": lambda g, b, f, _: {"answers": _list(g, b, f), "ranks": [1, 2] if f else [2, 1]},
    "votes in objects": lambda g, b, f, at: {"answers": [{"text": one, "votes": 50 if one == g else at % 4, "user": "u"}
                                                         for one in _list(g, b, f)]},
    "lists in an object": lambda g, b, f, at: {"answers": {"text": _list(g, b, f), "score": [50, at % 4] if f else
                                                           [at % 4, 50]}},
    "number of the best": lambda g, b, f, _: {"responses": _list(g, b, f), "best": 0 if f else 1},
    "chosen and rejected": lambda g, b, f, _: {"chosen": g, "rejected": b},
    "correct and incorrect": lambda g, b, f, _: {"correct_answer": g, "incorrect_answer": b},
    "a score of each model": lambda g, b, f, at: {"gpt4_reply": g if f else b, "llama_reply": b if f else g,
                                                  "gpt4_score": 9 if f else at % 3, "llama_score": at % 3 if f else 9},
    "chosen names a column": lambda g, b, f, _: {**_two(g, b, f, "response_a", "response_b"),
                                                 "chosen": "response_a" if f else "response_b",
                                                 "rejected": "response_b" if f else "response_a"},
}  # fmt: skip
OPEN: dict[str, Form] = {
    "winner 1 or 0": lambda g, b, f, _: {**_two(g, b, f, "answer_a", "answer_b"), "winner": str(int(f))},
    "label 0 or 1": lambda g, b, f, _: {**_two(g, b, f, "response_a", "response_b"), "label": int(not f)},
    "a score where less is better": lambda g, b, f, at: {
        **_two(g, b, f, "response_a", "response_b"), "toxicity_score_a": at % 2 if f else 9,
        "toxicity_score_b": 9 if f else at % 2},
    "a ranking": lambda g, b, f, _: {"answers": [*_list(g, b, f), "no"], "ranking": [0, 1, 2] if f else [1, 2, 0]},
    "worse in words": lambda g, b, f, _: {**_two(g, b, f, "answer_a", "answer_b"),
                                          "verdict": "B is worse" if f else "A is worse"},
    "three of which one wins": lambda g, b, f, _: {**_two(g, b, f, "answer_a", "answer_b"), "answer_c": f"no {b}",
                                                   "winner": "A" if f else "B"},
    "nothing": lambda g, b, f, _: _two(g, b, f, "answer_a", "answer_b"),
    "nothing of a list": lambda g, b, f, _: {"responses": _list(g, b, f)},
    "two judges that differ": lambda g, b, f, at: {
        **_two(g, b, f, "response_a", "response_b"), "winner": "A" if f else "B", "score_a": at % 3, "score_b": 1.5},
    "two models": lambda g, b, f, _: {"gpt_response": g, "llama_response": b},
}  # fmt: skip


def table(form: Form, seed: int, words: int) -> tuple[list[Row], list[tuple[str, str]]]:
    """(rows, the better and the worse answer of each)."""
    rng = random.Random(seed)
    truth = [(f"{text(rng, words)} right", f"{text(rng, words)} wrong") for _ in range(10)]
    data = [{"id": f"r{at}", "question": text(rng), **form(good, bad, at % 3 > 0, at)}
            for at, (good, bad) in enumerate(truth)]  # fmt: skip
    return data, truth


def built(found: ColumnMapping, role: str, row: Row) -> Any:
    return value_of(found.expressions[role], row)


@pytest.mark.parametrize("name", [*TOLD, *OPEN])
@pytest.mark.parametrize("method", ["dpo", "reward", "sft", "distill"])
def test_the_better_answer_is_taken_or_asked_for(name: str, method: str) -> None:
    for words in (9, 1):
        data, truth = table((TOLD | OPEN)[name], len(name), words)
        found = map_columns(data, method)
        if name in OPEN:
            assert found.question is not None, found.expressions
            continue
        assert found.question is None, found.question
        for row, (good, bad) in zip(data, truth, strict=True):
            assert built(found, "chosen" if method in ("dpo", "reward") else "completion", row) == good
            assert method not in ("dpo", "reward") or built(found, "rejected", row) == bad


def test_one_letter_answers_with_a_winner_in_figures_are_asked_about() -> None:
    data = [{"question": "which?", "answer_a": "x", "answer_b": "y", "winner": "1"},
            {"question": "what?", "answer_a": "p", "answer_b": "q", "winner": "0"}]  # fmt: skip
    for method in ("dpo", "sft"):
        found = map_columns(data, method)
        assert found.question is not None and len(found.question.answers) == 2


def test_the_better_of_two_conversations_is_learned() -> None:
    def row(rng: random.Random, at: int) -> Row:
        asked = {"role": "user", "content": text(rng)}
        both = {
            f"conversation_{side}": [asked, {"role": "assistant", "content": f"{side} {text(rng)}"}] for side in "ab"
        }
        return {**both, "winner": f"model_{'ab'[at % 2]}"}

    data = rows(6, 6, row)
    found = map_columns(data, "sft")
    assert found.question is None
    assert [built(found, "messages", one)[-1]["content"][0] for one in data] == list("ababab")


@pytest.mark.parametrize("folder", [SCHEMAS, UNSEEN], ids=lambda folder: folder.name)
def test_pairs_point_the_way_that_the_rows_tell(folder: Any) -> None:
    told = {name: found for name, shape in shapes(folder).items() if "roles" in shape and (found := verdicts(shape))}
    assert len(told) >= 6
    assert all(all(found) for found in told.values()), told


def test_turned_pairs_would_be_told() -> None:
    shape = SHAPES["ranked-list"]
    assert verdicts(shape) and all(verdicts(shape))
    turned = {**shape, "transform": ["choose_by_score"], "also": []}
    assert not any(verdicts(turned))


# --- Lines that settle it ---------------------------------------------------------------------------------------------


def named(line: str) -> dict[str, str]:
    """Role -> expression of a line of recipe.yaml, or of several."""
    keys = [part if part.startswith("data_") else f"data_{part}" for part in line.split(" and data_")]
    return {key.partition(": ")[0][5:-7]: key.partition(": ")[2] for key in keys}


def unsettled(data: list[Row], method: str, features: Any, before: frozenset[str] = frozenset()) -> list[str]:
    """Lines of a question that lead to nothing but questions; each line may lead to one more."""
    asked = map_columns(data, method, features)
    bad = []
    for line in asked.question.answers if asked.question is not None else ():
        said = named(line)
        after = map_columns(data, method, features, said)
        if after.question is None:
            continue
        further = [map_columns(data, method, features, said | named(one)) for one in after.question.answers]
        bad += [line] if not further or any(one.question is not None for one in further) else []
    return bad


@pytest.mark.parametrize("name", [name for name, shape in SHAPES.items() if name not in TEXTS])
def test_each_line_of_a_question_about_a_shape_settles_it(name: str) -> None:
    shape = SHAPES[name]
    if shape["method"] not in ("kto",):
        assert unsettled(shape["rows"], shape["method"], features_of(shape["columns"])) == []


@pytest.mark.parametrize("name", OPEN)
@pytest.mark.parametrize("method", ["dpo", "sft"])
def test_each_line_of_a_question_about_answers_settles_it(name: str, method: str) -> None:
    data, _ = table(OPEN[name], 1, 9)
    asked = map_columns(data, method)
    assert asked.question is not None and asked.question.answers
    assert unsettled(data, method, None) == []
