"""The file of a benchmark, read; `benchmark_checks` looks at its keys, and every problem is named by line and column.

A benchmark `team/faq` is the file `team/faq.yaml` in a folder of the server (POSTDOC_BENCHMARK_FOLDERS). A team's own
in its repository is named by its path, `benchmarks/ours.yaml`, and read as it stands on the default branch.

    name: team/faq                      for readers; the path says what it is called
    description: Does the model know our product?
    licence: CC-BY-4.0                  SPDX identifier of the items
    citation: https://arxiv.org/abs/...  where they come from, if others made them
    dataset: acme/faq                   data sets of the Hub that the items come from, never trained on; optional
    engine: generate                    how a model is asked; default generate (the table below)
    metric: exact_match                 default: the engine's first
    prompt: "{{question}}"              text with {{column}} for columns of the items, {{column.key.0}} for what lies in
                                        one, {{choices}} for lettered choices; default "{{prompt}}"
    items:
      file: faq.jsonl                   beside the YAML file (.jsonl .csv .tsv .json .parquet), or `task: reverse` for a
                                        practice task
      hub: acme/faq@COMMIT              `file` (or a list of them) is in this data set of the Hub; without @COMMIT it is
                                        pinned when a goal is planned
      reference: answer                 column with the expected answer; default `reference`
      pattern: '#### (.+)$'             the answer is the last match's first group in that column
      choices: options                  column with a list of choices, or a list of columns; `reference` is then the
                                        right one's number from 0, letter, digit from 1, text, or one of those columns
      shuffle: true                     choices in an order that their hash decides
      messages: turns                   column with a conversation [{role, content}] that is asked instead of `prompt`
      join: {file: answers.jsonl, key: id}   columns of another file, by a key
      cluster: passage_id               column of what items share, a passage for example; they stay in one split
    splits:                             dev is iterated on; sealed is opened once, to confirm
      dev: {n: 200}                     n items at most; each item belongs to one split by a hash of its content,
      holdout: {n: 100}                 or each split has a `file`, or sealed is what a column says:
      sealed: {n: 200}                  `{n: 198, where: {subset: diamond}}`; what is sealed is then nothing else.
                                        holdout is optional: what a run that reaches the target is held against
    shots: {n: 0, file: train.jsonl, answer: "{{solution}}"}   examples before each prompt, from rows that are no items
    shots_beside: 5                     the base model is asked with so many examples as well, and both scores are shown
    fresh: {n: 100}                     optional: so many dev items that nothing else uses, evaluated beside them
    old_tasks: [upper, safety.jsonl]    optional: what the model could do before: practice tasks, or files beside this
    generation: {max_gen_toks: 256, until: [], do_sample: false}   the sampler is greedy: the same answer every time
    extraction:                         how the answer is found in a response (`bundle/extraction.py` has each rule)
      strict: {pattern: null}           regular expression whose last match (first group) is compared; null: all of it;
                                        or take: whole, answer_line, letter, number, boxed, code
      lenient: {pattern: '(?:is|:)\\s+(\\S.*)$', ignore_case: true}
    chat: {template: true, system: "", enable_thinking: false}       all optional;
                                        think_end_token: "</think>" takes away what comes before it
    backend: transformers               or vllm, for generate, choices and lm_eval; then
                                        vllm: {max_model_len: 4096, tensor_parallel_size: 1}

    engine      metrics, the first is the default       an item's columns (names under `items`)
    generate    exact_match                             those of `prompt`, and `reference`
                pass_at_1                               code: {prefix: prompt, entry_point: entry_point, test: test,
                                                        call: "check({{entry_point}})", timeout_seconds: 10}
                instructions_followed                   instructions: {kinds: instruction_id_list, arguments: kwargs}
                tool_call_match                         `reference` is the call as JSON, {"name", "arguments"}
                rubric_score                            rubric: {items: rubrics}, a list of {criterion, points};
                                                        a judge model is asked: a goal's is POSTDOC_JUDGE, by hand
                                                        it is named, `postdoc evaluate --judge`
    choices     accuracy accuracy_norm                  those of `prompt`, `choices` and `reference`
    lm_eval     accuracy accuracy_norm exact_match      what the task reads; lm_eval: {task: hellaswag, filter: none}
    inspect     task_success                            those of `prompt`, and `reference`; inspect: {tools: [bash],
                                                        submit: true, scorer: includes, max_messages: 20}
    likelihood  perplexity word_perplexity bits_per_byte   those of `prompt` (default "{{text}}"): the text itself;
                                                        likelihood: {window: 1024, stride: 1024}
    classify    accuracy macro_f1 f1 roc_auc            those of `prompt` (default "{{text}}"), `reference` (default
                                                        label); labels: [a, b] where not every label is among them or
                                                        the column holds numbers; positive: b for f1, roc_auc
    vision      accuracy macro_f1 f1 roc_auc            `image` (default image), `reference` (default label)
    speech      wer cer                                 `audio` (default audio), `reference` (default text);
                                                        speech: {normalise: basic, language: en, task: transcribe}
    pairs       pairwise_accuracy                       those of `prompt`, `chosen` and `rejected`

Images and recordings stand in their column as base64, as bytes, or as the path of a file beside the YAML file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from bot.domain.data_source import HubSource, parse_source
from bot.domain.evaluation import Split
from bot.domain.goal import digest_of
from bot.errors import UserError
from bot.evaluation.benchmark_checks import ENGINES, MEDIA, Problem, content_problem, files_problem

__all__ = [
    "ENGINES",
    "MEDIA",
    "PROMPTS",
    "REFERENCES",
    "Benchmark",
    "items_files",
    "local_files",
    "read_benchmark_file",
]

PROMPTS = {"likelihood": "{{text}}", "classify": "{{text}}"}
"""Default of `prompt`, where it isn't {{prompt}}."""
REFERENCES = {"classify": "label", "vision": "label", "speech": "text"}
"""Default of `items.reference`, where it isn't reference. Likelihood and pairs have none."""
LARGEST_FILE_BYTES = 100_000
"""Of a benchmark's YAML file; a person writes a few hundred."""


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
    data: Path | None = None
    """Where the files of `items.hub` lie, once they have been fetched."""

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
    def shots(self) -> int:
        return int((self.configuration.get("shots") or {}).get("n", 0))

    @property
    def shots_beside(self) -> int:
        return int(self.configuration.get("shots_beside") or 0)

    @property
    def sealed_where(self) -> dict[str, Any]:
        """Column -> value of the rows that are sealed, where a column says so."""
        return dict((self.configuration["splits"].get(Split.SEALED) or {}).get("where") or {})

    @property
    def old_tasks(self) -> list[str]:
        return [str(name) for name in self.configuration.get("old_tasks") or []]

    @property
    def hub(self) -> HubSource | None:
        """The data set of the Hub that holds the items' files."""
        named = (self.configuration.get("items") or {}).get("hub")
        return hub_source(str(named)) if named else None

    @property
    def hub_files(self) -> list[str]:
        """Every file of it that the benchmark reads."""
        return items_files(self.configuration) if self.hub else []

    @property
    def datasets(self) -> list[str]:
        """Data sets of the Hub that the items come from, in lower case."""
        named = self.configuration.get("dataset") or []
        hub = [self.hub.repo] if self.hub else []
        return [str(name).lower() for name in [*(named if isinstance(named, list) else [named]), *hub]]

    @property
    def folder(self) -> Path:
        """Where the items' files lie. Raises: UserError when they have not been fetched."""
        if self.hub is None:
            return self.path.parent
        if self.data is None:
            raise UserError(f"The items of benchmark `{self.name}` lie in `{self.hub}` and have not been fetched.")
        return self.data

    @property
    def needs_judge(self) -> bool:
        return self.metric == "rubric_score"

    @property
    def runs_code(self) -> bool:
        """Whether an evaluation executes what a model wrote, so that it needs a sandbox."""
        return self.metric == "pass_at_1" or self.engine == "inspect"

    @property
    def environment(self) -> str | None:
        """`inspect` or `vllm`, where the evaluation needs more than what training needs."""
        if self.engine == "inspect":
            return "inspect"
        return "vllm" if self.configuration.get("backend") == "vllm" else None

    @property
    def digest(self) -> str:
        """Over the configuration; the evaluator records the same value."""
        return digest_of(self.configuration)

    def size(self, split: str) -> int:
        return int((self.configuration["splits"].get(split) or {}).get("n", 0))

    def files_of(self, split: str) -> list[str]:
        """Files with the split's items; splits have the same ones where a hash divides them. A holdout without files
        of its own is made of dev's."""
        splits = self.configuration["splits"]
        own = (splits.get(split) or {}).get("file")
        if own is None and split == Split.HOLDOUT:
            own = (splits.get(Split.DEV) or {}).get("file")
        return _listed(own or self.configuration["items"].get("file"))

    def fetched(self, commit: str, data: Path) -> Benchmark:
        """With its data in `data`, and the commit in its configuration."""
        assert self.hub is not None
        items = {**self.configuration["items"], "hub": f"{self.hub.repo}@{commit}"}
        return replace(self, configuration={**self.configuration, "items": items}, data=data)


