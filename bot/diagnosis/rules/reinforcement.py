"""Rules about the signal of reinforcement: rewards that never come, groups without spread, a policy that runs away.

A solved deterministic task shows zero entropy, zero spread and now and then a spike of the KL as well, so none of these
is judged without the reward, and the last few values count, not the extreme ones.
"""

from __future__ import annotations

from bot.diagnosis.curves import Series, last_run, longest_run, observed
from bot.diagnosis.observations import Observations
from bot.diagnosis.readings import finite, shown
from bot.diagnosis.rewarding import Rewards, pays_alike, rewards_of, right_reward
from bot.diagnosis.rules.finding import Answer, Basis, Rule, RuledOut, finding, percent, seen
from bot.domain.diagnosis import Evidence, Severity, Symptom

# Axolotl's GRPO guide: mean 0 for more than 20 steps; frac_reward_zero_std above .8; entropy below .01 (healthy .05 to
# .5); KL above 2. open-r1 keeps prompts that are solved in .1 to .6 of the tries.
NO_REWARD_STEPS = 20
DEAD_GROUPS = 0.8
COLLAPSED = 0.01
COLLAPSED_DIVERSITY = 0.2
RAN_AWAY = 2.0
# A policy that starts as its own reference has a divergence of zero; 6 was seen where TRL had loaded another one.†
OTHER_REFERENCE = 0.5
# Nats from the base model's answers: less is no movement at all, and less than the second is none that counts.†
STILL, NEAR = 1e-4, 1e-2
# With fewer logged steps a mean over a handful of groups says nothing.†
FEWEST = 10
# Below this temperature the answers of a group are nearly always one and the same.†
COLD = 0.5
SOLVED = 0.8


def reward_zero(observations: Observations) -> Answer:
    checked = _never_earned(observations)
    if checked is not None:
        return checked
    reward = observed(observations, "reward")
    if reward.bad_steps and len(reward.bad_steps) >= max(3, len(reward)):
        return _zero_finding(observations, reward.bad_steps[-1], "is not a number", len(reward.bad_steps))
    patience = NO_REWARD_STEPS if observations.running else min(NO_REWARD_STEPS, max(FEWEST, len(reward)))
    if len(reward) < FEWEST:
        return None
    spread = observed(observations, "reward_std")
    flat = not len(spread) or max(spread.values[-patience:], default=0.0) < 1e-6
    length, start = longest_run(reward, lambda value: abs(value) < 1e-9)
    at_end = last_run(reward, lambda value: abs(value) < 1e-9)
    if max(length if flat else 0, at_end) < patience or at_end < min(patience, FEWEST):
        return RuledOut(Symptom.REWARD_ZERO, f"the mean reward ended at {shown(reward.tail(3))}")
    if max(abs(value) for value in reward.values) > 0.05:
        return None  # it was earned once, and lost: another rule's
    return _zero_finding(
        observations, reward.steps[-1], "is 0", at_end, reward.steps[min(len(reward) - 1, start + NO_REWARD_STEPS - 1)]
    )


def _zero_finding(
    observations: Observations, step: int, what: str, steps: int, certain_at: int | None = None
) -> Answer:
    clipped = observed(observations, "completions/clipped_ratio")
    # Where references were tried and earn it, the functions work, and it is the model that cannot do the task yet.
    checks = [_number(values, "reference") for values in observations.part("reward_check").values()]
    works = bool(checks) and all((value or 0.0) > 0 for value in checks)
    evidence = [seen("reward", step, 0.0), seen("steps", step, steps)]
    evidence += [seen("completions/clipped_ratio", clipped.last_step, clipped.tail(3))] if len(clipped) else []
    return finding(
        observations,
        Symptom.REWARD_ZERO,
        Basis.CURVE,
        severity=Severity.FATAL,
        confidence=0.9,
        evidence=evidence,
        cause=f"The mean reward {what} at {steps} logged steps in a row up to step {step}: no answer earns anything, "
        "so "
        "there is nothing to learn from.",
        key="init_from" if works else observations.first_key("reward_functions", "reward_funcs"),
        suggested=None if works else right_reward(observations),
        runner_up="temperature: answers that are too alike to be right by chance"
        if works
        else "init_from: a model that cannot do the task at all (imitate right answers first)",
        refuted_by="a reference answer that earns a reward when the function is called on it",
        certain_at=certain_at,
    )


