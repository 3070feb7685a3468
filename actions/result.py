"""What a mode found, in the form that `execute` writes down and `report` and `gate` read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bot.domain.diagnosis import Diagnosis
from bot.domain.evaluation import Comparison, Evaluation, Verdict
from bot.domain.statistics import value_interval

RESULT = "result.json"


@dataclass(frozen=True, slots=True)
class Score:
    """One evaluation in the numbers that are told."""

    name: str
    """Which model, in the report's words: base, head, trained."""
    model: str
    benchmark: str
    metric: str
    split: str
    value: float
    standard_error: float
    low: float
    high: float
    n: int
    harness_digest: str


@dataclass(frozen=True, slots=True)
class Result:
    """How a mode ended."""

    mode: str
    state: str
    """In a word: succeeded, failed, cancelled; passed, neutral (gate); met, exhausted ... (pursue)."""
    exit_code: int = 0
    headline: str = ""
    """One sentence that stands alone."""
    scores: tuple[Score, ...] = ()
    """The last one is what the outputs `value` and `standard-error` tell."""
    comparison: Comparison | None = None
    diagnoses: tuple[Diagnosis, ...] = ()
    """Their files are paths of the checkout."""
    curves: Mapping[str, list[tuple[int, float | None]]] = field(default_factory=dict)
    seconds: float = 0.0
    """That jobs ran."""
    cost_usd: float | None = None
    model: str = ""
    """Folder of the trained model on this machine."""
    notes: tuple[str, ...] = ()
    """Sentences for the report."""
    log_tail: str = ""
    """Of the job that failed, secrets removed."""
    verdict: str = ""

    def outputs(self) -> dict[str, str]:
        """The Action's outputs but `report`, which the next step writes. What is not known is empty."""
        last = self.scores[-1] if self.scores else None
        return {
            "state": self.state,
            "value": f"{last.value!r}" if last is not None else "",
            "standard-error": f"{last.standard_error!r}" if last is not None else "",
            "verdict": self.verdict or (str(self.comparison.verdict) if self.comparison is not None else ""),
            "cost": f"{self.cost_usd:.4f}" if self.cost_usd is not None else "",
            "model": self.model,
        }

    def write(self, folder: Path) -> None:
        partial = folder / f".{RESULT}"
        partial.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
        partial.replace(folder / RESULT)

    @classmethod
    def read(cls, folder: Path) -> Result | None:
        """None when the step was killed before it could write one."""
        try:
            data = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        data["scores"] = tuple(Score(**score) for score in data["scores"])
        data["diagnoses"] = tuple(Diagnosis.from_dict(each) for each in data["diagnoses"])
        data["notes"] = tuple(data["notes"])
        if data["comparison"] is not None:
            found = data["comparison"]
            found |= {"verdict": Verdict(found["verdict"]), "discordant": tuple(found["discordant"])}
            data["comparison"] = Comparison(**found)
        return cls(**data)


def score_of(name: str, evaluation: Evaluation) -> Score:
    low, high = value_interval(evaluation)
    return Score(
        name, evaluation.model, evaluation.benchmark, evaluation.metric, evaluation.split, evaluation.value,
        evaluation.standard_error, low, high, evaluation.n, evaluation.harness_digest,
    )  # fmt: skip


def cost(seconds: float, usd_per_hour: float | None) -> float | None:
    return None if usd_per_hour is None else seconds / 3600 * usd_per_hour
