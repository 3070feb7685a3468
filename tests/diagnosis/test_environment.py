"""Faults of machine, network and libraries, each in the words that the libraries themselves print."""

from __future__ import annotations

from typing import Any

import pytest

from bot.diagnosis import diagnose
from bot.diagnosis.logs import last_crash
from bot.domain.diagnosis import Diagnosis, Severity, Symptom

START = "Traceback (most recent call last):\n"
MAIN = '  File "/job/train.py", line 88, in main\n    trainer.train()\n'


def frames(*lines: tuple[str, int, str]) -> str:
    return START + MAIN + "".join(f'  File "/venv/lib/{path}", line {n}, in {name}\n' for path, n, name in lines)


CUDA = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.90 GiB. GPU 0 has a total capacity of 79.11 GiB "
    "of "
    "which 1.62 GiB is free. Process 4711 has 77.48 GiB memory in use. Of the allocated memory 74.20 GiB is allocated "
    "by "
    "PyTorch, and 2.61 GiB is reserved by PyTorch but unallocated.\n"
)
WATCHDOG = (
    "[rank1]:[E ProcessGroupNCCL.cpp:629] [Rank 1] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=4181, "
    "OpType=ALLREDUCE, NumelIn=29360128, NumelOut=29360128, Timeout(ms)=600000) ran for 600032 milliseconds before "
    "timing "
    "out.\n"
)
GATED = (
    "huggingface_hub.errors.GatedRepoError: 403 Client Error. (Request ID: Root=1-6;a)\n\nCannot access gated repo for "
    "url https://huggingface.co/meta-llama/Llama-3.1-8B/resolve/main/config.json.\nAccess to model "
    "meta-llama/Llama-3.1-8B "
    "is restricted and you are not in the authorized list.\n"
)
CHILD = START + (
    '  File "/venv/bin/torchrun", line 8, in <module>\n'
    "torch.distributed.elastic.multiprocessing.errors.ChildFailedError: train.py FAILED\n"
)
LOGS: dict[str, tuple[str, Symptom]] = {
    "nccl watchdog": (WATCHDOG, Symptom.NCCL_TIMEOUT),
    "gloo": (
        frames(("torch/distributed/distributed_c10d.py", 2806, "all_reduce"))
        + "RuntimeError: [/pytorch/third_party/gloo/gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting "
        "60000ms for "
        "recv operation to complete\n",
        Symptom.NCCL_TIMEOUT,
    ),
    "gated": (frames(("huggingface_hub/utils/_http.py", 730, "hf_raise_for_status")) + GATED, Symptom.AUTH),
    "gated by transformers": (
        START + MAIN + "OSError: You are trying to access a gated repo.\nMake sure to have access to it at "
        "https://huggingface.co/google/gemma-2-2b.\n401 Client Error.\n",
        Symptom.AUTH,
    ),
    "private or absent": (
        START
        + MAIN
        + "huggingface_hub.errors.RepositoryNotFoundError: 401 Client Error.\n\nRepository Not Found for url: "
        "https://huggingface.co/api/models/team/secret.\n",
        Symptom.AUTH,
    ),
    "forbidden write": (
        START + MAIN + "huggingface_hub.errors.HfHubHTTPError: \n\n403 Forbidden: You don't have the rights.\n",
        Symptom.AUTH,
    ),
    "too many requests": (
        START
        + MAIN
        + "huggingface_hub.errors.HfHubHTTPError: \n\n429 Too Many Requests: you have reached your 'api' rate "
        "limit.\nRetry after 182 seconds (0/1000 requests remaining in current 300s window).\nUrl: "
        "https://huggingface.co/api/datasets/team/rows/tree/main.\n",
        Symptom.RATE_LIMIT,
    ),
    "loading script": (
        frames(("datasets/load.py", 1058, "dataset_module_factory"))
        + "RuntimeError: Dataset scripts are no longer supported, but found piqa.py\n",
        Symptom.DATASET_SCRIPT,
    ),
    "no flash-attn": (
        START
        + MAIN
        + "ImportError: FlashAttention2 has been toggled on, but it cannot be used due to the following error: "
        "the package flash_attn seems to be not installed.\n",
        Symptom.DEPS,
    ),
    "built for another torch": (
        START + MAIN + "ImportError: /venv/lib/flash_attn_2_cuda.cpython-311-x86_64-linux-gnu.so: undefined symbol: "
        "_ZN3c105ErrorC2ENS_14SourceLocationENSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE\n",
        Symptom.DEPS,
    ),
    "no vllm": (START + MAIN + "ModuleNotFoundError: No module named 'vllm'\n", Symptom.DEPS),
    "disk": (
        frames(("safetensors/torch.py", 307, "save_file"))
        + "safetensors_rust.SafetensorError: Error while serializing: IoError(Os "
        "{ code: 28, kind: StorageFull, message: "
        '"No space left on device" })\n',
        Symptom.DISK_FULL,
    ),
    "file size": (START + MAIN + "OSError: [Errno 27] File too large\n", Symptom.DISK_FULL),
    "loader killed": (
        frames(("torch/utils/data/dataloader.py", 1251, "_try_get_data"))
        + "RuntimeError: DataLoader worker (pid 4711) is killed by signal: Killed.\n",
        Symptom.HOST_OOM,
    ),
    "shared memory": (
        START + MAIN + "RuntimeError: DataLoader worker (pid 12) is killed by signal: Bus error. It is possible that "
        "dataloader's workers are out of shared memory.\n",
        Symptom.HOST_OOM,
    ),
    "unscale": (
        frames(("torch/amp/grad_scaler.py", 275, "_unscale_grads_"))
        + "ValueError: Attempting to unscale FP16 gradients.\n",
        Symptom.DTYPE,
    ),
    "no bf16": (
        START
        + MAIN
        + "ValueError: Your setup doesn't support bf16/gpu. You need to assign use_cpu if you want to train "
        "the model on CPU.\n",
        Symptom.DTYPE,
    ),
    "no such layers": (
        START
        + MAIN
        + "ValueError: Target modules {'query_key_value'} not found in the base model. Please check the target "
        "modules and try again.\n",
        Symptom.LORA_TARGETS,
    ),
    "all frozen": (
        frames(("torch/autograd/graph.py", 841, "_engine_run_backward"))
        + "RuntimeError: element 0 of tensors does not require grad and does not have a grad_fn\n",
        Symptom.FROZEN,
    ),
    "id outside": (
        frames(("torch/nn/functional.py", 2546, "embedding")) + "IndexError: index out of range in self\n",
        Symptom.TOKENIZER,
    ),
    "no markers": (
        START + MAIN + "ValueError: You set `assistant_only_loss=True`, but the chat template has no {% generation %} "
        "keyword.\n",
        Symptom.ASSISTANT_MASK_EMPTY,
    ),
    "no markers, refused by the script": (
        "train.py: The chat template is not training-compatible (missing prefix-preservation or `{% generation %}` "
        "markers) and patching is not supported for this template\n",
        Symptom.ASSISTANT_MASK_EMPTY,
    ),
    "id outside, refused by the script": (
        "train.py: the data holds token id 300, and the model has 260 embeddings: the tokenizer in init_from is not "
        "this "
        "model's\n",
        Symptom.TOKENIZER,
    ),
    "shapes": (
        START + MAIN + "RuntimeError: mat1 and mat2 shapes cannot be multiplied (32x96 and 128x256)\n",
        Symptom.SCRIPT_ERROR,
    ),
    "memory, under torchrun": (frames(("torch/nn/modules/linear.py", 134, "forward")) + CUDA + CHILD, Symptom.OOM),
}


