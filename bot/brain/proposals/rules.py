"""What no proposal may do, whatever its reason says. The playbook's own rules, held against somebody else's idea.

Each refusal says what to propose instead, because it goes back to the model. Pure: what a proposal does to the rows or
to a training is found out afterwards, by building them and by two steps of training.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from bot.brain.playbook import Remedy
from bot.brain.proposals.schema import Kind, Proposal
from bot.brain.remedies import family_of, scope_change
from bot.brain.search import MOST_FAILED_REPAIRS, failed_remedies
from bot.diagnosis.learning_rates import rate_of
from bot.diagnosis.remedies import DEFAULT_BATCH_SIZE
from bot.domain.experiment import Experiment, Run
from bot.domain.goal import digest_of
from bot.domain.recipe import as_yaml, differences, normalised_value

# What is trained from what, by what and towards what is the goal's word or a person's; which items are drawn follows
# from the seed.
_NOT_ITS_BUSINESS = {
    "init_from": "what is trained is the goal's base model",
    "method": "the method is the goal's",
    "teacher": "whom the model learns from is the goal's",
    "seed": "the seed decides what can be compared",
    "reward_funcs": "what is rewarded is a person's to decide",
    "reward_functions": "what is rewarded is a person's to decide",
    "reward_weights": "what is rewarded is a person's to decide",
    "logging_steps": "how a run is watched stays as it is",
    "logging_strategy": "how a run is watched stays as it is",
    "logging_first_step": "how a run is watched stays as it is",
    "report_to": "how a run is watched stays as it is",
    "disable_tqdm": "how a run is watched stays as it is",
    "eval_strategy": "how a run is watched stays as it is",
    "full_determinism": "how a run is watched stays as it is",
}
_TOGETHER = (
    frozenset({"per_device_train_batch_size", "gradient_accumulation_steps", "gradient_checkpointing"}),
    frozenset({"per_device_train_batch_size", "gradient_accumulation_steps", "num_generations"}),
    frozenset({"learning_rate", "optim"}),
)
"""Keys that one cause may need together, beside those of one kind."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What a proposal is held against."""

    x: Experiment
    run: Run | None
    """Whose result it answers; None for the first plan."""
    parameters: float | None = None
    """Of the base model."""
    covered: Collection[str] = ()
    """Recipe keys and scripts that may change without a person's word."""
    data_is_open: bool = False
    """The goal names no training data of its own."""

    def covers(self, name: str) -> bool:
        return "*" in self.covered or name in self.covered

    def standing_recipe(self, proposal: Proposal) -> str:
        return self.x.runs[proposal.base - 1].recipe if proposal.base else self.x.recipe


def problems_of(ground: Ground, proposal: Proposal) -> list[str]:
    """Why the proposal may not be made, a sentence each; nothing where it may."""
    found = list(_labelled(ground, proposal))
    if not proposal.kind.changes:
        return found
    before = yaml.safe_load(ground.standing_recipe(proposal)) or {}
    after = yaml.safe_load(proposal.recipe) or {}
    changed = differences(before, after)
    found += _forbidden(changed)
    found += _one_cause(ground, proposal, changed)
    found += _scope(ground, before, after)
    found += _values(ground, proposal, before, after)
    if not found:
        found += _tried(ground, proposal, changed)
    return found


def waits_for(ground: Ground, proposal: Proposal) -> str:
    """Why a person decides on a proposal that breaks no rule: it changes what nobody has agreed to; else empty."""
    before = yaml.safe_load(ground.standing_recipe(proposal)) or {}
    changed = differences(before, yaml.safe_load(proposal.recipe) or {})
    outside = sorted(name for name in (*changed, *proposal.rewritten) if not ground.covers(name))
    if not outside:
        return ""
    return f"it changes {', '.join(outside)}, which nobody has agreed to"


def _labelled(ground: Ground, proposal: Proposal) -> Iterator[str]:
    if not proposal.label:
        return
    known = [str(each.symptom) for each in ground.run.report.diagnoses] if ground.run is not None else []
    if proposal.label not in known:
        listed = ", ".join(dict.fromkeys(known)) or "none"
        yield f"`label` is {proposal.label[:60]!r}, and the diagnoses of this run are: {listed}. Write one, or `none`."


def _forbidden(changed: Collection[str]) -> Iterator[str]:
    for key in changed:
        if key in _NOT_ITS_BUSINESS:
            yield f"`{key}` stays: {_NOT_ITS_BUSINESS[key]}. Propose a question where it should change."


