"""The generating scripts on the real base: each teaches a task, goes on where it was killed, divides its sampling."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bot.practice.warm import Warm
from runners.launching import CONFIG_FILE, SCRIPT_FILE, Sharding, accelerate_config
from tests.templates.conftest import ROOT, chat, chat_rows, environment, evaluation, table_row
from tests.templates.test_generating import Trial

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
# Exact scores differ between machines (another instruction set rounds otherwise), so bars stand below what we measured.
PACE = {"lr_scheduler_type": "constant_with_warmup", "warmup_steps": 5, "per_device_train_batch_size": 32}
REQUEST = "More:"


def score(model: Path, task: str, warm: Warm, folder: Path) -> float:
    return float(evaluation(warm, model, task, folder)["value"])


def measured_row(method: str, **chosen: Any) -> dict[str, Any]:
    return dict(table_row(method)) | chosen


def made(trial: Trial, method: str, recipe: dict[str, Any], *flags: str) -> Path:
    """The model that a run of exactly these keys leaves."""
    code, printed = trial.run(method, *flags, plain=True, **recipe)
    assert code == 0, printed
    return trial.out / "model"


@pytest.fixture(scope="module")
def teacher(base: Path, warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base after SFT on `reverse`: what a student can learn from."""
    trial = Trial(tmp_path_factory.mktemp("teacher") / "job", warm, base)
    trial.data(chat_rows(3000))
    model = made(trial, "sft", PACE | {"learning_rate": 3e-3, "max_steps": 120, "max_length": 256, "seed": 0})
    assert score(model, "reverse", warm, trial.path / "evaluation") >= 0.9
    return model


@pytest.mark.parametrize("seed", [0, 1])
def test_rft_raises_what_the_model_rarely_does(seed: int, base: Path, warm: Warm, tmp_path: Path) -> None:
    trial = Trial(tmp_path / "job", warm, base)
    trial.data(chat_rows(1500, "upper", seed))
    trial.data(chat_rows(1516, "upper", seed)[1500:], "validation")
    model = made(trial, "rft", measured_row("rft", seed=seed))
    assert score(base, "upper", warm, tmp_path / "before") <= 0.05
    assert score(model, "upper", warm, tmp_path / "after") >= 0.85
    (sampling,) = trial.json("data_audit.json")["sampling"]
    assert 0.01 < sampling["pass_rate"] < 0.5 and sampling["kept_rows"] >= 100


@pytest.mark.parametrize("seed", [0, 1])
def test_student_learns_on_its_own_answers(seed: int, base: Path, teacher: Path, warm: Warm, tmp_path: Path) -> None:
    trial = Trial(tmp_path / "job", warm, base)
    trial.data(chat_rows(3000, seed=seed))
    trial.data(chat_rows(3016, seed=seed)[3000:], "validation")
    model = made(trial, "distill", measured_row("distill", seed=seed, teacher=str(teacher)))
    assert score(base, "reverse", warm, tmp_path / "before") <= 0.05
    assert score(model, "reverse", warm, tmp_path / "after") >= 0.9
    assert trial.json("data_audit.json")["teacher"]["exact_match"] >= 0.9


@pytest.mark.parametrize("seed", [0, 1])
def test_own_right_answers_beside_the_real_rows(seed: int, base: Path, warm: Warm, tmp_path: Path) -> None:
    trial = Trial(tmp_path / "job", warm, base)
    trial.data(chat_rows(300, "upper", seed))
    trial.data(chat_rows(316, "upper", seed)[300:], "validation")
    model = made(trial, "synthetic", measured_row("synthetic", seed=seed))
    assert score(model, "upper", warm, tmp_path / "after") >= 0.9
    card = trial.json("synthetic_card.json")
    assert card["verified_by"] == ["rewards: exact_match"] and card["strata"]["upper"]["most_repeats"] <= 4


def test_student_learns_from_what_the_teacher_wrote(base: Path, teacher: Path, warm: Warm, tmp_path: Path) -> None:
    trial = Trial(tmp_path / "job", warm, base)
    wrong = [chat(row["prompt"][0]["content"], "nothing") for row in chat_rows(1500)]
    trial.data(wrong)  # so that nothing can come from the rows' own completions
    keys = {"learning_rate": 3e-3, "max_steps": 100, "max_length": 256, "max_completion_length": 20, "seed": 0}
    model = made(
        trial, "distill", PACE | keys | {"on_policy": False, "teacher": str(teacher), "generation_batch_size": 256}
    )
    assert score(model, "reverse", warm, tmp_path / "after") >= 0.85


