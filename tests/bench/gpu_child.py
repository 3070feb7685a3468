"""Runs a training script, ours or TRL's, and writes when each of its steps ended, its losses and its peak memory.

    python gpu_child.py OUT.json SCRIPT WORDS...

Every trainer of TRL is one of transformers' own, so one callback that is added there measures all of them alike.
"""

from __future__ import annotations

import json
import resource
import runpy
import sys
import time
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback

SEEN: dict[str, Any] = {"ended": [], "losses": []}


class Watch(TrainerCallback):  # type: ignore[misc]
    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        SEEN["ended"].append(time.monotonic())

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **others: Any) -> None:
        if "loss" in (logs or {}):
            SEEN["losses"].append(float(logs["loss"]))


def main() -> None:
    out, script, *words = sys.argv[1:]
    built = Trainer.__init__

    def watched(self: Any, *args: Any, **kwargs: Any) -> None:
        built(self, *args, **kwargs)
        self.add_callback(Watch())

    Trainer.__init__ = watched
    sys.argv = [script, *words]
    sys.path.insert(0, str(Path(script).resolve().parent))
    runpy.run_path(script, run_name="__main__")
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_reserved() / 2**30
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    Path(out).write_text(json.dumps(SEEN | {"peak_memory_gib": peak}))


if __name__ == "__main__":
    main()
