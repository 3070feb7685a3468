"""The machines of Hugging Face Jobs and what they cost, as the Hub says now."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

from bot.errors import PostdocError
from runners.job import Flavor

_FRESH_SECONDS = 300.0
_UNIT_SECONDS = {"second": 1.0, "minute": 60.0, "hour": 3600.0}


class Prices:
    def __init__(self, ask: Callable[[], list[Any]]) -> None:
        self._ask = ask
        self._known: tuple[float, list[Flavor]] | None = None

    def flavors(self) -> list[Flavor]:
        """Asked for at most once in some minutes. Raises: PlatformError, TransientError, UserError."""
        if self._known is None or time.monotonic() - self._known[0] > _FRESH_SECONDS:
            self._known = time.monotonic(), [flavor_of(hardware) for hardware in self._ask()]
        return self._known[1]

    def usd_per_hour(self, name: str) -> float | None:
        """What is known, however old; None when the Hub cannot say."""
        try:
            offered = self._known[1] if self._known is not None else self.flavors()
        except PostdocError:
            return None
        return next((flavor.usd_per_hour for flavor in offered if flavor.name == name), None)


def flavor_of(hardware: Any) -> Flavor:
    """The Hub's description of a machine: numbers stand in words there, `12 vCPU`, `46 GB`."""
    accelerator = hardware.accelerator
    gpus = int(_number(accelerator.quantity)) if accelerator is not None and accelerator.type == "gpu" else 0
    unit = _UNIT_SECONDS.get(str(hardware.unit_label))
    return Flavor(
        name=str(hardware.name),
        gpus=gpus,
        gpu_model=str(accelerator.model) if gpus else "",
        gpu_memory_gib=_number(accelerator.vram) / gpus if gpus else 0.0,
        memory_gib=_number(hardware.ram),
        cpus=_number(hardware.cpu),
        usd_per_hour=None if unit is None else round(float(hardware.unit_cost_usd) * 3600 / unit, 6),
    )


def _number(text: Any) -> float:
    """The number that a text begins with; terabytes count as gigabytes."""
    match = re.match(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(TB)?", str(text))
    return 0.0 if match is None else float(match[1]) * (1024.0 if match[2] else 1.0)
