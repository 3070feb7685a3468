"""Reading a goal: issue and policy become a contract, or one comment that says what to write instead."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from bot.brain.playbook import rows, starting_recipe
from bot.conversation import messages
from bot.conversation.github import Repository
from bot.conversation.issue_form import parse_goal
from bot.conversation.permissions import Tier
from bot.conversation.policy import POLICY_PATH, Policy, read_policy
from bot.domain.evaluation import Split
from bot.domain.experiment import Edit, EventKind, Experiment, NewEvent
from bot.domain.goal import Goal, slug
from bot.domain.metrics import metric_named
from bot.domain.recipe import earlier_run, line_of, with_value
from bot.domain.redaction import redacted_bytes
from bot.domain.scripts import TRAIN
from bot.errors import UserError
from bot.evaluation.benchmark_file import Benchmark
from bot.evaluation.benchmarks import SHIPPED, items, known_benchmarks, load_benchmark, metric_of
from bot.loop.action import Action
from bot.loop.actions.machines import machine_price
from bot.loop.actions.scripts import keep_shipped
from bot.loop.actions.specs import BENCHMARK_SOURCE, sources_of
from bot.loop.benchmark_data import with_data
from bot.loop.hardware import estimates_of, hardware_facts, plan_words
from bot.loop.models import describe_model, fetched_model, model_problem, writes_several_languages
from bot.loop.own_benchmark import LFS_ADVICE, is_lfs_pointer, is_own, read_own_benchmark
from bot.loop.sources import pin
from bot.loop.world import METHODS, World, digest


@dataclass(frozen=True, slots=True)
class Reading:
    """What a text says under the policy of the default branch. Without problems and questions there is a goal."""

    policy: Policy | None
    """None when it cannot be read."""
    goal: Goal | None
    problems: list[str]
    questions: list[str]
    notes: list[str] = field(default_factory=list)
    """For the contract: what was pinned, and what its author should know."""
    plan: dict[str, Any] = field(default_factory=dict)
    """The fields of CONTRACT_READ that say what runs first: pins, recipe, scripts."""

    @property
    def complete(self) -> bool:
        return self.goal is not None and not self.problems and not self.questions


async def read_contract(world: World, x: Experiment, action: Action) -> list[NewEvent]:
    """Parse the goal against the policy of the default branch and answer with the contract or with what to write."""
    version = int(action.args["version"])
    repository = world.repository(x)
    title, text = (x.edit.title, x.edit.body) if x.edit is not None else (x.title, x.body)
    _, base_sha = await repository.default_branch()
    policy, problems = await policy_at(world, repository, base_sha)
    if x.edit is not None and (denied := await edit_denied(repository, policy, x.edit)) is not None:
        return [await ignore_edit(repository, x, version, x.edit, denied)]
    granted = await repository.permission(x.author, x.author_id)
    if policy is not None and not policy.allows(Tier.PLAN, granted):
        needed = policy.permissions[Tier.PLAN]
        # Nothing is asked of the Hub or of an address for somebody who may not ask.
        problems = [
            f"Opening a goal here takes `{needed}` permission on the repository, and @{x.author} has `{granted}`. "
            "Ask somebody who has it to open the goal."
        ]
        found = Reading(policy, None, problems, [])
    else:
        found = await read_text(world, repository, base_sha, title, text, policy, problems)
    said = {"title": title, "body": text}
    if found.goal is None or not found.complete:
        comment_id = await say(repository, x, messages.refusal(x, found.problems, found.questions))
        refusal = "; ".join(found.problems + found.questions)
        return [_event(version, comment_id, found.policy, refusal=refusal, **said)]
    assert found.policy is not None
    await repository.react_to_issue(x.issue, "eyes")
    body = messages.contract(
        x, found.goal, policy_lines=found.policy.lines(), notes=found.notes, pins=found.plan["pins"],
        next_step=_next_step(found.policy, found.goal),
    )  # fmt: skip
    comment_id = await say(repository, x, body)
    name = slug(found.goal.benchmark.removesuffix(".yaml").rpartition("/")[2])
    data = {
        "goal": found.goal.as_dict(),
        "author_permission": granted,
        "folder": f"experiments/{x.issue:04d}-{name}",
        "branch": f"postdoc/{x.issue}-{name}",
        **({"brain": proposer} if (proposer := world.proposer(found.policy)) is not None else {}),
    }
    return [_event(version, comment_id, found.policy, **said, **data, **found.plan)]


async def read_text(
    world: World, repository: Repository, base_sha: str, title: str, body: str, policy: Policy | None,
    problems: Sequence[str] = (),
) -> Reading:  # fmt: skip
    """The goal in an issue's text, and everything it names looked up and pinned."""
    if policy is None:
        return Reading(None, None, list(problems), [])
    parsed = await asyncio.to_thread(
        parse_goal,
        title,
        body,
        known_benchmarks=known_benchmarks([*world.benchmark_folders, SHIPPED]),
        model_exists=lambda name: model_problem(world.model_folders, name),
        metric_of=lambda name: metric_of(name, world.benchmark_folders),
        policy=policy,
    )
    goal, found = parsed.goal, list(parsed.problems)
    notes: list[str] = []
    plan: dict[str, Any] = {}
    if goal is not None:
        try:
            found += await _unmet(repository, goal, base_sha)
            if not found:
                plan = await _plan(world, repository, base_sha, policy, goal, notes)
        except UserError as error:
            found.append(str(error))
    return Reading(policy, goal, found, list(parsed.questions), notes, plan)


