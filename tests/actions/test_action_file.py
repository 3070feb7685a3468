"""`action.yml` and the workflow templates: checked by GitHub's own service, actionlint, zizmor and the JSON schemas,
each of which is shown broken files too; and what only we know of them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from actions.prepare import MODES
from actions.request import Mode
from tests.actions import standins
from tests.actions.conftest import ACTION, ROOT, TEMPLATES
from tests.actions.judge import Judge
from tests.actions.tables import inputs_table, outputs_table

ACTION_FILE = ROOT / "action.yml"
ACTION_DATA = yaml.safe_load(ACTION_FILE.read_text(encoding="utf-8"))
WORKFLOWS = [*sorted(TEMPLATES.glob("*.yml")), *sorted((ROOT / ".github" / "workflows").glob("*.yml"))]
FORM = ROOT / "templates" / "issue_form" / "goal.yml"
BIN = Path(sys.executable).parent
GOOD = """\
name: good
on: push
permissions: {}
jobs:
  one:
    runs-on: ubuntu-24.04
    steps:
      - run: echo
"""


def metadata() -> dict[str, Any]:
    inputs = {
        name: {"description": spec["description"], "required": spec.get("required", False), "default": "x"}
        if "default" in spec
        else {"description": spec["description"], "required": True}
        for name, spec in ACTION_DATA["inputs"].items()
    }
    return standins.metadata() | {ACTION: {"name": "Postdoc", "description": "", "inputs": inputs}}


def command(name: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(BIN / name), *words], capture_output=True, text=True, check=False, timeout=100)


# --- GitHub's own language service, and actionlint ------------------------------------------------------------------


@pytest.mark.parametrize("path", [ACTION_FILE, *WORKFLOWS], ids=lambda path: path.name)
def test_language_service_has_no_complaint(judge: Judge, path: Path) -> None:
    name = path.name if path == ACTION_FILE else f".github/workflows/{path.name}"
    assert judge.complaints(name, path.read_text(encoding="utf-8"), metadata()) == []


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("action.yml", "name: x\ndescription: d\nruns:\n  using: composite\n  steps:\n    - run: echo\n", "shell"),
        (".github/workflows/a.yml", GOOD.replace("echo", "echo ${{ nothing.here }}"), "nothing"),
        (".github/workflows/a.yml", GOOD.replace("runs-on", "runs-of"), "runs-of"),
        (
            ".github/workflows/a.yml",
            GOOD.replace("- run: echo", f"- uses: {ACTION}@v1\n        with: {{mood: good}}"),
            "mood",
        ),
    ],
)
def test_language_service_catches_a_broken_file(judge: Judge, name: str, text: str, words: str) -> None:
    assert words in " ".join(judge.complaints(name, text, metadata()))
    assert judge.complaints(".github/workflows/good.yml", GOOD, metadata()) == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actionlint_has_no_complaint(judge: Judge, path: Path) -> None:
    assert judge.lint(f".github/workflows/{path.name}", path.read_text(encoding="utf-8")) == []


def test_actionlint_catches_a_broken_file(judge: Judge) -> None:
    broken = GOOD.replace("run: echo", "run: echo ${{ github.event.issue.title }}").replace("ubuntu-24.04", "ubuntu-2")
    found = " ".join(judge.lint(".github/workflows/a.yml", broken))
    assert "untrusted" in found
    assert "ubuntu-2" in found
    assert judge.lint(".github/workflows/good.yml", GOOD) == []


# --- zizmor, JSON schemas -------------------------------------------------------------------------------------------


def test_zizmor_has_no_finding() -> None:
    words = [str(path) for path in (ACTION_FILE, *WORKFLOWS)]
    done = command("zizmor", "--offline", "--persona", "regular", "--format", "json", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout) == []


def test_zizmor_catches_broken_files(tmp_path: Path) -> None:
    action = ACTION_FILE.read_text(encoding="utf-8").replace('exec "$POSTDOC_PYTHON"', "exec ${{ inputs.python }}")
    (tmp_path / "action.yml").write_text(action)
    (tmp_path / "workflow.yml").write_text(
        GOOD.replace("on: push", "on: pull_request_target")
        .replace("permissions: {}", "permissions: write-all")
        .replace("- run: echo", "- uses: actions/checkout@v4")
    )
    done = command(
        "zizmor", "--offline", "--format", "json", str(tmp_path / "action.yml"), str(tmp_path / "workflow.yml")
    )
    found = {each["ident"] for each in json.loads(done.stdout)}
    assert {"template-injection", "dangerous-triggers", "unpinned-uses", "artipacked"} <= found
    assert done.returncode != 0


SCHEMAS = [("vendor.github-workflows", path) for path in WORKFLOWS]
SCHEMAS += [("vendor.github-actions", ACTION_FILE), ("vendor.github-issue-forms", FORM)]


def schema_check(schema: str, path: Path) -> subprocess.CompletedProcess[str]:
    return command("check-jsonschema", "--builtin-schema", schema, str(path))


@pytest.mark.parametrize("schema", sorted({schema for schema, _ in SCHEMAS}))
def test_files_have_the_published_schema(schema: str, tmp_path: Path) -> None:
    paths = [path for each, path in SCHEMAS if each == schema]
    done = command("check-jsonschema", "--builtin-schema", schema, *map(str, paths))
    assert done.returncode == 0, done.stdout
    broken = tmp_path / "broken.yml"
    broken.write_text(re.sub(r"^(jobs|runs|body):", r"\\1x:", paths[0].read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert schema_check(schema, broken).returncode != 0


def test_one_finding_is_waived_and_its_reason_stands_beside_it() -> None:
    waived = [
        line for path in (ACTION_FILE, *WORKFLOWS) for line in path.read_text().splitlines() if "zizmor: " in line
    ]
    [line] = waived
    assert re.search(r"issue_comment: # zizmor: ignore\[dangerous-triggers\] \w+", line)


# --- What only we know ----------------------------------------------------------------------------------------------


def uses(path: Path) -> list[str]:
    return re.findall(r"^\s*(?:- )?uses: (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("path", [ACTION_FILE, *sorted(TEMPLATES.glob("*.yml"))], ids=lambda path: path.name)
def test_everything_is_pinned_by_a_commit_with_its_version_beside_it(path: Path) -> None:
    for each in uses(path):
        assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d+(\.\d+\.\d+)?", each), each


def test_templates_pin_the_same_commits() -> None:
    found: dict[str, set[str]] = {}
    for path in (ACTION_FILE, *TEMPLATES.glob("postdoc-*.yml")):
        for each in uses(path):
            name, _, version = each.partition("@")
            found.setdefault(name, set()).add(version)
    assert {name: len(versions) for name, versions in found.items()} == dict.fromkeys(found, 1)


@pytest.mark.parametrize("path", [ACTION_FILE, *WORKFLOWS], ids=lambda path: path.name)
def test_no_expression_stands_in_a_script(path: Path) -> None:
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    steps = data["runs"]["steps"] if path == ACTION_FILE else [s for job in data["jobs"].values() for s in job["steps"]]
    assert steps
    for step in steps:
        assert "${{" not in step.get("run", "")


@pytest.mark.parametrize("path", sorted(TEMPLATES.glob("*.yml")), ids=lambda path: path.name)
def test_templates_have_least_permissions_a_time_limit_and_no_stored_credentials(path: Path) -> None:
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert data["permissions"] in ({}, {"contents": "read"}) or set(data["permissions"].items()) <= {
        ("contents", "read"), ("pull-requests", "write"), ("actions", "read"),
    }  # fmt: skip
    assert "pull_request_target" not in path.read_text(encoding="utf-8")
    for job in data["jobs"].values():
        assert job["timeout-minutes"]
        for step in job["steps"]:
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False


def test_every_input_is_used_and_described_and_every_mode_is_known() -> None:
    text = ACTION_FILE.read_text(encoding="utf-8")
    for name, spec in ACTION_DATA["inputs"].items():
        assert spec["description"].strip().endswith("."), name
        assert text.count(f"inputs.{name} ") + text.count(f"inputs.{name}\n") >= 1, name
    used = set(re.findall(r"inputs\.([\w-]+)", text))
    assert used == set(ACTION_DATA["inputs"])
    assert tuple(map(str, Mode)) == MODES


def test_each_template_names_inputs_that_the_action_has() -> None:
    for path in TEMPLATES.glob("postdoc-*.yml"):
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        [step] = [s for job in data["jobs"].values() for s in job["steps"] if s.get("uses", "").startswith(ACTION)]
        assert set(step["with"]) <= set(ACTION_DATA["inputs"]), path.name
        assert step["with"]["mode"] in MODES


def test_tables_for_the_readme_have_a_row_for_each_input_and_output() -> None:
    for table, names in ((inputs_table(), ACTION_DATA["inputs"]), (outputs_table(), ACTION_DATA["outputs"])):
        rows = table.splitlines()[2:]
        assert [row.split("`")[1] for row in rows] == list(names)
        assert all(row.count("|") == rows[0].count("|") for row in rows)