def _one_cause(ground: Ground, proposal: Proposal, changed: Mapping[str, Any]) -> Iterator[str]:
    """Of several things that changed at once nobody knows which one did it. The first plan has nothing before it."""
    if not changed and not proposal.files:
        yield "It changes nothing of what stands there."
        return
    if ground.run is None and not (yaml.safe_load(proposal.recipe) or {}).get("data_sources", True):
        yield "This goal has no training data yet: propose `dataset` with a change of kind data."
    scripts = proposal.rewritten
    data_keys = {key for key in changed if key.startswith("data_")}
    if proposal.kind is not Kind.PATCH and scripts - {"data/prepare.py"} and ground.run is not None:
        yield "train.py and rewards.py change by a proposal of kind patch alone."
    if proposal.kind is Kind.RECIPE and (data_keys or scripts) and ground.run is not None:
        yield "What is trained on changes by a proposal of kind data."
    if ground.run is None:
        return
    if proposal.kind is Kind.DATA and set(changed) - data_keys:
        others = ", ".join(sorted(set(changed) - data_keys))
        yield f"Two causes: the data, and {others}. Propose the one that matters more."
    if proposal.kind is Kind.PATCH and (changed or "data/prepare.py" in scripts):
        yield "Two causes: a patch changes train.py or rewards.py and nothing else. Propose the other as the next one."
    families = sorted({family_of(key) for key in changed})
    several = len(families) > 1 and not any(changed.keys() <= group for group in _TOGETHER)
    if proposal.kind is Kind.RECIPE and several:
        yield f"Two causes ({', '.join(families)}): one kind of key a run. Propose the one that matters more."


def _scope(ground: Ground, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """Full to adapter, shorter sequences, other data: never by itself, and never under another name."""
    ask = "Propose a question that says what it would bring, or another change."
    sources = "data_sources"
    other = normalised_value(before.get(sources)) != normalised_value(after.get(sources))
    if other and not ground.data_is_open and not ground.covers(sources):
        yield f"The goal names its training data, and other data needs a person's word. {ask}"
    rest = {key: value for key, value in after.items() if key != sources}
    if (why := scope_change({key: value for key, value in before.items() if key != sources}, rest)) is not None:
        yield f"That is more than another value: {why}. {ask}"


def _values(ground: Ground, proposal: Proposal, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    rate = rate_of(before, ground.parameters)
    value = normalised_value(after.get("learning_rate"))
    if "learning_rate" in proposal.settings and isinstance(value, int | float) and rate.leaves_band(value):
        yield (
            f"learning_rate {value:g} lies further outside of what works for a model of this size and method "
            f"({rate.band.low:g} to {rate.band.ceiling:g}) than what stands there. Choose one within."
        )
    if proposal.label in ("oom", "host_oom") and _updates(before) != _updates(after):
        yield (
            "Against running out of memory the batch of an update stays: halve per_device_train_batch_size and double "
            "gradient_accumulation_steps."
        )


def _updates(values: Mapping[str, Any]) -> float:
    """Rows of an update on one device."""
    sizes = [
        normalised_value(values.get("per_device_train_batch_size", DEFAULT_BATCH_SIZE)),
        normalised_value(values.get("gradient_accumulation_steps", 1)),
    ]
    numbers = [float(size) for size in sizes if isinstance(size, int | float) and not isinstance(size, bool)]
    return numbers[0] * numbers[1] if len(numbers) == 2 else 0.0


def _tried(ground: Ground, proposal: Proposal, changed: Mapping[str, Any]) -> Iterator[str]:
    """What was trained before, and what has failed before."""
    x = ground.x
    if (n := x.tried.get(proposal.recipe_hash)) is not None:
        run = x.runs[n - 1]
        came = f"{run.score.value:.3g}" if run.score is not None else "no value"
        yield f"This very recipe was trained as run {n}: {came}. Propose something that has not been tried."
        return
    failed: Counter[tuple[str, str]] = Counter()
    for remedy, base in failed_remedies(x):
        failed[remedy.symptom, family_of(remedy.key)] += 1
        if remedy.settings and remedy.symptom == proposal.label and _same(remedy, base, proposal):
            values = ", ".join(f"{key} {as_yaml(value)}" for key, value in remedy.settings.items())
            yield f"{values} was tried against `{remedy.symptom}` before and did not help. Propose something else."
    for family in {family_of(key) for key in changed}:
        if proposal.label and failed[proposal.label, family] >= MOST_FAILED_REPAIRS:
            yield (
                f"`{proposal.label}` still stands after {failed[proposal.label, family]} changes of one kind "
                f"({family}). Change something of another kind."
            )


def _same(remedy: Remedy, base: Run, proposal: Proposal) -> bool:
    return digest_of(normalised_value(dict(remedy.settings))) == digest_of(normalised_value(dict(proposal.settings)))
