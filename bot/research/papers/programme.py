"""What a paper trains, as far as it says so itself: no stage is supposed.

A value that stands without a stage belongs to the one training of a paper that verifiably has one; in a paper that
names several, or none, such a value is nobody's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from bot.research.papers.attribution import Attribution
from bot.research.papers.findings import Finding
from bot.research.papers.model import Paper
from bot.research.papers.sentences import sentences
from bot.research.papers.stages import (
    FAMILIES,
    GENERIC,
    PHASES,
    PREFERENCE_METHODS,
    RL_METHODS,
    THEY_TRAIN,
    Mention,
    may_mean,
    mentions,
    methods_in,
    methods_of_title,
    ordinal_of,
    task_of,
    told_in_order,
)
from bot.research.papers.whose import OURS

_THEY = re.compile(r"\b(?:we|our)\b[^.;]{0,40}\Z", re.IGNORECASE)
_SEVERAL = re.compile(
    r"\b(?:two|three|four|several|multiple|multi)[- ](?:training |consecutive )?(?:stages?|phases?|steps?|acts?)\b"
    r"(?=[ -](?:training|recipe|pipeline|procedure|curriculum|process|schedule|post-training|fine-?tuning))|"
    r"\bin (?:two|three|four) (?:training )?(?:stages|phases|steps|acts)\b",
    re.IGNORECASE,
)


# Words that only a training of that kind has: where they stand, there is one, whether it is named or not.
_SIGNS = {
    "rl": re.compile(
        r"\b(?:roll-?outs?|policy (?:gradient|updates?|optimi[sz]ation)|advantages? (?:are|is|estimat|normali[sz])\w*|"
        r"KL (?:penalty|term|coefficient)|verifiable rewards?|reward (?:function|signal|is|of)|rewards? (?:are|is))\b"
    ),
    "preference": re.compile(r"\b(?:chosen and (?:the )?rejected|preferred and (?:the )?(?:dis|non-?)preferred) \w+"),
    "pretrain": re.compile(
        r"\b(?:we|our)\b[^.;]{0,40}\bpre-?train(?:ed|ing)?\b(?! (?:model|weights|checkpoint))|"
        r"\b(?:masked|causal) language modell?ing\b"
    ),
}


@dataclass(frozen=True, slots=True)
class Programme:
    """The stages of training that a paper tells of as its own."""

    stages: frozenset[str]
    """Methods, and general words (`rl`) where no method of that family is named."""
    run: frozenset[str]
    """Those of them that a heading, a value or the authors' own sentence bears out; the rest is only announced."""
    announced: frozenset[str]
    """Those that title and abstract name."""
    told: frozenset[str]
    """Those that a heading, a table or the authors' own sentence names; others are only subjects of bare sentences."""
    order: Mapping[str, str]
    """`#1` -> the stage that `the first stage` is."""
    alone: str | None
    """The one training that there is; None where there are several, or none is named."""

    def named(self, found: Iterable[Finding]) -> list[Finding]:
        """Stages that have a number by their names; by the number where names are missing or the same."""
        clear = self.order if len(set(self.order.values())) == len(self.order) else {}

        def name(part: str) -> str:
            return clear.get(part, f"stage {part[1:]}") if part.startswith("#") else part

        return [each.of("+".join(map(name, each.stage.split("+")))) if each.stage else each for each in found]

    def foreign(self, method: str) -> str:
        """Why a stage is none of the paper's own; empty where it is one.

        Rivals of a method that is announced (DPO in a paper whose abstract says KTO), and what nothing but a bare
        sentence names (`SFT fine-tunes the same model`) in a paper that announces something else: a control.
        """
        if method.startswith("stage ") and method not in self.stages:
            return f"what {method} is, is not said"
        if any(self.announced & family and method in family - self.announced for family in FAMILIES.values()):
            return f"{method} is no method of this paper"
        announced = {each for each in self.announced if not each.startswith("#")}
        meant = {method} | {general for general in GENERIC if may_mean(general, method)}
        if announced and not meant & self.told and method not in PHASES and not method.startswith("stage "):
            return f"that {method} is a stage of the paper's own training is not said"
        return ""

    def every(self) -> tuple[str, ...]:
        """The stages that `in all stages` means; none where it is open which those are."""
        if self.alone is not None:
            return (self.alone,)
        sure = tuple(sorted((self.run & self.stages) - PHASES))
        return sure if self.stages - PHASES <= set(sure) else ()

    def meant(self, said: str) -> str | None:
        """The method that a word means here; None where that is open."""
        if said == "sft" and "sft" not in self.stages:
            return None
        if said == "midtrain" and "pretrain" not in self.stages:
            return "pretrain"  # the only one of its kind: training goes on from somebody else's model
        if said == "finetune":
            return (
                self.alone
                if self.alone and self.alone not in RL_METHODS | {"pretrain", "midtrain", "cooldown"}
                else None
            )
        if said == "distillation":
            # Tuning on a teacher's answers goes by that name too.
            return None if self.stages & {"sft", "rft"} else "distill"
        family = FAMILIES.get(said)
        if family is None:
            return said
        known = self.stages & family
        return next(iter(known)) if len(known) == 1 else None if known else said


