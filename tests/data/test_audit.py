from __future__ import annotations

import json
import random
import time

import pytest

from bot.data.abuse import abuse_kinds
from bot.data.audit import Audit, Lengths, audit, audit_file, checks_of, estimated_tokens
from bot.data.sensitive import sensitive_kinds


def rows_of(*pairs):
    return [{"prompt": prompt, "completion": answer} for prompt, answer in pairs]


def test_counts_of_a_small_set():
    rows = [
        *rows_of(("one", "a"), ("one", "a"), ("ONE.", "a!"), ("one", "b"), ("two", ""), ("", "")),
        {"prompt": None, "note": "x" * 100},
    ]
    found = audit(rows)
    assert (found.rows, found.empty_rows, found.empty_answers) == (7, 1, 2)
    assert (found.exact_duplicates, found.near_duplicates, found.conflicting_rows) == (1, 1, 1)
    assert found.columns == {"prompt": 7, "completion": 6, "note": 1}
    assert found.nulls == {"prompt": 2, "completion": 3, "note": 6}
    assert found.distinct_prompts == 4
    assert found.prompt_characters == Lengths(3, 100, 100)


def test_percentiles_are_by_nearest_rank():
    found = audit(rows_of(*((f"{'x' * n}", "y") for n in range(1, 101))))
    assert found.prompt_characters == Lengths(50, 95, 100)
    assert audit([]).prompt_characters == Lengths(0, 0, 0)


def test_near_duplicates_of_long_rows_are_counted_and_different_ones_are_not():
    rng = random.Random(1)
    vocabulary = [f"w{n}" for n in range(400)]
    texts = [[rng.choice(vocabulary) for _ in range(120)] for _ in range(200)]
    changed = []
    for text in texts:
        copy = list(text)
        copy[rng.randrange(120)] = "other"  # 5 of 116 runs differ: similarity about 0.92
        changed.append(copy)
    half = [text[:60] + [rng.choice(vocabulary) for _ in range(60)] for text in texts]  # similarity about 0.3
    as_rows = [[{"text": " ".join(words)} for words in part] for part in (texts, changed, half)]
    assert audit(as_rows[0]).near_duplicates == 0
    assert audit(as_rows[0] + as_rows[1]).near_duplicates >= 190
    assert audit(as_rows[0] + as_rows[2]).near_duplicates <= 2


def test_forms_filled_in_are_no_near_duplicates():
    assert (
        audit(rows_of(*((f"add {a} and {b}", str(a + b)) for a in range(30) for b in range(30)))).near_duplicates == 0
    )


def test_imbalance_of_few_answers_is_measured():
    found = audit(rows_of(*((f"review {n}", "good" if n % 10 else "bad") for n in range(200))))
    assert (found.classes, found.largest_class_share) == (2, 0.9)
    assert any("90 % of rows" in one.reason for one in found.verdicts())


def test_answers_that_are_texts_are_no_classes():
    assert audit(rows_of(*((f"q{n}", f"answer {n}") for n in range(200)))).classes is None


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("write to jane.doe+x@mail.example.org today", "an email address"),
        ("ghp_" + "a1B2" * 9, "a GitHub token"),
        ("hf_" + "a" * 34, "a Hugging Face token"),
        ("sk-ant-" + "x1" * 20, "an LLM provider's key"),
        ("AKIA" + "ABCD1234" * 2, "an AWS key"),
        ("-----BEGIN RSA PRIVATE KEY-----", "a private key"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abcdefghijklm", "a JSON web token"),
        ("postgres://user:secret@host/db", "an address with a password"),
        ("from 192.168.10.7 on", "an IP address"),
        ("call +44 20 7946 0958 now", "a phone number"),
        ("4111 1111 1111 1234 and 4539 5787 6362 1486", "a card number"),
    ],
)
def test_sensitive_data_is_recognised(text, kind):
    assert list(sensitive_kinds(text)) == [kind]


@pytest.mark.parametrize(
    "text",
    [
        "a@b",
        "version 1.2.3",
        "section 1.2.3.4.5",
        "3 + 4 = 7",
        "1234567890123456",
        "4539 5787 6362 1487",
        "task-sk-1",
        "+1 point",
        "2^53 = 9007199254740992",
    ],
)
def test_ordinary_text_is_not_sensitive(text):
    assert list(sensitive_kinds(text)) == []


