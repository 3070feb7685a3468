"""A person's push: read as a new recipe, never as the bot's own."""

from __future__ import annotations

import asyncio

import yaml

from bot.conversation import messages
from bot.conversation.recipe_rules import recipe_problems
from bot.domain.experiment import EventKind, Experiment, NewEvent
from bot.domain.recipe import differences
from bot.loop.action import Action
from bot.loop.actions.claims import review_cards
from bot.loop.actions.specs import earlier_run_problems
from bot.loop.actions.traces import committed_files
from bot.loop.world import World, digest


async def read_head(world: World, x: Experiment, action: Action) -> list[NewEvent]:
    """Take over what stands at the pushed commit; a recipe that cannot be used is answered and not taken over."""
    asked = sha = str(action.args["head_sha"])
    repository = world.repository(x)
    # The branch may have moved again since the event; only its present head can be trained.
    sha = await repository.branch_head(x.branch) or sha
    raw = await repository.file(f"{x.folder}/recipe.yaml", sha)
    text = (raw or b"").decode("utf-8", "replace")
    problems = (
        recipe_problems(text, standing=yaml.safe_load(x.recipe) or {})
        if raw is not None
        else [f"`{x.folder}/recipe.yaml` is gone; put it back."]
    )
    if not problems:
        problems = earlier_run_problems(x, yaml.safe_load(text) or {})
    digests = {}
    for path in x.recipe_digests:
        content = await repository.file(f"{x.folder}/{path}", sha)
        if content is None:
            problems.append(f"`{x.folder}/{path}` is gone; put it back.")
        digests[path] = digest(content or b"")
    if problems:
        assert x.pull_request is not None
        key = messages.hidden_key(x.goal_id, f"head/{sha[:12]}")
        body = messages.head_refused(x, sha, problems)
        await repository.upsert_comment(x.pull_request, key, body)
        text, digests = x.recipe, dict(x.recipe_digests)
    await review_cards(world, x, sha, text, digests)
    if x.pull_request is not None and (named := await _without_effect(world, x, sha)):
        key = messages.hidden_key(x.goal_id, f"head/{sha[:12]}/measured")
        body = messages.head_without_effect(x, sha, named)
        await repository.upsert_comment(x.pull_request, key, body)
    last = x.run.recipe if x.run is not None else x.recipe
    changed = differences(yaml.safe_load(last) or {}, yaml.safe_load(text) or {})
    data = {
        "head_sha": sha,
        "asked": asked,
        "recipe": text,
        "digests": digests,
        "changed": {key: list(pair) for key, pair in changed.items()},
        "scripts_changed": digests != x.recipe_digests,
        "why": "pushed to the branch",
        "by": str(action.args.get("by", "a person")),
    }
    return [NewEvent(EventKind.HEAD_READ, f"head-read/{sha}/{x.length}", data)]


async def _without_effect(world: World, x: Experiment, sha: str) -> list[str]:
    """What the pushed commit says otherwise of the benchmark and of results than what counts, a sentence each."""
    repository, found = world.repository(x), []
    pin = x.pins.get("benchmark") or {}
    for path, wanted in ((pin.get("path"), pin.get("digest")), (pin.get("items_path"), pin.get("items_digest"))):
        content = await repository.file(path, sha) if path else None
        if content is not None and digest(content) != wanted:
            stands = messages.short(str(pin["commit"]))
            found.append(f"`{path}`: this goal is measured on it as commit {stands} of the default branch has it.")
    for run in x.runs:
        if not run.reviewed:
            continue
        files = await asyncio.to_thread(committed_files, world, x, run)
        for path in (path for path in files if path.endswith("/evaluation.json")):
            content = await repository.file(path, sha)
            if content is not None and content != files[path]:
                found.append(f"`{path}`: what the evaluation found stands, and the next commit puts it back.")
    return found
