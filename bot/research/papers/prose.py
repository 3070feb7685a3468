"""Hyperparameters from running text: a name with its value next to it, the stage and the model that it is said for."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bot.research.papers import wording
from bot.research.papers.attribution import Attribution, evaluates, makes_data
from bot.research.papers.findings import Evidence, Finding, LeftOut
from bot.research.papers.model import Section
from bot.research.papers.naming import VARIANT
from bot.research.papers.numbers import number_at, numbers_in
from bot.research.papers.owners import EVERY_STAGE, EVERYWHERE, stage_at, variant_at
from bot.research.papers.respective import Said, respective
from bot.research.papers.saying import said_in
from bot.research.papers.sentences import clause_at, sentences
from bot.research.papers.several import one_of_several
from bot.research.papers.stages import RL_METHODS, THEY_TRAIN, Mention, may_mean, mentions
from bot.research.papers.vocabulary import TERMS, pattern_of

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
DECODING = frozenset({"temperature", "top_p", "top_k", "num_generations", "max_completion_length"})
_PARTS = re.compile(
    r"\s*(?:for|of|in|on|to)\s+(?:the |our )?(?:critic|value (?:model|network|"
    r"function|head)|reward (?:model|head)|projector|connector|vision (?:encoder|"
    r"tower)|adapter layers|embeddings?|router|"
    r"discriminator|teacher|encoder|biases|norms|LoRA B|B matri\w+)\b",
    re.IGNORECASE,
)
_CAN_TAKE = re.compile(
    rf"(?:{VARIANT.pattern}|\b(?:models?|encoders?|architecture|backbones?|checkpoints?))\s(?:\w+\s){{0,2}}"
    r"(?:supports?|has|have|allows?|accepts?|can|comes?)\b"
)
_EVERY_ROUND = re.compile(r"\b(?:each|every|both|all|throughout)\b", re.IGNORECASE)
_ONE_ROUND = re.compile(
    r"\b(?:in|for|during|from|of) (?:the )?"
    r"(?:(?:first|second|third|last|final|later|earlier|other) (?:rounds?|iterations?|half)|"
    r"(?:rounds?|iterations?) (?:\d|one|two|three|I+\b))",
    re.IGNORECASE,
)
_ACCUMULATES = re.compile(r"\baccumulat\w+", re.IGNORECASE)
_IN_ALL = re.compile(r"\b(?:global|effective|total|overall|in total|in all|per (?:update|step))\b", re.IGNORECASE)
_PART_BEFORE = re.compile(
    r"\b(?:critic|value (?:model|network|function|head)|projector|discriminator|teacher|router|judge)(?:['’]s)?\b"
    r"[^,;.()]{0,40}\Z",
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
    others = aside = one_round = False
    told = sentences(paragraph)
    if any(map(_TORN.search, told)):
        return  # columns of a page that were read across
    for sentence in told:
        if (
            len(sentence) > MOST_CHARACTERS
            or lost_columns(sentence)
            or attribution.told_in_passing(place.section, sentence)
        ):
            continue
        others = attribution.topic_is_others(sentence, others) or attribution.opens_aside(sentence)
        goes_on = re.match(r"(?:Its|Their)\b" if sentence is told[0] else r"(?:Its?|They|Their)\b", sentence) and (
            aside or sentence is told[0]
        )
        aside = _by_another(sentence, attribution)
        one_round = not _EVERY_ROUND.search(sentence) and (one_round or _ONE_ROUND.search(sentence) is not None)
        found = [each for each in mentions(sentence) if not attribution.of_others_at(sentence, each.start)]
        for each in _of_sentence(sentence, paragraph, place, attribution, current, found):
            if (others or goes_on) and isinstance(each, Finding):
                yield LeftOut(each.key, str(each.value), "said of others in the sentence before", each.evidence)
            elif one_round and isinstance(each, Finding):
                yield LeftOut(each.key, str(each.value), "for one round of several", each.evidence)
            else:
                yield each
        current = _carried(found, sentence, current, context)


_TORN = re.compile(
    r"(?<=\s)(?:the|an?) (?:with|of|was|is|were|are|for|by|than|the|an?|and|to)(?=\s)|"
    r"(?<=\s)[a-z]{2,}- [A-Z]|(?<=\s)of (?:with|of|was|is|were|are|for|by|than|and)(?=\s)"
)


def _carried(found: Sequence[Mention], sentence: str, current: str | None, heading: str | None) -> str | None:
    """The stage that the next sentence speaks of when it names none."""
    firm = [each for each in found if _is_topic(sentence, each)]
    if not firm and any(not each.weak and each.method != current for each in found) and heading is None:
        return None  # named in passing: what comes next may be about either
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


def lost_columns(sentence: str) -> bool:
    """Whether two values stand side by side with nothing between: a table that lost its lines in a PDF."""
    numbers = numbers_in(sentence)
    beside = any(
        re.fullmatch(r"\s+", sentence[one.end : other.start]) and not re.match(r"\d{3}(?!\d)", sentence[other.start :])
        for one, other in itertools.pairwise(numbers)
        if not one.word and not other.word
    )
    return beside or (is_fragment(sentence) and bool(_VALUES_BESIDE.search(sentence)))


_A_VALUE = (
    r"(?:AdamW?|SGD|Muon|Lion|Adafactor|cosine|linear|constant|WSD|bf16|fp16|fp32|none|yes|no|✓|✗|–|—|-|[\d.]+%?)"
)
_VALUES_BESIDE = re.compile(rf"(?<!\S){_A_VALUE}\s+{_A_VALUE}(?!\S)", re.IGNORECASE)


def is_fragment(paragraph: str) -> bool:
    """Whether a paragraph is a line of a table or of a listing and no sentence."""
    return not re.search(r"[.!?:;]['\")\]”’]*\Z", paragraph) and len(paragraph.split()) <= 12


def _is_topic(sentence: str, mention: Mention) -> bool:
    """Whether a sentence is about the stage that it names: it opens with it, or the authors say that they run it.

    A thing that a stage made (`the supervised model`) is the topic where it is the sentence's subject."""
    if mention.weak:
        opens = not mention.past and re.fullmatch(r"\W*(?:The |Our )?(?:\w+ )?", sentence[: mention.start])
        return bool(opens and _IS_TRAINED.match(sentence, mention.end))
    return mention.start < 30 or bool(THEY_TRAIN.search(sentence[: mention.start]))


