"""Rules about the optimizer's work: not-a-number, divergence, and losses that stay too high."""

from __future__ import annotations

from dataclasses import dataclass

from bot.diagnosis.curves import LossShape, Series, consecutive, loss_shape, series_of, tail_value
from bot.diagnosis.folder import Observations
from bot.diagnosis.readings import shown
from bot.diagnosis.rules.finding import Answer, Basis, Rule, RuledOut, finding, seen
from bot.diagnosis.rules.pairs import noise_of
from bot.domain.diagnosis import Evidence, Severity, Symptom

# Below these a supervised loss is that of a model which knows most tokens: instruction-tuned 1B to 70B models log 0.5
# to 2 with token accuracies of 0.6 to 0.9, and 2.5 is a perplexity of 12 on text the model is asked to imitate.†
HIGH_LOSS = 2.5
LOW_TOKEN_ACCURACY = 0.5
# Calibrated: the loss is about the entropy of the model's own predictions. A model that has not adapted yet is sure
# of the wrong thing (loss far above entropy); one that collapsed to token frequencies, or was given noise, is not.†
CALIBRATED = 1.3
UNADAPTED = 2.0
# "Loss >2x initial, three times in a row" (Axolotl docs/training_stability.qmd, loss_watchdog). Half of that above the
# best value counts too when it undoes a third of the way down.
BLOWN_UP = 1.5
JUMP = 1.3


def reinforcement(observations: Observations) -> bool:
    """GRPO's and RLOO's loss hovers around zero in healthy runs; no rule about losses applies."""
    return any("reward" in record for record in observations.steps[:5])


@dataclass(frozen=True, slots=True)
class Level:
    """How high a training loss ended, in the terms that hold for any model size."""

    loss: float
    accuracy: float | None
    entropy: float | None

    @property
    def high(self) -> bool:
        return self.accuracy < LOW_TOKEN_ACCURACY if self.accuracy is not None else self.loss > HIGH_LOSS

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
    )


def not_finite(observations: Observations) -> Answer:
    loss, norm = series_of(observations.steps, "loss"), series_of(observations.steps, "grad_norm")
    held_out = series_of(observations.evals, "eval_loss")
    logged = [int(record["step"]) for record in observations.steps]
    bad = sorted({*loss.bad_steps, *norm.bad_steps})
    if not bad and not held_out.bad_steps:
        top = max(norm.values, default=None)
        return (
            RuledOut(Symptom.NAN_INF, f"every loss and grad_norm is finite (largest grad_norm {shown(top)})")
            if logged
            else None
        )
    at_the_end = bool(bad) and bad[-1] == logged[-1]
    # fp16's loss scaler skips a first step or two with an infinite grad_norm on purpose; that heals by itself. A finite
    # norm at the end with several bad ones in a row before it has not: weights that saw a NaN keep it.
    lasting = at_the_end or bool(held_out.bad_steps) or consecutive(bad, logged) >= 3 or len(loss.bad_steps) >= 3
    if not lasting:
        return RuledOut(
            Symptom.NAN_INF, f"{len(bad)} isolated non-finite grad_norm (last at step {bad[-1]}), then finite again"
        )
    first = bad[0] if bad else held_out.bad_steps[0]
    return _not_finite_finding(observations, loss, norm, first, len(bad))


def _not_finite_finding(observations: Observations, loss: Series, norm: Series, first: int, bad: int) -> Answer:
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
        seen("non_finite_steps", observations.steps[-1]["step"].__int__() if observations.steps else first, bad),
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
        runner_up=_NAN_RUNNER_UP[key],
        refuted_by="the same first non-finite step with this value changed and the same data order",
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
    lower = observations.rate.lowered()
    rate = shown(observations.rate.current)
    why = (
        f"the loss had more than doubled before, under learning_rate {rate}"
        if rose
        else f"the updates under learning_rate {rate} are the only thing that changed"
    )
    return "learning_rate", lower, why


def divergence(observations: Observations) -> Answer:
    shape = loss_shape(observations.steps, observations.recipe)
    if shape is None or reinforcement(observations) or shape.initial <= 0:
        return None
    level = level_of(observations, shape)
    for question in (_rose_again, _jumped, _collapsed, _settled_too_early):
        how, confidence = question(observations, shape, level)
        if how:
            return _divergence_finding(observations, shape, level, how, confidence)
    return RuledOut(
        Symptom.DIVERGENCE,
        f"the highest smoothed loss ({shown(shape.peak)} at step {shape.peak_step}) is "
        f"{shown(shape.peak / shape.initial)} times the first and it ended at {shown(shape.final)}",
    )


_NO = ("", 0.0)


def _rose_again(_: Observations, shape: LossShape, __: Level) -> tuple[str, float]:
    rise = shape.final - shape.best
    lasting = shape.final > BLOWN_UP * shape.best and rise > 0.3 * shape.initial and shape.final > 0.1
    if not lasting or shape.final <= 0.3 * shape.initial:
        return _NO
    return f"fell to {shown(shape.best)} at step {shape.best_step} and then rose to {shown(shape.final)}", 0.92


def _jumped(_: Observations, shape: LossShape, level: Level) -> tuple[str, float]:
    early = shape.peak >= JUMP * shape.initial and shape.peak_step < shape.series.last_step / 2
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
    observations: Observations, shape: LossShape, level: Level, how: str, confidence: float
) -> Answer:
    recipe = observations.recipe
    rate = observations.rate
    unclipped = recipe.get("max_grad_norm", 1.0) in (0, None) or observations.setting("max_grad_norm", 1.0) > 100
    in_band = rate.current <= rate.band.high
    key, suggested = ("max_grad_norm", 1.0) if unclipped and in_band else ("learning_rate", rate.lowered())
    last = shape.series.last_step
    norm = series_of(observations.steps, "grad_norm")
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
        severity=Severity.FATAL if not observations.met else Severity.ADVICE,
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
    ),
    Rule(
        Symptom.DIVERGENCE,
        divergence,
        "Axolotl training_stability: loss over twice the initial; † stuck at token frequencies",
    ),
)
