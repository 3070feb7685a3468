"""Parameter counts from a configuration alone, against what transformers builds from the same configuration."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bot.errors import UserError
from runners.hardware.estimate import adapter_parameters
from runners.hardware.families import FAMILIES
from runners.hardware.shape import shape_in, shape_of
from runners.hardware.training import training_of

QWEN3_17B = {
    "model_type": "qwen3", "hidden_size": 2048, "num_hidden_layers": 28, "num_attention_heads": 16,
    "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 6144, "vocab_size": 151936,
    "tie_word_embeddings": True,
}  # fmt: skip
LLAMA3_8B = {
    "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256, "tie_word_embeddings": False,
}  # fmt: skip
QWEN3_30B_A3B = {
    "model_type": "qwen3_moe", "hidden_size": 2048, "num_hidden_layers": 48, "num_attention_heads": 32,
    "num_key_value_heads": 4, "head_dim": 128, "intermediate_size": 6144, "moe_intermediate_size": 768,
    "num_experts": 128, "num_experts_per_tok": 8, "decoder_sparse_step": 1, "vocab_size": 151936,
    "tie_word_embeddings": False,
}  # fmt: skip

# As transformers counts them, on the meta device, and PEFT what an adapter of rank 8 on every matrix has to train.
ORACLE = """
import json, sys, warnings
warnings.filterwarnings("ignore")
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM
for family in json.loads(sys.argv[1]):
    config = AutoConfig.for_model(family)
    # Two layers of each: what differs between layers alternates, and the rest is a product.
    config.num_hidden_layers = 2
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:2]
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
        whole = sum(weight.numel() for weight in model.parameters())
        adapted = get_peft_model(model, LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    trained = sum(weight.numel() for weight in adapted.parameters() if weight.requires_grad)
    print(json.dumps([family, json.loads(config.to_json_string(use_diff=False)), whole, trained]), flush=True)
"""


@pytest.fixture(scope="module")
def built() -> list[tuple[str, dict[str, Any], int, int]]:
    command = [sys.executable, "-c", ORACLE, json.dumps(sorted(FAMILIES))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


@pytest.mark.timeout(300)
@pytest.mark.slow
def test_every_family_is_counted_exactly(built: list[tuple[str, dict[str, Any], int, int]]) -> None:
    counted = {family: shape_of(config).counted for family, config, _, _ in built}
    assert counted == {family: whole for family, _, whole, _ in built}
    assert len(counted) == len(FAMILIES) >= 6


# A router, and what lets a shared expert through, are matrices that all-linear reaches and nobody would adapt.
ROUTED = {"mixtral", "qwen2_moe", "qwen3_moe"}


@pytest.mark.timeout(300)
def test_adapters_on_all_matrices_are_counted_exactly(built: list[tuple[str, dict[str, Any], int, int]]) -> None:
    lora = training_of({"use_peft": True, "lora_r": 8, "lora_target_modules": "all-linear"}, gpu=True).lora
    assert lora is not None
    wrong = {
        family: (adapter_parameters(shape_of(config), lora), trained)
        for family, config, _, trained in built
        if family not in ROUTED and adapter_parameters(shape_of(config), lora) != trained
    }
    assert wrong == {}


@pytest.mark.parametrize(
    ("config", "published"),
    [
        # Model cards: https://huggingface.co/Qwen/Qwen3-1.7B, /meta-llama/Meta-Llama-3-8B, /Qwen/Qwen3-30B-A3B
        (QWEN3_17B, 1_720_574_976),
        (LLAMA3_8B, 8_030_261_248),
        (QWEN3_30B_A3B, 30_532_122_624),
    ],
)
def test_published_models_have_the_size_that_their_cards_say(config: dict[str, Any], published: int) -> None:
    assert shape_of(config).parameters == published


def test_a_token_meets_the_experts_that_it_is_sent_to() -> None:
    assert shape_of(QWEN3_30B_A3B).active_parameters / 1e9 == pytest.approx(3.0, abs=0.1)


def test_model_type_that_is_not_listed_is_a_guess_and_its_weight_files_decide(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA3_8B | {"model_type": "brand_new"}))
    header = json.dumps(
        {"__metadata__": {}, "w": {"dtype": "F32", "shape": [1000, 2000], "data_offsets": [0, 8000000]}}
    )
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header.encode())
    shape = shape_in(tmp_path)
    assert not shape.exact and shape.parameters == 2_000_000


@pytest.mark.parametrize(
    "lie", ["", "{", "[]", '{"model_type": "llama"}', '{"model_type": "llama", "hidden_size": "big"}']
)
def test_configuration_that_says_nothing_is_refused_in_words(tmp_path: Path, lie: str) -> None:
    (tmp_path / "config.json").write_text(lie)
    with pytest.raises(UserError, match=r"config\.json"):
        shape_in(tmp_path)


@pytest.mark.parametrize("header", [b"", b"\xff" * 8, (50).to_bytes(8, "little") + b"{not json"])
def test_damaged_weight_file_is_no_size(tmp_path: Path, header: bytes) -> None:
    (tmp_path / "config.json").write_text(json.dumps(QWEN3_17B))
    (tmp_path / "model.safetensors").write_bytes(header)
    assert shape_in(tmp_path).parameters == 1_720_574_976