def programme_of(paper: Paper, attribution: Attribution, found: Iterable[Finding]) -> Programme:
    """What the paper trains, from headings, from what the authors say they run, and from where values stand."""
    announced = frozenset(_announced(paper, attribution))
    valued = [each for each in found if each.stage not in (None, "?")]
    named = {part for each in valued for part in str(each.stage).split("+")}
    said = {part for each in valued if _vouched(each) for part in str(each.stage).split("+")}
    general: set[str] = set()
    before: set[str] = set()
    for section in paper.sections:
        if attribution.foreign_section(section):
            continue
        said |= methods_of_title(section.title)
        for paragraph in section.paragraphs:
            before |= _gone_before(paragraph)
            for mention in _they_run(paragraph, attribution):
                (general if mention.method == "finetune" else said).add(mention.method)
    named |= said
    if "sft" in named and not named & _NEED_A_MODEL and not announced & _NEED_A_MODEL and not _says_sft(paper):
        named, said = named - {"sft"}, said - {"sft"}
    numbered = {each for each in named if each.startswith("#")}
    named = {each for each in named if not each.startswith("#")} - {"*"}
    precise = _without_rivals(named | {each for each in announced if not each.startswith("#")}, announced) - GENERIC
    words = (named | general | announced) & GENERIC
    stages = frozenset(
        precise | {each for each in words if each != "finetune" and not precise & FAMILIES.get(each, set())}
    )
    if len(numbered) > 1 and not precise:
        stages |= {f"stage {each[1:]}" for each in numbered}
    order = _order_of(paper)
    run = (
        {each for each in named if not each.startswith("#")}
        | {order[each] for each in numbered if each in order}
        | {each for each in stages if each.startswith("stage ")}
    )
    run |= {each for each in stages & GENERIC if run & FAMILIES.get(each, set())}
    alone = _alone(paper, frozenset(precise), frozenset(words), general, numbered)
    if alone is not None and _signs(paper, attribution) - _kin(alone):
        alone = None
    told = announced | said | before | set(order.values())
    return Programme(stages, frozenset(run), announced, told, order, alone)


_NEED_A_MODEL = RL_METHODS | PREFERENCE_METHODS | {"reward"}


def _says_sft(paper: Paper) -> bool:
    """Whether anything but `the supervised model` says SFT: without a stage that starts from it, that is any model."""
    told = [paper.title, paper.abstract]
    for section in paper.sections:
        told += [section.title, *section.paragraphs, *section.notes]
        told += [
            text for table in section.tables for text in (table.caption, *(cell for row in table.rows for cell in row))
        ]
    return any(
        each.method == "sft" and text[each.start : each.end].lower() != "supervised"
        for text in told
        for each in mentions(text)
    )


def _vouched(each: Finding) -> bool:
    """Whether the authors stand by a value: it is in a table of settings, or they name themselves."""
    return each.evidence.quote.startswith("Table") or OURS.search(each.evidence.quote) is not None


_LED_TO = re.compile(
    r"\b(?:from|after|following|on top of|initiali[sz]ed (?:from|with|by))\s+(?:the |our )?(?:same |final |"
    r"resulting )?\Z"
)


def _gone_before(paragraph: str) -> set[str]:
    """Stages that another one starts from: `initialised from the SFT model`."""
    return {
        mention.method
        for sentence in sentences(paragraph)
        for mention in mentions(sentence)
        if _LED_TO.search(sentence[max(0, mention.start - 80) : mention.start])
    }