_IS_TRAINED = re.compile(
    r"[- ]?(?:\w+ )?(?:models?|polic(?:y|ies)|checkpoints?)\b(?:[^.;]|\.(?=\S)){0,60}?"
    r"\b(?:train(?:ed|s)|fine-?tun(?:ed|es)|tuned|initiali[sz]ed|starts?|obtained|optimi[sz]ed)\b"
)


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
        yield from _bound(each, sentence, context, found, evidence, said, attribution)
    absent = [each for each in wording.absent_in(sentence) if attribution.own_statement(sentence, each[2])]
    worded = [each for each in wording.words_in(sentence) if attribution.settled(sentence, each[2], each[2] + 1)]
    for key, value, at in (*absent, *worded):
        if holder := attribution.holders.unknown(sentence, at, at):
            yield LeftOut(key, str(value), f"said for `{holder}`, and whose that is is not known", evidence)
            continue
        stage, everywhere = stage_at(sentence, at, at + 1, found, context)
        yield Finding(key, value, evidence, stage, everywhere, variant_at(sentence, at, at).split("+")[0])


def _reason_against(
    each: Said, sentence: str, attribution: Attribution, said: list[Said], *, in_list: bool = False
) -> str:
    """Why a value is not taken; empty where it is."""
    number, term = each.number, each.term
    value = number.value
    if holder := attribution.holders.unknown(sentence, each.start, max(each.end, number.end)):
        return f"said for `{holder}`, and whose that is is not known"
    if not attribution.settled(sentence, number.start, number.end):
        return "said of others, or of what was tried"
    if not term.low <= value <= term.high or (term.whole and not number.whole):
        return f"not a value that {term.key} can have"
    if number.suffix == "k" and term.key in {"max_length", "max_prompt_length", "max_completion_length"}:
        return "written with k: 1000 or 1024 is not said"
    if _PARTS.match(sentence, number.end):
        return "for a part of the training that is not the model's own"
    if term.key == "max_length" and _CAN_TAKE.search(clause_at(sentence, number.start).text):
        return "what a model can take, not what it was trained with"
    if _elsewhere(sentence, each):
        return "another is told for something else, and what this one is for is not known"
    if _ONE_ROUND.search(sentence):
        return "for one round of several"
    if (
        term.key == "global_batch_size"
        and _ACCUMULATES.search(sentence)
        and not _IN_ALL.search(sentence[each.start - 20 if each.start > 20 else 0 : each.end + 20])
    ):
        return "per device or in all is not said"
    if _PART_BEFORE.search(sentence[: each.start]):
        return "for a part of the training that is not the model's own"
    if not in_list and one_of_several(sentence, each, said):
        return "several values, and it is not said which holds"
    if term.key in DECODING and _by_another(sentence, attribution):
        return "for a model that is not the one trained"
    if term.key == "max_length" and _OF_INPUTS.search(clause_at(sentence, number.start).text):
        return "of a part of the input"
    if (
        _BESIDE.match(sentence, number.end)
        or _REST.match(sentence, number.end)
        or (term.key not in _MAY_CHANGE and _CHANGES.search(sentence))
    ):
        return "another is told for a part of the training, or for another model"
    if term.key in _MEASURES and _MEASURED.search(sentence):
        return "measured, not set"
    if (
        term.key == "max_steps"
        and number.value <= 100
        and _OF_AN_AGENT.search(sentence)
        and not _TRAINS.search(sentence)
    ):
        return "steps of an agent, not of its training"
    if _OTHERS_SYMBOL.search(sentence) and term.key in _SYMBOLS:
        return "a symbol of something else"
    if term.key in DECODING and (evaluates(sentence) or makes_data(sentence)) and not _ROLLING.search(sentence):
        return "for evaluation or for making data, not for training"
    clause = clause_at(sentence, number.start).text
    measured = evaluates(clause) or bool(re.search(r"\b(?:vLLM|SGLang|for generation|generating)\b", clause))
    if term.key in {"global_batch_size", "max_length", "seed"} and measured and not _TRAINS.search(sentence):
        return "for evaluation"
    return ""


