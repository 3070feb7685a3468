"""Hyperparameters and results from tables: which cells are names, whose column a value stands in, and what to leave."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from bot.research.papers import wording
from bot.research.papers.attribution import Attribution
from bot.research.papers.findings import Evidence, Finding, LeftOut, Value
from bot.research.papers.model import Table
from bot.research.papers.numbers import Number, numbers_in, only_number
from bot.research.papers.prose import Place
from bot.research.papers.stages import methods_in
from bot.research.papers.table_names import term_of_name
from bot.research.papers.vocabulary import BY_KEY, Term

_ABSENT = re.compile(r"\A\s*(?:-+|–|—|n/?a|none|✗|×|/|not used|no)?\s*\Z", re.IGNORECASE)
_SEARCHED = re.compile(
    r"\b(?:search(?:ed)?|sweeps?|swept|grid|ranges?|candidates?|tried|explored|"
    r"search space|space|tested|considered|options)\b",
    re.IGNORECASE,
)
_CHOSEN = re.compile(r"\b(?:final|best|chosen|selected|optimal|used|ours|adopted)\b", re.IGNORECASE)
_FOREIGN = re.compile(
    r"\b(?:baselines?|original|prior|previous|default|et al|reported|others?|"
    r"ablat\w+|sensitivity|effects? of|impact of|varying|different (?:learning|"
    r"batch|values|hyper|beta|rank)\w*|comparison (?:of|with|to))\b|\(\d{4}\)|"
    r"\[\d+\]",
    re.IGNORECASE,
)
_PLAIN_LABEL = re.compile(
    r"\A(?:values?|settings?|hyper-?\s?parameters?|parameters?|config(?:uration)?s?|"
    r"ours|our (?:model|method|run|value)s?|used|final|best|chosen|selected|"
    r"selected value|final value|value used|default|training|details?|arguments?|"
    r"names?|options?|\W*)\Z",
    re.IGNORECASE,
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
_MODEL = re.compile(
    r"\d+(?:\.\d+)?\s?[BM]\b|\b(?:Llama|LLaMA|Mistral|Mixtral|Qwen|Gemma|Phi|"
    r"SmolLM|OLMo|Pythia|Falcon|Yi|DeepSeek|GPT|T5|BERT|RoBERTa)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Column:
    """What the heading of a value's column or row says."""

    stage: str | None
    variant: str
    left_out: str
    """Why no value is taken from it; empty where they are."""


def findings_of_table(
    table: Table, place: Place, attribution: Attribution, context: str | None
) -> Iterator[Finding | LeftOut]:
    """Values of a table of hyperparameters; none for tables of anything else."""
    header, body = head_and_body(table)
    if table.caption and _foreign_caption(table.caption, header):
        return
    names = name_columns(body)
    told = methods_in(table.caption)
    model = re.search(r"\b(?:for|of) (?:the |our )?([\w.-]*\d+(?:\.\d+)?[BM]\b[\w-]*)", table.caption)
    # What the caption names is nearer than the heading; several stages in it and none in the columns leave it open.
    context = next(iter(told)) if len(told) == 1 else "?" if len(told) > 1 else context
    if names:
        found = _names_in_rows(header, body, names, table, place, attribution, context)
    elif names_in_header(header):
        found = _names_in_columns(header, body, table, place, attribution, context)
    else:
        return
    for each in found:
        alone = isinstance(each, Finding) and model is not None and not each.variant
        yield replace(each, variant=model[1]) if alone and model is not None and isinstance(each, Finding) else each


def head_and_body(table: Table) -> tuple[tuple[tuple[str, ...], ...], tuple[tuple[str, ...], ...]]:
    """Header and body; where the form marks no header, a first row without values is one."""
    if table.header_rows:
        return tuple(_filled(row) for row in table.header[:-1]) + table.header[-1:], table.body
    rows = table.rows
    if not rows:
        return (), ()
    if sum(bool(cell.strip()) for cell in rows[0]) == 1 and len(rows[0]) > 1:
        return (), rows
    if sum(term_of_name(cell) is not None for cell in rows[0]) >= 2:
        return rows[:1], rows[1:]
    heads = 0
    while heads < min(3, len(rows) - 1) and not any(_is_name(cell) or only_number(cell) for cell in rows[heads]):
        heads += 1
    return tuple(_filled(row) for row in rows[: heads - 1]) + rows[max(heads - 1, 0) : heads], rows[heads:]