def hub_source(named: str) -> HubSource:
    """`owner/name@revision` of a data set. Raises: UserError."""
    found = parse_source(f"hf:{named.removeprefix('hf:')}")
    assert isinstance(found, HubSource)
    return found


def items_files(content: Mapping[str, Any]) -> list[str]:
    """Every file with items, shots or columns of them, each once."""
    source, splits = content["items"], content.get("splits") or {}
    named = _listed(source.get("file")) + [str(name) for each in splits.values() for name in _listed(each.get("file"))]
    named += [str(source["join"]["file"])] if source.get("join") else []
    shots = (content.get("shots") or {}).get("file")
    return list(dict.fromkeys(named + ([str(shots)] if shots else [])))


def _listed(named: Any) -> list[str]:
    if named is None:
        return []
    return [str(name) for name in (named if isinstance(named, list) else [named])]


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
    if problem := content_problem(content) or files_problem(content, path):
        raise _refused(name, problem, places)
    return Benchmark(
        name=name,
        description=str(content.get("description", "")).strip(),
        licence=str(content.get("licence", "")).strip(),
        metric=content.get("metric") or ENGINES[content.get("engine") or "generate"][0],
        path=path,
        configuration={**content, "name": name},
    )


def local_files(name: str, text: str) -> list[str] | None:
    """The files beside a benchmark's text that hold its items; empty where they are on the Hub, None for a practice
    task. For whoever has to fetch those files first.

    Raises: UserError.
    """
    content, places = _loaded(name, text)
    if problem := content_problem(content):
        raise _refused(name, problem, places)
    if "task" in content["items"]:
        return None
    return [] if content["items"].get("hub") else items_files(content)


_Places = Mapping[tuple[str, ...], tuple[int, int]]


def _refused(name: str, problem: Problem, places: _Places) -> UserError:
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
