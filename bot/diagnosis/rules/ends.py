"""How a job ended: what several rules about crashes, memory, machine and access read from its log and status."""

from __future__ import annotations

from bot.diagnosis.logs import Crash, last_crash
from bot.diagnosis.observations import Observations
from bot.diagnosis.readings import count
from bot.domain.diagnosis import Symptom


def crash_of(observations: Observations) -> Crash | None:
    """How the job ended, None when it did not crash. A job that succeeded, or whose model was evaluated, did not."""
    return observations.once("crash", lambda: _crash_of(observations))


def _crash_of(observations: Observations) -> Crash | None:
    if observations.finished:
        return None
    names = frozenset(str(v) for k, v in observations.recipe.items() if k.endswith(("_column", "_field")))
    return last_crash(observations.log, column_names=names)


def crashed_by(observations: Observations, symptom: Symptom) -> Crash | None:
    """The crash, when it is of this kind."""
    crash = crash_of(observations)
    return crash if crash is not None and crash.symptom is symptom else None


def has_end(observations: Observations) -> bool:
    """Something was observed of how the job ended."""
    return bool(observations.job) or bool(observations.log) or observations.evaluation is not None


def job_words(observations: Observations) -> str:
    """What the job's status says about its end."""
    evidence = observations.job.get("evidence")
    words = "; ".join(str(item) for item in evidence) if isinstance(evidence, list) else ""
    return words[:200] or str(observations.job.get("failure") or observations.job.get("state") or "")


def logged_step(observations: Observations) -> int | None:
    return observations.last_step or None


def on_gpu(observations: Observations) -> bool:
    gpus = count(observations.setup["gpus"]) if observations.setup.get("gpus") is not None else None
    return bool(gpus) or "cuda" in str(observations.setup.get("device", ""))


def killed(observations: Observations) -> bool:
    """The kernel ended the process from outside (signal 9; 137 as an exit code), which it does when memory runs out."""
    codes = (observations.job.get("exit_code"), observations.job.get("signal"))
    return any(code in (137, -9, 9, "SIGKILL") for code in codes)
