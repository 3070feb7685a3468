"""The schema shapes themselves: whole, cited, of many kinds; and the scoring, which has to be able to fail."""

import re
from collections import Counter

import pytest

from tests.data.schema_scoring import (
    FRESH,
    LATE,
    LATEST,
    METHODS,
    ROLES,
    SCHEMAS,
    TRANSFORMS,
    UNSEEN,
    judge,
    score,
    shapes,
)

SHAPES = shapes()
NEW = shapes(UNSEEN)
LATER = shapes(FRESH)
LATE_ONES = shapes(LATE)
LATEST_ONES = shapes(LATEST)
EVERY = {**SHAPES, **NEW, **LATER, **LATE_ONES, **LATEST_ONES}


def test_there_are_enough_shapes_of_every_kind():
    assert len(SHAPES) >= 100
    assert set(Counter(shape["method"] for shape in SHAPES.values())) == METHODS
    used = {step for shape in SHAPES.values() for step in shape.get("transform", ())}
    assert used >= TRANSFORMS - {"to_messages", "audio_array"}
    assert sum("ask" in shape for shape in SHAPES.values()) >= 12


def test_no_shape_is_there_twice():
    assert len(EVERY) == sum(map(len, (SHAPES, NEW, LATER, LATE_ONES, LATEST_ONES)))
    forms = [(tuple(sorted(shape["columns"].items())), shape["method"], shape["dataset"]) for shape in EVERY.values()]
    assert len(set(forms)) == len(forms)


@pytest.mark.parametrize(
    ("known", "new"),
    [
        (SHAPES, NEW),
        ({**SHAPES, **NEW}, LATER),
        ({**SHAPES, **NEW, **LATER}, LATE_ONES),
        ({**SHAPES, **NEW, **LATER, **LATE_ONES}, LATEST_ONES),
    ],
    ids=["unseen", "fresh", "late", "latest"],
)
def test_no_later_shape_is_known_under_another_dataset(known, new):
    forms = {(tuple(sorted(shape["columns"].items())), shape["method"]) for shape in known.values()}
    assert not [
        name for name, shape in new.items() if (tuple(sorted(shape["columns"].items())), shape["method"]) in forms
    ]
    assert not {shape["dataset"] for shape in new.values()} & {shape["dataset"] for shape in known.values()}


def test_the_unseen_shapes_are_enough_and_many_have_rows_that_tell():
    assert len(NEW) >= 45
    assert sum(len(shape["rows"]) >= 6 for shape in NEW.values()) >= 15
    assert sum("ask" in shape for shape in NEW.values()) >= 8


def test_the_fresh_shapes_are_a_typical_mix_with_rows_that_tell():
    mix = Counter({"dpo": "preferences", "reward": "preferences"}.get(s["method"], s["method"]) for s in LATER.values())
    assert mix == {
        "sft": 12,
        "preferences": 6,
        "classify": 6,
        "grpo": 4,
        "vision": 4,
        "pretrain": 3,
        "speech": 3,
        "distill": 2,
    }
    assert all(len(shape["rows"]) >= 3 for shape in LATER.values())
    assert sum(len(shape["rows"]) >= 8 for shape in LATER.values()) >= 20
    assert any("ask" in shape for shape in LATER.values())


@pytest.mark.parametrize("new", [LATE_ONES, LATEST_ONES], ids=["late", "latest"])
def test_the_late_shapes_are_forty_of_what_texts_are_trained_for(new):
    mix = Counter({"dpo": "preferences", "reward": "preferences"}.get(s["method"], s["method"]) for s in new.values())
    assert mix == {"sft": 16, "preferences": 8, "grpo": 8, "classify": 8}
    assert all(len(shape["rows"]) >= 3 for shape in new.values())
    assert sum(len(shape["rows"]) >= 8 for shape in new.values()) >= 15
    assert 3 <= sum("ask" in shape for shape in new.values()) <= 8


@pytest.mark.parametrize("name", EVERY)
def test_a_shape_is_whole_and_cited(name):
    shape = EVERY[name]
    assert re.fullmatch(r"[\w.-]+/[\w.-]+", shape["dataset"])
    assert re.match(r"https://(www\.)?(huggingface\.co|hf\.global-rail\.com)/datasets/", shape["card"])
    assert f"/datasets/{shape['dataset']}" in shape["card"]
    assert shape["method"] in METHODS
    assert len(shape["rows"]) == 2 if name in SHAPES else 2 <= len(shape["rows"]) <= 12
    assert all(set(row) == set(shape["columns"]) for row in shape["rows"])
    assert ("ask" in shape) != ("roles" in shape)
    for reading in [shape, *shape.get("also", ())] if "roles" in shape else []:
        assert set(reading["roles"].values()) <= ROLES
        assert set(reading["transform"]) <= TRANSFORMS
        assert all(_leads_somewhere(shape["rows"][0], column) for column in reading["roles"])


def _leads_somewhere(row, column):
    name, _, field = column.partition(".")
    if name not in row or not field:
        return name in row
    inside = row[name]
    return field in (inside[0] if isinstance(inside, list) else inside)


@pytest.mark.parametrize("folder", [SCHEMAS, UNSEEN, FRESH, LATE, LATEST], ids=lambda folder: folder.name)
def test_the_right_answers_are_right_and_silence_is_asking(folder):
    known = shapes(folder)
    told = score({name: {"ask": shape["ask"]} if "ask" in shape else shape for name, shape in known.items()}, folder)
    assert (len(told.right), told.asked, told.wrong) == (len(known), (), ())
    silent = score({}, folder)
    assert len(silent.asked) == sum("roles" in shape for shape in known.values())
    assert not silent.wrong


def test_a_mapping_where_a_person_must_choose_is_silently_wrong():
    told = score({"translation-dictionary": {"roles": {"translation.de": "prompt", "translation.en": "completion"}}})
    assert [name for name, _ in told.wrong] == ["translation-dictionary"]


def test_swapped_columns_missing_ones_and_missing_transformations_are_wrong():
    shape = SHAPES["two-responses-winner-by-name"]
    assert judge(shape, shape) == "right"
    swapped = {**shape["roles"], "response_a": "rejected", "response_b": "chosen"}
    assert judge(shape, {"roles": swapped}).startswith("took")
    assert judge(shape, {"roles": {"prompt": "prompt"}}).startswith("took")
    assert judge(shape, {"roles": shape["roles"], "transform": []}).startswith("transforms")
    assert judge(shape, {"roles": {**shape["roles"], "question_id": "ignore"}}) == "right"


def test_the_order_of_joined_columns_and_what_is_implied_are_not_judged():
    shape = SHAPES["squad"]
    turned = {"question": "prompt", "context": "prompt", "answers.text": "completion"}
    assert judge(shape, {"roles": turned, "transform": []}) == "right"


def test_another_good_reading_is_right():
    shape = SHAPES["question-answer-and-text"]
    assert judge(shape, {"roles": {"text": "text"}, "transform": []}) == "right"
