"""The scan on the planted corpus of `make bench`, smaller, and on what each class must not be mistaken for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bot.data import scan as scanning
from bot.data.choices import split_choices
from bot.data.detectors import Detectors
from bot.data.rows import Item, read_rows, read_shard, shards
from bot.data.scan import scan, scan_files
from bot.data.screen import Batch, RunSet, data_of, hashes_of
from bot.data.words import spaced_words, split_words
from bot.errors import UserError
from tests.data.planted import CLASSES, EXACT, FORMS, corpus

MADE = corpus(seed=11, each=40, decoys=1000)


@pytest.fixture(scope="module")
def flagged():
    return scan(MADE.rows, MADE.items).flagged


@pytest.mark.parametrize("kind", [kind for kind in CLASSES if kind != "paraphrase"])
def test_every_planted_row_is_found_with_its_item(flagged, kind):
    planted = {(row, item) for row, (item, its) in MADE.truth.items() if its == kind}
    assert len(planted) == 40
    missed = planted - {(match.row, match.eval_id) for match in flagged}
    assert not missed if kind in (*EXACT, *FORMS) else len(missed) <= 8


def test_nothing_is_flagged_that_was_not_planted(flagged):
    mistaken = [match for match in flagged if MADE.truth.get(match.row, ("", ""))[0] != match.eval_id]
    assert mistaken == []


class Unscreened(Detectors):
    def suspects(self, rows):
        return set(range(len(rows)))


def test_rows_in_the_screens_batches_are_found_one_by_one_too(flagged):
    """What the screen lets pass is nothing that a look at each row would have found."""
    part = scanning._scanned(MADE.rows, Unscreened(MADE.items))
    assert part.flagged == list(flagged)


TEXTS = [
    "Don\u2019t \u201cstop\u201d \u2013 it's\u00a0fine\u2026 x_y 12-7",
    "\u00c9lan caf\u00e9 \ufb01ne \uff37\uff49\uff44\uff45",
    "na\u00efve\u200bword \u53cd\u8f6c a",
    "tab\tand\nline \x00 null",
    "",
    "!!",
    "a",
    "\ud800 lone",
    "x\u2212y \u00b7 10\u00b0",
    "\u1e9e \u0130stanbul",
    "\u0939\u093f\u0928\u094d\u0926\u0940",
]


@pytest.mark.parametrize("text", TEXTS)
def test_fast_words_are_the_words(text):
    assert spaced_words(text).split() == [word.encode(errors="replace") for word in split_words(text).words]


def test_screen_finds_runs_inside_rows_and_none_across_them():
    rows = [data_of([text]) for text in ("one two three", "four five", "", "three four five six")]
    batch = Batch(rows)
    runs = RunSet(2, hashes_of([("two", "three"), ("three", "four"), ("five", "six")], 2))
    assert sorted(batch.hits(runs)[0].tolist()) == [0, 3, 3]


CODE = '''def has_near(numbers, limit):
    """Is any pair of the numbers nearer than limit?"""
    for place, left in enumerate(numbers):
        for other, right in enumerate(numbers):
            if place != other and abs(left - right) < limit:  # near
                return True
    return False'''


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("def f(a, b):\n    for c, d in enumerate(a):\n        for e, g in enumerate(a):\n            if c != e and "
         "abs(d - g) < b:\n                return True\n    return False", True),
        ("```python\n# mine\ndef f(a, b):\n  for c,d in enumerate(a):\n    for e,g in enumerate(a):\n      if (c != e\n"
         "          and abs( d-g ) < b): return True\n  return False\n```", True),
        # The same form, but the names do not correspond one by one.
        ("def f(a, b):\n    for c, d in enumerate(b):\n        for d, c in enumerate(c):\n            if d != b and "
         "abs(a - b) < d:\n                return True\n    return False", False),
        ("def total(xs, start):\n    result = start\n    for x in xs:\n        result += x * 2\n    return result",
         False),
    ],
)  # fmt: skip
def test_renamed_code_is_told_from_other_code(code, found):
    item = Item("he/0", CODE[: CODE.index("    for")], CODE[CODE.index("    for") :])
    report = scan([{"prompt": "Write it.", "completion": code}], [item])
    assert [match.kind for match in report.flagged] == (["renamed code"] if found else [])


def test_renamed_code_of_other_languages_is_found():
    item = Item(
        "js",
        "Sum the squares of the even numbers.",
        """function sumSquares(list, start) {
  let total = start; // the sum
  for (let i = 0; i < list.length; i++) {
    if (list[i] % 2 === 0) { total += list[i] * list[i]; }
  }
  return total;
}""",
    )
    row = """/* mine */
