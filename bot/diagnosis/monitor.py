"""While a run trains: is it doomed, so that every further second is spent for nothing?

Four tiers, from the surest to the mildest:

    preflight   the data or the model say before the first step that nothing can be learned
    hard        no further step can take it back: weights that are no numbers, a reward that tells no sample apart
    soft        two independent signs that both last, after the warm-up: one of `bot.diagnosis.signals`, and a cause of
                another kind that the engine names, or a second signal
    advice      everything else: it is said, and the run goes on

A loss that jumps may recover, a plateau may end and a run that overfits has a best checkpoint, so they wait for the
diagnosis at the end. They end a run only where something besides the curve says that nothing will move again: a rate
whose steps cannot add up to anything, a schedule that has let go, weights that do not change, rows known by heart. A
curve's forecast alone is no reason to end a run (14 % of learning curves are ill-behaved, 2505.15657).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from bot.diagnosis.engine import RULES, diagnosis_of
from bot.diagnosis.folder import observations_of
from bot.diagnosis.observations import Observations
from bot.diagnosis.rules.progress import let_go_at
from bot.diagnosis.signals import (
    KINDS,
    WINDOW,
    Rows,
    idle_signals,
    in_order,
    last_step,
    lasting_signals,
    number,
    training,
    values_of,
)
from bot.domain.diagnosis import Diagnosis, Evidence, Severity, Symptom
from bot.domain.recipe import line_of

FATAL_RULES = tuple(rule for rule in RULES if rule.symptom in (Symptom.NAN_INF, Symptom.DIVERGENCE))
TELLING_ROWS = 3
"""So many logged steps in a row without a number: fp16 loss scaling skips one or two and goes on."""
DEAD_STEPS = 20
"""Logged steps in a row on which no group of samples was told apart (Axolotl's GRPO guide: 1.0 is dead)."""
DEAD_REWARD = 0.05
"""† Mean reward up to which no spread means that nothing is ever right; above it the task may be solved instead."""
MOSTLY_WRONG = 0.5
"""† Share of right samples above which groups without spread may be those of a task that is solved."""
GRACE = 0.03
"""† Share of the run, or its warm-up where that is longer, before which no signal counts."""
SURE = 0.6
"""† Confidence from which a cause is taken for the reason of two signals."""
ADVISE_ONLY = frozenset(
    {Symptom.PLATEAU, Symptom.OVERFIT, Symptom.LENGTH_HACK, Symptom.FORGETTING, Symptom.UNKNOWN, Symptom.DUPLICATES}
)
"""What a run may still come out of, or come out of useful."""
LEAST_PATH = 30
"""† A rate whose steps add up to less than so many at the lowest useful rate gets nowhere; a hundred such steps are
still too few on the practice model (bot.diagnosis.learning_rates)."""


class Tier(StrEnum):
    PREFLIGHT = "preflight"
    HARD = "hard"
    SOFT = "soft"
    ADVICE = "advice"

    @property
    def ends(self) -> bool:
        """Whether the run is to be ended."""
        return self is not Tier.ADVICE


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a run has come to so far."""

    tier: Tier
    diagnoses: tuple[Diagnosis, ...]
    """Most harmful first, at least one."""
    step: int
    """The last logged one; 0 before the first."""
    signals: tuple[Evidence, ...] = ()
    """What lasts, for the tier soft."""

    @property
    def worth_saving(self) -> bool:
        """Whether a checkpoint made now holds anything: not before the first step, nor of weights that are lost."""
        return self.step > 0 and all(each.symptom is not Symptom.NAN_INF for each in self.diagnoses)


def judged(
    recipe_text: str,
    rows: Rows,
    *,
    setup: Mapping[str, Any] | None = None,
    audit: Mapping[str, Any] | None = None,
    advise: bool = True,
) -> Judgement | None:
    """What to make of a run that has logged `rows` so far; None while there is nothing to say.

    `setup` and `audit` are its setup.json and data_audit.json, where they are there yet. Without `advise` only what
    ends a run is looked for, which takes a fraction of a millisecond as long as nothing is wrong.
    Raises: UserError for the recipe.
    """
    rows = in_order(rows)
    step = last_step(rows)
    if (dead := _dead(recipe_text, rows, setup or {}, audit or {})) is not None:
        return Judgement(Tier.HARD, (dead,), step)
    signals = lasting_signals(rows) if _past_grace(recipe_text, rows, setup or {}) else ()
    idle = idle_signals(rows) if _past_grace(recipe_text, rows, setup or {}) else ()
    if not (advise or signals or idle or not _training(rows)):
        return None
    seen = observations_of(recipe_text, rows, setup=setup, audit=audit)
    found = diagnosis_of(seen).diagnoses
    fatal = tuple(each for each in found if each.severity is Severity.FATAL)
    if fatal and not _training(rows):
        return Judgement(Tier.PREFLIGHT, fatal, 0)
    sure = [each for each in found if each.severity is not Severity.ADVICE and each.confidence >= SURE]
    causes = {each.symptom: signals for each in sure if each.symptom not in ADVISE_ONLY and _two_kinds(signals, each)}
    causes |= {each.symptom: why for each in sure if (why := _for_good(seen, idle, each))}
    if causes:
        before = diagnosis_of(observations_of(recipe_text, rows[:-WINDOW], setup=setup, audit=audit)).diagnoses
        stood = {each.symptom for each in before if each.severity is not Severity.ADVICE}
        lasting = tuple(each for each in sure if each.symptom in causes and each.symptom in stood)
        if lasting:
            return Judgement(Tier.SOFT, lasting, step, causes[lasting[0].symptom])
    if len(signals) >= 2 and (unnamed := _unnamed(signals, lasting_signals(rows[:-WINDOW]))) is not None:
        return Judgement(Tier.SOFT, (unnamed,), step, signals)
    return Judgement(Tier.ADVICE, found, step, signals) if found else None


# --- what no further step takes back


def _dead(recipe_text: str, rows: Rows, setup: Mapping[str, Any], audit: Mapping[str, Any]) -> Diagnosis | None:
    return (
        _lost_weights(recipe_text, rows)
        or _nothing_trains(recipe_text, setup)
        or _dead_reward(recipe_text, rows)
        or _nothing_scored(recipe_text, rows, audit)
    )


def _lost_weights(recipe_text: str, rows: Rows) -> Diagnosis | None:
    last = [row for row in rows if "loss" in row or "grad_norm" in row][-TELLING_ROWS:]
    if len(last) < TELLING_ROWS or not all(_lost(row) for row in last):
        return None
    report = diagnosis_of(observations_of(recipe_text, rows), FATAL_RULES)
    return next((found for found in report.diagnoses if found.severity is Severity.FATAL), None)


def _lost(row: Mapping[str, Any]) -> bool:
    """No number in the row says that the weights still are numbers. A NaN is written as a string or as null; a loss of
    exactly 0 beside a gradient norm that is none is how some trainers hide it."""
    if number(row.get("grad_norm")) is not None:
        return False
    loss = number(row.get("loss"))
    return loss is None or ("grad_norm" in row and loss == 0)


def _nothing_trains(recipe_text: str, setup: Mapping[str, Any]) -> Diagnosis | None:
    if setup.get("trainable_parameters") != 0:
        return None
    key = "lora_target_modules" if line_of(recipe_text, "lora_target_modules") else None
    return Diagnosis(
        Symptom.FROZEN, Severity.FATAL, 1.0, (Evidence("trainable_parameters", 0, 0),),
        "Not one weight of this model is trained.", key=key, line=line_of(recipe_text, key) if key else None,
        suggested="all-linear" if key else None, refuted_by="a setup.json with trainable_parameters above 0",
    )  # fmt: skip


def _dead_reward(recipe_text: str, rows: Rows) -> Diagnosis | None:
    """No spread of the reward in any group for so long. Where the reward is near its top and what is wanted is, too,
    that is a solved task."""
    last = [row for row in rows if "frac_reward_zero_std" in row][-DEAD_STEPS:]
    rewards = [value for row in last if (value := number(row.get("reward"))) is not None]
    if len(last) < DEAD_STEPS or any((number(row["frac_reward_zero_std"]) or 0.0) < 1.0 for row in last) or not rewards:
        return None
    if max(rewards) > DEAD_REWARD or min(rewards) < -DEAD_REWARD:
        return _untaught(recipe_text, rows, last)
    first = int(last[0].get("step", 0))
    return Diagnosis(
        Symptom.REWARD_ZERO, Severity.FATAL, 0.95,
        (Evidence("frac_reward_zero_std", first, 1.0), Evidence("reward", int(last[-1].get("step", 0)), rewards[-1])),
        f"On {len(last)} logged steps in a row, from step {first} on, every sample got the same reward of "
        f"{rewards[-1]:.2g}: there is nothing to prefer, so no weight moves.",
        runner_up="zero_std: the task is solved and the reward's top is 0",
        refuted_by="one sample with another reward among those of completions.jsonl",
    )  # fmt: skip


def _untaught(recipe_text: str, rows: Rows, last: Rows) -> Diagnosis | None:
    """Every group earns one reward, no gradient follows, and what is wanted is not there: the engine's word for it."""
    wanted = [value for row in last if (value := number(row.get("rewards/exact_match/mean"))) is not None]
    if len(wanted) < DEAD_STEPS or max(wanted) > MOSTLY_WRONG or any(number(row.get("grad_norm")) for row in last):
        return None
    report = diagnosis_of(observations_of(recipe_text, rows))
    dead = (Symptom.ZERO_STD, Symptom.REWARD_ZERO)
    return next((each for each in report.diagnoses if each.symptom in dead and each.severity is Severity.FATAL), None)


def _nothing_scored(recipe_text: str, rows: Rows, audit: Mapping[str, Any]) -> Diagnosis | None:
    """Batch after batch without one supervised token: loss, gradient and right tokens are exactly 0."""
    last = [row for row in rows if "loss" in row][-WINDOW:]
    if len(last) < WINDOW or any("reward" in row for row in last):
        return None
    right = any(number(row.get("mean_token_accuracy", 0)) != 0 for row in last)
    if right or any(number(row["loss"]) != 0 or number(row.get("grad_norm")) != 0 for row in last):
        return None
    report = diagnosis_of(observations_of(recipe_text, rows, audit=audit))
    named = (each for each in report.diagnoses if each.symptom is Symptom.ALL_LABELS_MASKED)
    return next((each for each in named if each.severity is Severity.FATAL), None)


# --- two signs of two kinds


_CAUSES = {
    Symptom.DIVERGENCE: "loss",
    Symptom.LOSS_SPIKE: "loss",
    Symptom.GRAD_EXPLOSION: "gradient",
    Symptom.KL_BLOWUP: "kl",
    Symptom.ENTROPY_COLLAPSE: "entropy",
    Symptom.REWARD_ZERO: "reward",
    Symptom.ZERO_STD: "reward",
    Symptom.REWARD_HACK: "reward",
    Symptom.REWARD_INVERTED: "reward",
    Symptom.DPO_OVERSHOOT: "preference",
    Symptom.DPO_DISPLACEMENT: "preference",
    Symptom.CLIPPED_COMPLETIONS: "answers",
    Symptom.MISSING_EOS: "answers",
}
"""What a cause that the engine names is a sign of; one that is not here is counted over the data, a kind of its own."""


def _two_kinds(signals: Sequence[Evidence], cause: Diagnosis) -> bool:
    """Whether signals and cause together are signs of two things, since two of one are one sign."""
    if not signals:
        return False
    counted = all(item.step is None for item in cause.evidence)
    kind = "data" if counted else _CAUSES.get(cause.symptom, "data")
    return len({KINDS[signal.key] for signal in signals} | {kind}) >= 2


def _for_good(seen: Observations, idle: Sequence[Evidence], cause: Diagnosis) -> tuple[Evidence, ...]:
    """The signs that nothing moves, where the cause says that nothing will; empty otherwise."""
    still = {signal.key: signal for signal in idle}
    asked = any("probe/exact_match" in record for record in seen.probes)
    wrong = "probe/exact_match" in still or not asked
    if cause.symptom is Symptom.DIVERGENCE:
        wanted: tuple[str, ...] = ("probe/exact_match",) if seen.rate.implausible else ()
    elif cause.symptom is Symptom.OVERFIT:
        wanted = ("eval_loss",) if wrong and _rising(seen) else ()
    elif cause.symptom is Symptom.FROZEN:
        wanted = ("loss", "eval_loss")
    elif cause.symptom is Symptom.PLATEAU and cause.key == "learning_rate":
        wanted = ("loss", "kl") if wrong and _gets_nowhere(seen) else ()
    elif cause.symptom is Symptom.PLATEAU:
        wanted = ("eval_loss", "probe/exact_match") if wrong and let_go_at(seen) is not None else ()
    else:
        wanted = ()
    return tuple(still[key] for key in wanted if key in still)


def _rising(seen: Observations) -> bool:
    """The held-out loss stands above its best: the best checkpoint lies behind."""
    held_out = [record["eval_loss"] for record in seen.evals if "eval_loss" in record]
    return len(held_out) >= 3 and min(held_out[-2:]) > min(held_out)


def _gets_nowhere(seen: Observations) -> bool:
    """All the steps of the plan together are shorter than a few at the lowest rate that usually moves such a model."""
    rate, planned = seen.rate, seen.planned_steps
    low = rate.size_known and rate.current < rate.band.low / 2
    path = rate.current * planned if planned else math.inf
    return low and (rate.far_below or path <= LEAST_PATH * rate.band.low)


def _unnamed(signals: Sequence[Evidence], before: Sequence[Evidence]) -> Diagnosis | None:
    """Two signs of different kinds that have stood for two windows, where the engine has no name for them yet."""
    # Entropy rises in the first steps of a healthy run that learns another form, so it only supports a named cause.
    both = {KINDS[signal.key] for signal in signals} & {KINDS[signal.key] for signal in before} - {"entropy"}
    if len(both) < 2:
        return None
    said = " and ".join(f"{signal.key} is {signal.value}" for signal in signals)
    return Diagnosis(
        Symptom.UNKNOWN, Severity.HARMFUL, 0.6, tuple(signals),
        f"At step {signals[-1].step} {said}, each far worse than where it began, and both have lasted.",
        refuted_by="the same run coming back from there when it goes on",
    )  # fmt: skip


def _past_grace(recipe_text: str, rows: Rows, setup: Mapping[str, Any]) -> bool:
    """Whether the warm-up and the first steps are over."""
    total = number(setup.get("max_steps")) or 0.0
    warm_up = number(setup.get("warm_up_steps"))
    if warm_up is None:
        rates = [(at, value) for at, value in values_of(rows, "learning_rate") if math.isfinite(value)]
        warm_up = float(max(rates, key=lambda pair: pair[1])[0]) if rates and rates[0][1] < rates[-1][1] else 0.0
        warm_up = min(warm_up, 0.1 * total) if total else warm_up
    return last_step(rows) > max(warm_up, GRACE * total, WINDOW)


def _training(rows: Rows) -> bool:
    """Whether a step has been logged."""
    return any(map(training, rows))
