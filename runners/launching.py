"""How a training script is started on several GPUs: which of its parts are divided among them, from what they need.

The parts and what each way of dividing them costs are those of ZeRO (Rajbhandari et al. 2020, arXiv:1910.02054), as
PyTorch's FSDP does it (https://docs.pytorch.org/docs/stable/distributed.fsdp.fully_shard.html). DeepSpeed divides the
same parts in the same ways and would be a second engine to install; it is not used.

Not covered: dividing one layer among GPUs (tensor parallelism) and layers among machines (pipelines), and methods that
generate while they train under FSDP.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from runners.hardware.estimate import MemoryEstimate

CONFIG_FILE = "accelerate.yaml"
"""In the job's working directory; `accelerate launch` reads it."""
SCRIPT_FILE = "launch.py"
"""Beside it: `templates/launch.py`, which starts the processes and passes on how they ended."""
_HEADROOM = 0.92
"""Share of a GPU's memory that is planned for: allocators fragment, and other processes hold some."""
_GATHERED_SHARE = 0.2
"""Of the weights, how much lies whole in memory at a time under full sharding: the layer at work, the next one that is
being fetched, and the embeddings and output layer, which are wrapped with the root. Measured nowhere yet: a guess that
is large for deep models and small for wide vocabularies."""


class Sharding(StrEnum):
    """What every GPU holds for itself, from the quickest to the leanest."""

    NONE = "none"
    """One GPU, one process."""
    REPLICATED = "replicated"
    """Everything on every GPU (DDP); only the batch is divided."""
    GRADIENTS = "gradients"
    """Weights on every GPU, gradients and optimizer states divided (ZeRO-2)."""
    FULL = "full"
    """Weights, gradients and optimizer states divided (ZeRO-3)."""
    OFFLOADED = "offloaded"
    """As FULL, and what is divided lies in the machine's memory."""


@dataclass(frozen=True, slots=True)
class LaunchPlan:
    """How to start the script; `prefix` stands before its own words in `JobSpec.argv`."""

    sharding: Sharding
    prefix: tuple[str, ...]
    config: str
    """Content of CONFIG_FILE; empty when the script is started by itself."""
    gpu_gib: float
    """What one GPU is expected to hold."""
    host_gib: float
    """What one machine's memory is expected to hold for it beside that."""
    fits: bool
    """False when even the leanest way needs more than a GPU has."""
    reason: str
    """One sentence for a person."""


def launch_plan(estimate: MemoryEstimate | None, gpus: int, gpu_memory_gib: float, nodes: int = 1) -> LaunchPlan:
    """The quickest way that fits. `estimate` is for one GPU that holds everything; `gpus` is on each machine, and 0
    means one process on its processors; `gpu_memory_gib` is of one GPU. Where there is no GPU, no estimate or no size,
    nothing is divided but the batch."""
    cpu, gpus = gpus == 0, max(1, gpus)
    if estimate is None or cpu:
        estimate, gpu_memory_gib = MemoryEstimate(*[0.0] * 7), 0.0
    processes = gpus * nodes
    ways = [Sharding.NONE] if processes <= 1 else [way for way in Sharding if way is not Sharding.NONE]
    room = gpu_memory_gib * _HEADROOM
    needs = {way: gpu_need_gib(estimate, way, processes) for way in ways}
    fitting = [way for way in ways if not gpu_memory_gib or needs[way] <= room]
    chosen = fitting[0] if fitting else ways[-1]
    prefix, config = _launcher(chosen, gpus, nodes, cpu=cpu)
    return LaunchPlan(
        sharding=chosen,
        prefix=prefix,
        config=config,
        gpu_gib=round(needs[chosen], 2),
        host_gib=round(_divided_gib(estimate) / nodes, 2) if chosen is Sharding.OFFLOADED else 0.0,
        fits=bool(fitting),
        reason=_reason(chosen, needs, processes, gpu_memory_gib, fits=bool(fitting)),
    )


