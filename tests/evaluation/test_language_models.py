"""The engines that ask a language model, each on a tiny one: lm-evaluation-harness, vLLM's stand-in, inspect-ai."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from bot.evaluation.benchmark_file import Benchmark, read_benchmark_file
from bot.evaluation.benchmarks import BUNDLE, evaluation_words, load_benchmark, write_job_files
from bot.practice.warm import EVALUATION_IMPORTS, Warm
from tests.evaluation.shipped_rows import SHIPPED_ROWS, write_data
from tests.evaluation.test_bundle import loaded

STAND_IN = Path(__file__).parents[1] / "fakes" / "vllm_stand_in"
CHAT = "{% for m in messages %}<{{ m.role }}> {{ m.content }} {% endfor %}{% if add_generation_prompt %}<a> {% endif %}"
QUIZ: dict[str, Any] = {
    "prompt": "{{q}}",
    "items": {"file": "quiz.jsonl", "choices": "options", "reference": "answer"},
    "shots": {"n": 0, "file": "shots.jsonl"},
    "splits": {"dev": {"n": 6}, "sealed": {"n": 6}},
    "generation": {"max_gen_toks": 6},
}


def quiz(folder: Path, **more: Any) -> Benchmark:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"q": f"which is {n}?", "options": ["a", "be", "see"], "answer": n % 3} for n in range(30)]
    (folder / "quiz.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shots = [{**row, "q": f"example: {row['q']}"} for row in rows[:4]]
    (folder / "shots.jsonl").write_text("".join(json.dumps(row) + "\n" for row in shots))
    (folder / "quiz.yaml").write_text(yaml.safe_dump(QUIZ | more))
    return read_benchmark_file("quiz", folder / "quiz.yaml")


# --- What needs no model ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundle() -> Iterator[Any]:
    before = dict(os.environ)  # the script turns the network off for its own process
    yield loaded(BUNDLE)
    os.environ.clear()
    os.environ.update(before)


def test_examples_beside_come_with_the_baseline_alone_and_are_no_items(tmp_path: Path, bundle: Any) -> None:
    own = quiz(tmp_path, shots_beside=3)
    with_them = write_job_files(own, "dev", tmp_path / "a", beside=True)["items.jsonl"]
    without = write_job_files(own, "dev", tmp_path / "b")["items.jsonl"]
    items, shots, beside = bundle.divided(bundle.read_items(with_them))
    assert len(items) == 6 and not shots and len(beside) == 3
    assert [each["answer"] for each in beside] == [each["reference"] for each in beside]
    assert bundle.divided(bundle.read_items(without)) == (items, [], [])


def test_practice_task_takes_its_examples_from_its_training_side(tmp_path: Path) -> None:
    content = dict(load_benchmark("practice/reverse").configuration) | {"shots_beside": 5}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(content))
    own = read_benchmark_file("own", tmp_path / "own.yaml")
    rows = [json.loads(line) for line in Path(write_job_files(own, "dev", tmp_path / "job", beside=True)["items.jsonl"])
            .read_text().splitlines()]  # fmt: skip
    beside = [row for row in rows if row.get("set") == "shots_beside"]
    assert len(beside) == 5 and not {row["prompt"] for row in beside} & {r["prompt"] for r in rows if "set" not in r}


def test_only_what_runs_programs_is_allowed_to_and_an_environment_is_named_where_there_is_one(tmp_path: Path) -> None:
    assert "--run_code" not in evaluation_words(quiz(tmp_path), "dev", "m")
    words = evaluation_words(load_benchmark("humaneval"), "dev", "m")
    assert words[-1] == "--run_code"
    agent = quiz(tmp_path, engine="inspect", items={"file": "quiz.jsonl", "reference": "answer"}, shots=None)
    assert agent.environment == "inspect" and agent.runs_code
    words = evaluation_words(agent, "dev", "m", environment=True)
    assert words[-3:] == ("--environment", "{mount:environment}", "--run_code")
    assert quiz(tmp_path, backend="vllm").environment == "vllm" and quiz(tmp_path).environment is None


@pytest.mark.parametrize(
    ("more", "words"),
    [({"engine": "inspect"}, "POSTDOC_INSPECT_ENVIRONMENT"), ({"backend": "vllm"}, "POSTDOC_VLLM_ENVIRONMENT")],
)
def test_engine_that_is_not_installed_says_which_environment_to_name(
    bundle: Any, capsys: pytest.CaptureFixture[str], more: dict[str, Any], words: str, tmp_path: Path
) -> None:
    for environment in (None, str(tmp_path)):
        with pytest.raises(SystemExit) as caught:
            bundle.elsewhere(SimpleNamespace(environment=environment), {"engine": "generate", **more})
        assert caught.value.code == 2 and words in capsys.readouterr().err


def test_engine_goes_on_in_the_environment_that_has_it(
    bundle: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").write_text("")
    started: list[Any] = []
    monkeypatch.setattr(bundle.os, "execv", lambda *words: started.append(words))
    monkeypatch.setattr(bundle.sys, "argv", ["evaluate.py", "--split", "dev"])
    bundle.elsewhere(SimpleNamespace(environment=str(tmp_path)), {"engine": "inspect"})
    python = tmp_path / "bin" / "python"
    assert started == [(python, [str(python), "evaluate.py", "--split", "dev"])]


def test_last_filter_of_a_named_task_counts_unless_one_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    named = loaded(BUNDLE, "named_task")
    logged = [{"doc_id": n, "filter": name} for name in ("strict", "flexible") for n in (1, 0)]
    assert [(s["doc_id"], s["filter"]) for s in named.in_order(logged, None)] == [(0, "flexible"), (1, "flexible")]
    assert {s["filter"] for s in named.in_order(logged, "strict")} == {"strict"}
    with pytest.raises(SystemExit):
        named.in_order(logged, "loose")
    assert "write one of strict, flexible" in capsys.readouterr().err


# --- With a model -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def warm() -> Iterator[Warm]:
    with Warm(("torch", "yaml", "datasets", "transformers.models.gpt2.modeling_gpt2", *EVALUATION_IMPORTS)) as started:
        yield started


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny GPT-2 of random weights, with a chat template."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    script = "import sys; from pathlib import Path; from bot.practice.tiny_models import build; "
    script += "build('postdoc/tiny-gpt2', 0, Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", script, str(folder)], check=True, capture_output=True, cwd=BUNDLE.parents[2])
    (folder / "chat_template.jinja").write_text(CHAT)
    return folder


def evaluated(
    warm: Warm, own: Benchmark, model: Path, folder: Path, *, beside: bool = False, path: str = ""
) -> dict[str, Any]:
    """`path` is looked through for modules first, in a process of its own."""
    files = write_job_files(own, "dev", folder / "job", beside=beside)
    words = [
        str(BUNDLE / "evaluate.py"), "--model", str(model), "--benchmark", files["benchmark.yaml"], "--items",
        files["items.jsonl"], "--split", "dev", "--output", "out.json", "--run_code",
    ]  # fmt: skip
    if path:
        done = subprocess.run([sys.executable, *words], cwd=folder, env={**os.environ, "PYTHONPATH": path})
        assert done.returncode == 0
    else:
        ended = warm.start(words, cwd=folder, log=folder / "log.txt").wait(300)
        assert ended is not None and ended.exit_code == 0, (folder / "log.txt").read_text()
    found: dict[str, Any] = json.loads((folder / "out.json").read_text())
    return found


@pytest.mark.slow
def test_base_models_few_shot_score_stands_beside_its_zero_shot_one(warm: Warm, model: Path, tmp_path: Path) -> None:
    own = quiz(tmp_path, shots_beside=3)
    found = evaluated(warm, own, model, tmp_path, beside=True)
    assert found["few_shot"]["shots"] == 3 and found["few_shot"]["n"] == found["n"] == 6
    assert {"value", "standard_error", "strict", "lenient"} <= found["few_shot"].keys()
    again = evaluated(warm, own, model, tmp_path)
    assert "few_shot" not in again and again["harness_digest"] == found["harness_digest"]
    assert [s["response"] for s in again["samples"]] == [s["response"] for s in found["samples"]]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["choices", "generate"])
def test_vllms_stand_in_answers_as_transformers_does(warm: Warm, model: Path, tmp_path: Path, engine: str) -> None:
    mine = evaluated(warm, quiz(tmp_path / "a", engine=engine), model, tmp_path / "a")
    theirs = evaluated(
        warm, quiz(tmp_path / "b", engine=engine, backend="vllm"), model, tmp_path / "b", path=str(STAND_IN)
    )
    assert mine["value"] == theirs["value"]
    for one, other in zip(mine["samples"], theirs["samples"], strict=True):
        assert (one["response"], one["finish"], one["score"]) == (other["response"], other["finish"], other["score"])
    assert theirs["harness"]["versions"]["vllm"] == "0.11.0"
    assert mine["harness_digest"] != theirs["harness_digest"], "what answered is part of how it was measured"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hellaswag", "arc-challenge", "mmlu", "ifeval", "healthbench", "humaneval"])
def test_shipped_benchmark_of_a_language_model_runs_from_rows_to_result(
    warm: Warm, model: Path, tmp_path: Path, name: str
) -> None:
    benchmark = load_benchmark(name)
    assert name in SHIPPED_ROWS and benchmark.hub is not None
    short = benchmark.fetched("f" * 40, write_data(name, tmp_path / "data"))
    if short.engine == "generate":
        object.__setattr__(short, "configuration", {**short.configuration, "generation": {"max_gen_toks": 4}})
    found = evaluated(warm, short, model, tmp_path)
    assert found["metric"] == benchmark.metric and found["n"] > 3
    assert 0 <= found["value"] <= 1
    assert found.get("judged") is (False if name == "healthbench" else None)
    if name == "hellaswag":
        assert found["samples"][0]["reference"] in ("cries.", "flies.", "is a chair.", "melts.")


@pytest.mark.slow
def test_named_task_that_is_none_is_told_in_one_line(warm: Warm, model: Path, tmp_path: Path) -> None:
    own = quiz(tmp_path, engine="lm_eval", lm_eval={"task": "no_such_task"}, generation=None)
    with pytest.raises(AssertionError, match="lm_eval: there is no task no_such_task"):
        evaluated(warm, own, model, tmp_path)


@pytest.mark.slow
def test_agent_uses_its_tools_and_submits(tmp_path: Path) -> None:
    """inspect-ai's own mock model calls bash, reads what it said, and submits: our task, tools and scores around it."""
    environment = os.environ.get("POSTDOC_INSPECT_ENVIRONMENT")
    if not environment:
        pytest.skip("POSTDOC_INSPECT_ENVIRONMENT names no environment with inspect-ai")
    script = tmp_path / "agent.py"
    script.write_text(f"""
import json, os, sys
sys.path.insert(0, {str(BUNDLE)!r})
os.environ.update(HOME={str(tmp_path)!r}, XDG_DATA_HOME={str(tmp_path)!r}, POSTDOC_RUN_CODE="1")
import agentic
from inspect_ai.model import ModelOutput, get_model
from inspect_ai.model._providers.mockllm import MockLLM
async def counted(self, text): return len(text.split())  # by a table from the network otherwise
MockLLM.count_text_tokens = counted
outputs = [ModelOutput.for_tool_call("mockllm/model", "bash", {{"cmd": "echo $((6 * 7))"}}),
           ModelOutput.for_tool_call("mockllm/model", "submit", {{"answer": "42"}})]
agentic.model_of = lambda *_: get_model("mockllm/model", custom_outputs=outputs)
benchmark = {{"inspect": {{"tools": ["bash"], "submit": True}}, "metric": "task_success", "engine": "inspect"}}
items = [{{"id": "one", "prompt": "What is six times seven?", "reference": "42"}}]
samples = agentic.run(None, benchmark, items)
print(json.dumps([samples, agentic.summary(samples)]))
""")
    done = subprocess.run(
        [str(Path(environment, "bin", "python")), str(script)], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-2000:]
    [sample], summary = json.loads(done.stdout.splitlines()[-1])
    assert sample["score"] == 1.0 and sample["turns"] == 2 and sample["finish"] == "stop"
    assert summary["mean_turns"] == 2
