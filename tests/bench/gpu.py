"""Training speed and memory on a GPU, beside TRL's own example script in the same run: `make bench-gpu`.

    python -m tests.bench.gpu                       # Qwen3-1.7B with random weights, 50 steps by each script
    python -m tests.bench.gpu --only sft,dpo --steps 20 --json FILE
    python -m tests.bench.gpu --dry                 # the same path with a tiny model on a processor: no figure counts

Both scripts run in a process of their own, through `gpu_child.py`, which times each step and asks for the peak memory
in one way for both. They see the same rows, and every row has the same length, so that an update has the same tokens;
batch, length, precision and checkpointing are written out for both. The loss curves are compared step by step. Packing
and checkpointing are cases of their own, because they change what an update is made of.

Where there is no CUDA device, one line says so and nothing is measured. Not covered: several GPUs, vLLM.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runners.hardware.estimate import memory_of
from runners.hardware.gpus import gpu_named
from runners.hardware.shape import shape_in
from runners.hardware.time import time_of
from runners.hardware.training import training_of
from tests.bench.printing import machine

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "templates" / "scripts"
CHILD = Path(__file__).with_name("gpu_child.py")
AIM = 1.5
"""Times the tokens a second of TRL's example script."""
WARM_STEPS = 3
"""At the start, not timed: allocation, compilation, the optimizer's states."""
QWEN3_1_7B = {
    "model_type": "qwen3", "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28,
    "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936,
    "max_position_embeddings": 40960, "rope_theta": 1000000.0, "tie_word_embeddings": True,
}  # fmt: skip
"""https://huggingface.co/Qwen/Qwen3-1.7B/blob/main/config.json"""
TINY = QWEN3_1_7B | {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 512, "max_position_embeddings": 512,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Case:
    """One comparison."""

    name: str
    method: str
    theirs: str | None
    """TRL's example script; None where it has none for the method."""
    recipe: dict[str, Any] = field(default_factory=dict)
    ours: tuple[str, ...] = ()
    """Flags of our script alone."""
    flags: tuple[str, ...] = ()
    """Flags of TRL's alone."""
    short_rows: bool = False
    """Rows of a quarter of the length, for packing."""


CHECKPOINTED, PLAIN = {"gradient_checkpointing": True}, {"gradient_checkpointing": False}
SAMPLED = {"max_completion_length": 128, "temperature": 1.0}
CASES = (
    Case("sft", "sft", "sft.py", PLAIN),
    Case("sft, checkpointing", "sft", "sft.py", CHECKPOINTED),
    Case("sft, packing", "sft", "sft.py", PLAIN | {"packing": True}, short_rows=True),
    Case("pretrain", "pretrain", "sft.py", PLAIN),
    Case("dpo", "dpo", "dpo.py", CHECKPOINTED | {"per_device_train_batch_size": 2}),
    Case("reward", "reward", "reward.py", CHECKPOINTED | {"per_device_train_batch_size": 2}),
    Case(
        "grpo", "grpo", "grpo.py", CHECKPOINTED | SAMPLED | {"num_generations": 4, "beta": 0.0},
        ("--reward_functions", "think_format"), ("--reward_funcs", "think_format_reward"),
    ),
    Case(
        "distill", "distill", "distillation.py", CHECKPOINTED | SAMPLED, ("--teacher", "{model}"),
        ("--teacher_model_name_or_path", "{model}"),
    ),
)  # fmt: skip
# rft.py and synthetic.py train by sft.py's own trainer, once they have generated.


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="Methods or names of cases, with commas between them.")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--length", type=int, default=1024, help="Tokens of a row.")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--dry", action="store_true", help="A tiny model on a processor, to see that it all runs.")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    device = "" if arguments.dry else cuda_device()
    if not arguments.dry and not device:
        print("bench-gpu needs a CUDA device, and torch sees none here: nothing was measured")
        return 0
    if arguments.dry:
        arguments.steps, arguments.length, arguments.batch = min(arguments.steps, 5), 64, 4
    wanted = {word.strip() for word in arguments.only.split(",") if word.strip()}
    cases = [case for case in CASES if not wanted or {case.name, case.method} & wanted]
    if not cases:
        print(f"--only names none of: {', '.join(case.name for case in CASES)}", file=sys.stderr)
        return 2
    print(f"{machine()}; {device or 'dry run: no figure below counts'}; {arguments.steps} steps, "
          f"{arguments.length} tokens a row\n" + HEAD, flush=True)  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="postdoc-bench-") as place:
        model = build_model(Path(place) / "model", TINY if arguments.dry else QWEN3_1_7B)
        results = []
        for number, case in enumerate(cases):
            results.append(compared(case, Path(place) / str(number), model, device, arguments))
            print(line(results[-1]), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps({"device": device, "cases": results}, indent=1) + "\n")
    return 0


