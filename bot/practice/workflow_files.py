"""Workflow files as far as the practice forge reads them: what starts one, with which inputs, and what a run of it is
called. Steps are not read here: a machine executes them (`machines.py`).

Expressions are understood in `run-name`, `runs-on`, a job's `name` and `concurrency` alone, and of them `inputs.NAME`,
`github.event.inputs.NAME`, `github.run_number` and `github.ref_name`; whatever else stands there is refused loudly.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from .actions_model import WorkflowFile
from .replies import ApiError

if TYPE_CHECKING:
    from .forge import Forge
    from .model import Repository

FOLDER = ".github/workflows/"
MOST_INPUTS = 25
MOST_INPUT_CHARACTERS = 65_535
_EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")


@dataclass(frozen=True, slots=True)
class Planned:
    """A run as a dispatch with these inputs makes it."""

    title: str
    group: str
    inputs: Mapping[str, str]
    jobs: tuple[tuple[str, tuple[str, ...]], ...]
    """(name, labels) of each."""


def named(repository: Repository, wanted: str) -> WorkflowFile | None:
    """A known workflow file by its id, its file name or its path."""
    files = repository.actions.files.values()
    return next((f for f in files if wanted in (str(f.id), f.path, f.path.removeprefix(FOLDER))), None)


def learn(forge: Forge, repository: Repository) -> None:
    """Every workflow file of the default branch gets its id."""
    tip = repository.git.branch(repository.default_branch)
    folder = repository.git.entry_at(repository.git.commit(tip).tree, FOLDER.rstrip("/")) if tip else None
    for name in repository.git.tree(folder.oid) if folder is not None and folder.type == "tree" else ():
        path = FOLDER + name
        if name.endswith((".yml", ".yaml")) and path not in repository.actions.files:
            content = _parsed(repository, path, str(tip))
            found = WorkflowFile(forge.next_id("workflow"), path, str(content.get("name") or path), forge.clock())
            repository.actions.files[path] = found


def text_at(repository: Repository, file: WorkflowFile, commit: str) -> str:
    return (repository.git.file_at(commit, file.path) or b"").decode(errors="replace")


def planned(repository: Repository, file: WorkflowFile, commit: str, given: Mapping[str, Any], context: Mapping[str, str]) -> Planned:  # fmt: skip  # noqa: E501
    """Raises: ApiError 422 in GitHub's words."""
    content = _parsed(repository, file.path, commit)
    # YAML 1.1 reads the bare word `on` as true.
    triggers = content.get("on", content.get(True))
    if isinstance(triggers, str):
        triggers = {triggers: None}
    if isinstance(triggers, list):
        triggers = dict.fromkeys(triggers)
    if not isinstance(triggers, dict) or "workflow_dispatch" not in triggers:
        raise ApiError(422, "Workflow does not have 'workflow_dispatch' trigger")
    inputs = _inputs((triggers["workflow_dispatch"] or {}).get("inputs") or {}, given)
    values = {f"inputs.{name}": text for name, text in inputs.items()}
    values |= {f"github.event.{name}": text for name, text in values.items()} | dict(context)
    concurrency = content.get("concurrency")
    group = concurrency.get("group", "") if isinstance(concurrency, dict) else concurrency or ""
    jobs = [
        (_evaluated(str(job.get("name") or name), values), _labels(job.get("runs-on"), values))
        for name, job in (content.get("jobs") or {}).items()
    ]
    title = _evaluated(str(content.get("run-name") or file.name), values)
    return Planned(title, _evaluated(str(group), values), inputs, tuple(jobs))


def _parsed(repository: Repository, path: str, commit: str) -> dict[Any, Any]:
    try:
        content = yaml.safe_load(repository.git.file_at(commit, path) or b"")
    except yaml.YAMLError:
        content = None
    return content if isinstance(content, dict) else {}


def _inputs(declared: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, str]:
    unexpected = [name for name in given if name not in declared]
    if unexpected:
        listed = ", ".join(f'"{name}"' for name in unexpected)
        raise ApiError(422, f"Unexpected inputs provided: [{listed}]")
    if len(given) > MOST_INPUTS:
        raise ApiError(422, f"Invalid request.\n\nNo more than {MOST_INPUTS} properties are allowed.")
    if sum(len(str(value)) for value in given.values()) > MOST_INPUT_CHARACTERS:
        raise ApiError(422, "inputs are too large.")
    found = {}
    for name, declaration in declared.items():
        declaration = declaration or {}
        value = given.get(name, declaration.get("default"))
        if value in (None, ""):
            if declaration.get("required") and declaration.get("default") is None:
                raise ApiError(422, f"Required input '{name}' not provided")
            value = ""
        if declaration.get("type") == "choice" and value not in map(str, declaration.get("options") or ()):
            raise ApiError(422, f"Provided value '{value}' for input '{name}' not in the list of allowed values")
        found[str(name)] = str(value).lower() if isinstance(value, bool) else str(value)
    return found


def _labels(runs_on: Any, values: Mapping[str, str]) -> tuple[str, ...]:
    if isinstance(runs_on, dict):
        runs_on = runs_on.get("labels") or []
    listed = runs_on if isinstance(runs_on, list) else [runs_on]
    return tuple(_evaluated(str(each), values) for each in listed if each)


def _evaluated(text: str, values: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        if match[1] not in values:
            raise ApiError(422, f"The practice forge does not evaluate ${{{{ {match[1]} }}}} here")
        return values[match[1]]

    return _EXPRESSION.sub(value, text)
