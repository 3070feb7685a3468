"""Rules about memory: what a run needs by arithmetic before any step, and which part of a step found none left."""

from __future__ import annotations

from typing import Any

from bot.diagnosis.defaults import batch_size, max_length
from bot.diagnosis.observations import Observations
from bot.diagnosis.readings import count, finite, shown
from bot.diagnosis.remedies import memory_remedy
from bot.diagnosis.rules.ends import crash_of, crashed_by, has_end, job_words, killed, logged_step, on_gpu
from bot.diagnosis.rules.finding import Answer, Basis, Rule, RuledOut, finding, seen
from bot.domain.diagnosis import Severity, Symptom


def memory_too_small(observations: Observations) -> Answer:
    """hardware.json says what is needed and what is there, and which settings would bring the one below the other."""
    hardware = observations.hardware
    needed, available = (finite(hardware.get(key, "")) for key in ("needed_gib", "available_gib"))
    if needed is None or available is None:
        return None
    if observations.finished or observations.steps:
        return RuledOut(Symptom.OOM, "training steps were done, so it has fitted")
    machine = str(hardware.get("machine") or "the machine")
    if needed <= available:
        return RuledOut(Symptom.OOM, f"about {shown(needed)} of {shown(available)} GiB on {machine} are needed")
    changes = hardware.get("changes")
    changes = dict(changes) if isinstance(changes, dict) else {}
    key = next(iter(changes), None) or observations.first_key("per_device_train_batch_size", "max_length")
    together = " and ".join(f"`{name}: {_value(value)}`" for name, value in changes.items())
    advice = f" It would fit with {together}." if changes else " No setting of the recipe that is tried makes it fit."
    if hardware.get("cheapest"):
        advice += f" Without a change, the cheapest machine that it fits on is {hardware['cheapest']}."
    largest = f" ({hardware['largest_part']} alone)" if hardware.get("largest_part") else ""
    return finding(
        observations,
        Symptom.OOM,
        Basis.DATA,
        severity=Severity.FATAL,
        # The estimate's error is some tenths; far above the memory there is none left.
        confidence=0.6 if needed < 1.25 * available else 0.9,
        evidence=[
            seen("needed_gib", None, needed),
            seen("available_gib", None, available),
        ],
        cause=f"Training does not fit: it needs about {needed:.1f} GiB by estimate{largest}, and {machine} has "
        f"{available:.1f} GiB.{advice}",
        key=key,
        suggested=changes.get(key),
        runner_up="an estimate that is too high: rows that are shorter than they may be",
        refuted_by="a few steps of the same recipe on the same machine that end well",
    )


