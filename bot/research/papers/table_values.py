"""The value in a table's cell, once it is known which hyperparameter it is said for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from bot.research.papers import wording
from bot.research.papers.findings import Value
from bot.research.papers.numbers import Number, numbers_in, only_number
from bot.research.papers.table_names import Key
from bot.research.papers.terms import Term
from bot.research.papers.vocabulary import BY_KEY

_ABSENT = re.compile(r"\s*(?:-+|–|—|n/?a|none|✗|×|/|no|not used|not applicable)?\s*", re.IGNORECASE)
_LENGTHS = frozenset({"max_length", "max_prompt_length", "max_completion_length"})


@dataclass(frozen=True, slots=True)
class Read:
    """One value of a cell."""

    key: str
    """May be more precise than the name: a warm-up of 100 is `warmup_steps`."""
    value: Value
    unit: str = ""


def values_in(key: Key, name: str, text: str) -> Iterator[Read | str]:
    """What a cell says: values, or why it gives none; nothing where it is empty."""
    if _ABSENT.fullmatch(text):
        return
    if key.term is not None:
        yield from _number(key.term, name, text)
        return
    found = list(_words(key.key, text))
    yield from (Read(named, value) for named, value in found)
    if not found:
        yield "not a value that is understood"


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


def _number(term: Term, name: str, text: str) -> Iterator[Read | str]:
    number = only_number(_without_unit(text, term))
    if number is None:
        if numbers_in(text):
            yield "several values, or words that are not understood, in one cell"
        return
    key, value = _by_name(term, name, text, number)
    if not key:
        yield "steps or a share is not said"
        return
    bounds = BY_KEY.get(key, term)
    whole = float(value).is_integer()
    if not bounds.low <= value <= bounds.high or (bounds.whole and not whole) or (number.flat and not term.tiny):
        yield f"not a value that {key} can have"
    elif number.suffix == "k" and key in _LENGTHS:
        yield "written with k: 1000 or 1024 is not said"
    else:
        unit = "tokens" if key == "batch_size_tokens" else bounds.unit
        yield Read(key, int(value) if whole and value >= 1 else value, unit)


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
    if term.key == "max_grad_norm":
        bare = re.sub(r"\A\s*[≤<]\s*", "", bare)
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
