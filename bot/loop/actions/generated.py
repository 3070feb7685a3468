"""Rows that a training job made itself: scanned before its run's result counts, and told in the dataset's card.

What the data job builds is scanned before anything trains on it. A method that writes its own rows (synthetic, rft and
distill off-policy) trains on what nobody has seen before it ended, so its result waits for the scan of those rows.
rft and distill leave the first 1,000 of theirs, which is what is looked at.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from bot.data.scan import ScanReport
from bot.domain.diagnosis import Diagnosis, Evidence, Severity, Symptom
from bot.domain.experiment import Experiment, JobRole, Run
from bot.domain.recipe import line_of
from bot.evaluation.benchmarks import held_out_items
from bot.loop.actions.traces import job_path, output, output_json
from bot.loop.own_benchmark import benchmark_of
from bot.loop.screening import screened
from bot.loop.world import World

FILES = ("out/synthetic.jsonl", "out/kept.jsonl", "out/teacher.jsonl")
CARD = "out/synthetic_card.json"


class Generated(NamedTuple):
    """What a run made, as its DIAGNOSED keeps it."""

    facts: dict[str, Any] | None
    """{"file", "rows", "flagged", "flagged_rows", "verdict", "card"}, never a row's text; None for a run that made
    none."""
    blame: Diagnosis | None
    """Where rows hold items of the benchmark."""


async def generated_rows(world: World, x: Experiment, run: Run) -> Generated:
    """Scan what the run's training job wrote for itself."""
    folder = job_path(world, x, JobRole.TRAIN, run.n)
    name, content = next(((name, found) for name in FILES if (found := output(folder, name))), ("", b""))
    if not name:
        return Generated(None, None)
    assert x.goal is not None
    held_out = held_out_items(await benchmark_of(world, x), x.goal.seed)
    report = await screened(_rows(content), held_out, world.embeddings)
    facts = {
        "file": name,
        "rows": report.rows,
        "verdict": report.verdict,
        "flagged": [{"row": m.row, "eval_id": m.eval_id, "kind": m.kind, "score": m.score} for m in report.flagged],
        "flagged_rows": len(report.flagged_rows),
        "card": usable_card(output_json(folder, CARD)),
    }
    return Generated(facts, _blame(run, name, report) if report.flagged else None)


def spoiled(facts: Mapping[str, Any]) -> str:
    """Why a run's result does not count, one sentence."""
    return (
        f"It was trained on rows that it made itself, and {facts['flagged_rows']} of those {facts['rows']} hold items "
        "of the benchmark that this goal is measured on, so its result does not count."
    )


def card_of(x: Experiment) -> Mapping[str, Any] | None:
    """What the latest run that made rows of its own tells of them; None where none did."""
    told = (run.generated["card"] for run in reversed(x.runs) if run.generated is not None)
    return next(told, None)


def _blame(run: Run, name: str, report: ScanReport) -> Diagnosis:
    rows = len(report.flagged_rows)
    key = next((key for key in ("new_prompts", "teacher", "method") if line_of(run.recipe, key)), "method")
    return Diagnosis(
        Symptom.CONTAMINATION, Severity.FATAL, 0.95,
        (Evidence("rows", None, report.rows), Evidence("flagged_rows", None, rows)),
        f"{rows} of the {report.rows} rows that the run made for itself ({name}) hold items of the benchmark.",
        key=key, line=line_of(run.recipe, key),
        runner_up="a task so small that new questions meet the benchmark's by chance",
        refuted_by="a scan of the same rows that flags none of them",
    )  # fmt: skip


def _rows(content: bytes) -> Sequence[dict[str, Any]]:
    """A script writes what it likes: lines that are no JSON object are left out."""
    found = []
    for line in content.decode("utf-8", "replace").split("\n"):
        try:
            row = json.loads(line) if line.strip() else None
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            found.append(row)
    return found


_CARD_PARTS: Mapping[str, type | tuple[type, ...]] = {
    "generator": str, "seed": int, "new_prompts": bool, "verified_by": list, "stages": dict, "rejected": dict,
    "strata": dict, "synthetic_share": dict, "rows": dict, "sha256": str,
}  # fmt: skip
_MOST_CARD_CHARACTERS = 20_000


def usable_card(card: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The card where it has the documented form, as templates/scripts/synthetic.py writes it; a script may write what
    it likes, and the dataset's card shows no half of it."""
    if card is None or len(json.dumps(card)) > _MOST_CARD_CHARACTERS:
        return None
    if not all(isinstance(card.get(name), kind) for name, kind in _CARD_PARTS.items()):
        return None
    counts = [*card["stages"].values(), *card["rejected"].values(), *card["rows"].values()]
    counts += [stratum.get(key) if isinstance(stratum, dict) else None for stratum in card["strata"].values()
               for key in ("real", "verified", "used")]  # fmt: skip
    shares = [card["synthetic_share"].get(key) for key in ("wanted", "reached")]
    whole = all(isinstance(count, int) for count in counts) and {"real", "synthetic"} <= card["rows"].keys()
    if not whole or not all(isinstance(share, int | float) for share in shares):
        return None
    return {name: card[name] for name in _CARD_PARTS}
