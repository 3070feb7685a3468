"""What else a recipe needs from a paper: its base models, data, losses, benchmarks and metrics, each with its quote."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from bot.research.papers.attribution import Attribution
from bot.research.papers.findings import Evidence
from bot.research.papers.model import Paper, Section
from bot.research.papers.numbers import number_at
from bot.research.papers.sentences import sentences
from bot.research.papers.stages import mentions

_FAMILY = (
    r"(?:Code ?Llama|TinyLlama|Llama|LLaMA|LLAMA|Mistral|Mixtral|Ministral|Qwen|"
    r"QwQ|Gemma|CodeGemma|Phi|SmolLM|Pythia|OLMo|OLMoE|Falcon|DeepSeek(?:Math|"
    r"-Coder|-LLM|-V\d|-R1)?|Yi|"
    r"StarCoder\d?|StableLM|MPT|BLOOMZ?|OPT|GPT-(?:2|J|NeoX?|Neo)|Flan-T5|mT5|"
    r"T5|ByT5|BART|DeBERTa\S*|RoBERTa|ModernBERT|BERT|ELECTRA|InternLM\d?|Baichuan\d?|"
    r"ChatGLM\d?|GLM|MiniCPM|Granite|Nemotron|Command|"
    r"EuroLLM|Apertus|Olmo|gpt-oss|Whisper|ViT|CLIP|LLaVA\S*|RedPajama|RWKV|Mamba)"
)
_MODEL = re.compile(
    rf"(?<![\w/-])(?:[\w-]+/)?{_FAMILY}(?:[- ]?v?\d+(?:\.\d+)*(?![\w]*%))?(?:[- ](?:\d+(?:\.\d+)?[BbMm](?:-A\d+B)?|"
    r"\d+x\d+B|small|base|medium|large|xl|xxl|tiny|mini|Math|Coder|VL|v\d(?:\.\d)?|"
    r"\d+(?:\.\d+)?|"
    r"[Bb]ase|Instruct|Chat|it|pt|hf|Preview|MoE|NeMo|Nemo|Small|Large|nano|edge|Lite))*(?![A-Za-z])"
)
_STARTS = re.compile(
    r"\b(?:fine-?tun\w*|(?<!pre-)(?<!pre)(?:post-?)?train\w*|initiali[sz]\w*|"
    r"start\w* (?:from|with)|base (?:models?|LLMs?)|backbones?|built? (?:on|"
    r"upon)|based on|on top of|apply \w+ to|adapt\w*|starting points?|pretrained "
    r"(?:models?|checkpoints?)|policy model)\b",
    re.IGNORECASE,
)
_FOREIGN = re.compile(
    r"\b(?:baselines?|compar\w+|judge|evaluator|annotat\w+|teacher|unlike|et "
    r"al\. (?:use|train)|outperform\w*|generated (?:by|with|using)|embedding)\b",
    re.IGNORECASE,
)
_HUB_DATASET = re.compile(r"huggingface\.co/datasets/([\w.-]+/[\w.-]+)")
_HUB_MODEL = re.compile(r"huggingface\.co/(?!datasets/|spaces/|papers/|docs/|blog/|collections/)([\w.-]+/[\w.-]+)")
_KNOWN = re.compile(
    r"\b(?:UltraChat(?:[- ]?200k)?|UltraFeedback(?:[- ]Binarized)?|Open-?Hermes(?:[- ]2\.5)?|"
    r"Alpaca(?:-?52k|-?GPT4)?(?= (?:data|train|instruction|set))|ShareGPT|Dolly(?:[- ]15k)?|"
    r"OASST\d?|OpenAssistant|LIMA|No ?Robots|Tulu ?3? SFT mix\w*|"
    r"Magpie(?:-[\w]+)*|SlimOrca|OpenOrca|Orca[- ]Math|MetaMathQA|NuminaMath(?:-(?:CoT|"
    r"TIR))?|OpenMathInstruct(?:-\d)?|OpenR1-Math(?:-220k)?|OpenThoughts\d?(?:-\w+)?|"
    r"Bespoke-Stratos(?:-17k)?|s1K(?:-1\.1)?|LIMO|"
    r"DAPO-Math-17k|DeepScaleR(?:-Preview)?|Skywork-OR1|BigMath|Big-Math|ORZ(?:-57k)?|"
    r"GSM8K|MATH(?: training set)?(?=[ ,.;)])|HelpSteer\d?|HH-RLHF|Anthropic "
    r"HH|TL;DR|SHP|Nectar|WildChat|LMSYS-Chat-1M|FLAN(?: v2| 2021)?|P3|Natural "
    r"Instructions|"
    r"CodeAlpaca(?:-20k)?|Evol-?Instruct|WizardLM[- ]?(?:Evol)?|Magicoder|CodeFeedback|"
    r"xLAM(?:-60k)?|ToolAlpaca|Hermes function calling|smoltalk2?|SmolTalk|Infinity-Instruct|"
    r"The Pile|C4|FineWeb(?:-Edu)?|RefinedWeb|Dolma|The Stack(?: v2)?|StarCoderData|"
    r"OpenWebText|WikiText(?:-103)?|Common ?Crawl|AIME(?= (?:problems|train))|"
    r"SciQ|MedQA|PubMedQA|MedMCQA|SQuAD|MNLI|SST-?2|CommonsenseQA|CNN/DailyMail|"
    r"XSum|Common ?Voice|LibriSpeech)\b"
)
_NAMED_SET = re.compile(
    r"(?:\bthe |\bour |\bon |\bcalled |\bnamed )([A-Z][\w.-]*(?:[- ][A-Z\d][\w.-]*){0,3})\s+(?:training "
    r"|instruction |preference |SFT |\w+ )?(?:data ?sets?|corpus|mixture|data\b)"
)
_COUNTED = (
    r"(?:examples|samples|pairs|instructions|conversations|dialogues|prompts|"
    r"problems|instances|rows|questions|demonstrations|comparisons|trajectories|"
    r"traces|preference pairs|instruction[- ]\w+ pairs|question[- ]answer pairs|"
    r"tokens|documents|sentences)"
)
_TRAINS_ON = re.compile(r"\b(?:train\w*|fine-?tun\w*|SFT|DPO|GRPO|RL|data ?sets?|corpus|data)\b", re.IGNORECASE)
_BENCHMARK = re.compile(
    r"\b(?:MMLU(?:-Pro|-Redux)?|GSM-?8K|GSM-?Hard|MATH-?500|MATH|AIME(?:['’ ]?(?:20)?2[3-6])?|"
    r"AMC(?:['’ ]?(?:20)?2[3-5])?|OlympiadBench|Minerva(?: Math)?|GPQA(?:[- ]Diamond)?|"
    r"HumanEval\+?|MBPP\+?|LiveCodeBench|IFEval|IFBench|BBH|BIG-Bench(?: Hard)?|"
    r"ARC-?(?:C(?:hallenge)?|E(?:asy)?)?|"
    r"HellaSwag|TruthfulQA|WinoGrande|MT-?Bench|AlpacaEval(?: ?2(?:\.0)?)?|Arena-?Hard|"
    r"SWE-?bench(?: Verified)?|BFCL|DROP|SQuAD|TriviaQA|BoolQ|PIQA|OpenBookQA|"
    r"GLUE|SuperGLUE|RewardBench|PopQA|SimpleQA|ZebraLogic|HealthBench|C-Eval|"
    r"CMMLU|AGIEval|MGSM|CommonsenseQA|SVAMP)(?![\w-])"
)
_METRIC = re.compile(
    r"\b(?:pass@\d+|maj@\d+|avg@\d+|cons@\d+|exact[- ]match|(?:length-controlled "
    r")?win[- ]rate|accuracy|F1(?:[- ]score)?|macro-F1|BLEU|ROUGE(?:-[L12])?|"
    r"perplexity|word error rate|WER|chrF|BERTScore)\b",
    re.IGNORECASE,
)
_LOSSES = {
    "cross-entropy": r"\bcross-?entropy(?: loss)?\b",
    "negative log-likelihood": r"\bnegative log-?likelihood\b|\bNLL\b",
    "next-token prediction": r"\bnext[- ]token prediction\b",
    "DPO loss": r"\bDPO (?:loss|objective)\b",
    "answer tokens only": (
        r"\bloss (?:is |was )?(?:only )?(?:computed|calculated|applied|taken|backpropagated) "
        r"(?:only )?(?:on|over) (?:the )?(?:\w+ )?(?:assistant|response|completion|"
        r"output|answer|target)\w*|\bmask(?:ed|ing)? (?:out )?(?:the )?(?:loss (?:on|"
        r"for|of) )?(?:the )?(?:prompt|instruction|user|question|input)s?(?: tokens)?"
    ),
    "KL penalty": r"\bKL (?:penalty|regulari[sz]ation)\b",
    "clipped surrogate": r"\bclipped (?:surrogate|objective)\b",
    "token-level policy gradient": r"\btoken-level (?:policy gradient )?loss\b",
}
_LOSS_OF = {
    "sft": {"cross-entropy", "negative log-likelihood", "next-token prediction", "answer tokens only"},
    "pretrain": {"cross-entropy", "next-token prediction", "negative log-likelihood"},
    "dpo": {"DPO loss", "negative log-likelihood"},
}


@dataclass(frozen=True, slots=True)
class Fact:
    """A name with the sentence it was found in."""

    name: str
    evidence: Evidence
    hub_id: str = ""


@dataclass(frozen=True, slots=True)
class Dataset:
    name: str
    hub_id: str
    """Where the paper links it on the Hub."""
    size: float | None
    size_unit: str
    stage: str
    """Method whose sentence names it; empty where none is named."""
    evidence: Evidence


def _told(paper: Paper, attribution: Attribution | None = None) -> Iterator[tuple[Section, str]]:
    if paper.abstract:
        abstract = Section("Abstract", 1)
        for sentence in sentences(paper.abstract):
            yield abstract, sentence
    for section in paper.sections:
        if attribution is not None and attribution.foreign_section(section):
            continue
        for paragraph in (*section.paragraphs, *section.notes):
            for sentence in sentences(paragraph):
                yield section, sentence


def base_models_of(paper: Paper, attribution: Attribution) -> tuple[Fact, ...]:
    """Models that the authors say they start from."""
    found: dict[str, Fact] = {}
    links = {link.text.casefold(): match[1] for link in paper.links if (match := _HUB_MODEL.search(link.url))}
    for section, sentence in _told(paper, attribution):
        if not _STARTS.search(sentence) or _FOREIGN.search(sentence):
            continue
        for match in _MODEL.finditer(sentence):
            name = match[0].strip()
            # A family without a size or version says too little: `Llama` of `Llama-style`.
            if not re.search(r"\d|BERT|BART|base|large|small", name) or attribution.own(name):
                continue
            if not attribution.settled(sentence, match.start(), match.end()):
                continue
            if re.search(
                r"\b(?:traces|data|responses|outputs|samples|answers|distill\w*|generated|"
                r"annotat\w+)\b[^.;]{0,40}\b(?:from|by|with|using|of)\s(?:the )?\Z",
                sentence[: match.start()],
            ):
                continue
            key = re.sub(r"[^a-z0-9.]", "", name.casefold())
            evidence = Evidence(sentence, section.where, paper.source)
            found.setdefault(key, Fact(name, evidence, links.get(name.casefold(), name if "/" in name else "")))
    return tuple(found.values())


def datasets_of(paper: Paper) -> tuple[Dataset, ...]:
    """Data that the paper names in sentences about training or data, with sizes said right beside the name."""
    links = [(link.text, match[1]) for link in paper.links if (match := _HUB_DATASET.search(link.url))]
    found: dict[str, Dataset] = {}
    for section, sentence in _told(paper):
        if not _TRAINS_ON.search(sentence):
            continue
        names = {match.start(): match[0] for match in _KNOWN.finditer(sentence)}
        names |= {match.start(1): match[1] for match in _NAMED_SET.finditer(sentence) if match.start(1) not in names}
        for at, name in sorted(names.items()):
            if re.fullmatch(_FAMILY + r".*", name):
                continue
            size, unit = _size_near(sentence, at, at + len(name), names)
            stages = {each.method for each in mentions(sentence)}
            stage = next(iter(stages)) if len(stages) == 1 else ""
            evidence = Evidence(sentence, section.where, paper.source)
            key = re.sub(r"[^a-z0-9]", "", name.casefold())
            known = found.get(key)
            if known is None or (known.size is None and size is not None):
                found[key] = Dataset(
                    name, _hub_id(name, links), size, unit, known.stage if known and known.stage else stage, evidence
                )
    linked = {each.hub_id for each in found.values()}
    for text, hub_id in links:
        if hub_id not in linked:
            linked.add(hub_id)
            evidence = Evidence(text, "", paper.source)
            found[f"link {hub_id}"] = Dataset(hub_id.split("/")[1], hub_id, None, "", "", evidence)
    return tuple(found.values())


def _hub_id(name: str, links: list[tuple[str, str]]) -> str:
    bare = re.sub(r"[^a-z0-9]", "", name.casefold())
    return next(
        (hub_id for text, hub_id in links if bare and bare in re.sub(r"[^a-z0-9]", "", (text + hub_id).casefold())), ""
    )


def _size_near(sentence: str, start: int, end: int, names: dict[int, str]) -> tuple[float | None, str]:
    """A count of examples said right before or after a name, no other name being nearer."""
    after = re.compile(
        r"[^.;]{0,40}?\(?(?:contain\w*|consist\w* of|with|of|compris\w*|includ\w*|"
        r"\(|which has|has)\s*(?:about |around |approximately |roughly |~ ?|over "
        r")?(?=\d)"
    ).match(sentence, end)
    nexts = [at for at in names if at > end]
    if after and (not nexts or after.end() < min(nexts)) and (found := _counted(sentence, after.end())):
        return found
    before = sentence[:start]
    for match in re.finditer(r"(?<![\w.])\d[\d,.]*\s?[kKM]?", before):
        found = _counted(sentence, match.start())
        tail = before[match.end() :]
        if found and re.fullmatch(rf"\s?[kKM]?\s*(?:\w+[- ]){{0,3}}?{_COUNTED}\s+(?:from|of|in)\s+(?:the )?", tail):
            return found
    return None, ""


def _counted(sentence: str, at: int) -> tuple[float, str] | None:
    number = number_at(sentence, at)
    if number is None or number.word:
        return None
    unit = re.compile(rf"\s*(?:\w+[- ]){{0,3}}?({_COUNTED})").match(sentence, number.end)
    return (number.tidy, unit[1]) if unit else None


def losses_of(paper: Paper, method: str) -> tuple[Fact, ...]:
    """What the loss is said to be in sentences about this stage."""
    wanted = _LOSS_OF.get(method, {"KL penalty", "clipped surrogate", "token-level policy gradient"})
    found: dict[str, Fact] = {}
    for section, sentence in _told(paper):
        named = {each.method for each in mentions(sentence)} or {each.method for each in mentions(section.title)}
        if named and method not in named:
            continue
        for name in wanted - set(found):
            if re.search(_LOSSES[name], sentence, re.IGNORECASE) and not re.search(r"\b(?:not|no|without)\b", sentence):
                found[name] = Fact(name, Evidence(sentence, section.where, paper.source))
    return tuple(found[name] for name in sorted(found))


def benchmarks_of(paper: Paper) -> tuple[Fact, ...]:
    """Benchmarks in sentences about evaluation."""
    return _listed(
        paper,
        _BENCHMARK,
        r"\b(?:evaluat\w*|benchmarks?|report\w*|results?|scores?|accuracy|pass@\d+|performance|test set|held-?out)\b",
    )


def metrics_of(paper: Paper) -> tuple[Fact, ...]:
    return _listed(paper, _METRIC, r"\b(?:evaluat\w*|report\w*|measur\w*|metrics?|scores?|results?|comput\w*)\b")


def _listed(paper: Paper, pattern: re.Pattern[str], about: str) -> tuple[Fact, ...]:
    found: dict[str, Fact] = {}
    for section, sentence in _told(paper):
        if re.search(about, sentence, re.IGNORECASE):
            for match in pattern.finditer(sentence):
                found.setdefault(match[0].casefold(), Fact(match[0], Evidence(sentence, section.where, paper.source)))
    return tuple(found.values())
