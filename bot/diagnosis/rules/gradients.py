"""Rules about gradients: single steps that throw the model back, and norms that stay far too large."""

from __future__ import annotations

from statistics import median

from bot.diagnosis.curves import Series, held_out_of, longest_run, observed, shape_of
from bot.diagnosis.observations import Observations
from bot.diagnosis.readings import shown
from bot.diagnosis.rules.finding import Answer, Basis, Rule, RuledOut, finding, seen
from bot.diagnosis.units import in_nats, loss_unit, times
from bot.domain.diagnosis import Severity, Symptom

# ZClip (arXiv 2504.02507): moving average with alpha .97, z above 2.5. PaLM's spikes raised the loss 2 to 10 times.
# The z-score alone fires on ordinary batches, so the loss must follow.
SPIKE = 2.0
SPIKE_NATS = 0.3
NORM_JUMP = 2.5
NEIGHBOURS = 8
# Axolotl's training_stability guide: norms above 100 in SFT and DPO; above 10, again and again, in GRPO.
EXPLODED = 100.0
EXPLODED_REINFORCEMENT = 10.0
# Of another loss than a cross-entropy the norms are large or small by nature: those above ten times the run's first.†
EXPLODED_ELSEWHERE = 10.0
PERSISTENT = 8
"""Logged steps in a row.†"""
AGAIN = 5
# A training loss that lost a fifth of its beginning, and ends within this factor of its lowest.†
LEARNED, AT_ITS_BEST = 0.2, 1.25


def loss_spike(observations: Observations) -> Answer:
    """The gradient jumps, and the loss with it, for a few steps."""
    loss, norm = observed(observations, "loss"), observed(observations, "grad_norm")
    shape = shape_of(observations)
    if shape is None or len(loss) < 3 * NEIGHBOURS or observations.reinforcement or observations.preference:
        return None
    unit, jump = loss_unit(observations), times(observations, SPIKE)
    spikes = _spikes(loss, norm, observations.warm_up_steps, jump=jump, unit=unit)
    if not spikes:
        return RuledOut(Symptom.LOSS_SPIKE, f"no logged loss is {shown(jump)} times that of its neighbours")
    step, before, peak = max(spikes, key=lambda spike: spike[2] / max(spike[1], 0.05 * unit))
    unclipped = observations.recipe.get("max_grad_norm", 1.0) in (0, None) or (
        observations.setting("max_grad_norm", 1.0) > 10
    )
    hurt = _lost_ground(loss, spikes, unit)
    # A spike that the run recovered from is worth a line, not a remedy: healthy runs have them.
    harmful = (unclipped and (hurt or observations.poor)) or (hurt and observations.poor)
    at = observed(observations, "grad_norm").between(step - 2, step + 2)
    return finding(
        observations,
        Symptom.LOSS_SPIKE,
        Basis.CURVE,
        severity=Severity.HARMFUL if harmful else Severity.ADVICE,
        confidence=0.8 if unclipped else 0.6,
        evidence=[
            seen("loss", step, peak),
            seen("loss", step - 1, before),
            seen("grad_norm", step, max(at.values, default=None)),
            seen("spikes", None, len(spikes)),
        ],
        cause=f"At step {step} the loss jumped from {shown(before)} to {shown(peak)}"
        + (f" (one of {len(spikes)} such steps)" if len(spikes) > 1 else "")
        + (", and gradients are not clipped." if unclipped else "; clipping was on, so look at that batch's rows."),
        key="max_grad_norm" if unclipped else observations.first_key("data_sources", "train_file", "dataset_name"),
        suggested=1.0 if unclipped else None,
        harm=0.5,
        runner_up="learning_rate: at a high rate ordinary batches throw the model back, too",
        refuted_by="the same spike at the same step with that batch's rows left out",
        certain_at=step,
    )


def _spikes(loss: Series, norm: Series, warm_up: int, *, jump: float, unit: float) -> list[tuple[int, float, float]]:
    """(step, level before, value) of every loss that stands out from those before it, with its gradient."""
    norms = dict(zip(norm.steps, norm.values, strict=True))
    found = []
    for i in range(NEIGHBOURS, len(loss)):
        before = median(loss.values[i - NEIGHBOURS : i])
        value, step = loss.values[i], loss.steps[i]
        jumps = value > jump * before and value > before + SPIKE_NATS * unit and value > 0.5 * unit
        if not jumps or step <= warm_up:
            continue
        earlier = [norms[s] for s in loss.steps[i - NEIGHBOURS : i] if s in norms]
        near = [norms[s] for s in loss.steps[max(0, i - 1) : i + 2] if s in norms]
        if not earlier or not near or max(near) > NORM_JUMP * median(earlier):
            found.append((step, before, value))
    return found


