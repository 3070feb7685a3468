"""goal.yaml: the contract as a file, written into the pull request and read by `postdoc pursue`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import yaml

from bot.conversation.goal_fields import LABELS, REQUIRED, World, empty_field, goal_of
from bot.conversation.policy import Policy
from bot.conversation.yaml_reader import Limits, read_mapping
from bot.domain.goal import Goal
from bot.domain.inert import code
from bot.errors import UserError

_LIMITS = Limits(bytes=65_536, keys=300, depth=2)
_HEADER = "# What was agreed. A change of this file is a new goal and voids the consent.\n"
_BUDGET = ("usd", "gpu_hours", "runs", "wall_hours")


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as literal blocks, everything else as PyYAML likes it."""


def _text_node(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text_node)


def goal_yaml(goal: Goal) -> str:
    """The text of goal.yaml; `goal_from_yaml` reads the same goal, with the same hash, from it."""
    values: dict[str, Any] = {
        "title": goal.title,
        "base_model": goal.base_model,
        "base_revision": goal.base_revision,
        "benchmark": goal.benchmark,
        "metric": goal.metric,
        "target": goal.target,
        "method": goal.method,
        "dataset": goal.dataset,
        "data_licence": goal.data_licence,
        "recipe": goal.recipe,
        "script": goal.script,
        "licences": list(goal.licences),
        "budget": {name: getattr(goal.budget, name) for name in _BUDGET},
        "seed": goal.seed,
        "forgetting": goal.forgetting if goal.forgetting != "report" else None,
    }
    kept = {key: value for key, value in values.items() if value is not None and value != []}
    return _HEADER + yaml.dump(kept, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1_000)


def goal_from_yaml(
    text: str,
    *,
    known_benchmarks: Sequence[str] | None = None,
    model_exists: Callable[[str], str | None] | None = None,
    metric_of: Callable[[str], str | None] | None = None,
    policy: Policy | None = None,
) -> Goal:
    """The goal in the text of a goal.yaml. The policy's ceilings hold only where a policy is given.

    Raises: UserError with one line for each problem.
    """
    document = read_mapping(text, _LIMITS)
    problems = [str(problem) for problem in document.problems]
    if problems:
        raise UserError("\n".join(problems))
    texts, problems = _texts_of(document.values or {})
    problems += [empty_field(name) for name in REQUIRED if not texts.get(name)]
    world = World(known_benchmarks, model_exists, metric_of, policy or Policy(), ceilings=policy is not None)
    goal, found = goal_of(texts, texts.pop("title", ""), world)
    problems += found
    if problems or goal is None:
        raise UserError("\n".join(problems))
    return goal


def _texts_of(values: dict[str, Any]) -> tuple[dict[str, str], list[str]]:
    """The file's values as the texts a person would have written into the form."""
    texts: dict[str, str] = {}
    problems: list[str] = []
    budget = values.get("budget") or {}
    if not isinstance(budget, dict):
        problems.append("`budget` holds amounts of its own: write `runs: 4` and so on below it, indented.")
        budget = {}
    known = (set(LABELS) - {"notes", "acknowledgement"}) | {"title", "base_revision", "budget"}
    for path, value in [(str(k), v) for k, v in values.items() if k != "budget"] + [
        (f"budget.{k}", v) for k, v in budget.items()
    ]:
        name = path.removeprefix("budget.")
        if name not in known or (path != name and name not in _BUDGET):
            problems.append(f"There is no field {code(path, 60)}: write one of {', '.join(sorted(known))}.")
        elif isinstance(value, dict) or (isinstance(value, list) and name != "licences"):
            problems.append(f"`{path}` must be a single value.")
        elif value is not None:
            texts[name] = _text_of(value)
    revision = texts.pop("base_revision", "main")
    if revision != "main" and texts.get("base_model"):
        texts["base_model"] += f"@{revision}"
    return texts, problems


def _text_of(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return repr(value) if isinstance(value, float) else str(value)
