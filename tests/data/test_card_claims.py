"""Lines that a person writes into a card, and that the data deny."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.data.card import dataset_card
from bot.data.card_claims import Measured, contradictions
from tests.data.test_card import BUILD

CARD = dataset_card(BUILD, licence="cc-by-nc-4.0", languages=["de"])
DATA = Measured(
    counts={"training rows": 50, "validation rows": 5},
    size="n<1K",
    licence="cc-by-nc-4.0",
    languages={"de": 0.9, "en": 0.1},
    sensitive={"an email address": 3},
    overlap=2,
    base_model="postdoc/tiny-qwen3",
    results={"exact_match": 41.5},
)


def found(line: str, measured: Measured = DATA) -> list[str]:
    return [each.about for each in contradictions(CARD, f"{CARD}\n{line}\n", measured)]


@pytest.mark.parametrize(
    ("line", "about"),
    [
        ("It holds 10,000 training rows.", ["rows"]),
        ("About 4000 examples were collected.", ["rows"]),
        ("It holds 50 training rows and 5 validation rows.", []),
        ("There is no personal data in it.", ["personal data"]),
        ("All e-mail addresses were removed: the data contains no PII.", ["personal data"]),
        ("Everything is anonymised.", ["personal data"]),
        ("The personal data in it was looked at.", []),
        ("The data is licensed under the MIT License.", ["licence"]),
        ("Licence: `apache-2.0`", ["licence"]),
        ("It is licensed under cc-by-nc-4.0.", []),
        ("Read the licence before you use it.", []),
        ("All rows are in German.", ["languages"]),
        ("Most rows are in German.", []),
        ("The conversations are in French.", ["languages"]),
        ("There is no French in it.", []),
        ("The training data has no overlap with the benchmark.", ["overlap"]),
        ("It was decontaminated.", ["overlap"]),
        ("Overlap was looked for.", []),
        ("It reaches an exact match of 97 %.", ["result"]),
        ("It reaches an exact_match of 41.5 %.", []),
        ("Rows were written by three people in a week.", []),
    ],
)
def test_a_claim_is_contradicted_only_where_the_data_say_otherwise(line, about):
    assert found(line) == about
    assert found(line, Measured()) == [], "what was not measured denies nothing"


@pytest.mark.parametrize(
    ("old", "new", "about", "instead"),
    [
        ("license: cc-by-nc-4.0", "license: mit", "licence", "license: cc-by-nc-4.0"),
        ("- n<1K", "- 10K<n<100K", "rows", "- n<1K"),
        ("- de", "- fr", "languages", None),
    ],
)
def test_a_field_is_contradicted_on_its_line_with_what_would_be_right(old, new, about, instead):
    edited = CARD.replace(old, new, 1)
    assert edited != CARD
    first = contradictions(CARD, edited, DATA)[-1 if about == "languages" else 0]
    assert edited.splitlines()[first.line - 1] == new
    assert (first.about, first.instead) == (about, instead)


def test_a_language_that_is_left_out_is_named():
    edited = CARD.replace("- de", "- en", 1)
    (only,) = contradictions(CARD, edited, DATA)
    assert "de is not named" in only.found and edited.splitlines()[only.line - 1] == "language:"


def test_a_model_card_that_names_another_base_is_contradicted():
    card = "---\nbase_model: postdoc/tiny-qwen3\n---\n# A model\n"
    (only,) = contradictions(card, card.replace("tiny-qwen3", "other"), DATA)
    assert (only.line, only.about, only.instead) == (2, "base model", "base_model: postdoc/tiny-qwen3")


def test_what_stood_there_before_is_not_answered():
    claims = CARD + "There is no personal data in it, and 9 rows.\n"
    assert contradictions(claims, claims + "A new sentence.\n", DATA) == []
    assert contradictions(CARD, CARD, DATA) == []


@given(st.text(max_size=300), st.text(max_size=300))
def test_no_text_makes_it_fail(before, after):
    for each in contradictions(before, after, DATA):
        assert 1 <= each.line <= len(after.splitlines())
