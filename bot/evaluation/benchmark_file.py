"""The file of a benchmark, read and checked; every problem is named by its line and column.

A benchmark `team/faq` is the file `team/faq.yaml` in a folder of the server (POSTDOC_BENCHMARK_FOLDERS). A team's own
in its repository is named by its path, `benchmarks/ours.yaml`, and read as it stands on the default branch.

    name: team/faq                      for readers; the path says what it is called
    description: Does the model know our product?
    licence: CC-BY-4.0                  SPDX identifier of the items
    dataset: acme/faq                   data sets of the Hub that the items come from, never trained on; optional
    metric: exact_match                 the only metric so far
    prompt: "{{question}}"              text with {{column}} for columns of the items; default "{{prompt}}"
    items:
      file: faq.jsonl                   beside the YAML file, or `task: reverse` for a practice task
      reference: answer                 column with the expected answer; default `reference`
    splits:                             dev is iterated on; sealed is opened once, to confirm
      dev: {n: 200}
      sealed: {n: 200}                  n items at most; each item belongs to one split by a hash of its prompt
    generation: {max_gen_toks: 256, until: [], do_sample: false}
    extraction:
      strict: {pattern: null}           regular expression whose last match (first group) is compared; null: all of it
      lenient: {pattern: '(?:is|:)\\s+(\\S.*)$', ignore_case: true}
    chat: {template: true, system: "", enable_thinking: false}       all optional
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

METRIC = "exact_match"
LARGEST_FILE_BYTES = 100_000
"""Of a benchmark's YAML file; a person writes a few hundred."""

_KEYS = frozenset(
    {"name", "description", "licence", "dataset", "metric", "prompt", "items", "splits", "generation"}
    | {"extraction", "chat"}
)
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
    if problem := _problem(content) or _file_problem(content["items"], path):
        raise _refused(name, problem, places)
    return Benchmark(
        name=name,
        description=str(content.get("description", "")).strip(),
        licence=str(content.get("licence", "")).strip(),
        metric=content.get("metric", METRIC),
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
    if content.get("metric", METRIC) != METRIC:
        return _Problem(("metric",), f"metric {str(content['metric'])[:60]} is not known; write {METRIC}")
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


def _file_problem(source: Mapping[str, Any], path: Path) -> _Problem | None:
    if "file" not in source:
        return None
    file = path.parent / str(source["file"])
    if not file.resolve().is_relative_to(path.parent.resolve()):
        return _Problem(("items", "file"), "items.file must lie beside the YAML file")
    if not file.is_file():
        return _Problem(("items", "file"), f"there is no {source['file']} beside the YAML file")
    return None


def _settings_problem(content: Mapping[str, Any]) -> _Problem | None:
    splits = content.get("splits")
    if not isinstance(splits, dict) or set(splits) != set(Split):
        return _Problem(("splits",), "splits needs both dev and sealed, each with n")
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
