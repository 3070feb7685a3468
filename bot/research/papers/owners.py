"""The stage and the model that a value in a sentence is said for."""

from __future__ import annotations

import re
from collections.abc import Sequence

from bot.research.papers.naming import VARIANT
from bot.research.papers.stages import GENERIC, Mention, groups, may_mean

EVERY_STAGE = "*"
_EVERY_STAGE = re.compile(
    r"\b(?:all|both|each|every)(?: of)?(?: the| our| these)?(?: two| three| "
    r"four)? (?:training )?(?:stages?|acts?|phases?)\b|\b(?:in|for|of) both steps\b|\bin both(?=[.,;]|\Z)|"
    r"\b[Tt]he (?:two|three|four)(?: stages)? share\b|\bthroughout\b(?! (?:training|the (?:stage|run)))",
    re.IGNORECASE,
)
EVERYWHERE = re.compile(
    r"\b(?:all|both|every|each)(?: of)?(?: the| our| these)? (?:\w+ ){0,2}(?:stages?|"
    r"experiments?|runs?|phases?|trainings?|training runs|methods|settings|models|"
    r"configurations)\b|\bthroughout\b|\bacross (?:all|both|the) \w*\s?(?:stages|"
    r"experiments|runs|phases)\b|\bshared (?:by|across|between)\b",
    re.IGNORECASE,
)


_FOR = re.compile(r"\A(?:(?!\band\b)[^,;.]){0,25}?\b(?:for|in|during|when|at)\s+(?:the |our |both |all )?")


def stage_at(
    sentence: str, start: int, end: int, found: Sequence[Mention], context: str | None, rest: str = ""
) -> tuple[str | None, bool]:
    """(stage, whether it holds for all) of a value at `start`..`end` of a sentence."""
    firm = [each for each in found if not each.weak]
    if _EVERY_STAGE.search(sentence) and all(each.method in GENERIC for each in firm):
        return None, True
    usable = firm or [each for each in found if not each.past]
    grouped = groups(usable, sentence)
    after = [group for group in grouped if group[0].start >= end]
    if rest and after and _FOR.match(rest) and after[0][0].start < end + len(rest):
        lead = _FOR.match(rest)
        if (
            lead is not None
            and end + lead.end() <= after[0][0].start <= end + lead.end() + 30
            and not re.search(r"[,;]", rest[: after[0][0].start - end])
        ):
            return _single(after[0], sentence)
    before = [group for group in grouped if group[-1].end <= start]
    within = [group for group in grouped if group[0].start < end and group[-1].end > start]
    if within:
        return _single(within[0], sentence)
    if before:
        return _single(before[-1], sentence, context)
    if len(after) == 1:
        return _single(after[0], sentence, context)
    if after:
        return "?", False
    if _EVERY_STAGE.search(sentence):
        return None, True
    if context not in (None, "?", EVERY_STAGE):
        return context, False
    if context == EVERY_STAGE or EVERYWHERE.search(sentence):
        return None, True
    return context, False


def _single(group: tuple[Mention, ...], sentence: str, context: str | None = None) -> tuple[str | None, bool]:
    methods = {each.method for each in group}
    if len(methods) == 1:
        only = next(iter(methods))
        if context not in (None, "?", EVERY_STAGE) and may_mean(only, context):
            return context, False
        return only, False
    # `for SFT and DPO`: one value for several stages, in the order that they are named.
    if re.search(r"\brespectively\b", sentence):
        return "?", False
    return "+".join(each.method for each in group), False


_DOES = re.compile(r"(?: model)? (?:uses?|used|is|was|has|had|runs?|ran|takes?|took|trains?|needs?|gets?|sees?)\b")
_JOINED = re.compile(r"\s*(?:,|and|, and|/|&)\s*(?:the )?")


def variant_at(sentence: str, start: int, end: int, rest: str = "") -> str:
    """The model that a value is said for where a sentence names several, or says `for the 7B model`."""
    lead = re.match(r"\A[^,;.()]{0,20}?\b(?:for|on|with|in)\s+(?:the |our )?", rest)
    if lead is not None:
        named = VARIANT.match(rest, lead.end())
        if named is not None:
            return named[0]
    names = list(VARIANT.finditer(sentence))
    if len({name[0] for name in names}) < 2:
        if not names:
            return ""
        said_for = re.search(r"(?<![Ee]xcept )\b[Ff]or (?:the |our )?\Z", sentence[: names[0].start()])
        subject = re.fullmatch(r"(?:The |Our )?", sentence[: names[0].start()]) and _DOES.match(
            sentence, names[0].end()
        )
        return names[0][0] if said_for or subject else ""
    earlier = [name for name in names if name.end() <= start]
    if not earlier:
        return ""
    chosen = [earlier[-1]]
    while len(chosen) < len(earlier) and _JOINED.fullmatch(
        sentence, earlier[-len(chosen) - 1].end(), chosen[0].start()
    ):
        chosen.insert(0, earlier[-len(chosen) - 1])
    return "+".join(name[0] for name in chosen)
