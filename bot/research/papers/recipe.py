"""Paper to recipe: hyperparameters by stage, data, evaluation and results, each with the words it came from.

Rules only. A wrong number is worse than none: what is said of others, tried, varied or hedged, what stands in a list
without saying which holds, and what could belong to two stages is left out and told in `left_out`; what the paper gives
twice and differently is told in `conflicts`, and neither is chosen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from bot.research.papers.attribution import Attribution
from bot.research.papers.facts import Dataset, Fact, base_models_of, benchmarks_of, datasets_of, losses_of, metrics_of
from bot.research.papers.findings import Finding, LeftOut, Value
from bot.research.papers.grids import findings_of_table
from bot.research.papers.model import Paper, Section
from bot.research.papers.naming import VARIANT
from bot.research.papers.programme import programme_of
from bot.research.papers.prose import Place, findings_of, is_fragment, lost_columns
from bot.research.papers.results import Result, results_of_table
from bot.research.papers.settling import Conflict, Sourced, placed, settled
from bot.research.papers.stages import GENERIC, may_mean, methods_of_title

__all__ = ["Conflict", "PaperRecipe", "Sourced", "Stage", "extract"]
MOST_RESULTS = 2_000


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
    seen = list(_everything(paper, attribution))
    found = [each for each in seen if isinstance(each, Finding)]
    left_out = [each for each in seen if isinstance(each, LeftOut)]
    programme = programme_of(paper, attribution, found)
    by_method, homeless = placed(programme.named(found), programme)
    left_out += homeless
    stages = []
    for method in sorted(by_method, key=_order):
        told = settled(by_method[method], several=attribution.several_models)
        left_out += told.left_out
        stages.append(Stage(method, told.values, told.conflicts, losses_of(paper, method)))
    results = [
        result
        for section, table in paper.tables()
        for result in results_of_table(table, Place(section, paper.source, False))
    ]
    return PaperRecipe(
        paper.id, paper.title, paper.source, paper.form.value, paper.fetched_at,
        base_models_of(paper, attribution), tuple(stages), datasets_of(paper), benchmarks_of(paper), metrics_of(paper),
        tuple(results[:MOST_RESULTS]), tuple(dict.fromkeys(left_out)), paper.notes,
    )  # fmt: skip


def _everything(paper: Paper, attribution: Attribution) -> Iterator[Finding | LeftOut]:
    text = " ".join(paragraph for section in paper.sections for paragraph in section.paragraphs)
    lora = "LoRA" in text or "low-rank adapt" in text.lower()
    for section in paper.sections:
        place = Place(section, paper.source, lora)
        found = _in_section(section, place, attribution, _heading_stage(section))
        model = VARIANT.search(section.title)
        if model is not None and attribution.foreign_model(model[0]):
            found = _refused(found, f"of {model[0]}, which is no model of this paper")
        for each in found:
            if isinstance(each, Finding) and (sized := attribution.sized(each.variant)):
                each = replace(each, variant=sized)
            if model is not None and isinstance(each, Finding) and not each.variant:
                each = replace(each, variant=model[0])
            yield each


def _in_section(
    section: Section, place: Place, attribution: Attribution, context: str | None
) -> Iterator[Finding | LeftOut]:
    """Values of one section. Footnotes, and sections about others or about what was tried, only tell what is left."""
    foreign = attribution.foreign_section(section)
    torn = any(lost_columns(paragraph) for paragraph in section.paragraphs)
    for paragraph in section.paragraphs:
        if torn and is_fragment(paragraph):
            continue  # a line of a table whose other lines have several values
        found = findings_of(paragraph, place, attribution, context)
        yield from _refused(found, "in a section about others, or about what was tried") if foreign else found
    for note in section.notes:
        told = findings_of(note, place, attribution, context)
        yield from told if attribution.speaks(note) and not foreign else _refused(told, "in a footnote")
    for table in section.tables:
        told = findings_of_table(table, place, attribution, context)
        yield from _refused(told, "in a section about others, or about what was tried") if foreign else told


def _refused(found: Iterable[Finding | LeftOut], reason: str) -> Iterator[LeftOut]:
    for each in found:
        yield LeftOut(each.key, str(each.value), reason, each.evidence) if isinstance(each, Finding) else each


def _heading_stage(section: Section) -> str | None:
    """The stage of the innermost heading that names one; `?` where it names several.

    A general word (`Fine-tuning`) below a heading that names a method means that method.
    """
    general: str | None = None
    for title in (section.title, *reversed(section.path)):
        named = methods_of_title(title)
        if len(named) > 1:
            return general or "?"
        for only in named:
            if only not in GENERIC:
                return only if general is None or may_mean(general, only) else general
            general = general or only
    return general


def _order(method: str) -> tuple[int, str]:
    order = ("pretrain", "midtrain", "cooldown", "distill", "sft", "rft", "reward")
    return (order.index(method) if method in order else len(order), method)