# `3 epochs (2 for the 70B model)`
_BESIDE = re.compile(r"(?:[ -]\w+){0,2} \(\d[\d.,e^×-]*[^()]{0,12}\b(?:for|in|on)\b[^()]*\)")
# `3 epochs, the others for 2`; `1e-5, except for the smallest, where it is 5e-5`
_REST = re.compile(
    r"[^;.]{0,25}?\b(?:(?:the )?(?:others?|rest|remaining \w+)\b|except(?:ing)? (?:for|in|on)\b|apart from\b)"
    r"(?:[^;.]|\.(?=\d)){0,40}?\d"
)
_MAY_CHANGE = frozenset({"learning_rate", "min_lr", "warmup_steps", "warmup_ratio"})
_CHANGES = re.compile(
    r"\bat first\b|\d(?: \w+)? afterwards\b|\blater (?:on|steps|increased|extended|raised)\b|\bafter (?:step|"
    r"epoch) \d|\bplanned\b|"
    r"\bstopp?(?:ed|ing|s)? (?:early|after)\b|\bearly stopping\b|\bprogressively\b|\bgradually\b|\bcurriculum\b|"
    r"\bfor the first [\d,]+ (?:steps|updates|epochs)\b|"
    r"\b(?:is|are|was|were|then|and) (?:then |later )?(?:increased|raised|extended|doubled|halved|lowered|"
    r"annealed|grown) "
    r"(?:to|from)\b"
)
_OF_INPUTS = re.compile(
    r"\b(?:passages?|pages?|excerpts?|captions?|observations?|articles?|snippets?|retrieved|evidence|"
    r"tool (?:outputs?|results?)|"
    r"summar(?:y|ies)|judge|quer(?:y|ies))\b",
    re.IGNORECASE,
)
_DOER = re.compile(rf"\b(?:by|from|using|with)\s(?:the )?(?:{VARIANT.pattern})")


