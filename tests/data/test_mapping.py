"""Columns mapped to a method's rows: shapes of the Hub, readings that are asked about, and what expressions say."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bot.data.columns import Unreadable, as_turns, map_columns, value_of
from bot.data.columns.expressions import columns_of
from tests.data.mapped_shapes import answer, mapped, measured
from tests.data.schema_scoring import judge, shapes

SHAPES = shapes()
UNKNOWN_HERE = {"kto-strings", "kto-conversations", "kto-mixed-forms", "steps-with-labels", "images-and-turns"}
"""Shapes for methods that there are none of: unpaired preferences, rewards of steps, conversations about images."""


def test_shapes_of_the_hub_are_mapped_or_asked_about_and_never_misread() -> None:
    told = measured()
    assert told.wrong == ()
    known = told.n - len(UNKNOWN_HERE)
    assert known >= 60
    assert set(told.asked) >= UNKNOWN_HERE
    assert len(told.right) / known >= 0.95, told.lines()


@pytest.mark.parametrize("name", [name for name, shape in SHAPES.items() if name not in UNKNOWN_HERE])
def test_every_part_of_a_mapped_shape_says_something(name: str) -> None:
    mapping = mapped(SHAPES[name])
    assert mapping is not None
    for row in SHAPES[name]["rows"]:
        assert all(use.evidence for use in mapping.uses)
        assert mapping.question is not None or any(value_of(use.expression, row) for use in mapping.uses)


def test_misread_shape_would_be_told() -> None:
    shape = SHAPES["squad"]
    assert judge(shape, answer(shape)) == "right"
    turned = {**shape, "rows": shape["rows"], "roles": {"question": "completion"}, "also": []}
    assert judge(turned, answer(shape)) != "right"


def rows(n: int, **columns: Any) -> list[dict[str, Any]]:
    return [{name: value(i) if callable(value) else value for name, value in columns.items()} for i in range(n)]


WORDS = "stone river cloud lamp"


def test_evidence_tells_what_was_seen() -> None:
    data = rows(40, question=lambda i: f"what is {i} plus {i}?", answer=lambda i: f"they make {2 * i}\n#### {2 * i}",
                level=lambda i: ["easy", "hard"][i % 2])  # fmt: skip
    found = map_columns(data, "grpo")
    assert found.expressions == {"prompt": "question", "completion": "final(answer)"}
    assert "ends in a marked final answer" in found.uses[1].evidence and "100% unique" in found.uses[0].evidence
    classes = map_columns([{"text": f"{row['question']} {WORDS}", "label": row["level"]} for row in data], "classify")
    assert "2 distinct values: easy, hard" in classes.uses[1].evidence


@pytest.mark.parametrize(
    ("method", "data", "said"),
    [
        ("sft", rows(4, translation={"de": "ein Haus am See", "en": "a house by the lake"}), "translation.de"),
        ("sft", rows(4, alpha=f"some {WORDS}", beta=f"other {WORDS}"), "cannot tell which column"),
        ("sft", rows(4, text=WORDS, role=lambda i: ["prompter", "assistant"][i % 2], parent_id="x"), "single message"),
        ("classify", rows(9, text=WORDS, labels=lambda i: [i, 1]), "several classes"),
        ("classify", rows(30, text=WORDS, score=lambda i: i / 7), "not classes"),
        ("reward", rows(9, prompt=WORDS, response=f"a {WORDS}", score=lambda i: i % 5), "needs two answers"),
        ("dpo", rows(9, prompt=WORDS, response_a=f"a {WORDS}", response_b=f"b {WORDS}"), "no column says"),
        ("grpo", rows(9, prompt=f"write {WORDS}", solution="def f(): 1", tests="assert f()"), "tests of a program"),
        ("sft", rows(9, question=f"what? {WORDS}", answer="yes", image={"bytes": b"\x89PNG1"}), "reads texts alone"),
    ],
)
def test_what_the_data_leave_open_is_asked(method: str, data: list[dict[str, Any]], said: str) -> None:
    found = map_columns(data, method)
    assert found.question is not None and not found.uses
    assert said in found.question.sentence()


def test_answers_to_a_question_settle_it() -> None:
    data = rows(
        8, prompt=lambda i: f"{i} {WORDS}", response_a=lambda i: f"a{i} {WORDS}", response_b=lambda i: f"b{i} {WORDS}",
        preference=lambda i: i % 2,
    )  # fmt: skip
    asked = map_columns(data, "dpo")
    assert asked.question is not None
    line = asked.question.answers[0]
    assert line.startswith("data_chosen_column: by(preference, 1=response_a, 0=response_b)")
    settled = map_columns(data, "dpo", named={"chosen": line.partition(": ")[2]})
    said = settled.expressions
    assert [value_of(said[role], data[1]) for role in ("chosen", "rejected")] == [f"a1 {WORDS}", f"b1 {WORDS}"]
    assert [value_of(said[role], data[0]) for role in ("chosen", "rejected")] == [f"b0 {WORDS}", f"a0 {WORDS}"]


def test_one_answer_to_everything_is_taken_only_from_the_columns_of_trl() -> None:
    found = map_columns(rows(9, prompt=lambda i: f"{i} + 1", completion="the same"), "sft")
    assert found.expressions == {"prompt": "prompt", "completion": "completion"}
    assert "1 distinct value: the same" in found.uses[1].evidence
    assert "the same in every row" in found.notes[0]
    filler = map_columns(rows(9, question=lambda i: f"{i} + 1", answer="N/A"), "sft")
    assert filler.question is not None and not filler.uses


def test_scores_that_contradict_the_names_are_asked_about() -> None:
    data = rows(
        9, prompt=WORDS, chosen=lambda i: f"a{i}", rejected=lambda i: f"b{i}", score_chosen=1.0, score_rejected=4.0
    )
    found = map_columns(data, "dpo")
    assert found.question is not None and "lower score" in found.question.text


def test_private_texts_do_not_stand_in_the_evidence() -> None:
    found = map_columns(rows(3, question=lambda i: f"canary {i}", answer=lambda i: f"secret {i}"), "sft")
    assert not any(word in use.evidence for use in found.uses for word in ("canary", "secret"))


def test_mapping_is_the_same_for_the_same_rows() -> None:
    shape = SHAPES["squad"]
    assert mapped(shape) == mapped(shape)
    assert json.dumps(mapped(shape).as_dict())


# --- Expressions ------------------------------------------------------------------------------------------------------

RECORD: dict[str, Any] = {
    "a": "one", "b": " ", "n": 2, "choices": ["red", "green", "blue"], "arc": {"text": ["x", "y"], "label": ["1", "2"]},
    "answers": {"text": ["first", "second"]}, "spelled": '{"truth": "7"}',
    "list": [{"r": "low", "s": 1}, {"r": "top", "s": 9}],
    "winner": "model_b", "worked": "so\n#### 42", "boxed": "thus \\boxed{\\frac{1}{2}}.", "key": "2",
    "with.dot": "dotted",
}  # fmt: skip


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("a", "one"), ("with.dot", "dotted"), ("answers.text[0]", "first"), ("answers.text[-1]", "second"),
        ("answers.text[5]", None), ("spelled.truth", "7"), ("a + b?", "one"), ("a + b", None),
        ("a + answers.text[1]", "one\n\nsecond"), ("options(choices)", "A. red\nB. green\nC. blue"),
        ("pick(n, choices)", "blue"), ("pick1(n, choices)", "green"), ("pick(key, arc)", "y"), ("final(worked)", "42"),
        ("final(boxed)", "\\frac{1}{2}"), ("best(list.r, list.s)", "top"), ("worst(list.r, list.s)", "low"),
        ("by(winner, model_a=a, model_b=n)", 2), ("by(winner, model_a=a)", None), ("higher(a, 1, n, n)", 2),
        ("lower(a, 1, n, n)", "one"), ("higher(a, 2, n, n)", None), ("missing", None),
    ],
)  # fmt: skip
def test_expression_says(expression: str, value: Any) -> None:
    assert value_of(expression, RECORD) == value


@pytest.mark.parametrize("expression", ["nowhere", "run(a)", "a + nowhere", "pick(nowhere, choices)", "__import__(a)"])
def test_expression_that_is_none_is_refused(expression: str) -> None:
    with pytest.raises(Unreadable):
        columns_of(expression, list(RECORD))
    found = map_columns([RECORD], "sft", named={"prompt": expression})
    assert found.question is not None and not found.uses


# --- Conversations ----------------------------------------------------------------------------------------------------

TALK = [{"role": "user", "content": "hi there"}, {"role": "assistant", "content": "hello"}]


@pytest.mark.parametrize(
    "value",
    [
        TALK,
        [{"from": "human", "value": "hi there"}, {"from": "gpt", "value": "hello"}],
        {"role": ["user", "assistant"], "content": ["hi there", "hello"]},
        {"messages": TALK},
        [{"user": "hi there", "assistant": "hello"}],
        ["hi there", "hello"],
        json.dumps(TALK),
        "### Human: hi there### Assistant: hello",
        "\n\nHuman: hi there\n\nAssistant: hello",
        "USER: hi there\nASSISTANT: hello<|endoftext|>",
        "<s>[INST] hi there [/INST] hello </s>",
        "<|im_start|>user\nhi there<|im_end|>\n<|im_start|>assistant\nhello<|im_end|>",
        "<start_of_turn>user\nhi there<end_of_turn>\n<start_of_turn>model\nhello<end_of_turn>",
        [{"role": "user", "content": [{"type": "text", "text": "hi there"}]}, TALK[1]],
    ],
)
def test_conversation_is_read_in_each_form(value: Any) -> None:
    assert as_turns(value) == TALK


@pytest.mark.parametrize("value", ["hi there", "", [], {}, [{"role": "narrator", "content": "x"}], [1, 2], None, 3])
def test_what_is_no_conversation_is_not_taken_for_one(value: Any) -> None:
    assert as_turns(value) is None
