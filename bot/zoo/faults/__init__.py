"""The injected faults by number, and what their controls need.

| numbers | module | what is changed |
| --- | --- | --- |
| 1 to 11 | optimization | rates, schedules, clipping, precision, frozen weights, rounds, narrow tasks |
| 12 to 25 | data | end tokens, templates, masks, truncation, columns, rows, tokenizers |
| 26 to 30 | adapters | LoRA targets, which model is evaluated, preference pairs |
| 31 to 38 | rewards | rewards, sampling and step size of GRPO |
| 39 to 47 | machine | the evaluator, memory, processes, disk, time, the Hub (45 is three of these) |

What only a GPU shows are written logs: `bot.zoo.replayed`.
"""

from __future__ import annotations

from collections.abc import Callable

from bot.zoo.faults import adapters, data, machine, optimization, rewards
from bot.zoo.faults.fault import GROSS, MEDIUM, SEVERITIES, SUBTLE, Fault
from bot.zoo.specimen import Specimen

FAULTS: dict[int, Fault] = {
    fault.number: fault
    for fault in (*optimization.FAULTS, *data.FAULTS, *adapters.FAULTS, *rewards.FAULTS, *machine.FAULTS)
}
CONTROLS: dict[int, Callable[[Specimen], None]] = {**optimization.CONTROLS, **data.CONTROLS, **machine.CONTROLS}

__all__ = ["CONTROLS", "FAULTS", "GROSS", "MEDIUM", "SEVERITIES", "SUBTLE", "Fault"]
