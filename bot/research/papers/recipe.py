"""Paper to recipe: hyperparameters by stage, data, evaluation and results, each with the words it came from.

Rules only. A wrong number is worse than none: what is said of others, tried, varied or hedged, what stands in a list
without saying which holds, and what could belong to two stages is left out and told in `left_out`; what the paper gives
twice and differently is told in `conflicts`, and neither is chosen.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from bot.research.papers.attribution import Attribution
from bot.research.papers.facts import Dataset, Fact, base_models_of, benchmarks_of, datasets_of, losses_of, metrics_of
from bot.research.papers.findings import Evidence, Finding, LeftOut, Value
from bot.research.papers.grids import findings_of_table
from bot.research.papers.model import Paper, Section
from bot.research.papers.naming import VARIANT
from bot.research.papers.prose import Place, findings_of
from bot.research.papers.results import Result, results_of_table
from bot.research.papers.sentences import sentences
from bot.research.papers.stages import (
    FAMILIES,
    GENERIC,
    PREFERENCE_METHODS,
    RL_METHODS,
    mentions,
    methods_in,
    ordinal_of,
    resolved,
    task_of,
    told_in_order,
)
from bot.research.papers.vocabulary import BY_KEY

MOST_RESULTS = 2_000


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
class Stage:
    """One stage of training, as far as the paper tells it."""

    method: str
    values: tuple[Sourced, ...]
    conflicts: tuple[Conflict, ...]
    losses: tuple[Fact, ...] = ()
    datasets: tuple[str, ...] = ()

    def value(self, key: str, variant: str = "") -> Value | None:
        """The value of one key, None where the paper does not say or contradicts itself."""
        return next((each.value for each in self.values if each.key == key and each.variant == variant), None)


@dataclass(frozen=True, slots=True)
class PaperRecipe:
    paper: str
    title: str
    source: str
    form: str
    fetched_at: float
    base_models: tuple[Fact, ...]
    stages: tuple[Stage, ...]
    datasets: tuple[Dataset, ...]
    benchmarks: tuple[Fact, ...]
    metrics: tuple[Fact, ...]
    results: tuple[Result, ...]
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]

    def stage(self, method: str) -> Stage | None:
        return next((stage for stage in self.stages if stage.method == method), None)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def extract(paper: Paper) -> PaperRecipe:
    """The recipe that a paper tells. Everything in it carries its quote; nothing is guessed."""
    attribution = Attribution(paper)
    found: list[Finding] = []
    left_out: list[LeftOut] = []
    for each in _everything(paper, attribution):
        if isinstance(each, Finding):
            found.append(each)
        else:
            left_out.append(each)
    found = _numbered(found, _order_of(paper))
    trained = _trained(paper, attribution, found)
    placed, homeless = _placed(found, trained)
    homeless += _rivals(placed, _announced(paper, attribution))
    stages = tuple(_stage(method, placed[method], paper) for method in sorted(placed, key=_order))
    results = [
        result for section, table in paper.tables() for result in results_of_table(table, _place(paper, section, False))
    ]
    return PaperRecipe(
        paper.id, paper.title, paper.source, paper.form.value, paper.fetched_at,
        base_models_of(paper, attribution), stages, datasets_of(paper), benchmarks_of(paper), metrics_of(paper),
        tuple(results[:MOST_RESULTS]), tuple(_once((*left_out, *homeless))), paper.notes,
    )  # fmt: skip


def _everything(paper: Paper, attribution: Attribution) -> Iterator[Finding | LeftOut]:
    text = " ".join(paragraph for section in paper.sections for paragraph in section.paragraphs)
    lora = "LoRA" in text or "low-rank adapt" in text.lower()
    for section in paper.sections:
        if attribution.foreign_section(section):
            continue
        place = _place(paper, section, lora)
        context = _heading_stage(section)
        model = VARIANT.search(section.title)
        for each in _in_section(section, place, attribution, context):
            own = isinstance(each, Finding) and model is not None and not each.variant
            yield replace(each, variant=model[0]) if own and model is not None and isinstance(each, Finding) else each


def _in_section(
    section: Section, place: Place, attribution: Attribution, context: str | None
) -> Iterator[Finding | LeftOut]:
    for paragraph in section.paragraphs:
        yield from findings_of(paragraph, place, attribution, context)
    for table in section.tables:
        yield from findings_of_table(table, place, attribution, context)


def _place(paper: Paper, section: Section, lora: bool) -> Place:
    return Place(section, paper.source, lora)


def _heading_stage(section: Section) -> str | None:
    """The stage of the innermost heading that names one; `?` where it names several."""
    for title in (section.title, *reversed(section.path)):
        named = methods_in(title)
        if len(named) == 1:
            return next(iter(named))
        if named:
            return "?"
    return None


def _order_of(paper: Paper) -> dict[str, str]:
    """Which stage `the first stage` is, by headings (`Act one: ...`) and sentences that name all in their order."""
    order: dict[str, str] = {}
    for section in paper.sections:
        named = methods_in(section.title)
        number = ordinal_of(section.title)
        if number and len(named) == 1 and not next(iter(named)).startswith("#"):
            order.setdefault(number, next(iter(named)))
    paragraphs = (paragraph for section in paper.sections for paragraph in section.paragraphs)
    for paragraph in (paper.abstract, *paragraphs):
        for sentence in sentences(paragraph):
            for number, method in told_in_order(sentence).items():
                order.setdefault(number, method)
    return order


def _numbered(found: list[Finding], order: Mapping[str, str]) -> list[Finding]:
    """Stages that have a number by their names; by the number where names are missing or the same."""
    clear = order if len(set(order.values())) == len(order) else {}

    def name(part: str) -> str:
        return clear.get(part, f"stage {part[1:]}") if part.startswith("#") else part

    return [each.of("+".join(map(name, each.stage.split("+")))) if each.stage else each for each in found]


def _trained(paper: Paper, attribution: Attribution, found: Iterable[Finding]) -> frozenset[str]:
    """The stages that the paper itself trains: those that values or headings name, or that the authors say they run.

    Where there are none, what title and abstract name; where they name none either, what the paper is about.
    """
    named = {part for each in found if each.stage not in (None, "?") for part in str(each.stage).split("+")}
    for section in paper.sections:
        if attribution.foreign_section(section):
            continue
        named |= methods_in(section.title)
        for paragraph in section.paragraphs:
            named |= set(_run_in(paragraph, attribution))
    named = {each for each in named if not each.startswith("#")}
    if named & {"stage 1"} and not named & {"stage 2"}:
        named -= {"stage 1"}
    told = _announced(paper, attribution) - {"reward", "pretrain"}
    precise = {each for each in told if not each.startswith("#")} - GENERIC
    for family in FAMILIES.values():
        if precise & family:
            named -= family - precise  # rivals of what is announced
    if named - GENERIC:
        return frozenset((named | precise) - GENERIC)
    if len(precise) == 1:
        return frozenset(precise)
    task = task_of(paper.title, paper.abstract) if not precise else None
    general = named | told
    if general & {"rl", "preference"}:
        return frozenset(general)
    return frozenset({task}) if task else frozenset()


def _announced(paper: Paper, attribution: Attribution) -> set[str]:
    """Stages that title and abstract name, others' left out."""
    told = set(methods_in(paper.title))
    for sentence in sentences(paper.abstract):
        told |= {
            each.method
            for each in mentions(sentence)
            if not each.past and not attribution.of_others_at(sentence, each.start)
        }
    return told


