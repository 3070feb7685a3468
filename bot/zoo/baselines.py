"""Other judges of the same traces: published rules ported, the most frequent answer, and a die.

Each sees what it can see of a trace's folder and answers as the engine does. The published rules speak of the metrics
alone, because that is what they read; where their source names no setting, the answer blames the key that the catalogue
of failures names for that label.

Sources: SageMaker Debugger, https://docs.aws.amazon.com/sagemaker/latest/dg/debugger-built-in-rules.html (parameters at
their defaults). Axolotl, https://github.com/axolotl-ai-cloud/axolotl/blob/main/docs/training_stability.qmd and the
agents' guides beside it.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from bot.diagnosis.recipes import parsed_recipe
from bot.zoo.reading import LOOKS, Answer, Judge, Reading, looked_at, metric_rows
from bot.zoo.specimen import Json
from bot.zoo.traces import Truth

Say = Callable[[list[Json], Json], Answer | None]
KEYS = {
    "nan_inf": "learning_rate", "frozen": "lora_target_modules", "plateau": "learning_rate", "overfit": "max_steps",
    "divergence": "learning_rate", "grad_explosion": "max_grad_norm", "reward_zero": "reward_functions",
    "zero_std": "num_generations", "entropy_collapse": "epsilon_high", "kl_blowup": "beta",
    "clipped_completions": "max_completion_length", "dpo_flipped": "data_sources",
}  # fmt: skip


def answer(label: str) -> Answer:
    return Answer(label, KEYS[label])


def numbers(rows: list[Json], key: str) -> list[float]:
    """The metric in order of the rows; what is no number comes as NaN."""
    found = []
    for row in rows:
        if key in row:
            value = row[key]
            known = isinstance(value, int | float) and not isinstance(value, bool)
            found.append(float(value) if known else math.inf if value == "Infinity" else math.nan)
    return found


# --- SageMaker Debugger -----------------------------------------------------------------------------------------------


def exploding_tensor(rows: list[Json], recipe: Json) -> Answer | None:
    """ExplodingTensor: any NaN or infinity."""
    values = numbers(rows, "loss") + numbers(rows, "grad_norm")
    return answer("nan_inf") if any(not math.isfinite(value) for value in values) else None


def vanishing_gradient(rows: list[Json], recipe: Json) -> Answer | None:
    """VanishingGradient: the mean of absolute values is below 1e-7; the norm bounds it from above."""
    return answer("frozen") if any(value < 1e-7 for value in numbers(rows, "grad_norm")) else None


def overfit(rows: list[Json], recipe: Json) -> Answer | None:
    """Overfit: (validation - training) / training above 0.1, patience 1; Overtraining: no new best (less 0.01) for
    10 evaluations."""
    train, ratios, evals = math.nan, [], []
    for row in rows:
        if "loss" in row and isinstance(row["loss"], int | float):
            train = float(row["loss"])
        if "eval_loss" in row and isinstance(row["eval_loss"], int | float):
            evals.append(float(row["eval_loss"]))
            ratios.append((evals[-1] - train) / train if train > 0 else math.nan)
    if any(a > 0.1 and b > 0.1 for a, b in pairwise(ratios)):
        return answer("overfit")
    best = min(range(len(evals)), key=lambda n: evals[n]) if evals else 0
    return answer("overfit") if evals and len(evals) - 1 - best >= 10 else None


def loss_not_decreasing(rows: list[Json], recipe: Json) -> Answer | None:
    """LossNotDecreasing: less than 0.1 % lower than ten steps before."""
    loss = numbers(rows, "loss")
    later = loss[::10]
    return answer("plateau") if any(not b < a * 0.999 for a, b in pairwise(later)) else None


SAGEMAKER: tuple[Say, ...] = (exploding_tensor, vanishing_gradient, overfit, loss_not_decreasing)

# --- Axolotl ----------------------------------------------------------------------------------------------------------


def in_a_row(values: Sequence[float], holds: Callable[[float], bool], count: int) -> bool:
    streak = 0
    for value in values:
        streak = streak + 1 if holds(value) else 0
        if streak >= count:
            return True
    return False


def is_nan(rows: list[Json], recipe: Json) -> Answer | None:
    return exploding_tensor(rows, recipe)


def loss_watchdog(rows: list[Json], recipe: Json) -> Answer | None:
    """Loss above twice the initial one, three times in a row. GRPO's loss is none."""
    loss = numbers(rows, "loss")
    if not loss or recipe.get("method") == "grpo":
        return None
    return answer("divergence") if in_a_row(loss, lambda value: value > 2 * loss[0], 3) else None


