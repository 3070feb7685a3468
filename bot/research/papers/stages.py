"""Which stage of training words speak of: SFT, DPO, GRPO and their like, named in a sentence, a heading or a table."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

# Method -> the words it goes by. Those of a family (`rl`, `preference`, `finetune`, `distill`) mean the one method of
# that family that the paper trains with, if it is one.
_WORDS: dict[str, str] = {
    "sft": (r"\bd?SFT\b|\bSupervised Fine-?\s?Tun(?:ing|ed)\b|\binstruction[- ](?:fine-?)?tun(?:ing|"
    r"ed?)\b|\bcold[- ]start\b|\bIFT\b|\bsupervised (?:training )?stage\b"),
    "dr_grpo": r"\bDr\.? ?GRPO\b",
    "grpo": r"(?<!Dr\. )(?<!Dr )(?<!Dr)\bGRPO\b|\bGroup Relative Policy Optimi[sz]ation\b",
    "dapo": r"\bDAPO\b",
    "gspo": r"\bGSPO\b",
    "rloo": r"\bRLOO\b",
    "reinforce": r"\bREINFORCE(?:\+\+)?(?!\w)",
    "ppo": r"\bPPO\b|\bProximal Policy Optimi[sz]ation\b",
    "dpo": r"(?<![\w-])(?:d|i|online |iterative )?DPO\b|\bDirect Preference Optimi[sz]ation\b",
    "ipo": r"\bIPO\b",
    "kto": r"\bKTO\b|\bKahneman-Tversky Optimi[sz]ation\b",
    "orpo": r"\bORPO\b",
    "simpo": r"\bSimPO\b",
    "apo": r"\bAPO(?:-(?:zero|down))?\b|\bAnchored Preference Optimi[sz]ation\b",
    "cpo": r"\bCPO\b",
    "reward": (r"\breward[- ]model(?:l?ing| training)?s?\b|\bRMs?\b|\bpreference models?\b|"
    r"\b(?:outcome|process) reward models?\b|\b[PO]RMs?\b"),
    "rft": r"\brejection[- ]sampling fine-?tuning\b|\bRFT\b|\brejection[- ]sampled fine-?tuning\b|\bRAFT\b",
    "distill": r"\b(?:knowledge|on-policy|logit|white-box) distillation\b|\bGKD\b|\bOPD\b",
    "pretrain": (r"\b(?:continued|continual|domain-adaptive|further)[- ]pre-?\s?train(?:ing|"
    r"ed)?\b|\bmid-?training\b|\b(?:we|continue(?:d|s)? to) pre-?train\b|\bpre-?\s?training\b(?! (?:models?|"
    r"LLMs?|language|weights|checkpoints?|base|transformers?|on))|\bCPT\b|\bannealing "
    r"(?:stage|phase)\b"),
    "rl": r"\b(?:RL|RLHF|RLVR|RLAIF|reinforcement learning)\b",
    "distillation": r"\bdistillation\b(?! (?:data|traces|dataset|corpus))",
    "preference": (r"\bpreference[- ](?:optimi[sz]ation|tuning|learning|training|alignment|"
    r"fine-?tuning)\b|\balignment (?:stage|phase|training)\b"),
    "finetune": r"\bfine-?\s?tun(?:e|es|ed|ing)\b",
}  # fmt: skip
FAMILIES = {
    "rl": frozenset({"grpo", "dr_grpo", "dapo", "gspo", "rloo", "reinforce", "ppo"}),
    "preference": frozenset({"dpo", "ipo", "kto", "orpo", "simpo", "apo", "cpo"}),
}
RL_METHODS = FAMILIES["rl"] | {"rl"}
PREFERENCE_METHODS = FAMILIES["preference"] | {"preference"}
GENERIC = frozenset({"rl", "preference", "finetune", "distillation"})
_CASED = frozenset({"ipo", "apo", "cpo", "reinforce", "orpo", "dapo"})
_PATTERNS = {name: re.compile(words, 0 if name in _CASED else re.IGNORECASE) for name, words in _WORDS.items()}
_COUNTED = ("one", "two", "three", "four")
_ORDINAL = re.compile(
    r"\b(?:(?P<order>first|second|third|fourth) (?:training )?(?:stage|phase|step|act)\b|"
    r"(?:stage|phase|act)[- ]?(?P<number>[1-4]\b|I{1,3}\b|one\b|two\b|three\b|four\b))",
    re.IGNORECASE,
)
# What follows a stage's name when it names a thing that the stage made or used, not the stage.
_THING = re.compile(
    r"[- ]?(?:(?:trained|tuned|initiali[sz]ed|style|based) )?(?:(?:\d+B|base|final|reference|initial|resulting|same) )?"
    r"(?:models?|checkpoints?|polic(?:y|ies)|baselines?|data(?:sets?)?|mixtures?|"
    r"corpus|corpora|initiali[sz]ation|weights|"
    r"variants?|counterparts?|papers?|authors?|loss|objective|examples|samples|pairs)\b",
    re.IGNORECASE,
)
_LED_BY = re.compile(
    r"(?:\b(?:from|after|before|prior to|following|on top of|initiali[sz]ed "
    r"(?:from|with|by)|starting (?:from|with)|than|"
    r"without|instead of|unlike|like|over|compared (?:to|with)|outside|no|not|"
    r"upon|preceding|via the)\s+(?:the |our |an? )?"
    r"(?:same |initial |above |previous |original |standard |vanilla )?)\Z",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Mention:
    method: str
    start: int
    end: int
    weak: bool
    """It names a thing that a stage made, or a stage that is over: of use only where nothing else is named."""
    past: bool = False
    """It is named as what came before, or as another way."""


@lru_cache(maxsize=4096)
def mentions(text: str) -> tuple[Mention, ...]:
    """Stages named in `text` in order, the longest word at a place first."""
    found: list[Mention] = []
    for method, pattern in _PATTERNS.items():
        for match in pattern.finditer(text):
            thing = _THING.match(text, match.end())
            past = bool(_LED_BY.search(text[max(0, match.start() - 40) : match.start()]))
            found.append(Mention(method, match.start(), match.end(), bool(thing) or past, past))
    found += _ordinals(text)
    found.sort(key=lambda each: (each.start, -(each.end - each.start)))
    kept: list[Mention] = []
    for each in found:
        if not kept or each.start >= kept[-1].end:
            kept.append(each)
        elif kept[-1].method in GENERIC and each.method not in GENERIC:
            kept[-1] = each
    return tuple(_without_own_words(kept))


def _without_own_words(found: list[Mention]) -> list[Mention]:
    """`SFT fine-tuning`, `fine-tune with DPO`: a general word beside a method's name says nothing of its own."""
    precise = [each for each in found if each.method not in GENERIC]
    return precise if precise else found


