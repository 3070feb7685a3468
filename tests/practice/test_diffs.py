"""Reading diffs: hunks, commentable lines, and where a line has moved to."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from bot.practice.diffs import FileDiff, moved_line, parse_diff, patch_lines

PATCH = "@@ -1,3 +1,4 @@ heading\n a\n-b\n+B\n+new\n c\n@@ -10,2 +11,1 @@\n-x\n y\n\\ No newline at end of file"


def diff_of(patch: str | None) -> FileDiff:
    lines = tuple(patch_lines(patch)) if patch else ()
    return FileDiff("f", None, "modified", "0" * 40, "1" * 40, 0, 0, patch, lines)


def test_lines_are_numbered_on_both_sides():
    file = diff_of(PATCH)
    found = {
        (side, line): shown.text for side in ("LEFT", "RIGHT") for line in range(15) if (shown := file.find(side, line))
    }
    assert found == {
        ("LEFT", 1): " a",
        ("LEFT", 2): "-b",
        ("LEFT", 3): " c",
        ("LEFT", 10): "-x",
        ("LEFT", 11): " y",
        ("RIGHT", 1): " a",
        ("RIGHT", 2): "+B",
        ("RIGHT", 3): "+new",
        ("RIGHT", 4): " c",
        ("RIGHT", 11): " y",
    }


def test_hunk_text_ends_at_the_line():
    file = diff_of(PATCH)
    line = file.find("RIGHT", 3)
    assert line is not None
    assert file.hunk_until(line) == "@@ -1,3 +1,4 @@ heading\n a\n-b\n+B\n+new"
    last = file.find("RIGHT", 11)
    assert last is not None
    assert not file.same_hunk(line, last)
    assert file.hunk_until(last) == "@@ -10,2 +11,1 @@\n-x\n y"


def git_diff(folder: Path, before: str, after: str) -> FileDiff | None:
    """What git itself says about two versions of one file."""
    oids = []
    for text in (before, after):
        (folder / "f").write_text(text)
        subprocess.run(["git", "add", "f"], cwd=folder, check=True)
        tree = subprocess.run(["git", "write-tree"], cwd=folder, check=True, capture_output=True, text=True).stdout
        oids.append(tree.strip())
    options = ["-r", "-z", "-M", "--raw", "--numstat", "-p", "--full-index"]
    shown = subprocess.run(["git", "diff-tree", *options, *oids], cwd=folder, check=True, capture_output=True).stdout
    return next(iter(parse_diff(shown)), None)


@pytest.mark.parametrize("seed", range(12))
def test_moved_lines_agree_with_git(tmp_path: Path, seed: int):
    subprocess.run(["git", "init", "-q", "."], cwd=tmp_path, check=True)
    chance = random.Random(seed)
    before = [f"line {number}" for number in range(chance.randrange(0, 40))]
    after = [line for line in before if chance.random() > 0.2]
    for number in range(chance.randrange(6)):
        after.insert(chance.randrange(len(after) + 1), f"new {number}")
    change = git_diff(tmp_path, "".join(f"{line}\n" for line in before), "".join(f"{line}\n" for line in after))
    expected = {n: after.index(line) + 1 if line in after else None for n, line in enumerate(before, 1)}
    assert {n: moved_line(change, n) for n in expected} == expected


def test_line_of_an_unchanged_or_removed_file():
    assert moved_line(None, 7) == 7
    removed = FileDiff("f", None, "removed", "0" * 40, "1" * 40, 0, 1, "@@ -1 +0,0 @@\n-x")
    assert moved_line(removed, 1) is None


@pytest.mark.parametrize("name", ["plain.txt", "a b.txt", "tab\there", "ümlaut.txt", 'quo"te'])
def test_odd_file_names_survive(tmp_path: Path, name: str):
    subprocess.run(["git", "init", "-q", "."], cwd=tmp_path, check=True)
    trees = []
    for text in ("one\n", "two\n"):
        (tmp_path / name).write_text(text)
        subprocess.run(["git", "add", "-A"], cwd=tmp_path, check=True)
        tree = subprocess.run(["git", "write-tree"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
        trees.append(tree.strip())
    options = ["-r", "-z", "-M", "--raw", "--numstat", "-p", "--full-index"]
    shown = subprocess.run(["git", "diff-tree", *options, *trees], cwd=tmp_path, check=True, capture_output=True).stdout
    (file,) = parse_diff(shown)
    assert (file.path, file.patch) == (name, "@@ -1 +1 @@\n-one\n+two")
