"""What licences together allow: one row of the table each."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.data.combination import Answer, Combination, Licensed, Part, Terms, combined, terms_of
from bot.data.licence_names import HUB_NAMES, IDENTIFIERS

KNOWN = sorted(IDENTIFIERS | set(HUB_NAMES))


def judged(base: str | None, data: str | None = "mit", teacher: str | None = "", **options) -> Combination:
    parts = [Licensed("the base model", Part.BASE, base), Licensed("the data", Part.DATA, data)]
    if teacher != "":
        parts.append(Licensed("the teacher", Part.TEACHER, teacher))
    return combined(parts, **options)


@pytest.mark.parametrize(
    ("identifier", "terms"),
    [
        ("apache-2.0", "permissive"), ("cc-by-4.0", "permissive"), ("cc-by-sa-4.0", "share-alike"),
        ("gpl-3.0", "share-alike"), ("llama3.1", "use-restricted"), ("gemma", "use-restricted"),
        ("bigcode-openrail-m", "use-restricted"), ("cc-by-nc-4.0", "non-commercial"),
        ("qwen-research", "non-commercial"),
        ("cc-by-nc-nd-4.0", "no-derivatives"), ("house rules", "unknown"), (None, "unknown"),
        ("gpl-3.0 or mit", "permissive"), ("mit and cc-by-nc-4.0", "non-commercial"),
    ],
)  # fmt: skip
def test_each_licence_has_its_class(identifier, terms):
    assert terms_of(identifier) is Terms(terms)


@pytest.mark.parametrize(
    ("base", "data", "teacher", "answer", "output"),
    [
        ("apache-2.0", "mit", "", "allowed", "apache-2.0"),
        ("apache-2.0", "cc-by-4.0", "", "allowed", "apache-2.0"),
        ("apache-2.0", "cc-by-sa-4.0", "", "allowed", "cc-by-sa-4.0"),
        ("apache-2.0", "cc-by-nc-4.0", "", "allowed", "cc-by-nc-4.0"),
        ("apache-2.0", "cc-by-nd-4.0", "", "ask", None),
        ("apache-2.0", None, "", "ask", None),
        (None, "mit", "", "ask", None),
        ("my terms", "mit", "", "ask", None),
        ("llama3.2", "mit", "", "allowed", "llama3.2"),
        ("llama3.2", "cc-by-sa-4.0", "", "ask", None),
        ("gemma", "cc-by-4.0", "", "allowed", "gemma"),
        ("gemma", "mit", "llama3.1", "ask", None),
        ("apache-2.0", "mit", "llama3.1", "allowed", "llama3.1"),
        ("apache-2.0", "mit", "llama3", "refused", None),
        ("apache-2.0", "mit", "llama2", "refused", None),
        ("llama3", "mit", "llama3", "allowed", "llama3"),
        ("apache-2.0", "mit", "gemma", "allowed", "gemma"),
        ("apache-2.0", "llama3", "", "refused", None),
        ("qwen-research", "mit", "", "allowed", "qwen-research"),
        ("qwen-research", "gpl-3.0", "", "ask", None),
        ("gpl-3.0", "cc-by-sa-4.0", "", "ask", None),
        ("llama3.1", "cc-by-nc-4.0", "", "allowed", "llama3.1 and cc-by-nc-4.0"),
    ],
)
def test_a_combination_is_allowed_asked_about_or_refused(base, data, teacher, answer, output):
    found = judged(base, data, teacher)
    assert (found.answer, found.output) == (Answer(answer), output)
    assert found.reason.endswith(".")


def test_what_a_person_has_named_is_not_asked_about_and_what_is_forbidden_stays_so():
    asked = judged("llama3.2", "cc-by-sa-4.0")
    assert "`llama3.2`" in asked.reason and "`cc-by-sa-4.0`" in asked.reason
    assert judged("llama3.2", "cc-by-sa-4.0", named=["llama3.2", "cc-by-sa-4.0"]).answer is Answer.ALLOWED
    assert judged("llama3.2", "cc-by-sa-4.0", named=["llama3.2"]).answer is Answer.ASK
    assert judged("mit", "cc-by-nd-4.0", named=["cc-by-nd-4.0"]).answer is Answer.ALLOWED
    assert judged("apache-2.0", "mit", "llama3", named=["llama3"]).answer is Answer.REFUSED


def test_llama_asks_for_its_name_and_its_words():
    found = judged("llama3.1")
    assert (found.name_begins, found.shown) == ("Llama", ("Built with Llama",))
    assert "begins with `Llama`" in found.duties[0] and "https://www.llama.com/" in found.duties[0]
    assert judged("llama3").shown == ("Built with Meta Llama 3",)
    taught = judged("apache-2.0", "mit", "llama3.3")
    assert taught.name_begins == "Llama", "also where only the answers it was taught with are Llama's"
    assert judged("llama2").name_begins == ""
    assert "Gemma Terms of Use" in judged("gemma").duties[0]
    assert judged("apache-2.0").duties == ()


def test_a_script_without_a_licence_is_no_reason_to_ask():
    parts = [Licensed("the base model", Part.BASE, "mit"), Licensed("the script", Part.CODE, None)]
    assert combined(parts).answer is Answer.ALLOWED
    assert combined([parts[0], Licensed("the script", Part.CODE, "gpl-3.0")]).output == "mit", "no part of the weights"


@given(st.sampled_from([*KNOWN, None, "what is this"]), st.sampled_from([*KNOWN, None]), st.sampled_from([*KNOWN, ""]))
def test_no_combination_is_more_permissive_than_its_strictest_part(base, data, teacher):
    found = judged(base, data, teacher)
    parts = [base, data, *([teacher] if teacher else [])]
    if found.answer is Answer.ALLOWED:
        order = list(Terms)
        strictest = max((terms_of(each) for each in parts), key=order.index)
        assert set(found.output.split(" and ")) <= {part for each in parts for part in each.split(" and ")}
        assert Terms.UNKNOWN not in map(terms_of, parts) and Terms.NO_DERIVATIVES not in map(terms_of, parts)
        assert terms_of(found.output) is strictest
    else:
        assert found.output is None
