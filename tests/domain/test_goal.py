from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from bot.domain.goal import Budget, Goal, digest_of, slug

GOAL = Goal("Raise reverse", "postdoc/tiny-qwen3", "practice/reverse", 0.9, budget=Budget(usd=20), licences=("mit",))


def test_goal_survives_json_with_its_hash():
    back = Goal.from_dict(json.loads(json.dumps(GOAL.as_dict())))
    assert back == GOAL
    assert back.hash == GOAL.hash and len(GOAL.hash) == 12


def test_goal_hash_changes_with_every_field():
    changed = {
        "title": "x", "base_model": "x", "benchmark": "x", "target": 0.5, "metric": "x", "base_revision": "x",
        "method": "sft", "dataset": "x", "recipe": "x", "script": "x", "licences": [], "budget": {"usd": 21}, "seed": 1,
        "data_licence": "mit", "forgetting": "block",
    }  # fmt: skip
    assert changed.keys() == GOAL.as_dict().keys()
    hashes = {Goal.from_dict(GOAL.as_dict() | {key: value}).hash for key, value in changed.items()}
    assert len(hashes | {GOAL.hash}) == len(changed) + 1


def test_goal_from_before_the_data_licence_keeps_its_hash():
    older = {key: value for key, value in GOAL.as_dict().items() if key not in ("data_licence", "forgetting")}
    assert Goal.from_dict(older).hash == GOAL.hash == digest_of(older)[:12]


def test_goal_hash_is_the_same_for_20_and_20_point_0():
    # A form brings 20, a YAML file 20.0; a consent must not be voided by that.
    data = GOAL.as_dict()
    assert Goal.from_dict(data | {"budget": data["budget"] | {"usd": 20.0}}).hash == GOAL.hash


def test_goal_hash_of_half_a_surrogate_pair_exists():
    assert len(Goal(json.loads('"\\ud83d"'), "m", "b", 0.5).hash) == 12


def test_digest_ignores_the_order_of_keys_and_not_that_of_lists():
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})
    assert digest_of([1, 2]) != digest_of([2, 1])
    assert digest_of(True) != digest_of(1)


@given(st.text())
def test_slug_is_always_a_safe_name(text):
    name = slug(text)
    assert 0 < len(name) <= 40
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert name.strip("-") == name


def test_slug_cuts_and_joins():
    assert slug("Raise Qwen3-1.7B on GPQA!") == "raise-qwen3-1-7b-on-gpqa"
    assert slug("../../etc") == "etc"
    assert slug("---") == "goal"
    assert slug("a" * 50, limit=10) == "a" * 10
