"""The playbook: which recipe to start from, and which one change to try after a diagnosis. Rules only, no key needed.

Starting recipes are rows of `recipes.yaml`, chosen by family, size and method, each with its source. After a run the
remedy is the change that its most harmful diagnosis suggests, unless that recipe has been trained before; then bolder
steps of the same change (or half of it where it went too far), then what the next diagnosis suggests, then the table of
`bot.brain.remedies`. What to do when nothing untried is left is `bot.brain.search`'s business.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import Any

import yaml

from bot.brain.fitting import ANYWHERE, Room, fitted
from bot.brain.remedies import REWARD_KEYS, STEPS, UNPAID, scope_change
from bot.diagnosis.learning_rates import Rate, rate_of
from bot.diagnosis.remedies import companions_of, duration_key, null_is_the_remedy, wants_range_probe
from bot.domain.diagnosis import Diagnosis, DiagnosisReport, Severity, Symptom
from bot.domain.goal import DEFAULT_METHOD, Goal
from bot.domain.recipe import as_yaml, differences, line_of, normalised_value, recipe_hash, with_value
from bot.errors import UserError

ROWS = Path(__file__).parent / "recipes.yaml"
_BOLDER = "A bolder step of the same change."
MOST_PROBED_RATES = 6
"""Three decades at two rates each: what separates a rate copied from a 7B model from one that a tiny model needs."""


@dataclass(frozen=True, slots=True)
class StartingRecipe:
    text: str
    """Of recipe.yaml, complete: one key per line."""
    source: str
    """Where it comes from, for the plan and the card."""


class Kind(StrEnum):
    """What a change is made for."""

    REPAIR = "repair"
    """Of what a diagnosis names."""
    DRAFT = "draft"
    """Another start, independent of the runs before it."""
    SEARCH = "search"
    """A place in the search space."""
    STAGE = "stage"
    """The next method of the goal, or one that has to come first."""
    ABLATION = "ablation"
    """Several suspects side by side, of which the best is kept."""
    PROPOSED = "proposed"
    """What the language model proposed, checked."""


@dataclass(frozen=True, slots=True)
class Remedy:
    """One change to the recipe. With `probe`, `value` is a fallback until a range test has named a better one."""

    key: str
    value: Any
    symptom: str
    """Of the diagnosis that is acted on; empty where none is."""
    why: str
    also: Mapping[str, Any] = field(default_factory=dict)
    """Keys that must change together with `key` for this to stay one cause: halved batch, doubled accumulation."""
    probe: bool = False
    rates: tuple[float, ...] = ()
    """Learning rates that the range test tries."""
    kind: Kind = Kind.REPAIR
    base: int = 0
    """The run whose recipe this changes; 0: the run that it follows."""
    recipe: str = ""
    """Text of the recipe that this changes, where it is not that of the run that it follows."""
    stage: Mapping[str, Any] | None = None
    """{"index", "method", "agreed", "digests", "shipped_digests"} where the scripts change too."""
    waits: str = ""
    """Why a person decides on it whatever was agreed; a sentence without its full stop."""
    arms: tuple[tuple[str, Any], ...] = ()
    """(key, value) of each suspect of an ablation."""
    scripts: Mapping[str, str] = field(default_factory=dict)
    """Path -> SHA-256 of the scripts that it rewrites. Where it changes nothing else, `key` is the first of them."""
    label: str = ""
    """By what a person accepts it, `P2`, where that is not its diagnosis's."""

    @property
    def settings(self) -> dict[str, Any]:
        own = {} if self.key in self.scripts or not self.key else {self.key: self.value}
        return {**own, **self.also}

    def as_dict(self) -> dict[str, Any]:
        """What says no more than its default is left out, so that a version from before it was there reads the rest."""
        whole = asdict(self) | {
            "also": dict(self.also),
            "scripts": dict(self.scripts),
            "rates": list(self.rates),
            "arms": [list(a) for a in self.arms],
        }
        later = {"kind": Kind.REPAIR, "base": 0, "recipe": "", "stage": None, "waits": "", "arms": [],
                 "scripts": {}, "label": ""}  # fmt: skip
        return {key: value for key, value in whole.items() if key not in later or value != later[key]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Remedy:
        """What a newer version wrote beside the fields of this one is left out."""
        known = {key: data[key] for key in cls.__dataclass_fields__ if key in data}
        known["rates"] = tuple(known.get("rates", ()))
        known["arms"] = tuple((key, value) for key, value in known.get("arms", ()))
        known["kind"] = Kind(known.get("kind", Kind.REPAIR))
        return cls(**known)

    def applied(self, recipe: str) -> str:
        """The recipe's text with this change made; `recipe` is that of the run that it follows."""
        recipe = self.recipe or recipe
        for key, value in self.settings.items():
            recipe = with_value(recipe, key, value)
        return recipe


@dataclass(frozen=True, slots=True)
class Means:
    """What the next change may count on, as the loop knows it."""

    runs_left: int
    family: str = ""
    """The base model's `model_type`."""
    parameters: float | None = None
    """Of the base model; None where that is not known."""
    covered: Collection[str] | None = None
    """Recipe keys that Postdoc may change by itself now; None where nobody has agreed to anything yet."""
    positions: int | None = None
    """Tokens of the longest sequence that the base model takes; None where it does not say."""
    seconds: float | None = None
    """Time that the next training may take; None where nothing limits it."""

    def covers(self, keys: Collection[str]) -> bool:
        return self.covered is not None and ("*" in self.covered or set(keys) <= set(self.covered))


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

    `family` is the model configuration's `model_type`, `parameters` its size (a count, not billions). What a brought
    recipe does not say is taken from the row too; what it says stays, whatever the row has to say about it.
    Raises: UserError when the playbook has no row of the goal's first method.
    """
    fixed = {"method": goal.stages[0], "init_from": goal.base_model, "data_sources": data_source,
             "data_prompt_column": "auto", "data_completion_column": "auto", "data_validation_rows": 100,
             "seed": goal.seed}  # fmt: skip
    if goal.recipe is None:
        return _of_row(fitting_row(family=family, parameters=parameters, method=goal.stages[0]), fixed)
    brought = _completed(goal.recipe, fixed)
    if goal.script is not None or not any(row.method == goal.stages[0] for row in rows()):
        return StartingRecipe(brought, "brought by the goal")  # nobody knows what another script's keys mean
    values = yaml.safe_load(goal.recipe) or {}
    peft = values.get("use_peft") is True
    row = fitting_row(family=family, parameters=parameters, method=goal.stages[0], peft=peft)
    added = unsaid(values, row)
    if not added:
        return StartingRecipe(brought, "brought by the goal")
    said = "".join(f"{key}: {as_yaml(value)}\n" for key, value in added.items())
    text = f"{brought}# What the goal's recipe does not say: {row.source}\n{said}"
    return StartingRecipe(text, f"brought by the goal, completed ({', '.join(added)}) from {row.source}")


# Keys that mean something only together: one that is brought keeps the row's word on the others out.
_TOGETHER = (
    {"max_steps", "num_train_epochs"},
    {"per_device_train_batch_size", "gradient_accumulation_steps", "num_generations", "generation_batch_size"},
    {"learning_rate", "optim"},  # a rate is one of an optimizer
    {"lr_scheduler_type", "lr_scheduler_kwargs"},
    {"warmup_steps", "warmup_ratio"},
    {"lora_r", "lora_alpha"},
    {"lora_target_modules", "lora_target_parameters"},
    {"loss_type", "loss_weights", "beta"},
    {"on_policy", "beta", "temperature"},  # without it a teacher's outputs are imitated, and nothing is sampled
    {"bf16", "fp16", "dtype", "torch_dtype"},
    {"packing", "padding_free", "attn_implementation"},
)
_NOT_ADDED = frozenset(
    {"from_scratch", "use_peft", "load_in_4bit", "load_in_8bit", "eos_token", "chat_template_path"}
    | {"save_strategy", "save_steps", "save_total_limit"}
)
"""What is trained, and on which tokens: a person who brings a recipe has decided that by leaving it out. And what is
kept of it on the way, which trains nothing."""


def unsaid(values: Mapping[str, Any], row: Row) -> dict[str, Any]:
    """What `row` says about a recipe that a goal brings and that the recipe leaves open."""
    taken = {key for group in _TOGETHER if group & values.keys() for key in group}.union(values, _NOT_ADDED)
    return {key: value for key, value in row.recipe.items() if key not in taken}


def stage_recipe(before: str, method: str, *, init_from: str, family: str, parameters: float) -> StartingRecipe:
    """The recipe that a later stage starts with: the row of its method, on the data and seed of the recipe `before`.

    Raises: UserError when the playbook has no row of this method.
    """
    values = yaml.safe_load(before) or {}
    kept = {key: value for key, value in values.items() if str(key).startswith("data_") or key == "seed"}
    row = fitting_row(family=family, parameters=parameters, method=method)
    return _of_row(row, {"method": method, "init_from": init_from} | kept)


def _of_row(row: Row, fixed: Mapping[str, Any]) -> StartingRecipe:
    text = f"# {row.source}\n" + "".join(f"{key}: {as_yaml(value)}\n" for key, value in row.recipe.items())
    return StartingRecipe(_completed(text, fixed), row.source)


def fitting_row(*, family: str, parameters: float, method: str, peft: bool | None = None) -> Row:
    """The first row of this family and size; a family nobody measured takes the nearest size of any family.

    `peft` asks for a row that trains an adapter, or for one that does not, where the method has such rows.
    Raises: UserError when no row is of this method.
    """
    candidates = [row for row in rows() if row.method == method]
    if not candidates:
        raise UserError(f"There is no starting recipe for the method `{method}` yet: bring one in the goal.")
    if peft is not None:
        candidates = [row for row in candidates if row.peft is peft] or candidates
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
    return next(remedies_for(report, recipe, tried=tried, script_digest=script_digest, probed=probed), None)


def remedies_for(
    report: DiagnosisReport,
    recipe: str,
    *,
    tried: Mapping[str, int],
    script_digest: str = "",
    probed: bool = False,
    overshot: Collection[int] = (),
    parameters: float | None = None,
    room: Room = ANYWHERE,
) -> Iterator[Remedy]:
    """Untried changes in the order in which they are worth a run: first what the diagnoses themselves suggest, most
    harmful first, then the steps of the table. What only a person may decide carries its reason in `waits`.

    `tried` is recipe hash -> run; `overshot` are runs whose change went too far, so that half of it comes before more;
    `parameters` is the base model's size, None where only its name tells; what does not fit into `room` is left out.
    """
    values = yaml.safe_load(recipe) or {}
    rate = rate_of(values, parameters)
    seen: set[str] = set()
    for wanted in chain(
        _suggested(report, values, tried, script_digest, probed, overshot, rate),
        _stepped(report, values, parameters),
    ):
        settings = fitted(values, wanted.settings, room)
        if settings is None or _leaves_band(rate, settings):
            continue
        remedy = replace(wanted, value=settings.pop(wanted.key), also=settings)
        changed = yaml.safe_load(remedy.applied(recipe)) or {}
        name = recipe_hash(changed, script_digest=script_digest)
        if differences(values, changed) and name not in tried and name not in seen:
            seen.add(name)
            yield replace(remedy, waits=scope_change(values, changed) or "")


def _leaves_band(rate: Rate, settings: Mapping[str, Any]) -> bool:
    value = normalised_value(settings.get("learning_rate"))
    return isinstance(value, int | float) and rate.leaves_band(value)


def _suggested(
    report: DiagnosisReport,
    values: Mapping[str, Any],
    tried: Mapping[str, int],
    script_digest: str,
    probed: bool,
    overshot: Collection[int],
    rate: Rate,
) -> Iterator[Remedy]:
    for diagnosis in report.diagnoses:
        key, value, symptom = diagnosis.key, diagnosis.suggested, str(diagnosis.symptom)
        if key is None or (value is None and not null_is_the_remedy(diagnosis)):
            continue
        companions = companions_of(diagnosis, values)
        if diagnosis.symptom is Symptom.PLATEAU and key == duration_key(values) and rate.below_band:
            yield from _rate_first(diagnosis, rate, probe=not probed and _can_probe(values))
        # The evidence of a flat or exploding loss gives the direction, not the distance; a range test gives the
        # distance for less than a run costs.
        probe = wants_range_probe(diagnosis) and not probed and _can_probe(values)
        rates = rate.probes(diagnosis.symptom)[:MOST_PROBED_RATES] if probe else ()
        yield Remedy(key, value, symptom, diagnosis.cause, also=companions, probe=probe, rates=rates)
        if diagnosis.severity is Severity.ADVICE or companions:
            continue
        at = tried.get(recipe_hash({**values, key: value}, script_digest=script_digest))
        before = rate.current if key == "learning_rate" else normalised_value(values.get(key))
        yield from _stretched(diagnosis, before, value, halved=at in overshot)


def _rate_first(diagnosis: Diagnosis, rate: Rate, *, probe: bool) -> Iterator[Remedy]:
    """More steps at a rate that is below its band are the expensive way to where a higher rate gets for nothing."""
    raised = rate.raised()
    if raised is not None:
        why = f"{diagnosis.cause} learning_rate {rate.current:g} is below what usually moves a model of this size."
        rates = rate.probes(diagnosis.symptom)[:MOST_PROBED_RATES] if probe else ()
        yield Remedy("learning_rate", raised, str(diagnosis.symptom), why, probe=probe, rates=rates)


def _stretched(diagnosis: Diagnosis, before: Any, value: Any, *, halved: bool) -> Iterator[Remedy]:
    """The same change once more, bolder; or half as bold where the whole was too much."""
    numbers = [each for each in (before, value) if isinstance(each, int | float) and not isinstance(each, bool)]
    if len(numbers) < 2 or min(numbers) <= 0:
        return
    for power, words in ((0.5, "Half of the same change."),) if halved else ((2, _BOLDER), (3, _BOLDER)):
        stretched = before * (value / before) ** power
        whole = isinstance(value, int) and stretched >= 1
        stepped = round(stretched) if whole else float(f"{stretched:.2g}")
        yield Remedy(str(diagnosis.key), stepped, str(diagnosis.symptom), f"{diagnosis.cause} ({words})")


def _stepped(report: DiagnosisReport, values: Mapping[str, Any], parameters: float | None) -> Iterator[Remedy]:
    """The table's steps for everything that is more than advice."""
    for diagnosis in report.diagnoses:
        # Where a reward that can tell is known, it is the reward's own fault, and no sampling helps.
        blind = diagnosis.symptom in UNPAID and diagnosis.key in REWARD_KEYS and diagnosis.suggested is not None
        if diagnosis.severity is Severity.ADVICE or blind:
            continue
        for step in STEPS.get(diagnosis.symptom, ()):
            if settings := step.change(values, parameters):
                key, *others = settings
                also = {other: settings[other] for other in others}
                yield Remedy(key, settings[key], str(diagnosis.symptom), diagnosis.cause, also=also)


def _can_probe(values: Mapping[str, Any]) -> bool:
    """GRPO's loss says nothing of how well it trains, so a range test has nothing to compare."""
    return str(values.get("method", DEFAULT_METHOD)) != "grpo"


def after_probe(remedy: Remedy, probe: Mapping[str, Any] | None) -> Remedy:
    """`remedy` with the value that the range test suggests; its own value when the test failed or named none."""
    settled = replace(remedy, probe=False, rates=())
    suggested = (probe or {}).get("suggested")
    if isinstance(suggested, bool) or not isinstance(suggested, int | float):
        return settled
    # The test is the training script's word, so only a rate among those that it was asked to try is taken from it.
    if not min(remedy.rates, default=0.0) <= suggested <= max(remedy.rates, default=1.0) or suggested == 0:
        return settled
    why = f"{remedy.why} A learning-rate range test chose {suggested:g}."
    return replace(settled, value=float(suggested), why=why)


def settled(
    remedy: Remedy, probe: Mapping[str, Any] | None, recipe: str, *, tried: Mapping[str, int], script_digest: str = ""
) -> Remedy:
    """`remedy` of the run with this recipe, after its range test; with its own value where the test chose what that run
    or an earlier one has trained."""
    chosen = after_probe(remedy, probe)
    values = yaml.safe_load(chosen.applied(recipe)) or {}
    return after_probe(remedy, None) if recipe_hash(values, script_digest=script_digest) in tried else chosen
