"""Hyperparameters from tables: taken where the name, and all that stands over and beside the value, is understood."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from bot.research.papers.attribution import Attribution, evaluates, makes_data
from bot.research.papers.findings import Evidence, Finding, LeftOut
from bot.research.papers.model import Table
from bot.research.papers.naming import SIZE, VARIANT
from bot.research.papers.prose import DECODING, Place
from bot.research.papers.stages import mentions, methods_in, without_stages
from bot.research.papers.table_names import Key, key_of
from bot.research.papers.table_shape import Entry, Shape, shape_of
from bot.research.papers.table_values import values_in
from bot.research.papers.vocabulary import BY_KEY

_SEARCHED = re.compile(
    r"\b(?:search(?:ed)?|sweeps?|swept|grid|ranges?|candidates?|tried|explored|space|tested|considered|options)\b",
    re.IGNORECASE,
)
_CHOSEN = re.compile(r"\b(?:final|best|chosen|selected|optimal|used|adopted|picked)\b", re.IGNORECASE)
_FOREIGN = re.compile(
    r"\b(?:baselines?|controls?|original|prior|previous|et al|reported|others?|ablat\w+|sensitivity|effects? of|"
    r"impact of|"
    r"influence of|varying|different (?:learning|batch|values|beta|rank)\w*|comparison (?:of|with|to)|versus|vs|"
    r"compared|proxy|pilot|teacher|judge|critic|probe|reference|default|tried|rejected|discarded|abandoned|"
    r"attempts?|preliminary|earlier|old)\b|\(\d{4}\)|\b(?:19|20)\d\d\)|\[\d+\]",
    re.IGNORECASE,
)
_FOREIGN_CAPTION = re.compile(
    r"\b(?:baselines?|ablat\w+|sensitivity|effects? of|impact of|influence of|varying|results?|accuracy|"
    r"comparison (?:of|with|to)|compared (?:to|with)|proxy|pilot|used (?:by|in) (?:prior|previous|other|earlier|"
    r"the original)|"
    r"of (?:prior|previous|other|earlier) (?:works?|papers|models)|probe|probing|preliminary|rejected|failed|"
    r"for (?:evaluation|inference|decoding|the (?:teacher|judge|critic|proxy|baselines?)))\b|"
    r"\b(?:run|config\w*|variant|version|model|system|experiment|round|iteration)\s(?:[A-Z]\d?|\d+|I{1,3})\b|"
    r"\bet al\b|(?:^|[.:] )(?:Evaluation|Decoding|Inference|Generation) (?:settings|hyper|param)",
    re.IGNORECASE,
)
# A line or a column of these is about something else than the training of the model.
_ASIDE = re.compile(
    r"\b(?:evaluat\w+|inference|decoding|testing|test time|critic|value (?:model|function|network)|teacher|judge|"
    r"architecture|model (?:size|shape|dimensions)|tokeni[sz]er|data (?:generation|synthesis)|not used|baselines?|"
    r"proxy|notes?|comments?|remarks?|source|where|section|reference|description|meaning|tuned on|unit)\b",
    re.IGNORECASE,
)
_PLAIN = re.compile(
    r"(?:hyper-?\s?parameters?|param(?:eter)?s?|values?|settings?|config(?:uration)?s?|options?|arguments?|names?|keys?|"
    r"acts?|students?|distilled|items?|ours?|our|this (?:work|paper)|used|final|chosen|selected|best|adopted|"
    r"training|train|details?|the|of|for|in|"
    r"and|with|run|runs|models?|stages?|phases?|steps?|parameters|all|both|main|full|large|small|larger|smaller|"
    r"optimi[sz](?:ation|er|ing)|schedule|learning|sampling|rollouts?|lora|adapters?|data|batch(?:ing)?|general|common|"
    r"shared|hardware|regulari[sz]ation|loss|objective|lengths?|sequence|algorithm|generation|policy|actor|post|[\W\d_]+)",
    re.IGNORECASE,
)
_TRAINED_PART = re.compile(
    r"connectors?|projectors?|adapters?|backbones?|llm|encoders?|decoders?|weights|frozen|only", re.IGNORECASE
)
METRIC = re.compile(
    r"\b(?:acc(?:uracy)?\.?|avg\.?|average|score|pass@\d+|maj@\d+|win[- ]?rate|"
    r"F1|BLEU|ROUGE\S*|EM|perplexity|PPL|WER|LC|Elo|reward|tokens?/s|loss|"
    r"MMLU\S*|GSM-?8K|MATH\S*|AIME\S*|GPQA\S*|HumanEval\S*|MBPP\S*|IFEval\S*|"
    r"BBH|ARC\S*|HellaSwag|TruthfulQA|WinoGrande|MT-?Bench|AlpacaEval\S*|Arena-?Hard\S*|"
    r"LiveCodeBench\S*|Olympiad\S*|AMC\S*|Minerva\S*|SWE-?Bench\S*|BFCL\S*|DROP|"
    r"SQuAD\S*|TriviaQA|NQ|BoolQ|PIQA|OpenBookQA|GLUE|SST-?2|MNLI|CoLA|RewardBench\S*|"
    r"ZebraLogic|SimpleQA|PopQA|HealthBench\S*|C-Eval|CMMLU|AGIEval|XSum|CNN\S*|"
    r"WMT\S*|LAMBADA|CommonsenseQA|StrategyQA|SVAMP|MAWPS|ASDiv|MGSM|Codeforces)(?!\w)",
    re.IGNORECASE,
)


_BARE_BATCH = re.compile(r"(?:train(?:ing)? )?(?:batch(?:[- ]?size)?|bsz?)", re.IGNORECASE)
_VALUE = re.compile(r"(?:our )?(?:values?|settings?)", re.IGNORECASE)
_FOR_MODEL = re.compile(rf"\b(?:for|of) (?:the |our )?({VARIANT.pattern})")


_TRAINED_ONE = re.compile(r"\b(?:policy|training|rollouts?|RL|GRPO|PPO|ours)\b", re.IGNORECASE)
_MARKED = re.compile(r"[†‡*§¶]")
_NOTE_PER_DEVICE = re.compile(r"[†‡*§¶]\s*:?\s*[Pp]er (?:device|GPU)\b")


@dataclass(frozen=True, slots=True)
class Standing:
    """What words over a column, beside a row or above a group of rows say of its values."""

    stage: str | None = None
    model: str = ""
    reason: str = ""
    """Why no value is taken from there; empty where they are."""
    understood: bool = True


def findings_of_table(
    table: Table, place: Place, attribution: Attribution, context: str | None
) -> Iterator[Finding | LeftOut]:
    """Values of a table of hyperparameters; none for tables of anything else, or of a shape that leaves doubt."""
    shape = shape_of(table)
    if shape is None:
        return
    if table.caption and (reason := _against_caption(table, shape)):
        yield from _left_out(shape.entries, table, place, reason)
        return
    standings = _standings(shape, attribution)
    if shape.across and any(METRIC.search(head) for head in shape.others):
        return
    if not shape.across and _by_data(shape, table, place, attribution):
        standings = {heads: Standing(model=" ".join(heads)) for heads in standings}
    if any(not each.understood for each in standings.values()):
        unknown = ", ".join(" ".join(heads) for heads, each in standings.items() if not each.understood)
        yield from _left_out(
            shape.entries, table, place, f"what `{unknown}` means over or beside the values is not known"
        )
        return
    about = _of_caption(table.caption)
    accumulated = any(
        (key := key_of(entry.name)) and key.key == "gradient_accumulation_steps" for entry in shape.entries
    )
    groups = _groups(shape, attribution)
    for entry in shape.entries:
        key = key_of(entry.name)
        if key is not None and accumulated and _BARE_BATCH.fullmatch(entry.name.strip()):
            yield LeftOut(key.key, entry.text, "per device or in all is not said", _evidence(entry, table, place))
        elif key is not None:
            yield from _of_entry(entry, key, (standings[entry.over], groups[entry.group], about), context, table, place)


_BY_DATA = re.compile(
    r"\b(?:between|by|per|each|every|all|both|across|two|three|four|five|six|our|for) (?:of )?(?:the |our )?(?:\w+ )?"
    r"(?:tasks?|sets?|data ?sets?|languages?|domains?|corpora|benchmarks?)\b",
    re.IGNORECASE,
)
_PROPER = re.compile(r"[A-Z][a-z]+(?:[ -][A-Z\d]\w*)?")


def _by_data(shape: Shape, table: Table, place: Place, attribution: Attribution) -> bool:
    """Whether the columns are the paper's tasks or sets: the caption says what they are, and its text knows each."""
    heads = [" ".join(each) for each in shape.heads]
    told = _BY_DATA.search(table.caption) is not None
    named = all(_PROPER.fullmatch(each) and attribution.says(each.split()[0]) for each in heads)
    plain = any(_PLAIN.fullmatch(each) or _TRAINED_PART.fullmatch(each) or methods_in(each) for each in heads)
    foreign = any(_FOREIGN.search(each) or _ASIDE.search(each) or METRIC.search(each) for each in heads)
    return told and named and not plain and not foreign and len(set(heads)) == len(heads) > 1


