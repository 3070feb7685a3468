"""What a workflow tells its process: each mistake is one sentence, and no secret stays where a job could inherit it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from bot.cli import run
from bot.errors import SettingsError
from bot.serverless.settings import load_respond_settings

TOKEN = "ghs_0123456789abcdef0123456789abcdef0123"
KEY = "an-aged-key-of-the-repository"


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """The environment of a job on GitHub's own machine."""
    for name in list(os.environ):
        if name.startswith(("POSTDOC_", "GITHUB_", "RUNNER_")):
            monkeypatch.delenv(name)
    values = {
        "GITHUB_TOKEN": TOKEN, "GITHUB_REPOSITORY": "Acme/Speller", "GITHUB_RUN_ID": "42",
        "GITHUB_API_URL": "https://github.example.org/api/v3", "RUNNER_TEMP": str(tmp_path),
        "RUNNER_ENVIRONMENT": "github-hosted", "RUNNER_TRACKING_ID": "github_1",
    }  # fmt: skip
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_what_actions_says_is_enough(job: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = load_respond_settings()
    assert (settings.repository, settings.run) == ("Acme/Speller", "run 42")
    assert settings.github_url == "https://github.example.org/api/v3"
    assert settings.machine_is_thrown_away
    assert settings.data_folder == tmp_path / "postdoc-data" / "acme-speller"
    assert TOKEN in settings.secrets()
    assert TOKEN not in repr(settings)


def test_secrets_leave_the_environment_and_jobs_outlive_the_runners_broom(job: pytest.MonkeyPatch) -> None:
    job.setenv("POSTDOC_JOURNAL_KEY", KEY)
    job.setenv("RUNNER_ENVIRONMENT", "self-hosted")
    settings = load_respond_settings(data_folder=Path("kept"), minutes=5)
    assert settings.journal_key is not None
    assert not {"GITHUB_TOKEN", "POSTDOC_JOURNAL_KEY", "RUNNER_TRACKING_ID"} & set(os.environ)
    assert (settings.minutes, settings.data_folder) == (5, Path("kept/acme-speller"))
    assert not settings.machine_is_thrown_away


def test_secret_that_a_repository_does_not_have_is_none(job: pytest.MonkeyPatch) -> None:
    job.setenv("POSTDOC_JOURNAL_KEY", "")
    assert load_respond_settings().journal_key is None


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("GITHUB_TOKEN", "", "GITHUB_TOKEN is not set"),
        ("GITHUB_REPOSITORY", "", "GITHUB_REPOSITORY is not set"),
        ("GITHUB_REPOSITORY", "speller", "POSTDOC_REPOSITORY: write OWNER/NAME"),
        ("POSTDOC_JOURNAL_KEY", "short", "16 characters"),
        ("POSTDOC_MINUTES", "soon", "POSTDOC_MINUTES"),
        ("POSTDOC_RUNNER", "moon", "POSTDOC_RUNNER"),
    ],
)
def test_mistake_is_one_sentence_that_names_the_variable(
    job: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    job.setenv(name, value)
    with pytest.raises(SettingsError, match=words) as caught:
        load_respond_settings()
    assert "\n" not in str(caught.value)
    assert value not in ("short",) or value not in str(caught.value)


def test_command_ends_with_two_and_one_line(
    job: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job.setenv("GITHUB_TOKEN", "")
    assert run(["respond", "--event", str(tmp_path / "none.json"), "--event-name", "issues"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_event_that_nobody_acts_on_needs_no_network(
    job: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    event, result = tmp_path / "event.json", tmp_path / "result.json"
    event.write_text(json.dumps({"action": "starred"}))
    assert run(["respond", "--event", str(event), "--event-name", "watch", "--json", str(result)]) == 0
    assert capsys.readouterr().out == "Ignored: nobody acts on watch starred.\n"
    assert json.loads(result.read_text())["outcome"] == "ignored"