async def _plan(
    world: World, repository: Repository, base_sha: str, policy: Policy, goal: Goal, notes: list[str]
) -> dict[str, Any]:
    """Pins, first recipe and scripts, as CONTRACT_READ keeps them. Raises: UserError, TransientError."""
    pins: dict[str, Any] = {}
    if is_own(goal.benchmark):
        own = await read_own_benchmark(world, repository, goal.benchmark, base_sha)
        benchmark, pins["benchmark"] = own.benchmark, own.pin
        notes += own.notes
    else:
        benchmark = load_benchmark(goal.benchmark, world.benchmark_folders)
    if (problem := _unusable(world, benchmark, goal)) is not None:
        raise UserError(problem)
    if benchmark.needs_judge and world.judge is not None:
        pins["judge"] = world.judge.name
        notes.append(
            f"Answers are scored by the judge model `{world.judge.name}`, criterion by criterion; what that costs is "
            "paid from this goal's money."
        )
    if benchmark.hub is not None:
        benchmark = await with_data(benchmark, world.data_folder, world.hub_token)
        pins["benchmark_data"] = str(benchmark.configuration["items"]["hub"]).rpartition("@")[2]
        await asyncio.to_thread(_readable, benchmark)
    if goal.metric != benchmark.metric:
        raise UserError(
            f"The benchmark `{goal.benchmark}` measures {benchmark.metric}, and the goal names {goal.metric}: write "
            f"`Metric: {benchmark.metric}`, and a target of that metric, {metric_named(benchmark.metric).example} for "
            "example."
        )
    named = [goal.dataset] if goal.dataset else sources_of(goal.recipe or "")
    for line in named:
        if line != BENCHMARK_SOURCE:
            pinned = await pin(world, repository, base_sha, policy, line, benchmark, pins.get("benchmark"))
            notes += [pinned.note] if pinned.note else []
            if goal.dataset:
                pins["dataset"] = pinned.line
    finds = _finds_data(world, policy, goal)
    recipe = await asyncio.to_thread(_first_recipe, world, goal, benchmark, pins.get("dataset"), finds)
    if not sources_of(recipe[0]):
        notes.append(
            "No training data is named, and this benchmark has none of its own: the language model looks for some "
            "before the plan is shown, and nothing is trained on it before somebody agrees."
        )
    notes += await _memory_notes(world, policy, goal, recipe[0])
    shipped = keep_shipped(world, goal.stages[0])
    brought: dict[str, str] = {}
    if goal.script:
        script = await repository.file(goal.script, base_sha)
        assert script is not None, "looked up before"
        brought[TRAIN] = digest(script)
    return {
        "pins": pins,
        "recipe": recipe[0],
        "recipe_source": recipe[1],
        "digests": shipped | brought,
        "shipped_digests": shipped,
    }


