"""Evaluates one model on one split of one benchmark, and writes evaluation.json.

    python evaluate.py --model FOLDER --benchmark benchmark.yaml --items items.jsonl --split dev --output out.json

It runs in a job of its own, never from the branch that is being judged, and reads only the items of the split that it
is asked for. The benchmark's `engine` says how a model is asked; each is a file beside this one:

    generate     the model answers, with lm-evaluation-harness; exact_match
    likelihood   how well it predicts a text: perplexity, word_perplexity, bits_per_byte
    classify     a text's label: accuracy, macro_f1
    vision       an image's label: accuracy, macro_f1
    speech       what is said in a recording: wer, cer
    pairs        which of two answers a reward model prefers: pairwise_accuracy

Items may come in sets: those without one are the split's, `fresh` ones were seen by nothing else, `old:NAME` ones test
what the model could do before, and what is found on `holdout` ones goes to holdout.json beside the result, without
their texts, and into no log. Only the split's own are kept one by one in `samples`.

Not covered: several GPUs; benchmarks that need tools or a judge.
"""

from __future__ import annotations

import os

# Nothing here may reach a network: what is evaluated lies in the job's folder. Set before any library reads it.
os.environ.update(
    HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TRANSFORMERS_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1",
    TOKENIZERS_PARALLELISM="false", TRANSFORMERS_VERBOSITY="error",
)  # fmt: skip

import argparse
import hashlib
import importlib
import json
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from scores import COUNTING, headline, refused, value_and_error

# Engine -> its metrics, the usual one first.
ENGINES = {
    "generate": ("exact_match",),
    "likelihood": ("perplexity", "word_perplexity", "bits_per_byte"),
    "classify": ("accuracy", "macro_f1"),
    "vision": ("accuracy", "macro_f1"),
    "speech": ("wer", "cer"),
    "pairs": ("pairwise_accuracy",),
}
OLD, HOLDOUT = "old:", "holdout"


def main() -> int:
    arguments = parse_arguments()
    started = time.monotonic()
    written = read_benchmark(arguments.benchmark)
    benchmark = settled(written, arguments.benchmark)
    items = read_items(arguments.items)
    engine = importlib.import_module(benchmark["engine"])
    samples = engine.run(arguments, benchmark, items)
    by_set: dict[str, list[dict[str, Any]]] = {}
    for item, sample in zip(items, samples, strict=True):
        if item.get("cluster"):
            sample["cluster"] = item["cluster"]
        by_set.setdefault(str(item.get("set") or ""), []).append(sample)
    if "" not in by_set:
        raise refused(f"{arguments.items} has no item of the split itself")
    own, held = by_set.pop(""), by_set.pop(HOLDOUT, [])
    metric = benchmark["metric"]
    value, error = value_and_error(metric, own)
    harness = harness_parts(written, engine.LIBRARIES)
    evaluation = {
        "benchmark": benchmark["name"],
        "engine": benchmark["engine"],
        "harness_digest": digest(harness),
        "harness": harness,
        "model": arguments.model_name or Path(arguments.model).name,
        "metric": metric,
        "value": value,
        "standard_error": error,
        "n": len(own),
        "split": arguments.split,
        **engine.summary(own),
        **other_sets(metric, by_set),
        "seconds": round(time.monotonic() - started, 2),
        "samples": [{key: item for key, item in sample.items() if not key.startswith("_")} for sample in own],
    }
    path = Path(arguments.output)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(evaluation, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    if held:
        path.with_name("holdout.json").write_text(json.dumps(holdout(evaluation, held)) + "\n", encoding="utf-8")
    print(headline(evaluation), flush=True)
    return 0


def holdout(evaluation: dict[str, Any], samples: list[dict[str, Any]]) -> dict[str, Any]:
    """The same of the holdout's items, by their hashes."""
    value, error = value_and_error(evaluation["metric"], samples)
    kept = ("benchmark", "engine", "harness_digest", "model", "metric")
    return {key: evaluation[key] for key in kept} | {
        "value": value, "standard_error": error, "n": len(samples), "split": HOLDOUT,
        "samples": [{key: sample[key] for key in ("id", "score", "finish", "weight", "cluster") if key in sample}
                    for sample in samples],
    }  # fmt: skip


def other_sets(metric: str, by_set: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """`fresh` and `old_tasks`, where the benchmark asks for them."""
    found: dict[str, Any] = {}
    if fresh := by_set.get("fresh"):
        found["fresh"] = {"value": value_and_error(metric, fresh)[0], "n": len(fresh)}
    old = [
        {"name": name.removeprefix(OLD), "after": value_and_error(metric, samples)[0], "n": len(samples),
         "scores": {sample["id"]: sample["score"] for sample in samples}}
        for name, samples in by_set.items()
        if name.startswith(OLD)
    ]  # fmt: skip
    return found | ({"old_tasks": old} if old else {})


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="folder that transformers can load")
    parser.add_argument("--benchmark", required=True, help="the benchmark's YAML file")
    parser.add_argument("--items", required=True, help='JSONL of {"id", "prompt", "reference"} and what else is asked')
    parser.add_argument("--split", required=True, choices=("dev", "sealed"))
    parser.add_argument("--output", required=True)
    parser.add_argument("--model_name", help="name to record (default: the folder's)")
    parser.add_argument("--batch_size", type=int, default=64)
    return parser.parse_args()


def read_benchmark(path: str) -> dict[str, Any]:
    import yaml

    benchmark = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    if not isinstance(benchmark, dict) or not benchmark.get("name"):
        raise refused(f"{path} is not a benchmark: it needs at least a name")
    return dict(benchmark)


def settled(benchmark: dict[str, Any], path: str) -> dict[str, Any]:
    """With `engine` and `metric` filled in where the file leaves them to their defaults."""
    engine = benchmark.get("engine", "generate")
    if engine not in ENGINES:
        raise refused(f"{path}: engine {engine} is not known here; write one of {', '.join(ENGINES)}")
    metric = benchmark.get("metric", ENGINES[engine][0])
    if metric not in ENGINES[engine] or metric not in COUNTING:
        raise refused(f"{path}: metric {metric} is not one of engine {engine}; write {' or '.join(ENGINES[engine])}")
    return {**benchmark, "engine": engine, "metric": metric}


def read_items(path: str) -> list[dict[str, Any]]:
    items = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").split("\n") if line.strip()]
    if not items:
        raise refused(f"{path} has no items")
    return items


# --- The digest -----------------------------------------------------------------------------------------------------


def harness_parts(benchmark: dict[str, Any], libraries: tuple[str, ...]) -> dict[str, Any]:
    """What two evaluations must share to be compared: this bundle, the benchmark's configuration, the libraries."""
    folder = Path(__file__).resolve().parent
    files = sorted(path for path in folder.rglob("*") if path.suffix in {".py", ".yaml", ".md"})
    return {
        "bundle": digest({path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8") for path in files}),
        "benchmark": digest(benchmark),
        "versions": {name: version(name) for name in libraries},
    }


def digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