def _never_earned(observations: Observations) -> Answer:
    """The rewards tried on the data's own references, before any step."""
    checks = observations.part("reward_check")
    for name, values in checks.items():
        if not isinstance(values, dict) or str(name) in rewards_of(observations).shadows:
            continue
        errors = values.get("errors")
        reference, wrong = _number(values, "reference"), _number(values, "wrong")
        failed = bool(errors) and errors not in (0, "0")
        if reference is None and not failed:
            continue
        if not failed and not (reference == 0 and (wrong or 0) == 0):
            continue
        return finding(
            observations,
            Symptom.REWARD_ZERO,
            Basis.DATA,
            severity=Severity.FATAL,
            confidence=0.95,
            evidence=[
                seen(f"reward_check.{name}.reference", None, reference),
                seen(f"reward_check.{name}.wrong", None, wrong),
                seen(f"reward_check.{name}.errors", None, str(errors) if errors else 0),
            ],
            cause=f"The reward {name} gives the data's own references {shown(reference)}"
            f"{f' and fails ({errors})' if failed else ''}: nothing that the model says can earn it.",
            key=observations.first_key("reward_functions", "reward_funcs"),
            suggested=right_reward(observations),
            file="recipe.yaml",
            runner_up="wrong_columns: the reference is not in the column that the reward reads",
            refuted_by="one reference that earns a reward when the function is called on it",
        )
    return None


def _number(values: object, key: str) -> float | None:
    raw = values.get(key) if isinstance(values, dict) else None
    return finite(raw) if raw is not None else None


def zero_std(observations: Observations) -> Answer:
    """Every answer of a group earns the same, before the task is solved."""
    dead, reward = observed(observations, "frac_reward_zero_std"), observed(observations, "reward")
    if len(dead) < FEWEST or len(reward) < FEWEST:
        return None
    window = min(NO_REWARD_STEPS, len(dead))
    share = dead.tail(window)
    length, start = longest_run(dead, lambda value: value > DEAD_GROUPS)
    rewards = rewards_of(observations)
    enough = length >= (_patience(observations, rewards) if observations.running else window)
    early = min(dead.head(3), dead.head(window))  # from the very first on: a policy that ran away had some before
    if share <= DEAD_GROUPS or not enough or early <= DEAD_GROUPS or rewards.solved:
        return RuledOut(
            Symptom.ZERO_STD,
            f"in {percent(1 - early)} of the first groups, answers earn differently; reward "
            f"{shown(reward.tail(3))} at the end",
        )
    if rewards.constant and reward.tail(3) > 0 and _truly_right(observations):
        return None  # solved before training began
    entropy = observed(observations, "entropy")
    key, suggested, why = _spread_blame(observations, rewards, entropy)
    evidence = [
        seen("frac_reward_zero_std", dead.last_step, share),
        seen("reward", reward.last_step, reward.tail(3)),
    ]
    evidence += [seen("entropy", entropy.last_step, entropy.tail(3))] if len(entropy) else []
    return finding(
        observations,
        Symptom.ZERO_STD,
        Basis.CURVE,
        severity=Severity.FATAL if share >= 0.999 else Severity.HARMFUL,
        confidence=0.9 if share >= 0.999 else 0.75,
        evidence=evidence,
        cause=f"In {percent(share)} of the groups all answers earn the same, from the first steps on (reward "
        f"{shown(reward.tail(3))} at step {reward.last_step}), so no answer is preferred to another: {why}.",
        key=key,
        suggested=suggested,
        harm=share,
        runner_up="prompts that are all too easy or all too hard (keep those solved in .1 to .6 of the tries)",
        refuted_by="two different answers to one prompt that earn different rewards",
        certain_at=dead.steps[min(len(dead) - 1, start + NO_REWARD_STEPS - 1)],
    )


