"""Hyperparameters as papers name them: the words before a value, the words after one, its bounds and TRL's key.

Keys are those of TRL 1.16's configurations and transformers' TrainingArguments where one exists
(https://huggingface.co/docs/trl); `trl` is empty where TRL has none, as for a global batch size.
"""

from __future__ import annotations

import re

from bot.research.papers.terms import ANSWERS, KL, OF_THE_RUN, QUESTIONS, Term

TERMS: tuple[Term, ...] = (
    *OF_THE_RUN,
    Term(
        "weight_decay",
        r"weight[- _]decay(?: (?:coefficient|factor|rate|ratio))?",
        r"weight[- ]decay",
        low=0,
        high=1,
        trl="weight_decay",
        tiny=True,
    ),
    Term("adam_beta1", r"(?:adam[- _]?)?(?:β[_ ]?1|beta[_ ]?1|β_\{1\})(?!\d)", low=0, high=1, trl="adam_beta1"),
    Term("adam_beta2", r"(?:adam[- _]?)?(?:β[_ ]?2|beta[_ ]?2|β_\{2\})(?!\d)", low=0, high=1, trl="adam_beta2"),
    Term(
        "adam_epsilon",
        (
            r"(?:adam[- _]?(?:ε|epsilon|eps)|(?<![\w])(?:ε|ϵ|epsilon|eps)(?!(?: |_|-)?(?:low|"
            r"high|min|max|clip|greedy)))"
        ),
        low=1e-15,
        high=1e-4,
        trl="adam_epsilon",
        tiny=True,
    ),
    Term(
        "max_grad_norm",
        (
            r"(?:(?:gradients?(?:['’]s?)?[- ](?:norms? )?(?:clipping|clipped|clip)|clip(?:ping|"
            r"ped)?(?: (?:the|all))?(?: global)? gradients?(?:['’]s?)?(?: norms?)?|(?:global )?(?:gradients?|"
            r"gradient norms?) (?:are |were |is |was )?clipped)(?: (?:norm|threshold|value|"
            r"max(?:imum)? norm|by norm))?(?: (?:to|at|with)(?: an?)?(?: (?:maximum|"
            r"max|global|L2|ℓ2|unit))*(?: norm)?)?|max(?:imum|\.)?[- _]?grad(?:ient)?[- _]norms?|"
            r"grad(?:ient)?\.?[- _](?:norm[- _])?clip(?:ping)?(?:[- _](?:norm|threshold|"
            r"value))?|gradient norm(?: (?:threshold|limit|clipping))?)"
        ),
        low=1e-4,
        high=100,
        trl="max_grad_norm",
    ),
    Term(
        "lora_r",
        (
            r"(?:(?:LoRA|QLoRA|DoRA|adapter|low-rank)[- _](?:matrix |matrices )?(?:ranks?|"
            r"r\b|dim(?:ension)?)(?: r\b)?|lora_r(?:ank)?|LoRA \(r)"
        ),
        r"LoRA rank",
        low=1,
        high=4096,
        whole=True,
        trl="lora_r",
        symbol=r"(?<![\w-])(?:ranks?(?: r\b)?|r(?=\s?=))",
        needs=r"LoRA|low-rank adapt|adapters?\b",
    ),
    Term(
        "lora_alpha",
        (
            r"(?:(?:LoRA|QLoRA|DoRA)[- _](?:scaling )?(?:alpha|α)|lora_alpha|LoRA scaling(?: "
            r"factor)?(?: (?:α|alpha))?)"
        ),
        r"LoRA alpha",
        low=0.01,
        high=8192,
        trl="lora_alpha",
        symbol=r"(?<![\w])(?:α|alpha|scaling (?:factor|parameter)(?: (?:α|alpha))?)(?![\w_])",
        needs=r"LoRA|low-rank adapt",
    ),
    Term(
        "lora_dropout",
        r"(?:(?:LoRA|QLoRA|DoRA|adapter)[- _]dropout(?: (?:rate|probability))?|lora_dropout)",
        r"LoRA dropout",
        low=0,
        high=0.9,
        share=True,
        trl="lora_dropout",
        symbol=r"(?<![\w-])dropout(?: (?:rate|probability|ratio|of))?",
        needs=r"LoRA|low-rank adapt",
    ),
    Term(
        "beta",
        (
            rf"(?:{KL}[- ](?:coefficient|coeff\.?|coef|weight|weighting|factor|strength|"
            r"penalty|constraint|term|regularization)s?(?: coefficient| weight)?|coefficient "
            rf"of (?:the )?{KL}|(?:DPO|IPO|KTO|SimPO|GRPO|APO)(?:'s)?[- _](?:β|beta)\b(?!\s?[12_])|"
            r"\bkl[_ ](?:coef|coeff|loss_coef|beta)\b|inverse temperature)"
        ),
        low=0,
        high=200,
        trl="beta",
        tiny=True,
        symbol=r"(?<![\w])(?:β|beta)(?![\w\s_]?[12])(?!\w)",
        needs=r".",
    ),
    Term(
        "simpo_gamma",
        (
            r"(?:target )?(?:reward )?margin(?: ratio)? (?:γ|gamma)|SimPO(?:'s)? (?:γ|"
            r"gamma)"
        ),
        low=0,
        high=20,
    ),
    Term("lam", r"GAE(?:'s)?[- ](?:λ|lambda)|(?<!\w)λ(?= ?= ?(?:0\.9|1))", low=0.5, high=1),
    Term("gamma", r"discount(?:ing)?(?: factor)?(?: γ| gamma)?", low=0.5, high=1),
    Term(
        "epsilon_high",
        (
            r"(?:clip(?:ping)?[- ](?:range )?higher|(?:ε|epsilon|ϵ)[_ ]?(?:\{)?high\}?|"
            r"clip[_-]?(?:ratio[_-])?high|upper clip(?:ping)?(?: (?:range|ratio|bound|"
            r"threshold))?)"
        ),
        low=0.01,
        high=10,
        trl="epsilon_high",
    ),
    Term(
        "epsilon",
        (
            r"(?:(?:ε|epsilon|ϵ)[_ ]?low|(?<!gradient )(?<!grad )(?<!norm )(?<!gradient-)(?:PPO "
            r"|policy |ratio )?clip(?:ping)?[- _]?(?:range|ratio|parameter|epsilon|ε|"
            r"ϵ|coefficient)(?!\s?(?:high|[_-]high)))(?: (?:ε|ϵ|epsilon)(?![\w]))?|clip[_-](?:ratio[_-])?low|"
            r"cliprange"
        ),
        low=0.005,
        high=5,
        trl="epsilon",
        symbol=r"(?<![\w])(?:ε|ϵ)(?![\w_])",
        needs=r"clip",
    ),
    Term(
        "num_generations",
        (
            rf"(?:group[- ]sizes?(?: G)?|\bgroups? of(?= \d+ {ANSWERS})|num(?:ber|\.)?(?: of)? {ANSWERS}(?: (?:sampled|"
            rf"generated))?(?: (?:per|for each) {QUESTIONS})?|#\s?{ANSWERS}(?: per "
            rf"{QUESTIONS})?|{ANSWERS} per {QUESTIONS}|num_generations|(?<!\w)G(?=\s?=))"
        ),
        (
            rf"(?:(?:different|independent|candidate|on-policy|distinct|parallel) )?{ANSWERS} "
            r"(?:are (?:sampled|generated) )?(?:(?:sampled|generated) )?(?:per|for (?:each|"
            rf"every)|from each|to each) (?:\w+ )?{QUESTIONS}"
        ),
        low=2,
        high=4096,
        whole=True,
        trl="num_generations",
    ),
    Term(
        "temperature",
        (
            r"(?<!inverse )(?:(?:rollout|sampling|generation|decoding|softmax|training) "
            r")*temperatures?(?: (?:T|τ))?\b"
        ),
        low=0,
        high=5,
        trl="temperature",
    ),
    Term("top_p", r"(?:top[- _]?p\b|nucleus sampling(?: \(?p)?)", low=0.01, high=1, trl="top_p"),
    Term("top_k", r"top[- _]?k\b", low=1, high=1e6, whole=True, trl="top_k"),
    Term(
        "seed",
        r"(?:random |training )?seed(?: is| was)?(?! (?:set|pool|task|data|prompt|example|question|instruction))",
        low=0,
        high=2**32,
        whole=True,
        trl="seed",
    ),
    Term("label_smoothing", r"label[- _]smoothing(?: (?:factor|of))?", low=0, high=0.9, trl="label_smoothing_factor"),
    Term(
        "neftune_noise_alpha",
        (
            r"NEFTune(?: with)?(?: (?:noise )?(?:scale )?(?:α|alpha))?|neftune_noise_alpha|"
            r"noise (?:scale )?(?:α|alpha)"
        ),
        low=0.1,
        high=100,
        trl="neftune_noise_alpha",
    ),
    Term(
        "dropout",
        (
            r"(?<!LoRA )(?<!lora_)(?<!LoRA-)(?<!adapter )(?:attention |hidden |residual "
            r")?dropout(?: (?:rate|probability|ratio))?"
        ),
        low=0,
        high=0.9,
        share=True,
    ),
)

BY_KEY = {term.key: term for term in TERMS}

_BEFORE = {
    term.key: re.compile(term.before, re.IGNORECASE if term.key not in {"adam_beta1", "num_generations"} else 0)
    for term in TERMS
}


def pattern_of(term: Term) -> re.Pattern[str]:
    return _BEFORE[term.key]
