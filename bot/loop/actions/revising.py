"""The next recipe, committed on the head with the results of the runs before it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import yaml

from bot.brain.playbook import Kind, Remedy
from bot.conversation import messages
from bot.conversation.github import StaleHead
from bot.domain.experiment import EventKind, Experiment, NewEvent, Run
from bot.domain.goal import digest_of
from bot.domain.recipe import as_yaml, differences, with_value
from bot.loop.action import Action
from bot.loop.actions.card import experiment_card
from bot.loop.actions.generated import card_of
from bot.loop.actions.planning import data_card
from bot.loop.actions.scripts import script_of
from bot.loop.actions.traces import committed_files
from bot.loop.policy import arm_chosen
from bot.loop.world import World


async def revise(world: World, x: Experiment, action: Action) -> list[NewEvent]:
    """Commit the remedy, with the results of the run that called for it."""
    run = x.runs[int(action.args["run"]) - 1]
    assert run.remedy is not None
    remedy = Remedy.from_dict(run.remedy)
    if remedy.kind is Kind.ABLATION:
        remedy = _chosen_arm(x, run, remedy)
    return await commit_remedy(world, x, remedy, why=remedy.why, by="postdoc")


def _chosen_arm(x: Experiment, run: Run, remedy: Remedy) -> Remedy:
    """The suspect that did best, as the change to make."""
    found = arm_chosen(x, run)
    assert found is not None, "decided only once there is one"
    ablation, arm, value = found
    why = (
        f"Of the suspects of ablation {ablation.n}, {ablation.key_of(arm)} {as_yaml(arm.value)} did best ({value:.3g})."
    )
    return replace(remedy, key=ablation.key_of(arm), value=arm.value, also={}, why=why)


async def commit_remedy(world: World, x: Experiment, remedy: Remedy, *, why: str, by: str) -> list[NewEvent]:
    """Commit a remedy on the head, with the scripts that it brings."""
    symptom = remedy.symptom if by == "postdoc" else ""
    stage = dict(remedy.stage) if remedy.stage is not None else None
    return await _commit_recipe(
        world, x, remedy.applied(x.recipe), why=why, by=by, symptom=symptom, stage=stage, scripts=remedy.scripts
    )


async def commit_change(
    world: World, x: Experiment, settings: dict[str, Any], *, why: str, by: str, symptom: str = ""
) -> list[NewEvent]:
    """Commit recipe settings on the head; results of reviewed runs travel along.

    When the branch has moved meanwhile, the answer is that move: it is read before anything else is decided.
    """
    text = x.recipe
    for key, value in settings.items():
        text = with_value(text, key, value)
    return await _commit_recipe(world, x, text, why=why, by=by, symptom=symptom)


async def _commit_recipe(
    world: World, x: Experiment, text: str, *, why: str, by: str, symptom: str = "",
    stage: dict[str, Any] | None = None, scripts: Mapping[str, str] | None = None,
) -> list[NewEvent]:  # fmt: skip
    last = x.run.recipe if x.run is not None else x.recipe
    changed = {k: list(pair) for k, pair in differences(yaml.safe_load(last) or {}, yaml.safe_load(text) or {}).items()}
    files: dict[str, bytes | None] = {f"{x.folder}/recipe.yaml": text.encode()}
    if stage is not None:
        for path, wanted in stage["digests"].items():
            if x.recipe_digests.get(path) != wanted:
                files[f"{x.folder}/{path}"] = await script_of(world, x, path, wanted, x.head_sha)
        files |= {f"{x.folder}/{path}": None for path in x.recipe_digests.keys() - stage["digests"].keys()}
    for path, wanted in (scripts or {}).items():
        files[f"{x.folder}/{path}"] = await script_of(world, x, path, wanted, x.head_sha)
    for run in x.runs:
        if run.reviewed:
            files |= committed_files(world, x, run)
    files |= {f"{x.folder}/README.md": experiment_card(world, x)} | await world.record_files(x)
    if card_of(x) is not None:
        files[f"{x.folder}/data/README.md"] = data_card(x, synthetic=card_of(x)).encode()
    reason, method = f"{symptom}: {why}" if symptom else why, stage["method"] if stage is not None else ""
    message = messages.commit_message(x, len(x.runs), changed, reason, method=method, scripts=sorted(scripts or ()))
    what = [x.head_sha, text, dict(scripts)] if scripts else [x.head_sha, text]
    key = f"{x.goal_id}/change/{digest_of(what)[:12]}"
    try:
        head = await world.repository(x).commit(
            x.branch, expected_head=x.head_sha, message=f"{message.headline}\n\n{message.body}", key=key, files=files
        )
    except StaleHead:
        actual = await world.repository(x).branch_head(x.branch)
        moved = {"head_sha": actual, "by": "someone"}
        return [NewEvent(EventKind.HEAD_MOVED, f"head/{actual}", moved)]
    data: dict[str, Any] = {"head_sha": head, "recipe": text, "changed": changed, "why": why, "by": by}
    if scripts:
        data["scripts"] = dict(scripts)
    if stage is not None:
        data["stage"] = {key: stage[key] for key in ("index", "agreed", "digests", "shipped_digests")}
    return [NewEvent(EventKind.REVISED, f"revised/{head}", data)]