def _patience(observations: Observations, rewards: Rewards) -> int:
    """Logged steps without spread before it is said of a run that goes on: fewer where the recipe, or the rewards as
    they were tried on the data's references, say by themselves why there is none."""
    cold = observations.setting("temperature", 1.0) < COLD
    blind = rewards.constant and pays_alike(observations)
    return FEWEST if cold or blind else NO_REWARD_STEPS


def _truly_right(observations: Observations) -> bool:
    """The constant reward is the truth: an independent score of the base model or this one is high, too."""
    scores = [e.value for e in (observations.baseline, observations.evaluation) if e is not None]
    shadow = rewards_of(observations).shadow
    return (bool(scores) and min(scores) >= SOLVED) or (shadow is not None and shadow.tail(5) >= SOLVED)


def _spread_blame(observations: Observations, rewards: Rewards, entropy: Series) -> tuple[str, object, str]:
    temperature = observations.setting("temperature", 1.0)
    generations = observations.setting("num_generations", 8)
    surely_alike = len(entropy) > 0 and entropy.head(5) < COLLAPSED
    if temperature < COLD:
        return "temperature", 1.0, f"temperature {shown(temperature)} makes all answers of a group the same"
    if generations < 4:
        return "num_generations", 8, f"{generations:.0f} answers a group are too few to differ"
    if rewards.constant and not surely_alike:
        key = observations.first_key("reward_functions", "reward_funcs")
        return key, right_reward(observations), "the reward is the same number for every answer"
    return "num_generations", int(2 * generations), "answers differ too little within a group"


def entropy_collapse(observations: Observations) -> Answer:
    """The policy says nearly one thing only, and that is not what solves the task."""
    entropy, rewards = observed(observations, "entropy"), rewards_of(observations)
    if not observations.reinforcement or len(entropy) < FEWEST:
        return None
    diversity = _diversity(observations)
    collapsed = entropy.tail(5) < COLLAPSED and entropy.head(3) > 5 * COLLAPSED
    one_answer = diversity is not None and diversity < COLLAPSED_DIVERSITY and entropy.tail(5) < 0.2 * entropy.head(3)
    if rewards.true_solved or (not collapsed and not one_answer):
        return RuledOut(
            Symptom.ENTROPY_COLLAPSE, f"entropy went from {shown(entropy.head(3))} to {shown(entropy.tail(5))}"
        )
    if not one_answer and (rewards.solved or rewards.rising):
        return RuledOut(Symptom.ENTROPY_COLLAPSE, "entropy fell with a reward that rose")
    if observations.running and last_run(entropy, lambda value: value < COLLAPSED) < NO_REWARD_STEPS:
        return None  # an early fall is normal: most of it happens in the first twelfth of good runs
    # DAPO (arXiv 2503.14476): clip-higher, epsilon_high .28, keeps unlikely tokens alive.
    cool = observations.setting("temperature", 1.0) < 0.7
    key, suggested = ("temperature", 1.0) if cool else ("epsilon_high", 0.28)
    if key == "epsilon_high" and observations.setting("epsilon_high", 0.2) >= 0.28:
        key, suggested = "learning_rate", observations.rate.lowered(3)
    evidence = [
        seen("entropy", entropy.first_step, entropy.head(3)),
        seen("entropy", entropy.last_step, entropy.tail(5)),
    ]
    evidence += [seen("distinct_completions", None, diversity)] if diversity is not None else []
    evidence += _reward_evidence(rewards)
    return finding(
        observations,
        Symptom.ENTROPY_COLLAPSE,
        Basis.CURVE,
        severity=Severity.HARMFUL,
        confidence=0.85 if one_answer else 0.65,
        evidence=evidence,
        cause=f"The policy's entropy fell from {shown(entropy.head(3))} to {shown(entropy.tail(5))} (step "
        f"{entropy.last_step})"
        + (f", and {percent(diversity)} of its latest answers are distinct" if diversity is not None else "")
        + f", with a reward of {shown(rewards.reward.tail(5))}: it stopped trying other answers.",
        key=key,
        suggested=suggested,
        harm=0.7,
        runner_up="learning_rate: too high a rate settles on the first answer that pays",
        refuted_by="different answers to different prompts at temperature 1",
    )


