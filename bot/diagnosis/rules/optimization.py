"""Rules about the optimizer's work: not-a-number, divergence, and losses that stay too high."""

from __future__ import annotations

from dataclasses import dataclass

from bot.diagnosis.curves import LossShape, Series, consecutive, held_out_of, last_run, observed, shape_of, tail_value
from bot.diagnosis.held_out import spared, training_loss_at
from bot.diagnosis.observations import Observations
from bot.diagnosis.readings import shown
from bot.diagnosis.rules.finding import Answer, Basis, Rule, RuledOut, finding, seen
from bot.diagnosis.rules.pairs import noise_of
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

    @property
    def high(self) -> bool:
        if self.accuracy is not None:
            return self.accuracy < (LOW_TOKEN_ACCURACY if self.answerable else LOW_TOKEN_ACCURACY_OF_PROSE)
        return self.loss > (HIGH_LOSS if self.answerable else HIGH_LOSS_OF_PROSE)

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
    return Level(
        loss=shape.final,
        accuracy=tail_value(observations.steps, "mean_token_accuracy"),
        entropy=tail_value(observations.steps, "entropy"),
        answerable=observations.rate.tiny or observations.poor,
    )


def not_finite(observations: Observations) -> Answer:
    loss, norm = observed(observations, "loss"), observed(observations, "grad_norm")
    held_out = held_out_of(observations, "eval_loss")
    logged = [int(record["step"]) for record in observations.steps]
    bad = sorted({*loss.bad_steps, *norm.bad_steps})
    if not bad and not held_out.bad_steps:
        top = max(norm.values, default=None)
        return (
            RuledOut(Symptom.NAN_INF, f"every loss and grad_norm is finite (largest grad_norm {shown(top)})")
            if logged
            else None
        )
    # While the run goes on, one or two at the end may be just such a skip.
    at_the_end = bool(bad) and bad[-1] == logged[-1] and not observations.running
    # fp16's loss scaler skips a first step or two with an infinite grad_norm on purpose; that heals by itself. A finite
    # norm at the end with several bad ones in a row before it has not: weights that saw a NaN keep it.
    lasting = at_the_end or bool(held_out.bad_steps) or consecutive(bad, logged) >= 3 or len(loss.bad_steps) >= 3
    if not lasting:
        return RuledOut(
            Symptom.NAN_INF, f"{len(bad)} isolated non-finite grad_norm (last at step {bad[-1]}), then finite again"
        )
    if not bad and _training_is_well(loss, norm, held_out.bad_steps[0]):
        return _unmeasured(observations, loss, held_out)
    first_bad = (bad or list(held_out.bad_steps))[0]
    if (ran := _ran_away_before(observations, loss.between(0, first_bad - 1))) and not _half(observations):
        return RuledOut(Symptom.NAN_INF, f"it is where the divergence ended: {ran} steps above twice the first loss")
    return _not_finite_finding(observations, loss, norm, bad or list(held_out.bad_steps))


def _training_is_well(loss: Series, norm: Series, step: int) -> bool:
    """After `step` losses went on as numbers. An exact 0 may be a NaN that logging_nan_inf_filter hides."""
    after = loss.between(step + 1, max(step + 1, loss.steps[-1])) if len(loss) else loss
    return len(after) >= 3 and all(value != 0 for value in after.values) and not norm.bad_steps


