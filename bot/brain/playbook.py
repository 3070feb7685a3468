"""The playbook: which recipe to start from, and which one change to try after a diagnosis. Rules only, no key needed.

Starting recipes are rows of `recipes.yaml`, chosen by family, size and method, each with its source. After a run the
remedy is the change that its most harmful diagnosis suggests, unless that recipe has been trained before; then the
next diagnosis is asked, then bolder steps of the same remedy, and when nothing untried is left, nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from bot.diagnosis.learning_rates import rate_of
from bot.diagnosis.remedies import companion_of, null_is_the_remedy, wants_range_probe
from bot.domain.diagnosis import Diagnosis, DiagnosisReport, Severity
from bot.domain.goal import Goal
from bot.domain.recipe import as_yaml, differences, line_of, normalised_value, recipe_hash, with_value

ROWS = Path(__file__).parent / "recipes.yaml"
MOST_PROBED_RATES = 6
"""Three decades at two rates each: what separates a rate copied from a 7B model from one that a tiny model needs."""


@dataclass(frozen=True, slots=True)
class StartingRecipe:
    text: str
    """Of recipe.yaml, complete: one key per line."""
    source: str
    """Where it comes from, for the plan and the card."""


@dataclass(frozen=True, slots=True)
class Remedy:
    """One change to the recipe. With `probe`, `value` is a fallback until a range test has named a better one."""

    key: str
    value: Any
    symptom: str
    why: str
    also: Mapping[str, Any] = field(default_factory=dict)
    """Keys that must change together with `key` for this to stay one cause: halved batch, doubled accumulation."""
    probe: bool = False
    rates: tuple[float, ...] = ()
    """Learning rates that the range test tries."""

    @property
    def settings(self) -> dict[str, Any]:
        return {self.key: self.value, **self.also}

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"also": dict(self.also), "rates": list(self.rates)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Remedy:
        return cls(**{**data, "rates": tuple(data.get("rates", ()))})

    def applied(self, recipe: str) -> str:
        """The recipe's text with this change made."""
        for key, value in self.settings.items():
            recipe = with_value(recipe, key, value)
        return recipe


@dataclass(frozen=True, slots=True)
class Row:
    """One sourced recipe."""

    family: str
    method: str
    smallest_parameters: float
    largest_parameters: float
    peft: bool
    source: str
    recipe: Mapping[str, Any]


def rows() -> list[Row]:
    """The table of `recipes.yaml`, in its own order (the first that fits is taken)."""
    table = yaml.safe_load(ROWS.read_text(encoding="utf-8"))
    return [Row(**entry) for entry in table["rows"]]


def starting_recipe(goal: Goal, *, family: str, parameters: float, data_source: str) -> StartingRecipe:
    """The recipe that runs first: the goal's own where it brings one, else the row that fits the base model.

    `family` is the model configuration's `model_type`, `parameters` its size (a count, not billions).
    """
    fixed = {"method": goal.method or "sft", "init_from": goal.base_model, "data_sources": data_source,
             "data_prompt_column": "auto", "data_completion_column": "auto", "data_validation_rows": 100,
             "seed": goal.seed}  # fmt: skip
    if goal.recipe is not None:
        return StartingRecipe(_completed(goal.recipe, fixed), "brought by the goal")
    row = fitting_row(family=family, parameters=parameters, method=goal.method or "sft")
    text = f"# {row.source}\n" + "".join(f"{key}: {as_yaml(value)}\n" for key, value in row.recipe.items())
    return StartingRecipe(_completed(text, fixed), row.source)


def fitting_row(*, family: str, parameters: float, method: str) -> Row:
    """The first row of this family and size; a family nobody measured takes the nearest size of any family."""
    candidates = [row for row in rows() if row.method == method]
    for row in candidates:
        if row.family == family and row.smallest_parameters <= parameters <= row.largest_parameters:
            return row
    return min(candidates, key=lambda row: abs(math.log(max(parameters, 1.0)) - _log_middle(row)))


def _log_middle(row: Row) -> float:
    return (math.log(max(row.smallest_parameters, 1.0)) + math.log(row.largest_parameters)) / 2


def _completed(text: str, fixed: Mapping[str, Any]) -> str:
    """`text` with every key of `fixed` that it lacks added in front, so that the file says all that it does."""
    missing = "".join(f"{key}: {as_yaml(value)}\n" for key, value in fixed.items() if line_of(text, key) is None)
    return missing + (text if text.endswith("\n") else text + "\n")


def remedy_for(
    report: DiagnosisReport, recipe: str, *, tried: Mapping[str, int], script_digest: str = "", probed: bool = False
) -> Remedy | None:
    """The next untried change, None when every diagnosis has been acted on. `probed`: a range test has been run."""
    values = yaml.safe_load(recipe) or {}
    for diagnosis in report.diagnoses:
        for remedy in _candidates(diagnosis, values, probed=probed):
            changed = yaml.safe_load(remedy.applied(recipe)) or {}
            if not differences(values, changed):
                continue
            if recipe_hash(changed, script_digest=script_digest) not in tried:
                return remedy
    return None


def _candidates(diagnosis: Diagnosis, values: Mapping[str, Any], *, probed: bool) -> Iterator[Remedy]:
    """Changes that this diagnosis calls for, the likeliest first."""
    key, value, symptom = diagnosis.key, diagnosis.suggested, str(diagnosis.symptom)
    if key is None or (value is None and not null_is_the_remedy(diagnosis)):
        return
    companion = companion_of(diagnosis, values)
    # The evidence of a flat or exploding loss gives the direction, not the distance; a range test gives the distance
    # for less than a run costs.
    probe = wants_range_probe(diagnosis) and not probed
    rates = rate_of(values).probes(diagnosis.symptom)[:MOST_PROBED_RATES] if probe else ()
    also = dict([companion]) if companion else {}
    yield Remedy(key, value, symptom, diagnosis.cause, also=also, probe=probe, rates=rates)
    before = normalised_value(values.get(key))
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if diagnosis.severity is Severity.ADVICE or companion or not number or not isinstance(before, int | float):
        return
    for power in (2, 3):
        if before and value:
            bolder = before * (value / before) ** power
            stepped = round(bolder) if isinstance(value, int) else float(f"{bolder:.2g}")
            yield Remedy(key, stepped, symptom, f"{diagnosis.cause} (A bolder step of the same change.)")


def after_probe(remedy: Remedy, probe: Mapping[str, Any] | None) -> Remedy:
    """`remedy` with the value that the range test suggests; its own value when the test failed or named none."""
    settled = replace(remedy, probe=False, rates=())
    suggested = (probe or {}).get("suggested")
    if not isinstance(suggested, int | float):
        return settled
    why = f"{remedy.why} A learning-rate range test chose {suggested:g}."
    return replace(settled, value=float(suggested), why=why)
