"""The goal's fields, each read from a person's text: a value, or one sentence that says what to write instead."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from itertools import pairwise
from typing import NamedTuple, TypeVar

from bot.conversation.policy import POLICY_PATH, Policy
from bot.conversation.recipe_rules import path_problem, recipe_problems
from bot.conversation.visible import visible_text
from bot.domain.data_source import AddressSource, RepositorySource, parse_source
from bot.domain.goal import Budget, Goal
from bot.domain.inert import clipped, code
from bot.domain.methods import METHODS
from bot.domain.metrics import DEFAULT, METRICS, Metric, metric_named
from bot.errors import UserError

LABELS = {
    "base_model": "Base model",
    "benchmark": "Benchmark",
    "target": "Target",
    "metric": "Metric",
    "method": "Method",
    "dataset": "Training data",
    "data_licence": "Licence of the data",
    "recipe": "Starting recipe",
    "script": "Own script",
    "licences": "Licences allowed",
    "runs": "Budget in runs",
    "gpu_hours": "Budget in GPU hours",
    "usd": "Budget in USD",
    "wall_hours": "Budget in hours of waiting",
    "seed": "Seed",
    "forgetting": "Forgetting",
    "notes": "Notes",
    "acknowledgement": "Acknowledgement",
}
"""Field -> its label in the issue form; a test holds the two together."""
REQUIRED = ("base_model", "benchmark", "target")
_LONGEST_VALUE = 300

_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(?:/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,99}")
_LONGEST_ADDRESS = 900
_BENCHMARK_FILE = re.compile(r".+\.ya?ml", re.IGNORECASE)
_DATA_SOURCES = re.compile(r"^data_sources[ \t]*:[ \t]*(.*?)[ \t]*(?:[ \t]#.*)?$", re.MULTILINE)
_METRIC = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,30}(?:[.,][0-9]{0,30})?|[.,][0-9]{1,30})(?:[eE][+-]?[0-9]{1,3})?")
_THOUSANDS = re.compile(r"[+-]?[1-9][0-9]{0,2}(?:[,'_ ][0-9]{3}){1,5}(?:\.[0-9]{1,10})?")
_PERCENT = re.compile(r"\s{0,5}(?:%|percent|per cent|pct)\.?$", re.IGNORECASE)
_AT_LEAST = re.compile(r"^(?:at least|at most|below|under|to|reach|>=|≥|>|<=|≤|<|=|about|~)\s{0,5}", re.IGNORECASE)
_UNIT = re.compile(
    r"^(?:us)?\$\s{0,5}|\s{0,5}(?:usd|us\$|\$|dollars?|gpu[ -]?(?:hours?|h)|hours?|hrs?|h|runs?)\.?$", re.IGNORECASE
)
_THEN = re.compile(r"\s*(?:,|->|→|\+|\bthen\b)\s*")
MOST_STAGES = 12
_CHOOSE = frozenset({"choose for me", "any", "auto"})

# Names as the Hub's cards write them, from the SPDX list. `other` and `unknown` name no licence.
# fmt: off
LICENCES = frozenset(
    {
        "afl-3.0",
        "agpl-3.0",
        "apache-2.0",
        "artistic-2.0",
        "bigcode-openrail-m",
        "bigscience-openrail-m",
        "bsd",
        "bsd-2-clause",
        "bsd-3-clause",
        "bsl-1.0",
        "cc",
        "cc-by-2.0",
        "cc-by-2.5",
        "cc-by-3.0",
        "cc-by-4.0",
        "cc-by-nc-2.0",
        "cc-by-nc-3.0",
        "cc-by-nc-4.0",
        "cc-by-nc-nd-4.0",
        "cc-by-nc-sa-3.0",
        "cc-by-nc-sa-4.0",
        "cc-by-nd-4.0",
        "cc-by-sa-3.0",
        "cc-by-sa-4.0",
        "cc0-1.0",
        "cdla-permissive-1.0",
        "cdla-permissive-2.0",
        "cdla-sharing-1.0",
        "creativeml-openrail-m",
        "ecl-2.0",
        "epl-2.0",
        "eupl-1.1",
        "eupl-1.2",
        "gemma",
        "gfdl",
        "gpl",
        "gpl-2.0",
        "gpl-3.0",
        "isc",
        "lgpl",
        "lgpl-2.1",
        "lgpl-3.0",
        "llama2",
        "llama3",
        "llama3.1",
        "llama3.2",
        "llama3.3",
        "llama4",
        "mit",
        "mpl-2.0",
        "ms-pl",
        "ncsa",
        "odbl",
        "odc-by",
        "openrail",
        "osl-3.0",
        "pddl",
        "postgresql",
        "unlicense",
        "wtfpl",
        "zlib",
    }
)
# fmt: on


@dataclass(frozen=True, slots=True)
class World:
    """What the fields are checked against."""

    known_benchmarks: Sequence[str] | None = None
    """None: any well-formed name will do."""
    model_exists: Callable[[str], str | None] | None = None
    """Answers a sentence when there is no such model. None: any well-formed name will do."""
    metric_of: Callable[[str], str | None] | None = None
    """What a benchmark of that name measures, where the goal leaves its metric empty; None answers when unknown."""
    policy: Policy = field(default_factory=Policy)
    ceilings: bool = True
    """False reads a goal that was agreed already, whatever the policy says now."""


class WrongField(Exception):
    """One field's problem, on its way from a reader to the list of problems; it never leaves this module."""


