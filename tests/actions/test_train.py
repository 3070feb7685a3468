"""Mode `train` by hand: real jobs of a script that needs no library, so that what goes wrong can be made to."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest

from actions.recipes import Recipe, base_model, read_recipe, source_files
from actions.request import Mode, Request
from bot.domain.scripts import PREPARE, data_files
from bot.errors import UserError
from runners.local import LocalRunner
from runners.tier import Tier
from tests.actions.conftest import TEMPLATES, Place
from tests.actions.stepper import JobRun
from tests.actions.tracked import command_lines_with, now_ticks

EXPERIMENT = TEMPLATES / "postdoc-experiment.yml"
STEP = "OWNER/postdoc@0000000000000000000000000000000000000000"
RECIPE = "# of ours\nlearning_rate: 5.0\nmax_length: 64\ndata_sources: data/rows.jsonl\ninit_from: models/base\n"
ROWS = "".join(json.dumps({"prompt": f"{i} + 1", "completion": str(i + 1)}) + "\n" for i in range(64))
SCRIPT = """\
import argparse, json, os, pathlib, sys, time
parser = argparse.ArgumentParser()
for name in ("config", "init_from", "train_file", "validation_file", "output_dir"):
    parser.add_argument(f"--{name}")
parser.add_argument("--smoke", action="store_true")
given = parser.parse_args()
out = pathlib.Path(given.output_dir)
out.mkdir(parents=True, exist_ok=True)
rows = open(given.train_file).read().splitlines()
assert (pathlib.Path(given.init_from) / "config.json").is_file()
def log(step, loss, norm=1.0):
    with open(out / "metrics.jsonl", "a") as file:
        file.write(json.dumps({"step": step, "loss": loss, "grad_norm": norm}) + chr(10))
def save():
    (out / "model").mkdir()
    (out / "model" / "config.json").write_text("{}")
    (out / "model" / "weights").write_text(str(len(rows)))
