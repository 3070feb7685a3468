"""The methods of post-training: what each trains on, which model it makes, and what stands beside its script."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ModelKind(StrEnum):
    """Which of transformers' automatic classes loads the result."""

    CAUSAL = "causal"
    REWARD = "reward"
    """A sequence classifier with one output."""
    TEXT_CLASSIFIER = "text_classifier"
    IMAGE_CLASSIFIER = "image_classifier"
    SPEECH = "speech"
    """A speech-to-text sequence-to-sequence model."""


@dataclass(frozen=True, slots=True)
class Method:
    """One value of the recipe's key `method`; its script is `templates/scripts/<name>.py`."""

    name: str
    title: str
    columns: tuple[str, ...]
    """Of a row of train.jsonl."""
    makes: ModelKind = ModelKind.CAUSAL
    lora: bool = True
    """`use_peft: true` makes sense."""
    generates: bool = False
    """It samples from the model while it trains."""
    audited: bool = False
    """A run may be refused for what `--audit_only` finds without the model's weights. Scripts for images and recordings
    have it too; what only those find is seldom fatal, and then ends the run at its step 0."""
    companions: tuple[str, ...] = ()
    """Files beside train.py that it imports; they ship in the same folder."""


_PAIR = ("prompt", "completion")
_REWARDS = ("rewards.py",)

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("sft", "supervised fine-tuning", _PAIR, audited=True),
        Method("dpo", "direct preference optimization", ("prompt", "chosen", "rejected"), audited=True),
        Method("grpo", "GRPO with verifiable rewards", _PAIR, generates=True, audited=True, companions=_REWARDS),
        Method("reward", "reward modelling", ("prompt", "chosen", "rejected"), makes=ModelKind.REWARD, audited=True),
        Method("rft", "rejection-sampling fine-tuning", _PAIR, generates=True, companions=_REWARDS),
        Method("distill", "distillation from a teacher", _PAIR, generates=True),
        Method("synthetic", "fine-tuning on verified synthetic data", _PAIR, generates=True, companions=_REWARDS),
        Method("pretrain", "causal language modelling", ("text",), audited=True),
        Method("classify", "text classification", ("text", "label"), makes=ModelKind.TEXT_CLASSIFIER, audited=True),
        Method("vision", "image classification", ("image", "label"), makes=ModelKind.IMAGE_CLASSIFIER, lora=False),
        Method("speech", "speech recognition", ("audio", "text"), makes=ModelKind.SPEECH),
    )
}
