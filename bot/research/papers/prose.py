"""Hyperparameters from running text: a name with its value next to it, the stage and the model that it is said for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bot.research.papers import wording
from bot.research.papers.attribution import Attribution, evaluates, makes_data
from bot.research.papers.findings import Evidence, Finding, LeftOut
from bot.research.papers.model import Section
from bot.research.papers.owners import EVERY_STAGE, EVERYWHERE, may_mean, stage_at, variant_at
from bot.research.papers.respective import Said, respective
from bot.research.papers.saying import one_of_several, said_in
from bot.research.papers.sentences import clause_at, sentences
from bot.research.papers.stages import RL_METHODS, Mention, mentions

# Words that may stand between a name and its value.
_APPROXIMATE = re.compile(r"(?:about|approximately|around|roughly|~|≈|∼|nearly|almost)\s*\Z", re.IGNORECASE)
_PER_DEVICE = re.compile(
    r"\s*(?:sequences|examples|samples|prompts)?\s*(?:per|on each|for each|/)[- ]?(?:device|"
    r"GPU|accelerator|worker|rank)\b",
    re.IGNORECASE,
)
_TOKENS = re.compile(r"\s*(?:k|M)?[- ]?tokens\b", re.IGNORECASE)
_PROMPTS = re.compile(r"\s*(?:prompts|questions|queries|problems)\b", re.IGNORECASE)

MOST_CHARACTERS = 1_500
"""Of a sentence that is read for values; what is longer is no sentence."""
_DECODING = frozenset({"temperature", "top_p", "top_k", "num_generations", "max_completion_length"})
_PARTS = re.compile(
    r"\s*(?:for|of|in|on|to)\s+(?:the |our )?(?:critic|value (?:model|network|"
    r"function|head)|reward (?:model|head)|projector|connector|vision (?:encoder|"
    r"tower)|adapter layers|embeddings?|router|"
    r"discriminator|teacher|encoder|biases|norms|LoRA B|B matri\w+)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a paragraph stands, as far as whose values it tells is concerned."""

    section: Section
    url: str
    lora: bool
    """The paper trains adapters at all."""


def findings_of(
    paragraph: str, place: Place, attribution: Attribution, context: str | None
) -> Iterator[Finding | LeftOut]:
    """Values in a paragraph. `context` is the stage that its heading names; a stage that a sentence names holds for
    those after it, until another is named."""
    current = context
    others = False
    for sentence in sentences(paragraph):
        if len(sentence) > MOST_CHARACTERS or attribution.told_in_passing(place.section, sentence):
            continue
        others = attribution.topic_is_others(sentence, others)
        found = [each for each in mentions(sentence) if not attribution.of_others_at(sentence, each.start)]
        for each in _of_sentence(sentence, paragraph, place, attribution, current, found):
            if others and isinstance(each, Finding):
                yield LeftOut(each.key, str(each.value), "said of others in the sentence before", each.evidence)
            else:
                yield each
        current = _carried(found, sentence, current, context)


def _carried(found: Sequence[Mention], sentence: str, current: str | None, heading: str | None) -> str | None:
    """The stage that the next sentence speaks of when it names none."""
    firm = [each for each in found if not each.weak]
    named = {each.method for each in firm}
    if len(named) == 1:
        only = next(iter(named))
        # `fine-tune` in a section on DPO is DPO.
        return heading if heading is not None and may_mean(only, heading) else only
    if len(named) > 1:
        return "?" if heading is None else heading
    if current is None and (things := {each.method for each in found if not each.past}):
        return next(iter(things)) if len(things) == 1 else None
    if current is None and EVERYWHERE.search(sentence):
        return EVERY_STAGE
    return current


def _of_sentence(
    sentence: str, paragraph: str, place: Place, attribution: Attribution, context: str | None, found: Sequence[Mention]
) -> Iterator[Finding | LeftOut]:
    evidence = Evidence(sentence, place.section.where, place.url)
    said = list(said_in(sentence, paragraph, lora=place.lora))
    shared = list(respective(sentence, said, found)) if "respectively" in sentence else []
    for each, key, stage, variant in shared:
        if not _reason_against(each, sentence, attribution, [], in_list=True):
            yield Finding(key, each.number.tidy, evidence, stage or context, False, variant, each.term.unit)
    handled = {each.number.start for each, *_ in shared}
    said = [each for each in said if each.number.start not in handled]
    for each in said:
        reason = _reason_against(each, sentence, attribution, said)
        if reason:
            yield LeftOut(each.term.key, sentence[each.start : each.end], reason, evidence)
            continue
        yield from _bound(each, sentence, context, found, evidence, said)
    for key, value, at in (*wording.absent_in(sentence), *wording.words_in(sentence)):
        if attribution.settled(sentence, at, at + 1):
            stage, everywhere = stage_at(sentence, at, at + 1, found, context)
            yield Finding(key, value, evidence, stage, everywhere, variant_at(sentence, at, at).split("+")[0])


