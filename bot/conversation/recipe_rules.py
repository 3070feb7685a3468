"""What a recipe that a person wrote may set, and within which limits; every refusal says what to write instead.

It guards the recipe of an issue, the `set` command, and a recipe.yaml pushed by hand. Not covered: whether a value is
a good idea, which is the preflight's and the diagnosis's business.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from bot.conversation.yaml_reader import Limits, read_mapping
from bot.domain.data_source import RepositorySource, is_pinned, parse_source
from bot.domain.inert import clipped, code
from bot.domain.methods import METHODS
from bot.domain.recipe import Scalar, earlier_run, line_of, normalised_value
from bot.errors import UserError

KEY = re.compile(r"[a-z][a-z0-9_]{0,63}")
_RECIPE_LIMITS = Limits(bytes=16_384, keys=200, depth=1)
_LONGEST_TEXT = 200
_LONGEST_SOURCES = 2_000
MOST_PROBLEMS = 20
"""A list longer than this helps nobody; the rest is counted."""


class Range(NamedTuple):
    low: float
    high: float
    whole: bool = False
    open_low: bool = False
    """True when `low` itself is not allowed."""
    also: tuple[float | None, ...] = ()
    """Values outside the range that mean something, -1 for "no limit" for example."""
    example: str = ""


# The limits refuse what cannot be meant, not what is unwise: 1,000 epochs or a rate of 1.0 do run.
NUMBERS: dict[str, Range] = {
    "learning_rate": Range(0, 1, open_low=True, example="0.0001"),
    "num_train_epochs": Range(0, 10_000, open_low=True, example="3"),
    "max_steps": Range(1, 10_000_000, whole=True, also=(-1,), example="300"),
    "per_device_train_batch_size": Range(1, 65_536, whole=True, example="8"),
    "per_device_eval_batch_size": Range(1, 65_536, whole=True, example="8"),
    "gradient_accumulation_steps": Range(1, 65_536, whole=True, example="4"),
    "max_length": Range(8, 4_194_304, whole=True, also=(None,), example="1024"),
    "max_completion_length": Range(1, 1_048_576, whole=True, also=(None,), example="512"),
    "max_prompt_length": Range(1, 4_194_304, whole=True, also=(None,), example="512"),
    "warmup_steps": Range(0, 10_000_000, example="10"),
    "warmup_ratio": Range(0, 1, example="0.05"),
    "weight_decay": Range(0, 10, example="0.01"),
    "max_grad_norm": Range(0, 1_000_000, example="1.0"),
    "adam_beta1": Range(0, 1, example="0.9"),
    "adam_beta2": Range(0, 1, example="0.999"),
    "adam_epsilon": Range(0, 1, example="1.0e-8"),
    "label_smoothing_factor": Range(0, 1, example="0.1"),
    "seed": Range(0, 2**32 - 1, whole=True, example="0"),
    "data_seed": Range(0, 2**32 - 1, whole=True, also=(None,), example="0"),
    "logging_steps": Range(0, 1_000_000, open_low=True, example="1"),
    "eval_steps": Range(0, 1_000_000, open_low=True, also=(None,), example="50"),
    "save_steps": Range(0, 1_000_000, open_low=True, example="500"),
    "save_total_limit": Range(1, 10_000, whole=True, also=(None,), example="1"),
    "dataloader_num_workers": Range(0, 64, whole=True, example="0"),
    "dataset_num_proc": Range(1, 64, whole=True, also=(None,), example="1"),
    "lora_r": Range(1, 65_536, whole=True, example="16"),
    "lora_alpha": Range(1, 1_000_000, example="32"),
    "lora_dropout": Range(0, 1, example="0.05"),
    "neftune_noise_alpha": Range(0, 1_000, also=(None,), example="5"),
    "beta": Range(0, 1_000, example="0.1"),
    "epsilon": Range(0, 100, example="0.2"),
    "temperature": Range(0, 10, example="1.0"),
    "top_p": Range(0, 1, open_low=True, example="1.0"),
    "num_generations": Range(1, 65_536, whole=True, example="8"),
    "rejected_samples": Range(1, 64, whole=True, example="4"),
    "probe_rows": Range(0, 1_024, whole=True, example="16"),
    "data_max_rows": Range(1, 1_000_000_000, whole=True, also=(None,), example="5000"),
    "data_validation_rows": Range(0, 10_000_000, whole=True, also=(None,), example="64"),
}
SWITCHES = frozenset(
    {"packing", "bf16", "fp16", "tf32", "use_peft", "gradient_checkpointing", "assistant_only_loss"}
    | {"completion_only_loss", "data_deduplicate", "group_by_length", "use_liger_kernel"}
    | {"load_in_4bit", "load_in_8bit", "from_scratch", "check_rewards", "train_added_tokens", "full_determinism"}
    | {"mask_truncated_completions", "precompute_ref_log_probs"}
)

_REFUSED: dict[str, str] = {
    "output_dir": "where a run writes is fixed: remove this line.",
    "logging_dir": "where a run writes is fixed: remove this line.",
    "cache_dir": "where a run reads and writes is fixed: remove this line.",
    "overwrite_output_dir": "where a run writes is fixed: remove this line.",
    "resume_from_checkpoint": "runs resume by themselves: remove this line.",
    "push_to_hub": "a model is published by `/postdoc publish` alone: remove this line.",
    "trust_remote_code": "code from a model's repository is never run: remove this line.",
    "config": "a recipe cannot read another configuration file: write the values themselves.",
    "deepspeed": "a recipe cannot read another configuration file: remove this line.",
    "fsdp_config": "a recipe cannot read another configuration file: remove this line.",
    "accelerator_config": "a recipe cannot read another configuration file: remove this line.",
    "chat_template_path": "a recipe cannot read another file: remove this line.",
    "model_name_or_path": "what a run starts from is the goal's base model: write it in the goal's field Base model.",
    "model_revision": "what a run starts from is the goal's base model: write `name@revision` in its field Base model.",
    "train_file": "where the built rows lie is fixed: name the source in `data_sources` or in the goal's field.",
    "validation_file": "where the built rows lie is fixed: set `data_validation_rows` instead.",
    "dataset_name": "data comes from the repository or the benchmark: name a file in the goal's field Training data.",
    "dataset_config": "data comes from the repository or the benchmark: name a file in the goal's field Training data.",
    "datasets": "data comes from the repository or the benchmark: name a file in the goal's field Training data.",
}
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_MODEL = re.compile(rf"{_NAME}/{_NAME}(@[A-Za-z0-9][A-Za-z0-9._/-]{{0,99}})?")
_SECRET_KEY = re.compile(r"(^|_)(token|secret|password|passwd|api_key|access_key|private_key|credentials?)$")
_HARMLESS_TOKENS = frozenset({"eos_token", "pad_token", "bos_token", "unk_token"})
_PATH_KEYS = frozenset({"data_sources"})
_LOOKS_LIKE_PLACE = re.compile(r"://|(^|[\s,])[~/\\]|\\\\|(^|[/\\])\.\.([/\\]|$)|^[A-Za-z]:\\")
_PATH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+=-]*(/[A-Za-z0-9_][A-Za-z0-9_.@+=-]*){0,15}/?")


def recipe_problems(text: str, *, standing: Mapping[str, Any] | None = None) -> list[str]:
    """Everything that is wrong with a recipe's text, each with its line and what to write instead.

    `standing` is the recipe that stood there before a person's push: a key that Postdoc itself wrote there
    (`init_from`, `train_file`) may stay as it is.
    """
    document = read_mapping(text, _RECIPE_LIMITS)
    if document.problems:
        return [f"Recipe, line {p.place[0]}: {p.text}" for p in document.problems[:MOST_PROBLEMS]]
    problems: list[str] = []
    for key, value in (document.values or {}).items():
        unchanged = standing is not None and key in standing and standing[key] == value
        problem = _key_line_problem(text, key) or (None if unchanged else setting_problem(str(key), value))
        if problem is not None:
            line = document.places.get((str(key),), (1, 1))[0]
            problems.append(f"Recipe, line {line}: {problem}")
    if not document.values:
        problems.append("The recipe sets nothing: write one `key: value` per line, `learning_rate: 0.001` for example.")
    return problems[:MOST_PROBLEMS]


def setting_problem(key: str, value: Any) -> str | None:
    """Why `key: value` cannot stand in a recipe, as one sentence; None when it can."""
    # A card's recipe that says `trust_remote_code: false` asks for what holds anyway.
    if key in {"trust_remote_code", "push_to_hub"} and value is False:
        return None
    problem = key_problem(key)
    if problem is not None:
        return problem
    if key in {"init_from", "teacher"}:
        return _model_problem(key, value)
    if key == "report_to":
        return None if value in (None, "none", "trackio") else "`report_to` may only be `none` or `trackio`."
    return _value_problem(key, value)


def _model_problem(key: str, value: Any) -> str | None:
    """What a run starts from is the goal's base model or an earlier run of the goal; a teacher may be another model."""
    if earlier_run(value) is not None or (key == "teacher" and value is None):
        return None
    if key == "teacher" and isinstance(value, str) and _MODEL.fullmatch(value) and ".." not in value:
        return None
    shown = code(_shown(value) if isinstance(value, (str, int, float)) or value is None else "…", 60)
    if key == "teacher":
        return (
            f"`teacher` cannot be {shown}: write an earlier run of this goal, `runs/02`, or a model, "
            "`owner/name@revision`."
        )
    return (
        f"`init_from` cannot be set to {shown}: write an earlier run of this goal, `runs/02`, or remove the line; the "
        "first run starts from the goal's base model, its field Base model."
    )


