"""What a table's cell names: a hyperparameter by its whole text, with the stage or the part that it is said for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from bot.research.papers.naming import VARIANT
from bot.research.papers.stages import methods_in
from bot.research.papers.terms import Term
from bot.research.papers.vocabulary import TERMS


@dataclass(frozen=True, slots=True)
class Key:
    """What a cell names."""

    key: str
    term: Term | None
    """None for those whose values are words."""
    stage: str = ""
    """Method that the name itself says: of `SFT learning rate`."""
    model: str = ""
    """Model that the name itself says: of `Learning rate (7B)`."""
    part: str = ""
    """What else it is said for; such a value is not the model's own."""


_NAMES_OF_A_TABLE = {
    term.key: re.compile(rf"(?:{term.before}{'|' + term.symbol if term.symbol else ''})", re.IGNORECASE)
    for term in TERMS
}
_CELL_EXTRAS = {
    "max_length": re.compile(
        r"(?:max(?:imum|\.)?\s?)?(?:sequence|seq\.?|context)?\s?(?:length|len\.?)|"
        r"max\.? tokens|max\.? seq\.? len(?:gth)?\.?|cutoff len(?:gth)?",
        re.IGNORECASE,
    ),
    "num_train_epochs": re.compile(
        r"(?:num(?:ber|\.)? (?:of )?)?(?:training |train |total )?epochs?|# ?ep\.?(?:ochs?)?|"
        r"ep\.",
        re.IGNORECASE,
    ),
    "max_steps": re.compile(
        r"(?:(?:total|training|train|max(?:imum|\.)?|rl|gradient|update|optimization) "
        r")?(?:steps|iterations|updates)|(?:num(?:ber|\.)?|#) (?:of )?(?:training |gradient "
        r"|update )?steps",
        re.IGNORECASE,
    ),
    "global_batch_size": re.compile(
        r"(?:(?:global|total|effective|train(?:ing)?) )?batch(?:[- ]?size)?(?: \((?:global|"
        r"total|effective)\))?|bs|bsz|(?:sequences|examples|samples|pairs) per batch|"
        r"batch|(?:sequences|examples|samples|pairs) (?:per|/) (?:step|update|batch)",
        re.IGNORECASE,
    ),
    "min_lr": re.compile(
        r"(?:min(?:imum|\.)?|final|end(?:ing)?|lowest)(?: learning[- ]rate| lr)|(?:learning[- ]rate|"
        r"lr)[, ]*\(?(?:min\.?|minimum|final|end)\)?",
        re.IGNORECASE,
    ),
    "per_device_train_batch_size": re.compile(
        r"(?:micro|per[- ](?:gpu|device)|device)[- ]?batch(?:[- ]?size)?(?: (?:per|/) (?:gpu|device))?", re.IGNORECASE
    ),
    "gradient_accumulation_steps": re.compile(
        r"(?:grad(?:ient)?\.?[- ])?acc(?:um(?:ulation)?)?\.?(?:[- ]steps)?", re.IGNORECASE
    ),
    "learning_rate": re.compile(
        r"(?:(?:peak|max(?:imum|\.)?|initial|actor|policy|base) )?(?:learning[- ]rate|"
        r"lr|learning_rate)(?: η)?",
        re.IGNORECASE,
    ),
    "max_grad_norm": re.compile(
        r"(?:grad(?:ient)?\.?[- ])?(?:norm[- ])?clip(?:ping)?(?:[- ](?:norm|value|"
        r"threshold))?|(?:max )?grad(?:ient)?\.? norm|gradient clipping \(norm\)|gradient norm",
        re.IGNORECASE,
    ),
    "beta": re.compile(
        r"(?:kl|kl divergence|kl[- ]penalty|kl loss)(?: (?:coefficient|coef\.?|coeff\.?|"
        r"weight|penalty|loss weight|loss coefficient|regulari[sz]ation))?|(?:dpo "
        r"|kl )?(?:β|beta)|beta \(β\)|(?:kl[- ]loss|kl[- ]penalty) (?:coefficient|"
        r"weight)(?: \(?β\)?)?",
        re.IGNORECASE,
    ),
    "epsilon": re.compile(
        r"(?:ppo |policy )?clip(?:ping)?[- ]?(?:range|ratio|epsilon|ε|parameter)(?: "
        r"?\(?(?:ε|ϵ)\)?|,? \(?low(?:er)?\)?)?",
        re.IGNORECASE,
    ),
    "epsilon_high": re.compile(
        r"(?:ppo |policy )?clip(?:ping)?[- ]?(?:range|ratio|epsilon|ε),? \(?(?:high(?:er)?|upper)\)?", re.IGNORECASE
    ),
    "num_iterations": re.compile(
        r"(?:optimi[sz]ation |inner |policy |ppo )?(?:iterations|epochs|updates) per (?:rollout )?(?:batch|rollout)",
        re.IGNORECASE,
    ),
    "top_p": re.compile(r"(?:(?:rollout|sampling|generation|training) )?top[- ]?p", re.IGNORECASE),
    "adam_epsilon": re.compile(
        r"(?:adam(?:w)?[- ]?)(?:ε|ϵ|epsilon|eps)|(?:optimizer )?(?:ε|ϵ|epsilon|eps)", re.IGNORECASE
    ),
    "num_generations": re.compile(
        r"group size(?: ?\(?G\)?)?|(?:num(?:ber|\.)? (?:of )?|# ?)?(?:rollouts|generations|"
        r"samples|responses|completions|outputs)(?: (?:per|/) ?(?:prompt|question|"
        r"query))?|rollout n|n rollouts",
        re.IGNORECASE,
    ),
    "warmup_ratio": re.compile(
        r"(?:lr )?warm-?\s?up(?: ratio| fraction| proportion| rate)?(?: \((?:fraction|"
        r"share|ratio) of (?:all |the |total )?steps\))?",
        re.IGNORECASE,
    ),
    "temperature": re.compile(r"(?:(?:rollout|sampling|generation|training) )?temperature", re.IGNORECASE),
    "lora_r": re.compile(r"(?:lora )?rank(?: ?\(?r\)?)?|lora[- _]r|r", re.IGNORECASE),
    "lora_alpha": re.compile(r"(?:lora[- _]?)?(?:alpha|α)|lora scaling", re.IGNORECASE),
}


