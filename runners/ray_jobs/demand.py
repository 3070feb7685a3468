"""Why a job waits on a Ray cluster, in words: what it wants, what of that is free, who is before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runners.ray_jobs.dashboard import Machine, Machines


@dataclass(frozen=True, slots=True)
class Demand:
    """What one machine must have free before the job starts."""

    cpus: float
    gpus: float
    memory_bytes: int
    resources: Mapping[str, float]

    @classmethod
    def of(cls, request: Mapping[str, Any]) -> Demand:
        """Of what was submitted; Ray's own record of a job does not say it."""
        return cls(
            request.get("entrypoint_num_cpus") or 0,
            request.get("entrypoint_num_gpus") or 0,
            request.get("entrypoint_memory") or 0,
            request.get("entrypoint_resources") or {},
        )

    def fits(self, machine: Machine) -> bool:
        """On the machine with nothing else on it."""
        offered = machine.resources or {}
        return (
            machine.cpus >= self.cpus
            and machine.gpus >= self.gpus
            and offered.get("memory", 0) >= self.memory_bytes
            and all(offered.get(name, 0) >= amount for name, amount in self.resources.items())
        )

    def words(self) -> str:
        parts = [counted(self.gpus, "GPU")] if self.gpus else []
        parts += [counted(self.cpus, "CPU core") if self.cpus >= 1 else "a share of a CPU core"]
        parts += [f"{self.memory_bytes / 2**30:g} GiB of memory"] if self.memory_bytes else []
        parts += [name.removeprefix("accelerator_type:") for name in self.resources]
        return ", ".join(parts[:-1]) + " and " + parts[-1] if len(parts) > 1 else parts[0]


def could_start(demand: Demand, machines: Machines) -> bool:
    return any(demand.fits(machine) for machine in machines.alive)


def waiting_words(demand: Demand, machines: Machines, before: int) -> str:
    """One sentence; `before` is how many jobs of the cluster were submitted earlier and wait too."""
    words = f"waits for {demand.words()}"
    if not could_start(demand, machines):
        return f"{words}; no machine of the cluster has that, {_largest(machines.alive)}"
    name, resource = ("GPU", "GPU") if demand.gpus else ("CPU core", "CPU")
    free = machines.free(resource)
    if free is not None:
        total = sum(machine.gpus if demand.gpus else machine.cpus for machine in machines.alive)
        words += f"; the cluster has {counted(total, name)}, {free:g} of them free"
    return f"{words}; {counted(before, 'job')} before it" if before else words


def counted(number: float, noun: str) -> str:
    return f"{number:g} {noun}{'' if number == 1 else 's'}"


def _largest(machines: Sequence[Machine]) -> str:
    able = [machine for machine in machines if machine.cpus or machine.gpus]
    if not able:
        return "it has none that runs jobs now"
    best = max(able, key=lambda machine: (machine.gpus, machine.cpus, machine.memory_gib))
    has = [counted(best.gpus, "GPU")] if best.gpus else []
    has += [counted(best.cpus, "CPU core"), f"{best.memory_gib:g} GiB"]
    return f"its largest has {', '.join(has)}"
