"""How answers are found and judged: extraction, programs, instructions, tool calls."""

from __future__ import annotations

import json
from types import ModuleType
from typing import Any

import pytest

from bot.evaluation.benchmarks import BUNDLE
from tests.evaluation.test_bundle import loaded


@pytest.fixture(scope="module")
def extraction() -> ModuleType:
    return loaded(BUNDLE, "extraction")


@pytest.fixture(scope="module")
def code() -> ModuleType:
    return loaded(BUNDLE, "code_execution")


@pytest.fixture(scope="module")
def instructions() -> ModuleType:
    return loaded(BUNDLE, "instructions")


@pytest.fixture(scope="module")
def calls() -> ModuleType:
    return loaded(BUNDLE, "tool_calls")


# --- Extraction -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("take", "response", "found"),
    [
        ("whole", "  72 \n", "72"),
        ("answer_line", "So it is 5.\nANSWER: 72", "72"),
        ("answer_line", "ANSWER: 5\nno\n**Answer: 72**", "72"),
        ("answer_line", "the answer is 72", None),
        ("number", "3 apples and 1,234.50 pears", "1234.50"),
        ("number", "it costs $72.", "72"),
        ("number", "from 3 to -4", "-4"),
        ("number", "none", None),
        ("letter", "ANSWER: C", "C"),
        ("letter", "I think so.\nC) because", "C"),
        ("letter", r"so \boxed{D}", "D"),
        ("letter", "(B)", "B"),
        ("letter", "All of them", None),
        ("letter", "A dog is an animal", None),
        ("boxed", r"first \boxed{1}, then \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        ("boxed", r"\boxed{1", None),
        ("code", "Here:\n```python\nx = 1\n```\nand\n```\ny\n```", "x = 1\n"),
        ("code", "x = 1", "x = 1"),
    ],
)
def test_answer_is_found_by_its_rule(extraction: ModuleType, take: str, response: str, found: str | None) -> None:
    assert extraction.extracted(response, {"take": take}) == found


def test_numbers_are_equal_by_value_where_a_number_is_asked(extraction: ModuleType) -> None:
    sample = {"response": "so\nANSWER: 1,234.0", "reference": "1234", "finish": "stop"}
    rule = {"strict": {"take": "answer_line"}, "lenient": {"take": "number"}}
    assert extraction.score(sample, rule) == (1, 1)
    assert extraction.score(sample | {"response": "1,234.0"}, {"strict": {"take": "whole"}}) == (0, 0)
    assert extraction.score(sample, {"strict": {"take": "number"}}) == (1, 1)
    assert extraction.score(sample | {"response": "12340"}, {"strict": {"take": "number"}}) == (0, 0)


def test_answer_that_was_cut_is_not_strictly_right(extraction: ModuleType) -> None:
    sample = {"response": "ANSWER: 7", "reference": "7", "finish": "length"}
    assert extraction.score(sample, {"strict": {"take": "answer_line"}, "lenient": {"take": "number"}}) == (0, 1)


# --- Programs -------------------------------------------------------------------------------------------------------

ITEM = {
    "code": {
        "prefix": "import math\n\ndef area(r):\n    '''Of a circle.'''\n",
        "entry_point": "area",
        "test": "def check(f):\n    assert abs(f(1) - 3.1416) < 1e-3\n\ncheck(area)\n",
    }
}


@pytest.fixture
def may_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTDOC_RUN_CODE", "1")


def ran(code: ModuleType, response: str, finish: str = "stop", seconds: float = 10.0) -> tuple[float, float]:
    sample = {"response": response, "finish": finish}
    found = code.scores([sample], {"code": {"timeout_seconds": seconds}}, [ITEM])
    pair: tuple[float, float] = found[0]
    return pair


def test_program_passes_when_its_tests_do(code: ModuleType, may_run: None) -> None:
    whole = "```python\ndef area(r):\n    return math.pi * r * r\n```"
    assert ran(code, whole) == (1, 1), "what the prompt imports is there"
    assert ran(code, "    return math.pi * r * r\n") == (1, 1), "a base model goes on from the prompt"
    assert ran(code, whole, finish="length") == (0, 1)
    assert ran(code, "```\nprint()\n```\nor rather\n" + whole) == (0, 1), "the first block counts"
    assert ran(code, whole.replace("math.pi", "3")) == (0, 0)
    assert ran(code, "I cannot do that.") == (0, 0)


@pytest.mark.parametrize(
    "body",
    [
        "import sys; sys.exit(0)",
        "import os; os._exit(0)",
        "while True: pass",
        "x = [0] * 10**10",
        "open('big', 'wb').write(b'0' * 10**7)",
        "import os; os.kill(os.getpid(), 9)",
        "print('passed')",
        "def area(r): raise ValueError",
    ],
)
def test_program_that_leaves_its_tests_out_does_not_pass(code: ModuleType, may_run: None, body: str) -> None:
    after = "" if "def area" in body else "\ndef area(r): return 3.14159265 * r * r"
    response = f"```python\n{body}{after}\n```"
    expected = (1, 1) if body.startswith("print") else (0, 0)
    assert ran(code, response, seconds=2.0) == expected


def test_program_sees_neither_our_environment_nor_our_folder(
    code: ModuleType, may_run: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_OURS", "x")
    looks = (
        "```python\nimport os\ndef area(r):\n    assert not os.listdir('.') and 'SECRET_OF_OURS' not in os.environ\n"
        "    return 3.14159265 * r * r\n```"
    )
    assert ran(code, looks) == (1, 1)


def test_no_program_runs_unasked(code: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POSTDOC_RUN_CODE", raising=False)
    with pytest.raises(SystemExit) as caught:
        code.scores([{"response": "x", "finish": "stop"}], {}, [ITEM])
    assert caught.value.code == 2


# --- Instructions ---------------------------------------------------------------------------------------------------

FOLLOWED: list[tuple[str, dict[str, Any], str, str]] = [
    ("keywords:existence", {"keywords": ["moon", "Sun"]}, "Moon and sun.", "Moon."),
    ("keywords:frequency", {"keyword": "tea", "frequency": 2, "relation": "at least"}, "Tea, tea!", "Tea."),
    ("keywords:frequency", {"keyword": "tea", "frequency": 2, "relation": "less than"}, "Tea.", "Tea tea"),
    ("keywords:forbidden_words", {"forbidden_words": ["bad"]}, "badly done", "a bad thing"),
    (
        "keywords:letter_frequency",
        {"letter": "z", "let_frequency": 2, "let_relation": "at least"},
        "Zig zag",
        "zig",
    ),
    ("language:response_language", {"language": "de"}, "Das ist nicht der Hund und die Katze.", "This is the dog."),
    ("language:response_language", {"language": "ru"}, "Это собака.", "This is the dog."),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "at least"}, "One. Two!", "One, two."),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "one\n***\ntwo", "one\n***\ntwo\n***\nthree"),
    ("length_constraints:number_words", {"num_words": 3, "relation": "less than"}, "two words", "now three words"),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "then"},
        "First.\n\n'Then, more.",
        "First.\n\nMore.",
    ),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[name] in [place]", "[name]"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye.\nP.S. one more", "Bye."),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* a\n- b", "* a\n* b\n* c"),
    ("detectable_format:constrained_response", {}, "My answer is maybe.", "Maybe."),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*a* and **b**", "*a* alone"),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "SECTION", "num_sections": 2},
        "SECTION 1\nx\nSECTION 2\ny",
        "SECTION 1\nx",
    ),
    ("detectable_format:json_format", {}, '```json\n{"a": 1}\n```', "a: 1"),
    ("detectable_format:title", {}, "<<a title>>\ntext", "<< >>\ntext"),
    ("combination:two_responses", {}, "one\n******\ntwo", "one\n******\none"),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say it."}, "say it. There.", "There."),
    ("startend:end_checker", {"end_phrase": "The end."}, "So. the end.", "The end. Not."),
    ("startend:quotation", {}, '"all of it"', '"half" of it'),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "at least"},
        "VERY GOOD",
        "VERY good",
    ),
    ("change_case:english_capital", {}, "THIS IS THE END OF IT", "This is the end of it"),
    ("change_case:english_lowercase", {}, "this is the end of it", "This is the end of it"),
    ("punctuation:no_comma", {}, "no such thing", "well, one"),
]


