"""The memory that training really takes on this machine's processor, against what was said before it.

Models with random weights are built, trained for three steps by the shipped script in a process of its own, and the
process's largest resident memory, less what its libraries take, is compared with the estimate. It is float32 on
processor cores; on a GPU the same counting holds, with other widths and another allocator, which this does not measure.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runners.hardware.estimate import GIB, memory_of
from runners.hardware.shape import shape_in
from runners.hardware.training import training_of

SCRIPT = Path(__file__).resolve().parent.parent.parent / "templates" / "scripts" / "sft.py"
BAR_MEDIAN, BAR_UNDER = 0.15, 0.10
STEPS = 2


@dataclass(frozen=True, slots=True)
class Case:
    """A model, a recipe and the length of its rows."""

    name: str
    model: dict[str, Any]
    length: int
    recipe: dict[str, Any] = field(default_factory=dict)


def qwen3(hidden: int, layers: int, words: int, **others: Any) -> dict[str, Any]:
    return {
        "model_type": "qwen3", "hidden_size": hidden, "num_hidden_layers": layers, "vocab_size": words,
        "intermediate_size": 3 * hidden, "num_attention_heads": hidden // 64, "num_key_value_heads": hidden // 128,
        "head_dim": 64, "max_position_embeddings": 2048, "tie_word_embeddings": True,
    } | others  # fmt: skip


def llama(hidden: int, layers: int, words: int, **others: Any) -> dict[str, Any]:
    return qwen3(hidden, layers, words) | {"model_type": "llama", "tie_word_embeddings": False} | others


def gpt2(hidden: int, layers: int, words: int) -> dict[str, Any]:
    return {
        "model_type": "gpt2", "n_embd": hidden, "n_layer": layers, "n_head": hidden // 64, "n_inner": 4 * hidden,
        "vocab_size": words, "n_positions": 1024,
    }  # fmt: skip


CHECKPOINTING = {"gradient_checkpointing": True}
ACCUMULATED = {"gradient_accumulation_steps": 2}
NARROW = {"use_peft": True, "lora_r": 8}
LORA = {"use_peft": True, "lora_r": 16, "lora_target_modules": "all-linear"}
CASES = (
    Case("qwen3 full", qwen3(512, 6, 16_000), 256, {"per_device_train_batch_size": 4}),
    Case("qwen3 full, long", qwen3(384, 4, 8_000), 1024, {"per_device_train_batch_size": 2}),
    Case("qwen3 checkpointing", qwen3(384, 6, 8_000), 1024, {"per_device_train_batch_size": 2, **CHECKPOINTING}),
    Case("qwen3 LoRA", qwen3(768, 8, 16_000), 256, {"per_device_train_batch_size": 4, **LORA}),
    Case("qwen3 LoRA q, v", qwen3(768, 8, 32_000), 128, {"per_device_train_batch_size": 8, **NARROW}),
    Case("qwen3 sgd", qwen3(768, 12, 32_000), 128, {"per_device_train_batch_size": 2, "optim": "sgd"}),
    Case("llama full, large", llama(768, 12, 32_000), 128, {"per_device_train_batch_size": 1}),
    Case("llama accumulation", llama(512, 8, 16_000), 128, {"per_device_train_batch_size": 2, **ACCUMULATED}),
    Case("gpt2 full", gpt2(512, 6, 16_000), 512, {"per_device_train_batch_size": 2}),
    Case("llama batch 8", llama(384, 6, 16_000), 128, {"per_device_train_batch_size": 8}),
    Case("llama LoRA, both", llama(512, 8, 16_000), 512, {"per_device_train_batch_size": 2, **LORA, **CHECKPOINTING}),
    Case("qwen3 adafactor", qwen3(640, 8, 16_000), 128, {"per_device_train_batch_size": 4, "optim": "adafactor"}),
    Case("llama sgd, long", llama(384, 4, 8_000), 1024, {"per_device_train_batch_size": 1, "optim": "sgd"}),
)


def measure(only: str = "") -> tuple[list[str], list[dict[str, Any]]]:
    """Lines to print, and what they were made of."""
    cases = [case for case in CASES if only in case.name]
    with tempfile.TemporaryDirectory(prefix="postdoc-bench-") as folder:
        process_gib = libraries_gib()
        results = [measured(case, Path(folder) / str(n), process_gib) for n, case in enumerate(cases)]
    return table(results, process_gib), results


def table(results: list[dict[str, Any]], process_gib: float) -> list[str]:
    errors = [result["ratio"] - 1 for result in results]
    return [
        f"Memory of training in float32 on this processor, beyond the {process_gib:.2f} GiB of libraries",
        f"  {'':<20} {'parameters':>10} {'batch':>5} {'length':>6} {'estimate':>9} {'measured':>9} {'ratio':>6}",
        *(
            f"  {r['name']:<20} {r['parameters'] / 1e6:>8.1f} M {r['batch']:>5} {r['length']:>6} "
            f"{r['estimate_gib']:>5.2f} GiB {r['measured_gib']:>5.2f} GiB {r['ratio']:>6.2f}"
            for r in results
        ),
        f"  median error {100 * statistics.median(map(abs, errors)):.0f} % (bar {100 * BAR_MEDIAN:.0f} %), "
        f"worst under {-100 * min(0.0, *errors):.0f} % (bar {100 * BAR_UNDER:.0f} %), "
        f"worst over {100 * max(0.0, *errors):.0f} %",
    ]


def libraries_gib() -> float:
    """What the script's process takes when everything is imported and nothing is loaded."""
    code = "import runpy, sys; runpy.run_path(sys.argv[1], run_name='imported')"
    return peak_of([sys.executable, "-c", code, str(SCRIPT)])