def term_of_name(name: str) -> Term | None:
    """The hyperparameter that a table's cell names, the whole cell taken into account."""
    bare = re.sub(r"\s*[:=]\s*\Z", "", name.strip()).strip()
    # A unit or a symbol in parentheses is no part of the name, who is meant by it is.
    bare = re.sub(
        r"\s*\((?:%|tokens?|k|K|steps?|epochs?|in tokens|sequences|samples|prompts|"
        r"lr|LR|r|G|η|α|β|ε|ϵ|γ|λ|BS|[a-zα-ω])\)\s*\Z",
        "",
        bare,
    )
    bare = bare.replace("_", " ").strip() if bare not in {"lora_r"} else bare
    if not bare or len(bare) > 60:
        return None
    # `KL coefficient β` is the coefficient; `LoRA α` is not LoRA.
    for spelling in (bare, re.sub(r"(?<=\w{3}) [αβγηλετϵεGTr]\Z", "", bare)):
        for term in TERMS:
            extra = _CELL_EXTRAS.get(term.key)
            if (extra is not None and extra.fullmatch(spelling)) or _NAMES_OF_A_TABLE[term.key].fullmatch(spelling):
                return term
    return None


_WORD_KEYS = (
    (
        "lr_scheduler_type",
        re.compile(
            r"(?:(?:lr|learning[- ]rate)[- _]?)?(?:schedul(?:e|er|ing)|decay)(?:[- ]type)?|"
            r"lr scheduler type",
            re.IGNORECASE,
        ),
    ),
    ("optim", re.compile(r"optimi[sz]er|optim", re.IGNORECASE)),
    (
        "precision",
        re.compile(r"(?:(?:numerical|training|mixed|compute) )?(?:precision|dtype|data type)", re.IGNORECASE),
    ),
    (
        "lora_target_modules",
        re.compile(
            r"(?:lora )?target(?:ed)? (?:modules|layers|matrices)|lora (?:modules|layers|"
            r"targets)",
            re.IGNORECASE,
        ),
    ),
    ("hardware", re.compile(r"hardware|gpus?|devices?|compute|accelerators?|gpu type|gpus? used", re.IGNORECASE)),
    (
        "betas",
        re.compile(
            r"(?:adam\w* |optimizer )?(?:\(?β_?1(?:,| /) ?β_?2\)?|\(?beta_?1, ?beta_?2\)?|betas?|"
            r"βs)|adam\w* ?\(?β1, ?β2\)?|adam\w* β|optimizer momentum",
            re.IGNORECASE,
        ),
    ),
    ("gpu_hours", re.compile(r"(?:total )?gpu[- ]hours", re.IGNORECASE)),
    ("packing", re.compile(r"(?:sequence |sample )?packing", re.IGNORECASE)),
    ("gradient_checkpointing", re.compile(r"(?:gradient|activation) checkpointing", re.IGNORECASE)),
)


