"""The training script end to end on a base with random weights: what it writes, audits, resumes and probes."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from bot.practice.warm import Warm
from runners.hardware.time import Probe
from tests.templates.conftest import EVALUATE, Job, chat, chat_rows, run_warm

pytestmark = pytest.mark.timeout(600)


def weights(job: Job) -> str:
    return hashlib.sha256((job.out / "model" / "model.safetensors").read_bytes()).hexdigest()


def test_smoke_run_in_a_process_of_its_own_writes_all_that_its_header_promises(
    tmp_path: Path, untrained_base: Path, warm: Warm
) -> None:
    job = Job(tmp_path / "job", untrained_base)
    job.data(chat_rows(200))
    job.data(chat_rows(20, seed=7), "validation")
    done = job.run("--smoke")
    assert done.stderr == "", "a healthy run says nothing on stderr"
    steps = [row for row in job.metrics if "loss" in row]
    assert [row["step"] for row in steps] == [1, 2]
    assert {"loss", "grad_norm", "learning_rate", "mean_token_accuracy", "epoch"} <= steps[0].keys()
    assert any("eval_loss" in row for row in job.metrics)
    assert job.json("setup.json")["max_steps"] == 2
    assert job.json("setup.json")["parameters"] == job.json("setup.json")["trainable_parameters"] == 329_904
    assert job.json("summary.json")["global_step"] == 2
    assert json.loads((job.out / "trainer_state.json").read_text())["global_step"] == 2
    audit = job.json("data_audit.json")
    assert audit["rows"] == audit["supervised_eos_rows"] == audit["distinct_prompts"] == 64
    assert audit["truncated_rows"] == audit["zero_label_rows"] == audit["duplicate_rows"] == 0
    assert audit["pad_token_id"] == 0 and audit["eos_token_ids"] == [1]
    assert audit["template"] == {"train_prefix_equal_rows": 64, "compared_rows": 64, "double_bos_rows": 0}
    assert audit["vocabulary"]["tokenizer"] == audit["vocabulary"]["embeddings"] == 260
    assert audit["attention"] == {"implementation": "sdpa"} and audit["precision"]["dtype"] == "float32"
    assert audit["steps_per_epoch"] == 16 and audit["null_completions"] == audit["empty_completions"] == 0
    probes = [row for row in job.metrics if "probe/termination_rate" in row]
    assert [row["step"] for row in probes] == [1, 2] and 0 <= probes[0]["probe/exact_match"] <= 1
    asked = job.lines("completions.jsonl")
    assert len(asked) == 32 and asked[0].keys() == {"step", "prompt", "completion", "reference", "rewards", "finish"}
    assert not (job.out / "model" / "training_args.bin").exists()
    evaluate_the_model(job, warm)


def evaluate_the_model(job: Job, warm: Warm) -> None:
    """A random model, two questions: one that it cannot answer, one whose reference is what it says."""
    items = job.path / "items.jsonl"
    (job.path / "benchmark.yaml").write_text("name: practice/reverse\ngeneration: {max_gen_toks: 4}\n")
    command = [
        EVALUATE, "--model", job.out / "model", "--benchmark", job.path / "benchmark.yaml", "--items", items,
        "--split", "dev", "--output", job.path / "evaluation.json",
    ]  # fmt: skip
    items.write_text('{"id": "a", "prompt": "reverse abc", "reference": "cba"}\n')
    done = run_warm(warm, *command, cwd=job.path, name="evaluation.txt")
    assert done.returncode == 0, done.output
    found = json.loads((job.path / "evaluation.json").read_text())
    assert found["n"] == 1 and found["value"] == found["strict"] == found["lenient"] == 0.0
    assert found["benchmark"] == "practice/reverse" and found["split"] == "dev" and found["model"] == "model"
    assert [sample["id"] for sample in found["samples"]] == ["a"]
    assert found["samples"][0]["reference"] == "cba" and found["samples"][0]["finish"] in {"stop", "length"}
    assert len(found["harness_digest"]) == 64


def test_lora_run_audits_truncation_and_duplicates_and_leaves_a_whole_model(job: Job) -> None:
    short, long = chat("reverse abc", "cba"), chat("reverse abc", "cba" * 10)
    no_room = chat("reverse " + "a" * 40, "a" * 40)
    job.data([short] * 6 + [long] * 3 + [no_room])
    job.run("--smoke", use_peft=True, lora_r=2, lora_target_modules="all-linear", max_length=20)
    audit = job.json("data_audit.json")
    assert audit["rows"] == 10 and audit["duplicate_rows"] == 7 and audit["distinct_prompts"] == 2
    assert audit["truncated_rows"] == 4 and audit["dropped_rows"] == audit["zero_label_rows"] == 1
    assert audit["supervised_eos_rows"] == 6, "an answer that was cut has no end token any more"
    assert audit["token_lengths"]["max"] == 1 + 48 + 2 + 40 + 1
    assert audit["answer_token_lengths"]["p50"] == 4
    assert job.json("setup.json")["trainable_parameters"] < 50_000
    assert (job.out / "adapter" / "adapter_config.json").exists()
    assert not (job.out / "model" / "adapter_config.json").exists()
    assert (job.out / "model" / "config.json").exists() and (job.out / "model" / "tokenizer_config.json").exists()


def test_every_prompt_longer_than_max_length_is_refused_with_the_length_that_fits(job: Job) -> None:
    job.data(chat_rows(20))
    assert "all 20 prompts fill max_length: 5 alone; the longest row has 22" in job.refusal("--smoke", max_length=5)


@pytest.mark.slow
def test_resumed_run_ends_with_the_same_weights_as_an_uninterrupted_one(job: Job) -> None:
    job.data(chat_rows(60))
    recipe = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    job.run(**recipe)
    whole, uninterrupted = weights(job), job.metrics
    # The state that a kill after step 3 leaves: a whole checkpoint, a half-written one, metrics beyond both.
    shutil.rmtree(job.out / "model")
    (job.out / "checkpoint-4" / "optimizer.pt").unlink()
    job.run(**recipe)
    assert job.json("setup.json")["resumed_from"] == 2
    assert weights(job) == whole
    assert [(row["step"], row["loss"]) for row in job.metrics] == [(row["step"], row["loss"]) for row in uninterrupted]


@pytest.mark.slow
def test_killed_run_names_its_newest_whole_checkpoint_and_another_machine_goes_on_from_it(
    job: Job, untrained_base: Path, tmp_path: Path, warm: Warm
) -> None:
    job.data(chat_rows(60))
    recipe = {"max_steps": 6, "save_steps": 2, "save_total_limit": 1, "save_strategy": "steps"}
    job.run(**recipe)
    whole, uninterrupted = weights(job), job.metrics
    assert (job.out / "latest").read_text() == "checkpoint-6"
    assert [path.name for path in job.out.glob("checkpoint-*")] == ["checkpoint-6"], "older ones are deleted"

    # Killed at once when the first checkpoint is named, whatever it does at that moment.
    killed = Job(tmp_path / "killed", untrained_base, warm)
    killed.data(chat_rows(60))
    process = killed.start(**recipe)
    deadline = time.monotonic() + 120
    while not (killed.out / "latest").exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.002)
    process.kill()
    process.wait()
    newest = (killed.out / "latest").read_text()
    assert newest in ("checkpoint-2", "checkpoint-4")
    kept = tmp_path / "kept" / newest
    shutil.copytree(killed.out / newest, kept)
    half_written = killed.out / "checkpoint-5"
    shutil.copytree(kept, half_written)
    (half_written / "model.safetensors").write_bytes(b"cut off")

    killed.run(**recipe)
    assert killed.json("setup.json")["resumed_from"] == int(newest.rpartition("-")[2])
    assert weights(killed) == whole
    assert killed.metrics[-1]["step"] == 6
    losses = [(row["step"], row["loss"]) for row in uninterrupted if "loss" in row]
    assert [(row["step"], row["loss"]) for row in killed.metrics if "loss" in row] == losses

    elsewhere = Job(tmp_path / "elsewhere", untrained_base, warm)
    elsewhere.data(chat_rows(60))
    elsewhere.run("--resume_from_checkpoint", str(kept), **recipe)
    assert weights(elsewhere) == whole


def test_probe_compares_rates_from_the_same_start_and_trains_nothing(job: Job) -> None:
    job.data(chat_rows(200))
    job.run("--learning_rate_probe", "1e-7,3e-3,3e-3,30")
    probe = job.json("probe.json")
    idle, first, second, wild = probe["trials"]
    assert idle["loss_first"] == first["loss_first"] == wild["loss_first"]
    assert first == second, "the same rate twice gives the same numbers"
    assert first["loss_last"] < idle["loss_last"] and wild["diverged"] and not first["diverged"]
    assert probe["suggested"] == 3e-3 and "0.003" in probe["reason"]
    assert not (job.out / "model").exists() and not (job.out / "metrics.jsonl").exists()


def test_timing_probe_measures_a_step_and_trains_nothing(job: Job) -> None:
    job.data(chat_rows(200))
    done = job.run("--timing_probe", "4")
    timing = job.json("timing.json")
    assert timing["steps"] == 4 and 0 < timing["seconds_per_step"] < 60
    assert 0.2 < timing["peak_memory_gib"] < 8 and "timing:" in done.output
    assert Probe.from_dict(timing) == Probe(4, timing["seconds_per_step"], timing["peak_memory_gib"])
    assert not (job.out / "model").exists() and not (job.out / "metrics.jsonl").exists()


def test_timing_probe_of_too_few_steps_is_refused(job: Job) -> None:
    job.data(chat_rows(20))
    assert "timing_probe needs at least 3 steps" in job.refusal("--timing_probe", "1")


# --- A recipe means what it says ------------------------------------------------------------------------------------


def test_resumed_run_goes_on_counting_and_forgives_the_half_line_of_a_killed_one(job: Job) -> None:
    job.data(chat_rows(40))
    recipe = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "use_peft": True, "lora_r": 2}
    job.run(**recipe)
    whole, metrics, summary = weights(job), job.metrics, job.json("summary.json")
    shutil.rmtree(job.out / "checkpoint-4")
    with open(job.out / "metrics.jsonl", "a") as file:
        file.write('{"step": 5, "lo')
    job.run(**recipe)
    assert weights(job) == whole and job.json("setup.json")["resumed_from"] == 2
    assert [row.get("num_tokens") for row in job.metrics] == [row.get("num_tokens") for row in metrics]
    assert job.json("summary.json")["train_loss"] == summary["train_loss"]


def test_run_that_was_ended_before_its_model_was_saved_takes_no_further_step(job: Job) -> None:
    job.data(chat_rows(40))
    recipe = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1}
    job.run(**recipe)
    whole, metrics, summary = weights(job), job.metrics, job.json("summary.json")
    shutil.rmtree(job.out / "model")
    job.run(**recipe)
    assert weights(job) == whole and job.metrics == metrics
    assert job.json("summary.json")["global_step"] == 2
    assert job.json("summary.json")["train_loss"] == summary["train_loss"]


def test_recipe_that_wants_no_evaluation_gets_none(job: Job) -> None:
    job.data(chat_rows(20))
    job.data(chat_rows(4, seed=7), "validation")
    job.run(max_steps=1, eval_strategy="no", probe_rows=0)
    assert not any("eval_loss" in row for row in job.metrics)


def test_nothing_is_asked_for_which_the_model_has_no_positions(job: Job) -> None:
    job.data(chat_rows(20))
    job.data([chat("reverse " + "a" * 500, "a"), chat("reverse abc", "cba")], "validation")
    job.run("--smoke")
    assert {row["prompt"] for row in job.lines("completions.jsonl")} == {"reverse abc"}, "it has 512"


def other_template(job: Job, template: str | None) -> Path:
    """The base with another chat template, or with none."""
    folder = job.path / "other"
    shutil.copytree(job.base, folder)
    file, settings = folder / "chat_template.jinja", folder / "tokenizer_config.json"
    known = json.loads(settings.read_text())
    known.pop("chat_template", None)
    file.unlink(missing_ok=True)
    if template is not None:
        file.write_text(template)
    settings.write_text(json.dumps(known))
    return folder


def test_conversations_without_a_template_are_refused_with_the_key_that_brings_one(job: Job) -> None:
    job.data(chat_rows(8))
    line = job.refusal("--smoke", init_from=other_template(job, None))
    assert "has no chat template: set chat_template_path" in line


# The script as it runs where bitsandbytes is not installed, whether it is here or not.
WITHOUT_BITSANDBYTES = """
import runpy, sys
sys.modules["bitsandbytes"] = None
import transformers.trainer_optimizer
transformers.trainer_optimizer.is_bitsandbytes_available = lambda: False
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ({"optim": "paged_adamw_8bit"}, "optim: paged_adamw_8bit: You need to install `bitsandbytes`"),
        ({"load_in_8bit": True, "use_peft": True}, "load_in_8bit needs bitsandbytes, which is not installed here"),
    ],
)
def test_package_that_is_not_there_is_named_before_a_model_is_looked_for(
    job: Job, warm: Warm, recipe: dict[str, Any], words: str
) -> None:
    job.data(chat_rows(8))
    (job.path / "without.py").write_text(WITHOUT_BITSANDBYTES)
    done = run_warm(warm, "without.py", *job.command(init_from=Path("no-such-model"), **recipe), cwd=job.path)
    assert (done.returncode, done.output.count("\n")) == (2, 1), done.output
    assert words in done.output and "pip install" in done.output


