"""The scripts that train on generated answers: what they decide, what they refuse, and that each of them runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from bot.practice.warm import Warm, WarmJob
from tests.templates.conftest import QUICK, ROOT, chat_rows
from tests.templates.skeleton import definitions

pytestmark = pytest.mark.timeout(300)
SCRIPTS = ROOT / "templates" / "scripts"
CHECKS = Path(__file__).with_name("generating_checks.py")
NAMES = [
    one.name
    for one in definitions(CHECKS.read_text())
    if one.text.startswith("def ") and one.text.partition("(")[2].startswith(")") and one.name not in ("main",)
]
SHORT = {"max_completion_length": 8, "generation_batch_size": 64, "per_device_train_batch_size": 8}

SUPERVISED = ("max_length", "generation_batch_size")


class Trial:
    """A job's folder for one of the scripts."""

    def __init__(self, path: Path, warm: Warm, base: Path) -> None:
        self.path, self.warm, self.base, self.out = path, warm, base, path / "out"
        self.data(chat_rows(70))
        self.data(chat_rows(12, seed=7), "validation")

    def data(self, rows: list[dict[str, Any]], name: str = "train") -> None:
        (self.path / "data").mkdir(parents=True, exist_ok=True)
        (self.path / "data" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def run(self, method: str, *flags: str, plain: bool = False, **recipe: Any) -> tuple[int, str]:
        """(exit code, what it printed)"""
        ended = self.start(method, *flags, plain=plain, **recipe).wait(1500)
        assert ended is not None, (self.path / "log.txt").read_text()
        return ended.exit_code, (self.path / "log.txt").read_text()

    def start(self, method: str, *flags: str, plain: bool = False, **recipe: Any) -> WarmJob:
        argv, log = self.prepare(method, *flags, plain=plain, **recipe), self.path / "log.txt"
        log.write_text("")
        return self.warm.start(argv, cwd=self.path, log=log)

    def prepare(self, method: str, *flags: str, plain: bool = False, **recipe: Any) -> list[str]:
        """The words that start the script. `plain`: the recipe holds no other keys than these."""
        keys = (
            {"method": method, "save_strategy": "no"} | recipe if plain else QUICK | SHORT | {"method": method} | recipe
        )
        if method == "distill" and recipe.get("on_policy", True):  # its trainer has other keys
            keys = {key: value for key, value in keys.items() if key in recipe or key not in SUPERVISED}
        (self.path / "recipe.yaml").write_text(yaml.safe_dump(keys))
        for name in (f"{method}.py", "rewards.py"):
            shutil.copy(SCRIPTS / name, self.path / ("train.py" if name != "rewards.py" else name))
        return ["train.py", "--config", "recipe.yaml", "--init_from", str(self.base), "--output_dir", "out", *flags]

    def json(self, name: str) -> Any:
        return json.loads((self.out / name).read_text())


@pytest.fixture
def trial(tmp_path: Path, warm: Warm, untrained_base: Path) -> Trial:
    return Trial(tmp_path / "job", warm, untrained_base)


@pytest.mark.parametrize("name", NAMES)
def test_decisions(name: str, warm: Warm, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    ended = warm.start([str(CHECKS), name], cwd=tmp_path, log=log).wait(60)
    assert ended is not None and ended.exit_code == 0, log.read_text()


@pytest.mark.parametrize("name", ["rft", "distill", "synthetic"])
def test_supervised_rows_are_measured_as_sft_measures_them(name: str) -> None:
    def audit(script: str) -> str:
        return next(one.text for one in definitions((SCRIPTS / script).read_text()) if one.name == "audit_data")

    assert audit(f"{name}.py") == audit("sft.py")


def test_smoke_of_rft_samples_scores_trains_and_leaves_no_samples(trial: Trial) -> None:
    code, printed = trial.run("rft", "--smoke", samples_per_prompt=2)
    assert code == 0, printed
    audit = trial.json("data_audit.json")
    assert audit["sampling"][0]["samples"] == 128 and audit["sampling"][0]["prompts"] == 64
    assert audit["reward_check"]["exact_match"]["reference"] == 1.0
    answers = [json.loads(line) for line in (trial.out / "completions.jsonl").read_text().splitlines()]
    assert {row["step"] for row in answers} >= {0} and answers[0].keys() == {
        "step", "prompt", "completion", "reference", "rewards", "finish",
    }  # fmt: skip
    assert (trial.out / "model" / "config.json").is_file() and not (trial.out / "samples").exists()


def test_rft_of_a_model_that_is_never_right_says_what_to_do_first(trial: Trial) -> None:
    code, printed = trial.run("rft", samples_per_prompt=2)
    last = printed.splitlines()[-1]
    assert code == 2 and "none of 140 answers was right" in last and "method: sft first" in last
    assert "Traceback" not in printed


def test_timing_of_rft_tells_the_time_that_sampling_takes(trial: Trial) -> None:
    code, printed = trial.run("rft", "--timing_probe", "3")
    assert code == 0, printed
    timing = trial.json("timing.json")
    assert timing["steps"] == 3 and timing["sampling_seconds"] > 0


def test_smoke_of_distillation_measures_the_teacher_first(trial: Trial) -> None:
    code, printed = trial.run("distill", "--smoke", "--teacher", str(trial.base))
    assert code == 0, printed
    audit = trial.json("data_audit.json")
    assert audit["on_policy"] is True and audit["teacher"]["rows"] == 12
    assert audit["teacher"]["exact_match"] == 0.0 and "supervised_eos_rows" not in audit
    assert audit["template"]["train_prefix_equal_rows"] == audit["template"]["compared_rows"] == 64
    logged = [json.loads(line) for line in (trial.out / "metrics.jsonl").read_text().splitlines()]
    first = next(row for row in logged if "loss" in row)
    assert first["completions/clipped_ratio"] > 0.5 and first["entropy"] > 1


def test_a_teacher_with_another_tokenizer_is_refused_in_one_line(trial: Trial) -> None:
    teacher = trial.path / "teacher"
    shutil.copytree(trial.base, teacher)
    tokenizer = json.loads((teacher / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    (teacher / "tokenizer.json").write_text(json.dumps(tokenizer))
    code, printed = trial.run("distill", "--smoke", "--teacher", str(teacher))
    assert code == 2 and printed.count("\n") == 1
    assert "different tokenizers (258 tokens of 260 and 260 agree)" in printed and "on_policy: false" in printed


def test_distillation_without_a_teacher_is_refused(trial: Trial) -> None:
    code, printed = trial.run("distill", "--smoke")
    assert code == 2 and "teacher is missing" in printed


def test_off_policy_takes_the_keys_of_sft_and_leaves_unfinished_answers_out(trial: Trial) -> None:
    code, printed = trial.run(
        "distill", "--smoke", "--teacher", str(trial.base), on_policy=False, temperature=1.0, max_completion_length=100,
    )  # fmt: skip
    assert code == 0, printed
    audit = trial.json("data_audit.json")
    assert audit["max_length"] == QUICK["max_length"] and audit["on_policy"] is False
    assert audit["rows"] + audit["teacher"]["left_out"] == 64 and audit["teacher"]["left_out"] > 0
    code, printed = trial.run("distill", "--smoke", "--teacher", str(trial.base), max_length=64)
    assert code == 2 and "unknown key max_length" in printed


def test_smoke_of_synthetic_data_writes_a_card(trial: Trial) -> None:
    code, printed = trial.run("synthetic", "--smoke", new_prompts=True)
    assert code == 0, printed
    card = trial.json("synthetic_card.json")
    assert card["generator"] == str(trial.base) and card["stages"]["verified"] == 0
    assert sum(card["rejected"].values()) == card["stages"]["drafted"] and card["rows"]["real"] == 64
    assert trial.json("data_audit.json")["synthetic"] == card


def test_synthetic_data_that_nothing_verifies_is_refused(trial: Trial) -> None:
    code, printed = trial.run("synthetic", new_prompts=False, samples_per_prompt=1)
    assert code == 2 and "none of 70 drafts is left to train on" in printed.splitlines()[-1]
    assert "Traceback" not in printed


PADDED = """
import sys
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
model.resize_token_embeddings(272)
model.save_pretrained(sys.argv[1])
"""


def test_teacher_that_is_padded_to_more_embeddings_teaches_all_the_same(trial: Trial, warm: Warm) -> None:
    teacher = trial.path / "teacher"
    shutil.copytree(trial.base, teacher)
    (trial.path / "pad.py").write_text(PADDED)
    ended = warm.start(["pad.py", str(teacher)], cwd=trial.path, log=trial.path / "pad.txt").wait(60)
    assert ended is not None and ended.exit_code == 0, (trial.path / "pad.txt").read_text()
    code, printed = trial.run("distill", "--smoke", "--teacher", str(teacher), probe_rows=0)
    assert code == 0, printed
    assert json.loads((trial.out / "model" / "config.json").read_text())["vocab_size"] == 260


def test_rft_trains_an_adapter_and_the_tokens_that_it_adds(trial: Trial) -> None:
    code, printed = trial.run("rft", "--smoke", added_tokens="<x>", use_peft=True, samples_per_prompt=1, probe_rows=0)
    assert code == 0, printed
    assert trial.json("data_audit.json")["vocabulary"]["embeddings"] == 261
