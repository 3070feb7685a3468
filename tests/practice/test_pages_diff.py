"""Diffs as rows, and the lines a suggestion replaces."""

from __future__ import annotations

from bot.practice.pages.diff import commented_lines, excerpt, rows

PATCH = """@@ -1,3 +1,4 @@ def main
 first
-second
+second, better
+third
 fourth
\\ No newline at end of file
@@ -20 +21,2 @@
-gone
+come
+more"""


def test_rows_carry_the_numbers_of_both_sides() -> None:
    found = [(row.kind, row.old, row.new) for row in rows(PATCH)]
    assert found == [
        ("hunk", None, None), ("same", 1, 1), ("del", 2, None), ("add", None, 2), ("add", None, 3), ("same", 3, 4),
        ("hunk", None, None), ("del", 20, None), ("add", None, 21), ("add", None, 22),
    ]  # fmt: skip


def test_row_knows_where_a_comment_can_sit() -> None:
    by_kind = {row.kind: row for row in rows(PATCH)}
    assert by_kind["del"].places == (("LEFT", 20),)
    assert by_kind["add"].places == (("RIGHT", 22),)
    assert by_kind["hunk"].places == ()
    same = next(row for row in rows(PATCH) if row.kind == "same")
    assert set(same.places) == {("RIGHT", 1), ("LEFT", 1)}


def test_suggestion_replaces_the_end_of_the_hunk() -> None:
    hunk = "@@ -0,0 +1,3 @@\n+seed: 0\n+learning_rate: 2.0e-5\n+max_length: 64"
    assert commented_lines(hunk, 1) == ("max_length: 64",)
    assert commented_lines(hunk, 2) == ("learning_rate: 2.0e-5", "max_length: 64")
    assert [row.text for row in excerpt(hunk, 2)] == ["learning_rate: 2.0e-5", "max_length: 64"]


def test_empty_lines_of_the_file_keep_the_numbers_right() -> None:
    assert [(row.new, row.text) for row in rows("@@ -0,0 +1,3 @@\n+a\n+\n+b")][1:] == [(1, "a"), (2, ""), (3, "b")]
