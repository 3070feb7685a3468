"""Evaluates one model on one split of one benchmark, and writes evaluation.json.

    python evaluate.py --model FOLDER --benchmark benchmark.yaml --items items.jsonl --split dev --output out.json

It runs in a job of its own, never from the branch that is being judged, and reads only the items of the split that it
is asked for. The benchmark's `engine` says how a model is asked; each is a file beside this one:

    generate     the model answers, with lm-evaluation-harness; exact_match, pass_at_1, instructions_followed,
                 tool_call_match, rubric_score
    choices      it picks the likeliest of several answers; accuracy, accuracy_norm
    lm_eval      a task of lm-evaluation-harness by its name, on the benchmark's own rows; the metric that it has
    inspect      it works with tools, in several turns, with inspect-ai; task_success
    likelihood   how well it predicts a text: perplexity, word_perplexity, bits_per_byte
    classify     a text's label: accuracy, macro_f1, f1, roc_auc
    vision       an image's label: the same
    speech       what is said in a recording: wer, cer
    pairs        which of two answers a reward model prefers: pairwise_accuracy

Items may come in sets: those without one are the split's, `fresh` ones were seen by nothing else, `old:NAME` ones test
what the model could do before, and what is found on `holdout` ones goes to holdout.json beside the result, without
their texts, and into no log. Only the split's own are kept one by one in `samples`. Rows of the sets `shots` and
`shots_beside` are no items but examples with their answers: the first stand before every prompt, with the second the
split is asked once more, and `few_shot` says how that went.

inspect-ai and vLLM do not go together with what training needs, so each may have an environment of its own: a folder
named by --environment, whose Python takes over where the module is missing here.

Not covered: several GPUs, but by vLLM; asking a judge, which `postdoc evaluate` does when this has ended.
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
import importlib.util
import json
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from scores import COUNTING, headline, refused, value_and_error

# Engine -> its metrics, the usual one first.
ENGINES = {
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
# Engines whose file beside this one is not called like them: it would hide a library's or Python's own module.
FILES = {"lm_eval": "named_task", "inspect": "agentic"}
WITH_SHOTS = ("generate", "choices", "lm_eval")
OLD, HOLDOUT, SHOTS, SHOTS_BESIDE = "old:", "holdout", "shots", "shots_beside"

Rows = list[dict[str, Any]]


def main() -> int:
    arguments = parse_arguments()
    started = time.monotonic()
    written = read_benchmark(arguments.benchmark)
    benchmark = settled(written, arguments.benchmark)
    elsewhere(arguments, benchmark)
    if arguments.run_code:
        os.environ["POSTDOC_RUN_CODE"] = "1"
    items, shots, beside = divided(read_items(arguments.items))
    engine = importlib.import_module(FILES.get(benchmark["engine"], benchmark["engine"]))
    by_set: dict[str, Rows] = {}
    for item, sample in zip(items, asked(engine, arguments, benchmark, items, shots), strict=True):
        if item.get("cluster"):
            sample["cluster"] = item["cluster"]
        by_set.setdefault(str(item.get("set") or ""), []).append(sample)
    if "" not in by_set:
        raise refused(f"{arguments.items} has no item of the split itself")
    own, held = by_set.pop(""), by_set.pop(HOLDOUT, [])
    metric = benchmark["metric"]
    value, error = value_and_error(metric, own)
    own_items = [item for item in items if not item.get("set")]
    harness = harness_parts(written, libraries_of(engine, benchmark))
    evaluation = {
        "benchmark": benchmark["name"],
        "engine": benchmark["engine"],
        "harness_digest": digest(harness),
        "harness": harness,
        "model": arguments.model_name or Path(arguments.model).name,
        "weights": weights_digest(arguments.model),
        "metric": metric,
        "value": value,
        "standard_error": error,
        "n": len(own),
        "split": arguments.split,
        **engine.summary(own),
        **({"shots": len(shots)} if shots else {}),
        **few_shot(engine, arguments, benchmark, own_items, beside),
        **other_sets(metric, by_set),
        **({"judged": False} if metric == "rubric_score" else {}),
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


def elsewhere(arguments: argparse.Namespace, benchmark: dict[str, Any]) -> None:
    """Go on in the environment that has what the benchmark needs, where this one lacks it. Returns if it need not."""
    vllm = benchmark.get("backend") == "vllm"
    module = "inspect_ai" if benchmark["engine"] == "inspect" else "vllm" if vllm else None
    if module is None or importlib.util.find_spec(module) is not None:
        return
    python = Path(arguments.environment or "/nowhere", "bin", "python")
    if not arguments.environment or Path(sys.prefix) == Path(arguments.environment) or not python.exists():
        name = "backend: vllm" if vllm else "engine: inspect"
        raise refused(
            f"{name} needs {module.replace('_', '-')}, which is not installed here: make an environment that has it "
            f"and name its folder in POSTDOC_{'VLLM' if vllm else 'INSPECT'}_ENVIRONMENT"
        )
    sys.stdout.flush()
    os.execv(python, [str(python), *sys.argv])


def asked(engine: Any, arguments: argparse.Namespace, benchmark: dict[str, Any], items: Rows, shots: Rows) -> Rows:
    """A sample for each item, in their order."""
    more = (shots,) if benchmark["engine"] in WITH_SHOTS else ()
    samples: Rows = engine.run(arguments, benchmark, items, *more)
    return samples


def few_shot(
    engine: Any, arguments: argparse.Namespace, benchmark: dict[str, Any], items: Rows, beside: Rows
) -> dict[str, Any]:
    """The split's own items once more, after examples: how much of a score is knowing the form."""
    if not beside:
        return {}
    samples = asked(engine, arguments, benchmark, items, beside)
    value, error = value_and_error(benchmark["metric"], samples)
    summary = {key: engine.summary(samples)[key] for key in ("strict", "lenient") if key in engine.summary(samples)}
    found = {"shots": len(beside), "value": value, "standard_error": error, "n": len(samples), **summary}
    return {"few_shot": found}


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
    parser.add_argument("--environment", help="folder of an environment that has inspect-ai or vLLM")
    parser.add_argument("--run_code", action="store_true", help="programs that the model writes may run: in a sandbox")
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


