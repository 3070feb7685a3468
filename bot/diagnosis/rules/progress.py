"""Rules about how far training came: too slow, too short, or past the point where it still helped."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from bot.diagnosis.curves import LossShape, Series, held_out_of, last_run, observed, shape_of
from bot.diagnosis.observations import Observations
from bot.diagnosis.readings import shown
from bot.diagnosis.remedies import (
    duration_key,
    longer_factor,
    scaled_duration,
)
from bot.diagnosis.rules.finding import Answer, Basis, Rule, RuledOut, finding, seen
from bot.diagnosis.rules.optimization import Level, level_of, stuck
from bot.diagnosis.rules.pairs import noise_of
from bot.diagnosis.units import chance_of, in_nats, loss_unit, still_falls
from bot.domain.diagnosis import Evidence, Severity, Symptom

# A run that lost less than this share of its first loss has barely moved; one that lost less than FLAT, not at all.†
BARELY_MOVED = 0.15
FLAT = 0.02
# Logged steps past the warm-up after which a loss that has not moved is not a matter of patience, at a rate below its
# band.†
EARLY_STEPS = 15
# At a rate that is a thirtieth of the lowest useful one or less the curve only confirms what the recipe says.†
CONFIRMING_STEPS = 8
# A schedule has let go once so many logged steps in a row had no rate left (a restart would have come by then), while
# more than this share of the run was still to come or is wasted.†
STOPPED_STEPS = 10
STOPPED = 1e-6
WASTED = 0.2
# Of the planned steps, with which a run has had its whole length.
ENDED = 0.95
# Nothing is left to learn from the training set, in nats (of a loss in another unit: shares of its beginning).
SOLVED_LOSS = 0.02
SOLVED_TOKEN_ACCURACY = 0.985


def plateau(observations: Observations) -> Answer:
    shape = shape_of(observations)
    if shape is None or len(shape.series) < 8 or observations.reinforcement or shape.initial <= 0:
        return None
    level = level_of(observations, shape)
    solved = shape.final < SOLVED_LOSS * loss_unit(observations) or (
        level.accuracy is not None and level.accuracy >= SOLVED_TOKEN_ACCURACY
    )
    if observations.running:
        stopped = None if solved else _stopped(observations, shape, level)
        return stopped or _hardly_moves(observations, shape, level)
    fall = f"the loss fell {100 * shape.fall:.0f} %, from {shown(shape.initial)} to {shown(shape.final)}"
    if observations.met or (solved and not observations.missed):
        return RuledOut(Symptom.PLATEAU, fall + (" and the target was met" if observations.met else ""))
    # Any of them may say no; the order is from the more to the less certain. Where the rows are learned only the first
    # can be why the target was missed.
    for question in (_stopped,) if solved else (_stopped, _too_slow, _too_short, _at_a_low_rate, _too_high):
        answer = question(observations, shape, level)
        if answer is not None:
            return answer
    return RuledOut(Symptom.PLATEAU, fall)


def let_go_at(observations: Observations) -> int | None:
    """The last step that had a learning rate worth the name, where the schedule has long been at zero since."""
    rate = observed(observations, "learning_rate")
    if not len(rate) or max(rate.values) <= 0:
        return None
    none = last_run(rate, lambda value: value <= STOPPED * max(rate.values))
    return rate.steps[-none - 1] if STOPPED_STEPS <= none < len(rate) else None


def _stopped(observations: Observations, shape: LossShape, level: Level) -> Answer:
    """The schedule reached zero long before the run's end, with something left to learn."""
    at, last = let_go_at(observations), observations.last_step
    total = max(last, observations.planned_steps or last)
    if at is None or total - at <= WASTED * total:
        return None
    # That the steps were wasted is a fact, not a reading of the score: any gap to the target is reason to use them.
    if not (observations.running or observations.unimproved or observations.poor or observations.missed):
        return None
    known = [k for k in ("lr_scheduler_kwargs", "lr_scheduler_type") if k in observations.recipe]
    return finding(
        observations,
        Symptom.PLATEAU,
        Basis.CURVE,
        severity=Severity.HARMFUL,
        confidence=0.9,
        evidence=[seen("learning_rate", last, 0.0), *loss_evidence(observations, shape, level)],
        cause=f"The schedule had let the learning rate go at step {at} of {total}, and every step since changed "
        f"nothing: the loss is {shown(shape.final)}{missed_words(observations)}.",
        key=known[-1] if known else "lr_scheduler_type",
        suggested="cosine",
        runner_up="learning_rate: a higher rate learns more in the steps that it is given",
        refuted_by="a weight that differs between two checkpoints after that step",
        certain_at=at + STOPPED_STEPS,
    )