def _left_out(entries: Sequence[Entry], table: Table, place: Place, reason: str) -> Iterator[LeftOut]:
    for entry in entries:
        key = key_of(entry.name)
        if key is not None and entry.text.strip():
            yield LeftOut(key.key, entry.text, reason, _evidence(entry, table, place))


def _evidence(entry: Entry, table: Table, place: Place) -> Evidence:
    under = ", ".join(each for each in (*entry.over, entry.group) if each)
    said = f"{table.label or 'Table'}: {entry.name} = {entry.text}" + (f", {under}" if under else "")
    return Evidence(said + (f" ({table.caption})" if table.caption else ""), place.section.where, place.url)


def _against_caption(table: Table, shape: Shape) -> str:
    heads = " ".join(head for heads in shape.heads for head in heads)
    caption = re.sub(r"\bunless [^.]*", "", table.caption)
    if _SEARCHED.search(caption) and not _CHOSEN.search(f"{caption} {heads}"):
        return "a table of what was searched"
    return "a table about others, or about what was varied" if _FOREIGN_CAPTION.search(caption) else ""


def _of_caption(caption: str) -> Standing:
    """The stage and the model that a caption names; `?` where it names several stages."""
    named = {each.method for each in mentions(caption) if not each.past and not each.method.startswith("#")}
    firm = {each.method for each in mentions(caption) if not each.weak and not each.method.startswith("#")}
    told = firm or named
    models = {found[1] for found in _FOR_MODEL.finditer(caption)}
    stage = next(iter(told)) if len(told) == 1 else "?" if told else None
    return Standing(stage, next(iter(models)) if len(models) == 1 else "")


