"""Whose values a sentence tells: the authors' own, settled ones; or somebody else's, a search's, a supposition's."""

from __future__ import annotations

import re

from bot.research.papers.model import Paper, Section
from bot.research.papers.sentences import clause_at

_OURS = re.compile(r"\b(?:we|our|ours|us)\b", re.IGNORECASE)
_CITATION = (
    r"(?:\bet al\.?,?\s*(?:\(|\[)?\d{0,4}[a-z]?(?:\)|\])?|\[\d+(?:,\s*\d+)*\]|\([A-Z][^()]{2,60}?,? \d{4}[a-z]?\))"
)
# Somebody else is the subject of a verb, or a value belongs to them.
_OTHERS = re.compile(
    r"\bet al\.?[^.;]{0,20}?\s(?:use[sd]?|train(?:ed|s)?|set[s]?|report(?:ed|s)?|recommend(?:ed|s)?|suggest(?:ed|s)?|"
    r"employ(?:ed|s)?|adopt(?:ed|s)?|fine-?tuned?|find|found|propose[sd]?|run|"
    r"ran|appl(?:y|ied)|choose|chose|advise[sd]?|opt|"
    r"sweep|swept|rely|relied|perform(?:ed)?|argue[sd]?|observe[sd]?|start(?:ed)?)\b"
    r"|\b(?:used|reported|recommended|suggested|proposed|adopted|chosen|given|"
    r"described|published|released) (?:by|in) (?:the )?"
    r"(?:original|authors|prior|previous|[A-Z][\w-]+(?: et al| \(|['’]s| paper| report))"
    r"|\bteachers?(?: models?)? (?:is|was|were|are|uses?|used|had|has)\b|\b(?:the |its |their "
    r")?(?:original|official) (?:paper|implementation|work|recipe|authors?|model|"
    r"codebase|setup|setting|hyper\w*|run)\b"
    r"|\b(?:prior|previous|earlier|existing|concurrent|related|other|past) (?:works?|"
    r"papers?|studies|approach(?:es)?|methods?|recipes?|models|efforts|systems|"
    r"research)\b"
    r"|\b(?:they|their|theirs|the authors)\b"
    r"|\b(?:standard|conventional|vanilla|naive) (?:practice|recipes?|SFT|DPO|"
    r"GRPO|RLHF|pipelines?|approach(?:es)?|training|fine-?tuning|setups?)\b"
    r"|\b(?:was|were|been|is|are|who|authors|originally) pre-?trained (?:with|"
    r"at|using|on|for)\b|(?-i:\b[A-Z])[\w-]*['’]s (?:own )?(?:[\w.-]+ )?(?:models?|"
    r"recipes?|training|settings?|hyper\w+|rates?|configurations?|values?)\b|"
    r"\bfor comparison\b|\bcomparison (?:model|system|run)s?\b|\b(?:its|their|"
    r"the model['’]s) authors\b|\bas published\b"
    r"|\bbaselines?\b|\bcompetitors?\b",
    re.IGNORECASE,
)
# Values tried, varied, supposed or given up.
_UNSETTLED = re.compile(
    r"\b(?:sweep(?:s|ing|ed)?|swept|grid|search(?:ed|es|ing)?|tried|try(?:ing)?|"
    r"explor(?:e[sd]?|ing)|candidates? (?:values|set)|"
    r"vary|varie[sd]|varying|ablat\w+|sensitiv\w+|diverg\w+|unstable|instabilit\w+|"
    r"collapse[sd]?|degrad\w+|overfit\w*|worse|"
    r"worsen\w*|hurts?|harm\w*|under-?perform\w*|outperform\w*|"
    r"preliminary|initially (?:used|set|tried|experimented|trained|started)|"
    r"early (?:experiments|runs|attempts|versions?)|would|could|might|if|suppose|"
    r"future|"
    r"increasing|decreasing|reducing|lowering|raising|doubling|halving|larger than|smaller than|higher than|lower than|"
    r"robust (?:to|across)|effects? of|impact of|experiment(?:ed|ing)? with|"
    r"as (?:high|low|large|small|much|many|few) as|"
    r"makes|leads? to|causes|forgot|(?:earlier|previous|first|initial) (?:models?|"
    r"tr(?:y|ies)|version|draft|preprint|attempts?|"
    r"experiments?|runs?)|by mistake|erroneous\w*|"
    r"pilot|shows? that|reach(?:es|ed)|achieves|no longer|discard\w*|abandon\w*|"
    r"fail(?:s|ed)?|ranging|(?<!clip )(?<!clipping "
    r")(?<!cliprange )ranges? (?:from|of|between)|"
    r"for example|for instance|e\.g\.|such as|typical(?:ly)?|commonly|common "
    r"practice|usually|often|recommend\w*|default(?: value)?s? (?:of|in|is|was)|"
    r"leave .{0,30}to future|not (?:use|set|apply|exceed)|did not|do not|does "
    r"not|never|cannot|can not|were not|was not|is not|are not)\b",
    re.IGNORECASE,
)
_BENIGN = re.compile(
    r"\b(?:to (?:avoid|prevent|reduce|mitigate|limit) (?:overfitting|instabilit\w+|collapse|forgetting|divergence)|"
    r"if not (?:otherwise )?(?:stated|specified|noted|mentioned)|unless (?:otherwise "
    r")?(?:stated|specified|noted|mentioned)(?: otherwise)?|"
    r"(?:do|did|does) not (?:use|apply|employ|include|tune|change|modify|alter|"
    r"share|update|freeze|perform|mask|pack|add|require|require any)\b[^,;.]*,|"
    r"(?:KL|Kullback-Leibler)[- ]divergence|outperform\w* [^,;.]*,|rejection[- ]sampl\w+|"
    r"beam search|search and rescue)",
    re.IGNORECASE,
)
_SETTLED = re.compile(
    r"\b(?:final(?:ly)?|settle[sd]? (?:on|for)|(?:was|is|were|are|be) (?:selected|"
    r"chosen|picked|adopted|fixed)|we (?:therefore |thus |then |finally |ultimately "
    r")?(?:select|chose|choose|pick|picked|selected|adopt|adopted|fix|fixed|"
    r"keep|kept|report)|"
    r"end(?:ed)? up|best (?:value|setting|configuration|results?|performance|"
    r"one|was|is|validation)|work(?:s|ed) best|perform(?:s|ed) best|optimal)\b",
    re.IGNORECASE,
)
# Sections about other things than what the authors trained.
_FOREIGN_SECTION = re.compile(
    r"\b(?:related works?|background|preliminar(?:y|ies)|prior work|baselines?|"
    r"ablations?|ablation stud(?:y|ies)|sensitivity|limitations?|future (?:work|"
    r"directions)|"
    r"broader impacts?|rivals?|competing|what we (?:varied|tried)|variations?|"
    r"comparisons?\b|ethic\w*|acknowledge?ments?|references|case stud(?:y|"
    r"ies)|comparison (?:with|to)|competitors?|negative results|what did(?:n't|"
    r" not) work|unsuccessful attempts|"
    r"failed (?:attempts|experiments)|hyper-?parameter (?:search|sweeps?|sensitivity|"
    r"tuning|selection)|grid search|checklist|effects? of|impact of|analysis "
    r"of|robustness|probing)\b",
    re.IGNORECASE,
)
_IN_PASSING = re.compile(
    r"\s*(?:introduction|conclusions?|discussion|motivation|overview|summary|outlook|abstract)\b", re.IGNORECASE
)
# What stands there of settings tells variations and rivals.
_OUTCOMES = re.compile(
    r"(?:(?:main|experimental|overall|additional|further|full) )*(?:results?|"
    r"findings|outcomes?|evaluation|analys[ie]s|time|cost|compute time)\b"
    r"(?!.*\b(?:set-?ups?|settings?|details|experiments|training)\b)",
    re.IGNORECASE,
)
_EVALUATION = re.compile(
    r"\b(?:evaluat(?:e[sd]?|ion|ing)|at (?:inference|test|evaluation|decoding) "
    r"time|(?:during|for|at) (?:inference|testing|decoding|evaluation)|"
    r"benchmarks?|validation|pass@\d+|maj@\d+|avg@\d+|greedy|judges?|inference|decod(?:e|"
    r"ing)|LM[- ]?Eval\w*|lm-evaluation-harness|test set|scored|scoring|few-shot|"
    r"zero-shot)\b",
    re.IGNORECASE,
)
_GENERATION = re.compile(
    r"\b(?:data (?:generation|synthesis|construction|collection|curation|creation|"
    r"annotation)|synthesi[sz]\w+|teacher|annotat\w+|label(?:l?ed|l?ing) (?:with|"
    r"by)|"
    r"preference (?:pairs|data) (?:are|is|were|was) (?:built|constructed|created|"
    r"generated|collected)|to (?:build|construct|create|collect) (?:the |our "
    r")?(?:preference|training|SFT|instruction)|"
    r"rejection[- ]sampl\w+|distill(?:ed|ing)? (?:from|traces|data)|GPT-4\w*|"
    r"Claude|Gemini|prompt(?:ed|ing) (?:GPT|Llama|Qwen|DeepSeek|Claude))\b",
    re.IGNORECASE,
)
# Published fine-tunes: their recipes are told for comparison. Base models are no subject of this kind.
_RELEASES = re.compile(
    r"\b(?:Alpaca|Vicuna|Zephyr|T[uü]lu|WizardLM|WizardMath|Orca|OpenHermes|"
    r"Starling|OpenChat|Koala|Guanaco|Dolly|LIMA|InstructGPT|ChatGPT|MetaMath|"
    r"OpenThinker\w*|Open-?Reasoner\w*|s1(?:-32B)?|LIMO|DeepSeek-R1(?:-Zero|"
    r"-Distill\S*)?|DeepSeekMath|DeepScaleR|Sky-T1|Bespoke-Stratos|SimpleRL\S*|"
    r"Open-R1|"
    r"OLMo-?2?-Instruct|SmolLM\S*-Instruct|Nemotron\S*|Eurus\S*|Mammoth\S*|Llama-?[23]\S*-(?:Chat|"
    r"Instruct)|Magicoder|OctoCoder|Skywork\S*|Light-R1|QwQ\S*|"
    r"Phi-\d\S*|Claude\S*|GPT-\S+|Gemini\S*)(?![\w-])"
)


