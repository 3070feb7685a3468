"""Who gets a value: each finding with its stage and model settled, or left out with what is missing."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from bot.research.papers.findings import Evidence, Finding, LeftOut, Value
from bot.research.papers.programme import Programme
from bot.research.papers.stages import PREFERENCE_METHODS, RL_METHODS
from bot.research.papers.vocabulary import BY_KEY


@dataclass(frozen=True, slots=True)
class Sourced:
    """One value of a stage, with every place that gives it."""

    key: str
    value: Value
    unit: str
    variant: str
    """The model or setting it holds for; empty where the paper has one, or all have the same."""
    approximate: bool
    trl: str
    """TRL's key for it; empty where there is none."""
    evidence: tuple[Evidence, ...]

    @property
    def quote(self) -> str:
        return self.evidence[0].quote


@dataclass(frozen=True, slots=True)
class Conflict:
    """A value that the paper gives more than once and differently. None of them is chosen."""

    key: str
    variant: str
    values: tuple[tuple[Value, Evidence], ...]


@dataclass(frozen=True, slots=True)
class Settled:
    """What is known of one stage."""

    values: tuple[Sourced, ...]
    conflicts: tuple[Conflict, ...]
    left_out: tuple[LeftOut, ...]


_SPEAKS_OF_RL = re.compile(
    r"\b(?:rollouts?|actor|critic|policy gradient|GAE|advantages?)\b|\bKL (?:loss|coefficient|penalty)"
)
_OF_SAMPLING = frozenset(
    {
        "num_ppo_epochs",
        "total_episodes",
        "num_generations",
        "temperature",
        "top_p",
        "top_k",
        "num_iterations",
        "epsilon",
        "epsilon_high",
        "rollout_batch_size",
        "max_completion_length",
        "max_prompt_length",
        "lam",
        "gamma",
    }
)
_LENGTHS = frozenset({"max_completion_length", "max_prompt_length"})


def belongs(key: str, method: str) -> bool:
    """Whether a method has such a hyperparameter: SFT has no group size."""
    if method.startswith("stage "):
        return True
    if key in _LENGTHS:
        return method in RL_METHODS | PREFERENCE_METHODS | {"distill"}
    if key in _OF_SAMPLING:
        return method in RL_METHODS | {"distill"}
    return key != "beta" or method in RL_METHODS | PREFERENCE_METHODS | {"distill"}


def placed(found: Iterable[Finding], programme: Programme) -> tuple[dict[str, list[Finding]], list[LeftOut]]:
    """Findings by stage, and those left out because none is settled, or it has no such hyperparameter."""
    stages: dict[str, list[Finding]] = {}
    left_out: list[LeftOut] = []
    found = list(found)
    if _refuted([each for each in found if each.stage is None and not each.everywhere]):
        programme = replace(programme, alone=None)
    for each in found:
        methods = _stages_of(each, programme)
        if not methods:
            left_out.append(_without(each, "the stage it belongs to is not said"))
        for method in methods:
            if not belongs(each.key, method) or (method in RL_METHODS and _open_length(each)):
                left_out.append(_without(each, f"no hyperparameter of {method}"))
                continue
            # TRL's name for it in PPO.
            key = "num_ppo_epochs" if (each.key, method) == ("num_iterations", "ppo") else each.key
            stages.setdefault(method, []).append(replace(each, key=key, stage=method))
    for method, reason in _foreign_stages(stages, programme).items():
        left_out += [_without(each, reason) for each in stages.pop(method)]
    return stages, left_out


def _refuted(unnamed: list[Finding]) -> bool:
    """Whether values without a stage contradict each other: then there is more than one training after all."""
    said: dict[tuple[str, str], set[str]] = {}
    for each in unnamed:
        said.setdefault((each.key, each.variant), set()).add(_comparable(each.value))
    return any(len(values) > 1 for (key, _), values in said.items() if key in _OF_A_RUN)


_OF_A_RUN = frozenset(
    {"learning_rate", "global_batch_size", "num_train_epochs", "max_steps", "per_device_train_batch_size"}
)


def _without(finding: Finding, reason: str) -> LeftOut:
    return LeftOut(finding.key, f"{finding.key} = {finding.value}", reason, finding.evidence)


def _stages_of(finding: Finding, programme: Programme) -> tuple[str, ...]:
    if finding.stage == "?":
        return ()
    if finding.everywhere:
        return programme.every()
    if finding.stage is None:
        alone = programme.alone
        of_rl = _SPEAKS_OF_RL.search(finding.evidence.quote) is not None
        return () if alone is None or (of_rl and not belongs("beta", alone)) else (alone,)
    parts = finding.stage.split("+")
    methods = tuple(dict.fromkeys(method for part in parts if (method := programme.meant(part)) is not None))
    return methods if len(parts) == 1 or len(methods) == len(parts) else ()


