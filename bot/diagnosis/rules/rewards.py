"""Rules about rewards that pay for the wrong thing: upside down, for length, or for a form without the content."""

from __future__ import annotations

from statistics import fmean, pstdev

from bot.diagnosis.curves import Series, observed
from bot.diagnosis.observations import Observations
from bot.diagnosis.readings import finite, shown
from bot.diagnosis.rewarding import (
    WINDOW,
    Rewards,
    correlation,
    moves_together,
    pays_alike,
    rewards_of,
    right_reward,
    tried_rewards,
)
from bot.diagnosis.rules.finding import Answer, Basis, Rule, RuledOut, finding, seen
from bot.domain.diagnosis import Evidence, Severity, Symptom

# What counts as a rise of the trained reward, as a share of the largest that can be had.†
ROSE = 0.15
# The truth's own gain must be below this share of it for the reward to be hollow.†
HOLLOW = 0.25
# rewardspy's length detector: z above 3 against the run's own early steps.
LENGTH_Z = 3.0
LENGTH_GROWTH = 1.3
PAYS_FOR_LENGTH = 0.8
OPPOSED = -0.8
# From here on the length of answers accounts for all that they earn; a truth below the second had nothing to lose.†
FOR_LENGTH_ALONE = 0.95
LITTLE_TO_LOSE = 0.15
INVERTED_SHARE = 0.2
FEWEST = 12
STEPS = 20


def reward_inverted(observations: Observations) -> Answer:
    """The reward is higher for worse answers."""
    checked = _inverted_by_check(observations)
    if checked is not None:
        return checked
    rewards = rewards_of(observations)
    negative = [name for name, weight in rewards.weights.items() if weight < 0]
    trained, truth = rewards.reward, rewards.shadow
    if negative and len(trained) >= FEWEST and truth is None:
        truth = rewards.parts[negative[0]]
    score = _score_fell(observations)
    if len(trained) < FEWEST or (truth is None and not score):
        return None
    against = moves_together(trained, truth) if truth is not None else None
    by_answer = _by_answer(observations, rewards)
    opposed = (against is not None and against < OPPOSED) or (by_answer is not None and by_answer < OPPOSED)
    fell = truth is not None and len(truth) >= WINDOW and truth.tail(WINDOW) <= truth.head(WINDOW)
    gained = rewards.gain > 0.02 or rewards.reward.tail(WINDOW) >= 0 > min(rewards.reward.values)
    if not opposed or not fell or not (gained or (by_answer is not None and by_answer < OPPOSED)):
        return RuledOut(
            Symptom.REWARD_INVERTED, f"reward and truth do not oppose each other (correlation {shown(against)})"
        )
    assert truth is not None
    paid = _paid_for_length(observations, observed(observations, "completions/mean_length"), rewards)
    if paid is not None and paid > FOR_LENGTH_ALONE and truth.head(WINDOW) < LITTLE_TO_LOSE:
        return RuledOut(
            Symptom.REWARD_INVERTED,
            f"the reward follows the length of answers (correlation {shown(paid)}), of which few were right before "
            f"({shown(truth.head(WINDOW))})",
        )
    return _inverted_finding(
        observations,
        [
            seen("reward", trained.first_step, trained.head(WINDOW)),
            seen("reward", trained.last_step, trained.tail(WINDOW)),
            seen(truth.key, truth.first_step, truth.head(WINDOW)),
            seen(truth.key, truth.last_step, truth.tail(WINDOW)),
        ],
        f"while the trained reward went from {shown(trained.head(WINDOW))} to {shown(trained.tail(WINDOW))}, "
        f"{truth.key} "
        f"went from {shown(truth.head(WINDOW))} to {shown(truth.tail(WINDOW))}, each time the other way",
        0.9,
        Basis.CURVE,
    )


def _score_fell(observations: Observations) -> bool:
    return observations.worse_than_base


def _by_answer(observations: Observations, rewards: Rewards) -> float | None:
    """Correlation, answer by answer, of what was paid with whether it was right."""
    paid, right = [], []
    for each in observations.completions:
        if "exact_match" not in each.rewards or len(each.rewards) < 2:
            continue
        total = sum(
            rewards.weights.get(name, 1.0) * value for name, value in each.rewards.items() if name != "exact_match"
        )
        paid.append(total)
        right.append(each.rewards["exact_match"])
    return correlation(paid, right)


def _inverted_by_check(observations: Observations) -> Answer:
    rewards = rewards_of(observations)
    for name, values in observations.part("reward_check").items():
        reference, wrong = (_number(values, key) for key in ("reference", "wrong"))
        weight = rewards.weights.get(str(name), 1.0)
        if reference is None or wrong is None or weight == 0:
            continue
        # A reward that is blind to the answer pays both alike, give or take the sample.
        if weight * (reference - wrong) >= -INVERTED_SHARE * max(abs(reference), abs(wrong)):
            continue
        return _inverted_finding(
            observations,
            [
                seen(f"reward_check.{name}.reference", None, reference),
                seen(f"reward_check.{name}.wrong", None, wrong),
                seen("reward_weights", None, weight),
            ],
            f"{name} pays {shown(weight * reference)} for the data's own references and {shown(weight * wrong)} for "
            "those "
            "of other prompts",
            0.95,
            Basis.DATA,
        )
    return None


