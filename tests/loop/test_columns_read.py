"""What a plan says of a build: how columns were read, what the audit gives reason for."""

from __future__ import annotations

from bot.data.audit import audit
from bot.data.card import dataset_card
from bot.data.columns import map_columns
from bot.loop.actions.planning import columns_read, max_length_of, quality_lines

ROWS = [
    {"question": f"what is {n}?", "answer": f"so\n#### {n}", "note": "three words here and more"} for n in range(40)
]
BUILD = {"rows": 40, "columns": {}, "mappings": [map_columns(ROWS, "grpo").as_dict()]}


def test_plan_says_what_each_part_was_made_from_and_what_was_left_out() -> None:
    lines = columns_read(BUILD)
    assert lines[0].startswith("prompt = question: text of ")
    assert lines[1].startswith("completion = final(answer): ") and "ends in a marked final answer" in lines[1]
    assert lines[2] == "Left out: note."
    assert columns_read({}) == [] and columns_read({"mappings": [{"uses": [], "notes": []}]}) == []


def test_plan_says_what_the_audit_would_leave_out() -> None:
    rows = [{"prompt": f"p{n}", "completion": "word " * 900 if n == 3 else "short"} for n in range(20)]
    [line] = [one for one in quality_lines(audit(rows, 512).as_dict()) if "max_length" in one]
    assert line == "filter: 1 of 20 rows are probably longer than max_length (512 tokens)."
    assert quality_lines(None) == []


def test_length_of_the_recipe() -> None:
    assert max_length_of("method: sft\nmax_length: 1024\n") == 1024
    assert max_length_of("method: sft\nmax_length: null\n") is None
    assert max_length_of("max_length: true\n") is None


def test_card_says_how_columns_were_read_and_where_rows_come_from() -> None:
    pairs = [{"prompt": row["question"], "completion": row["answer"]} for row in ROWS]
    card = dataset_card(BUILD, audit=audit(pairs))
    assert "| prompt | `question` | text of " in card and "| completion | `final(answer)` | " in card
    assert "provenance.jsonl" in card and "Left out: note." in card
    assert "40 by `numeric`; 0 by none" in card
