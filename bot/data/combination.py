"""What the licences of a base, a teacher, the data and the code together allow, and what they ask of the trained model.

Each licence belongs to one of a few classes (`Terms`), and a table says what two of them make of a model that is
trained under both. The reading is the cautious one: a model counts as made from its data and from its teacher's
answers. Sources of what single licences ask stand beside them.

Not covered: law. Whether a model is a derivative of its data is not settled anywhere, and nothing here is legal advice.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from bot.data.licence_names import HUB_NAMES, IDENTIFIERS


class Terms(StrEnum):
    PERMISSIVE = "permissive"
    """Use as one likes; at most, names and notices are kept."""
    SHARE_ALIKE = "share-alike"
    """What is made from it is handed on under the same terms."""
    RESTRICTED = "use-restricted"
    """Rules on use, handed on with the model: Llama, Gemma, OpenRAIL."""
    NON_COMMERCIAL = "non-commercial"
    NO_DERIVATIVES = "no-derivatives"
    UNKNOWN = "unknown"


class Part(StrEnum):
    """What a licence stands on."""

    BASE = "base"
    TEACHER = "teacher"
    DATA = "data"
    CODE = "code"


class Answer(StrEnum):
    ALLOWED = "allowed"
    ASK = "ask"
    """A person has read the terms and says so, by naming the licences in the goal's `licences`."""
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Licensed:
    what: str
    part: Part
    identifier: str | None


@dataclass(frozen=True, slots=True)
class Duties:
    """What a licence asks of a published model that was made under it."""

    name_begins: str = ""
    shown: str = ""
    """Words that the model's page has to show."""
    duty: str = ""
    """The rest, one sentence."""
    own_kind_alone: str = ""
    """Prefix of the licences of models that it may improve; others it may not. Empty: any."""
    source: str = ""


_LLAMA = "Hand on the agreement and its acceptable use policy with the model, with the notice file that it asks for."
_LLAMA_NAMED = Duties("Llama", "Built with Llama", _LLAMA, source="https://www.llama.com/llama3_1/license/")
DUTIES: dict[str, Duties] = {
    "llama2": Duties("", "", _LLAMA, "llama2", "https://ai.meta.com/llama/license/"),
    "llama3": Duties("Llama 3", "Built with Meta Llama 3", _LLAMA, "llama", "https://www.llama.com/llama3/license/"),
    "llama3.1": _LLAMA_NAMED,
    "llama3.2": _LLAMA_NAMED,
    "llama3.3": _LLAMA_NAMED,
    "llama4": _LLAMA_NAMED,
    "gemma": Duties(
        duty="Hand on the Gemma Terms of Use with its use restrictions, say that the files were changed, and add the "
        "notice file that it asks for; a model trained on Gemma's answers counts too.",
        source="https://ai.google.dev/gemma/terms",
    ),
    "qwen": Duties(
        shown="Built with Qwen", duty="Hand on the agreement with the model.",
        source="https://huggingface.co/Qwen/Qwen2.5-72B/blob/main/LICENSE",
    ),
    "qwen-research": Duties(
        shown="Built with Qwen", duty="Hand on the agreement with the model.",
        source="https://huggingface.co/Qwen/Qwen2.5-3B/blob/main/LICENSE",
    ),
}  # fmt: skip
_RAIL = Duties(duty="Hand on the use restrictions with the model.", source="https://huggingface.co/blog/open_rail")


@dataclass(frozen=True, slots=True)
class Combination:
    answer: Answer
    reason: str
    """One sentence."""
    output: str | None
    """Licence of the trained model's card; None where nothing fits them all."""
    name_begins: str = ""
    shown: tuple[str, ...] = ()
    duties: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"answer": str(self.answer)}


def terms_of(identifier: str | None) -> Terms:
    """The class of one licence; of a choice (` or `) the mildest, of several together (` and `) the strictest."""
    if identifier is None:
        return Terms.UNKNOWN
    order = list(Terms)
    if " or " in identifier:
        return min((terms_of(part) for part in identifier.split(" or ")), key=order.index)
    if " and " in identifier:
        return max((terms_of(part) for part in identifier.split(" and ")), key=order.index)
    words = set(identifier.split("-"))
    if identifier.startswith("cc-") and "nd" in words:
        return Terms.NO_DERIVATIVES
    if (identifier.startswith("cc-") and "nc" in words) or HUB_NAMES.get(identifier) == "non-commercial":
        return Terms.NON_COMMERCIAL
    if HUB_NAMES.get(identifier) == "use-restricted":
        return Terms.RESTRICTED
    if re.match(r"cc-by-sa|gpl|agpl|lgpl|odbl|osl|eupl|cdla-sharing|gfdl", identifier):
        return Terms.SHARE_ALIKE
    known = identifier in IDENTIFIERS or identifier in HUB_NAMES
    return Terms.PERMISSIVE if known else Terms.UNKNOWN


_WHY = {
    frozenset({Terms.SHARE_ALIKE, Terms.RESTRICTED}): "one asks for its own terms without more, the other adds rules",
    frozenset(
        {Terms.SHARE_ALIKE, Terms.NON_COMMERCIAL}
    ): "one asks for its own terms, the other forbids commercial use",
}
"""Two classes that no single licence of the model satisfies."""


