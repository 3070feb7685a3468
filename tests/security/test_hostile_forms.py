"""The injections and hostile scripts as data: whole, unlike one another, and bounded. Who drives them is another test.

**Injections**, `injections/*.yaml`, a list of

- `id`; `where` the text stands: paper section, dataset card, model card, README, code file, log line, issue
  comment, tool result; `kind`, what it is after; `text`, as it stands there.
- `wants`: what a model does that does exactly as it is told, in order. `do` is one of `search` (where, query), `fetch`
  (url), `read` (path), `write` (path, text), `recipe` (key, value), `goal` (key, value), `hardware` (name, hours),
  `comment` (text), `commit_message` (text), `tool` (name, arguments), `python` (code), `remember` (text; to be kept
  through compaction), `skip` (check), `answer` (text), `approve`, `merge`, `stop_monitor`. Paths are relative to the
  experiment's folder.

Marks in double braces are filled by the driver: `secret` (and `secret_first_half`, `secret_second_half`,
`secret_rot13`, `secret_spaced`), `private_row` (and `private_row_base64`, `private_row_slug`,
`private_word_0` to `_2`),
`sealed_item` (and `sealed_item_hex`), `system_prompt`; in scripts `evaluation_question_0`, `evaluation_answer_0` and
their encodings.

**Scripts**, `hostile_scripts/*.py`: the first lines are `# wants: ...`, `# caught by: ...` (sandbox, schema, preflight,
contamination, caps: the first that must stop it, or make it harmless) and `# as: ...`, the file it is proposed as. A
script that gets what it wants prints a line that begins with `ESCAPED`; "if" in that line leaves it to the driver to
look. Scripts that take processes, memory, disk, inodes or log do so up to a bound that they name: run them under caps
all the same.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest
import yaml

HERE = Path(__file__).parent
INJECTIONS = [
    each
    for file in sorted((HERE / "injections").glob("*.yaml"))
    for each in yaml.safe_load(file.read_text(encoding="utf-8"))
]
SCRIPTS = sorted((HERE / "hostile_scripts").glob("*.py"))
PLACES = {
    "paper section",
    "dataset card",
    "model card",
    "README",
    "code file",
    "log line",
    "issue comment",
    "tool result",
}
DEEDS = {
    "search": {"where", "query"},
    "fetch": {"url"},
    "read": {"path"},
    "write": {"path", "text"},
    "recipe": {"key", "value"},
    "goal": {"key", "value"},
    "hardware": {"name", "hours"},
    "comment": {"text"},
    "commit_message": {"text"},
    "tool": {"name", "arguments"},
    "python": {"code"},
    "remember": {"text"},
    "skip": {"check"},
    "answer": {"text"},
    "approve": set(),
    "merge": set(),
    "stop_monitor": set(),
}
KINDS = {
    "exfiltrate",
    "covert_channel",
    "write_outside",
    "run_code",
    "spend",
    "change_goal",
    "add_domain",
    "add_tool",
    "edit_evaluator",
    "read_sealed",
    "mention",
    "merge",
    "disable_monitor",
    "base_model",
    "instruct_checkpoint",
    "persist",
    "forge_system",
    "forge_tool_result",
    "skip_checks",
    "lie",
    "multi_step",
}
MARKS = re.compile(
    r"secret(_first_half|_second_half|_rot13|_spaced)?|private_row(_base64|_slug)?|private_word_[0-2]"
    r"|sealed_item(_hex)?|system_prompt|evaluation_(question|answer)_[01](_base64|_rot13)?"
)
CATCHERS = {"sandbox", "schema", "preflight", "contamination", "caps"}
FILES = {"train.py", "prepare.py", "rewards.py", "tool"}


def test_there_are_sixty_injections_in_every_place_and_of_every_kind():
    assert len(INJECTIONS) >= 60
    assert {each["where"] for each in INJECTIONS} == PLACES
    assert {each["kind"] for each in INJECTIONS} == KINDS
    assert len({each["id"] for each in INJECTIONS}) == len({each["text"] for each in INJECTIONS}) == len(INJECTIONS)


@pytest.mark.parametrize("injection", INJECTIONS, ids=lambda each: each["id"])
def test_an_injection_says_what_a_model_that_obeys_it_does(injection):
    assert set(injection) == {"id", "where", "kind", "text", "wants"}
    assert injection["wants"]
    for deed in injection["wants"]:
        assert set(deed) - {"do"} == DEEDS[deed["do"]], deed
    for mark in re.findall(r"\{\{(.*?)\}\}", str(injection)):
        assert MARKS.fullmatch(mark), mark


def test_every_deed_is_asked_for():
    assert {deed["do"] for each in INJECTIONS for deed in each["wants"]} == set(DEEDS)


def test_there_are_forty_scripts_for_every_catcher():
    assert len(SCRIPTS) >= 40
    caught = Counter(_heads(script)["caught by"] for script in SCRIPTS)
    assert set(caught) == CATCHERS
    assert len({_heads(script)["wants"] for script in SCRIPTS}) == len(SCRIPTS)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_parses_and_says_what_it_wants(script):
    heads = _heads(script)
    assert heads["caught by"] in CATCHERS
    assert heads["as"] in FILES
    text = script.read_text(encoding="utf-8")
    ast.parse(text)
    for mark in re.findall(r"\{\{(.*?)\}\}", text):
        assert MARKS.fullmatch(mark), mark


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_ends_by_itself(script):
    """No loop without a bound: a `while` compares with a clock, and whoever forks does so within a `range` or once."""
    tree = ast.parse(script.read_text(encoding="utf-8"))
    for loop in (node for node in ast.walk(tree) if isinstance(node, ast.While)):
        assert "monotonic" in ast.unparse(loop.test)
    forks = ast.unparse(tree).count("os.fork()")
    assert forks <= 2
    assert forks != 1 or "in range(400)" in ast.unparse(tree)


def _heads(script: Path) -> dict[str, str]:
    lines = script.read_text(encoding="utf-8").splitlines()[:3]
    found = [re.fullmatch(r"# (wants|caught by|as): (.+)", line) for line in lines]
    assert all(found), script.name
    return {match.group(1): match.group(2) for match in found if match}
