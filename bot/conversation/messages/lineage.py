"""Where a run's weights come from, as its review says it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bot.conversation.messages.tables import folded
from bot.conversation.messages.wording import counted
from bot.domain.experiment import Run
from bot.domain.inert import code, inert_line
from bot.domain.lineage import Change, Lineage

MOST_SHOWN = 12


def disowned(run: Run) -> Lineage | None:
    """The lineage for which the run's result does not count; None where it counts, or nothing is known."""
    return disowned_by(run.lineage)


def disowned_by(data: Mapping[str, Any] | None) -> Lineage | None:
    """The same of a lineage as the journal has it."""
    found = known_lineage(data)
    return found if found is not None and not found.verdict.counts else None


def known_lineage(data: Mapping[str, Any] | None) -> Lineage | None:
    return Lineage.from_dict(data) if data and "verdict" in data else None


def lineage_failure(found: Lineage) -> str:
    """Why a run has no value: one sentence for the check, the sticky comment and the ending."""
    return f"its result does not count ({found.verdict}): {found.reason}"


def lineage_section(run: Run) -> str:
    """Verdict, what it rests on, and everything beside the weights that is not as in the base."""
    if run.lineage and "error" in run.lineage:
        return f"**Lineage not checked:** {inert_line(str(run.lineage['error']), 300)}."
    found = known_lineage(run.lineage)
    if found is None:
        return ""
    parts = [f"**Lineage:** {code(found.verdict)}. {inert_line(found.reason, 500)}"]
    if found.adapter:
        explained = round(100 * float(found.adapter["explained"]))
        parts.append(f"The saved adapter explains {explained} % of the change of {found.adapter['tensors']} matrices.")
    if found.compared_with:
        parts.append(f"Held against {counted(found.compared_with, 'published model')}.")
    said = [" ".join(parts)]
    said += [f"- {inert_line(note, 300)}" for note in found.notes]
    if found.changes:
        loud = [change for change in found.changes if change.consequence]
        said += [f"- Changed beside the weights: {_change(change)}" for change in loud[:MOST_SHOWN]]
        rest = [change for change in found.changes if not change.consequence] + loud[MOST_SHOWN:]
        if rest:
            lines = "\n".join(f"- {_change(change)}" for change in rest[: 2 * MOST_SHOWN])
            more = f"\n- and {len(rest) - 2 * MOST_SHOWN} more" if len(rest) > 2 * MOST_SHOWN else ""
            said.append("\n" + folded(f"Other differences from the base's files ({len(rest)})", lines + more))
    return "\n".join(said)


def _change(change: Change) -> str:
    before, after = (code("nothing" if value is None else value, 120) for value in (change.before, change.after))
    end = f" ({change.consequence})" if change.consequence else ""
    return f"{code(change.file, 80)}, {code(change.key, 80)}: {before} became {after}{end}"
