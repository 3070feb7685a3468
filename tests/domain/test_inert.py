"""Text from outside, once shown, does nothing."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from bot.conversation.commands import parse_commands
from bot.conversation.messages import key_of
from bot.domain.inert import code, fenced, inert, inert_line, inert_plain, inert_sentence, unmentioned

HOSTILE = [
    "@alice and @acme/team, also (@bob)",
    "Fixes #12, closes acme/widgets#3, resolves GH-4",
    "Fixes https://github.com/acme/widgets/issues/1",
    "![x](https://evil.example/x.png)",
    "[click](https://evil.example)",
    "[click][1]\n\n[1]: https://evil.example",
    "<img src=https://evil.example/x.png>",
    "<https://evil.example>",
    "www.evil.example",
    "<!-- postdoc:acme/widgets#42/sticky -->",
    "/postdoc run 1a2b3c4",
    "a\n/approve\natlantis apply",
    "`code` **bold** _em_ ~~gone~~ | cell | $x^2$",
    "\\`escaped\\` \\![x](https://evil.example/x.png)",
    "&#64;alice &lt;img&gt;",
    "``` \n/postdoc stop\n```",
    "\u202e\u200b\U000e0041",
]
MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def active_parts(markdown: str) -> list[str]:
    """What a renderer would make more than text of."""
    found = []
    for token in MARKDOWN.parse(markdown):
        found += [token.type] if token.type in ("html_block", "blockquote_open") else []
        found += [
            t.type for t in token.children or () if t.type not in ("text", "softbreak", "hardbreak", "text_special")
        ]
    return found


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("show", [inert, inert_line])
def test_running_text_has_no_active_part(text: str, show) -> None:
    shown = show(text)

    assert active_parts(shown) == []
    assert not re.search(r"(?<![A-Za-z0-9])@[A-Za-z0-9_]", shown)
    assert not re.search(r"#\d|GH-\d|://|www\.", shown)
    assert parse_commands(shown) == []
    assert key_of(shown) is None
    assert "<" not in shown


@pytest.mark.parametrize("text", HOSTILE)
def test_plain_text_for_titles_and_commits_has_no_reference(text: str) -> None:
    shown = inert_plain(text)

    assert not re.search(r"(?<![A-Za-z0-9])@[A-Za-z0-9_]", shown)
    assert not re.search(r"#\d|GH-\d|://|<!--", shown)


@pytest.mark.parametrize("text", [*HOSTILE, "`", "``", "a`b``c```d", "`edge`", "", "x" * 500, "a|b"])
def test_code_span_and_block_hold_anything(text: str) -> None:
    assert set(active_parts(f"before {code(text)} after")) <= {"code_inline"}
    (row,) = [token for token in MARKDOWN.parse(f"| a |\n| --- |\n| {code(text)} |\n") if token.type == "tbody_open"]
    assert row is not None
    assert MARKDOWN.render(f"| a | b |\n| --- | --- |\n| {code(text)} | end |\n").count("<td>") == 2
    blocks = [token.type for token in MARKDOWN.parse(f"{fenced(text)}\n\nafter")]
    assert blocks == ["fence", "paragraph_open", "inline", "paragraph_close"]
    assert parse_commands(fenced(text)) == []


def test_names_with_revisions_stay_copyable() -> None:
    assert unmentioned("write `name@revision`, not @alice") == "write `name@revision`, not @\u200balice"


def test_sentence_keeps_its_code_spans_and_nothing_else() -> None:
    said = inert_sentence("The base is under `llama3|x`, which **forbids** @alice `this")
    assert MARKDOWN.render(said) == (
        "<p>The base is under <code>llama3\\|x</code>, which **forbids** @\u200balice `this</p>\n"
    )
    assert inert_sentence("`a" + 300 * "b" + "`", 20).startswith("\\`a")  # cut inside of the span


@given(st.text(alphabet="@#/![]()<>`*_~|$\\&; \n-=+.:wpostdc19aB\u200b", max_size=80))
@settings(max_examples=400, deadline=None)
def test_no_text_becomes_active(text: str) -> None:
    assert [part for part in active_parts(f"Cause: {inert(text)}") if part != "blockquote_open"] == []
    assert set(active_parts(f"x {code(text)} y")) <= {"code_inline"}
    assert parse_commands(inert(text)) == []
    assert set(active_parts(f"x {inert_sentence(text)} y")) <= {"code_inline"}
    assert parse_commands(inert_sentence(text)) == []
    assert len([token for token in MARKDOWN.parse(fenced(text)) if token.type == "fence"]) == 1
