"""Mode `train` by hand asks what the bot asks: rows and scripts free of the benchmark's items, licences that fit, and
weights that descend from the base."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from actions import checking
from actions.recipes import read_recipe
from actions.request import Mode, Request
from bot.errors import UserError
from tests.actions.conftest import TEMPLATES, Place
from tests.actions.stepper import JobRun
from tests.actions.test_train import RECIPE, SCRIPT, STEP, WELL, experiment, isolated
from tests.fakes.hub import FakeHub
from tests.fakes.hub_models import Model
from tests.fakes.weights import random_model, trained, write_adapter, write_model

BENCHMARK = "benchmarks/ours.yaml"
OURS = """\
description: Facts about harbours.
licence: cc0-1.0
items: {file: ours.jsonl, reference: answer, join: {file: answers.jsonl, key: id}}
prompt: "{{question}}"
splits: {dev: {n: 20}, sealed: {n: 20}}
"""
QUESTIONS = [
    f"Which of the two piers of harbour number {n} was rebuilt in brick after the great storm of that winter?"
    for n in range(60)
]
ITEMS = {
    BENCHMARK: OURS,
    "benchmarks/ours.jsonl": "".join(json.dumps({"id": n, "question": q}) + "\n" for n, q in enumerate(QUESTIONS)),
    "benchmarks/answers.jsonl": "".join(
        json.dumps({"id": n, "answer": f"the {n}th pier on the eastern side"}) + "\n" for n in range(60)
    ),
}


def rows(*prompts: str) -> str:
    return "".join(json.dumps({"prompt": prompt, "completion": "the eastern one"}) + "\n" for prompt in prompts)


CLEAN = rows(*(f"{n} + 1" for n in range(64)))


def training(folder: Path, files: Mapping[str, str], **given: Any) -> Request:
    """A call of the mode in a checkout with these files, outside of any event."""
    checkout = folder / "checkout"
    content = {"experiments/1/recipe.yaml": RECIPE, "data/rows.jsonl": CLEAN, **ITEMS, **files}
    for name, text in content.items():
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text(text)
    (folder / "call" / "artifact").mkdir(parents=True)
    given = {"experiment": "experiments/1", "benchmark": BENCHMARK, **given}
    return Request(Mode.TRAIN, folder / "call", checkout.resolve(), {}, "push", **given)


def data_checked(request: Request, built: str, validation: str = "") -> tuple[checking.Checked, dict[str, Path]]:
    found = {"train.jsonl": built} | ({"validation.jsonl": validation} if validation else {})
    files = {name: request.folder / name for name in found}
    for name, path in files.items():
        path.write_text(found[name])
    base = request.workspace / "models" / "base"
    base.mkdir(parents=True, exist_ok=True)
    return checking.data_checked(request, read_recipe(request), files, base), files


# --- What is trained on -----------------------------------------------------------------------------------------------


def test_item_in_the_rows_fails_a_pull_request_that_has_emptied_its_own_benchmark(place: Place) -> None:
    head = {
        "experiments/1/recipe.yaml": RECIPE, "experiments/1/train.py": SCRIPT + WELL, "models/base/config.json": "{}",
        "data/rows.jsonl": CLEAN + rows(QUESTIONS[3]), "benchmarks/ours.jsonl": "{}\n",
        ".github/postdoc.yml": "contamination: drop\n",
    }  # fmt: skip
    place.push(ITEMS)
    place.push(head, branch="change")
    workflow = (TEMPLATES / "postdoc-gate.yml").read_text().replace("mode: gate", "mode: train")
    sandbox = "true" if not isolated(place.folder) else "false"
    workflow = workflow.replace("model: model", f'experiment: experiments/1\n          unsandboxed: "{sandbox}"')
    run = place.run(workflow, "pull_request", place.open_pull("change"), token=place.token(pull_requests="write"))
    assert run.conclusion == "failure", run.log.text
    assert run.step(STEP).outputs["state"] == "failed"
    sentence = "1 of 65 training rows hold items of the benchmark that this goal is measured on. Remove them, or write"
    [told] = [each for each in run.annotations if each.title == "Postdoc train"]
    assert told.message.startswith(sentence) and "`contamination: drop`" in told.message
    assert sentence in run.summary
    assert "Contaminated: 1 of 65 training rows against 40 evaluation items overlap" in run.summary
    assert "job smoke" not in run.log.text and "evaluate base" not in run.log.text
    [match] = json.loads((run.artifact("postdoc-train") / "scan.json").read_text())["scan"]["flagged"]
    assert "match" not in match
    nowhere_told(run, "great storm")


def nowhere_told(run: JobRun, words: str) -> None:
    shown = [path.read_bytes() for path in run.artifact("postdoc-train").rglob("*") if path.is_file()]
    assert words.encode() not in b"".join([*shown, run.log.text.encode(), run.summary.encode()])


def test_item_hidden_in_a_script_is_named_with_its_line(tmp_path: Path) -> None:
    hidden = base64.b64encode(json.dumps({"question": QUESTIONS[5]}).encode()).decode()
    request = training(tmp_path, {"experiments/1/train.py": f"{SCRIPT}\nEXTRA = '{hidden}'\n"})
    found, _ = data_checked(request, CLEAN)
    line = SCRIPT.count("\n") + 2
    assert found.problem.startswith(f"`train.py` line {line} holds the evaluation item")
    assert "hidden by base64" in found.problem


def test_what_was_looked_at_is_told_and_rows_held_out_for_validation_are_scanned_too(tmp_path: Path) -> None:
    found, _ = data_checked(training(tmp_path, {}), CLEAN, CLEAN + rows(QUESTIONS[1]))
    assert found.problem.startswith("1 of 65 rows held out for validation hold items")
    assert found.notes[:3] == (
        "Clean: no overlap found in 64 training rows against 40 evaluation items.",
        "1 of 65 rows held out for validation overlap.",
        "No item in 1 file of the experiment's own.",
    )


def test_policy_that_drops_trains_on_the_other_rows(tmp_path: Path) -> None:
    request = training(tmp_path, {".github/postdoc.yml": "contamination: drop\n"})
    leaked = rows(QUESTIONS[3])
    found, files = data_checked(request, f"{leaked}\n{CLEAN}{leaked}", leaked + CLEAN)
    assert found.problem == ""
    assert "3 rows that overlap are left out, as the policy says." in found.notes
    assert files["train.jsonl"].read_text() == files["validation.jsonl"].read_text() == CLEAN


@pytest.mark.parametrize("source", ["benchmarks", "benchmarks/ours.jsonl", "benchmarks/answers.jsonl", "linked"])
def test_job_that_builds_the_rows_is_never_given_the_benchmarks_own_files(tmp_path: Path, source: str) -> None:
    recipe = RECIPE.replace("data/rows.jsonl", source)
    request = training(tmp_path, {"experiments/1/recipe.yaml": recipe, "linked/clean.jsonl": CLEAN})
    (request.workspace / "linked" / "more.jsonl").symlink_to("../benchmarks/ours.jsonl")
    with pytest.raises(UserError, match=r"holds `benchmarks/.*the benchmark's own items. Name other data"):
        checking.own_items_refused(request, read_recipe(request))


def test_licences_are_judged_where_one_is_stated(tmp_path: Path) -> None:
    cards = {
        "experiments/1/recipe.yaml": RECIPE.replace("data/rows.jsonl", "[data/rows.jsonl, more/rows.jsonl]"),
        "models/base/README.md": "---\nlicense: llama3.1\n---\n", "more/README.md": "No card.\n",
        "data/README.md": "---\nlicense: cc-by-sa-4.0\n---\n", "more/rows.jsonl": CLEAN,
    }  # fmt: skip
    found, _ = data_checked(training(tmp_path / "a", cards), CLEAN)
    assert "`llama3.1`" in found.problem and "`cc-by-sa-4.0`" in found.problem
    assert "licences: {allowed: [llama3.1, cc-by-sa-4.0]}" in found.problem
    assert any("No licence that is known is stated for the training data" in note for note in found.notes)
    cards |= {".github/postdoc.yml": "licences: {allowed: [llama3.1, cc-by-sa-4.0]}\n"}
    found, _ = data_checked(training(tmp_path / "b", cards), CLEAN)
    assert found.problem == ""


def test_rows_that_a_run_made_for_itself_are_scanned_too(tmp_path: Path) -> None:
    request = training(tmp_path, {})
    job = tmp_path / "job"
    (job / "out").mkdir(parents=True)
    assert checking.generated_checked(request, job) == checking.Checked()
    (job / "out" / "synthetic.jsonl").write_text(rows("2 + 2", QUESTIONS[7]))
    found = checking.generated_checked(request, job)
    assert found.problem.startswith("1 of 2 training rows hold items")
    assert found.notes[0].startswith("Of the rows that the run made for itself: Contaminated")


# --- What came out ----------------------------------------------------------------------------------------------------

BASE = random_model(0)


def on_the_hub(folder: Path) -> Model:
    return Model(private=False, files={path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()})


def lineage_checked(tmp_path: Path, model: Path, recipe: str = RECIPE, adapter: Path | None = None) -> Any:
    request = training(tmp_path, {"experiments/1/recipe.yaml": recipe})
    base = write_model(tmp_path / "base", BASE)
    found = checking.lineage_checked(request, read_recipe(request), model, base, adapter or tmp_path / "none")
    return found, json.loads((request.artifact / "lineage.json").read_text())


def test_trained_weights_descend_and_a_changed_sampler_is_told(tmp_path: Path) -> None:
    model = write_model(
        tmp_path / "m", trained(BASE, 1, 0.02), files={"generation_config.json": {"eos_token_id": [2, 5]}}
    )
    found, facts = lineage_checked(tmp_path, model)
    assert found.problem == "" and facts["verdict"] == "descends"
    assert found.notes[0].startswith("Lineage: descends. ")
    assert any("eos_token_id" in note and "where an answer ends" in note for note in found.notes)


@pytest.mark.parametrize(("seed", "verdict"), [(0, "equals base"), (9, "not this base")])
def test_weights_that_are_not_trained_from_the_base_do_not_count(tmp_path: Path, seed: int, verdict: str) -> None:
    found, facts = lineage_checked(tmp_path, write_model(tmp_path / "m", random_model(seed)))
    assert found.problem.startswith(f"The trained model's result does not count ({verdict}): ")
    assert facts["verdict"] == verdict


def test_adapter_that_was_trained_and_not_merged_is_named(tmp_path: Path) -> None:
    import numpy as np

    name = "model.layers.0.self_attn.q_proj"
    adapter = write_adapter(tmp_path / "adapter", {name: (np.ones((4, 24)), np.ones((24, 4)))}, alpha=8)
    model = write_model(tmp_path / "m", BASE)
    found, _ = lineage_checked(tmp_path, model, f"{RECIPE}use_peft: true\n", adapter)
    assert "adapter not used" in found.problem


@pytest.mark.slow
def test_published_sibling_of_a_base_of_the_hub_is_known_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sibling = write_model(tmp_path / "sibling", trained(BASE, 2))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    recipe = RECIPE.replace("models/base", "acme/tiny-base")
    with FakeHub().serve() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        hub.models.models["acme/tiny-base"] = on_the_hub(write_model(tmp_path / "there", BASE))
        hub.models.models["acme/tiny-instruct"] = on_the_hub(sibling)
        found, facts = lineage_checked(tmp_path / "a", sibling, recipe)
        assert facts["nearest"]["name"] == "acme/tiny-instruct"
        assert "another published model" in found.problem
        found, _ = lineage_checked(tmp_path / "b", write_model(tmp_path / "m", trained(BASE, 1, 0.02)), recipe)
        assert found.problem == "" and "Published models that it was held against: 1." in found.notes
        hub.models.models.clear()
        found, _ = lineage_checked(tmp_path / "c", sibling, recipe)
        assert any("Not all published models could be looked at: missing." in note for note in found.notes)


def test_base_handed_back_as_trained_fails_the_job_and_has_no_value(place: Place, tmp_path: Path) -> None:
    base = write_model(tmp_path / "the-base", BASE)
    body = "import shutil\nlog(1, 2.0)\nlog(2, 1.0)\nshutil.copytree(given.init_from, out / 'model')\n"
    run = experiment(place, body, RECIPE.replace("models/base", str(base)))
    assert run.conclusion == "failure", run.log.text
    outputs = run.step(STEP).outputs
    assert (outputs["state"], outputs["value"], outputs["model"]) == ("failed", "", "")
    assert "does not count (equals base): Every weight is the base model's" in run.summary
    assert (run.artifact("postdoc-train") / "report.md").read_text().strip() == run.summary.strip()


# --- The command ------------------------------------------------------------------------------------------------------


def test_check_data_says_in_its_exit_code_whether_anything_forbids_training(tmp_path: Path) -> None:
    from bot.cli import run

    (tmp_path / "rows.jsonl").write_text(rows("reverse pdok", "something else entirely"))
    words = ["check-data", "--train", str(tmp_path / "rows.jsonl"), "--benchmark", "practice/reverse"]
    assert run([*words, "--seed", "1"]) == 0
    (tmp_path / "torn.jsonl").write_text('{"prompt": "a"}\n[1]\n')
    done = [run([*words[:2], str(tmp_path / name), *words[3:]]) for name in ("torn.jsonl", "none.jsonl")]
    assert done == [2, 2]
