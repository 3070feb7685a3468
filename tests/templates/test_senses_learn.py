"""The playbook's rows for tiny classifiers and recognisers reach what they say, on items that nobody trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from bot.brain.playbook import fitting_row
from bot.domain.metrics import METRICS
from bot.evaluation.benchmark_file import read_benchmark_file
from bot.evaluation.benchmarks import BUNDLE, write_job_files
from bot.practice.sense_tasks import SENSE_TASKS, rows
from tests.templates.test_senses_run import SCRIPTS, models, warm

__all__ = ["models", "warm"]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
ENGINES = {"classify": "classify", "vision": "vision", "speech": "speech", "pretrain": "likelihood"}
FAMILIES = {"postdoc/tiny-bert": "bert", "postdoc/tiny-resnet": "resnet", "postdoc/tiny-vit": "vit"} | {
    "postdoc/tiny-whisper": "whisper",
    "postdoc/tiny-gpt2": "gpt2",
}


@pytest.mark.parametrize(
    ("task", "n", "target"),
    [
        ("sentiment", 1500, 0.95), ("topic", 1500, 0.95), ("negation", 1500, 0.95), ("first", 1500, 0.95),
        ("parity", 1500, 0.75),
        ("shapes", 1500, 0.95), ("stripes", 1500, 0.95), ("numerals", 1500, 0.95), ("colours", 1500, 0.95),
        ("orders", 1000, 0.10),
        ("brackets", 1500, 2.9),
    ],
)  # fmt: skip
def test_playbooks_row_reaches_what_it_says(
    warm: Any, models: Path, tmp_path: Path, task: str, n: int, target: float
) -> None:
    chosen = SENSE_TASKS[task]
    row = fitting_row(family=FAMILIES[chosen.base], parameters=1e5, method=chosen.method)
    drawn = rows(task, "train", n + 64, 0)
    (tmp_path / "data").mkdir()
    for name, part in (("train", drawn[:n]), ("validation", drawn[n:])):
        (tmp_path / "data" / f"{name}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in part))
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"method": chosen.method, "seed": 0, **row.recipe}))
    words = [str(SCRIPTS / f"{chosen.method}.py"), "--config", "recipe.yaml", "--init_from", str(models / chosen.base)]
    ended = warm.start(words, cwd=tmp_path, log=tmp_path / "log.txt").wait(600)
    assert ended is not None and ended.exit_code == 0, (tmp_path / "log.txt").read_text()
    assert ended.cpu_seconds < 60
    found = evaluated(warm, tmp_path, task, tmp_path / "out" / "model")
    assert METRICS[chosen.metric].reached(found["value"], target), found["metrics"]
    before = evaluated(warm, tmp_path, task, models / chosen.base)
    assert METRICS[chosen.metric].better(found["value"], than=before["value"])


def evaluated(warm: Any, folder: Path, task: str, model: Path) -> dict[str, Any]:
    chosen = SENSE_TASKS[task]
    (folder / "items.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows(task, "dev", 240, 0)))
    content = {"engine": ENGINES[chosen.method], "metric": chosen.metric, "items": {"file": "items.jsonl"}}
    content["splits"] = {"dev": {"n": 100}, "sealed": {"n": 100}}
    (folder / "own.yaml").write_text(yaml.safe_dump(content))
    files = write_job_files(read_benchmark_file("own", folder / "own.yaml"), "dev", folder / "job")
    words = [str(BUNDLE / "evaluate.py"), "--model", str(model), "--benchmark", files["benchmark.yaml"]]
    words += ["--items", files["items.jsonl"], "--split", "dev", "--output", "evaluation.json"]
    ended = warm.start(words, cwd=folder, log=folder / "evaluation.txt").wait(120)
    assert ended is not None and ended.exit_code == 0, (folder / "evaluation.txt").read_text()
    return json.loads((folder / "evaluation.json").read_text())
