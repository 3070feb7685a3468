"""Rules about losses and gradients that are no numbers: of the weights, or of the evaluation alone."""

from __future__ import annotations

from bot.diagnosis.curves import Series, consecutive, held_out_of, last_run, observed
from bot.diagnosis.observations import Observations
from bot.diagnosis.readings import shown
from bot.diagnosis.rules.finding import Answer, Basis, Rule, RuledOut, finding, seen
from bot.diagnosis.rules.optimization import HIGH_RATE_PATIENCE, watchdog
from bot.domain.diagnosis import Severity, Symptom


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
    again = len(held_out) > 0 and held_out.last_step > held_out.bad_steps[-1]
    why = (
        f"{half} computes it in sixteen bits" if half else "a held-out row without a trained token is a mean of nothing"
    )
    # The same rows gave a number later, so they are not what is wrong.
    why = "and it was one again later, so that pass overflowed" if again else why
    unknown = (
        "A best checkpoint is chosen among the others."
        if again
        else "What the model is worth is not measured, nor which checkpoint is the best."
    )
    return finding(
        observations,
        Symptom.NAN_INF,
        Basis.CURVE,
        severity=Severity.ADVICE if again else Severity.HARMFUL,
        confidence=0.8,
        evidence=[
            seen("eval_loss", first, "NaN"),
            seen("non_finite_evaluations", held_out.bad_steps[-1], bad),
            seen("loss", loss.last_step, loss.values[-1]),
        ],
        cause=f"eval_loss is not a number at {bad} of {bad + len(held_out)} evaluations (from step {first} on) while "
        f"every training loss is: {why}. {unknown}",
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
    limit = watchdog(observations, loss.head(3))
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


RULES = (
    Rule(
        Symptom.NAN_INF,
        not_finite,
        "non-finite norm or loss; transformers prints NaN as loss 0.0 (logging_nan_inf_filter)",
        online=True,
    ),
)
