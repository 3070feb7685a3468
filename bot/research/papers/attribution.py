"""Whose values a sentence tells: the authors' own, settled ones; or somebody else's, a search's, a supposition's."""

from __future__ import annotations

import re

from bot.research.papers.holders import Holders
from bot.research.papers.model import Paper, Section
from bot.research.papers.naming import SIZE_WORD, VARIANT
from bot.research.papers.sentences import clause_at
from bot.research.papers.whose import (
    ADOPTED,
    ASIDE,
    AUTHORS,
    BENIGN,
    BESIDE,
    CITATION,
    COMPARED,
    COMPARES,
    EVALUATION,
    FOR_A_PURPOSE,
    FOR_COMPARISON,
    FOREIGN_SECTION,
    GENERATION,
    HELPERS,
    IN_PASSING,
    METHODS,
    ORDINARY,
    OTHERS,
    OURS,
    OUTCOMES,
    RELEASES,
    SETTLED,
    SUBJECT,
    THE_SAME,
    UNSETTLED,
    WE_DO,
    WE_TRAIN,
    WHOSE,
)


def _size_of(model: str) -> str:
    """A model's size where its name has one: names of one size may be one model's."""
    found = re.search(r"\d+(?:\.\d+)?[BM]\b", model)
    return found[0] if found else model


def _family_of(model: str) -> str:
    """`qwen` of Qwen2.5-7B; empty for a bare size."""
    found = re.match(r"[A-Za-z]{2,}", model)
    return found[0].lower() if found else ""