def _reason_against(
    each: Said, sentence: str, attribution: Attribution, said: list[Said], *, in_list: bool = False
) -> str:
    """Why a value is not taken; empty where it is."""
    number, term = each.number, each.term
    value = number.value
    if not attribution.settled(sentence, number.start, number.end):
        return "said of others, or of what was tried"
    if not term.low <= value <= term.high or (term.whole and not number.whole):
        return f"not a value that {term.key} can have"
    if number.suffix == "k" and term.key in {"max_length", "max_prompt_length", "max_completion_length"}:
        return "written with k: 1000 or 1024 is not said"
    if _PARTS.match(sentence, number.end):
        return "for a part of the training that is not the model's own"
    if not in_list and one_of_several(sentence, each, said):
        return "several values, and it is not said which holds"
    if term.key in _DECODING and (evaluates(sentence) or makes_data(sentence)) and not _ROLLING.search(sentence):
        return "for evaluation or for making data, not for training"
    clause = clause_at(sentence, number.start).text
    measured = evaluates(clause) or bool(re.search(r"\b(?:vLLM|SGLang|for generation|generating)\b", clause))
    if term.key in {"global_batch_size", "max_length", "seed"} and measured and not _TRAINS.search(sentence):
        return "for evaluation"
    return ""


_OUR_PRETRAINING = re.compile(r"\b(?:we|our|continu\w+|further|domain-adaptive|mid-?training)\b", re.IGNORECASE)
_ROLLING = re.compile(
    r"\broll-?outs?\b|\bduring (?:RL|training|GRPO|PPO)\b|\bgroup\b|\bpolicy samples\b|\bGRPO\b|\bPPO\b", re.IGNORECASE
)
_TRAINS = re.compile(r"\b(?:train|fine-?tun)", re.IGNORECASE)


def _bound(
    each: Said, sentence: str, context: str | None, found: Sequence[Mention], evidence: Evidence, said: list[Said]
) -> Iterator[Finding | LeftOut]:
    """The finding: its key by what follows the number, its stage and model by what surrounds it."""
    number = each.number
    key, unit = _precise(each, sentence)
    if not key:
        yield LeftOut(each.term.key, sentence[each.start : each.end], "per device or in all is not said", evidence)
        return
    rest = _until_next(sentence, each, said)
    stage, everywhere = stage_at(sentence, each.start, number.end, found, context, rest)
    if stage == "pretrain" != context and not _OUR_PRETRAINING.search(sentence):
        yield LeftOut(
            key, sentence[each.start : each.end], "pre-training of a model that the authors start from", evidence
        )
        return
    if key == "mini_batch_size" and stage not in RL_METHODS | {None, "?"}:
        key = "global_batch_size"
    if (
        key == "max_length"
        and stage in RL_METHODS
        and not re.search(r"sequence|context|model", sentence[each.start : number.start])
    ):
        yield LeftOut(key, sentence[each.start : each.end], "of prompts, answers or both is not said", evidence)
        return
    approximate = bool(_APPROXIMATE.search(sentence[: number.start]))
    variant = variant_at(sentence, each.start, number.end, rest)
    for model in variant.split("+"):
        yield Finding(key, number.tidy, evidence, stage, everywhere, model, unit, approximate)


def _precise(each: Said, sentence: str) -> tuple[str, str]:
    key, unit, after = each.term.key, each.term.unit, sentence[each.number.end : each.number.end + 40]
    if key in {"global_batch_size", "mini_batch_size"}:
        if _PER_DEVICE.match(after):
            return "per_device_train_batch_size", "sequences"
        if _TOKENS.match(after):
            return "batch_size_tokens", "tokens"
        if _PROMPTS.match(after):
            return key, "prompts"
        if each.number.suffix in {"m", "b"} or (each.number.suffix == "k" and each.number.value > 16_000):
            return "", ""
    if key == "warmup_ratio" and not each.number.percent and each.number.value >= 1:
        return "", ""
    return key, unit


def _until_next(sentence: str, each: Said, said: list[Said]) -> str:
    """What follows a value up to the next one."""
    nexts = [other.start for other in said if other.start >= each.end]
    return sentence[each.number.end : min(nexts, default=len(sentence))]
