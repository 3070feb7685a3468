"""What is said of one trace: by the diagnosis at the end, by the diagnosis of every prefix, and by the monitor.

Nothing here sees `truth.json`: a `Reading` holds answers, `scoring` compares them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bot.diagnosis import preflight_of, read_folder
from bot.diagnosis.engine import diagnosis_of
from bot.diagnosis.monitor import Tier, judged
from bot.diagnosis.observations import Observations
from bot.diagnosis.online import ONLINE_RULES
from bot.domain.diagnosis import DiagnosisReport, Severity
from bot.zoo.specimen import Json

LOOKS = 80
"""At a run while it trains: at each of its first records up to half of that, and at as many later ones, evenly. So what
is noticed early is told exactly."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One diagnosis that is more than advice."""

    label: str
    key: str | None
    file: str = "recipe.yaml"


@dataclass(frozen=True, slots=True)
class Reading:
    """What one judge says of one trace, most harmful first."""

    answers: tuple[Answer, ...] = ()
    noticed: Mapping[str, int] | None = None
    """By label, the first step after which it was said; 0 before training. None: nobody asked while it trained."""
    aborted: int | None = None
    """The step at which the monitor ends the run; 0 when preflight refuses it; None when it goes on to its end."""
    tier: str = ""
    """Of that decision: preflight, hard or soft."""

    @property
    def flagged(self) -> bool:
        return bool(self.answers)


Judge = Callable[[Path], Reading]


def read_trace(folder: Path, *, looks: int = LOOKS) -> Reading:
    """Postdoc's own: the diagnosis of the whole folder, of its prefixes, and its monitor.

    `looks`: how often the run is looked at while it trains, at most.
    """
    whole = read_folder(folder)
    before = preflight_of(whole.until(0))
    noticed = {answer.label: 0 for answer in answers_of(before)}
    for step in looked_at([int(record["step"]) for record in whole.steps], looks):
        for answer in answers_of(diagnosis_of(whole.until(step), ONLINE_RULES)):  # preflight has spoken
            noticed.setdefault(answer.label, step)
    refused = any(found.severity is Severity.FATAL for found in before.diagnoses)
    ended = (0, str(Tier.PREFLIGHT)) if refused else aborted_at(folder, whole, looks)
    return Reading(answers_of(diagnosis_of(whole)), noticed, *ended)


def answers_of(report: DiagnosisReport) -> tuple[Answer, ...]:
    return tuple(Answer(str(d.symptom), d.key, d.file) for d in report.diagnoses if d.severity is not Severity.ADVICE)


def aborted_at(folder: Path, whole: Observations, looks: int) -> tuple[int | None, str]:
    """(step, tier) of the monitor's decision, replayed over the metrics prefix by prefix; (None, "") when it has none.

    It looks only for what ends a run, as it does beside a job that is set to abort.
    """
    rows = metric_rows(folder)
    known: dict[str, Any] = {"audit": whole.audit, "advise": False}
    for step in (0, *looked_at(sorted({int(row["step"]) for row in rows if "step" in row}), looks)):
        so_far = [row for row in rows if int(row.get("step", 0)) <= step]
        found = judged(whole.recipe_text, so_far, setup=whole.until(step).setup, **known)
        if found is not None and found.tier.ends:
            return step, str(found.tier)
    return None, ""


def looked_at(steps: Sequence[int], looks: int) -> list[int]:
    """All of the first half of the looks' steps, then evenly to the last; never one twice."""
    early = max(1, looks // 2)
    if len(steps) <= looks:
        return list(steps)
    rest = steps[early:]
    later = {rest[min(len(rest) - 1, (n + 1) * len(rest) // (looks - early) - 1)] for n in range(looks - early)}
    return [*steps[:early], *sorted(later)]


def metric_rows(folder: Path) -> list[Json]:
    path = folder / "metrics.jsonl"
    found: list[Json] = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        row: Any = json.loads(line)
        if isinstance(row, dict):
            found.append(row)
    return found
