"""What may stand in a benchmark's file: each problem with the key that it is about and what to write instead.

Not covered: whether the rows have the columns that the file names; that shows when they are read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from bot.domain.data_source import HubSource, parse_source
from bot.domain.evaluation import Split
from bot.errors import UserError
from bot.evaluation import tasks
from bot.evaluation.rows import SUFFIXES

ENGINES: dict[str, tuple[str, ...]] = {
    "generate": ("exact_match", "pass_at_1", "instructions_followed", "tool_call_match", "rubric_score"),
    "choices": ("accuracy", "accuracy_norm"),
    "lm_eval": ("accuracy", "accuracy_norm", "exact_match"),
    "inspect": ("task_success",),
    "likelihood": ("perplexity", "word_perplexity", "bits_per_byte"),
    "classify": ("accuracy", "macro_f1", "f1", "roc_auc"),
    "vision": ("accuracy", "macro_f1", "f1", "roc_auc"),
    "speech": ("wer", "cer"),
    "pairs": ("pairwise_accuracy",),
}
"""Engine -> its metrics, the default first. The bundle has the same table."""
MEDIA = {"vision": "image", "speech": "audio"}
NORMALISE = ("basic", "english", "none")
TAKES = ("whole", "pattern", "answer_line", "letter", "number", "boxed", "code")
"""Rules of `extraction`; the bundle has the same list."""
BACKENDS = ("transformers", "vllm")
LANGUAGE_ENGINES = ("generate", "choices", "lm_eval")
TOOLS, SCORERS = ("bash", "python"), ("includes", "match", "exact")
"""Of engine inspect."""
MOST_SHOTS = 64

_ITEMS = frozenset(
    {"task", "file", "hub", "reference", "pattern", "choices", "shuffle", "messages", "join", "cluster"}
    | {"chosen", "rejected", "image", "audio"}
)
_SETTINGS: dict[str, frozenset[str]] = {
    "generation": frozenset({"max_gen_toks", "until", "do_sample"}),
    "extraction": frozenset({"strict", "lenient"}),
    "chat": frozenset({"template", "system", "enable_thinking", "think_end_token"}),
    "code": frozenset({"prefix", "entry_point", "test", "call", "timeout_seconds"}),
    "instructions": frozenset({"kinds", "arguments"}),
    "rubric": frozenset({"items"}),
    "lm_eval": frozenset({"task", "filter"}),
    "inspect": frozenset({"tools", "submit", "scorer", "max_messages", "tool_seconds"}),
    "vllm": frozenset({"dtype", "tensor_parallel_size", "gpu_memory_utilization", "max_model_len"}),
    "shots": frozenset({"n", "file", "answer"}),
}
"""Keys that hold settings, and which."""
_KEYS = frozenset(
    {"name", "description", "licence", "citation", "dataset", "engine", "metric", "prompt", "items", "splits"}
    | {"labels", "positive", "likelihood", "speech", "fresh", "old_tasks", "shots_beside", "backend", *_SETTINGS}
)
_ONLY_FOR = {
    "labels": ("classify", "vision"),
    "positive": ("classify", "vision"),
    "likelihood": ("likelihood",),
    "speech": ("speech",),
    "extraction": ("generate",),
    "old_tasks": ("generate",),
    "lm_eval": ("lm_eval",),
    "inspect": ("inspect",),
    "backend": LANGUAGE_ENGINES,
    "vllm": LANGUAGE_ENGINES,
    "shots": LANGUAGE_ENGINES,
    "shots_beside": LANGUAGE_ENGINES,
}
_METRIC_OF = {"code": "pass_at_1", "instructions": "instructions_followed", "rubric": "rubric_score"}
_HUB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
_FILE = re.compile(r"[\w .@+=/-]+")


class Problem(NamedTuple):
    path: tuple[str, ...]
    """Of the key that it is about."""
    text: str


def content_problem(content: Any) -> Problem | None:
    """What is wrong with the content and what to write instead, or None."""
    if not isinstance(content, dict):
        return Problem((), "the file must hold keys such as name, items and splits")
    if unknown := sorted(set(map(str, content)) - _KEYS):
        return Problem((unknown[0],), f"unknown key {unknown[0][:60]}; the keys are {', '.join(sorted(_KEYS))}")
    if problem := _engine_problem(content):
        return problem
    for key in ("name", "description", "licence", "citation", "prompt"):
        if not isinstance(content.get(key, ""), str):
            return Problem((key,), f"{key} must be text; put it in quotes")
    named = content.get("dataset") or []
    if not all(
        isinstance(one, str) and _HUB_NAME.fullmatch(one) for one in (named if isinstance(named, list) else [named])
    ):
        return Problem(("dataset",), "dataset names data sets of the Hub; write owner/name, or a list of them")
    return _sections_problem(content) or _items_problem(content) or _settings_problem(content)


def _sections_problem(content: Mapping[str, Any]) -> Problem | None:
    for key, known in _SETTINGS.items():
        section = content.get(key)
        if section is None:
            continue
        if not isinstance(section, dict):
            return Problem((key,), f"{key} holds settings of its own; write them below it, indented")
        if key not in ("generation", "extraction", "chat") and (unknown := sorted(set(map(str, section)) - known)):
            return Problem(
                (key, unknown[0]), f"unknown key {key}.{unknown[0][:60]}; write {' or '.join(sorted(known))}"
            )
    return None


def _items_problem(content: Mapping[str, Any]) -> Problem | None:
    source, engine = content.get("items"), content.get("engine") or "generate"
    split_files = (
        all(
            isinstance(each, dict) and each.get("file")
            for each in ((content.get("splits") or {}).get(s) for s in (Split.DEV, Split.SEALED))
        )
        if isinstance(content.get("splits"), dict)
        else False
    )
    if not isinstance(source, dict) or ("task" in source) == ("file" in source or split_files):
        return Problem(("items",), "items needs either `task: <practice task>` or `file: <JSONL file beside it>`")
    if unknown := sorted(set(map(str, source)) - _ITEMS):
        return Problem(("items", unknown[0]), f"unknown key items.{unknown[0][:60]}; write {', '.join(sorted(_ITEMS))}")
    if "task" in source and engine != "generate":
        return Problem(("items", "task"), f"practice tasks are asked with engine: generate, not {engine}")
    if "task" in source and source["task"] not in tasks.TASKS:
        shown = str(source["task"])[:60]
        return Problem(("items", "task"), f"there is no practice task {shown}; write one of {', '.join(tasks.TASKS)}")
    if engine == "choices" and "choices" not in source:
        return Problem(("items",), "engine choices needs items.choices: a column with a list, or a list of columns")
    choices = source.get("choices")
    if choices is not None and not (isinstance(choices, str) or (isinstance(choices, list) and len(choices) > 1)):
        return Problem(("items", "choices"), "items.choices is a column that holds a list, or a list of columns")
    if (join := source.get("join")) is not None and not (isinstance(join, dict) and set(join) == {"file", "key"}):
        return Problem(("items", "join"), "items.join needs file and key; write join: {file: answers.jsonl, key: id}")
    return (
        _hub_problem(source) or _pattern_problem(("items", "pattern"), source.get("pattern")) or _names_problem(content)
    )


def _hub_problem(source: Mapping[str, Any]) -> Problem | None:
    if "hub" not in source:
        return None
    wrong = Problem(
        ("items", "hub"), "items.hub names a data set of the Hub; write owner/name@COMMIT, and its files in file"
    )
    try:
        found = parse_source(f"hf:{str(source['hub']).removeprefix('hf:')}")
    except UserError:
        return wrong
    return None if isinstance(found, HubSource) and not found.path else wrong


def _names_problem(content: Mapping[str, Any]) -> Problem | None:
    """Every file that is named, by where it may lie."""
    source = content["items"]
    named: list[tuple[tuple[str, ...], Any]] = [(("items", "file"), source.get("file"))]
    named += [
        (("splits", split, "file"), (content["splits"].get(split) or {}).get("file"))
        for split in Split
        if isinstance(content.get("splits"), dict) and isinstance(content["splits"].get(split), dict)
    ]
    named += [(("items", "join", "file"), (source.get("join") or {}).get("file"))]
    named += [(("shots", "file"), (content.get("shots") or {}).get("file"))]
    for key, value in named:
        for name in value if isinstance(value, list) else [value] if value is not None else []:
            if problem := _name_problem(key, str(name)):
                return problem
            if isinstance(value, list) and not source.get("hub"):
                return Problem(key, f"{'.'.join(key)} is one file; several are for a data set of the Hub (items.hub)")
    return None


def _name_problem(key: tuple[str, ...], name: str) -> Problem | None:
    parts = PurePosixPath(name).parts
    where = ".".join(key)
    if not parts or ".." in parts or parts[0].startswith("/") or not _FILE.fullmatch(name):
        return Problem(key, f"{where} must lie beside the YAML file")
    if not name.endswith(SUFFIXES):
        return Problem(key, f"{where} must be one of {', '.join(SUFFIXES)}: a .jsonl file has one JSON object per line")
    return None


def _engine_problem(content: Mapping[str, Any]) -> Problem | None:
    engine = content.get("engine") or "generate"
    if not isinstance(engine, str) or engine not in ENGINES:
        return Problem(("engine",), f"there is no engine {str(engine)[:60]}; write one of {', '.join(ENGINES)}")
    metric = content.get("metric") or ENGINES[engine][0]
    if metric not in ENGINES[engine]:
        known = any(metric in metrics for metrics in ENGINES.values())
        what = f"one of engine {engine}" if known else "known"
        return Problem(
            ("metric",),
            f"metric {str(metric)[:60]} is not {what}; write {' or '.join(ENGINES[engine])}",
        )
    for key, engines in _ONLY_FOR.items():
        if content.get(key) is not None and engine not in engines:
            return Problem((key,), f"{key} is for engine {' and '.join(engines)}, and this one is {engine}: remove it")
    for key, wanted in _METRIC_OF.items():
        if content.get(key) is not None and metric != wanted:
            return Problem((key,), f"{key} is for metric {wanted}, and this one is {metric}: remove it")
    return (
        _labels_problem(content)
        or _window_problem(content)
        or _speech_problem(content)
        or _sets_problem(content)
        or _harness_problem(content)
        or _shots_problem(content)
    )


def _harness_problem(content: Mapping[str, Any]) -> Problem | None:
    backend, chat = content.get("backend") or "transformers", content.get("chat") or {}
    if backend not in BACKENDS:
        return Problem(("backend",), f"there is no backend {str(backend)[:60]}; write {' or '.join(BACKENDS)}")
    if backend == "vllm" and isinstance(chat, dict) and chat.get("enable_thinking") and not chat.get("think_end_token"):
        return Problem(
            ("chat", "enable_thinking"),
            'backend vllm needs to know where thinking ends; write think_end_token: "</think>"',
        )
    if content.get("engine") == "lm_eval":
        named = (content.get("lm_eval") or {}).get("task") if isinstance(content.get("lm_eval"), dict) else None
        if not isinstance(named, str) or not re.fullmatch(r"[\w./-]{1,100}", named) or named.endswith(".yaml"):
            return Problem(("lm_eval",), "engine lm_eval needs the name of a task; write lm_eval: {task: hellaswag}")
    if content.get("engine") == "inspect" and isinstance(settings := content.get("inspect") or {}, dict):
        tools = settings.get("tools") or []
        if not isinstance(tools, list) or set(map(str, tools)) - set(TOOLS):
            return Problem(("inspect", "tools"), f"inspect.tools is a list of {' and '.join(TOOLS)}")
        if settings.get("scorer", "includes") not in SCORERS:
            return Problem(("inspect", "scorer"), f"inspect.scorer must be one of {', '.join(SCORERS)}")
        for key in ("max_messages", "tool_seconds"):
            if key in settings and not is_count(settings[key]):
                return Problem(("inspect", key), f"inspect.{key} needs a whole number above 0")
    return None


def _shots_problem(content: Mapping[str, Any]) -> Problem | None:
    shots, beside = content.get("shots") or {}, content.get("shots_beside", 0)
    if isinstance(shots, dict):
        for key, n in ((("shots", "n"), shots.get("n", 0)), (("shots_beside",), beside)):
            if not isinstance(n, int) or isinstance(n, bool) or not 0 <= n <= MOST_SHOTS:
                return Problem(key, f"{'.'.join(key)} needs a whole number from 0 to {MOST_SHOTS}")
        made = isinstance(content.get("items"), dict) and "task" in content["items"]
        if (shots.get("n") or beside) and not made and not shots.get("file"):
            return Problem(
                ("shots",) if "shots" in content else ("shots_beside",),
                "examples need rows that are no items; write shots: {n: 0, file: train.jsonl}",
            )
    return None


def _labels_problem(content: Mapping[str, Any]) -> Problem | None:
    labels = content.get("labels")
    if labels is None:
        return None
    if not isinstance(labels, list) or len(labels) < 2 or len(set(map(str, labels))) < len(labels):
        return Problem(("labels",), "labels needs a list of two different labels or more; write labels: [no, yes]")
    if any(isinstance(label, bool) or not isinstance(label, str | int) for label in labels):
        return Problem(("labels",), "labels must be texts; YAML reads a bare yes or no as true or false: quote them")
    return None


def _window_problem(content: Mapping[str, Any]) -> Problem | None:
    settings = content.get("likelihood") or {}
    if not isinstance(settings, dict) or set(settings) - {"window", "stride"}:
        return Problem(("likelihood",), "likelihood needs window and stride; write likelihood: {window: 1024}")
    for key, value in settings.items():
        if not is_count(value):
            return Problem(("likelihood", key), f"likelihood.{key} needs a whole number of tokens above 0")
    return None


def _speech_problem(content: Mapping[str, Any]) -> Problem | None:
    settings = content.get("speech") or {}
    if not isinstance(settings, dict) or set(settings) - {"normalise", "language", "task"}:
        return Problem(("speech",), "speech knows normalise, language and task; write speech: {normalise: basic}")
    if settings.get("normalise", "basic") not in NORMALISE:
        return Problem(("speech", "normalise"), f"speech.normalise must be one of {', '.join(NORMALISE)}")
    if settings.get("task", "transcribe") not in ("transcribe", "translate"):
        return Problem(("speech", "task"), "speech.task must be transcribe or translate")
    if not isinstance(settings.get("language", "en"), str):
        return Problem(
            ("speech", "language"), 'speech.language must be text; YAML reads a bare no as false: write "no"'
        )
    return None


def _sets_problem(content: Mapping[str, Any]) -> Problem | None:
    fresh = content.get("fresh")
    if fresh is not None and not (isinstance(fresh, dict) and set(fresh) == {"n"} and is_count(fresh["n"])):
        return Problem(("fresh",), "fresh needs n, a whole number above 0; write fresh: {n: 100}")
    old = content.get("old_tasks") or []
    if not isinstance(old, list) or not all(isinstance(name, str) for name in old):
        return Problem(("old_tasks",), "old_tasks needs a list of names; write old_tasks: [upper]")
    for name in old:
        if name not in tasks.TASKS and not re.fullmatch(r"[\w .@+=-]+\.jsonl", name):
            return Problem(
                ("old_tasks",),
                f"old_tasks: {name[:60]} is neither a practice task ({', '.join(tasks.TASKS)}) nor a .jsonl file",
            )
    return None


def is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= 1_000_000


def files_problem(content: Mapping[str, Any], path: Path) -> Problem | None:
    """Whether the files beside the YAML file are there; those of the Hub are fetched later."""
    source, splits = content["items"], content["splits"]
    named: list[tuple[tuple[str, ...], Any]] = []
    if not source.get("hub"):
        named += [
            (("items", "file"), source.get("file")),
            (("shots", "file"), (content.get("shots") or {}).get("file")),
        ]
        named += [(("items", "join", "file"), (source.get("join") or {}).get("file"))]
        named += [(("splits", str(split), "file"), each.get("file")) for split, each in splits.items()]
    named += [(("old_tasks",), name) for name in content.get("old_tasks") or [] if name not in tasks.TASKS]
    for key, name in named:
        if name is None:
            continue
        file = path.parent / str(name)
        if not file.resolve().is_relative_to(path.parent.resolve()):
            return Problem(key, f"{'.'.join(key)} must lie beside the YAML file")
        if not file.is_file():
            return Problem(key, f"there is no {name} beside the YAML file")
    return None


def _settings_problem(content: Mapping[str, Any]) -> Problem | None:
    splits = content.get("splits")
    if not isinstance(splits, dict) or set(splits) - {Split.HOLDOUT} != {Split.DEV, Split.SEALED}:
        return Problem(("splits",), "splits needs both dev and sealed, each with n, and may have holdout")
    rule = splits["sealed"].get("where") if isinstance(splits["sealed"], dict) else None
    if rule is not None and not (isinstance(rule, dict) and rule and "file" in content["items"]):
        return Problem(
            ("splits", "sealed", "where"), "splits.sealed.where names a column and its value; write {subset: diamond}"
        )
    if not isinstance(content["items"].get("cluster", ""), str):
        return Problem(("items", "cluster"), "items.cluster must be the name of a column")
    for split, settings in splits.items():
        n = settings.get("n") if isinstance(settings, dict) else None
        if not isinstance(n, int) or isinstance(n, bool) or not 1 <= n <= 100_000:
            return Problem(("splits", str(split), "n"), f"splits.{split}.n needs a whole number from 1 to 100000")
    generation = content.get("generation") or {}
    if generation.get("do_sample", False) is not False:
        return Problem(
            ("generation", "do_sample"),
            "generation.do_sample must be false: a score that changes between two runs cannot be compared",
        )
    length = generation.get("max_gen_toks", 256)
    if not isinstance(length, int) or isinstance(length, bool) or length < 1:
        return Problem(("generation", "max_gen_toks"), "generation.max_gen_toks needs a whole number above 0")
    until = generation.get("until") or []
    if not isinstance(until, list) or not all(isinstance(text, str) for text in until):
        return Problem(("generation", "until"), 'generation.until needs a list of texts; write until: ["\\n"]')
    return _extraction_problem(content)


def _extraction_problem(content: Mapping[str, Any]) -> Problem | None:
    for name in ("strict", "lenient"):
        rule = (content.get("extraction") or {}).get(name) or {}
        if not isinstance(rule, dict):
            return Problem(("extraction", name), f"extraction.{name} needs a pattern; write {name}: {{pattern: null}}")
        take = rule.get("take", "pattern" if rule.get("pattern") else "whole")
        if take not in TAKES or (take == "pattern") != bool(rule.get("pattern")):
            return Problem(
                ("extraction", name, "take"),
                f"extraction.{name}.take must be one of {', '.join(TAKES)}; a pattern stands with take: pattern alone",
            )
        if problem := _pattern_problem(("extraction", name, "pattern"), rule.get("pattern")):
            return problem
    return None


def _pattern_problem(key: tuple[str, ...], pattern: Any) -> Problem | None:
    try:
        re.compile(pattern or "")
    except (re.error, TypeError, OverflowError, RecursionError) as error:
        return Problem(key, f"{'.'.join(key)} is not a regular expression ({error})")
    return None