class FieldsRead(NamedTuple):
    goal: Goal | None
    problems: list[str]


_T = TypeVar("_T")


class _Fields:
    """The raw texts, read one by one; problems gather as they are met."""

    def __init__(self, texts: Mapping[str, str], world: World) -> None:
        self.texts, self.world = texts, world
        self.problems: list[str] = []

    def read(self, name: str, reader: Callable[[str, World], _T], default: _T) -> _T:
        text = self.texts.get(name, "")
        text = text if name == "recipe" else text.strip()
        if not text.strip():
            return default
        try:
            longest = _LONGEST_ADDRESS if name == "dataset" else _LONGEST_VALUE
            if name != "recipe" and len(text) > longest:
                raise WrongField(f"{LABELS[name]} has {len(text):,} characters: write at most {longest}.")
            return reader(text, self.world)
        except WrongField as wrong:
            self.problems.append(str(wrong))
            return default


def goal_of(texts: Mapping[str, str], title: str, world: World) -> FieldsRead:
    """The goal that the raw texts make, or everything that is wrong with them. An absent required field is the
    caller's to report, since a form and a sentence ask for it differently."""
    fields = _Fields(texts, world)
    model, revision = fields.read("base_model", _model, ("", "main"))
    benchmark = fields.read("benchmark", _benchmark, "")
    usual_metric = (world.metric_of(benchmark) if world.metric_of is not None and benchmark else None) or DEFAULT
    metric = fields.read("metric", _metric, usual_metric)
    target = fields.read("target", _target_of(metric_named(metric)), None)
    usual = world.policy.default_budget()
    budget = Budget(
        usd=fields.read("usd", _amount_of("usd"), usual.usd),
        gpu_hours=fields.read("gpu_hours", _amount_of("gpu_hours"), usual.gpu_hours),
        runs=int(fields.read("runs", _amount_of("runs"), float(usual.runs))),
        wall_hours=fields.read("wall_hours", _amount_of("wall_hours"), usual.wall_hours),
    )
    method = fields.read("method", _method, None)
    dataset = fields.read("dataset", _dataset, None)
    data_licence = fields.read("data_licence", _data_licence, None)
    if dataset and not texts.get("data_licence", "").strip() and dataset.startswith("https://"):
        fields.problems.append(
            f"{LABELS['data_licence']} is empty, and data at an address has no card that says it: write its SPDX name, "
            f"`{LABELS['data_licence']}: cc-by-4.0` for example."
        )
    recipe = fields.read("recipe", _recipe, None)
    if dataset and recipe and (named := _DATA_SOURCES.search(recipe)) and named[1].strip("\"' ") != dataset:
        fields.problems.append(
            f"{LABELS['dataset']} and the recipe's `data_sources` name different data: keep one of the two."
        )
    script = fields.read("script", _script, None)
    none_named: tuple[str, ...] = ()
    licences = fields.read("licences", _licences, none_named)
    seed = fields.read("seed", _seed, 0)
    forgetting = fields.read("forgetting", _forgetting, "report")
    if fields.problems or not model or not benchmark or target is None:
        return FieldsRead(None, fields.problems)
    name = clipped(" ".join(visible_text(title).split()), 200) or f"{metric_named(metric).aim} {model} on {benchmark}"
    goal = Goal(
        title=name,
        base_model=model,
        benchmark=benchmark,
        target=target,
        metric=metric,
        base_revision=revision,
        method=method,
        dataset=dataset,
        recipe=recipe,
        script=script,
        licences=licences,
        budget=budget,
        seed=seed,
        data_licence=data_licence,
        forgetting=forgetting,
    )
    return FieldsRead(goal, [])