def _ordinals(text: str) -> list[Mention]:
    """`the first stage`, `Act two`: stages that have a number, `#1`, where no name stands right beside it."""
    numbers = {"i": 1, "ii": 2, "iii": 3, "first": 1, "second": 2, "third": 3, "fourth": 4}
    numbers |= {word: number for number, word in enumerate(_COUNTED, start=1)} | {str(n): n for n in range(1, 5)}
    found = []
    for match in _ORDINAL.finditer(text):
        number = numbers[(match["order"] or match["number"]).lower()]
        beside = text[match.end() : match.end() + 30]
        if not any(
            pattern.match(re.sub(r"\A[\s(:,.–—-]*(?:the |an? )?", "", beside)) for pattern in _PATTERNS.values()
        ):
            found.append(Mention(f"#{number}", match.start(), match.end(), weak=False))
    return found


def methods_in(text: str) -> frozenset[str]:
    """Stages of a heading, a caption or a column's name; there a name says what it is about, `SFT model` too."""
    named = frozenset(each.method for each in mentions(text) if not each.past)
    return frozenset(each for each in named if not each.startswith("#")) or named


def ordinal_of(text: str) -> str | None:
    """`#2` of a heading `Act two: the reward model`."""
    match = _ORDINAL.search(text)
    found = _ordinals(f"{match[0]} stage" if match else "")
    return found[0].method if found else None


def told_in_order(sentence: str) -> dict[str, str]:
    """`in two stages, pre-training and instruction tuning`: which number has which name, where all are named."""
    many = re.search(r"\b(two|three|four)[- ](?:training )?(?:stages|phases|steps|acts)\b", sentence, re.IGNORECASE)
    if many is None:
        return {}
    after = [each.method for each in mentions(sentence) if each.start > many.end() and not each.method.startswith("#")]
    if len(after) != _COUNTED.index(many[1].lower()) + 1 or len(set(after)) != len(after):
        return {}
    return {f"#{number}": method for number, method in enumerate(after, start=1)}


_TASKS = {
    "speech": r"\bspeech\b|\bASR\b|\bWhisper|\bwav2vec|\btranscri",
    "vision": r"\bvision transformers?\b|\bViT\b|\bimage classif|\bphotograph",
    "classify": r"\b(?:De|Ro|Modern)?BERT(?:a)?\b|\bELECTRA\b|\bclassif|\btriage\b|\bfine-tuning encoders?\b",
    "reward": r"\breward models?\b",
    "distill": r"\bdistil",
    "pretrain": r"\bpre-?training\b",
}


def task_of(title: str, abstract: str) -> str | None:
    """The method of a paper that names none, by what it is about: the title says it, else the abstract."""
    for text in (title, abstract):
        about = [name for name, words in _TASKS.items() if re.search(words, text, re.IGNORECASE)]
        if about:
            return about[0] if len(about) == 1 else None
    return "sft"


def groups(found: Iterable[Mention], text: str) -> list[tuple[Mention, ...]]:
    """Mentions joined by `and`, `or`, commas or slashes stand for one another: `both SFT and DPO`."""
    result: list[tuple[Mention, ...]] = []
    for each in found:
        if result and text[each.end : each.end + 1] != ":":
            between = text[result[-1][-1].end : each.start]
            if re.fullmatch(
                r"(?:\s*\([^)]*\))?(?:[- ](?:stages?|training|phases?|runs?|models?|experiments))?\s*(?:,|"
                r"/|&|\+|and|or|, and|, or|as well as)\s*(?:the |for |in |during )*",
                between,
            ):
                result[-1] = (*result[-1], each)
                continue
        result.append((each,))
    return result


def resolved(method: str, trained: frozenset[str]) -> str | None:
    """The method that a general word means in a paper that trains with `trained`; None where that is open."""
    if method == "finetune":
        precise = trained - GENERIC
        if not precise:
            return "sft"
        if precise == {"pretrain"}:
            return None
        return next(iter(precise)) if len(precise) == 1 else None
    if method == "distillation":
        # Tuning on a teacher's answers goes by that name too.
        return None if trained & {"sft", "rft"} else "distill"
    family = FAMILIES.get(method)
    if family is None:
        return method
    known = trained & family
    if len(known) == 1:
        return next(iter(known))
    return method if not known else None