def _filled(row: tuple[str, ...]) -> tuple[str, ...]:
    """An upper row of a header whose words stand over several columns, without being marked so."""
    filled: list[str] = []
    for cell in row:
        filled.append(cell or (filled[-1] if filled else ""))
    return tuple(filled)


def _foreign_caption(caption: str, header: tuple[tuple[str, ...], ...]) -> bool:
    heads = " ".join(cell for row in header for cell in row)
    if _SEARCHED.search(caption) and not _CHOSEN.search(caption + " " + heads):
        return True
    return bool(_FOREIGN.search(re.sub(r"\b(?:default|different (?:hyper\w*))\b", "", caption, flags=re.IGNORECASE)))


def name_columns(body: tuple[tuple[str, ...], ...]) -> list[int]:
    """Columns of names of hyperparameters: one, or several side by side."""
    width = max((len(row) for row in body), default=0)
    counts = [sum(_is_name(row[column]) for row in body) for column in range(width)]
    least = 2 if len(body) > 2 else 1
    return [
        column
        for column, count in enumerate(counts)
        if count >= least and count >= len(body) / 5 and column < width - 1
    ]


def _is_name(cell: str) -> bool:
    return term_of_name(cell) is not None or _word_key(cell) is not None


_WORD_KEYS = (
    (
        "lr_scheduler_type",
        re.compile(
            r"(?:(?:lr|learning[- ]rate)[- _]?)?(?:schedul(?:e|er|ing)|decay)(?:[- ]type)?|"
            r"lr scheduler type",
            re.IGNORECASE,
        ),
    ),
    ("optim", re.compile(r"optimi[sz]er|optim", re.IGNORECASE)),
    (
        "precision",
        re.compile(r"(?:(?:numerical|training|mixed|compute) )?(?:precision|dtype|data type)", re.IGNORECASE),
    ),
    (
        "lora_target_modules",
        re.compile(
            r"(?:lora )?target(?:ed)? (?:modules|layers|matrices)|lora (?:modules|layers|"
            r"targets)",
            re.IGNORECASE,
        ),
    ),
    ("hardware", re.compile(r"hardware|gpus?|devices?|compute|accelerators?|gpu type|gpus? used", re.IGNORECASE)),
    (
        "betas",
        re.compile(
            r"(?:adam\w* |optimizer )?(?:\(?β_?1, ?β_?2\)?|\(?beta_?1, ?beta_?2\)?|betas?|"
            r"βs)|adam\w* ?\(?β1, ?β2\)?|adam\w* β|optimizer momentum",
            re.IGNORECASE,
        ),
    ),
    ("gpu_hours", re.compile(r"(?:total )?gpu[- ]hours", re.IGNORECASE)),
    ("packing", re.compile(r"(?:sequence |sample )?packing", re.IGNORECASE)),
    ("gradient_checkpointing", re.compile(r"(?:gradient|activation) checkpointing", re.IGNORECASE)),
)


def _word_key(cell: str) -> str | None:
    bare = cell.strip().rstrip(":").replace("_", " ").strip()
    return next((key for key, pattern in _WORD_KEYS if pattern.fullmatch(bare)), None) if len(bare) < 50 else None