@pytest.mark.parametrize(("kind", "arguments", "right", "wrong"), FOLLOWED)
def test_instruction_is_told_from_its_violation(
    instructions: ModuleType, kind: str, arguments: dict[str, Any], right: str, wrong: str
) -> None:
    assert instructions.follows(right, {"kind": kind, **arguments})
    assert not instructions.follows(wrong, {"kind": kind, **arguments})


def test_every_kind_of_instruction_is_tested(instructions: ModuleType) -> None:
    assert {kind for kind, _, _, _ in FOLLOWED} == set(instructions.KINDS) and len(instructions.KINDS) == 25


def test_prompt_counts_when_every_instruction_is_followed_and_lenient_forgives_a_preamble(
    instructions: ModuleType,
) -> None:
    wanted = [{"kind": "punctuation:no_comma"}, {"kind": "startend:quotation"}]
    found = instructions.scores(
        [{"response": '"good"'}, {"response": 'Sure, here it is:\n"good"'}, {"response": '"well, good"'}],
        {},
        [{"instructions": wanted}] * 3,
    )
    assert found == [(1, 1), (0, 1), (0, 0)]


# --- Tool calls -----------------------------------------------------------------------------------------------------

WANTED = [{"trip.book": {"city": ["Rome"], "nights": [3], "seat": ["window", ""], "paid": [True]}}]


