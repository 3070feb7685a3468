"""Rules that see a fault of the data in the curves alone: training and held-out rows that are not of one kind."""

from __future__ import annotations

import math

from bot.diagnosis.curves import held_out_of, shape_of
from bot.diagnosis.observations import Observations
from bot.diagnosis.outcomes import answers_of
from bot.diagnosis.readings import finite, shown
from bot.diagnosis.rules.finding import Answer, Basis, Rule, RuledOut, finding, percent, seen
from bot.diagnosis.rules.memorising import NEVER_FELL
from bot.diagnosis.rules.optimization import JUMP, level_of, stuck
from bot.diagnosis.rules.pairs import noise_of
from bot.diagnosis.units import in_nats
from bot.domain.diagnosis import Severity, Symptom

# A held-out loss this far below the training loss: the held-out rows follow the rule, part of the training rows do not.
# Dropout and a growing model lower it by a tenth or two at most.†
LEARNED = 0.95
"""A held-out loss below this share of its first has been learned.†"""
EASIER = 0.6
# A training loss above this share of the labels' own entropy has learned nothing of the inputs.†
AT_CHANCE = 0.95


def other_kind_of_rows(observations: Observations) -> Answer:
    """Training rows are solved while the held-out loss never fell: what was trained is not what is asked."""
    shape = shape_of(observations)
    held_out = held_out_of(observations, "eval_loss")
    if shape is None or len(held_out) < 2 or not observations.imitation or shape.final > 0.1 * shape.initial:
        return None
    if not in_nats(observations):
        return None  # nothing says that these are rows of text
    lowest = min(held_out.values)
    if lowest <= NEVER_FELL * shape.initial or lowest < 1:
        return None
    evaluation, right = observations.evaluation, observations.share_right
    if right is not None and evaluation is not None and max(right, evaluation.lenient or 0.0) > 0.2:
        return None  # what is asked was learned after all, in one form or another
    if evaluation is not None and right is None and not observations.unimproved:
        return None
    answers = answers_of(observations.evaluation) if observations.evaluation is not None else None
    echo, empty = (answers.echo or 0.0, answers.empty or 0.0) if answers is not None else (0.0, 0.0)
    says = f" and {percent(echo)} of the answers repeat their prompt" if echo > 0.5 else ""
    says = f" and {percent(empty)} of the answers are empty" if empty > 0.5 else says
    key = "data_completion_column" if says else observations.first_key("data_completion_column", "data_prompt_column")
    setting = observations.recipe.get(key)
    return finding(
        observations,
        Symptom.WRONG_COLUMNS,
        Basis.CURVE,
        severity=Severity.HARMFUL,
        confidence=0.85 if says else 0.6,
        evidence=[
            seen("loss", shape.series.first_step, shape.initial),
            seen("loss", shape.series.last_step, shape.final),
            seen("eval_loss", held_out.steps[held_out.values.index(lowest)], lowest),
        ],
        cause=f"The training loss fell from {shown(shape.initial)} to {shown(shape.final)} while the held-out "
        f"loss never got "
        f"below {shown(lowest)}{says}: the training rows are not of the kind that is asked for.",
        key=key,
        suggested="auto" if setting not in (None, "auto") else None,
        runner_up="overfit: rows that were learned by heart (but the held-out loss would have fallen first)",
        refuted_by="training and held-out rows that look alike, side by side",
    )


