"""Who holds a value that a sentence tells: the model that is trained, or something that no stage or model is named for.

A sentence says whom it speaks of in three places: at its head (`For the proposer, we use`), in its subject (`The safety
run lasts`) and behind the value (`1e-3 for the head`). Where one of them names a part, an agent, a set or a run of its
own, nobody can tell whose recipe the value is, and it is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from bot.research.papers.naming import VARIANT
from bot.research.papers.stages import mentions
from bot.research.papers.vocabulary import TERMS, pattern_of
from bot.research.papers.whose import METHODS

AGENTS = re.compile(
    r"\b(?:attacker|defender|proposer|solver|verifier|critic|generator|retriever|planner|discriminator|questioner|"
    r"challenger|teacher|speaker|listener|rewriter|summari[sz]er|re-?ranker|ranker|router|executor|translator|tagger|"
    r"annotator|judge|drafter|guide|monitor|simulator|searcher|refiner|corrector|evaluator|opponent|adversary|"
    r"\w*labell?er|embedder|tokeni[sz]er|filter|classifier|detector|scorer)s?\b",
    re.IGNORECASE,
)
PARTS = re.compile(
    r"\b(?:heads?|backbone|trunk|embeddings?|projectors?|projection|connectors?|(?:vision|visual|image|audio|speech|text|"
    r"feature) (?:encoder|tower|backbone)|encoder|decoder|router|experts?|value (?:model|network|function|head)|"
    r"language model\b(?! (?:is|was)\b)|biases|norms?|layer ?norms?|gates?|bottom layers|top layers|(?:lower|"
    r"upper|first|"
    r"last|new|remaining|other|middle) (?:\w+ )?(?:layers|parameters|weights|modules)|vectors?|codebook|"
    r"attention|MLPs?|"
    r"feed-forward \w+|environments?|game)\b",
    re.IGNORECASE,
)
# A run, a model or a step of the training that an adjective tells from others.
_THING = re.compile(
    r"(?P<told>(?:[\w.'’+-]+ ){0,4}?)(?P<thing>models?|polic(?:y|ies)|agents?|runs?|variants?|versions?|"
    r"stages?|phases?|"
    r"networks?|ones?|experiments?|settings?|tasks?|(?:data ?)?sets?|languages?|domains?|LLMs?|LMs?|students?|systems?|"
    r"benchmarks?|branch(?:es)?|splits?|subsets?|folds?|members?(?: \d+)?|experts?|checkpoints?|submissions?|demos?)",
    re.IGNORECASE,
)
_NEUTRAL = re.compile(
    r"(?:the|our|an?|this|that|these|all|both|each|every|either|any|final|resulting|same|whole|entire|full|main|own|"
    r"language|policy|trained|tuned|fine-?tuned|base|such|single|training|student|target|initial|current|actor|of|one|two|"
    r"three|four|five|six|following|pretrained|pre-?trained|instruct\w*|chat|dense|neural|causal|seq2seq|open|"
    r"reasoning|vision|speech|translation|preference|alignment|reward|rl|sft|dpo|grpo|ppo|it|default|production|released|"
    r"reported|proposed|experimental|optimi[sz]ation|hyper-?parameter|shared|common|remaining|"
    r"\d[\w.,-]*|models?|stages?|[—–-])",
    re.IGNORECASE,
)
_NO_HOLDER = re.compile(
    r"(?:[\w-]*(?:training|tuning|learning|optimi[sz]ation|generation|sampling|alignment|adaptation)|rollouts?|simplicity|"
    r"stability|efficiency|compar\w+|fair\w*|reproducib\w+|consistency|regulari[sz]\w+|conveni\w+|memory|speed|brevity|"
    r"this|these|that|those|it|them|which|most|more|details|instance|example|prompts?|questions?|quer\w+|problems?|"
    r"updates?|steps?|batch\w*|epochs?|iterations?|hyper-?parameters|up|about|around|roughly|approximately|"
    r"total|sequences?|tokens?|examples?|samples?|responses?|completions?|reasons?|practice|GPUs?|nodes?|"
    r"gradients?|weights|parameters|purposes?|another|an?|single|one|two|three|four|\d\S*)(?![\w-])",
    re.IGNORECASE,
)
_HEAD = re.compile(
    r"(?:\A\W*|[,;:]\s+(?:and |but |while |whereas )?|\s(?:and|but|while|whereas)\s)(?P<how>[Ff]or|[Oo]n|[Ww]ith|[Ii]n|"
    r"[Dd]uring|[Aa]t)\s+(?P<who>[^,;:.()]{2,60}?)(?=,|\s(?:we|our|it|they|the (?:learning|batch|number|maximum|peak|"
    r"weight|temperature|group|sequence|KL|warm|training))\b|\swith\b|\s[βαλγε]|\s(?:\d|AdamW?\b))"
)
_VERB = (
    r"(?:(?:is|was|are|were|has|have|had)(?: then| also| only| first| been| again)?|uses?|used|runs|ran|lasts?|lasted|"
    r"takes|took|trains|trained|gets|got|needs|needed|sees|saw|receives|requires|adopts?|employs?|keeps?|starts?|"
    r"follows?|learns?|reports|reported|begins?|continues?|stops?|applies|one of|one with)"
)
_SUBJECT = re.compile(
    rf"(?:\A\W*|[,;:]\s+(?:and |but |while |whereas )?|\s(?:and|but|while|whereas)\s)"
    rf"(?P<who>(?:[Tt]he|[Oo]ur|[Aa]n?|[Ee]ach|[Tt]his)?\s?(?:[\w.'’+/-]+\s){{1,5}}?)(?:\([^()]*\)\s)?{_VERB}\s"
)
_BEHIND = re.compile(
    r"\s*(?:%|tokens|epochs?|steps|iterations|updates|sequences|pairs|examples|samples|prompts)?\s*"
    r"(?:(?:is|are|was|were) (?:used |applied |set |chosen )?)?(?P<how>for|on|in|"
    r"with)\s+(?P<who>[A-Za-z](?:[^,;:.()]|\.(?=\d)){1,40}?)"
    r"(?=[,;:.()]|\s(?:and|but|while|with|we|by|to|of|is|are|was|at|over|using|\d)|\Z)"
)
_WITHIN = re.compile(
    r"\b(?:of|for|in|on)\s(?P<who>(?:the |our )?(?:[\w-]+\s){1,4}?)(?:is|was|are|were|to|as|at|equals)\b|"
    r"\b(?:of|for|in|on)\s(?P<bare>(?:the |our )?(?:[\w-]+ ){0,3}[\w-]+)\s*[=:(]"
)
_ARTICLE = re.compile(r"\A(?:the|our|an?|all|both|each|every|this|these|its|their)(?:\s+|\Z)", re.IGNORECASE)
_PROPER = re.compile(r"[A-Z][\w.+/-]*[A-Z\d][\w.+/-]*|[A-Z][a-z]+(?:[- ][A-Z\d]\S*)*")
_COMPARES_SIZES = re.compile(r"\b(?:below|above|under|over|up to|smaller|larger|bigger|than)\b", re.IGNORECASE)
_RUN = re.compile(r"(?:(?:NVIDIA )?[AHBV]\d{2,3}\S*|GPUs?|TPU\S*|Table|Section|Appendix|Figure|Eq\S*|Algorithm|Adam\S*|"
                  r"Muon|Lion|FSDP|ZeRO\S*|TRL|vLLM|SGLang|GAE|KL|CUDA|Jan\w*|Feb\w*|Python|PyTorch|"
                  r"HuggingFace)")  # fmt: skip


class Holders:
    """Knows of one paper which agents it trains, and what it calls its own."""

    def __init__(self, about: str, own: frozenset[str]) -> None:
        """`about`: title, abstract and what the authors say they train."""
        agents = {found[0].lower().rstrip("s") for found in AGENTS.finditer(about)}
        self._agent = next(iter(agents)) if len(agents) == 1 else ""
        self._own = own
        self._two_ways = bool(re.search(r"\bLoRA\b", about)) and bool(
            re.search(r"\bfull(?:[- ]parameter)? fine-?tun", about, re.IGNORECASE)
        )

    def unknown(self, sentence: str, start: int, end: int) -> str:
        """Whom a value at `start`..`end` is said for, where that is neither a stage nor a model; empty elsewhere."""
        behind = _BEHIND.match(sentence, end)
        if behind is not None:
            beside = re.search(r"\bpolic(?:y|ies)\b|\bactor\b", behind["who"]) and any(
                each.method == "reward" for each in mentions(sentence)
            )
            if beside or self._is_unknown(behind["who"], behind["how"], behind=True):
                return behind["who"].strip()
        for found in _WITHIN.finditer(sentence, start, end):
            if self._is_unknown(found["who"] or found["bare"], "for", behind=True):
                return (found["who"] or found["bare"]).strip()
        for how, who in self._before(sentence, start):
            return who.strip() if self._is_unknown(who, how) else ""
        return ""

    def topic(self, sentence: str) -> str:
        """The unknown holder that a sentence opens with: those after it may go on about it."""
        found = _SUBJECT.match(sentence)
        who = _ARTICLE.sub("", found["who"].strip()) if found else ""
        speaks = self._foreign_agent(who) or re.search(r"(?:model|policy|agent|run|variant|network|system)\Z", who)
        return who if found and speaks and not self._says_nothing(who) and self._is_unknown(who, "") else ""

    def _before(self, sentence: str, start: int) -> Iterator[tuple[str, str]]:
        """(preposition, whom) of the heads and subjects before a place, the nearest first; of its own clause only."""
        clause = max((sentence.rfind(mark, 0, start) for mark in (";", ". ")), default=-1) + 1
        found = [
            each
            for pattern in (_HEAD, _SUBJECT)
            for each in pattern.finditer(sentence[:start])
            if each.start() >= clause - 1 and not self._says_nothing(each["who"])
        ]
        for each in sorted(found, key=lambda each: -each.start()):
            yield each.groupdict().get("how") or "", each["who"]

    def _says_nothing(self, who: str) -> bool:
        """A hyperparameter (`the learning rate is`), a pronoun: whom the value is for is said before it, or nowhere."""
        bare = _ARTICLE.sub("", who.strip())
        return (
            not bare
            or re.match(r"(?:each|every)\b", who.strip(), re.IGNORECASE) is not None
            or re.fullmatch(r"(?:we|it|they|this|that|which|one|there|here|all)", bare, re.IGNORECASE) is not None
            or any(pattern_of(term).search(who) for term in TERMS)
        )

    def _is_unknown(self, who: str, how: str, *, behind: bool = False) -> bool:
        how = how.lower()
        bare = re.sub(r"large language models?", "LLM", _ARTICLE.sub("", who.strip()))
        if not bare or _RUN.match(bare) or re.match(r"(?:all|both|each|every)\b", who.strip(), re.IGNORECASE):
            return False
        if self._two_ways and re.match(r"(?:Q?LoRA|full\b)", bare, re.IGNORECASE):
            return True
        if self._foreign_agent(bare) or (
            PARTS.fullmatch(bare) and not (how == "" and bare.lower() == "language model")
        ):
            return True
        if behind and PARTS.search(bare) and how != "with":
            return True
        if how == "for" and _COMPARES_SIZES.search(bare):
            return True
        if mentions(who) or VARIANT.search(who):
            return False
        if how == "in" and re.match(
            r"(?!pre|post|mid|fine|instruct|deep|transfer)[a-z]+-(?:train|tun)ing\b", bare, re.IGNORECASE
        ):
            return True
        thing = _THING.fullmatch(re.sub(r"\s(?:of|for|from|with)\s.*", "", bare)) or _THING.fullmatch(bare)
        if thing is not None:
            return not all(_NEUTRAL.fullmatch(word) for word in thing["told"].split()) and not self._owned(bare)
        if how == "" or _NO_HOLDER.match(bare):
            return False
        proper = _PROPER.match(who.strip()) is not None and not METHODS.fullmatch(bare.split()[0])
        if behind:
            return how == "for" and proper and not self._owned(bare)
        if how == "for":
            return not self._owned(bare) and not any(pattern_of(term).search(bare) for term in TERMS)
        return how == "on" and proper and not self._owned(bare)

    def _foreign_agent(self, who: str) -> bool:
        found = AGENTS.search(who)
        return found is not None and found[0].lower().rstrip("s") != self._agent

    def _owned(self, who: str) -> bool:
        return any(re.sub(r"[^a-z0-9]", "", word.lower()) in self._own for word in who.split())
