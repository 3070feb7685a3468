"""A repository's policy as a value: what is granted there without asking, and the ceilings of what may be asked for.

The defaults grant nothing that costs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

from bot.conversation.permissions import Tier, permission_reaches
from bot.domain.goal import Budget, Goal
from bot.domain.inert import code

NO_LICENCE = "LicenseRef-none"
"""Allows nothing, where an empty list would allow everything: no licence has this name."""

DEFAULT_RECIPE_KEYS = (
    "learning_rate",
    "num_train_epochs",
    "max_steps",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "max_length",
    "warmup_steps",
    "warmup_ratio",
    "lr_scheduler_type",
    "max_grad_norm",
    "weight_decay",
    "packing",
    "completion_only_loss",
    "assistant_only_loss",
    "eos_token",
    "use_peft",
    "lora_r",
    "lora_alpha",
    "lora_dropout",
    "gradient_checkpointing",
    "data_prompt_column",
    "data_completion_column",
    "data_deduplicate",
    "data_max_rows",
    "data_validation_rows",
    "optim",
    "adam_beta2",
    "label_smoothing_factor",
    "fp16",
    "bf16",
    "dtype",
    "use_liger_kernel",
    "mask_truncated_completions",
    "max_completion_length",
    "pad_token",
    "lora_target_modules",
    "beta",
    "loss_type",
    "loss_weights",
    "epsilon_high",
    "temperature",
    "num_generations",
    "vllm_importance_sampling_correction",
    "dataloader_num_workers",
    "ddp_timeout",
    "save_strategy",
    "save_total_limit",
    "data_chosen_column",
    "data_rejected_column",
    "data_text_column",
    "data_label_column",
    "data_messages_column",
    "data_system_column",
    "data_tools_column",
)
"""Keys that Postdoc may change from run to run inside one consent; none of them brings in new data or code."""


_BRAIN = {
    "ask": "The language model answers questions here and proposes nothing.",
    "off": "No language model is asked here.",
}


@dataclass(frozen=True, slots=True)
class Labels:
    goal: str = "postdoc"
    """The label that makes an issue written in prose a goal."""


@dataclass(frozen=True, slots=True)
class AutoApprove:
    """What a goal may spend without a person's word. All zero: every goal asks."""

    runs: int = 0
    gpu_hours: float = 0.0
    usd: float = 0.0
    recipe_keys: tuple[str, ...] = DEFAULT_RECIPE_KEYS
    scripts: tuple[str, ...] = ()
    """Of an experiment's folder, that the language model may rewrite."""


@dataclass(frozen=True, slots=True)
class Month:
    """Ceilings of all goals of the repository together, for a calendar month (UTC)."""

    usd: float = 100.0
    gpu_hours: float = 100.0


@dataclass(frozen=True, slots=True)
class Publish:
    """Where `/postdoc publish` puts a model."""

    namespace: str = ""
    """User or organisation on the Hub; empty: the server's own."""
    private: bool = True
    on_merge: bool = False
    """True: a goal that was met is published when its pull request is merged, without being asked."""


class Cut(NamedTuple):
    """A setting that the server's policy has lowered."""

    path: str
    """`consent.auto_approve.runs`, for example."""
    asked: Any
    allowed: Any