def _unusable(world: World, benchmark: Benchmark, goal: Goal) -> str | None:
    """Why this server cannot measure this goal on the benchmark; None when it can."""
    if benchmark.needs_judge and world.judge is None:
        return (
            f"The benchmark `{benchmark.name}` is scored by a judge model, and this server has none: whoever runs it "
            "can set POSTDOC_JUDGE to PROVIDER:MODEL. Until then name another benchmark, or use it by hand, "
            "`postdoc evaluate --judge`."
        )
    if benchmark.needs_judge and world.judge is not None and world.judge.price.most(1000, 1000) > 0 >= goal.budget.usd:
        return (
            f"The benchmark `{benchmark.name}` is scored by the judge model `{world.judge.name}`, which costs money, "
            "and this goal has none: write a `Budget in USD`."
        )
    if goal.forgetting == "block" and (benchmark.needs_judge or not benchmark.old_tasks):
        none = "has its answers scored by a judge, who is asked no old task" if benchmark.needs_judge else "names none"
        return (
            f"`Forgetting: block` asks every run what the base model could do before, and the benchmark "
            f"`{benchmark.name}` {none}: write `report` instead, or give a benchmark of your own `old_tasks`."
        )
    if benchmark.runs_code and not world.runner.isolates:
        return (
            f"The benchmark `{benchmark.name}` runs programs that a model wrote, and this server has no sandbox for "
            "them: name another benchmark, or have bubblewrap installed on the server."
        )
    return None


def _readable(benchmark: Benchmark) -> None:
    """Raises: UserError when the fetched items are not what the file says."""
    for split in Split:
        items(benchmark, split)


async def _memory_notes(world: World, policy: Policy, goal: Goal, recipe: str) -> list[str]:
    """One sentence where the starting recipe needs more memory than there is; the plan says what would change that."""
    model = await asyncio.to_thread(fetched_model, world.model_folders, goal.base_model, goal.base_revision)
    facts = await hardware_facts(
        world.runner,
        model,
        [],
        memory_cap_gib=world.train_memory_gib,
        cores=world.cpu_threads,
        wanted=world.hardware,
    )
    found = estimates_of(facts, yaml.safe_load(recipe) or {}, policy.usd_per_hour)
    if found is None or found.here.fits:
        return []
    return [f"Memory for the starting recipe: {plan_words(found)}. The plan will say what would make it fit."]


def _next_step(policy: Policy, goal: Goal) -> str:
    """What happens now, as far as the policy decides it."""
    if goal.script is not None:
        return (
            "Next: the data is built and checked, then a pull request shows the plan. The goal brings its own script, "
            "so nothing is trained before somebody writes `/postdoc run` there."
        )
    if policy.grants(goal):
        return (
            "Next: the untouched base model is evaluated and the data built and checked, then a pull request shows the "
            "plan; the policy grants this budget, so training follows by itself."
        )
    return (
        "Next: the data is built and checked, then a pull request shows the plan. Nothing is trained before somebody "
        "writes `/postdoc run` there."
    )


def _event(version: int, comment_id: int, policy: Policy | None, **data: object) -> NewEvent:
    fields = {
        "text_version": version,
        "comment_id": comment_id,
        "policy": (policy or Policy.from_dict({})).as_dict(),
        "goal": None,
        "refusal": None,
    }
    return NewEvent(EventKind.CONTRACT_READ, f"contract/{version}", fields | data)


async def say(repository: Repository, x: Experiment, body: str) -> int:
    """Write the contract comment; returns its id."""
    key = messages.hidden_key(x.goal_id, "contract")
    return await repository.upsert_comment(x.issue, key, body, known_id=x.contract_comment_id)


async def edit_denied(repository: Repository, policy: Policy | None, edit: Edit) -> str | None:
    """The role of whoever edited when it is too low for the text to count, asked now; None when it counts."""
    if edit.by_id is None or policy is None:
        return None
    granted = await repository.permission(edit.by, edit.by_id)
    return None if policy.allows(Tier.PLAN, granted) else granted


async def ignore_edit(repository: Repository, x: Experiment, version: int, edit: Edit, granted: str) -> NewEvent:
    """Say, in one comment for all such edits, that this one moves nothing."""
    body = messages.edit_ignored(x, edit.by, granted)
    await repository.upsert_comment(x.issue, messages.hidden_key(x.goal_id, "edit"), body)
    data = {"text_version": version, "by": edit.by, "offer": x.offer, "told": x.edit_told, "comment_id": None}
    return NewEvent(EventKind.GOAL_READ, f"read/{version}", data)


async def refuse(world: World, x: Experiment, reason: str, *, question: bool = False) -> NewEvent:
    """Turn the contract comment into a refusal, or a question, for something found after it was read."""
    problems, questions = ([], [reason]) if question else ([reason], [])
    await say(world.repository(x), x, messages.refusal(x, problems, questions))
    return NewEvent(EventKind.REFUSED, f"refused/{x.text_version}", {"reason": reason})


async def repository_policy(world: World, repository: Repository) -> Policy:
    """The policy as it stands on the default branch now; the default one while that file cannot be read."""
    _, sha = await repository.default_branch()
    policy, _ = await policy_at(world, repository, sha)
    return policy or Policy().bounded_by(world.server_policy)


