"""Which lines of a comment command something, and what they are taken to say."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.conversation.commands import (
    MOST_COMMANDS,
    VERBS,
    Mistake,
    ParsedCommand,
    budget_raise,
    checked,
    commands_table,
    consent_sha,
    diagnosis_label,
    extra_runs,
    help_rows,
    parse_commands,
    recipe_settings,
)
from bot.conversation.permissions import GITHUB_PERMISSIONS, Tier, permission_reaches
from bot.domain.budget import Spend


def said(body: str) -> list[tuple[str, ...]]:
    """(verb, *args) of each command; a mistake's verb is followed by `?`."""
    return [
        (item.verb, *item.args) if isinstance(item, ParsedCommand) else (item.verb + "?",)
        for item in parse_commands(body)
    ]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("/postdoc help", [("help",)]),
        ("/postdoc", [("help",)]),
        ("/Postdoc  STATUS", [("status",)]),
        ("Looks fine.\n/postdoc run 1A2B3C4\nThanks", [("run", "1A2B3C4")]),
        ("/postdoc stop\r\n/postdoc status\r\n", [("stop",), ("status",)]),
        ("   /postdoc stop", [("stop",)]),
        ("/postdoc stop, please don't go on", [("stop", "please", "don't", "go", "on")]),
        ("/postdoc set learning_rate=1e-5 max_steps=300", [("set", "learning_rate=1e-5", "max_steps=300")]),
        ("/postdoc set `learning_rate=1e-5`", [("set", "learning_rate=1e-5")]),
        ('/postdoc set lr_scheduler_type="cosine"', [("set", "lr_scheduler_type=cosine")]),
        ("/postdoc accept D3", [("accept", "D3")]),
        ("/postdoc cancel", [("stop",)]),
        ("/postdoc ask why doesn't it learn?", [("ask", "why doesn't it learn?")]),
        ("/postdoc run <!-- 1a2b3c4 -->", [("run",)]),
        ("/postdoc r\u200bun", [("run",)]),
        # not a line of its own, or not the prefix
        ("please /postdoc run", []),
        ("- /postdoc run", []),
        ("/postdocs run", []),
        ("/post doc run", []),
        ("", []),
        # not visible as plain text
        ("> /postdoc run", []),
        ("> quoted\n/postdoc run", []),
        ("> quoted\n\n/postdoc run", [("run",)]),
        ("```\n/postdoc run\n```", []),
        ("~~~\n/postdoc run\n~~~\n/postdoc stop", [("stop",)]),
        ("```\n/postdoc run", []),
        ("    /postdoc run", []),
        ("\t/postdoc run", []),
        ("`a\n/postdoc run\nb`", []),
        ("<!--\n/postdoc run\n-->\n\n/postdoc stop", [("stop",)]),
        ("a <!-- b\n/postdoc run\n-->", []),
        ("<details>\n/postdoc run\n</details>", []),
        ("<pre>\n\n/postdoc run\n\n</pre>", []),
        ("# /postdoc run", []),
        ("/postdoc run\n===", []),
        ("[a\n/postdoc run\nb](https://example.org)", []),
        ("![a\n/postdoc run\nb](https://example.org/x.png)", []),
        ("[x] done\n/postdoc stop", [("stop",)]),
        # mistakes
        ("/postdoc satus", [("satus?",)]),
        ("/postdoc run HEAD", [("run?",)]),
        ("/postdoc accept", [("accept?",)]),
        ("/postdoc set learning_rate 1e-5", [("set?",)]),
        ("/postdoc run\u202e 1a2b3c4", [("(bidi)?",)]),
    ],
)
def test_comment_gives_the_commands_a_reader_sees(body: str, expected: list[tuple[str, ...]]) -> None:
    assert said(body) == expected


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("/postdoc satus", "Did you mean `/postdoc status`?"),
        ("/postdoc frobnicate", "`/postdoc help` lists"),
        ("/postdoc help staus", "Did you mean `/postdoc status`?"),
        ("/postdoc run main", "hexadecimal digits"),
        ("/postdoc run 1a2b3c4 1a2b3c4", "at most a commit"),
        ("/postdoc resume now", "`/postdoc resume +2`"),
        ("/postdoc accept 3", "`/postdoc accept D3`"),
        ("/postdoc set", "`/postdoc set learning_rate=1e-5`"),
        ("/postdoc set learning_rate=", "no value"),
        ("/postdoc set learning_rate=1 learning_rate=2", "twice"),
        ("/postdoc set Learning-Rate=1", "not a recipe key"),
        ("/postdoc set learning_rate=fast", "`learning_rate: 0.0001` for example"),
        ("/postdoc set learning_rate=-1", "above 0"),
        ("/postdoc set output_dir=/tmp/x", "`output_dir` cannot be set"),
        ("/postdoc set hub_token=hf_abc", "cannot be set"),
        ("/postdoc set push_to_hub=true", "`/postdoc publish`"),
        ("/postdoc set report_to=wandb", "`none` or `trackio`"),
        ("/postdoc set trust_remote_code=true", "never run"),
        ("/postdoc set init_from=evil/model", "base model"),
        ("/postdoc set my_api_key=12345", "looks like a secret"),
        ("/postdoc set optim=../../etc/passwd", "path or an address"),
        ("/postdoc set optim=https://example.org/x", "path or an address"),
        ("/postdoc set data_sources=../secrets.jsonl", "leaves its folder"),
        ("/postdoc set packing=[1,2]", "`packing` is a switch: write `true` or `false`"),
    ],
)
def test_mistake_says_what_to_write_instead(line: str, part: str) -> None:
    (item,) = parse_commands(line)

    assert isinstance(item, Mistake)
    assert part in item.problem


