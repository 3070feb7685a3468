"""Which parts of a model are divided among GPUs: a table of sizes, and what no size may break."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from runners.hardware.estimate import MemoryEstimate
from runners.launching import Sharding, gpu_need_gib, launch_plan


def estimate(weights: float, activations: float = 4.0, overhead: float = 1.0) -> MemoryEstimate:
    """Full fine-tuning in 32 bits with AdamW: gradients as large as the weights, two states of that size."""
    return MemoryEstimate(weights, weights, 2 * weights, activations, 1.0, 0.0, overhead)


@pytest.mark.parametrize(
    ("weights", "gpus", "memory", "nodes", "sharding"),
    [
        (6.0, 1, 80.0, 1, Sharding.NONE),  # 1.5 billion parameters
        (6.0, 4, 80.0, 1, Sharding.REPLICATED),
        (16.0, 2, 80.0, 1, Sharding.GRADIENTS),
        (28.0, 8, 80.0, 1, Sharding.GRADIENTS),  # 7 billion
        (56.0, 8, 80.0, 1, Sharding.FULL),
        (56.0, 4, 80.0, 2, Sharding.FULL),
        (120.0, 4, 80.0, 1, Sharding.OFFLOADED),
    ],
)
def test_quickest_way_that_fits_is_taken(weights, gpus, memory, nodes, sharding):
    plan = launch_plan(estimate(weights), gpus, memory, nodes)
    assert (plan.sharding, plan.fits) == (sharding, True)
    assert plan.gpu_gib <= memory
    assert bool(plan.config) == bool(plan.prefix) == (sharding is not Sharding.NONE)


def test_what_fits_nowhere_is_said_with_figures():
    plan = launch_plan(estimate(6.0, activations=90.0), 1, 80.0)
    assert not plan.fits
    assert plan.reason == "does not fit: the GPU would hold 116.0 GiB and has 80 GiB"
    plan = launch_plan(estimate(6.0, activations=90.0), 4, 80.0)
    assert (plan.fits, plan.sharding) == (False, Sharding.OFFLOADED)
    assert plan.reason.startswith("does not fit: each of 4 GPUs would hold 93.2 GiB")


def test_without_an_estimate_or_a_gpus_size_nothing_is_divided_but_the_batch():
    assert launch_plan(estimate(500.0), 4, 0.0).sharding is Sharding.REPLICATED
    assert launch_plan(None, 4, 80.0).sharding is Sharding.REPLICATED
    assert launch_plan(None, 1, 80.0).sharding is Sharding.NONE


def test_configuration_says_to_accelerate_what_the_plan_says():
    config = yaml.safe_load(launch_plan(estimate(56.0), 4, 80.0, nodes=2).config)
    assert (config["distributed_type"], config["num_machines"], config["num_processes"]) == ("FSDP", 2, 8)
    assert config["fsdp_config"]["fsdp_reshard_after_forward"] is True
    assert config["fsdp_config"]["fsdp_state_dict_type"] == "FULL_STATE_DICT"
    config = yaml.safe_load(launch_plan(estimate(28.0), 8, 80.0).config)
    assert config["fsdp_config"]["fsdp_reshard_after_forward"] is False
    config = yaml.safe_load(launch_plan(estimate(6.0), 4, 80.0).config)
    assert config["distributed_type"] == "MULTI_GPU"
    assert "fsdp_config" not in config
    assert config["main_process_port"] == 0, "two jobs on one machine must not meet at one port"


_SIZES = st.floats(0, 400)


@given(_SIZES, _SIZES, _SIZES, st.integers(1, 16), st.integers(1, 8), st.floats(8, 192))
def test_a_plan_that_fits_fits_and_more_gpus_never_make_one_that_does_not(
    weights, activations, overhead, gpus, nodes, memory
):
    made = estimate(weights, activations, overhead)
    plan = launch_plan(made, gpus, memory, nodes)
    assert plan.fits == (gpu_need_gib(made, plan.sharding, gpus * nodes) <= memory * 0.92)
    if plan.fits and gpus * nodes > 1:
        assert launch_plan(made, gpus + 1, memory, nodes).fits