def key_problem(key: str) -> str | None:
    """Why a recipe cannot set `key` at all; None when it can."""
    if not KEY.fullmatch(key):
        return f"{code(key, 80)} is not a recipe key: write a lowercase name such as `learning_rate`."
    if key in _REFUSED:
        return f"`{key}` cannot be set: {_REFUSED[key]}"
    if key.startswith("hub_"):
        return f"`{key}` cannot be set: a model is published by `/postdoc publish` alone. Remove it."
    if _SECRET_KEY.search(key) and key not in _HARMLESS_TOKENS:
        return f"`{key}` looks like a secret: secrets are never written into a recipe. Remove it, and revoke the value."
    return None


def path_problem(path: str) -> str | None:
    """Why `path` cannot name something in the repository, as the end of a sentence; None when it can."""
    if "://" in path or path.lower().startswith(("http:", "https:", "www.", "s3:", "hf:")):
        return "is an address: write a path inside this repository, `data/train.jsonl` for example"
    if path.startswith(("/", "~", "\\")) or re.match(r"[A-Za-z]:", path):
        return "is absolute: write a path inside this repository, `data/train.jsonl` for example"
    parts = path.split("/")
    if ".." in parts or "." in parts:
        return "leaves its folder (`..`): write the path from the root of the repository"
    if len(path) > 240 or not _PATH.fullmatch(path):
        return "has characters a path may not have: use letters, digits, `.`, `_`, `-` and `/`"
    return None