def crashed(folder: Any, log: str, recipe: str = "learning_rate: 1.0e-4\n", **parts: Any) -> Diagnosis:
    job = {"state": "failed", "failure": "script_error", "exit_code": 1}
    diagnoses = diagnose(folder(recipe, log="step 1 loss 2.0\n" + log, job=job, **parts)).diagnoses
    assert len(diagnoses) == 1, [d.cause for d in diagnoses]
    return diagnoses[0]


@pytest.mark.parametrize("name", LOGS)
def test_end_of_the_log_is_named_in_the_libraries_own_words(folder: Any, name: str) -> None:
    log, symptom = LOGS[name]
    found = crashed(folder, log)
    assert (found.symptom, found.severity) == (symptom, Severity.FATAL), found.cause
    assert found.refuted_by and found.runner_up and len(found.evidence) >= 2


@pytest.mark.parametrize("name", LOGS)
def test_words_of_a_crash_in_a_job_that_ended_well_say_nothing(folder: Any, name: str) -> None:
    assert not diagnose(folder(log=LOGS[name][0], job={"state": "succeeded"})).diagnoses


def marked(rank: int, text: str) -> str:
    """As PyTorch prints an uncaught exception of one process among several."""
    return "".join(f"[rank{rank}]: {line}\n" for line in text.splitlines())


