"""`postdoc reproduce` on the runs that a real bot committed: its three verdicts, and every reason to refuse."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from bot.cli import run
from bot.domain.goal import digest_of
from bot.domain.recipe import recipe_hash
from bot.domain.reproduction import Outcome, ReproductionReport
from bot.errors import UserError
from bot.loop import rerun
from bot.loop.rerun import Bench, reproduce
from bot.loop.surroundings import environment_here
from tests.fakes.runner import ScriptedRunner
from tests.loop.test_spending import serving
from tests.world import POLICY, REPOSITORY

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
]  # the one pursuit that they share is begun by whichever comes first

GOAL = "experiments/0001-reverse"
SAME: dict[str, dict[str, Any]] = {"train-02": {"curve": "good"}, "evaluate-02": {"value": 0.97}}
"""Run 2 as it was."""


@pytest.fixture(scope="module")
def pursued(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of the repository after a pursuit that met its goal, its models, and the bot's data folder."""
    folder = tmp_path_factory.mktemp("pursued")
    with serving(folder / "world", POLICY) as world:
        issue = world.open_goal()
        assert world.until_ended(issue, 300) == "met"
        branch = world.pulls()[0]["head"]["ref"]
        git = str(world.forge.repository(REPOSITORY).git.path)
        subprocess.run(["git", "clone", "--quiet", "--branch", branch, git, str(folder / "clone")], check=True)
    shutil.copytree(folder / "world" / "models", folder / "models")
    shutil.copytree(folder / "world" / "data" / "goals", folder / "data" / "goals")
    shutil.copytree(folder / "world" / "data" / "scripts", folder / "data" / "scripts")
    return folder