def _inverted_finding(
    observations: Observations, evidence: list[Evidence], how: str, confidence: float, basis: Basis
) -> Answer:
    weights = rewards_of(observations).weights
    weighted = any(weight < 0 for weight in weights.values())
    key = "reward_weights" if weighted else observations.first_key("reward_functions", "reward_funcs")
    return finding(
        observations,
        Symptom.REWARD_INVERTED,
        basis,
        severity=Severity.FATAL,
        confidence=confidence,
        evidence=evidence,
        cause=f"The reward is upside down: {how}.",
        key=key,
        suggested=(1.0 if len(weights) == 1 else None) if weighted else right_reward(observations),
        runner_up="label_noise: references that belong to other prompts",
        refuted_by="twenty scored answers, read by a person, of which the better ones earn more",
    )


def _number(values: object, key: str) -> float | None:
    raw = values.get(key) if isinstance(values, dict) else None
    return finite(raw) if raw is not None else None


def length_hack(observations: Observations) -> Answer:
    """Answers grow, and what they earn grows with them, not what they are worth."""
    length, rewards = observed(observations, "completions/mean_length"), rewards_of(observations)
    if len(length) < FEWEST or len(rewards.reward) < FEWEST:
        return None
    early = length.values[:WINDOW]  # a policy that is paid for length is at it within a few steps
    z = (length.tail(WINDOW) - fmean(early)) / max(pstdev(early), 0.05 * fmean(early), 1e-6)
    grew = z > LENGTH_Z and length.tail(WINDOW) > LENGTH_GROWTH * fmean(early)
    paid = _paid_for_length(observations, length, rewards)
    hollow = _hollow(observations, rewards)
    if not grew or not hollow or paid is None or paid < PAYS_FOR_LENGTH:
        return RuledOut(
            Symptom.LENGTH_HACK,
            f"answers went from {shown(fmean(early))} to {shown(length.tail(WINDOW))} tokens (z = {shown(z)})",
        )
    if observations.running and len(length) < STEPS:
        return None
    suspect = _suspect(observations, rewards)
    return finding(
        observations,
        Symptom.LENGTH_HACK,
        Basis.CURVE,
        severity=Severity.HARMFUL,
        confidence=0.9 if paid > 0.95 else 0.75,
        evidence=[
            seen("completions/mean_length", length.first_step, fmean(early)),
            seen("completions/mean_length", length.last_step, length.tail(WINDOW)),
            seen("correlation(reward, length)", None, paid),
            *_both(rewards),
        ],
        cause=f"Answers grew from {shown(fmean(early))} to {shown(length.tail(WINDOW))} tokens (step "
        f"{length.last_step}) "
        f"and the reward with them (correlation {shown(paid)}), while {hollow}: length is what is paid for.",
        key=suspect,
        suggested=right_reward(observations) if suspect == "reward_functions" else None,
        harm=0.9,
        runner_up="loss_type: a loss normalised by each answer's length favours long wrong ones (dr_grpo does not)",
        refuted_by="answers of equal length that earn as differently",
    )


def _paid_for_length(observations: Observations, length: Series, rewards: Rewards) -> float | None:
    """Answer by answer where completions were kept, else step by step."""
    pairs = [
        (float(len(c.completion)), sum(rewards.weights.get(n, 1.0) * v for n, v in c.rewards.items()))
        for c in observations.completions
        if c.rewards
    ]
    each = correlation([a for a, _ in pairs], [b for _, b in pairs]) if len(pairs) >= 20 else None
    by_step = correlation(length.values, rewards.reward.values)
    found = [value for value in (each, by_step) if value is not None]
    return max(found, default=None)


