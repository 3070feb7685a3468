"""What only a GPU, several of them, or somebody else's machine shows: logs written down, scored apart from the runs.

The messages are those of the libraries (PyTorch, NCCL, vLLM, FlashAttention, transformers, TRL, the kernel) with their
own frames; sizes and steps are made up. Processes that wait in vain over gloo are runs, too: fault 42 of the zoo.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

from bot.domain.goal import digest_of
from bot.zoo.job_folder import recipe_text
from bot.zoo.specimen import Json
from bot.zoo.traces import TRUTH, Trace, Truth

SFT: Json = {
    "method": "sft", "init_from": "Qwen/Qwen3-8B", "data_sources": "data/team.jsonl", "learning_rate": 1e-5,
    "lr_scheduler_type": "cosine", "warmup_steps": 0.05, "num_train_epochs": 2, "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 2, "max_length": 8192, "bf16": True, "seed": 0,
}  # fmt: skip
GRPO: Json = {
    "method": "grpo", "init_from": "Qwen/Qwen3-1.7B", "data_sources": "data/team.jsonl", "learning_rate": 1e-6,
    "per_device_train_batch_size": 16, "num_generations": 8, "max_completion_length": 4096, "beta": 0.0,
    "use_vllm": True, "vllm_mode": "colocate", "vllm_gpu_memory_utilization": 0.9, "bf16": True, "seed": 0,
    "max_steps": 500,
}  # fmt: skip
MEMORY = ("per_device_train_batch_size", "gradient_accumulation_steps", "gradient_checkpointing", "max_length",
          "use_liger_kernel", "load_in_4bit")  # fmt: skip
VLLM = ("vllm_gpu_memory_utilization", "vllm_enable_sleep_mode", "vllm_max_model_length", "vllm_mode")


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of one log, with what is right to say of it."""

    labels: tuple[str, ...]
    keys: tuple[str, ...]
    frames: tuple[tuple[str, int, str, str], ...]
    """(file, line, function, source line) of the traceback, outermost first; none: the log ends without one."""
    last: str
    """The exception, or the last lines of a log without a traceback."""
    recipe: Json = field(default_factory=lambda: SFT)
    steps: int = 0
    exit_code: int = 1
    failure: str = "script_error"