class Attribution:
    """Judges sentences of one paper. What it calls own is meant to be safe; everything in doubt is not."""

    def __init__(self, paper: Paper) -> None:
        self._own_names = _own_names(paper)

    def foreign_section(self, section: Section) -> bool:
        """About others, or about what was tried: no value is taken from there."""
        titles = (section.title, *section.path)
        return any(_FOREIGN_SECTION.search(title) for title in titles) or bool(_OUTCOMES.match(section.title))

    def told_in_passing(self, section: Section, sentence: str) -> bool:
        """In an introduction or a conclusion, values are the authors' own only where they say so."""
        return bool(_IN_PASSING.match(section.title)) and not _OURS.search(sentence)

    def of_others_at(self, sentence: str, position: int) -> bool:
        """Whether the clause around a place speaks of somebody else."""
        clause = clause_at(sentence, position)
        return clause.contrast or self._of_others(sentence, clause.text, clause.start)

    def settled(self, sentence: str, start: int, end: int) -> bool:
        """Whether what stands at `start`..`end` of a sentence is a value that the authors themselves trained with."""
        clause = clause_at(sentence, start)
        if clause.contrast or re.search(
            r"\bbaselines?\b|\bcomparison\b|\bcompar(?:e|ed|ing)\b(?! (?:favou?rabl))", sentence[:start], re.IGNORECASE
        ):
            return False
        text = _BENIGN.sub(" ", clause.text)
        if self._of_others(sentence, clause.text, clause.start):
            return False
        unsettled = _UNSETTLED.search(text)
        if unsettled and not _SETTLED.search(text):
            return False
        return not (unsettled and _between(clause.text, unsettled[0], start - clause.start))

    def topic_is_others(self, sentence: str, before: bool) -> bool:
        """Whether a paragraph speaks of somebody else from here on: it does until the authors name themselves."""
        if re.match(r"(?:As|For|In|The|Our|All)?\W*(?:\w+ ){0,3}baselines?\b", sentence, re.IGNORECASE):
            return True
        if _OURS.search(sentence) or self.names_own(sentence):
            return False
        return before or self._of_others(sentence, sentence, 0)

    def ours(self, label: str) -> bool:
        """Whether a heading of a table is the authors' own."""
        return bool(re.search(r"\b(?:ours?|this work|this paper)\b", label, re.IGNORECASE)) or self.names_own(label)

    def of_release(self, label: str) -> bool:
        """Whether a heading names somebody else's fine-tuned model."""
        found = _RELEASES.search(label)
        return bool(found) and found is not None and not self.own(found[0])

    def names_own(self, sentence: str) -> bool:
        words = re.sub(r"[^a-z0-9 ]", "", sentence.lower()).split()
        return any(own in words for own in self._own_names)

    def _of_others(self, sentence: str, clause: str, offset: int) -> bool:
        found = _OTHERS.search(clause)
        if found and not (_OURS.search(clause) and not re.search(r"\bbaselines?\b", found[0], re.IGNORECASE)):
            return True
        if _OURS.search(sentence[: offset + len(clause)]):
            return False
        subject = _RELEASES.search(clause)
        return bool(
            subject
            and subject.start() < 40
            and not self.own(subject[0])
            and re.match(
                rf"\s*{_CITATION}?\s*(?:\([^)]*\)\s*)?(?:is|was|were|are|uses?|used|adopts?|"
                r"employs?|trains?|trained|sets?|applie[sd]|fine-?tun\w+|reports?|relies|"
                r"takes?|['’]s|by contrast)\b",
                clause[subject.end() :],
            )
        )

    def own(self, name: str) -> bool:
        """Whether `name` is what the paper calls its own model or method."""
        bare = re.sub(r"[^a-z0-9]", "", name.lower())
        return any(own and (bare.startswith(own) or own.startswith(bare)) for own in self._own_names)


def evaluates(text: str) -> bool:
    """The words are about measuring a model, not training it."""
    return bool(_EVALUATION.search(text))


def makes_data(text: str) -> bool:
    """The words are about making training data."""
    return bool(_GENERATION.search(text))


def _between(clause: str, marker: str, position: int) -> bool:
    """The search's words stand nearer before a value than those that settle it: `chosen from a sweep over 1e-5`."""
    before = clause[:position]
    settled = [found.end() for found in _SETTLED.finditer(before)]
    unsettled = [found.end() for found in _UNSETTLED.finditer(before)]
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
