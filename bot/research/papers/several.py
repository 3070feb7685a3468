"""Whether a value in a sentence is the one that holds, or one of several in a row of candidates."""

from __future__ import annotations

import re

from bot.research.papers.numbers import Number, number_at, numbers_in
from bot.research.papers.respective import Said
from bot.research.papers.terms import Term

_LIST = re.compile(
    r"\s*(?:,\s*(?:and|or)?|and|or|/|–|—|to|-|~|through|→|vs\.?|×|\*|±)\s*(?=[\d.]|\$|one\b|two\b|three\b)"
)
_OPENED = re.compile(r"[{\[]\s*(?:[\d.eE×^+,\s-]*)\Z")
HEDGED = re.compile(
    r"(?:up to|at most|at least|between|from|over|than|no more than|fewer than|"
    r"less than|more than|every|each|first|last|after|within|until|by|per|minus|"
    r"plus|another|additional|epoch|step|decay(?:s|ed|ing)?(?: \w+)? to|down "
    r"to|±)\s*(?:the )?(?:first |last )?\Z",
    re.IGNORECASE,
)
UNIT_OF_OTHERS = re.compile(
    r"\s?(?:-\s?)?(?:(?:full |training |total )?epochs?|(?:\w+ ){0,2}steps\b|"
    r"iterations|tokens|GPUs?|hours?|days?|nodes?|layers|samples?|examples|prompts|"
    r"responses|rollouts|(?:NVIDIA )?[AHVLB]\d{2,3}|seeds?|runs|models?|%|×)",
    re.IGNORECASE,
)


def one_of_several(sentence: str, each: Said, said: list[Said]) -> bool:
    """Whether the value is one of several in a row, none of which is said to hold; pairs of Adam's are meant so."""
    number = each.number
    if each.term.key in {"adam_beta1", "adam_beta2"} and each.end > number.end + 1:
        return False
    if _OPENED.search(sentence[: number.start]) and re.match(r"[^}\]]*,[^}\]]*[}\]]", sentence[number.end :]):
        return True
    before = sentence[: number.start]
    if HEDGED.search(before) and each.term.key not in {
        "min_lr",
        "weight_decay",
        "gradient_accumulation_steps",
        "max_length",
        "max_completion_length",
        "max_prompt_length",
        "num_train_epochs",
        "max_steps",
        "max_grad_norm",
        "warmup_ratio",
        "warmup_steps",
        "num_generations",
    }:
        return True
    if re.search(r"\b(?:between|from|±)\s*\Z", before):
        return True
    if each.term.key in {"num_train_epochs", "max_steps", "num_generations"} and re.search(
        r"(?:up to|at most|at least|more than|fewer than|less than)\s*\Z", before
    ):
        return True
    if re.match(r"\s+(?=[\d.]+(?:\s|$))", sentence[number.end :]):
        return True  # two columns of a table that lost its lines
    own_unit = (
        re.compile(rf"[- ]?\s?(?:{each.term.after})", re.IGNORECASE).match(sentence, number.end)
        if each.term.after
        else None
    )
    after = own_unit.end() if own_unit else number.end
    joint = _LIST.match(sentence, after) or _LIST.match(sentence, number.end)
    if joint is not None:
        following = number_at(sentence, joint.end())
        others = {other.number.start for other in said if other is not each and other.term is not each.term}
        if following is not None and following.start not in others and not _named_unit(sentence, following, each.term):
            return True
    # The last of a list: `1e-5 or 3e-5 learning rate`, `2, 3 and 4 epochs`.
    lead = re.search(
        r"([\d.)%kKM]|\bone|\btwo|\bthree)(?:[- ](?:epochs?|steps))?\s*(?:,\s*(?:and|"
        r"or)?|and|or|/|–|—|to|-|through|vs\.?)\s*\Z",
        before,
    )
    if lead is None:
        return False
    owners = [
        other
        for other in said
        if other is not each and other.number.start < number.start and other.number.end >= lead.start(1)
    ]
    if not owners:
        earlier = [found for found in numbers_in(sentence) if found.end <= lead.end(1) and found.end >= lead.start(1)]
        # A number that no name claims, right before ours, without a unit: two candidates for one value.
        return bool(earlier) and each.start == number.start
    return any(other.term is each.term for other in owners) and each.start == number.start


def _named_unit(sentence: str, number: Number, term: Term) -> bool:
    """The next number of a row has a unit that says it is something else: `learning rate of 1e-5, 3 epochs`."""
    follow = UNIT_OF_OTHERS.match(sentence, number.end)
    if follow is None:
        return bool(
            re.match(
                r"\s+(?:gradient|warm-?up|weight|linear|learning|batch|per-|different|accumulation|PPO|LoRA|dropout)",
                sentence[number.end :],
            )
        )
    unit = term.unit.rstrip("s")
    return not unit or unit not in follow[0].lower()
