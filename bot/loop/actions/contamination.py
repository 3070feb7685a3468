"""Is what a run would train on free of its benchmark: the built rows, the rows held out for validation, the scripts."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bot.conversation.policy import Policy
from bot.data.detectors import ItemLike
from bot.data.scan import ScanReport
from bot.data.script_audit import ScriptFinding, audit_scripts
from bot.domain.experiment import Experiment
from bot.loop.actions.specs import script_of
from bot.loop.screening import screened
from bot.loop.world import World

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Contamination:
    report: ScanReport
    """Of the training rows."""
    validation: ScanReport
    scripts: tuple[ScriptFinding, ...]
    drops: bool
    """Whether the policy agrees to train without the rows that were found."""

    @property
    def dropped(self) -> frozenset[int]:
        """Training rows that are left out."""
        return self.report.flagged_rows if self.drops else frozenset()

    @property
    def blocked(self) -> str | None:
        """Why this training set may not be trained on; None when it may."""
        if self.scripts:
            more = f" There are {len(self.scripts) - 1} more such places." if len(self.scripts) > 1 else ""
            return f"{self.scripts[0].sentence()}{more} Remove it: a score reached with it would mean nothing."
        for found, what in ((self.report, "training rows"), (self.validation, "rows held out for validation")):
            count = len(found.flagged_rows)
            if count and (not self.drops or found.unlisted or count == found.rows):
                advice = (
                    "Nothing would be left without them: name other data."
                    if self.drops
                    else "Remove them, or write `contamination: drop` into the policy: a score reached with them would "
                    "mean nothing."
                )
                of = f"{count} of {found.rows} {what}"
                return f"{of} hold items of the benchmark that this goal is measured on. {advice}"
        return None

    def as_facts(self) -> dict[str, Any]:
        """What the journal keeps: which rows match which item, never the matching text."""
        facts: dict[str, Any] = {"scan": _without_text(self.report) | {"summary": self.report.summary()}}
        if self.validation.flagged:
            facts["validation_scan"] = _without_text(self.validation)
        if self.scripts:
            facts["script_findings"] = [finding.as_dict() for finding in self.scripts]
        if self.drops and self.blocked is None and (self.report.flagged or self.validation.flagged):
            facts["scan"]["dropped"] = len(self.dropped)
            facts["dropped_rows"] = sorted(self.dropped)
            facts["dropped_validation_rows"] = sorted(self.validation.flagged_rows)
        return facts


async def contamination_of(
    world: World, x: Experiment, rows: Rows, validation: Rows, held_out: Sequence[ItemLike]
) -> Contamination:
    """Look at everything that the head's recipe would train on. Raises: UserError when a script cannot be read."""
    scripts = {
        path: await script_of(world, x, path, wanted, x.head_sha)
        for path, wanted in x.recipe_digests.items()
        if x.shipped_digests.get(path) != wanted  # the shipped ones are ours
    }
    return Contamination(
        await screened(rows, held_out, world.embeddings),
        await screened(validation, held_out, world.embeddings),
        tuple(await asyncio.to_thread(audit_scripts, scripts, held_out)),
        drops=Policy.from_dict(x.policy).contamination == "drop",
    )


def _without_text(report: ScanReport) -> dict[str, Any]:
    found = report.as_dict()
    found["flagged"] = [{k: v for k, v in match.items() if k != "match"} for match in found["flagged"]]
    return found
