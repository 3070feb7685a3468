"""Rules about the optimizer's work: divergence, and losses that stay too high."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bot.diagnosis.curves import (
    LossShape,
    beyond_luck,
    held_out_of,
    last_run,
    observed,
    relative_noise,
    shape_of,
    tail_value,
)
from bot.diagnosis.held_out import spared, training_loss_at
from bot.diagnosis.observations import Observations
from bot.diagnosis.readings import shown
from bot.diagnosis.rules.finding import Answer, Basis, Rule, RuledOut, finding, seen
from bot.diagnosis.rules.pairs import noise_of
from bot.diagnosis.units import chance_of, in_nats, loss_unit, still_falls, times
from bot.domain.diagnosis import Evidence, Severity, Symptom

# Below these a supervised loss is that of a model which knows most tokens: instruction-tuned 1B to 70B models log 0.5
# to 2 with token accuracies of 0.6 to 0.9, and 2.5 is a perplexity of 12 on text the model is asked to imitate.† That
# holds where answers can be known: in the tasks of tiny models, and where a score says that they are not.
HIGH_LOSS = 2.5
LOW_TOKEN_ACCURACY = 0.5
# Prose, poems, other languages and models from scratch stay above those without a fault: GPT-2 has 3.3 nats a token on
# WikiText-103 (perplexity 26 to 37 a word, Radford et al. 2019). Above these hardly more than token frequencies is
# known.†
HIGH_LOSS_OF_PROSE = 6.0
LOW_TOKEN_ACCURACY_OF_PROSE = 0.2
# Equal chances for k classes cost ln k nats, 6.9 for a thousand: a classifier's loss below this share of them is not
# high, whatever it is in nats.†
NEAR_CHANCE = 0.95
# Calibrated: the loss is about the entropy of the model's own predictions. A model that has not adapted yet is sure
# of the wrong thing (loss far above entropy); one that collapsed to token frequencies, or was given noise, is not.†
CALIBRATED = 1.3
UNADAPTED = 2.0
# "Loss >2x initial, three times in a row" (Axolotl docs/training_stability.qmd, loss_watchdog). Half of that above the
# best value counts too when it undoes a third of the way down.
BLOWN_UP = 1.5
JUMP = 1.3
WATCHDOG = 2.0
WATCHDOG_FLOOR = 0.5
# A damaged block of five batches spikes like a divergence and is gone after some ten logged steps (seen on real runs),
# so three in a row are too few to end a run for. At a rate above its band the step is the likelier cause.†
PATIENCE = 20
HIGH_RATE_PATIENCE = 8
# Held-out and training loss above what they were at the best evaluation, by these factors: more than their noise.†
LOST_HELD_OUT = 1.3
LOST_TRAINING = 1.2
# Share of the plan after which greedy answers of a run at a usual rate have begun to be right.†
QUARTER = 0.25


@dataclass(frozen=True, slots=True)
class Level:
    """How high a training loss ended, in the terms that hold for any model size."""

    loss: float
    accuracy: float | None
    entropy: float | None
    answerable: bool
    """Every token could be right: a tiny model's task, or one whose score was measured and falls short."""
    limit: float
    """The loss above which hardly anything is known; infinite where no loss says so."""

    @property
    def high(self) -> bool:
        if self.accuracy is not None:
            return self.accuracy < (LOW_TOKEN_ACCURACY if self.answerable else LOW_TOKEN_ACCURACY_OF_PROSE)
        return self.loss > self.limit

    @property
    def calibrated(self) -> bool:
        return self.entropy is None or self.loss <= CALIBRATED * self.entropy

    @property
    def unadapted(self) -> bool:
        return self.high and self.entropy is not None and self.loss >= UNADAPTED * self.entropy

    def evidence(self, step: int) -> list[Evidence]:
        extra = [seen("mean_token_accuracy", step, self.accuracy)] if self.accuracy is not None else []
        return extra + ([seen("entropy", step, self.entropy)] if self.entropy is not None else [])


def level_of(observations: Observations, shape: LossShape) -> Level:
    answerable = observations.rate.tiny or observations.poor
    return Level(
        loss=shape.final,
        accuracy=tail_value(observations.steps, "mean_token_accuracy"),
        entropy=tail_value(observations.steps, "entropy"),
        answerable=answerable,
        limit=_limit(observations, shape, HIGH_LOSS if answerable else HIGH_LOSS_OF_PROSE),
    )


def _limit(observations: Observations, shape: LossShape, nats: float) -> float:
    if not in_nats(observations):
        return math.inf
    chance = chance_of(observations)
    if chance is None:
        return nats
    return math.inf if still_falls(shape) else max(nats, NEAR_CHANCE * chance)


