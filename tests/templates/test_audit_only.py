"""`--audit_only`: what is trained on and how, from the tokenizer and the configuration alone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from bot.diagnosis import preflight
from tests.templates.conftest import SCRIPTS, Job, chat, chat_rows, pair_rows

pytestmark = pytest.mark.timeout(600)
LORA = {"use_peft": True, "lora_target_modules": "all-linear", "lora_r": 2}
OF_THE_MACHINE = {"steps_per_epoch", "warm_up_steps", "attention", "precision"}
TEXTS = [{"text": f"the text of row {n}", "label": "ab"[n % 2]} for n in range(30)]
ROWS: dict[str, list[dict[str, Any]]] = {
    "sft": chat_rows(30), "grpo": chat_rows(30), "dpo": pair_rows(30), "reward": pair_rows(30),
    "pretrain": [{"text": row["text"]} for row in TEXTS], "classify": TEXTS,
}  # fmt: skip
RECIPES: list[tuple[str, dict[str, Any]]] = [
    ("sft", LORA | {"added_tokens": "<tool>,<end>"}),
    ("grpo", {"beta": 0.1}),
    ("sft", {"packing": True, "bf16": True}),
    ("dpo", {}),
    ("dpo", LORA),
    ("reward", LORA),
    ("grpo", LORA),
    ("pretrain", {"from_scratch": True, "config_overrides": "intermediate_size=64"}),
    ("pretrain", LORA),
    ("classify", LORA),
]


def without_weights(job: Job) -> Path:
    """A copy of the base that nobody could load."""
    folder = job.path / "configuration"
    shutil.copytree(job.base, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    return folder


@pytest.mark.parametrize(
    ("method", "recipe"),
    [pytest.param(*each, marks=pytest.mark.slow if n >= 2 else ()) for n, each in enumerate(RECIPES)],
    ids=lambda part: "-".join(part) if isinstance(part, dict) else part,
)
def test_audit_is_that_of_the_training_but_for_the_machine_and_needs_no_weights(
    job: Job, method: str, recipe: dict[str, Any]
) -> None:
    job.data(ROWS[method])
    job.run("--audit_only", method=method, init_from=without_weights(job), **recipe)
    assert [path.name for path in job.out.iterdir()] == ["data_audit.json"]
    found = job.json("data_audit.json")
    job.run("--smoke", method=method, **recipe)
    trained = job.json("data_audit.json")
    assert found == {key: value for key, value in trained.items() if key not in OF_THE_MACHINE}
    assert {"vocabulary", "rows", "token_lengths"} <= found.keys()


def test_rules_before_the_first_step_read_it_like_any_other(job: Job) -> None:
    """The prompts fill max_length, so that no token is left to learn from; the training itself refuses that."""
    job.data([chat("long " * 30, "ok") for _ in range(20)])
    job.run("--audit_only", init_from=without_weights(job), max_length=16)
    (job.out / "recipe.yaml").write_text((job.path / "recipe.yaml").read_text())
    first = preflight(job.out).diagnoses[0]
    assert (first.symptom, first.severity, first.key) == ("truncation", "fatal", "max_length")


@pytest.mark.parametrize("method", ["rft", "synthetic"])
def test_method_whose_data_needs_the_model_says_so(job: Job, method: str) -> None:
    job.data(ROWS["sft"])
    assert f"what {method} trains on is known with the model alone" in job.refusal("--audit_only", method=method)


def test_pairs_that_the_model_makes_are_not_audited_without_it(job: Job) -> None:
    job.data(chat_rows(8))
    assert "audit_only needs rows with rejected" in job.refusal("--audit_only", method="dpo")


def test_every_script_knows_the_key() -> None:
    for path in SCRIPTS.glob("*.py"):
        if path.name not in ("prepare.py", "rewards.py"):
            assert "audit_only: bool" in path.read_text(), path.name