async def policy_at(world: World, repository: Repository, ref: str) -> tuple[Policy | None, list[str]]:
    """The repository's policy at `ref` as this server bounds it, or what is wrong with the file."""
    data = await repository.file(POLICY_PATH, ref)
    policy, problems = read_policy(data or b"")
    if policy is None:
        return None, [f"`{POLICY_PATH}` {problem}" for problem in problems]
    policy = policy.bounded_by(world.server_policy)
    price = await machine_price(world)
    return replace(policy, usd_per_hour=max(policy.usd_per_hour, price or 0.0)), []


async def _unmet(repository: Repository, goal: Goal, ref: str) -> list[str]:
    """What the goal names that the repository or the benchmark does not have."""
    problems = []
    for method in dict.fromkeys(goal.stages):
        if method not in METHODS:
            problems.append(f"The method `{method}` is not there yet. Write one of: {', '.join(METHODS)}, or none.")
    if goal.script is not None and len(goal.stages) > 1:
        problems.append(
            f"The goal names its own script and {len(goal.stages)} methods, and one script trains one: write the "
            "method that it trains, or leave the script out."
        )
    problems += _own_recipe_problems(goal)
    if goal.script is not None:
        entry = await repository.entry(goal.script, ref)
        if entry is None or entry["type"] != "file":
            problems.append(
                f"The script `{goal.script}` is not a file on the default branch. Write the path of one that is."
            )
        else:
            script = await repository.file(goal.script, ref) or b""
            if is_lfs_pointer(script):
                problems.append(f"The script `{goal.script}` {LFS_ADVICE}")
            elif redacted_bytes(script) != script:
                problems.append(
                    f"The script `{goal.script}` holds what looks like a secret. It would be copied into the pull "
                    "request as it stands; take the secret out, and revoke it if it is a real one."
                )
    return problems


def _own_recipe_problems(goal: Goal) -> list[str]:
    """What a recipe that the goal brings cannot say, because it is the first that runs."""
    values = yaml.safe_load(goal.recipe or "") or {}
    method = str(values.get("method") or goal.stages[0]).lower()
    problems = []
    if method != goal.stages[0]:
        problems.append(
            f"The recipe says `method: {method}` and the goal begins with `{goal.stages[0]}`: write the same in both."
        )
    for later in dict.fromkeys(goal.stages[1:]):
        if later in METHODS and not any(row.method == later for row in rows()):
            problems.append(
                f"There is no starting recipe for `{later}` as a later stage: write it as a goal of its own."
            )
    for key in ("init_from", "teacher"):
        if earlier_run(values.get(key)) is not None:
            problems.append(
                f"The recipe's `{key}: {values[key]}` names an earlier run of this goal, and there is none yet: remove "
                "the line."
            )
    return problems


def _finds_data(world: World, policy: Policy, goal: Goal) -> bool:
    """Whether a language model is there to look for training data, and paid for before anybody was asked."""
    proposer = world.proposer(policy)
    return proposer is not None and (not proposer["priced"] or policy.grants(goal))


def _first_recipe(
    world: World, goal: Goal, benchmark: Benchmark, source: str | None, finds_data: bool
) -> tuple[str, str]:
    """(text, where it comes from) of the recipe that runs first. `source` is the goal's training data, pinned; with
    `finds_data` there may be none yet."""
    model = fetched_model(world.model_folders, goal.base_model, goal.base_revision)
    family, parameters = describe_model(model)
    named = sources_of(goal.recipe or "")
    if source is None and benchmark.task is None and (not named or BENCHMARK_SOURCE in named):
        if named or not finds_data:
            raise UserError(
                f"The benchmark `{goal.benchmark}` has no training split of its own. Name the training data in the "
                "goal: the path of a JSONL file in this repository, or a data set of the Hub, `hf:owner/name`."
            )
        data = ""
    else:
        data = source or BENCHMARK_SOURCE
    chosen = starting_recipe(goal, family=family, parameters=parameters, data_source=data)
    text = chosen.text
    if source is not None and sources_of(text) != [source]:
        # The goal's own recipe names the same data as the goal does, without its pin.
        text = with_value(text, "data_sources", source)
    language = (benchmark.configuration.get("speech") or {}).get("language")
    if language and not goal.script and line_of(text, "language") is None and writes_several_languages(model):
        text = with_value(text, "language", language)
    return text, chosen.source
