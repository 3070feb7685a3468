"""Rules about rows learned by heart: a held-out loss that turns back up, or a training set that was solved too well."""

from __future__ import annotations

from bot.diagnosis.curves import LossShape, Series, held_out_of, observed, shape_of
from bot.diagnosis.held_out import spared, training_loss_at
from bot.diagnosis.observations import Observations
from bot.diagnosis.readings import shown
from bot.diagnosis.remedies import duration_key, scaled_duration
from bot.diagnosis.rules.finding import Answer, Basis, Rule, RuledOut, finding, seen
from bot.diagnosis.rules.optimization import level_of
from bot.diagnosis.rules.progress import loss_evidence, missed_words
from bot.diagnosis.signals import SPENT_LOSS
from bot.diagnosis.units import loss_unit, times
from bot.domain.diagnosis import Severity, Symptom

# SageMaker Debugger's Overfit compares (validation - train) / train with 0.1; held-out loss rising by 5 % and by 0.03
# nats from its best is well above the noise of one fixed validation set.†
RISE_SHARE = 0.05
RISE_NATS = 0.03
MEMORISED_SHARE = 0.1
MEMORISED_EPOCHS = 4.0
# Up to four rounds are nearly as good as new rows, and after forty nothing is learned: https://arxiv.org/abs/2305.16264
MANY_EPOCHS = 16.0
# A held-out loss that never got below this share of the first training loss was not learned for a single step.†
NEVER_FELL = 0.9
# Training went on down since the best evaluation where its loss is below this share of what it was then. Where it is
# not, the held-out loss rose for another reason.†
STILL_FELL = 0.95


def overfit(observations: Observations) -> Answer:
    held_out = held_out_of(observations, "eval_loss")
    shape = shape_of(observations)
    if shape is None or observations.reinforcement:
        return None
    if len(held_out) < 2:
        return None if observations.running else _learned_by_heart(observations, shape)
    best = min(range(len(held_out)), key=held_out.values.__getitem__)
    low, last, unit = held_out.values[best], held_out.values[-1], loss_unit(observations)
    epochs = observed(observations, "epoch")
    epochs_run = epochs.values[-1] if len(epochs) else 0.0
    rise = last - low
    # The last three evaluations above the best ("eval up three times"): one bad evaluation is noise.
    lasting = all(v > low + 0.25 * rise for v in held_out.values[-3:]) and len(held_out) - 1 - best >= min(
        3, len(held_out) - 1
    )
    then = training_loss_at(shape, held_out.steps[best])
    further = then is None or shape.final < STILL_FELL * then
    rising = (
        rise >= max(RISE_NATS * unit, (times(observations, 1 + RISE_SHARE) - 1) * low)
        and lasting
        and shape.final < 0.9 * low
        and further
    )
    if min(held_out.values) > NEVER_FELL * shape.initial:
        return None  # held-out rows of another kind, which is a matter of the data
    # Where the target was missed by far a smaller gap is enough to be the reason.
    gap = last >= (0.05 if observations.missed_by_far else 0.2) * unit and shape.final <= MEMORISED_SHARE * last
    memorised = gap and epochs_run >= MEMORISED_EPOCHS and not observations.running
    # Of a run that goes on more is asked, unless its rows have nothing more to teach it.
    spent = epochs_run >= MEMORISED_EPOCHS and shape.series.tail(10) <= SPENT_LOSS * unit
    if observations.running and not spent and (len(held_out) < 5 or rise < 2 * RISE_SHARE * low):
        rising = False
    # A gap that costs the task nothing is none.
    if not rising and (not memorised or spared(observations) is not None):
        return RuledOut(
            Symptom.OVERFIT,
            f"the held-out loss ended at {shown(last)} (step {held_out.last_step}), {shown(rise)} above its "
            f"best, with a training loss of {shown(shape.final)}",
        )
    return _overfit_finding(observations, shape, held_out, epochs_run, rising=rising)


