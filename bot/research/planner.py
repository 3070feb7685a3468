"""What a plan rests on: where each value of the recipe comes from, what papers did and measured, which data there are.

Nothing here changes the recipe: the playbook starts from its own row, and what papers say stands beside it with its
quote, for the people who agree to the plan. What leaves is the method and the name of a public benchmark.

Not covered: whether a paper's setting fits another model; the table says whose it is.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from bot.errors import PostdocError, UserError
from bot.research.errors import ResearchError
from bot.research.installed import Installed, Signature
from bot.research.papers.fragment import to_recipe
from bot.research.papers.reading import read_paper
from bot.research.papers.recipe import PaperRecipe, extract
from bot.research.papers.search import search as search_papers
from bot.research.ranking import LicenceGate, Mapper, Refusal, Wanted, find
from bot.research.web import Web

MOST_PAPERS = 2
"""Read whole. arXiv asks for three seconds between two requests."""
MOST_SEARCHED = 6
MOST_DATASETS = 3
SECONDS = 60.0
"""All of the research for one plan."""
_LONGEST_QUOTE = 300
_CONFIGS: Mapping[str, str] = {
    "sft": "trl.SFTConfig", "pretrain": "trl.SFTConfig", "rft": "trl.SFTConfig", "synthetic": "trl.SFTConfig",
    "dpo": "trl.DPOConfig", "grpo": "trl.GRPOConfig", "reward": "trl.RewardConfig",
    "distill": "trl.DistillationConfig", "classify": "transformers.TrainingArguments",
    "vision": "transformers.TrainingArguments", "speech": "transformers.Seq2SeqTrainingArguments",
}  # fmt: skip
_OF_THE_MODEL = "trl.ModelConfig"
"""Where the scripts take what is not the trainer's: LoRA, precision of the weights."""
_SUBJECTS: Mapping[str, str] = {
    "GSM8K": "math", "MATH": "math", "MATH-500": "math", "AIME": "math", "AMC": "math", "OlympiadBench": "math",
    "MGSM": "math", "GSM8K-Platinum": "math", "HumanEval": "code", "MBPP": "code", "MBPP+": "code",
    "LiveCodeBench": "code", "BigCodeBench": "code", "BFCL": "function calling", "IFEval": "instruction following",
    "GPQA": "science", "MMLU": "multiple choice", "MMLU-Pro": "multiple choice", "ARC": "science",
    "HealthBench": "medical",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Question:
    method: str
    benchmark: str
    """A public benchmark's name; empty where there is none, and then no name leaves."""
    language: str = ""


@dataclass(frozen=True, slots=True)
class Quoted:
    """A value that a paper gives."""

    value: Any
    quote: str
    title: str
    url: str


@dataclass(frozen=True, slots=True)
class Setting:
    """One line of the recipe with what it rests on."""

    key: str
    value: Any
    source: str
    """The goal, or the playbook's row."""
    default: str = ""
    """What the installed trainer takes without it, as it is written there; empty where that is not known."""
    default_source: str = ""
    papers: tuple[Quoted, ...] = ()


@dataclass(frozen=True, slots=True)
class Gain:
    """What a paper measured on the benchmark: evidence for what may be expected, not a promise."""

    model: str
    said: str
    """The cell as it stands."""
    caption: str
    title: str
    url: str


@dataclass(frozen=True, slots=True)
class Offer:
    """A data set that may serve, with the reasons."""

    id: str
    url: str
    score: float
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Findings:
    settings: tuple[Setting, ...] = ()
    gains: tuple[Gain, ...] = ()
    offers: tuple[Offer, ...] = ()
    notes: tuple[str, ...] = ()
    """What could not be asked or read, one sentence each."""
    asked_at: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Judges:
    """What other rooms know, for ranking data sets."""

    refuses: Refusal
    licence: LicenceGate
    mapper: Mapper | None = None


@dataclass(slots=True)
class _Notes:
    said: list[str] = field(default_factory=list)

    def of(self, what: str, error: BaseException) -> None:
        self.said.append(f"{what}: {error}")


async def research(
    web: Web, question: Question, recipe: Mapping[str, Any], sources: Mapping[str, str], judges: Judges, *,
    installed: Installed | None = None, clock: Callable[[], float] = time.time, seconds: float = SECONDS,
) -> Findings:  # fmt: skip
    """All that can be found in time. `sources` says of each key of `recipe` where it comes from.

    Raises nothing that a plan would have to wait for: what is missing is a note.
    """
    notes = _Notes()
    defaults = await asyncio.to_thread(_defaults, question.method, recipe, installed or Installed(), notes)
    papers: list[PaperRecipe] = []
    offers: list[Offer] = []
    try:
        async with asyncio.timeout(seconds):
            offers = await _offers(web, question, judges, clock(), notes)
            papers = await _papers(web, question, notes)
    except TimeoutError:
        notes.said.append(f"Research was ended after {seconds:.0f} seconds.")
    told = [(paper, _told(paper, question.method)) for paper in papers]
    settings = tuple(
        Setting(key, value, sources.get(key, ""), *defaults.get(key, ("", "")), _quoted(key, told))
        for key, value in recipe.items()
    )
    gains = tuple(gain for paper in papers for gain in _gains(paper, question.benchmark))[:12]
    return Findings(settings, gains, tuple(offers), tuple(dict.fromkeys(notes.said)), clock())


def _defaults(
    method: str, recipe: Mapping[str, Any], installed: Installed, notes: _Notes
) -> dict[str, tuple[str, str]]:
    """Key -> (default, where it says so)."""
    found: dict[str, tuple[str, str]] = {}
    for name in (_OF_THE_MODEL, _CONFIGS.get(method, "transformers.TrainingArguments")):
        try:
            signature: Signature = installed.signature(name)
        except ResearchError as error:
            notes.of("Installed defaults are not known", error)
            continue
        for key in recipe:
            parameter = signature.parameter(key)
            if parameter is not None and parameter.default is not None:
                found[key] = (parameter.default, signature.source)
    return found


async def _offers(web: Web, question: Question, judges: Judges, now: float, notes: _Notes) -> list[Offer]:
    subject = _SUBJECTS.get(question.benchmark, "")
    if not subject:
        notes.said.append("No data sets were searched for: nothing public says what the benchmark is about.")
        return []
    wanted = Wanted(question.method, subject, question.language)
    try:
        ranked = await find(
            web, wanted, now=now, refuses=judges.refuses, licence=judges.licence, mapper=judges.mapper,
            most_looked_at=MOST_DATASETS,
        )  # fmt: skip
    except ResearchError as error:
        notes.of("Data sets were not searched", error)
        return []
    return [
        Offer(each.dataset.id, each.dataset.url, round(each.score, 2), tuple(r.sentence for r in each.reasons[:4]))
        for each in ranked
        if not each.refused
    ][:MOST_DATASETS]


async def _papers(web: Web, question: Question, notes: _Notes) -> list[PaperRecipe]:
    if not question.benchmark:
        notes.said.append(
            "No papers were searched for: the benchmark is not a public one, and its name does not leave."
        )
        return []
    try:
        found = await search_papers(web, f"{question.method} {question.benchmark}", limit=MOST_SEARCHED)
    except ResearchError as error:
        notes.of("Papers were not searched", error)
        return []
    notes.said += found.notes
    recipes: list[PaperRecipe] = []
    for hit in found.hits:
        if len(recipes) == MOST_PAPERS:
            break
        try:
            paper = await read_paper(web, hit.id)
            recipes.append(await asyncio.to_thread(extract, paper))
        except (ResearchError, UserError) as error:
            notes.of(f"“{hit.title[:80]}” was not read", error)
    return recipes


def _told(paper: PaperRecipe, method: str) -> dict[str, tuple[Any, str, str]]:
    """Key of recipe.yaml -> (value, quote, address) where the paper trains by this method and gives one value."""
    try:
        fragment = to_recipe(paper, method)
    except PostdocError:
        return {}
    return {key: (source.value, source.quote[:_LONGEST_QUOTE], source.url) for key, source in fragment.values.items()}


def _quoted(key: str, told: Sequence[tuple[PaperRecipe, Mapping[str, tuple[Any, str, str]]]]) -> tuple[Quoted, ...]:
    return tuple(
        Quoted(values[key][0], values[key][1], paper.title, values[key][2]) for paper, values in told if key in values
    )


def _gains(paper: PaperRecipe, benchmark: str) -> list[Gain]:
    wanted = _plain(benchmark)
    return [
        Gain(each.model, each.said, each.caption[:_LONGEST_QUOTE], paper.title, each.url)
        for each in paper.results
        if wanted and _plain(each.benchmark) == wanted
    ][:6]


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
