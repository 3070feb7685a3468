"""What a look at everything that would be trained on comes to: rows, rows held out for validation, scripts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bot.data.scan import ScanReport
from bot.data.script_audit import ScriptFinding


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
        """What may be kept and shown: which rows match which item, never the matching text."""
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


def _without_text(report: ScanReport) -> dict[str, Any]:
    found = report.as_dict()
    found["flagged"] = [{k: v for k, v in match.items() if k != "match"} for match in found["flagged"]]
    return found
