"""Whether the next run fits on its machine, how long it takes and what it costs, before anything is paid.

What that depends on besides the recipe (the model's shape, the rows, the kinds of machine with their prices) is noted
in the journal when the data is checked, so that it can be told for whatever recipe stands at the head, by arithmetic
alone.

Not covered: a script that a team brings itself, which may train in another way than its recipe's keys say.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from bot.conversation.policy import Policy
from bot.diagnosis import Observations, preflight_of
from bot.domain.diagnosis import Diagnosis, Symptom
from bot.domain.experiment import Experiment, JobRole, Run
from bot.domain.recipe import normalised
from bot.errors import PlatformError, UserError
from runners.hardware.fitting import Fit, Rows, changes_that_fit, cheapest, fit_on
from runners.hardware.shape import ModelShape, shape_in, shape_of
from runners.job import Flavor, Runner

log = logging.getLogger(__name__)

BYTES_PER_TOKEN = 3.5
"""Of text in the rows, for a vocabulary of tens of thousands; an English token is four letters or so."""
SMALL_VOCABULARY = 1000
"""Below it a token is a letter."""
TEMPLATE_TOKENS = 16
"""What a chat template puts around a row."""
_KEPT = (str, int, float, bool)


@dataclass(frozen=True, slots=True)
class Estimates:
    """One recipe on every kind of machine that is offered; the first is the one that it would run on."""

    fits: tuple[Fit, ...]

    @property
    def here(self) -> Fit:
        return self.fits[0]

    @property
    def cheapest(self) -> Fit | None:
        return cheapest(self.fits)


async def hardware_facts(
    runner: Runner, model: Path, rows: Sequence[Mapping[str, Any]], *, memory_cap_gib: float, cores: int
) -> dict[str, Any] | None:
    """What the journal keeps: model, rows and machines. None when the model's configuration does not say enough.

    Without rows the recipe's own limit stands for their length.
    """
    try:
        config, shape = await asyncio.to_thread(_model_of, model)
    except UserError as error:
        log.info("no estimate of memory and time: %s", error)
        return None
    try:
        flavors = await asyncio.to_thread(runner.flavors)
    except (PlatformError, UserError, OSError) as error:
        log.warning("the runner does not tell its kinds of machine: %s", error)
        flavors = ()
    lengths = [_text_bytes(row) for row in rows]
    return {
        "config": config,
        "parameters": shape.measured,
        "rows": len(rows),
        "longest_bytes": max(lengths, default=None),
        "mean_bytes": sum(lengths) / len(lengths) if lengths else None,
        "flavors": [asdict(flavor) for flavor in flavors],
        "memory_cap_gib": memory_cap_gib,
        "cores": cores,
    }


def _model_of(folder: Path) -> tuple[dict[str, Any], ModelShape]:
    shape = shape_in(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return _without_tables(config), shape


def _without_tables(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration without its long parts (label names, rotary tables), which say nothing of memory."""
    kept: dict[str, Any] = {key: value for key, value in config.items() if isinstance(value, _KEPT)}
    kept |= {key: config[key] for key in ("layer_types", "mlp_only_layers") if isinstance(config.get(key), list)}
    if isinstance(config.get("text_config"), Mapping):
        kept["text_config"] = _without_tables(config["text_config"])
    return kept


def _text_bytes(row: Mapping[str, Any]) -> int:
    """Of everything that is text in a row, at any depth."""
    total, waiting = 0, list(row.values())
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            total += len(value.encode(errors="replace"))
        elif isinstance(value, Mapping):
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
    return total


def estimates_of(facts: Mapping[str, Any] | None, recipe: Mapping[str, Any], usd_per_hour: float) -> Estimates | None:
    """What `facts` say of a recipe; None when they or the recipe do not say enough."""
    if not facts or not facts["flavors"]:
        return None
    try:
        shape = shape_of(facts["config"], measured=facts["parameters"])
        rows = _rows_of(facts, shape)
        fits = tuple(
            fit_on(
                Flavor(**flavor), shape, recipe, rows, memory_cap_gib=facts["memory_cap_gib"], cores=facts["cores"],
                usd_per_hour=usd_per_hour,
            )
            for flavor in facts["flavors"]
        )  # fmt: skip
    except UserError:
        return None  # the script says what is wrong with the recipe
    return Estimates(fits)