def gpu_need_gib(estimate: MemoryEstimate, sharding: Sharding, processes: int) -> float:
    """Peak of one of `processes` GPUs."""
    divided = _divided_gib(estimate)
    rest = estimate.total_gib + estimate.overlap_gib - divided
    match sharding:
        case Sharding.NONE:
            return estimate.total_gib
        case Sharding.REPLICATED:
            # DDP copies the gradients into the buckets that it sends; they lie there together.
            return estimate.total_gib + estimate.gradients_gib
        case Sharding.GRADIENTS:
            return rest + estimate.weights_gib + (divided - estimate.weights_gib) / processes
        case Sharding.FULL:
            return rest + _GATHERED_SHARE * estimate.weights_gib + divided / processes
        case Sharding.OFFLOADED:
            return rest + _GATHERED_SHARE * estimate.weights_gib


def _divided_gib(estimate: MemoryEstimate) -> float:
    return estimate.weights_gib + estimate.gradients_gib + estimate.optimizer_gib


def _launcher(sharding: Sharding, gpus: int, nodes: int, *, cpu: bool) -> tuple[tuple[str, ...], str]:
    if sharding is Sharding.NONE:
        return (), ""
    return ("{python}", SCRIPT_FILE, "--config_file", CONFIG_FILE), accelerate_config(sharding, gpus, nodes, cpu=cpu)


def accelerate_config(sharding: Sharding, gpus: int, nodes: int = 1, *, cpu: bool = False) -> str:
    """The file that `accelerate launch` reads (https://huggingface.co/docs/accelerate/package_reference/cli).

    Precision is the script's own matter; what stands here would only be overridden.
    """
    replicated = sharding in (Sharding.NONE, Sharding.REPLICATED)
    lines = [
        "compute_environment: LOCAL_MACHINE",
        f"distributed_type: {'MULTI_GPU' if replicated else 'FSDP'}",
        f"num_machines: {nodes}",
        f"num_processes: {gpus * nodes}",
        "machine_rank: 0",
        # Port 0: one that is free. Several machines are told theirs by who starts them.
        f"main_process_port: {0 if nodes == 1 else 29500}",
        "mixed_precision: 'no'",
        # `MULTI_CPU` would want MPI; this way processors are driven like GPUs, one process each.
        f"use_cpu: {str(cpu).lower()}",
    ]
    if not replicated:
        lines += [
            "fsdp_config:",
            "  fsdp_version: 2",
            f"  fsdp_reshard_after_forward: {str(sharding is not Sharding.GRADIENTS).lower()}",
            f"  fsdp_offload_params: {str(sharding is Sharding.OFFLOADED).lower()}",
            "  fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP",
            # Checkpoints and the model are whole files that the first process writes: anything else can read them.
            "  fsdp_state_dict_type: FULL_STATE_DICT",
            "  fsdp_cpu_ram_efficient_loading: true",
        ]
    return "\n".join(lines) + "\n"


_WORDS = {
    Sharding.REPLICATED: "each holds the whole model, and the batch is divided",
    Sharding.GRADIENTS: "gradients and optimizer states are divided among them",
    Sharding.FULL: "weights, gradients and optimizer states are divided among them",
    Sharding.OFFLOADED: "weights, gradients and optimizer states lie in the machine's memory, which is slow",
}


def _reason(
    chosen: Sharding, needs: dict[Sharding, float], processes: int, gpu_memory_gib: float, *, fits: bool
) -> str:
    need = f"{needs[chosen]:.1f} GiB"
    if not gpu_memory_gib:
        return "one GPU" if processes == 1 else f"{processes} GPUs: {_WORDS[chosen]}"
    if not fits:
        return (
            f"does not fit: {'the GPU' if processes == 1 else f'each of {processes} GPUs'} would hold {need} and has "
            f"{gpu_memory_gib:g} GiB"
        )
    if chosen is Sharding.NONE:
        return f"one GPU, {need}"
    return f"{processes} GPUs, {need} each: {_WORDS[chosen]}"
