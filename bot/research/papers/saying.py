"""Names of hyperparameters with the number next to them, as a sentence has them; whose they are is another question."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from bot.research.papers.numbers import Number, number_at, numbers_in
from bot.research.papers.respective import Said
from bot.research.papers.several import HEDGED, UNIT_OF_OTHERS
from bot.research.papers.terms import Term
from bot.research.papers.vocabulary import BY_KEY, TERMS, pattern_of
from bot.research.papers.wording import of_something_else

# Words that may stand between a name and its value.
_CONNECTION = re.compile(
    r"(?:\s*(?:\((?:lr|LR|[A-Za-zα-ωϵ][_]?\w{0,6}|per step|in tokens|BS|bs|tokens)\)|"
    r",(?= (?:i\.e\.|namely|which|set|fixed))|:|=|≈|~|∼|"
    r"(?:of|is|was|are|were|to|at|as|be|been|being|has|have|the|an?|values?|"
    r"both|set|sets|fixed|kept|held|equals?|equal|chosen|selected|use|used|using|"
    r"with|about|approximately|around|roughly|peak|peaks|peaking|maximum|max|"
    r"initial|constant|learning rate|linearly|gradually|"
    r"warms?|warmed|up|capped|limited|extended|truncated|increased|i\.e\.,?|"
    r"namely|which|we|set it|it|then|again|also|always|all|schedule[rs]?|schedul(?:ed|"
    r"ing)|whose|"
    r"starting|starts|coefficient|weight|η|α|β|γ|λ|τ|r|lr|G|T|p|ε|ϵ|size|limit|"
    r"length|probability|rate|ratio|threshold|norm|value of)\b(?!-)|η|α|β|γ|"
    r"λ|τ|ε|ϵ))*\s*"
)
_ABOUT = re.compile(
    r"\s+(?:used |applied |employed |chosen |adopted )?(?:for|in|during|of|on|"
    r"across|throughout)\s+(?:the |our |each |all |both )?(?:(?!(?:and|or|with|"
    r"we|to|is|was)\b|\d[\d.,e^×-]*\s)[A-Za-z0-9][\w.'’+-]*\s+){1,5}?(?=(?:is|"
    r"was|are|were|to|as|at|=|:|equals)\b|=|:)"
)
_STEP_LEAD = re.compile(
    r"(?:\bfor|total of|\btrain(?:ed|ing)?|\brun|\brunning|\btake[sn]?|\bperform|"
    r"\bcomprises|\bconsists of|\bover|\blasts?|\bspans?|\buse|\bwith|,|\band|"
    r"\busing|\bin|\bof|:|=)\s*(?:a total of |about |approximately |around |"
    r"only |roughly |just |~ ?|≈ ?|the |an? )?\Z",
    re.IGNORECASE,
)
_WARMUP = re.compile(r"warm(?:s|ed|ing)?[- ]?up", re.IGNORECASE)


def said_in(sentence: str, paragraph: str, *, lora: bool) -> Iterator[Said]:
    """Names with a number next to them; a number belongs to the name that stands nearest, and to one name only."""
    taken: dict[int, Said] = {}
    if not numbers_in(sentence):
        return
    for term in TERMS:
        for each in _of_term(term, sentence, paragraph, lora):
            if each.term.key in {"adam_epsilon", "epsilon"} and not term.low <= each.number.value <= term.high:
                continue  # ε is Adam's or the clipping's, by its size
            if each.term.key == "warmup_steps" and each.number.percent:
                each = replace(each, term=BY_KEY["warmup_ratio"])
            known = taken.get(each.number.start)
            # The nearest name wins, and of two the more precise: `per-device batch size` over `batch size`.
            if known is None or _nearness(each) > _nearness(known):
                taken[each.number.start] = each
    yield from sorted(taken.values(), key=lambda each: each.number.start)


def _nearness(each: Said) -> tuple[int, int, int]:
    return (-each.distance, each.end - each.start, -TERMS.index(each.term))


def _of_term(term: Term, sentence: str, paragraph: str, lora: bool) -> Iterator[Said]:
    patterns = [pattern_of(term)]
    if term.symbol and re.search(
        term.needs, paragraph if term.key != "epsilon" else sentence, re.IGNORECASE if term.key == "epsilon" else 0
    ):
        patterns.append(re.compile(term.symbol, 0 if term.key == "lora_r" else re.IGNORECASE))
    for pattern in patterns:
        for name in pattern.finditer(sentence):
            if (number := _number_after(sentence, name.end(), term)) is not None:
                yield Said(term, number, name.start(), number.end, number.start - name.end())
                yield from _further(sentence, number, term)
    if term.after:
        yield from _of_unit(term, sentence)
    if term.key == "warmup_ratio":
        yield from _warmup(sentence)
    if term.key == "lora_r" and lora:
        for found in re.finditer(r"\brank-(\d+)\b", sentence):
            if (number := number_at(sentence, found.start(1))) is not None:
                yield Said(term, number, found.start(), number.end)
    if term.key in {"adam_beta1", "adam_beta2"}:
        yield from _betas(term, sentence)
    if term.key == "learning_rate":
        for found in _BARE_RATE.finditer(sentence):
            number = number_at(sentence, found.end())
            # `rate` alone is the learning rate where its value could be nothing else.
            if (
                number is not None
                and number.value <= 1e-3
                and re.search(r"[eE^×·]|10-", sentence[number.start : number.end])
            ):
                yield Said(term, number, found.start(), number.end, 2)
                yield from _further(sentence, number, term)
        for found in _WARMED_UP.finditer(sentence):
            number = number_at(sentence, found.end())
            if number is not None and number.value < 0.2 and not number.percent:
                yield Said(term, number, found.start(), number.end, 3)
    if term.key == "max_length":
        for found in re.finditer(
            r"\b(?:truncat|pack|cut)\w*\s(?:\w+ ){0,4}?(?:into (?:\w+ ){0,2}(?:sequences|"
            r"chunks|blocks) of|to|into|at|of|after)\s(?:a (?:maximum|max) of |up to "
            r"|at most )?",
            sentence,
            re.IGNORECASE,
        ):
            number = number_at(sentence, found.end())
            if number is not None and re.match(r"[- ]tokens?\b", sentence[number.end :]):
                yield Said(term, number, found.start(), number.end)
        # `256 sequences of 1,024 tokens`
        for found in re.finditer(r"\b(?:sequences|segments) of ", sentence):
            number = number_at(sentence, found.end())
            if (
                number is not None
                and re.match(r"[- ]tokens?\b", sentence[number.end :])
                and _OF_TRAINING.search(sentence)
            ):
                yield Said(term, number, found.start(), number.end)
        for found in re.finditer(
            r"\b(?:sequences|sequence lengths?|context|dialogues|conversations|texts|examples) (?:of )?(?:up to|"
            r"at most) ",
            sentence,
        ):
            number = number_at(sentence, found.end())
            if number is not None and re.match(r"[- ]tokens?\b", sentence[number.end :]):
                yield Said(term, number, found.start(), number.end)


_OF_TRAINING = re.compile(r"\b(?:batch\w*|updates?|pre-?train\w*|train\w*)\b", re.IGNORECASE)
_BARE_RATE = re.compile(
    r"\b(?:peak|base|maximum|max|an?|the|actor|policy|constant|initial) rate (?:of |is |was |set to |to )?(?=[\d.])",
    re.IGNORECASE,
)
_WARMED_UP = re.compile(
    r"\b(?:learning rate|LR)\b[^.;]{0,40}?warm\w*(?:[- ]up)?\b[^;]{0,60}?\bto "
    r"(?:a |its |the )?(?:peak |maximum |max )?(?:value |learning rate )?(?:of "
    r")?(?=[\d.])"
)
_NEXT_OF_KIND = re.compile(
    r"(?: tokens| epochs?| steps)?\s+(?:for|in|during|on|with)\s+[^,;.\d]{2,40}?(?:[\d.]+[BM]\b)?"
    r"[^,;.\d]{0,20}?\s*(?:,\s*(?:and "
    r"|while )?|\s+and\s+|;\s*(?:and )?|\s+while\s+|\s*\)?,?\s+but\s+)(?:of "
    r"|to |an? |using |with )?"
)
_SAID_FOR = re.compile(r"(?: tokens| epochs?| steps)?\s+(?:for|in|during|on|with)\s+(?:the |our )?[A-Za-z\d]")


def _further(sentence: str, number: Number, term: Term) -> Iterator[Said]:
    """The second of `2e-5 for SFT and 5e-7 for DPO`, and those after it."""
    for _ in range(4):
        between = _NEXT_OF_KIND.match(sentence, number.end)
        following = number_at(sentence, between.end()) if between else None
        if following is None or following.word or _belongs_to_next(sentence, following, term):
            return
        if not _SAID_FOR.match(sentence, following.end):
            return
        yield Said(term, following, following.start, following.end)
        number = following


def _number_after(sentence: str, at: int, term: Term) -> Number | None:
    """The number that a name is followed by, through words that only join the two."""
    about = _ABOUT.match(sentence, at)
    for start in [at] + ([about.end()] if about else []):
        joint = _CONNECTION.match(sentence, start)
        end = joint.end() if joint else start
        number = number_at(sentence, end)
        while number is None and end > start and sentence[end - 1] not in " (=:~≈∼":
            end -= 1
        number = number or number_at(sentence, end)
        if number is None and re.match(r"\s*\(\s*", sentence[end:]) and term.key != "num_train_epochs":
            # `weight decay (0.1)`, `cosine learning rate (peak 2e-5)`
            inside = re.compile(r"\s*\(\s*(?:(?:peak|of|max|maximum|lr|η|α|β|r|value|set to|=|:)\s*)*=?\s*").match(
                sentence, end
            )
            number = number_at(sentence, inside.end()) if inside else None
            if number is not None and not re.match(r"\s*[),;]", sentence[number.end :]):
                number = None
        if number is not None and not _plain_joint(sentence[start : number.start], term):
            continue
        if number is None or (number.start == at and not sentence[at - 1 : at].isspace()):
            continue
        if number.flat and not term.tiny:
            continue
        if number.word and sentence[number.start - 1 : number.start] not in " (=:":
            continue
        if _belongs_to_next(sentence, number, term):
            continue
        return number
    return None


_SYMBOLS_OF = {
    "learning_rate": "ηαγl",
    "beta": "βλτ",
    "lora_alpha": "α",
    "lora_r": "r",
    "temperature": "Tτ",
    "simpo_gamma": "γβ",
    "lam": "λ",
    "gamma": "γ",
    "adam_epsilon": "εϵ",
    "epsilon": "εϵ",
    "num_generations": "G",
    "neftune_noise_alpha": "α",
}


def _plain_joint(joint: str, term: Term) -> bool:
    """Whether nothing between a name and its number names something else: `epochs with λ = 0.2`."""
    symbols = set(re.findall(r"[αβγηλτεϵ]", joint))
    return symbols <= set(_SYMBOLS_OF.get(term.key, "")) and not (
        term.unit in {"epochs", "steps"} and re.search(r"\b(?:with|using)\b", joint)
    )


def _belongs_to_next(sentence: str, number: Number, term: Term) -> bool:
    """`learning rate, 3 epochs`: the number's own unit names another hyperparameter."""
    follow = UNIT_OF_OTHERS.match(sentence, number.end)
    if follow is None:
        return False
    said = follow[0].strip(" -").lower()
    if term.unit == "tokens" or term.key in {
        "global_batch_size",
        "rollout_batch_size",
        "mini_batch_size",
        "num_generations",
        "per_device_train_batch_size",
    }:
        return not re.match(r"(?:k |m )?(?:tokens|samples?|examples|prompts|responses|rollouts|%)", said)
    if term.unit in {"steps", "epochs"}:
        return not said.endswith((term.unit, term.unit[:-1], "iterations"))
    if term.key == "num_iterations":
        return "epoch" not in said and "step" not in said and "iteration" not in said
    return said != "%"