OOM = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate {0} GiB. GPU 0 has a total capacity of 79.11 GiB of "
    "which {1} GiB is free. Including non-PyTorch memory, this process has {2} GiB memory in use. Of the allocated "
    "memory {3} GiB is allocated by PyTorch, and 1.02 GiB is reserved by PyTorch but unallocated. If reserved but "
    "unallocated memory is large try setting PYTORCH_ALLOC_CONF=expandable_segments:True to avoid fragmentation.  See "
    "documentation for Memory Management  (https://docs.pytorch.org/docs/stable/notes/cuda.html#environment-variables)"
)
TRAINER = "/venv/lib/site-packages/transformers/trainer.py"
LOOP = (
    ("train.py", 182, "main", "train_and_save(trainer, tokenizer, experiment, start)"),
    (TRAINER, 2341, "train", "return inner_training_loop("),
    (TRAINER, 2698, "_inner_training_loop", "tr_loss_step = self.training_step(model, inputs, num_items_in_batch)"),
)
STEP = (
    TRAINER,
    4031,
    "training_step",
    "loss = self.compute_loss(model, inputs, num_items_in_batch=num_items_in_batch)",
)
GRPO_FILE = "/venv/lib/site-packages/trl/trainer/grpo_trainer.py"
VLLM_INIT = (
    ("train.py", 171, "main", "trainer = GRPOTrainer("),
    (GRPO_FILE, 702, "__init__", "self.vllm_generation = VLLMGeneration("),
    (
        "/venv/lib/site-packages/vllm/entrypoints/llm.py",
        344,
        "__init__",
        "self.llm_engine = LLMEngine.from_engine_args(",
    ),
)
TAILS: tuple[Tail, ...] = (
    Tail(("oom",), ("init_from", "load_in_4bit", "dtype", *MEMORY),
         (("train.py", 166, "main", "trainer = SFTTrainer("),
          ("/venv/lib/site-packages/transformers/modeling_utils.py", 4172, "from_pretrained",
           "loading_info, disk_offload_index = cls._load_pretrained_model(model, state_dict, checkpoint_files)"),
          ("/venv/lib/site-packages/transformers/core_model_loading.py", 611, "_materialize_copy",
           "tensor = tensor.to(device=device, dtype=dtype)")),
         OOM.format("1.09", "0.61", "78.49", "77.30")),
    Tail(("oom",), MEMORY,
         (*LOOP, STEP,
          ("/venv/lib/site-packages/transformers/models/qwen3/modeling_qwen3.py", 512, "forward",
           "logits = self.lm_head(hidden_states[:, slice_indices, :])")),
         OOM.format("18.55", "9.90", "69.20", "67.41"), steps=3),
    Tail(("oom",), MEMORY,
         (*LOOP, (TRAINER, 4059, "training_step", "self.accelerator.backward(loss, **kwargs)"),
          ("/venv/lib/site-packages/torch/autograd/graph.py", 979, "_engine_run_backward",
           "return Variable._execution_engine.run_backward(")),
         OOM.format("4.64", "2.17", "76.93", "74.00"), steps=1),
    Tail(("oom",), (*MEMORY, "optim", "use_peft"),
         (*LOOP[:2], (TRAINER, 2744, "_inner_training_loop", "self.optimizer.step()"),
          ("/venv/lib/site-packages/torch/optim/adamw.py", 131, "_init_group",
           "state[\"exp_avg_sq\"] = torch.zeros_like(p, memory_format=torch.preserve_format)")),
         OOM.format("0.58", "0.30", "78.80", "77.91"), steps=0),
    Tail(("oom",), (*MEMORY, "max_completion_length", "num_generations", "use_liger_kernel"),
         (*LOOP, (GRPO_FILE, 2291, "compute_loss", "return self._compute_loss(model, inputs)"),
          (GRPO_FILE, 1187, "_get_per_token_logps_and_entropies",
           "logps = selective_log_softmax(logits, completion_ids)")),
         OOM.format("37.09", "20.11", "59.00", "57.35"), recipe=GRPO, steps=2),
    Tail(("oom",), VLLM, VLLM_INIT,
         "ValueError: Free memory on device (31.42/79.11 GiB) on startup is less than desired GPU memory utilization "
         "(0.9, 71.2 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes.", recipe=GRPO),
    Tail(("oom",), VLLM, VLLM_INIT,
         "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when "
         "initializing the engine.", recipe=GRPO),
    Tail(("nccl_timeout",), ("ddp_timeout",), (),
         "[rank3]:[E ProcessGroupNCCL.cpp:683] [Rank 3] Watchdog caught collective operation timeout: "
         "WorkNCCL(SeqNum=4127, OpType=ALLREDUCE, NumelIn=67108864, NumelOut=67108864, Timeout(ms)=600000) ran for "
         "600042 milliseconds before timing out.\n"
         "[rank3]:[E ProcessGroupNCCL.cpp:2241] [PG ID 0 PG GUID 0(default_pg) Rank 3] failure detected by watchdog at "
         "work sequence id: 4127 PG status: last enqueued work: 4131, last completed work: 4126\n"
         "terminate called after throwing an instance of 'c10::DistBackendError'", steps=212, exit_code=134,
         failure="signal"),
    Tail(("nccl_timeout",), ("ddp_timeout",),
         (("train.py", 182, "main", "train_and_save(trainer, tokenizer, experiment, start)"),
          ("/venv/lib/site-packages/torch/distributed/distributed_c10d.py", 4811, "barrier", "work.wait()")),
         "RuntimeError: [../third_party/gloo/gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 1800000ms for "
         "recv operation to complete", steps=40),
    Tail(("deps",), ("attn_implementation", "requirements", "train.py"),
         (("train.py", 166, "main", "trainer = SFTTrainer("),
          ("/venv/lib/site-packages/transformers/modeling_utils.py", 1559, "_flash_attn_import_error",
           "raise ImportError(")),
         "ImportError: FlashAttention2 has been toggled on, but it cannot be used due to the following error: the "
         "package for FlashAttention2 doesn't seem to be installed.",
         recipe=SFT | {"attn_implementation": "flash_attention_2"}),
    Tail(("deps",), ("attn_implementation", "requirements", "train.py"),
         (("train.py", 61, "<module>", "from trl import SFTConfig, SFTTrainer"),
          ("/venv/lib/site-packages/flash_attn/flash_attn_interface.py", 15, "<module>",
           "import flash_attn_2_cuda as flash_attn_gpu")),
         "ImportError: /venv/lib/site-packages/flash_attn_2_cuda.cpython-311-x86_64-linux-gnu.so: undefined symbol: "
         "_ZN3c105ErrorC2ENS_14SourceLocationENSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE",
         recipe=SFT | {"attn_implementation": "flash_attention_2"}),
    Tail(("deps",), ("use_vllm", "requirements", "train.py"), VLLM_INIT[:1],
         "ImportError: vLLM is not available and `use_vllm` is set to True. Please install vLLM with `pip install "
         "trl[vllm]` to use it.", recipe=GRPO),
    Tail(("dtype",), ("fp16", "bf16", "dtype"),
         (*LOOP[:2], (TRAINER, 2731, "_inner_training_loop", "grad_norm = self._clip_grad_norm(model)"),
          ("/venv/lib/site-packages/torch/amp/grad_scaler.py", 275, "_unscale_grads_",
           'raise ValueError("Attempting to unscale FP16 gradients.")')),
         "ValueError: Attempting to unscale FP16 gradients.",
         recipe={key: value for key, value in SFT.items() if key != "bf16"} | {"fp16": True, "dtype": "float16"}),
    Tail(("dtype",), ("bf16", "dtype"),
         (("train.py", 158, "main", "experiment, args, model_args = parse_arguments()"),
          ("/venv/lib/site-packages/transformers/training_args.py", 1779, "__post_init__",
           "raise ValueError(error_message)")),
         "ValueError: Your setup doesn't support bf16/gpu. You need to assign use_cpu if you want to train the model "
         "on CPU."),
    Tail(("host_oom", "oom"), ("dataloader_num_workers", "dataset_num_proc", *MEMORY), (),
         "/usr/bin/bash: line 1:   317 Killed                  python train.py --config recipe.yaml", exit_code=137,
         failure="oom", steps=88),
    Tail(("disk_full",), ("save_total_limit", "save_steps", "save_strategy", "save_only_model", "output_dir"),
         (*LOOP[:2], (TRAINER, 3420, "_save_checkpoint", "self._save_optimizer_and_scheduler(output_dir)"),
          ("/venv/lib/site-packages/torch/serialization.py", 868, "_save", "zip_file.write_record(name, storage)")),
         "OSError: [Errno 28] No space left on device", steps=500, failure="disk_full"),
    Tail(("auth",), ("init_from", "secrets"),
         (("train.py", 161, "main", "tokenizer = load_tokenizer(experiment, args, model_args)"),
          ("/venv/lib/site-packages/transformers/utils/hub.py", 571, "cached_files", "raise OSError(")),
         "OSError: You are trying to access a gated repo.\nMake sure to have access to it at "
         "https://huggingface.co/meta-llama/Llama-3.1-8B.\n401 Client Error. (Request ID: Root=1-69a1)\n\nCannot "
         "access gated repo for url https://huggingface.co/meta-llama/Llama-3.1-8B/resolve/main/config.json.\n"
         "Access to model meta-llama/Llama-3.1-8B is restricted. You must have access to it and be authenticated to "
         "access it. Please log in.", recipe=SFT | {"init_from": "meta-llama/Llama-3.1-8B"}),
)  # fmt: skip