def _names_in_rows(
    header: tuple[tuple[str, ...], ...],
    body: tuple[tuple[str, ...], ...],
    names: list[int],
    table: Table,
    place: Place,
    attribution: Attribution,
    context: str | None,
) -> Iterator[Finding | LeftOut]:
    width = max(len(row) for row in body)
    group: str | None = None
    columns = _columns(header, width, attribution)
    # With a column of chosen values, the others tell what was searched.
    chosen = {column for column in columns if _CHOSEN.search(label_of(header, column)) and column not in names}
    searched = any(_SEARCHED.search(label_of(header, column)) for column in range(width))
    for row in body:
        if (heading := _group_heading(row)) is not None:
            methods = methods_in(heading)
            if len(methods) == 1:
                group = next(iter(methods))
            elif heading and not _is_name(heading):
                group = None if not methods else "?"
            continue
        for place_of_name, column in enumerate(names):
            end = names[place_of_name + 1] if place_of_name + 1 < len(names) else width
            beside = " ".join(row[:column]) if place_of_name == 0 else ""
            named = methods_in(beside)
            here = next(iter(named)) if len(named) == 1 else group
            for at in range(column + 1, end):
                if searched and chosen and at not in chosen:
                    continue
                if searched and _SEARCHED.search(label_of(header, at)):
                    continue
                yield from _cell(row[column], row[at], columns[at], here or context, label_of(header, at), table, place)


def _group_heading(row: tuple[str, ...]) -> str | None:
    """The text of a row that only heads those below it."""
    texts = [cell for cell in row if cell.strip()]
    if texts and len(set(texts)) == 1 and (len(texts) == len(row) > 1 or len(texts) == 1) and not only_number(texts[0]):
        return texts[0]
    return None


def label_of(header: tuple[tuple[str, ...], ...], column: int) -> str:
    parts = [row[column] for row in header if column < len(row) and row[column].strip()]
    return " ".join(dict.fromkeys(parts))


def _columns(header: tuple[tuple[str, ...], ...], width: int, attribution: Attribution) -> dict[int, Column]:
    """What each column is about. Beside one that is called ours, those that name anything else are others'."""
    labels = {column: label_of(header, column) for column in range(width)}
    ours = {column for column, label in labels.items() if attribution.ours(label)}
    columns = {column: _meaning(label, attribution) for column, label in labels.items()}
    for column, meaning in columns.items():
        if ours and column not in ours and not _PLAIN_LABEL.match(labels[column]):
            columns[column] = Column(meaning.stage, meaning.variant, "a column about others")
    return columns


def _meaning(label: str, attribution: Attribution) -> Column:
    """Stage, model and standing that a heading tells."""
    methods = methods_in(label)
    stage = next(iter(methods)) if len(methods) == 1 else "?" if methods else None
    if _FOREIGN.search(re.sub(r"\bdefault\b", "", label, flags=re.IGNORECASE)):
        return Column(stage, "", "a column about others")
    if attribution.of_release(label) or re.search(r"\bteacher\b", label, re.IGNORECASE):
        return Column(stage, "", "a column about others")
    rest = label if _MODEL.search(label) else "" if methods or _PLAIN_LABEL.match(label) else label
    if rest and methods:
        model = re.search(
            r"[\w.-]*\d+(?:\.\d+)?\s?[BM]\b[\w-]*|(?:Llama|LLaMA|Mistral|Qwen|Gemma|Phi|SmolLM|OLMo)[\w.-]*", rest
        )
        rest = model[0] if model else rest
    return Column(stage, "" if attribution.own(rest) and not _MODEL.search(rest) else rest, "")


def _cell(
    name: str, text: str, column: Column, context: str | None, label: str, table: Table, place: Place
) -> Iterator[Finding | LeftOut]:
    if _ABSENT.match(text):
        return
    term, word = _of_lora(term_of_name(name), name, table, place), _word_key(name)
    if term is None and word is None:
        return
    title = table.label or "Table"
    under = f", {label}" if label else ""
    evidence = Evidence(
        f"{title}: {name} = {text}{under}" + (f" ({table.caption})" if table.caption else ""),
        place.section.where,
        place.url,
    )
    key = word or (term.key if term else "")
    if column.left_out:
        yield LeftOut(key, text, column.left_out, evidence)
        return
    stage = column.stage or context
    if word is not None:
        for found, value in _words(word, text):
            yield Finding(found, value, evidence, stage, False, column.variant)
        return
    assert term is not None
    yield from _number_cell(term, name, text, evidence, stage, column.variant)


