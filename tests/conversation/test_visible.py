"""What a page does not show is not read: every hiding place, alone and inside of a whole goal."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.conversation.issue_form import parse_goal
from bot.conversation.visible import visible_markdown, visible_text

SECRET = "Target: 5 %"
HIDING = {
    "comment": "<!-- {} -->",
    "comment over lines": "<!--\n\n{}\n\n-->",
    "comment with a bang": "<!-- {} --!>",
    "comment after a short one": "<!--><!-- {} -->",
    "comment never closed": "<!-- {}",
    "cdata": "<![CDATA[ {} ]]>",
    "instruction": "<?php {} ?>",
    "declaration": "<!DOCTYPE {}>",
    "image": "![{}](https://e.org/x.png)",
    "image with brackets": "![a [b] {}](https://e.org/x.png)",
    "image with brackets in its address": "![{}](https://e.org/x_(1).png)",
    "image over lines": "![a\n{}](https://e.org/x.png)",
    "image by reference": "![{}][picture]",
    "image's title": '![a](https://e.org/x.png "{}")',
    "html image": '<img src="x.png" alt="{}">',
    "html image with a mark": '<img alt="1 > 0, {}">',
    "html image in single quotes": "<img alt='1 > 0\n{}'>",
    "html title": '<a href="https://e.org" title="{}">a</a>',
    "attribute over lines": '<div title="\n{}\n">\n</div>',
    "attribute never closed": '<div title="\n{}\n',
    "link's title": '[a](https://e.org "{}")',
    "link's title in single quotes": "[a](https://e.org '{}')",
    "link's title in brackets": "[a](https://e.org ({}))",
    "link's title with brackets": '[a](https://e.org "(b) {}")',
    "link's title over lines": '[a](https://e.org\n"{}")',
    "link's title with a mark": '[a](https://e.org "b \\" {}")',
    "link in angles": '[a](<https://e.org/a b> "{}")',
    "definition": '[a]: https://e.org "{}"',
    "definition's label": "[{}]: https://e.org",
    "definition over lines": '[a]: https://e.org\n  "{}"',
    "markdown comment": "[//]: # ({})",
}


@pytest.mark.parametrize("way", HIDING)
def test_hidden_text_is_not_read(way: str) -> None:
    text = HIDING[way].format(SECRET)

    assert SECRET not in visible_text(text)
    assert SECRET not in visible_markdown(f"before\n\n{text}\n\nafter")
    assert visible_markdown(f"before\n\n{text}\n\nafter").startswith("before\n")


@pytest.mark.parametrize("way", HIDING)
@pytest.mark.parametrize("hidden", [SECRET, "### Target\n\n5 %", "### Target\n5 %\n### Notes"])
def test_hidden_text_is_not_part_of_a_goal(way: str, hidden: str) -> None:
    if "\n\n" in hidden and not way.startswith("comment") and way not in ("cdata", "instruction"):
        hidden = hidden.replace("\n\n", "\n")  # an empty line ends every other hiding place
    body = (
        "### Base model\n\nm/n-1\n\n### Benchmark\n\ngsm8k\n\n"
        + HIDING[way].format(hidden)
        + "\n\n### Target\n\n90 %\n"
    )
    found = parse_goal("A goal", body, known_benchmarks=["gsm8k"], model_exists=lambda _: None)

    assert found.goal is None or found.goal.target == 0.9
    assert all("`5 %`" not in problem for problem in found.problems)
    prose = f"Raise m/n-1 on gsm8k to 90 %.\n\n{HIDING[way].format('Target: 5 %')}\n"
    found = parse_goal("A goal", prose, known_benchmarks=["gsm8k"], model_exists=lambda _: None)
    assert found.goal is None or found.goal.target == 0.9


@pytest.mark.parametrize(
    "character",
    [
        *("\u200b", "\u200d", "\u2060", "\ufeff", "\u00ad", "\u202e", "\u2066", "\u200f", "\u061c", "\U000e0041"),
        *("\U000e0100", "\ufe0f", "\u3164", "\u2800", "\u115f", "\x00", "\x1b", "\ue000"),
    ],
    ids=ascii,
)
def test_characters_that_are_not_drawn_are_not_read(character: str) -> None:
    assert visible_text(f"Tar{character}get: 9{character}0 %") == "Target: 90 %"
    hidden = "".join(chr(0xE0000 + ord(letter)) for letter in SECRET)
    assert visible_text(f"a{hidden}b") == "ab"


@pytest.mark.parametrize(
    "text",
    [
        "keep 1 < 2 > 0, a < b and x > y",
        "loss <x and reach 90 %",
        "[a](https://e.org) and (b) [c]",
        "[^1]: a footnote is shown",
        "a `code` *word*, 5 * 3 and #7",
        'say "hello" to <3',
        "https://e.org/?a=1&b=2",
    ],
)
def test_shown_text_stays(text: str) -> None:
    assert visible_text(text) == text
    assert visible_markdown(text) == text


def test_fenced_code_is_kept_as_it_is_written() -> None:
    text = '```yaml\neos_token: <eos>  # <b>\nx: "![a](b)"\n```\n'

    assert visible_markdown(f"<b>a</b>\n{text}") == f"a\n{text}"
    assert "5 %" not in visible_markdown(f'<div title="\n```\n{SECRET}\n```\n">\n\nb')


@pytest.mark.parametrize(
    "piece",
    [
        *("<a ", '<a "', "<a '\"", "![", "![a](", "[a](b ", '[a](b "', "[a]: ", "<!--", "<![CDATA[", "<?", "`", "[["),
        *("](", '<a b="', "![[", "<a\n", '"\n', "<!-- -->", "~~~\n", '<a b="\n```\n'),
    ],
)
def test_time_grows_no_faster_than_the_text(piece: str) -> None:
    started = time.process_time()
    visible_markdown(piece * (65_536 // len(piece)))
    assert time.process_time() - started < 3


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("<>!-[]()\"'`~#\n :%5Ta/?=b\u200b\U000e0041"), max_size=120))
def test_nothing_is_added_and_reading_twice_changes_nothing_more(text: str) -> None:
    shown = visible_markdown(text)

    assert len(shown) <= len(text)
    assert "\u200b" not in shown
    assert "\U000e0041" not in visible_text(text)