def _foreign_stages(stages: dict[str, list[Finding]], programme: Programme) -> dict[str, str]:
    """Stages that are none of the paper's, and one number without a second."""
    reasons = {method: reason for method in stages if (reason := programme.foreign(method))}
    numbered = [method for method in stages if method.startswith("stage ")]
    if len(numbered) == 1:
        reasons[numbered[0]] = f"what {numbered[0]} is, is not said"
    return reasons


def _open_length(finding: Finding) -> bool:
    """`Max tokens` of a table on RL: of prompts, answers or both is not said."""
    name = finding.evidence.quote.partition(" = ")[0]
    told = re.search(r"sequence|context|model|total", name, re.IGNORECASE)
    return finding.key == "max_length" and finding.evidence.quote.startswith("Table") and told is None


def settled(found: list[Finding], *, several: bool = False) -> Settled:
    """The values of one stage, each once; what is said twice and differently is a conflict.

    `several`: the paper trains more than one model, so that what is said for one is that one's.
    """
    values: list[Sourced] = []
    conflicts: list[Conflict] = []
    left_out: list[LeftOut] = []
    models = {each.variant for each in found} - {""}
    for key in dict.fromkeys(each.key for each in found):
        mine, without = _by_model([each for each in found if each.key == key], models, several)
        good, bad = _once(mine)
        values += good
        conflicts += bad
        left_out += without
    return Settled(tuple(_with_warmup(values)), tuple(conflicts), tuple(left_out))


_OTHER_MODELS = re.compile(
    r"\bfor (?:the (?:rest|others?|remaining|smaller|larger)|all others?|others|smaller|larger)\b", re.IGNORECASE
)


def _by_model(found: list[Finding], models: set[str], several: bool) -> tuple[list[Finding], list[LeftOut]]:
    """A value that all models share, or that of the one model there is, is the stage's own; one without a model
    beside different ones that have theirs is nobody's."""
    variants = {each.variant for each in found} - {""}
    if not variants:
        return found, []
    agree = len({_comparable(each.value) for each in found}) == 1
    bare = [each for each in found if not each.variant]
    rest = any(_OTHER_MODELS.search(each.evidence.quote) for each in found if each.variant)
    whole = variants == models and (len(models) > 1 or not several)
    alone = len(models) == 1 and not several
    if not rest and ((agree and (whole or bare)) or alone):
        return [replace(each, variant="") for each in found], []
    if bare and not agree:
        reason = "said without a model, beside others that are said for one"
        return [each for each in found if each.variant], [_without(each, reason) for each in bare]
    carried = [each for each in found if each.carried]
    return [each for each in found if not each.carried], [
        _without(each, "the model it holds for is not said with it") for each in carried
    ]


def _once(found: list[Finding]) -> tuple[list[Sourced], list[Conflict]]:
    values: list[Sourced] = []
    conflicts: list[Conflict] = []
    for variant in dict.fromkeys(each.variant for each in found):
        mine = [each for each in found if each.variant == variant]
        different = {_comparable(each.value): each for each in mine}
        if len(different) > 1:
            said = tuple((each.value, each.evidence) for each in different.values())
            conflicts.append(Conflict(mine[0].key, variant, said))
            continue
        first = mine[0]
        term = BY_KEY.get(first.key)
        evidence = tuple(dict.fromkeys(each.evidence for each in mine))
        trl = term.trl if term else _TRL_WORDS.get(first.key, "")
        approximate = all(each.approximate for each in mine)
        values.append(Sourced(first.key, first.value, first.unit, variant, approximate, trl, evidence))
    return values, conflicts


def _with_warmup(values: list[Sourced]) -> list[Sourced]:
    """A constant rate after a warm-up is the schedule `constant_with_warmup`; `constant` has none."""
    warm = any(each.key in {"warmup_ratio", "warmup_steps"} and each.value for each in values)
    return [
        replace(each, value="constant_with_warmup")
        if warm and (each.key, each.value) == ("lr_scheduler_type", "constant")
        else each
        for each in values
    ]


_TRL_WORDS = {
    "lr_scheduler_type": "lr_scheduler_type", "optim": "optim", "packing": "packing", "precision": "bf16",
    "gradient_checkpointing": "gradient_checkpointing", "lora_target_modules": "lora_target_modules",
}  # fmt: skip


def _comparable(value: Value) -> str:
    return f"{float(value):.9g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
