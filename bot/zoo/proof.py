"""The whole answer of `postdoc zoo`: the engine's figures, the baselines' beside them, and what was repaired."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from bot.zoo.baselines import judges
from bot.zoo.reading import LOOKS, Judge, read_trace
from bot.zoo.repairs import repair_figures
from bot.zoo.scoring import Judged, lines, score
from bot.zoo.specimen import Json
from bot.zoo.traces import Trace, each_folder


def scored(traces: Sequence[Trace], *, looks: int = LOOKS) -> tuple[Json, list[str]]:
    """(figures, lines for people). `looks`: how often a run is looked at while it trains, at most."""
    truths = {trace.name: trace.truth for trace in traces}
    tuned = [truth for truth in truths.values() if not truth.held_out and not truth.replayed]
    with tempfile.TemporaryDirectory(prefix="postdoc-zoo-") as place:
        folders = list(each_folder(list(traces), Path(place)))

        def judged(by: Judge) -> list[Judged]:
            return [Judged(trace.name, truths[trace.name], by(folder)) for trace, folder in folders]

        result = score(judged(partial(read_trace, looks=looks)))
        result["baselines"] = {name: score(judged(each))["summary"] for name, each in judges(tuned, looks).items()}
    result["traces"] = {
        "all": len(traces), "healthy": sum(truth.healthy for truth in truths.values()),
        "replayed": sum(truth.replayed for truth in truths.values()),
    }  # fmt: skip
    repaired = repair_figures(traces)
    if repaired:
        result["repairs"] = repaired
        result["summary"] |= {name: repaired["playbook"][name] for name in ("repair_1", "repair_3")}
    return result, lines(result)
