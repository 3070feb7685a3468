"""Rules about what is trained at all: weights that never move, adapters on the wrong layers, adapters nobody loads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bot.diagnosis.curves import observed, shape_of
from bot.diagnosis.observations import Observations
from bot.diagnosis.readings import count, finite, shown
from bot.diagnosis.rules.ends import crashed_by
from bot.diagnosis.rules.finding import Answer, Basis, Rule, RuledOut, finding, percent, seen
from bot.domain.diagnosis import Severity, Symptom

# Logged steps in a row without any gradient: one or two happen in healthy runs (a batch that is solved already).†
STILL = 5
# Share of the weights below which an adapter can hardly change what a model says. Rank 8 on two projections of a 1.7 B
# model is 0.1 %; a tenth of that is one layer of it.†
HARDLY_ANY = 1e-4
# Full training that leaves more than nine weights in ten as they are is not full training.†
FEW = 0.1
# Answers that are the base model's own, on so many items, do not come from a model that was trained.†
IDENTICAL = 0.99
ITEMS = 20


def frozen(observations: Observations) -> Answer:
    """The loss says that there is something to learn, and no weight moves."""
    if crash := crashed_by(observations, Symptom.FROZEN):
        cause = f"Nothing of the model is trainable, so the first backward pass failed: {crash.exception}."
        return _frozen_finding(
            observations, cause, [seen("log", None, crash.exception)], "freeze", 0.95, crash.script_line
        )
    trainable = _trainable(observations)
    adapter = observations.recipe.get("use_peft") is True
    if trainable == 0 and not adapter:
        cause = "0 of the model's weights are trainable, so no step can change it."
        return _frozen_finding(observations, cause, [seen("trainable_parameters", None, 0)], "freeze", 0.97)
    if not adapter and (few := _few_trained(observations, trainable)) is not None:
        return few
    loss, norm = observed(observations, "loss"), observed(observations, "grad_norm")
    still = _still(observations)
    unchanged = observations.setup.get("frozen_after_3_steps") is True
    top = max(norm.values, default=None)
    if not unchanged and not still:
        moved = f"the largest grad_norm is {shown(top)}" if top is not None else None
        return RuledOut(Symptom.FROZEN, moved) if moved is not None else None
    if observations.method == "grpo" and not any(norm.values):
        return None  # no spread of rewards, no gradient: the rules about rewards say why
    last = observations.last_step
    evidence = [
        seen("loss", loss.last_step if len(loss) else None, loss.values[-1] if len(loss) else None),
        seen("grad_norm", norm.last_step if len(norm) else None, norm.values[-1] if len(norm) else None),
        seen("trainable_parameters", None, trainable),
    ]
    if still:
        cause = (
            f"grad_norm is exactly 0 at every step up to {last} while the loss is {shown(loss.tail(3))}: no gradient "
        )
        cause += "reaches a weight."
        return _frozen_finding(observations, cause, evidence, "freeze", 0.9, certain_at=norm.steps[STILL - 1])
    if observations.rate.far_below:
        return None  # a rate this low moves nothing that can be seen: the rules about rates say so
    cause = f"After three steps no weight had changed, with gradients of norm {shown(top)}: the optimizer holds other "
    cause += "weights than the model (built before the model was wrapped, moved or cast)."
    return _frozen_finding(observations, cause, evidence, "train.py", 0.85, certain_at=min(3, last))


def _few_trained(observations: Observations, trainable: int | None) -> Answer:
    """No adapter, and nearly all weights stay: the recipe says full training and the script says otherwise."""
    parameters = finite(observations.setup["parameters"]) if observations.setup.get("parameters") is not None else None
    asked = any(key.startswith(("freeze", "unfreeze", "trainable_")) for key in observations.recipe)
    if not parameters or trainable is None or trainable >= FEW * parameters or asked:
        return None
    return finding(
        observations,
        Symptom.FROZEN,
        Basis.DATA,
        severity=Severity.HARMFUL,
        confidence=0.85,
        evidence=[seen("trainable_parameters", None, trainable), seen("parameters", None, parameters)],
        cause=f"Without an adapter only {trainable} of {parameters:.0f} weights are trainable "
        f"({percent(trainable / parameters)}): the others were frozen.",
        key=None,
        file="train.py",
        harm=1 - trainable / parameters,
        runner_up="a script that trains a new head alone, on purpose",
        refuted_by="as many trainable weights as the model has",
    )


def _frozen_finding(
    observations: Observations,
    cause: str,
    evidence: list[Any],
    where: str,
    confidence: float,
    line: tuple[str, int] | None = None,
    certain_at: int | None = None,
) -> Answer:
    keys = [k for k in observations.recipe if k.startswith(("freeze", "unfreeze", "trainable_"))]
    adapter = [k for k in ("lora_target_modules", "target_modules") if k in observations.recipe]
    key = next(iter(keys + adapter), None)
    file, number = line or ("train.py", None)
    if key is not None and where == "freeze":
        file, number = "recipe.yaml", None
    return finding(
        observations,
        Symptom.FROZEN,
        Basis.CURVE,
        severity=Severity.FATAL,
        confidence=confidence,
        evidence=[*evidence, seen("learning_rate", None, observations.rate.current)],
        cause=cause,
        key=key if where == "freeze" else None,
        file=file,
        line=number,
        runner_up="learning_rate: a rate so low that a weight's last digit does not move",
        refuted_by="one weight that differs between the first and the last checkpoint",
        certain_at=certain_at,
    )


def _trainable(observations: Observations) -> int | None:
    for holder in (observations.setup, observations.part("lora")):
        if holder.get("trainable_parameters") is not None:
            return count(holder["trainable_parameters"])
    return None


def _still(observations: Observations) -> bool:
    """Gradients of exactly zero from the first step on, for a loss that is not zero."""
    loss, norm = observed(observations, "loss"), observed(observations, "grad_norm")
    if len(norm) < STILL or norm.bad_steps or any(norm.values):
        return False
    return len(loss) > 0 and min(abs(value) for value in loss.values) > 0


def lora_targets(observations: Observations) -> Answer:
    """The adapter sits on nothing, or on far fewer layers than its targets name."""
    key = "lora_target_modules"
    if crash := crashed_by(observations, Symptom.LORA_TARGETS):
        evidence = [seen("log", None, crash.exception), seen(key, None, str(observations.recipe.get(key)))]
        cause = f"No layer of this model is called what the adapter targets: {crash.exception}."
        return _target_finding(observations, cause, evidence, Severity.FATAL, 0.97)
    lora = observations.part("lora")
    trainable, matched = _trainable(observations), _matched(lora)
    if observations.recipe.get("use_peft") is not True or (trainable is None and matched is None):
        return None
    parameters = finite(observations.setup["parameters"]) if observations.setup.get("parameters") is not None else None
    share = trainable / parameters if trainable is not None and parameters else None
    named = lora.get("target_modules")
    names = named if isinstance(named, list) else [named] if named else []
    evidence = [
        seen("matched_modules", None, matched),
        seen("trainable_parameters", None, trainable),
        seen("parameters", None, parameters),
    ]
    if trainable == 0 or matched == 0:
        cause = (
            f"The adapter matches {matched or 0} layers and {trainable or 0} weights are trainable: nothing is learned."
        )
        return _target_finding(observations, cause, evidence, Severity.FATAL, 0.97)
    # One layer for each name, in a model of many layers: the names are of one layer.
    single = matched is not None and matched <= max(1, len(names))
    if single or (share is not None and share < HARDLY_ANY):
        of = f", {percent(share)} of the model" if share is not None else ""
        what = f"{matched} layer{'' if matched == 1 else 's'}" if matched is not None else "few layers"
        cause = f"The adapter sits on {what} ({trainable} trainable weights{of}): far fewer than a plan for the whole "
        cause += "model would train."
        return _target_finding(observations, cause, evidence, Severity.HARMFUL, 0.85)
    return RuledOut(Symptom.LORA_TARGETS, f"{matched} layers and {trainable} weights are adapted")


def _matched(lora: Any) -> int | None:
    matched = lora.get("matched_modules")
    if isinstance(matched, list):
        return len(matched)
    return count(matched) if matched is not None else None


def _target_finding(
    observations: Observations, cause: str, evidence: Sequence[Any], severity: Severity, confidence: float
) -> Answer:
    return finding(
        observations,
        Symptom.LORA_TARGETS,
        Basis.DATA,
        severity=severity,
        confidence=confidence,
        evidence=list(evidence),
        cause=cause,
        key="lora_target_modules",
        suggested="all-linear",
        harm=0.9,
        runner_up="lora_r: a rank too low for the task",
        refuted_by="the same result with all linear layers adapted",
    )


def adapter_unused(observations: Observations) -> Answer:
    """The evaluated model answers word for word as the base model does, although training changed something."""
    after, before = observations.evaluation, observations.baseline
    if after is None or before is None:
        return None
    said = {s.id: s.response for s in before.samples if s.response is not None}
    pairs = [(s.response, said[s.id]) for s in after.samples if s.response is not None and s.id in said]
    if len(pairs) < ITEMS:
        return None
    share = sum(a == b for a, b in pairs) / len(pairs)
    if share <= IDENTICAL:
        return RuledOut(Symptom.ADAPTER_UNUSED, f"{percent(1 - share)} of {len(pairs)} answers differ from the base's")
    shape = shape_of(observations)
    learned = shape is not None and shape.fall > 0.3 and not observations.rate.far_below
    rewarded = _reward_rose(observations)
    if not (learned or rewarded) or (observations.share_right or 0.0) >= 0.95:
        return None  # nothing was learned, or nothing was left to learn: equal answers are no surprise
    evidence = [
        seen("identical_share", None, share),
        seen("n", None, len(pairs)),
        seen("value", None, after.value),
        seen("baseline", None, before.value),
    ]
    if shape is not None:
        evidence += [seen("loss", shape.series.first_step, shape.initial)]
        evidence += [seen("loss", shape.series.last_step, shape.final)]
    adapter = observations.recipe.get("use_peft") is True
    return finding(
        observations,
        Symptom.ADAPTER_UNUSED,
        Basis.ANSWERS,
        severity=Severity.HARMFUL,
        confidence=0.95,
        evidence=evidence,
        cause=f"{percent(share)} of {len(pairs)} answers are the base model's, word for word, although training "
        f"changed it: what was evaluated is not what was trained"
        f"{' (the adapter was not loaded or merged)' if adapter else ''}.",
        # The evaluator chose the weights: no line of the experiment did, unless the recipe names what to evaluate.
        key="eval_model" if "eval_model" in observations.recipe else None,
        runner_up="learning_rate: a change too small to show in greedy answers",
        refuted_by="a weight of the evaluated folder that differs from the base model's",
    )


def _reward_rose(observations: Observations) -> bool:
    reward = observed(observations, "reward")
    return len(reward) >= 10 and reward.tail(5) > reward.head(5) + 0.2


RULES = (
    Rule(
        Symptom.FROZEN,
        frozen,
        "SageMaker Debugger UnchangedTensor (3 steps); peft's troubleshooting guide; † zero norm five times",
        preflight=True,
        online=True,
    ),
    Rule(
        Symptom.LORA_TARGETS,
        lora_targets,
        "peft's troubleshooting guide: trainable parameters; † one layer for each name",
        preflight=True,
    ),
    Rule(
        Symptom.ADAPTER_UNUSED, adapter_unused, "peft's troubleshooting guide; unsloth issue 2142; 99 % equal answers †"
    ),
)