class Attribution:
    """Judges sentences of one paper. What it calls own is meant to be safe; everything in doubt is not."""

    def __init__(self, paper: Paper) -> None:
        self._own_names = _own_names(paper)
        self._title = paper.title.lower()
        text = " ".join(paragraph for section in paper.sections for paragraph in section.paragraphs)
        trained = " ".join(found[1] for found in WE_TRAIN.finditer(text))
        self._told = f"{paper.title} {paper.abstract} {trained}"
        words = re.findall(r"\S+", self._told.lower())
        self._about = frozenset(re.sub(r"[^a-z0-9+]", "", word) for word in words)
        models = {found[0] for found in VARIANT.finditer(self._told)}
        self.several_models = len({_size_of(model) for model in models}) > 1
        """Whether the paper may train more than one model."""
        self._families = {family for model in models if (family := _family_of(model))}
        self.holders = Holders(self._told, self._own_names)
        self._words = frozenset(re.findall(r"[\w-]+", f"{paper.title} {paper.abstract} {text}"))
        self._common = frozenset(re.findall(r"(?<![\w-])[a-z][a-z-]+", f"{paper.abstract} {text}"))

    def foreign_section(self, section: Section) -> bool:
        """About others, or about what was tried: no value is taken from there."""
        titles = (section.title, *section.path)
        if any(FOREIGN_SECTION.search(title) for title in titles) or OUTCOMES.match(section.title):
            return True
        return any(map(OUTCOMES.match, section.path)) and not _OF_TRAINING.search(section.title)

    def told_in_passing(self, section: Section, sentence: str) -> bool:
        """In an introduction or a conclusion, values are the authors' own only where they say so."""
        return bool(IN_PASSING.match(section.title)) and not OURS.search(sentence)

    def of_others_at(self, sentence: str, position: int) -> bool:
        """Whether the clause around a place speaks of somebody else."""
        clause = clause_at(sentence, position)
        return clause.contrast or self._of_others(sentence, clause.text, clause.start)

    def settled(self, sentence: str, start: int, end: int) -> bool:
        """Whether what stands at `start`..`end` of a sentence is a value that the authors themselves trained with."""
        clause = clause_at(sentence, start)
        if self._beside(sentence, start) or self._relative(sentence, start) or self._cited(sentence, start):
            return False
        before = sentence[:start]
        if clause.contrast or FOR_COMPARISON.search(before) or _COMPARING.search(before):
            return False
        text = BENIGN.sub(" ", clause.text)
        if self._of_others(sentence, clause.text, clause.start):
            return False
        unsettled = UNSETTLED.search(text) or COMPARED.search(text)
        if unsettled and not SETTLED.search(text):
            return False
        return not (unsettled and _between(clause.text, unsettled[0], start - clause.start))

    def _beside(self, sentence: str, start: int) -> bool:
        """Whether a sentence tells an experiment, or a model, that is not the paper's own training."""
        if ASIDE.match(sentence) or BESIDE.search(sentence):
            return True
        if FOR_A_PURPOSE.search(sentence, 0, start):
            return True
        helper = HELPERS.search(sentence, 0, start)
        return (
            helper is not None
            and helper.start() < 60
            and helper[0].rstrip("s").lower() not in self._title
            and not OURS.search(sentence[: helper.start()])
        )

    def _cited(self, sentence: str, start: int) -> bool:
        """Whether a sentence names other authors before a place, without saying that `we use` what follows."""
        cited = AUTHORS.search(sentence, 0, start)
        return cited is not None and not WE_DO.search(sentence[:start])

    def _relative(self, sentence: str, start: int) -> bool:
        """Whether a place is in a clause on somebody cited: `We follow X (2024), whose model was trained with`."""
        named = re.search(
            r"\b([A-Z][\w.+-]*-?[A-Z\d][\w.+-]*)(?: \([^()]*\))?, (?:which|who|whose)\b[^,;]*\Z", sentence[:start]
        )
        if named is not None and self._somebody(named[1]):
            return True
        cited = re.search(CITATION + r"|\([a-z]+\d{4}[a-z]?\)", sentence[:start])
        whose = WHOSE.search(sentence, cited.end(), start) if cited else None
        return (
            whose is not None
            and not OURS.search(sentence[whose.end() : start])
            and not ADOPTED.search(sentence[: whose.start()])
        )

    def _somebody(self, name: str) -> bool:
        """Whether a name is a model's or a person's that the paper neither introduces nor trains."""
        bare = {re.sub(r"[^a-z0-9+]", "", name.lower())}
        return (
            name.lower() not in self._common
            and not ORDINARY.fullmatch(name)
            and not METHODS.fullmatch(name)
            and not self.own(name)
            and not bare & self._about
        )

    def own_statement(self, sentence: str, at: int) -> bool:
        """Whether the authors speak of their own training, be it of what they do or of what they leave out."""
        return not (self._beside(sentence, at) or self._cited(sentence, at) or self.of_others_at(sentence, at))

    def says(self, name: str) -> bool:
        """Whether the running text has this word."""
        return name in self._words

    def topic_is_others(self, sentence: str, before: bool) -> bool:
        """Whether a paragraph speaks of somebody else from here on, or of what is trained for comparison only: it
        does until the authors name themselves, and something else than what they compare with."""
        compared = FOR_COMPARISON.search(sentence)
        if COMPARES.search(sentence) or (compared is not None and compared.start() < 60):
            return True
        if before and THE_SAME.search(sentence):
            return True
        if OURS.search(sentence) or self.names_own(sentence):
            return False
        return before or self._of_others(sentence, sentence, 0)

    def opens_aside(self, sentence: str) -> bool:
        """Whether a sentence opens with somebody who holds none of the paper's stages: `The verifier is trained`."""
        helper = HELPERS.search(sentence)
        opens = helper is not None and helper.start() < 60 and self._beside(sentence, helper.end())
        return (opens or bool(self.holders.topic(sentence))) and not OURS.search(sentence)

    def sized(self, label: str) -> str | None:
        """The model that a heading calls by its size alone: `large-v3` of a paper on Whisper large-v3."""
        if not SIZE_WORD.fullmatch(label.strip()):
            return None
        pattern = rf"\b([A-Z][\w.]*)[- ]{re.escape(label.strip())}(?![\w-])"
        families = {found[1] for found in re.finditer(pattern, self._told, re.IGNORECASE)}
        return f"{next(iter(families))} {label.strip()}" if len(families) == 1 else None

    def foreign_model(self, name: str) -> bool:
        """Whether a model is none that the paper says it trains, where it names those."""
        family = _family_of(name)
        return bool(family) and bool(self._families) and family not in self._families and not self.own(name)

    def ours(self, label: str) -> bool:
        """Whether a heading of a table is the authors' own."""
        return bool(re.search(r"\b(?:ours?|this work|this paper)\b", label, re.IGNORECASE)) or self.names_own(label)

    def of_release(self, label: str) -> bool:
        """Whether a heading names somebody else's fine-tuned model."""
        found = RELEASES.search(label)
        return bool(found) and found is not None and not self.own(found[0])

    def speaks(self, note: str) -> bool:
        """Whether a footnote is the authors' about their own work: they name themselves, and nobody else."""
        return bool(OURS.search(note)) and not re.search(CITATION, note) and not self._of_others(note, note, 0)

    def names_own(self, sentence: str) -> bool:
        words = re.sub(r"[^a-z0-9 ]", "", sentence.lower()).split()
        return any(own in words for own in self._own_names)

    def _of_others(self, sentence: str, clause: str, offset: int) -> bool:
        if FOR_COMPARISON.search(clause) or (OTHERS.search(clause) and not OURS.search(clause)):
            return True
        if OURS.search(sentence[: offset + len(clause)]):
            return False
        owner = re.match(r"\W*(?P<name>[A-Z][\w.+-]*)['’]s\s", clause)
        if owner is not None and self._somebody(owner["name"]):
            return True
        trained = _NAME_TRAINED.match(clause)
        if (
            trained is not None
            and not VARIANT.fullmatch(trained["name"])
            and self._somebody(trained["name"].split()[0])
        ):
            return True
        named = SUBJECT.match(clause)
        if named is not None and self._somebody(named["name"]):
            return True
        subject = RELEASES.search(clause)
        return bool(
            subject
            and subject.start() < 40
            and not self.own(subject[0])
            and re.match(
                rf"\s*{CITATION}?\s*(?:\([^)]*\)\s*)?(?:is|was|were|are|uses?|used|adopts?|"
                r"employs?|trains?|trained|sets?|applie[sd]|fine-?tun\w+|reports?|relies|"
                r"takes?|['’]s|by contrast)\b",
                clause[subject.end() :],
            )
        )

    def own_name_in(self, label: str) -> str | None:
        """The paper's own name where a heading has it."""
        words = re.findall(r"\S+", label)
        return next((word for word in words if re.sub(r"[^a-z0-9]", "", word.lower()) in self._own_names), None)

    def own(self, name: str) -> bool:
        """Whether `name` is what the paper calls its own model or method."""
        bare = re.sub(r"[^a-z0-9]", "", name.lower())
        return any(own and (bare.startswith(own) or own.startswith(bare)) for own in self._own_names)