def _rows_of(facts: Mapping[str, Any], shape: ModelShape) -> Rows:
    if facts["longest_bytes"] is None:
        return Rows(int(facts["rows"]))
    letters = 1.0 if shape.vocabulary < SMALL_VOCABULARY else BYTES_PER_TOKEN
    # A token is at least a byte, so the longest row has at most so many.
    longest = int(facts["longest_bytes"]) + TEMPLATE_TOKENS
    return Rows(int(facts["rows"]), longest, float(facts["mean_bytes"]) / letters + TEMPLATE_TOKENS / 4)


def estimates(x: Experiment, facts: Mapping[str, Any] | None, recipe: str | None = None) -> Estimates | None:
    """Of the recipe at the head, or of another one."""
    values = _values(x.recipe if recipe is None else recipe)
    return None if values is None else estimates_of(facts, values, Policy.from_dict(x.policy).usd_per_hour)


def _values(recipe: str) -> dict[str, Any] | None:
    try:
        values = yaml.safe_load(recipe)
    except yaml.YAMLError:
        return None
    return normalised(values) if isinstance(values, dict) else None


class Unfit(NamedTuple):
    """A recipe that its machine has too little memory for."""

    diagnosis: Diagnosis
    """On the line of the recipe that is changed first."""
    changes: dict[str, Any]
    """Settings that would make it fit; empty when none of those that are tried do."""


def unfit(x: Experiment, facts: Mapping[str, Any] | None) -> Unfit | None:
    """Why the head's recipe does not fit; None when it does, when nothing is known of the machine, and when a run that
    needed as much has already fitted."""
    found, values = estimates(x, facts), _values(x.recipe)
    if found is None or values is None or found.here.fits or _has_fitted(x, facts, found.here):
        return None
    here, usd = found.here, Policy.from_dict(x.policy).usd_per_hour
    assert here.available_gib is not None

    def needed(recipe: Mapping[str, Any]) -> float:
        other = estimates_of(facts, recipe, usd)
        return other.here.memory.total_gib if other is not None else float("inf")

    changes = changes_that_fit(values, needed, here.available_gib, gpu=here.flavor.gpus > 0)
    hardware = {
        "machine": here.flavor.name,
        "needed_gib": here.memory.total_gib,
        "available_gib": here.available_gib,
        "largest_part": here.memory.explain()[0],
        "changes": changes,
        "cheapest": _offer(found.cheapest),
    }
    report = preflight_of(Observations(x.recipe, values, hardware=hardware))
    found_here = next((each for each in report.diagnoses if each.symptom is Symptom.OOM), None)
    return Unfit(found_here, changes or {}) if found_here is not None else None


def plan_words(found: Estimates) -> str:
    """Memory in one phrase for the plan: what is needed, of how much."""
    here = found.here
    needed = f"about {here.memory.total_gib:.1f} GiB by estimate"
    if here.available_gib is None:
        return needed
    of = f"{needed}, of {here.available_gib:.1f} GiB"
    if not here.fits:
        return f"{of}: it does not fit"
    return f"{of}: it should fit, barely" if here.tight else of


def _offer(fit: Fit | None) -> str | None:
    """The cheapest machine that it fits on, in words."""
    if fit is None:
        return None
    size = f"{fit.available_gib:.0f} GiB" if fit.available_gib is not None else "its memory"
    price = f", about {fit.usd:.2f} USD a run" if fit.usd else ""
    return f"{fit.flavor.name} ({size}{price})"


def _has_fitted(x: Experiment, facts: Mapping[str, Any] | None, here: Fit) -> bool:
    """True when training that needed as much by the same arithmetic has ended well: then the arithmetic is wrong."""
    needed = (
        found.here.memory.total_gib for run in x.runs if _trained(x, run) and (found := estimates(x, facts, run.recipe))
    )
    return any(before >= here.memory.total_gib for before in needed)


def _trained(x: Experiment, run: Run) -> bool:
    job = x.job_for(JobRole.TRAIN, run.n)
    return job is not None and job.succeeded
