"""All that a rule may look at: a run's recipe, curves, rows, answers, audit and end, as frozen values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from bot.diagnosis.learning_rates import Rate, rate_of
from bot.diagnosis.readings import Record, count, finite
from bot.domain.evaluation import Evaluation
from bot.domain.methods import METHODS
from bot.domain.metrics import METRICS
from bot.domain.recipe import line_of

T = TypeVar("T")

# Names that other trainers' configurations use for keys that the rules know under TRL's name. Axolotl's:
# https://docs.axolotl.ai/docs/config-reference.html, and LLaMA-Factory's cutoff_len.
ALIASES: Mapping[str, tuple[str, ...]] = {
    "per_device_train_batch_size": ("micro_batch_size",),
    "max_length": ("sequence_len", "cutoff_len"),
    "num_train_epochs": ("num_epochs",),
    "lr_scheduler_type": ("lr_scheduler",),
    "packing": ("sample_packing",),
    "init_from": ("model_name_or_path", "base_model"),
    "lora_target_modules": ("target_modules",),
    "lora_modules_to_save": ("modules_to_save",),
    "reward_functions": ("reward_funcs",),
    "train_file": ("datasets",),
}

# Keys that tell whose defaults hold where a recipe is silent: Postdoc's own, or transformers' where none of another
# trainer's stands beside them.
_OURS = ("method", "init_from")
_TRANSFORMERS = ("num_train_epochs", "per_device_eval_batch_size", "lr_scheduler_type", "model_name_or_path")
_OF_OTHERS = (
    "micro_batch_size", "sequence_len", "num_epochs", "sample_packing", "base_model", "adapter", "batch_size",
    "finetuning_type", "cutoff_len", "stage",
)  # fmt: skip
_STAGES = {"pt": "pretrain", "rm": "reward"}
"""LLaMA-Factory's short words for a method, beside sft and dpo: https://llamafactory.readthedocs.io/en/latest/"""


