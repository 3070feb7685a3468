"""The training script in two processes, on processors and over gloo as it would be on two GPUs over NCCL: the same loss
curve and the same model as one process with twice the batch, and one writer."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from bot.practice.warm import Warm
from runners.launching import CONFIG_FILE, SCRIPT_FILE, Sharding, accelerate_config
from tests.templates.conftest import QUICK, ROOT, SFT, Job, chat_rows, environment

pytestmark = pytest.mark.timeout(600)

# accelerate offers FSDP to GPUs only; told that gloo's processors are such devices, it runs the very same code on them.
_PROCESSORS_ARE_DEVICES = """
import builtins, os, sys
if os.environ.get("RANK"):
    importing = builtins.__import__

    def watched(name, *rest, **more):
        module = importing(name, *rest, **more)
        state = sys.modules.get("accelerate.state")
        if hasattr(state, "AcceleratorState"):
            builtins.__import__ = importing
            state.PartialState._prepare_backend = lambda *_, **__: ("gloo", state.DistributedType.MULTI_XPU)
        return module

    builtins.__import__ = watched
"""


def launched(job: Job, sharding: Sharding, *flags: str, **recipe: Any) -> subprocess.CompletedProcess[str]:
    sharded = sharding not in (Sharding.NONE, Sharding.REPLICATED)
    variables = environment(job.path)
    if sharded:
        (job.path / "shim").mkdir(exist_ok=True)
        (job.path / "shim" / "sitecustomize.py").write_text(_PROCESSORS_ARE_DEVICES)
        variables |= {"PYTHONPATH": str(job.path / "shim"), "ACCELERATE_TORCH_DEVICE": "cpu"}
        flags = (*flags, "--use_cpu", "False")
    (job.path / "recipe.yaml").write_text(yaml.safe_dump(QUICK | recipe))
    (job.path / CONFIG_FILE).write_text(accelerate_config(sharding, 2, cpu=not sharded))
    shutil.copy(ROOT / "templates" / SCRIPT_FILE, job.path / SCRIPT_FILE)
    shutil.copy(SFT, job.path / "train.py")
    command = [sys.executable, SCRIPT_FILE, "--config_file", CONFIG_FILE, "train.py", "--config", "recipe.yaml"]
    command += ["--init_from", str(job.base), "--output_dir", "out", *flags]
    return subprocess.run(
        command, cwd=job.path, env=variables, capture_output=True, text=True, timeout=300, check=False
    )


def losses(job: Job) -> list[float]:
    return [row["loss"] for row in job.metrics if "loss" in row]


def difference(one: Path, other: Path) -> float:
    """The largest of any weight. FSDP writes an output layer that is tied to the embeddings a second time."""
    from safetensors.torch import load_file

    left, right = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    tied = "model.embed_tokens.weight"
    return max(float((left[name] - right.get(name, right[tied])).abs().max()) for name in left)


@pytest.fixture
def pair(tmp_path: Path, untrained_base: Path, warm: Warm) -> tuple[Job, Job]:
    jobs = Job(tmp_path / "one", untrained_base, warm), Job(tmp_path / "two", untrained_base, warm)
    for job in jobs:
        job.data(chat_rows(64))
        job.data(chat_rows(8, seed=7), "validation")
    return jobs


@pytest.mark.slow
def test_two_processes_train_as_one_with_twice_the_batch_and_one_of_them_writes(pair):
    one, two = pair
    one.run(per_device_train_batch_size=8, max_steps=4)
    done = launched(two, Sharding.REPLICATED, per_device_train_batch_size=4, max_steps=4)
    assert done.returncode == 0, done.stderr
    assert losses(two) == pytest.approx(losses(one), abs=1e-4)
    assert [row["step"] for row in two.metrics] == [row["step"] for row in one.metrics]
    assert two.json("setup.json")["processes"] == 2
    assert done.stdout.count("done: 4 steps") == done.stdout.count("step 1/4 loss") == 1
    assert two.json("data_audit.json") == one.json("data_audit.json")
    assert sorted(path.name for path in two.out.iterdir()) == sorted(path.name for path in one.out.iterdir())
    assert difference(two.out / "model", one.out / "model") < 1e-4


def test_launcher_passes_on_the_scripts_own_words_and_code(tmp_path: Path) -> None:
    (tmp_path / CONFIG_FILE).write_text(accelerate_config(Sharding.REPLICATED, 2, cpu=True))
    (tmp_path / "train.py").write_text("import os, sys\nos.write(2, b'train.py: no\\n')\nsys.exit(2)\n")
    command = [sys.executable, str(ROOT / "templates" / SCRIPT_FILE), "--config_file", CONFIG_FILE, "train.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert set(done.stderr.strip().splitlines()) == {"train.py: no"}


@pytest.mark.slow
def test_wrong_recipe_ends_all_processes_with_the_scripts_own_words_and_code(pair):
    done = launched(pair[1], Sharding.REPLICATED, learnin_rate=1)
    assert done.returncode == 2
    assert set(done.stderr.strip().splitlines()) == {"train.py: unknown key learnin_rate; did you mean learning_rate?"}


@pytest.mark.slow
@pytest.mark.parametrize("sharding", [Sharding.GRADIENTS, Sharding.FULL])
def test_divided_model_trains_as_a_whole_one(pair, sharding):
    one, two = pair
    one.run(per_device_train_batch_size=8, max_steps=8)
    done = launched(two, sharding, per_device_train_batch_size=4, max_steps=8)
    assert done.returncode == 0, done.stderr
    assert losses(two) == pytest.approx(losses(one), abs=1e-3)
    assert difference(two.out / "model", one.out / "model") < 1e-3


@pytest.mark.slow
def test_adapter_of_a_divided_model_is_merged_into_a_whole_one(pair):
    one, two = pair
    recipe = {"max_steps": 8, "use_peft": True, "lora_r": 4, "lora_dropout": 0.0}  # each process would drop its own
    one.run(per_device_train_batch_size=8, **recipe)
    done = launched(two, Sharding.FULL, per_device_train_batch_size=4, **recipe)
    assert done.returncode == 0, done.stderr
    assert losses(two) == pytest.approx(losses(one), abs=1e-3)
    assert difference(two.out / "model", one.out / "model") < 1e-3
    assert (two.out / "adapter" / "adapter_model.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("sharding", [Sharding.REPLICATED, Sharding.FULL])
def test_run_of_two_processes_resumes_from_its_checkpoint(pair, sharding):
    one, two = pair
    recipe = {"per_device_train_batch_size": 4, "max_steps": 8, "save_strategy": "steps", "save_steps": 4}
    for job in pair:
        done = launched(job, sharding, **recipe)
        assert done.returncode == 0, done.stderr
    shutil.rmtree(two.out / "checkpoint-8")
    shutil.rmtree(two.out / "model")
    done = launched(two, sharding, **recipe)
    assert done.returncode == 0, done.stderr
    assert two.json("setup.json")["resumed_from"] == 4
    assert losses(two) == pytest.approx(losses(one), abs=1e-5)
    assert difference(two.out / "model", one.out / "model") < 1e-5