def _of_unit(term: Term, sentence: str) -> Iterator[Said]:
    """`3 epochs`, `a 2e-5 learning rate`, `16 rollouts per prompt`."""
    unit = re.compile(rf"[- ]?\s?(?:{term.after})", re.IGNORECASE)
    for number in numbers_in(sentence):
        found = unit.match(sentence, number.end)
        if found is None or number.flat:
            continue
        before = sentence[: number.start]
        if term.key in {"num_train_epochs", "max_steps"} and not _trains_for(before, sentence, number, term):
            continue
        if term.key == "learning_rate" and number.word:
            continue
        yield Said(term, number, number.start, found.end())


def _trains_for(before: str, sentence: str, number: Number, term: Term) -> bool:
    """Epochs and steps are counted for many ends; only those that training lasts are meant."""
    if HEDGED.search(before):
        return bool(re.search(r"(?:train|run|fine-?tun|optimi)\w*\s+(?:\w+ ){0,3}over (?:the )?\Z", before))
    if term.key == "max_steps":
        clause = re.split(r",(?!\d{3})|[;(]|\band (?=[a-z])", before)[-1]
        if _WARMUP.search(clause) or re.search(
            r"\b(?:grow|ris(?:e|ing)|ramp|climb|increas|linearly|held|constant|checkpoint|evaluat|sav|updat|refresh|sync|log|report|reach|peak|after|accumulat)\w*",
            clause,
        ):
            return False
        return bool(_STEP_LEAD.search(before))
    return not re.search(
        r"(?:\bafter|\bper|\bevery|\bfirst|\blast|\bepoch|\bcheckpoint (?:of|from|"
        r"at)|warm\w*[- ]?up (?:of|for|over|in|during))\s*(?:the )?\Z",
        before,
    )