def _standings(shape: Shape, attribution: Attribution) -> Mapping[tuple[str, ...], Standing]:
    """What each head says. Beside one that is ours, what names anything else is others'; a search's choice is taken."""
    standings = {heads: standing_of(" ".join(heads), attribution) for heads in {each.over for each in shape.entries}}
    labels = {heads: " ".join(heads) for heads in standings}
    ours = {heads for heads, label in labels.items() if attribution.ours(label)}
    searched = {heads for heads, label in labels.items() if _SEARCHED.search(label)}
    for heads, each in standings.items():
        if ours and heads not in ours and (each.model or not each.understood):
            standings[heads] = Standing(each.stage, "", "a column about others")
        elif heads in searched:
            standings[heads] = Standing(each.stage, "", "what was searched, not what was chosen")
        elif (
            searched and not _CHOSEN.search(labels[heads]) and heads not in ours and not _VALUE.fullmatch(labels[heads])
        ):
            standings[heads] = Standing(understood=False)
    if shape.blocks == 1 and not _told_apart(shape, standings):
        return {heads: Standing(understood=False) for heads in standings}
    return standings


def _told_apart(shape: Shape, standings: Mapping[tuple[str, ...], Standing]) -> bool:
    """Whether no two columns say the same: those differ by something that is not seen."""
    taken = [each for each in standings.values() if each.understood and not each.reason]
    distinct = len({(each.stage, each.model) for each in taken}) == len(taken)
    return distinct and len({entry.column for entry in shape.entries}) == len(standings)


