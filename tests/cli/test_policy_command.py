"""`postdoc policy`: what a file grants, what is wrong in it, and its schema; and a wrong server policy at start-up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bot.cli import run
from bot.conversation.policy import policy_schema
from bot.practice.auth import new_key_pair


def test_policy_says_what_a_file_grants(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "postdoc.yml"
    path.write_text("consent: {auto_approve: {runs: 2, gpu_hours: 1}}\n")
    assert run(["policy", str(path)]) == 0
    assert "Granted without asking, per goal: up to 2 runs, 1 GPU hour and 0 USD." in capsys.readouterr().out


def test_policy_names_every_mistake_with_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "postdoc.yml"
    path.write_text("budget:\n  usd: lots\nx: 1\n")
    assert run(["policy", str(path)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" ")[1] for line in lines] == [f"{path}:2:3", f"{path}:3:1"]


def test_policy_that_is_not_there_and_the_schema(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["policy"]) == 2
    assert ".github/postdoc.yml: No such file" in capsys.readouterr().err
    assert run(["policy", "--schema"]) == 0
    assert json.loads(capsys.readouterr().out) == policy_schema()


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("POLICY_FILE", "nowhere.yml", "POSTDOC_POLICY_FILE: nowhere.yml: No such file"),
        ("PUBLIC_URL", "postdoc.example.org", "POSTDOC_PUBLIC_URL"),
        ("PUBLIC_URL", "https://example.org/?token=x", "POSTDOC_PUBLIC_URL"),
        ("ONBOARDING", "perhaps", "POSTDOC_ONBOARDING"),
        ("ONBOARDING_PER_HOUR", "0", "POSTDOC_ONBOARDING_PER_HOUR"),
    ],
)
def test_wrong_setting_is_one_line_and_exit_code_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    value: str,
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    given = {
        "APP_ID": "1", "PRIVATE_KEY": new_key_pair()[0], "WEBHOOK_SECRET": "a-secret-for-webhooks",
        "DATA_FOLDER": str(tmp_path / "data"), "PORT": "0",
    }  # fmt: skip
    for key, each in (given | {name: value}).items():
        monkeypatch.setenv(f"POSTDOC_{key}", each)
    assert run(["serve"]) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1