def source_problem(text: str) -> str | None:
    """Why `text` cannot be one of a recipe's `data_sources`, as the end of a sentence; None when it can."""
    try:
        source = parse_source(text)
    except UserError as error:
        return str(error)
    if isinstance(source, RepositorySource):
        return path_problem(text)
    if not is_pinned(source):
        pin = "@sha256:` and the file's digest" if str(source).startswith("https:") else "@` and a full commit"
        return f"may change under the recipe: add `{pin}, or name it in the goal's field Training data, which does that"
    return None


def _value_problem(key: str, value: Any) -> str | None:
    name = f"`{key}`"
    value = normalised_value(value) if isinstance(value, str) else value
    if not (value is None or isinstance(value, (str, int, float))):
        return f"{name} is not one plain value: write a number, `true`, `false` or a word; dates in quotes."
    if isinstance(value, float) and not math.isfinite(value):
        return f"{name} is not a finite number: write {_example(key)}."
    if key in NUMBERS:
        return _number_problem(key, value, NUMBERS[key])
    if key in SWITCHES and not (value is None or isinstance(value, bool)):
        return f"{name} is a switch: write `true` or `false`."
    if isinstance(value, str):
        return _text_problem(key, value)
    return None


def _number_problem(key: str, value: Scalar, limits: Range) -> str | None:
    shown = code(_shown(value), 40)
    if value in limits.also and not isinstance(value, bool):
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return f"`{key}` is {shown}, which is not a number: write {_example(key)}."
    if limits.whole and value != int(value):
        return f"`{key}` is {shown}, but must be a whole number: write {_example(key)}."
    if not limits.low <= value <= limits.high or (limits.open_low and value == limits.low):
        low = f"above {limits.low:,g}" if limits.open_low else f"at least {limits.low:,g}"
        return f"`{key}` is {shown}, but must be {low} and at most {limits.high:,}: write {_example(key)}."
    return None


def _text_problem(key: str, value: str) -> str | None:
    name = f"`{key}`"
    longest = _LONGEST_SOURCES if key in _PATH_KEYS else _LONGEST_TEXT
    if len(value) > longest:
        return f"{name} has {len(value):,} characters: write at most {longest:,}."
    if not value.isprintable():
        return f"{name} has characters that cannot be printed, or several lines: write plain text on one line."
    if key == "method" and value.lower() not in METHODS:
        return f"{name} is {code(value, 40)}: write one of {', '.join(METHODS)}."
    if key in _PATH_KEYS:
        paths = [part.strip() for part in value.split(",")]
        wrong = next(((path, why) for path in paths if (why := source_problem(path))), None)
        return f"{name}: {code(wrong[0], 80)} {wrong[1]}." if wrong else None
    if key == "attn_implementation" and "/" in value:
        return f"{name} names a repository, and code from a repository is never run: write `sdpa` or `eager`."
    if _LOOKS_LIKE_PLACE.search(value):
        return f"{name} looks like a path or an address ({code(value, 60)}): write a plain word or a number."
    return None


def _key_line_problem(text: str, key: Any) -> str | None:
    """A key that has no line of its own cannot carry a review comment."""
    if not isinstance(key, str):
        return f"{code(key, 40)} is not a recipe key: write a lowercase name such as `learning_rate`."
    if KEY.fullmatch(key) and line_of(text, key) is None:
        return f"`{key}` does not stand on a line of its own: write one `key: value` per line, from the first column."
    return None


def _example(key: str) -> str:
    example = NUMBERS[key].example if key in NUMBERS else "1"
    return f"`{key}: {example}` for example"


def _shown(value: Scalar) -> str:
    return clipped("true" if value is True else "false" if value is False else str(value), 40)