def standing_of(label: str, attribution: Attribution) -> Standing:
    """What a head says: stage, model, or that its values are others'; not understood where any word is left over."""
    methods = methods_in(label)
    stage = next(iter(methods)) if len(methods) == 1 else None
    if _FOREIGN.search(re.sub(r"\bdefault\b", "", label)) or attribution.of_release(label):
        return Standing(stage, "", "a column about others")
    if _SEARCHED.search(label) and not _CHOSEN.search(label):
        return Standing(stage, "", "what was searched, not what was chosen")
    if _ASIDE.search(label):
        return Standing(stage, "", "for something else than the training of the model")
    if len(methods) > 1:
        return Standing(understood=False)
    if (sized := attribution.sized(label)) is not None:
        return Standing(None, sized)
    rest = without_stages(label)
    models = list(VARIANT.finditer(rest)) or list(SIZE.finditer(rest))
    own = attribution.own_name_in(rest)
    if len(models) > 1:
        return Standing(understood=False)
    name = models[0][0] if models else own or ""
    if name:
        rest = rest.replace(name, " ").replace(own or name, " ")
    words = (word for word in re.split(r"[\s/()\[\],:;–-]+", rest) if word and not _PLAIN.fullmatch(word))
    # Beside a stage, what is trained in it is no more than a remark.
    left = " ".join(word for word in words if not (stage and _TRAINED_PART.fullmatch(word)))
    # The model's own name alone says nothing that the paper does not.
    return Standing(stage, name if models else "", understood=not left)


def _groups(shape: Shape, attribution: Attribution) -> dict[str, Standing]:
    """What each group's line says. One that is not understood matters where a name stands in several groups."""
    standings = {entry.group: standing_of(entry.group, attribution) for entry in shape.entries}
    seen: dict[tuple[str, int], set[str]] = {}
    for entry in shape.entries:
        if (key := key_of(entry.name)) is not None:
            seen.setdefault((key.key, entry.column), set()).add(entry.group)
    repeated = any(len(groups) > 1 for groups in seen.values())
    for group, each in standings.items():
        if each.understood:
            continue
        reason = f"what `{group}` means above the values is not known" if repeated or VARIANT.search(group) else ""
        standings[group] = Standing(each.stage, "", reason)
    return standings


def _of_entry(
    entry: Entry,
    key: Key,
    said: tuple[Standing, Standing, Standing],
    context: str | None,
    table: Table,
    place: Place,
) -> Iterator[Finding | LeftOut]:
    evidence = _evidence(entry, table, place)
    over, group, about = said
    reason = over.reason or group.reason or (key.part and f"for the {key.part.lower()}")
    named = [each for each in (key.stage, over.stage, group.stage) if each]
    models = list(dict.fromkeys(each for each in (key.model, over.model, group.model) if each))
    if len(set(named)) > 1:
        reason = reason or "two stages are named over and beside it"
    if len(models) > 1:
        reason = reason or "two models are named over and beside it"
    stage = named[0] if named else about.stage or context
    model = models[0] if models else about.model
    if not entry.text.strip():
        return
    if not reason and key.key in DECODING and table.caption and (evaluates(table.caption) or makes_data(table.caption)):
        reason = (
            "" if over.understood and _TRAINED_ONE.search(" ".join(entry.over)) else "for evaluation or for making data"
        )
    if not reason and _MARKED.search(entry.name + " " + entry.text):
        if key.key != "global_batch_size" or not _NOTE_PER_DEVICE.search(table.caption):
            reason = "a note says something of it"
        else:
            key = Key(
                "per_device_train_batch_size", BY_KEY["per_device_train_batch_size"], key.stage, key.model, key.part
            )
    if reason:
        yield LeftOut(key.key, entry.text, reason, evidence)
        return
    meant = _of_lora(key, entry.name, table, place)
    if meant is None:
        return
    for each in values_in(meant, entry.name, entry.text):
        if isinstance(each, str):
            yield LeftOut(meant.key, entry.text, each, evidence)
        else:
            yield Finding(each.key, each.value, evidence, stage, False, model, each.unit)


def _of_lora(key: Key, name: str, table: Table, place: Place) -> Key | None:
    """`Dropout`, `Rank` and `Alpha` are LoRA's where the table or the paper is about LoRA."""
    if key.term is None or not key.key.startswith("lora_") or "lora" in name.lower():
        return key
    told = f"{table.caption} {' '.join(cell for row in table.rows for cell in row)}".lower()
    if "lora" in told or (place.lora and "rank" in told):
        return key
    return Key("dropout", BY_KEY["dropout"], key.stage, key.model, key.part) if key.key == "lora_dropout" else None