def cuda_device() -> str:
    """The first GPU's name, empty without one; asked in a process of its own, because this one holds no GPU."""
    code = "import torch; print(torch.cuda.get_device_name(0) if torch.cuda.is_available() else '')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


# --- One case -------------------------------------------------------------------------------------------------------


def compared(case: Case, folder: Path, model: Path, device: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Both scripts on the same rows, and what was estimated before."""
    write_rows(case, folder, arguments)
    recipe = {
        "per_device_train_batch_size": arguments.batch, "gradient_accumulation_steps": 1, "learning_rate": 1.0e-5,
        "max_steps": arguments.steps, "lr_scheduler_type": "constant", "logging_steps": 1, "save_strategy": "no",
        "report_to": "none", "seed": 0, "bf16": bool(device), "dtype": "float32",
    } | case.recipe  # fmt: skip
    if case.method not in ("grpo", "distill"):
        recipe["max_length"] = arguments.length
    if arguments.dry and "max_completion_length" in recipe:
        recipe["max_completion_length"] = 16
    given = {name: [word.format(model=model) for word in words] for name, words in
             (("ours", case.ours), ("theirs", case.flags))}  # fmt: skip
    (folder / "recipe.yaml").write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in recipe.items()))
    (folder / "rewards.py").write_bytes((SCRIPTS / "rewards.py").read_bytes())
    ours = measured(folder, "ours", SCRIPTS / f"{case.method}.py", [
        "--config", "recipe.yaml", "--method", case.method, "--init_from", str(model), "--probe_rows", "0",
        "--output_dir", "out-ours", *given["ours"],
        *(["--check_rewards", "false"] if case.method == "grpo" else []),
    ])  # fmt: skip
    found: dict[str, Any] = {"name": case.name, "method": case.method, "recipe": recipe, "ours": ours}
    if case.theirs:
        found["theirs"] = measured(folder, "theirs", trl_scripts() / case.theirs, [
            "--config", "recipe.yaml", "--model_name_or_path", str(model), "--dataset_name", str(folder / "data"),
            "--output_dir", "out-theirs", *([] if device else ["--use_cpu", "True"]), *given["theirs"],
        ])  # fmt: skip
    rows = recipe["per_device_train_batch_size"] * (2 if case.method in ("dpo", "reward") else 1)
    tokens = rows * arguments.length
    for side in ("ours", "theirs"):
        if "seconds_per_step" in found.get(side, {}):
            found[side]["tokens_per_second"] = tokens / found[side]["seconds_per_step"]
    return found | estimated(model, case.method, recipe, device, rows=recipe["per_device_train_batch_size"],
                             length=arguments.length)  # fmt: skip


def measured(folder: Path, name: str, script: Path, words: list[str]) -> dict[str, Any]:
    """{"seconds_per_step", "peak_memory_gib", "losses"}, or {"failed": the last line that it said}."""
    shutil.copy(script, folder / f"{name}.py")
    command = [sys.executable, str(CHILD), str(folder / f"{name}.json"), f"{name}.py", *words]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES":
                                os.environ.get("CUDA_VISIBLE_DEVICES", "0")}  # fmt: skip
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [one for one in (done.stderr + done.stdout).splitlines() if one.strip()]
        return {"failed": said[-1] if said else f"exit code {done.returncode}"}
    seen = json.loads((folder / f"{name}.json").read_text())
    between = [later - earlier for earlier, later in zip(seen["ended"], seen["ended"][1:], strict=False)]
    timed = between[WARM_STEPS - 1 :] or between
    return {
        "seconds_per_step": statistics.median(timed),
        "peak_memory_gib": seen["peak_memory_gib"],
        "losses": seen["losses"],
    }


def estimated(
    model: Path, method: str, recipe: dict[str, Any], device: str, *, rows: int, length: int
) -> dict[str, Any]:
    """What runners/hardware says before the run. The speed of a GPU that it does not know is not guessed."""
    shape = shape_in(model)
    training = training_of(recipe | {"method": method}, gpu=bool(device), longest=length)
    gpu = gpu_named(device) if device else None
    time = time_of(shape, training, rows=rows, tokens_per_row=length, gpu=gpu) if gpu or not device else None
    return {
        "estimated_gib": memory_of(shape, training, gpu=bool(device)).total_gib,
        "estimated_seconds_per_step": time.seconds_per_step if time else None,
    }


HEAD = (
    f"{'':<20} {'tokens/s':>9} {'TRL':>9} {'ratio':>6} {'peak GiB':>9} {'TRL':>7} {'estimate':>9} "
    f"{'s a step':>9} {'estimate':>9} {'loss differs by':>16}"
)


def line(found: dict[str, Any]) -> str:
    ours, theirs = found["ours"], found.get("theirs", {})
    for side, words in ((ours, "ours"), (theirs, "TRL's")):
        if "failed" in side:
            return f"{found['name']:<20} {words} failed: {side['failed'][:140]}"
    ratio = ours["tokens_per_second"] / theirs["tokens_per_second"] if theirs else None
    return (
        f"{found['name']:<20} {ours['tokens_per_second']:>9,.0f} {cell(theirs.get('tokens_per_second'), ',.0f'):>9} "
        f"{cell(ratio, '.2f'):>6} {ours['peak_memory_gib']:>9.1f} {cell(theirs.get('peak_memory_gib'), '.1f'):>7} "
        f"{found['estimated_gib']:>9.1f} {ours['seconds_per_step']:>9.3f} "
        f"{cell(found['estimated_seconds_per_step'], '.3f'):>9} {cell(loss_difference(ours, theirs), '.4f'):>16}"
    )


def cell(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def loss_difference(ours: dict[str, Any], theirs: dict[str, Any]) -> float | None:
    """Mean absolute difference of the two curves, over the steps that both have."""
    pairs = list(zip(ours["losses"], theirs.get("losses", []), strict=False))
    return statistics.fmean(abs(one - other) for one, other in pairs) if pairs else None


# --- What they train on ---------------------------------------------------------------------------------------------


def write_rows(case: Case, folder: Path, arguments: argparse.Namespace) -> None:
    """Rows of one length in the columns that the method and TRL's script both read; a character is a token."""
    rng = random.Random("bench-gpu")
    length = arguments.length // (4 if case.short_rows else 1)

    def text(size: int) -> str:
        return "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(size))

    def row() -> dict[str, Any]:
        prompt = [{"role": "user", "content": text(length // 2 - 3)}]  # three special tokens
        answer = length - length // 2 - 1  # and an end token
        if case.method == "pretrain":
            return {"text": text(length)}
        if case.method in ("dpo", "reward"):
            sides = {side: [{"role": "assistant", "content": text(answer)}] for side in ("chosen", "rejected")}
            return {"prompt": prompt, **sides}
        return {"prompt": prompt, "completion": [{"role": "assistant", "content": text(answer)}]}

    rows = [row() for _ in range(max(64, arguments.batch * 16 * (4 if case.short_rows else 1)))]
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def build_model(folder: Path, configuration: dict[str, Any]) -> Path:
    spec = json.dumps({"model": configuration, "folder": str(folder)})
    variables = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", _BUILD, spec], check=True, cwd=ROOT, env=variables, capture_output=True)
    return folder


_BUILD = """
import json, sys, torch
from transformers import AutoConfig, AutoModelForCausalLM
from bot.practice.tiny_base import byte_tokenizer
spec = json.loads(sys.argv[1])
model = dict(spec["model"])
torch.manual_seed(0)
tokenizer = byte_tokenizer()
tokenizer.save_pretrained(spec["folder"])
config = AutoConfig.for_model(model.pop("model_type"), **model, eos_token_id=1, pad_token_id=0, bos_token_id=None)
AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(spec["folder"])
"""


def trl_scripts() -> Path:
    """TRL's example scripts as they are installed; found without importing TRL."""
    import importlib.util

    found = importlib.util.find_spec("trl")
    assert found is not None and found.origin is not None, "trl is not installed: make setup"
    return Path(found.origin).parent / "scripts"


if __name__ == "__main__":
    sys.exit(main())
