"""What an injected fault is: how it changes a specimen, and which answers about it are right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from bot.zoo.specimen import Specimen

GROSS, MEDIUM, SUBTLE = "gross", "medium", "subtle"
SEVERITIES = (GROSS, MEDIUM, SUBTLE)
Shows = Literal["data", "training", "evaluation", "crash"]
RATE = ("learning_rate",)
LENGTH = ("max_steps", "num_train_epochs")
ROWS = ("data_sources", "train_file", "data/prepare.py")
SCRIPT = ("train.py",)
EVALUATOR: tuple[str, ...] = ()
"""The evaluator is no part of an experiment: the right answer blames no line."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One of the injected faults. Its number and name are for people who read the zoo, and reach no trace."""

    number: int
    name: str
    labels: tuple[str, ...]
    """Any of them, first among the diagnoses, is right."""
    keys: tuple[str, ...]
    """Recipe keys (or files) of which any counts as the right line: the one that was changed, and those that undo the
    change as well. Empty: no line of the experiment is to blame, and the right answer names none."""
    inject: Callable[[Specimen, str], None]
    """Changes the specimen to the given severity."""
    shows: Shows
    """Where it first shows: in the data or recipe, only while it trains, only in the evaluation, or by a crash."""
    settings: tuple[tuple[str, str], ...]
    """(method, task) by seed, in turn. `sft+` is SFT with LoRA."""
    severities: tuple[str, ...] = SEVERITIES
    neighbours: tuple[str, ...] = ()
    """Labels that are right too when nothing was tuned on this fault."""
    held_out: bool = False
    held_out_severity: str = ""
    fails: tuple[str, ...] = ()
    """Severities at which the run ends with an error. Of any other an error is a mistake of the zoo's, not a trace."""

    def setting(self, seed: int) -> tuple[str, str, bool]:
        """(method, task, LoRA) of a seed."""
        method, task = self.settings[seed % len(self.settings)]
        return method.rstrip("+"), task, method.endswith("+")


def choice(severity: str, gross: object, medium: object, subtle: object) -> object:
    return {GROSS: gross, MEDIUM: medium, SUBTLE: subtle}[severity]


def on(method: str, *tasks: str) -> tuple[tuple[str, str], ...]:
    return tuple((method, task) for task in tasks)