def measured(case: Case, folder: Path, process_gib: float) -> dict[str, Any]:
    recipe = case.recipe | {"max_length": case.length, "max_steps": STEPS}
    write_inputs(case, folder, recipe)
    shape = shape_in(folder / "model")
    said = memory_of(shape, training_of(recipe, gpu=False), gpu=False, process_gib=0.0)
    peak = (
        peak_of([sys.executable, str(SCRIPT), "--config", "recipe.yaml", "--init_from", "model"], folder) - process_gib
    )
    return {
        "name": case.name, "parameters": shape.parameters, "length": case.length,
        "batch": recipe["per_device_train_batch_size"], "estimate_gib": said.total_gib, "measured_gib": peak,
        "ratio": said.total_gib / peak, "parts": said.as_dict(),
    }  # fmt: skip


def write_inputs(case: Case, folder: Path, recipe: dict[str, Any]) -> None:
    """The model with random weights, a tokenizer with one word a token, rows of two lengths, the recipe."""
    folder.mkdir(parents=True)
    spec = {"model": case.model, "folder": str(folder / "model")}
    subprocess.run(
        [sys.executable, "-c", _BUILD, json.dumps(spec)], check=True, capture_output=True, env=_environment()
    )
    words = case.model["vocab_size"] - 10
    (folder / "data").mkdir()
    rows = [case.length - 1 if n % 2 == 0 else 3 * case.length // 4 for n in range(64)]
    texts = (" ".join(f"w{(7 * n + 13 * i) % words}" for i in range(size)) for n, size in enumerate(rows))
    (folder / "data" / "train.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    settings = {"save_strategy": "no", "learning_rate": 1e-4} | recipe
    (folder / "recipe.yaml").write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in settings.items()))


_BUILD = """
import json, sys
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast
spec = json.loads(sys.argv[1])
model = dict(spec["model"])
last = model["vocab_size"] - 1
words = {f"w{n}": n for n in range(last - 1)} | {"<end>": last - 1, "<pad>": last}
tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
whole = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<pad>")
whole.save_pretrained(spec["folder"])
config = AutoConfig.for_model(model.pop("model_type"), **model, eos_token_id=words["<end>"], bos_token_id=None)
AutoModelForCausalLM.from_config(config).save_pretrained(spec["folder"])
"""


def peak_of(command: list[str], folder: Path | None = None) -> float:
    """GiB: the largest resident memory of a child that ends well."""
    child = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=_environment())
    assert child.stderr is not None
    said = child.stderr.read().decode(errors="replace")
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {child.returncode}: {said[-2000:]}")
    return usage.ru_maxrss * 1024 / GIB


def _environment() -> dict[str, str]:
    return dict(os.environ) | {"OMP_NUM_THREADS": "2", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