def _of_lora(term: Term | None, name: str, table: Table, place: Place) -> Term | None:
    """`Dropout`, `Rank` and `Alpha` are LoRA's where the table or the paper is about LoRA."""
    if term is None or not term.key.startswith("lora_") or "lora" in name.lower():
        return term
    told = f"{table.caption} {' '.join(cell for row in table.rows for cell in row)}".lower()
    if "lora" in told or (place.lora and "rank" in told):
        return term
    return BY_KEY["dropout"] if term.key == "lora_dropout" else None


def _words(key: str, text: str) -> Iterator[tuple[str, Value]]:
    """Values of a row that are words."""
    if key == "betas":
        pair = [number.value for number in numbers_in(text)]
        if len(pair) == 2 and 0.5 <= pair[0] <= pair[1] < 1:
            yield "adam_beta1", pair[0]
            yield "adam_beta2", pair[1]
    elif key == "lr_scheduler_type":
        kinds = set(
            re.findall(
                r"\b(?:cosine|linear|constant|polynomial|inverse[- ]sq\w*|WSD)\b(?![- ]warm)", text, re.IGNORECASE
            )
        )
        names = {"wsd": "warmup_stable_decay"}
        if len(kinds) == 1:
            kind = next(iter(kinds)).lower()
            yield key, "inverse_sqrt" if kind.startswith("inverse") else names.get(kind, kind)
    elif key == "optim":
        found = {value for named, value, _ in wording.words_in(f"we use {text} optimizer") if named == "optim"}
        if len(found) == 1:
            yield key, next(iter(found))
            betas = re.search(r"β1\s*=\s*(0\.\d+).{0,12}?β2\s*=\s*(0\.\d+)", text)
            if betas:
                yield "adam_beta1", float(betas[1])
                yield "adam_beta2", float(betas[2])
    elif key == "precision":
        found = {value for named, value, _ in wording.words_in(f"training precision {text}") if named == "precision"}
        if len(found) == 1:
            yield key, next(iter(found))
    elif key == "lora_target_modules":
        yield from _modules(text)
    elif key == "hardware":
        for named, value, _ in wording.words_in(f"trained on {text}"):
            if named in {"gpu_count", "gpu_type"}:
                yield named, value
    elif key == "gpu_hours":
        number = only_number(text)
        if number is not None:
            yield key, number.tidy
    elif re.match(r"(?:✓|yes|true|on|enabled)\s*\Z", text.strip(), re.IGNORECASE):
        yield key, True


def _modules(text: str) -> Iterator[tuple[str, Value]]:
    names = re.findall(r"\b(?:q|k|v|o|gate|up|down)_?proj\b|\b[qkv]_lin\b|\blm_head\b|\bembed_tokens\b", text)
    if names:
        yield "lora_target_modules", ",".join(names)
        return
    for named, value, _ in wording.words_in(f"LoRA on {text}"):
        if named == "lora_target_modules":
            yield named, value


def _number_cell(
    term: Term, name: str, text: str, evidence: Evidence, stage: str | None, variant: str
) -> Iterator[Finding | LeftOut]:
    number = only_number(_without_unit(text, term))
    if number is None:
        if numbers_in(text):
            yield LeftOut(term.key, text, "several values in one cell", evidence)
        return
    key, value = _by_name(term, name, text, number)
    if not key:
        yield LeftOut(term.key, text, "steps or a share is not said", evidence)
        return
    bounds = BY_KEY.get(key, term)
    if (
        not bounds.low <= value <= bounds.high
        or (bounds.whole and not float(value).is_integer())
        or (number.flat and not term.tiny)
    ):
        yield LeftOut(key, text, f"not a value that {key} can have", evidence)
        return
    if number.suffix == "k" and key in {"max_length", "max_prompt_length", "max_completion_length"}:
        yield LeftOut(key, text, "written with k: 1000 or 1024 is not said", evidence)
        return
    unit = "tokens" if key == "batch_size_tokens" else bounds.unit
    whole = int(value) if float(value).is_integer() and value >= 1 else value
    yield Finding(key, whole, evidence, stage, False, variant, unit)