def _learned_by_heart(observations: Observations, shape: LossShape) -> Answer:
    """Nothing was held out, so only the plain case shows: rows solved after many rounds, and a score that is not."""
    epochs = observed(observations, "epoch")
    rounds = epochs.values[-1] if len(epochs) else 0.0
    if (
        not observations.missed_by_far
        or rounds < MEMORISED_EPOCHS
        or shape.final > min(0.1 * loss_unit(observations), 0.05 * shape.initial)
    ):
        return None
    return finding(
        observations,
        Symptom.OVERFIT,
        Basis.CURVE,
        severity=Severity.HARMFUL,
        confidence=0.5,
        evidence=loss_evidence(observations, shape, level_of(observations, shape)),
        cause=f"After {shown(rounds)} rounds over the same rows the training loss is {shown(shape.final)}"
        f"{missed_words(observations)}; nothing was held out that would show when the model began to repeat its rows.",
        key=duration_key(observations.recipe),
        suggested=scaled_duration(observations.recipe, max(0.05, min(0.9, 3 / rounds))),
        runner_up="template_mismatch: trained on prompts rendered in another way than they are asked",
        refuted_by="a held-out loss (data_validation_rows) that falls to the end",
    )


def _overfit_finding(
    observations: Observations, shape: LossShape, held_out: Series, epochs_run: float, *, rising: bool
) -> Answer:
    low, last = min(held_out.values), held_out.values[-1]
    # The earliest evaluation within two per cent of the best: nothing later was worth its steps.
    enough = next(s for s, v in zip(held_out.steps, held_out.values, strict=True) if v <= low + 0.02 * abs(low))
    share = enough / shape.series.last_step if shape.series.last_step else 1.0
    share_right = observations.share_right
    fair = observations.unimproved if share_right is None else share_right < 0.8
    unjudged = observations.shortfall is None and (observations.evaluation is None or fair)
    score = spared(observations)
    bad = score is None and unjudged and (last - low >= 0.1 * low or not rising)
    harmful = observations.missed_by_far or bad
    duration = scaled_duration(observations.recipe, min(0.9, max(0.02, share)))
    # Rows that the recipe itself leaves out are what is missing, where those that it takes came round so often.
    few = epochs_run >= MANY_EPOCHS and observations.recipe.get("data_max_rows") is not None
    key, suggested = ("data_max_rows", None) if few else (duration_key(observations.recipe), duration)
    how = (
        f"rose from {shown(low)} (step {held_out.steps[held_out.values.index(low)]}) to {shown(last)} (step "
        f"{held_out.last_step})"
        if rising
        else f"has been near {shown(last)} since step {enough}"
    )
    return finding(
        observations,
        Symptom.OVERFIT,
        Basis.CURVE,
        severity=Severity.HARMFUL if harmful else Severity.ADVICE,
        confidence=0.85 if rising and last >= 1.1 * low else 0.75,
        evidence=[
            seen("eval_loss", enough, low),
            seen("eval_loss", held_out.last_step, last),
            seen("loss", shape.series.last_step, shape.final),
            seen("epoch", shape.series.last_step, epochs_run),
        ],
        cause=f"The held-out loss {how} while the training loss went on down to {shown(shape.final)}: after "
        f"{shown(epochs_run)} epochs the model repeats its training rows"
        + (f" (though {score.key} went from {shown(score.then)} to {shown(score.last)})." if score else "."),
        key=key,
        suggested=suggested,
        runner_up="num_train_epochs: fewer rounds over the same rows"
        if few
        else "duplicates, or too few distinct rows: more data would move the turning point",
        refuted_by=f"a worse score from the checkpoint of step {enough} than from the last one",
    )


RULES = (
    Rule(
        Symptom.OVERFIT,
        overfit,
        "SageMaker Debugger Overfit; held-out loss up three times while training loss falls",
        online=True,
    ),
)