def _diversity(observations: Observations) -> float | None:
    """Distinct answers per distinct prompt among the latest completions, where right answers would differ."""
    latest = observations.completions[-64:]
    prompts, answers = {c.prompt for c in latest}, {c.completion for c in latest}
    references = {c.reference for c in latest if c.reference is not None}
    if len(prompts) < 8 or len(references) < 0.5 * len(prompts):
        return None
    return len(answers) / len(prompts)


def kl_blowup(observations: Observations) -> Answer:
    kl, rewards = observed(observations, "kl"), rewards_of(observations)
    if not observations.reinforcement or not len(rewards.reward):
        return None
    if len(kl) >= 5 and kl.head(1) > OTHER_REFERENCE and observations.last_step >= 3 and kl.tail(5) > OTHER_REFERENCE:
        return _other_reference(observations, kl)
    ran = len(kl) >= FEWEST and kl.tail(5) > RAN_AWAY
    # Where a score says that something went wrong the fall explains it; where none does, it has to be more than noise.
    lost = rewards.lost_for_sure or (rewards.lost and (observations.poor or observations.unimproved))
    if not ran and not (lost and not len(kl)):
        if not len(kl):
            return None
        return RuledOut(
            Symptom.KL_BLOWUP, f"kl ended at {shown(kl.tail(5))} with a reward of {shown(rewards.reward.tail(5))}"
        )
    if ran and rewards.solved and not lost:
        return RuledOut(Symptom.KL_BLOWUP, f"kl is {shown(kl.tail(5))} at the end, of a task that is solved")
    if observations.running and len(kl) and last_run(kl, lambda value: value > RAN_AWAY) < FEWEST:
        return None
    rate, beta = observations.rate, observations.setting("beta", 0.0)
    high = rate.current > rate.band.high
    key, suggested = ("learning_rate", rate.lowered(10 if high else 3)) if high or beta > 0.05 else ("beta", 0.04)
    evidence = _reward_evidence(rewards)
    if len(kl):
        evidence += [seen("kl", kl.first_step, kl.head(3)), seen("kl", kl.last_step, kl.tail(5))]
    peak = max(rewards.smooth.values)
    far = f"its divergence from the base model is {shown(kl.tail(5))}" if len(kl) else "nothing held it (beta 0)"
    return finding(
        observations,
        Symptom.KL_BLOWUP,
        Basis.CURVE,
        severity=Severity.FATAL if lost and not rewards.rising else Severity.HARMFUL,
        confidence=0.85 if lost and ran else 0.65,
        evidence=evidence,
        cause=f"The reward peaked at {shown(peak)} and is {shown(rewards.reward.tail(5))} at step "
        f"{rewards.reward.last_step}; {far}, under learning_rate {shown(rate.current)} and beta {shown(beta)}.",
        key=key,
        suggested=suggested,
        harm=0.9,
        runner_up="entropy_collapse: the policy settled on one answer" if high else "learning_rate: steps too large",
        refuted_by="the same fall at a third of the rate",
    )