def divergence(observations: Observations) -> Answer:
    shape = shape_of(observations)
    if shape is None or observations.reinforcement or shape.initial <= 0:
        return None
    level = level_of(observations, shape)
    if observations.running:
        how, confidence = _runs_away(observations, shape, level)
        how, confidence = (how, confidence) if how else _nothing_right(observations, level)
        return _divergence_finding(observations, shape, level, how, confidence) if how else None
    for question in (_rose_again, _jumped, _collapsed, _settled_too_early, _runs_away):
        how, confidence = question(observations, shape, level)
        if how:
            return _divergence_finding(observations, shape, level, how, confidence)
    if how := _worse_on_both(observations, shape):
        return _divergence_finding(observations, shape, level, how, 0.7, Severity.HARMFUL)
    return RuledOut(
        Symptom.DIVERGENCE,
        f"the highest smoothed loss ({shown(shape.peak)} at step {shape.peak_step}) is "
        f"{shown(shape.peak / shape.initial)} times the first and it ended at {shown(shape.final)}",
    )


_NO = ("", 0.0)


def _runs_away(observations: Observations, shape: LossShape, level: Level) -> tuple[str, float]:
    """The loss has been above twice its first value for some time, and has not turned back."""
    loss = shape.series
    if observations.running and (learnt := _scrambled(observations, shape, level)) != _NO:
        return learnt
    limit = watchdog(observations, shape.initial)
    above = last_run(loss, lambda value: value > limit)
    patience = HIGH_RATE_PATIENCE if observations.rate.current > observations.rate.band.high else PATIENCE
    if above < patience or loss.values[-1] < 0.5 * max(loss.values[-above:]):
        return _NO
    since = loss.steps[-above]
    much = "twice" if in_nats(observations) else f"{shown(times(observations, WATCHDOG))} times"
    return f"has been above {much} its first value ({shown(shape.initial)}) since step {since}", 0.9


def watchdog(observations: Observations, initial: float) -> float:
    """The loss above which a run that began with `initial` is running away."""
    return max(times(observations, WATCHDOG) * initial, WATCHDOG_FLOOR * loss_unit(observations))


def _scrambled(observations: Observations, shape: LossShape, level: Level) -> tuple[str, float]:
    """Under an impossible rate: past the warm-up, and the answers are as far from right as before or further."""
    past = sum(step > observations.warm_up_steps for step in shape.series.steps)
    right = level.accuracy if level.accuracy is not None else 1.0
    lost = shape.final > 0.2 * shape.initial and shape.final > 1.0 and right < LOW_TOKEN_ACCURACY
    if not in_nats(observations) or not observations.rate.implausible or past < HIGH_RATE_PATIENCE or not lost:
        return _NO
    return (
        f"is {shown(shape.final)} after {past} steps at the full rate, with {shown(100 * right)} % of the tokens right"
    ), 0.75


def _rose_again(observations: Observations, shape: LossShape, _: Level) -> tuple[str, float]:
    rise = shape.final - shape.best
    far = shape.final > times(observations, BLOWN_UP) * shape.best and rise > 0.3 * shape.initial
    lasting = far and shape.final > 0.1 * loss_unit(observations)
    if not lasting or shape.final <= 0.3 * shape.initial or not _beyond_luck(shape):
        return _NO
    return f"fell to {shown(shape.best)} at step {shape.best_step} and then rose to {shown(shape.final)}", 0.92