def _unmeasured(observations: Observations, loss: Series, held_out: Series) -> Answer:
    """Only the evaluation is no number: the weights are well, and nothing is known about what they are worth."""
    first, bad = held_out.bad_steps[0], len(held_out.bad_steps)
    half = next((key for key in ("fp16_full_eval", "bf16_full_eval") if observations.recipe.get(key) is True), None)
    why = (
        f"{half} computes it in sixteen bits" if half else "a held-out row without a trained token is a mean of nothing"
    )
    return finding(
        observations,
        Symptom.NAN_INF,
        Basis.CURVE,
        severity=Severity.HARMFUL,
        confidence=0.8,
        evidence=[
            seen("eval_loss", first, "NaN"),
            seen("non_finite_evaluations", held_out.bad_steps[-1], bad),
            seen("loss", loss.last_step, loss.values[-1]),
        ],
        cause=f"eval_loss is not a number at {bad} of {bad + len(held_out)} evaluations (from step {first} on) while "
        f"every training loss is: {why}. What the model is worth is not measured, nor which checkpoint is the best.",
        key=half or observations.first_key("data_validation_rows", "eval_file", "dataset_name"),
        suggested=False if half else None,
        harm=0.3,
        runner_up="fp16: logits of held-out rows that overflow in half precision",
        refuted_by="one held-out row after the other, each with a finite loss",
        certain_at=first,
    )


def _ran_away_before(observations: Observations, loss: Series) -> int:
    """For how many logged steps the loss had been far above its beginning when it stopped being a number; 0 when that
    came at once, as an overflow or an empty row does."""
    if observations.reinforcement or len(loss) < 2 * HIGH_RATE_PATIENCE:
        return 0
    limit = max(WATCHDOG * loss.head(3), WATCHDOG_FLOOR)
    above = last_run(loss, lambda value: value > limit)
    return above if above >= HIGH_RATE_PATIENCE else 0


def _half(observations: Observations) -> bool:
    """The recipe asks for sixteen-bit floats of the narrow range."""
    recipe = observations.recipe
    return recipe.get("fp16") is True or any(
        str(recipe.get(key, "")).lower() in _HALF for key in ("dtype", "torch_dtype")
    )


def _not_finite_finding(observations: Observations, loss: Series, norm: Series, bad_steps: list[int]) -> Answer:
    first, bad = bad_steps[0], len(bad_steps)
    before = loss.between(0, first - 1)
    from_the_start = first <= int(observations.steps[0]["step"]) if observations.steps else True
    initial = before.head(min(3, len(before))) if len(before) else None
    rose = initial is not None and max(before.values) > 2 * max(initial, 1e-6)
    key, suggested, why = _not_finite_blame(observations, from_the_start=from_the_start, rose=rose)
    at_first = next((r for r in observations.steps if int(r["step"]) == first), {})
    hidden = at_first.get("loss") == 0.0
    evidence = [
        seen("grad_norm", first, shown(at_first["grad_norm"]))
        if "grad_norm" in at_first
        else seen("eval_loss", first, "NaN"),
        seen("loss", first, shown(at_first.get("loss")) if "loss" in at_first else "NaN"),
        seen("non_finite_steps", observations.last_step or first, bad),
    ]
    if len(before):
        evidence.append(seen("loss", before.last_step, before.values[-1]))
    return finding(
        observations,
        Symptom.NAN_INF,
        Basis.CURVE,
        severity=Severity.FATAL,
        confidence=0.97,
        evidence=evidence,
        cause=f"From step {first} on, {bad} of {len(observations.steps)} logged steps have a loss or grad_norm "
        f"that is not "
        f"finite{' (the loss of 0.0 there is logging_nan_inf_filter hiding a NaN)' if hidden else ''}: {why}.",
        key=key,
        suggested=suggested,
        runner_up=_NAN_RUNNER_UP.get(key, "learning_rate: weights that grow until they overflow"),
        refuted_by="the same first non-finite step with this value changed and the same data order",
        certain_at=bad_steps[min(2, bad - 1)],
    )


_NAN_RUNNER_UP = {
    "learning_rate": "fp16: an overflow in half precision",
    "init_from": "data: a row without a supervised token in every batch",
    "fp16": "learning_rate: too high, so that weights grow until they overflow",
    "dtype": "learning_rate: too high, so that weights grow until they overflow",
    "torch_dtype": "learning_rate: too high, so that weights grow until they overflow",
}
_HALF = {"float16", "fp16", "half", "torch.float16"}


