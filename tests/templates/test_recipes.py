"""What the training scripts accept as a recipe, and the one line that they answer to a bad one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from bot.brain.fitting import ONLY_OF
from bot.conversation.policy import DEFAULT_RECIPE_KEYS
from bot.diagnosis.learning_rates import default_rate
from bot.domain.methods import METHODS
from bot.practice.warm import Warm
from tests.templates.conftest import ROOT, SCRIPTS, SFT, run_warm
from tests.templates.skeleton import training_scripts

START = "init_from: somewhere\n"
METHOD = re.compile(r"^method: (\w+)$", re.MULTILINE)
ROWS = '{"prompt": "a\u2028c", "completion": "b\\u0085"}\n'

# name -> (recipe, flags, rows, words of the refusal)
REFUSED: dict[str, tuple[str, list[str], str | None, str]] = {
    "unknown key": (START + "learning_rat: 1.0\n", [], None, "unknown key learning_rat; did you mean learning_rate?"),
    "unknown flag": (START, ["--learning_rat", "1"], None, "learning_rat"),
    "old name": (START + "warmup_ratio: 0.1\n", [], None, "warmup_ratio is called warmup_steps"),
    "word for a number": (START + "learning_rate: fast\n", [], None, "learning_rate needs a number, not 'fast'"),
    "fraction of a step": (START + "max_steps: 10.5\n", [], None, "max_steps needs a whole number, not '10.5'"),
    "word for a switch": (START + "packing: perhaps\n", [], None, "packing"),
    "list for a number": (START + "learning_rate: [1, 2]\n", [], None, "learning_rate"),
    "no value": (START + "learning_rate:\n", [], None, "learning_rate has no value"),
    "negative rate": (START + "learning_rate: -1\n", [], None, "learning_rate needs a number above 0"),
    "zero length": (START + "max_length: 0\n", [], None, "max_length needs at least 2 tokens"),
    "unknown scheduler": (START + "lr_scheduler_type: cosinus\n", [], None, "cosinus"),
    "another method": (START + "method: ppo\n", [], None, "this script trains method: sft"),
    "no model": ("learning_rate: 1.0\n", [], None, "init_from is missing"),
    "one key twice": (START + "seed: 1\nseed: 2\n", [], None, "the recipe has seed more than once"),
    "two models": (START + "model_name_or_path: elsewhere\n", [], None, "name two models; keep init_from alone"),
    "row without an answer": (START, [], ROWS + '{"prompt": "a"}\n', "row 2 has no completion, and row 1 has"),
    "not YAML": ("a: [\n", [], None, "the recipe is not YAML"),
    "a list": ("- a\n", [], None, "must contain a YAML mapping"),
    "second key": (START + "learning_rate: 1e-4\nmax_length: many\n", [], None, "max_length needs a whole number"),
    "no rows": (START, [], "\n", "has no rows"),
    "broken row": (START, [], ROWS + "{\n", "line 2 is not JSON"),
    "word among numbers": (START + "method: dpo\nloss_weights: 1,half\n", [], None, "loss_weights needs numbers with"),
    "two weights for one loss": (START + "method: dpo\nloss_weights: 1,2\n", [], None, "same length as `loss_type`"),
    "batch that holds no group": (
        START + "method: grpo\nper_device_train_batch_size: 6\n", [], None, "divisible by num_generations"
    ),
    "rows without a pair": (START + "method: reward\n", [], ROWS, "a reward model needs prompt, chosen and rejected"),
    "other columns": (START, [], '{"question": "a", "gold": "b"}\n', "columns question, gold; SFT needs prompt"),
}  # fmt: skip
ACCEPTED: dict[str, tuple[str, list[str], dict[str, str]]] = {
    "rate as YAML 1.1 reads it": (START + "learning_rate: 2e-5\n", [], {"learning_rate": "2e-05"}),
    "bare no": (START + "save_strategy: no\neval_strategy: no\n", [], {"save_strategy": "SaveStrategy.NO"}),
    "flag over recipe": (START + "learning_rate: 1\n", ["--learning_rate", "0.5"], {"learning_rate": "0.5"}),
    "no limit": (START + "max_length: null\n", [], {"max_length": "None"}),
    "keys of data": (START + "data_sources: a.jsonl\ndata_max_rows: null\n", [], {"data_sources": "a.jsonl"}),
    "a NaN stays visible": (START, [], {"logging_nan_inf_filter": "False", "logging_steps": "1"}),
    "kept as written": (
        START + "logging_nan_inf_filter: true\ngradient_checkpointing: true\nlogging_steps: 5\n",
        [],
        {"logging_nan_inf_filter": "True", "gradient_checkpointing": "True", "logging_steps": "5"},
    ),
    "words with commas": (
        START + "method: dpo\nloss_type: sigmoid, sft\nloss_weights: 1,0.2\n",
        [],
        {"loss_type": "['sigmoid', 'sft']", "loss_weights": "[1.0, 0.2]"},
    ),
    "one word of a list": (START + "method: dpo\nloss_type: ipo\n", [], {"loss_type": "['ipo']"}),
    "weights of rewards": (
        START + "method: grpo\nreward_functions: ends,exact_match\nreward_weights: [1, 0]\n",
        [],
        {"reward_weights": "[1.0, 0.0]", "reward_functions": "ends,exact_match"},
    ),
    "targets of LoRA": (
        START + "use_peft: true\nlora_target_modules: q_proj,v_proj\n",
        [],
        {"lora_target_modules": "['q_proj', 'v_proj']"},
    ),
    "all targets": (START + "lora_target_modules: all-linear\n", [], {"lora_target_modules": "all-linear"}),
    "tracking": (START + "report_to: trackio\n", [], {"report_to": "['trackio']"}),
    "blocks for pretraining": (START + "method: pretrain\n", [], {"packing": "True", "packing_strategy": "wrapped"}),
    "kernels that are not there": (START + "use_liger_kernel: true\n", [], {"use_liger_kernel": "False"}),
    "LoRA by one key": (START + "use_peft: true\n", [], {"use_peft": "True"}),
}


def table_rows() -> list[dict[str, Any]]:
    return yaml.safe_load((ROOT / "bot" / "brain" / "recipes.yaml").read_text())["rows"]


def script_of(recipe: str) -> Path:
    """The script that a recipe's method names; SFT's for a method that nobody knows."""
    match = METHOD.search(recipe)
    path = SCRIPTS / f"{match[1]}.py" if match else SFT
    return path if path.is_file() else SFT


@pytest.fixture(scope="session")
def outcomes(tmp_path_factory: pytest.TempPathFactory, warm: Warm) -> dict[str, dict[str, Any]]:
    cases: dict[str, dict[str, Any]] = {}
    for name, (recipe, flags, rows, _) in REFUSED.items():
        cases[name] = {"recipe": recipe, "flags": flags, "rows": rows}
    for name, (recipe, flags, _) in ACCEPTED.items():
        cases[name] = {"recipe": recipe, "flags": flags}
    for row in table_rows():
        cases[row["source"]] = {"recipe": START + yaml.safe_dump(row["recipe"] | {"method": row["method"]})}
    for method in METHODS:
        cases[f"defaults of {method}"] = {"recipe": f"{START}method: {method}\n"}
    for case in cases.values():
        case["script"] = str(script_of(case["recipe"]))
    folder = tmp_path_factory.mktemp("recipes")
    (folder / "cases.json").write_text(json.dumps(list(cases.values())))
    driver = Path(__file__).with_name("recipe_driver.py")
    done = run_warm(warm, driver, folder / "cases.json", folder / "outcomes.json", cwd=folder)
    assert done.returncode == 0, done.output
    return dict(zip(cases, json.loads((folder / "outcomes.json").read_text()), strict=True))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", REFUSED)
def test_bad_recipe_ends_with_code_2_and_one_line(outcomes: dict[str, dict[str, Any]], name: str) -> None:
    found = outcomes[name]
    assert found["code"] == 2
    lines = found["stderr"].strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("train.py: ")
    assert REFUSED[name][3] in lines[0]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ACCEPTED)
def test_recipe_is_read_as_meant(outcomes: dict[str, dict[str, Any]], name: str) -> None:
    found = outcomes[name]
    assert found["code"] == 0, found
    for key, value in ACCEPTED[name][2].items():
        assert found["values"][key] == value


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "row", table_rows(), ids=lambda row: f"{row['method']}-{row['family']}-{'lora' if row['peft'] else 'full'}"
)
def test_every_row_of_the_recipe_table_is_accepted(outcomes: dict[str, dict[str, Any]], row: dict[str, Any]) -> None:
    assert outcomes[row["source"]]["code"] == 0, outcomes[row["source"]]
    assert row["peft"] == row["recipe"].get("use_peft", False)
    assert row["source"].startswith("measured: ") or "https://" in row["source"]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("method", METHODS)
def test_rate_of_a_silent_recipe_is_what_the_playbook_takes_it_for(
    outcomes: dict[str, dict[str, Any]], method: str
) -> None:
    found = outcomes[f"defaults of {method}"]
    assert found["code"] == 0, found
    assert float(found["values"]["learning_rate"]) == default_rate({"method": method})


@pytest.mark.timeout(300)
@pytest.mark.parametrize("method", METHODS)
def test_keys_that_only_some_scripts_take_are_those_of_the_playbooks_table(
    outcomes: dict[str, dict[str, Any]], method: str
) -> None:
    taken = outcomes[f"defaults of {method}"]["values"].keys()
    assert {key for key in ONLY_OF if key in taken} == {key for key, methods in ONLY_OF.items() if method in methods}
    changed = {key for key in DEFAULT_RECIPE_KEYS if key not in ONLY_OF}
    assert changed <= taken, "every script takes what is not in the table"


@pytest.mark.parametrize("path", training_scripts(), ids=lambda path: path.stem)
def test_header_names_the_environment_of_the_project(path: Path) -> None:
    header = path.read_text().split("# ///\n")[0]
    project = (ROOT / "pyproject.toml").read_text()
    for requirement in ("torch>=2.13,<2.14", "trl>=1.16,<2", "peft>=0.21"):
        assert f'"{requirement}"' in header and f'"{requirement}"' in project
