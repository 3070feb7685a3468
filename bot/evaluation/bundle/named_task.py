"""Engine `lm_eval`: a task of lm-evaluation-harness by its name, with the harness's own prompt, filters and metrics.

    lm_eval: {task: hellaswag, shots: 0, filter: none}

The rows are the benchmark's own, pinned and brought along: the task's data set is never looked up. They need the
columns that the task reads. A shot is one of the rows that the benchmark names as such.

Not covered: groups of tasks (name one task per benchmark), tasks that are Python classes, perplexities (likelihood).
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import generate
import language_model
from scores import refused

libraries = language_model.libraries
THEIRS = {"accuracy": "acc", "accuracy_norm": "acc_norm", "exact_match": "exact_match"}


def run(
    arguments: argparse.Namespace,
    benchmark: dict[str, Any],
    items: list[dict[str, Any]],
    shots: list[dict[str, Any]],
) -> list[dict[str, Any]]:
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.evaluator import evaluate

    lm = language_model.load(arguments, benchmark)
    chat = benchmark.get("chat") or {}
    config = config_of(benchmark["lm_eval"]["task"], [item["row"] for item in items], [shot["row"] for shot in shots])
    if own := {key: value for key, value in (benchmark.get("generation") or {}).items() if value is not None}:
        config["generation_kwargs"] = {**(config.get("generation_kwargs") or {}), **own}
    template = bool(chat.get("template", False)) and lm.tokenizer.chat_template is not None
    task = ConfigurableTask(config=config)
    results = evaluate(
        lm,
        {"benchmark": task},
        apply_chat_template=template,
        fewshot_as_multiturn=template and bool(shots),
        system_instruction=chat.get("system") or None,
        bootstrap_iters=0,
    )
    logged = in_order(results["samples"]["benchmark"], benchmark["lm_eval"].get("filter"))
    if len(logged) != len(items):
        raise refused(f"lm_eval: {benchmark['lm_eval']['task']} leaves out {len(items) - len(logged)} of its items")
    theirs = THEIRS[benchmark["metric"]]
    if theirs not in logged[0]:
        raise refused(f"lm_eval: {benchmark['lm_eval']['task']} has no metric {theirs}; name another one")
    return [sample_of(item, sample, theirs, lm) for item, sample in zip(items, logged, strict=True)]


def config_of(name: str, rows: list[dict[str, Any]], shots: list[dict[str, Any]]) -> dict[str, Any]:
    """The task's own configuration with our rows in the place of its data set. SystemExit for an unknown name."""
    from datasets import Dataset
    from lm_eval.tasks._yaml_loader import load_yaml

    config = dict(load_yaml(file_of(name), resolve_func=True))
    if not isinstance(config.get("task"), str) or "class" in config or not config.get("output_type"):
        raise refused(f"lm_eval: {name} is no single task; name one that it consists of")
    for key in ("tag", "group", "dataset_path", "dataset_name", "dataset_kwargs", "training_split", "validation_split",
                "fewshot_split", "fewshot_config"):  # fmt: skip
        config.pop(key, None)
    splits = {"items": Dataset.from_list(rows)} | ({"shots": Dataset.from_list(shots)} if shots else {})
    return config | {
        "custom_dataset": lambda **_: splits,
        "test_split": "items",
        "num_fewshot": len(shots),
        **({"fewshot_split": "shots", "fewshot_config": {"sampler": "first_n", "split": "shots"}} if shots else {}),
    }


def file_of(name: str) -> Path:
    """The task's own file. The harness's index of all fourteen thousand takes a minute to build."""
    import lm_eval.tasks

    line = re.compile(rb"^task:[ \t]*['\"]?" + re.escape(name.encode()) + rb"['\"]?[ \t\r]*(?:#.*)?$", re.MULTILINE)
    for path in sorted(Path(lm_eval.tasks.__file__).parent.rglob("*.yaml")):
        if line.search(path.read_bytes()):
            return path
    raise refused(f"lm_eval: there is no task {name} with a file of its own; `lm_eval ls tasks` lists them")


def in_order(logged: list[dict[str, Any]], wanted: str | None) -> list[dict[str, Any]]:
    """One entry per row: the harness logs one for every filter; without a name the last filter counts."""
    filters = list(dict.fromkeys(sample.get("filter", "none") for sample in logged))
    if wanted is not None and wanted not in filters:
        raise refused(f"lm_eval: the task has no filter {wanted}; write one of {', '.join(filters)}")
    chosen = [sample for sample in logged if sample.get("filter", "none") == (wanted or filters[-1])]
    return sorted(chosen, key=lambda sample: int(sample["doc_id"]))


def sample_of(item: dict[str, Any], sample: dict[str, Any], theirs: str, lm: Any) -> dict[str, Any]:
    context = sample["arguments"][0][0]
    responses = [response[0] for response in sample["resps"]]
    likelihoods = all(isinstance(each, (list, tuple)) for each in responses)
    best = max(range(len(responses)), key=lambda n: float(responses[n][0])) if likelihoods else 0
    target = str(sample["target"])
    if likelihoods and target.isdigit() and int(target) < len(responses):
        target = sample["arguments"][int(target)][1].strip()
    return {
        "id": item["id"],
        "prompt": context,
        "response": sample["arguments"][best][1].strip() if likelihoods else str(responses[0]),
        "reference": target,
        "finish": lm.finishes.get(context, "stop"),
        "score": float(sample[theirs]),
    }


def summary(samples: list[dict[str, Any]]) -> dict[str, Any]:
    return {"termination_rate": generate.mean([float(sample["finish"] == "stop") for sample in samples])}