def _value(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


# What each part of a step holds, and so what asks for less of it.
_PARTS = {
    "load": "while the weights were loaded",
    "forward": "in the forward pass, which holds the activations",
    "backward": "in the backward pass, which holds activations and gradients",
    "step": "in the optimizer's step, which holds two states for every trained weight",
    "logps": "while the log-probabilities of the completions were computed (batch x completion length x vocabulary "
    "x 2 bytes)",
    "vllm": "while vLLM took its share of the GPU beside the trainer",
}


def out_of_memory(observations: Observations) -> Answer:
    crash = crashed_by(observations, Symptom.OOM)
    by_kernel = observations.job.get("failure") == "oom"
    if (not by_kernel and crash is None) or (crash is None and _of_the_host(observations)):
        return (
            RuledOut(Symptom.OOM, "the log and the job's status show no allocation failure")
            if has_end(observations)
            else None
        )
    phase = crash.phase if crash is not None else ""
    batch = batch_size(observations)
    key, suggested = memory_remedy(
        observations.recipe, phase, observations.method, batch=batch, length=max_length(observations)
    )
    step = logged_step(observations)
    words = crash.exception if crash is not None else job_words(observations)
    peak = finite(observations.job.get("peak_memory_gib", "")) if observations.job else None
    evidence = [seen("log", step, words)]
    evidence += [seen("per_device_train_batch_size", None, batch)] if batch is not None else []
    evidence += [seen("phase", None, phase)] if phase else []
    evidence += [seen("peak_memory_gib", step, peak)] if peak is not None else []
    where = f" {_PARTS[phase]}" if phase else ""
    with_batch = f" with {batch} sequences per device" if batch is not None else ""
    unsaid = f" Nothing says how large the batch was: set `{key}`." if batch is None and suggested is None else ""
    return finding(
        observations,
        Symptom.OOM,
        Basis.CRASH,
        severity=Severity.FATAL,
        confidence=0.97,
        evidence=evidence,
        cause=f"The job ran out of memory{where} after {step or 0} logged steps{with_batch} ({words})." + unsaid,
        key=key,
        suggested=suggested,
        runner_up=_RUNNER_UP.get(phase, "max_length: a few very long rows fill the memory of their batch"),
        refuted_by=_REFUTED_BY.get(
            phase, "the same allocation failure with the batch at 1, or before the first batch is built"
        ),
    )


_RUNNER_UP = {
    "load": "another process that holds the same device's memory",
    "step": "per_device_train_batch_size: the activations left too little for the optimizer",
    "vllm": "max_length: a context so long that no cache block fits",
    "logps": "max_completion_length: a few completions that ran to the cap",
}
_REFUTED_BY = {
    "load": "the same model loading on the same device with nothing else on it",
    "step": "the same failure with an optimizer that keeps no second moments",
    "vllm": "vLLM starting with the same share on an empty device",
}


def host_out_of_memory(observations: Observations) -> Answer:
    """The machine's memory, not the GPU's: data loaders, tokenised data and saved states live there."""
    crash = crashed_by(observations, Symptom.HOST_OOM)
    if crash is None and not _of_the_host(observations):
        return RuledOut(Symptom.HOST_OOM, "no process was killed from outside") if has_end(observations) else None
    words = crash.exception if crash is not None else job_words(observations)
    workers = count(observations.recipe.get("dataloader_num_workers", 0) or 0) or 0
    key = "dataloader_num_workers" if workers or crash is not None else "per_device_train_batch_size"
    suggested: Any = 0 if workers else None
    if key == "per_device_train_batch_size" and not on_gpu(observations):
        batch, length = batch_size(observations), max_length(observations)
        key, suggested = memory_remedy(observations.recipe, "", observations.method, batch=batch, length=length)
    step = logged_step(observations)
    return finding(
        observations,
        Symptom.HOST_OOM,
        Basis.CRASH,
        severity=Severity.FATAL,
        confidence=0.85 if crash is not None else 0.7,
        evidence=[
            seen("log", step, words),
            seen("exit_code", None, _code(observations)),
            seen("dataloader_num_workers", None, workers),
        ],
        cause=f"The machine's own memory ran out after {step or 0} logged steps: the process, with {workers} data "
        f"loader workers, was ended from outside ({words}).",
        key=key,
        suggested=suggested,
        runner_up="a person or a scheduler that ended the job",
        refuted_by="a kernel log of that minute without an oom-kill",
    )


def _of_the_host(observations: Observations) -> bool:
    """Killed without a word of its own: by the kernel, beside a GPU that complained of nothing. Without a GPU the
    training itself is what filled the memory, which is the other rule's."""
    failure = observations.job.get("failure")
    if crash_of(observations) is not None or failure in ("timeout", "disk_full", "platform", "stall", "stalled"):
        return False
    if failure == "oom":
        return on_gpu(observations)
    return killed(observations) and observations.job.get("state") in ("failed", "lost", None)


def _code(observations: Observations) -> int | str | None:
    code = observations.job.get("exit_code")
    return code if isinstance(code, int) or code is None else str(code)


RULES: tuple[Rule, ...] = (
    Rule(
        Symptom.OOM,
        memory_too_small,
        "an estimate by arithmetic (runners/hardware), whose error tests/bench/hardware.py measures†",
        preflight=True,
    ),
    Rule(
        Symptom.OOM,
        out_of_memory,
        "cgroup oom_kill counter and the allocators' own messages; part of the step by frame: TRL issues 2688, 3678",
    ),
    Rule(Symptom.HOST_OOM, host_out_of_memory, "Axolotl FAQ: exit code -9; torch's DataLoader worker messages"),
)