def _word_key(cell: str) -> str | None:
    bare = cell.strip().rstrip(":").replace("_", " ").strip()
    return next((key for key, pattern in _WORD_KEYS if pattern.fullmatch(bare)), None) if len(bare) < 50 else None


_PART = re.compile(
    r"(?:the )?(?:critic|value(?: (?:model|network|function|head))?|reward(?: (?:model|head))?|projector|connector|"
    r"vision(?: (?:encoder|tower))?|encoder|decoder|embeddings?|head|teacher|router|generator|judge|"
    r"eval(?:uation)?|test|inference|decoding|validation)",
    re.IGNORECASE,
)
_UNIT = re.compile(
    r"(?:in )?(?:%|percent|tokens?|k|K|thousands?|steps?|epochs?|sequences?|samples?|prompts?|examples?|pairs|"
    r"lr|LR|r|G|BS|wd|T|[a-zα-ωϵ](?:_\w+)?|policy|actor|[ϵε]_?(?:low|high)|max(?:imum)?|peak|global|total|"
    r"effective|per[- ](?:device|GPU|step)|"
    r"tokens? per \w+|fraction|share|ratio|(?:fraction|share|ratio) of (?:all |the |total )?steps|norm|min(?:imum)?)"
)
_AT_END = re.compile(r"(?P<name>.+?)\s*(?:\((?P<said>[^()]*)\)|, (?P<after>[^,()]+))\s*:?\s*")


@lru_cache(maxsize=4096)
def key_of(cell: str) -> Key | None:
    """What a cell names; None where it names no hyperparameter, or says something besides that is not understood."""
    bare = re.sub(r"[†‡*§¶]", "", cell).strip().rstrip(":").strip()
    if not bare or len(bare) > 60:
        return None
    found = _plain(bare)
    if found is not None and not (found.key in _OF_ANY_STAGE and methods_in(bare)):
        return found
    return _of_stage(bare) or _with_remark(bare) or found


_OF_ANY_STAGE = frozenset({"num_train_epochs", "max_steps", "learning_rate", "global_batch_size"})


def _plain(bare: str) -> Key | None:
    if (word := _word_key(bare)) is not None:
        return Key(word, None)
    term = term_of_name(bare)
    return Key(term.key, term) if term is not None else None


def _of_stage(bare: str) -> Key | None:
    """`SFT learning rate`, `Cooldown steps`, `DPO: epochs`."""
    words = bare.split()
    for cut in range(1, min(4, len(words))):
        lead, rest = " ".join(words[:cut]).rstrip(":,–-"), " ".join(words[cut:])
        methods = methods_in(lead)
        if len(methods) == 1 and (found := _plain(rest)) is not None:
            return Key(found.key, found.term, next(iter(methods)))
        if _PART.fullmatch(lead) and (found := _plain(rest)) is not None:
            return Key(found.key, found.term, part=lead)
    return None


def _with_remark(bare: str) -> Key | None:
    """`Learning rate (DPO)`, `Batch size, 7B`, `Learning rate (critic)`; what is not understood is no name."""
    found = _AT_END.fullmatch(bare)
    named = (_of_stage(found["name"]) or _plain(found["name"])) if found else None
    if found is None or named is None:
        return None
    said = (found["said"] or found["after"] or "").strip()
    methods = methods_in(said)
    if len(methods) == 1:
        return Key(named.key, named.term, next(iter(methods)), named.model, named.part)
    if _PART.fullmatch(said):
        return Key(named.key, named.term, named.stage, named.model, said)
    if VARIANT.fullmatch(said):
        return Key(named.key, named.term, named.stage, said, named.part)
    if _UNIT.fullmatch(said):
        return named
    return None
