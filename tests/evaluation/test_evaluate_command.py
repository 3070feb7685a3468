"""`postdoc evaluate` from a benchmark's name to its result: data of the Hub, the sandbox, programs that run in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from bot.evaluation.benchmarks import BUNDLE, load_benchmark
from tests.evaluation.shipped_rows import SHIPPED_ROWS, file_of
from tests.fakes.hub import DataSet, FakeHub

ROOT = BUNDLE.parents[2]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    script = "import sys; from pathlib import Path; from bot.practice.tiny_models import build; "
    script += "build('postdoc/tiny-gpt2', 0, Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", script, str(folder)], check=True, capture_output=True, cwd=ROOT)
    return folder


def evaluate(folder: Path, *words: str, **environment: str) -> tuple[int, str, dict[str, Any]]:
    told = {"XDG_CACHE_HOME": str(folder), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "bot", "evaluate", *words, "--json", str(folder / "out.json")],
        capture_output=True, text=True, cwd=folder, env={**os.environ, **told, **environment},
    )  # fmt: skip
    written = folder / "out.json"
    return done.returncode, done.stderr, json.loads(written.read_text()) if written.exists() else {}


@pytest.mark.slow
def test_shipped_benchmark_is_fetched_and_the_base_is_asked_with_examples_as_well(model: Path, tmp_path: Path) -> None:
    source = load_benchmark("mmlu").hub
    assert source is not None
    with FakeHub().serve() as hub:
        files = {name: file_of(name, make) for name, make in SHIPPED_ROWS["mmlu"].items()}
        hub.sets[source.repo] = DataSet(files, branches={source.revision: source.revision})
        code, said, found = evaluate(
            tmp_path, "--model", str(model), "--benchmark", "mmlu", HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="0"
        )
    assert code == 0, said
    assert found["n"] == found["few_shot"]["n"] > 3 and found["few_shot"]["shots"] == 5
    assert {"strict", "lenient", "standard_error", "harness_digest"} <= found.keys()


@pytest.mark.slow
def test_programs_run_in_the_jobs_sandbox(model: Path, tmp_path: Path) -> None:
    """The response only ends a comment, so the prefix decides: every other program is right."""
    rows = [
        {"task": f"{n}", "name": "f", "prefix": f"def f():\n    return {n % 2}\n# ", "test": "assert f() == 1"}
        for n in range(30)
    ]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = {
        "metric": "pass_at_1", "prompt": "{{task}}", "items": {"file": "own.jsonl"},
        "code": {"prefix": "prefix", "entry_point": "name", "test": "test"}, "generation": {"max_gen_toks": 1},
        "splits": {"dev": {"n": 15}, "sealed": {"n": 15}},
    }  # fmt: skip
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(own))
    code, said, found = evaluate(tmp_path, "--model", str(model), "--benchmark", "own.yaml")
    assert code == 0, said
    for sample in found["samples"]:
        one_line = "\n" not in sample["response"] and "\r" not in sample["response"]
        if one_line:
            assert sample["lenient_score"] == int(sample["prompt"]) % 2, sample
    assert 0 < found["lenient"] < 1


def test_judge_that_is_missing_or_too_many_is_told_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"q": f"{n}", "reference": "1"}) + "\n" for n in range(20)))
    own = {"prompt": "{{q}}", "items": {"file": "rows.jsonl"}, "splits": {"dev": {"n": 5}, "sealed": {"n": 5}}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(own))
    words = ("--model", "none", "--benchmark", "own.yaml")
    code, said, _ = evaluate(tmp_path, *words, "--judge", "acme/judge")
    assert code == 2 and "needs no judge; leave it out" in said
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(own | {"metric": "rubric_score"}))
    code, said, _ = evaluate(tmp_path, *words)
    assert code == 2 and "name it, `--judge OWNER/NAME`" in said
