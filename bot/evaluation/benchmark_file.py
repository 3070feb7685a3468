"""The file of a benchmark, read and checked; every problem is named by its line and column.

A benchmark `team/faq` is the file `team/faq.yaml` in a folder of the server (POSTDOC_BENCHMARK_FOLDERS). A team's own
in its repository is named by its path, `benchmarks/ours.yaml`, and read as it stands on the default branch.

    name: team/faq                      for readers; the path says what it is called
    description: Does the model know our product?
    licence: CC-BY-4.0                  SPDX identifier of the items
    dataset: acme/faq                   data sets of the Hub that the items come from, never trained on; optional
    engine: generate                    how a model is asked; default generate (the table below)
    metric: exact_match                 default: the engine's first
    prompt: "{{question}}"              text with {{column}} for columns of the items; default "{{prompt}}"
    items:
      file: faq.jsonl                   beside the YAML file, or `task: reverse` for a practice task
      reference: answer                 column with the expected answer; default `reference`
      cluster: passage_id               optional: column of what items share, a passage for example; they stay together
    splits:                             dev is iterated on; sealed is opened once, to confirm
      dev: {n: 200}
      holdout: {n: 100}                 optional: asked once for each run that reaches the target, behind the Ladder
      sealed: {n: 200}                  n items at most; each item belongs to one split by a hash of its content,
                                        or `{n: 198, where: {subset: diamond}}`: to sealed by the value of a column
    fresh: {n: 100}                     optional: so many dev items that nothing else uses, evaluated beside them
    old_tasks: [upper, safety.jsonl]    optional: what the model could do before: practice tasks, or files beside this
    generation: {max_gen_toks: 256, until: [], do_sample: false}
    extraction:
      strict: {pattern: null}           regular expression whose last match (first group) is compared; null: all of it
      lenient: {pattern: '(?:is|:)\\s+(\\S.*)$', ignore_case: true}
    chat: {template: true, system: "", enable_thinking: false}       all optional

    engine      metrics, the first is the default       an item's columns (names under `items`)
    generate    exact_match                             those of `prompt`, and `reference`
    likelihood  perplexity word_perplexity bits_per_byte   those of `prompt` (default "{{text}}"): the text itself;
                                                        likelihood: {window: 1024, stride: 1024}
    classify    accuracy macro_f1                       those of `prompt` (default "{{text}}"), `reference` (default
                                                        label); labels: [a, b] where not every label is among them
    vision      accuracy macro_f1                       `image` (default image), `reference` (default label)
    speech      wer cer                                 `audio` (default audio), `reference` (default text);
                                                        speech: {normalise: basic, language: en, task: transcribe}
    pairs       pairwise_accuracy                       those of `prompt`, `chosen` and `rejected`

Images and recordings stand in their column as base64, or as the path of a file beside the YAML file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import yaml

from bot.domain.evaluation import Split
from bot.domain.goal import digest_of
from bot.errors import UserError
from bot.evaluation import tasks

ENGINES: dict[str, tuple[str, ...]] = {
    "generate": ("exact_match",),
    "likelihood": ("perplexity", "word_perplexity", "bits_per_byte"),
    "classify": ("accuracy", "macro_f1"),
    "vision": ("accuracy", "macro_f1"),
    "speech": ("wer", "cer"),
    "pairs": ("pairwise_accuracy",),
}
"""Engine -> its metrics, the default first. The bundle has the same table."""
PROMPTS = {"likelihood": "{{text}}", "classify": "{{text}}"}
"""Default of `prompt`, where it isn't {{prompt}}."""
REFERENCES = {"classify": "label", "vision": "label", "speech": "text"}
"""Default of `items.reference`, where it isn't reference. Likelihood and pairs have none."""
MEDIA = {"vision": "image", "speech": "audio"}
NORMALISE = ("basic", "english", "none")
LARGEST_FILE_BYTES = 100_000
"""Of a benchmark's YAML file; a person writes a few hundred."""

