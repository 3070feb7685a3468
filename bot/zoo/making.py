"""Makes the zoo: carries the plan out case by case, remembers what is done, and writes the traces.

A making that was killed goes on where it stopped: every finished case is a line of manifest.jsonl and a folder of raw/,
both written before the next case begins. Nothing depends on the order, and the same plan leaves the same traces (up to
seconds, and to processors that round differently).
"""

from __future__ import annotations

import json
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from bot.domain.diagnosis import Symptom
from bot.errors import PlatformError
from bot.zoo.faults import FAULTS
from bot.zoo.faults.fault import LENGTH
from bot.zoo.judging import verdict
from bot.zoo.plan import CONTROL, FAULT, HEALTHY, PAIR, Case
from bot.zoo.progress import Progress, side_by_side
from bot.zoo.repairs import repairs_of
from bot.zoo.replayed import replayed_traces
from bot.zoo.running import Keeper, Outcome
from bot.zoo.specimen import Json
from bot.zoo.traces import TRUTH, Trace, Truth, goal_of, pack, told_goal, trace_of

MANIFEST = "manifest.jsonl"
ARCHIVE = "traces.tar.xz"
CENSUS = "census.json"


@dataclass(slots=True)
class Making:
    """The folder in which a zoo is made."""

    folder: Path
    done: dict[str, Outcome] = field(default_factory=dict)
    """By the case's name."""
    digests: dict[str, str] = field(default_factory=dict)
    """Of the specimens that were run; a case whose specimen is another by now is run again."""
    broken: set[str] = field(default_factory=set)
    """Cases that could not be carried out for reasons of this machine; tried again by the next making."""
    writing: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def opened(cls, folder: Path) -> Making:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cache").mkdir(exist_ok=True)
        (folder / "raw").mkdir(exist_ok=True)
        made = cls(folder)
        manifest = folder / MANIFEST
        for line in manifest.read_text(encoding="utf-8").splitlines() if manifest.exists() else ():
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # the line that was being written when the making was killed
            if (folder / "raw" / entry["name"]).is_dir():
                made.done[entry["name"]] = Outcome.from_dict(entry["outcome"])
                made.digests[entry["name"]] = entry["specimen"]
        return made

    def make(
        self,
        cases: Sequence[Case],
        say: Callable[[str], None],
        *,
        budget_minutes: float | None = None,
        workers: int = 1,
        base: Path | None = None,
    ) -> int:
        """Carry out what is not done yet; the number of cases that are still missing afterwards."""
        missing = [case for case in cases if self.digests.get(case.name) != case.specimen().digest]
        if missing:
            progress = Progress(len(missing), budget_minutes, workers, say)
            with Keeper(self.folder / "cache", base) as keeper:
                side_by_side(workers, [partial(self._make_one, keeper, case, progress) for case in missing])
            if progress.left_out:
                say(f"stopped at {budget_minutes:g} minutes with {progress.left_out} cases to go")
        return sum(case.name not in self.done for case in cases)

    def _make_one(self, keeper: Keeper, case: Case, progress: Progress) -> None:
        if not progress.may_begin():
            return
        before = keeper.cpu_seconds
        work = self.folder / "work" / case.name
        shutil.rmtree(work, ignore_errors=True)
        specimen = case.specimen()
        digest = specimen.digest
        try:
            outcome = keeper.run(specimen, work)
        except PlatformError as error:
            self.broken.add(case.name)
            progress.tell(f"{case.description}: could not be made: {error}")
            return
        trace = trace_of(specimen, outcome, work, case.name)
        raw = self.folder / "raw" / case.name
        unfinished = raw.with_name(f".{case.name}")
        shutil.rmtree(unfinished, ignore_errors=True)
        trace.write(unfinished)
        shutil.rmtree(raw, ignore_errors=True)
        unfinished.rename(raw)
        cpu_seconds = round(keeper.cpu_seconds - before, 1)
        entry = {"name": case.name, "case": case.description, "specimen": digest, "outcome": outcome.as_dict(),
                 "cpu_seconds": cpu_seconds}  # fmt: skip
        with self.writing, (self.folder / MANIFEST).open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        self.done[case.name], self.digests[case.name] = outcome, digest
        shutil.rmtree(work)
        score = "-" if outcome.value is None else f"{outcome.value:.3f}"
        progress.tell(f"{case.description}: {outcome.state} {score}, {cpu_seconds} s")

    # --- Judging ----------------------------------------------------------------------------------------------------

    def judged(self, cases: Sequence[Case]) -> tuple[list[Trace], Json]:
        """The traces that stay, with their truth, and the census of those that were dropped."""
        kept, dropped, planned = [], Counter[str](), Counter[str]()
        harmless, repairs = Counter[str](), repairs_of(self.folder)
        for case in cases:
            outcome = self.done.get(case.name)
            if outcome is None:
                continue
            planned[case.kind] += 1
            control = self.done.get(case.control().name) if case.kind in (FAULT, PAIR) else None
            said = verdict(case, outcome, control)
            if not said.kept:
                dropped[said.why] += 1
                if said.why == "it did no harm":
                    harmless[f"{'+'.join(map(str, case.faults))} {case.severity}".strip()] += 1
                continue
            truth = replace(truth_of(case, outcome, control, doomed=said.doomed), repairs=repairs.get(case.name))
            raw = self.folder / "raw" / case.name
            files = {path.name: path.read_bytes() for path in sorted(raw.iterdir())}
            files |= told_goal(case.specimen())
            files[TRUTH] = (json.dumps(truth.as_dict()) + "\n").encode()
            kept.append(Trace(case.name, files))
        census = {"made": dict(planned), "kept": len(kept), "dropped": dict(dropped), "harmless": dict(harmless)}
        return kept, census

    def packed(self, cases: Sequence[Case]) -> tuple[Path, int, Json]:
        """Write the archive: (where, bytes, census)."""
        traces, census = self.judged(cases)
        traces += replayed_traces()
        archive = self.folder / ARCHIVE
        size = pack(traces, archive)
        (self.folder / CENSUS).write_text(json.dumps(census, indent=1) + "\n", encoding="utf-8")
        return archive, size, census


def truth_of(case: Case, outcome: Outcome, control: Outcome | None, *, doomed: bool) -> Truth:
    specimen = case.specimen()
    common: Json = {
        "case": case.description, "severity": case.severity, "seed": case.seed, "held_out": case.held_out,
        "method": specimen.method, "task": specimen.task, "value": outcome.value, "steps": outcome.planned,
        "control": control.value if control is not None else None, "doomed": doomed,
    }  # fmt: skip
    if case.kind in (HEALTHY, CONTROL):
        goal = goal_of(specimen)
        if goal is not None and outcome.value is not None and outcome.value < goal["target"]:
            # Longer training is what it lacks, and that nothing else shows is as true.
            common |= {"labels": (Symptom.PLATEAU, Symptom.UNKNOWN), "line_keys": LENGTH}
        return Truth(healthy=True, **common)
    trained = outcome.steps or outcome.state == "succeeded"  # else it was refused: that shows before training
    first, *others = (FAULTS[number] for number in case.faults)
    return Truth(
        healthy=False, labels=first.labels, line_keys=first.keys, neighbours=first.neighbours, fault=first.number,
        second=others[0].labels if others else (), shows=first.shows if trained else "data",
        **common,
    )  # fmt: skip