@pytest.mark.parametrize("piece", ["a", "a.", "1", "1 ", "a@", "+1 ", "eyJa", "://a:", "sk-", "-----BEGIN A "])
def test_no_text_makes_the_patterns_slow(piece):
    started = time.process_time()
    list(sensitive_kinds(piece * (200_000 // len(piece))))
    assert time.process_time() - started < 3


def test_audit_shows_counts_and_never_a_rows_text():
    found = audit(rows_of(("my key is hf_" + "a" * 34, "ok"), ("Ignore all instructions", "ok")))
    assert found.sensitive == {"a Hugging Face token": 1}
    text = json.dumps(found.as_dict()) + " ".join(one.reason for one in found.verdicts())
    assert "Ignore" not in text and "hf_" not in text
    assert Audit.from_dict(json.loads(json.dumps(found.as_dict()))) == found


def test_audit_of_a_file_equals_that_of_its_rows(tmp_path):
    rows = rows_of(("one", "a"), ("two", "b"))
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert audit_file(tmp_path / "x.jsonl") == audit(rows)


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("just kill yourself already", ["a call to self-harm"]),
        ("I will kill you tomorrow", ["a threat"]),
        ("what the fuck", ["crude sexual or insulting language"]),
        ("The kill command ends a process; Scunthorpe and Dickens; a spicy retarding agent", []),
        ("How do I kill a zombie process? I am going to shoot a film", []),
    ],
)
def test_abuse_is_found_by_form_and_likenesses_are_not(text, kinds):
    assert list(abuse_kinds(text)) == kinds


def test_abuse_patterns_stay_fast_on_any_text():
    started = time.process_time()
    for text in ("i will " * 60_000, "f" * 400_000, "motherf" * 60_000, "n1gg" * 100_000):
        list(abuse_kinds(text))
    assert time.process_time() - started < 5


def test_tokens_are_estimated_by_script():
    assert estimated_tokens("") == 0
    assert estimated_tokens("a" * 400) == 100
    assert estimated_tokens("你好世界") == 4
    assert estimated_tokens("你好 hello") == 2 + 2


def test_rows_longer_than_max_length_are_counted():
    rows = rows_of(*((f"question {n}", "word " * (400 if n < 3 else 4)) for n in range(10)))
    found = audit(rows, max_length=100)
    assert (found.cut_rows, found.max_length) == (3, 100)
    [verdict] = [one for one in found.verdicts() if "max_length" in one.reason]
    assert (verdict.action, verdict.rows) == ("filter", 3)
    assert audit(rows).cut_rows == 0


@pytest.mark.parametrize(
    ("answer", "checks"),
    [
        ("42", ["numeric", "exact_match"]), ("so it is\nthat many for all of us\n#### 1,234", ["numeric"]),
        ("thus for all of x it is \\boxed{7}", ["boxed"]), ('{"a": [1, 2], "b c d": "e f g"}', ["json_equal"]),
        ("blue whale", ["exact_match"]), ("It depends on what the reader wants to make of it.", []), ("", []),
    ],
)  # fmt: skip
def test_rules_that_can_compare_an_answer(answer, checks):
    assert [check for check in checks_of(answer) if check != "exact_match" or len(answer.split()) <= 5] == checks


def test_uncheckable_answers_are_said():
    found = audit(rows_of(*((f"q{n}", f"A long answer in many words, number {n}.") for n in range(9)), ("q", "7")))
    assert found.uncheckable == 9 and found.checkable == {"exact_match": 1, "numeric": 1}
    assert any(one.action == "keep" and "no rule of rewards.py" in one.reason for one in found.verdicts())


def test_verdicts_refuse_what_teaches_nothing_and_say_nothing_of_sound_rows():
    shuffled = audit(rows_of(*(("the same question", f"answer {n}") for n in range(10))))
    assert [one.action for one in shuffled.verdicts()][:1] == ["refuse"]
    same = audit(rows_of(*((f"q{n}", "yes") for n in range(100))))
    assert any(one.action == "refuse" and "always giving it" in one.reason for one in same.verdicts())
    secret = audit(rows_of(("a", "AKIA" + "ABCDEFGH12345678"), ("b", "c"), ("d", "e")))
    assert [(one.action, one.rows) for one in secret.verdicts()] == [("filter", 1)]
    assert audit(rows_of(*((f"what is {n}?", f"it is {n}") for n in range(50)))).verdicts() == []


def test_audit_of_before_the_new_measurements_is_still_read():
    old = audit(rows_of(("a", "b"))).as_dict()
    for name in ("abusive", "estimated_tokens", "max_length", "cut_rows", "checkable", "uncheckable"):
        del old[name]
    assert Audit.from_dict(old).uncheckable is None
    assert Audit.from_dict(old).verdicts() == []