_KEYS = frozenset(
    {"name", "description", "licence", "dataset", "engine", "metric", "prompt", "items", "splits", "generation"}
    | {"extraction", "chat", "labels", "likelihood", "speech", "fresh", "old_tasks"}
)
_ONLY_FOR = {"labels": ("classify", "vision"), "likelihood": ("likelihood",), "speech": ("speech",)} | {
    "extraction": ("generate",),
    "old_tasks": ("generate",),
}
_HUB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class Benchmark:
    name: str
    description: str
    licence: str
    metric: str
    path: Path
    """The YAML file; it is copied into the evaluation job as it is."""
    configuration: Mapping[str, Any]
    """The file's content."""

    @property
    def task(self) -> str | None:
        """Name of the practice task that makes the items; None when they come from a file."""
        return (self.configuration.get("items") or {}).get("task")

    @property
    def engine(self) -> str:
        return str(self.configuration.get("engine") or "generate")

    @property
    def fresh(self) -> int:
        """Items of `fresh`; 0 without."""
        return int((self.configuration.get("fresh") or {}).get("n", 0))

    @property
    def old_tasks(self) -> list[str]:
        return [str(name) for name in self.configuration.get("old_tasks") or []]

    @property
    def datasets(self) -> list[str]:
        """Data sets of the Hub that the items come from, in lower case."""
        named = self.configuration.get("dataset") or []
        return [str(name).lower() for name in (named if isinstance(named, list) else [named])]

    @property
    def digest(self) -> str:
        """Over the configuration; the evaluator records the same value."""
        return digest_of(self.configuration)

    def size(self, split: str) -> int:
        return int((self.configuration["splits"].get(split) or {}).get("n", 0))


class _Problem(NamedTuple):
    path: tuple[str, ...]
    """Of the key that it is about."""
    text: str


def read_benchmark_file(name: str, path: Path) -> Benchmark:
    """The benchmark in the file `path`, called `name`. Raises: UserError."""
    if path.stat().st_size > LARGEST_FILE_BYTES:
        raise UserError(
            f"The file of benchmark `{name}` is larger than 100 kB; put the items into a JSONL file beside it."
        )
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"`{name}.yaml` is not YAML: {error}") from error
    content, places = _loaded(name, text)
    if problem := _problem(content) or _files_problem(content, path):
        raise _refused(name, problem, places)
    return Benchmark(
        name=name,
        description=str(content.get("description", "")).strip(),
        licence=str(content.get("licence", "")).strip(),
        metric=content.get("metric") or ENGINES[content.get("engine") or "generate"][0],
        path=path,
        configuration={**content, "name": name},
    )


def items_path(name: str, text: str) -> str | None:
    """`items.file` of a benchmark's text, None for a practice task; for whoever has to fetch that file first.

    Raises: UserError.
    """
    content, places = _loaded(name, text)
    if problem := _problem(content):
        raise _refused(name, problem, places)
    file = content["items"].get("file")
    return None if file is None else str(file)


_Places = Mapping[tuple[str, ...], tuple[int, int]]


def _refused(name: str, problem: _Problem, places: _Places) -> UserError:
    """The problem at the place of its key, or of the nearest key above one that is missing."""
    above = (problem.path[:n] for n in range(len(problem.path), 0, -1))
    line, column = next((places[path] for path in above if path in places), (1, 1))
    return UserError(f"Benchmark `{name}` cannot be used: {line}:{column} {problem.text}.")


def _loaded(name: str, text: str) -> tuple[Any, _Places]:
    """The YAML's values, and where each key stands as (line, column) from 1."""
    try:
        for event in yaml.parse(text):
            if isinstance(event, yaml.AliasEvent):  # a few of them expand to gigabytes
                mark = event.start_mark
                place = f"{mark.line + 1}:{mark.column + 1} " if mark is not None else ""
                raise UserError(f"`{name}.yaml` {place}uses YAML aliases (*name); write the values out.")
        content = yaml.safe_load(text)
        json.dumps(content)
        places: dict[tuple[str, ...], tuple[int, int]] = {}
        _collect(yaml.compose(text, Loader=yaml.SafeLoader), (), places)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        at = getattr(error, "problem_mark", None)
        place = f"{at.line + 1}:{at.column + 1} " if at is not None else ""
        raise UserError(f"`{name}.yaml` is not YAML: {place}{' '.join(str(error).split())[:300]}") from error
    except TypeError as error:
        raise UserError(f"`{name}.yaml` holds a value that is no text or number; put quotes around dates.") from error
    return content, places


def _collect(node: yaml.Node | None, path: tuple[str, ...], places: dict[tuple[str, ...], tuple[int, int]]) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*path, str(key.value))
            places[here] = (key.start_mark.line + 1, key.start_mark.column + 1)
            _collect(value, here, places)