def _by_another(sentence: str, attribution: Attribution) -> bool:
    """Whether what is sampled is sampled from another model: `Rewards are given by Qwen3-32B`."""
    foreign = any(attribution.foreign_model(each[0]) for each in VARIANT.finditer(sentence))
    return foreign or (_DOER.search(sentence) is not None and not _ROLLING.search(sentence))


_MEASURES = frozenset(
    {"beta", "epsilon", "epsilon_high", "max_grad_norm", "max_completion_length", "max_prompt_length", "max_length"}
)
_MEASURED = re.compile(
    r"\bat the end\b|\bon average\b|\b(?:mean|average|median)\b|\b(?:stay|remain|hover)(?:s|ed)? (?:below|"
    r"above|at|around|"
    r"near|under|close)\b|\b(?:grow|rise|fall|drop|climb|shrink)s? (?:to|from|by)\b|\b(?:grew|rose|fell|"
    r"dropped) (?:to|from)\b"
)
_OF_AN_AGENT = re.compile(
    r"\b(?:episodes?|trajector\w+|environments?|agents?|turns?|interactions?|tool calls?|act(?:s|ions?)|[A-Z]\w*Shop|"
    r"\w*World)\b"
)
_SYMBOLS = frozenset({"beta", "lam", "epsilon", "lora_alpha", "lora_r", "num_generations", "temperature"})
_OTHERS_SYMBOL = re.compile(
    r"\b(?:moving average|EMA|momentum|smooth(?:ed|ing)|F_?β|VAE|greedy|Cronbach|Krippendorff|correlat\w+|query heads|"
    r"softmax|soften(?:ed|ing)?|logits|quanti[sz]\w+|mix(?:es|ed)?|auxiliary|contrastive|InfoNCE)\b|\bF_β|ε-greedy"
)
_OUR_PRETRAINING = re.compile(r"\b(?:we|our|continu\w+|further|domain-adaptive|mid-?training)\b", re.IGNORECASE)
_ROLLING = re.compile(
    r"\broll-?outs?\b|\bduring (?:RL|training|GRPO|PPO)\b|\bgroup\b|\bpolicy samples\b|\bGRPO\b|\bPPO\b", re.IGNORECASE
)
_TRAINS = re.compile(r"\b(?:train|fine-?tun)", re.IGNORECASE)


_FOR_ANOTHER = re.compile(
    r"(?: (?:steps|tokens|epochs|per (?:GPU|device)))?\s*[,;]?\s*(?:and |but |while )?(?:for|in|with|on) "
    r"(?P<owner>[^,;.]{2,40}?),? (?:we use |it is |of |by |to |over )?(?=\d)"
)


def _elsewhere(sentence: str, each: Said) -> bool:
    """`For LoRA we use 2e-4, for rsLoRA 1e-4`: told apart by what is neither a stage nor a model."""
    found = _FOR_ANOTHER.match(sentence, each.number.end)
    other = number_at(sentence, found.end()) if found else None
    if found is not None and any(pattern_of(term).search(found["owner"]) for term in TERMS):
        return False
    if found is None or other is None or not each.term.low <= other.value <= each.term.high:
        return False
    known = mentions(found["owner"]) or VARIANT.search(sentence, found.start("owner"), other.end)
    bare = re.match(r"\s*(?:[.,;)]|\Z)", sentence[other.end :]) is not None
    return not known and (each.term.key == "learning_rate" or bare)


def _bound(
    each: Said,
    sentence: str,
    context: str | None,
    found: Sequence[Mention],
    evidence: Evidence,
    said: list[Said],
    attribution: Attribution,
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
        if attribution.foreign_model(model):
            yield LeftOut(key, sentence[each.start : each.end], f"{model} is no model of this paper", evidence)
            continue
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