def noise_in_curves(observations: Observations) -> Answer:
    """Answers that do not follow from their prompts leave a floor in the training loss. The pairs themselves, where
    they were readable, have the last word (`bot.diagnosis.rules.rows.label_noise`)."""
    shape = shape_of(observations)
    if shape is None or not observations.imitation or noise_of(observations) is not None or observations.met:
        return None
    if not in_nats(observations):
        return None  # nothing says that there are answers
    held_out = held_out_of(observations, "eval_loss")
    flat = shape.late is not None and abs(shape.late.relative_change) < 0.2
    # A held-out loss that lay as far below from its first evaluation on is counted in another way (a sum over several
    # batches, rows with weights), not easier.
    learned = len(held_out) > 0 and (len(held_out) == 1 or held_out.values[-1] < LEARNED * held_out.values[0])
    easier = learned and shape.final > 0.5 and held_out.values[-1] < EASIER * shape.final and flat
    rate = observations.rate
    level = level_of(observations, shape)
    usual_rate = rate.band.low <= rate.current < rate.band.high
    floor = stuck(shape, level) and usual_rate and shape.peak < JUMP * shape.initial and level.entropy is not None
    if not easier and not floor:
        return None
    evidence = [seen("loss", shape.series.last_step, shape.final), *level.evidence(shape.series.last_step)]
    if len(held_out):
        evidence.insert(1, seen("eval_loss", held_out.last_step, held_out.values[-1]))
    how = (
        f"while the held-out loss, on rows that follow the rule, is {shown(held_out.values[-1])}"
        if easier
        else f"which is what the answers' token frequencies alone give (entropy {shown(level.entropy)})"
    )
    return finding(
        observations,
        Symptom.LABEL_NOISE,
        Basis.CURVE,
        severity=Severity.HARMFUL,
        confidence=0.6 if easier else 0.5,
        evidence=evidence,
        cause=f"The training loss stays at {shown(shape.final)} up to step {shape.series.last_step}, {how}: "
        f"part of the "
        "answers do not follow from their prompts.",
        key=observations.first_key("data_sources", "train_file", "dataset_name"),
        runner_up="learning_rate: too high a rate leaves the same floor",
        refuted_by="twenty training rows, read by a person, whose answers are right",
    )


def noise_in_labels(observations: Observations) -> Answer:
    """A classifier whose training loss stays at what the labels' frequencies alone give, at a usual rate."""
    shape = shape_of(observations)
    labels = observations.part("labels")
    counts = [n for value in labels.values() if value is not None and (n := finite(value)) is not None and n > 0]
    if shape is None or observations.method not in ("classify", "vision") or len(counts) < 2 or observations.met:
        return None
    total = sum(counts)
    chance = -sum(n / total * math.log(n / total) for n in counts)
    rate = observations.rate
    # In the lowest third of the band (by its logarithm) so flat a loss is as likely a matter of the rate.†
    usual = rate.band.low * (rate.band.high / rate.band.low) ** (1 / 3) <= rate.current <= rate.band.high
    flat = shape.late is not None and abs(shape.late.relative_change) < 0.1
    if not usual or not flat or shape.final < AT_CHANCE * chance or not (observations.unimproved or observations.poor):
        return RuledOut(
            Symptom.LABEL_NOISE, f"the loss ended at {shown(shape.final)}; the labels' frequencies give {shown(chance)}"
        )
    return finding(
        observations,
        Symptom.LABEL_NOISE,
        Basis.CURVE,
        severity=Severity.HARMFUL,
        confidence=0.55,
        evidence=[
            seen("loss", shape.series.first_step, shape.initial),
            seen("loss", shape.series.last_step, shape.final),
            seen("entropy(labels)", None, chance),
        ],
        cause=f"After {shape.series.last_step} steps at a usual rate ({shown(rate.current)}) the training loss is "
        f"{shown(shape.final)}, and knowing only how often each of {len(counts)} labels occurs gives {shown(chance)}: "
        "nothing in the inputs tells the labels apart.",
        key=observations.first_key("data_sources", "train_file", "dataset_name"),
        runner_up="learning_rate: too high a rate leaves a classifier at the same level",
        refuted_by="twenty training rows, read by a person, whose labels are right",
    )


RULES = (
    Rule(Symptom.WRONG_COLUMNS, other_kind_of_rows, "† held-out loss that never fell beside a solved training set"),
    Rule(
        Symptom.LABEL_NOISE, noise_in_curves, "† held-out loss far below training loss; floor at the answers' entropy"
    ),
    Rule(Symptom.LABEL_NOISE, noise_in_labels, "† training loss at the entropy of the labels, at a usual rate"),
)