def _without_unit(text: str, term: Term) -> str:
    bare = re.sub(
        r"\((?:peak|max|global|total|effective|per[- ]device|per GPU|linear|tokens|steps|sequences|prompts)\)",
        "",
        text.strip(),
        flags=re.IGNORECASE,
    )
    if term.unit in {"steps", "tokens", "epochs", "sequences"} or "batch" in term.key:
        bare = re.sub(
            r"(?<=[\dkKM])\s*(?:steps?|iterations|tokens|epochs?|sequences|samples|examples|prompts)\s*\Z", "", bare
        )
    if term.key == "warmup_ratio":
        bare = re.sub(r"\s*(?:of (?:the |total |training )*steps|steps)\s*\Z", "", bare)
    return bare


def _by_name(term: Term, name: str, text: str, number: Number) -> tuple[str, float]:
    """The key and value, once the name's unit and the cell's have been heard."""
    key, value = term.key, float(number.value)
    lower = name.lower()
    if "(k" in lower or "thousand" in lower:
        value *= 1000
    if ("(%)" in name or "percent" in lower) and not number.percent:
        value = float(f"{value / 100:.12g}")
        number_percent = True
    else:
        number_percent = number.percent
    if key == "warmup_ratio" and not number_percent:
        if re.search(r"step", text + " " + lower) and number.whole:
            return "warmup_steps", value
        if value >= 1:
            # A bare `Warm-up 100` is steps, and `Warm-up 3` could be a percentage.
            return ("warmup_steps", value) if value >= 10 and "ratio" not in lower else ("", value)
    if key == "warmup_steps" and (number_percent or 0 < value < 1):
        return "warmup_ratio", value
    if key == "global_batch_size":
        if "token" in (text + lower) or number.suffix == "m":
            return "batch_size_tokens", value
        if re.search(r"per[- ](?:device|gpu)", (text + " " + lower).lower()):
            return "per_device_train_batch_size", value
    return key, value


def names_in_header(header: tuple[tuple[str, ...], ...]) -> bool:
    """A row for each model or stage, hyperparameters for columns; with metrics beside them it is an ablation."""
    if not header:
        return False
    width = max(len(row) for row in header)
    labels = [header[-1][column] if column < len(header[-1]) else "" for column in range(width)]
    return sum(_is_name(label) for label in labels) >= 2 and not any(
        METRIC.search(cell) for row in header for cell in row if not _is_name(cell)
    )


def _names_in_columns(
    header: tuple[tuple[str, ...], ...],
    body: tuple[tuple[str, ...], ...],
    table: Table,
    place: Place,
    attribution: Attribution,
    context: str | None,
) -> Iterator[Finding | LeftOut]:
    labels = header[-1]
    names = [column for column, label in enumerate(labels) if _is_name(label)]
    group: str | None = None
    for row in body:
        if (heading := _group_heading(row)) is not None and not _is_name(heading):
            methods = methods_in(heading)
            group = next(iter(methods)) if len(methods) == 1 else "?" if methods else None
            continue
        said = " ".join(
            dict.fromkeys(
                cell
                for column, cell in enumerate(row)
                if column not in names and cell.strip() and (_MODEL.search(cell) or not only_number(cell))
            )
        )
        who = _meaning(said, attribution)
        for column in names:
            if column < len(row):
                above = header[0][column] if len(header) > 1 and header[0][column] != labels[column] else ""
                over = methods_in(above)
                stage = next(iter(over)) if len(over) == 1 else None
                own = Column(who.stage or stage, who.variant, who.left_out)
                yield from _cell(labels[column], row[column], own, group or context, said, table, place)
