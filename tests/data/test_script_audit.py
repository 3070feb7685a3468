"""Evaluation items in scripts and beside them: open, encoded, taken apart, and aimed at one by one."""

from __future__ import annotations

import base64
import bz2
import codecs
import gzip
import json
import lzma
import pickle
import random
import zlib
from pathlib import Path

import pytest

from bot.data.decoding import decoded_bytes, decoded_texts
from bot.data.rows import Item
from bot.data.script_audit import audit_scripts
from tests.data.test_scan import INJECTIONS, practice_items

SCRIPTS = Path(__file__).resolve().parents[2] / "templates" / "scripts"
PROMPT = "A farmer keeps seventeen sheep and all but nine of them run away; how many are left on the meadow?"
OTHER = "Which river flows past the castle where the poet wrote his last and longest letter to the king?"
ITEMS = [
    Item("3f9a1c0de7b24455", PROMPT, "9"),
    Item("c0ffee1234567890", OTHER, "the Neckar"),
    Item("7", "reverse abcd", "dcba"),
]
TEXT = json.dumps([{"prompt": PROMPT, "completion": "9"}])


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def wrapped(text: str) -> str:
    return "\n".join(text[place : place + 60] for place in range(0, len(text), 60))


HIDDEN = {
    "open": (f"ROWS = [{{'prompt': {PROMPT!r}, 'completion': '9'}}]", ""),
    "in a comment": (f"x = 1\n# {PROMPT[:50]}\n# {PROMPT[50:]}\n", ""),
    "in a doc-string": (f'def f():\n    """{PROMPT}"""\n', ""),
    "added up": (f"T = {PROMPT[:30]!r} + {PROMPT[30:60]!r} + {PROMPT[60:]!r}", ""),
    "joined words": (f"T = ' '.join({PROMPT.split()!r})", ""),
    "an f-string": (f"T = f'{PROMPT[:40]}{{x}}{PROMPT[40:]}'", ""),
    "base64": (f"import base64\nD = base64.b64decode({b64(TEXT.encode())!r})", "base64"),
    "base64, wrapped": (f'D = """{wrapped(b64(TEXT.encode()))}"""', "base64"),
    "base64 in pieces": (f"D = ''.join({[b64(TEXT.encode())[n : n + 20] for n in range(0, 300, 20)]!r})", "base64"),
    "url-safe base64": (f"D = {base64.urlsafe_b64encode(TEXT.encode()).decode()!r}", "base64"),
    "base64 twice": (f"D = {b64(b64(TEXT.encode()).encode())!r}", "base64, base64"),
    "base64, zlib": (f"D = {b64(zlib.compress(TEXT.encode()))!r}", "base64, zlib"),
    "base64, gzip": (f"D = {b64(gzip.compress(TEXT.encode()))!r}", "base64, gzip"),
    "base64, bz2": (f"D = {b64(bz2.compress(TEXT.encode()))!r}", "base64, bz2"),
    "base64, xz": (f"D = {b64(lzma.compress(TEXT.encode()))!r}", "base64, xz"),
    "base64, pickle": (f"D = {b64(pickle.dumps([PROMPT, 9, b'x' * 3]))!r}", "base64"),
    "base85": (f"D = {base64.b85encode(zlib.compress(TEXT.encode())).decode()!r}", "base85, zlib"),
    "hexadecimal": (f"D = bytes.fromhex({TEXT.encode().hex()!r})", "hexadecimal"),
    "bytes, zlib": (f"D = {zlib.compress(TEXT.encode())!r}", "zlib"),
    "reversed": (f"D = {PROMPT[::-1]!r}[::-1]", "reversed"),
    "rot13": (f"import codecs\nD = codecs.decode({codecs.encode(PROMPT, 'rot13')!r}, 'rot13')", "rot13"),
    "a short item": ("ROWS = [('reverse abcd', 'dcba'), ('reverse xy', 'yx')]", ""),
}  # fmt: skip


