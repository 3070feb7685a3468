"""Every text of the corpus, through every function that shows a text from outside, as GitHub would read the result."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from bot.conversation.messages import key_of
from bot.data.card import dataset_card, report_card
from bot.domain.inert import code, fenced, inert, inert_line, inert_plain, inert_sentence, printable
from tests.security.judge import MARKDOWN, character_problems, markdown_problems, plain_problems, structure

CORPUS = yaml.safe_load((Path(__file__).parent / "corpus" / "injections.yaml").read_text(encoding="utf-8"))
TEXTS = [pytest.param(each["text"], id=each["id"]) for each in CORPUS]
SHOWN: dict[str, Callable[[str], str]] = {
    "running": lambda text: f"Cause: {inert(text)} and more.",
    "alone": inert,
    "line": lambda text: f"- **D1** {inert_line(text)}",
    "sentence": lambda text: f"The licence is {inert_sentence(text)}, and goes.",
    "cell": lambda text: f"| a | b |\n| --- | --- |\n| {inert_line(text)} | {code(text)} |",
    "code": lambda text: f"`run` takes a commit, not {code(text, 60)}.",
    "block": lambda text: f"before\n\n{fenced(text, 'yaml')}\n\nafter",
    "folded": lambda text: f"<details><summary>Log</summary>\n\n{fenced(text)}\n\n</details>",
}


def test_corpus_is_what_it_says() -> None:
    assert len(CORPUS) >= 60
    assert len({each["id"] for each in CORPUS}) == len(CORPUS)
    assert {frozenset(each) for each in CORPUS} == {frozenset({"id", "vector", "attempts", "text"})}
    vectors = "title field notes recipe recipe_comment comment card build log metric file branch"
    assert {each["vector"] for each in CORPUS} == set(vectors.split())


def test_judge_finds_what_each_text_attempts() -> None:
    """A judge that sees nothing in the raw texts would see nothing in ours."""
    silent = {
        each["id"] for each in CORPUS
        if not [*markdown_problems(each["text"]), *plain_problems(each["text"])] and structure(each["text"]) == PLAIN
    }  # fmt: skip
    about_words = {"instruction", "path-up", "path-absolute", "path-encoded", "path-query", "expression", "template"}
    about_words |= {"homoglyph-slash", "branch-own", "shell-title", "remote-code", "secret-key", "path-workflow"}
    about_words |= {
        "licence-break",
        "table-row",
        "mention-zero-width",
        "yaml-anchor",
        "mermaid-metric",
        "yaml-tag",
        "yaml-title",
        "command-atlantis",
        "command-shell",
        "command-own",
    }
    assert silent <= about_words


PLAIN = ["paragraph_open", "inline", "paragraph_close"]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("name", SHOWN)
def test_shown_text_does_nothing(name: str, text: str) -> None:
    shown = SHOWN[name](text)
    assert list(markdown_problems(shown)) == []
    harmless = SHOWN[name]("word")
    assert [t for t in structure(shown) if t not in PLAIN] == [t for t in structure(harmless) if t not in PLAIN]
    if name == "cell":
        [row] = re.findall(r"<tbody>.*?</tbody>", MARKDOWN.render(shown), re.DOTALL)
        assert row.count("<td>") == 2
        assert github_cells(shown.splitlines()[-1]) == 2


def github_cells(row: str) -> int:
    """Cells of a table's row as GitHub's parser counts them: a backslash takes the next character with it."""
    return len(re.findall(r"(?:\\.|[^\\|])+", row.strip().strip("|")))


@pytest.mark.parametrize("text", TEXTS)
def test_plain_text_does_nothing(text: str) -> None:
    assert list(plain_problems(inert_plain(text))) == []
    assert key_of(inert_plain(text)) is None


@pytest.mark.parametrize("text", TEXTS)
def test_log_is_printable(text: str) -> None:
    assert list(character_problems(printable(text))) == []
    assert "\x1b" not in printable(text)


@pytest.mark.parametrize("text", TEXTS)
def test_cards_hold_it_without_doing_anything(text: str) -> None:
    build = {"sources": [{"path": text, "rows": 1, "sha256": text}], "rows": 1, "validation_rows": 0,
             "dropped": {text: 2}, "columns": {"prompt": text}, "sha256": text}  # fmt: skip
    card = dataset_card(build, title=text, licence=text)
    report = report_card({
        "goal": {"title": text, "base_model": text, "benchmark": text, "metric": text, "target": 0.9},
        "state": "met", "state_reason": text, "issue": "#1", "pull_request": "#2",
        "runs": [{"n": 1, "method": text, "value": None, "symptoms": [text], "verdict": None, "seconds": 1.0,
                  "changed": [{"key": text, "before": text, "after": 1}]}],
        "licences": [{"what": text, "identifier": text, "source": text, "cautions": [text]}],
        "provenance": {text: text},
    })  # fmt: skip
    for document in (card, report):
        front, _, body = document.removeprefix("---\n").partition("\n---\n")
        assert isinstance(yaml.safe_load(front), dict)
        assert list(markdown_problems(body, frozenset({"#1", "#2"}), is_file=True)) == []
        assert list(character_problems(document)) == []