def empty_field(name: str) -> str:
    """The sentence for a required field that a form leaves empty."""
    examples = {
        "base_model": "write the model's name on the Hub, for example `Qwen/Qwen3-1.7B`",
        "benchmark": "write a benchmark's name, for example `gsm8k`",
        "target": "write the value to reach, for example `90 %`",
    }
    return f"{LABELS[name]} is empty: {examples[name]}."


def number_of(text: str, *, thousands: bool = False) -> float | None:
    """The number that `text` writes, with a decimal point or comma; None when it writes none."""
    text = text.strip().replace("\u2212", "-").replace("\u00a0", " ").replace("\u202f", " ")
    if thousands and _THOUSANDS.fullmatch(text):
        text = re.sub(r"[,'_ ]", "", text)
    if not _NUMBER.fullmatch(text):
        return None
    try:
        return float(Decimal(text.replace(",", ".")))
    except (InvalidOperation, OverflowError):
        return None


def rate_of(text: str) -> float | None:
    """A fraction from `90 %`, `0.9`, `0,9` or `90`; None when it is none of them. It may be out of range."""
    text = text.strip()
    bare = _PERCENT.sub("", text)
    value = number_of(bare)
    if value is None:
        return None
    percent = bare != text or abs(value) > 1
    # Through Decimal, so that 90.3 % is the same number as 0.903.
    return float(Decimal(str(value)) / 100) if percent else value


def _model(text: str, world: World) -> tuple[str, str]:
    text = re.sub(r"^https?://(?:www\.)?huggingface\.co/", "", text.strip("`'\" "))
    name, _, revision = text.partition("@")
    if not _MODEL.fullmatch(name) or ".." in name or (revision and not _REVISION.fullmatch(revision)):
        raise WrongField(
            f"Base model {code(text, 80)} is not a model's name: write it as on the Hub, for example "
            "`Qwen/Qwen3-1.7B`, or `name@revision`."
        )
    problem = world.model_exists(name) if world.model_exists is not None else None
    if problem:
        raise WrongField(problem)
    return name, revision or "main"


def _benchmark(text: str, world: World) -> str:
    text = text.strip("`'\" ")
    known = world.known_benchmarks
    if _BENCHMARK_FILE.fullmatch(text):
        # Whether the file is there, and is a benchmark, is found out where it is read: on the default branch.
        problem = path_problem(text)
        if problem is not None:
            raise WrongField(
                f"Benchmark {code(text, 80)} {problem.replace('data/train.jsonl', 'benchmarks/ours.yaml')}."
            )
        return text
    if known is None:
        if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,120}", text) and ".." not in text:
            return text
        raise WrongField(f"Benchmark {code(text, 80)} is not a name: write for example `gsm8k`.")
    found = known_name(text, known)
    if found is not None:
        return found
    close = _nearest(text.lower()[:80], known)
    shown = ", ".join(f"`{name}`" for name in list(known)[:12]) + (" and others" if len(known) > 12 else "")
    hint = f"Did you mean `{close}`? " if close else ""
    raise WrongField(
        f"There is no benchmark {code(text, 80)}. {hint}Write one of {shown or 'none yet'}, or the path of your own on "
        "the default branch, `benchmarks/ours.yaml` for example."
    )


def known_name(text: str, known: Sequence[str]) -> str | None:
    """The known benchmark that `text` names, by its whole name or, when that is unique, by its last part."""
    lowered = text.lower()
    whole = [name for name in known if name.lower() == lowered]
    last = [name for name in known if name.lower().rsplit("/", 1)[-1] == lowered]
    return whole[0] if whole else last[0] if len(last) == 1 else None


def _nearest(text: str, known: Sequence[str]) -> str | None:
    """The known benchmark most like `text`, compared by whole name and by last part; None when none is like it."""

    def likeness(name: str) -> float:
        parts = (name.lower(), name.lower().rsplit("/", 1)[-1])
        begins = any(len(text) >= 3 and part.startswith(text) for part in parts)
        return max(float(begins), *(difflib.SequenceMatcher(None, part, text).ratio() for part in parts))

    best = max(known, key=likeness, default=None)
    return best if best is not None and likeness(best) >= 0.6 else None


