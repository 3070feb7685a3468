from __future__ import annotations

import math
import time

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bot.domain import recipe as r

TEXT = """\
# copied from a card
method: sft
learning_rate: 2e-5  # as in the card
max_length: 2048
nested:
  learning_rate: 1
init_from: "a # b"   # with a sign inside
packing: false
"""


def test_line_of_finds_top_level_keys_only():
    assert r.line_of(TEXT, "learning_rate") == 3
    assert r.line_of(TEXT, "packing") == 8
    assert r.line_of(TEXT, "absent") is None
    assert r.line_of("learning_rate:1e-3\n", "learning_rate") is None  # Without a space it is no key in YAML.


def test_line_of_a_key_set_twice_is_the_one_that_counts():
    text = "seed: 1\nseed: 2\n"
    assert yaml.safe_load(text) == {"seed": 2}
    assert r.line_of(text, "seed") == 2
    assert yaml.safe_load(r.with_value(text, "seed", 3)) == {"seed": 3}


def test_lines_are_counted_as_github_counts_them():
    # str.splitlines also ends lines at these, GitHub does not.
    assert r.line_of('note: "a\x0cb\u2028c"\nseed: 1\n', "seed") == 2


def test_with_value_keeps_comments_and_everything_else():
    changed = r.with_value(TEXT, "learning_rate", 0.003)
    assert changed == TEXT.replace("learning_rate: 2e-5  # as", "learning_rate: 0.003  # as")
    changed = r.with_value(TEXT, "init_from", "x")
    assert changed == TEXT.replace('"a # b"', "x")


@pytest.mark.parametrize(
    ("line", "comment"),
    [
        ("seed: 1 # why", " # why"),
        ("seed: a#b", ""),
        ("seed: # only a comment", " # only a comment"),
        ("seed: 'it''s # in'\t# out", "\t# out"),
        ('seed: "\\" # in"', ""),
        ("seed: 1 # why\r", " # why"),
    ],
)
def test_line_with_keeps_the_comment_alone(line, comment):
    assert r.line_with(line, "seed", 2) == f"seed: 2{comment}"


def test_with_value_adds_a_missing_key_at_the_end():
    assert r.with_value("a: 1", "b", True) == "a: 1\nb: true\n"
    assert r.with_value("", "b", None) == "b: null\n"


def test_with_value_keeps_windows_line_ends():
    assert r.with_value("a: 1\r\nb: 2\r\n", "a", 3) == "a: 3\r\nb: 2\r\n"


@pytest.mark.parametrize(
    "value", ["\n  - q_proj\n  - v_proj", "\n- q_proj\n- v_proj", " |\n  some\n\n  text", " >\n  x"]
)
def test_with_value_replaces_a_value_of_several_lines(value):
    text = f"a: 1\nkey:{value}\n  # a comment\n\nb: 2\n"
    assert yaml.safe_load(r.with_value(text, "key", "all-linear")) == {"a": 1, "key": "all-linear", "b": 2}


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()


@given(scalars)
def test_as_yaml_reads_back_as_the_same_value(value):
    written = r.as_yaml(value)
    back = yaml.safe_load(f"before: 1\nkey: {written}  # note\nafter: 2\n")
    assert (back["before"], back["after"]) == (1, 2)
    if isinstance(value, float) and math.isnan(value):
        assert math.isnan(back["key"])
    else:
        assert back["key"] == value and isinstance(back["key"], type(value))


def test_as_yaml_of_numbers_that_yaml_1_1_misreads():
    assert r.as_yaml(2e-5) == "2.0e-05"
    assert r.as_yaml(1e22) == "1.0e+22"
    assert r.as_yaml(float("inf")) == ".inf"
    assert r.as_yaml("2e-5") == '"2e-5"'
    assert r.as_yaml("no") == '"no"'
    assert r.as_yaml("a\nb: 1") == '"a\\u000ab: 1"'


def test_values_are_normalised_before_hashing():
    written = yaml.safe_load("learning_rate: 2e-5\nmax_steps: 100\nsteps: 1_000\n")
    meant = {"max_steps": 100.0, "learning_rate": 2.0e-5, "steps": 1000}
    assert isinstance(written["learning_rate"], str)
    assert r.recipe_hash(written) == r.recipe_hash(meant)
    assert r.recipe_hash(meant) != r.recipe_hash(meant | {"max_steps": 101})
    assert r.recipe_hash(meant) != r.recipe_hash(meant, script_digest="x")
    assert r.recipe_hash(meant) == r.recipe_hash(meant | {"output_dir": "elsewhere"})


def test_large_whole_numbers_keep_every_digit():
    assert r.normalised_value("9007199254740993") == r.normalised_value(9007199254740993) == 9007199254740993
    assert r.normalised_value(["1e3", {"a": "2.50"}, "v1.2.3", True]) == [1000, {"a": 2.5}, "v1.2.3", True]


def test_differences_show_before_and_after():
    assert r.differences({"a": "1e-3", "b": 1}, {"a": 0.001, "c": 2}) == {"b": (1, None), "c": (None, 2)}
    assert r.differences({"packing": True}, {"packing": 1}) == {"packing": (True, 1)}
    assert r.differences({"a": math.nan}, {"a": math.nan}) == {}


@pytest.mark.parametrize("line", ["k: " + " " * 60_000 + "x", "k: '" + "a' " * 20_000, "k:" + "#" * 60_000])
def test_long_lines_are_read_at_once(line):
    started = time.process_time()
    r.with_value(line, "k", 1)
    assert time.process_time() - started < 1