def combined(parts: Sequence[Licensed], named: Sequence[str] = ()) -> Combination:
    """The verdict on training a model with all of `parts`. `named` are licences that the goal names as allowed."""
    refused = [why for each in parts if (why := _forbids_others(each, parts)) is not None]
    asks = [why for each in parts if (why := _asks(each)) is not None and each.identifier not in named]
    if (clash := _clash(parts)) is not None and not set(clash[1]) <= set(named):
        asks.append(clash[0])
    duties = [(each, duty) for each in parts for duty in duties_of(each.identifier)]
    answer = Answer.REFUSED if refused else Answer.ASK if asks else Answer.ALLOWED
    output = None if answer is not Answer.ALLOWED else _output(parts)
    return Combination(
        answer,
        (refused + asks + [_allowed_words(parts, output)])[0],
        output,
        next((duty.name_begins for _, duty in duties if duty.name_begins), ""),
        tuple(dict.fromkeys(duty.shown for _, duty in duties if duty.shown)),
        tuple(dict.fromkeys(_duty_words(each, duty) for each, duty in duties)),
    )


def duties_of(identifier: str | None) -> list[Duties]:
    found = []
    for part in re.split(r" and ", identifier or ""):
        if part in DUTIES:
            found.append(DUTIES[part])
        elif "rail" in part:
            found.append(_RAIL)
    return found


def _duty_words(each: Licensed, duty: Duties) -> str:
    words = [f"{each.what} is under `{each.identifier}`."]
    if duty.name_begins:
        words.append(f"The published model's name begins with `{duty.name_begins}`.")
    if duty.shown:
        words.append(f"Its page shows \u201c{duty.shown}\u201d.")
    return " ".join([*words, *([duty.duty] if duty.duty else []), f"({duty.source})"])


def _forbids_others(each: Licensed, parts: Sequence[Licensed]) -> str | None:
    """Llama 2 and Llama 3 may not improve another language model; a base is not another."""
    if each.part is Part.BASE:
        return None
    base = next((part.identifier or "" for part in parts if part.part is Part.BASE), "")
    for duty in duties_of(each.identifier):
        if duty.own_kind_alone and not base.startswith(duty.own_kind_alone):
            return (
                f"{_sentence(each.what)} is under `{each.identifier}`, which forbids to improve other language models "
                f"with it, and the base model is under `{base or 'an unknown licence'}` ({duty.source})."
            )
    return None


def _asks(each: Licensed) -> str | None:
    match terms_of(each.identifier):
        case Terms.UNKNOWN:
            if each.part is Part.CODE:
                return None  # the team's own, more often than not; it is said and not asked
            named = f"`{each.identifier}` is not one that Postdoc knows" if each.identifier else "is not known"
            return f"The licence of {each.what} {named}: read its terms."
        case Terms.NO_DERIVATIVES:
            return (
                f"{_sentence(each.what)} is under `{each.identifier}`, which allows no derivatives, and a trained "
                "model may count as one."
            )
    return None


def _clash(parts: Sequence[Licensed]) -> tuple[str, list[str]] | None:
    """(sentence, licences) of two parts whose terms one licence of the model cannot both keep."""
    weights = [each for each in parts if each.part is not Part.CODE and each.identifier]
    for place, left in enumerate(weights):
        for right in weights[place + 1 :]:
            why = _WHY.get(frozenset({terms_of(left.identifier), terms_of(right.identifier)}))
            families = {_family(each.identifier) for each in (left, right)}
            alike = {each.identifier for each in (left, right) if terms_of(each.identifier) is Terms.SHARE_ALIKE}
            if why is None and len(alike) == 2:
                why = "each asks for its own terms and no others"
            if why is None and len(families - {""}) == 2:
                why = "both ask that the model be handed on under their own agreement"
            if why is not None:
                named = [str(each.identifier) for each in (left, right)]
                return (
                    f"{_sentence(left.what)} is under `{named[0]}` and {right.what} under `{named[1]}`: {why}.",
                    named,
                )
    return None


def _family(identifier: str | None) -> str:
    """Whose agreement a use-restricted model is under; versions of Llama hand on their own, and go together here."""
    if terms_of(identifier) is not Terms.RESTRICTED or identifier is None:
        return ""
    return "llama" if identifier.startswith("llama") else "rail" if "rail" in identifier else identifier


def _output(parts: Sequence[Licensed]) -> str | None:
    """The base's licence, unless terms of the data or of a teacher are stricter and go on with the model; all of them
    where several do."""
    weights = [each for each in parts if each.part is not Part.CODE]
    for strict in ((Terms.NON_COMMERCIAL, Terms.RESTRICTED), (Terms.SHARE_ALIKE,)):
        if bound := [str(each.identifier) for each in weights if terms_of(each.identifier) in strict]:
            return " and ".join(dict.fromkeys(bound))
    return next((each.identifier for each in weights if each.part is Part.BASE), None)


def _allowed_words(parts: Sequence[Licensed], output: str | None) -> str:
    if output is None:
        return "Nothing in these licences forbids this training."
    binding = next((each.what for each in parts if each.identifier and each.identifier in output.split(" and ")), "")
    limit = ", for no commercial use" if terms_of(output) is Terms.NON_COMMERCIAL else ""
    return f"The licences go together; the trained model goes under {output} because of {binding or 'them'}{limit}."


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
