"""Runs that are told to end in the middle (SIGTERM, as a pre-empted machine sends it) and go on, and runs of two
processes, for the methods beside SFT: the same model as one that nobody interrupted, or that one process trained."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from bot.practice.sense_tasks import SENSE_TASKS, rows
from bot.practice.tiny_models import MAKERS
from bot.practice.warm import Warm
from runners.launching import CONFIG_FILE, SCRIPT_FILE, Sharding, accelerate_config
from tests.templates import test_senses_run
from tests.templates.conftest import QUICK, QUICK_GRPO, ROOT, SCRIPTS, chat_rows, environment, pair_rows

pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]
REWARDS = '''
@rewards(("ab", "ab", 0.125), ("b", "ab", 0.0))
def vowels(prompts, completions, reference, **more):
    """Something that even random weights do now and then."""
    return [sum(one in "aeiou<>|" for one in text(said)) / 8 for said in completions]
'''
GRPO = QUICK_GRPO | {"reward_functions": "vowels", "check_rewards": False, "max_completion_length": 16}
GRPO["per_device_train_batch_size"] = 16


class Place:
    """A job's folder for one method; each run is a process of its own."""

    def __init__(self, path: Path, base: Path, method: str) -> None:
        self.path, self.base, self.method, self.out = path, base, method, path / "out"
        (path / "data").mkdir(parents=True)
        shutil.copy(SCRIPTS / f"{method}.py", path / "train.py")
        said = (SCRIPTS / "rewards.py").read_text()
        before, mark, after = said.partition("# --- Is it well-formed?")
        (path / "rewards.py").write_text(before + REWARDS.lstrip("\n") + "\n\n" + mark + after)
        shutil.copy(ROOT / "templates" / SCRIPT_FILE, path / SCRIPT_FILE)

    def data(self, drawn: list[dict[str, Any]], name: str = "train") -> None:
        (self.path / "data" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in drawn))

    def start(self, recipe: dict[str, Any], processes: int = 1) -> subprocess.Popen[bytes]:
        (self.path / "recipe.yaml").write_text(yaml.safe_dump(recipe | {"method": self.method}))
        launcher: list[str] = []
        if processes > 1:
            (self.path / CONFIG_FILE).write_text(accelerate_config(Sharding.REPLICATED, processes, cpu=True))
            launcher = [SCRIPT_FILE, "--config_file", CONFIG_FILE]
        command = [sys.executable, *launcher, "train.py", "--config", "recipe.yaml", "--init_from", str(self.base)]
        with open(self.path / "log.txt", "wb") as log:
            return subprocess.Popen(
                command, cwd=self.path, env=environment(self.path), stdout=log, stderr=log, start_new_session=True
            )

    def run(self, recipe: dict[str, Any], processes: int = 1) -> None:
        assert self.start(recipe, processes).wait(500) == 0, self.log

    @property
    def log(self) -> str:
        return (self.path / "log.txt").read_text()

    def lines(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.out / name).read_text().splitlines()]

    @property
    def losses(self) -> list[float]:
        return [row["loss"] for row in self.lines("metrics.jsonl") if "loss" in row]

    @property
    def weights(self) -> bytes:
        return (self.out / "model" / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def senses(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every tiny model for texts, images and recordings."""
    folder = tmp_path_factory.mktemp("senses")
    with Warm(test_senses_run.IMPORTS) as warm:
        (folder / "build.py").write_text(test_senses_run.BUILD)
        words = ["build.py", str(folder), *MAKERS]
        ended = warm.start(words, cwd=folder, log=folder / "log.txt", environment={"PYTHONPATH": str(ROOT)}).wait(200)
        assert ended is not None and ended.exit_code == 0, (folder / "log.txt").read_text()
    return folder


@pytest.fixture
def place(tmp_path: Path, untrained_base: Path, senses: Path) -> Any:
    def made(name: str, what: str) -> tuple[Place, dict[str, Any]]:
        if what in SENSE_TASKS:
            task = SENSE_TASKS[what]
            job = Place(tmp_path / name, senses / task.base, task.method)
            job.data(rows(what, "train", 48, 0))
            job.data(rows(what, "train", 56, 0)[48:], "validation")
            return job, {"learning_rate": 1e-3, "per_device_train_batch_size": 8, "save_strategy": "no", "seed": 0}
        job = Place(tmp_path / name, untrained_base, what)
        drawn = pair_rows if what in ("dpo", "reward") else chat_rows
        job.data(drawn(64))
        job.data(drawn(8, seed=7), "validation")
        return job, dict(GRPO if what == "grpo" else QUICK | {"per_device_train_batch_size": 8})

    return made


# --- Told to end ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["sft", "grpo", "topic"])
def test_run_that_is_told_to_end_goes_on_and_ends_as_if_nobody_had(place: Any, what: str) -> None:
    whole, recipe = place("whole", what)
    recipe |= {"max_steps": 12, "save_strategy": "steps", "save_steps": 1, "save_total_limit": 2}
    whole.run(recipe)
    told, _ = place("told", what)
    process = told.start(recipe)
    deadline = time.monotonic() + 300
    while not (told.out / "latest").exists():
        assert time.monotonic() < deadline and process.poll() is None, told.log
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(60) != 0, "it had not ended by itself"
    told.run(recipe)
    assert told.weights == whole.weights
    assert told.losses == whole.losses and len(whole.losses) == 12
    spread = [row["reward_std"] for row in whole.lines("metrics.jsonl") if "reward_std" in row]
    assert what != "grpo" or max(spread) > 0, "a run in which nothing is learned would always end alike"


def test_grpo_that_goes_on_within_a_round_of_answers_asks_the_next_prompts_when_the_whole_run_does(place: Any) -> None:
    job, recipe = place("job", "grpo")
    recipe |= {"steps_per_generation": 3, "max_steps": 7, "save_strategy": "steps", "save_steps": 4}
    job.run(recipe)

    def rounds() -> list[int]:
        return [row["step"] for row in job.lines("metrics.jsonl") if "reward" in row]

    assert rounds() == [1, 4, 7]
    for name in ("model", "checkpoint-7"):
        shutil.rmtree(job.out / name)
    job.run(recipe)
    # Its own round begins where it goes on; every later one begins where those of the whole run do.
    assert rounds() == [1, 4, 5, 7]


# --- Two processes --------------------------------------------------------------------------------------------------


def difference(one: Place, other: Place) -> float:
    from safetensors.torch import load_file

    left, right = (load_file(job.out / "model" / "model.safetensors") for job in (one, other))
    return max(float((left[name] - right[name]).abs().max()) for name in left)


@pytest.mark.parametrize(
    ("what", "recipe"),
    [
        ("dpo", {}),
        ("reward", {}),
        ("colours", {"augmentation": "flip,crop"}),
        ("orders", {"gradient_accumulation_steps": 2, "label_smoothing_factor": 0.1}),
    ],
)
def test_two_processes_train_as_one_with_twice_the_batch(place: Any, what: str, recipe: dict[str, Any]) -> None:
    (one, shared), (two, _) = place("one", what), place("two", what)
    shared |= {"max_steps": 3} | recipe
    one.run(shared)
    two.run(shared | {"per_device_train_batch_size": 4}, processes=2)
    assert two.losses == pytest.approx(one.losses, abs=1e-4)
    assert difference(one, two) < 1e-4
    assert sorted(path.name for path in two.out.iterdir()) == sorted(path.name for path in one.out.iterdir())


def test_two_processes_of_grpo_answer_on_their_own_and_one_writes(place: Any) -> None:
    job, recipe = place("job", "grpo")
    job.run(recipe | {"max_steps": 3, "per_device_train_batch_size": 8}, processes=2)
    assert [row["step"] for row in job.lines("metrics.jsonl") if "loss" in row] == [1, 2, 3]
    assert job.log.count("done: 3 steps") == 1
    assert max(row["grad_norm"] for row in job.lines("metrics.jsonl") if "loss" in row) > 0
    assert {row["step"] for row in job.lines("completions.jsonl")} == {1, 2, 3}


def test_two_processes_of_dpo_share_the_sampling_and_draw_what_one_draws(place: Any) -> None:
    (one, shared), (two, _) = place("one", "dpo"), place("two", "dpo")
    for job in (one, two):
        job.data(chat_rows(300))
        job.data(chat_rows(8, seed=7), "validation")
    shared |= {"max_steps": 2}
    one.run(shared)
    two.run(shared | {"per_device_train_batch_size": 4}, processes=2)
    assert two.lines("pairs.jsonl") == one.lines("pairs.jsonl") and len(one.lines("pairs.jsonl")) == 308
    assert difference(one, two) < 1e-4