@dataclass(frozen=True, slots=True)
class Row:
    """One training or evaluation example, reduced to text. None where the row has no such part."""

    prompt: str | None
    completion: str | None
    """For a preference pair the chosen answer, for a classified text its label."""
    rejected: str | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer that the model gave while it trained, with what each reward function made of it."""

    step: int
    prompt: str
    completion: str
    reference: str | None
    rewards: Mapping[str, float]
    """Finite values only."""
    finish: str
    """`stop` or `length`."""


@dataclass(frozen=True, slots=True)
class Fresh:
    """The score on rows of the same kind that nothing else uses."""

    value: float
    n: int


@dataclass(frozen=True, slots=True)
class OldTask:
    """A task that the base model knew, before and after training."""

    name: str
    before: float
    after: float
    n: int


@dataclass(frozen=True, slots=True)
class Observations:
    """Everything a rule may look at. Numbers in `steps` and `evals` are floats, NaN and infinity included."""

    recipe_text: str
    recipe: Mapping[str, Any]
    """Normalised: numeric strings are numbers. Keys under other trainers' names (`ALIASES`) are there twice."""
    steps: tuple[Record, ...] = ()
    """Training records in order of `step`, one per step."""
    evals: tuple[Record, ...] = ()
    """Records with `eval_*` keys, in order of `step`."""
    probes: tuple[Record, ...] = ()
    """Records with `probe/*` keys: a few greedy answers while it trains, asked as the model will be served."""
    log: str = ""
    evaluation: Evaluation | None = None
    baseline: Evaluation | None = None
    fresh: Fresh | None = None
    old_tasks: tuple[OldTask, ...] = ()
    goal: Mapping[str, Any] = field(default_factory=dict)
    """target, metric, language."""
    audit: Mapping[str, Any] = field(default_factory=dict)
    train_rows: tuple[Row, ...] = ()
    train_columns: tuple[str, ...] = ()
    """Columns of train.jsonl as they are, sorted."""
    eval_rows: tuple[Row, ...] = ()
    completions: tuple[Completion, ...] = ()
    job: Mapping[str, Any] = field(default_factory=dict)
    setup: Mapping[str, Any] = field(default_factory=dict)
    """What the script wrote when training began: planned max_steps, parameters."""
    hardware: Mapping[str, Any] = field(default_factory=dict)
    """What it needs of its machine by estimate: needed_gib, available_gib, machine, changes."""
    timing: Mapping[str, Any] = field(default_factory=dict)
    """What a timing probe measured: seconds_per_step."""
    closed: bool = False
    """The trainer wrote the record with which it ends, so training came to its end by itself."""
    running: bool = False
    """The run goes on, or was ended on its way: records end where they end because nothing later has happened."""
    memo: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """What rules have derived from the rest, so that each derivation is made once."""

    def once(self, name: str, derive: Callable[[], T]) -> T:
        """`derive()`, remembered under `name`."""
        if name not in self.memo:
            self.memo[name] = derive()
        found: T = self.memo[name]
        return found

    def until(self, step: int) -> Observations:
        """What could be seen of this run when its record of `step` had just been written."""
        return replace(
            self,
            steps=tuple(r for r in self.steps if r["step"] <= step),
            evals=tuple(r for r in self.evals if r["step"] <= step),
            probes=tuple(r for r in self.probes if r["step"] <= step),
            completions=tuple(c for c in self.completions if c.step <= step),
            log="",
            closed=False,
            evaluation=None,
            baseline=None,
            fresh=None,
            old_tasks=(),
            job={},
            setup={k: v for k, v in self.setup.items() if step >= 3 or k != "frozen_after_3_steps"},
            running=True,
            memo={},
        )

    # --- The recipe ---------------------------------------------------------------------------------------------------

    def line(self, key: str) -> int | None:
        return line_of(self.recipe_text, key)

    def first_key(self, *keys: str) -> str:
        """The first of `keys` that the recipe sets, else the first of them."""
        return next((key for key in keys if key in self.recipe), keys[0])

    def written_as(self, key: str) -> str:
        """The name under which the recipe sets `key`: its own, or another trainer's."""
        names = (key, *ALIASES.get(key, ()))
        return next((name for name in names if self.line(name) is not None), key)

    @property
    def defaults_hold(self) -> bool:
        """What TRL and transformers take where the recipe is silent is known to have held: it is a recipe of Postdoc's,
        or one in their arguments and in no other trainer's."""
        said = {name for name in (*_OURS, *_TRANSFORMERS, *_OF_OTHERS) if self.line(name) is not None}
        return bool(said.intersection(_OURS)) or (bool(said) and not said.intersection(_OF_OTHERS))

    def setting(self, key: str, default: float) -> float:
        """A numeric key of the recipe, `default` (TRL's, most often) when it is absent or no number."""
        value = finite(self.recipe[key]) if self.recipe.get(key) is not None else None
        return default if value is None else value

    @property
    def named_method(self) -> str | None:
        """The method that the recipe or the setup names; None where it is none of ours, or nobody says."""
        said = (self.recipe.get(key) for key in ("method", "rl", "stage"))
        named = str(next(filter(None, said), None) or self.setup.get("method") or "").lower()
        named = _STAGES.get(named, named)
        return named if named in METHODS else None

    @property
    def method(self) -> str:
        """The named method, or the one whose trainer logs keys like these."""
        if self.named_method is not None:
            return self.named_method
        keys = {key for record in (*self.steps[:3], *self.evals[:1]) for key in record}
        if keys & {"rewards/margins", "rewards/accuracies", "logps/chosen"}:
            return "dpo"
        if keys & {"reward", "frac_reward_zero_std", "completions/mean_length"}:
            return "grpo"
        if keys & {"min_reward", "max_reward"}:
            return "reward"
        if "eval_wer" in keys:
            return "speech"
        return "classify" if "eval_accuracy" in keys and "mean_token_accuracy" not in keys else "sft"

    @property
    def reinforcement(self) -> bool:
        """GRPO's and RLOO's loss hovers around zero in healthy runs; no rule about losses applies."""
        return any("reward" in record for record in self.steps[:5])

    @property
    def imitation(self) -> bool:
        """It learns to repeat answers to prompts, so losses, token accuracies and rows are about the same thing."""
        return self.method in ("sft", "distill", "rft", "synthetic") and not self.reinforcement

    @property
    def preference(self) -> bool:
        return self.method == "dpo"

    @property
    def rate(self) -> Rate:
        """The learning rate beside the band of this model and method."""
        return self.once("rate", self._rate)

    def _rate(self) -> Rate:
        parameters = finite(self.setup["parameters"]) if self.setup.get("parameters") is not None else None
        recipe = self.recipe
        if recipe.get("learning_rate") is None and not self.defaults_hold:
            # The highest that was logged: a schedule warms up to the recipe's own and decays from it.
            logged = [rate for r in self.steps if (rate := finite(r.get("learning_rate", 0.0))) is not None]
            recipe = {**recipe, "learning_rate": max(logged, default=None)}
        return rate_of(recipe, parameters, self.method)

    # --- How far it came ----------------------------------------------------------------------------------------------

    @property
    def last_step(self) -> int:
        """Of the last training record; 0 before the first."""
        return int(self.steps[-1]["step"]) if self.steps else 0

    @property
    def planned_steps(self) -> int | None:
        """Steps the run was meant to take: what the script counted, max_steps, or epochs over those of its records."""
        if (planned := count(self.setup.get("max_steps", "")) or 0) > 0:
            return planned
        steps = finite(self.recipe["max_steps"]) if self.recipe.get("max_steps") is not None else None
        if steps is not None and steps > 0:
            return count(steps)
        epochs = [(r["step"], r["epoch"]) for r in self.steps if math.isfinite(r.get("epoch", math.nan))]
        if epochs and epochs[-1][1] > 0:
            # transformers' default is three epochs.
            return count(self.setting("num_train_epochs", 3.0) / epochs[-1][1] * epochs[-1][0])
        return None

    @property
    def warm_up_steps(self) -> int:
        """Steps over which the schedule raises the rate, as the script counted them or the recipe says."""
        told = count(self.audit["warm_up_steps"]) if self.audit.get("warm_up_steps") is not None else None
        if told is not None:
            return told
        steps = self.setting("warmup_steps", 0.0)
        share = steps if 0 < steps < 1 else self.setting("warmup_ratio", 0.0)
        return round(min(1e12, share * (self.planned_steps or self.last_step))) if share else int(min(1e12, steps))

    @property
    def finished(self) -> bool:
        """Something says that training ended by itself: its job succeeded, its model was evaluated, or the trainer
        wrote its last record."""
        done = self.evaluation is not None or self.closed
        return self.job.get("state") == "succeeded" or (done and not self.failed)

    @property
    def failed(self) -> bool:
        return self.job.get("state") in ("failed", "lost") or self.job.get("failure") is not None

    # --- What came out ------------------------------------------------------------------------------------------------

    @property
    def target(self) -> float | None:
        return finite(self.goal["target"]) if self.goal.get("target") is not None else None

    @property
    def lower_is_better(self) -> bool:
        """The metric counts errors."""
        metric = str(self.goal.get("metric") or (self.evaluation.metric if self.evaluation else "")).lower()
        known = METRICS.get(metric)
        return metric in ERRORS_OF_OTHERS if known is None else not known.higher_is_better

    @property
    def share_right(self) -> float | None:
        """The score as a share of right answers; None without one, and of metrics that are none: perplexity, errors."""
        if self.evaluation is None or self.lower_is_better or not 0 <= self.evaluation.value <= 1:
            return None
        return self.evaluation.value

    @property
    def gain(self) -> float | None:
        """How much better than the base model, in the metric's unit; None without both."""
        if self.evaluation is None or self.baseline is None:
            return None
        difference = self.evaluation.value - self.baseline.value
        return -difference if self.lower_is_better else difference

    @property
    def shortfall(self) -> float | None:
        """How far the value is from the target: above 0 it was missed. None without both."""
        if self.target is None or self.evaluation is None:
            return None
        difference = self.target - self.evaluation.value
        return -difference if self.lower_is_better else difference

    @property
    def met(self) -> bool:
        return self.shortfall is not None and self.shortfall <= 0

    @property
    def missed(self) -> bool:
        return self.shortfall is not None and self.shortfall > 0

    @property
    def poor(self) -> bool:
        """The outcome is bad enough to look for a cause: the target was missed by far, or, where no target was named,
        less than half of the answers are right."""
        if self.target is None:
            return self.evaluation is not None and not self.lower_is_better and self.evaluation.value < 0.5
        return self.missed_by_far

    @property
    def unimproved(self) -> bool:
        """Training did not help: the target was missed by far, or, where no target was named, the score is not above
        the base model's by two standard errors."""
        if self.target is not None or self.gain is None:
            return self.missed_by_far
        return self.gain <= max(0.02, 2 * self._error)

    @property
    def worse_than_base(self) -> bool:
        """The base model was better by more than two standard errors."""
        return self.gain is not None and -self.gain > max(0.02, 2 * self._error)

    @property
    def _error(self) -> float:
        errors = [e.standard_error for e in (self.evaluation, self.baseline) if e is not None]
        return math.hypot(*errors) if errors else 0.0

    @property
    def missed_by_far(self) -> bool:
        """The gap to the target is more than sampling noise (two standard errors) and at least five points."""
        if self.shortfall is None or self.evaluation is None:
            return False
        return self.shortfall >= max(0.05, 2 * self.evaluation.standard_error)

    # --- Nested parts of the audit, whatever lies there ---------------------------------------------------------------

    def part(self, name: str) -> Mapping[str, Any]:
        """A mapping inside the audit (`template`, `lora`, ...), empty when it is something else."""
        found = self.audit.get(name)
        return found if isinstance(found, dict) else {}

    def counted(self, name: str, part: str | None = None) -> int | None:
        """A count of the audit, None when it was not written."""
        holder = self.audit if part is None else self.part(part)
        return count(holder[name]) if holder.get(name) is not None else None


ERRORS_OF_OTHERS = frozenset({"word_perplexity", "byte_perplexity", "loss", "eval_loss"})
"""Metrics of which less is more, as other evaluators call them."""