def _target_of(metric: Metric) -> Callable[[str, World], float]:
    """The reader of a target: a share of 1, or a plain number where the metric is none."""
    if not metric.is_share:
        return lambda text, world: _number_target(text, metric)
    return lambda text, world: _share_target(text, metric)


def _number_target(text: str, metric: Metric) -> float:
    shown = code(text, 40)
    value = number_of(_AT_LEAST.sub("", text.strip("`'\" ")), thousands=True)
    instead = f"write a number above {metric.best:g}, for example `{metric.example}`."
    if value is None:
        raise WrongField(f"Target {shown} is not a value of {metric.name}: {instead}")
    if not value > metric.best or not math.isfinite(value):
        raise WrongField(f"Target {shown} cannot be reached by anything: {instead}")
    return value


def _share_target(text: str, metric: Metric) -> float:
    shown = code(text, 40)
    bare = _AT_LEAST.sub("", text.strip("`'\" "))
    if bare in {"1", "+1"}:
        raise WrongField(f"Target {shown} may mean 1 % or 100 %: write `1 %` or `100 %`.")
    value = rate_of(bare)
    instead = f"write a percentage between 0 and 100, for example `{metric.example}`."
    if value is None:
        raise WrongField(f"Target {shown} is not a number: {instead}")
    if value < 0:
        raise WrongField(f"Target {shown} is below zero: {instead}")
    if value == 0:
        how = (
            "is reached by anything" if metric.higher_is_better else f"leaves {metric.name} no room for a single error"
        )
        raise WrongField(f"Target {shown} {how}: {instead}")
    if value > 1:
        raise WrongField(f"Target {shown} is above 100 %: {instead}")
    return value


class _Amount(NamedTuple):
    unit: str
    most: float
    example: str
    whole: bool = False
    zero: bool = True


_AMOUNTS = {
    "runs": _Amount("runs", 1_000, "4", whole=True, zero=False),
    "gpu_hours": _Amount("GPU hours", 100_000, "2"),
    "usd": _Amount("USD", 1_000_000, "20"),
    "wall_hours": _Amount("hours", 8_760, "24", zero=False),
}


def _amount_of(name: str) -> Callable[[str, World], float]:
    """The reader of one of the budget's fields."""
    amount = _AMOUNTS[name]

    def read(text: str, world: World) -> float:
        label, shown = LABELS[name], code(text, 40)
        value = number_of(_UNIT.sub("", text.strip("`'\" ")), thousands=True)
        ceiling = float(getattr(world.policy.budget, name)) if world.ceilings else amount.most
        example = amount.example if float(amount.example) <= ceiling else f"{ceiling:g}"
        if value is None:
            raise WrongField(f"{label} {shown} is not a number: write for example `{example}`.")
        if value < 0:
            raise WrongField(f"{label} {shown} is below zero: write for example `{example}`.")
        if value == 0 and not amount.zero:
            raise WrongField(f"{label} {shown} leaves nothing to do: write for example `{example}`.")
        if amount.whole and value != int(value):
            raise WrongField(f"{label} {shown} is not a whole number: write for example `{example}`.")
        if value > min(ceiling, amount.most):
            raise WrongField(
                f"{label} {shown} is above this repository's ceiling of {min(ceiling, amount.most):,g} {amount.unit}: "
                f"write at most `{min(ceiling, amount.most):g}`, or have `budget.{name}` in `{POLICY_PATH}` raised."
            )
        return value

    return read


def _metric(text: str, world: World) -> str:
    name = text.strip("`'\" ").lower().replace(" ", "_").replace("-", "_")
    if not _METRIC.fullmatch(name):
        raise WrongField(f"Metric {code(text, 60)} is not a name: write for example `exact_match`, or leave it empty.")
    if name not in METRICS and world.ceilings:
        raise WrongField(
            f"Metric {code(text, 60)} is not known: write one of {', '.join(METRICS)}, or leave it empty for the "
            "benchmark's own."
        )
    return name