def _other_reference(observations: Observations, kl: Series) -> Answer:
    return finding(
        observations,
        Symptom.KL_BLOWUP,
        Basis.CURVE,
        severity=Severity.HARMFUL,
        confidence=0.8,
        evidence=[seen("kl", kl.first_step, kl.values[0]), seen("kl", kl.last_step, kl.tail(5))],
        cause=f"The divergence from the reference is {shown(kl.values[0])} at step {kl.first_step}, before the policy "
        "can "
        "have moved: the reference is another model than the one that training starts from.",
        key="init_from",
        runner_up="learning_rate: a first step that is far too large",
        refuted_by="a divergence of 0 at step 1 with the same folder for both",
        certain_at=kl.steps[min(4, len(kl) - 1)],
    )


def _reward_evidence(rewards: Rewards) -> list[Evidence]:
    reward = rewards.reward
    found = [seen("reward", reward.first_step, reward.head(3)), seen("reward", reward.last_step, reward.tail(5))]
    if rewards.shadow is not None:
        found.append(seen(rewards.shadow.key, rewards.shadow.last_step, rewards.shadow.tail(5)))
    return found


def no_movement(observations: Observations) -> Answer:
    """Rewards differ, and the policy does not move: the rate is too low to follow them."""
    reward, kl, rewards = observed(observations, "reward"), observed(observations, "kl"), rewards_of(observations)
    if not observations.reinforcement or len(reward) < _moving_by(observations) or rewards.solved or observations.met:
        return None
    dead = observed(observations, "frac_reward_zero_std")
    if len(dead) and dead.tail(10) > DEAD_GROUPS:
        return None
    low = observations.rate.current < observations.rate.band.low
    # At a rate below what usually moves such a model, a walk about the start is not movement.
    still = len(kl) >= FEWEST and max(kl.values[-FEWEST:]) < (NEAR if low and observations.rate.size_known else STILL)
    flat = abs(reward.tail(10) - reward.head(10)) < 0.05 + 2 * rewards.noise
    if not flat or not (still or (not len(kl) and low and observations.rate.far_below)):
        return RuledOut(Symptom.PLATEAU, f"the reward went from {shown(reward.head(10))} to {shown(reward.tail(10))}")
    evidence = [*_reward_evidence(rewards), seen("learning_rate", None, observations.rate.current)]
    evidence += [seen("kl", kl.last_step, kl.tail(5))] if len(kl) else []
    return finding(
        observations,
        Symptom.PLATEAU,
        Basis.CURVE,
        severity=Severity.HARMFUL,
        confidence=0.85 if still and low else 0.6,
        evidence=evidence,
        cause=f"After {len(reward)} logged steps the reward is where it was ({shown(reward.head(10))}, then "
        f"{shown(reward.tail(10))})"
        + (f" and the policy {shown(kl.tail(5))} nats from the base model" if len(kl) else "")
        + f": learning_rate {shown(observations.rate.current)} is too low.",
        key="learning_rate",
        suggested=observations.rate.raised(),
        runner_up="zero_std: groups whose answers hardly differ",
        refuted_by="a short run at ten times the rate that moves no further",
    )


def _moving_by(observations: Observations) -> int:
    """Logged steps after which a policy at a usual rate has moved."""
    rate = observations.rate
    return observations.warm_up_steps + FEWEST if rate.size_known and rate.far_below else NO_REWARD_STEPS


RULES = (
    Rule(Symptom.REWARD_ZERO, reward_zero, "Axolotl GRPO guide: mean 0 for 20 steps", preflight=True, online=True),
    Rule(
        Symptom.ZERO_STD, zero_std, "Axolotl: frac_reward_zero_std above .8; open-r1: pass rates .1 to .6", online=True
    ),
    Rule(Symptom.ENTROPY_COLLAPSE, entropy_collapse, "Axolotl: entropy below .01; DAPO: epsilon_high .28", online=True),
    Rule(Symptom.KL_BLOWUP, kl_blowup, "Axolotl: kl above 2, with a reward that fell; 5 values †", online=True),
    Rule(
        Symptom.PLATEAU,
        no_movement,
        "† flat reward and a divergence below 1e-4 (below the usual rates: .01) after 20 steps",
        online=True,
    ),
)
