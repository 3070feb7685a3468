"""A diagnosis: what was observed in a run, what most likely caused it, and the line of the recipe that it blames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class Symptom(StrEnum):
    """Labels of the field, one per failure that a run can show."""

    DIVERGENCE = "divergence"
    LOSS_SPIKE = "loss_spike"
    GRAD_EXPLOSION = "grad_explosion"
    NAN_INF = "nan_inf"
    PLATEAU = "plateau"
    FROZEN = "frozen"
    OVERFIT = "overfit"
    FORGETTING = "forgetting"
    MISSING_EOS = "missing_eos"
    PAD_EQ_EOS = "pad_eq_eos"
    TEMPLATE_MISMATCH = "template_mismatch"
    ASSISTANT_MASK_EMPTY = "assistant_mask_empty"
    ALL_LABELS_MASKED = "all_labels_masked"
    TRUNCATION = "truncation"
    WRONG_COLUMNS = "wrong_columns"
    DUPLICATES = "duplicates"
    IMBALANCE = "imbalance"
    CONTAMINATION = "contamination"
    LABEL_NOISE = "label_noise"
    LANGUAGE_MISMATCH = "language_mismatch"
    PACKING_LEAK = "packing_leak"
    TOKENIZER = "tokenizer"
    EMBEDDING = "embedding"
    LORA_TARGETS = "lora_targets"
    ADAPTER_UNUSED = "adapter_unused"
    DTYPE = "dtype"
    DPO_OVERSHOOT = "dpo_overshoot"
    DPO_FLIPPED = "dpo_flipped"
    DPO_DISPLACEMENT = "dpo_displacement"
    REWARD_ZERO = "reward_zero"
    ZERO_STD = "zero_std"
    ENTROPY_COLLAPSE = "entropy_collapse"
    KL_BLOWUP = "kl_blowup"
    REWARD_INVERTED = "reward_inverted"
    LENGTH_HACK = "length_hack"
    REWARD_HACK = "reward_hack"
    CLIPPED_COMPLETIONS = "clipped_completions"
    ROLLOUT_MISMATCH = "rollout_mismatch"
    EXTRACTION_FAIL = "extraction_fail"
    EVAL_PROMPT_MISMATCH = "eval_prompt_mismatch"
    OOM = "oom"
    NCCL_TIMEOUT = "nccl_timeout"
    HOST_OOM = "host_oom"
    DISK_FULL = "disk_full"
    STALL = "stall"
    JOB_TIMEOUT = "job_timeout"
    AUTH = "auth"
    DATASET_SCRIPT = "dataset_script"
    RATE_LIMIT = "rate_limit"
    DEPS = "deps"
    SCRIPT_ERROR = "script_error"
    UNKNOWN = "unknown"


class Severity(StrEnum):
    FATAL = "fatal"
    """The run produced nothing usable."""
    HARMFUL = "harmful"
    """The run is worse than it could be because of this."""
    ADVICE = "advice"
    """Worth knowing; a report with nothing but advice means healthy."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """One number that was observed: a metric's or a measurement's key, the training step (None for data), the value."""

    key: str
    step: int | None
    value: float | int | str | None


@dataclass(frozen=True, slots=True)
class Diagnosis:
    symptom: Symptom
    severity: Severity
    confidence: float
    """In [0, 1]."""
    evidence: tuple[Evidence, ...]
    cause: str
    """One sentence a person can check, with the numbers in it."""
    file: str = "recipe.yaml"
    line: int | None = None
    """1-based line of `file` that sets `key`; None when no line sets it (the comment goes to the file)."""
    key: str | None = None
    suggested: Any = None
    """The value that `key` should have; None when no single value follows from the evidence."""
    runner_up: str | None = None
    """The second most likely cause."""
    refuted_by: str = ""
    """The observation that would prove this diagnosis wrong."""
    certain_at: int | None = None
    """The training step from whose record on the evidence sufficed; None when it rests on nothing that training
    showed (data, log), or on what came after it (answers)."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {
            "symptom": str(self.symptom),
            "severity": str(self.severity),
            "evidence": [asdict(item) for item in self.evidence],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Diagnosis:
        fields = {key: data[key] for key in cls.__dataclass_fields__ if key in data}
        fields["symptom"] = Symptom(data["symptom"])
        fields["severity"] = Severity(data["severity"])
        fields["evidence"] = tuple(
            Evidence(**{key: item[key] for key in Evidence.__dataclass_fields__ if key in item})
            for item in data.get("evidence", ())
        )
        return cls(**fields)


@dataclass(frozen=True, slots=True)
class DiagnosisReport:
    """All that was found in one run, most harmful first, and what was looked for and not found."""

    diagnoses: tuple[Diagnosis, ...] = field(default=())
    ruled_out: tuple[str, ...] = field(default=())

    @property
    def healthy(self) -> bool:
        return all(diagnosis.severity is Severity.ADVICE for diagnosis in self.diagnoses)

    def as_dict(self) -> dict[str, Any]:
        return {"diagnoses": [d.as_dict() for d in self.diagnoses], "ruled_out": list(self.ruled_out)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> DiagnosisReport:
        return cls(tuple(Diagnosis.from_dict(d) for d in data["diagnoses"]), tuple(data.get("ruled_out", ())))


def verdict_in(status: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a job's wrapper ended it for, as its status (`JobStatus.as_dict()`) tells it; None where it did not.

    A wrapper of another version may name what this one does not know: then it is unknown, and the job was still ended.
    """
    found = status.get("judged")
    if not isinstance(found, Mapping):
        return None
    told = {"tier": "soft", "step": 0, "total_steps": None, "worth_saving": False, "signals": [], **found}
    try:
        named = [Diagnosis.from_dict(each).as_dict() for each in told["diagnoses"]]
        told["step"] = int(told["step"])
    except (LookupError, TypeError, ValueError):
        named, told["step"] = [], 0
    unknown = Diagnosis(
        Symptom.UNKNOWN, Severity.HARMFUL, 0.5, (),
        "The wrapper beside the job ended it for something that this version of Postdoc has no name for.",
        refuted_by="the same run, watched by a wrapper of this version",
    )  # fmt: skip
    return {**told, "diagnoses": named or [unknown.as_dict()]}