def _run_in(paragraph: str, attribution: Attribution) -> Iterator[str]:
    """Stages that the authors say they run: `we then apply DPO`."""
    for sentence in sentences(paragraph):
        for mention in mentions(sentence):
            before = sentence[: mention.start]
            if mention.weak or not re.search(
                r"\b(?:[Ww]e|[Oo]ur)\b[^.;]{0,60}\b(?:train|fine-?tun|apply|appl|run|perform|"
                r"optimi|use|conduct|start|adopt|employ)\w*\b[^.;]{0,60}\Z",
                before,
            ):
                continue
            if attribution.settled(sentence, mention.start, mention.end):
                yield mention.method


def _placed(found: list[Finding], trained: frozenset[str]) -> tuple[dict[str, list[Finding]], list[LeftOut]]:
    """Each finding with its stage, or left out where it could belong to several."""
    placed: dict[str, list[Finding]] = {}
    homeless: list[LeftOut] = []
    for each in found:
        methods = _stages_of(each, trained)
        said = f"{each.key} = {each.value}"
        if each.key == "num_iterations" and methods == ("ppo",):
            each = replace(each, key="num_ppo_epochs")  # TRL's name for it in PPO
        if each.stage is None and _SPEAKS_OF_RL.search(each.evidence.quote):
            methods = tuple(method for method in methods if method in RL_METHODS | PREFERENCE_METHODS | {"distill"})
        for method in methods:
            if not belongs(each.key, method) or (method in RL_METHODS and _open_length(each)):
                homeless.append(LeftOut(each.key, said, f"no hyperparameter of {method}", each.evidence))
                continue
            placed.setdefault(method, []).append(each.of(method))
        if not methods:
            homeless.append(LeftOut(each.key, said, "the stage it belongs to is not said", each.evidence))
    return _whole_order(placed, homeless), homeless


