"""The decontamination of other projects, run on rows and items as their own documentation says; prints one JSON line.

    python rivals.py janitor|datatrove ROWS_FOLDER ITEMS.jsonl WORKERS

ROWS_FOLDER holds one JSONL file for each worker. Only the work is timed, neither imports nor the start of Python. This
file runs in an environment of its own and knows nothing of Postdoc.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def read(path: str) -> Any:
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def janitor_part(arguments: tuple[str, str]) -> int:
    """Documents of one file in which lm-evaluation-harness's janitor found something.

    https://github.com/EleutherAI/lm-evaluation-harness/blob/main/lm_eval/decontamination/janitor.py
    """
    from lm_eval.decontamination.janitor import Janitor

    file, items = arguments
    janitor = Janitor()
    for item in read(items):
        janitor.register_contaminant_python(f"{item['prompt']} {item['reference']}")
    return sum(janitor.clean_python(row["text"]) != [row["text"]] for row in read(file))


def janitor(files: list[str], items: str, workers: int) -> tuple[float, int]:
    import lm_eval.decontamination.janitor  # noqa: F401 - so that no worker's time holds it

    started = time.perf_counter()
    with multiprocessing.get_context("fork").Pool(workers) as pool:
        found = sum(pool.map(janitor_part, [(file, items) for file in files]))
    return time.perf_counter() - started, found


def datatrove(files: list[str], items: str, workers: int) -> tuple[float, int]:
    """https://github.com/huggingface/datatrove/blob/main/examples/decontaminate.py"""
    import numpy as np
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.decont.n_grams import NGramsDecontConfig, NGramsDecontFilter, NGramsDecontIndexer
    from datatrove.pipeline.readers import JsonlReader

    # Its index step asks lighteval for the items; the hashes are its own, of items that are at hand.
    NGramsDecontIndexer._requires_dependencies = []
    config = NGramsDecontConfig(find_query_ngrams=True)
    with tempfile.TemporaryDirectory() as folder:
        indexer = NGramsDecontIndexer(folder, config=config)
        hashes = {h for item in read(items) for h in indexer.compute_hashes(item["reference"], item["prompt"])}
        np.array(list(hashes), dtype=config.hash_config.np_descr).tofile(f"{folder}/items.index.hashes")
        executor = LocalPipelineExecutor(
            pipeline=[JsonlReader(str(Path(files[0]).parent)), NGramsDecontFilter(folder, config=config)],
            tasks=workers,
            workers=workers,
            logging_dir=f"{folder}/logs",
            start_method="fork",
        )
        started = time.perf_counter()
        stats = executor.run()
        seconds = time.perf_counter() - started
    return seconds, int(stats.stats[1].stats["dropped"].total)


def main() -> None:
    name, folder, items, workers = sys.argv[1:]
    files = sorted(str(path) for path in Path(folder).glob("*.jsonl"))
    seconds, found = {"janitor": janitor, "datatrove": datatrove}[name](files, items, int(workers))
    print(json.dumps({"seconds": seconds, "found": found}))


if __name__ == "__main__":
    main()
