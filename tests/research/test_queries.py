"""What may stand in a query, and what may not."""

from __future__ import annotations

import base64
import random

import pytest

from bot.research.errors import Refused
from bot.research.private import PrivateTexts
from bot.research.queries import MOST_CHARACTERS, check_query

QUESTIONS = [
    "GRPO with verifiable rewards for math reasoning",
    "GSM8K MATH-500 AIME 2024 Qwen2.5-1.5B GRPO",
    "DeepSeekMath7BInstruct",
    "HuggingFaceH4/ultrafeedback_binarized",
    "open-r1/OpenR1-Math-220k",
    'all:"direct preference optimization" AND cat:cs.CL',
    "title,abstract,year,authors,externalIds,citationCount,influentialCitationCount,contexts,intents,isInfluential",
    "argilla/ultrafeedback-binarized-preferences-cleaned",
    "Rényi divergence β-VAE",
    "id 2402.03300",
    "2402.03300,2401.02954,2305.18290,2106.09685,2203.02155,1707.06347,2009.01325,2204.05862,2212.08073,2309.00267",
    "size_categories:1M<n<10M",
    "submittedDate:[202301010600 TO 202401010600]",
    "timdettmers/openassistant-guanaco",
    "LLaMA-3.1-8B-Instruct QLoRA r=64 alpha=16 lr 2e-4",
    "Salesforce/xlam-function-calling-60k",
    "nvidia/Llama-Nemotron-Post-Training-Dataset",
    "internationalization of hyperparameterization",
]


@pytest.mark.parametrize("question", QUESTIONS)
def test_question_of_the_field_may_leave(question: str) -> None:
    check_query([question])


SECRET_ROW = b"the patient is called jane roe and she is ill"


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("x " * MOST_CHARACTERS, "characters"),
        ("ghp_" + "a1B2" * 9, "secret"),
        ("hunter2-is-known", "secret"),
        (base64.b64encode(SECRET_ROW).decode(), "encoded"),
        (base64.urlsafe_b64encode(SECRET_ROW).decode(), "encoded"),
        (base64.b32encode(SECRET_ROW).decode(), "encoded"),
        (SECRET_ROW.hex(), "encoded"),
        (" ".join(SECRET_ROW.hex()[i : i + 4] for i in range(0, 60, 4)), "codes"),
        (" ".join(map(str, SECRET_ROW)), "codes"),
        ("".join(chr(97 + byte // 16) + chr(97 + byte % 16) for byte in SECRET_ROW), "encoded"),
        (base64.b85encode(SECRET_ROW).decode(), "holds"),
        ("see\nthis", "characters other"),
        ("zero\u200bwidth", "characters other"),
        ("数学", "characters other"),
        ("\U0001f600", "characters other"),
        ("".join(chr(0xE0000 + byte) for byte in SECRET_ROW), "characters other"),
    ],
)
def test_what_carries_data_may_not_leave(value: str, why: str) -> None:
    with pytest.raises(Refused, match=why):
        check_query(["dataset", value], secrets=["hunter2-is-known"])


def test_random_bytes_in_the_usual_encodings_hardly_ever_pass() -> None:
    lots = random.Random(7)
    forms = (
        lambda data: base64.b64encode(data).decode(),
        lambda data: base64.urlsafe_b64encode(data).decode(),
        lambda data: base64.b32encode(data).decode(),
        bytes.hex,
        lambda data: data.hex().upper(),
    )
    passed = 0
    for _ in range(200):
        for form in forms:
            try:
                check_query([form(lots.randbytes(30))])
                passed += 1
            except Refused:
                pass
    assert passed <= 10  # of 1,000


def test_request_as_a_whole_is_bounded() -> None:
    with pytest.raises(Refused, match="1,200 may leave"):
        check_query(["plain words about training " * 12] * 4)


ROWS = [
    "Patient Jane Roe, phone 555-0199-22, jane@acme.example, id A8812345, has had diabetes since May",
    "our margin fell",
    "The quick brown fox jumps over the lazy dog",
    *(f"We study Machine Learning in New York, part {number}" for number in range(6)),
]


@pytest.mark.parametrize(
    "query",
    [
        "dataset of jane roe", "8812345", "jane@acme.example", "call 555 0199 22", "our margin fell",
        "QUICK brown-fox jumps", "since may? has had diabetes since",
    ],
)  # fmt: skip
def test_private_data_may_not_leave(query: str) -> None:
    with pytest.raises(Refused, match="private data"):
        check_query([query], private=PrivateTexts(ROWS))


@pytest.mark.parametrize(
    "query", ["diabetes question answering", "machine learning datasets in 2024", "new york times summarization", ""]
)
def test_question_near_private_data_may_leave(query: str) -> None:
    check_query([query], private=PrivateTexts(ROWS))


def test_without_private_data_nothing_is_private() -> None:
    assert PrivateTexts([])("four plain words here") is None


def test_private_data_too_large_to_compare_lets_no_word_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bot.research.private.MOST_GRAMS", 10)
    assert "too many" in str(PrivateTexts(["one two three four five six seven eight nine ten eleven"])("math"))
