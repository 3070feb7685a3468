"""Invented rows in the documented form of every data set that a shipped benchmark reads: none of their items."""

from __future__ import annotations

import base64
import csv
import functools
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bot.practice.sense_tasks import rows as sense_rows

N = 26
Row = dict[str, Any]


def gsm8k(n: int) -> Row:
    return {"question": f"Ann has {n} pens and buys one. How many?", "answer": f"{n} + 1 = {n + 1}\n#### {n + 1:,}"}


def gpqa(n: int) -> Row:
    wrong = {f"Incorrect Answer {k}": f"{n + k} joules" for k in (1, 2, 3)}
    return {"Question": f"What energy has spring {n}?", "Correct Answer": f"{n} joules ", **wrong, "Subdomain": "x"}


def mmlu(n: int) -> Row:
    return {
        "question": f"Which is {n}?",
        "subject": "numbers",
        "choices": [f"{n + k}" for k in range(4)],
        "answer": n % 4,
    }


def arc(n: int) -> Row:
    labels = ["1", "2", "3", "4"] if n % 5 == 0 else ["A", "B", "C", "D"]
    texts = [f"stone {n}", "wood", "cork", "ice"]
    return {
        "id": f"i{n}", "question": f"What sinks {n}?", "choices": {"text": texts, "label": labels},
        "answerKey": labels[n % 4],
    }  # fmt: skip


def hellaswag(n: int) -> Row:
    return {
        "ind": n, "activity_label": "Cooking", "ctx_a": f"A cook peels {n} onions.", "ctx_b": "he", "ctx": "",
        "endings": ["cries.", "flies.", "is a chair.", "melts."], "source_id": f"s{n}", "split": "val",
        "split_type": "indomain", "label": str(n % 4),
    }  # fmt: skip


def humaneval(n: int) -> Row:
    return {
        "task_id": f"T/{n}", "prompt": f"def add{n}(x):\n    '''x plus {n}'''\n", "entry_point": f"add{n}",
        "canonical_solution": f"    return x + {n}\n",
        "test": f"def check(candidate):\n    assert candidate(1) == {n + 1}\n",
    }  # fmt: skip


def ifeval(n: int) -> Row:
    return {
        "key": n, "prompt": f"Describe place {n} without commas.",
        "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
        "kwargs": [{}, {"relation": "at least", "num_words": 2, "language": None}],
    }  # fmt: skip


def aime(n: int) -> Row:
    return {"problem": f"Find $x$ with $x = {n}$.", "answer": str(n), "id": str(n)}


def bfcl_question(n: int) -> Row:
    function = {"name": "tide.at", "description": "High tide.", "parameters": {"type": "dict", "properties": {}}}
    return {
        "id": f"simple_{n}",
        "question": [[{"role": "user", "content": f"Tide at port {n}?"}]],
        "function": [function],
    }


def bfcl_answer(n: int) -> Row:
    return {"id": f"simple_{n}", "ground_truth": [{"tide.at": {"port": [n], "unit": ["m", ""]}}]}


def healthbench(n: int) -> Row:
    return {
        "prompt": [{"role": "user", "content": f"My knee hurts since day {n}."}], "prompt_id": f"p{n}",
        "rubrics": [
            {"criterion": "Asks how it began.", "points": 5, "tags": []},
            {"criterion": "Names a dose.", "points": -4, "tags": []},
        ],
        "example_tags": [],
    }  # fmt: skip


def wikitext(n: int) -> Row:
    return {"text": " \n" if n % 3 == 0 else f" Valley {n} lies between two rivers . \n"}


def sst2(n: int) -> Row:
    return {"idx": n, "sentence": f"film {n} is {'fine' if n % 2 else 'dull'} ", "label": n % 2}


@functools.cache
def media(task: str, column: str) -> list[Row]:
    """Images and recordings as the Hub's Parquet files hold them; a practice task's, since bytes are bytes."""
    drawn = sense_rows(task, "dev", N, 0)
    return [{"bytes": base64.b64decode(row[column]), "path": f"{n}"} for n, row in enumerate(drawn)]


def cifar10(n: int) -> Row:
    return {"img": media("shapes", "image")[n], "label": n % 10}


def librispeech(n: int) -> Row:
    return {"audio": media("digits", "audio")[n], "text": f"NUMBER {n}", "id": f"{n}"}


SHIPPED_ROWS: dict[str, dict[str, Callable[[int], Row]]] = {
    "gsm8k": {"main/test-00000-of-00001.parquet": gsm8k, "main/train-00000-of-00001.parquet": lambda n: gsm8k(n + 100)},
    "gpqa": {"gpqa_main.csv": gpqa, "gpqa_diamond.csv": lambda n: gpqa(2 * n)},
    "mmlu": {"all/test-00000-of-00001.parquet": mmlu, "all/dev-00000-of-00001.parquet": lambda n: mmlu(n + 100)},
    "arc-challenge": {
        "ARC-Challenge/test-00000-of-00001.parquet": arc,
        "ARC-Challenge/train-00000-of-00001.parquet": lambda n: arc(n + 100),
    },
    "hellaswag": {"data/validation-00000-of-00001.parquet": hellaswag},
    "humaneval": {"openai_humaneval/test-00000-of-00001.parquet": humaneval},
    "ifeval": {"ifeval_input_data.jsonl": ifeval},
    "aime-2025": {"test.jsonl": aime},
    "bfcl-simple": {"BFCL_v3_simple.json": bfcl_question, "possible_answer/BFCL_v3_simple.json": bfcl_answer},
    "healthbench": {"2025-05-07-06-14-12_oss_eval.jsonl": healthbench},
    "wikitext": {"wikitext-2-raw-v1/test-00000-of-00001.parquet": wikitext},
    "sst2": {"data/validation-00000-of-00001.parquet": sst2},
    "cifar10": {"plain_text/test-00000-of-00001.parquet": cifar10},
    "librispeech": {"all/test.clean/0000.parquet": librispeech},
}
"""Benchmark -> file of its data set -> the row with a number."""


def file_of(name: str, make: Callable[[int], Row], n: int = N) -> bytes:
    """The file `name` with `n` rows, in the form that its suffix says."""
    made = [make(k) for k in range(n)]
    if name.endswith(".parquet"):
        import pyarrow as arrow
        import pyarrow.parquet as parquet

        sink = io.BytesIO()
        parquet.write_table(arrow.Table.from_pylist(made), sink)
        return sink.getvalue()
    if name.endswith(".csv"):
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(made[0]))
        writer.writeheader()
        writer.writerows(made)
        return text.getvalue().encode()
    return "".join(json.dumps(row) + "\n" for row in made).encode()


def write_data(benchmark: str, folder: Path, n: int = N) -> Path:
    for name, make in SHIPPED_ROWS[benchmark].items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(file_of(name, make, n))
    return folder
