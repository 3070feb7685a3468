"""Trace folders: what is kept of a run, small enough to be committed, and the archive that holds them all.

A trace is a folder as `postdoc diagnose` reads it, plus `truth.json`. Its name is a digest, numbers are rounded to four
significant digits, texts are samples, and paths of this machine are replaced. Not covered: weights; nothing of a model
is kept.
"""

from __future__ import annotations

import io
import json
import lzma
import math
import random
import re
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bot.errors import UserError
from bot.zoo.running import Outcome
from bot.zoo.specimen import Json, Specimen, dev_items

TRUTH = "truth.json"
GOAL = "goal.json"
DIGITS = 4
LOG_LINES, LOG_CHARACTERS = 200, 12_000
TRAIN_ROWS, SAMPLES, EVAL_ROWS, COMPLETIONS = 150, 60, 200, 40
NOT_KEPT = ("num_tokens", "step_time", "samples_per_second", "steps_per_second", "tokens_per_second", "runtime")
"""Columns of metrics.jsonl that say how fast a machine was and nothing about the run."""
MOST_BYTES = 10 << 20
"""Of the committed archive, compressed."""
LARGEST_FILE = 8 << 20
"""A member of an archive from elsewhere that is larger is no trace's."""


@dataclass(frozen=True, slots=True)
class Truth:
    """What is known of a trace and never shown to what diagnoses it."""

    healthy: bool
    labels: tuple[str, ...] = ()
    """Any of these as the first diagnosis is right. Of a healthy run: what may be said of it and is no false alarm."""
    line_keys: tuple[str, ...] = ()
    """Recipe keys, or files, that count as the right line; empty where no line of the experiment is to blame."""
    neighbours: tuple[str, ...] = ()
    """Right too where the whole fault was held out of tuning."""
    case: str = ""
    """Name of the case in the plan, without which nobody could make it again."""
    fault: int | None = None
    severity: str = ""
    second: tuple[str, ...] = ()
    """Labels of the second fault, where two were injected."""
    shows: str = ""
    """`data` before training, `training` only while it trains, `evaluation` only afterwards, `crash` in the log."""
    method: str = ""
    task: str = ""
    seed: int = 0
    held_out: str = ""
    """`seed`, `severity` or `fault`: why nothing was tuned on it. Empty: it was."""
    replayed: bool = False
    """A log that was written down, not a run: scored apart."""
    doomed: bool = False
    """The run could not have come to anything: under half of its control's score, or none."""
    value: float | None = None
    control: float | None = None
    steps: int = 0
    repairs: Json | None = None
    """By policy, after how many tries the run was repaired; 0 where it was not."""

    @classmethod
    def from_dict(cls, data: Json) -> Truth:
        known: Json = {key: data[key] for key in cls.__dataclass_fields__ if key in data}
        known |= {key: tuple(value) for key, value in known.items() if isinstance(value, list)}
        return cls(**known)

    def as_dict(self) -> Json:
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


@dataclass(slots=True)
class Trace:
    """One trace folder's files by name, truth apart."""

    name: str
    files: dict[str, bytes] = field(default_factory=dict)

    @property
    def truth(self) -> Truth:
        return Truth.from_dict(json.loads(self.files[TRUTH]))

    def write(self, folder: Path) -> Path:
        """What a diagnosis may see, in `folder`: everything but the truth."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self.files.items():
            if name != TRUTH:
                (folder / name).write_bytes(content)
        return folder


# --- From a job's folder ----------------------------------------------------------------------------------------------


def trace_of(specimen: Specimen, outcome: Outcome, folder: Path, name: str) -> Trace:
    """The trace of a run that has ended in `folder`."""
    out = folder / "out"
    files: dict[str, Any] = {
        "recipe.yaml": (folder / "recipe.yaml").read_text(encoding="utf-8"),
        GOAL: goal_of(specimen),
        "log.txt": clean_log(_text(folder / "log.txt"), folder),
        "job.json": job_of(outcome, name),
        "setup.json": _object(out / "setup.json"),
        "data_audit.json": _object(out / "data_audit.json"),
        "metrics.jsonl": [_metric(row) for row in _lines(out / "metrics.jsonl")],
        "train.jsonl": sampled(_lines(folder / "data" / "train.jsonl") or specimen.rows, TRAIN_ROWS),
        "eval.jsonl": [{"prompt": p, "reference": specimen.reference_prefix + r} for p, r in dev_items(specimen.task)],
        "evaluation.json": _evaluation(_object(folder / "evaluation.json"), SAMPLES),
        "baseline.json": _evaluation(_object(folder / "baseline.json"), SAMPLES),
        "completions.jsonl": sampled(_lines(out / "completions.jsonl"), COMPLETIONS),
    }
    return Trace(name, {name: _encoded(value, folder) for name, value in files.items() if value})


def goal_of(specimen: Specimen) -> Json | None:
    """Half of all people name a target that the method reaches, a quarter one above it, and a quarter none."""
    from bot.zoo.specimen import TARGETS

    wish = specimen.random("goal").random()
    target = TARGETS[specimen.method][specimen.task]
    if wish < 0.25:
        return None
    target = target if wish < 0.75 else round(target + 0.6 * (1 - target), 2)
    return {"benchmark": f"practice/{specimen.task}", "metric": "exact_match", "target": target}


def told_goal(specimen: Specimen) -> dict[str, bytes]:
    """The file of the goal as it is told today: a level that is set anew holds for runs that were made before."""
    goal = goal_of(specimen)
    return {GOAL: (json.dumps(goal, ensure_ascii=False) + "\n").encode()} if goal is not None else {}


def job_of(outcome: Outcome, name: str) -> Json:
    job = {"job_id": name, "state": outcome.state, "exit_code": outcome.exit_code, "failure": outcome.failure,
           "evidence": outcome.evidence, "seconds": outcome.seconds}  # fmt: skip
    if outcome.timeout_seconds is not None:
        job["timeout_seconds"] = outcome.timeout_seconds
    return job


def clean_log(text: str, folder: Path) -> str:
    """The end of the log, with this machine's paths out of it."""
    text = text.replace(str(folder.resolve()), "/job").replace(str(folder), "/job").replace(folder.name, "job")
    text = re.sub(r"(?:/[^\s\"':]+)?/site-packages/", "/venv/lib/site-packages/", text)
    text = re.sub(r"/[^\s\"':]*/lib/python3", "/usr/lib/python3", text)
    text = re.sub(r'  File "/[^"]*/bot/practice/zygote\.py".*\n.*\n|  File "<frozen runpy>".*\n', "", text)
    text = re.sub(r"http://127\.0\.0\.1:\d+", "https://huggingface.co", text)
    return "\n".join(text.split("\n")[-LOG_LINES:])[-LOG_CHARACTERS:]


