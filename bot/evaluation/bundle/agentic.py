"""Engine `inspect`: an agent with tools works on each task, with inspect-ai, in an environment of its own.

    inspect: {tools: [bash, python], max_messages: 20, scorer: includes, submit: true}

The model answers through inspect's own Hugging Face provider, from the job's folder. Tools run in inspect's `local`
sandbox, a folder of the job: the walls are the job's own, so such a benchmark runs on no machine without a sandbox.
`scorer` is one of inspect's: includes, match, exact. With `submit` the agent goes on until it calls `submit`; without,
one turn with tools is all (https://inspect.aisi.org.uk/agents.html).

Not covered: Docker sandboxes and tasks that need them, web tools, several agents, a grading model.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from scores import refused


def libraries(benchmark: dict[str, Any]) -> tuple[str, ...]:
    return ("inspect_ai", "torch", "transformers", "tokenizers")


def run(arguments: argparse.Namespace, benchmark: dict[str, Any], items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if os.environ.get("POSTDOC_RUN_CODE") != "1":
        raise refused("this benchmark runs what an agent writes: pass --run_code, inside a sandbox")
    home = Path("inspect").resolve()
    home.mkdir(exist_ok=True)
    # Its notes, traces and caches stay in the job's folder.
    os.environ.update(HOME=str(home), XDG_DATA_HOME=str(home), XDG_CACHE_HOME=str(home), INSPECT_LOG_DIR=str(home))
    from inspect_ai import eval as evaluated

    log = evaluated(
        task_of(benchmark, items),
        model=model_of(arguments, benchmark),
        display="none",
        log_dir=str(home / "logs"),
        log_format="json",
        max_samples=1,
        max_subprocesses=1,
        fail_on_error=True,
    )[0]
    if log.status != "success" or log.samples is None:
        raise refused(f"inspect: {log.error.message.splitlines()[0] if log.error else log.status}")
    found = {str(sample.id): sample for sample in log.samples}
    print(f"answered {len(found)}", flush=True)
    most = int((benchmark.get("generation") or {}).get("max_gen_toks", 256))
    return [sample_of(item, found[item["id"]], most) for item in items]


def model_of(arguments: argparse.Namespace, benchmark: dict[str, Any]) -> Any:
    import torch
    from inspect_ai.model import GenerateConfig, get_model

    chat, generation = benchmark.get("chat") or {}, benchmark.get("generation") or {}
    more = {"enable_thinking": chat["enable_thinking"]} if "enable_thinking" in chat else {}
    return get_model(
        "hf/local",
        model_path=arguments.model,
        device="cuda" if torch.cuda.is_available() else "cpu",
        do_sample=False,
        config=GenerateConfig(max_tokens=int(generation.get("max_gen_toks", 256)), max_connections=1, seed=0),
        **more,
    )


def task_of(benchmark: dict[str, Any], items: list[dict[str, Any]]) -> Any:
    from inspect_ai import Task
    from inspect_ai.agent import AgentPrompt, react
    from inspect_ai.dataset import MemoryDataset, Sample
    from inspect_ai.scorer import exact, includes, match
    from inspect_ai.solver import generate, system_message, use_tools
    from inspect_ai.tool import bash, python

    settings = benchmark.get("inspect") or {}
    known = {"bash": bash, "python": python}
    tools = [known[name](timeout=int(settings.get("tool_seconds", 60))) for name in settings.get("tools") or []]
    system = (benchmark.get("chat") or {}).get("system")
    if settings.get("submit", False):
        solver: Any = react(prompt=AgentPrompt(instructions=system) if system else AgentPrompt(), tools=tools)
    else:
        solver = [*([system_message(system)] if system else []), *([use_tools(tools)] if tools else []), generate()]
    scorer = {"includes": includes, "match": match, "exact": exact}[settings.get("scorer", "includes")]()
    return Task(
        dataset=MemoryDataset([Sample(id=i["id"], input=i["prompt"], target=i["reference"]) for i in items]),
        solver=solver,
        scorer=scorer,
        sandbox="local" if tools else None,
        message_limit=int(settings.get("max_messages", 20)),
        name="benchmark",
    )


def sample_of(item: dict[str, Any], sample: Any, most: int) -> dict[str, Any]:
    """`most` tokens in one turn mean that it was cut: inspect's provider does not say so itself."""
    score = next(iter(sample.scores.values()))
    usage = sample.output.usage
    cut = sample.limit is not None or (usage is not None and usage.output_tokens >= most)
    return {
        "id": item["id"],
        "prompt": item["prompt"],
        "response": sample.output.completion if sample.output.choices else "",
        "reference": item["reference"],
        "finish": "length" if cut else "stop",
        "turns": sum(message.role == "assistant" for message in sample.messages),
        "score": float(score.value in ("C", 1, 1.0, True)),
    }


def summary(samples: list[dict[str, Any]]) -> dict[str, Any]:
    ended = [float(sample["finish"] == "stop") for sample in samples]
    return {
        "termination_rate": sum(ended) / len(ended),
        "mean_turns": sum(sample["turns"] for sample in samples) / len(samples),
    }
