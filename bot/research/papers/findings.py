"""What is found in a paper before it is put together: values with the words they stand in."""

from __future__ import annotations

from dataclasses import dataclass, replace

Value = float | int | str | bool


@dataclass(frozen=True, slots=True)
class Evidence:
    quote: str
    """The sentence, or the table's cell with its row and column."""
    section: str
    url: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One value of one hyperparameter as one place of the paper gives it."""

    key: str
    value: Value
    evidence: Evidence
    stage: str | None = None
    """Method that it belongs to; None where the place does not say."""
    everywhere: bool = False
    """The words say that it holds for all stages."""
    variant: str = ""
    """Model, data or setting that it holds for, where the paper trains several: `7B`, `Qwen2.5-Math`."""
    unit: str = ""
    approximate: bool = False
    carried: bool = False
    """The model is that of a sentence before."""

    def of(self, stage: str | None) -> Finding:
        return replace(self, stage=stage)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A value that was seen and not taken, with the reason; for whoever wants to look it up."""

    key: str
    said: str
    reason: str
    evidence: Evidence
