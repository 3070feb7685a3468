"""The rule about memory before any step: what the run needs by arithmetic, against what its machine has."""

from __future__ import annotations

from bot.diagnosis.observations import Observations
from bot.diagnosis.readings import finite, shown
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


RULES: tuple[Rule, ...] = (
    Rule(
        Symptom.OOM,
        memory_too_small,
        "an estimate by arithmetic (runners/hardware), whose error tests/bench/hardware.py measures†",
        preflight=True,
    ),
)