def _method(text: str, world: World) -> str | None:
    name = text.strip("`'\" ").lower()
    if name in _CHOOSE:
        return None
    named = [part for part in _THEN.split(name) if part]
    if not named or not METHODS.keys() >= set(named):
        raise WrongField(
            f"Method {code(text, 60)} is not known: write one of {', '.join(METHODS)}, or several in the order in "
            "which they train, `sft, grpo`, or leave it empty."
        )
    if len(named) > MOST_STAGES:
        raise WrongField(f"Method names {len(named)} stages: write at most {MOST_STAGES}.")
    if (wrong := _broken_chain(named)) is not None:
        raise WrongField(f"Method {code(text, 60)}: {wrong}")
    return ", ".join(named)


def _broken_chain(stages: list[str]) -> str | None:
    """Why a stage cannot go on from the one before, as the end of a sentence; None when each can."""
    for before, after in pairwise(stages):
        if METHODS[before].makes is not METHODS[after].makes:
            return f"what `{before}` makes is no model that `{after}` can go on from. Write them as two goals."
    return None


def _dataset(text: str, world: World) -> str | None:
    text = text.strip("`'\"<> ")
    try:
        source = parse_source(text)
    except UserError as error:
        raise WrongField(f"Training data {code(text, 80)} {error}.") from None
    if isinstance(source, RepositorySource):
        problem = path_problem(text)
        if problem is not None:
            raise WrongField(f"Training data {code(text, 80)} {problem}.")
    if isinstance(source, AddressSource) and world.ceilings and (why := address_problem(source, world.policy)):
        raise WrongField(f"Training data {code(text, 80)} {why}.")
    return str(source)


def address_problem(source: AddressSource, policy: Policy) -> str | None:
    """Why the policy does not let this address be fetched, as the end of a sentence; None when it does."""
    if any(source.within(prefix) for prefix in policy.data_urls):
        return None
    shown = ", ".join(code(prefix, 120) for prefix in policy.data_urls[:6])
    if shown:
        return (
            f"lies in none of the places that `data.urls` in `{POLICY_PATH}` allows: write an address below {shown}, "
            "or have its own added there"
        )
    return (
        f"may not be fetched, because `data.urls` in `{POLICY_PATH}` allows no address: have "
        f"`urls: [{source.url.rpartition('/')[0]}/]` added there, or write the path of a file in this repository"
    )


def _data_licence(text: str, world: World) -> str | None:
    names = _licences(text, world)
    if len(names) > 1:
        raise WrongField(f"Licence of the data {code(text, 80)} names several: write the one that covers all of it.")
    return names[0] if names else None


def _script(text: str, world: World) -> str | None:
    path = text.strip("`'\" ")
    problem = path_problem(path)
    if problem is None and not path.endswith(".py"):
        problem = "is not a Python file: write its path, `scripts/train.py` for example"
    if problem is not None:
        raise WrongField(f"Own script {code(text, 80)} {problem}.")
    return path


def _recipe(text: str, world: World) -> str | None:
    problems = recipe_problems(text)
    if problems:
        raise WrongField("\n".join(problems))
    return text.strip("\n") + "\n"


def _licences(text: str, world: World) -> tuple[str, ...]:
    names = [name for part in re.split(r"[,;\n]", text) if (name := part.strip("`'\"-*• \t").lower())]
    allowed = {name.lower() for name in world.policy.licences_allowed}
    for name in names:
        if name not in LICENCES:
            close = difflib.get_close_matches(name[:60], sorted(LICENCES), n=1, cutoff=0.5)
            hint = f"did you mean `{close[0]}`?" if close else "write SPDX names, for example `apache-2.0, mit`."
            raise WrongField(f"Licence {code(name, 60)} is not known: {hint}")
        if allowed and name not in allowed:
            shown = ", ".join(f"`{item}`" for item in sorted(allowed))
            raise WrongField(f"Licence `{name}` is not allowed in this repository: write one of {shown}.")
    return tuple(dict.fromkeys(names))


def _seed(text: str, world: World) -> int:
    value = number_of(text.strip("`'\" "))
    if value is None or value != int(value) or not 0 <= value < 2**32:
        raise WrongField(f"Seed {code(text, 40)} is not a whole number from 0 to 4294967295: write for example `0`.")
    return int(value)


def _forgetting(text: str, world: World) -> str:
    word = text.strip("`'\" .").lower()
    if word not in ("report", "block"):
        raise WrongField(f"Forgetting {code(text, 40)} is not known: write `report` or `block`.")
    return word