_WARMUP_SHARE = re.compile(
    r"warm(?:s|ed|ing)?[- ]?\s?up(?:[- ](?:period|phase|schedule|steps?|stage))?(?:\s*(?:,|"
    r"of|is|was|for|over|during|in|to|with|across|the|first|initial|lasting|"
    r"set|linear(?:ly)?|from zero|from 0|its|peak|value|a|,|covers?|takes?|spans?|"
    r"equal|corresponding|comprising|=|:|learning rate|we use))*\s*\(?\s*",
    re.IGNORECASE,
)


_OF_ALL = re.compile(r"\s*of (?:the |all )?(?:\w+ )?(?:steps|updates|iterations|training)\b")
_RISES = re.compile(
    r"\b(?:rate|LR)\s+(?:linearly )?(?:rises|climbs|increases|grows|ramps up|is raised|is increased)\s(?:linearly )?"
    r"(?:during|over|within|for|in) the first ",
    re.IGNORECASE,
)


def _warmup(sentence: str) -> Iterator[Said]:
    """Warm-up told as a share (`over the first 3 % of steps`, `10% warmup`) or as a number of steps."""
    ratio, steps = BY_KEY["warmup_ratio"], BY_KEY["warmup_steps"]
    for found in _WARMUP_SHARE.finditer(sentence):
        number = number_at(sentence, found.end())
        if number is None or of_something_else(sentence, found.start()):
            continue
        follow = sentence[number.end :]
        if re.match(r"\s*of (?:an?|one|the first|each) epoch", follow):
            continue
        if number.percent or (
            number.fraction
            and re.match(r"\s*of (?:the |all )?(?:total |training )*(?:steps|iterations|training)", follow)
        ):
            yield Said(ratio, number, found.start(), number.end)
        elif re.match(r"\s+(?:\w+ )?(?:steps|iterations|updates)\b", follow):
            yield Said(steps, number, found.start(), number.end)
    for found in _RISES.finditer(sentence):
        number = number_at(sentence, found.end())
        follow = sentence[number.end :] if number is not None else ""
        if number is not None and number.percent and _OF_ALL.match(follow):
            yield Said(ratio, number, found.start(), number.end)
        elif number is not None and number.whole and re.match(r"\s(?:\w+ )?(?:steps|iterations|updates)\b", follow):
            yield Said(steps, number, found.start(), number.end)
    for number in numbers_in(sentence):
        after = re.match(
            r"\s*(?:of (?:the |all |total )*(?:\w+ ){0,3}(?:for |as |are |is |used |"
            r"being |serv\w+ |reserved |dedicated |allocated )*(?:for |as |to |in )?(?:an? "
            r")?(?:linear |learning[- ]rate |lr )*)?(?:linear |learning[- ]rate |lr "
            r"|initial )*warm(?:ing|ed)?[- ]?\s?up\b",
            sentence[number.end :],
            re.IGNORECASE,
        )
        if after and number.percent:
            yield Said(ratio, number, number.start, number.end + after.end())
        elif (
            (number.percent or number.fraction) is False
            and number.value < 0.5
            and re.match(r"\s+(?:linear )?warm-?up ratio\b", sentence[number.end :])
        ):
            yield Said(ratio, number, number.start, number.end + 1)


def _betas(term: Term, sentence: str) -> Iterator[Said]:
    """Both of Adam's at once: `(β1, β2) = (0.9, 0.95)`, `betas of 0.9 and 0.95`."""
    pair = re.compile(
        r"(?:\(?\s*(?:β|beta)[_ ]?1\s*(?:,|and|/|, and)\s*(?:β|beta)[_ ]?2\s*\)?|"
        r"\bbetas?\b|Adam\w* β|β's|(?<!\w)βs?(?= ?= ?[(\[]))\s*(?:\w+ )?(?:=|of|"
        r"set to|are|were|:|to|as)?\s*[(\[{]?\s*",
        re.IGNORECASE,
    )
    for found in pair.finditer(sentence):
        first = number_at(sentence, found.end())
        joint = re.compile(r"\s*(?:,\s*(?:and)?|and|/)\s*").match(sentence, first.end) if first else None
        second = number_at(sentence, joint.end()) if joint else None
        if first is None or second is None or not 0.5 <= first.value <= second.value < 1.0000001:
            continue
        chosen = first if term.key == "adam_beta1" else second
        yield Said(term, chosen, found.start(), second.end + 1)
