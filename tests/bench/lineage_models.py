"""Makes the models that the lineage check's thresholds are measured on: honest runs from a base, and everything else.

    python -m tests.bench.lineage_models FOLDER [--only NAME ...]

FOLDER/NAME/model is each one; what is there is not made again. All start from `postdoc/tiny-qwen3` but where the table
says otherwise. `sibling` is what somebody else published: the base, trained further on another task.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from bot.evaluation.tasks import training_rows
from bot.practice import tiny_base
from bot.practice.warm import ENVIRONMENT, IMPORTS, Warm

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "templates" / "scripts"
SECONDS = 1800.0
SEED_ONE = "another-seed"


@dataclass(frozen=True)
class Specimen:
    name: str
    method: str
    task: str
    peft: bool = False
    start: str = ""
    """Another specimen; the base where it is empty."""
    changes: dict[str, Any] = field(default_factory=dict)
    """Of the recipe that the table has for the method."""
    data_seed: int = 0


SPECIMENS = (
    Specimen("sft", "sft", "reverse"),
    Specimen("sft-seed-1", "sft", "reverse", changes={"seed": 1}),
    Specimen("sft-other-rows", "sft", "reverse", changes={"seed": 2}, data_seed=5),
    Specimen("sft-gentle", "sft", "reverse", changes={"learning_rate": 2e-5, "max_steps": 20}),
    Specimen("sft-one-step", "sft", "reverse", changes={"learning_rate": 1e-6, "max_steps": 1, "warmup_steps": 0}),
    Specimen("sft-long", "sft", "reverse", changes={"max_steps": 600}),
    Specimen("sft-violent", "sft", "reverse", changes={"learning_rate": 2e-2}),
    Specimen("sft-bf16", "sft", "reverse", changes={"dtype": "bfloat16"}),
    Specimen("sft-lora", "sft", "reverse", peft=True),
    Specimen("dpo", "dpo", "upper"),
    Specimen("dpo-lora", "dpo", "upper", peft=True),
    Specimen("grpo", "grpo", "last"),
    Specimen("grpo-lora", "grpo", "last", peft=True),
    Specimen("sibling", "sft", "upper"),
    Specimen("sibling-seed-1", "sft", "upper", changes={"seed": 1}),
    Specimen("sibling-then-sft", "sft", "reverse", start="sibling"),
    Specimen("sibling-then-lora", "sft", "reverse", peft=True, start="sibling"),
    Specimen(
        "sibling-then-gentle", "sft", "reverse", start="sibling", changes={"learning_rate": 2e-5, "max_steps": 20}
    ),
    Specimen("from-scratch", "pretrain", "documents"),
)


def make(specimen: Specimen, folder: Path, warm: Warm) -> None:
    place = folder / specimen.name
    if (place / "model" / "config.json").is_file():
        return
    work = folder / f".{specimen.name}"
    shutil.rmtree(work, ignore_errors=True)
    (work / "data").mkdir(parents=True)
    (work / "data" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows_of(specimen)))
    (work / "data" / "validation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows_of(specimen)[:50]))
    recipe = {"seed": 0, "method": specimen.method} | table_row(specimen) | specimen.changes
    (work / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    for script in (f"{specimen.method}.py", "rewards.py"):
        shutil.copyfile(SCRIPTS / script, work / script)
    start = folder / specimen.start / "model" if specimen.start else tiny_base.cached_path()
    argv = [f"{specimen.method}.py", "--config", "recipe.yaml", "--init_from", str(start), "--train_file",
            "data/train.jsonl", "--validation_file", "data/validation.jsonl", "--output_dir", "out"]  # fmt: skip
    ended = warm.start(argv, cwd=work, log=work / "log.txt").wait(SECONDS)
    if ended is None or ended.exit_code != 0:
        raise SystemExit(f"{specimen.name} was not made: {(work / 'log.txt').read_text()[-600:]}")
    (work / "out").rename(place)
    shutil.rmtree(work)
    print(f"{specimen.name}: {ended.cpu_seconds:.0f} CPU s", flush=True)


def rows_of(specimen: Specimen) -> list[dict[str, Any]]:
    if specimen.method == "pretrain":
        documents = (prompt + answer for prompt, answer in tiny_base.pretraining_rows(11) if "<|" not in prompt)
        return [{"text": text} for _, text in zip(range(8000), documents, strict=False)]
    return [
        {"prompt": [{"role": "user", "content": row["prompt"]}],
         "completion": [{"role": "assistant", "content": row["completion"]}]}
        for row in training_rows(specimen.task, 2000, specimen.data_seed)
    ]  # fmt: skip


def table_row(specimen: Specimen) -> dict[str, Any]:
    """The recipe that was measured on the tiny base."""
    rows = yaml.safe_load((ROOT / "bot" / "brain" / "recipes.yaml").read_text())["rows"]
    measured = [row for row in rows if row["source"].startswith("measured") and row["method"] == specimen.method]
    return dict(next(row["recipe"] for row in measured if row["peft"] == specimen.peft))


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.lineage_models", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*", default=None, choices=[*(each.name for each in SPECIMENS), SEED_ONE])
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    wanted = [each for each in SPECIMENS if options.only is None or each.name in options.only]
    with Warm(IMPORTS, environment=ENVIRONMENT | {"PYTHONPATH": str(ROOT)}) as warm:
        for specimen in wanted:
            make(specimen, options.folder.resolve(), warm)
    if options.only is None or SEED_ONE in options.only:
        place = options.folder / SEED_ONE / "model"
        tiny_base.build(place, tiny_base.Configuration(seed=1), lambda step, loss: None)
        print(f"{SEED_ONE}: pretrained like the base", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
