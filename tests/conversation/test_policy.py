"""The repository's policy: defaults that grant nothing, and errors that name their place."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.conversation.permissions import Tier
from bot.conversation.policy import AutoApprove, Policy, parse_policy, policy_schema
from bot.domain.goal import Budget
from tests.conversation.conftest import make_goal

EXAMPLE = Path(__file__).parents[2] / "templates" / "postdoc.yml"


def test_empty_file_is_the_default_policy_and_grants_nothing() -> None:
    policy, problems = parse_policy("# nothing\n")

    assert problems == []
    assert policy == Policy() == Policy.from_dict({})
    assert not Policy().grants(make_goal(budget=Budget(usd=0, gpu_hours=0, runs=1)))


def test_documented_example_is_the_default_policy() -> None:
    assert parse_policy(EXAMPLE.read_text()).policy == Policy()


def test_documented_example_satisfies_the_published_schema() -> None:
    schema = policy_schema()

    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(yaml.safe_load(EXAMPLE.read_text()), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"budgett": {}}, schema)


def test_policy_survives_the_journal() -> None:
    text = "consent: {auto_approve: {runs: 4, gpu_hours: 0.5, recipe_keys: [learning_rate]}}\nusd_per_hour: 2\n"
    policy, _ = parse_policy(text)

    assert policy is not None
    assert Policy.from_dict(json.loads(json.dumps(policy.as_dict()))) == policy
    assert policy.consent == AutoApprove(4, 0.5, 0.0, ("learning_rate",))


def test_grant_covers_the_whole_budget_or_nothing() -> None:
    policy = Policy(consent=AutoApprove(runs=4, gpu_hours=1.0, usd=0.0))

    assert policy.grants(make_goal(budget=Budget(0.0, 1.0, 4, 24.0)))
    assert not policy.grants(make_goal(budget=Budget(0.0, 1.0, 5, 24.0)))
    assert not policy.grants(make_goal(budget=Budget(0.0, 1.5, 4, 24.0)))
    assert not policy.grants(make_goal(budget=Budget(0.01, 1.0, 4, 24.0)))


def test_tiers_follow_the_roles_that_the_file_names() -> None:
    policy, _ = parse_policy("permissions: {train: maintain}\n")

    assert policy is not None
    assert policy.allows(Tier.TRAIN, "maintain")
    assert not policy.allows(Tier.TRAIN, "write")
    assert policy.allows(Tier.READ, "read")
    assert not policy.allows(Tier.ADMIN, "maintain")
    assert not policy.allows(Tier.READ, "none")


@pytest.mark.parametrize(
    ("text", "begins", "part"),
    [
        ("consent:\n  auto_approve:\n    runs: -1\n", "3:5 ", "`runs: 4`"),
        ("budget:\n  usd: lots\n", "2:3 ", "`usd: 20`"),
        ("budgett: 3\n", "1:1 ", "There is no setting `budgett`"),
        ("labels:\n  goal: 5\n", "2:3 ", "`goal: postdoc`"),
        ("permissions: {train: everyone}\n", "1:15 ", "'maintain' or 'admin'"),
        ("usd_per_hour: .nan\n", "1:1 ", "out of range"),
        ("consent: {auto_approve: {recipe_keys: [output_dir]}}\n", "1:26 ", "may change"),
        ("consent: yes\n", "1:1 ", "settings of its own"),
        ("budget:\n  runs: true\n", "2:3 ", "`runs: 4`"),
        ("a: 1\na: 2\n", "2:1 ", "twice"),
        ("a: &x 1\n", "1:4 ", "Anchors"),
        ("a: !!python/object:os.system 1\n", "1:4 ", "Tags"),
        ("- 1\n", "1:1 ", "mapping"),
        ("a: [\n", "2:1 ", "not YAML"),
        ("a: b: c\n", "1:5 ", "not YAML"),
        ("a: {b: {c: {d: {e: 1}}}}\n", "1:16 ", "Nested"),
    ],
)
def test_mistake_in_the_file_names_line_and_column(text: str, begins: str, part: str) -> None:
    policy, problems = parse_policy(text)

    assert policy is None
    assert problems[0].startswith(begins)
    assert part in problems[0]


def test_all_mistakes_are_listed_in_the_files_order() -> None:
    problems = parse_policy("usd_per_hour: -1\nbudget:\n  runs: 0\n  usd: x\nzzz: 1\n").problems

    assert [problem.split(" ")[0] for problem in problems] == ["1:1", "3:3", "4:3", "5:1"]


@given(st.text(alphabet="abudgetrns:&*![]{}-\n 0.1\"'#|>~\x00\u2028é", max_size=120))
@settings(max_examples=300, deadline=None)
def test_any_text_parses(text: str) -> None:
    policy, problems = parse_policy(text)

    assert (policy is None) == bool(problems)
