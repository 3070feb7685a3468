"""What lm-evaluation-harness uses of vLLM, answered by transformers on the CPU: vLLM itself needs a GPU.

Names and attributes are those of vLLM 0.11 (https://docs.vllm.ai/en/v0.11.0/api/): `LLM.generate` takes token ids and
returns outputs with `finish_reason`, and `prompt_logprobs` where they are asked for.
"""

from types import SimpleNamespace
from typing import Any


class SamplingParams(SimpleNamespace):
    pass


def TokensPrompt(*, prompt_token_ids: list[int]) -> dict[str, Any]:
    return {"prompt_token_ids": prompt_token_ids}


class LLM:
    def __init__(self, model: str, **settings: Any) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        assert settings["tensor_parallel_size"] == 1 and settings["trust_remote_code"] is False
        self.model = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        longest = settings.get("max_model_len") or self.model.config.max_position_embeddings
        self.llm_engine = SimpleNamespace(model_config=SimpleNamespace(max_model_len=longest))

    def generate(
        self, prompts: list[dict[str, Any]], sampling_params: Any, use_tqdm: bool = True, lora_request: Any = None
    ) -> list[Any]:
        return [
            self._one(prompt["prompt_token_ids"], each) for prompt, each in zip(prompts, sampling_params, strict=True)
        ]

    def _one(self, ids: list[int], sampling: Any) -> Any:
        import torch

        given = torch.tensor([ids])
        with torch.inference_mode():
            if getattr(sampling, "prompt_logprobs", None):
                shares = self.model(given).logits[0].log_softmax(-1)
                told = [None, *({token: float(row[token])} for token, row in zip(ids[1:], shares, strict=False))]
                return SimpleNamespace(prompt_logprobs=told, outputs=[])
            assert sampling.temperature == 0
            made = self.model.generate(given, max_new_tokens=sampling.max_tokens, do_sample=False)[
                0, len(ids) :
            ].tolist()
        ends = self.model.generation_config.eos_token_id
        ended = bool({ends, self.tokenizer.eos_token_id} & set(made))
        text = self.tokenizer.decode(made, skip_special_tokens=True)
        for mark in sampling.stop:
            if mark and mark in text:
                text, ended = text.split(mark)[0], True
        return SimpleNamespace(outputs=[SimpleNamespace(text=text, finish_reason="stop" if ended else "length")])
