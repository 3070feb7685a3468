"""While a run trains: is it doomed, so that every further second is spent for nothing?

Four tiers, from the surest to the mildest:

    preflight   the data or the model say before the first step that nothing can be learned
    hard        no further step can take it back: weights that are no numbers, a reward that tells no sample apart
    soft        two independent signs that both last, after the warm-up: one of the monitor's own signals, and a cause
                of another kind that the engine names, or a second signal
    advice      everything else: it is said, and the run goes on

A loss that jumps may recover and a plateau may end, so they wait for the diagnosis at the end. Not covered: runs that
are merely hopeless; a curve's forecast is no reason to end a run (14 % of learning curves are ill-behaved, 2505.15657).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median
from typing import Any

from bot.diagnosis.engine import RULES, diagnosis_of
from bot.diagnosis.folder import observations_of
from bot.domain.diagnosis import Diagnosis, Evidence, Severity, Symptom
from bot.domain.recipe import line_of

FATAL_RULES = tuple(rule for rule in RULES if rule.symptom is Symptom.NAN_INF)
TELLING_ROWS = 3
"""So many logged steps in a row without a number: fp16 loss scaling skips one or two and goes on."""
DEAD_STEPS = 20
"""Logged steps in a row on which no group of samples was told apart (Axolotl's GRPO guide: 1.0 is dead)."""
DEAD_REWARD = 0.05
"""† Mean reward up to which no spread means that nothing is ever right; above it the task may be solved instead."""
WINDOW = 5
"""† Logged steps over which a signal has to last."""
GRACE = 0.03
"""† Share of the run, or its warm-up where that is longer, before which no signal counts."""
SURE = 0.6
"""† Confidence from which a cause is taken for the reason of two signals."""
ADVISE_ONLY = frozenset(
    {Symptom.PLATEAU, Symptom.OVERFIT, Symptom.LENGTH_HACK, Symptom.FORGETTING, Symptom.UNKNOWN, Symptom.DUPLICATES}
)
"""What a run may still come out of, or come out of useful."""

Rows = Sequence[Mapping[str, Any]]


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
    step = int(rows[-1].get("step", len(rows))) if rows else 0
    if (dead := _dead(recipe_text, rows, setup or {})) is not None:
        return Judgement(Tier.HARD, (dead,), step)
    signals = lasting_signals(rows) if _past_grace(recipe_text, rows, setup or {}) else ()
    if not (advise or signals or (not _training(rows) and audit)):
        return None
    found = diagnosis_of(observations_of(recipe_text, rows, setup=setup, audit=audit)).diagnoses
    fatal = tuple(each for each in found if each.severity is Severity.FATAL)
    if fatal and not _training(rows):
        return Judgement(Tier.PREFLIGHT, fatal, 0)
    causes = tuple(
        each
        for each in found
        if each.severity is not Severity.ADVICE and each.confidence >= SURE and each.symptom not in ADVISE_ONLY
    )
    causes = tuple(each for each in causes if signals and _two_kinds(signals, each))
    if causes:
        before = diagnosis_of(observations_of(recipe_text, rows[:-WINDOW], setup=setup, audit=audit)).diagnoses
        stood = {each.symptom for each in before if each.severity is not Severity.ADVICE}
        lasting = tuple(each for each in causes if each.symptom in stood)
        if lasting:
            return Judgement(Tier.SOFT, lasting, step, signals)
    if len(signals) >= 2 and (unnamed := _unnamed(signals, lasting_signals(rows[:-WINDOW]))) is not None:
        return Judgement(Tier.SOFT, (unnamed,), step, signals)
    return Judgement(Tier.ADVICE, found, step, signals) if found else None


# --- what no further step takes back


def _dead(recipe_text: str, rows: Rows, setup: Mapping[str, Any]) -> Diagnosis | None:
    return _lost_weights(recipe_text, rows) or _nothing_trains(recipe_text, setup) or _dead_reward(recipe_text, rows)


def _lost_weights(recipe_text: str, rows: Rows) -> Diagnosis | None:
    last = [row for row in rows if "loss" in row or "grad_norm" in row][-TELLING_ROWS:]
    if len(last) < TELLING_ROWS or not all(_lost(row) for row in last):
        return None
    report = diagnosis_of(observations_of(recipe_text, rows), FATAL_RULES)
    return next((found for found in report.diagnoses if found.severity is Severity.FATAL), None)


def _lost(row: Mapping[str, Any]) -> bool:
    """No number in the row says that the weights still are numbers. A NaN is written as a string or as null; a loss of
    exactly 0 beside a gradient norm that is none is how some trainers hide it."""
    if "grad_norm" in row and _finite(row["grad_norm"]):
        return False
    return "loss" not in row or not _finite(row["loss"]) or ("grad_norm" in row and row["loss"] == 0)


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
    """No spread of the reward in any group for so long. With a reward near its top that is a solved task."""
    last = [row for row in rows if "frac_reward_zero_std" in row][-DEAD_STEPS:]
    rewards = [value for row in last if (value := _number(row.get("reward"))) is not None]
    if len(last) < DEAD_STEPS or any((_number(row["frac_reward_zero_std"]) or 0.0) < 1.0 for row in last):
        return None
    if not rewards or max(rewards) > DEAD_REWARD or min(rewards) < -DEAD_REWARD:
        return None
    first = int(last[0].get("step", 0))
    return Diagnosis(
        Symptom.REWARD_ZERO, Severity.FATAL, 0.95,
        (Evidence("frac_reward_zero_std", first, 1.0), Evidence("reward", int(last[-1].get("step", 0)), rewards[-1])),
        f"On {len(last)} logged steps in a row, from step {first} on, every sample got the same reward of "
        f"{rewards[-1]:.2g}: there is nothing to prefer, so no weight moves.",
        runner_up="zero_std: the task is solved and the reward's top is 0",
        refuted_by="one sample with another reward among those of completions.jsonl",
    )  # fmt: skip


# --- signals that last


_KINDS = {
    "loss": "loss",
    "grad_norm": "gradient",
    "mean_token_accuracy": "accuracy",
    "entropy": "entropy",
    "eval_loss": "validation",
    "reward": "reward",
    "kl": "kl",
    "probe/termination_rate": "answers",
    "logps/chosen": "preference",
    "rewards/exact_match/mean": "what is wanted",
}
"""Metric of a signal -> what it says something about."""
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
    counted = all(item.step is None for item in cause.evidence)
    kind = "data" if counted else _CAUSES.get(cause.symptom, "data")
    return len({_KINDS[signal.key] for signal in signals} | {kind}) >= 2


def _unnamed(signals: Sequence[Evidence], before: Sequence[Evidence]) -> Diagnosis | None:
    """Two signs of different kinds that have stood for two windows, where the engine has no name for them yet."""
    # Entropy rises in the first steps of a healthy run that learns another form, so it only supports a named cause.
    both = {_KINDS[signal.key] for signal in signals} & {_KINDS[signal.key] for signal in before} - {"entropy"}
    if len(both) < 2:
        return None
    said = " and ".join(f"{signal.key} is {signal.value}" for signal in signals)
    return Diagnosis(
        Symptom.UNKNOWN, Severity.HARMFUL, 0.6, tuple(signals),
        f"At step {signals[-1].step} {said}, each far worse than where it began, and both have lasted.",
        refuted_by="the same run coming back from there when it goes on",
    )  # fmt: skip


def lasting_signals(rows: Rows) -> tuple[Evidence, ...]:
    """What has held on every one of the last `WINDOW` logged steps, at most one of each independent kind."""
    found = (signal(rows) for signal in _SIGNALS)
    return tuple(evidence for evidence in found if evidence is not None)


def _series(rows: Rows, key: str) -> list[tuple[int, float]]:
    """(step, value) of the logged values; not-a-number is infinite."""
    found = []
    for row in rows:
        if key in row:
            value = _number(row[key])
            found.append((int(row.get("step", 0)), math.inf if value is None else value))
    return found


def _lasts(
    rows: Rows, key: str, wrong: Callable[[float, list[float]], bool], *, window: int = WINDOW
) -> Evidence | None:
    """The last value, where the whole window is wrong beside what came before it."""
    series = _series(rows, key)
    before, last = [value for _, value in series[:-window]], series[-window:]
    if len(last) < window or len(before) < window or not all(wrong(value, before) for _, value in last):
        return None
    step, value = last[-1]
    return Evidence(key, step, value if math.isfinite(value) else "Infinity")


def _loss(rows: Rows) -> Evidence | None:
    """Twice the loss it began with: Axolotl's loss_watchdog (about 2 times, three in a row)."""
    if any("reward" in row for row in rows):
        return None  # of GRPO, whose loss is no sign of health
    return _lasts(rows, "loss", lambda value, before: value > 2 * median(before[:3]))


def _gradient(rows: Rows) -> Evidence | None:
    """Axolotl's training_stability guide: above 100 for supervised and preference runs, above 10 again and again for
    GRPO; and far above what was usual here."""
    most = 10.0 if any("reward" in row for row in rows) else 100.0
    return _lasts(rows, "grad_norm", lambda value, before: value > most and value > 10 * median(before))


def _accuracy(rows: Rows) -> Evidence | None:
    """† Token accuracy below four fifths of where it began, and under half of its best."""
    return _lasts(
        rows,
        "mean_token_accuracy",
        lambda value, before: value < 0.8 * median(before[:WINDOW]) and value < 0.5 * max(before),
    )


def _spread(rows: Rows) -> Evidence | None:
    """† A supervised model that grows less sure than it began: entropy half as high again."""
    if any("reward" in row for row in rows):
        return None
    return _lasts(rows, "entropy", lambda value, before: value > 1.5 * median(before[:WINDOW]) and value > 1.0)


def _evaluation(rows: Rows) -> Evidence | None:
    """† The loss on validation rows half as high again as its first, twice in a row."""
    series = _series(rows, "eval_loss")
    if len(series) < 3 or not all(value > 1.5 * series[0][1] for _, value in series[-2:]):
        return None
    step, value = series[-1]
    return Evidence("eval_loss", step, value if math.isfinite(value) else "Infinity")


def _reward(rows: Rows) -> Evidence | None:
    """A peak, then below the level that it began on: the sign of doom of reinforcement runs (peak-then-collapse)."""
    series = [value for _, value in _series(rows, "reward")]
    if len(series) < 4 * WINDOW:
        return None
    early, best = median(series[:WINDOW]), max(
        median(series[at : at + WINDOW]) for at in range(0, len(series) - WINDOW + 1, WINDOW)
    )  # fmt: skip
    rose = best - early
    if rose <= 0.1 * max(1e-9, abs(best)) or rose < 0.05:
        return None
    return _lasts(rows, "reward", lambda value, before: value < early - 0.1 * rose)


def _divergence(rows: Rows) -> Evidence | None:
    """Above 2: Axolotl's GRPO guide. One spike of 43 was seen in a healthy run, so the whole window counts."""
    return _lasts(rows, "kl", lambda value, before: value > 2.0 and value > 2 * median(before))


def _chosen(rows: Rows) -> Evidence | None:
    """† The chosen answers of a preference run at less than half of their log-probability at the start, so that they
    become unlikely while they are preferred. A chosen *reward* below 0 alone is normal (trl issue 1236)."""
    return _lasts(rows, "logps/chosen", lambda value, before: value < 2 * min(median(before[:3]), -1.0) - 1)


def _shadow(rows: Rows) -> Evidence | None:
    """† What is really wanted (exact_match, logged beside the rewards) at half of where it began, while the reward that
    is trained on stands above its own beginning."""
    wanted, reward = _series(rows, "rewards/exact_match/mean"), _series(rows, "reward")
    if len(wanted) < 3 * WINDOW or len(reward) < 3 * WINDOW:
        return None
    first, last = (median(value for _, value in part) for part in (wanted[:WINDOW], wanted[-2 * WINDOW :]))
    paid_first, paid_last = (median(value for _, value in part) for part in (reward[:WINDOW], reward[-2 * WINDOW :]))
    if first < 0.04 or last > 0.5 * first or paid_last <= paid_first:
        return None
    return Evidence("rewards/exact_match/mean", wanted[-1][0], last)


def _behaviour(rows: Rows) -> Evidence | None:
    """† Greedy answers that ended by themselves and do no more: at half on two probes in a row, or hardly any."""
    series = _series(rows, "probe/termination_rate")
    for last, least in ((2, 0.5), (1, 0.25)):
        best = max((value for _, value in series[:-last]), default=0.0)
        if len(series) > last and best >= 0.5 and all(value < least * best for _, value in series[-last:]):
            return Evidence("probe/termination_rate", series[-1][0], series[-1][1])
    return None


_SIGNALS: tuple[Callable[[Rows], Evidence | None], ...] = (
    _loss, _gradient, _accuracy, _spread, _evaluation, _reward, _divergence, _chosen, _shadow, _behaviour,
)  # fmt: skip


def _past_grace(recipe_text: str, rows: Rows, setup: Mapping[str, Any]) -> bool:
    """Whether the warm-up and the first steps are over."""
    total = _number(setup.get("max_steps")) or 0.0
    step = float(rows[-1].get("step", 0)) if rows else 0.0
    warm_up = _number(setup.get("warm_up_steps"))
    if warm_up is None:
        rates = [(at, value) for at, value in _series(rows, "learning_rate") if math.isfinite(value)]
        warm_up = float(max(rates, key=lambda pair: pair[1])[0]) if rates and rates[0][1] < rates[-1][1] else 0.0
        warm_up = min(warm_up, 0.1 * total) if total else warm_up
    return step > max(warm_up, GRACE * total, WINDOW)


def _training(rows: Rows) -> bool:
    """Whether a step has been logged."""
    return any("loss" in row or "reward" in row or "grad_norm" in row for row in rows)


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