@dataclass(frozen=True, slots=True)
class Policy:
    labels: Labels = field(default_factory=Labels)
    budget: Budget = field(default_factory=lambda: Budget(usd=20.0, gpu_hours=8.0, runs=8, wall_hours=72.0))
    """Ceilings: a goal that asks for more is refused."""
    month: Month = field(default_factory=Month)
    consent: AutoApprove = field(default_factory=AutoApprove)
    self_approve_usd: float = 20.0
    """Above this budget the author of a goal cannot be the only one who agrees to what Postdoc wrote for it."""
    permissions: Mapping[Tier, str] = field(
        default_factory=lambda: {Tier.READ: "read", Tier.PLAN: "write", Tier.TRAIN: "write", Tier.ADMIN: "admin"}
    )
    """Repository role that each tier needs."""
    licences_allowed: tuple[str, ...] = ()
    """Empty: any licence that is known."""
    data_urls: tuple[str, ...] = ()
    """Prefixes of the addresses that a goal's training data may be fetched from."""
    publish: Publish = field(default_factory=Publish)
    skip_ci: bool = False
    """True: commits made by Postdoc carry `[skip ci]`."""
    monitor: str = "abort"
    """What happens to a run that is doomed: `abort` ends it, `advise` says so, `off` does not look."""
    contamination: str = "block"
    """What becomes of training data with rows that hold evaluation items: `block` refuses it, `drop` trains on the
    other rows."""
    brain: str = "propose"
    """What the language model may do: `propose` changes and answer, `ask`: answer alone, `off`: nothing."""
    usd_per_hour: float = 0.0
    """Price of an hour on the repository's own machines."""
    stated: frozenset[str] | None = field(default=None, compare=False)
    """Paths of the settings that were written down, the others being defaults; None: all of them count as written."""
    cuts: tuple[Cut, ...] = field(default=(), compare=False)
    """Where the server's policy allows less than this repository's asks for."""

    def bounded_by(self, server: Policy | None) -> Policy:
        """This policy, no looser anywhere than what the server's states; what was lowered is in `cuts`."""
        from bot.conversation.policy.bounds import bounded  # which needs this class

        return self if server is None else bounded(self, server)

    def allows(self, tier: Tier, granted: str) -> bool:
        """True when somebody with the repository role `granted` may do what `tier` covers."""
        return permission_reaches(granted, self.permissions[tier])

    def grants(self, goal: Goal) -> bool:
        """True when the whole of `goal`'s budget is granted without asking."""
        given, wanted = self.consent, goal.budget
        return 0 < wanted.runs <= given.runs and wanted.gpu_hours <= given.gpu_hours and wanted.usd <= given.usd

    def default_budget(self) -> Budget:
        """What a goal that names no budget gets: the usual one, cut to the ceilings, and no money."""
        usual, top = Budget(), self.budget
        return Budget(
            usd=0.0,
            gpu_hours=min(usual.gpu_hours, top.gpu_hours),
            runs=min(usual.runs, top.runs),
            wall_hours=min(usual.wall_hours, top.wall_hours),
        )

    def lines(self) -> list[str]:
        """What the policy says, as sentences."""
        given, top = self.consent, self.budget
        if given.runs:
            granted = f"{_runs(given.runs)}, {_hours(given.gpu_hours)} and {given.usd:g} USD"
            first = f"Granted without asking, per goal: up to {granted}."
        else:
            first = "Nothing is granted without asking: the first run waits for a person's consent."
        ceilings = f"{_runs(top.runs)}, {_hours(top.gpu_hours)}, {top.usd:g} USD and {top.wall_hours:g} hours in all"
        lines = [first, f"Ceilings of a goal: {ceilings}."]
        if self.brain != "propose":
            lines.append(_BRAIN[self.brain])
        if self.licences_allowed:
            lines.append(f"Licences allowed: {', '.join(code(name, 60) for name in self.licences_allowed)}.")
        if self.cuts:
            lines.append(f"This server allows less than the repository's policy: {'; '.join(cut_words(self.cuts))}.")
        return lines

    def as_dict(self) -> dict[str, Any]:
        return {
            "labels": asdict(self.labels),
            "budget": asdict(self.budget),
            "month": asdict(self.month),
            "consent": {
                "auto_approve": asdict(self.consent)
                | {"recipe_keys": list(self.consent.recipe_keys), "scripts": list(self.consent.scripts)},
                "self_approve_usd": self.self_approve_usd,
            },
            "permissions": {str(tier): role for tier, role in self.permissions.items()},
            "licences": {"allowed": list(self.licences_allowed)},
            "data": {"urls": list(self.data_urls)},
            "publish": asdict(self.publish),
            "commits": {"skip_ci": self.skip_ci},
            "monitor": self.monitor,
            "contamination": self.contamination,
            "brain": self.brain,
            "usd_per_hour": self.usd_per_hour,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Policy:
        """The policy that `as_dict` wrote; absent settings have their default, unknown ones are a newer version's."""
        from bot.conversation.policy.form import PolicyForm  # which needs this class

        return replace(PolicyForm.model_validate(dict(data), extra="ignore").policy(), stated=settings_in(data))


def skip_ci_trailer(policy: Policy) -> str:
    """What a commit message of Postdoc's carries by this policy; empty when it carries nothing.

    A paragraph of the body, before the trailers: GitHub reads it anywhere in the message.
    https://docs.github.com/en/actions/how-tos/manage-workflow-runs/skip-workflow-runs
    """
    return "[skip ci]\n\n" if policy.skip_ci else ""


def cut_words(cuts: Sequence[Cut]) -> list[str]:
    """`consent.auto_approve.runs` 6 → 4, for each setting that the server's policy has lowered."""
    return [f"{code(cut.path, 60)} {_shown(cut.asked)} → {_shown(cut.allowed)}" for cut in cuts]


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        value = [each for each in value if each != NO_LICENCE]
        listed = ", ".join(code(each, 80) for each in value[:20])
        return listed + (f" and {len(value) - 20} more" if len(value) > 20 else "") if value else "none named"
    return str(value) if isinstance(value, int) else code(value, 80)


def settings_in(values: Mapping[str, Any], above: str = "") -> frozenset[str]:
    """Dotted paths of the settings in a mapping of mappings."""
    found: set[str] = set()
    for name, value in values.items():
        found |= settings_in(value, f"{above}{name}.") if isinstance(value, Mapping) else {f"{above}{name}"}
    return frozenset(found)


def _hours(value: float) -> str:
    return "1 GPU hour" if value == 1 else f"{value:g} GPU hours"


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"