def test_tools_reach_the_template_as_they_were_written(job: Job) -> None:
    """`datasets` by itself gives each dictionary the keys of all others, and drops columns that the first row lacks."""
    template = (
        "{%- if tools %}T{% endif -%}{%- for m in messages -%}{{ m.role[0] }}{{ m.content }}"
        "{%- if m.tool_calls %}{{ m.tool_calls[0].function.arguments | tojson }}{% endif -%}{%- endfor -%}"
    )
    rows: list[dict[str, Any]] = []
    for arguments in ({"a": 1}, {"b": 2}, {"c": 3}):
        call = {"type": "function", "function": {"name": "f", "arguments": arguments}}
        asks, calls = {"role": "user", "content": "q"}, {"role": "assistant", "content": "", "tool_calls": [call]}
        rows.append({"messages": [asks, calls]})
    rows[2]["tools"] = json.dumps([{"type": "function", "function": {"name": "f"}}])
    job.data(rows)
    job.run("--audit_only", init_from=other_template(job, template))
    lengths = job.json("data_audit.json")["token_lengths"]
    without = len("uqa") + len('{"a": 1}')
    assert lengths["p50"] == without and lengths["max"] == without + len("T")


def test_smoke_run_beside_a_run_that_may_go_on_changes_nothing_of_it(job: Job) -> None:
    job.data(chat_rows(64))
    recipe = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    job.run(**recipe)
    shutil.rmtree(job.out / "checkpoint-4")
    before = {path: path.read_bytes() for path in sorted(job.out.rglob("*")) if path.is_file()}
    job.run("--smoke", resume_from_checkpoint="out/checkpoint-2", **recipe)
    smoke = job.out / "smoke"
    assert json.loads((smoke / "setup.json").read_text())["resumed_from"] == 0
    assert json.loads((smoke / "summary.json").read_text())["global_step"] == 2
    assert not [*smoke.glob("checkpoint-*"), *smoke.glob("latest")]
    shutil.rmtree(smoke)
    assert {path: path.read_bytes() for path in sorted(job.out.rglob("*")) if path.is_file()} == before


def test_smoke_run_that_is_asked_for_a_checkpoint_makes_none(job: Job) -> None:
    job.data(chat_rows(64))
    job.out.mkdir()
    (job.out / "checkpoint_now").touch()
    job.run("--smoke")
    assert job.json("summary.json")["global_step"] == 2
    assert not [*job.out.glob("checkpoint-*"), *job.out.glob("latest")]
