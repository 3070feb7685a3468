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
    r"ed?)\b|\bcold[- ]start\b|\bIFT\b|\bsupervised (?:training )?stage\b|(?<![\w-])supervised(?= (?:models?|"
    r"polic(?:y|ies)|checkpoints?)\b)"),
    "dr_grpo": r"\bDr\.? ?GRPO\b",
    "grpo": r"(?<!Dr\. )(?<!Dr )(?<!Dr)\bGRPO\b|\bGroup[- ]Relative Policy Optimi[sz]ation\b",
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
    "distill": r"\b(?:train|tun|optimi[sz]|updat)(?:e|es|ed|ing|s)? (?:the|our|a) student\b|\b(?:knowledge|"
    r"on-policy|logit|white-box) distillation\b|\bGKD\b|\bOPD\b",
    "pretrain": (r"\b(?:continued|continual|domain-adaptive|further)[- ]pre-?\s?train(?:ing|"
    r"ed)?\b|\b(?:we|continue(?:d|s)? to) pre-?train\b|\bpre-?\s?training\b(?! (?:models?|"
    r"LLMs?|language|weights|checkpoints?|base|transformers?|on))|\bCPT\b|"
    r"\btrain\w*(?: [\w.,–-]+){0,12} from scratch\b|\bstable (?:stage|phase)\b"),
    "midtrain": r"\bmid-?\s?train(?:ing|ed)\b",
    "cooldown": r"\bcool-?downs?\b|\b(?:decay|annealing) (?:stage|phase)\b",
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
PHASES = frozenset({"cooldown"})
"""Parts of pre-training that papers give settings of their own."""
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
    r"without|as (?:in|for|during)|instead of|rather than|unlike|like|over|compared? (?:it |them )?(?:to|with)|"
    r"against|outside|no|not|"
    r"upon|preceding|via the|versus|vs\.?|skip(?:s|ped|ping)?|omit(?:s|ted|ting)?|forgo(?:es|ing)?|avoid(?:s|ed|ing)?|"
    r"bypass(?:es|ed|ing)?|replac(?:es?|ed|ing)|drop(?:s|ped|ping)?|beats?|outperform(?:s|ed|ing)?|surpass(?:es|ed|ing)?|"
    r"exceed(?:s|ed|ing)?|match(?:es|ed|ing)?|needs?|requires?)\s+(?:the |our |an? |any |with )?"
    r"(?:same |initial |above |previous |original |standard |vanilla |further |additional |prior |plain |any )?)\Z",
    re.IGNORECASE,
)


_REST = r"(?:[^.;]|\.(?=\S))"
THEY_TRAIN = re.compile(
    rf"\b(?:[Ww]e|[Oo]ur)\b{_REST}{{0,80}}?\b(?:train|fine-?tun|tun|apply|appl|run|perform|optimi|use|conduct|start|adopt|"
    rf"employ|align|distil|adapt|teach|continue)\w*\b{_REST}{{0,80}}\Z"
)
"""What stands before a stage that the authors say they run."""

# `We reuse the SFT settings except for ...` tells of another stage than SFT.
_TAKEN_OVER = re.compile(
    r"\b(?:re-?us|keep|kept|shar|tak|copy|copied|inherit|borrow|adopt|follow|retain|same|identical|from)\w*\b[^.,;]{0,25}\Z",
    re.IGNORECASE,
)
_SETTINGS = re.compile(
    r"(?:['’]s)?(?: \w+)?[ -](?:settings?|set-?ups?|hyper-?parameters|recipe|configuration|values|stage)\b",
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
            before = text[max(0, match.start() - 40) : match.start()]
            past = bool(_LED_BY.search(before)) or bool(
                _TAKEN_OVER.search(before) and _SETTINGS.match(text, match.end())
            )
            told = bool(thing) or past or _is_adjective(text, match)
            found.append(Mention(method, match.start(), match.end(), told, past))
    found += _ordinals(text)
    found.sort(key=lambda each: (each.start, -(each.end - each.start)))
    kept: list[Mention] = []
    for each in found:
        if not kept or each.start >= kept[-1].end:
            kept.append(each)
        elif kept[-1].method in GENERIC and each.method not in GENERIC:
            kept[-1] = each
    return tuple(_without_own_words(kept))


_DONE = re.compile(
    r"(?:\b(?:is|are|was|were|be|been|being|get|we|have|has|had|and|then|it|them)|ly)\s+\Z", re.IGNORECASE
)


_WORD_AFTER = re.compile(r"\s+[A-Za-z]")


def _is_adjective(text: str, match: re.Match[str]) -> bool:
    """`the instruction-tuned Qwen` is a thing; `is fine-tuned`, `we fine-tuned` are stages."""
    if not match[0].lower().endswith("tuned") or not _WORD_AFTER.match(text, match.end()):
        return False
    return not _DONE.search(text[max(0, match.start() - 40) : match.start()])


def _without_own_words(found: list[Mention]) -> list[Mention]:
    """`SFT fine-tuning`, `RL with GRPO`: a general word beside a method that it may mean says nothing of its own."""
    precise = {each.method for each in found} - GENERIC
    meant = {general for general in GENERIC if any(may_mean(general, method) for method in precise)}
    return [each for each in found if each.method not in meant]


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


_REJECTION = re.compile(
    r"\b(?:rejection[- ]sampling|best-of-n distillation|expert iteration|RAFT|ReST)\b", re.IGNORECASE
)


def methods_of_title(title: str) -> frozenset[str]:
    """Stages that a heading names; there `Rejection sampling` is a way of training."""
    named = methods_in(title)
    return named or (frozenset({"rft"}) if _REJECTION.search(title) else named)


def may_mean(general: str, stage: str | None) -> bool:
    """Whether a general word may stand for this stage: `preference tuning` for DPO, not for SFT."""
    if general == "finetune":
        return stage not in {"pretrain", "midtrain", "cooldown"}
    if general == "distillation":
        return stage in {"distill", "sft", "rft"}
    return general in FAMILIES and stage in FAMILIES[general] | {general}


def without_stages(text: str) -> str:
    """`text` without the words that name stages."""
    for each in reversed(mentions(text)):
        text = f"{text[: each.start]} {text[each.end :]}"
    return text


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
    "vision": r"\bvision transformers?\b|\bViT\b|\bimage classif|\b(?:aerial|satellite|medical) images?\b|\bphotograph",
    "classify": r"\b(?:De|Ro|Modern)?BERT(?:a)?\b|\bELECTRA\b|\bclassif|\btriage\b|\bfine-tuning encoders?\b",
}


def task_of(title: str, abstract: str) -> str | None:
    """What fine-tuning is called by its task, where a paper has no other word: the title says it, else the abstract.

    `sft` where the task is none of those that go by another name; None where it could be two of them.
    """
    for text in (title, abstract):
        about = [name for name, words in _TASKS.items() if re.search(words, text, re.IGNORECASE)]
        if about:
            about = ["vision"] if set(about) == {"vision", "classify"} else about  # images are what is classified
            return about[0] if len(about) == 1 else None
    return None if _OTHER_TASKS.search(f"{title} {abstract}") else "sft"


_OTHER_TASKS = re.compile(
    r"\b(?:contrastive|embeddings?|retriev\w+|re-?rank\w*|bi-encoders?|cross-encoders?|diffusion|segmentation|"
    r"object detection|protein\w*|molecul\w*|text-to-(?:image|speech)|robot\w*|time series|tabular|graph neural|"
    r"masked language|music|video generation|policy)\b",
    re.IGNORECASE,
)


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
