"""What differs between a model's folder and its base's beside the weights, and what that can do to a score.

Not covered: whether a tokenizer with the same tables is the same program, and what a changed template says.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bot.domain.lineage import Change

_LARGEST = 256 << 20
"""Bytes of a text file that is read; the largest tokenizers have 35 MB."""
_SHOWN = 80
# What every save writes anew, or what says how a model is loaded and not what it is.
_NO_MATTER = frozenset({
    "transformers_version", "_name_or_path", "_from_model_config", "torch_dtype", "dtype", "use_cache",
    "_attn_implementation_autoset", "tokenizers_version", "name_or_path", "special_tokens_map_file", "is_local",
    "local_files_only", "extra_special_tokens", "backend",
})  # fmt: skip
_GENERATION = {
    "eos_token_id": "where an answer ends",
    "stop_strings": "where an answer ends",
    "max_new_tokens": "how long an answer may be",
    "max_length": "how long an answer may be",
    "min_new_tokens": "how long an answer must be",
    "do_sample": "whether answers are drawn by chance",
    "temperature": "how answers are drawn",
    "top_p": "how answers are drawn",
    "top_k": "how answers are drawn",
    "num_beams": "how answers are searched for",
    "repetition_penalty": "which tokens an answer may hold",
    "no_repeat_ngram_size": "which tokens an answer may hold",
    "suppress_tokens": "which tokens an answer may hold",
    "begin_suppress_tokens": "which tokens an answer may begin with",
    "bad_words_ids": "which tokens an answer may hold",
    "sequence_bias": "which tokens an answer holds",
    "forced_bos_token_id": "how every answer begins",
    "forced_eos_token_id": "how every answer ends",
    "forced_decoder_ids": "how every answer begins",
    "guidance_scale": "how answers are drawn",
}
_CONFIGURATION = {"architectures": "some evaluators choose the chat template by it"}
_TOKENIZER_PARTS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
_TABLES = ("vocab.json", "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model")
TEMPLATE = "chat_template"


def changes(base: Path, model: Path) -> list[Change]:
    """Every difference, the weightiest first."""
    return [
        *_template_change(base, model),
        *_compared(base, model, "generation_config.json", _GENERATION),
        *_compared(base, model, "config.json", _CONFIGURATION),
        *_tokenizer_changes(base, model),
        *_compared(base, model, "tokenizer_config.json", {}, leave=(TEMPLATE, "added_tokens_decoder")),
        *_compared(base, model, "preprocessor_config.json", {}),
    ]


def code_of_its_own(model: Path) -> str | None:
    """What would have to be run to load the model; None when nothing would."""
    for name in ("config.json", "tokenizer_config.json", "preprocessor_config.json", "processor_config.json"):
        automatic = object_in(model / name).get("auto_map")
        if automatic:
            return f"auto_map of {name}"
    return None


def chat_template(folder: Path) -> str | None:
    """The template as it is applied by default; None where there is none."""
    file = folder / "chat_template.jinja"
    if file.is_file() and file.stat().st_size <= _LARGEST:
        return file.read_text(encoding="utf-8", errors="replace")
    found = object_in(folder / "tokenizer_config.json").get(TEMPLATE)
    found = found or object_in(folder / "chat_template.json").get(TEMPLATE)
    if isinstance(found, list):  # several, by name
        named = {str(each.get("name")): each.get("template") for each in found if isinstance(each, dict)}
        found = named.get("default") or next(iter(named.values()), None)
    return str(found) if found else None


def same_template(left: str | None, right: str | None) -> bool:
    """But for white space at the ends, and for the marks that say which part is trained on."""
    return _plain_template(left) == _plain_template(right)


def _plain_template(template: str | None) -> str | None:
    if template is None:
        return None
    return re.sub(r"\{%-?\s*(?:end)?generation\s*-?%\}", "", template).strip()


def _template_change(base: Path, model: Path) -> Iterator[Change]:
    before, after = chat_template(base), chat_template(model)
    if not same_template(before, after):
        yield Change(TEMPLATE, _where(before, after), _digest(before), _digest(after), "what the model is asked")


def _where(before: str | None, after: str | None) -> str:
    """The first place where two templates differ."""
    left, right = before or "", after or ""
    place = next((n for n, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))
    return f"from character {place + 1}"


def _digest(text: str | None) -> str | None:
    return None if text is None else f"{len(text)} characters, sha256 {hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _compared(
    base: Path, model: Path, name: str, consequences: Mapping[str, str], leave: tuple[str, ...] = ()
) -> Iterator[Change]:
    before, after = flattened(object_in(base / name)), flattened(object_in(model / name))
    for key in sorted(before.keys() | after.keys()):
        if key.split(".")[-1] in _NO_MATTER or key.split(".")[0] in (*leave, *_NO_MATTER):
            continue
        # A default that one side writes out and the other leaves out is no change.
        if before.get(key) == after.get(key):
            continue
        yield Change(name, key, _shown(before, key), _shown(after, key), consequences.get(key, ""))


def flattened(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"rope": {"theta": 1}}` as `{"rope.theta": 1}`."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            found |= flattened(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _shown(values: Mapping[str, Any], key: str) -> str | None:
    if key not in values:
        return None
    text = json.dumps(values[key], ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _tokenizer_changes(base: Path, model: Path) -> Iterator[Change]:
    left, right = object_in(base / "tokenizer.json"), object_in(model / "tokenizer.json")
    if not left or not right:
        for name in _TABLES if bool(left) == bool(right) else ():
            if (before := _file_digest(base / name)) != (after := _file_digest(model / name)):
                yield Change(name, "content", before, after, "how text becomes tokens")
        if bool(left) != bool(right):
            yield Change("tokenizer.json", "file", "there" if left else None, "there" if right else None)
        return
    words, others = _vocabulary(left), _vocabulary(right)
    moved = [word for word, place in words.items() if others.get(word) != place]
    if moved:
        yield Change("tokenizer.json", "vocabulary", f"{len(words)} tokens", f"{len(moved)} of them gone or moved",
                     "what every number stands for")  # fmt: skip
    if new := [word for word in others if word not in words]:
        first = ", ".join(sorted(new)[:3])[:_SHOWN]
        yield Change("tokenizer.json", "added tokens", None, f"{len(new)}: {first}", "how text becomes tokens")
    if _merges(left) != _merges(right):
        yield Change("tokenizer.json", "merges", str(len(_merges(left))), str(len(_merges(right))),
                     "how text becomes tokens")  # fmt: skip
    for part in _TOKENIZER_PARTS:
        if left.get(part) != right.get(part):
            yield Change("tokenizer.json", part, _shown(left, part), _shown(right, part), "how text becomes tokens")


def _vocabulary(tokenizer: Mapping[str, Any]) -> dict[str, Any]:
    inner = tokenizer.get("model")
    words = inner.get("vocab") if isinstance(inner, dict) else None
    if isinstance(words, list):  # Unigram: [token, score] in order
        words = {str(pair[0]): place for place, pair in enumerate(words) if isinstance(pair, list) and pair}
    found = dict(words) if isinstance(words, dict) else {}
    for token in tokenizer.get("added_tokens") or ():
        if isinstance(token, dict):
            found[str(token.get("content"))] = token.get("id")
    return found


def _merges(tokenizer: Mapping[str, Any]) -> list[Any]:
    inner = tokenizer.get("model")
    merges = inner.get("merges") if isinstance(inner, dict) else None
    # `a b` in files of older versions, ["a", "b"] since.
    return [pair.split(" ") if isinstance(pair, str) else pair for pair in merges or ()]


def object_in(file: Path) -> dict[str, Any]:
    """A JSON object; empty when the file is none."""
    try:
        if not file.is_file() or file.stat().st_size > _LARGEST:
            return {}
        found = json.loads(file.read_text(encoding="utf-8", errors="replace"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _file_digest(file: Path) -> str | None:
    if not file.is_file() or file.stat().st_size > _LARGEST:
        return None
    return f"sha256 {hashlib.sha256(file.read_bytes()).hexdigest()[:12]}"
