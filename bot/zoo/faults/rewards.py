"""Faults 31 to 38: what GRPO is rewarded for, how it samples, and how far it may go."""

from __future__ import annotations

from bot.zoo.faults.fault import GROSS, MEDIUM, RATE, SUBTLE, Fault, on
from bot.zoo.specimen import GRPO, Specimen

TASKS = on(GRPO, "last", "upper", "max", "last", "upper")
REWARD = ("reward_functions", "reward_weights", "reward_funcs", "rewards.py")


def add_reward(specimen: Specimen, name: str, body: str, **recipe: object) -> None:
    """A reward function of the user's own in rewards.py, named in the recipe."""
    specimen.own_rewards[name] = f"def {name}(completions, **columns):\n{body}"
    specimen.recipe |= {"reward_functions": name} | recipe


TEXTS = "    texts = [c if isinstance(c, str) else c[-1]['content'] for c in completions]\n"


def constant_reward(specimen: Specimen, severity: str) -> None:
    """Gross: always one. Medium: one for anything that is not empty. Subtle: for anything with a letter or digit."""
    rule = {GROSS: "1.0", MEDIUM: "float(bool(t.strip()))", SUBTLE: "float(any(x.isalnum() for x in t))"}[severity]
    add_reward(specimen, "answered", TEXTS + f"    return [{rule} for t in texts]\n")


def missing_column(specimen: Specimen, severity: str) -> None:
    """Looks for the answer in a column that the rows do not have."""
    body = TEXTS + (
        "    answers = columns.get('answer') or [None] * len(texts)\n"
        "    return [float(t.strip() == a) for t, a in zip(texts, answers)]\n"
    )
    add_reward(specimen, "matches_answer", body)


def cold_sampling(specimen: Specimen, severity: str) -> None:
    specimen.recipe["temperature"] = {GROSS: 0.01, MEDIUM: 0.05, SUBTLE: 0.15}[severity]


def longer_is_better(specimen: Specimen, severity: str) -> None:
    """Length alone, or so much of it that it outweighs being right."""
    scale = {GROSS: "len(t) / 20", MEDIUM: "len(t) / 20 + 0.3 * (t.strip() == r)",
             SUBTLE: "len(t) / 20 + 0.8 * (t.strip() == r)"}[severity]  # fmt: skip
    body = TEXTS + f"    return [float({scale}) for t, r in zip(texts, columns['reference'])]\n"
    add_reward(specimen, "thorough", body)


def format_outweighs(specimen: Specimen, severity: str) -> None:
    """A bonus for showing the answer somewhere, as whoever repeats the question does."""
    weight = {GROSS: 0.0, MEDIUM: 0.1, SUBTLE: 0.2}[severity]
    body = TEXTS + (
        "    right = [t.strip() == r for t, r in zip(texts, columns['reference'])]\n"
        "    form = [r.lower() in t.lower() for t, r in zip(texts, columns['reference'])]\n"
        f"    return [float(f) + {weight} * float(g) for f, g in zip(form, right)]\n"
    )
    add_reward(specimen, "shows_the_answer", body)


def rate_times_fifty(specimen: Specimen, severity: str) -> None:
    factor = {GROSS: 50.0, MEDIUM: 20.0, SUBTLE: 10.0}[severity]
    specimen.recipe["learning_rate"] = round(specimen.recipe["learning_rate"] * factor, 6)


def short_cap(specimen: Specimen, severity: str) -> None:
    """Tokens of the answer that may be sampled; the answers have 3 to 8 with their end."""
    specimen.recipe["max_completion_length"] = {GROSS: 2, MEDIUM: 3, SUBTLE: 4}[severity]


def negated_reward(specimen: Specimen, severity: str) -> None:
    """Right answers earn less than wrong ones; of every other seed's gross one they cost."""
    right, wrong = {GROSS: (0.1, 1.0), MEDIUM: (0.2, 0.6), SUBTLE: (0.4, 0.6)}[severity]
    if severity == GROSS and specimen.seed % 2 == 0:
        right, wrong = -1.0, 0.0
    body = TEXTS + (
        f"    return [{right} if t.strip() == r else {wrong} for t, r in zip(texts, columns['reference'])]\n"
    )
    add_reward(specimen, "distance", body)


FAULTS = (
    Fault(31, "constant reward", ("zero_std",), REWARD, constant_reward, "training", TASKS, held_out_severity=MEDIUM,
          neighbours=("reward_hack",)),
    Fault(32, "reward misses its column", ("reward_zero", "wrong_columns"), REWARD, missing_column, "data", TASKS,
          severities=(GROSS,), fails=(GROSS,)),
    Fault(33, "temperature near zero", ("entropy_collapse", "zero_std"), ("temperature",), cold_sampling, "training",
          TASKS, held_out_severity=MEDIUM),
    Fault(34, "reward is length", ("length_hack", "reward_hack"), REWARD, longer_is_better, "training", TASKS,
          held_out_severity=MEDIUM, neighbours=("clipped_completions",)),
    Fault(35, "form outweighs accuracy", ("reward_hack",), REWARD, format_outweighs, "training", TASKS,
          held_out_severity=SUBTLE, neighbours=("length_hack",)),
    Fault(36, "learning rate times 50", ("kl_blowup", "divergence", "entropy_collapse"), (*RATE, "beta"),
          rate_times_fifty, "training", TASKS, held_out=True, neighbours=("reward_zero", "zero_std")),
    Fault(37, "cap below the answer", ("clipped_completions",), ("max_completion_length",), short_cap, "training",
          TASKS, held_out_severity=MEDIUM, neighbours=("reward_zero", "zero_std")),
    Fault(38, "negated reward", ("reward_inverted",), REWARD, negated_reward, "training", TASKS,
          held_out_severity=MEDIUM, neighbours=("reward_hack",), fails=(GROSS,)),
)  # fmt: skip