def few_shot(rows: list[dict[str, Any]]) -> str:
    blocks = [f"Question: {r['prompt'][0]['content']}\nAnswer: {r['completion'][0]['content']}" for r in rows]
    return "\n\n".join([REQUEST, *blocks])


@pytest.mark.parametrize("seed", [0, 1])
def test_a_few_rows_and_a_generator_beat_the_few_rows(seed: int, base: Path, warm: Warm, tmp_path: Path) -> None:
    """The generator is a model that can do both: the task, and one more example after two."""
    rows = chat_rows(3000, seed=7)
    more = [chat(few_shot(rows[n - 2 : n]), few_shot([row]).removeprefix(f"{REQUEST}\n\n"))
            for n, row in enumerate(rows) if n >= 2]  # fmt: skip
    writer = Trial(tmp_path / "writer", warm, base)
    writer.data(rows + more)
    generator = made(writer, "sft", PACE | {"learning_rate": 3e-3, "max_steps": 220, "max_length": 256, "seed": 0})
    trial = Trial(tmp_path / "job", warm, base)
    trial.data(chat_rows(60, seed=seed))
    (trial.path / "data" / "validation.jsonl").unlink()
    keys = {"learning_rate": 3e-3, "max_steps": 100, "max_length": 256, "seed": seed}
    alone = score(made(trial, "sft", PACE | keys), "reverse", warm, tmp_path / "alone")
    written = {
        "generator": str(generator), "request": REQUEST, "shots": 2, "votes": 2, "synthetic_share": 0.9,
        "temperature": 1.0, "max_completion_length": 60, "generation_batch_size": 256,
    }  # fmt: skip
    model = made(trial, "synthetic", PACE | keys | written)
    together = score(model, "reverse", warm, tmp_path / "together")
    assert together >= 0.75 and together >= alone + 0.15, (alone, together)
    card = trial.json("synthetic_card.json")
    assert card["synthetic_share"]["reached"] == pytest.approx(0.9, abs=0.02)
    assert card["stages"]["verified"] == len((trial.out / "synthetic.jsonl").read_text().splitlines())


def test_a_killed_run_draws_only_what_it_lacks_and_ends_with_the_same_weights(
    base: Path, warm: Warm, tmp_path: Path
) -> None:
    recipe = measured_row("rft", max_steps=20, generation_batch_size=64, seed=0)
    whole, killed = (Trial(tmp_path / name, warm, base) for name in ("whole", "killed"))
    for trial in (whole, killed):
        trial.data(chat_rows(600, "upper"))
        (trial.path / "data" / "validation.jsonl").unlink()
    made(whole, "rft", recipe)
    job = killed.start("rft", plain=True, **recipe)
    samples = killed.out / "samples" / "round-1.0.jsonl"
    while not samples.exists() or samples.read_text().count('"batch"') < 3:
        assert job.ended is None, (killed.path / "log.txt").read_text()
        time.sleep(0.02)
    job.kill(signal.SIGKILL)
    assert job.wait(30) is not None
    drawn = samples.read_text()
    made(killed, "rft", recipe)
    assert drawn.count('"batch"') >= 3 and not samples.exists()
    models = [(trial.out / "model" / "model.safetensors").read_bytes() for trial in (whole, killed)]
    assert models[0] == models[1]


def test_two_processes_keep_the_rows_that_one_keeps(base: Path, warm: Warm, tmp_path: Path) -> None:
    recipe = measured_row("rft", max_steps=4, generation_batch_size=64, seed=0)
    one, two = (Trial(tmp_path / name, warm, base) for name in ("one", "two"))
    for trial in (one, two):
        trial.data(chat_rows(200, "upper"))
        (trial.path / "data" / "validation.jsonl").unlink()
    made(one, "rft", recipe)
    words = two.prepare("rft", plain=True, **(recipe | {"per_device_train_batch_size": 16}))
    (two.path / CONFIG_FILE).write_text(accelerate_config(Sharding.REPLICATED, 2, cpu=True))
    shutil.copy(ROOT / "templates" / SCRIPT_FILE, two.path / SCRIPT_FILE)
    command = [sys.executable, SCRIPT_FILE, "--config_file", CONFIG_FILE, *words]
    done = subprocess.run(
        command, cwd=two.path, env=environment(two.path), capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (two.out / "kept.jsonl").read_bytes() == (one.out / "kept.jsonl").read_bytes()
    assert two.json("setup.json")["processes"] == 2 and not (two.out / "samples").exists()