def _problem(content: Any) -> _Problem | None:
    """What is wrong with the content and what to write instead, or None."""
    if not isinstance(content, dict):
        return _Problem((), "the file must hold keys such as name, items and splits")
    if unknown := sorted(set(map(str, content)) - _KEYS):
        return _Problem((unknown[0],), f"unknown key {unknown[0][:60]}; the keys are {', '.join(sorted(_KEYS))}")
    if problem := _engine_problem(content):
        return problem
    for key in ("name", "description", "licence", "prompt"):
        if not isinstance(content.get(key, ""), str):
            return _Problem((key,), f"{key} must be text; put it in quotes")
    named = content.get("dataset") or []
    if not all(
        isinstance(one, str) and _HUB_NAME.fullmatch(one) for one in (named if isinstance(named, list) else [named])
    ):
        return _Problem(("dataset",), "dataset names data sets of the Hub; write owner/name, or a list of them")
    for key in ("generation", "extraction", "chat"):
        if not isinstance(content.get(key) or {}, dict):
            return _Problem((key,), f"{key} holds settings of its own; write them below it, indented")
    source = content.get("items")
    if not isinstance(source, dict) or ("task" in source) == ("file" in source):
        return _Problem(("items",), "items needs either `task: <practice task>` or `file: <JSONL file beside it>`")
    if "task" in source and content.get("engine", "generate") != "generate":
        return _Problem(("items", "task"), f"practice tasks are asked with engine: generate, not {content['engine']}")
    if "task" in source and source["task"] not in tasks.TASKS:
        shown = str(source["task"])[:60]
        return _Problem(("items", "task"), f"there is no practice task {shown}; write one of {', '.join(tasks.TASKS)}")
    if "file" in source:
        parts = PurePosixPath(str(source["file"])).parts
        if (
            not parts
            or ".." in parts
            or parts[0].startswith("/")
            or not re.fullmatch(r"[\w .@+=/-]+", str(source["file"]))
        ):
            return _Problem(("items", "file"), "items.file must lie beside the YAML file")
        if not str(source["file"]).endswith(".jsonl"):
            return _Problem(("items", "file"), "items.file must be a .jsonl file, one JSON object per line")
    return _settings_problem(content)


def _engine_problem(content: Mapping[str, Any]) -> _Problem | None:
    engine = content.get("engine") or "generate"
    if not isinstance(engine, str) or engine not in ENGINES:
        return _Problem(("engine",), f"there is no engine {str(engine)[:60]}; write one of {', '.join(ENGINES)}")
    metric = content.get("metric") or ENGINES[engine][0]
    if metric not in ENGINES[engine]:
        known = any(metric in metrics for metrics in ENGINES.values())
        what = f"one of engine {engine}" if known else "known"
        return _Problem(
            ("metric",),
            f"metric {str(metric)[:60]} is not {what}; write {' or '.join(ENGINES[engine])}",
        )
    for key, engines in _ONLY_FOR.items():
        if content.get(key) is not None and engine not in engines:
            return _Problem((key,), f"{key} is for engine {' and '.join(engines)}, and this one is {engine}: remove it")
    return _labels_problem(content) or _window_problem(content) or _speech_problem(content) or _sets_problem(content)


def _labels_problem(content: Mapping[str, Any]) -> _Problem | None:
    labels = content.get("labels")
    if labels is None:
        return None
    if not isinstance(labels, list) or len(labels) < 2 or len(set(map(str, labels))) < len(labels):
        return _Problem(("labels",), "labels needs a list of two different labels or more; write labels: [no, yes]")
    if any(isinstance(label, bool) or not isinstance(label, str | int) for label in labels):
        return _Problem(("labels",), "labels must be texts; YAML reads a bare yes or no as true or false: quote them")
    return None


def _window_problem(content: Mapping[str, Any]) -> _Problem | None:
    settings = content.get("likelihood") or {}
    if not isinstance(settings, dict) or set(settings) - {"window", "stride"}:
        return _Problem(("likelihood",), "likelihood needs window and stride; write likelihood: {window: 1024}")
    for key, value in settings.items():
        if not _is_count(value):
            return _Problem(("likelihood", key), f"likelihood.{key} needs a whole number of tokens above 0")
    return None


