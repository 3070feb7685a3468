"""The language model that lm-evaluation-harness asks: by transformers, or by vLLM in an environment of its own.

Beside the harness's own classes it keeps, for every context, whether the model ended its answer by itself, and puts an
item's whole conversation in the place of its text where the item has one.
"""

from __future__ import annotations

import argparse
import gc
import logging
from typing import Any

LIBRARIES = ("lm_eval", "torch", "transformers", "tokenizers")
BACKENDS = ("transformers", "vllm")


def libraries(benchmark: dict[str, Any]) -> tuple[str, ...]:
    """Whose versions the digest holds."""
    return (*LIBRARIES, "vllm") if benchmark.get("backend") == "vllm" else LIBRARIES


_loaded: dict[str, Any] = {}


def load(arguments: argparse.Namespace, benchmark: dict[str, Any]) -> Any:
    """An lm-evaluation-harness LM for the model in `arguments.model`, with `finishes` and `conversations` on it.

    One process asks one model, maybe twice: the second time it is there already.
    """
    if arguments.model not in _loaded:
        _loaded[arguments.model] = _load(arguments, benchmark)
    return _loaded[arguments.model]


def _load(arguments: argparse.Namespace, benchmark: dict[str, Any]) -> Any:
    gc.disable()  # importing makes a million long-lived objects, and each collection looks at all of them again
    import torch
    from datasets import disable_progress_bars
    from transformers.utils import logging as transformers_logging

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    disable_progress_bars()
    transformers_logging.disable_progress_bar()
    torch.manual_seed(0)
    chat = benchmark.get("chat") or {}
    thinking = {key: chat[key] for key in ("enable_thinking", "think_end_token") if key in chat}
    if benchmark.get("backend") == "vllm":
        lm = vllm(arguments, benchmark, thinking)
    else:
        from lm_eval.models.huggingface import HFLM

        gpu = torch.cuda.is_available()
        lm = transformers_recorder(HFLM)(
            pretrained=arguments.model,
            device="cuda" if gpu else "cpu",
            dtype="bfloat16" if gpu else "float32",
            batch_size=arguments.batch_size,
            **thinking,
        )
    gc.enable()
    gc.freeze()
    return lm


def vllm(arguments: argparse.Namespace, benchmark: dict[str, Any], thinking: dict[str, Any]) -> Any:
    """vLLM schedules by itself, so `batch_size` is its own; the seed and greedy sampling make it repeatable as far as
    its kernels are."""
    from lm_eval.models.vllm_causallms import VLLM

    settings = benchmark.get("vllm") or {}
    return vllm_recorder(VLLM)(
        pretrained=arguments.model,
        dtype=settings.get("dtype", "auto"),
        tensor_parallel_size=int(settings.get("tensor_parallel_size", 1)),
        gpu_memory_utilization=float(settings.get("gpu_memory_utilization", 0.9)),
        **({"max_model_len": int(settings["max_model_len"])} if "max_model_len" in settings else {}),
        seed=0,
        batch_size="auto",
        enable_thinking=bool(thinking.get("enable_thinking", False)),
        think_end_token=thinking.get("think_end_token"),
    )


def recorder(model_class: type) -> type:
    class Recorder(model_class):  # type: ignore[misc]
        def __init__(self, *arguments: Any, **settings: Any) -> None:
            super().__init__(*arguments, **settings)
            self.finishes: dict[str, str] = {}
            """Context -> `stop`, or `length` when the cap cut the answer."""
            self.conversations: dict[str, list[dict[str, str]]] = {}
            """An item's text -> the messages that stand for it."""
            self._generated: list[str] = []
            self._answered = 0
            # The harness tells its cache hook every (context, response) in the order in which rows were generated.
            self.set_cache_hook(self)

        def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
            responses: list[str] = super().generate_until(requests, disable_tqdm=True)
            return responses

        def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[Any]:
            answers: list[Any] = super().loglikelihood(requests, disable_tqdm=True)
            return answers

        def apply_chat_template(self, chat_history: list[dict[str, str]], *more: Any, **settings: Any) -> str:
            *before, last = chat_history
            whole = [*before, *self.conversations.get(last["content"], [last])]
            text: str = super().apply_chat_template(whole, *more, **settings)
            return text

        def ended(self, finishes: list[str]) -> None:
            self._generated += finishes
            print(f"answered {len(self._generated)}", flush=True)

        def add_partial(self, kind: str, request: tuple[Any, ...], response: Any) -> None:
            if kind == "generate_until":
                self.finishes[request[0]] = self._generated[self._answered]
                self._answered += 1

    return Recorder


def transformers_recorder(model_class: type) -> type:
    """`model_class` is HFLM."""

    class Recorder(recorder(model_class)):  # type: ignore[misc]
        def __init__(self, *arguments: Any, **settings: Any) -> None:
            super().__init__(*arguments, **settings)
            configured = self.model.generation_config.eos_token_id
            ends = set(configured) if isinstance(configured, list) else {configured}
            self._end_ids = (ends | {self.tokenizer.eos_token_id, self.eot_token_id}) - {None}

        def _model_generate(self, context: Any, max_length: int, stop: list[str], **settings: Any) -> Any:
            output = super()._model_generate(context, max_length, stop, **settings)
            finishes = []
            for tokens in output[:, context.shape[1] :].tolist():
                text = self.tokenizer.decode(tokens, skip_special_tokens=False)
                ended = not self._end_ids.isdisjoint(tokens) or any(mark in text for mark in stop if mark)
                finishes.append("stop" if ended else "length")
            self.ended(finishes)
            return output

    return Recorder


def vllm_recorder(model_class: type) -> type:
    """`model_class` is lm-evaluation-harness's VLLM, whose outputs say themselves why they ended."""

    class Recorder(recorder(model_class)):  # type: ignore[misc]
        def _model_generate(self, requests: Any, generate: bool = False, sampling_params: Any = None) -> Any:
            outputs = super()._model_generate(requests, generate=generate, sampling_params=sampling_params)
            if generate:
                self.ended([output.outputs[0].finish_reason or "length" for output in outputs])
            return outputs

    return Recorder