def _rivals(placed: dict[str, list[Finding]], announced: set[str]) -> list[LeftOut]:
    """Takes out methods that stand beside an announced one of their family: DPO in a paper whose abstract says KTO."""
    left_out: list[LeftOut] = []
    for family in FAMILIES.values():
        if not announced & family:
            continue
        for rival in (set(placed) & family) - announced:
            left_out += [
                LeftOut(each.key, f"{each.key} = {each.value}", f"{rival} is no method of this paper", each.evidence)
                for each in placed.pop(rival)
            ]
    return left_out


def _whole_order(placed: dict[str, list[Finding]], homeless: list[LeftOut]) -> dict[str, list[Finding]]:
    """Stages known by their number alone are stages where there are two of them; one may be a manner of speaking."""
    numbered = [method for method in placed if method.startswith("stage ")]
    if len(numbered) == 1:
        for each in placed.pop(numbered[0]):
            said = f"{each.key} = {each.value}"
            homeless.append(LeftOut(each.key, said, f"what {numbered[0]} is, is not said", each.evidence))
    return placed


def _open_length(finding: Finding) -> bool:
    """`Max tokens` of a table on RL: of prompts, answers or both is not said."""
    name = finding.evidence.quote.partition(" = ")[0]
    told = re.search(r"sequence|context|model|total", name, re.IGNORECASE)
    return finding.key == "max_length" and finding.evidence.quote.startswith("Table") and told is None


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
    }
)


def belongs(key: str, method: str) -> bool:
    """Whether a method has such a hyperparameter: SFT has no group size."""
    if key in _OF_SAMPLING:
        return method in RL_METHODS | {"distill", "rft"}
    return key != "beta" or method in RL_METHODS | PREFERENCE_METHODS | {"distill"}


def _stages_of(finding: Finding, trained: frozenset[str]) -> tuple[str, ...]:
    precise = trained - GENERIC
    if finding.everywhere and precise:
        return tuple(sorted(precise))
    if finding.stage is None or finding.stage == "?":
        if finding.stage is None and len(trained) == 1:
            alone = resolved(next(iter(trained)), trained)
            return (alone,) if alone else ()
        return ()
    named = (resolved(part, trained) for part in finding.stage.split("+"))
    methods = tuple(dict.fromkeys(method for method in named if method is not None))
    return methods if "+" not in finding.stage or len(methods) == len(finding.stage.split("+")) else ()


def _order(method: str) -> tuple[int, str]:
    order = ("pretrain", "distill", "sft", "rft", "reward")
    return (order.index(method) if method in order else len(order), method)


def _stage(method: str, found: list[Finding], paper: Paper) -> Stage:
    values: list[Sourced] = []
    conflicts: list[Conflict] = []
    models = {each.variant for each in found} - {""}
    for key in dict.fromkeys(each.key for each in found):
        good, bad = _settled_values(_same_model([each for each in found if each.key == key], models))
        values += good
        conflicts += bad
    return Stage(method, tuple(values), tuple(conflicts), losses_of(paper, method))


def _same_model(found: list[Finding], models: set[str]) -> list[Finding]:
    """A value that all models of the stage share, or that of the one model there is, is the stage's own."""
    variants = {each.variant for each in found} - {""}
    if not variants:
        return found
    values = {_comparable(each.value) for each in found}
    others = any(_OTHER_MODELS.search(each.evidence.quote) for each in found if each.variant)
    agree = len(values) == 1
    if not others and (
        (agree and variants == models) or (len(models) == 1 and (agree or "" not in {each.variant for each in found}))
    ):
        return [replace(each, variant="") for each in found]
    return found


_OTHER_MODELS = re.compile(
    r"\bfor (?:the (?:rest|others?|remaining|smaller|larger)|all others?|others|"
    r"smaller|larger)\b",
    re.IGNORECASE,
)


def _settled_values(found: list[Finding]) -> tuple[list[Sourced], list[Conflict]]:
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


_TRL_WORDS = {
    "lr_scheduler_type": "lr_scheduler_type", "optim": "optim", "packing": "packing", "precision": "bf16",
    "gradient_checkpointing": "gradient_checkpointing", "lora_target_modules": "lora_target_modules",
}  # fmt: skip


def _comparable(value: Value) -> str:
    return f"{float(value):.9g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _once(left_out: Iterable[LeftOut]) -> Iterator[LeftOut]:
    return iter(dict.fromkeys(left_out))