const unrelated = 1;
function f(xs, z) {
  let acc = z;
  for (let k = 0; k < xs.length; k++) { if (xs[k] % 2 === 0) { acc += xs[k] * xs[k]; } }
  return acc;
}"""
    assert [match.kind for match in scan([{"text": row}], [item]).flagged] == ["renamed code"]


QUESTION = "Which metal is liquid?\nA. iron\nB. mercury\nC. red gold\nD. zinc"


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ("Which metal is liquid? (1) zinc (2) red gold (3) iron (4) mercury", True),
        ("Q: WHICH METAL IS LIQUID\nOptions:\nd) iron\na) mercury\nb) zinc\nc) red gold\nAnswer: a", True),
        ("Which metal is liquid? (1) zinc (2) gold (3) iron (4) mercury", False),
        ("Which metal is heavy? (1) zinc (2) red gold (3) iron (4) mercury", False),
        ("Which metal is liquid? Nobody knows whether zinc is.", False),
    ],
)
def test_shuffled_choices_are_found_where_all_of_them_follow_the_question(row, found):
    kinds = [match.kind for match in scan([{"prompt": row}], [Item("q", QUESTION, "B")]).flagged]
    assert kinds == (["shuffled choices"] if found else [])


def test_choices_in_columns_of_their_own_are_found_shuffled(tmp_path):
    items, rows = tmp_path / "items.jsonl", tmp_path / "rows.jsonl"
    items.write_text(json.dumps({"question": "Which metal is liquid?", "choices": ["iron", "mercury", "red gold"]}))
    rows.write_text(
        json.dumps({"question": "Which metal is liquid?!", "options": {"text": ["red gold", "iron", "mercury"]}})
    )
    # The whole question is there too, so it is found as that; without its mark of the end it is not.
    assert scan_files(rows, items).flagged[0].eval_id == "0"
    rows.write_text(json.dumps({"text": "So, which metal is liquid - red gold, mercury, iron?"}))
    assert scan_files(rows, items).flagged[0].kind == "shuffled choices"


def test_choices_are_read_from_prompts_in_their_usual_forms():
    assert split_choices(QUESTION) == ("Which metal is liquid?\n", ["iron", "mercury", "red gold", "zinc"])
    assert split_choices("Pick (a) one (b) two\nAnswer:") == ("Pick ", ["one", "two"])
    assert split_choices("Version 1. is A. good thing")[1] == []


def test_an_item_inside_a_row_longer_than_a_piece_is_found():
    filler = "some filler text that goes on, " * 60_000
    item = Item("q", "who first sailed around the southern cape of the dark continent", "")
    rows = [{"text": f"{filler} {item.prompt} {filler}"}, {"text": filler}]
    report = scan(rows, [item])
    assert [(match.row, match.eval_id) for match in report.flagged] == [(0, "q")]
    assert report.bytes == sum(len(row["text"]) for row in rows)


def write(path: Path, rows) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def test_shards_hold_every_row_once_in_order(tmp_path):
    folder = tmp_path / "rows"
    folder.mkdir()
    write(folder / "b.jsonl", ({"text": f"r\u00f6w {n} " + "x" * (n % 50)} for n in range(300)))
    write(folder / "c.jsonl", ({"text": f"more {n}"} for n in range(10)))
    (folder / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "first"}\n\n{"text": "second"}')
    for size in (1, 7, 64, 1000, 10**6):
        assert [row for shard in shards(folder, size) for row in read_shard(shard)] == list(read_rows(folder))


@pytest.mark.slow
def test_two_processes_find_what_one_finds(tmp_path, monkeypatch):
    monkeypatch.setattr(scanning, "_WORTH_A_PROCESS", 0)
    monkeypatch.setattr(scanning, "_SHARD_BYTES", 50_000)
    train = write(tmp_path / "rows.jsonl", MADE.rows)
    items = write(tmp_path / "items.jsonl", map(as_row, MADE.items))
    alone, together = scan_files(train, items), scan_files(train, items, workers=2)
    assert alone.flagged == together.flagged != ()
    assert (alone.rows, alone.bytes, alone.unscannable) == (together.rows, together.bytes, together.unscannable)
    with train.open("a") as file:
        file.write("not JSON\n")
    with pytest.raises(UserError, match=f"Line {len(MADE.rows) + 1} of"):
        scan_files(train, items, workers=2)


def as_row(item):
    return {"id": item.id, "prompt": item.prompt, "reference": item.reference}


def test_matches_beyond_the_limit_are_counted_and_not_kept(monkeypatch):
    monkeypatch.setattr(scanning, "MOST_MATCHES", 10)
    item = Item("q", "reverse the word abcdef now", "fedcba")
    report = scan(({"prompt": item.prompt} for _ in range(25)), [item])
    assert (len(report.flagged), report.unlisted, report.rows, report.verdict) == (10, 15, 25, "contaminated")
    assert report.summary().startswith("Contaminated: at least 10 of 25")


MEMORY = """
import json, resource, sys
from pathlib import Path
from bot.data.rows import read_items, read_rows
from bot.data.scan import scan
rows = lambda times: (row for _ in range(times) for row in read_rows(Path(sys.argv[1])))
items = read_items(Path(sys.argv[2]))
scan(rows(1), items)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
report = scan(rows(8), items)
print(json.dumps([report.rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before]))
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_data(tmp_path):
    clean = [row for number, row in enumerate(MADE.rows) if number not in MADE.truth]
    train, items = write(tmp_path / "rows.jsonl", clean), write(tmp_path / "items.jsonl", map(as_row, MADE.items))
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(train), str(items)], capture_output=True, text=True, check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"}, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    rows, grown_kib = json.loads(done.stdout)
    assert rows == 8 * len(clean)
    # Eight times the rows are 5 MB more, of which nothing stays.
    assert grown_kib < 3_000