def sampled(rows: list[Json], most: int) -> list[Json]:
    """At most `most` rows in their order, the same ones of equal lists."""
    if len(rows) <= most:
        return rows
    chosen = sorted(random.Random(f"sample/{len(rows)}").sample(range(len(rows)), most))
    return [rows[index] for index in chosen]


def _metric(row: Json) -> Json:
    return {key: rounded(value) for key, value in row.items() if not key.endswith(NOT_KEPT)}


def rounded(value: Any) -> Any:
    """Numbers with `DIGITS` significant digits, whatever they are in."""
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items()}
    if isinstance(value, list):
        return [rounded(part) for part in value]
    if isinstance(value, float) and math.isfinite(value):
        short = float(f"{value:.{DIGITS}g}")
        return int(short) if short.is_integer() and abs(short) < 1e6 else short
    return value


def _evaluation(whole: Json | None, most: int) -> Json | None:
    if not whole:
        return None
    kept = {key: value for key, value in whole.items() if key not in ("harness", "seconds", "samples")}
    names = ("id", "prompt", "response", "reference", "score", "finish")
    samples = [{key: sample[key] for key in names} for sample in whole["samples"][:most]]
    return kept | {"harness_digest": str(whole["harness_digest"])[:12], "samples": samples}


def _encoded(value: Any, folder: Path) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, list):
        return "".join(json.dumps(rounded(row), ensure_ascii=False) + "\n" for row in value).encode()
    return (json.dumps(rounded(value), ensure_ascii=False) + "\n").replace(str(folder), "/job").encode()


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def _lines(path: Path) -> list[Json]:
    found = []
    for line in _text(path).split("\n"):
        try:
            row = json.loads(line) if line.strip() else None
        except ValueError:
            row = None
        if isinstance(row, dict):
            found.append(row)
    return found


def _object(path: Path) -> Json | None:
    try:
        found = json.loads(_text(path) or "null")
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


# --- Archives ---------------------------------------------------------------------------------------------------------


def pack(traces: list[Trace], archive: Path) -> int:
    """Write the archive, and say how many bytes it has. The same traces make the same bytes.

    Equal files of several traces (rows, items) lie side by side and are compressed away.
    """
    members = [(name, trace.name, content) for trace in traces for name, content in trace.files.items()]
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for file, name, content in sorted(members, key=lambda member: (member[0], member[2], member[1])):
            entry = tarfile.TarInfo(f"{name}/{file}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 128 << 20}]
    data = lzma.compress(raw.getvalue(), format=lzma.FORMAT_XZ, filters=filters)
    archive.write_bytes(data)
    return len(data)


def read_traces(place: Path) -> list[Trace]:
    """The traces of a folder of trace folders, or of an archive, sorted by name. Raises: UserError."""
    if place.is_dir():
        folders = sorted({path.parent for path in place.rglob(TRUTH)})
        found = [Trace(f.name, {p.name: p.read_bytes() for p in sorted(f.iterdir()) if p.is_file()}) for f in folders]
    elif place.is_file():
        found = _unpacked(place)
    else:
        raise UserError(f"--traces {place}: there is nothing there. Name a folder of traces, or a .tar.xz of them.")
    if not found:
        raise UserError(f"--traces {place}: no folder in it has a {TRUTH}, which says what a trace's fault is.")
    return found


def _unpacked(archive: Path) -> list[Trace]:
    """Read member by member and never extracted: a path in somebody's archive leads nowhere."""
    traces: dict[str, Trace] = {}
    try:
        with tarfile.open(archive, mode="r:*") as tar:
            for entry in tar:
                folder, _, name = entry.name.rpartition("/")
                stream = tar.extractfile(entry) if entry.isfile() and entry.size <= LARGEST_FILE else None
                if stream is not None and folder:
                    trace = traces.setdefault(folder, Trace(folder.rpartition("/")[2]))
                    trace.files[sys.intern(name)] = stream.read()
    except (tarfile.TarError, lzma.LZMAError, EOFError, OSError) as error:
        raise UserError(f"--traces {archive}: not a readable archive ({error}). Name a .tar.xz of traces.") from error
    return sorted((trace for trace in traces.values() if TRUTH in trace.files), key=lambda trace: trace.name)


def each_folder(traces: list[Trace], place: Path) -> Iterator[tuple[Trace, Path]]:
    """Every trace with a folder that holds what may be seen of it."""
    for trace in traces:
        yield trace, trace.write(place / trace.name)