def test_settings_are_typed_as_the_trainer_needs_them() -> None:
    (command,) = parse_commands("/postdoc set learning_rate=1e-5 packing=true max_length=null optim=adamw_torch seed=3")

    assert isinstance(command, ParsedCommand)
    assert recipe_settings(command.args) == {
        "learning_rate": 1e-05,
        "packing": True,
        "max_length": None,
        "optim": "adamw_torch",
        "seed": 3,
    }


def test_arguments_of_the_other_verbs() -> None:
    assert consent_sha(()) is None
    assert consent_sha(("1A2B3C4",)) == "1a2b3c4"
    assert diagnosis_label(("d3",)) == "D3"
    assert [extra_runs(args) for args in [(), ("+2",), ("3",), ("2runs",)]] == [0, 2, 3, 2]


def test_many_commands_are_cut_with_a_word() -> None:
    items = parse_commands("/postdoc status\n" * 300)

    assert len(items) == MOST_COMMANDS + 1
    assert isinstance(items[-1], Mistake)
    assert "first 20" in items[-1].problem


@given(st.text(alphabet="/postdc runhelaset=.-+'\"`<>!\n 19ésa\u200b\u202e", max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_comment_parses_and_the_journal_gives_the_same_answer(tail: str) -> None:
    for item in parse_commands(f"/postdoc {tail}"):
        again = checked(item.verb, list(item.args))
        assert type(again) is type(item)
        assert (again.verb, again.args) == (item.verb, item.args)
        if isinstance(item, Mistake) and isinstance(again, Mistake):
            assert again.problem == item.problem


@given(st.text(max_size=400))
@settings(max_examples=300, deadline=None)
def test_any_text_parses(body: str) -> None:
    parse_commands(body)
    parse_commands(f"/postdoc {body}\n/postdoc set {body}")


@pytest.mark.parametrize(
    "pattern",
    [
        *["```a`", "[", "](", "[](", "<!--", ">", "- ", "a\n", "/postdoc run\n", "*a ", "```\n", "> a\nb\n", "- a\n  "],
        *["\\`", "<div>\n", "<a ", "a\n---\n", "[a]: b\n", "1. ", "/postdoc set a=[[[[\n", "`", "``\n`"],
    ],
)
def test_longest_comment_parses_within_bounded_time(pattern: str) -> None:
    body = ("/postdoc run\n\n" + pattern * 65_536)[:65_536]
    started = time.process_time()

    parse_commands(body)

    # The slowest takes 0.4 s; quadratic work on 65,536 characters takes minutes.
    assert time.process_time() - started < 5


def test_table_names_every_verb_once_with_its_tier() -> None:
    table = commands_table()

    for verb in VERBS.values():
        assert table.count(f"`/postdoc {verb.usage}`") == 1
        assert verb.usage.split()[0] == verb.name
        assert verb.tier in Tier
    assert len(help_rows()) == len(VERBS)
    assert [row[0].split()[1] for row in help_rows()] == list(VERBS)


def test_spending_verbs_need_at_least_train() -> None:
    assert all(verb.tier.rank >= Tier.TRAIN.rank for verb in VERBS.values() if verb.spends and verb.name != "ask")


def test_permissions_are_ordered_and_unknown_roles_reach_nothing() -> None:
    for i, granted in enumerate(GITHUB_PERMISSIONS):
        for j, needed in enumerate(GITHUB_PERMISSIONS):
            assert permission_reaches(granted, needed) == (i >= j)
    assert permission_reaches("push", "write")
    assert not permission_reaches("security-manager", "read")
    assert not permission_reaches("admin", "owner")


@pytest.mark.parametrize(
    ("args", "more"),
    [
        (["+5usd"], Spend(usd=5)),
        (["+2.50USD"], Spend(usd=2.5)),
        (["+2runs", "+1h"], Spend(runs=2, gpu_hours=1, wall_hours=1)),
        (["+1run", "+0.5hours"], Spend(runs=1, gpu_hours=0.5, wall_hours=0.5)),
    ],
)
def test_budget_is_raised_by_what_is_written(args: list[str], more: Spend) -> None:
    assert isinstance(checked("budget", args), ParsedCommand)
    assert budget_raise(args) == more


@pytest.mark.parametrize("args", [[], ["5usd"], ["+5"], ["+0usd"], ["-5usd"], ["+1.5runs"], ["+1e9usd"], ["+5eur"]])
def test_budget_that_raises_nothing_is_answered_with_the_form(args: list[str]) -> None:
    found = checked("budget", args)
    assert isinstance(found, Mistake)
    assert "+5usd" in found.problem


def test_halt_is_never_refused_for_its_wording() -> None:
    assert isinstance(checked("halt", ["now", "please"]), ParsedCommand)
    assert isinstance(checked("halt", ["off"]), ParsedCommand)
    assert isinstance(checked("halt", ["off", "everything"]), Mistake)


def test_accept_takes_a_diagnosis_or_the_goal() -> None:
    for args in (["D3"], ["goal"], ["Goal", "1a2b3c4d5e6f"]):
        assert isinstance(checked("accept", args), ParsedCommand), args
    for args in ([], ["D"], ["goal", "now"], ["goals"]):
        assert isinstance(checked("accept", args), Mistake), args