"""
WELL = "for step in range(1, 21):\n    log(step, 2.0 / step)\nsave()\n"


def experiment(place: Place, body: str, recipe: str = RECIPE, files: dict[str, str] | None = None) -> JobRun:
    place.push(
        {
            "experiments/1/recipe.yaml": recipe, "experiments/1/train.py": SCRIPT + textwrap.dedent(body),
            "data/rows.jsonl": ROWS, "models/base/config.json": "{}", **(files or {}),
        }
    )  # fmt: skip
    workflow = EXPERIMENT.read_text().replace("mode: train", 'mode: train\n          usd-per-hour: "3600"')
    if not isolated(place.folder):
        workflow = workflow.replace("mode: train", "mode: train\n          unsandboxed: true")
    return place.run(workflow, "workflow_dispatch", {"inputs": {"experiment": "experiments/1"}})


def isolated(folder: Path) -> bool:
    return LocalRunner(folder / "probe").tier is not Tier.PLAIN


def test_run_that_goes_well_has_model_curve_cost_and_report(place: Place) -> None:
    run = experiment(place, WELL)
    assert run.conclusion == "success", run.log.text
    outputs = run.step(STEP).outputs
    assert (outputs["state"], outputs["value"], outputs["verdict"]) == ("succeeded", "", "")
    assert float(outputs["cost"]) > 0
    kept = run.artifact("postdoc-train")
    assert (kept / "model" / "weights").read_text() == "64"
    assert len((kept / "metrics.jsonl").read_text().splitlines()) == 20
    assert (kept / "recipe.yaml").read_text() == RECIPE
    assert run.summary.count("```mermaid") == 1
    assert "`loss` from 2 (step 1) to 0.1 (step 20) █" in run.summary
    assert (kept / "report.md").read_text().strip() == run.summary.strip()
    assert json.loads((kept / "result.json").read_text())["state"] == "succeeded"
    assert "nothing was scanned" in run.summary and "into `benchmark`" in run.summary
    assert "Lineage not checked: The base model's weights cannot be read" in run.summary
    assert not (kept / "scan.json").exists()


def test_crash_uploads_what_there_is_and_says_why(place: Place) -> None:
    run = experiment(place, "log(1, 2.0)\nif not given.smoke:\n    raise RuntimeError('no such tokenizer')\nsave()\n")
    assert run.conclusion == "failure"
    assert run.step(STEP).outputs["state"] == "failed"
    kept = run.artifact("postdoc-train")
    assert "no such tokenizer" in (kept / "log.txt").read_text()
    assert not (kept / "model").exists()
    assert "no such tokenizer" in run.summary
    assert run.step("Artifact").conclusion == "success"
    [told] = [each for each in run.annotations if each.file]
    assert (told.level, told.file) == ("error", "experiments/1/train.py")


@pytest.mark.slow
def test_failing_smoke_test_never_trains(place: Place) -> None:
    run = experiment(place, "sys.exit('the recipe must change' if given.smoke else 0)\n")
    assert run.conclusion == "failure"
    assert "The smoke test of two steps failed" in run.summary
    assert "##[group]job train" not in run.log.text
    assert "job train" not in run.log.text


def test_monitor_ends_a_run_whose_weights_are_lost_and_blames_the_line(place: Place) -> None:
    forever = "log(1, 2.0)\nif given.smoke: save(); sys.exit()\nfor step in range(2, 6):\n    log(step, 'NaN', 'NaN')\n"
    run = experiment(place, forever + "time.sleep(600)\n")
    assert run.conclusion == "failure"
    assert "Ended by the monitor" in run.summary
    told = [each for each in run.annotations if each.file]
    assert (told[0].level, told[0].file, told[0].line) == ("error", "experiments/1/recipe.yaml", 2)
    assert "nan inf" in told[0].title


def test_preflight_ends_what_cannot_work_before_it_is_trained(place: Place) -> None:
    audit = {"rows": 64, "dropped_rows": 64, "zero_label_rows": 64, "max_length": 64, "truncated_rows": 64,
             "supervised_eos_rows": 0, "token_lengths": {"p50": 90, "p95": 95, "max": 99}}  # fmt: skip
    body = f"open(out / 'data_audit.json', 'w').write(json.dumps({audit!r}))\n" + WELL
    run = experiment(place, body)
    assert run.conclusion == "failure"
    assert "Not trained" in run.summary
    assert "job train" not in run.log.text
    assert [each.level for each in run.annotations if each.line] == ["error"]


def test_log_of_a_script_gives_no_commands_and_keeps_no_secret(place: Place) -> None:
    body = (
        "print('::error file=x,line=1::mine')\nprint('::add-mask::loss')\nprint('::stop-commands::x')\n"
        "print('ghp_Zk3Q9vT7mX2LpR8s' + 'Wc5YdN1fGh4JbE6uAoKi')\nprint(os.environ)\n" + WELL
    )
    run = experiment(place, body)
    assert run.conclusion == "success", run.log.text
    assert [each for each in run.annotations if each.message == "mine"] == []
    assert run.log.masks.isdisjoint({"loss"})
    shown = (
        run.log.text
        + run.summary
        + "".join(path.read_text() for path in run.artifact("postdoc-train").rglob("*") if path.is_file())
    )
    assert "ghp_Zk3Q" not in shown
    assert "GITHUB_" not in (run.artifact("postdoc-train") / "log.txt").read_text()


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (RECIPE.replace("data/rows.jsonl", "hf:acme/rows"), "no path of this repository"),
        (RECIPE.replace("data/rows.jsonl", "../../etc/passwd"), "no path of this repository"),
        (RECIPE.replace("data/rows.jsonl", "leak.jsonl"), "leads out of the checkout"),
        (RECIPE.replace("data/rows.jsonl", "data/none.jsonl"), "there is no data/none.jsonl"),
        (RECIPE.replace("init_from: models/base\n", ""), "init_from is missing"),
        ("learning_rate: [\n", "not valid YAML"),
    ],
)
def test_wrong_recipe_is_refused_in_one_sentence(tmp_path: Path, recipe: str, words: str) -> None:
    secret, checkout = tmp_path / "secret.jsonl", tmp_path / "checkout"
    secret.write_text(ROWS)
    (checkout / "experiments" / "1").mkdir(parents=True)
    (checkout / "experiments" / "1" / "recipe.yaml").write_text(recipe)
    (checkout / "leak.jsonl").symlink_to(secret)
    request = Request(Mode.TRAIN, tmp_path, checkout.resolve(), {}, "push", experiment="experiments/1")
    with pytest.raises(UserError) as refused:
        read_everything(request, model_first="init_from" in words)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def read_everything(request: Request, *, model_first: bool) -> None:
    recipe = read_recipe(request)
    for read in (base_model, source_files) if model_first else (source_files, base_model):
        read(request, recipe)


def recipe_of(folder: Path, files: dict[str, bytes]) -> Recipe:
    """What an experiment with these files is trained by."""
    own = folder / "checkout" / "experiments" / "1"
    for path, content in {"recipe.yaml": b"method: sft\n", **files}.items():
        (own / path).parent.mkdir(parents=True, exist_ok=True)
        (own / path).write_bytes(content)
    checkout = (folder / "checkout").resolve()
    return read_recipe(Request(Mode.TRAIN, folder, checkout, {}, "push", experiment="experiments/1"))


def test_data_is_built_by_scripts_that_belong_together(tmp_path: Path) -> None:
    shipped = {path: file.read_bytes() for path, file in data_files().items()}
    columns = {path: content for path, content in shipped.items() if path != PREPARE}
    older = {"data/columns/__init__.py": b"", "data/columns/older.py": b""}

    def built(name: str, files: dict[str, bytes]) -> tuple[dict[str, bytes], bool]:
        recipe = recipe_of(tmp_path / name, files)
        return {path: file.read_bytes() for path, file in recipe.building.items()}, recipe.trusted

    assert built("nothing", {}) == (shipped, True)
    assert built("all", shipped) == (shipped, True)
    assert built("columns alone", columns) == (shipped, True)
    # What another version committed stays together; its prepare.py alone finds the package where it needs one.
    assert built("other", {PREPARE: b"import columns", **older}) == ({PREPARE: b"import columns", **older}, False)
    assert built("alone", {PREPARE: b"print()"}) == ({PREPARE: b"print()", **columns}, False)
    assert built("changed", shipped | {"data/columns/turns.py": b"import os"})[1] is False
    assert built("more", shipped | {"data/columns/mine.py": b"import os"})[1] is False


def test_package_that_leads_out_of_the_checkout_is_refused(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "turns.py").write_text("secret = 1\n")
    data = tmp_path / "checkout" / "experiments" / "1" / "data"
    data.mkdir(parents=True)
    (data / "columns").symlink_to(elsewhere)
    with pytest.raises(UserError, match="leads out of the checkout"):
        recipe_of(tmp_path, {PREPARE: b"import columns"})


@pytest.mark.slow
def test_refusal_reaches_the_person_as_one_annotation(place: Place) -> None:
    run = experiment(place, WELL, RECIPE.replace("data/rows.jsonl", "hf:acme/rows"))
    assert run.conclusion == "failure"
    assert run.step(STEP).outputs["state"] == "refused"
    [told] = [each for each in run.annotations if each.title == "Postdoc train"]
    assert "no path of this repository" in told.message
    assert "Traceback" not in run.log.text


def test_cancelled_run_ends_its_job_and_keeps_what_there_was(place: Place) -> None:
    body = "log(1, 2.0)\nif given.smoke: save(); sys.exit()\ntime.sleep(600)\n"
    workflow, began = EXPERIMENT.read_text(), now_ticks()
    place.push(
        {
            "experiments/1/recipe.yaml": RECIPE, "experiments/1/train.py": SCRIPT + body, "data/rows.jsonl": ROWS,
            "models/base/config.json": "{}",
        }
    )  # fmt: skip
    if not isolated(place.folder):
        workflow = workflow.replace("mode: train", "mode: train\n          unsandboxed: true")
    machine = place.machine(cancel_when=lambda line: "::group::job train" in line)
    run = place.run(workflow, "workflow_dispatch", {"inputs": {"experiment": "experiments/1"}}, machine=machine)
    assert run.conclusion == "cancelled", run.log.text
    assert run.step("Artifact").conclusion == "success"
    assert "Cancelled" in run.summary
    assert command_lines_with(str(place.folder), began) == []


def test_machine_without_a_sandbox_refuses_scripts_that_did_not_ship(place: Place, tmp_path: Path) -> None:
    if isolated(place.folder):
        pytest.skip("this machine has a sandbox")
    place.push({"experiments/1/recipe.yaml": RECIPE, "experiments/1/train.py": SCRIPT + WELL, "data/rows.jsonl": ROWS,
                "models/base/config.json": "{}"})  # fmt: skip
    run = place.run(EXPERIMENT, "workflow_dispatch", {"inputs": {"experiment": "experiments/1"}})
    assert run.conclusion == "failure"
    assert any("Install bubblewrap" in each.message for each in run.annotations)