def _speech_problem(content: Mapping[str, Any]) -> _Problem | None:
    settings = content.get("speech") or {}
    if not isinstance(settings, dict) or set(settings) - {"normalise", "language", "task"}:
        return _Problem(("speech",), "speech knows normalise, language and task; write speech: {normalise: basic}")
    if settings.get("normalise", "basic") not in NORMALISE:
        return _Problem(("speech", "normalise"), f"speech.normalise must be one of {', '.join(NORMALISE)}")
    if settings.get("task", "transcribe") not in ("transcribe", "translate"):
        return _Problem(("speech", "task"), "speech.task must be transcribe or translate")
    if not isinstance(settings.get("language", "en"), str):
        return _Problem(
            ("speech", "language"), 'speech.language must be text; YAML reads a bare no as false: write "no"'
        )
    return None


def _sets_problem(content: Mapping[str, Any]) -> _Problem | None:
    fresh = content.get("fresh")
    if fresh is not None and not (isinstance(fresh, dict) and set(fresh) == {"n"} and _is_count(fresh["n"])):
        return _Problem(("fresh",), "fresh needs n, a whole number above 0; write fresh: {n: 100}")
    old = content.get("old_tasks") or []
    if not isinstance(old, list) or not all(isinstance(name, str) for name in old):
        return _Problem(("old_tasks",), "old_tasks needs a list of names; write old_tasks: [upper]")
    for name in old:
        if name not in tasks.TASKS and not re.fullmatch(r"[\w .@+=-]+\.jsonl", name):
            return _Problem(
                ("old_tasks",),
                f"old_tasks: {name[:60]} is neither a practice task ({', '.join(tasks.TASKS)}) nor a .jsonl file",
            )
    return None


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= 1_000_000


def _files_problem(content: Mapping[str, Any], path: Path) -> _Problem | None:
    named: list[tuple[tuple[str, ...], Any]] = [(("items", "file"), content["items"].get("file"))]
    named += [(("old_tasks",), name) for name in content.get("old_tasks") or [] if name not in tasks.TASKS]
    for key, name in named:
        if name is None:
            continue
        file = path.parent / str(name)
        if not file.resolve().is_relative_to(path.parent.resolve()):
            return _Problem(key, f"{'.'.join(key)} must lie beside the YAML file")
        if not file.is_file():
            return _Problem(key, f"there is no {name} beside the YAML file")
    return None


def _settings_problem(content: Mapping[str, Any]) -> _Problem | None:
    splits = content.get("splits")
    if not isinstance(splits, dict) or set(splits) - {Split.HOLDOUT} != {Split.DEV, Split.SEALED}:
        return _Problem(("splits",), "splits needs both dev and sealed, each with n, and may have holdout")
    rule = splits["sealed"].get("where") if isinstance(splits["sealed"], dict) else None
    if rule is not None and not (isinstance(rule, dict) and rule and "file" in content["items"]):
        return _Problem(
            ("splits", "sealed", "where"), "splits.sealed.where names a column and its value; write {subset: diamond}"
        )
    if not isinstance(content["items"].get("cluster", ""), str):
        return _Problem(("items", "cluster"), "items.cluster must be the name of a column")
    for split, settings in splits.items():
        n = settings.get("n") if isinstance(settings, dict) else None
        if not isinstance(n, int) or isinstance(n, bool) or not 1 <= n <= 100_000:
            return _Problem(("splits", str(split), "n"), f"splits.{split}.n needs a whole number from 1 to 100000")
    generation = content.get("generation") or {}
    if generation.get("do_sample", False) is not False:
        return _Problem(
            ("generation", "do_sample"),
            "generation.do_sample must be false: a score that changes between two runs cannot be compared",
        )
    length = generation.get("max_gen_toks", 256)
    if not isinstance(length, int) or isinstance(length, bool) or length < 1:
        return _Problem(("generation", "max_gen_toks"), "generation.max_gen_toks needs a whole number above 0")
    until = generation.get("until") or []
    if not isinstance(until, list) or not all(isinstance(text, str) for text in until):
        return _Problem(("generation", "until"), 'generation.until needs a list of texts; write until: ["\\n"]')
    for name in ("strict", "lenient"):
        settings = (content.get("extraction") or {}).get(name) or {}
        if not isinstance(settings, dict):
            return _Problem(("extraction", name), f"extraction.{name} needs a pattern; write {name}: {{pattern: null}}")
        try:
            re.compile(settings.get("pattern") or "")
        except (re.error, TypeError, OverflowError, RecursionError) as error:
            where = ("extraction", name, "pattern")
            return _Problem(where, f"extraction.{name}.pattern is not a regular expression ({error})")
    return None