def evaluates(text: str) -> bool:
    """The words are about measuring a model, not training it."""
    return bool(EVALUATION.search(text))


def makes_data(text: str) -> bool:
    """The words are about making training data."""
    return bool(GENERATION.search(text))


# `wav2vec 2.0 XLS-R (300M) is trained`
_NAME_TRAINED = re.compile(
    r"\s*(?!The |Our |A |An |This |Each |Both |"
    r"All )(?P<name>\w*[A-Z\d][\w.+-]*(?:\s[\w.+-]*[A-Z\d][\w.+-]*){0,3})\s(?:\([^()]*\)\s)?"
    r"(?:is|was|were|are) (?:\w+ )?(?:trained|tuned|fine-?tuned|run)\b"
)
_OF_TRAINING = re.compile(
    r"\b(?:set-?ups?|settings?|details|configurations?|hyper\w*|training|implementation)\b", re.IGNORECASE
)
_COMPARING = re.compile(r"\bcomparison\b|\bcompar(?:e|ed|ing)\b(?! favou?rabl)", re.IGNORECASE)


def _between(clause: str, marker: str, position: int) -> bool:
    """The search's words stand nearer before a value than those that settle it: `chosen from a sweep over 1e-5`."""
    before = clause[:position]
    settled = [found.end() for found in SETTLED.finditer(before)]
    unsettled = [found.end() for found in UNSETTLED.finditer(before)]
    return bool(unsettled) and (not settled or max(unsettled) > max(settled))


def _own_names(paper: Paper) -> frozenset[str]:
    """What the paper calls its own: the words before the colon of its title, and what it says it introduces."""
    names = set()
    head = paper.title.split(":")[0]
    if ":" in paper.title and len(head.split()) <= 4:
        names.add(head)
    text = " ".join(
        (paper.abstract, *(paragraph for section in paper.sections[:4] for paragraph in section.paragraphs[:6]))
    )
    for found in re.finditer(
        r"\b(?:introduce|present|propose|release|call(?:ed)?|named?|dub(?:bed)?|"
        r"develop)\s+(?:it |this |the |our |a (?:\w+ ){0,4}(?:called|named) |resulting "
        r"(?:model|method) )?(?:model |method |recipe )?([A-Z][\w.+-]*\d*[\w-]*)",
        text,
    ):
        names.add(found[1])
    return frozenset(re.sub(r"[^a-z0-9]", "", name.lower()) for name in names if len(name) > 2)
