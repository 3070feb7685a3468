"""Reading a goal: issue and policy become a contract, or one comment that says what to write instead."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

from bot.brain.playbook import starting_recipe
from bot.conversation import messages
from bot.conversation.github import Repository
from bot.conversation.issue_form import ParsedGoal, parse_goal
from bot.conversation.permissions import Tier
from bot.conversation.policy import POLICY_PATH, Policy, read_policy
from bot.conversation.redaction import redacted_bytes
from bot.domain.experiment import EventKind, Experiment, NewEvent
from bot.domain.goal import Goal, slug
from bot.errors import UserError
from bot.evaluation.benchmarks import SHIPPED, known_benchmarks, load_benchmark
from bot.loop.actions.jobs import BENCHMARK_SOURCE, keep_script, sources_of
from bot.loop.models import fetched_model, model_problem
from bot.loop.policy import Action
from bot.loop.world import METHODS, World, digest, shipped_prepare, shipped_script


async def read_contract(world: World, x: Experiment, action: Action) -> list[NewEvent]:
    """Parse the goal against the policy of the default branch and answer with the contract or with what to write."""
    repository = world.repository(x)
    _, base_sha = await repository.default_branch()
    policy, problems = await _policy(world, repository, base_sha)
    parsed = ParsedGoal(None, problems, [])
    if policy is not None:
        parsed = await asyncio.to_thread(
            parse_goal,
            x.title,
            x.body,
            known_benchmarks=known_benchmarks([*world.benchmark_folders, SHIPPED]),
            model_exists=lambda name: model_problem(world.model_folders, name),
            policy=policy,
        )
    goal = parsed.goal
    problems = list(parsed.problems)
    granted = await repository.permission(x.author, x.author_id)
    if policy is not None and not policy.allows(Tier.PLAN, granted):
        needed = policy.permissions[Tier.PLAN]
        problems = [
            f"Opening a goal here takes `{needed}` permission on the repository, and @{x.author} has `{granted}`. "
            "Ask somebody who has it to open the goal."
        ]
    recipe = ("", "")
    if goal is not None:
        try:
            problems += await _unmet(repository, goal, base_sha)
            if not problems:
                recipe = await asyncio.to_thread(_first_recipe, world, goal)
        except UserError as error:
            problems.append(str(error))
    if goal is None or problems:
        body = messages.refusal(x, problems, parsed.questions)
        comment_id = await _say(repository, x, body)
        return [_event(x, action, comment_id, policy, refusal="; ".join(problems + list(parsed.questions)))]
    script = await repository.file(goal.script, base_sha) if goal.script else shipped_script(goal.method or "sft")
    assert script is not None and policy is not None
    await repository.react_to_issue(x.issue, "eyes")
    body = messages.contract(x, goal, policy_lines=policy.lines())
    comment_id = await _say(repository, x, body)
    shipped = {
        "train.py": keep_script(world, shipped_script(goal.method or "sft")),
        "data/prepare.py": keep_script(world, shipped_prepare()),
    }
    data = {
        "goal": goal.as_dict(),
        "author_permission": granted,
        "recipe": recipe[0],
        "recipe_source": recipe[1],
        "digests": shipped | {"train.py": digest(script)},
        "shipped_digests": shipped,
        "folder": f"experiments/{x.issue:04d}-{slug(goal.benchmark.rpartition('/')[2])}",
        "branch": f"postdoc/{x.issue}-{slug(goal.benchmark.rpartition('/')[2])}",
    }
    return [_event(x, action, comment_id, policy, **data)]


def _event(x: Experiment, action: Action, comment_id: int, policy: Policy | None, **data: object) -> NewEvent:
    version = int(action.args["version"])
    fields = {
        "text_version": version,
        "comment_id": comment_id,
        "policy": (policy or Policy.from_dict({})).as_dict(),
        "goal": None,
        "refusal": None,
    }
    return NewEvent(EventKind.CONTRACT_READ, f"contract/{version}", fields | data)


async def _say(repository: Repository, x: Experiment, body: str) -> int:
    key = messages.hidden_key(x.goal_id, "contract")
    return await repository.upsert_comment(x.issue, key, body, known_id=x.contract_comment_id)


async def refuse(world: World, x: Experiment, reason: str) -> NewEvent:
    """Turn the contract comment into a refusal for something found after it was read."""
    await _say(world.repository(x), x, messages.refusal(x, [reason], []))
    return NewEvent(EventKind.REFUSED, f"refused/{x.text_version}", {"reason": reason})


async def repository_policy(world: World, repository: Repository) -> Policy:
    """The policy as it stands on the default branch now; the default one while that file cannot be read."""
    _, sha = await repository.default_branch()
    policy, _ = await _policy(world, repository, sha)
    return policy or Policy().bounded_by(world.server_policy)


async def _policy(world: World, repository: Repository, ref: str) -> tuple[Policy | None, list[str]]:
    """The repository's policy at `ref` as this server bounds it, or what is wrong with the file."""
    data = await repository.file(POLICY_PATH, ref)
    policy, problems = read_policy(data or b"")
    if policy is None:
        return None, [f"`{POLICY_PATH}` {problem}" for problem in problems]
    return policy.bounded_by(world.server_policy), []


async def _unmet(repository: Repository, goal: Goal, ref: str) -> list[str]:
    """What the goal names that the repository or the benchmark does not have."""
    problems = []
    if goal.method is not None and goal.method not in METHODS:
        problems.append(f"The method `{goal.method}` is not there yet. Write one of: {', '.join(METHODS)}, or none.")
    for path in _named_sources(goal):
        if path == BENCHMARK_SOURCE:
            continue
        if await repository.file(path, ref) is None and not await repository.folder(path, ref):
            problems.append(
                f"The training data `{path}` is neither a file nor a folder on the default branch. "
                "Write the path of a JSONL file that is there, or leave the field empty."
            )
    if goal.script is not None:
        script = await repository.file(goal.script, ref)
        if script is None:
            problems.append(
                f"The script `{goal.script}` is not on the default branch. Write the path of a file that is."
            )
        elif redacted_bytes(script) != script:
            problems.append(
                f"The script `{goal.script}` holds what looks like a secret. It would be copied into the pull request "
                "as it stands; take the secret out, and revoke it if it is a real one."
            )
    return problems


def _named_sources(goal: Goal) -> Sequence[str]:
    return [goal.dataset] if goal.dataset else sources_of(goal.recipe or "")


def _first_recipe(world: World, goal: Goal) -> tuple[str, str]:
    model = fetched_model(world.model_folders, goal.base_model, goal.base_revision)
    family, parameters = describe_model(model)
    source = goal.dataset or BENCHMARK_SOURCE
    if source == BENCHMARK_SOURCE and load_benchmark(goal.benchmark, world.benchmark_folders).task is None:
        raise UserError(
            f"The benchmark `{goal.benchmark}` has no training split of its own. Name the training data in the goal: "
            "the path of a JSONL file in this repository."
        )
    chosen = starting_recipe(goal, family=family, parameters=parameters, data_source=source)
    return chosen.text, chosen.source


def describe_model(folder: Path) -> tuple[str, float]:
    """(family, parameter count) of the model in `folder`, from its files' headers alone."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    total = 0.0
    for weights in folder.glob("*.safetensors"):
        with weights.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
        for name, tensor in header.items():
            if name != "__metadata__":
                size = 1
                for dimension in tensor["shape"]:
                    size *= dimension
                total += size
    return str(config.get("model_type", "unknown")), total