@pytest.fixture
def place(pursued: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return Path(shutil.copytree(pursued, tmp_path / "place"))


def bench(place: Path, script: dict[str, dict[str, Any]]) -> tuple[Bench, ScriptedRunner, list[str]]:
    runner = ScriptedRunner(place / "runner")
    runner.script(script)
    told: list[str] = []
    return Bench(runner, (place / "models",), place / "inputs", notice=told.append), runner, told


def again(place: Path, script: dict[str, dict[str, Any]] = SAME, folder: str = f"clone/{GOAL}/runs/02") -> Any:
    return reproduce(place / folder, bench(place, script)[0])


def edited(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a JSON file of a run."""
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))


def renamed(runs: Path, name: str) -> None:
    """Make run.json name a file of the run as it is now, as somebody thorough would."""
    digest = hashlib.sha256((runs / name).read_bytes()).hexdigest()
    edited(runs / "run.json", lambda run: run["files"].update({name: digest}))


def test_same_numbers_are_bitwise_and_every_difference_is_told_before(place: Path) -> None:
    setting, runner, told = bench(place, SAME)
    report = reproduce(place / "clone" / GOAL / "runs" / "02", setting)
    assert (report.verdict, report.first, report.items_differing) == (Outcome.BITWISE, "", 0)
    assert report.comparison is not None and report.comparison.difference == 0
    assert any(line.startswith("not the same here: torch: 2.13.0 then, ") for line in told) or any(
        "trl: 1.16.0 then" in line for line in told
    )
    assert [job.split("-")[1] for job in runner.launches()] == ["data", "train", "evaluate"]
    spec = json.loads((runner.root / runner.launches()[1] / "spec.json").read_text())
    assert spec["caps"]["cpu_threads"] == 1 and spec["trusted"]


def test_the_bots_own_folder_of_the_run_will_do(place: Path) -> None:
    [goal] = (place / "data" / "goals").iterdir()
    assert again(place, folder=f"data/goals/{goal.name}/runs/02").verdict is Outcome.BITWISE


def test_value_that_cannot_be_told_apart_is_within_seed_noise(place: Path) -> None:
    report = again(place, SAME | {"evaluate-02": {"value": 0.98, "weights": "e" * 64}})
    assert report.verdict is Outcome.WITHIN_NOISE
    assert report.comparison.ci_low < 0 < report.comparison.ci_high


def test_worse_value_is_not_reproduced(place: Path) -> None:
    report = again(place, {"train-02": {"curve": "flat"}, "evaluate-02": {"value": 0.3, "weights": "e" * 64}})
    assert report.verdict is Outcome.NOT_REPRODUCED
    assert (report.curve.first_step, report.curve.apart) == (1, True)


def test_training_set_that_comes_out_otherwise_is_not_trained_on(place: Path) -> None:
    rows = [{"prompt": "other", "completion": "rows"}]
    setting, runner, _ = bench(place, SAME | {"data-02": {"rows": rows}})
    report: ReproductionReport = reproduce(place / "clone" / GOAL / "runs" / "02", setting)
    assert report.verdict is Outcome.NOT_REPRODUCED
    assert report.first.startswith("training data (SHA-256): ")
    assert len(runner.launches()) == 1


# --- Attacks ----------------------------------------------------------------------------------------------------------


def test_scores_edited_with_care_are_unmasked_by_the_weights(place: Path) -> None:
    runs = place / "clone" / GOAL / "runs" / "02"

    def flatter(found: dict[str, Any]) -> None:
        for sample in found["samples"]:
            sample["score"] = 1.0
        found["value"] = 1.0

    edited(runs / "evaluation.json", flatter)
    renamed(runs, "evaluation.json")
    edited(runs / "run.json", lambda run: run["score"].update(value=1.0))
    report = again(place)
    assert report.verdict is Outcome.NOT_REPRODUCED
    assert "6 items have other scores: the recorded scores are not what these weights get" in report.first


def test_curve_edited_with_care_is_unmasked_by_the_weights(place: Path) -> None:
    runs = place / "clone" / GOAL / "runs" / "02"
    edited(runs / "curve.json", lambda curve: curve["loss"][40].__setitem__(1, 9.9))
    renamed(runs, "curve.json")
    report = again(place)
    assert report.verdict is Outcome.NOT_REPRODUCED
    assert "the loss differs from step 41 on: the recorded curve is not this run's" in report.first


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        (
            "evaluation.json",
            lambda found: found.update(value=1.0),
            "evaluation.json is not the file that",
        ),
        ("curve.json", lambda found: found.update(loss=[]), "curve.json is not the file that the run wrote"),
        ("run.json", lambda found: found["score"].update(value=1.0), "contradict each other: the score is 1.0"),
        ("run.json", lambda found: found.update(recipe="learning_rate: 1\n"), "run.json contradicts itself"),
        ("run.json", lambda found: found.update(recipe=":\n\t- ["), "The recipe in"),
        ("run.json", lambda found: found["scripts"].update({"train.py": "0" * 64}), "run.json contradicts itself"),
        ("run.json", lambda found: found.update(form=1), "was not written in form 2"),
        ("run.json", lambda found: found.pop("environment"), "lacks environment"),
        ("run.json", lambda found: found["data"]["sources"][0].update(path="../x"), "names the path '../x'"),
        ("run.json", lambda found: found["scripts"].update({"/etc/x": "0"}), "names the path '/etc/x'"),
        ("run.json", lambda found: found["data"].update(sources=["x"]), "is not as Postdoc writes it"),
        ("run.json", lambda found: found.update(score=None, failure="oom"), "was never evaluated (oom)"),
        (
            "run.json",
            lambda found: found["environment"]["libraries"].update({"trl": "1.16.0", "peft-x": "1"}),
            "",
        ),
        (
            "run.json",
            lambda found: found["evaluator"].update(versions={"torch": "1.0.0"}),
            "The evaluator would be another one (torch is ",
        ),
        ("run.json", lambda found: found["evaluator"].update(bundle="0"), "is not the one that measured the run"),
        ("run.json", lambda found: found["environment"].update(gpus=["NVIDIA H100"]), "this machine has no GPU"),
        ("run.json", lambda found: found["place"].update(gpus=8), "trained on several GPUs together"),
        ("run.json", lambda found: found.update(base_model="acme/gone"), "There is no base model `acme/gone`"),
    ],
)
def test_edited_record_is_refused_before_anything_runs(
    place: Path, name: str, change: Callable[[dict[str, Any]], object], words: str
) -> None:
    edited(place / "clone" / GOAL / "runs" / "02" / name, change)
    if not words:  # a library more in the record than the script needs is a difference, no reason to refuse
        assert again(place).verdict is Outcome.BITWISE
        return
    setting, runner, _ = bench(place, SAME)
    with pytest.raises(UserError) as raised:
        reproduce(place / "clone" / GOAL / "runs" / "02", setting)
    assert words in str(raised.value)
    assert runner.launches() == []


def test_missing_library_is_named_with_its_version(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = environment_here
    monkeypatch.setattr(rerun, "environment_here", lambda runner: here(runner) | {"libraries": {"torch": "2.13.0"}})
    with pytest.raises(UserError, match=r"uv pip install 'trl==1.16.0'"):
        again(place)


def test_changed_prepare_is_taken_from_the_commit_and_refused_where_there_is_none(place: Path) -> None:
    for path in ("data/prepare.py", "train.py"):
        (place / "clone" / GOAL / path).write_text("print('mine')\n")
    assert again(place).verdict is Outcome.BITWISE
    own = place / "clone" / GOAL / "runs" / "02"
    # A script that is neither here nor in the commit, nor ships with this version.
    facts = json.loads((own / "run.json").read_text())
    digest = hashlib.sha256(b"theirs").hexdigest()
    scripts = facts["scripts"] | {"data/prepare.py": digest}
    hashed = recipe_hash(yaml.safe_load(facts["recipe"]), script_digest=digest_of(scripts))
    edited(own / "run.json", lambda run: run.update(scripts=scripts, recipe_hash=hashed))
    with pytest.raises(UserError, match=rf"`{GOAL}/data/prepare.py` is not what runs/02 was made from"):
        again(place)


def test_data_that_is_not_here_any_more_is_refused(place: Path) -> None:
    shutil.rmtree(place / "clone" / ".git")
    assert again(place).verdict is Outcome.BITWISE
    (place / "clone" / "data" / "train.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match=r"`data/train.jsonl` is not what runs/02 was made from .* `git fetch origin "):
        again(place)
    (place / "clone" / "data" / "train.jsonl").unlink()
    with pytest.raises(UserError, match=r"`data/train.jsonl` is not here, and commit"):
        again(place)


def test_other_base_model_is_refused(place: Path) -> None:
    with (place / "models" / "postdoc" / "tiny-test" / "model.safetensors").open("ab") as file:
        file.write(b"x")
    with pytest.raises(UserError, match="has other weights than the run started from"):
        again(place)


def test_command_says_in_one_line_what_is_wrong(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["reproduce", str(place)]) == 2
    said = capsys.readouterr().err
    assert f"There is no {place / 'run.json'}" in said and "Traceback" not in said
    assert run(["reproduce", str(place / "clone" / GOAL / "runs" / "02"), "--require", "well"]) == 2
    assert "--require reproduced" in capsys.readouterr().err