def replayed_traces() -> Iterator[Trace]:
    """Every written log as the folder of a run that ended with it."""
    for number, tail in enumerate(TAILS):
        name = "run-" + digest_of(["replayed", number, tail.last])[:12]
        truth = Truth(
            healthy=False, labels=tail.labels, line_keys=tail.keys, case=f"written log {number + 1}", severity="gross",
            shows="crash", method=str(tail.recipe["method"]), held_out="seed", replayed=True, doomed=True,
            steps=max(500, tail.steps),
        )  # fmt: skip
        job = {"job_id": name, "state": "failed", "exit_code": tail.exit_code, "failure": tail.failure,
               "evidence": [f"exit code {tail.exit_code}"]}  # fmt: skip
        files = {
            "recipe.yaml": recipe_text(tail.recipe),
            "log.txt": log_of(tail),
            "job.json": json.dumps(job),
            TRUTH: json.dumps(truth.as_dict()),
        }
        yield Trace(name, {key: value.encode() for key, value in files.items()})


def log_of(tail: Tail) -> str:
    """Some steps of a healthy run, then how it ended."""
    lines = [
        f"step {step}/500 loss {2.1 * 0.997**step + 0.9:.4f}"
        for step in range(1, tail.steps + 1)
        if step % 20 in (0, 1)
    ]
    if tail.frames:
        lines.append("Traceback (most recent call last):")
        for file, line, function, source in tail.frames:
            lines += [f'  File "{file}", line {line}, in {function}', f"    {source}"]
    return "\n".join([*lines, tail.last]) + "\n"