@pytest.mark.parametrize(
    ("response", "strict", "lenient"),
    [
        ('{"name": "trip.book", "arguments": {"city": "Rome", "nights": 3, "paid": true}}', 1, 1),
        (
            '<tool_call>{"name": "trip.book", "arguments": {"city": "Rome", "nights": 3, "paid": true}}</tool_call>',
            1,
            1,
        ),
        ('[trip.book(city="Rome", nights=3.0, seat="window", paid=True)]', 1, 1),
        ('```json\n{"name": "trip.book", "parameters": {"city": "Rome", "nights": 3, "paid": true}}\n```', 1, 1),
        ('I will call trip.book(city="Rome", nights=3, paid=True) now.', 0, 1),
        ('trip.book(city="rome", nights=3, paid=True)', 0, 1),
        ('trip.book(city="Rome", nights="3", paid=True)', 0, 0),
        ('trip.book(city="Rome", nights=3, paid=1)', 0, 0),
        ('trip.book(city="Rome", nights=3)', 0, 0),
        ('trip.book(city="Rome", nights=3, paid=True, meal="none")', 0, 0),
        ('[trip.book(city="Rome", nights=3, paid=True), trip.book(city="Rome", nights=3, paid=True)]', 0, 0),
        ('trip.cancel(city="Rome", nights=3, paid=True)', 0, 0),
        ('trip.book("Rome", 3)', 0, 0),
        ("", 0, 0),
    ],
)
def test_exactly_the_right_call_counts(calls: ModuleType, response: str, strict: int, lenient: int) -> None:
    assert calls.score(response, json.dumps(WANTED), "stop") == (strict, lenient)


def test_reference_may_be_one_plain_call_with_nested_arguments(calls: ModuleType) -> None:
    wanted = json.dumps({"name": "f", "arguments": {"at": {"x": 1, "y": [2, 3]}}})
    assert calls.score('f(at={"x": 1, "y": [2, 3]})', wanted, "stop") == (1, 1)
    assert calls.score('f(at={"x": 1, "y": [3, 2]})', wanted, "stop") == (0, 0)
    assert calls.score('f(at={"x": 1, "y": [2, 3]})', wanted, "length") == (0, 1)
