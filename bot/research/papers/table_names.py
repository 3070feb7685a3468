"""What a table's cell names: a hyperparameter by its whole text."""

from __future__ import annotations

import re

from bot.research.papers.vocabulary import TERMS, Term

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
        r")?(?:steps|iterations)|(?:num(?:ber|\.)?|#) (?:of )?(?:training |gradient "
        r"|update )?steps",
        re.IGNORECASE,
    ),
    "global_batch_size": re.compile(
        r"(?:(?:global|total|effective|train(?:ing)?) )?batch(?:[- ]?size)?(?: \((?:global|"
        r"total|effective)\))?|bs|bsz|(?:sequences|examples|samples|pairs) per batch|"
        r"batch",
        re.IGNORECASE,
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
        r"?\(?(?:ε|ϵ)\)?)?",
        re.IGNORECASE,
    ),
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