def _without_rivals(named: set[str], announced: frozenset[str]) -> set[str]:
    """Methods of a family of which another is announced are rivals: DPO in a paper whose abstract says KTO."""
    for family in FAMILIES.values():
        if announced & family:
            named = named - (family - announced)
    return named


def _alone(
    paper: Paper, precise: frozenset[str], words: frozenset[str], general: set[str], numbered: set[str]
) -> str | None:
    """The one training of the paper, None in any doubt."""
    whole = precise - PHASES if "pretrain" in precise else precise
    text = " ".join((paper.title, paper.abstract, *(section.title for section in paper.sections)))
    if len(whole) > 1 or len(numbered) > 1 or (len(precise) <= 1 and _SEVERAL.search(text)):
        return None
    if len(whole) == 1:
        only = next(iter(whole))
        if general and only in RL_METHODS | {"pretrain", "midtrain"}:
            return None  # they fine-tune as well, and do not say with what
        kin = {"rl": only in RL_METHODS, "preference": only in PREFERENCE_METHODS, "finetune": True}
        kin["distillation"] = only in {"distill", "sft"}
        return only if all(kin[word] for word in words) else None
    apart = words - {"finetune"}
    if len(apart) == 1:
        only = next(iter(apart))
        return None if general and only == "rl" else "distill" if only == "distillation" else only
    if not apart and words:
        return task_of(paper.title, paper.abstract)
    return None


def _signs(paper: Paper, attribution: Attribution) -> set[str]:
    """Kinds of training whose own words stand in the authors' sections."""
    own = [section for section in paper.sections if not attribution.foreign_section(section)]
    told = [
        sentence
        for section in own
        for paragraph in section.paragraphs
        for sentence in sentences(paragraph)
        if not attribution.told_in_passing(section, sentence)
    ]
    return {
        kind
        for kind, signs in _SIGNS.items()
        if any((found := signs.search(each)) and not attribution.of_others_at(each, found.start()) for each in told)
    }


def _kin(method: str) -> set[str]:
    """The kinds of training whose words a method shares."""
    if method in RL_METHODS:
        return {"rl"}
    if method in PREFERENCE_METHODS:
        return {"rl", "preference"}
    return (
        {"preference", "rl"}
        if method in {"reward", "rft"}
        else {"pretrain"}
        if method in {"pretrain", "midtrain"}
        else set()
    )


def _announced(paper: Paper, attribution: Attribution) -> set[str]:
    """Stages that title and abstract name as the authors' own."""
    told = set(methods_in(paper.title))
    for sentence in sentences(paper.abstract):
        told |= {
            each.method
            for each in mentions(sentence)
            if not each.past
            and not _MEASURED_AGAINST.search(sentence[: each.start])
            and not attribution.of_others_at(sentence, each.start)
            and not (each.weak and each.method in {"reward", "pretrain"})
        }
    if _ADAPTERS.search(f"{paper.title} {paper.abstract}") and not told - {"finetune"}:
        told.add("finetune")
    return told


# `on par with a 7B model trained by supervised fine-tuning`
_MEASURED_AGAINST = re.compile(
    r"\b(?:on par with|than|over|above|ahead of|close to|comparable to|competitive with|compare[sd]? (?:it |"
    r"them |this )?(?:to|with)|versus|"
    r"outperform(?:s|ed|ing)?|surpass(?:es|ed|ing)?|match(?:es|ed|ing)?|exceed(?:s|ed|ing)?|beat(?:s|ing)?)\s"
    r"(?:(?!\b(?:we|our|by \w+ing|when|after|using|via|through)\b)[^,;.]){0,45}\Z",
    re.IGNORECASE,
)
_ADAPTERS = re.compile(r"\b(?:Q?LoRA|DoRA|low-rank adapt\w+|adapters?)\b", re.IGNORECASE)


def _they_run(paragraph: str, attribution: Attribution) -> Iterator[Mention]:
    """Stages that the authors say they run: `we then apply DPO`, `we fine-tune it`."""
    for sentence in sentences(paragraph):
        for mention in mentions(sentence):
            before = sentence[: mention.start]
            lead = _THEY if mention.method == "finetune" else THEY_TRAIN
            if not mention.weak and lead.search(before) and attribution.settled(sentence, mention.start, mention.end):
                yield mention


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
