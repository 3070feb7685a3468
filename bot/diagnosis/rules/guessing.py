"""Rules about classifiers that say the same whatever they are shown."""

from __future__ import annotations

import math

from bot.diagnosis.curves import held_out_of, shape_of
from bot.diagnosis.observations import Observations
from bot.diagnosis.readings import shown
from bot.diagnosis.rules.finding import Answer, Basis, Rule, RuledOut, finding, percent, seen
from bot.diagnosis.units import in_nats, still_falls
from bot.domain.diagnosis import Severity, Symptom

# Who gives every one of k classes the same chance has a loss of ln k and is right in 1/k of the rows, so the accuracy
# is exp(-loss), whatever k is. A model that knows anything is right more often than that.
GUESSING = 1.25
"""An accuracy of at most this many times exp(-loss).†"""
BARELY_MOVED = 0.15
"""Of the training loss, as for other plateaus.†"""
FEWEST = 10
# Of the planned steps, after which a model that knows nothing will not begin to: sooner where the rate says why.†
QUARTER, HALF_WAY = 0.25, 0.5


def guessing(observations: Observations) -> Answer:
    shape = shape_of(observations)
    accuracy, loss = held_out_of(observations, "eval_accuracy"), held_out_of(observations)
    if observations.method not in ("classify", "vision") or shape is None or len(shape.series) < FEWEST:
        return None
    rate = observations.rate
    high = rate.current > rate.band.high
    enough = (QUARTER if high else HALF_WAY) * (observations.planned_steps or 0)
    if not len(accuracy) or not len(loss) or observations.last_step < enough:
        return None
    right, held_out = accuracy.values[-1], loss.values[-1]
    chance = math.exp(-held_out)
    # ln 2 is the least that equal chances can cost.
    at_chance = held_out > 0.9 * math.log(2) and max(accuracy.values) <= GUESSING * chance
    # From ln 1000 the way down is long, and accuracy follows late: what still falls has begun to learn.
    if not at_chance or shape.fall >= BARELY_MOVED or still_falls(shape) or not in_nats(observations):
        return RuledOut(
            Symptom.PLATEAU, f"{percent(right)} of the held-out rows are right at a held-out loss of {shown(held_out)}"
        )
    return finding(
        observations,
        Symptom.DIVERGENCE if high else Symptom.PLATEAU,
        Basis.CURVE,
        severity=Severity.HARMFUL,
        confidence=0.85 if high and rate.size_known else 0.6,
        evidence=[
            seen("eval_accuracy", accuracy.last_step, right),
            seen("eval_loss", loss.last_step, held_out),
            seen("loss", shape.series.last_step, shape.final),
            seen("learning_rate", None, rate.current),
        ],
        cause=f"The classifier guesses: {percent(right)} of the held-out rows are right (step {accuracy.last_step}) at "
        f"a loss of {shown(held_out)}, which is what equal chances for {round(math.exp(held_out))} classes give"
        + (f"; learning_rate {shown(rate.current)} is above what such a model bears." if high else "."),
        key="learning_rate",
        suggested=rate.lowered() if high else rate.raised() if rate.below_band else None,
        runner_up="label_noise: labels that do not belong to their rows cannot be learned at any rate",
        refuted_by="an accuracy above chance on the training rows themselves",
    )


RULES = (
    Rule(Symptom.DIVERGENCE, guessing, "accuracy and loss of equal chances; BERT's rates (arXiv 1810.04805, A.3)"),
)