def _not_finite_blame(observations: Observations, *, from_the_start: bool, rose: bool) -> tuple[str, object, str]:
    recipe = observations.recipe
    for key in ("dtype", "torch_dtype"):
        if str(recipe.get(key, "")).lower() in _HALF:
            return (
                key,
                "bfloat16" if recipe.get("bf16") is True else "float32",
                f"weights in {recipe[key]} overflow above 65,504",
            )
    if recipe.get("fp16") is True:
        return "fp16", False, "fp16 overflows above 65,504 where bf16 and fp32 do not"
    if from_the_start:
        return (
            "init_from",
            None,
            "not finite from the first forward pass on, before any update, so the weights to start from are damaged",
        )
    empty = (observations.counted("empty_completions") or 0) + (observations.counted("null_completions") or 0)
    if empty and not rose and observations.rate.current <= observations.rate.band.high:
        why = f"the loss had not risen before, and {empty} of the rows have an empty answer, whose mean loss is 0/0"
        return observations.first_key("data_sources", "train_file", "dataset_name"), None, why
    lower = observations.rate.lowered()
    rate = shown(observations.rate.current)
    why = (
        f"the loss had more than doubled before, under learning_rate {rate}"
        if rose
        else f"the updates under learning_rate {rate} are the only thing that changed"
    )
    return "learning_rate", lower, why


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
    above = last_run(loss, lambda value: value > WATCHDOG * shape.initial and value > WATCHDOG_FLOOR)
    patience = HIGH_RATE_PATIENCE if observations.rate.current > observations.rate.band.high else PATIENCE
    if above < patience or loss.values[-1] < 0.5 * max(loss.values[-above:]):
        return _NO
    since = loss.steps[-above]
    return f"has been above twice its first value ({shown(shape.initial)}) since step {since}", 0.9


def _scrambled(observations: Observations, shape: LossShape, level: Level) -> tuple[str, float]:
    """Under an impossible rate: past the warm-up, and the answers are as far from right as before or further."""
    past = sum(step > observations.warm_up_steps for step in shape.series.steps)
    right = level.accuracy if level.accuracy is not None else 1.0
    lost = shape.final > 0.2 * shape.initial and shape.final > 1.0 and right < LOW_TOKEN_ACCURACY
    if not observations.rate.implausible or past < HIGH_RATE_PATIENCE or not lost:
        return _NO
    return (
        f"is {shown(shape.final)} after {past} steps at the full rate, with {shown(100 * right)} % of the tokens right"
    ), 0.75


def _rose_again(_: Observations, shape: LossShape, __: Level) -> tuple[str, float]:
    rise = shape.final - shape.best
    lasting = shape.final > BLOWN_UP * shape.best and rise > 0.3 * shape.initial and shape.final > 0.1
    if not lasting or shape.final <= 0.3 * shape.initial:
        return _NO
    return f"fell to {shown(shape.best)} at step {shape.best_step} and then rose to {shown(shape.final)}", 0.92


def _worse_on_both(observations: Observations, shape: LossShape) -> str:
    """Rows that were never seen and rows that were are both told worse than at an earlier evaluation: no overfitting,
    but steps that undo what the model could do before."""
    held_out = held_out_of(observations)
    if len(held_out) < 4 or spared(observations) is not None:
        return ""
    low = min(held_out.values)
    best_step = held_out.steps[held_out.values.index(low)]
    after, then = held_out.between(best_step + 1, held_out.last_step), training_loss_at(shape, best_step)
    lost = len(after) >= 3 and min(after.values) > LOST_HELD_OUT * low
    if then is None or not lost or shape.final < max(0.1, LOST_TRAINING * then):
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
    if not observations.rate.implausible or not unsolved or not (observations.poor or unjudged):
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
        Symptom.NAN_INF,
        not_finite,
        "non-finite norm or loss; transformers prints NaN as loss 0.0 (logging_nan_inf_filter)",
        online=True,
    ),
    Rule(
        Symptom.DIVERGENCE,
        divergence,
        "Axolotl training_stability: loss over twice the initial; † stuck at token frequencies",
        online=True,
    ),
)
