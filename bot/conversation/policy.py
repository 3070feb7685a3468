"""A repository's policy, `.github/postdoc.yml` on its default branch: what is granted there without asking.

The defaults grant nothing that costs. Not covered: the server's own policy, which is an upper bound of this one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from bot.conversation.inert import code
from bot.conversation.permissions import Tier, permission_reaches
from bot.conversation.recipe_rules import key_problem
from bot.conversation.yaml_reader import Limits, Place, read_mapping
from bot.domain.goal import Budget, Goal

POLICY_PATH = ".github/postdoc.yml"
_LIMITS = Limits(bytes=65_536, keys=400, depth=4)

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
)
"""Keys that Postdoc may change from run to run inside one consent; none of them brings in new data or code."""


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
    usd_per_hour: float = 0.0
    """Price of an hour on the repository's own machines."""

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
        if self.licences_allowed:
            lines.append(f"Licences allowed: {', '.join(code(name, 60) for name in self.licences_allowed)}.")
        return lines

    def as_dict(self) -> dict[str, Any]:
        return {
            "labels": asdict(self.labels),
            "budget": asdict(self.budget),
            "month": asdict(self.month),
            "consent": {
                "auto_approve": asdict(self.consent) | {"recipe_keys": list(self.consent.recipe_keys)},
                "self_approve_usd": self.self_approve_usd,
            },
            "permissions": {str(tier): role for tier, role in self.permissions.items()},
            "licences": {"allowed": list(self.licences_allowed)},
            "data": {"urls": list(self.data_urls)},
            "publish": asdict(self.publish),
            "commits": {"skip_ci": self.skip_ci},
            "usd_per_hour": self.usd_per_hour,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Policy:
        """The policy that `as_dict` wrote; what is absent has its default, what is unknown here is left out."""
        return _PolicyModel.model_validate(dict(data), extra="ignore").policy()


class ParsedPolicy(NamedTuple):
    policy: Policy | None
    problems: list[str]
    """Each begins with `line:column`."""


def parse_policy(text: str) -> ParsedPolicy:
    """The policy in the text of `.github/postdoc.yml`. Never raises; an empty file is the default policy."""
    document = read_mapping(text, _LIMITS)
    if document.problems:
        return ParsedPolicy(None, [str(problem) for problem in document.problems])
    try:
        return ParsedPolicy(_PolicyModel.model_validate(document.values or {}).policy(), [])
    except ValidationError as error:
        problems = [_sentence(dict(detail), document.places) for detail in error.errors(include_url=False)]
        return ParsedPolicy(None, sorted(set(problems), key=_place_of))


def policy_schema() -> dict[str, Any]:
    """JSON Schema of `.github/postdoc.yml`, for editors and for `# yaml-language-server`."""
    schema = _PolicyModel.model_json_schema(by_alias=True)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "Postdoc's policy of a repository"
    return schema


# --- the file's form

_Role = Literal["read", "triage", "write", "maintain", "admin"]
_Amount = Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)]
_Hours = Annotated[float, Field(ge=0, le=100_000, allow_inf_nan=False)]
_Runs = Annotated[int, Field(ge=0, le=1_000)]


class _Model(BaseModel):
    # Strict, because `runs: "many"` or `usd: yes` is a slip that must not turn into a number.
    model_config = ConfigDict(extra="forbid", strict=True)


class _LabelsModel(_Model):
    goal: Annotated[str, Field(min_length=1, max_length=50, description="Label that makes an issue a goal.")] = (
        "postdoc"
    )


class _BudgetModel(_Model):
    usd: _Amount = 20.0
    gpu_hours: _Hours = 8.0
    runs: Annotated[int, Field(ge=1, le=1_000)] = 8
    wall_hours: Annotated[float, Field(gt=0, le=100_000, allow_inf_nan=False)] = 72.0


class _AutoApproveModel(_Model):
    runs: _Runs = 0
    gpu_hours: _Hours = 0.0
    usd: _Amount = 0.0
    recipe_keys: Annotated[list[str], Field(max_length=200)] = list(DEFAULT_RECIPE_KEYS)

    @field_validator("recipe_keys")
    @classmethod
    def _known_keys(cls, keys: list[str]) -> list[str]:
        for key in keys:
            if key_problem(key) is not None:
                raise ValueError(f"{code(key, 60)} is not a recipe key that may change")
        return keys


class _ConsentModel(_Model):
    auto_approve: _AutoApproveModel = Field(default_factory=_AutoApproveModel)
    self_approve_usd: _Amount = 20.0


class _MonthModel(_Model):
    usd: _Amount = 100.0
    gpu_hours: _Hours = 100.0