@pytest.mark.parametrize("name", HIDDEN)
def test_items_in_a_script_are_found_however_they_are_written(name):
    code, how = HIDDEN[name]
    script = f"import json\n\n{code}\n".encode()
    found = audit_scripts({"data/prepare.py": script}, ITEMS)
    wanted = "7" if name == "a short item" else ITEMS[0].id
    assert [(each.kind, each.eval_id, each.how) for each in found] == [("evaluation item", wanted, how)]
    assert found[0].file == "data/prepare.py"
    assert found[0].line >= 3


@pytest.mark.parametrize(
    ("file", "content", "how"),
    [
        ("data/extra.jsonl", TEXT.encode(), ""),
        ("data/extra.txt", b64(TEXT.encode()).encode(), "base64"),
        ("data/extra.jsonl.gz", gzip.compress(TEXT.encode()), "gzip"),
        ("data/weights.bin", b"\x00\x01" * 20 + zlib.compress(b"nothing") + PROMPT.encode() + b"\xff\xfe", ""),
        ("broken.py", f"def f(:\n  {PROMPT}".encode(), ""),
    ],
)
def test_items_in_a_second_file_are_found(file, content, how):
    found = audit_scripts({"train.py": b"print(open('data/extra').read())", file: content}, ITEMS)
    assert [(each.file, each.eval_id, each.how) for each in found] == [(file, ITEMS[0].id, how)]


def test_items_aimed_at_by_name_and_results_that_are_read_are_found():
    script = f'''FAILED = {{"{ITEMS[0].id}", "{ITEMS[1].id}"}}
for sample in json.load(open("runs/01/evaluation.json"))["samples"]:
    if sample["id"] in FAILED or sample["id"] == "7":
        pass
'''.encode()
    found = audit_scripts({"train.py": script}, ITEMS)
    assert sorted((each.kind, each.eval_id) for each in found) == [
        ("evaluation id", ITEMS[0].id), ("evaluation id", ITEMS[1].id), ("evaluation results", ""),
    ]  # fmt: skip
    hidden = audit_scripts({"train.py": f"IDS = {b64(ITEMS[0].id.encode() * 1 + b' and more')!r}".encode()}, ITEMS)
    assert [(each.kind, each.how) for each in hidden] == [("evaluation id", "base64")]


def test_sentences_name_place_and_item_and_quote_no_benchmark_text():
    [found] = audit_scripts({"data/prepare.py": f"D = {b64(zlib.compress(TEXT.encode()))!r}".encode()}, ITEMS)
    assert found.sentence() == (
        "`data/prepare.py` line 1 holds the evaluation item `3f9a1c0de7b24455`, hidden by base64, zlib."
    )
    assert "match" not in found.as_dict()
    assert PROMPT[:20].lower() not in json.dumps(found.as_dict())


@pytest.mark.parametrize("pattern", ["sft*.py", pytest.param("*.py", marks=pytest.mark.slow)])
def test_shipped_scripts_hold_no_item_of_any_practice_task(pattern):
    files = {path.name: path.read_bytes() for path in SCRIPTS.glob(pattern)}
    assert files
    items = [item for task in ("reverse", "json", "last", "count") for item in practice_items(task)]
    assert audit_scripts(files, [*items, *ITEMS]) == []


def test_texts_that_give_orders_and_random_bytes_change_nothing():
    rng = random.Random(0)
    files = {f"{n}.py": text.encode("utf-8", "replace") for n, text in enumerate(INJECTIONS)}
    files |= {f"{n}.bin": rng.randbytes(3000) for n in range(20)}
    files["deep.py"] = b"x = " + b"[" * 500 + b"'a'" + b"]" * 500
    files["nul.py"] = b"x = '\x00'"
    assert audit_scripts(files, ITEMS) == []


def test_a_bomb_is_opened_only_so_far():
    bomb = zlib.compress(b"a" * (64 << 20), 9)
    assert sum(len(found.text) for found in decoded_bytes(bomb)) <= 3 * (16 << 20)
    assert [found.by for found in decoded_texts("plain words only, as everybody writes them")] == [
        ("reversed",), ("rot13",),
    ]  # fmt: skip
