"""The form of `.github/postdoc.yml`: which settings there are, and what each of them may be."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from bot.conversation.permissions import Tier
from bot.conversation.policy.value import DEFAULT_RECIPE_KEYS, AutoApprove, Labels, Month, Policy, Publish
from bot.conversation.recipe_rules import key_problem
from bot.domain.goal import Budget
from bot.domain.inert import code

_NAMES_NO_LICENCE = frozenset(
    ("none", "unknown", "other", "null", "na", "nil", "tbd", "todo", "unspecified", "any", "all")
)
_Role = Literal["read", "triage", "write", "maintain", "admin"]
_Amount = Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)]
_Hours = Annotated[float, Field(ge=0, le=100_000, allow_inf_nan=False)]
_Runs = Annotated[int, Field(ge=0, le=1_000)]
_Off = BeforeValidator(lambda value: "off" if value is False else value)
"""YAML 1.1 reads the bare word `off` as false."""


class _Model(BaseModel):
    # Strict, because `runs: "many"` or `usd: yes` is a slip that must not turn into a number.
    model_config = ConfigDict(extra="forbid", strict=True)


class _LabelsModel(_Model):
    goal: Annotated[str, Field(min_length=1, max_length=50, description="Label that makes an issue a goal.")] = (
        "postdoc"
    )


class _BudgetModel(_Model):
    usd: _Amount = Field(default=20.0, description="Money, the LLM's included.")
    gpu_hours: _Hours = Field(default=8.0, description="Hours of job time on whatever device trains.")
    runs: Annotated[int, Field(ge=1, le=1_000)] = Field(default=8, description="Training runs.")
    wall_hours: Annotated[float, Field(gt=0, le=100_000, allow_inf_nan=False)] = Field(
        default=72.0, description="Hours from consent to end."
    )


class _AutoApproveModel(_Model):
    runs: _Runs = Field(default=0, description="Training runs; 0: every goal waits for `/postdoc run`.")
    gpu_hours: _Hours = Field(default=0.0, description="Hours of job time.")
    usd: _Amount = Field(default=0.0, description="Money.")
    recipe_keys: Annotated[list[str], Field(max_length=200)] = Field(
        default=list(DEFAULT_RECIPE_KEYS),
        description="Lines of recipe.yaml that may change from run to run inside one consent.",
    )

    scripts: Annotated[list[Literal["data/prepare.py", "train.py", "rewards.py"]], Field(max_length=3)] = Field(
        default=[],
        description="Scripts of an experiment that the language model may rewrite inside one consent, in a sandbox.",
    )

    @field_validator("recipe_keys")
    @classmethod
    def _known_keys(cls, keys: list[str]) -> list[str]:
        for key in keys:
            if key_problem(key) is not None:
                raise ValueError(f"{code(key, 60)} is not a recipe key that may change")
        return keys


class _ConsentModel(_Model):
    auto_approve: _AutoApproveModel = Field(default_factory=_AutoApproveModel)
    self_approve_usd: _Amount = Field(
        default=20.0, description="Above this budget the author of a goal cannot be the only one who agrees to it."
    )


class _MonthModel(_Model):
    usd: _Amount = Field(default=100.0, description="Money of all goals together, in a calendar month (UTC).")
    gpu_hours: _Hours = Field(default=100.0, description="Job hours of all goals together, in a calendar month (UTC).")


class _PermissionsModel(_Model):
    read: _Role = Field(default="read", description="Repository role that help and status need.")
    plan: _Role = Field(default="write", description="Repository role that opening a goal, stop and plan need.")
    train: _Role = Field(default="write", description="Repository role that run, resume, set and accept need.")
    admin: _Role = Field(default="admin", description="Repository role that budget, publish and halt need.")


class _LicencesModel(_Model):
    allowed: Annotated[list[Annotated[str, Field(pattern=r"^[A-Za-z0-9.+-]{1,64}$")]], Field(max_length=200)] = Field(
        default=[],
        description="SPDX names of the licences that data and base model may have; empty: any that is known.",
    )

    @field_validator("allowed")
    @classmethod
    def _named(cls, names: list[str]) -> list[str]:
        for name in names:
            # A word that names no licence would leave an empty list behind, and an empty list allows all.
            if name.lower() in _NAMES_NO_LICENCE:
                raise ValueError(f"{code(name, 60)} is no licence")
        return names


class _DataModel(_Model):
    urls: Annotated[
        list[Annotated[str, Field(pattern=r"^https://[A-Za-z0-9.-]+(:[0-9]+)?/[!-~]*$", max_length=500)]],
        Field(max_length=50),
    ] = Field(default=[], description="Prefixes (https) of the addresses that training data may be fetched from.")

    @field_validator("urls")
    @classmethod
    def _plain(cls, urls: list[str]) -> list[str]:
        for url in urls:
            # A prefix is compared as text, so it must not be able to climb out of itself.
            if re.search(r"(^|/)(\.|%2e){1,2}(/|$)", url.split("://", 1)[-1], re.IGNORECASE):
                raise ValueError(f"{code(url, 120)} has a `.` or `..` in its path")
        return urls


class _PublishModel(_Model):
    namespace: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{0,96}$")] = Field(
        default="", description="User or organisation on the Hub; empty: the server's own."
    )
    private: bool = Field(default=True, description="False: models are published where everybody sees them.")
    on_merge: bool = Field(
        default=False, description="True: a goal that was met is published when its pull request is merged."
    )


class _CommitsModel(_Model):
    skip_ci: bool = Field(default=False, description="True: commits made by Postdoc carry [skip ci].")


class PolicyForm(_Model):
    labels: _LabelsModel = Field(default_factory=_LabelsModel)
    budget: _BudgetModel = Field(default_factory=_BudgetModel)
    month: _MonthModel = Field(default_factory=_MonthModel)
    consent: _ConsentModel = Field(default_factory=_ConsentModel)
    permissions: _PermissionsModel = Field(default_factory=_PermissionsModel)
    licences: _LicencesModel = Field(default_factory=_LicencesModel)
    data: _DataModel = Field(default_factory=_DataModel)
    publish: _PublishModel = Field(default_factory=_PublishModel)
    commits: _CommitsModel = Field(default_factory=_CommitsModel)
    monitor: Annotated[Literal["abort", "advise", "off"], _Off] = Field(
        default="abort",
        description="What happens to a run that cannot come to anything any more: `abort` ends it after a checkpoint, "
        "`advise` says so in its check, `off` does not look.",
    )
    contamination: Literal["block", "drop"] = Field(
        default="block",
        description="What becomes of training data with rows that hold items of the benchmark: `block` refuses it, "
        "`drop` trains on the other rows and says so.",
    )
    brain: Annotated[Literal["propose", "ask", "off"], _Off] = Field(
        default="propose",
        description="What the server's language model, where it has one, may do here: `propose` lets it propose "
        "changes and answer, `ask` lets it answer `/postdoc ask` and `/postdoc plan` alone, `off` asks it nothing.",
    )
    usd_per_hour: Annotated[float, Field(ge=0, le=10_000, allow_inf_nan=False)] = Field(
        default=0.0, description="Price of one hour on your own machines; 0: they are not charged to a goal."
    )

    def policy(self) -> Policy:
        given = self.consent.auto_approve
        return Policy(
            labels=Labels(goal=self.labels.goal),
            budget=Budget(**self.budget.model_dump()),
            month=Month(**self.month.model_dump()),
            self_approve_usd=self.consent.self_approve_usd,
            consent=AutoApprove(given.runs, given.gpu_hours, given.usd, tuple(given.recipe_keys), tuple(given.scripts)),
            permissions={Tier(tier): role for tier, role in self.permissions.model_dump().items()},
            licences_allowed=tuple(self.licences.allowed),
            data_urls=tuple(self.data.urls),
            publish=Publish(**self.publish.model_dump()),
            skip_ci=self.commits.skip_ci,
            monitor=self.monitor,
            contamination=self.contamination,
            brain=self.brain,
            usd_per_hour=self.usd_per_hour,
        )


def policy_schema() -> dict[str, Any]:
    """JSON Schema of `.github/postdoc.yml`, for editors and for `# yaml-language-server`."""
    schema: dict[str, Any] = _without_titles(PolicyForm.model_json_schema(by_alias=True))
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Postdoc's policy of a repository",
        "description": "The file .github/postdoc.yml on a repository's default branch. Every setting may be left out.",
    }
    return head | schema


def _without_titles(node: Any) -> Any:
    """Pydantic titles every field with its own name again; classes keep their names to themselves."""
    if isinstance(node, list):
        return [_without_titles(each) for each in node]
    if not isinstance(node, dict):
        return node
    kept = {name: value for name, value in node.items() if not (name == "title" and isinstance(value, str))}
    return {name: _without_titles(_public(value)) for name, value in kept.items()}


def _public(value: Any) -> Any:
    """`#/$defs/_MonthModel` -> `#/$defs/Month`, the keys of `$defs` alike."""
    if isinstance(value, str):
        return re.sub(r"^#/\$defs/_(\w+)Model$", r"#/$defs/\1", value)
    if isinstance(value, dict):
        return {re.sub(r"^_(\w+)Model$", r"\1", name): each for name, each in value.items()}
    return value