def _hardly_moves(observations: Observations, shape: LossShape, level: Level) -> Answer:
    """Said early only where the rate explains it: some steps past the warm-up, and the loss is still where it began."""
    past = sum(step > observations.warm_up_steps for step in shape.series.steps)
    rate, fall = observations.rate, 1 - shape.series.tail(5) / shape.initial
    low = rate.current < rate.band.low / 2
    known = rate.size_known or rate.current < 1e-5
    adapted = level.entropy is not None and not level.unadapted and not rate.far_below
    patience = CONFIRMING_STEPS if rate.size_known and rate.far_below else EARLY_STEPS
    if past < patience or not low or not known or fall > BARELY_MOVED or adapted or _healthy_start(shape):
        return None
    if not in_nats(observations) or _under_way(observations, shape):
        return None
    return _slow_finding(observations, shape, level, Severity.HARMFUL, 0.7)


def _too_slow(observations: Observations, shape: LossShape, level: Level) -> Answer:
    """The loss is where it started, or still on the straight part of its way down."""
    straight = level.high and level.entropy is None and shape.second_half_share >= 0.35 and len(shape.series) >= 50
    rate = observations.rate
    plausible_floor = rate.band.low if rate.size_known else 1e-5
    severity = Severity.HARMFUL
    still = shape.fall < FLAT and len(shape.series) >= 20 and shape.final > 0.1 * loss_unit(observations)
    if _under_way(observations, shape):
        return None
    if (level.unadapted or straight) and shape.fall < 0.9:
        confidence = 0.9
    elif shape.fall < BARELY_MOVED and level.high and not _healthy_start(shape):
        confidence = 0.85
    elif shape.fall < BARELY_MOVED and observations.unimproved:
        usual = rate.size_known and rate.current >= rate.band.low
        confidence = 0.5 if usual else 0.8
        # A usual rate, a little progress and no target to miss: a hard task looks just like this.
        severity = Severity.ADVICE if usual and observations.target is None else Severity.HARMFUL
    elif still and observations.shortfall is None:
        # The bands are those of cross-entropies; a flow that is matched, say, hardly moves its loss at any rate.
        low = rate.current < plausible_floor and in_nats(observations)
        severity, confidence = (Severity.HARMFUL, 0.75) if low else (Severity.ADVICE, 0.4)
    else:
        return None
    return _slow_finding(observations, shape, level, severity, confidence)


def _under_way(observations: Observations, shape: LossShape) -> bool:
    """A classifier of many classes begins at the logarithm of their number, and small steps down from there are not
    little: one nat is a seventh of it for a thousand classes."""
    return chance_of(observations) is not None and still_falls(shape)


def _healthy_start(shape: LossShape) -> bool:
    """Continued training starts where an earlier one ended; little is left to fall and that is no fault."""
    return shape.initial < 1.0


def _slow_finding(
    observations: Observations, shape: LossShape, level: Level, severity: Severity, confidence: float
) -> Answer:
    rate = observations.rate
    # Where nothing was learned at the upper end of the band or above it, the step is too large, not too small.
    high = rate.size_known and rate.current >= rate.band.high and shape.fall < BARELY_MOVED
    key, suggested, why = _schedule_fault(observations, shape) or (
        "learning_rate",
        rate.lowered(5) if high else rate.raised(10 if shape.fall < 0.5 else 5),
        f"learning_rate {shown(rate.current)} is too {'high' if high else 'low'} for the {len(shape.series)} steps "
        "logged",
    )
    last = shape.series.last_step
    # A rate that moves nothing is a fault of its own, whatever the rows are like: the curve only confirms it.
    alone = key == "learning_rate" and rate.size_known and rate.far_below
    return finding(
        observations,
        Symptom.PLATEAU,
        Basis.DATA if alone else Basis.CURVE,
        certain_at=last,
        severity=severity,
        confidence=confidence,
        evidence=loss_evidence(observations, shape, level),
        cause=f"The loss moved only from {shown(shape.initial)} (step {shape.series.first_step}) to "
        f"{shown(shape.final)} "
        f"(step {last}){missed_words(observations)}: {why}.",
        key=key,
        suggested=suggested,
        runner_up="label_noise: answers that do not belong to their prompts also keep the loss up",
        refuted_by=f"a short run at {'a tenth of' if high else 'ten times'} the rate whose loss does not fall faster",
    )