def test_traceback_of_one_process_among_several_is_read_like_any_other(folder: Any) -> None:
    failed = frames(("datasets/formatting.py", 12, "_getitem")) + "KeyError: 'completion'\n"
    followed = frames(("torch/distributed/distributed_c10d.py", 2806, "all_reduce")) + (
        "RuntimeError: [/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer\n"
    )
    pairs = zip(marked(1, failed).splitlines(), marked(0, followed).splitlines(), strict=True)
    mixed = "".join(f"{one}\n{other}\n" for one, other in pairs)
    found = crashed(folder, "[rank0]:[W1121 07:00:59.97 reducer.cpp:1529] Warning: find_unused_parameters\n" + mixed)
    assert found.symptom is Symptom.WRONG_COLUMNS, found.cause
    crash = last_crash(marked(3, START + MAIN + "ZeroDivisionError: division by zero\n"))
    assert crash is not None and crash.script_line == ("train.py", 88)
    assert crash.exception == "ZeroDivisionError: division by zero" and crash.where == "train.py:88 in main"


@pytest.mark.parametrize(
    ("where", "phase", "key", "suggested"),
    [
        (("transformers/modeling_utils.py", 5000, "from_pretrained"), "load", "dtype", "bfloat16"),
        (("torch/nn/modules/module.py", 1775, "forward"), "forward", "per_device_train_batch_size", 4),
        (("torch/optim/adamw.py", 232, "step"), "step", "optim", "adafactor"),
        (("trl/trainer/grpo_trainer.py", 900, "_get_per_token_logps_and_entropies"), "logps",
         "per_device_train_batch_size", 4),
        (("vllm/worker/gpu_worker.py", 230, "init_device"), "vllm", "vllm_gpu_memory_utilization", 0.3),
    ],
)  # fmt: skip
def test_out_of_memory_is_remedied_by_the_part_that_ran_out(
    folder: Any, where: tuple[str, int, str], phase: str, key: str, suggested: object
) -> None:
    found = crashed(folder, frames(where) + CUDA, "method: grpo\nnum_generations: 8\nlearning_rate: 1.0e-6\n")
    assert (found.symptom, found.key, found.suggested) == (Symptom.OOM, key, suggested)
    assert any(e.key == "phase" and e.value == phase for e in found.evidence)


def test_backward_is_told_from_forward(folder: Any) -> None:
    log = (
        START
        + MAIN
        + '  File "/venv/lib/accelerate/accelerator.py", line 2553, in backward\n    loss.backward()\n'
        + CUDA
    )
    crash = last_crash(log)
    assert crash is not None and (crash.symptom, crash.phase) == (Symptom.OOM, "backward")


