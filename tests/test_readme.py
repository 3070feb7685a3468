"""The README's tables are the code's: commands, settings, states. `python -m tests.test_readme` rewrites them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from bot.brain.playbook import rows
from bot.config import Settings
from bot.conversation.commands import commands_table
from bot.domain import methods as domain_methods
from bot.domain.experiment import State
from bot.loop.world import METHODS, TEMPLATES
from tests.actions.tables import inputs_table, outputs_table

README = Path(__file__).resolve().parent.parent / "README.md"
MEANINGS = {
    State.CONTRACT: "The issue is being read.",
    State.NEEDS_AUTHOR: "The goal cannot be acted on as written; one comment says what to write instead.",
    State.PLAN: "Understood: baseline where policy pays for it, data built, scanned and licensed.",
    State.PROPOSED: "The pull request is open, and the next run may be due.",
    State.AWAITING_CONSENT: "Waiting for `/postdoc run`: nothing more is spent until then.",
    State.BASELINE: "The untouched base model is being evaluated.",
    State.TRAINING: "A run trains.",
    State.EVALUATING: "The run's model is being evaluated on dev, by the bundle.",
    State.REVIEWING: "Compared, diagnosed, perhaps probed; then one review.",
    State.REVISING: "One cause is being changed, in one commit.",
    State.CONFIRMING: "The sealed split is opened, once.",
    State.MET: "Reached on dev and confirmed on the seal. Final.",
    State.NOT_CONFIRMED: "Reached on dev, not on the seal. Final: a seal opens once.",
    State.EXHAUSTED: "A ceiling of the budget is reached; `/postdoc resume +2` goes on.",
    State.NEEDS_HUMAN: "Nothing untried is left, or a person has to mend something; a push or a resume goes on.",
    State.STOPPED: "Somebody said stop; `/postdoc resume` goes on.",
    State.CLOSED: "The pull request was closed or merged; jobs are ended, the record stays.",
}


def states_table() -> str:
    rows = [f"| {state} | {MEANINGS[state]} |" for state in State]
    return "\n".join(["| state | meaning |", "| --- | --- |", *rows])


def settings_table() -> str:
    rows = []
    for name, field in Settings.model_fields.items():
        default = "required" if field.is_required() else "" if field.default in (None, "", ()) else f"`{field.default}`"
        rows.append(f"| `POSTDOC_{name.upper()}` | {default} | {field.description} |")
    return "\n".join(["| setting | default | meaning |", "| --- | --- | --- |", *rows])


def methods_table() -> str:
    found = []
    for name in METHODS:
        method = domain_methods.METHODS[name]
        families = dict.fromkeys(row.family for row in rows() if row.method == name)
        found.append(f"| `{name}` | {method.title} | {', '.join(method.columns)} | {', '.join(families)} |")
    return "\n".join(["| method | what it is | a row holds | recipes for |", "| --- | --- | --- | --- |", *found])


TABLES = {
    "methods": methods_table,
    "commands": commands_table,
    "settings": settings_table,
    "states": states_table,
    "inputs": inputs_table,
    "outputs": outputs_table,
}


def section(name: str, text: str) -> str:
    found = re.search(rf"<!-- {name} -->\n(.*?)\n<!-- /{name} -->", text, re.DOTALL)
    assert found is not None, f"the README has no section {name}"
    return found[1]


@pytest.mark.parametrize("name", TABLES)
def test_readme_table_is_the_codes(name: str) -> None:
    assert section(name, README.read_text(encoding="utf-8")).strip() == TABLES[name]().strip(), (
        "python -m tests.test_readme"
    )


def test_readme_names_no_file_that_is_not_there() -> None:
    text = README.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (README.parent / target).exists(), target


def test_goal_form_offers_the_methods_that_have_a_script() -> None:
    form = yaml.safe_load((TEMPLATES / "issue_form" / "goal.yml").read_text(encoding="utf-8"))
    [method] = [field for field in form["body"] if field.get("id") == "method"]
    named = re.findall(r"[a-z]+", method["attributes"]["description"])
    assert set(METHODS) <= set(domain_methods.METHODS) <= set(named)


def rewrite() -> None:
    text = README.read_text(encoding="utf-8")
    for name, table in TABLES.items():
        before, after = f"<!-- {name} -->\n", f"\n<!-- /{name} -->"
        text = text.replace(f"{before}{section(name, text)}{after}", f"{before}{table()}{after}")
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    rewrite()