def large_gradient(rows: list[Json], recipe: Json) -> Answer | None:
    """Above 100 for SFT and DPO; above 10 repeatedly for GRPO."""
    norms = numbers(rows, "grad_norm")
    if recipe.get("method") == "grpo":
        return answer("grad_explosion") if sum(value > 10 for value in norms) >= 3 else None
    return answer("grad_explosion") if any(value > 100 for value in norms) else None


def rising_evaluation(rows: list[Json], recipe: Json) -> Answer | None:
    """The evaluation's loss rises three times in a row while training's falls."""
    evals, loss = numbers(rows, "eval_loss"), numbers(rows, "loss")
    rises = [b > a for a, b in pairwise(evals)]
    falls = len(loss) > 1 and loss[-1] < loss[0]
    return answer("overfit") if falls and in_a_row([float(r) for r in rises], bool, 3) else None


def last(rows: list[Json], key: str) -> float | None:
    values = numbers(rows, key)
    return values[-1] if values else None


def threshold(key: str, label: str, holds: Callable[[float], bool], count: int = 1) -> Say:
    """`holds` of the metric, in `count` logged steps in a row."""

    def say(rows: list[Json], recipe: Json) -> Answer | None:
        return answer(label) if in_a_row(numbers(rows, key), holds, count) else None

    return say


AXOLOTL: tuple[Say, ...] = (
    is_nan,
    loss_watchdog,
    large_gradient,
    threshold("reward", "reward_zero", lambda value: value == 0, 20),
    threshold("frac_reward_zero_std", "zero_std", lambda value: value > 0.8, 3),
    threshold("entropy", "entropy_collapse", lambda value: value < 0.01, 3),
    threshold("kl", "kl_blowup", lambda value: value > 2.0, 3),
    threshold("completions/clipped_ratio", "clipped_completions", lambda value: value > 0.8, 3),
    threshold("rewards/accuracies", "dpo_flipped", lambda value: value < 0.5, 10),
    rising_evaluation,
)
OF_GRPO = {"reward_zero", "zero_std", "entropy_collapse", "kl_blowup", "clipped_completions"}


def rules_judge(rules: tuple[Say, ...], *, aborts: frozenset[str], looks: int = LOOKS) -> Judge:
    """The rules over a trace's metrics, in their order, and over its prefixes; `aborts` are labels that end a run."""

    def said(rows: list[Json], recipe: Json) -> tuple[Answer, ...]:
        found = [say(rows, recipe) for say in rules]
        grpo = recipe.get("method") == "grpo"
        return tuple(a for a in found if a is not None and (grpo or a.label not in OF_GRPO))

    def judge(folder: Path) -> Reading:
        recipe: dict[str, Any] = parsed_recipe((folder / "recipe.yaml").read_text(encoding="utf-8"))
        rows = metric_rows(folder)
        noticed: dict[str, int] = {}
        aborted = None
        for step in looked_at(sorted({int(row["step"]) for row in rows}), looks):
            for each in said([row for row in rows if int(row["step"]) <= step], recipe):
                noticed.setdefault(each.label, step)
                if aborted is None and each.label in aborts:
                    aborted = step
        return Reading(said(rows, recipe), noticed, aborted)

    return judge


# --- Without looking --------------------------------------------------------------------------------------------------


def majority(truths: Sequence[Truth]) -> Judge:
    """The most frequent label and line of these truths, whatever the trace shows."""
    faulty = [truth for truth in truths if not truth.healthy]
    if not faulty:
        return lambda folder: Reading()
    label = Counter(truth.labels[0] for truth in faulty).most_common(1)[0][0]
    key = Counter(key for truth in faulty for key in truth.line_keys[:1]).most_common(1)[0][0]
    return lambda folder: Reading((Answer(label, key),), {})


def die(truths: Sequence[Truth], seed: int = 0) -> Judge:
    """A label that occurs, and a key of the trace's own recipe."""
    labels = sorted({label for truth in truths for label in truth.labels})

    def judge(folder: Path) -> Reading:
        rng = random.Random(f"die/{seed}/{folder.name}")
        recipe = parsed_recipe((folder / "recipe.yaml").read_text(encoding="utf-8"))
        return Reading((Answer(rng.choice(labels), rng.choice(sorted(recipe))),), {}) if labels else Reading()

    return judge


def judges(tuned: Sequence[Truth], looks: int = LOOKS) -> dict[str, Judge]:
    """By name; those that need to know what there is are told of the tuning traces alone."""
    return {
        "sagemaker": rules_judge(SAGEMAKER, aborts=frozenset({"nan_inf", "frozen", "plateau", "overfit"}), looks=looks),
        "axolotl": rules_judge(AXOLOTL, aborts=frozenset({"nan_inf", "divergence", "grad_explosion"}), looks=looks),
        "majority": majority(tuned),
        "random": die(tuned),
    }