def divided(rows: Rows) -> tuple[Rows, Rows, Rows]:
    """(items, shots, shots beside)"""
    by_role: dict[str, Rows] = {SHOTS: [], SHOTS_BESIDE: []}
    for row in rows:
        by_role.setdefault(row["set"] if row.get("set") in by_role else "", []).append(row)
    return by_role.get("", []), by_role[SHOTS], by_role[SHOTS_BESIDE]


def read_items(path: str) -> Rows:
    items = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").split("\n") if line.strip()]
    if not items:
        raise refused(f"{path} has no items")
    return items


# --- The digest -----------------------------------------------------------------------------------------------------


def libraries_of(engine: Any, benchmark: dict[str, Any]) -> tuple[str, ...]:
    names: tuple[str, ...] = engine.libraries(benchmark) if hasattr(engine, "libraries") else engine.LIBRARIES
    return names


def harness_parts(benchmark: dict[str, Any], libraries: tuple[str, ...]) -> dict[str, Any]:
    """What two evaluations must share to be compared: this bundle, the benchmark's configuration, the libraries."""
    folder = Path(__file__).resolve().parent
    files = sorted(path for path in folder.rglob("*") if path.suffix in {".py", ".yaml", ".md"})
    return {
        "bundle": digest({path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8") for path in files}),
        "benchmark": digest(benchmark),
        "versions": {name: version(name) for name in libraries},
    }


def weights_digest(model: str) -> str:
    """SHA-256 over the model's safetensors files and their names; empty where it has none."""
    files = sorted(Path(model).glob("*.safetensors"))
    found = {}
    for path in files:
        with path.open("rb") as file:
            found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return digest(found) if found else ""


def digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