def _lost_ground(loss: Series, spikes: list[tuple[int, float, float]], unit: float) -> bool:
    """Ten logged steps after the first spike the loss is still well above where it was."""
    first, before, _ = spikes[0]
    after = [v for s, v in zip(loss.steps, loss.values, strict=True) if s > first]
    return len(after) >= 10 and median(after[5:15]) > 1.3 * before + 0.05 * unit


def grad_explosion(observations: Observations) -> Answer:
    norm = observed(observations, "grad_norm")
    if len(norm) < PERSISTENT:
        return None
    reinforcement = observations.reinforcement
    limit = _limit(observations, norm)
    length, start = longest_run(norm, lambda value: value > limit)
    above = sum(value > limit for value in norm.values)
    lasting = length >= PERSISTENT or (reinforcement and above >= max(AGAIN, 0.2 * len(norm)))
    top = max(norm.values)
    if not lasting:
        return RuledOut(
            Symptom.GRAD_EXPLOSION, f"{above} of {len(norm)} norms are above {shown(limit)} (largest {shown(top)})"
        )
    if reinforcement and not _reward_suffers(observations):
        return None  # a reward that goes on rising is the better judge
    # While a loss falls well, large norms are those of a model that learns a new form (tiny models start at 20).
    shape = shape_of(observations)
    learns = shape is not None and not reinforcement and shape.final < 0.5 * shape.initial
    if not reinforcement and not in_nats(observations) and shape is not None and shape.final <= shape.initial:
        words = f"{above} of {len(norm)} norms are above {shown(limit)}, and the loss does not rise"
        return RuledOut(Symptom.GRAD_EXPLOSION, words)
    # Norms that were as large before anything was learned tell the scale of the loss: a sum, or one scaled for fp16.
    falls = (learns and (norm.tail(3) < limit or norm.tail(5) <= norm.head(5))) or _still_learns(observations)
    clipped = observations.setting("max_grad_norm", 1.0)
    unclipped = observations.recipe.get("max_grad_norm", 1.0) in (0, None) or clipped > limit
    rate = observations.rate
    key, suggested = ("max_grad_norm", 1.0) if unclipped else ("learning_rate", rate.lowered(3))
    step = norm.steps[norm.values.index(top)]
    return finding(
        observations,
        Symptom.GRAD_EXPLOSION,
        Basis.CURVE,
        severity=Severity.ADVICE if falls else Severity.HARMFUL,
        confidence=0.85 if length >= PERSISTENT else 0.65,
        evidence=[
            seen("grad_norm", norm.steps[start] if length else step, norm.values[start] if length else top),
            seen("grad_norm", step, top),
            seen("steps_above", norm.last_step, above),
        ],
        cause=f"grad_norm is above {shown(limit)} at {above} of {len(norm)} logged steps (largest {shown(top)} at step "
        f"{step})"
        + (", and gradients are not clipped." if unclipped else f" under learning_rate {shown(rate.current)}."),
        key=key,
        suggested=suggested,
        harm=0.7,
        runner_up="loss_spike: a few damaged rows, again and again",
        refuted_by="norms below the limit with the same data at a third of the rate",
        certain_at=norm.steps[min(len(norm) - 1, start + PERSISTENT - 1)] if length >= PERSISTENT else None,
    )


def _limit(observations: Observations, norm: Series) -> float:
    """The norm above which a step is no longer usual for such a run."""
    if observations.reinforcement:
        return EXPLODED_REINFORCEMENT
    return EXPLODED if in_nats(observations) else EXPLODED_ELSEWHERE * norm.head(PERSISTENT)


def _still_learns(observations: Observations) -> bool:
    """Training and held-out loss both end at their best: whatever the norms are, the steps lead down."""
    shape, held_out = shape_of(observations), held_out_of(observations)
    if shape is None or observations.reinforcement or len(held_out) < 2:
        return False
    trained = shape.fall >= LEARNED and shape.final <= AT_ITS_BEST * shape.best
    return trained and held_out.values[-1] == min(held_out.values) < (1 - LEARNED / 2) * held_out.values[0]


def _reward_suffers(observations: Observations) -> bool:
    reward = observed(observations, "reward")
    return len(reward) < 10 or reward.tail(5) <= 0.9 * max(reward.values)


RULES = (
    Rule(Symptom.LOSS_SPIKE, loss_spike, "ZClip's z of 2.5; PaLM: losses 2 to 10 times; Axolotl", online=True),
    Rule(
        Symptom.GRAD_EXPLOSION,
        grad_explosion,
        "Axolotl: norms of 100, 10 in GRPO; 8 in a row †",
        online=True,
    ),
)
