"""The names of the sandbox tiers, strongest first, and the resource limits that each needs."""

from __future__ import annotations

from enum import StrEnum

from runners.job import Caps


class Tier(StrEnum):
    BUBBLEWRAP_CGROUP = "bubblewrap+cgroup"
    """Own file system, network, processes and users; the kernel holds memory and process caps for the whole tree."""
    BUBBLEWRAP_RLIMITS = "bubblewrap+rlimits"
    """The same walls; caps for each process by resource limits, for the tree by a supervisor that looks and kills."""
    PLAIN = "plain"
    """No isolation, for scripts that ship with Postdoc only. The same caps; no network where the kernel allows that."""


def limits(caps: Caps, tier: Tier) -> dict[str, int]:
    """Resource limits by their names in the `resource` module, inherited by everything that the job starts."""
    chosen = {"RLIMIT_CORE": 0, "RLIMIT_FSIZE": int(caps.file_size_gib * 2**30)}
    if tier is not Tier.BUBBLEWRAP_CGROUP:
        # RLIMIT_AS would count address space that CUDA and allocators reserve and never touch.
        chosen["RLIMIT_DATA"] = int(caps.memory_gib * 2**30)
    return chosen
