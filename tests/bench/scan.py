"""The contamination scan: what it finds of a planted corpus, and its speed and memory beside other projects'.

The others are installed once into the cache folder, in an environment of their own; where that cannot be done, a
sentence says so in place of the ratios.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from bot.config import cache_folder
from bot.data.paraphrases import ModelEmbedder, find_paraphrases
from bot.data.scan import scan
from tests.bench.printing import figure
from tests.data.planted import CLASSES, EXACT, FORMS, REWORDED, Corpus, corpus, sentence_words

MEGABYTES = int(os.environ.get("POSTDOC_BENCH_SCAN_MB", "200"))
WORKERS = 2
ITEMS, PLANTED, ROW_WORDS = 2000, 1000, 400
BAR_JANITOR, BAR_DATATROVE, BAR_GIB = 10.0, 2.0, 1.0
EXACT_RECALL, PRECISION = 1.0, 0.99
# xxhash 4 takes no text any more, which datatrove 0.10.1 gives it.
RIVALS = ("datatrove==0.10.1", "lm-eval==0.4.13", "spacy>=3.8,<4", "orjson", "xxhash<4")
SEEDS = (0, 1, 2)


def measure(repeat: int) -> tuple[list[str], dict[str, Any]]:
    """Lines to print, and what they were made of."""
    found, lines = quality()
    speed, more = speeds(repeat)
    return [*lines, *more], {"planted": found, "speed": speed}


# --- What is found ----------------------------------------------------------------------------------------------------


def quality() -> tuple[dict[str, Any], list[str]]:
    """On three planted corpora together; each class with its recall, all together with their precision."""
    planted, found = Counter[str](), Counter[str]()
    right = wrong = rows = 0
    for seed in SEEDS:
        made = corpus(seed, each=150, decoys=5000)
        rows += len(made.rows)
        hits, mistakes = judged(made)
        planted.update(kind for _, kind in made.truth.values())
        found.update(hits)
        right, wrong = right + sum(hits.values()), wrong + mistakes
    precision = right / (right + wrong)
    lines = [f"Contamination planted in {rows:,} rows (three corpora)"]
    for kind in CLASSES:
        recall = found[kind] / planted[kind]
        bar = f"{recall / EXACT_RECALL:5.2f} of the floor 1" if kind in (*EXACT, *FORMS) else "      measured, no bar"
        lines.append(f"  {kind:<26} recall {100 * recall:5.1f} %  of {planted[kind]:4d}   {bar}")
    lines.append(f"  {'all flagged pairs':<26} precision {precision:.4f} of {right + wrong:,}  "
                 f"{precision / PRECISION:5.2f} of the floor 0.99")  # fmt: skip
    lines += paraphrase_lines()
    table = {kind: {"recall": found[kind] / planted[kind], "n": planted[kind]} for kind in CLASSES}
    return {"classes": table, "precision": precision, "flagged": right + wrong}, lines


def paraphrase_lines() -> list[str]:
    """The reworded classes again with embeddings, where POSTDOC_BENCH_EMBEDDINGS names a model for them."""
    model = os.environ.get("POSTDOC_BENCH_EMBEDDINGS", "")
    if not model:
        return ["  not measured with embeddings: POSTDOC_BENCH_EMBEDDINGS names no model (a folder or OWNER/NAME)"]
    planted, found = Counter[str](), Counter[str]()
    wrong = 0
    made = corpus(SEEDS[0], each=150, decoys=1000)
    planted.update(kind for _, kind in made.truth.values())
    with ModelEmbedder(model) as embed:
        report = scan(made.rows, made.items).with_matches(find_paraphrases(made.rows, made.items, embed).matches)
    for match in report.flagged:
        item, kind = made.truth.get(match.row, ("", ""))
        found[kind] += item == match.eval_id
        wrong += item != match.eval_id
    lines = [f"  with embeddings of {model}, one corpus:"]
    lines += [
        f"  {kind:<26} recall {100 * found[kind] / planted[kind]:5.1f} %  of {planted[kind]:4d}" for kind in REWORDED
    ]
    return [*lines, f"  {'all flagged pairs':<26} precision {1 - wrong / len(report.flagged):.4f}"]


def judged(made: Corpus) -> tuple[Counter[str], int]:
    """Planted rows found with the item that is in them, by class; and flagged pairs that nobody planted."""
    hits, wrong = Counter[str](), 0
    for match in scan(made.rows, made.items).flagged:
        if match.row in made.truth and made.truth[match.row][0] == match.eval_id:
            hits[made.truth[match.row][1]] += 1
        else:
            wrong += 1
    return hits, wrong


# --- How fast ---------------------------------------------------------------------------------------------------------


def speeds(repeat: int) -> tuple[dict[str, Any], list[str]]:
    with tempfile.TemporaryDirectory(prefix="postdoc-bench-") as name:
        folder = Path(name)
        write_rows(folder)
        ours = [postdoc(folder) for _ in range(repeat)]
        lines = [f"Scan of {MEGABYTES} MB for {ITEMS:,} items on {WORKERS} processes",
                 f"  postdoc scan       {ours[0]['seconds']:8.3g} s, start of Python and reading included; "
                 f"{ours[0]['found']:,} of {PLANTED:,} planted rows",
                 figure("peak GiB", [one["gib"] for one in ours], BAR_GIB)]  # fmt: skip
        result: dict[str, Any] = {"megabytes": MEGABYTES, "postdoc": ours}
        python, problem = rivals_python()
        if python is None:
            return result, [*lines, f"  not compared with lm-evaluation-harness and datatrove: {problem}"]
        for rival, bar in (("janitor", BAR_JANITOR), ("datatrove", BAR_DATATROVE)):
            theirs = rival_run(python, rival, folder)
            result[rival] = theirs
            if "problem" in theirs:
                lines.append(f"  not compared with {rival}: {theirs['problem']}")
                continue
            lines.append(f"  {rival:<18} {theirs['seconds']:8.3g} s, its work alone; {theirs['found']:,} rows")
            ratios = [theirs["seconds"] / one["seconds"] for one in ours]
            lines.append(figure(f"times {rival}", ratios, bar, at_least=True))
    return result, lines


def write_rows(folder: Path) -> None:
    """`rows/`, one file for each process, and `items.jsonl`. One row in a hundred has typographic quotes and dashes."""
    rng = np.random.default_rng(0)
    words, weights = sentence_words()
    vocabulary, ends = np.array(words, dtype=object), np.array(weights) / weights[-1]

    def text(count: int) -> str:
        return " ".join(vocabulary[np.searchsorted(ends, rng.random(count))])

    items = [{"id": str(n), "prompt": f"{text(40)}?", "reference": text(12)} for n in range(ITEMS)]
    (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    (folder / "rows").mkdir()
    planted = iter(range(PLANTED))
    for worker in range(WORKERS):
        written = rows = 0
        with (folder / "rows" / f"{worker}.jsonl").open("w", encoding="utf-8") as file:
            while written < MEGABYTES * 1_000_000 // WORKERS:
                row = f"{text(ROW_WORDS)}."
                if rows % 100 == 0:
                    row = f"\u201c{row}\u201d \u2013 {text(5)}"
                every = max(1, MEGABYTES * 1_000_000 // (7 * ROW_WORDS) // PLANTED)
                if rows % every == 0 and (number := next(planted, None)) is not None:
                    row += f" {items[number]['prompt']} {text(20)}"
                written += file.write(json.dumps({"text": row}, ensure_ascii=False) + "\n")
                rows += 1
    # What the rounding left over goes into the last file.
    with (folder / "rows" / f"{WORKERS - 1}.jsonl").open("a", encoding="utf-8") as file:
        for number in planted:
            file.write(json.dumps({"text": f"{text(ROW_WORDS)} {items[number]['prompt']} {text(20)}"}) + "\n")


def postdoc(folder: Path) -> dict[str, Any]:
    """The command as a person runs it: seconds from start to end, and the memory of all its processes together."""
    report = folder / "report.json"
    argv = [sys.executable, "-m", "bot", "scan", "--train", str(folder / "rows"), "--eval", str(folder / "items.jsonl"),
            "--workers", str(WORKERS), "--json", str(report)]  # fmt: skip
    started = time.perf_counter()
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        peak = max(peak, memory_of_tree(process.pid))
        time.sleep(0.02)
    seconds = time.perf_counter() - started
    if process.returncode:
        raise SystemExit(f"postdoc scan ended with {process.returncode}")
    rows = {match["row"] for match in json.loads(report.read_text())["flagged"]}
    return {"seconds": seconds, "gib": peak / (1 << 30), "found": len(rows)}


def memory_of_tree(pid: int) -> int:
    """Resident bytes of a process and all below it; pages that they share are counted in each. 0 where /proc is not."""
    total = 0
    try:
        total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text().split():
                total += memory_of_tree(int(child))
    except OSError:
        pass  # it ended while it was looked at
    return total


def rivals_python() -> tuple[Path | None, str]:
    """Python of the environment that the others are installed in, made where it is not there; or why there is none."""
    folder = Path(os.environ.get("POSTDOC_BENCH_RIVALS") or cache_folder() / "bench" / "decontamination")
    python = folder / "bin" / "python"
    if python.is_file():
        return python, ""
    commands = ([sys.executable, "-m", "venv", str(folder)], [str(python), "-m", "pip", "install", "--quiet", *RIVALS])
    try:
        for command in commands:
            done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
            if done.returncode:
                shutil.rmtree(folder, ignore_errors=True)
                return None, f"they could not be installed ({' '.join(done.stderr.split()[-20:])})"
    except (OSError, subprocess.TimeoutExpired) as error:
        shutil.rmtree(folder, ignore_errors=True)
        return None, f"they could not be installed ({error})"
    return python, ""


def rival_run(python: Path, rival: str, folder: Path) -> dict[str, Any]:
    script = Path(__file__).with_name("rivals.py")
    argv = [str(python), str(script), rival, str(folder / "rows"), str(folder / "items.jsonl"), str(WORKERS)]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=folder, env=os.environ | {"PYTHONPATH": ""})
    if done.returncode:
        return {"problem": " ".join(done.stderr.split()[-20:]) or f"it ended with {done.returncode}"}
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result
