"""The repository's policy: defaults that grant nothing, and errors that name their place."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.conversation.messages.policy import policy_changes
from bot.conversation.permissions import Tier
from bot.conversation.policy import (
    NO_LICENCE,
    AutoApprove,
    Policy,
    load_server_policy,
    parse_policy,
    policy_schema,
    read_policy,
    skip_ci_trailer,
)
from bot.data.licences import licence_gate
from bot.domain.goal import Budget
from bot.errors import SettingsError
from tests.conversation.conftest import make_goal

EXAMPLE = Path(__file__).parents[2] / "templates" / "postdoc.yml"
SCHEMA = EXAMPLE.with_name("postdoc.schema.json")
POLICY_RUNS = "consent: {auto_approve: {runs: 6, gpu_hours: 2}}"


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


def test_schema_file_is_the_one_that_the_code_makes() -> None:
    made = json.dumps(policy_schema(), indent=2) + "\n"
    assert SCHEMA.read_text() == made, "python -m tests.conversation.test_policy"


@pytest.mark.parametrize("word", ["off", "'off'", "Off"])
def test_off_is_a_word_although_yaml_takes_it_for_false(word: str) -> None:
    policy = parsed(f"monitor: {word}\nbrain: {word}")
    assert (policy.monitor, policy.brain) == ("off", "off")


def test_every_setting_of_the_schema_says_what_it_is() -> None:
    schema = policy_schema()
    for name, part in schema["$defs"].items():
        for setting, described in part["properties"].items():
            assert "description" in described or "$ref" in described, f"{name}.{setting}"


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


# --- the server's policy as an upper bound


def parsed(text: str) -> Policy:
    policy, problems = parse_policy(text)
    assert policy is not None, problems
    return policy


@pytest.mark.parametrize(
    ("own", "server", "cut"),
    [
        ("budget: {usd: 15}", "budget: {usd: 10}", "`budget.usd` 15 → 10"),
        ("budget: {runs: 3}", "budget: {runs: 10}", ""),
        ("budget: {runs: 3}", "month: {usd: 0.5}", "`month.usd` 100 → 0.5"),
        ("consent: {self_approve_usd: 50}", "consent: {self_approve_usd: 5}", "`consent.self_approve_usd` 50 → 5"),
        (POLICY_RUNS, "consent: {auto_approve: {runs: 0}}", "`consent.auto_approve.runs` 6 → 0"),
        (POLICY_RUNS, "consent: {auto_approve: {usd: 0}}", ""),
        (
            "consent: {auto_approve: {recipe_keys: [max_steps, packing]}}",
            "consent: {auto_approve: {recipe_keys: [learning_rate, max_steps]}}",
            "`consent.auto_approve.recipe_keys` `max_steps`, `packing` → `max_steps`",
        ),
        ("permissions: {train: write}", "permissions: {train: maintain}", "`permissions.train` `write` → `maintain`"),
        ("permissions: {train: admin}", "permissions: {train: maintain}", ""),
        ("licences: {allowed: [mit, gpl-3.0]}", "licences: {allowed: [MIT]}",
         "`licences.allowed` `mit`, `gpl-3.0` → `mit`"),
        ("licences: {allowed: [gpl-3.0]}", "licences: {allowed: [mit]}", "`licences.allowed` `gpl-3.0` → none named"),
        ("", "licences: {allowed: [mit]}", "`licences.allowed` none named → `mit`"),
        ("licences: {allowed: [mit]}", "licences: {allowed: []}", ""),
        ("data: {urls: ['https://a.org/x/']}", "data: {urls: ['https://a.org/']}", ""),
        ("data: {urls: ['https://a.org/']}", "data: {urls: ['https://a.org/x/']}",
         "`data.urls` `https://a.org/` → `https://a.org/x/`"),
        ("data: {urls: ['https://b.org/']}", "data: {urls: ['https://a.org/']}",
         "`data.urls` `https://b.org/` → none named"),
        ("data: {urls: ['https://b.org/']}", "data: {urls: []}", ""),
        ("publish: {namespace: mine}", "publish: {namespace: ours}", "`publish.namespace` `mine` → `ours`"),
        ("publish: {private: false}", "publish: {private: true}", "`publish.private` no → yes"),
        ("publish: {private: true}", "publish: {private: false}", ""),
        ("publish: {on_merge: true}", "publish: {on_merge: false}", "`publish.on_merge` yes → no"),
        ("", "commits: {skip_ci: true}", "`commits.skip_ci` no → yes"),
        ("contamination: drop", "contamination: block", "`contamination` `drop` → `block`"),
        ("contamination: block", "contamination: drop", ""),
        ("", "brain: ask", "`brain` `propose` → `ask`"),
        ("brain: ask", "brain: off", "`brain` `ask` → `off`"),
        ("brain: off", "brain: propose", ""),
        ("usd_per_hour: 1", "usd_per_hour: 2.5", "`usd_per_hour` 1 → 2.5"),
        ("usd_per_hour: 3", "usd_per_hour: 2.5", ""),
        ("labels: {goal: mine}", "labels: {goal: ours}", ""),
        ("budget: {usd: 15}", "# states nothing", ""),
    ],
)  # fmt: skip
def test_servers_policy_bounds_what_it_states_and_nothing_else(own: str, server: str, cut: str) -> None:
    policy = parsed(own)
    bounded = policy.bounded_by(parsed(server))
    said = [line for line in bounded.lines() if "This server allows less" in line]
    assert said == ([f"This server allows less than the repository's policy: {cut}."] if cut else [])
    assert bounded.bounded_by(parsed(server)) == bounded
    assert policy.bounded_by(None) is policy
    if not cut:
        assert bounded == policy


def test_licences_that_both_forbid_allow_nothing_rather_than_everything() -> None:
    bounded = parsed("licences: {allowed: [gpl-3.0]}").bounded_by(parsed("licences: {allowed: [mit]}"))
    assert bounded.licences_allowed == (NO_LICENCE,)
    for name in ("mit", "gpl-3.0", "apache-2.0", None, "none", "unknown"):
        assert not licence_gate(name, bounded.licences_allowed).ok
    # The same hole from the file's side: a word that names no licence would leave nothing to hold against.
    assert parse_policy("licences: {allowed: [none]}").policy is None
    assert parse_policy("licences: {allowed: [Unknown]}").policy is None


_POLICIES = st.fixed_dictionaries(
    {},
    optional={
        "budget": st.fixed_dictionaries({}, optional={"usd": st.integers(0, 50), "runs": st.integers(1, 20)}),
        "month": st.fixed_dictionaries({}, optional={"gpu_hours": st.floats(0, 50)}),
        "consent": st.fixed_dictionaries(
            {"auto_approve": st.fixed_dictionaries({}, optional={"runs": st.integers(0, 9), "usd": st.floats(0, 9)})}
        ),
        "permissions": st.dictionaries(
            st.sampled_from(["read", "plan", "train", "admin"]), st.sampled_from(["read", "write", "maintain", "admin"])
        ),
        "usd_per_hour": st.floats(0, 9),
    },
)


@given(own=_POLICIES, server=_POLICIES)
@settings(max_examples=150, deadline=None)
def test_bounded_policy_is_never_looser_than_either(own: dict[str, object], server: dict[str, object]) -> None:
    policy, bound = parsed(yaml.safe_dump(own)), parsed(yaml.safe_dump(server))
    bounded = policy.bounded_by(bound)
    for limit in (policy, *([bound] if "budget" in server and {"usd", "runs"} <= set(server["budget"]) else [])):  # type: ignore[call-overload]
        assert bounded.budget.usd <= limit.budget.usd
        assert bounded.budget.runs <= limit.budget.runs
    assert bounded.month.gpu_hours <= policy.month.gpu_hours
    assert bounded.usd_per_hour >= policy.usd_per_hour
    for tier in Tier:
        assert not bounded.allows(tier, "read") or policy.allows(tier, "read")
        if tier in server.get("permissions", {}):
            for role in ("read", "write", "maintain", "admin"):
                assert not bounded.allows(tier, role) or bound.allows(tier, role)
    goal = make_goal(budget=Budget(usd=5, gpu_hours=0, runs=5))
    assert not bounded.grants(goal) or policy.grants(goal)


def test_server_policy_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    assert load_server_policy(None) is None
    path = tmp_path / "server.yml"
    with pytest.raises(SettingsError, match=r"POSTDOC_POLICY_FILE: .*server\.yml: No such file"):
        load_server_policy(path)
    path.write_text("month:\n  usd: lots\nx: 1\n")
    with pytest.raises(SettingsError, match=r"server\.yml:2:3 `month\.usd` .* \(and 1 more\)$") as error:
        load_server_policy(path)
    assert "\n" not in str(error.value)
    path.write_bytes(b"month: {usd: 5}\xff")
    with pytest.raises(SettingsError, match="not UTF-8"):
        load_server_policy(path)
    path.write_text("month: {usd: 5}\n")
    loaded = load_server_policy(path)
    assert loaded is not None and loaded.stated == {"month.usd"}


def test_skip_ci_stands_in_a_commit_only_when_the_policy_says_so() -> None:
    assert skip_ci_trailer(Policy()) == ""
    assert f"{skip_ci_trailer(parsed('commits: {skip_ci: true}'))}Postdoc-Run: 7/01" == "[skip ci]\n\nPostdoc-Run: 7/01"


def test_no_change_of_meaning_says_nothing() -> None:
    assert policy_changes(Policy(), parsed(EXAMPLE.read_text())) == []
    assert policy_changes(parsed(POLICY_RUNS), Policy()) == [
        "Less is granted without asking, per goal: nothing instead of up to 6 runs, 2 GPU hours and 0 USD."
    ]


def test_bytes_are_read_whatever_they_are() -> None:
    assert read_policy(b"\xef\xbb\xbfmonth: {usd: 3}\r\n").policy is not None
    assert read_policy(b"month: {usd: 3}\n\xff\xfe").problems == ["2:1 This is not UTF-8 text: save the file as UTF-8."]
    assert read_policy(b"x: 1\n" * 300_000).problems[0].startswith("1:1 The file has 1,500,000 bytes")
    assert read_policy(b"data: {urls: ['https://a.org/x/%2E%2e/y']}").policy is None


@given(st.text(alphabet="abudgetrns:&*![]{}-\n 0.1\"'#|>~\x00\u2028é", max_size=120))
@settings(max_examples=300, deadline=None)
def test_any_text_parses(text: str) -> None:
    policy, problems = parse_policy(text)

    assert (policy is None) == bool(problems)


if __name__ == "__main__":
    SCHEMA.write_text(json.dumps(policy_schema(), indent=2) + "\n")