def _schedule_fault(observations: Observations, shape: LossShape) -> tuple[str, Any, str] | None:
    """The rate was fine but not there: warm-up that never ended, or a decay that ended long before the run."""
    rate = observed(observations, "learning_rate")
    if len(rate) < 20 or max(rate.values) <= 0:
        return None
    peak_step = rate.steps[rate.values.index(max(rate.values))]
    first, last = rate.first_step, rate.last_step
    length = max(1, last - first)
    if (
        (peak_step - first) / length > 0.9
        and rate.values[0] < 0.2 * max(rate.values)
        and rate.values[len(rate) // 2] < 0.7 * max(rate.values)
    ):
        key = observations.first_key("warmup_steps", "warmup_ratio")
        suggested: Any = 0.05 if key == "warmup_ratio" else max(1, round(0.05 * length))
        return key, suggested, f"the rate was still warming up at step {peak_step} of {last}"
    if (shape.alive_until - first) / length < 0.4:
        words = f"the schedule had let the rate go at step {shape.alive_until} of {last}"
        return "lr_scheduler_type", "cosine", words
    return None


def _too_short(observations: Observations, shape: LossShape, level: Level) -> Answer:
    """The loss was still falling well while the schedule was alive."""
    late, planned = shape.late, observations.planned_steps
    if late is None or late.relative_change >= 0:
        return None
    if planned and observations.last_step < ENDED * planned:
        return None  # it was stopped or goes on, so its length is not what kept it short
    held_out = held_out_of(observations, "eval_loss")
    confirmed = _still_falling(held_out)
    unit = loss_unit(observations)
    steep = (late.relative_change <= -0.1 and (late.z <= -2 or confirmed)) or (
        late.relative_change <= -0.05 and confirmed
    )
    steady = late.relative_change <= -0.03 and late.z <= -3
    if (observations.missed and (steep or steady)) or (observations.poor and steep and confirmed):
        severity, confidence = Severity.HARMFUL, 0.8 if steep else 0.6
    elif observations.shortfall is None and late.relative_change <= -0.2 and late.z <= -4 and shape.final > 0.3 * unit:
        if len(held_out) >= 4 and not confirmed:
            return None  # the held-out loss says that the rest was noise
        unfinished = level.accuracy is None or level.accuracy < 0.9
        severity, confidence = (Severity.HARMFUL, 0.6) if unfinished else (Severity.ADVICE, 0.4)
    else:
        return None
    steps = shape.series.last_step - shape.series.first_step + 1
    factor = longer_factor(final=shape.final / unit, per_step=late.per_step, steps=steps)
    key = duration_key(observations.recipe)
    suggested: float | int | None = scaled_duration(observations.recipe, factor)
    runner_up = "learning_rate: a higher rate would get there in the same number of steps"
    refuted_by = f"a run {shown(factor)} times as long that ends at the same loss"
    if _raise_first(observations):
        rate = observations.rate
        suggested = rate.raised(10 if 10 * rate.current <= rate.band.high else 3)
        runner_up, key = f"{key}: more steps at this rate would get there, at their price", "learning_rate"
        refuted_by = "a run at the higher rate that ends at the same loss"
    evidence = loss_evidence(observations, shape, level)
    evidence.insert(1, seen("loss", late.first_step, late.first))
    return finding(
        observations,
        Symptom.PLATEAU,
        Basis.CURVE,
        severity=severity,
        confidence=confidence,
        evidence=evidence,
        cause=f"The loss was still falling when training ended: {-100 * late.relative_change:.0f} % between steps "
        f"{late.first_step} and {late.last_step}, to {shown(shape.final)}{missed_words(observations)}.",
        key=key,
        suggested=suggested,
        # Where hardly a token is right yet, nothing else that the answers show is a cause of its own.
        harm=1.0 if level.high or observations.rate.below_band else 0.6,
        runner_up=runner_up,
        refuted_by=refuted_by,
    )


def _raise_first(observations: Observations) -> bool:
    """A rate at the low end of its band (or below) and less than half of the way: a higher rate costs no more steps."""
    rate, evaluation = observations.rate, observations.evaluation
    low = rate.size_known and rate.current <= rate.band.low
    target = observations.target or 1.0
    if evaluation is None:
        far = False
    elif observations.lower_is_better:
        far = evaluation.value > 2 * target
    else:
        far = evaluation.value < 0.5 * target
    return (observations.rate.below_band or (low and far)) and rate.raised(3) is not None


def _at_a_low_rate(observations: Observations, shape: LossShape, level: Level) -> Answer:
    """Whatever the curve looks like: a rate below what usually trains such a model, and a target that is far away."""
    rate = observations.rate
    if not rate.below_band or not observations.missed_by_far or rate.raised() is None:
        return None
    return finding(
        observations,
        Symptom.PLATEAU,
        Basis.CURVE,
        severity=Severity.HARMFUL,
        confidence=0.6,
        evidence=loss_evidence(observations, shape, level),
        cause=f"learning_rate {shown(rate.current)} is below what usually trains such a model "
        f"({shown(rate.band.low)} to {shown(rate.band.high)}), and the loss came down to {shown(shape.final)} only"
        f"{missed_words(observations)}.",
        key="learning_rate",
        suggested=rate.raised(),
        harm=0.9,
        runner_up="max_steps: more steps at this rate, at their price",
        refuted_by="a run at ten times the rate that ends at the same score",
    )


def _still_falling(held_out: Series) -> bool:
    """The held-out loss fell by 15 % over its last half, at every evaluation; at least four of them.†"""
    later = held_out.values[-1 - len(held_out) // 2 :]
    return len(held_out) >= 4 and later[-1] < 0.85 * later[0] and all(b < a for a, b in pairwise(later))


def _too_high(observations: Observations, shape: LossShape, level: Level) -> Answer:
    """Stuck at a high level with no jump that would name divergence, and pairs that are right: the rate, then."""
    noise = noise_of(observations)
    rate = observations.rate
    lower = rate.current >= rate.band.high
    clean = noise is not None and noise.share < 0.2
    if not stuck(shape, level) or not (clean or (noise is None and not rate.band.low <= rate.current < rate.band.high)):
        return None
    return finding(
        observations,
        Symptom.PLATEAU,
        Basis.CURVE,
        severity=Severity.HARMFUL,
        confidence=0.45,
        evidence=loss_evidence(observations, shape, level),
        cause=f"The loss has been flat at {shown(shape.final)} up to step {shape.series.last_step}"
        f"{missed_words(observations)}: learning_rate {shown(rate.current)} may be too {'high' if lower else 'low'}.",
        key="learning_rate",
        suggested=rate.lowered(3) if lower else rate.raised(3),
        runner_up="label_noise: answers that do not belong to their prompts leave such a floor",
        refuted_by="the same floor at a third and at three times the rate",
    )


def loss_evidence(observations: Observations, shape: LossShape, level: Level) -> list[Evidence]:
    last = shape.series.last_step
    evidence = [
        seen("loss", shape.series.first_step, shape.initial),
        seen("loss", last, shape.final),
        *level.evidence(last),
        seen("learning_rate", None, observations.rate.current),
    ]
    if observations.evaluation is not None:
        evidence.append(seen("value", None, observations.evaluation.value))
    return evidence


def missed_words(observations: Observations) -> str:
    if observations.evaluation is None or not observations.missed:
        return ""
    return f", and the score is {shown(observations.evaluation.value)} where {shown(observations.target)} is the target"


RULES = (
    Rule(
        Symptom.PLATEAU,
        plateau,
        "SageMaker Debugger LossNotDecreasing; Axolotl: low rate; † unadapted, straight, still falling",
        online=True,
    ),
)