def _beyond_luck(shape: LossShape) -> bool:
    """Losses of single small batches differ by half of themselves, and the lowest three of sixty were lucky ones."""
    distance = math.log(shape.final / max(shape.best, shape.floor))
    n = len(shape.series)
    return beyond_luck(distance, relative_noise(shape.series.values, shape.floor), window=3, last=max(3, n // 10), n=n)


def _worse_on_both(observations: Observations, shape: LossShape) -> str:
    """Rows that were never seen and rows that were are both told worse than at an earlier evaluation: no overfitting,
    but steps that undo what the model could do before."""
    held_out = held_out_of(observations)
    if len(held_out) < 4 or spared(observations) is not None:
        return ""
    low = min(held_out.values)
    best_step = held_out.steps[held_out.values.index(low)]
    after, then = held_out.between(best_step + 1, held_out.last_step), training_loss_at(shape, best_step)
    lost = len(after) >= 3 and min(after.values) > times(observations, LOST_HELD_OUT) * low
    least = 0.1 * loss_unit(observations)
    if then is None or not lost or shape.final < max(least, times(observations, LOST_TRAINING) * then):
        return ""
    return (
        f"was {shown(then)} and eval_loss {shown(low)} at step {best_step}, and both have risen since, to "
        f"{shown(shape.final)} and {shown(after.values[-1])}"
    )


def _jumped(_: Observations, shape: LossShape, level: Level) -> tuple[str, float]:
    early = (
        shape.peak >= JUMP * shape.initial and shape.series.first_step < shape.peak_step < shape.series.last_step / 2
    )
    if not early or not stuck(shape, level):
        return _NO
    return (
        f"jumped from {shown(shape.initial)} to {shown(shape.peak)} at step {shape.peak_step} and has been stuck at "
        f"{shown(shape.final)} since"
    ), 0.92


def _collapsed(observations: Observations, shape: LossShape, level: Level) -> tuple[str, float]:
    """No jump, but the same end: only the rate, or the answers, can keep a loss at token frequencies."""
    if not stuck(shape, level):
        return _NO
    noise, rate = noise_of(observations), observations.rate
    clean = noise is not None and noise.share < 0.2
    suspect = rate.implausible and (noise is None or noise.share < 0.5)
    if not suspect and not (clean and rate.current >= rate.band.high):
        return _NO
    how = f"dropped to {shown(shape.final)} and is stuck there with the predictions of token frequencies"
    return how, 0.85 if clean else 0.75


def _nothing_right(observations: Observations, level: Level) -> tuple[str, float]:
    """Under an impossible rate, a quarter of the run gone: the form of answers is learned, and not one is right."""
    exact = [r["probe/exact_match"] for r in observations.probes if "probe/exact_match" in r]
    planned = observations.planned_steps or 0
    early = not planned or observations.last_step < QUARTER * planned
    unsolved = level.accuracy is None or level.accuracy < 0.9
    if early or len(exact) < 2 or max(exact) > 0 or not unsolved or not observations.rate.implausible:
        return _NO
    return f"is {shown(level.loss)} and none of the probes' answers is right", 0.7


def _settled_too_early(observations: Observations, shape: LossShape, level: Level) -> tuple[str, float]:
    """An impossible rate that learned the form of the answers and not their content: the loss looks merely slow."""
    unsolved = shape.final > 0.3 and (level.accuracy is None or level.accuracy < 0.9)
    unjudged = observations.evaluation is None
    suspect = observations.rate.implausible and in_nats(observations)
    if not suspect or not unsolved or not (observations.poor or unjudged):
        return _NO
    noise = noise_of(observations)
    if noise is not None and noise.share >= 0.2:
        return _NO
    return f"came down to {shown(shape.final)} and no further", 0.5 if unjudged else 0.7


def stuck(shape: LossShape, level: Level) -> bool:
    """Flat at a high level although it learned something early, and no longer surprised by its own level."""
    flat = shape.late is None or abs(shape.late.relative_change) < 0.1
    return (
        level.high
        and level.calibrated
        and flat
        and shape.second_half_share < 0.25
        and shape.final > 0.2 * shape.initial
    )


def _divergence_finding(
    observations: Observations,
    shape: LossShape,
    level: Level,
    how: str,
    confidence: float,
    severity: Severity = Severity.FATAL,
) -> Answer:
    recipe = observations.recipe
    rate = observations.rate
    unclipped = recipe.get("max_grad_norm", 1.0) in (0, None) or observations.setting("max_grad_norm", 1.0) > 100
    in_band = rate.current <= rate.band.high
    key, suggested = ("max_grad_norm", 1.0) if unclipped and in_band else ("learning_rate", rate.lowered())
    last = shape.series.last_step
    norm = observed(observations, "grad_norm")
    evidence = [
        seen("loss", shape.series.first_step, shape.initial),
        seen("loss", shape.peak_step, shape.peak),
        seen("loss", last, shape.final),
        *level.evidence(last),
    ]
    if len(norm):
        evidence.append(seen("grad_norm", norm.steps[norm.values.index(max(norm.values))], max(norm.values)))
    return finding(
        observations,
        Symptom.DIVERGENCE,
        Basis.CURVE,
        severity=severity if not observations.met else Severity.ADVICE,
        confidence=confidence,
        evidence=evidence,
        cause=f"The loss {how} (step {last}): learning_rate {shown(rate.current)} is too high for this model"
        + (" without gradient clipping." if key == "max_grad_norm" else "."),
        key=key,
        suggested=suggested,
        runner_up="label_noise: answers that do not belong to their prompts leave a loss that no rate lowers"
        if stuck(shape, level)
        else "loss_spike: one damaged block of the data, which a lower rate would survive",
        refuted_by=f"the same level of loss ({shown(shape.final)}) after a run at a tenth of the rate",
    )


RULES = (
    Rule(
        Symptom.DIVERGENCE,
        divergence,
        "Axolotl training_stability: loss over twice the initial; † stuck at token frequencies",
        online=True,
    ),
)