class _PermissionsModel(_Model):
    read: _Role = "read"
    plan: _Role = "write"
    train: _Role = "write"
    admin: _Role = "admin"


class _LicencesModel(_Model):
    allowed: Annotated[list[Annotated[str, Field(pattern=r"^[A-Za-z0-9.+-]{1,64}$")]], Field(max_length=200)] = []


class _DataModel(_Model):
    urls: Annotated[
        list[Annotated[str, Field(pattern=r"^https://[A-Za-z0-9.-]+(:[0-9]+)?/[!-~]*$", max_length=500)]],
        Field(max_length=50),
    ] = []


class _PublishModel(_Model):
    namespace: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{0,96}$")] = ""
    private: bool = True
    on_merge: bool = False


class _CommitsModel(_Model):
    skip_ci: bool = False


class _PolicyModel(_Model):
    labels: _LabelsModel = Field(default_factory=_LabelsModel)
    budget: _BudgetModel = Field(default_factory=_BudgetModel)
    month: _MonthModel = Field(default_factory=_MonthModel)
    consent: _ConsentModel = Field(default_factory=_ConsentModel)
    permissions: _PermissionsModel = Field(default_factory=_PermissionsModel)
    licences: _LicencesModel = Field(default_factory=_LicencesModel)
    data: _DataModel = Field(default_factory=_DataModel)
    publish: _PublishModel = Field(default_factory=_PublishModel)
    commits: _CommitsModel = Field(default_factory=_CommitsModel)
    usd_per_hour: Annotated[float, Field(ge=0, le=10_000, allow_inf_nan=False)] = 0.0

    def policy(self) -> Policy:
        given = self.consent.auto_approve
        return Policy(
            labels=Labels(goal=self.labels.goal),
            budget=Budget(**self.budget.model_dump()),
            month=Month(**self.month.model_dump()),
            self_approve_usd=self.consent.self_approve_usd,
            consent=AutoApprove(given.runs, given.gpu_hours, given.usd, tuple(given.recipe_keys)),
            permissions={Tier(tier): role for tier, role in self.permissions.model_dump().items()},
            licences_allowed=tuple(self.licences.allowed),
            data_urls=tuple(self.data.urls),
            publish=Publish(**self.publish.model_dump()),
            skip_ci=self.commits.skip_ci,
            usd_per_hour=self.usd_per_hour,
        )


# --- pydantic's findings as sentences

_EXAMPLES = {
    "runs": "runs: 4",
    "gpu_hours": "gpu_hours: 2.5",
    "usd": "usd: 20",
    "wall_hours": "wall_hours: 24",
    "usd_per_hour": "usd_per_hour: 2.5",
    "recipe_keys": "recipe_keys: [learning_rate, max_steps]",
    "allowed": "allowed: [apache-2.0, mit]",
    "goal": "goal: postdoc",
    "self_approve_usd": "self_approve_usd: 20",
    "urls": "urls: [https://data.example.org/sets/]",
    "namespace": "namespace: my-organisation",
    "skip_ci": "skip_ci: true",
}


def _sentence(detail: dict[str, Any], places: Mapping[tuple[str | int, ...], Place]) -> str:
    path = tuple(detail["loc"])
    line, column = next((places[path[:n]] for n in range(len(path), 0, -1) if path[:n] in places), (1, 1))
    name = code(".".join(str(part) for part in path), 120)
    kind, context = detail["type"], detail.get("ctx", {})
    example = next((_EXAMPLES[str(part)] for part in reversed(path) if str(part) in _EXAMPLES), "")
    hint = f": write `{example}` for example." if example else "."
    match kind:
        case "extra_forbidden":
            why = f"There is no setting {name}: remove it, or see the documented example of this file."
        case "literal_error":
            why = f"{name} must be one of {context.get('expected', 'read, write, admin')}."
        case "greater_than_equal" | "greater_than" | "less_than_equal" | "finite_number":
            why = f"{name} is out of range{hint}"
        case "model_type":
            why = f"{name} holds settings of its own: write them below it, indented."
        case "value_error":
            why = f"{name}: {context.get('error')}{hint}"
        case _:
            wanted = re.sub(r"^Input should be ", "", str(detail["msg"]))
            why = f"{name} should be {wanted[:1].lower()}{wanted[1:]}{hint}"
    return f"{line}:{column} {why}"


def _place_of(problem: str) -> tuple[int, int]:
    line, column = problem.split(" ", 1)[0].split(":")
    return int(line), int(column)


def _hours(value: float) -> str:
    return "1 GPU hour" if value == 1 else f"{value:g} GPU hours"


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"
