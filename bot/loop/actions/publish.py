"""Putting the best run's model on the Hub: when somebody asks, or when the policy says so and the goal is merged."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from bot.conversation import messages
from bot.conversation.policy import Policy
from bot.domain.experiment import EventKind, Experiment, NewEvent, Run
from bot.domain.fold import foreseen
from bot.domain.goal import slug
from bot.domain.redaction import redact
from bot.errors import TransientError, UserError
from bot.loop import hub_models
from bot.loop.action import Action
from bot.loop.actions.card import experiment_card
from bot.loop.actions.planning import post_sticky
from bot.loop.actions.specs import goal_folder, trained_model
from bot.loop.actions.traces import provenance
from bot.loop.spending import data_key
from bot.loop.world import World

MOST_TRIES = 6
LONGEST_WAIT_SECONDS = 60.0
BY_POLICY = "policy"
_LONGEST_ID = 96
"""Of `namespace/name`: https://huggingface.co/docs/huggingface_hub/package_reference/utilities#huggingface_hub.utils.validate_repo_id"""
_MODEL_FILES = (".safetensors", ".json", ".txt", ".model", ".jinja")


async def publish_best(world: World, x: Experiment, by: str) -> list[NewEvent]:
    """Publish the best run's model with its card; the event says where. Safe to repeat.

    Raises: UserError, whose text says why not.
    """
    best = x.best_run
    if x.goal is None or best is None:
        raise UserError("There is no evaluated run to publish yet.")
    if not world.hub_token:
        raise UserError("This server has no token for the Hub: have POSTDOC_HUB_TOKEN set to one with write access.")
    repo = repository_name(x, _namespace(world, x), begins=named_by_licence(x, best))
    private = Policy.from_dict(x.policy).publish.private
    # A job's own files, and texts of ours, which are read through for secrets as every other.
    texts = {
        "README.md": experiment_card(world, x, published_as=repo).decode(),
        "recipe.yaml": best.recipe,
        "run.json": json.dumps(provenance(world, x, best), indent=2, ensure_ascii=False) + "\n",
    }
    texts = {name: redact(text, world.known_secrets) for name, text in texts.items()}
    folder = goal_folder(world, x) / "publish"
    try:
        await asyncio.to_thread(_gather, trained_model(world, x, best.n), folder, texts, best)
        placed = await _patiently(world, x, folder, repo, private, best)
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    data = {"repo": repo, "url": placed.url, "sha": placed.sha, "private": placed.private, "run": best.n, "by": by}
    return [NewEvent(EventKind.PUBLISHED, f"published/{x.length}", data)]


async def publish_merged(world: World, x: Experiment, action: Action) -> list[NewEvent]:
    """The policy's wish on a merge. What stands in the way is said once and left to `/postdoc publish`."""
    assert x.pull_request is not None and x.best_run is not None
    try:
        events = await publish_best(world, x, BY_POLICY)
    except UserError as error:
        data = {"problem": str(error), "run": x.best_run.n, "by": BY_POLICY}
        events = [NewEvent(EventKind.PUBLISHED, f"published/{x.length}", data)]
    body = messages.published_on_merge(x.goal_id, events[0].data)
    # A new comment, because an edit of the sticky one notifies nobody.
    await world.repository(x).upsert_comment(
        x.pull_request, messages.hidden_key(x.goal_id, messages.PUBLISH), redact(body, world.known_secrets)
    )
    await post_sticky(world, foreseen(x, events, world.clock()))
    return events


def named_by_licence(x: Experiment, best: Run) -> str:
    """What the licences that the run was trained under want the model's name to begin with; empty for nothing."""
    checked = x.data.get(data_key(best.recipe, best.digests), {})
    return str(checked.get("combination", {}).get("name_begins", "")).replace(" ", "-")


def repository_name(x: Experiment, namespace: str, begins: str = "") -> str:
    """`<namespace>/<model>-<benchmark>-<repository>-<issue>`: the same at every publishing, another's for no goal
    of the same owner. It begins with `begins`."""
    assert x.goal is not None
    model, benchmark = (text.rpartition("/")[2] for text in (x.goal.base_model, x.goal.benchmark))
    ending = f"-{slug(x.repository, limit=24)}-{x.issue}"
    room = _LONGEST_ID - len(namespace) - 1 - len(ending) - len(begins) - 1
    name = slug(f"{model} {benchmark}", limit=room)
    if begins:
        rest = name.removeprefix(slug(begins))
        name = begins + (rest if rest.startswith("-") else f"-{rest}")
    return f"{namespace}/{name}{ending}"


def _namespace(world: World, x: Experiment) -> str:
    allowed, wanted = world.hub_namespaces, Policy.from_dict(x.policy).publish.namespace
    if not allowed:
        raise UserError(
            "This server publishes nothing: have POSTDOC_HUB_NAMESPACES set to the user or organisation of the Hub "
            "that models belong to."
        )
    if not wanted:
        return allowed[0]
    found = next((name for name in allowed if name.lower() == wanted.lower()), None)
    if found is None:
        names = ", ".join(f"`{name}`" for name in allowed)
        raise UserError(
            f"The policy publishes under `{wanted}`, and this server only under {names}: have it added to "
            "POSTDOC_HUB_NAMESPACES, or name another in `publish.namespace` for goals to come."
        )
    return found


async def _patiently(
    world: World, x: Experiment, folder: Path, repo: str, private: bool, best: Run
) -> hub_models.Published:
    """Publish, again where it may pass. The goal's other commands wait meanwhile, so this ends with a sentence."""
    message = f"Run {best.n} of {x.goal_id}"
    wait = 1.0
    for left in reversed(range(MOST_TRIES)):
        try:
            return await hub_models.publish(
                folder, repo, goal=x.goal_id, private=private, message=message, token=world.hub_token
            )
        except TransientError as error:
            if not left:
                raise UserError(f"Just now {error}. Write `/postdoc publish` again later.") from error
            await asyncio.sleep(min(LONGEST_WAIT_SECONDS, max(wait, error.retry_after_seconds or 0.0)))
            wait *= 2
    raise AssertionError("unreachable")


def _gather(model: Path, folder: Path, texts: Mapping[str, str], best: Run) -> None:
    """A folder of what is published: the model's own files, of which none leads out of its folder, and `texts`."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    root = model.resolve()
    inside = model.is_dir() and root.is_relative_to(model.parents[1].resolve())
    weights = 0
    for path in sorted(model.iterdir()) if inside else ():
        real = path.resolve()
        if path.name.endswith(_MODEL_FILES) and path.name not in texts and real.is_file() and real.parent == root:
            _place(real, folder / path.name)
            weights += path.name.endswith(".safetensors")
    if not weights:
        raise UserError(
            f"The model of run {best.n} is not on this server any more, or was saved without .safetensors files: "
            "there is nothing to publish."
        )
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


def _place(source: Path, target: Path) -> None:
    """A hard link, because weights are large; a copy where the folders lie on different disks."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
