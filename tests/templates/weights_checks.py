"""What the training scripts make of weights that lie somewhere else or were rounded, checked inside a process that can
import them.

    python weights_checks.py NAME BASE      # runs the function of this name on the model in BASE; it asserts

`test_weights.py` starts it once for each. DeepSpeed and bitsandbytes are not needed: what they leave in a model is put
there by hand, as their documentation has it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.templates.generating_checks import refused, script


def trainer_of(sft: Any, model: Any, base: str, plugin: Any = None) -> Any:
    args = sft.SFTConfig(output_dir="out", use_cpu=True, bf16=False, report_to="none")
    args.model_init_kwargs = sft.model_kwargs(args, sft.ModelConfig())
    return SimpleNamespace(
        args=args,
        model=model,
        processing_class=sft.AutoTokenizer.from_pretrained(base),
        train_dataset=[0] * 8,
        accelerator=SimpleNamespace(unwrap_model=lambda one: one, state=SimpleNamespace(deepspeed_plugin=plugin)),
        is_fsdp_enabled=False,
        is_deepspeed_enabled=plugin is not None,
        is_world_process_zero=lambda: True,
        remove_callback=lambda callback: None,
    )


def parameters_that_are_divided_are_counted_whole(base: str) -> None:
    """ZeRO stage 3 leaves each parameter empty and keeps its shape in `ds_shape`."""
    sft = script("sft")
    model = sft.AutoModelForCausalLM.from_pretrained(base)
    whole, parameters = model.get_input_embeddings().weight.shape[0], sum(one.numel() for one in model.parameters())
    for weight in model.parameters():
        weight.ds_shape, weight.data = weight.shape, sft.torch.empty(0)
    trainer = trainer_of(sft, model, base, SimpleNamespace(zero_stage=3))
    found = sft.audit_model(trainer, sft.ModelConfig(), {5}, [])["vocabulary"]
    assert found["embeddings"] == whole, found
    assert sft.size_of(model.parameters()) == parameters
    sft.refuse_foreign_tokens(found)
    foreign = sft.audit_model(trainer, sft.ModelConfig(), {whole}, [])["vocabulary"]
    assert f"the model has {whole} embeddings" in refused(lambda: sft.refuse_foreign_tokens(foreign))
    assert "no process has all" in refused(lambda: sft.probe_learning_rates(trainer, [1e-3]))


def a_run_whose_parts_nobody_gathers_is_refused(base: str) -> None:
    from accelerate.utils.deepspeed import HfDeepSpeedConfig

    sft = script("sft")
    model = sft.AutoModelForCausalLM.from_pretrained(base)

    def completed(stage: int, **settings: Any) -> None:
        settings = HfDeepSpeedConfig({"zero_optimization": {"stage": stage} | settings})
        trainer = trainer_of(sft, model, base, SimpleNamespace(zero_stage=stage, hf_ds_config=settings))
        trainer.get_optimizer_cls_and_kwargs = lambda args, model: None
        sft.complete(trainer)

    completed(2)
    completed(3, stage3_gather_16bit_weights_on_model_save=True)
    assert "stage3_gather_16bit_weights_on_model_save must be true" in refused(lambda: completed(3))


def an_adapter_is_merged_into_weights_that_were_not_rounded(base: str) -> None:
    """load_in_8bit rounds the weights; what is saved has those of the base, and what the model says of its tokens."""
    from peft import LoraConfig, get_peft_model
    from transformers import BitsAndBytesConfig

    sft = script("sft")
    model = sft.AutoModelForCausalLM.from_pretrained(base, dtype="float32")
    with sft.torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_((weight * 8).round() / 8 if "proj" in name else weight)
    model.config.quantization_config = BitsAndBytesConfig(load_in_8bit=True)
    model.generation_config.eos_token_id = [1, 2]
    model = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear"))
    with sft.torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.1)
    layer = "model.layers.1.mlp.down_proj"
    learned = model.get_submodule(f"base_model.model.{layer}").get_delta_weight("default")
    trainer = trainer_of(sft, model, base)
    sft.save_model(trainer, trainer.processing_class, base)
    saved, before = (sft.AutoModelForCausalLM.from_pretrained(one, dtype="float32") for one in ("out/model", base))
    difference = saved.get_submodule(layer).weight - before.get_submodule(layer).weight
    assert learned.abs().max() > 1e-3 and sft.torch.allclose(difference, learned, atol=1e-6)
    assert getattr(saved.config, "quantization_config", None) is None
    assert saved.generation_config.eos_token_id == [1, 2]
    assert Path("out/adapter/adapter_model.safetensors").is_file()


if __name__ == "__main__":
    globals()[sys.argv[1]](sys.argv[2])