def test_gated_model_blames_the_line_that_names_it(folder: Any) -> None:
    found = crashed(folder, START + MAIN + GATED, "data_sources: a/b\ninit_from: meta-llama/Llama-3.1-8B\n")
    assert (found.key, found.line) == ("init_from", 2) and "meta-llama/Llama-3.1-8B" in found.cause


def test_loading_script_blames_the_data(folder: Any) -> None:
    found = crashed(folder, LOGS["loading script"][0], "init_from: a/b\ndataset_name: ybisk/piqa\n")
    assert (found.key, found.line) == ("dataset_name", 2)


def test_missing_flash_attention_falls_back_to_the_one_that_is_there(folder: Any) -> None:
    found = crashed(folder, LOGS["no flash-attn"][0], "attn_implementation: flash_attention_2\n")
    assert (found.key, found.line, found.suggested) == ("attn_implementation", 1, "sdpa")


def test_missing_import_blames_the_scripts_line(folder: Any) -> None:
    found = crashed(folder, LOGS["no vllm"][0])
    assert (found.file, found.line, found.key) == ("train.py", 88, None)


def test_exception_without_a_name_blames_the_line_that_raised_it(folder: Any) -> None:
    found = crashed(folder, LOGS["shapes"][0])
    assert (found.symptom, found.file, found.line) == (Symptom.SCRIPT_ERROR, "train.py", 88)
    assert "32x96 and 128x256" in found.cause


def test_library_error_about_a_key_blames_the_key(folder: Any) -> None:
    words = "ValueError: generation_batch_size (60) must be divisible by num_generations (8).\n"
    found = crashed(folder, START + MAIN + words, "method: grpo\nnum_generations: 8\n")
    assert (found.symptom, found.key, found.line) == (Symptom.SCRIPT_ERROR, "num_generations", 2)


def test_killed_beside_a_gpu_is_the_hosts_memory(folder: Any, build: Any) -> None:
    job = {"state": "failed", "failure": "signal", "exit_code": 137}
    path = folder(
        "dataloader_num_workers: 8\n", job=job, setup={"gpus": 1, "device": "cuda:0"}, metrics=build.curve([1.0] * 9)
    )
    (found,) = diagnose(path).diagnoses
    assert (found.symptom, found.key, found.suggested) == (Symptom.HOST_OOM, "dataloader_num_workers", 0)


def test_time_limit_that_kills_is_no_lack_of_memory(folder: Any, build: Any) -> None:
    job = {"state": "failed", "failure": "timeout", "exit_code": 137}
    (found,) = diagnose(folder("max_steps: 90\n", job=job, metrics=build.curve([1.0] * 30))).diagnoses
    assert found.symptom is Symptom.JOB_TIMEOUT


def test_full_disk_keeps_fewer_checkpoints(folder: Any) -> None:
    found = crashed(folder, LOGS["disk"][0], "save_steps: 50\n")
    assert (found.key, found.suggested) == ("save_total_limit", 1)
    again = crashed(folder, LOGS["disk"][0], "save_steps: 50\nsave_total_limit: 1\n")
    assert (again.key, again.suggested, again.line) == ("save_steps", 200, 1)


def test_silence_of_half_an_hour_is_a_stall(folder: Any, build: Any) -> None:
    job = {"state": "running", "seconds_since_output": 2400}
    (found,) = diagnose(folder(job=job, metrics=build.curve([1.0] * 9))).diagnoses
    assert found.symptom is Symptom.STALL
    quiet = {"state": "running", "seconds_since_output": 60}
    assert not diagnose(folder(job=quiet, metrics=build.curve([1.0] * 9))).diagnoses


def test_warning_in_the_middle_of_a_log_is_no_crash() -> None:
    log = WATCHDOG + "{'loss': 1.0}\n" * 60 + "done: 100 steps, model in out/model\n"
    assert last_crash(log) is None
