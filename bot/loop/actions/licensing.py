"""The licences that a goal trains under: of base, teacher, data and a script of its own, and what they come to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from bot.conversation.policy import Policy
from bot.data.combination import Answer, Combination, Licensed, Part, combined
from bot.data.licences import GateResult, find_licence, licence_gate, licence_of_text, normalise_licence
from bot.domain.experiment import Experiment
from bot.loop.actions.specs import BENCHMARK_SOURCE, base_model, sources_of, teacher_model
from bot.loop.own_benchmark import benchmark_of
from bot.loop.sources import source_licence
from bot.loop.world import World

LICENCE_FILES = ("LICENSE", "LICENSE.md", "LICENSE.txt", "COPYING")
_TAG = re.compile(rb"SPDX-License-Identifier:[ \t]*([A-Za-z0-9.+-]+)")
_HEAD_BYTES = 4096


class Judged(NamedTuple):
    licence: Licensed
    gate: GateResult


async def licences_of(world: World, x: Experiment) -> dict[str, Judged]:
    """Name -> licence and gate of everything that goes into the trained model.

    Raises: UserError, TransientError.
    """
    assert x.goal is not None
    allowed = _named(x)
    found: dict[str, Judged] = {}

    def judge(name: str, part: Part, licence: str | None, what: str, file: str) -> None:
        gate = licence_gate(licence, allowed, what=what, file=file)
        found[name] = Judged(Licensed(what, part, licence), gate)

    name = x.goal.base_model
    base = find_licence(await base_model(world, x))
    judge(name, Part.BASE, base.identifier, f"the base model `{name}`", "README.md")
    if (teacher := await teacher_model(world, x)) is not None:
        licence = find_licence(teacher[1]).identifier
        judge(teacher[0], Part.TEACHER, licence, f"the teacher `{teacher[0]}`", "README.md")
    for source in sources_of(x.recipe):
        if source == BENCHMARK_SOURCE:
            licence, place = normalise_licence((await benchmark_of(world, x)).licence), ""
        else:
            licence, place = await source_licence(world, x, source)
        judge(source, Part.DATA, licence, f"the training data `{source}`", place)
    if x.goal.script is not None:
        licence = await script_licence(world, x, x.goal.script)
        what = f"the script `{x.goal.script}`"
        gate = licence_gate(licence, allowed, what=what, file="LICENSE")
        if licence is None:  # a team's own code needs none to be run by that team
            gate = GateResult(True, f"{what[0].upper()}{what[1:]} names no licence, and the repository has none.")
        found[x.goal.script] = Judged(Licensed(what, Part.CODE, licence), gate)
    return found


async def script_licence(world: World, x: Experiment, path: str) -> str | None:
    """Of a script in the repository: its own SPDX line, else the repository's licence file."""
    repository = world.repository(x)
    _, ref = await repository.default_branch()
    script = await repository.file(path, ref) or b""
    if tag := _TAG.search(script[:_HEAD_BYTES]):
        return normalise_licence(tag[1].decode())
    for name in LICENCE_FILES:
        if (text := await repository.file(name, ref)) is not None:
            return licence_of_text(text.decode("utf-8", "replace"))
    return None


def combination_of(x: Experiment, licences: Mapping[str, Judged]) -> Combination:
    return combined([each.licence for each in licences.values()], _named(x))


def forbidden(together: Combination, licences: Mapping[str, Judged]) -> str | None:
    """Why nothing may be trained under these licences yet, and what answers it; None when something may."""
    match together.answer:
        case Answer.REFUSED:
            return f"{together.reason} Name another teacher, or other data."
        case Answer.ASK:
            involved = [each.licence.identifier for each in licences.values() if each.licence.identifier]
            named = ", ".join(f"`{name}`" for name in dict.fromkeys(involved))
            return (
                f"{together.reason} If the terms were read and allow it, write all of them into the goal's "
                f"`Licences allowed`: {named}. Otherwise name other data, or another model."
            )
    return None


def _named(x: Experiment) -> list[str]:
    """Licences that the goal, or else the policy, allows by name."""
    assert x.goal is not None
    wanted = x.goal.licences or Policy.from_dict(x.policy).licences_allowed
    return [name for name in map(normalise_licence, wanted) if name]
