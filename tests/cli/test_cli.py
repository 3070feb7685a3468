"""The command's words: exit codes, one-line errors, JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import bot.doctor
from bot import cli
from bot.cli.common import FAILED, INTERRUPTED, WRONG_WORDS
from bot.domain.evaluation import Evaluation, Sample

ROOT = Path(__file__).resolve().parents[2]


def complaint(arguments: list[str], capsys: pytest.CaptureFixture[str], code: int = WRONG_WORDS) -> str:
    """The one line on stderr of a command that must end with `code` and print nothing else."""
    assert cli.run(arguments) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1, captured.err
    assert captured.err.startswith("postdoc: ")
    return captured.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--nonsense"], "No such option: --nonsense"),
        (["dance"], "No such command 'dance'"),
        (["diagnose"], "Missing argument 'DIR'"),
        (["diagnose", "/nowhere/at/all"], "/nowhere/at/all"),
        (["compare", "/nowhere/a.json", "/nowhere/b.json"], "/nowhere/a.json cannot be read"),
        (["scan", "--train", "/nowhere/t.jsonl", "--eval", "/nowhere/e.jsonl"], "/nowhere/e.jsonl"),
        (["evaluate", "--model", "/", "--benchmark", "practice/reverse"], "no config.json"),
        (["evaluate", "--model", "/", "--benchmark", "practice/revers"], "Did you mean"),
        (["evaluate", "--model", "/", "--benchmark", "practice/reverse", "--split", "train"], "write dev or sealed"),
        (["demo", "--goal", "3"], "'--goal'"),
        (["demo", "--seed", "-1"], "'--seed'"),
        (["demo", "--require", "everything"], "write `--require met`"),
        (["demo", "--json", "/nowhere/at/all.json"], "there is no folder /nowhere/at"),
        (["doctor", "--json", "/nowhere/at/all.json"], "there is no folder /nowhere/at"),
        (["pursue", "raise it", "--runner", "moon"], "no runner `moon`"),
        (["pursue", " "], "Write the goal"),
        (["pursue", "/nowhere/goal.yaml"], "/nowhere/goal.yaml cannot be read"),
    ],
)
def test_wrong_words_are_one_line_and_exit_code_two(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in complaint(arguments, capsys)


def test_demo_into_a_folder_with_files_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    assert "is not empty" in complaint(["demo", "--folder", str(tmp_path)], capsys)
    assert (tmp_path / "mine.txt").read_text() == "keep me"


def test_pursue_outside_a_git_repository_says_how_to_make_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert "git init" in complaint(["pursue", "raise postdoc/tiny-qwen3 on practice/last to 90 %"], capsys)


def test_pursue_of_a_wrong_goal_file_names_every_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    goal = tmp_path / "goal.yaml"
    goal.write_text("base_model: a/b\nbenchmark: practice/revers\ntarget: 190 %\n")
    said = complaint(["pursue", str(goal)], capsys)
    assert "practice/reverse" in said
    assert "target" in said.lower()


def test_serve_without_settings_names_the_first_missing_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in os.environ if name.startswith("POSTDOC_")]:
        monkeypatch.delenv(name)
    assert "POSTDOC_APP_ID is not set" in complaint(["serve"], capsys)


def test_bug_is_one_line_with_its_log_and_exit_code_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> list[Any]:
        raise RuntimeError("the roof is on fire")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(bot.doctor, "examination", broken)
    said = complaint(["doctor"], capsys, FAILED)
    log = Path(said.split("see ")[1].strip())
    assert log.is_relative_to(tmp_path)
    assert "the roof is on fire" in log.read_text()
    assert "Traceback" not in said


def test_interruption_is_exit_code_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> list[Any]:
        raise KeyboardInterrupt

    monkeypatch.setattr(bot.doctor, "examination", interrupted)
    assert cli.run(["doctor"]) == INTERRUPTED


def test_no_command_prints_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([]) == 0
    said = capsys.readouterr().out
    for command in ("demo", "pursue", "serve", "doctor", "evaluate", "diagnose", "scan", "compare"):
        assert f"\n  {command} " in said


@pytest.mark.parametrize(
    "command", ["demo", "pursue", "serve", "doctor", "evaluate", "diagnose", "scan", "compare"]
)  # fmt: skip
def test_help_of_each_command_is_printed(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([command, "--help"]) == 0
    assert f"postdoc {command}" in capsys.readouterr().out


def test_command_starts_without_loading_anything_heavy() -> None:
    heavy = "{'torch', 'transformers', 'trl', 'datasets', 'dbos', 'fastapi', 'httpx', 'rich.console', 'yaml', 'jwt'}"
    code = f"import sys, bot.cli; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bot", "--version"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("postdoc ")


def evaluation(path: Path, scores: list[float]) -> str:
    samples = tuple(Sample(f"{index:016x}", score) for index, score in enumerate(scores))
    value = sum(scores) / len(scores)
    found = Evaluation(
        "practice/reverse", "d" * 64, "m", "exact_match", value, 0.03, len(scores), "dev", samples=samples
    )
    path.write_text(json.dumps(found.as_dict()))
    return str(path)


def test_compare_prints_the_published_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = evaluation(tmp_path / "a.json", [0.0] * 60 + [1.0] * 40)
    b = evaluation(tmp_path / "b.json", [1.0] * 60 + [1.0] * 40)
    assert cli.run(["compare", a, b, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == [
        "difference", "ci_low", "ci_high", "p_value", "n", "discordant", "verdict", "minimum_detectable", "n_needed",
    ]  # fmt: skip
    assert (found["verdict"], found["discordant"]) == ("better", [0, 60])
    assert cli.run(["compare", b, a]) == 0
    assert capsys.readouterr().out.startswith("worse: B minus A is -60.0 points")


def test_scan_writes_the_published_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    question = "how many letters are there in the longest word of this unusual sentence"
    (tmp_path / "eval.jsonl").write_text(json.dumps({"prompt": question, "reference": "eight"}) + "\n")
    (tmp_path / "train.jsonl").write_text(json.dumps({"prompt": question, "completion": "eight"}) + "\n")
    words = ["scan", "--train", str(tmp_path / "train.jsonl"), "--eval", str(tmp_path / "eval.jsonl")]
    assert cli.run([*words, "--json", str(tmp_path / "scan.json")]) == 0
    found = json.loads((tmp_path / "scan.json").read_text())
    assert list(found) == ["rows", "flagged", "unscannable", "verdict", "seconds", "bytes"]
    assert found["verdict"] == "contaminated"
    assert capsys.readouterr().out.startswith("Contaminated")


def test_diagnose_tells_symptom_line_and_value(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "recipe.yaml").write_text("method: sft\nlearning_rate: 2.0e-05\nmax_steps: 100\n")
    steps = [{"step": step, "loss": 5.0, "learning_rate": 2e-5, "grad_norm": 1.0} for step in range(1, 101)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in steps))
    assert cli.run(["diagnose", str(tmp_path), "--json", "-"]) == 0
    captured = capsys.readouterr()
    first = json.loads(captured.out)["diagnoses"][0]
    assert (first["symptom"], first["line"], first["key"]) == ("plateau", 2, "learning_rate")
    assert "recipe.yaml:2 learning_rate" in captured.err
    assert f"try learning_rate: {first['suggested']}" in captured.err


def test_doctor_json_lists_findings_and_never_a_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HF_TOKEN", "hf_thisisasecret")
    monkeypatch.setenv("POSTDOC_WEBHOOK_SECRET", "another-secret-value")
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    assert cli.run(["doctor", "--json", "-"]) == 0
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    found = {finding["name"]: finding for finding in report["findings"]}
    assert found["HF_TOKEN"]["detail"] == "present"
    assert found["ANTHROPIC_API_KEY"]["detail"] == "absent"
    assert found["tiny base model"]["ok"] is False
    assert "POSTDOC_APP_ID" in found["GitHub App"]["advice"]
    assert {"gpu", "git", "disk", "memory", "training environment"} <= set(found)
    assert report["sandbox_tier"] in ("bubblewrap+cgroup", "bubblewrap+rlimits", "plain")
    for text in (captured.out, captured.err):
        assert "thisisasecret" not in text
        assert "another-secret-value" not in text
    for finding in report["findings"]:
        assert finding["ok"] or finding["advice"], f"{finding['name']} is missing and nothing says what to do"