def reward_hack(observations: Observations) -> Answer:
    """The trained reward rises, and the truth does not."""
    rewards = rewards_of(observations)
    trained = rewards.reward
    if len(trained) < FEWEST:
        return _blind_to_the_answer(observations)
    hollow = _hollow(observations, rewards)
    rose = rewards.gain > ROSE * rewards.largest or (
        trained.tail(WINDOW) >= 0.8 * rewards.largest and not rewards.constant
    )
    if not hollow or not rose:
        return RuledOut(
            Symptom.REWARD_HACK,
            f"the reward went from {shown(trained.head(WINDOW))} to {shown(trained.tail(WINDOW))}"
            + (f", {rewards.shadow.key} to {shown(rewards.shadow.tail(WINDOW))}" if rewards.shadow is not None else ""),
        )
    if observations.running and len(trained) < (FEWEST if pays_alike(observations) else STEPS):
        return None
    suspect = _suspect(observations, rewards)
    return finding(
        observations,
        Symptom.REWARD_HACK,
        Basis.CURVE,
        severity=Severity.HARMFUL,
        confidence=0.88 if rewards.shadow is not None and rewards.gain > 2 * ROSE * rewards.largest else 0.72,
        evidence=[*_both(rewards), *_score(observations)],
        cause=f"The trained reward went from {shown(trained.head(WINDOW))} to {shown(trained.tail(WINDOW))} (step "
        f"{trained.last_step}) while {hollow}: it pays for something that is not a right answer.",
        key=suspect,
        suggested=right_reward(observations) if suspect == "reward_functions" else None,
        harm=0.9,
        runner_up="kl_blowup: the policy left the region where the reward was checked",
        refuted_by="twenty answers with a high reward, read by a person, that are right",
    )


def _hollow(observations: Observations, rewards: Rewards) -> str:
    """In words, how the truth stayed behind the trained reward; empty when it did not, or nobody watched it."""
    shadow, gain = rewards.shadow, rewards.gain / rewards.largest
    if shadow is not None and len(shadow) >= 2 * WINDOW:
        true_gain, last = shadow.tail(WINDOW) - shadow.head(WINDOW), shadow.tail(WINDOW)
        behind = true_gain < max(0.03, HOLLOW * gain) and last < 0.5
        peaked = max(shadow.values) > 0.2 and last < 0.6 * max(_smooth(shadow)) and gain > 0
        if (behind or peaked) and rewards.reward.tail(WINDOW) / rewards.largest > last + 0.2:
            return f"{shadow.key} went from {shown(shadow.head(WINDOW))} to {shown(last)}"
        return ""
    evaluation = observations.evaluation
    if (
        evaluation is None
        or observations.share_right is None
        or rewards.reward.tail(WINDOW) < 0.6 * rewards.largest
        or observations.met
    ):
        return ""
    if observations.poor and evaluation.value < 0.5 * rewards.reward.tail(WINDOW) / rewards.largest:
        return f"the score is {shown(evaluation.value)} (n = {evaluation.n})"
    return ""


def _smooth(series: Series) -> list[float]:
    values = series.values
    return [fmean(values[max(0, i - 2) : i + 3]) for i in range(len(values))]


def _blind_to_the_answer(observations: Observations) -> Answer:
    """Before training: references and other prompts' references earn the same."""
    names, paid, free = tried_rewards(observations)
    if not names or paid <= 0:
        return None
    if not pays_alike(observations):
        return RuledOut(Symptom.REWARD_HACK, f"references earn {shown(paid)}, other prompts' {shown(free)}")
    return finding(
        observations,
        Symptom.REWARD_HACK,
        Basis.DATA,
        severity=Severity.ADVICE,
        confidence=0.6,
        evidence=[seen("reward_check.reference", None, paid), seen("reward_check.wrong", None, free)],
        cause=f"The data's own references earn {shown(paid)} and those of other prompts {shown(free)}: what is paid "
        "for "
        f"({', '.join(names)}) does not depend on the answer being right.",
        key=observations.first_key("reward_functions", "reward_funcs"),
        harm=0.5,
        runner_up="a form that is wanted for itself",
        refuted_by="a score that rises with this reward",
    )


def _both(rewards: Rewards) -> list[Evidence]:
    reward, shadow = rewards.reward, rewards.shadow
    found = [
        seen("reward", reward.first_step, reward.head(WINDOW)),
        seen("reward", reward.last_step, reward.tail(WINDOW)),
    ]
    if shadow is not None:
        found += [seen(shadow.key, shadow.first_step, shadow.head(WINDOW))]
        found += [seen(shadow.key, shadow.last_step, shadow.tail(WINDOW))]
    return found


def _score(observations: Observations) -> list[Evidence]:
    return [seen("value", None, observations.evaluation.value)] if observations.evaluation is not None else []


def _suspect(observations: Observations, rewards: Rewards) -> str:
    """The weights, when several rewards are summed and one is the truth; else the functions."""
    trained = [name for name, weight in rewards.weights.items() if weight > 0]
    several = len(trained) > 1 and "reward_weights" in observations.recipe
    return "reward_weights" if several else observations.first_key("reward_functions", "reward_funcs")


RULES = (
    Rule(
        Symptom.REWARD_INVERTED,
        reward_inverted,
        "† references earn less than others' references; trained reward and truth opposed (r below -.8)",
        preflight=True,
        online=True,
    ),
    Rule(
        Symptom.LENGTH_HACK,
        length_hack,
        "rewardspy: length z above 3, with flat accuracy; arXiv 2503.20783",
        online=True,
    ),
    Rule(
        Symptom.REWARD_HACK,
        reward_hack,
        "rewardspy; † trained reward up by .15, truth by a quarter of it at most",
        preflight=True,
        online=True,
    ),
)
